"""`run` as a process against a LocalAPI that listens on a socket."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec
import pytest
from typing_extensions import override

from clan_discovery.assemble import directories, make_plan
from clan_discovery.config.load import load_config
from clan_discovery.errors import PublishError
from clan_discovery.model import Belief, BeliefState, Problem, SelectRule
from clan_discovery.publish.state import State
from clan_discovery.resident.events import Events
from clan_discovery.resident.log import Log, logfmt, on_journal
from clan_discovery.resident.loop import Daemon
from clan_discovery.resident.notify import Notify, watchdog_seconds
from clan_discovery.resident.plans import Loaded, Plans
from clan_discovery.resident.triggers import BusTrigger, FileTrigger, Wake
from clan_discovery.round import refresh, run_round
from clan_discovery.threads import Worker
from tests.support.fleet import fleet, inventory, node, status
from tests.support.localapi import Behaviour, localapi
from tests.support.programs import eventually, free_port, get
from tests.support.scripted import Scripted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from clan_discovery.backends.base import Asked
    from clan_discovery.inventory.nix import Evaluation
    from clan_discovery.round import Plan
    from tests.conftest import Done

_LOWERED = (
    "from clan_discovery.resident import flake, plans, triggers; {}; from clan_discovery.cli.main import entry; entry()"
)
PROGRAM = str(Path(sys.executable).with_name("clan-discovery"))


def write_world(place: Path, names: list[str]) -> Path:
    """Write a config that asks a socket, and an inventory; return the config."""
    (place / "inventory.json").write_text(json.dumps(inventory(names)))
    config = place / "config.yaml"
    config.write_text(
        "inventory: {file: inventory.json}\n"
        f"backends: {{tailscale: {{tailnet: {{socket: {place}/s, timeout: 5s}}}}}}\n"
        "output: {directory: targets}\n"
    )
    return config


@contextlib.contextmanager
def resident(config: Path, *words: str, lowered: str = "", **environment: str) -> Generator[subprocess.Popen[bytes]]:
    """Run `run` while the block lasts; its log is in `log`.

    `lowered` sets module constants before.
    """
    with (config.parent / "log").open("ab") as log:
        program = [PROGRAM]
        if lowered:
            program = [sys.executable, "-c", _LOWERED.format(lowered)]
        command = [*program, "run", "-c", str(config), *words]
        process = subprocess.Popen(command, stderr=log, stdout=log, env={**os.environ, **environment})
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def log_of(config: Path) -> str:
    """Return what was logged so far."""
    return (config.parent / "log").read_text()


def addresses(config: Path) -> dict[str, str]:
    """Return the published address of each instance."""
    try:
        groups = json.loads((config.parent / "targets/node.json").read_bytes())
    except OSError:
        return {}
    return {g["labels"]["instance"]: g["targets"][0] for g in groups}


def replace(file: Path, text: str) -> None:
    """Write a file and rename it into place."""
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(file)


def body(*names: str) -> bytes:
    """Return a status."""
    return json.dumps(fleet(list(names))).encode()


def test_a_change_of_the_tailnet_is_published_at_once(tmp_path: Path) -> None:
    """The IPN bus reports the change; the interval is an hour."""
    config = write_world(tmp_path, ["monitor", "db"])
    with localapi(tmp_path / "s", Behaviour(body=body("monitor"))) as how, resident(config, "--interval", "1h"):
        eventually("published", lambda: addresses(config).get("db") == "db.tail1a2b3.ts.net:9100")
        eventually("listening", lambda: how.watchers == 1)
        how.body = body("monitor", "db")
        how.emit(b'{"PeersChanged": [{}]}')
        eventually("db is where the tailnet says", lambda: addresses(config).get("db") == "100.64.0.2:9100")
        # A burst of changes starts a few cycles, not a hundred; health messages start none.
        asked = how.connections
        for _ in range(100):
            how.emit(b'{"PeerChangedPatch": [{}]}')
            how.emit(b'{"Health": {}}')
        eventually("a cycle", lambda: how.connections > asked)
        time.sleep(2.5)
        assert how.connections - asked < 20


def test_files_that_change_are_read_at_once(tmp_path: Path) -> None:
    """An inventory replaced by rename, a config broken and fixed, a status behind a replaced symlink."""
    generations = tmp_path / "generations"
    for number, names in ((1, ["monitor"]), (2, ["monitor", "db"])):
        (generations / str(number)).mkdir(parents=True)
        (generations / str(number) / "status.json").write_bytes(body(*names))
    (tmp_path / "current").symlink_to(generations / "1")
    config = write_world(tmp_path, ["monitor", "db"])
    good = config.read_text().replace(f"socket: {tmp_path}/s, timeout: 5s", "status_file: current/status.json")
    config.write_text(good)
    with resident(config, "--interval", "1h"):
        eventually("published", lambda: addresses(config).get("db") == "db.tail1a2b3.ts.net:9100")
        time.sleep(0.5)
        (tmp_path / "next").symlink_to(generations / "2")
        (tmp_path / "next").rename(tmp_path / "current")
        eventually("the swapped link is seen", lambda: addresses(config).get("db") == "100.64.0.2:9100")
        (tmp_path / "new").write_text(json.dumps(inventory(["monitor", "db", "web"])))
        (tmp_path / "new").rename(tmp_path / "inventory.json")
        eventually("the new inventory is seen", lambda: "web" in addresses(config))
        config.write_text("nonsense: [")
        eventually("the broken config is logged", lambda: "the new config is invalid" in log_of(config))
        assert set(addresses(config)) == {"monitor", "db", "web"}
        time.sleep(0.5)
        assert log_of(config).count("reloaded") == 1  # the inventory, and nothing since
        config.write_text(good + "labels: {site: home}\n")
        eventually("the fixed config is read", lambda: '"site":"home"' in (tmp_path / "targets/node.json").read_text())


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(tmp_path: Path) -> None:
    """An unchanged cycle logs nothing; the targets are kept meanwhile."""
    config = write_world(tmp_path, ["monitor", "db"])
    with resident(config, "--interval", "1s"):
        with localapi(tmp_path / "s", Behaviour(body=body("monitor", "db"))):
            eventually("published", lambda: addresses(config).get("db") == "100.64.0.2:9100")
            eventually("it is logged", lambda: "msg=published" in log_of(config))
            before = log_of(config)
            time.sleep(2.5)
            assert log_of(config) == before
        eventually("the outage is logged", lambda: "backend fails" in log_of(config))
        time.sleep(2.5)
        assert log_of(config).count("backend fails") == 1
        assert addresses(config)["db"] == "100.64.0.2:9100"
        with localapi(tmp_path / "s", Behaviour(body=body("monitor", "db"))) as how:
            eventually("its end is logged", lambda: "backend answers again" in log_of(config))
            eventually("the stream is open again", lambda: how.watchers == 1)
    assert log_of(config).count("no stream of changes") == 1


def test_without_a_bus_targets_are_refreshed_by_the_timer(tmp_path: Path) -> None:
    """The refusal is logged once."""
    config = write_world(tmp_path, ["monitor"])
    how = Behaviour(body=body("monitor"), watch_status=403)
    with localapi(tmp_path / "s", how), resident(config, "--interval", "1s"):
        eventually("targets are refreshed by the timer", lambda: how.connections > 4)
    assert log_of(config).count("targets are refreshed by the timer") == 1


@pytest.mark.parametrize("hang", [False, True], ids=["waiting", "in the middle of a question"])
def test_sigterm_ends_the_process_at_once(tmp_path: Path, hang: bool) -> None:  # noqa: FBT001
    """Exit code 0, long before the timeout of the backend."""
    config = write_world(tmp_path, ["monitor"])
    config.write_text(config.read_text().replace("timeout: 5s", "timeout: 10m"))
    how = Behaviour(body=body("monitor"), hang=hang)
    with localapi(tmp_path / "s", how), resident(config, "--interval", "1h") as process:
        eventually("it asks", lambda: how.connections > 0)
        time.sleep(0.7)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_sighup_reads_the_config_again(tmp_path: Path) -> None:
    """READY, STATUS with counts, RELOADING, WATCHDOG and STOPPING are sent to systemd."""
    config = write_world(tmp_path, ["monitor", "db"])
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        localapi(tmp_path / "s", Behaviour(body=body("monitor"))),
    ):
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(0.5)
        told: list[str] = []

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with contextlib.suppress(TimeoutError):
                        told.append(systemd.recv(4096).decode())

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        with resident(config, "--interval", "1h", **environment) as process:
            eventually("ready", lambda: "READY=1" in told)
            process.send_signal(signal.SIGHUP)
            eventually("reloading", lambda: any(line.startswith("RELOADING=1\nMONOTONIC_USEC=") for line in told))
            eventually("watchdog", lambda: told.count("WATCHDOG=1") >= 2)
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        eventually("stopping", lambda: any(line.startswith("STOPPING=1") for line in told))
        assert "STATUS=2 targets, 1 seen; backends down: none" in told
    listener.join(1)


def test_ready_is_sent_until_systemd_takes_it(tmp_path: Path) -> None:
    """The notify socket is full at the start, and again during a reload."""
    config = write_world(tmp_path, ["monitor"])
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
    ):
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        other.settimeout(0)

        def fill() -> None:
            with contextlib.suppress(BlockingIOError):
                while True:
                    other.sendto(b"full", str(tmp_path / "notify"))

        def told() -> list[str]:
            found: list[str] = []
            while "READY=1" not in found:
                found.append(systemd.recv(4096).decode().partition("\n")[0])
            return [line for line in found if line in {"READY=1", "RELOADING=1"}]

        fill()
        with resident(config, "--interval", "1h", NOTIFY_SOCKET=str(tmp_path / "notify")) as process:
            eventually("a cycle is over", lambda: addresses(config) != {})
            time.sleep(0.5)
            assert told() == ["READY=1"]
            fill()
            process.send_signal(signal.SIGHUP)
            eventually("reloaded", lambda: "reloaded" in log_of(config))
            time.sleep(0.3)
            assert told() == ["RELOADING=1", "READY=1"]


def test_metrics_are_served_on_a_loopback_port(tmp_path: Path, run: Callable[..., Done]) -> None:
    """They are those of the last cycle; other addresses are refused."""
    config = write_world(tmp_path, ["monitor"])
    port = free_port()
    with (
        localapi(tmp_path / "s", Behaviour(body=body("monitor"))),
        resident(config, "--metrics-listen", f"127.0.0.1:{port}", "--metrics-file", str(tmp_path / "m.prom")),
    ):
        eventually("served", lambda: b"clan_discovery_rounds_total 1.0" in get(f"http://127.0.0.1:{port}/metrics"))
        eventually("written", (tmp_path / "m.prom").exists)
        assert b"clan_discovery_rounds_total" in (tmp_path / "m.prom").read_bytes()
    for address in ("0.0.0.0:9199", "192.0.2.1:9199", "127.0.0.1", "nonsense:1"):
        done = run("run", "-c", config, "--metrics-listen", address)
        assert (done.code, done.err.count("\n")) == (2, 1)


def test_run_refuses_an_invalid_config(tmp_path: Path, run: Callable[..., Done]) -> None:
    """Exit 2, as every command."""
    (tmp_path / "c.yaml").write_text("polcy: {}")
    assert run("run", "-c", tmp_path / "c.yaml").code == 2
    assert run("run", "--interval", "1x", "-c", tmp_path / "c.yaml").code == 2
    config = write_world(tmp_path, ["monitor"])
    (tmp_path / "inventory.json").write_text("[]")
    assert run("run", "-c", config).code == 2


def loop(place: Path, rounds: int, on_round: Callable[[], None]) -> Daemon:
    """Return a loop in this process that does this many cycles without a pause."""
    loaded = load_config(write_world(place, ["monitor", "db", "web"]))
    once = Loaded(directories(loaded), lambda _: make_plan(loaded), (), (place / "s",))

    def each(_: object) -> None:
        on_round()
        daemon.wake.call("again")

    with (place / "loop.log").open("w") as nowhere:
        del nowhere
    daemon = Daemon(
        load=lambda: once, log=Log(sys.stderr, least="error"), notify=Notify(None), max_cycles=rounds, on_cycle=each
    )
    return daemon


@dataclass
class Broken:
    """A backend whose `ask` raises."""

    error: Exception
    name: str = "broken"
    fingerprint: str | None = "broken"
    jobs: frozenset[str] = frozenset()
    locates: bool = True
    any_address: bool = False

    def ask(self, _now: datetime, _memory: bytes, /) -> Asked:
        """Raise what no backend should."""
        raise self.error


class BrokenRules(tuple[SelectRule, ...]):
    """Rules that can be read only in the third cycle: a bug in the middle of a cycle."""

    __slots__ = ()
    reads: ClassVar[int] = 0

    @override
    def __iter__(self) -> Iterator[SelectRule]:
        BrokenRules.reads += 1
        if BrokenRules.reads not in {3, 4}:  # a cycle that succeeds reads them twice
            raise ZeroDivisionError("a bug\nin two lines")
        return super().__iter__()


def test_no_exception_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception fails one cycle, and is logged in one line when it begins; the same for the metrics."""
    monkeypatch.setattr(BrokenRules, "reads", 0)
    loaded = load_config(write_world(tmp_path, ["monitor"]))
    once = Loaded(
        directories(loaded),
        lambda _: msgspec.structs.replace(make_plan(loaded), rules=BrokenRules()),
        files=(),
        sockets=(),
    )

    def fail(_: object) -> None:
        raise KeyError("metrics")

    with (tmp_path / "log").open("w") as stream:
        daemon = Daemon(lambda: once, Log(stream), Notify(None), interval=0.01, max_cycles=6, on_cycle=fail)
        assert daemon.run() == 0
    assert BrokenRules.reads == 7
    log = (tmp_path / "log").read_text()
    assert len(re.findall(r'reason="ZeroDivisionError: a bug in two lines \(test_run.py:[0-9]+\)"\n', log)) == 2
    assert log.count("refresh cycles succeed again") == 1
    assert log.count("cannot update the metrics") == 1


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), MemoryError(), OSError(24, "Too many open files")])
@pytest.mark.parametrize("threads", [True, False], ids=["with threads", "without threads"])
def test_a_bug_in_one_backend_is_its_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, *, threads: bool
) -> None:
    """The other backends are asked, also where no thread can start, and their answers are published."""

    def refuse(_: Worker) -> None:
        raise RuntimeError("can't start new thread")

    if not threads:
        monkeypatch.setattr(Worker, "start", refuse)
    loaded = load_config(write_world(tmp_path, ["monitor"]))
    plan = make_plan(loaded)
    good = Scripted(frozenset({"monitor"}))
    plan = msgspec.structs.replace(plan, backends=[Broken(error), good])
    found = run_round(plan, State(tmp_path / "state", read_only=True), datetime.now(UTC))
    assert [(b.backend, b.state) for b in found.degraded] == [("broken", BeliefState.UNKNOWN)]
    assert f"internal error: {type(error).__name__}" in found.degraded[0].why
    assert [(target.address, target.observed) for target in found.resolution.targets] == [("100.64.0.109:9100", True)]


