"""The clan service under evalModules, a machine at a time: jobs, exporters, open ports, and what is refused and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support import clan
from tests.support.nix import machine, stored, value

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done
    from tests.support.clan import Seen

    Run = Callable[..., Done]

# Four machines that the clan has; `mac` is a darwin one.
MACHINES = """machines = {
  mac = { tags = [ "all" "darwin" ]; machineClass = "darwin"; };
} // t.lib.genAttrs [ "db" "monitor" "spare" ] (_: { tags = [ "all" "nixos" ]; machineClass = "nixos"; });"""
# What opens nothing, where a test is about something else.
SHUT = "firewallInterfaces = [ ];"
SERVER = f"m.server.monitor = {{ {SHUT} }};"


def evaluated(name: str, instances: str, what: str, modules: str = "", more: str = MACHINES) -> Json:
    """Return something of a machine in a clan with these instances of the service; `c` is its configuration."""
    member = f'machine = "{name}"; instances = {{ {instances} }}; modules = [ {modules} ]; {more}'
    return machine(f"let c = t.member {{ {member} }}; in {what}")


def member(name: str, instances: str, modules: str = "", more: str = MACHINES) -> Seen:
    """Return what a machine has."""
    return clan.seen(evaluated(name, instances, "t.seen c", modules, more))


