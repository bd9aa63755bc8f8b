{
  additionalScrapeConfigs = [ ];
  jobs = {
    caddy = [
      {
        labels = {
          __meta_clan_exporter = "caddy";
          __meta_clan_observed = "false";
          instance = "web01";
          machine = "web01";
        };
        targets = [ "127.0.0.1:9180" ];
      }
    ];
    grafana = [
      {
        labels = {
          __meta_clan_exporter = "grafana";
          __meta_clan_observed = "false";
          instance = "web01";
          machine = "web01";
        };
        targets = [ "127.0.0.1:3000" ];
      }
    ];
    jellyfin = [
      {
        labels = {
          __meta_clan_backend = "home";
          __meta_clan_exporter = "jellyfin";
          __meta_clan_observed = "true";
          instance = "nas";
          machine = "nas";
        };
        targets = [ "192.0.2.11:8096" ];
      }
    ];
  };
}
