"""The metrics of clan-discovery itself."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from clan_discovery.model import Belief, BeliefState, Counters
from clan_discovery.publish.files import Published
from clan_discovery.round import counted
from tests.support.fleet import fleet, inventory, node, status
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Done


CONFIG = """\
inventory: {file: inventory.json}
backends: {tailscale: {tailnet: {status_file: status.json}}}
output: {directory: targets}
"""


def values(file: Path) -> dict[str, float]:
    """Read a metrics file; return the value of each series."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}


def test_promtool_accepts_the_metrics_file(tmp_path: Path, run: Callable[..., Done]) -> None:
    """Counters continue over processes, and hostile names are escaped."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["monitor", "db", "attic"])))
    evil = node(9, "x", DNSName='e"vil\\\n.tail1a2b3.ts.net.')
    (tmp_path / "status.json").write_text(json.dumps(status([node(1, "monitor"), node(2, "db"), evil])))
    words = ("refresh", "-q", "-c", tmp_path / "config.yaml", "--metrics-file", tmp_path / "m.prom")
    assert run(*words).code == 0
    first = values(tmp_path / "m.prom")
    assert first['clan_discovery_targets{job="node"}'] == 3
    assert first['clan_discovery_machine_missing{machine="attic"}'] == 1
    assert first["clan_discovery_machines_declared"] == 3
    assert first["clan_discovery_machines_observed"] == 2
    assert first["clan_discovery_rounds_total"] == 1
    assert first["clan_discovery_file_writes_total"] == 1
    assert first['clan_discovery_backend_up{backend="tailnet"}'] == 1
    (tmp_path / "status.json").write_text("")
    for _ in range(2):
        assert run(*words).code == 3
    later = values(tmp_path / "m.prom")
    assert later['clan_discovery_backend_up{backend="tailnet"}'] == 0
    assert later['clan_discovery_backend_outages_total{backend="tailnet"}'] == 1
    assert later["clan_discovery_rounds_total"] == 3
    assert later["clan_discovery_unchanged_rounds_total"] == 2
    success = 'clan_discovery_backend_last_success_timestamp_seconds{backend="tailnet"}'
    assert later[success] == first[success]
    assert later['clan_discovery_backend_age_seconds{backend="tailnet"}'] > 0
    body = (tmp_path / "m.prom").read_bytes()
    promtool = [program("promtool"), "check", "metrics"]
    checked = subprocess.run(promtool, input=body, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    assert (tmp_path / "m.prom").stat().st_mode & 0o777 == 0o644


def test_a_metrics_file_that_cannot_be_written(tmp_path: Path, run: Callable[..., Done]) -> None:
    """Exit 5; the target files are written."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["monitor"])))
    (tmp_path / "status.json").write_text(json.dumps(fleet(["monitor"])))
    done = run("refresh", "-c", tmp_path / "config.yaml", "--metrics-file", tmp_path / "gone/m.prom")
    assert done.code == 5
    assert "the target files are written" in done.err
    assert (tmp_path / "targets/node.json").is_file()


def test_an_outage_is_counted_once() -> None:
    """Two cycles without an answer are one outage.

    A failed publish is counted and ends no outage.
    """
    up = [Belief(backend="t", state=BeliefState.FRESH, snapshot=None)]
    down = [Belief(backend="t", state=BeliefState.UNKNOWN, snapshot=None)]
    done = Published(written=("node",), unchanged=(), emptied=("old",), foreign=())
    idle = Published(written=(), unchanged=("node",), emptied=(), foreign=())
    counters = Counters()
    for beliefs, published in ((up, done), (down, idle), (down, None), (up, idle), (down, idle)):
        counters = counted(counters, beliefs, published)
    assert counters.outages == {"t": 2}
    assert (counters.rounds, counters.writes, counters.unchanged, counters.failures) == (4, 2, 3, 1)
