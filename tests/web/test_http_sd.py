"""http_sd with real scrapers: no fault of ours removes a target."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.localapi import Behaviour, localapi
from tests.support.programs import eventually, free_port, program, scraper_program
from tests.support.scraper import prometheus, vmagent
from tests.test_http import status
from tests.test_run import body, log_of, replace, resident, write_world

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.support.scraper import Scraper

SCRAPERS = [
    pytest.param("prometheus", "debian", id="prometheus-2.42"),
    pytest.param("prometheus", "newer", id="prometheus-3.5"),
    pytest.param("vmagent", "debian", id="vmagent-1.79"),
    pytest.param("vmagent", "newer", id="vmagent-1.131"),
]
NAMES = ["monitor", "db", "attic"]
SEEN = ["100.64.0.1:9100", "100.64.0.2:9100", "attic.tail1a2b3.ts.net:9100"]
POLLS_S = 8.0
"""Several polls of each scraper: Prometheus applies what it found within five seconds."""


@dataclass
class World:
    """The config of `run`, the port where it serves, and the status of the tailnet."""

    config: Path
    port: int
    tailnet: Behaviour

    @property
    def url(self) -> str:
        """The list of the job."""
        return f"http://127.0.0.1:{self.port}/sd/node"

    def starts(self) -> None:
        """Wait until the list is served."""
        eventually("served", lambda: status(self.url) == 200)


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    """Write a config with `web`; two of its three machines are seen."""
    config, port = write_world(tmp_path, NAMES), free_port()
    config.write_text(config.read_text() + f'web: {{listen: "127.0.0.1:{port}"}}\n')
    with localapi(tmp_path / "s", Behaviour(body=body("monitor", "db"))) as tailnet:
        yield World(config, port, tailnet)


@contextlib.contextmanager
def scraping(world: World, name: str, which: str) -> Generator[Scraper]:
    """Run a scraper that asks for the list every second."""
    place = world.config.parent / "scraper"
    place.mkdir()
    sd: dict[str, Json] = {"url": world.url}
    if name == "prometheus":  # vmagent has a flag, and refuses the key
        sd["refresh_interval"] = "1s"
    job: dict[str, Json] = {"job_name": "node", "http_sd_configs": [sd]}
    start = {"prometheus": prometheus, "vmagent": vmagent}[name]
    with start(place, [job], scraper_program(name, which)) as scraper:
        yield scraper


def found(scraper: Scraper) -> list[str]:
    """Return the addresses of the targets."""
    return sorted(target.address for target in scraper.targets())


def keeps(scraper: Scraper, seconds: float = POLLS_S) -> None:
    """Assert that the scraper has every target all the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert found(scraper) == SEEN
        time.sleep(0.2)


@pytest.mark.parametrize(("name", "which"), SCRAPERS)
def test_targets_and_their_changes_are_scraped(world: World, name: str, which: str) -> None:
    """Also those that tailscaled reports later."""
    with resident(world.config, "--interval", "1s"), scraping(world, name, which) as scraper:
        eventually("found", lambda: found(scraper) == SEEN)
        world.tailnet.body = body("monitor", "db", "attic")
        eventually("changed", lambda: found(scraper) == [*SEEN[:2], "100.64.0.3:9100"])


@pytest.mark.parametrize(("name", "which"), SCRAPERS)
def test_targets_are_kept_while_tailscaled_is_down_or_logged_out(world: World, name: str, which: str) -> None:
    """The list stays 200, with the last good answer; /healthz stays 200, because cycles succeed."""
    with resident(world.config, "--interval", "1s"), scraping(world, name, which) as scraper:
        eventually("found", lambda: found(scraper) == SEEN)
        for answer in (b'{"BackendState": "NeedsLogin", "Peer": null}', b"", b"<html>"):
            world.tailnet.body = answer
            keeps(scraper, 3)
        world.tailnet.status = 503
        keeps(scraper)
        assert status(world.url) == 200


@pytest.mark.parametrize(("name", "which"), SCRAPERS)
def test_targets_are_kept_while_the_disk_is_full(world: World, name: str, which: str) -> None:
    """The file system of the target files and of the state is full, and the tailnet changes."""
    place = world.config.parent
    disk = place / "disk"
    disk.mkdir()
    done = subprocess.run(
        [program("mount"), "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("root is needed to mount a small file system")
    try:
        world.config.write_text(world.config.read_text().replace("directory: targets", "directory: disk/targets"))
        with resident(world.config, "--interval", "1s"), scraping(world, name, which) as scraper:
            eventually("found", lambda: found(scraper) == SEEN)
            fill(disk / "large")
            replace(place / "inventory.json", (place / "inventory.json").read_text().replace("attic", "b" * 40))
            eventually("unhealthy", lambda: status(f"http://127.0.0.1:{world.port}/healthz") == 503)
            assert "No space left" in log_of(world.config)
            keeps(scraper)
            (disk / "large").unlink()
            eventually("changed", lambda: any("bbbb" in address for address in found(scraper)))
    finally:
        subprocess.run([program("umount"), "-l", disk], check=True)


def fill(file: Path) -> None:
    """Write until the file system is full."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as stream:
        for size in (4096, 1):
            with contextlib.suppress(OSError):
                while stream.write(b"x" * size):
                    pass


PROMETHEUS = SCRAPERS[:2]
VMAGENT = SCRAPERS[2:]


@pytest.mark.parametrize(("name", "which"), PROMETHEUS)
def test_prometheus_keeps_its_targets_while_run_is_killed(world: World, name: str, which: str) -> None:
    """SIGKILL, a pause of several polls, and a start whose first cycle fails; then one that succeeds."""
    with contextlib.ExitStack() as stack:
        with resident(world.config, "--interval", "1s"):
            world.starts()
            scraper = stack.enter_context(scraping(world, name, which))
            eventually("found", lambda: found(scraper) == SEEN)
        keeps(scraper)
        targets = world.config.parent / "targets"
        shutil.rmtree(targets)
        targets.write_text("")
        with resident(world.config, "--interval", "1s"):
            eventually("503", lambda: status(world.url) == 503)
            keeps(scraper)
            targets.unlink()
            eventually("200", lambda: status(world.url) == 200)
            keeps(scraper, 3)


def vmagent_after(world: World, which: str, check: Callable[[Scraper], None]) -> None:
    """Kill `run` while vmagent asks it, call `check`, and start it again."""
    with contextlib.ExitStack() as stack:
        with resident(world.config, "--interval", "1s"):
            world.starts()
            scraper = stack.enter_context(scraping(world, "vmagent", which))
            eventually("found", lambda: found(scraper) == SEEN)
        check(scraper)
        with resident(world.config, "--interval", "1s"):
            eventually("found again", lambda: found(scraper) == SEEN)
            keeps(scraper, 3)


@pytest.mark.parametrize(("name", "which"), VMAGENT)
def test_vmagent_keeps_its_targets_while_run_is_killed(world: World, name: str, which: str) -> None:
    """While it runs itself; see docs/http.md for its restart."""
    assert name == "vmagent"
    vmagent_after(world, which, keeps)