class TestServer:
    """Jobs of a server, and where they come from."""

    def test_every_exporter_of_every_instance(self) -> None:
        """Not of its own instance alone; with the port that each has, and several on one machine."""
        found = member(
            "monitor",
            f"""{SERVER}
            m.exporter.db = {{ exporters.node.port = 9200; exporters.postgres = {{ }}; }};
            m.exporter.monitor = {{ {SHUT} }};
            other.exporter.spare = {{ exporterType = "systemd"; }};
            off.exporter.spare = {{ exporters.nginx.enable = false; exporters.redis = {{ }}; }};""",
        )
        assert found.failed == []
        assert found.names() == ["prometheus", "node", "postgres", "redis", "systemd"]
        assert found.addresses("node") == ["db.home.arpa:9200", "monitor.home.arpa:9100"]
        assert found.addresses("postgres") == ["db.home.arpa:9187"]
        assert found.addresses("systemd") == ["spare.home.arpa:9558"]
        assert found.addresses("prometheus") == ["monitor.home.arpa:9090"]

    def test_where_somebody_is_asked_the_targets_stand_in_files(self) -> None:
        """The same jobs, and those that DNS fills; discovery is on, and knows who scrapes."""
        instances = f"""
            m.server.monitor = {{ {SHUT} discoveryMethod = [ "tailscale" "dns" ]; staticTargets.nas = [ "nas:9100" ];
              dnsDiscovery.lan.names = [ "_lan._tcp.example.org" ]; policy.max_age = "2d"; mode = "timer"; }};
            m.exporter.db = {{ }};"""
        found = member("monitor", instances)
        assert found.names() == ["prometheus", "lan", "nas", "node"]
        files = [job.file_sd_configs[0].files for job in found.jobs]
        assert files == [[f"/var/lib/clan-discovery/targets/{name}.json"] for name in found.names()]
        what = "{ inherit (c.services.clan-discovery) enable mode network settings; }"
        match evaluated("monitor", instances, what):
            case {"enable": True, "mode": "timer", "network": True, "settings": dict(settings)}:
                assert (settings["server"], settings["policy"]) == ("monitor", {"max_age": "2d"})
                match settings["inventory"]:
                    case {"file": str(file)}:
                        match stored(file):
                            case {"machines": dict(machines), "meta": {"domain": "home.arpa"}}:
                                assert sorted(machines) == ["db", "mac", "monitor", "spare"]
                            case other:
                                raise AssertionError(other)
                    case other:
                        raise AssertionError(other)
            case other:
                raise AssertionError(other)

    def test_what_the_method_does_not_ask_is_not_asked(self) -> None:
        """Tailscale's socket wants no network, and `dnsDiscovery` counts with DNS alone."""
        instances = f"""m.server.monitor = {{ {SHUT} discoveryMethod = "tailscale"; port = 9191;
            dnsDiscovery.lan.names = [ "x.example.org" ]; }};"""
        assert member("monitor", instances).names() == ["prometheus"]
        what = "[ c.services.clan-discovery.network c.services.prometheus.port ]"
        assert evaluated("monitor", instances, what) == [False, 9191]

    def test_where_nobody_is_asked_nothing_runs(self) -> None:
        """The targets are in the jobs, and there is no unit."""
        for method in ('"none"', '"static"', "[ ]", '[ "static" ]'):
            instances = f"m.server.monitor = {{ {SHUT} discoveryMethod = {method}; }}; m.exporter.db = {{ }};"
            assert evaluated("monitor", instances, "c.services.clan-discovery.enable") is False
            assert member("monitor", instances).addresses("node") == ["db.home.arpa:9100"]

    def test_without_discovery_only_what_is_written_down(self) -> None:
        """`enableAutoDiscovery = false`: static targets, own jobs, and the servers."""
        found = member(
            "monitor",
            f"""m.server.monitor = {{ {SHUT} enableAutoDiscovery = false; discoveryMethod = "tailscale";
              staticTargets.node = [ "10.0.0.5" ]; additionalScrapeConfigs = [ {{ job_name = "own"; }} ]; }};
            m.exporter.db = {{ }};""",
        )
        assert found.names() == ["prometheus", "node", "own"]
        assert found.addresses("node") == ["10.0.0.5:9100"]

    def test_the_exports_are_the_address_book(self) -> None:
        """By the priority of the network; what is not generated, proxied or by var is passed over."""
        found = member(
            "monitor",
            f"{SERVER} m.exporter = {{ db = {{ }}; spare = {{ }}; monitor = {{ }}; }};",
            more=MACHINES
            + """exports = {
              "a:low::".networking.priority = 10;
              "a:low:peer:db".peer.hosts = [ { plain = "10.0.0.1"; } ];
              "b:high::".networking = { priority = 2000; module = "clan_lib.network.direct"; };
              "b:high:peer:db".peer.hosts = [ { var = { }; } { plain = "[fd00::1]\\n"; } ];
              "b:high:peer:spare".peer.hosts = throw "not generated";
              "tor:t::".networking = { priority = 9000; module = "clan_lib.network.tor"; };
              "tor:t:peer:db".peer.hosts = [ { plain = "x.onion"; } ];
              "z::::broken" = throw "never looked at";
              "c:plain::spare".peer.hosts = [ { plain = "spare.wg"; } ];
            };""",
        )
        assert found.addresses("node") == ["[fd00::1]:9100", "monitor.home.arpa:9100", "spare.wg:9100"]

    def test_an_older_clan_core_shows_no_machines(self) -> None:
        """Then the members are the machines, and bear the tags that every machine bears."""
        found = member("monitor", f"{SERVER} m.exporter.db = {{ }};", more="")
        assert found.failed == []
        (group,) = found.job("node").static_configs
        assert group.labels["__meta_clan_machine_tags"] == ",all,nixos,"

    def test_a_job_of_the_users_goes_before_ours(self) -> None:
        """Many an inventory has one of that name: it stays as it is, with a word, and nothing is there twice."""
        own = '{ job_name = "prometheus"; static_configs = [ { targets = [ "localhost:9090" ]; } ]; }'
        for option in ("additionalScrapeConfigs", "scrapeConfigs"):
            for method in ("none", "tailscale"):
                found = member(
                    "monitor",
                    f'm.server.monitor = {{ {SHUT} discoveryMethod = "{method}"; {option} = [ {own} ]; }};',
                )
                assert (found.failed, found.names()) == ([], ["prometheus"])
                assert found.addresses("prometheus") == ["localhost:9090"]
                assert ["goes before ours" in w for w in found.warnings] == [True]

    def test_targets_of_the_users_are_theirs(self) -> None:
        """What a target is, their relabelling says: the URL of a probe, a variable of VictoriaMetrics's."""
        probe = """{ job_name = "probe"; static_configs = [ { targets = [ "https://example.org" "%{HOME}" ]; } ]; }"""
        instances = ""
        for backend in ("prometheus", "victoriametrics"):
            instances = f'm.server.monitor = {{ {SHUT} backend = "{backend}"; scrapeConfigs = [ {probe} ]; }};'
            assert member("monitor", instances).failed == []
        match evaluated("monitor", instances, "c.services.victoriametrics.prometheusConfig.scrape_configs"):
            case [_, {"job_name": "probe", "static_configs": [{"targets": ["https://example.org", "%{HOME}"]}]}]:
                pass
            case other:
                raise AssertionError(other)

    def test_where_a_server_serves_its_own_metrics(self) -> None:
        """Below the path of its external URL; one that listens on the loopback alone is nobody's target."""
        instances = "m.server.monitor = {{ {} {} }}; m.server.spare = {{ {} }};"
        below = instances.format(SHUT, 'webExternalUrl = "https://m.example.org/prometheus/";', SHUT)
        found = member("spare", below).job("prometheus").static_configs
        assert [group.labels.get("__metrics_path__") for group in found] == ["/prometheus/metrics", None]
        alone = instances.format(SHUT, 'listenAddress = "127.0.0.1";', SHUT)
        assert member("spare", alone).addresses("prometheus") == ["spare.home.arpa:9090"]

    def test_nothing_secret_is_written_down(self) -> None:
        """Of the server's settings the inventory for discovery holds what discovery reads, and no more."""
        instances = f"""m.server.monitor = {{ {SHUT} discoveryMethod = "tailscale"; extraFlags = [ "SECRET" ];
            additionalScrapeConfigs = [ {{ job_name = "x"; password = "SECRET"; }} ]; rules = [ "SECRET" ];
            remoteWrite = [ {{ url = "http://SECRET@x/"; }} ]; }};"""
        what = "{ inherit (c.services.clan-discovery.settings.inventory) file; }"
        assert "SECRET" not in str(evaluated("monitor", instances, what))

    def test_the_address_book_holds_no_path_of_the_flake(self) -> None:
        """A host by `var` names the flake, which is another one at every commit."""
        exports = """exports = { "tor:t::machines".peer.hosts = throw "x";
          "a:b::".networking = { priority = 7; x = "FLAKE"; };
          "a:b::db".peer = { hosts = [ { var.flake = "FLAKE"; } { plain = "db.wg"; } ]; user = "FLAKE"; }; };"""
        what = "c.services.clan-discovery.settings.inventory.exports"
        instances = f'm.server.monitor = {{ {SHUT} discoveryMethod = "tailscale"; }};'
        found = evaluated("monitor", instances, what, more=MACHINES + exports)
        assert stored(str(found)) == {
            "a:b::": {"networking": {"priority": 7}},
            "a:b::db": {"peer": {"hosts": [{"plain": "db.wg"}]}},
        }

    def test_jobs_that_the_machine_adds_are_scraped(self) -> None:
        """What its own `services.clan-discovery` lists has a file, and so a job."""
        found = member(
            "monitor",
            f'm.server.monitor = {{ {SHUT} discoveryMethod = "tailscale"; }};',
            """{ services.clan-discovery.settings = { backends.static.lab.targets.nas = [ "nas:1" ];
              backends.dns.d = { names = [ "x" ]; job = "web"; }; exporters.redis.select = { }; }; }""",
        )
        assert found.names() == ["prometheus", "nas", "redis", "web"]

    def test_the_machine_switches_off(self) -> None:
        """A definition of its own wins, and an assertion says that the role is against it."""
        (said,) = member("monitor", SERVER, "{ services.prometheus.enable = false; }").failed
        assert "services.prometheus.enable is false on monitor" in said

    def test_a_share_for_each(self) -> None:
        """By name, which moves with nobody; the servers' own job is everybody's."""
        instances = f"""m.server = t.lib.genAttrs [ "monitor" "spare" ] (_: {{ {SHUT} sharding = "hashmod";
            additionalScrapeConfigs = [ {{ job_name = "own"; }} {{ job_name = "here";
              static_configs = [ {{ targets = [ "localhost:9091" ]; }} ]; }} ]; }});
            m.exporter.db = {{ }}; n.server.mac = {{ sharding = "hashmod"; }};"""
        for number, name in enumerate(["monitor", "spare"]):
            found = member(name, instances)
            assert found.job("prometheus").relabel_configs == []
            assert found.job("here").relabel_configs == []  # each has its own
            (hashed, kept) = found.job("node").relabel_configs
            assert (hashed.source_labels, hashed.modulus, hashed.action) == (["job", "instance"], 2, "hashmod")
            assert (kept.source_labels, kept.regex, kept.action) == ([hashed.target_label], str(number), "keep")
            assert found.job("own").relabel_configs[0].source_labels == ["job", "__address__", "__param_target"]

    def test_lists_merge_and_the_machine_wins(self) -> None:
        """Over role and machine; scalars give way to the machine's own configuration, in nested options too."""
        what = "{ inherit (c.services.prometheus) rules retentionTime port globalConfig alertmanager extraFlags; }"
        found = evaluated(
            "monitor",
            f"""m.server.monitor = [ {{ {SHUT} rules = [ "role" ]; extraFlags = [ "--a" ]; retentionTime = "30d";
                globalConfig = {{ scrape_interval = "15s"; external_labels.site = "home"; }};
                alertmanager.configuration.route.receiver = "x"; }} {{ rules = [ "machine" ]; }} ];""",
            what,
            modules="""{ services.prometheus = { retentionTime = "7d"; globalConfig.scrape_interval = "1m";
                globalConfig.external_labels.site = "office"; rules = [ "own" ]; }; }""",
        )
        assert found == {
            "rules": ["own", "machine", "role"],
            "extraFlags": ["--a"],
            "retentionTime": "7d",
            "port": 9090,
            "globalConfig": {"scrape_interval": "1m", "external_labels": {"site": "office"}},
            # `attrs` does not look into its definitions: a mkDefault would have stayed in there.
            "alertmanager": {"configuration": {"route": {"receiver": "x"}}, "enable": False},
        }

    def test_nobody_loses_what_they_kept(self) -> None:
        """Today's service keeps 30 days, Prometheus by itself 15."""
        for backend, option in (("prometheus", "retentionTime"), ("victoriametrics", "retentionPeriod")):
            instances = f'm.server.monitor = {{ {SHUT} backend = "{backend}"; }};'
            assert evaluated("monitor", instances, f"c.services.{backend}.{option}") == "30d"

    def test_an_instance_that_stayed_with_another_module(self) -> None:
        """Its exporters are not ours to see, and the server says so."""
        inventory = """{ options.clanConfig = t.lib.mkOption { type = t.lib.types.raw; };
          config.clanConfig.inventory = { machines.monitor = { tags = [ ]; machineClass = "nixos"; };
            instances.m.module.name = "prometheus"; instances.old.module.name = "prometheus";
            instances.wg.module.name = "wireguard"; }; }"""
        (said,) = member("monitor", SERVER, inventory, more="").warnings
        assert said.startswith("clan-discovery: old: instances of a module prometheus from another input")

    def test_jobs_of_the_machine_stay(self) -> None:
        """A definition of `scrapeConfigs` in NixOS is joined, and drops none of ours."""
        found = member(
            "monitor",
            f"{SERVER} m.exporter.db = {{ }};",
            modules='{ services.prometheus.scrapeConfigs = [ { job_name = "mine"; } ]; }',
        )
        assert sorted(found.names()) == ["mine", "node", "prometheus"]

    def test_two_instances_on_one_server_are_one_list(self) -> None:
        """The jobs stand once; each instance's own settings are joined."""
        found = member(
            "monitor",
            f"""a.server.monitor = {{ {SHUT} additionalScrapeConfigs = [ {{ job_name = "x"; }} ]; }};
            b.server.monitor = {{ {SHUT} additionalScrapeConfigs = [ {{ job_name = "y"; }} ]; }};
            b.exporter.db = {{ }};""",
        )
        assert found.failed == []
        assert found.names() == ["prometheus", "node", "x", "y"]

    def test_victoriametrics_and_vmagent(self) -> None:
        """The same jobs, and what they have a word for."""
        instances = """m.server.monitor = { firewallInterfaces = [ "wg0" ]; backend = "BACKEND";
            globalConfig.scrape_interval = "1m"; extraFlags = [ "-x" ]; MORE }; m.exporter.db = { };"""
        same = member("monitor", f"{SERVER} m.exporter.db = {{ }};").jobs
        what = "{ s = t.seen c; inherit (c.services) victoriametrics vmagent; }"
        more = 'retentionTime = "90d"; port = 8500; globalConfig.evaluation_interval = "1m";'
        match evaluated("monitor", instances.replace("BACKEND", "victoriametrics").replace("MORE", more), what):
            case {
                "s": machine_,
                "victoriametrics": {"prometheusConfig": {"scrape_configs": jobs, "global": global_}, **vm},
            }:
                assert clan.seen(machine_).failed == []
                assert clan.seen(machine_).ports() == {"wg0": [8500]}
                assert global_ == {"scrape_interval": "1m"}
                assert (vm["listenAddress"], vm["retentionPeriod"], vm["extraOptions"]) == (
                    ":8500",
                    "90d",
                    ["-enableTCP6", "-x"],
                )
                assert isinstance(jobs, list)
                own, *others = [clan.job(job) for job in jobs]
                assert others == same[1:]
                assert own.static_configs[0].targets == ["monitor.home.arpa:8500"]
            case other:
                raise AssertionError(other)
        elsewhere = '{ services.vmagent.remoteWrite.url = "http://c/w"; }'
        assert member("monitor", f'm.server.monitor = {{ {SHUT} backend = "vmagent"; }};', elsewhere).failed == []
        more = 'port = 8500; remoteWrite = [ { url = "http://a/w"; } { url = "http://b/w"; } ];'
        match evaluated("monitor", instances.replace("BACKEND", "vmagent").replace("MORE", more), what):
            case {"s": machine_, "vmagent": {"extraArgs": arguments, "remoteWrite": {"url": url}}}:
                assert clan.seen(machine_).failed == []
                assert clan.seen(machine_).ports() == {"wg0": [8500]}
                assert (url, arguments) == (
                    "http://a/w",
                    ["-enableTCP6", "-httpListenAddr=:8500", "-remoteWrite.url=http://b/w", "-x"],
                )
            case other:
                raise AssertionError(other)