@pytest.mark.parametrize("year", [1960, 2300, 9999])
def test_cycles_go_on_with_an_extreme_clock(tmp_path: Path, year: int) -> None:
    """The clock itself may also raise."""
    loaded = load_config(write_world(tmp_path, ["monitor"]))
    once = Loaded(directories(loaded), lambda _: make_plan(loaded), files=(), sockets=())
    reads: list[int] = []

    def clock() -> datetime:
        reads.append(1)
        if len(reads) == 4:
            raise OverflowError("timestamp out of range for platform time_t")
        return datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC)

    with (tmp_path / "log").open("w") as stream:
        daemon = Daemon(lambda: once, Log(stream), Notify(None), interval=0.01, max_cycles=5, clock=clock)
        assert daemon.run() == 0
    assert set(addresses(tmp_path / "config.yaml")) == {"monitor"}
    log = (tmp_path / "log").read_text()
    assert log.count("the refresh cycle failed") == 1
    assert log.count("succeed again") == 1


def test_an_exception_of_the_parser_keeps_the_last_good_plan(tmp_path: Path) -> None:
    """It is logged once while it lasts."""
    loaded = load_config(write_world(tmp_path, ["monitor"]))
    file = tmp_path / "inventory.json"

    def plan(_: Evaluation | None) -> Plan:
        if file.read_text() == "deep":
            raise RecursionError("too deep")
        return make_plan(loaded)

    once = Loaded(directories(loaded), plan, files=((file, "inventory"),), sockets=())
    with (tmp_path / "log").open("w") as stream:
        plans = Plans(lambda: once, Events(Log(stream), Notify(None)))
        good = plans.newest()
        file.write_text("deep")
        assert plans.newest() is good
        assert plans.newest() is good
        with pytest.raises(RecursionError):
            plans.reload()
    assert (tmp_path / "log").read_text().count("RecursionError: too deep") == 1


