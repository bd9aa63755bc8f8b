"""Tests that `run` reports broken input in its metrics and its health, and that the alerts fire."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import pytest

from clan_discovery.assemble import directories, make_plan
from clan_discovery.config.load import load_config
from clan_discovery.emit.metrics import render
from clan_discovery.resident.log import Log
from clan_discovery.resident.loop import Daemon
from clan_discovery.resident.notify import Notify
from clan_discovery.resident.plans import Loaded
from tests.support.fleet import fleet, inventory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Report

CONFIG = """\
inventory: {file: inventory.json}
backends: {tailscale: {tailnet: {status_file: status.json}}}
output: {directory: targets}
"""


def write_world(place: Path) -> None:
    """Write a config, an inventory and a status."""
    (place / "config.yaml").write_text(CONFIG)
    (place / "inventory.json").write_text(json.dumps(inventory(["monitor", "db"])))
    (place / "status.json").write_text(json.dumps(fleet(["monitor", "db"])))


def daemon_of(place: Path, cycles: int, on_cycle: Callable[[Report], None]) -> Daemon:
    """Return a loop in this process that ends after so many cycles."""

    def load() -> Loaded:
        loaded = load_config(place / "config.yaml")
        files = ((place / "inventory.json", "inventory"),)
        return Loaded(directories(loaded), lambda _: make_plan(loaded), files, ())

    log = Log(sys.stderr, least="error")
    return Daemon(load=load, log=log, notify=Notify(None), max_cycles=cycles, on_cycle=on_cycle)


def values(report: Report) -> dict[str, float]:
    """Return the metrics about the inputs, by their short names."""
    found: dict[str, float] = {}
    for line in render(report).decode().splitlines():
        name, _, value = line.removeprefix("clan_discovery_").partition(" ")
        if "_last_reload_" in name and not line.startswith("#"):
            found[name] = float(value)
    return found


def test_broken_config_or_inventory_is_a_metric_until_fixed(tmp_path: Path) -> None:
    """Cycles continue with the last good input, so the process stays healthy.

    The timestamp metric is that of the last success.
    """
    write_world(tmp_path)
    good = (tmp_path / "inventory.json").read_text()
    steps = iter(
        [
            ("config.yaml", "inventory: ["),
            ("config.yaml", CONFIG),
            ("inventory.json", "[]"),
            ("inventory.json", good),
        ]
    )
    told: list[tuple[float, float]] = []
    config_times: list[float] = []
    healths: list[str] = []

    def on_cycle(report: Report) -> None:
        found = values(report)
        told.append((found["config_last_reload_successful"], found["inventory_last_reload_successful"]))
        config_times.append(found["config_last_reload_success_timestamp_seconds"])
        assert found["inventory_last_reload_success_timestamp_seconds"] == pytest.approx(time.time(), abs=60)
        healths.append(daemon.health())
        if step := next(steps, None):
            (tmp_path / step[0]).write_text(step[1])
            daemon.wake.call(step[0].partition(".")[0])

    daemon = daemon_of(tmp_path, 5, on_cycle)
    assert daemon.run() == 0
    assert told == [(1, 1), (0, 1), (1, 1), (1, 0), (1, 1)]
    assert config_times[1] == pytest.approx(config_times[0], abs=0.02)
    assert config_times[2] > config_times[1] + 0.05
    assert healths == [""] * 5


def test_healthz_says_why_cycles_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first cycle, while cycles fail, and if one does not end."""
    write_world(tmp_path)
    (tmp_path / "targets").mkdir()
    mark = tmp_path / "targets/.clan-discovery.owner"
    mark.write_text("another\n")
    healths: list[str] = []

    def on_cycle(_: Report) -> None:
        healths.append(daemon.health())
        mark.write_text("another\n")
        daemon.wake.call("again")

    daemon = daemon_of(tmp_path, 1, on_cycle)
    assert daemon.health() == "no refresh cycle has succeeded yet: see the log"
    assert daemon.run() == 0
    assert daemon.health().startswith("the last refresh cycle failed; the old files are kept: ")
    assert "belongs to" in daemon.health()
    mark.unlink()
    daemon = daemon_of(tmp_path, 2, on_cycle)
    assert daemon.run() == 0
    assert healths[0] == ""
    assert healths[1].startswith("the last refresh cycle failed; the old files are kept: ")
    monkeypatch.setattr("clan_discovery.resident.loop._LATE_S", -100.0)
    mark.unlink()
    daemon = daemon_of(tmp_path, 2, on_cycle)
    assert daemon.run() == 0
    assert "has not ended" in healths[-1]
