"""A machine that scrapes: `run`, and `refresh` on a timer beside it; Prometheus and vmagent; and tailscalesd."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import httpx

from tests.support import builds
from tests.support.fleet import inventory
from tests.tailnet.bed import until
from tests.tailnet.node import PROXY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.tailnet.node import Node
    from tests.tailnet.world import Process

PROMETHEUS: Final = 9090
VMAGENT: Final = 8429
TAILSCALESD: Final = 9242
TAILSCALESD_DEFAULT: Final = 9243
METRICS: Final = 9199
INTERVAL_S: Final = 1.0
"""The scrape interval."""
_OURS: Final = ("run", "timer")


@dataclass(frozen=True)
class Target:
    """A target of a scraper."""

    instance: str
    url: str
    health: str


Targets = dict[str, dict[str, Target]]
"""By job and instance."""


@dataclass
class Server:
    """A machine that scrapes: `run` and `refresh` on a timer beside it, Prometheus and vmagent, and tailscalesd."""

    node: Node
    declared: tuple[str, ...]
    settings: dict[str, Json] = field(default_factory=dict[str, "Json"])
    backend: Mapping[str, Json] = field(default_factory=dict[str, "Json"])
    interval: str = "30s"
    """The interval of `run`."""

    def __post_init__(self) -> None:
        self.host = self.node.host
        self.place = self.host.place
        self.running: dict[str, Process] = {}
        self._clients: dict[int, httpx.Client] = {}
        self._relays: dict[int, Process] = {}
        self.declare(*self.declared)
        for mode in _OURS:
            config = {
                "inventory": {"file": "inventory.json"},
                "backends": {"tailscale": {"tailnet": {"socket": str(self.node.socket), **self.backend}}},
                "output": {"directory": f"{mode}/targets"},
                "state": f"{mode}/state",
            }
            (self.place / f"{mode}.yaml").write_text(json.dumps(config, indent=2))
        self._write_scrape_config()

    def declare(self, *names: str) -> None:
        """Write the inventory."""
        self.declared = names
        document = inventory(list(names), server=self.settings, meta={"name": "bed", "domain": "clan.test"})
        fresh = self.place / "inventory.json.new"
        fresh.write_text(json.dumps(document))
        fresh.rename(self.place / "inventory.json")

    def targets_file(self, mode: str = "run") -> Path:
        """Return the target file of a mode."""
        return self.place / mode / "targets/node.json"

    def published(self, mode: str = "run") -> dict[str, str]:
        """Return the target file: instance to address."""
        groups = json.loads(self.targets_file(mode).read_bytes())
        return {group["labels"]["instance"]: group["targets"][0] for group in groups}

    def clan_discovery(self, *words: str, mode: str = "run") -> str:
        """Run the command in this host."""
        command = [sys.executable, "-m", "clan_discovery", *words, "--config", str(self.place / f"{mode}.yaml")]
        return self.host.run(*command, check=False)

    def start(self, *what: str) -> None:
        """Start programs by name; without names, ours and the scrapers."""
        for name in what or ("run", "timer", "prometheus", "vmagent"):
            if name in ("prometheus", "vmagent"):
                # Prometheus looks for a missing directory only every refresh_interval (5 minutes).
                until("target files", lambda: all(self.targets_file(m).exists() for m in _OURS if m in self.running))
            self.running[name] = getattr(self, f"_start_{name.replace('-', '_')}")()

    def stop(self, *what: str) -> None:
        """Stop programs by name."""
        for name in what:
            self.running.pop(name).end()

    def _start_run(self) -> Process:
        command = (sys.executable, "-m", "clan_discovery", "run", "--config", self.place / "run.yaml")
        return self.host.start(
            *command, "--interval", self.interval, "--metrics-listen", f"127.0.0.1:{METRICS}", log="run"
        )

    def _start_timer(self) -> Process:
        """Start `refresh` repeatedly, never twice at once, like a systemd timer."""
        command = f"{sys.executable} -m clan_discovery refresh --quiet --config {self.place}/timer.yaml"
        return self.host.start("sh", "-c", f"while :; do {command}; sleep 5; done", log="timer")

    def _start_prometheus(self) -> Process:
        program = shutil.which("prometheus")
        assert program is not None
        return self.host.start(
            program,
            f"--config.file={self.place}/scrape.yml",
            f"--storage.tsdb.path={self.place}/tsdb",
            f"--web.listen-address=127.0.0.1:{PROMETHEUS}",
            log="prometheus",
        )

    def _start_vmagent(self) -> Process:
        program = shutil.which("vmagent")
        assert program is not None
        return self.host.start(
            program,
            f"-promscrape.config={self.place}/scrape-vm.yml",
            f"-httpListenAddr=127.0.0.1:{VMAGENT}",
            "-remoteWrite.url=http://127.0.0.1:9/nobody",
            f"-remoteWrite.tmpDataPath={self.place}/vmagent-data",
            "-promscrape.fileSDCheckInterval=1s",
            "-enableTCP6",
            log="vmagent",
        )

    def _start_tailscalesd(self) -> Process:
        """Start tailscalesd; it polls, and is polled, every 5 s."""
        return self._start_peer(TAILSCALESD, "--poll=5s")

    def _start_tailscalesd_default(self) -> Process:
        """Start tailscalesd with defaults: it polls every 5 minutes, and is polled every 60 s."""
        return self._start_peer(TAILSCALESD_DEFAULT)

    def _start_peer(self, port: int, *words: str) -> Process:
        program = builds.tailscalesd()
        where = (f"--localapi_socket={self.node.socket}", f"--address=127.0.0.1:{port}")
        return self.host.start(program, "--localapi", *where, *words, log=f"tailscalesd-{port}")

    def _write_scrape_config(self) -> None:
        files: list[dict[str, Json]] = [
            {"job_name": mode, "file_sd_configs": [{"files": [str(self.targets_file(mode))]}]} for mode in _OURS
        ]
        proxy = {} if self.node.tun else {"proxy_url": f"http://{PROXY}"}
        peers = [_peer_job("tailscalesd", TAILSCALESD, "5s"), _peer_job("tailscalesd-default", TAILSCALESD_DEFAULT)]
        times = {"scrape_interval": f"{INTERVAL_S:g}s", "scrape_timeout": "1s"}
        for name, jobs in (("scrape.yml", [*files, *peers]), ("scrape-vm.yml", files)):
            (self.place / name).write_text(
                json.dumps({"global": times, "scrape_configs": [job | proxy for job in jobs]})
            )

    def get(self, port: int, path: str) -> httpx.Response:
        """Send a request to a loopback port of this host.

        Raises:
            httpx.HTTPError: no response.
        """
        if port not in self._clients:
            socket = self.place / f"{port}.sock"
            self._relays[port] = self.host.start(
                sys.executable, "-m", "tests.tailnet.relay", socket, str(port), log="relay"
            )
            until(f"a relay to {port}", socket.exists)
            self._clients[port] = httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=60)
        return self._clients[port].get(f"http://localhost{path}", headers={"Connection": "close"})

    def targets(self, port: int = PROMETHEUS) -> Targets:
        """Return the targets of a scraper.

        Raises:
            httpx.HTTPError: no response.
        """
        found: Targets = {}
        for target in self.get(port, "/api/v1/targets?state=active").json()["data"]["activeTargets"]:
            labels = target["labels"]
            one = Target(labels["instance"], target["scrapeUrl"], target["health"])
            found.setdefault(labels["job"], {})[one.instance] = one
        return found

    def up(self, port: int = PROMETHEUS, job: str = "run") -> set[str]:
        """Return the instances of a job that are up."""
        return {name for name, target in self.targets(port).get(job, {}).items() if target.health == "up"}

    def scrapes(self, names: Iterable[str], port: int = PROMETHEUS, job: str = "run") -> bool:
        """Tell whether these instances of a job are all up."""
        return self.up(port, job).issuperset(names)


def _peer_job(name: str, port: int, interval: str = "60s") -> dict[str, Json]:
    """Return a job as in tailscalesd's README: the device's name, and a fixed port."""
    return {
        "job_name": name,
        "http_sd_configs": [{"url": f"http://127.0.0.1:{port}/", "refresh_interval": interval}],
        "relabel_configs": [
            {"source_labels": ["__meta_tailscale_device_hostname"], "target_label": "instance"},
            {"source_labels": ["__address__"], "replacement": "$1:9100", "target_label": "__address__"},
        ],
    }


class Sampler:
    """Record a scraper's targets every 100 ms; a context manager.

    A sample that fails fails the block. On a busy machine, samples are further apart: see `longest_gap_s`.
    """

    def __init__(self, server: Server, port: int = PROMETHEUS, every: float = 0.1) -> None:
        self.seen: list[tuple[float, Targets]] = []
        self._server, self._port, self._every = server, port, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._failed: Exception | None = None

    def __enter__(self) -> Self:
        self._server.targets(self._port)  # start the relay in the main thread, or it would end with the sampler's
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(120)
        if self._failed is not None:
            raise self._failed
        assert len(self.seen) > 1, "nobody looked"

    @property
    def longest_gap_s(self) -> float:
        """The seconds between the two samples that are the furthest apart."""
        return max(after - before for (before, _), (after, _) in zip(self.seen, self.seen[1:], strict=False))

    def _look(self) -> None:
        due = time.monotonic()
        try:
            while not self._stop.is_set():
                self.seen.append((time.time(), self._server.targets(self._port)))
                due = max(due + self._every, time.monotonic())
                self._stop.wait(due - time.monotonic())
        except Exception as error:  # noqa: BLE001 - raised at the end of the block
            self._failed = error

    def first(self, job: str, instance: str, so: Callable[[Target], bool]) -> float:
        """Return when a condition first held for a target, in seconds since the epoch."""
        for when, targets in self.seen:
            target = targets.get(job, {}).get(instance)
            if target is not None and so(target):
                return when
        return float("inf")

    def lost(self, job: str, instances: Iterable[str]) -> dict[str, float]:
        """Return for how many seconds instances were missing from a job; only those that were."""
        found: dict[str, float] = {}
        for (start, targets), (end, _) in zip(self.seen, self.seen[1:], strict=False):
            for name in instances:
                if name not in targets.get(job, {}):
                    found[name] = found.get(name, 0.0) + end - start
        return found
