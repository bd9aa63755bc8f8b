{
  additionalScrapeConfigs = [ ];
  jobs = {
    alertmanager = [
      {
        labels = {
          __meta_clan_backend = "tailnet";
          __meta_clan_exporter = "alertmanager";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tag_server = "1";
          __meta_clan_machine_tags = ",all,nixos,server,";
          __meta_clan_observed = "true";
          __meta_clan_role = "alerting";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "monitor";
          __meta_tailscale_device_id = "n00000001CNTRL";
          __meta_tailscale_device_name = "monitor.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "example.com";
          instance = "monitor";
          machine = "monitor";
        };
        targets = [ "100.64.0.1:9093" ];
      }
    ];
    grafana = [
      {
        labels = {
          __meta_clan_exporter = "grafana";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tag_server = "1";
          __meta_clan_machine_tags = ",all,nixos,server,";
          __meta_clan_observed = "false";
          __meta_clan_role = "dashboards";
          instance = "monitor";
          machine = "monitor";
        };
        targets = [ "127.0.0.1:3000" ];
      }
    ];
    nginx = [
      {
        labels = {
          __meta_clan_backend = "tailnet";
          __meta_clan_exporter = "nginx";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tag_server = "1";
          __meta_clan_machine_tags = ",all,nixos,server,";
          __meta_clan_observed = "true";
          __meta_clan_role = "front";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "monitor";
          __meta_tailscale_device_id = "n00000001CNTRL";
          __meta_tailscale_device_name = "monitor.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "example.com";
          instance = "monitor";
          machine = "monitor";
        };
        targets = [ "100.64.0.1:9113" ];
      }
    ];
    node = [
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
          __meta_tailscale_device_hostname = "backup";
          __meta_tailscale_device_id = "n00000002CNTRL";
          __meta_tailscale_device_name = "backup.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "example.com";
          instance = "backup";
          machine = "backup";
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
          __meta_clan_machine_tag_postgres = "1";
          __meta_clan_machine_tags = ",all,nixos,postgres,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "db";
          __meta_tailscale_device_id = "n00000003CNTRL";
          __meta_tailscale_device_name = "db.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "example.com";
          instance = "db";
          machine = "db";
        };
        targets = [ "100.64.0.3:9100" ];
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
          __meta_tailscale_device_hostname = "monitor";
          __meta_tailscale_device_id = "n00000001CNTRL";
          __meta_tailscale_device_name = "monitor.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "example.com";
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
          __meta_clan_machine_tag_storage = "1";
          __meta_clan_machine_tags = ",all,nixos,storage,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "nas";
          __meta_tailscale_device_id = "n00000004CNTRL";
          __meta_tailscale_device_name = "nas.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "example.com";
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
          __meta_clan_machine_tag_app = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tags = ",all,app,nixos,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "web01";
          __meta_tailscale_device_id = "n00000005CNTRL";
          __meta_tailscale_device_name = "web01.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "example.com";
          instance = "web01";
          machine = "web01";
        };
        targets = [ "100.64.0.5:9100" ];
      }
      {
        labels = {
          __meta_clan_backend = "tailnet";
          __meta_clan_exporter = "node";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_app = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tags = ",all,app,nixos,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "web02";
          __meta_tailscale_device_id = "n00000006CNTRL";
          __meta_tailscale_device_name = "web02.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "example.com";
          instance = "web02";
          machine = "web02";
        };
        targets = [ "100.64.0.6:9100" ];
      }
    ];
    postgres = [
      {
        labels = {
          __meta_clan_backend = "tailnet";
          __meta_clan_exporter = "postgres";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tag_postgres = "1";
          __meta_clan_machine_tags = ",all,nixos,postgres,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "db";
          __meta_tailscale_device_id = "n00000003CNTRL";
          __meta_tailscale_device_name = "db.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "example.com";
          instance = "db";
          machine = "db";
        };
        targets = [ "100.64.0.3:9187" ];
      }
    ];
    smartctl = [
      {
        labels = {
          __meta_clan_backend = "tailnet";
          __meta_clan_exporter = "smartctl";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tag_storage = "1";
          __meta_clan_machine_tags = ",all,nixos,storage,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "nas";
          __meta_tailscale_device_id = "n00000004CNTRL";
          __meta_tailscale_device_name = "nas.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "example.com";
          instance = "nas";
          machine = "nas";
        };
        targets = [ "100.64.0.4:9633" ];
      }
    ];
    systemd = [
      {
        labels = {
          __meta_clan_backend = "tailnet";
          __meta_clan_exporter = "systemd";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tag_server = "1";
          __meta_clan_machine_tags = ",all,nixos,server,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "backup";
          __meta_tailscale_device_id = "n00000002CNTRL";
          __meta_tailscale_device_name = "backup.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "example.com";
          instance = "backup";
          machine = "backup";
        };
        targets = [ "100.64.0.2:9558" ];
      }
      {
        labels = {
          __meta_clan_backend = "tailnet";
          __meta_clan_exporter = "systemd";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tag_postgres = "1";
          __meta_clan_machine_tags = ",all,nixos,postgres,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "db";
          __meta_tailscale_device_id = "n00000003CNTRL";
          __meta_tailscale_device_name = "db.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "example.com";
          instance = "db";
          machine = "db";
        };
        targets = [ "100.64.0.3:9558" ];
      }
      {
        labels = {
          __meta_clan_backend = "tailnet";
          __meta_clan_exporter = "systemd";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tag_server = "1";
          __meta_clan_machine_tags = ",all,nixos,server,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "monitor";
          __meta_tailscale_device_id = "n00000001CNTRL";
          __meta_tailscale_device_name = "monitor.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "example.com";
          instance = "monitor";
          machine = "monitor";
        };
        targets = [ "100.64.0.1:9558" ];
      }
      {
        labels = {
          __meta_clan_backend = "tailnet";
          __meta_clan_exporter = "systemd";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tag_storage = "1";
          __meta_clan_machine_tags = ",all,nixos,storage,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "nas";
          __meta_tailscale_device_id = "n00000004CNTRL";
          __meta_tailscale_device_name = "nas.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "example.com";
          instance = "nas";
          machine = "nas";
        };
        targets = [ "100.64.0.4:9558" ];
      }
      {
        labels = {
          __meta_clan_backend = "tailnet";
          __meta_clan_exporter = "systemd";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_app = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tags = ",all,app,nixos,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "web01";
          __meta_tailscale_device_id = "n00000005CNTRL";
          __meta_tailscale_device_name = "web01.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "example.com";
          instance = "web01";
          machine = "web01";
        };
        targets = [ "100.64.0.5:9558" ];
      }
      {
        labels = {
          __meta_clan_backend = "tailnet";
          __meta_clan_exporter = "systemd";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_app = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tags = ",all,app,nixos,";
          __meta_clan_observed = "true";
          __meta_clan_role = "exporter";
          __meta_tailscale_api = "localhost";
          __meta_tailscale_device_authorized = "true";
          __meta_tailscale_device_hostname = "web02";
          __meta_tailscale_device_id = "n00000006CNTRL";
          __meta_tailscale_device_name = "web02.tail1a2b3.ts.net";
          __meta_tailscale_device_os = "linux";
          __meta_tailscale_device_tag_server = "1";
          __meta_tailscale_device_tags = ",server,";
          __meta_tailscale_tailnet = "example.com";
          instance = "web02";
          machine = "web02";
        };
        targets = [ "100.64.0.6:9558" ];
      }
    ];
    victorialogs = [
      {
        labels = {
          __meta_clan_exporter = "victorialogs";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tag_server = "1";
          __meta_clan_machine_tags = ",all,nixos,server,";
          __meta_clan_observed = "false";
          __meta_clan_role = "logs";
          instance = "monitor";
          machine = "monitor";
        };
        targets = [ "127.0.0.1:9428" ];
      }
    ];
    vmalert = [
      {
        labels = {
          __meta_clan_exporter = "vmalert";
          __meta_clan_instance = "monitoring";
          __meta_clan_machine_tag_all = "1";
          __meta_clan_machine_tag_nixos = "1";
          __meta_clan_machine_tag_server = "1";
          __meta_clan_machine_tags = ",all,nixos,server,";
          __meta_clan_observed = "false";
          __meta_clan_role = "server";
          instance = "monitor";
          machine = "monitor";
        };
        targets = [ "127.0.0.1:8880" ];
      }
    ];
  };
}
