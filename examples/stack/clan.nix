# The inventory of a clan with all components: `inventory = import ./clan.nix;` in the flake of the clan.
{
  machines = {
    monitor = {
      tags = [ "server" ];
      description = "metrics, logs, alerts and boards";
    };
    backup = {
      tags = [ "server" ];
      description = "the second server, in another house";
    };
    db = {
      tags = [ "postgres" ];
      description = "the database of all apps";
    };
    nas = {
      tags = [ "storage" ];
      description = "the big disk box";
    };
    web01.tags = [ "app" ];
    web02.tags = [ "app" ];
    dino.tags = [ "laptop" ]; # comes and goes: no alert while it is off
  };

  instances.monitoring = {
    module = {
      name = "prometheus";
      input = "clan-discovery";
    };

    # Two servers. Only `monitor` gets what agents send.
    roles.server = {
      settings.discoveryMethod = "tailscale";
      machines.monitor.settings = {
        backend = "victoriametrics";
        listenAddress = "127.0.0.1";
        scrapeServers = false; # no other machine reaches its port
        web.enable = true;
        verifyInterval = "5m";
      };
      machines.backup = { };
    };

    # Exporters by tag. What they say of limits, units and needs is in the alert rules.
    roles.exporter = {
      tags.all = { };
      settings.exporters = {
        node = { };
        systemd = { };
      };
      machines.db.settings = {
        exporters.postgres = { };
        units = [ "postgresql.service" ];
      };
      machines.nas.settings = {
        exporters.smartctl = { };
        limits.disk_percent = 95; # it is always nearly full
      };
      machines.web01.settings.needs = [ "db" ];
      machines.web02.settings.needs = [ "db" ];
    };

    roles.agent.tags.laptop = { };
    roles.logs.machines.monitor = { };

    roles.alerting.machines.monitor.settings = {
      mail = {
        to = [ "admin@example.org" ];
        from = "alerts@example.org";
        smarthost = "mail.example.org:587";
        username = "alerts@example.org"; # clan vars ask for the password
      };
      deadMansSwitch.url = "https://hc.example.org/ping/monitor";
    };
    roles.dashboards.machines.monitor = { };

    roles.front.machines.monitor.settings = {
      kind = "nginx";
      domain = "home.example.org";
      tls.useACMEHost = "home.example.org";
      openFirewall = true;
    };
  };
}