class TestExporter:
    """Exporters of a machine."""

    def test_settings_reach_the_exporter(self) -> None:
        """Collectors and everything free; nothing of the scraping side."""
        found = member(
            "db",
            f"""{SERVER} m.exporter.db = {{ {SHUT} exporterType = "node"; port = 9200;
            enabledCollectors = [ "systemd" ]; listenAddress = "::"; labels.site = "home"; scheme = "http";
            extraFlags = [ "--x" ]; }};""",
        )
        assert found.failed == []
        node = found.exporters["node"]
        assert (node.port, node.enabled_collectors, node.listen_address) == (9200, ["systemd"], "::")
        assert (node.extra_flags, node.open_firewall) == (["--x"], False)

    def test_the_machine_wins_but_for_the_port(self) -> None:
        """What the server cannot see would leave it without a target."""
        exporting = f'm.exporter.db = {{ {SHUT} listenAddress = "::"; }};'
        own = '{ services.prometheus.exporters.node.listenAddress = "127.0.0.1"; }'
        assert member("db", exporting, own).exporters["node"].listen_address == "127.0.0.1"
        (said,) = member("db", exporting, "{ services.prometheus.exporters.node.port = 1; }").failed
        assert "exporters.node.port is 1 on db, and the server scrapes it at 9100" in said
        assert "instances.m.roles.exporter.machines.db.settings" in said

    def test_what_nixos_has_and_we_do_not_know(self) -> None:
        """It is enabled where a port is given, with its settings; what was removed is none."""
        more = """{ options.services.prometheus.exporters = t.lib.mkOption { type = t.lib.types.submodule { options = {
            newest = t.lib.mkOption { default = { }; type = t.lib.types.submodule { options = {
              enable = t.lib.mkOption { default = false; }; port = t.lib.mkOption { };
              word = t.lib.mkOption { default = ""; }; }; }; };
            removed = t.lib.mkOption { visible = false; apply = _: throw "removed"; };
          }; }; }; }"""
        what = "{ inherit (c.services.prometheus.exporters) newest; failed = t.failed c; }"
        instances = f'm.exporter.db = {{ {SHUT} exporters.newest = {{ port = 7; word = "x"; }}; }};'
        assert evaluated("db", instances, what, more) == {
            "newest": {"enable": True, "port": 7, "word": "x"},
            "failed": [],
        }
        instances = f"m.exporter.db = {{ {SHUT} exporters.removed = {{ port = 7; x = 1; }}; }};"
        said = evaluated("db", instances, "t.failed c", more)
        assert "x would be settings of services.prometheus.exporters.removed" in str(said)

    def test_one_that_is_switched_off(self) -> None:
        """By the settings it is no target and no exporter; by the machine alone it is an assertion."""
        instances = f"{SERVER} m.exporter.db = {{ {SHUT} enable = false; }};"
        assert member("db", instances).exporters == {}
        assert member("monitor", instances).names() == ["prometheus"]
        off = "{ services.prometheus.exporters.node.enable = false; }"
        (said,) = member("db", f"m.exporter.db = {{ {SHUT} }};", off).failed
        assert "exporters.node.enable is false on db, and the server scrapes it" in said

    def test_names_of_todays_readme_do_not_stop_node_exporter(self) -> None:
        """It knows no collectors of these names, and would not start."""
        names = '[ "systemd" "cpu" "memory" "disk" "network" ]'
        found = member("db", f"m.exporter.db = {{ {SHUT} enabledCollectors = {names}; }};")
        assert found.exporters["node"].enabled_collectors == ["systemd", "cpu", "meminfo", "diskstats", "netdev"]
        assert ["no collector memory" in found.warnings[0], len(found.warnings)] == [True, 3]

    def test_a_service_is_no_exporter_of_nixos(self) -> None:
        """Its port is opened, and nothing is enabled for it."""
        found = member(
            "db", 'm.exporter.db = { firewallInterfaces = [ "wg0" ]; exporters = { caddy = { }; own.port = 7; }; };'
        )
        assert (found.failed, found.exporters, found.ports()) == ([], {}, {"wg0": [7, 2019]})


