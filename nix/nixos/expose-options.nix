# One exposed service, for `services.clan-discovery.expose` and the settings of the role `exporter`.
#
# Only types that clan-core can turn into a JSON schema (lib/jsonschema).
lib:
let
  inherit (lib) mkOption types;
  optional =
    type: description:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit description;
    };
  texts =
    description:
    mkOption {
      type = types.attrsOf types.str;
      default = { };
      inherit description;
    };
  schemes = types.enum [
    "http"
    "https"
  ];
  front = types.submodule {
    options = {
      domain = mkOption {
        type = types.str;
        example = "films";
        description = "The domain. Without a dot, it is a name below the domain of the proxy.";
      };
      path = mkOption {
        type = types.str;
        default = "/";
        description = "Requests at and below this path.";
      };
      auth = mkOption {
        type = types.enum [
          "none"
          "basic"
          "forward"
          "oidc"
        ];
        default = "none";
        example = "forward";
        description = "Who may use it: every client, users of a file, or users of another server (docs/fronts.md).";
      };
      port = optional types.port "The port to which the proxy connects. Default: that of the service.";
      scheme = optional schemes "How the proxy connects. Default: as the metrics if they have the same port, else http.";
      headers = texts "Headers of requests to the service.";
      unbuffered = mkOption {
        type = types.bool;
        default = false;
        description = "Whether the proxy passes responses on at once.";
      };
    };
  };
in
types.submodule {
  options = {
    port = mkOption {
      type = types.port;
      example = 8096;
      description = "The port on which it listens.";
    };
    type = optional types.str "Exporter type, which names the job. Default: the name.";
    path = optional types.str "Path of the metrics. Default: that of the type, or /metrics.";
    scheme = optional schemes "Default: http.";
    params = texts "URL parameters of the metrics.";
    labels = texts "Labels of the target.";
    metrics = mkOption {
      type = types.bool;
      default = true;
      description = "Whether it serves metrics. If not, it is only a front.";
    };
    loopback = mkOption {
      type = types.bool;
      default = false;
      description = "Whether it listens on loopback, where only a scraper or a proxy on this machine reaches it.";
    };
    front = optional front "A virtual host of the reverse proxy.";
  };
}
