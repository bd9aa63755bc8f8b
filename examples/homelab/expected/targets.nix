{
  additionalScrapeConfigs = [
    {
      job_name = "external-service";
      static_configs = [
        {
          targets = [ "api.example.com:9090" ];
        }
      ];
    }
  ];
  jobs = {
    node = [
      {
        labels = {
          __meta_clan_exporter = "node";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tags = ",all,nixos,";
          __meta_clan_observed = "false";
          __meta_clan_role = "exporter";
          instance = "attic";
          machine = "attic";
        };
        targets = [ "attic.tail1a2b3.ts.net:9100" ];
      }
      {
        labels = {
          __meta_clan_backend = "tailnet";
          __meta_clan_exporter = "node";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tag_server = "1";
          __meta_clan_machine_tags = ",all,nixos,server,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "db";
          __meta_tailscale_device_id = "n2CNTRL";
          __meta_tailscale_device_name = "db.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "homelab.example";
          instance = "db";
          machine = "db";
        };
        targets = [ "100.64.0.2:9100" ];
      }
      {
        labels = {
          __meta_clan_backend = "tailnet";
          __meta_clan_exporter = "node";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tag_roaming = "1";
          __meta_clan_machine_tags = ",all,nixos,roaming,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "laptop";
          __meta_tailscale_device_id = "n5CNTRL";
          __meta_tailscale_device_name = "laptop.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_tailnet = "homelab.example";
          instance = "laptop";
          machine = "laptop";
        };
        targets = [ "100.64.0.5:9100" ];
      }
      {
        labels = {
          __meta_clan_backend = "tailnet";
          __meta_clan_exporter = "node";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_monitoring_server = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tag_server = "1";
          __meta_clan_machine_tags = ",all,monitoring-server,nixos,server,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "monitor";
          __meta_tailscale_device_id = "n1CNTRL";
          __meta_tailscale_device_name = "monitor.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "homelab.example";
          instance = "monitor";
          machine = "monitor";
        };
        targets = [ "100.64.0.1:9100" ];
      }
      {
        labels = {
          __meta_clan_backend = "tailnet";
          __meta_clan_exporter = "node";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tag_server = "1";
          __meta_clan_machine_tags = ",all,nixos,server,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "nas";
          __meta_tailscale_device_id = "n4CNTRL";
          __meta_tailscale_device_name = "nas.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "homelab.example";
          instance = "nas";
          machine = "nas";
        };
        targets = [ "100.64.0.4:9100" ];
      }
      {
        labels = {
          __meta_clan_backend = "tailnet";
          __meta_clan_exporter = "node";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tag_server = "1";
          __meta_clan_machine_tags = ",all,nixos,server,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "web";
          __meta_tailscale_device_id = "n3CNTRL";
          __meta_tailscale_device_name = "web.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "homelab.example";
          instance = "web";
          machine = "web";
        };
        targets = [ "100.64.0.3:9100" ];
      }
    ];
  };
}