class TestFirewall:
    """Ports are open where somebody said, and nowhere else."""

    def test_that_of_tailscale_where_it_is_the_method(self) -> None:
        """For every exporter of the clan, whichever instance the server is in; under the name that it has."""
        instances = 'm.server.monitor.discoveryMethod = "tailscale"; other.exporter.db = { }; m.exporter.monitor = { };'
        assert member("db", instances).ports() == {"tailscale0": [9100]}
        assert member("monitor", instances).ports() == {"tailscale0": [9090, 9100]}
        renamed = '{ services.tailscale.interfaceName = "ts1"; }'
        assert member("db", instances, renamed).ports() == {"ts1": [9100]}
        assert member("db", instances).everywhere == []

    def test_tailscale_without_an_interface(self) -> None:
        """Userspace networking hands connections to the loopback; a machine without Tailscale has to say."""
        instances = 'm.server.monitor.discoveryMethod = "tailscale"; m.exporter.db = { };'
        userspace = '{ services.tailscale.interfaceName = "userspace-networking"; }'
        found = member("db", instances, userspace)
        assert (found.failed, found.ports()) == ([], {})
        (said,) = member("db", instances, more=f"{MACHINES} tailscale = false;").failed
        assert "on which interfaces is port 9100 open?" in said

    def test_a_name_that_would_stop_the_whole_firewall(self) -> None:
        """Linux takes 15 characters."""
        (said,) = member("db", 'm.exporter.db.firewallInterfaces = [ "wg-of-the-home-lab" ];').failed
        assert "'wg-of-the-home-lab' is no name of a network interface" in said

    def test_nobody_said_is_an_assertion(self) -> None:
        """And no open port; without a firewall there is nothing to say."""
        found = member("db", "m.server.monitor = { }; m.exporter.db = { };")
        assert found.ports() == {}
        (said,) = found.failed
        assert "on which interfaces is port 9100 open? Set `firewallInterfaces`" in said
        assert "instances.m.roles.exporter.machines.db.settings" in said
        (said,) = member("monitor", "m.server.monitor = { };").failed
        assert "port 9090" in said
        off = "{ networking.firewall.enable = false; }"
        assert member("db", "m.exporter.db = { };", off).failed == []


