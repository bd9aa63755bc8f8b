# The options of `services.clan-discovery.agent`.
{ lib, pkgs }:
let
  inherit (lib) mkEnableOption mkOption types;

  # vmagent and vlagent take 0 as no limit.
  size = types.strMatching "[1-9][0-9]*([KMGT]i?B)?";
in
{
  enable = mkEnableOption "the agent, which reads the exporters of this machine and sends their metrics (docs/agents.md)";

  urls = mkOption {
    type = types.listOf (types.strMatching "https?://[^[:space:]\"'\\$%]+");
    default = [ ];
    example = [ "https://push.home.example.org" ];
    description = "The machines that receive. Each of them gets everything.";
  };

  tokenFile = mkOption {
    type = types.nullOr types.str;
    default = null;
    example = "/run/secrets/agent-token";
    description = "The file of the machine's token. systemd reads it as root.";
  };

  caFile = mkOption {
    type = types.nullOr types.str;
    default = null;
    example = "/etc/ssl/clan-ca.pem";
    description = "The CA of the receivers' certificates, readable by every user. Default: the CAs of the system.";
  };

  package = mkOption {
    type = types.package;
    default = pkgs.vmagent or pkgs.victoriametrics;
    defaultText = lib.literalExpression "pkgs.vmagent";
    description = "The package with vmagent.";
  };

  queue.maxDiskUsage = mkOption {
    type = size;
    default = "1GiB";
    description = "Size of the queue of metrics on disk, for each URL. When it is full, the oldest are dropped. At least 512MiB.";
  };

  scrapeInterval = mkOption {
    type = types.str;
    default = "1m";
    description = "How often the agent reads the exporters.";
  };

  logs = {
    enable = mkEnableOption "sending the journal";

    backend = mkOption {
      type = types.enum [
        "victorialogs"
        "loki"
      ];
      default = "victorialogs";
      description = "What stores the logs. vlagent sends to VictoriaLogs, Alloy to Loki.";
    };

    package = mkOption {
      type = types.package;
      default = pkgs.vlagent;
      defaultText = lib.literalExpression "pkgs.vlagent";
      description = "The package with vlagent.";
    };

    retention = mkOption {
      type = types.strMatching "[1-9][0-9]*(h|d|w|y)";
      default = "30d";
      description = "How long journald keeps the entries, and so how long the machine can be away.";
    };

    maxDiskUsage = mkOption {
      type = size;
      default = "1GiB";
      description = "Size of the queue of logs on disk, for each URL. When it is full, the oldest are dropped. At least 512MiB.";
    };
  };

  jobs = mkOption {
    type = types.listOf types.str;
    default = [ ];
    internal = true;
    description = "Exporter types of this machine in the inventory.";
  };

  scrape = mkOption {
    type = types.attrsOf (types.attrsOf types.raw);
    default = { };
    internal = true;
    description = "Scrape config of jobs, merged over that of `settings.jobs`.";
  };

  inventory = mkOption {
    type = types.nullOr types.path;
    default = null;
    internal = true;
    description = "The inventory of a clan, in which this machine is an agent.";
  };
}
