"""`security` on a real NixOS and in real programs, with what the generators of clan vars make."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.nix import ROOT, at, listed, without_nulls
from tests.support.programs import eventually, free_port, get_json, program, running
from tests.support.scraper import prometheus, vmagent
from tests.support.systemd import booted, unit_text

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done
    from tests.support.nixos import Real
    from tests.support.systemd import Machine

    Run = Callable[..., Done]

GENERATORS = (
    "prometheus-ca", "prometheus-password",
    "prometheus-certificate", "prometheus-server-password", "prometheus-web-config",
)  # fmt: skip
CLAN = """
  clan = directory: t.clan {
    inherit directory;
    machines = t.lib.genAttrs [ "agent" "db" "monitor" ] (_: { sops.age.keyFile = "/var/lib/sops-nix/key.txt"; });
    inventory = {
      machines = t.lib.genAttrs [ "agent" "db" "monitor" ] (_: { });
      instances.monitoring = {
        module = { name = "prometheus"; input = "clan-discovery"; };
        roles.server.settings.firewallInterfaces = [ ];
        roles.server.machines.monitor = { };
        roles.server.machines.agent.settings = {
          backend = "vmagent";
          remoteWrite = [ { url = "http://db:8428/w"; } ];
        };
        roles.exporter.settings = { firewallInterfaces = [ ]; security = "tls"; };
        roles.exporter.machines.db.settings.exporters = {
          node.port = @node@;
          systemd = { security = "basic-auth"; port = @systemd@; };
          redis.security = "none";
        };
      };
    };
  };