def test_hundreds_of_cycles_leak_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads, file descriptors and memory. The benchmark counts ten thousand cycles."""
    monkeypatch.setattr("clan_discovery.resident.loop._QUIET_S", 0.0)
    seen: list[tuple[int, int, int]] = []

    def count() -> None:
        resident_kib = int(Path("/proc/self/statm").read_text().split()[1]) * 4
        seen.append((threading.active_count(), len(os.listdir("/proc/self/fd")), resident_kib))  # noqa: PTH208

    before = threading.active_count()
    with localapi(tmp_path / "s", Behaviour(body=json.dumps(status([node(1, "monitor"), node(2, "db")])).encode())):
        with_server = threading.active_count()
        assert loop(tmp_path, 300, count).run() == 0
        time.sleep(0.2)
        assert threading.active_count() <= with_server + 1
    assert len(seen) == 300
    threads, files, memory = zip(*seen[100:], strict=True)
    assert max(files) <= min(files) + 6
    assert max(threads) <= min(threads) + 4
    assert memory[-1] - memory[0] < 4096
    assert before >= 1


def test_the_tailnet_is_followed_while_the_inventory_is_missing(tmp_path: Path) -> None:
    """The last good plan is used, and one line gives the reason."""
    config = write_world(tmp_path, ["monitor", "db"])
    with localapi(tmp_path / "s", Behaviour(body=body("monitor"))) as how, resident(config, "--interval", "1s"):
        eventually("published", lambda: addresses(config).get("db") == "db.tail1a2b3.ts.net:9100")
        (tmp_path / "inventory.json").rename(tmp_path / "away")
        eventually("it is told", lambda: "the last good one is used" in log_of(config) or "old one" in log_of(config))
        how.body = body("monitor", "db")
        eventually("db is followed", lambda: addresses(config).get("db") == "100.64.0.2:9100")
        (tmp_path / "away").rename(tmp_path / "inventory.json")
        eventually("it is read again", lambda: "reloaded" in log_of(config))


def test_sigterm_does_not_wait_for_hanging_backends(tmp_path: Path) -> None:
    """Two backends are in the middle of a request."""
    config = write_world(tmp_path, ["monitor"])
    two = f"{{tailnet: {{socket: {tmp_path}/s, timeout: 10m}}, other: {{socket: {tmp_path}/t, timeout: 10m}}}}"
    config.write_text(config.read_text().replace(f"{{tailnet: {{socket: {tmp_path}/s, timeout: 5s}}}}", two))
    first, second = Behaviour(hang=True), Behaviour(hang=True)
    with localapi(tmp_path / "s", first), localapi(tmp_path / "t", second), resident(config) as process:
        eventually("both are asked", lambda: first.connections > 0 and second.connections > 0)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_cycles_started_by_the_bus_do_not_count_for_a_held_loss(tmp_path: Path) -> None:
    """Only cycles at the interval count towards policy.shrink_after."""
    names = ["monitor", "a", "b", "c", "d"]
    config = write_world(tmp_path, names)
    with localapi(tmp_path / "s", Behaviour(body=body(*names))) as how, resident(config, "--interval", "1h"):
        eventually("published", lambda: addresses(config).get("a") == "100.64.0.2:9100")
        eventually("listening", lambda: how.watchers == 1)
        how.body = body("monitor")
        asked = how.connections
        deadline = time.monotonic() + 120
        while how.connections - asked < 13 and time.monotonic() < deadline:
            how.emit(b'{"PeersChanged": [{}]}')
            time.sleep(0.3)
        assert how.connections - asked >= 13
        assert addresses(config)["a"] == "100.64.0.2:9100"
    assert log_of(config).count("loss is held") == 1


def test_the_bus_is_tried_again_soon_after_a_503(tmp_path: Path) -> None:
    """The daemon was starting; a 503 is no refusal."""
    config = write_world(tmp_path, ["monitor"])
    how = Behaviour(body=body("monitor"), watch_status=503)
    with localapi(tmp_path / "s", how), resident(config, "--interval", "1h"):
        eventually("it is told", lambda: "targets are refreshed by the timer" in log_of(config))
        how.watch_status = 200
        eventually("listening", lambda: how.watchers == 1)


def test_a_stream_that_ends_at_once_is_logged_once(tmp_path: Path) -> None:
    """One end is a restart; the third in a row is logged."""
    config = write_world(tmp_path, ["monitor"])
    how = Behaviour(body=body("monitor"))
    how.drop_watchers.set()
    with localapi(tmp_path / "s", how), resident(config, "--interval", "1h", lowered="triggers._PAUSES_S = (0.05,)"):
        eventually("it is told", lambda: "it ends at once" in log_of(config))
        asked = how.connections
        eventually("it tries again", lambda: how.connections > asked + 3)
    assert log_of(config).count("targets are refreshed by the timer") == 1


def test_a_bus_that_cannot_be_opened_is_logged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a failed try does not count as a stream that lasted: here any time would."""
    monkeypatch.setattr("clan_discovery.resident.triggers._LASTING_S", 0.0)
    monkeypatch.setattr("clan_discovery.resident.triggers._PAUSES_S", (0.05,))
    with (tmp_path / "log").open("w+") as stream, localapi(tmp_path / "s", Behaviour(watch_status=503)) as how:
        bus = BusTrigger(tmp_path / "s", Wake(), Events(Log(stream), Notify(None)))
        bus.start()
        eventually("it tries again", lambda: how.connections > 4)
        bus.stop()
    assert (tmp_path / "log").read_text().count("no stream of changes") == 1


