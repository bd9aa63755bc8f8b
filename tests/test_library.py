"""The guide in docs/library.md, installed as distributions: backends from entry points, and their errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from importlib import import_module, invalidate_caches
from typing import TYPE_CHECKING, Final

import pytest

import clan_discovery
from clan_discovery import BackendError, api, load_config, make_plan
from clan_discovery.assemble import kinds
from clan_discovery.resident.signals import Stopped
from tests.support.fleet import inventory
from tests.support.pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

_GUIDE: Final = ROOT / "docs/library.md"


def block(name: str) -> str:
    """Return the code of the guide that begins with a comment of this file name."""
    text = _GUIDE.read_text()
    start = text.index(f"# {name}\n")
    return text[start : text.index("\n```", start)] + "\n"


def install(place: Path, kind: str, code: str, *, distribution: str = "clan-discovery-x") -> str:
    """Write a module and a distribution with its `backend` as entry point; return the module's name."""
    module = f"{kind}_of_{distribution.replace('-', '_')}_{place.name.replace('-', '_')}"
    (place / f"{module}.py").write_text(code)
    info = place / f"{distribution.replace('-', '_')}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[clan_discovery.backends]\n{kind} = {module}:backend\n")
    return module


def config(place: Path, backends: Json) -> Path:
    """Write a config with these backends, and an inventory."""
    (place / "inventory.json").write_text(json.dumps(inventory(["db", "monitor"])))
    document = {"inventory": {"file": "inventory.json"}, "backends": backends, "output": {"directory": "targets"}}
    (place / "config.json").write_text(json.dumps(document, indent=1))
    return place / "config.json"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory on sys.path."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    invalidate_caches()
    return tmp_path


@pytest.fixture
def hosts(site: Path) -> Path:
    """Install the backend of the guide; return its directory."""
    install(site, "hosts", block("clan_discovery_hosts.py") + "backend = hosts\n", distribution="clan-discovery-hosts")
    (site / "hosts.txt").write_text("# lab\n10.0.0.7 db\n10.0.0.8 monitor lamp # two names\n")
    return site


def addresses(place: Path) -> dict[str, str]:
    """Return the published address of each machine."""
    groups = json.loads((place / "targets/node.json").read_text())
    return {group["labels"]["machine"]: group["targets"][0] for group in groups}


def test_the_guides_backend_gives_addresses(hosts: Path, run: Run) -> None:
    """It is asked, cached and named as a built-in one; an outage keeps its last good answer."""
    path = config(hosts, {"hosts": {"lab": {"file": "hosts.txt"}}})
    assert "backends: lab" in run("check", "-c", path).out
    assert run("refresh", "-c", path).code == 0
    assert addresses(hosts) == {"db": "10.0.0.7:9100", "monitor": "10.0.0.8:9100"}
    assert "lab sees it" in run("explain", "db", "-c", path).out
    (hosts / "hosts.txt").rename(hosts / "gone.txt")
    done = run("refresh", "-c", path)
    assert done.code == 3
    assert "backend lab: cannot read" in done.err
    assert addresses(hosts) == {"db": "10.0.0.7:9100", "monitor": "10.0.0.8:9100"}
    (hosts / "hosts.txt").write_text("localhost db\n")
    done = run("refresh", "-c", path)
    assert done.code == 3
    assert "backend lab: its answer cannot be used: 'localhost' is not an IP address" in done.err
    assert addresses(hosts)["db"] == "10.0.0.7:9100"


def test_the_guides_backend_is_found_by_another_process(hosts: Path) -> None:
    """As a distribution on PYTHONPATH."""
    path = config(hosts, {"hosts": {"lab": {"file": "hosts.txt"}}})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(hosts), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "clan_discovery", "refresh", "-c", str(path)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert addresses(hosts)["db"] == "10.0.0.7:9100"


def test_the_guides_emitter_writes_a_resolution(hosts: Path) -> None:
    """With the unchanged code of the guide."""
    path = config(hosts, {"hosts": {"lab": {"file": "hosts.txt"}}})
    (hosts / "ansible_inventory.py").write_text(block("ansible_inventory.py"))
    written = import_module("ansible_inventory").main(path)
    assert written == "[monitored]\ndb ansible_host=10.0.0.7\nmonitor ansible_host=10.0.0.8\n"


def test_the_config_of_a_foreign_kind_is_checked(hosts: Path, run: Run) -> None:
    """With position and suggestion.

    Its name must be free, and unknown kinds get a suggestion.
    """

    def complaint(backends: Json) -> str:
        done = run("check", "-c", config(hosts, backends))
        assert done.code == 2
        return done.err

    err = complaint({"hosts": {"lab": {"file": "hosts.txt", "fiel": 1}, "other": {}}})
    assert "config.json:9:5: backends.hosts.lab.fiel: unknown key (did you mean 'file'?)" in err
    assert "backends.hosts.other.file: is missing" in err
    assert "backends.host: unknown key (did you mean 'hosts'?)" in complaint({"host": {}})
    err = complaint({"hosts": {"lab": {"file": "x"}}, "static": {"lab": {}}})
    assert "the name 'lab' is taken by backends.static" in err


