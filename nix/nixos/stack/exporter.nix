# `services.clan-discovery.stack.exporter`: node exporter and systemd exporter, which this machine declares.
{ config, lib, ... }:
let
  inherit (lib) mkDefault mkIf;
  cfg = config.services.clan-discovery;
  inherit (cfg.stack) agent exporter server;
  types = [
    "node"
    "systemd"
  ];
  # Another machine's server reads them past loopback.
  isLocal = server.enable || agent.enable;
in
{
  config = mkIf exporter.enable {
    services.prometheus.exporters = lib.genAttrs types (_: {
      enable = mkDefault true;
      listenAddress = mkIf isLocal (mkDefault "127.0.0.1");
    });
    services.clan-discovery.expose = lib.genAttrs types (name: {
      port = mkDefault config.services.prometheus.exporters.${name}.port;
      metrics = true;
      loopback = mkDefault isLocal;
    });
  };
}