def test_an_invalid_inventory_is_logged_each_time(tmp_path: Path) -> None:
    """Once while it lasts, and again when it returns; the last good plan is used meanwhile."""
    config = write_world(tmp_path, ["monitor", "db"])
    file = tmp_path / "inventory.json"
    good = file.read_text()
    with (
        localapi(tmp_path / "s", Behaviour(body=body("monitor", "db"))),
        resident(config, "--interval", "1s"),
    ):
        eventually("published", lambda: addresses(config).get("db") == "100.64.0.2:9100")
        for times in (1, 2):
            replace(file, "{")
            eventually("told", lambda: log_of(config).count("the inventory is invalid") == times)  # noqa: B023
            time.sleep(1.5)
            assert log_of(config).count("the inventory is invalid") == times
            assert addresses(config)["db"] == "100.64.0.2:9100"
            replace(file, good)
            eventually("read again", lambda: log_of(config).count("reloaded") == times)  # noqa: B023


def test_refused_cycles_are_a_503_and_counted(tmp_path: Path) -> None:
    """The directory belongs to another config.

    Before the first success there are no metrics.
    """
    config = write_world(tmp_path, ["monitor"])
    port = free_port()
    (tmp_path / "targets").mkdir()
    mark = tmp_path / "targets/.clan-discovery.owner"
    mark.write_text("another\n")

    def page() -> str:
        try:
            return get(f"http://127.0.0.1:{port}/metrics").decode()
        except urllib.error.HTTPError as error:
            return f"{error.code} {error.read().decode()}"

    with resident(config, "--interval", "1s", "--metrics-listen", f"127.0.0.1:{port}"):
        eventually("told", lambda: "refresh cycle failed" in log_of(config))
        assert page() == "503 no refresh cycle has succeeded yet: see the log\n"
        mark.unlink()
        eventually("served", lambda: "clan_discovery_rounds_total" in page())
        mark.write_text("another\n")
        failed = page().partition("\nclan_discovery_failed_cycles_total ")[2].partition("\n")[0]
        eventually("counted", lambda: f"failed_cycles_total {float(failed) + 1}" in page())
    assert "--take-over" in log_of(config).partition(" fix=")[2]


