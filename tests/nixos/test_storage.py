"""The role `storage` through clan-core on a real NixOS: units of nodes, servers and Grafana's machine."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.builds import NotBuiltError, newer_scraper
from tests.support.nix import at, listed
from tests.support.programs import absent, eventually
from tests.support.systemd import booted

if TYPE_CHECKING:
    from clan_discovery.model import Json
    from tests.support.nixos import Real
    from tests.support.systemd import Machine

pytestmark = pytest.mark.timeout(900)

LONG_S: Final = 300.0
PROXY: Final = "clan-discovery-storage.service"
READ: Final = "http://127.0.0.1:8427"

# Three nodes by tag, two servers, and a machine with Grafana.
CLAN = """
  clan = engine: backend: (t.clan {
    machines = t.lib.genAttrs [ "db1" "db2" "db3" "graf" "mon1" "mon2" ] (_: {
      sops.age.keyFile = "/var/lib/sops-nix/key.txt";
    });
    inventory = {
      machines = t.lib.genAttrs [ "db1" "db2" "db3" ] (_: { tags = [ "stores" ]; })
        // t.lib.genAttrs [ "graf" "mon1" "mon2" ] (_: { });
      instances.monitoring = {
        module = { name = "prometheus"; input = "clan-discovery"; };
        roles.storage.tags.stores = { };
        roles.storage.settings = { inherit engine; firewallInterfaces = [ "wg0" ]; };
        roles.server.settings = {
          inherit backend;
          firewallInterfaces = [ ];
        };
        roles.server.machines = { mon1 = { }; mon2 = { }; };
        roles.dashboards.machines.graf.settings = { adminPasswordFile = "/run/a"; secretKeyFile = "/run/b"; };
      };
    };
  }).nixosConfigurations;
"""


@pytest.fixture(scope="module")
def answer(real: Real) -> Json:
    """Return what the tests read of two clans: VictoriaMetrics with vmagent, and Thanos with Prometheus."""
    return real(f"""
      let
        {CLAN}
        victoria = clan "victoriametrics" "vmagent";
        thanos = clan "thanos" "prometheus";
        started = system: name: system.config.systemd.services.${{name}}.serviceConfig.ExecStart;
        names = [ "clan-discovery-storage" "thanos-query" "thanos-receive" "victoriametrics" "vmagent" ];
        seen = found: t.lib.genAttrs [ "db1" "graf" "mon1" ] (name: let system = found.${{name}}; in {{
          failed = t.refused system;
          warnings = t.warned system;
          units = t.lib.genAttrs (builtins.filter (name: system.config.systemd.services ? ${{name}}) names)
            (started system);
          ports = t.ports system.config;
          sources = map (one: one.url) system.config.services.clan-discovery.stack.dashboards.found;
        }});
        prometheus = thanos.mon1.config.services.prometheus;
      in {{
        victoria = seen victoria;
        thanos = seen thanos;
        prometheus = {{
          labels = prometheus.globalConfig.external_labels;
          write = map (one: one.url) prometheus.remoteWrite;
          relabels = map (one: map (t.lib.filterAttrs (_: value: value != null)) one.write_relabel_configs)
            prometheus.remoteWrite;
        }};
        hardened = t.unit victoria.mon1 "clan-discovery-storage";
        run = {{
          "victoriametrics.service" = t.unit victoria.db1 "victoriametrics";
          "vmagent.service" = t.unit victoria.mon1 "vmagent";
        }};
        proxy = t.lib.head (builtins.filter (t.lib.hasSuffix "clan-discovery-storage.json.drv") (builtins.attrNames
          (builtins.getContext (started victoria.mon1 "clan-discovery-storage"))));
        toplevels = map (system: t.toplevel system.config) [ victoria.mon1 thanos.db1 ];
      }}
    """)


def flags(answer: Json, clan: str, machine: str, unit: str) -> list[str]:
    """Return the words of the command of a unit, without the program and without paths of the store."""
    words = shlex.split(str(at(answer, clan, machine, "units", unit)).replace("\\\n", ""))
    return [re.sub(r"/nix/store/[a-z0-9]{32}-", "", word) for word in words[1:]]


def test_nothing_is_refused(answer: Json) -> None:
    """Up to the derivation of the whole system of a server and of a node.

    A server is warned that VictoriaMetrics keeps the samples of both.
    """
    for clan in ("victoria", "thanos"):
        for machine in ("db1", "graf", "mon1"):
            assert at(answer, clan, machine, "failed") == []
            warnings = [str(one) for one in listed(answer, clan, machine, "warnings")]
            is_warned = (clan, machine) == ("victoria", "mon1")
            assert ["set dedupInterval" in one for one in warnings] == [True] * is_warned
    assert all(str(path).endswith(".drv") for path in listed(answer, "toplevels"))


def test_vmagent_writes_to_each_node_and_vmauth_reads(answer: Json) -> None:
    """The queue is in the unit's cache directory; Grafana reads on its own machine."""
    assert flags(answer, "victoria", "mon1", "vmagent")[:5] == [
        "-remoteWrite.url=http://db1.home.arpa:8428/api/v1/write",
        "-remoteWrite.tmpDataPath=%C/vmagent/remote_write_tmp",
        "-enableTCP6",
        "-remoteWrite.url=http://db2.home.arpa:8428/api/v1/write",
        "-remoteWrite.url=http://db3.home.arpa:8428/api/v1/write",
    ]
    proxy = ["-auth.config=clan-discovery-storage.json", "-httpListenAddr=127.0.0.1:8427", "-enableTCP6"]
    for machine in ("graf", "mon1"):
        assert flags(answer, "victoria", machine, "clan-discovery-storage") == proxy
    assert at(answer, "victoria", "graf", "sources") == ["http://127.0.0.1:8427"]
    hardened = str(at(answer, "hardened"))
    assert "\nDynamicUser=true\n" in hardened
    assert "\nCapabilityBoundingSet=\n" in hardened
    assert "PrivateNetwork" not in hardened


