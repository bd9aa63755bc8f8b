"""Components of one machine, run by a real systemd from the units of a real NixOS.

Prometheus, VictoriaMetrics, vmalert and node exporter are Debian's; Alertmanager, VictoriaLogs and systemd exporter are
the pinned builds. Grafana cannot be had here: a web server stands in for it, in its unit. Reverse proxies have tests of
their own (tests/test_front_units.py).
"""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Final

import pytest

from tests.nixos.test_components import MACHINE, expression, key
from tests.support.alerting import TEMPLATE
from tests.support.builds import NotBuiltError, agent_program, alerting_program, exporter
from tests.support.nix import at, listed, without_nulls
from tests.support.programs import absent, eventually, program
from tests.support.systemd import booted

if TYPE_CHECKING:
    from clan_discovery.model import Json
    from tests.support.nixos import Real
    from tests.support.systemd import Machine

pytestmark = pytest.mark.timeout(900)

LONG_S: Final = 300.0
STATE: Final = "/var/lib/clan-discovery"
ALL: Final = ("alerting", "dashboards", "exporter", "front", "logs")
BEFORE: Final = ("exporter", "logs")
AFTER: Final = ("dashboards", "exporter", "logs")
SETS: Final[dict[str, list[tuple[str, ...]]]] = {
    "prometheus": [(), ("exporter",), BEFORE, AFTER, ALL],
    "victoriametrics": [(), ("alerting", "exporter")],
}
PORTS: Final = {"prometheus": 9090, "victoriametrics": 8428}
READERS: Final = {"clan-discovery", "prometheus"}
"""The units that change with Grafana: it becomes a target."""
USERS: Final = ("grafana", "node-exporter", "prometheus")
GRAFANA: Final = "/bin/sh -c 'test -s $CREDENTIALS_DIRECTORY/admin-password && exec /opt/share/stub'"


@pytest.fixture(scope="module")
def answer(real: Real) -> Json:
    """Return the units and the configs for each set of components, by server."""
    chosen = "".join(f"{backend} = {expression(sets)};" for backend, sets in SETS.items())
    return without_nulls(
        real(f"""
      let
        {MACHINE}
        wanted = [
          "alertmanager" "clan-discovery" "grafana" "prometheus" "prometheus-node-exporter"
          "prometheus-systemd-exporter" "victorialogs" "victoriametrics" "vmalert-clan-discovery"
        ];
        seen = system: let inherit (system.config) services systemd; own = services.clan-discovery; in {{
          units = t.lib.genAttrs (builtins.filter (name: systemd.services ? ${{name}}) wanted) (t.unit system);
          scrape = services.prometheus.scrapeConfigs;
          victoria = t.lib.optionalAttrs services.victoriametrics.enable services.victoriametrics.prometheusConfig;
          alertmanager = t.lib.optionalAttrs services.prometheus.alertmanager.enable
            services.prometheus.alertmanager.configuration;
          inherit (services.prometheus) alertmanagers;
          inherit (own.alerts.file.value) groups;
          exposed = own.settings.inventory.exposed.value;
          grafana = with services.grafana.settings.server; "${{http_addr}}:${{toString http_port}}";
        }};
        of = backend: on: seen ((machine on).extendModules {{
          modules = [ {{ services.clan-discovery.stack.server.backend = backend; }} ];
        }});
      in t.lib.mapAttrs (backend: t.lib.mapAttrs (_: of backend)) {{ {chosen} }}
    """)
    )