def test_publish_failures_are_counted_while_they_last(tmp_path: Path) -> None:
    """A directory is in place of a target file; the metric rises before that is fixed."""
    config = write_world(tmp_path, ["monitor"])
    with (
        localapi(tmp_path / "s", Behaviour(body=body("monitor"))) as how,
        resident(config, "--interval", "1s", "--metrics-file", str(tmp_path / "m.prom")),
    ):
        eventually("published", (tmp_path / "m.prom").exists)
        (tmp_path / "targets/node.json").unlink()
        (tmp_path / "targets/node.json").mkdir()
        how.body = body("monitor")
        found = re.compile(r"^clan_discovery_publish_failures_total [1-9]", re.MULTILINE)
        eventually("counted", lambda: found.search((tmp_path / "m.prom").read_text()) is not None)


@pytest.mark.timeout(method="thread")  # the signal method uses SIGALRM, as this test does
def test_a_signal_before_the_wait_is_not_lost() -> None:
    """A signal handler sets a reason without waking the wait, which checks again."""
    wake = Wake()

    def handler(_number: int, _frame: object) -> None:
        wake.call("stop")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for microseconds in range(1, 60):
            signal.setitimer(signal.ITIMER_REAL, microseconds / 1e6)
            assert wake.wait(3600) == {"stop"}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_failure_is_logged_with_its_fix_and_again_every_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in each cycle, but at once where `failed` is called for a person."""
    with (tmp_path / "log").open("w+") as stream:
        events = Events(Log(stream), Notify(None))
        for remind in (3600, 3600, 0):
            monkeypatch.setattr("clan_discovery.resident.events._REMIND_S", remind)
            events.cycle_failed(PublishError("it is another's", hint="--take-over"))
        monkeypatch.setattr("clan_discovery.resident.events._REMIND_S", 3600)
        for what in ("a", "a", "b"):
            events.failed("x", what)
        events.answer("x")
        assert events.fails("x")
        events.failed("x", "b")
        assert events.failed_cycles == 3
    told = (tmp_path / "log").read_text().splitlines()
    assert told == 2 * [
        'level=error msg="the refresh cycle failed; the old files are kept" reason="it is another\'s" fix=--take-over'
    ] + [f"level=error msg=x reason={reason}" for reason in "abb"]


def test_a_metrics_file_that_cannot_be_written_is_logged(tmp_path: Path) -> None:
    """When it begins and when it ends; the metrics are served meanwhile."""
    config = write_world(tmp_path, ["monitor"])
    port, file = free_port(), tmp_path / "m.prom"
    words = ("--metrics-listen", f"127.0.0.1:{port}", "--metrics-file", str(file), "--interval", "1s")
    with resident(config, *words):
        eventually("written", file.is_file)
        file.unlink()
        file.mkdir()
        eventually("told", lambda: "cannot update the metrics" in log_of(config))
        eventually("served", lambda: b"clan_discovery_targets" in get(f"http://127.0.0.1:{port}/metrics"))
        file.rmdir()
        eventually("recovered", lambda: "the metrics are updated again" in log_of(config))
        assert file.is_file()
    assert log_of(config).count("cannot update the metrics") == 1


def test_a_warning_is_logged_when_it_appears(tmp_path: Path) -> None:
    """Not in each cycle.

    Of many warnings the first ones and a count; the same for warnings of the state.
    """
    config = write_world(tmp_path, ["monitor"])
    places, plan = directories(load_config(config)), make_plan(load_config(config))
    done = refresh(places, lambda: plan, State(places.state_directory), lambda: datetime.now(UTC))
    one, *many = [Problem(where="x", what=f"warning {number}", severity="warning") for number in range(101)]
    with (tmp_path / "log").open("w+") as stream:
        events = Events(Log(stream), Notify(None))
        for problems in ([one], [one], [one, *many], [one, *many], [], [one]):
            resolution = msgspec.structs.replace(done.round.resolution, problems=tuple(problems))
            round_ = msgspec.structs.replace(done.round, resolution=resolution)
            events.cycle_succeeded(msgspec.structs.replace(done, round=round_), problems[:1])
    told = re.findall('msg="x: warning [0-9]+"', log_of(config))
    assert told.count('msg="x: warning 0"') == 2
    assert len(told) == 2 + 20
    assert log_of(config).count("and 80 more") == 1
    assert log_of(config).count('reason="x: warning 0"') == 2
    assert log_of(config).count("the state is read and written again") == 1


def test_an_outage_is_logged_again_every_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in each cycle."""
    with (tmp_path / "log").open("w+") as stream:
        events = Events(Log(stream), Notify(None))
        down = Belief(backend="t", state=BeliefState.UNKNOWN, snapshot=None, why="down")
        held = Belief(backend="t", state=BeliefState.HELD, snapshot=None, why="9 machines would become 1")
        for belief, remind in ((down, 3600), (down, 3600), (down, 0), (held, 3600), (held, 3600)):
            monkeypatch.setattr("clan_discovery.resident.events._REMIND_S", remind)
            events.backend(belief)
    told = [line.partition("msg=")[2].partition(" backend=")[0] for line in (tmp_path / "log").read_text().splitlines()]
    assert told == ['"backend fails"', '"backend still fails"', '"backend answers again"', '"loss is held"']