def test_schema_has_the_kinds_that_are_installed(hosts: Path, run: Run) -> None:
    """A kind that cannot be loaded is a warning."""
    install(hosts, "broken", "import no_such_module_1\n")
    done = run("schema", "config")
    assert done.code == 0
    definitions = json.loads(done.out)["$defs"]
    assert {"tailscale", "dns", "static", "hosts"} <= definitions["Backends"]["properties"].keys()
    assert definitions["HostsConfig"]["properties"]["file"]["format"] == "path"
    assert "warning: backends.broken: cannot load" in done.err


_BROKEN: Final = {
    "import no_such_module_1": "cannot load {module}:backend of clan-discovery-x 1.5: ModuleNotFoundError",
    "x = 1": "cannot load {module}:backend of clan-discovery-x 1.5: AttributeError",
    "raise SystemExit(7)": "cannot load {module}:backend of clan-discovery-x 1.5: SystemExit: 7",
    "backend = 1": "{module}:backend of clan-discovery-x 1.5 is no BackendKind with a BackendModel",
}


@pytest.mark.parametrize("code", _BROKEN)
def test_a_kind_that_does_not_load_names_its_distribution(site: Path, run: Run, code: str) -> None:
    """Only if the config uses it, with the position; an unused one is not imported."""
    module = install(site, "broken", f"{code}\n")
    unused = config(site, {"static": {"lab": {"machines": {"db": "10.0.0.1"}}}})
    assert run("refresh", "-c", unused).code == 0
    assert module not in sys.modules
    done = run("refresh", "-c", config(site, {"broken": {"lab": {}}}))
    assert done.code == 2
    assert "config.json:6:3: backends.broken: " + _BROKEN[code].format(module=module) in done.err
    assert "unknown key" not in done.err
    assert addresses(site)["db"] == "10.0.0.1:9100"


