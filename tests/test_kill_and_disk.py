"""SIGKILL and failing system calls while files are published, and random histories of outages."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from typing_extensions import override

from clan_discovery.inventory.clan.declare import Options, declare
from clan_discovery.inventory.clan.wire import parse_inventory
from clan_discovery.model import Exporter, SelectRule
from clan_discovery.publish.state import State
from clan_discovery.resolve.resolver import Policy
from clan_discovery.resolve.trust import Trust
from clan_discovery.round import OutputPaths, Plan, refresh
from clan_discovery.syntax.target_file import Split
from tests.support.fleet import fleet, inventory
from tests.support.forked import traced
from tests.support.programs import eventually, free_port, get, get_json, program, running
from tests.support.scripted import Scripted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from clan_discovery.model import Declared
    from tests.conftest import Done

    Run = Callable[..., Done]

NAMES = [f"m{number}" for number in range(40)]
WRITES = "rename,fsync,fchmod,unlink,mkdir,flock,write,ftruncate"


def write_world(place: Path) -> Path:
    """Write a config of two jobs and forty machines; return it."""
    declared = inventory([*NAMES, "monitor"])
    instances = declared["instances"]
    assert isinstance(instances, dict)
    declared["instances"] = {
        **instances,
        "second": {
            "module": {"name": "prometheus"},
            "roles": {"exporter": {"tags": ["all"], "settings": {"exporterType": "systemd"}}},
        },
    }
    (place / "inventory.json").write_text(json.dumps(declared))
    (place / "config.yaml").write_text(
        "inventory: {file: inventory.json}\n"
        "backends: {tailscale: {tailnet: {status_file: status.json}}}\noutput: {directory: out/targets}\n"
    )
    change(place, 0)
    return place / "config.yaml"


def change(place: Path, turn: int) -> None:
    """Change half of the machines, so that each cycle writes both files."""
    seen = NAMES if turn % 2 else NAMES[:25]
    (place / "new").write_text(json.dumps(fleet(["monitor", *seen])))
    (place / "new").rename(place / "status.json")


def whole(place: Path) -> None:
    """Assert that both files exist, parse, and hold every declared machine."""
    for job in ("node", "systemd"):
        groups = json.loads((place / f"out/targets/{job}.json").read_bytes())
        assert {g["labels"]["machine"] for g in groups} == {*NAMES, "monitor"}
    assert sorted(f.name for f in (place / "out/targets").glob("[!.]*")) == ["node.json", "systemd.json"]


@contextlib.contextmanager
def watchers(place: Path) -> Generator[Callable[[], None]]:
    """Start Prometheus and vmagent on the files; yield a check that both have every target and no error."""
    jobs = [
        {"job_name": job, "file_sd_configs": [{"files": [f"{place}/out/targets/{job}.json"]}]}
        for job in ("node", "systemd")
    ]
    scrape = {"global": {"scrape_interval": "1h", "scrape_timeout": "1s"}, "scrape_configs": jobs}
    (place / "scrape.yml").write_text(json.dumps(scrape))
    ports = free_port(), free_port()
    prometheus = [
        program("prometheus"),
        f"--config.file={place}/scrape.yml",
        f"--storage.tsdb.path={place}/tsdb",
        f"--web.listen-address=127.0.0.1:{ports[0]}",
    ]
    vmagent = [
        program("vmagent"),
        f"-promscrape.config={place}/scrape.yml",
        f"-httpListenAddr=127.0.0.1:{ports[1]}",
        "-remoteWrite.url=http://127.0.0.1:9/nobody",
        f"-remoteWrite.tmpDataPath={place}/vmagent",
        "-promscrape.fileSDCheckInterval=1s",
    ]

    def held(port: int) -> int:
        match get_json(f"http://127.0.0.1:{port}/api/v1/targets?state=active"):
            case {"data": {"activeTargets": [*targets]}}:
                return len(targets)
            case other:
                raise AssertionError(other)

    def holds(port: int) -> bool:
        return held(port) == 82

    def check() -> None:
        for port in ports:
            eventually(f"{port} holds every target", partial(holds, port))
        text = get(f"http://127.0.0.1:{ports[0]}/metrics").decode()
        assert "prometheus_sd_file_read_errors_total 0" in text
        log = (place / "vmagent.log").read_text()
        assert not re.search(r"cannot (read|parse)|skipping", log), log

    with running(prometheus, place / "prometheus.log"), running(vmagent, place / "vmagent.log"):
        yield check


def test_killed_at_every_system_call_of_a_publish(tmp_path: Path, run: Run) -> None:
    """Each system call that changes a file is once the last one: every file is a whole old or new one."""
    config = write_world(tmp_path)
    assert run("refresh", "-q", "-c", config).code == 0
    change(tmp_path, 1)
    counted = traced(["-o", str(tmp_path / "trace"), "-e", f"trace={WRITES}"], "refresh", "-c", config)
    assert counted.code == 0, counted.err
    calls = [m[1] for m in re.finditer(r"^\d+ +(\w+)\(", (tmp_path / "trace").read_text(), re.MULTILINE)]
    assert {"rename", "fsync", "fchmod"} <= set(calls)
    killed = 0
    with watchers(tmp_path) as check:
        check()
        turn = 0
        for name in sorted(set(calls)):
            for number in range(1, calls.count(name) + 1):
                turn += 1
                change(tmp_path, turn)
                options = ["-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}"]
                killed += traced(options, "refresh", "-q", "-c", config).code == -signal.SIGKILL
                whole(tmp_path)
        check()
    assert killed >= 10
    change(tmp_path, turn + 1)
    assert run("refresh", "-q", "-c", config).code == 0
    whole(tmp_path)
    assert list((tmp_path / "out/targets.state/publishing").iterdir()) == []


@pytest.mark.parametrize("name", ["rename", "unlink"])
def test_killed_while_the_number_of_files_changes(tmp_path: Path, run: Run, name: str) -> None:
    """Each target is in a file at each instant; the next refresh leaves only new files, with each target once."""
    config = write_world(tmp_path)
    text = config.read_text()

    def begin(count: int) -> None:
        """Start with other addresses, and two files."""
        config.write_text(text.replace("out/targets}", "out/targets, split: 2}"))
        change(tmp_path, count)
        assert run("refresh", "-q", "-c", config).code == 0
        config.write_text(text.replace("out/targets}", "out/targets, split: 3}"))
        change(tmp_path, count + 1)

    def machines(job: str) -> list[str]:
        files = (tmp_path / "out/targets").glob(f"{job}.*json")
        return [group["labels"]["machine"] for file in files for group in json.loads(file.read_bytes())]

    begin(0)
    counted = traced(["-o", str(tmp_path / "trace"), "-e", f"trace={name}"], "refresh", "-q", "-c", config)
    assert counted.code == 0, counted.err
    calls = len(re.findall(rf"^\d+ +{name}\(", (tmp_path / "trace").read_text(), re.MULTILINE))
    numbers = range(1, calls + 1)
    killed = 0
    for number in numbers:
        begin(number)
        options = ["-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}"]
        killed += traced(options, "refresh", "-q", "-c", config).code == -signal.SIGKILL
        for job in ("node", "systemd"):
            assert {*machines(job)} == {*NAMES, "monitor"}
        assert run("refresh", "-q", "-c", config).code == 0
        for job in ("node", "systemd"):
            assert sorted(machines(job)) == sorted([*NAMES, "monitor"])
            assert len([*(tmp_path / "out/targets").glob(f"{job}.*json")]) == 3
    assert killed == calls > 0


@pytest.mark.parametrize(
    ("call", "error"),
    [("fsync", "EIO"), ("rename", "EACCES"), ("fchmod", "EPERM"), ("fsync", "ENOSPC"), ("rename", "EROFS")],
)
def test_a_failing_system_call_leaves_whole_files(tmp_path: Path, run: Run, call: str, error: str) -> None:
    """Exit 5 in one line with a hint, and no temporary file is left."""
    config = write_world(tmp_path)
    assert run("refresh", "-q", "-c", config).code == 0
    change(tmp_path, 1)
    options = ["-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error={error}"]
    done = traced(options, "refresh", "-c", config)
    assert done.code == 5, done.err
    assert "cannot write target files" in done.err
    assert "the old files are kept" in done.err
    whole(tmp_path)
    assert run("refresh", "-q", "-c", config).code == 0
    whole(tmp_path)


# --- random histories -------------------------------------------------------------------------------------------------

MACHINES = ("a", "b", "c", "d", "e", "f")
NODE = Exporter(type="node", port=9100)


def declared_by(machines: frozenset[str]) -> Declared:
    """Declare these machines."""
    body = json.dumps(inventory(sorted(machines))).encode()
    return declare(parse_inventory(body, "history"), Options())


class History(RuleBasedStateMachine):
    """Answers, outages, decommissions, lost and damaged states, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="clan-discovery-history-"))
        self.machines = frozenset("abc")
        self.picks = (SelectRule(backends=frozenset({"tailnet"}), exporter=NODE),)
        self.now = 1_800_000_000.0
        self.before: dict[str, str] = {}
        self.first = True
        self.frozen = False
        self.split = Split()

    @override
    def teardown(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.place, ignore_errors=True)

    def round(
        self, answer: frozenset[str] | None, place: Path | None = None, *, accept: bool = False
    ) -> dict[str, str]:
        """Do one cycle; return the published addresses."""
        base = place or self.place
        self.now += 30
        plan = Plan(
            declared=declared_by(self.machines),
            backends=(Scripted(answer),),
            rules=self.picks,
            jobs=frozenset({"node"}),
            policy=Policy(),
            trust=Trust(accept_shrink=accept, max_age=None),
            directory=base / "targets",
            state_directory=base / "state",
            lock_wait=1.0,
            split=self.split,
        )
        places = OutputPaths(plan.directory, plan.state_directory, plan.lock_wait)
        state = State(plan.state_directory)
        done = refresh(places, lambda: plan, state, lambda: datetime.fromtimestamp(self.now, UTC))
        self.frozen = bool(done.round.resolution.frozen)
        return self.published(base)

    @staticmethod
    def published(base: Path) -> dict[str, str]:
        """Return the address of each machine."""
        groups = [g for file in (base / "targets").glob("node*.json") for g in json.loads(file.read_bytes())]
        found = {g["labels"]["machine"]: g["targets"][0] for g in groups}
        assert len(found) == len(groups)
        return found

    @rule(answer=st.frozensets(st.sampled_from(MACHINES)))
    def answers(self, answer: frozenset[str]) -> None:
        """The backend answers; every declared machine is a target, unless the present file is kept."""
        found = self.round(answer)
        assert self.machines <= found.keys() or self.frozen
        self.before, self.first = found, False

    @precondition(lambda self: not self.first)
    @rule()
    def fails(self) -> None:
        """An outage removes and moves no target."""
        assert self.round(None) == self.before

    @rule(machines=st.frozensets(st.sampled_from(MACHINES), min_size=1))
    def is_redeclared(self, machines: frozenset[str]) -> None:
        """The inventory changes; targets follow at the next answer."""
        self.machines = machines
        self.first = True  # the present file is of the earlier inventory

    @rule(count=st.integers(1, 4))
    def is_split(self, count: int) -> None:
        """The config gives the job another number of files."""
        self.split = Split(count)

    @precondition(lambda self: not self.first)
    @rule(garbage=st.binary(max_size=20))
    def loses_its_state(self, garbage: bytes) -> None:
        """The state is damaged, and then the backend fails: the present file is kept."""
        (self.place / "state/index.json").write_bytes(garbage)
        assert self.round(None) == self.before

    @rule(answer=st.frozensets(st.sampled_from(MACHINES)))
    def recovers(self, answer: frozenset[str]) -> None:
        """One accepted cycle after the last fault publishes exactly what a fresh start would publish."""
        found = self.round(answer, accept=True)
        with tempfile.TemporaryDirectory() as fresh:
            assert self.round(answer, Path(fresh)) == found
            for file in (Path(fresh) / "targets").glob("[!.]*"):
                assert file.read_bytes() == (self.place / "targets" / file.name).read_bytes()
        self.before, self.first = found, False

    @invariant()
    def published_files_parse(self) -> None:
        """After every step."""
        for file in (self.place / "targets").glob("[!.]*"):
            assert file.suffix == ".json"
            assert isinstance(json.loads(file.read_bytes()), list)


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