# --- the parts ------------------------------------------------------------------------------------------------------


def test_a_burst_of_reasons_is_one_wake_up() -> None:
    """Reasons are collected until there is a pause; stopping ends the wait."""
    wake = Wake()
    assert wake.wait(0.01) == frozenset()
    wake.call("bus")
    wake.call("inventory")
    assert wake.wait(60) == {"bus", "inventory"}
    threading.Timer(0.05, wake.call, ["late"]).start()
    assert wake.settle(0.3, 2.0) == {"late"}
    wake.call("stop")
    late = threading.Timer(0.5, wake.call, ["late"])
    late.start()
    assert wake.settle(5.0, 5.0) == {"stop"}
    late.join()


def test_a_replaced_symlink_on_the_path_is_detected(tmp_path: Path) -> None:
    """As on NixOS: links to links, and every generation has the same modification time."""
    for generation in "ab":
        file = tmp_path / "store" / generation / "etc/c.yaml"
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (1, 1))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/static").symlink_to(tmp_path / "store/a/etc")
    (tmp_path / "etc/c.yaml").symlink_to("static/c.yaml")
    wake = Wake()
    files = FileTrigger([(tmp_path / "etc/c.yaml", "config")], wake)
    files.start()
    try:
        assert wake.wait(1) == frozenset()
        (tmp_path / "next").symlink_to(tmp_path / "store/b/etc")
        (tmp_path / "next").rename(tmp_path / "etc/static")
        assert wake.wait(60) == {"config"}
    finally:
        files.stop()


