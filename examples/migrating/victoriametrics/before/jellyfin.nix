{ config, ... }:
{
  services.jellyfin.enable = true;

  homelab.prometheus.scrapeConfigs = [
    {
      job_name = "jellyfin";
      static_configs = [
        {
          targets = [ "localhost:8096" ];
          labels.instance = config.networking.hostName;
        }
      ];
    }
  ];
  homelab.services.caddy.virtualHosts."films.home.example.org" = "reverse_proxy localhost:8096";
}
