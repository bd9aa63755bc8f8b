# The options of Alertmanager that the NixOS module and the role `alerting` of the clan service share.
lib:
let
  inherit (lib) mkOption types;
  optional =
    type: example: description:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit description example;
    };
  # Not a path of Nix, which would copy a secret to the store.
  file = types.str;
  receiver =
    severity:
    mkOption {
      type = types.attrsOf types.anything;
      default = { };
      example.webhook_configs = [ { url_file = "/run/secrets/chat-url"; } ];
      description = ''
        Integrations of Alertmanager's receiver `${severity}`${
          lib.optionalString (severity != "info") ", beside mail"
        }. Write secrets as files (`*_file`), which
        systemd reads as root.
      '';
    };
in
{
  mail = {
    to = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "admin@example.org" ];
      description = "Who gets mail about alerts of the severities critical and warning.";
    };
    from = optional types.str "alerts@example.org" "The sender.";
    smarthost = optional types.str "mail.example.org:587" "The mail server, with its port.";
    username =
      optional types.str "alerts@example.org"
        "The user of the mail server. Default: no login.";
    passwordFile =
      optional file "/run/secrets/mail-password"
        "The file of its password, on the machine.";
    requireTls = mkOption {
      type = types.bool;
      default = true;
      description = "Whether the mail server must offer TLS. On port 465, mail is always encrypted.";
    };
  };

  receivers = lib.genAttrs [ "critical" "warning" "info" ] receiver;

  deadMansSwitch = {
    url = optional types.str "https://hc.example.org/ping/monitor" ''
      A URL that gets the alert `Watchdog` all the time, and tells you when it stops.
    '';
    urlFile = optional file "/run/secrets/watchdog-url" "The file of that URL, where it is a secret.";
  };

  peers = mkOption {
    type = types.listOf types.str;
    default = [ ];
    example = [ "backup.example.org:9094" ];
    description = "Other Alertmanagers of the cluster, with their ports. In a clan: those of the role.";
  };
  port = mkOption {
    type = types.port;
    default = 9093;
    description = "The port of Alertmanager.";
  };
  gossipPort = mkOption {
    type = types.port;
    default = 9094;
    description = "The port on which Alertmanagers of a cluster meet.";
  };
  gossipAddress = optional types.str "100.64.0.7" ''
    The IP address at which other Alertmanagers reach this one. Default: in a clan, its address in the clan's network;
    else the first private address that Alertmanager finds.
  '';
  externalUrl =
    optional types.str "https://alerts.example.org"
      "The URL of Alertmanager in messages.";
  grafanaUrl =
    optional types.str "https://grafana.example.org"
      "The URL of Grafana, to which mails link. Default: that of the component dashboards.";
  settings = mkOption {
    type = types.attrsOf types.anything;
    default = { };
    example.global.resolve_timeout = "10m";
    description = ''
      More of Alertmanager's configuration (docs/alerting.md). Sets are merged; lists come before the shipped ones.
    '';
  };
}
