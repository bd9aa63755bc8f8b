"""A real Prometheus or vmagent on loopback: change its config, read its targets."""

from __future__ import annotations

import contextlib
import json
import signal
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from tests.support.programs import eventually, free_port, get, running

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from clan_discovery.model import Json


class Target(msgspec.Struct, frozen=True, rename="camel"):
    """A target: its labels before and after relabelling."""

    scrape_url: str
    labels: dict[str, str]
    discovered_labels: dict[str, str] = {}

    @property
    def address(self) -> str:
        """Its address, as `host:port`."""
        return self.scrape_url.split("/")[2]

    @property
    def instance(self) -> str:
        """Its label `instance`."""
        return self.labels["instance"]

    def meta(self, prefix: str) -> dict[str, str]:
        """Return the discovered labels with a prefix."""
        return {name: value for name, value in self.discovered_labels.items() if name.startswith(prefix)}


class _Data(msgspec.Struct, frozen=True, rename="camel"):
    active_targets: list[Target]


class _Answer(msgspec.Struct, frozen=True):
    data: _Data


@dataclass
class Scraper:
    """A running scraper."""

    place: Path
    port: int
    process: subprocess.Popen[bytes]

    def targets(self) -> list[Target]:
        """Return its targets, by job and address.

        Raises:
            OSError: it does not answer.
        """
        body = get(f"http://127.0.0.1:{self.port}/api/v1/targets?state=active")
        found = msgspec.json.decode(body, type=_Answer).data.active_targets
        return sorted(found, key=lambda target: (target.labels["job"], target.address))

    def answers(self) -> bool:
        """Tell whether it answers.

        Raises:
            OSError: not yet.
        """
        return len(self.targets()) >= 0

    def log(self) -> str:
        """Return its log."""
        return (self.place / "scraper.log").read_text()

    def change(self, jobs: Sequence[Mapping[str, Json]], *, post: bool = False) -> None:
        """Change its jobs and reload: by SIGHUP, or by a POST to /-/reload."""
        write_jobs(self.place, jobs)
        if not post:
            self.process.send_signal(signal.SIGHUP)
            return
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/-/reload", method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - a server of the test's own
            assert answer.status == 200

    def until(self, what: str, check: Callable[[list[Target]], bool]) -> list[list[Target]]:
        """Read its targets until a condition holds; return each different list, in order."""
        seen: list[list[Target]] = []

        def look() -> bool:
            found = self.targets()
            if seen[-1:] != [found]:
                seen.append(found)
            return check(found)

        eventually(what, look)
        return seen

    def settled(self, seconds: float = 6.0) -> list[Target]:
        """Return its targets after some seconds: it applies changes within five."""
        time.sleep(seconds)
        return self.targets()


def write_jobs(place: Path, jobs: Sequence[Mapping[str, Json]]) -> None:
    """Write a config with these jobs and a very long scrape interval."""
    document = {"global": {"scrape_interval": "1h"}, "scrape_configs": list(jobs)}
    (place / "scrape.yml").write_text(json.dumps(document))


@contextlib.contextmanager
def prometheus(place: Path, jobs: Sequence[Mapping[str, Json]], path: str) -> Generator[Scraper]:
    """Run a Prometheus that accepts reload requests."""
    port = free_port()
    command = [path, f"--config.file={place}/scrape.yml", f"--storage.tsdb.path={place}/tsdb"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--web.enable-lifecycle"]
    write_jobs(place, jobs)
    with running(command, place / "scraper.log") as process:
        scraper = Scraper(place, port, process)
        eventually("Prometheus answers", scraper.answers)
        yield scraper


@contextlib.contextmanager
def vmagent(place: Path, jobs: Sequence[Mapping[str, Json]], path: str) -> Generator[Scraper]:
    """Run a vmagent that checks files and URLs every second, with a dead remote write address."""
    port = free_port()
    command = [path, f"-promscrape.config={place}/scrape.yml", f"-httpListenAddr=127.0.0.1:{port}"]
    command += ["-remoteWrite.url=http://127.0.0.1:9/nobody", f"-remoteWrite.tmpDataPath={place}/vmagent-data"]
    command += ["-promscrape.fileSDCheckInterval=1s", "-promscrape.httpSDCheckInterval=1s"]
    write_jobs(place, jobs)
    with running(command, place / "scraper.log") as process:
        scraper = Scraper(place, port, process)
        eventually("vmagent answers", scraper.answers)
        yield scraper
