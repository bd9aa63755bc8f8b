"""`show`: the printed targets, their states, and how they fit a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.cli.command import Streams
from clan_discovery.cli.screen import fitting, watch
from clan_discovery.emit.columns import Column, fitted
from clan_discovery.emit.states import MEANINGS, NO_TARGET, STATES, TargetStates
from clan_discovery.emit.table import render_table
from clan_discovery.errors import BackendError, Exit
from clan_discovery.model import BeliefState, Declared, Expected, Exporter, Failure, Group, Machine, Since
from clan_discovery.resolve.resolver import Policy, resolve
from tests.conftest import ROOT
from tests.support.fleet import fleet, inventory, node, status
from tests.test_resolve import NOW, declared, no_data, seen

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.emit.table import Line
    from clan_discovery.model import Belief, Json
    from tests.conftest import Done

    Run = Callable[..., Done]

CONFIG = """\
inventory: {file: inventory.json}
backends: {tailscale: {tailnet: {status_file: status.json}}}
output: {directory: targets}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a config with two jobs, a machine in each state, and nodes that are not targets."""
    own: dict[str, dict[str, Json]] = {"monitor": {}, "db": {"tags": ["pg"]}, "laptop": {}, "attic": {"tags": ["pg"]}}
    document = inventory(own)
    instances = document["instances"]
    assert isinstance(instances, dict)
    roles: Json = {"exporter": {"tags": ["pg"], "settings": {"exporterType": "postgres"}}}
    pg: Json = {"module": {"name": "prometheus", "input": "self"}, "roles": roles}
    document["instances"] = {**instances, "pg": pg}
    nodes = [node(1, "monitor"), node(2, "db"), node(3, "laptop", Online=False), node(4, "pixel", OS="android")]
    (tmp_path / "inventory.json").write_text(json.dumps(document))
    (tmp_path / "status.json").write_text(json.dumps(status([*nodes, node(5, "printer")])))
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path / "config.yaml"


def rows(done: Done) -> list[list[str]]:
    """Return the words of each line of the output."""
    return [line.split() for line in done.out.splitlines()]


def test_the_whole_table(config: Path, run: Run) -> None:
    """Targets, totals, and notes on everything else."""
    assert run("show", "-c", config).out == (
        "JOB       INSTANCE  TARGET                       STATE    SEEN BY\n"
        "node      attic     attic.tail1a2b3.ts.net:9100  missing  -\n"
        "node      db        100.64.0.2:9100              seen     tailnet\n"
        "node      laptop    100.64.0.3:9100              offline  tailnet\n"
        "node      monitor   100.64.0.1:9100              seen     tailnet\n"
        "postgres  attic     attic.tail1a2b3.ts.net:9187  missing  -\n"
        "postgres  db        100.64.0.2:9187              seen     tailnet\n"
        "6 targets of 4 machines: 3 seen, 1 offline, 2 missing\n"
        "missing: attic: declared, seen by no backend\n"
        "stray: printer: seen, but neither declared nor picked by a rule\n"
        "excluded: 1 phone or TV: pixel\n"
    )


def test_one_row_for_each_machine(config: Path, run: Run) -> None:
    """With its jobs and one address."""
    assert run("show", "--by", "machine", "-c", config).out.splitlines()[:6] == [
        "MACHINE  JOBS            ADDRESS                 STATE    SEEN BY",
        "attic    node, postgres  attic.tail1a2b3.ts.net  missing  -",
        "db       node, postgres  100.64.0.2              seen     tailnet",
        "laptop   node            100.64.0.3              offline  tailnet",
        "monitor  node            100.64.0.1              seen     tailnet",
        "6 targets of 4 machines: 3 seen, 1 offline, 2 missing",
    ]


@pytest.mark.parametrize(
    ("words", "targets"),
    [
        (["DB"], ["node db", "postgres db"]),
        (["db", "monitor", "--job", "node"], ["node db", "node monitor"]),
        (["--job", "postgres"], ["postgres attic", "postgres db"]),
        (["--state", "missing"], ["node attic", "postgres attic"]),
        (["--state", "offline", "--state", "missing", "--job", "node"], ["node attic", "node laptop"]),
        (["pixel"], []),
    ],
)
def test_a_filter_holds_in_every_format(config: Path, run: Run, words: list[str], targets: list[str]) -> None:
    """The table, JSON, file_sd and Nix have the same targets."""
    table = run("show", *words, "-c", config)
    assert [" ".join(row[:2]) for row in rows(table) if row[0] in ("node", "postgres")] == targets
    document = json.loads(run("show", *words, "-c", config, "-f", "json").out)
    assert [f"{t['job']} {t['machine']}" for t in document["targets"]] == targets
    groups = json.loads(run("show", *words, "-c", config, "-f", "file-sd").out)
    assert [f"{g['labels']['job']} {g['labels']['machine']}" for g in groups] == targets
    assert run("show", *words, "-c", config, "-f", "nix").out.count("targets = [ ") == len(targets)


def test_the_notes_are_filtered_too(config: Path, run: Run) -> None:
    """Only about the requested machines."""
    assert run("show", "pixel", "-c", config).out == "no targets\nexcluded: 1 phone or TV: pixel\n"
    assert "stray" not in run("show", "attic", "-c", config).out
    assert run("show", "--state", "seen", "-c", config).out.endswith("3 targets of 2 machines: 3 seen\n")
    assert "excluded" not in run("show", "--job", "node", "-c", config).out
    document = json.loads(run("show", "--job", "node", "--state", "missing", "-c", config, "-f", "json").out)
    assert (document["jobs"], [m["machine"] for m in document["missing"]]) == (["node"], ["attic"])
    assert (document["stray"], document["excluded"]) == ([], [])


def test_excluded_and_stray_nodes_have_a_table(config: Path, run: Run) -> None:
    """With each reason."""
    assert rows(run("show", "--state", "excluded", "-c", config))[1][:4] == ["pixel", "excluded", "-", "tailnet"]
    done = run("show", "--state", "stray", "--state", "kept", "-c", config)
    assert done.out.startswith("no targets in state kept\n")
    assert "printer  stray  -    tailnet  neither declared nor selected\n" in done.out


def test_an_unknown_name_is_an_error_with_a_suggestion(config: Path, run: Run) -> None:
    """Exit 2. A state without targets is no error."""
    done = run("show", "atic", "nothing-like-it", "--job", "postgrs", "-c", config)
    assert done.code == 2
    assert "MACHINE: 'atic' is neither declared nor seen (did you mean 'attic'?)" in done.err
    assert "MACHINE: 'nothing-like-it' is neither declared nor seen (see: clan-discovery show)" in done.err
    assert "--job: 'postgrs' is no job of this config (did you mean 'postgres'?)" in done.err
    assert run("show", "--state", "kept", "--state", "held", "-c", config).out == "no targets in state kept or held\n"
    assert run("show", "--state", "mising", "-c", config).code == 2
    for option in (["--watch"], ["--by", "machine"]):
        done = run("show", *option, "-f", "json", "-c", config)
        assert (done.code, f"{option[0]}: works with the table only" in done.err) == (2, True)


def states(belief: Belief, *machines: str) -> list[str]:
    """Resolve these machines with one belief; return the states of the targets, in the order of their names."""
    found = resolve(declared(inventory(list(machines))), [belief], [], Policy(), now=NOW)
    return list(map(TargetStates(found).of, found.targets))


def test_the_states_of_targets() -> None:
    """They follow from the node, from the backend, and from failed lookups."""
    nodes = [node(1, "a"), node(2, "b", Online=False), node(3, "c", Expired=True), node(4, "e"), node(5, "e")]
    fresh = seen(status(nodes))
    assert states(fresh, "a", "b", "c", "d", "e") == ["seen", "offline", "expired", "missing", "refused"]
    assert states(no_data(), "a") == ["unknown"]
    assert states(msgspec.structs.replace(fresh, state=BeliefState.KEPT, age=60.0), "a", "b") == ["kept", "kept"]
    assert states(msgspec.structs.replace(fresh, state=BeliefState.HELD), "a", "d") == ["held", "missing"]
    assert fresh.snapshot is not None
    failing = {"": Group((Failure("a.lan.example", "timeout", "a", 60.0),))}
    snapshot = msgspec.structs.replace(fresh.snapshot, groups=failing)
    partial = msgspec.structs.replace(fresh, state=BeliefState.PARTIAL, snapshot=snapshot)
    assert states(partial, "A", "b") == ["kept", "offline"]


def test_a_target_that_no_backend_is_asked_about_is_declared() -> None:
    """Neither where there is no backend, nor in a network that the scraper shares is anything wrong with it."""
    found = resolve(declared(inventory(["a"])), [], [], Policy(), now=NOW)
    assert list(map(TargetStates(found).of, found.targets)) == ["declared"]
    machine = Machine(name="nas")
    own, shared = Exporter(type="node", port=9100), Exporter(type="redis", port=9121)
    expected = (
        Expected(machine=machine, exporter=own, because="test", where="nas.yaml:1:1"),
        Expected(machine=machine, exporter=shared, because="test", host="redis", where="nas.yaml:5:1"),
    )
    found = resolve(Declared(machines=(machine,), expected=expected), [seen(fleet(["web"]))], [], Policy(), now=NOW)
    rows = [(t.address.partition(".")[0], TargetStates(found).of(t), t.observed, t.where) for t in found.targets]
    assert rows == [("nas", "missing", False, "nas.yaml:1:1"), ("redis:9121", "declared", False, "nas.yaml:5:1")]


@pytest.mark.parametrize(
    ("host", "located"),
    [
        ("redis", "at its name in a network that the scraper shares"),
        ("10.0.0.5", "at the address that its source gives it"),
        ("127.0.0.1", "on loopback of the machine that scrapes it"),
    ],
)
def test_a_host_of_its_own_is_explained(host: str, located: str) -> None:
    """A source may know where a target is apart from its machine."""
    machine = Machine(name="nas")
    expected = Expected(machine=machine, exporter=Exporter(type="redis", port=9121), because="test", host=host)
    found = resolve(Declared(machines=(machine,), expected=(expected,)), [], [], Policy(), now=NOW)
    assert [(target.address, target.located) for target in found.targets] == [(f"{host}:9121", located)]


def test_refresh_counts_targets_that_no_backend_is_asked_about(tmp_path: Path, run: Run) -> None:
    """By themselves: they are not unseen."""
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["db"])))
    (tmp_path / "config.yaml").write_text("inventory: {file: inventory.json}\noutput: {directory: targets}\n")
    done = run("refresh", "-c", tmp_path / "config.yaml")
    assert done.out == "1 target in 1 job; 1 declared; 1 file written, 0 unchanged\n"


def test_every_state_is_documented() -> None:
    """The documentation has the words and meanings of the program."""
    text = (ROOT / "docs/inspect.md").read_text()
    assert set(MEANINGS) == {*STATES, *NO_TARGET}
    for state, meaning in MEANINGS.items():
        assert f"| `{state}` | {meaning} |" in text


COLUMNS = (Column("NAME", least=6, tail=2), Column("ADDRESS", least=8, drop=2), Column("BY", least=4, drop=1))
cells = st.lists(st.tuples(*(st.text("abc", max_size=20),) * 3), max_size=5)


@given(cells, st.integers(min_value=6, max_value=80))
def test_a_table_fits_its_terminal(rows: list[tuple[str, str, str]], width: int) -> None:
    """Each row is one line within the width, and a name keeps its first and last characters."""
    lines = list(fitted(COLUMNS, rows, width))
    assert len(lines) == len(rows) + 1
    assert max(map(len, lines)) <= width
    for line, (name, _, _) in zip(lines[1:], rows, strict=True):
        shown = line.partition(" ")[0]
        assert shown == name or (name.startswith(shown.partition("…")[0]) and name.endswith(shown.partition("…")[2]))
    wide = list(fitted(COLUMNS, rows, None))
    assert all(all(cell in line for cell in row) for row, line in zip(rows, wide[1:], strict=True))


def test_columns_are_left_out_in_order() -> None:
    """First the backend, then the address; the name and its end are kept."""
    row = [("machine-0001", "100.64.0.1", "tailnet")]
    assert list(fitted(COLUMNS, row, 24)) == ["NAME      ADDRESS   BY", "machi…01  100.64.…  tai…"]
    assert list(fitted(COLUMNS, row, 20)) == ["NAME        ADDRESS", "machine…01  100.64.…"]
    assert list(fitted(COLUMNS, row, 12)) == ["NAME", "machine-0001"]


def test_since_is_a_column_with_dates() -> None:
    """Where the time is known."""
    found = resolve(declared(inventory(["a", "b"])), [seen(fleet(["a", "b"]))], [], Policy(), now=NOW)
    times = {("node", "a", "100.64.0.1:9100"): Since(1_790_000_000, is_exact=True)}
    lines = [line for line, _ in render_table(found, since=times)]
    assert [line.split()[4:] for line in lines[:3]] == [
        ["SEEN", "BY", "SINCE"],
        ["tailnet", "2026-09-21", "14:13"],
        ["tailnet", "-"],
    ]


def drawn(times: int, *errors: int) -> tuple[Streams, Exit]:
    """Watch a table that is drawn this many times and fails in some, until Ctrl-C."""
    streams = Streams(io.StringIO(), io.StringIO())
    count = 0

    def draw(screen: Streams) -> tuple[Exit, list[Line]]:
        nonlocal count
        count += 1
        if count > times:
            raise KeyboardInterrupt
        if count in errors:
            raise BackendError("it is gone")
        screen.log(f"warning {count}")
        return Exit.HELD, [(f"table {count}", "plain")]

    return streams, watch(draw, 0.0, streams)


def test_watch_in_a_pipe_prints_again() -> None:
    """Each table once, followed by an empty line; an error is a line, and drawing continues."""
    streams, code = drawn(3, 2)
    assert isinstance(streams.out, io.StringIO)
    assert isinstance(streams.err, io.StringIO)
    assert streams.out.getvalue() == "table 1\n\nit is gone\n\ntable 3\n\n"
    assert streams.err.getvalue() == "clan-discovery: warning 1\nclan-discovery: warning 3\n"
    assert code is Exit.HELD
    with pytest.raises(BackendError):
        drawn(1, 1)


def test_a_long_table_fits_the_screen() -> None:
    """The first and last lines are kept and cut to the width; the last row is for the cursor."""
    lines: list[Line] = [(f"line {number} {'x' * 50}", "plain") for number in range(30)]
    lines.append(("\x1b[2J", "plain"))
    shown = [text for text, _ in fitting(lines, 20, 12)]
    assert len(shown) == 11
    assert shown[0] == "line 0 xxxxxxxxxxxx…"
    assert shown[4] == "… 21 more lines"
    assert shown[-1] == "\\x1b[2J"
    assert max(map(len, shown)) <= 20


def test_watch_never_sleeps_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that comes just before the system call does not end the sleep; Ctrl-C must not wait for `--interval`."""
    slept: list[float] = []
    clock = 0.0

    def sleep(seconds: float) -> None:
        nonlocal clock
        slept.append(seconds)
        clock += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    drawn_at: list[float] = []

    def draw(_: Streams) -> tuple[Exit, list[Line]]:
        drawn_at.append(clock)
        if len(drawn_at) == 3:
            raise KeyboardInterrupt
        return Exit.OK, []

    assert watch(draw, 10.2, Streams(io.StringIO(), io.StringIO())) is Exit.OK
    assert drawn_at == pytest.approx([0, 10.2, 20.4])
    assert max(slept) <= 0.5


def test_watch_on_a_terminal_ends_with_ctrl_c(config: Path) -> None:
    """It redraws in place. No traceback, and the exit code of `show`."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "clan_discovery", "show", "--watch", "--interval", "1h", "-c", str(config)]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "60"}
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=environment) as process:
        os.close(theirs)
        screen = b""
        while b"excluded:" not in screen:
            screen += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0
    assert err == b""
    assert screen.startswith(b"\x1b[H\x1b[2J20")
    assert b"6 targets of 4 machines: 3 seen, 1 offline, 2 missing\r\n" in screen
