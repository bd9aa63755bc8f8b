# The options of `services.clan-discovery.stack`. `config` is that of the machine.
{ lib, config }:
let
  inherit (lib) mkOption types;
  inherit (config.services.clan-discovery.stack) logs;
  component = what: {
    enable = lib.mkEnableOption what;
  };
  listen = mkOption {
    type = types.str;
    default = "127.0.0.1";
    description = "The address on which it listens.";
  };
in
{
  server = component "a server, which scrapes what this machine declares" // {
    backend = mkOption {
      type = types.enum [
        "prometheus"
        "victoriametrics"
      ];
      default = "prometheus";
      description = "The server's program.";
    };
  };
  exporter = component "node exporter and systemd exporter";
  agent = component "the agent, which sends metrics and logs: services.clan-discovery.agent";
  front = component "a reverse proxy: services.clan-discovery.front";

  logs = component "a store of logs" // {
    backend = mkOption {
      type = types.enum [
        "victorialogs"
        "loki"
      ];
      default = "victorialogs";
      description = "The store of the logs.";
    };
    retention = mkOption {
      type = types.str;
      default = "30d";
      description = "How long it keeps them.";
    };
    port = mkOption {
      type = types.port;
      default =
        {
          loki = 3100;
          victorialogs = 9428;
        }
        .${logs.backend};
      defaultText = lib.literalMD "VictoriaLogs 9428, Loki 3100";
      description = "Its port.";
    };
    listenAddress = listen;
    isDeclared = mkOption {
      type = types.bool;
      default = false;
      internal = true;
      description = "Whether an inventory declares the target.";
    };
  };

  alerting =
    component "Alertmanager, which sends messages about alerts"
    // import ../alerting/words.nix lib
    // {
      listenAddress = listen;
    };

  dashboards =
    component "Grafana with boards"
    // import ../dashboards/words.nix lib
    // {
      datasources = mkOption {
        type = types.listOf (types.attrsOf types.anything);
        default = [ ];
        example = [
          {
            name = "archive";
            type = "prometheus";
            url = "http://archive.example.org:9090";
          }
        ];
        description = ''
          Datasources of Grafana, beside those of this machine's server and store of logs. In a clan: those of every
          machine in the roles server and logs.
        '';
      };
      found = mkOption {
        type = types.listOf (types.attrsOf types.anything);
        internal = true;
        description = "Datasources of the servers and stores that were found.";
      };
      isDeclared = mkOption {
        type = types.bool;
        default = false;
        internal = true;
        description = "Whether an inventory declares the target.";
      };
    };
}
