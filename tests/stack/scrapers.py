"""The six scrapers: Prometheus, VictoriaMetrics and vmagent, each Debian's and a newer one."""

from __future__ import annotations

import contextlib
import json
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import pytest

from tests.support.programs import eventually, free_port, get, program, running, scraper_program

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from clan_discovery.model import Json

Kind: TypeAlias = Literal["prometheus", "victoria-metrics", "vmagent"]
Which: TypeAlias = Literal["debian", "newer"]
VERSIONS: Final[Mapping[tuple[Kind, Which], str]] = {
    ("prometheus", "debian"): "prometheus-2.42.0",
    ("prometheus", "newer"): "prometheus-3.5.0",
    ("victoria-metrics", "debian"): "victoria-metrics-1.79.5",
    ("victoria-metrics", "newer"): "victoria-metrics-1.131.0",
    ("vmagent", "debian"): "vmagent-1.79.5",
    ("vmagent", "newer"): "vmagent-1.131.0",
}


@dataclass
class Scraper:
    """A running scraper. `place` holds its config, its data and its log."""

    kind: Kind
    which: Which
    place: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def name(self) -> str:
        """Its program and version."""
        return VERSIONS[self.kind, self.which]

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def scrape(self, jobs: Sequence[Mapping[str, Json]], **settings: Json) -> None:
        """Replace its jobs and reload its config; `settings` are global."""
        write_config(self.place, jobs, **settings)
        self.process.send_signal(signal.SIGHUP)

    def log(self) -> str:
        """Return its log."""
        return (self.place / "log").read_text(errors="replace")


def write_config(place: Path, jobs: Sequence[Mapping[str, Json]], **settings: Json) -> None:
    """Write the config of a scraper: scrapes every two seconds. A slow scrape must not fail."""
    document = {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", **settings},
        "scrape_configs": list(jobs),
    }
    (place / "scrape.yml").write_text(json.dumps(document))


def command_of(kind: Kind, path: str, place: Path, port: int, data: str) -> list[str]:
    """Return the command that runs a scraper with the config and the data in a directory."""
    listen, config = f"127.0.0.1:{port}", f"{place}/scrape.yml"
    if kind == "prometheus":
        return [
            path,
            f"--config.file={config}",
            f"{data or '--storage.tsdb.path'}={place}/data",
            f"--web.listen-address={listen}",
        ]
    poll = ["-promscrape.fileSDCheckInterval=1s", "-promscrape.httpSDCheckInterval=1s"]
    common = [path, f"-promscrape.config={config}", f"-httpListenAddr={listen}", *poll, "-loggerTimezone=UTC"]
    if kind == "vmagent":
        # Nobody listens there: samples are only wanted in the answers of its API.
        return [*common, "-remoteWrite.url=http://127.0.0.1:9/nobody", f"-remoteWrite.tmpDataPath={place}/data"]
    return [*common, f"-storageDataPath={place}/data", "-search.latencyOffset=1s", "-memory.allowedBytes=64MB"]


@contextlib.contextmanager
def scraper(
    kind: Kind,
    which: Which,
    place: Path,
    jobs: Sequence[Mapping[str, Json]] = (),
    *,
    extra: Sequence[str] = (),
    inside: Sequence[str] = (),
    path: str = "",
    data: str = "",
    ready: bool = True,
) -> Generator[Scraper]:
    """Run a scraper with these jobs, and wait until it is ready.

    `extra` are flags, `inside` is a command that runs it, `path` another copy of its program; `data` is the flag of its
    data directory, if it is another. Without `ready` it cannot be asked as usual.
    """
    place.mkdir(parents=True, exist_ok=True)
    port = free_port()
    write_config(place, jobs)
    # If the tests themselves are killed, their scrapers are as well.
    command = [
        program("setpriv"),
        "--pdeathsig",
        "KILL",
        *inside,
        *command_of(kind, path or scraper_program(kind, which), place, port, data),
        *extra,
    ]
    with running(command, place / "log") as process:
        made = Scraper(kind, which, place, port, process)
        if ready:
            eventually(f"{made.name} answers", lambda: _is_ready(made), 150)
        yield made


def _is_ready(made: Scraper) -> bool:
    if made.process.poll() is not None:
        pytest.fail(f"{made.name} ended: {made.log()[-2000:]}")
    path = "/-/ready" if made.kind == "prometheus" else "/health"
    get(f"{made.url}{path}")
    return True
