"""Servers that share targets: each with its own config, files and scraper, killed, added and deployed in odd orders.

All machines have addresses outside loopback, which no server shares; one exporter answers for them, as an HTTP proxy.
Nothing here measures time: the targets of all scrapers are counted again and again, and each target that a scraper has
must be scraped on and on.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from typing import TYPE_CHECKING, Final, Self

import msgspec
import pytest

from tests.stack.exporters import Answers, serving
from tests.stack.fleet import Found, command
from tests.stack.scrapers import Kind, Scraper, Which, scraper
from tests.support.fleet import inventory
from tests.support.programs import eventually, free_port, get, program, running, scraper_program

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from pathlib import Path

    from clan_discovery.model import Json

INTERVAL_S: Final = 3
LONGEST_S: Final = 150.0
REPLICAS: Final = 2


class _Labels(msgspec.Struct):
    instance: str


class _Active(msgspec.Struct, rename="camel"):
    labels: _Labels
    health: str
    last_scrape: str


class _Targets(msgspec.Struct, rename="camel"):
    active_targets: list[_Active]


class _TargetsAnswer(msgspec.Struct):
    data: _Targets


class _Group(msgspec.Struct):
    targets: list[str]
    labels: _Labels


@dataclass
class Server:
    """A server of the shard: its directory with config and target files, and its scraper."""

    name: str
    place: Path
    scraper: Scraper

    @property
    def config(self) -> Path:
        """Its config."""
        return self.place / "config.json"

    def published(self) -> Counter[str]:
        """Return the instances in its target files."""
        found: Counter[str] = Counter()
        for file in (self.place / "targets").glob("*.json"):
            groups = msgspec.json.decode(file.read_bytes(), type=list[_Group])
            found.update({group.labels.instance: len(group.targets) for group in groups})
        return found

    def _active(self) -> list[_Active]:
        answer = get(f"{self.scraper.url}/api/v1/targets?state=active")
        return msgspec.json.decode(answer, type=_TargetsAnswer).data.active_targets

    def scraped(self) -> Counter[str]:
        """Return the instances that its scraper has."""
        return Counter(target.labels.instance for target in self._active())

    def last_scrapes(self) -> dict[str, str]:
        """Return when each instance that its scraper has was last scraped; empty if that failed."""
        return {
            target.labels.instance: target.last_scrape if target.health == "up" else "" for target in self._active()
        }

    def has_read(self) -> bool:
        """Tell whether its scraper has what its files have."""
        return self.scraped() == self.published()

    def has_scraped(self, wanted: Iterable[str], before: Mapping[str, str]) -> bool:
        """Tell whether its scraper has scraped these instances with success since they were scraped last."""
        now = self.last_scrapes()
        return all(now[instance] not in ("", before[instance]) for instance in wanted)


@dataclass
class Bed:
    """The machines, the servers that run, and the exporter that answers for all machines.

    `proxy` is its URL, `interval` that of scrapes.
    """

    place: Path
    machines: list[str]
    proxy: str
    stack: contextlib.ExitStack
    interval: str
    servers: dict[str, Server] = field(default_factory=dict[str, Server])

    def start(self, name: str, kind: Kind = "prometheus", which: Which = "debian") -> Server:
        """Start the scraper of a server, which reads target files that are not there yet."""
        place = self.place / name
        (place / "targets").mkdir(parents=True, exist_ok=True)  # Prometheus watches only what is there
        job: dict[str, Json] = {
            "job_name": "node",
            "proxy_url": self.proxy,
            "file_sd_configs": [{"files": [f"{place}/targets/node.json"]}],
        }
        made = self.stack.enter_context(scraper(kind, which, place / kind))
        made.scrape([job], scrape_interval=self.interval, scrape_timeout=f"{INTERVAL_S}s")
        self.servers[name] = Server(name, place, made)
        return self.servers[name]

    def stop(self, name: str) -> None:
        """Kill the scraper of a server, which publishes nothing from now on."""
        process = self.servers.pop(name).scraper.process
        process.kill()
        process.wait(60)

    def write(self, name: str, members: Mapping[str, str]) -> Path:
        """Write the config of a server, with the state of each member, and its inventory; return the config."""
        place = self.place / name
        place.mkdir(exist_ok=True)
        (place / "inventory.json").write_text(json.dumps(inventory(self.machines)))
        hosts: Json = {machine: address(number) for number, machine in enumerate(self.machines)}
        found: Json = {
            "inventory": {"file": "inventory.json"},
            "backends": {"static": {"lab": {"machines": hosts}}},
            "output": {"directory": "targets"},
            "shard": {
                "member": name,
                "members": {member: {"state": state} for member, state in members.items()},
                "replicas": REPLICAS,
            },
            "verify": {
                "scrapers": {server.name.upper(): {"url": server.scraper.url} for server in self.servers.values()},
                "timeout": "60s",
            },
        }
        file = place / "config.json"
        file.write_text(json.dumps(found))
        return file

    def deploy(self, name: str, members: Mapping[str, str]) -> None:
        """Write the config and the target files of a server."""
        code, _, err = command("refresh", "-c", self.write(name, members))
        assert code == 0, err

    def least(self) -> int:
        """Return how many running servers publish the target that the fewest publish."""
        found: Counter[str] = Counter()
        for server in self.servers.values():
            found.update(server.published().keys())
        return min(found[machine] for machine in self.machines)

    def go_on(self) -> None:
        """Wait until each server that runs has scraped twice, from now on, each target that it has now.

        The second scrape began after this call. A scrape that fails on a busy machine counts as none.
        """
        servers = list(self.servers.values())
        targets = [server.scraped().keys() for server in servers]
        for _ in range(2):
            before = [server.last_scrapes() for server in servers]
            for server, wanted, earlier in zip(servers, targets, before, strict=True):
                scraped = partial(server.has_scraped, wanted, earlier)
                eventually(f"{server.name} scrapes each of its targets", scraped, LONGEST_S)

    def verify(self, name: str) -> Found:
        """Run `verify` on a server, about all members of its deployed list that run now."""
        config = self.servers[name].config
        document = json.loads(config.read_text())
        members = document["shard"]["members"]
        asked = [each for each in self.servers.values() if each.name in members]
        found: Json = {each.name.upper(): {"url": each.scraper.url} for each in asked}
        document["verify"]["scrapers"] = found
        config.write_text(json.dumps(document))
        code, out, err = command("verify", "-c", config, "--format", "json")
        assert out, err
        return msgspec.structs.replace(msgspec.json.decode(out, type=Found), code=code, err=err)

    def settle(self, members: Iterable[str]) -> None:
        """Wait until `verify` on each of these servers finds every target up at all of its servers."""

        def is_up(server: Server) -> bool:
            found = self.verify(server.name)
            return found.code == 0 and {target.verdict for target in found.targets} == {"up"}

        servers = [self.servers[name] for name in members]
        for server in servers:
            eventually(f"the scraper of {server.name} has its share", server.has_read, LONGEST_S)
        for server in servers:
            eventually(f"verify on {server.name} finds every target up", partial(is_up, server), LONGEST_S)


def address(number: int) -> str:
    """Return the address of a machine, which is not on loopback."""
    return f"10.{77 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def newer(kind: Kind) -> Which:
    """Return `newer` if a newer scraper of this kind is there."""
    with contextlib.suppress(pytest.skip.Exception):
        scraper_program(kind, "newer")
        return "newer"
    return "debian"


def active(*names: str, **states: str) -> dict[str, str]:
    """Return a list of members: active ones, and some with another state."""
    return {**dict.fromkeys(names, "active"), **states}


class Watch:
    """Counts, again and again until the block ends, how many servers that run have each machine as a target.

    A server is asked at another instant than the next one. That is no error: each has its old or its new targets, and
    the counts are promised for every mixture of these.
    """

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self._counts: list[int] = []
        self._taken = 0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join(LONGEST_S)

    def _run(self) -> None:
        while not self._ends.wait(0.05):
            with contextlib.suppress(OSError, HTTPException):  # a busy server: ask all of them again
                self._counts.append(self._count())

    def _count(self) -> int:
        found: Counter[str] = Counter()
        for server in list(self._bed.servers.values()):
            try:
                found.update(server.scraped().keys())
            except (OSError, HTTPException):
                if server.name in self._bed.servers:
                    raise
        return min(found[machine] for machine in self._bed.machines)

    def least(self) -> int:
        """Return how many servers had the target that the fewest had, at the worst instant since the last call."""
        known = len(self._counts)
        eventually("all servers were asked once more", lambda: len(self._counts) >= known + 2, LONGEST_S)
        found = min(self._counts[self._taken :])
        self._taken = len(self._counts)
        return found


@pytest.fixture
def bed(tmp_path: Path) -> Generator[Callable[..., Bed]]:
    """Return a function that makes a bed with so many machines and no server."""
    with contextlib.ExitStack() as stack:
        port = free_port()
        stack.enter_context(serving("127.0.0.1", port, Answers()))

        def make(machines: int, interval: str = f"{INTERVAL_S}s") -> Bed:
            names = [f"machine{number:04d}" for number in range(machines)]
            return Bed(tmp_path, names, f"http://127.0.0.1:{port}", stack, interval)

        yield make


def test_each_target_is_scraped_twice_and_one_server_is_killed(bed: Callable[..., Bed], tmp_path: Path) -> None:
    """The other server of each target that the dead one had still has it, at every instant, and scrapes it on."""
    shared = bed(30)
    members = active("mon1", "mon2", "mon3")
    shared.start("mon1")
    shared.start("mon2", "vmagent", newer("vmagent"))
    shared.start("mon3", which=newer("prometheus"))
    shared.deploy("mon1", members)
    shared.deploy("mon3", members)
    config = shared.write("mon2", members)
    resident = [program("setpriv"), "--pdeathsig", "KILL", sys.executable, "-m", "clan_discovery"]
    shared.stack.enter_context(running([*resident, "run", "-c", str(config)], tmp_path / "run.log"))
    eventually("`run` has published its share", lambda: shared.least() == REPLICAS, LONGEST_S)
    shared.settle(members)
    scraped = sum((server.scraped() for server in shared.servers.values()), Counter[str]())
    assert scraped == dict.fromkeys(shared.machines, 2)
    found = shared.verify("mon1")
    assert msgspec.json.decode(found.summary["replicas"]) == {"2": 30}
    assert {program.kind for program in found.asked} == {"prometheus", "vmagent"}

    dead = shared.servers["mon3"]
    orphans = set(dead.published())
    assert 0 < len(orphans) < len(shared.machines)
    with Watch(shared) as watch:
        shared.go_on()
        assert watch.least() == 2
        shared.stop("mon3")
        shared.go_on()
        assert watch.least() == 1
    scraped = sum((server.scraped() for server in shared.servers.values()), Counter[str]())
    assert scraped == {machine: 1 if machine in orphans else 2 for machine in shared.machines}

    shared.servers["mon3"] = dead
    found = shared.verify("mon1")
    assert found.code == 3
    assert {target.verdict for target in found.targets} == {"up"}
    assert msgspec.json.decode(found.summary["replicas"]) == {"2": 30 - len(orphans), "1": len(orphans)}


def test_fourth_server_moves_a_quarter_of_the_assignments(bed: Callable[..., Bed]) -> None:
    """Of 10,000, and none between the others. The scrapers have loaded all of them."""
    shared = bed(5000, interval="1d")
    for name in ("mon1", "mon2", "mon3"):
        shared.start(name)
        shared.deploy(name, active("mon1", "mon2", "mon3"))
    before = _loaded(shared)
    assert len(before) == 10_000
    members = active("mon1", "mon2", "mon3", "mon4")
    shared.start("mon4", which=newer("prometheus"))
    for name in ("mon4", "mon2", "mon1", "mon3"):
        shared.deploy(name, members)
        assert shared.least() >= REPLICAS - 1
    after = _loaded(shared)
    assert len(after) == 10_000
    moved = after - before
    assert 0.23 <= len(moved) / 10_000 <= 0.27
    assert {name for name, _ in moved} == {"mon4"}


def _loaded(shared: Bed) -> set[tuple[str, str]]:
    """Return the servers with their targets, when each scraper has what its files have."""
    for server in shared.servers.values():
        eventually(f"the scraper of {server.name} has its share", server.has_read, LONGEST_S)
    return {(server.name, machine) for server in shared.servers.values() for machine in server.scraped()}


def test_deployed_one_after_the_other(bed: Callable[..., Bed]) -> None:
    """Servers come and go, one at a time and two at a time, with one deployed long before the other.

    After each step, the files of the servers that run have every target often enough; so have the scrapers at every
    instant. They scrape on after each change.
    """
    shared = bed(40)
    for name in ("mon1", "mon2", "mon3"):
        shared.start(name, which=newer("prometheus") if name == "mon2" else "debian")
        shared.deploy(name, active("mon1", "mon2", "mon3"))
    shared.settle(shared.servers)
    assert shared.least() == REPLICAS
    watch = shared.stack.enter_context(Watch(shared))

    def roll(members: dict[str, str], order: str, promised: int) -> None:
        for name in order.split():
            shared.deploy(name, members)
            assert shared.least() >= promised, (name, members)
        shared.settle(members)
        shared.go_on()
        assert watch.least() >= promised

    def stop(name: str) -> None:
        shared.stop(name)
        assert shared.least() >= REPLICAS, name
        assert watch.least() >= REPLICAS, name

    shared.start("mon4", "vmagent", newer("vmagent"))
    roll(active("mon1", "mon2", "mon3", "mon4"), "mon3 mon1 mon4 mon2", REPLICAS - 1)
    roll(active("mon2", "mon3", "mon4"), "mon4 mon2 mon3", REPLICAS - 1)
    stop("mon1")
    for name in ("mon5", "mon6"):
        shared.start(name)
    roll(active("mon2", "mon3", "mon4", mon5="joining", mon6="joining"), "mon4 mon6 mon2 mon5 mon3", REPLICAS)
    roll(active("mon2", "mon3", "mon4", "mon5", "mon6"), "mon6 mon3 mon5 mon4 mon2", REPLICAS)
    roll(active("mon4", "mon5", "mon6", mon2="leaving", mon3="leaving"), "mon3 mon5 mon2 mon6 mon4", REPLICAS)
    roll(active("mon4", "mon5", "mon6"), "mon6 mon4 mon5", REPLICAS)
    stop("mon3")
    stop("mon2")
    shared.settle(shared.servers)
    shared.go_on()
    assert watch.least() >= REPLICAS