def unit(name: str, text: str) -> str:
    """Return a unit of NixOS with programs and configs of this machine; its sandbox and its flags are as evaluated."""
    programs = {
        "alertmanager": "/opt/share/alertmanager",
        "clan-discovery": "/opt/share/clan-discovery",
        "node_exporter": program("prometheus-node-exporter"),
        "prometheus": program("prometheus"),
        "systemd_exporter": "/opt/share/systemd_exporter",
        "victoria-logs": "/opt/share/victoria-logs",
        "victoria-metrics": program("victoria-metrics"),
        "vmalert": program("vmalert"),
    }
    text = text.replace("\\\n", " ")
    if name == "grafana":
        text = re.sub(r"(?m)^ExecStart=.*$", lambda _: f"ExecStart={GRAFANA}", text)
    text = re.sub(r"/nix/store/[^/ ]+/bin/(\S+)", lambda found: programs.get(found[1], found[0]), text)
    for pattern, replaced in (
        (r"(--config\.file=|-promscrape\.config=)/nix/store/[^\s']+", r"\1/opt/share/scrape.json"),
        (r"/tmp/alert-manager-substituted.yaml", "/opt/share/alertmanager.json"),  # noqa: S108 - the unit's own /tmp
        (r"-rule=/etc/\S+", ""),  # it has no rules
        (r"-rule=/nix/store/\S+", "-rule=/opt/share/rules.json"),
        (r"--config /nix/store/\S+", "--config /opt/share/config.json"),
        (r"--interval 30s", "--interval 1s"),
    ):
        text = re.sub(pattern, replaced, text)
    # What is left of the store prepares files that `furnish` writes.
    return "\n".join(line for line in text.splitlines() if "/nix/store" not in line) + "\n"


def units(system: Json) -> dict[str, str]:
    """Return the unit files of a set of components."""
    services = at(system, "units")
    assert isinstance(services, dict)
    return {f"{name}.service": unit(name, str(text)) for name, text in services.items()}


def furnish(machine: Machine, system: Json, backend: str) -> None:
    """Write the configs, the users and the secrets."""
    scrape: dict[str, Json] = {
        "rule_files": ["/opt/share/rules.json"],
        "alerting": {"alertmanagers": at(system, "alertmanagers")},
        "scrape_configs": at(system, "scrape"),
    }
    if backend == "victoriametrics":
        found = at(system, "victoria")
        assert isinstance(found, dict)
        scrape = found
    files: dict[str, Json] = {
        "config": {
            "inventory": {"exposed": "exposed.json"},
            "server": "probe",
            "output": {"directory": f"{STATE}/targets"},
            "state": f"{STATE}/state",
        },
        "exposed": at(system, "exposed"),
        "rules": {"groups": at(system, "groups")},
        "scrape": {**scrape, "global": {"scrape_interval": "1s"}},
    }
    for name, document in files.items():
        (machine.share / f"{name}.json").write_text(json.dumps(document))
    # NixOS passes it through envsubst. The template is in the store.
    alertmanager = json.dumps(at(system, "alertmanager")).replace("$$", "$")
    (machine.share / "alertmanager.json").write_text(re.sub(r"/nix/store/[^\"]+", "/opt/share/mail.tmpl", alertmanager))
    shutil.copy(TEMPLATE, machine.share)
    try:
        for path in (alerting_program("alertmanager"), agent_program("victoria-logs"), exporter("systemd_exporter")):
            if not (machine.share / path.name).exists():
                shutil.copy(path, machine.share)
    except NotBuiltError as error:
        absent("the programs of the stack", str(error), required=False)
    address, _, port = str(at(system, "grafana")).rpartition(":")
    (machine.share / "page").mkdir(exist_ok=True)
    (machine.share / "page" / "metrics").write_text("grafana_up 1\n")
    stub = machine.share / "stub"
    serve = f"http.server --bind {address} --directory /opt/share/page {port}"
    stub.write_text(f"#!/bin/sh\nLD_LIBRARY_PATH=/opt/python/lib exec /opt/python/bin/python3 -m {serve}\n")
    stub.chmod(0o755)
    lines = [f"id {name} || /usr/sbin/useradd --system --user-group {name}" for name in USERS]
    lines += ["install -d -o grafana /var/lib/grafana", "mkdir -p /run/secrets"]
    lines += ["echo secret > /run/secrets/admin", "echo secret > /run/secrets/key"]
    done = machine.command("sh", "-ec", "; ".join(lines))
    assert done.returncode == 0, done


def listening(machine: Machine) -> set[str]:
    """Return the local addresses on which something listens over TCP."""
    return {line.split()[3] for line in machine.command("ss", "-Hltn").stdout.splitlines()}


def invocations(machine: Machine, names: set[str]) -> dict[str, str]:
    """Return the identity of the run of each unit."""
    return {name: machine.show(f"{name}.service", "InvocationID") for name in names}


def names_of(system: Json) -> set[str]:
    """Return the names of the services."""
    found = at(system, "units")
    assert isinstance(found, dict)
    return set(found)


