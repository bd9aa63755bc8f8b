{
  additionalScrapeConfigs = [ ];
  jobs = {
    node = [
      {
        labels = {
          __meta_clan_backend = "lan";
          __meta_clan_exporter = "node";
          __meta_clan_observed = "true";
          instance = "nas";
          machine = "nas";
        };
        targets = [ "192.168.1.10:9100" ];
      }
    ];
    postgres = [
      {
        labels = {
          __meta_clan_exporter = "postgres";
          __meta_clan_observed = "false";
          instance = "nas";
          machine = "nas";
        };
        targets = [ "postgres-exporter:9187" ];
      }
    ];
    traefik = [
      {
        labels = {
          __meta_clan_exporter = "traefik";
          __meta_clan_observed = "false";
          instance = "nas";
          machine = "nas";
        };
        targets = [ "traefik:8082" ];
      }
      {
        labels = {
          __meta_clan_exporter = "traefik";
          __meta_clan_observed = "false";
          instance = "web01";
          machine = "web01";
        };
        targets = [ "192.168.1.11:8082" ];
      }
    ];
  };
}