@pytest.mark.parametrize(
    ("name", "instances", "said"),
    [
        (
            "monitor",
            f"""m.server.monitor = {{ {SHUT} additionalScrapeConfigs = [ {{ job_name = "node"; }} ]; }};
            m.exporter.db = {{ }};""",
            "monitor: there is more than one scrape config 'node'",
        ),
        (
            "db",
            f'a.exporter.db = {{ {SHUT} }}; b.exporter.db = {{ {SHUT} exporterType = "systemd"; port = 9100; }};',
            "db: port 9100 is that of node (a) and systemd (b)",
        ),
        (
            "db",
            f"a.exporter.db = {{ {SHUT} }}; b.exporter.db = {{ {SHUT} port = 9200; }};",
            "node has port 9100 by the instance a and port 9200 by the instance b",
        ),
        (
            "db",
            f'm.exporter.db = {{ {SHUT} exporterType = "node"; exporters.node = {{ }}; }};',
            "node is given by `exporterType` and by `exporters.node`",
        ),
        (
            "db",
            f'm.exporter.db = {{ {SHUT} exporterType = "nodee"; }};',
            "unknown exporter type 'nodee', and no `port`",
        ),
        (
            "monitor",
            f'{SERVER} m.exporter.db.exporterType = "nodee";',
            "machines.db.settings: unknown exporter type 'nodee'",
        ),
        ("monitor", f"{SERVER} m.exporter = {{ }};", "instances.m.roles.exporter has no machine"),
        ("db", f"m.exporter.db = {{ {SHUT} }}; m.server = {{ }};", "instances.m.roles.server has no machine"),
        ("monitor", f"{SERVER} m.exporter.wep = {{ }};", "names the machine wep, which is no machine of the clan"),
        (
            "monitor",
            f'm.server.monitor = {{ {SHUT} staticTargets.node = [ "http://x:1/" ]; }};',
            "staticTargets.node: 'http://x:1/' is no target",
        ),
        (
            "monitor",
            f'a.server.monitor = {{ {SHUT} }}; b.server.monitor = {{ {SHUT} backend = "victoriametrics"; }};',
            "with the backends prometheus, victoriametrics: a machine has one",
        ),
        (
            "monitor",
            f'm.server.monitor = {{ {SHUT} backend = "victoriametrics"; rules = [ "x" ]; webExternalUrl = "y"; }};',
            "rules, webExternalUrl mean nothing to the backend victoriametrics",
        ),
        ("monitor", f'm.server.monitor = {{ {SHUT} backend = "vmagent"; }};', "say where it sends to"),
        (
            "monitor",
            f"""m.server.monitor = {{ {SHUT} backend = "vmagent";
            remoteWrite = [ {{ url = "x"; basic_auth = {{ }}; }} ]; }};""",
            "of an entry only `url` is handed to vmagent",
        ),
        (
            "monitor",
            f"""m.server = {{ monitor = {{ {SHUT} sharding = "hashmod"; staticTargets.node = [ "a:1" ]; }};
              spare = {{ {SHUT} sharding = "hashmod"; }}; }};""",
            "monitor, spare share their targets",
        ),
        (
            "monitor",
            f"""m.server = {{ monitor = {{ {SHUT} sharding = "hashmod"; }};
              spare = {{ {SHUT} sharding = "hashmod"; backend = "victoriametrics"; }}; }};""",
            "monitor, spare share their targets",
        ),
        (
            "monitor",
            f"""a.server.monitor = {{ {SHUT} retentionTime = "1d"; }};
            b.server.monitor = {{ {SHUT} port = 9091; retentionTime = "2d"; }};""",
            "which do not say the same of port, retentionTime: a machine has one server; say it in a",
        ),
        (
            "monitor",
            f"""a.server.monitor = {{ {SHUT} port = 9091; rules = [ "x" ]; }};
            b.server.monitor = {{ {SHUT} webExternalUrl = "x"; policy.max_age = "2d"; rules = [ "y" ]; }};""",
            "which do not say the same of policy, webExternalUrl",
        ),
        (
            "monitor",
            f"{SERVER} m.exporter.monitor = {{ {SHUT} port = 9090; }};",
            "monitor: port 9090 is that of node (m) and the server (m)",
        ),
    ],
)
def test_what_would_only_fail_later(name: str, instances: str, said: str) -> None:
    """One assertion, which names the place and the mend."""
    failed = member(name, instances).failed
    assert len(failed) == 1, failed
    assert said in failed[0]
    assert failed[0].startswith("clan-discovery: ")


