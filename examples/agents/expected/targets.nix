{
  additionalScrapeConfigs = [ ];
  jobs = {
    nginx = [
      {
        labels = {
          __meta_clan_backend = "home";
          __meta_clan_exporter = "nginx";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tags = ",all,nixos,";
          __meta_clan_observed = "true";
          __meta_clan_role = "front";
          instance = "web01";
          machine = "web01";
        };
        targets = [ "192.0.2.10:9113" ];
      }
    ];
    node = [
      {
        labels = {
          __meta_clan_backend = "home";
          __meta_clan_exporter = "node";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tags = ",all,nixos,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          instance = "nas";
          machine = "nas";
        };
        targets = [ "192.0.2.11:9100" ];
      }
      {
        labels = {
          __meta_clan_backend = "home";
          __meta_clan_exporter = "node";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tags = ",all,nixos,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          instance = "web01";
          machine = "web01";
        };
        targets = [ "192.0.2.10:9100" ];
      }
    ];
    prometheus = [
      {
        labels = {
          __meta_clan_backend = "home";
          __meta_clan_exporter = "prometheus";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tags = ",all,nixos,";
          __meta_clan_observed = "true";
          __meta_clan_role = "server";
          instance = "web01";
          machine = "web01";
        };
        targets = [ "192.0.2.10:8428" ];
      }
    ];
    systemd = [
      {
        labels = {
          __meta_clan_backend = "home";
          __meta_clan_exporter = "systemd";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tags = ",all,nixos,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          instance = "nas";
          machine = "nas";
        };
        targets = [ "192.0.2.11:9558" ];
      }
      {
        labels = {
          __meta_clan_backend = "home";
          __meta_clan_exporter = "systemd";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tags = ",all,nixos,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          instance = "web01";
          machine = "web01";
        };
        targets = [ "192.0.2.10:9558" ];
      }
    ];
  };
}