"""


class Secured(NamedTuple):
    """A clan whose vars were generated."""

    vars: Path
    """The directory of the clan; `vars/` is in it."""
    clan: str
    """The clan, as Nix."""
    ports: dict[str, int]
    """The ports of the two exporters."""
    generators: Json
    """The generators by machine."""

    def file(self, generator: str, name: str, machine: str = "") -> Path:
        """Return the path of a file of a generator."""
        return self.vars / "made" / machine / generator / name


@pytest.fixture(scope="module")
def secured(real: Real, tmp_path_factory: pytest.TempPathFactory) -> Secured:
    """Run the generators of the clan, as `clan vars generate` does; the machines evaluate before that, too."""
    ports = {"node": free_port(), "systemd": free_port()}
    clan = re.sub("@([a-z]+)@", lambda found: str(ports[found[1]]), CLAN)
    before = real(f"""
      let
        {clan}
        see = t.lib.mapAttrs (_: one: {{
          inherit (one) share dependencies script;
          files = t.lib.mapAttrs (_: file: {{ inherit (file) secret deploy restartUnits; }}) one.files;
        }});
        machines = t.configs (clan "/var/empty");
      in {{
        generators = t.lib.mapAttrs (
          _: config: removeAttrs (see config.clan.core.vars.generators) [ "state-version" ]
        ) machines;
        toplevels = map t.toplevel (t.lib.attrValues machines);
      }}
    """)
    assert all(str(path).endswith(".drv") for path in listed(before, "toplevels"))
    generators = at(before, "generators")
    found = Secured(tmp_path_factory.mktemp("clan"), clan, ports, generators)
    assert isinstance(generators, dict)
    for machine in generators:
        for name in GENERATORS:
            if name in _names(generators, machine):
                _generate(found, machine, name)
    return found


def _names(document: Json, *path: str) -> dict[str, Json]:
    found = at(document, *path)
    assert isinstance(found, dict)
    return found


def _generate(clan: Secured, machine: str, name: str) -> None:
    """Run one generator, and put the result where clan-core reads it; a secret is a placeholder there."""
    generator = at(clan.generators, machine, name)
    shared = at(generator, "share") is True
    out = clan.file(name, "", "" if shared else machine)
    if out.exists():
        return
    out.mkdir(parents=True)
    given = clan.vars / "in"
    shutil.rmtree(given, ignore_errors=True)
    given.mkdir()
    for dependency in listed(generator, "dependencies"):
        shutil.copytree(clan.file(str(dependency), ""), given / str(dependency))
    program("openssl")
    program("htpasswd")
    environment = {"PATH": os.environ["PATH"], "in": str(given), "out": str(out)}
    script = f"set -euo pipefail\n{at(generator, 'script')}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    files = at(generator, "files")
    assert isinstance(files, dict)
    assert sorted(files) == sorted(path.name for path in out.iterdir())
    for file in files:
        secret = at(files, file, "secret")
        place = clan.vars / "vars" / ("shared" if shared else f"per-machine/{machine}") / name / file
        place.mkdir(parents=True)
        (place / ("secret" if secret else "value")).write_bytes(b"sops" if secret else (out / file).read_bytes())


@pytest.fixture(scope="module")
def answer(real: Real, secured: Secured) -> Json:
    """Return what the tests ask of the machines."""
    return real(f"""
      let
        {secured.clan}
        inherit (t.configs (clan "{secured.vars}")) agent db monitor;
        unit = config: name: config.systemd.services.${{name}}.serviceConfig;
      in {{
        failed = map t.failed [ agent db monitor ];
        warnings = map (config: config.warnings) [ agent db monitor ];
        jobs.prometheus = t.jobs monitor;
        jobs.vmagent = agent.services.vmagent.prometheusConfig.scrape_configs;
        checks = [ monitor.services.prometheus.checkConfig agent.services.vmagent.checkConfig ];
        scrapers.prometheus = unit monitor "prometheus";
        scrapers.vmagent = unit agent "vmagent";
        exporters = t.lib.genAttrs [ "node" "systemd" ] (name: unit db "prometheus-${{name}}-exporter");
        plain = db.systemd.services.prometheus-redis-exporter.serviceConfig.ExecStart;
        inventory = monitor.services.clan-discovery.settings.inventory.file.value;
        ca = monitor.clan.core.vars.generators.prometheus-ca.files."ca.crt".path;
        secrets = t.lib.mapAttrs (_: config: t.lib.attrNames config.sops.secrets) {{ inherit agent db monitor; }};
      }}
    """)


def test_the_machines_evaluate_without_complaint(answer: Json) -> None:
    """With what was generated."""
    assert at(answer, "failed") == [[], [], []]
    assert at(answer, "warnings") == [[], [], []]


def test_a_machine_has_the_secrets_that_it_needs(answer: Json, secured: Secured) -> None:
    """The CA's key is on none, the password on servers only, and shared generators are the same everywhere."""
    assert at(answer, "secrets") == {
        "agent": ["vars/per-machine/agent/prometheus-server-password/password"],
        "db": [
            "vars/per-machine/db/prometheus-certificate/web.key",
            "vars/per-machine/db/prometheus-web-config/web.yml",
        ],
        "monitor": ["vars/per-machine/monitor/prometheus-server-password/password"],
    }
    for name in ("prometheus-ca", "prometheus-password"):
        given = [_names(secured.generators, machine)[name] for machine in ("agent", "db", "monitor")]
        assert given[0] == given[1] == given[2]
    restarted = [
        at(secured.generators, "db", "prometheus-certificate", "files", "web.key", "restartUnits"),
        at(secured.generators, "db", "prometheus-web-config", "files", "web.yml", "restartUnits"),
        at(secured.generators, "agent", "prometheus-server-password", "files", "password", "restartUnits"),
    ]
    assert restarted == [
        ["prometheus-node-exporter.service"],
        ["prometheus-systemd-exporter.service"],
        ["vmagent.service"],
    ]


