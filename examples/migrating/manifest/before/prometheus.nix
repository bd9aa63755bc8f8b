# A job for each service of the manifest, as the flake makes /etc/prometheus/prometheus.yml.
manifest:
let
  services = manifest.core_services // manifest.services;
in
{
  global.scrape_interval = "5s";
  scrape_configs =
    map (name: {
      job_name = name;
      static_configs = [ { targets = [ "${services.${name}.ip}:9100" ]; } ];
    }) (builtins.attrNames services)
    ++ [
      {
        job_name = "caddy-admin";
        static_configs = [ { targets = [ "${services.proxy.ip}:2019" ]; } ];
      }
      {
        job_name = "loki";
        static_configs = [ { targets = [ "${services.monitoring.ip}:3100" ]; } ];
      }
    ];
}
