"""Flakes: when `run` evaluates one again, and that an older evaluation never replaces a newer one."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.assemble import make_plan
from clan_discovery.config.load import load_config
from clan_discovery.errors import InputError, PublishError
from clan_discovery.inventory.nix import Evaluation, local_directory
from clan_discovery.publish.evaluations import admit, begin
from clan_discovery.resident.events import NOT_EVALUATED, Events
from clan_discovery.resident.flake import Flake, look
from clan_discovery.resident.log import Log
from clan_discovery.resident.notify import Notify
from clan_discovery.resident.plans import Loaded, Plans
from clan_discovery.round import OutputPaths
from tests.support.fleet import inventory
from tests.support.localapi import Behaviour, localapi
from tests.support.programs import eventually, program
from tests.test_run import PROGRAM, addresses, body, log_of, replace, resident, write_world

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.round import Plan
    from tests.conftest import Done

    Run = Callable[..., Done]


# --- the order ------------------------------------------------------------------------------------------------------


def test_a_later_evaluation_wins(tmp_path: Path) -> None:
    """For each output directory separately; one evaluation can be published again."""
    state, output, other = tmp_path / "state", tmp_path / "out", tmp_path / "other"
    first, second = begin(state), begin(state)
    assert (first, second) == (1, 2)
    assert admit(state, output, second)
    assert admit(state, output, second)
    assert not admit(state, output, first)
    assert admit(state, other, first)
    assert admit(state, output, begin(state))
    assert (state / "evaluations.json").stat().st_mode & 0o777 == 0o600


@given(started=st.lists(st.integers(1, 30), min_size=1, max_size=30))
def test_no_evaluation_replaces_a_later_one(tmp_path_factory: pytest.TempPathFactory, started: list[int]) -> None:
    """In whatever order evaluations end, the published one never gets older."""
    place = tmp_path_factory.mktemp("order")
    numbers = [begin(place) for _ in range(30)]
    assert numbers == list(range(1, 31))
    published = 0
    for number in started:
        assert admit(place, place / "out", number) == (number >= published)
        published = max(published, number)


@pytest.mark.parametrize(
    "garbled",
    [
        b"",
        b"{",
        b"[]",
        b'{"issued": "x"}',
        b'{"issued": 1e400}',
        b'{"issued": 18446744073709551615}',
        b'{"issued": -1.5}',
        b"\xff",
        b'{"published": {"a": null}}',
    ],
)
def test_a_lost_or_damaged_record_accepts_every_evaluation(tmp_path: Path, garbled: bytes) -> None:
    """Numbers in use are not issued again."""
    assert admit(tmp_path, tmp_path / "out", 7)
    (tmp_path / "evaluations.json").write_bytes(garbled)
    assert admit(tmp_path, tmp_path / "out", 5)
    assert begin(tmp_path) == 6


@pytest.mark.parametrize("published", [3000, 2**53])
def test_a_number_never_issued_does_not_block_later_evaluations(tmp_path: Path, published: int) -> None:
    """A flipped digit makes such a record; the next evaluation is the newest."""
    number = begin(tmp_path)
    assert admit(tmp_path, tmp_path / "out", number)
    record = json.loads((tmp_path / "evaluations.json").read_bytes())
    record["published"] = dict.fromkeys(record["published"], published)
    (tmp_path / "evaluations.json").write_text(json.dumps(record))
    assert admit(tmp_path, tmp_path / "out", begin(tmp_path))


def test_the_record_of_long_paths_is_bounded(tmp_path: Path) -> None:
    """A record over the limit would count as lost."""
    for number in range(1, 121):
        assert admit(tmp_path, tmp_path / ("x" * 250) / ("y" * 250) / str(number), number)
    assert (tmp_path / "evaluations.json").stat().st_size < 10_000
    assert not admit(tmp_path, tmp_path / ("x" * 250) / ("y" * 250) / "120", 1)


def test_an_unwritable_record_accepts_every_evaluation(tmp_path: Path) -> None:
    """A FIFO, a directory or a symlink in its place neither hangs nor is followed."""
    for name in ("fifo", "directory", "symlink"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "fifo/evaluations.json")
    (tmp_path / "directory/evaluations.json").mkdir()
    (tmp_path / "symlink/evaluations.json").symlink_to(tmp_path / "x")
    for name in ("fifo", "directory", "symlink"):
        assert begin(tmp_path / name) is None
        assert admit(tmp_path / name, tmp_path, 1)
    assert not (tmp_path / "x").exists()


def test_a_locked_record_fails_the_cycle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations are not published without a number."""
    monkeypatch.setattr("clan_discovery.publish.evaluations._LOCK_S", 0.1)
    begin(tmp_path)
    code = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, 2); print(flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, str(tmp_path / "evaluations.json")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(PublishError, match="cannot number an evaluation"):
            begin(tmp_path)
        holder.kill()


POLL = "flake._POLL_S = 0.1"
"""How often these tests poll the files of a flake."""

# --- a stand-in for Nix ---------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the config of a flake.

    The stand-in for Nix sources `before`, then prints the inventory.
    """
    nix = tmp_path / "bin/nix"
    nix.parent.mkdir()
    nix.write_text(
        f"#!/bin/sh\necho x >> {tmp_path}/count\nbody=$(cat {tmp_path}/clan/flake.nix)\n"
        f'[ -e {tmp_path}/before ] && . {tmp_path}/before\nprintf %s "$body"\n'
    )
    nix.chmod(0o755)
    (tmp_path / "clan").mkdir()
    write(tmp_path, ["monitor"])
    config = tmp_path / "config.yaml"
    config.write_text(
        f"inventory: {{flake: {tmp_path}/clan}}\noutput: {{directory: targets}}\n"
        f"backends: {{tailscale: {{tailnet: {{socket: {tmp_path}/s, timeout: 5s}}}}}}\n"
    )
    monkeypatch.setenv("PATH", f"{nix.parent}:{os.environ['PATH']}")
    return config


def write(place: Path, names: list[str]) -> None:
    """Declare these machines."""
    replace(place / "clan/flake.nix", json.dumps(inventory(names)))


def evaluations(config: Path) -> int:
    """Return the number of evaluations."""
    return (config.parent / "count").read_text().count("x")


def slow(place: Path, seconds: float = 600) -> None:
    """Make evaluations take this many seconds after they read the flake."""
    replace(place / "before", f"echo $$ > {place}/pid\nsleep {seconds}\n")


def hold(place: Path) -> None:
    """Make evaluations wait, after they read the flake, until there is a file `go`."""
    replace(place / "before", f"echo $$ > {place}/pid\nuntil test -e {place}/go; do sleep 0.1; done\n")


def test_a_flake_is_evaluated_again_when_its_files_change(world: Path) -> None:
    """Long before its interval, and only on a change."""
    with resident(world, "--interval", "1s", lowered=POLL):
        eventually("published", lambda: set(addresses(world)) == {"monitor"})
        time.sleep(0.5)
        assert evaluations(world) == 1
        write(world.parent, ["monitor", "db"])
        eventually("the change is published", lambda: set(addresses(world)) == {"monitor", "db"})
        (world.parent / "clan/sub").mkdir()
        (world.parent / "clan/sub/x.nix").write_text("1")
        eventually("a new file is seen", lambda: evaluations(world) >= 3)
    assert "Traceback" not in log_of(world)


def test_a_flake_is_evaluated_again_on_sighup_and_at_its_interval(world: Path) -> None:
    """A flake that is no directory has no files to watch."""
    text = world.read_text().replace(f"flake: {world.parent}/clan", 'flake: "github:a/b"')
    world.write_text(text)
    with resident(world, "--interval", "1h", lowered=POLL) as process:
        eventually("published", lambda: set(addresses(world)) == {"monitor"})
        write(world.parent, ["monitor", "db"])
        time.sleep(0.5)
        assert set(addresses(world)) == {"monitor"}
        process.send_signal(signal.SIGHUP)
        eventually("SIGHUP", lambda: set(addresses(world)) == {"monitor", "db"})
        world.write_text(text.replace('b"', 'b", refresh_interval: 1s'))
        write(world.parent, ["monitor"])
        eventually("the interval", lambda: set(addresses(world)) == {"monitor"})


def test_the_tailnet_is_followed_while_an_evaluation_hangs(world: Path) -> None:
    """The last good evaluation is used. SIGTERM kills Nix."""
    with localapi(world.parent / "s", Behaviour(body=body("monitor"))) as how:
        with resident(world, "--interval", "1h", lowered=POLL) as process:
            eventually("published", lambda: addresses(world).get("monitor") == "100.64.0.1:9100")
            eventually("listening", lambda: how.watchers == 1)
            slow(world.parent)
            write(world.parent, ["monitor", "db"])
            eventually("Nix hangs", (world.parent / "pid").exists)
            how.body = body("other", "monitor")
            how.emit(b'{"PeersChanged": [{}]}')
            eventually("followed", lambda: addresses(world)["monitor"] == "100.64.0.2:9100")
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        number = (world.parent / "pid").read_text().strip()
        assert not Path(f"/proc/{number}").exists()
    assert "Traceback" not in log_of(world)


def test_a_failed_evaluation_is_logged_once(world: Path) -> None:
    """The last good evaluation is used until one succeeds."""
    with resident(world, "--interval", "1s", lowered=POLL):
        eventually("published", lambda: set(addresses(world)) == {"monitor"})
        (world.parent / "before").write_text("echo error: oh >&2; exit 1\n")
        write(world.parent, ["monitor", "db"])
        eventually("told", lambda: "cannot evaluate the flake" in log_of(world))
        time.sleep(1.2)
        assert set(addresses(world)) == {"monitor"}
        (world.parent / "before").unlink()
        write(world.parent, ["monitor", "web"])
        eventually("recovered", lambda: set(addresses(world)) == {"monitor", "web"})
    assert log_of(world).count("cannot evaluate the flake") == 1
    assert log_of(world).count("the flake is evaluated again") == 1


def test_each_requested_evaluation_is_logged(world: Path) -> None:
    """After an edit, after SIGHUP, and for another flake."""
    with resident(world, "--interval", "1h", lowered=POLL) as process:
        eventually("published", lambda: set(addresses(world)) == {"monitor"})
        write(world.parent, ["monitor", "db"])
        eventually("an edit", lambda: "because=flake" in log_of(world))
        process.send_signal(signal.SIGHUP)
        eventually("SIGHUP", lambda: 'the flake is evaluated" because=hangup' in log_of(world))
        replace(world, world.read_text().replace("clan}", "clan?x=1}"))
        eventually("another flake", lambda: 'the flake is evaluated" because=config' in log_of(world))


def test_a_failing_flake_is_in_metrics_and_status(world: Path) -> None:
    """The time of its last success is kept. Without a flake, neither has it."""
    metrics = world.parent / "m.prom"

    def succeeded_at() -> float:
        rest = metrics.read_text().partition("\nclan_discovery_flake_last_success_timestamp_seconds ")[2]
        return float(rest.partition("\n")[0])

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(world.parent / "notify"))
        systemd.settimeout(60)
        environment = {"NOTIFY_SOCKET": str(world.parent / "notify")}
        with resident(
            world, "--interval", "1s", "--metrics-file", str(metrics), lowered=POLL, **environment
        ) as process:
            eventually("written", lambda: "clan_discovery_flake_up 1.0" in metrics.read_text())
            assert abs(succeeded_at() - time.time()) < 100
            before = succeeded_at()
            (world.parent / "before").write_text("echo error: oh >&2; exit 1\n")
            for times in (1, 2):
                process.send_signal(signal.SIGHUP)
                eventually("told", lambda: log_of(world).count("cannot evaluate the flake") == times)  # noqa: B023
            eventually("counted", lambda: "clan_discovery_flake_up 0.0" in metrics.read_text())
            assert abs(succeeded_at() - before) < 0.1
            while not systemd.recv(4096).decode().endswith("; flake: evaluation fails"):
                pass


def test_an_evaluation_at_its_interval_is_not_logged(world: Path) -> None:
    """It is expected and changes nothing."""
    replace(world, world.read_text().replace("clan}", "clan, refresh_interval: 1s}"))
    with resident(world, "--interval", "1h", lowered=POLL):
        eventually("the interval", lambda: evaluations(world) >= 2)
        time.sleep(0.2)
    assert "the flake is evaluated" not in log_of(world)


def test_run_publishes_nothing_over_a_newer_refresh(world: Path, run: Run) -> None:
    """It evaluates again, although it cannot watch the flake.

    A rollback is a new evaluation.
    """
    world.write_text(world.read_text().replace(f"flake: {world.parent}/clan", 'flake: "github:a/b"'))
    with resident(world, "--interval", "1s", lowered=POLL):
        eventually("published", lambda: set(addresses(world)) == {"monitor"})
        for names in (["monitor", "db"], ["monitor"]):
            write(world.parent, names)
            assert run("refresh", "-c", world).code == 3
            assert set(addresses(world)) == set(names)
            deadline = time.monotonic() + 1.2
            while time.monotonic() < deadline:
                assert set(addresses(world)) == set(names)
                time.sleep(0.02)
    assert log_of(world).count("has files of a newer evaluation of the flake") <= 2


def test_a_failing_flake_is_not_evaluated_in_each_cycle(world: Path, run: Run) -> None:
    """Also if a newer evaluation is published: it is tried again after the retry delay."""
    world.write_text(world.read_text().replace(f"flake: {world.parent}/clan", 'flake: "github:a/b"'))
    with resident(world, "--interval", "1s", lowered=POLL):
        eventually("published", lambda: set(addresses(world)) == {"monitor"})
        assert run("refresh", "-c", world).code == 3
        replace(world.parent / "before", "exit 1\n")
        eventually("it fails", lambda: NOT_EVALUATED in log_of(world))
        before = evaluations(world)
        time.sleep(2.5)
        assert evaluations(world) == before


def test_signals_during_the_first_evaluation(world: Path) -> None:
    """SIGHUP does not end the process; SIGTERM ends it and Nix."""
    slow(world.parent)
    with resident(world, "--interval", "1s", lowered=POLL) as process:
        eventually("Nix runs", (world.parent / "pid").exists)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    number = (world.parent / "pid").read_text().strip()
    assert not Path(f"/proc/{number}").exists()


def test_a_slow_refresh_does_not_replace_a_faster_one(world: Path, run: Run) -> None:
    """The refresh that started earlier evaluates again and publishes the current inventory."""
    hold(world.parent)
    with subprocess.Popen(
        [PROGRAM, "refresh", "-c", str(world)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as old:
        eventually("it evaluates", (world.parent / "pid").exists)
        (world.parent / "before").unlink()
        write(world.parent, ["monitor", "db"])
        assert run("refresh", "-c", world).code == 3
        assert set(addresses(world)) == {"monitor", "db"}
        (world.parent / "go").touch()
        old.communicate(timeout=60)
        assert old.returncode == 3
    assert set(addresses(world)) == {"monitor", "db"}
    assert evaluations(world) == 3


def test_a_refresh_gives_up_after_three_evaluations(world: Path, run: Run) -> None:
    """Exit code 5; nothing is changed."""
    (world.parent / "before").write_text(
        f"test -e {world.parent}/inner && exit\n"
        f'{sys.executable} -c "import sys; from pathlib import Path;'
        f"from clan_discovery.publish.evaluations import admit, begin;"
        f"s = Path('{world.parent}/targets.state'); admit(s, Path('{world.parent}/targets'), begin(s))\"\n"
    )
    done = run("refresh", "-c", world)
    assert (done.code, evaluations(world)) == (5, 3)
    assert done.err.count("\n") == 1
    assert "evaluate the flake again; nothing was changed" in done.err


def test_a_config_with_another_flake_waits_for_its_evaluation(world: Path) -> None:
    """The old config is used until the evaluation ends."""
    with resident(world, "--interval", "1s", lowered=POLL):
        eventually("published", lambda: set(addresses(world)) == {"monitor"})
        hold(world.parent)
        write(world.parent, ["monitor", "db"])
        replace(world, world.read_text().replace("/clan}", "/clan?x=1, refresh_interval: never}"))
        eventually("Nix runs", (world.parent / "pid").exists)
        time.sleep(0.5)
        assert set(addresses(world)) == {"monitor"}
        (world.parent / "go").touch()
        eventually("published", lambda: set(addresses(world)) == {"monitor", "db"})


class Manual:
    """Configs of flakes whose evaluations the test ends.

    The `owner` of a plan names config and inventory.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self.ends = {name: threading.Event() for name in "AB"}
        self.fails: set[str] = set()
        self.config = "A"
        self.ends["A"].set()
        self.log = io.StringIO()
        self.plans = Plans(self.load, Events(Log(self.log), Notify(None)))

    def load(self) -> Loaded:
        """Load the current config; a config with a lower-case name has no flake."""
        name = self.config

        def evaluate(_: object) -> Evaluation:
            self.ends[name].wait(60)
            if name in self.fails:
                raise InputError([])
            return Evaluation(name.encode(), 1)

        def plan(evaluation: Evaluation | None) -> Plan:
            plan = make_plan(load_config(write_world(self._place, ["monitor"])))
            inventory_ = evaluation.body.decode() if evaluation is not None else ""
            return msgspec.structs.replace(plan, owner=f"{name}{inventory_}")

        flake = None if name.islower() else Flake(name, evaluate, every=None, directory=None)
        return Loaded(OutputPaths(self._place, self._place, 1.0), plan, files=(), sockets=(), flake=flake)

    def use(self, config: str) -> None:
        """Change the config, as the loop does."""
        self.config = config
        self.plans.reload()
        self.plans.tend()

    def settle(self) -> str:
        """End all evaluations; return the published config and inventory."""
        for event in self.ends.values():
            event.set()
        deadline = time.monotonic() + 60
        while self.plans.pause() == 0 or self.plans.is_evaluating:
            assert time.monotonic() < deadline
            self.plans.tend()
            time.sleep(0.005)
        return self.plans.newest().owner


def test_a_flake_removed_from_the_config_is_not_published(tmp_path: Path) -> None:
    """The config changes from A to B and back while B is evaluated."""
    world = Manual(tmp_path)
    world.use("B")
    assert world.plans.newest().owner == "AA"
    world.use("A")
    assert world.plans.newest().owner == "AA"
    assert world.settle() == "AA"
    world.use("B")
    assert world.settle() == "BB"


def test_a_result_of_one_flake_is_not_used_for_the_next(tmp_path: Path) -> None:
    """A was evaluated again before the config named B, whose evaluation fails."""
    world = Manual(tmp_path)
    world.plans.evaluate_again("test")
    world.plans.tend()
    time.sleep(0.1)
    world.fails = {"B"}
    world.use("B")
    assert world.settle() == "AA"


def test_a_config_without_a_flake_is_used_at_once(tmp_path: Path) -> None:
    """Also while a flake is evaluated; that result is dropped."""
    world = Manual(tmp_path)
    world.use("B")
    world.use("c")
    assert world.plans.newest().owner == "c"
    assert world.settle() == "c"
    world.use("A")
    assert world.plans.newest().owner == "c"
    assert world.settle() == "AA"


def test_refresh_interval_needs_a_flake(tmp_path: Path, run: Run) -> None:
    """Files are read again when they change."""
    config = tmp_path / "c.yaml"
    config.write_text("inventory: {file: x.json, refresh_interval: 1h}\n")
    done = run("check", "-c", config)
    assert done.code == 2
    assert "`refresh_interval` is for `flake`" in done.err
    config.write_text("inventory: {flake: ., refresh_interval: 0s}\n")
    assert "must be" in run("check", "-c", config).err


# --- what is watched ------------------------------------------------------------------------------------------------


def test_the_watched_files_of_a_flake(tmp_path: Path) -> None:
    """Nix, JSON, TOML and lock files at any depth; no build results, no hidden directories."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / ".direnv").mkdir()
    seen = [look(tmp_path)]
    for name in ("flake.nix", "flake.lock", "a/b/inventory.json", "a/x.toml"):
        (tmp_path / name).write_text("1")
        seen.append(look(tmp_path))
    (tmp_path / "flake.nix").write_text("2")
    seen.append(look(tmp_path))
    (tmp_path / "flake.lock").unlink()
    seen.append(look(tmp_path))
    assert len(set(seen)) == len(seen)
    for name in ("README.md", ".direnv/x.nix", "a/notes.txt"):
        (tmp_path / name).write_text("1")
    assert look(tmp_path) == seen[-1]
    (tmp_path / "dead.nix").symlink_to("nowhere")
    (tmp_path / "loop.nix").symlink_to("loop.nix")
    assert look(tmp_path) is not None
    assert look(tmp_path / "absent") == look(tmp_path / "absent2")


def test_published_files_do_not_change_a_flake(tmp_path: Path) -> None:
    """Output directories of this config and of others, by any path, also within the flake."""
    (tmp_path / "targets").mkdir()
    (tmp_path / "link").symlink_to("targets")
    own = [tmp_path / "link", tmp_path / "targets.state"]
    before = look(tmp_path, own)
    (tmp_path / "targets.state").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/.clan-discovery.lock").touch()
    for file in ("targets/node.json", "targets.state/evaluations.json", "other/index.json"):
        (tmp_path / file).write_text("1")
    assert look(tmp_path, own) == before
    (tmp_path / "flake.nix").write_text("1")
    inside = look(tmp_path, [tmp_path])
    (tmp_path / "node.json").write_text("1")
    assert look(tmp_path, [tmp_path]) == inside
    (tmp_path / "flake.nix").write_text("22")
    assert look(tmp_path, [tmp_path]) != inside


def test_an_output_directory_in_the_flake_starts_no_evaluation(world: Path) -> None:
    """However often it is written."""
    replace(world, world.read_text().replace("targets}", "clan/targets}"))
    with resident(world, "--interval", "1s", lowered=POLL):
        eventually("published", (world.parent / "clan/targets/node.json").exists)
        time.sleep(0.5)
    assert evaluations(world) == 1


def test_git_add_changes_a_flake(tmp_path: Path) -> None:
    """Also in a separate worktree, and below the root of the repository."""
    git = [program("git"), "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    one = tmp_path / "one"
    (one / "sub").mkdir(parents=True)
    for words in (("init", "-q"), ("commit", "-q", "--allow-empty", "-m", "x"), ("worktree", "add", "-q", "../two")):
        subprocess.run([*git, *words], cwd=one, check=True, capture_output=True)
    (tmp_path / "two/sub").mkdir()
    for place in (one, tmp_path / "two", one / "sub", tmp_path / "two/sub"):
        (place / "notes").write_text("1")
        before = look(place)
        subprocess.run([*git, "add", "notes"], cwd=place, check=True)
        assert look(place) != before


@pytest.mark.parametrize(
    ("reference", "directory"),
    [
        ("/a/b", "/a/b"),
        ("path:/a/b", "/a/b"),
        ("path:/a?dir=x", "/a/x"),
        ("git+file:///a/b?ref=main&dir=x/y", "/a/b/x/y"),
        ("git+file:/a%20b", "/a b"),
        ("/a#x", "/a"),
        ("github:a/b", None),
        ("git+ssh://host/a", None),
        ("nixpkgs", None),
        ("path:./x", None),
    ],
)
def test_the_directory_of_a_local_flake(reference: str, directory: str | None) -> None:
    """It is watched; other references have none."""
    assert local_directory(reference) == (None if directory is None else Path(directory))