def test_units_read_the_files_as_credentials(answer: Json) -> None:
    """Their paths are those in the flags and in the scrape configs."""
    of_machine = "/run/secrets/vars/per-machine"
    assert at(answer, "exporters", "systemd", "LoadCredential") == [
        f"web.yml:{of_machine}/db/prometheus-web-config/web.yml"
    ]
    certificate, key = listed(answer, "exporters", "node", "LoadCredential")
    assert str(certificate).startswith("web.crt:/nix/store/")
    assert key == f"web.key:{of_machine}/db/prometheus-certificate/web.key"
    unit = "/run/credentials/prometheus-systemd-exporter.service"
    assert f"--web.config.file={unit}/web.yml" in str(at(answer, "exporters", "systemd", "ExecStart"))
    assert "SetCredential" not in _names(answer, "exporters", "systemd")
    assert "--web.config.file" not in str(at(answer, "plain"))
    for machine, scraper in (("monitor", "prometheus"), ("agent", "vmagent")):
        loaded = at(answer, "scrapers", scraper, "LoadCredential")
        assert loaded == [f"clan-password:{of_machine}/{machine}/prometheus-server-password/password"]
        found = {str(at(job, "job_name")): without_nulls(job) for job in listed(answer, "jobs", scraper)}
        assert at(found["node"], "tls_config") == {"ca_file": at(answer, "ca"), "server_name": "prometheus-exporter"}
        password = f"/run/credentials/{scraper}.service/clan-password"
        assert at(found["systemd"], "basic_auth") == {"password_file": password, "username": "prometheus"}
        assert _names(found["redis"]).keys() == {"file_sd_configs", "job_name"}
    assert at(answer, "checks") == ["syntax-only", False]


def test_certificates_are_valid_for_ten_years(secured: Secured) -> None:
    """The chain and the name are accepted by openssl; nobody but the owner can read the keys."""
    ca = secured.file("prometheus-ca", "ca.crt")
    certificate = secured.file("prometheus-certificate", "web.crt", "db")
    words = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "prometheus-exporter"]
    for years, accepted in ((9.9, True), (10.1, False)):
        when = str(int(time.time() + years * 365 * 86400))
        done = subprocess.run(
            [*words, "-attime", when, "-CAfile", str(ca), str(certificate)], capture_output=True, check=False
        )
        assert (done.returncode == 0) is accepted, done.stderr
    for key in (secured.file("prometheus-ca", "ca.key"), secured.file("prometheus-certificate", "web.key", "db")):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


class Site(NamedTuple):
    """Two running exporters, and the jobs that read them."""

    place: Path
    jobs: Callable[[str], list[dict[str, Json]]]
    """Return the jobs of a scraper."""


@pytest.fixture(scope="module")
def site(answer: Json, secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Run], Site]]:
    """Run a node exporter in place of both exporters, with the rendered web configs."""
    place = tmp_path_factory.mktemp("site")
    files = {
        "prometheus-node-exporter.service/web.crt": secured.file("prometheus-certificate", "web.crt", "db"),
        "prometheus-node-exporter.service/web.key": secured.file("prometheus-certificate", "web.key", "db"),
        "prometheus-systemd-exporter.service/web.yml": secured.file("prometheus-web-config", "web.yml", "db"),
        "prometheus.service/clan-password": secured.file("prometheus-server-password", "password", "monitor"),
        "vmagent.service/clan-password": secured.file("prometheus-server-password", "password", "agent"),
    }
    for name, file in files.items():
        (place / name).parent.mkdir(exist_ok=True)
        shutil.copy(file, place / name)
    (set_,) = listed(answer, "exporters", "node", "SetCredential")
    name, _, text = str(set_).partition(":")
    (place / "prometheus-node-exporter.service" / name).write_text(text)

    def jobs(scraper: str) -> list[dict[str, Json]]:
        text = json.dumps([without_nulls(job) for job in listed(answer, "jobs", scraper)])
        text = text.replace("/run/credentials", str(place)).replace("/etc/clan-discovery", str(place))
        text = text.replace(str(at(answer, "ca")), str(secured.file("prometheus-ca", "ca.crt")))
        found: list[dict[str, Json]] = json.loads(text)
        return [{**job, "scrape_interval": "1s"} for job in found if job["job_name"] in {"node", "systemd"}]

    def rendered(run: Run) -> Site:
        (place / "inventory.json").write_text(json.dumps(at(answer, "inventory")))
        config = {
            "inventory": {"file": "inventory.json"},
            "server": "monitor",
            "backends": {"static": {"lab": {"machines": {"db": "127.0.0.1"}}}},
        }
        (place / "config.json").write_text(json.dumps(config))
        shutil.rmtree(place / "targets", ignore_errors=True)
        done = run("render", "-c", place / "config.json", "--output", place / "targets")
        assert (done.code, done.err) == (0, "")
        return Site(place, jobs)

    exporter = program("prometheus-node-exporter")
    with contextlib.ExitStack() as stack:
        for name, port in secured.ports.items():
            words = [exporter, f"--web.listen-address=127.0.0.1:{port}"]
            words += [
                f"--web.config.file={place}/prometheus-{name}-exporter.service/web.yml",
                "--collector.disable-defaults",
                "--collector.time",
            ]
            stack.enter_context(running(words, place / f"{name}.log"))
        yield rendered


