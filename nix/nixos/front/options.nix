# The options of `services.clan-discovery.front`. `config` is that of the machine.
{ lib, config }:
let
  inherit (lib) mkOption types;
  words = import ./words.nix lib;
  front = config.services.clan-discovery.front;

  ui =
    name:
    lib.nameValuePair name (mkOption {
      default = { };
      description = "Expose ${name} of this machine. It then listens on loopback, if the proxy runs here.";
      type = types.submodule {
        options = {
          enable = lib.mkEnableOption "a front for ${name}";
          domain = mkOption {
            type = types.str;
            default = name;
            description = "Its domain. One without a dot is a name below the proxy's `domain`.";
          };
          auth = mkOption {
            type = types.enum auths;
            default = "none";
            example = "forward";
            description = "Who may use it.";
          };
        };
      };
    });
  auths = [
    "none"
    "basic"
    "forward"
    "oidc"
  ];
in
words
// {
  enable = lib.mkEnableOption "a reverse proxy in front of the exposed services (docs/fronts.md)";

  auth = words.auth // {
    oidc = {
      enable = lib.mkEnableOption "services.oauth2-proxy for `auth = \"oidc\"`. Set its provider, client and keyFile yourself";
      url = words.auth.oidc.url // {
        default = if front.auth.oidc.enable then "http://127.0.0.1:4180" else null;
        defaultText = lib.literalMD "`\"http://127.0.0.1:4180\"` with `auth.oidc.enable`, else `null`";
      };
    };
  };

  metrics = {
    enable = mkOption {
      type = types.bool;
      default = true;
      description = "Whether the proxy serves its own metrics, which become a target.";
    };
    listenAddress = mkOption {
      type = types.str;
      default = "127.0.0.1";
      example = "100.64.0.7";
      description = "The address on which they are served. Caddy's admin API is never used for them.";
    };
    port = mkOption {
      type = types.port;
      default =
        {
          caddy = 9180;
          nginx = 9113;
          traefik = 8082;
        }
        .${front.kind};
      defaultText = lib.literalMD "Caddy 9180, nginx 9113 (its exporter), Traefik 8082";
      description = "The port on which they are served.";
    };
    isDeclared = mkOption {
      type = types.bool;
      default = false;
      internal = true;
      description = "Whether an inventory declares the target.";
    };
    statusPort = mkOption {
      type = types.port;
      default = 9180;
      description = "nginx: the port of `stub_status` on loopback, which its exporter reads.";
    };
  };

  uis = lib.listToAttrs (
    map ui [
      "alertmanager"
      "grafana"
      "prometheus"
      "status"
      "victoriametrics"
    ]
  );
}