def test_a_node_stores_what_it_gets(answer: Json) -> None:
    """It has no other unit of ours, and its port is open on the interface of the role."""
    assert at(answer, "victoria", "db1", "ports") == {"wg0": [8428]}
    assert list(_object(at(answer, "victoria", "db1", "units"))) == ["victoriametrics"]
    assert {"-httpListenAddr=:8428", "-dedup.minScrapeInterval=1ms"} <= {
        *flags(answer, "victoria", "db1", "victoriametrics")
    }


def test_thanos_receives_and_queries(answer: Json) -> None:
    """Systemd passes the quotes of a label on. Two servers scrape each target, so samples are not merged one by one."""
    receive = flags(answer, "thanos", "db1", "thanos-receive")
    assert receive[:4] == [
        "receive",
        "--remote-write.address=:19291",
        "--grpc-address=:10901",
        "--http-address=127.0.0.1:10902",
    ]
    assert {"--receive.hashrings-file=thanos-hashring.json", '--label=receive_replica="db1"'} <= {*receive}
    assert at(answer, "thanos", "db1", "ports") == {"wg0": [10901, 19291]}
    query = flags(answer, "thanos", "graf", "thanos-query")
    assert [word for word in query if word.startswith("--endpoint=")] == [
        f"--endpoint={name}.home.arpa:10901" for name in ("db1", "db2", "db3")
    ]
    assert "--deduplication.func=chain" not in query
    assert listed(answer, "thanos", "graf", "sources")[0] == "http://127.0.0.1:10904"


def test_prometheus_writes_through_vmauth_with_its_name(answer: Json) -> None:
    """The label tells the samples of two servers apart; alerts do not have it."""
    rule: Json = {"source_labels": ["replica"], "regex": "", "target_label": "replica", "replacement": "mon1"}
    assert at(answer, "prometheus", "labels") is None
    assert at(answer, "prometheus", "write") == ["http://127.0.0.1:8427/api/v1/receive"]
    assert at(answer, "prometheus", "relabels") == [[rule]]


def test_units_store_and_read_what_vmagent_scrapes(answer: Json, real: Real) -> None:
    """One of three nodes is up: a real systemd runs it, vmagent and vmauth in their sandboxes. Samples outlive it."""
    given = {**_object(at(answer, "run")), PROXY: at(answer, "hardened")}
    programs = {name: _pinned(name) for name in ("victoria-metrics", "vmagent", "vmauth")}
    with booted({name: _unit(str(text)) for name, text in given.items()}) as machine:
        for name, path in programs.items():
            shutil.copy(path, machine.share / name)
        (machine.share / "proxy.json").write_text(json.dumps(real.document(str(at(answer, "proxy")))))
        job: Json = {"job_name": "own", "static_configs": [{"targets": ["127.0.0.1:8429"]}]}
        scrape: Json = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
        (machine.share / "scrape.json").write_text(json.dumps(scrape))
        machine.command("sh", "-c", "echo 127.0.0.1 db1.home.arpa >> /etc/hosts")
        machine.ctl("start", *given)
        eventually("vmauth reads samples", lambda: len(_samples(machine)) > 1, LONG_S)
        before = _samples(machine)
        machine.ctl("restart", "victoriametrics.service")
        eventually("vmauth reads later samples", lambda: len(_samples(machine)) > len(before) + 1, LONG_S)
        assert before <= _samples(machine)
        write = machine.command("curl", "-s", "-d", "sample 1", f"{READ}/api/v1/import/prometheus")
        assert "missing route for" in write.stdout
        assert {machine.show(name, "NRestarts") for name in given} == {"0"}


def _pinned(name: str) -> str:
    """Return a pinned program, or skip the test: Debian's are older than the flags."""
    try:
        return str(newer_scraper(name))
    except NotBuiltError as error:
        absent(name, str(error), required=False)


def _unit(text: str) -> str:
    """Return a unit of NixOS with programs and configs of this machine."""
    text = re.sub(
        r"/nix/store/[^/ ]+/bin/(victoria-metrics|vmagent|vmauth)\b", r"/opt/share/\1", text.replace("\\\n", " ")
    )
    text = re.sub(r"-promscrape\.config=/nix/store/[^\s']+", "-promscrape.config=/opt/share/scrape.json", text)
    text = re.sub(r"-auth\.config=/nix/store/[^\s']+", "-auth.config=/opt/share/proxy.json", text)
    return "\n".join(line for line in text.splitlines() if "/nix/store" not in line) + "\n"


def _samples(machine: Machine) -> set[int]:
    """Return the times of the samples of `up` that vmauth reads, in milliseconds."""
    done = machine.command("curl", "-sfg", f"{READ}/api/v1/export?match[]=up")
    if done.returncode:
        raise OSError(done.stderr)
    return {int(str(time)) for line in done.stdout.splitlines() for time in listed(json.loads(line), "timestamps")}


def _object(document: Json) -> dict[str, Json]:
    assert isinstance(document, dict)
    return document
