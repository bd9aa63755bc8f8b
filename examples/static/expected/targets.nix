{
  additionalScrapeConfigs = [ ];
  jobs = {
    api = [
      {
        labels = {
          __meta_clan_backend = "lab";
          __meta_clan_exporter = "api";
          __meta_clan_observed = "true";
          __metrics_path__ = "/internal/metrics";
          __scheme__ = "https";
          instance = "10.0.0.5";
          machine = "10.0.0.5";
          site = "lab";
          team = "platform";
        };
        targets = [ "10.0.0.5:8080" ];
      }
    ];
    node = [
      {
        labels = {
          __meta_clan_backend = "lab";
          __meta_clan_exporter = "node";
          __meta_clan_observed = "true";
          instance = "10.0.0.5";
          machine = "10.0.0.5";
          site = "lab";
        };
        targets = [ "10.0.0.5:9100" ];
      }
      {
        labels = {
          __meta_clan_backend = "lab";
          __meta_clan_exporter = "node";
          __meta_clan_observed = "true";
          instance = "fd00::6";
          machine = "fd00::6";
          site = "lab";
        };
        targets = [ "[fd00::6]:9100" ];
      }
      {
        labels = {
          __meta_clan_backend = "lab";
          __meta_clan_exporter = "node";
          __meta_clan_observed = "true";
          instance = "nas.home.arpa";
          machine = "nas.home.arpa";
          site = "lab";
        };
        targets = [ "nas.home.arpa:9100" ];
      }
    ];
  };
}
