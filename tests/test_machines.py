"""`machines`: the machines with targets according to the inventory alone."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, TypeAlias

import pytest

from tests.conftest import ROOT, Done
from tests.support.fleet import inventory
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.support.fleet import Object

    Run: TypeAlias = Callable[..., Done]


def exporter(type_: str, **roles: Json) -> Object:
    """Return an instance with this exporter."""
    return {"module": {"name": "prometheus"}, "roles": {"exporter": {"settings": {"exporterType": type_}, **roles}}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write an inventory with two jobs, a darwin machine, a probe, a typo and a machine without a job."""
    document: Json = {
        "machines": {"zeta": {}, "alpha": {}, "mid": {"tags": ["web"]}, "mac": {"machineClass": "darwin"}, "idle": {}},
        "instances": {
            "a": exporter("node", machines={"zeta": {}, "alpha": {}, "mac": {}, "wep": {}}),
            "b": exporter("systemd", tags=["web"], machines={"zeta": {}}),
            "c": exporter("blackbox", machines={"alpha": {}}),
        },
    }
    (tmp_path / "inventory.json").write_text(json.dumps(document))
    return tmp_path / "inventory.json"


def test_names_on_stdout_and_exclusions_on_stderr(file: Path, run: Run) -> None:
    """Sorted, each once, one a line; an exclusion has its reason."""
    done = run("machines", "--file", file)
    assert (done.code, done.out) == (0, "alpha\nmid\nzeta\n")
    warning, *notes = done.err.splitlines()
    assert warning.startswith(
        f"clan-discovery: warning: {file}: instances.a.roles.exporter.machines: 'wep' is not a machine"
    )
    assert warning + "\n" == run("inventory", "--file", file).err
    assert [note.removeprefix("clan-discovery: note: ") for note in notes] == [
        "mac (node): darwin: policy.darwin is exclude: set it to node for the node exporter of nix-darwin",
        "alpha (blackbox): probe_without_target: blackbox probes others: it serves nothing without a `target` setting",
    ]


def test_json_and_one_job(file: Path, run: Run) -> None:
    """Every machine with its jobs; with --job only that job and its exclusions."""
    assert json.loads(run("machines", "--file", file, "--format", "json").out) == [
        {"machine": "alpha", "jobs": ["node"]},
        {"machine": "mid", "jobs": ["systemd"]},
        {"machine": "zeta", "jobs": ["node", "systemd"]},
    ]
    done = run("machines", "--file", file, "--format", "json", "--job", "systemd")
    assert json.loads(done.out) == [{"machine": m, "jobs": ["systemd"]} for m in ("mid", "zeta")]
    assert "note:" not in done.err
    done = run("machines", "--file", file, "--job", "node")
    assert (done.out, done.err.count("note:")) == ("alpha\nzeta\n", 1)
    done = run("machines", "--file", file, "--job", "blackbox")  # declared, but all its machines are excluded
    assert (done.code, done.out, done.err.count("note:")) == (0, "", 1)
    assert run("machines", "--file", file, "--job", "blackbox", "-f", "json").out == "[]\n"
    for slip, hint in (("nod", "did you mean 'node'?"), ("zfs", "there are: blackbox, node, systemd")):
        done = run("machines", "--file", file, "--job", slip)
        assert (done.code, done.out) == (2, "")
        assert f"--job: no machine is declared for the job {slip!r} ({hint})" in done.err


def test_machines_uses_the_config_and_the_settings(file: Path, run: Run, tmp_path: Path) -> None:
    """`policy.darwin`, `instances` and a settings dump.

    A config without an inventory has no machines.
    """
    config = tmp_path / "config.yaml"
    config.write_text("inventory: {file: inventory.json}\ninstances: [a]\npolicy: {darwin: include}\n")
    assert run("machines", "-c", config).out == "alpha\nmac\nzeta\n"
    assert run("machines", "-c", config, "--job", "systemd").code == 2
    (tmp_path / "settings.json").write_text(json.dumps({"p": {"b": {"exporter": {"zeta": {"exporterType": "zfs"}}}}}))
    done = run("machines", "--file", file, "--settings", tmp_path / "settings.json", "--job", "zfs")
    assert (done.code, done.out) == (0, "zeta\n")
    config.write_text("backends: {static: {x: {targets: {node: [a]}}}}\n")
    done = run("machines", "-c", config)
    assert (done.code, done.out) == (2, "")
    assert "the config has no `inventory`" in done.err
    assert run("machines").code == 2
    assert run("machines", "--file", file, "--flake", ".").code == 2


def test_many_exclusions_are_shortened(run: Run, tmp_path: Path) -> None:
    """As with auto discovery off, which excludes every machine."""
    names = [f"m{n}" for n in range(100)]
    document = inventory(["monitor", *names], server={"enableAutoDiscovery": False})
    (tmp_path / "inventory.json").write_text(json.dumps(document))
    done = run("machines", "--file", tmp_path / "inventory.json")
    assert (done.code, done.out) == (0, "")
    assert done.err.count("auto_discovery_off") == 20
    assert done.err.endswith("note: and 81 more: see clan-discovery inventory\n")


def test_machines_uses_no_network(tmp_path: Path) -> None:
    """The config has a socket, but no system call of the network is made."""
    example = ROOT / "examples/homelab/inventory.json"
    (tmp_path / "config.yaml").write_text(
        f"inventory: {{file: {example}}}\nbackends: {{tailscale: {{t: {{socket: {tmp_path}/none}}}}}}\n"
    )
    words = [program("strace"), "-f", "-qq", "-e", "trace=%network", "-o", str(tmp_path / "trace")]
    words += [sys.executable, "-m", "clan_discovery", "machines", "-c", str(tmp_path / "config.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["attic", "db", "laptop", "monitor", "nas", "web"]
    assert (tmp_path / "trace").read_text() == ""