def up(machine: Machine, backend: str) -> set[str]:
    """Return the jobs whose target is up."""
    done = machine.command("curl", "-sf", f"http://127.0.0.1:{PORTS[backend]}/api/v1/query?query=up%3D%3D1")
    if done.returncode:
        return set()
    return {result["metric"]["job"] for result in json.loads(done.stdout)["data"]["result"]}


def scraped(system: Json, backend: str) -> set[str]:
    """Return the jobs whose program runs here."""
    jobs = listed(system, "scrape") if backend == "prometheus" else listed(system, "victoria", "scrape_configs")
    return {str(at(job, "job_name")) for job in jobs} - {"caddy"}


def whole(machine: Machine, system: Json, backend: str) -> None:
    """Wait until every target is up in the server."""
    # For five minutes, a restarted Prometheus still answers with the last sample of a target that is gone.
    eventually("every target is up", lambda: up(machine, backend) >= scraped(system, backend), LONG_S)
    for name in names_of(system):
        assert machine.show(f"{name}.service", "NRestarts") == "0", machine.journal(f"{name}.service")


def begun(machine: Machine, system: Json, backend: str) -> None:
    """Start all units, the one that writes the targets first."""
    furnish(machine, system, backend)
    machine.ctl("start", "clan-discovery.service")
    machine.ctl("start", *sorted(f"{name}.service" for name in names_of(system)))
    whole(machine, system, backend)


@pytest.mark.parametrize(
    ("backend", "components"),
    [(backend, one) for backend, sets in SETS.items() for one in sets],
    ids=lambda one: one if isinstance(one, str) else key(one) or "server",
)
def test_components_run_and_listen_on_loopback(backend: str, components: tuple[str, ...], answer: Json) -> None:
    """Each starts once in its sandbox and is a target that is up; the alerts reach Alertmanager."""
    system = at(answer, backend, key(components))
    with booted(units(system)) as machine:
        begun(machine, system, backend)
        assert {one.rpartition(":")[0] for one in listening(machine)} == {"127.0.0.1"}
        if "alerting" in components:
            eventually(
                "an alert has arrived",
                lambda: "Watchdog" in machine.command("curl", "-s", "http://127.0.0.1:9093/api/v2/alerts").stdout,
                LONG_S,
            )


def switched(machine: Machine, before: Json, after: Json) -> set[str]:
    """Replace the units as NixOS does, which restarts those whose text differs; return these."""
    old, new = at(before, "units"), at(after, "units")
    assert isinstance(old, dict)
    assert isinstance(new, dict)
    gone = [f"{name}.service" for name in old.keys() - new.keys()]
    if gone:
        machine.ctl("stop", *gone)
        machine.command("rm", *(f"/etc/systemd/system/{name}" for name in gone))
    for name, text in units(after).items():
        (machine.share / name).write_text(text)
        machine.command("cp", f"/opt/share/{name}", "/etc/systemd/system/")
    furnish(machine, after, "prometheus")
    machine.ctl("daemon-reload")
    changed = {name for name in old.keys() & new.keys() if old[name] != new[name]}
    machine.ctl("restart", *(f"{name}.service" for name in changed))
    machine.ctl("start", *(f"{name}.service" for name in new))
    return changed


def test_a_component_comes_and_goes_and_restarts_only_its_readers(answer: Json) -> None:
    """Grafana is added and removed: others keep their invocation, and only its state is left."""
    before, after = (at(answer, "prometheus", key(one)) for one in (BEFORE, AFTER))
    kept = names_of(before) - READERS
    assert kept == {"prometheus-node-exporter", "prometheus-systemd-exporter", "victorialogs"}
    with booted(units(before)) as machine:
        begun(machine, before, "prometheus")
        runs = invocations(machine, names_of(before))
        assert switched(machine, before, after) == READERS
        whole(machine, after, "prometheus")
        now = invocations(machine, names_of(before))
        assert {name for name in now if now[name] != runs[name]} == READERS
        assert str(at(after, "grafana")) in listening(machine)
        assert switched(machine, after, before) == READERS
        whole(machine, before, "prometheus")
        assert invocations(machine, kept) == {name: runs[name] for name in kept}
        assert str(at(after, "grafana")) not in listening(machine)
        for left in ("/run/grafana", "/run/credentials/grafana.service"):
            assert machine.command("test", "-e", left).returncode == 1
        assert machine.command("test", "-d", "/var/lib/grafana").returncode == 0