def test_entry_points_are_only_read_where_a_kind_is_unknown(site: Path) -> None:
    """Other commands start without `importlib.metadata` and a scan of every distribution."""
    path = config(site, {"static": {"lab": {"machines": {"db": "10.0.0.1"}}}})
    code = "import sys; from clan_discovery.__main__ import main; code = main();"
    code += "sys.exit(f'loaded' if 'clan_discovery.config.kinds' in sys.modules else code)"
    command = [sys.executable, "-c", code, "refresh", "-c", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_kind_belongs_to_one_distribution_and_replaces_no_other(site: Path, run: Run) -> None:
    """Two of one name are refused, and a built-in kind goes first."""
    install(site, "static", "raise SystemExit(1)\n", distribution="clan-discovery-evil")
    assert run("check", "-c", config(site, {"static": {"lab": {"machines": {"db": "10.0.0.1"}}}})).code == 0
    for distribution in ("one", "two"):
        install(site, "twice", "raise SystemExit(1)\n", distribution=distribution)
    done = run("check", "-c", config(site, {"twice": {"lab": {}}}))
    assert done.code == 2
    assert "backends.twice: 2 distributions have a backend of this kind: one 1.5, two 1.5" in done.err


_SOURCE: Final = """
from clan_discovery.api import *

class Empty(BackendModel):
    pass

class Source:
    name = "lab"
    fingerprint = None
    jobs = frozenset({"app"})
    locates = True
    any_address = False

    def ask(self, now, memory, /):
        if memory == b"seen":
            BROKEN
        return Asked(Snapshot(backend="lab", nodes=(Node("db", ("10.0.0.7",)),)), b"seen")

    def examine(self):
        raise ValueError("no health")

def build(name, config, context):
    BUILD

backend = BackendKind(model=Empty, build=build)
"""
_APP: Final = "Exporter(type='%s', port=80)"
_ANSWERS: Final = {
    "raise KeyError('x')": "internal error: KeyError: 'x'",
    "raise SystemExit(3)": "internal error: SystemExit: 3",
    "import asyncio; raise asyncio.CancelledError('x')": "internal error: CancelledError: x",
    "raise BackendError('it is asleep', hint='wake it')": "it is asleep; its last good answer",
    "return None": "its answer cannot be used: `ask` returned NoneType, not Asked",
    "return Asked(None)": "its answer cannot be used: the answer is NoneType, not Snapshot or Outage",
    "return Asked(Outage(backend='lab', reason='by choice'))": "by choice",
    "return Asked(Snapshot(backend='other'))": "its answer cannot be used: it belongs to backend 'other'",
    "return Asked(Snapshot(backend='lab', nodes=[Node('db', '10.0.0.7')]))": "Expected `array`, got `str`",
    "return Asked(Snapshot(backend='lab', nodes=[Node('db', ('127.0.0.1',))]))": "127.0.0.1, which no target may have",
    "return Asked(Snapshot(backend='lab', nodes=[object()]))": "its answer cannot be used",
    "return Asked(Snapshot(backend='lab', nodes=[Node('db', (), labels={'job': 'x'})]))": "'job' is not a label",
    f"return Asked(Snapshot(backend='lab', endpoints=[Endpoint('h', {_APP % 'node'}, 'h', 'x', 'lab')]))": "TypeError",
    "return Asked(Snapshot(backend='lab'), next_due=float('nan'))": "next_due is nan",
    "return Asked(Snapshot(backend='lab'), memory='text')": "its answer cannot be used",
}


def source(site: Path, broken: str, build: str = "return Source()") -> Path:
    """Install a backend that first answers well, then as given; return a config with it."""
    install(site, "source", _SOURCE.replace("BROKEN", broken).replace("BUILD", build))
    return config(site, {"source": {"lab": {}}})


def test_a_backend_that_hangs_does_not_hold_up_the_cycle(site: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 11: after its time it is an outage, and it is not asked again before it returns."""
    path = source(site, "import time; time.sleep(2)")
    assert run("refresh", "-q", "-c", path).code == 0
    monkeypatch.setattr(kinds, "_BUDGET_S", 0.1)
    plan = make_plan(load_config(path))
    (backend,) = [backend for backend in plan.backends if backend.name == "lab"]
    with pytest.raises(BackendError, match=r"no answer within 0.1 s"):
        backend.ask(datetime.now(UTC), b"seen")
    with pytest.raises(BackendError, match="an earlier question still has no answer"):
        backend.ask(datetime.now(UTC), b"seen")
    done = run("refresh", "-c", path)
    assert done.code == 3
    assert "no answer within 0.1 s; its last good answer" in done.err


@pytest.mark.parametrize("broken", _ANSWERS)
def test_any_failure_of_a_backend_is_its_outage(site: Path, run: Run, broken: str) -> None:
    """Laws 1 and 11: exit 3 with the reason, and its last good answer is kept."""
    path = source(site, broken)
    assert run("refresh", "-c", path).code == 0
    done = run("refresh", "-c", path)
    assert done.code == 3
    assert "backend lab: " in done.err
    assert _ANSWERS[broken] in done.err
    assert addresses(site)["db"] == "10.0.0.7:9100"


def test_a_signal_passes_through_a_backend(site: Path) -> None:
    """`run` stops at once: the signal is no outage of the backend, and the cycle is not published."""
    path = source(site, "pass", "source = Source(); source.ask = stop; return source")
    (module,) = site.glob("source_of_*.py")
    module.write_text(
        "from clan_discovery.resident.signals import Stopped\n"
        "def stop(now, memory): raise Stopped\n" + module.read_text()
    )
    backends = make_plan(load_config(path)).backends
    with pytest.raises(Stopped):
        backends[-1].ask(datetime.now(UTC), b"")


def test_a_job_that_a_backend_does_not_name_is_refused(site: Path, run: Run) -> None:
    """An outage would lose the job."""
    exporter = _APP % "node"
    endpoint = f"Endpoint(host='h', exporter={exporter}, machine='h', because='x', backend='lab')"
    path = source(site, f"return Asked(Snapshot(backend='lab', endpoints=({endpoint},)))")
    assert run("refresh", "-c", path).code == 0
    assert "it lists targets for 'node', which is not among its jobs" in run("refresh", "-c", path).err


def test_a_backend_lists_targets_and_failed_lookups(site: Path, run: Run) -> None:
    """A failed lookup in one group is reported and affects no other group."""
    exporter = "context.exporter('app', 8080)"
    endpoint = f"Endpoint(host='h.example', exporter={exporter}, machine='h', because='x', backend='lab', group='g')"
    build = f"""source = Source()
    snapshot = Snapshot(
        backend='lab',
        endpoints=({endpoint},),
        groups={{'g': Group((Failure('zone', 'refused'),), 'app')}},
    )
    source.ask = lambda now, memory: Asked(snapshot)
    return source"""
    path = source(site, "pass", build)
    done = run("refresh", "-c", path)
    assert done.code == 3
    assert "backend lab: lookup failed: zone (refused)" in done.err
    assert json.loads((site / "targets/app.json").read_text())[0]["targets"] == ["h.example:8080"]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        ("raise ValueError('url and file: give one of them')", "url and file: give one of them"),
        ("raise KeyError('x')", "KeyError: 'x'"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("Source.jobs = {'a b'}; return Source()", "it lists targets for 'a b', which is not a valid job name"),
        ("return None", "AttributeError"),
    ],
)
def test_a_backend_that_cannot_be_built_is_an_error(site: Path, run: Run, build: str, said: str) -> None:
    """Exit 2 with position and distribution; nothing is written."""
    done = run("refresh", "-c", source(site, "pass", build))
    assert done.code == 2
    assert "config.json:7:11: backends.source.lab: clan-discovery-x 1.5 cannot build this backend: " in done.err
    assert said in done.err
    assert not (site / "targets").exists()


def test_doctor_survives_an_exception_of_a_backend(site: Path, run: Run) -> None:
    """The exception is a finding."""
    done = run("doctor", "-c", source(site, "pass"))
    assert "FAIL  backend lab: internal error: ValueError: no health" in done.out


def test_every_api_name_exists() -> None:
    """The list is sorted, and the package itself exports at most 18 names."""
    assert all(getattr(api, name) is not None for name in api.__all__)
    assert api.__all__ == sorted(api.__all__)
    assert len(clan_discovery.__all__) <= 18