def test_a_darwin_machine_in_a_role() -> None:
    """Refused where it is built; a warning at the server, and no target."""
    found = member("monitor", f"{SERVER} m.exporter = {{ mac = {{ }}; db = {{ }}; }};")
    assert found.failed == []
    assert found.addresses("node") == ["db.home.arpa:9100"]
    assert ["mac in the role exporter: darwin machines have no NixOS exporter" in w for w in found.warnings] == [True]


def test_a_server_that_listens_elsewhere() -> None:
    """The machine's own configuration wins, and the others are told where they look in vain."""
    found = member(
        "monitor", 'm.server.monitor.firewallInterfaces = [ "wg0" ];', "{ services.prometheus.port = 9999; }"
    )
    assert found.ports() == {"wg0": [9999]}
    assert ["at port 9090, and it listens at 9999" in w for w in found.warnings] == [True]


def test_tailscale_that_is_not_there() -> None:
    """A warning: another tailscaled than NixOS's may run."""
    instances = f'm.server.monitor = {{ {SHUT} discoveryMethod = "tailscale"; }};'
    found = member("monitor", instances, more=f"{MACHINES} tailscale = false;")
    assert ["services.tailscale.enable is false" in w for w in found.warnings] == [True]
    assert member("monitor", instances).warnings == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('params.module = [ "if_mib" "system" ];', "'module' must be one string"),
        ("params.a = [ ];", "'a' must be one string"),
        ('labels.job = "x";', "the label 'job' cannot be set"),
        ('labels.__scheme__ = "x";', "the label '__scheme__' cannot be set"),
        ('labels."a-b" = "x";', "the label 'a-b' cannot be set"),
        ("labels.a = 1;", "'a' must be one string"),
        ('params."a-b" = "x";', "the parameter 'a-b' cannot be written as a label"),
        ('scheme = "ftp";', "`scheme` is http or https"),
        ('path = "metrics";', "`path` is no path"),
        ('path = "/a?b=c";', "`path` is no path"),
        ("port = 0;", "0 is no port"),
        ('exporterType = "a/b"; port = 1;', "'a/b' cannot be the name of a job"),
    ],
)
def test_what_python_would_refuse_is_refused_at_evaluation(settings: str, said: str, tmp_path: Path, run: Run) -> None:
    """Where the server is built, and where the exporter is; and Python does refuse it."""
    instances = f"{SERVER} m.exporter.db = {{ {SHUT} {settings} }};"
    for name in ("monitor", "db"):
        failed = member(name, instances).failed
        assert len(failed) == 1, failed
        assert failed[0].startswith("clan-discovery: instances.m.roles.exporter.machines.db.settings: ")
        assert said in failed[0]
    refused(f"exporter.machines.db.settings = {{ {settings} }};", tmp_path, run)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('discoveryMethod = [ "none" "dns" ];', "asks somebody and nobody"),
        ('staticTargets."web servers" = [ "a:1" ];', "'web servers' cannot be the name of a job"),
        ('dnsDiscovery."a/b".names = [ "x" ];', "'a/b' cannot be the name of a job"),
        ('staticTargets.own = [ "a" ];', "staticTargets.own: 'a' is no target"),
    ],
)
def test_what_python_would_refuse_of_a_server(settings: str, said: str, tmp_path: Path, run: Run) -> None:
    """The same of the server's own words."""
    failed = member("monitor", f"m.server.monitor = {{ {SHUT} {settings} }};").failed
    assert said in failed[0]
    refused(f"server.machines.db.settings = {{ {settings} }}; exporter.machines.db = {{ }};", tmp_path, run)


def refused(roles: str, tmp_path: Path, run: Run) -> None:
    """See that Python refuses these roles."""
    document = value(f"""{{
      machines.db = {{ }};
      instances.m = {{ module.name = "prometheus"; roles = {{ {roles} }}; }};
    }}""")
    (tmp_path / "inventory.json").write_text(json.dumps(document))
    (tmp_path / "config.json").write_text('{"inventory": {"file": "inventory.json"}}')
    assert run("check", "-c", tmp_path / "config.json").code == 2