@contextlib.contextmanager
def scraped(scraper: str, place: Path, jobs: list[dict[str, Json]]) -> Generator[dict[str, tuple[str, str]]]:
    """Run a scraper until every job has a result; yield the health and the last error by job."""
    place.mkdir()
    start = {"prometheus": prometheus, "vmagent": vmagent}[scraper]
    with start(place, jobs, program(scraper)) as found:
        seen: dict[str, tuple[str, str]] = {}

        def judged() -> bool:
            targets = listed(
                get_json(f"http://127.0.0.1:{found.port}/api/v1/targets?state=active"), "data", "activeTargets"
            )
            for target in targets:
                scraped_at = str(at(target, "lastScrape"))
                if at(target, "health") != "unknown" and not scraped_at.startswith(("0001", "1970")):
                    seen[str(at(target, "labels", "job"))] = str(at(target, "health")), str(at(target, "lastError"))
            return len(seen) == len(jobs)

        eventually("every target was scraped", judged, 60)
        yield seen


@pytest.mark.parametrize("scraper", ["prometheus", "vmagent"])
def test_the_rendered_jobs_read_the_exporters(
    scraper: str, site: Callable[[Run], Site], tmp_path: Path, run: Run
) -> None:
    """The target file has the scheme, the job has the CA or the password; without them, scrapes fail."""
    there = site(run)
    (group,) = json.loads((there.place / "targets/node.json").read_bytes())
    assert group["labels"]["__scheme__"] == "https"
    jobs = there.jobs(scraper)
    with scraped(scraper, tmp_path / "with", jobs) as found:
        assert found == {"node": ("up", ""), "systemd": ("up", "")}
    bare = [{key: job[key] for key in job if key not in {"tls_config", "basic_auth"}} for job in jobs]
    with scraped(scraper, tmp_path / "without", bare) as found:
        assert {job: health for job, (health, _) in found.items()} == {"node": "down", "systemd": "down"}
        assert "certificate" in found["node"][1]
        assert "401" in found["systemd"][1]
    named = json.loads(json.dumps(jobs).replace('"prometheus-exporter"', '"db"'))
    with scraped(scraper, tmp_path / "other-name", named) as found:
        assert found["node"][0] == "down"
        assert "prometheus-exporter" in found["node"][1]
        assert found["systemd"] == ("up", "")


def test_every_type_that_takes_a_web_config_gets_it(real: Real) -> None:
    """In the command line of its unit, beside the credentials that its own module sets."""
    found = real(f"""
      let
        settings = (import {ROOT}/tests/nixos/exporters.nix t).settings;
        types = import {ROOT}/nix/lib/web-config-types.nix;
        clan = t.clan {{
          inventory.machines = {{ all = {{ }}; monitor = {{ }}; }};
          inventory.instances.monitoring = {{
            module = {{ name = "prometheus"; input = "clan-discovery"; }};
            roles.server.machines.monitor.settings.firewallInterfaces = [ ];
            roles.exporter.machines.all.settings = {{
              firewallInterfaces = [ ];
              security = "tls";
              exporters = t.lib.genAttrs types (type: settings.${{type}} or {{ }});
            }};
          }};
          machines.all.nixpkgs.config.allowUnfree = true;
        }};
        config = clan.nixosConfigurations.all.config;
        see = type: let unit = config.systemd.services."prometheus-${{type}}-exporter"; in {{
          command = if unit.script or "" == "" then toString unit.serviceConfig.ExecStart else unit.script;
          loaded = unit.serviceConfig.LoadCredential;
        }};
      in {{ units = t.lib.genAttrs types see; failed = t.failed config; }}
    """)
    units = at(found, "units")
    assert isinstance(units, dict)
    assert len(units) == 21
    for type_ in units:
        assert "--web.config.file" in str(at(units, type_, "command")), type_
        names = [str(entry).split(":")[0] for entry in listed(units, type_, "loaded")]
        assert [name for name in names if name.startswith("web.")] == ["web.crt", "web.key"], type_
    assert [str(entry).split(":")[0] for entry in listed(units, "mysqld", "loaded")] == ["config", "web.crt", "web.key"]
    assert [message for message in listed(found, "failed") if "is used by" not in str(message)] == []