def test_files_in_a_missing_directory_are_watched(tmp_path: Path) -> None:
    """They are detected when they appear."""
    wake = Wake()
    files = FileTrigger([(tmp_path / "later/x", "status")], wake)
    files.start()
    try:
        (tmp_path / "later").mkdir()
        (tmp_path / "later/x").write_text("1")
        assert wake.wait(60) == {"status"}
    finally:
        files.stop()


def test_log_lines_are_logfmt_or_json(tmp_path: Path) -> None:
    """One line for any values, with priorities for journald."""
    assert logfmt({"msg": "a b", "n": 1, "f": 0.5, "ok": True, "x": 'q"\n\x1b'}) == (
        'msg="a b" n=1 f=0.5 ok=true x="q\\"\\\\n\\\\x1b"'
    )
    with (tmp_path / "log").open("w+") as stream:
        Log(stream, "json", "warning", journal=True).event("warning", "x", n=1)
        Log(stream, "json", "warning").event("info", "not told")
        status_ = os.fstat(stream.fileno())
        assert on_journal(stream.fileno(), f"{status_.st_dev}:{status_.st_ino}")
        assert not on_journal(stream.fileno(), None)
    assert (tmp_path / "log").read_text() == '<4>{"level": "warning", "msg": "x", "n": 1}\n'
    stream.close()
    Log(stream).event("info", "a closed stream changes nothing")


