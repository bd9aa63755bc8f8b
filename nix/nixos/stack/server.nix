# `services.clan-discovery.stack.server`: Prometheus or VictoriaMetrics, which scrapes what this machine declares.
{
  config,
  lib,
  ...
}:
let
  inherit (lib) mkDefault mkIf;
  cd = import ../../lib;
  cfg = config.services.clan-discovery;
  inherit (cfg.stack.server) backend enable;
  inherit (import ../scraper.nix { inherit lib cd; }) own;
  scraper = own { inherit backend; } config;
  isPrometheus = backend == "prometheus";
in
{
  config = mkIf enable {
    services.clan-discovery = {
      enable = mkDefault true;
      mode = mkDefault "resident";
      settings.verify.scrapers = mkIf (!scraper.closed) { ${backend}.url = mkDefault scraper.url; };
      expose.${backend} = {
        port = mkDefault cd.service.ownPorts.${backend};
        # In a clan each server is the job `prometheus`, too.
        type = mkDefault "prometheus";
        metrics = true;
        loopback = mkDefault true;
      };
    };
    services.prometheus = mkIf isPrometheus {
      enable = mkDefault true;
      listenAddress = mkDefault "127.0.0.1";
      retentionTime = mkDefault "30d";
      inherit (cfg) scrapeConfigs;
    };
    services.victoriametrics = mkIf (!isPrometheus) {
      enable = mkDefault true;
      listenAddress = mkDefault "127.0.0.1:8428";
      retentionPeriod = mkDefault "30d";
      prometheusConfig = cd.victoriametrics cfg.scrapeConfigs;
      extraOptions = [ "-enableTCP6" ];
    };
  };
}
