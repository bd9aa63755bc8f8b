{
  additionalScrapeConfigs = [ ];
  jobs = {
    alertmanager = [
      {
        labels = {
          __meta_clan_exporter = "alertmanager";
          __meta_clan_observed = "false";
          instance = "monitoring";
          machine = "monitoring";
        };
        targets = [ "10.20.0.26:9093" ];
      }
    ];
    caddy = [
      {
        labels = {
          __meta_clan_exporter = "caddy";
          __meta_clan_observed = "false";
          instance = "proxy";
          machine = "proxy";
        };
        targets = [ "10.20.0.12:9180" ];
      }
    ];
    exportarr-sonarr = [
      {
        labels = {
          __meta_clan_exporter = "exportarr-sonarr";
          __meta_clan_observed = "false";
          instance = "media";
          machine = "media";
        };
        targets = [ "10.20.0.25:9707" ];
      }
    ];
    node = [
      {
        labels = {
          __meta_clan_exporter = "node";
          __meta_clan_observed = "false";
          instance = "documents";
          machine = "documents";
        };
        targets = [ "10.20.0.21:9100" ];
      }
      {
        labels = {
          __meta_clan_exporter = "node";
          __meta_clan_observed = "false";
          instance = "git";
          machine = "git";
        };
        targets = [ "10.20.0.23:9100" ];
      }
      {
        labels = {
          __meta_clan_exporter = "node";
          __meta_clan_observed = "false";
          instance = "home";
          machine = "home";
        };
        targets = [ "10.20.0.24:9100" ];
      }
      {
        labels = {
          __meta_clan_exporter = "node";
          __meta_clan_observed = "false";
          instance = "media";
          machine = "media";
        };
        targets = [ "10.20.0.25:9100" ];
      }
      {
        labels = {
          __meta_clan_exporter = "node";
          __meta_clan_observed = "false";
          instance = "monitoring";
          machine = "monitoring";
        };
        targets = [ "10.20.0.26:9100" ];
      }
      {
        labels = {
          __meta_clan_exporter = "node";
          __meta_clan_observed = "false";
          instance = "photos";
          machine = "photos";
        };
        targets = [ "10.20.0.22:9100" ];
      }
      {
        labels = {
          __meta_clan_exporter = "node";
          __meta_clan_observed = "false";
          instance = "postgresql";
          machine = "postgresql";
        };
        targets = [ "10.20.0.11:9100" ];
      }
      {
        labels = {
          __meta_clan_exporter = "node";
          __meta_clan_observed = "false";
          instance = "proxy";
          machine = "proxy";
        };
        targets = [ "10.20.0.12:9100" ];
      }
      {
        labels = {
          __meta_clan_exporter = "node";
          __meta_clan_observed = "false";
          instance = "resolver";
          machine = "resolver";
        };
        targets = [ "10.20.0.10:9100" ];
      }
      {
        labels = {
          __meta_clan_exporter = "node";
          __meta_clan_observed = "false";
          instance = "sso";
          machine = "sso";
        };
        targets = [ "10.20.0.13:9100" ];
      }
      {
        labels = {
          __meta_clan_exporter = "node";
          __meta_clan_observed = "false";
          instance = "vaultwarden";
          machine = "vaultwarden";
        };
        targets = [ "10.20.0.20:9100" ];
      }
    ];
    postgres = [
      {
        labels = {
          __meta_clan_exporter = "postgres";
          __meta_clan_observed = "false";
          instance = "postgresql";
          machine = "postgresql";
        };
        targets = [ "10.20.0.11:9187" ];
      }
    ];
    prometheus = [
      {
        labels = {
          __meta_clan_exporter = "prometheus";
          __meta_clan_observed = "false";
          instance = "monitoring";
          machine = "monitoring";
        };
        targets = [ "10.20.0.26:9090" ];
      }
    ];
    unbound = [
      {
        labels = {
          __meta_clan_exporter = "unbound";
          __meta_clan_observed = "false";
          instance = "resolver";
          machine = "resolver";
        };
        targets = [ "10.20.0.10:9167" ];
      }
    ];
  };
}
