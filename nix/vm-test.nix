# Two machines and a real Prometheus: an outage of DNS removes no target.
#
# Needs nixpkgs's packages (docs/nix.md says what was run).
{ module }:
let
  inventory = {
    machines.monitor = { };
    machines.db = { };
    meta.domain = "fleet.test";
    instances.monitoring = {
      module.name = "prometheus";
      roles.server.machines.monitor.settings = { };
      roles.exporter.tags = [ "all" ];
      roles.exporter.settings.exporterType = "node";
    };
  };
in
{
  name = "clan-discovery";

  nodes.db = {
    services.prometheus.exporters.node = {
      enable = true;
      openFirewall = true;
    };
  };

  nodes.monitor =
    { nodes, pkgs, ... }:
    {
      imports = [ module ];

      services.prometheus = {
        enable = true;
        exporters.node.enable = true;
        globalConfig.scrape_interval = "2s";
        scrapeConfigs = [
          {
            job_name = "node";
            file_sd_configs = [ { files = [ "/var/lib/clan-discovery/targets/node.json" ]; } ];
          }
        ];
      };

      # The clan's resolver, on its own port.
      services.dnsmasq = {
        enable = true;
        resolveLocalQueries = false;
        settings = {
          port = 5300;
          local-ttl = 2;
          address = [
            "/monitor.fleet.test/${nodes.monitor.networking.primaryIPAddress}"
            "/db.fleet.test/${nodes.db.networking.primaryIPAddress}"
          ];
        };
      };

      services.clan-discovery = {
        enable = true;
        mode = "resident";
        interval = "2s";
        settings = {
          server = "monitor";
          inventory.file = (pkgs.formats.json { }).generate "inventory.json" inventory;
          backends.dns.fleet = {
            domain = "fleet.test";
            servers = [ "127.0.0.1:5300" ];
            min_ttl = "1s";
            timeout = "2s";
          };
        };
      };
    };

  testScript = ''
    import json


    def targets() -> dict[str, str]:
        """Return the health of each instance, as Prometheus has it."""
        answer = json.loads(monitor.succeed("curl -sf http://localhost:9090/api/v1/targets"))
        return {t["labels"]["instance"]: t["health"] for t in answer["data"]["activeTargets"]}


    def both_are_up(_: bool) -> bool:
        return targets() == {"db": "up", "monitor": "up"}


    start_all()
    db.wait_for_unit("prometheus-node-exporter.service")
    monitor.wait_for_unit("dnsmasq.service")
    monitor.wait_for_unit("clan-discovery.service")
    monitor.wait_for_unit("prometheus.service")
    # Before `retry`, which catches no exception.
    monitor.wait_for_open_port(9090)
    db.wait_for_open_port(9100)

    with subtest("declared machines are scraped at their addresses in DNS"):
        retry(both_are_up, timeout_seconds=120)

    with subtest("an outage of DNS removes no target"):
        monitor.succeed("systemctl stop dnsmasq.service")
        monitor.wait_until_succeeds(
            "grep -F 'clan_discovery_backend_up{backend=\"fleet\"} 0' "
            "/var/lib/clan-discovery/metrics/clan-discovery.prom",
            timeout=60,
        )
        monitor.sleep(10)
        assert both_are_up(True), targets()

    with subtest("a machine that is down stays a target"):
        db.crash()
        retry(lambda _: targets() == {"db": "down", "monitor": "up"}, timeout_seconds=120)

    with subtest("the outage ends"):
        monitor.succeed("systemctl start dnsmasq.service")
        monitor.wait_until_succeeds(
            "grep -F 'clan_discovery_backend_up{backend=\"fleet\"} 1' "
            "/var/lib/clan-discovery/metrics/clan-discovery.prom",
            timeout=60,
        )
        assert set(targets()) == {"db", "monitor"}
  '';
}
