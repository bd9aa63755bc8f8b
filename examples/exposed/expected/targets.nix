{
  additionalScrapeConfigs = [ ];
  jobs = {
    caddy = [
      {
        labels = {
          __meta_clan_backend = "home";
          __meta_clan_exporter = "caddy";
          __meta_clan_observed = "true";
          instance = "nas";
          machine = "nas";
        };
        targets = [ "192.0.2.10:2020" ];
      }
    ];
    grafana = [
      {
        labels = {
          __meta_clan_exporter = "grafana";
          __meta_clan_observed = "false";
          instance = "monitor";
          machine = "monitor";
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
          team = "media";
        };
        targets = [ "192.0.2.10:8096" ];
      }
    ];
    photos = [
      {
        labels = {
          __meta_clan_backend = "home";
          __meta_clan_exporter = "photos";
          __meta_clan_observed = "true";
          __metrics_path__ = "/api/metrics";
          instance = "nas";
          machine = "nas";
        };
        targets = [ "192.0.2.10:2283" ];
      }
    ];
  };
}