def test_the_units_read_their_credentials(answer: Json, secured: Secured) -> None:
    """Under a real systemd with the rendered sandboxes: exporters and scrapers start, and every target is up."""
    sources = {
        "prometheus-node-exporter": ("prometheus-certificate", "db"),
        "prometheus-systemd-exporter": ("prometheus-web-config", "db"),
        "prometheus": ("prometheus-server-password", "monitor"),
        "vmagent": ("prometheus-server-password", "agent"),
    }
    commands = {
        "prometheus": "/usr/bin/prometheus --config.file=/opt/share/prometheus.json "
        "--storage.tsdb.path=/var/lib/prometheus2",
        "vmagent": "/usr/bin/vmagent -promscrape.config=/opt/share/vmagent.json -remoteWrite.url=http://127.0.0.1:9/ "
        "-remoteWrite.tmpDataPath=%C/vmagent",
    }
    units: dict[str, str] = {}
    for unit in sources:
        kind = "exporters" if unit.endswith("-exporter") else "scrapers"
        service = dict(_names(answer, kind, unit.removeprefix("prometheus-").removesuffix("-exporter")))
        flags = str(service["ExecStart"]).split(" ", 1)[1]
        service["ExecStart"] = commands.get(unit, f"/usr/bin/prometheus-node-exporter {flags}")
        loaded = [str(entry).split(":")[0] for entry in listed(service["LoadCredential"])]
        service["LoadCredential"] = [f"{name}:/opt/share/{unit}.{name}" for name in loaded]
        if unit == "prometheus-node-exporter":
            service["DynamicUser"] = True  # its static user is not in this system
        units[f"{unit}.service"] = unit_text({"serviceConfig": service}, "Service")
    with booted(units) as machine_:
        for unit, (generator, machine) in sources.items():
            for path in secured.file(generator, "", machine).iterdir():
                name = {"password": "clan-password"}.get(path.name, path.name)
                copy = machine_.share / f"{unit}.{name}"
                shutil.copy(path, copy)
                copy.chmod(0o600)
        shutil.copy(secured.file("prometheus-ca", "ca.crt"), machine_.share / "ca.crt")
        for scraper in commands:
            jobs = [_static(job, secured.ports) for job in listed(answer, "jobs", scraper)]
            text = json.dumps({"scrape_configs": [job for job in jobs if job]})
            (machine_.share / f"{scraper}.json").write_text(text.replace(str(at(answer, "ca")), "/opt/share/ca.crt"))
        for unit in sources:
            machine_.ctl("start", unit)
        eventually("Prometheus reads both exporters", lambda: _health(machine_, 9090) == ["up", "up"], 60)
        eventually("vmagent reads both exporters", lambda: _health(machine_, 8429) == ["up", "up"], 60)


def _static(job: Json, ports: dict[str, int]) -> dict[str, Json]:
    """Return a job with the exporter of this machine as its only target; empty if there is none."""
    found = dict(_names(without_nulls(job)))
    name = str(found["job_name"])
    if name not in ports:
        return {}
    del found["file_sd_configs"]
    target: Json = {
        "targets": [f"127.0.0.1:{ports[name]}"],
        "labels": {"__scheme__": "https" if name == "node" else "http"},
    }
    return {**found, "scrape_interval": "1s", "static_configs": [target]}


def _health(machine: Machine, port: int) -> list[Json]:
    """Return the health of the targets of a scraper."""
    done = machine.command("curl", "-sf", f"http://127.0.0.1:{port}/api/v1/targets")
    if done.returncode:
        raise OSError(done.stderr)
    return [at(target, "health") for target in listed(json.loads(done.stdout), "data", "activeTargets")]