def test_without_systemd_nothing_is_sent() -> None:
    """Nothing is raised either."""
    Notify(None).send("READY=1")
    Notify("/nowhere/notify").send("READY=1")
    Notify("@nowhere").send("READY=1")
    assert watchdog_seconds("2000000") == 1.0
    assert watchdog_seconds(None) is None
    assert watchdog_seconds("0") is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_ends_an_evaluation(tmp_path: Path, number: int) -> None:
    """During a reload that waits for Nix, the process kills Nix and exits."""
    nix = tmp_path / "bin/nix"
    nix.parent.mkdir()
    slow, pid = tmp_path / "slow", tmp_path / "pid"
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["monitor"])))
    text = f"#!/bin/sh\n[ -e {slow} ] || exec cat {tmp_path}/inventory.json\necho $$ > {pid}\nexec sleep 600\n"
    nix.write_text(text)
    nix.chmod(0o755)
    config = tmp_path / "config.yaml"
    config.write_text("inventory: {flake: .}\noutput: {directory: targets}\n")
    with resident(config, PATH=f"{nix.parent}:{os.environ['PATH']}") as process:
        eventually("a round is over", (tmp_path / "targets/node.json").exists)
        slow.touch()
        process.send_signal(signal.SIGHUP)
        eventually("nix runs", lambda: pid.exists() and bool(pid.read_text().strip()))
        process.send_signal(number)
        assert process.wait(60) == 0
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()
    assert "Traceback" not in (tmp_path / "log").read_text()
