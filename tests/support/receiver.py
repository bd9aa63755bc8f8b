"""A receiver on loopback with the stores behind it: nginx or vmauth, VictoriaMetrics and VictoriaLogs.

The receiver reads what `token write` makes of a directory of token files.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import msgspec
import pytest

from clan_discovery.assemble.receive import read_tokens
from clan_discovery.emit.receive import render_receiver
from clan_discovery.model import FrontSettings, ReceiveLimits, ReceiveSettings
from clan_discovery.publish.secret import write_secret
from tests.support.builds import NotBuiltError, agent_program
from tests.support.programs import absent, eventually, free_port, get, program, running, scraper_program

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from clan_discovery.model import LogStoreKind, Problem, ReceiverKind

Which: TypeAlias = Literal["debian", "newer"]
METRICS_PATH: Final = "/api/v1/write"
LOGS_PATH: Final = "/insert/jsonline"
DOMAIN: Final = "push.home.example.org"


class Stored(msgspec.Struct):
    """A series of VictoriaMetrics with all of its samples, in order: values, and times in milliseconds."""

    metric: dict[str, str]
    values: list[float | None]
    timestamps: list[int]


class Store(NamedTuple):
    """A store that runs."""

    url: str
    process: subprocess.Popen[bytes]

    def samples(self, selector: str) -> list[Stored]:
        """Return every series of VictoriaMetrics that matches, also those that are just written."""
        get(f"{self.url}/internal/force_flush")
        query = urllib.parse.urlencode({"match[]": selector, "reduce_mem_usage": "1"})
        body = get(f"{self.url}/api/v1/export?{query}")
        return [msgspec.json.decode(line, type=Stored) for line in body.splitlines()]

    def logs(self, query: str, limit: int = 100_000) -> list[dict[str, str]]:
        """Return the entries of VictoriaLogs that match, in no order, also those that are just written."""
        get(f"{self.url}/internal/force_flush")
        words = urllib.parse.urlencode({"query": query, "limit": limit})
        return [
            msgspec.json.decode(line, type=dict[str, str])
            for line in get(f"{self.url}/select/logsql/query?{words}").splitlines()
        ]


@contextlib.contextmanager
def metrics_store(place: Path, which: Which, extra: Sequence[str] = ()) -> Generator[Store]:
    """Run VictoriaMetrics with a data directory of its own. The old one must not cut series with many labels."""
    if which == "debian" and not extra:
        extra = ["-maxLabelsPerTimeseries=1000000"]
    flags = ["-search.latencyOffset=0s", "-memory.allowedBytes=128MB", "-loggerTimezone=UTC", *extra]
    with _store(scraper_program("victoria-metrics", which), place / "metrics", flags) as store:
        yield store


@contextlib.contextmanager
def logs_store(place: Path, extra: Sequence[str] = ()) -> Generator[Store]:
    """Run VictoriaLogs with a data directory of its own."""
    flags = ["-memory.allowedBytes=128MB", "-loggerTimezone=UTC", *extra]
    with _store(victoria_logs("victoria-logs"), place / "logs", flags) as store:
        yield store


@contextlib.contextmanager
def loki_store(place: Path) -> Generator[Store]:
    """Run Loki with tenants, and with a data directory of its own."""
    path, port = victoria_logs("loki"), free_port()
    directory = place / "loki"
    directory.mkdir(parents=True)
    config = {
        "auth_enabled": True,
        "analytics": {"reporting_enabled": False},
        "server": {"http_listen_address": "127.0.0.1", "http_listen_port": port, "grpc_listen_port": free_port()},
        "common": {
            "instance_addr": "127.0.0.1",
            "path_prefix": str(directory),
            "replication_factor": 1,
            "ring": {"kvstore": {"store": "inmemory"}},
            "storage": {
                "filesystem": {"chunks_directory": f"{directory}/chunks", "rules_directory": f"{directory}/rules"}
            },
        },
        "querier": {"multi_tenant_queries_enabled": True},
        "schema_config": {
            "configs": [
                {
                    "from": "2024-01-01",
                    "store": "tsdb",
                    "object_store": "filesystem",
                    "schema": "v13",
                    "index": {"prefix": "index_", "period": "24h"},
                }
            ]
        },
    }
    (directory / "config.yaml").write_bytes(msgspec.json.encode(config))
    command = [path, f"-config.file={directory}/config.yaml", "-server.grpc-listen-address=127.0.0.1"]
    with running([*_tied(), *command], directory / "log") as process:
        store = Store(f"http://127.0.0.1:{port}", process)
        _wait(f"{store.url}/ready", process, directory / "log")
        yield store


def victoria_logs(name: str) -> str:
    """Return victoria-logs, vlagent or loki: from the environment, or the pinned build."""
    variable = f"CLAN_DISCOVERY_{name.upper().replace('-', '_')}"
    found = os.environ.get(variable)
    if found:
        return found
    if found == "":
        absent(variable, f"empty (the path of {name})", required=False)
    try:
        return str(agent_program(name))
    except NotBuiltError as error:
        absent(variable, f"not set, and {error}", required=False)


@contextlib.contextmanager
def _store(path: str, place: Path, flags: Sequence[str]) -> Generator[Store]:
    place.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [path, f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={place}/data", *flags]
    with running([*_tied(), *command], place / "log") as process:
        store = Store(f"http://127.0.0.1:{port}", process)
        _wait(f"{store.url}/health", process, place / "log")
        yield store


def _tied() -> list[str]:
    """Return a command before another, which ends with the tests."""
    return [program("setpriv"), "--pdeathsig", "KILL"]


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    def answers() -> bool:
        if process.poll() is not None:
            pytest.fail(f"{url} ended: {log.read_text(errors='replace')[-2000:]}")
        return bool(get(url)) or True

    eventually(f"{url} answers", answers, 120)


@dataclass
class Receiver:
    """A receiver: `url` is what agents send to; `metrics` and `logs` are the stores, if they run."""

    place: Path
    kind: ReceiverKind
    which: Which
    port: int
    metrics: Store | None = None
    logs: Store | None = None
    logs_kind: LogStoreKind = "victorialogs"
    limits: ReceiveLimits = field(default_factory=ReceiveLimits)
    front: FrontSettings = field(default_factory=lambda: FrontSettings(kind="nginx"))
    agents: list[str] = field(default_factory=list[str])
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What agents send to."""
        scheme = "http" if self.front.tls == "off" else "https"
        return f"{scheme}://127.0.0.1:{self.port}"

    @property
    def tokens(self) -> Path:
        """The directory of the token files."""
        return self.place / "tokens"

    @property
    def file(self) -> Path:
        """What `token write` writes."""
        return self.place / "receiver" / f"{self.kind}.conf"

    @property
    def log(self) -> Path:
        """What the receiver says."""
        return self.place / "log"

    def add(self, machine: str, token: str = "", *, file: str = "") -> str:
        """Write a token file of a machine, a new token by default; return the token."""
        token = token or secrets.token_urlsafe(32)
        (self.tokens / (file or machine)).write_text(f"{token}\n")
        if machine not in self.agents:
            self.agents.append(machine)
        return token

    def write(self) -> tuple[Problem, ...]:
        """Write the config from the token files; return the warnings."""
        metrics = self.metrics.url if self.metrics is not None else ""
        logs = self.logs.url if self.logs is not None else ""
        settings = ReceiveSettings(
            kind=self.kind, domain=DOMAIN, metrics=metrics, logs=logs, logs_kind=self.logs_kind, limits=self.limits
        )
        found = read_tokens(self.tokens, self.agents)
        write_secret(self.file, render_receiver(found.tokens, settings, self.front).encode(), None)
        return found.problems

    def reload(self) -> None:
        """Write the config, and load it: no request in flight is lost."""
        self.write()
        if self.kind == "nginx":
            subprocess.run([*self._nginx(), "-t"], check=True, capture_output=True)
            subprocess.run([*self._nginx(), "-s", "reload"], check=True, capture_output=True)
            return
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def complaint(self) -> str:
        """Return what nginx says of its config; empty if it accepts it without a word."""
        done = subprocess.run([*self._nginx(), "-t", "-q"], check=False, capture_output=True, text=True)
        return done.stderr

    @contextlib.contextmanager
    def run(self) -> Generator[subprocess.Popen[bytes]]:
        """Run the receiver until the block ends."""
        self.write()
        if self.kind == "nginx":
            command = [*self._nginx(), "-g", "daemon off;"]
        else:
            path = scraper_program("vmauth", self.which)
            command = [path, f"-auth.config={self.file}", f"-httpListenAddr=127.0.0.1:{self.port}"]
            if self.which == "newer":
                command.append(f"-httpInternalListenAddr=127.0.0.1:{free_port()}")
        with running([*_tied(), *command], self.log) as process:
            eventually(f"{self.kind} listens", lambda: self._listens(process))
            self.process = process
            yield process

    def _listens(self, process: subprocess.Popen[bytes]) -> bool:
        if process.poll() is not None:
            pytest.fail(f"{self.kind} ended: {self.log.read_text(errors='replace')[-2000:]}")
        with socket.create_connection(("127.0.0.1", self.port), 30):
            return True

    def _nginx(self) -> list[str]:
        return [program("nginx"), "-p", str(self.place), "-c", str(self.place / "nginx.conf")]

    def prepare(self) -> None:
        """Write what the operator of nginx writes by hand."""
        self.tokens.mkdir(parents=True)
        self.file.parent.mkdir(mode=0o755)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {self.place}/temporary/{kind};" for kind in kinds)
        (self.place / "temporary").mkdir()
        user = "user root;" if os.geteuid() == 0 else ""
        (self.place / "nginx.conf").write_text(
            f"{user} worker_processes 2; pid {self.place}/pid; error_log stderr notice;\n"
            "events { worker_connections 1024; }\n"
            f"http {{ {temporary} include {self.file}; }}\n"
        )


@contextlib.contextmanager
def receiver(
    place: Path,
    machines: Sequence[str] = ("dino",),
    *,
    kind: ReceiverKind = "nginx",
    which: Which = "newer",
    logs: bool = True,
    limits: ReceiveLimits | None = None,
    front: FrontSettings | None = None,
    flags: Sequence[str] = (),
) -> Generator[Receiver]:
    """Run a receiver with a token for each machine, VictoriaMetrics (`which`) and, unless it is off, VictoriaLogs.

    `flags` are those of VictoriaMetrics.
    """
    place.mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings = front or FrontSettings(kind="nginx")
    settings = msgspec.structs.replace(settings, listen=("127.0.0.1",), http_port=port, https_port=port)
    made = Receiver(place, kind, which, port, front=settings, limits=limits or ReceiveLimits())
    made.prepare()
    for machine in machines:
        made.add(machine)
    with contextlib.ExitStack() as stack:
        made.metrics = stack.enter_context(metrics_store(place, which, flags))
        if logs:
            made.logs = stack.enter_context(logs_store(place))
        stack.enter_context(made.run())
        yield made
