# `services.clan-discovery.stack`: the components of this machine. In a clan the roles enable them; without one, those of
# a machine find each other.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkDefault mkIf;
  cd = import ../../lib;
  cfg = config.services.clan-discovery;
  inherit (cfg) front machine stack;
  inherit (stack) logs;
  inherit (import ../scraper.nix { inherit lib cd; }) own urlOf;
  datasource = import ../dashboards/datasources.nix { inherit lib pkgs; };

  backends = {
    prometheus =
      config.services.prometheus.enable && !(config.services.prometheus.enableAgentMode or false);
    victoriametrics = config.services.victoriametrics.enable;
  };
  servers = lib.filter (one: !one.closed) (
    map (backend: own { inherit backend; } config) (
      lib.attrNames (lib.filterAttrs (_: isEnabled: isEnabled) backends)
    )
  );
  store = {
    inherit machine;
    inherit (logs) backend;
    url = urlOf logs.listenAddress logs.port;
    tenants = lib.attrNames front.receive.tokens;
  };

  # The address to which agents of this front send.
  pushDomain =
    let
      below = lib.optionalString (
        !lib.hasInfix "." front.receive.domain && front.domain != null
      ) ".${front.domain}";
      port = lib.optionalString (front.kind != "nginx") ":${toString front.receive.port}";
    in
    "https://${lib.toLower (front.receive.domain + below)}${port}";
in
{
  imports = [
    ./exporter.nix
    ./logs.nix
    ./server.nix
  ];

  options.services.clan-discovery.stack = import ./options.nix { inherit lib config; };

  config.services.clan-discovery = {
    stack.dashboards.found = lib.mkOptionDefault (
      lib.optional (cfg.storage.url != null) (datasource.storage cfg.storage.url)
      # Both have the same targets: one on a machine that moves from one to the other.
      ++ map (
        one:
        datasource.server {
          inherit (one) url;
          inherit machine;
        }
      ) (lib.take 1 servers)
      ++ lib.optional logs.enable (datasource.store store)
    );

    agent = mkIf stack.agent.enable {
      enable = mkDefault true;
      urls = mkIf (front.enable && front.receive.enable) (mkDefault [ pushDomain ]);
      logs.enable = mkDefault logs.enable;
      logs.backend = mkDefault logs.backend;
    };

    front = mkIf stack.front.enable {
      enable = mkDefault true;
      # It has users of its own.
      uis.grafana.enable = mkDefault stack.dashboards.enable;
      receive = {
        metrics.url = mkIf (stack.server.enable && stack.server.backend == "victoriametrics") (
          mkDefault (own { backend = "victoriametrics"; } config).url
        );
        logs = mkIf logs.enable {
          url = mkDefault store.url;
          kind = mkDefault logs.backend;
        };
      };
    };
  };
}
