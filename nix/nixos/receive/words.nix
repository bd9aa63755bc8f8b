# The options of the receiving side that the NixOS module and the role `front` of the clan service share.
lib:
let
  inherit (lib) mkOption types;

  optional =
    type: description: example:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit description example;
    };
  limit =
    type: default: description:
    mkOption {
      inherit default description type;
    };
in
{
  kind =
    optional
      (types.enum [
        "nginx"
        "vmauth"
      ])
      ''
        What receives: nginx, or vmauth on a port of its own. Default: nginx if the proxy is nginx, else vmauth.
      ''
      "nginx";

  domain = mkOption {
    type = types.str;
    default = "push";
    example = "push.example.org";
    description = "The domain to which agents send. One without a dot is a name below the proxy's `domain`.";
  };

  port = mkOption {
    type = types.port;
    default = 8427;
    description = "The port of vmauth. nginx receives on its port of https.";
  };

  metrics.url = optional types.str ''
    The VictoriaMetrics or vmagent that gets the metrics. It must not be reachable past the proxy.
  '' "http://127.0.0.1:8428";

  logs = {
    url = optional types.str ''
      The VictoriaLogs or Loki that gets the logs. It must not be reachable past the proxy.
    '' "http://127.0.0.1:9428";
    kind = optional (types.enum [
      "victorialogs"
      "loki"
    ]) "What listens there. Default: victorialogs." "loki";
  };

  tokens = mkOption {
    type = types.attrsOf (types.listOf types.str);
    default = { };
    example.dino = [ "/run/secrets/agent-dino" ];
    description = ''
      Files with the tokens of each agent, by machine. systemd reads them as root. Two tokens of a machine are valid at
      the same time, so that they can be changed (docs/agents.md#tokens).
    '';
  };

  limits = {
    requests =
      limit types.ints.positive 20
        "nginx: requests per second of one machine. Faster ones wait.";
    burst =
      limit types.ints.unsigned 200
        "Requests of one machine beyond that which are let through at once.";
    body = limit types.str "32MiB" "nginx: size of one request, from 1MiB to 1GiB.";
    connections = limit types.ints.positive 8 "Requests of one machine at the same time.";
  };
}
