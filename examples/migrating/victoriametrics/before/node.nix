{ config, ... }:
{
  services.prometheus.exporters.node = {
    enable = true;
    listenAddress = "127.0.0.1";
  };

  homelab.prometheus.scrapeConfigs = [
    {
      job_name = "Node Exporter";
      static_configs = [
        {
          targets = [ "localhost:9100" ];
          labels.instance = config.networking.hostName;
        }
      ];
    }
  ];
}
