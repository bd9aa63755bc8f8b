"""Engines that store samples, run by the flags and files of `show`, and what is written to and read from them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final, TypeAlias

from tests.support.builds import NotBuiltError, newer_scraper
from tests.support.programs import absent, eventually, free_port, get, program

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

Sample: TypeAlias = tuple[str, int]
"""A series and a time in seconds."""
WAIT_S: Final = 120
SERIES: Final = 20


class Server:
    """A program that can be stopped, killed and started again, with the same flags and data."""

    def __init__(self, command: Sequence[str], ready: str, log: Path) -> None:
        self._command = [program("setpriv"), "--pdeathsig", "KILL", *command]
        self._ready = ready
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as output:
            process = subprocess.Popen(self._command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        self._process = process

        def answers() -> bool:
            assert process.poll() is None, self._log.read_text(errors="replace")[-2000:]
            return bool(get(self._ready))

        eventually(f"{self._log.name} answers", answers, WAIT_S)

    def stop(self) -> None:
        """End it as systemd does, and wait."""
        self._end(lambda process: process.terminate())

    def kill(self) -> None:
        """End it as a power cut does."""
        self._end(lambda process: process.kill())

    def _end(self, how: Callable[[subprocess.Popen[bytes]], None]) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        how(process)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(60)


@contextlib.contextmanager
def running(*servers: Server) -> Generator[None]:
    """Run servers until the block ends."""
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.callback(server.kill)
            server.start()
        yield


class Shown:
    """What `show` prints of a storage."""

    def __init__(self, run: Callable[..., Done], place: Path, storage: Json, **others: Json) -> None:
        self._run = run
        self._config = place / "config.yaml"
        static: Json = {"static": {"lab": {"targets": {"node": ["127.0.0.1:1"]}}}}
        self._config.write_text(json.dumps({"backends": static, "storage": storage, **others}))
        self._document = json.loads(self._show("storage"))

    def _show(self, format_: str) -> str:
        done = self._run("show", "-c", self._config, "--format", format_)
        assert done.code == 0, done.err
        return done.out

    def file(self, name: str, place: Path) -> Path:
        """Write a file of the storage, and return its path."""
        path = place / f"{name}.yml"
        path.write_text(self._show(name))
        return path

    @property
    def external_labels(self) -> Json:
        """The labels of all samples of this server."""
        found: Json = self._document["external_labels"]
        return found

    def flags(self, name: str, node: str = "") -> list[str]:
        """Return the flags of a program."""
        (found,) = [
            each["flags"] for each in self._document["programs"] if (each["program"], each["node"]) == (name, node)
        ]
        return list(found)


class Vmagent(Server):
    """A vmagent that writes as the storage says."""

    def __init__(self, path: str, place: Path, flags: Sequence[str]) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        command = [path, f"-httpListenAddr=127.0.0.1:{port}", f"-remoteWrite.tmpDataPath={place}/queue", *flags]
        super().__init__(command, f"{self.url}/health", place / "vmagent.log")

    def write(self, times: Sequence[int]) -> set[Sample]:
        """Give it samples of each series at these times, in seconds; return them."""
        written = {(f"s{number}", at) for at in times for number in range(SERIES)}
        lines = [f'sample{{series="{series}"}} {at % 1000} {at}000\n' for series, at in sorted(written)]
        assert post(f"{self.url}/api/v1/import/prometheus", "".join(lines)) == 204
        return written


def vmauth_program() -> str:
    """Return the pinned vmauth, or skip the test."""
    try:
        return str(newer_scraper("vmauth"))
    except NotBuiltError as error:
        absent("vmauth", str(error), required=False)


def vmauth(path: str, place: Path, config: Path, flags: Sequence[str], port: int) -> Server:
    """Return a vmauth with a config."""
    command = [path, f"-auth.config={config}", f"-httpListenAddr=127.0.0.1:{port}", *flags]
    return Server(command, f"http://127.0.0.1:{port}/health", place / "vmauth.log")


def post(url: str, body: str) -> int:
    """Send a body; return the status."""
    request = urllib.request.Request(url, body.encode(), method="POST")  # noqa: S310 - a server of the test's own
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
            status: int = answer.status
    except urllib.error.HTTPError as error:
        with contextlib.closing(error):
            return error.code
    return status


def recent_times(count: int) -> list[int]:
    """Return times of the last minutes, in seconds, the oldest first."""
    first = int(time.time()) - 600
    return list(range(first, first + count))


def exported(url: str) -> set[Sample]:
    """Return the samples that a VictoriaMetrics has."""
    lines = get(f"{url}/api/v1/export?match[]=sample").splitlines()
    found: list[Mapping[str, dict[str, str]]] = [json.loads(line) for line in lines]
    return {(each["metric"]["series"], round(int(at) / 1000)) for each in found for at in each["timestamps"]}
