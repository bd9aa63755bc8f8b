# What each service module of the homelab adds to, and what VictoriaMetrics and Caddy are made from.
{ config, lib, ... }:
let
  cfg = config.homelab;
in
{
  options.homelab = {
    prometheus.scrapeConfigs = lib.mkOption {
      type = lib.types.listOf lib.types.attrs;
      default = [ ];
    };
    services.caddy.virtualHosts = lib.mkOption {
      type = lib.types.attrsOf lib.types.str;
      default = { };
    };
  };

  config = {
    services.victoriametrics.prometheusConfig.scrape_configs = cfg.prometheus.scrapeConfigs;
    services.caddy.virtualHosts = lib.mapAttrs (_: extraConfig: {
      inherit extraConfig;
    }) cfg.services.caddy.virtualHosts;
  };
}
