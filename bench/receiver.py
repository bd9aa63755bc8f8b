"""Measure what nginx costs in front of VictoriaMetrics, and how long a reload with 1,000 tokens takes.

    make bench-agents

Requests of a real vmagent are recorded: each has the samples of one scrape of 1,000 series. Then they are sent again,
each time in turn to VictoriaMetrics itself and through nginx, to a VictoriaMetrics of its own each. CPU is that of the
programs, user and system.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import random
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from typing_extensions import override

from tests.support.programs import eventually, free_port, program, running, scraper_program
from tests.support.receiver import METRICS_PATH, metrics_store, receiver

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

SERIES: Final = 1000
RECORDED: Final = 20
ROUNDS: Final = 60
TOKENS: Final = 1000
RELOADS: Final = 5
WANTED: Final = 1.3
TICKS: Final = os.sysconf("SC_CLK_TCK")


class Sent(NamedTuple):
    """A request of an agent."""

    headers: Mapping[str, str]
    body: bytes


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves metrics, and records what is sent."""

    protocol_version = "HTTP/1.1"
    sent: Final[list[Sent]] = []

    def do_GET(self) -> None:
        """Serve metrics like those of a node exporter: most values change a little."""
        lines = (
            f'node_cpu_seconds_total{{cpu="{number // 8}",mode="mode{number % 8}",device="device{number % 20}"}} '
            f"{number * 100 + random.randrange(100)}.{number % 97}\n"  # noqa: S311 - values, no secrets
            for number in range(SERIES)
        )
        body = "".join(lines).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Record a request."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kept = ("Content-Type", "Content-Encoding", "X-Prometheus-Remote-Write-Version")
        self.sent.append(Sent({name: self.headers[name] for name in kept if name in self.headers}, body))
        self.send_response(204)
        self.end_headers()

    @override
    def log_message(self, format: str, *args: object) -> None:
        pass


def record(place: Path) -> list[Sent]:
    """Return requests of a real vmagent that scrapes every second."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        (place / "scrape.yml").write_text(
            "global: {scrape_interval: 1s}\n"
            f"scrape_configs: [{{job_name: node, static_configs: [{{targets: ['{address}']}}]}}]\n"
        )
        command = [
            scraper_program("vmagent", "newer"),
            f"-promscrape.config={place}/scrape.yml",
            f"-remoteWrite.url=http://{address}{METRICS_PATH}",
            f"-remoteWrite.tmpDataPath={place}/queue",
            f"-httpListenAddr=127.0.0.1:{free_port()}",
        ]
        with running(command, place / "vmagent.log"):
            # The first ones may hold less than a scrape.
            eventually("enough is recorded", lambda: len(Handler.sent) >= RECORDED + 3, 120)
        server.shutdown()
    return Handler.sent[3 : RECORDED + 3]


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process and of its children that run."""
    used = 0.0
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (directory / "stat").read_text().rpartition(")")[2].split()
            if int(directory.name) == pid or int(words[1]) == pid:
                used += (int(words[11]) + int(words[12])) / TICKS
    return used


@contextlib.contextmanager
def connected(url: str) -> Generator[http.client.HTTPConnection]:
    """Return a connection that is kept, as an agent keeps it."""
    with contextlib.closing(http.client.HTTPConnection(url.partition("://")[2], timeout=60)) as connection:
        yield connection


def send(connection: http.client.HTTPConnection, requests: Sequence[Sent], token: str) -> None:
    """Send requests in turn; an answer other than 204 ends the benchmark."""
    for request in requests:
        connection.request("POST", METRICS_PATH, request.body, {**request.headers, "Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 204:
            raise SystemExit(f"answered with {answer.status}")


def overhead(place: Path) -> None:
    """Print the CPU with and without nginx."""
    place.mkdir()
    requests = record(place)
    size = sum(len(request.body) for request in requests) // len(requests)
    print(f"{ROUNDS * len(requests)} requests of {size:,} bytes, {SERIES} samples each")
    with metrics_store(place / "alone", "newer") as alone, receiver(place / "bed", logs=False) as bed:
        store, front = bed.metrics, bed.process
        if store is None or front is None:
            raise SystemExit("nothing runs")
        bed.limits = type(bed.limits)(requests=100_000)
        bed.reload()
        token = (bed.tokens / "dino").read_text().strip()
        before = [cpu_of(process.pid) for process in (alone.process, store.process, front)]
        with connected(alone.url) as direct, connected(bed.url) as through:
            for _ in range(ROUNDS):
                send(direct, requests, token)
                send(through, requests, token)
        after = [cpu_of(process.pid) for process in (alone.process, store.process, front)]
    used = [late - early for early, late in zip(before, after, strict=True)]
    print(f"VictoriaMetrics alone      {used[0]:6.2f} s CPU")
    print(f"nginx and VictoriaMetrics  {used[1] + used[2]:6.2f} s CPU ({used[2]:.2f} of nginx)")
    print(f"ratio {(used[1] + used[2]) / used[0]:.2f}; to reach: {WANTED}")


def reloads(place: Path) -> None:
    """Print how long it takes from a new token file until the token is accepted, with 1,000 tokens."""
    with receiver(place, [f"machine-{number:04}" for number in range(TOKENS)], logs=False) as bed:
        store = bed.metrics
        if store is None:
            raise SystemExit("nothing runs")
        for number in range(RELOADS):
            token = bed.add(f"new-{number}")
            started = time.perf_counter()
            bed.write()
            written = time.perf_counter()
            words = ["-p", str(bed.place), "-c", str(bed.place / "nginx.conf"), "-s", "reload"]
            subprocess.run([program("nginx"), *words], check=True, capture_output=True)
            while not accepted(bed.url, token):
                if time.perf_counter() - started > 60:
                    raise SystemExit("the token is not accepted")
            loaded = time.perf_counter()
            wrote, took = written - started, loaded - written
            print(f"{TOKENS + number + 1} tokens: written in {wrote:.3f} s, reloaded in {took:.3f} s; to reach: 1 s")


def accepted(url: str, token: str) -> bool:
    """Tell whether a token is accepted: its request is wrong, and reaches VictoriaMetrics."""
    with connected(url) as connection:
        connection.request("POST", METRICS_PATH, b"-", {"Authorization": f"Bearer {token}"})
        return connection.getresponse().status != 401


def main() -> None:
    """Measure both."""
    with tempfile.TemporaryDirectory() as directory:
        overhead(Path(directory) / "overhead")
        reloads(Path(directory) / "reloads")


if __name__ == "__main__":
    main()
