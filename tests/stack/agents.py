"""A bed for agents: machines with vmagent, vlagent and a journal, and a server, in network namespaces of their own.

Ports are those of the real setup: each host has a network of its own. The server's stores listen on its loopback; what
agents send passes the receiver, by TLS, with a token for each machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from clan_discovery.assemble.receive import read_tokens
from clan_discovery.emit.receive import render_receiver
from clan_discovery.model import FrontSettings, ReceiveSettings
from clan_discovery.publish.secret import write_secret
from tests.support.builds import NotBuiltError, agent_program
from tests.support.nix import ROOT
from tests.support.programs import absent, eventually, program, scraper_program
from tests.support.receiver import DOMAIN, victoria_logs
from tests.tailnet.world import V4, NoWorldError, World

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from clan_discovery.model import Json, LogStoreKind
    from tests.support.receiver import Which
    from tests.tailnet.world import Host, Process

VMAGENT: Final = 8429
VLAGENT: Final = 9429
METRICS: Final = 8428
LOGS: Final = 9428
LOKI: Final = 3100
PUSH: Final = 8443
EXPORTER: Final = 9100
INTERVAL_MS: Final = 100
_UNIT: Final = ROOT / "nix/nixos/agent/unit.nix"
_RETRYING: Final = re.findall(r'"(-remoteWrite\.(?:sendTimeout|retryMaxTime)=\w+)"', _UNIT.read_text())
"""How the agent's units try again. vmagent 1.79 knows only one of these flags."""
FAULTS: Final = (400, 401, 403, 404, 409, 413, 415, 429, 500, 502, 503, 504)
_FIELDS: Final = "_stream_fields=_SYSTEMD_UNIT&_time_field=__REALTIME_TIMESTAMP&_msg_field=_msg"
_SHUTDOWN: Final = 0x8004587D
"""EXT4_IOC_SHUTDOWN of the kernel."""
_NO_FLUSH: Final = 2
UPLOAD: Final = Path("/lib/systemd/systemd-journal-upload")
REMOTE: Final = Path("/lib/systemd/systemd-journal-remote")
_AHEAD_S: Final = 40 * 86_400  # no query finds what is further ahead
AgentName: TypeAlias = Literal["vmagent", "vlagent"]
AGENTS: Final[tuple[AgentName, ...]] = ("vmagent", "vlagent")
LONG_S: Final = 180.0
"""How long a test waits for what takes seconds on an idle machine."""


def loki_program() -> str:
    """Return Loki; without it, skip the test."""
    given = os.environ.get("CLAN_DISCOVERY_LOKI")
    if given == "":
        absent("CLAN_DISCOVERY_LOKI", "empty (the path of a Loki)", required=False)
    if given is not None:
        return given
    try:
        return str(agent_program("loki"))
    except NotBuiltError as error:
        absent("CLAN_DISCOVERY_LOKI", f"not set, and {error}", required=False)


class Sample(NamedTuple):
    """A stored sample: its time in milliseconds."""

    at: int
    value: float


class Line(NamedTuple):
    """A log line: its time in microseconds."""

    at: int
    text: str
    unit: str = "bed.service"


def ask(host: Host, url: str, *words: str, seconds: float = 60) -> str:
    """Ask a server of a host from that host; a failure is an OSError, so that `eventually` tries again."""
    command = ["curl", "-sS", "--fail-with-body", "--max-time", str(seconds), *words, url]
    done = subprocess.run(host.command(*command), capture_output=True, text=True, timeout=seconds + 30, check=False)
    if done.returncode != 0:
        raise OSError(f"{url}: {done.stderr}{done.stdout}")
    return done.stdout


def metric(host: Host, port: int, name: str, label: str = "") -> float:
    """Return the sum of a metric of a program in a host, of those series with a label; 0 if there are none."""
    lines = ask(host, f"http://127.0.0.1:{port}/metrics").splitlines()
    found = [line for line in lines if line.partition("{")[0].partition(" ")[0] == name and label in line]
    return sum(float(line.rpartition(" ")[2]) for line in found)


@dataclass
class Server:
    """The machine that receives, and its stores."""

    host: Host
    tokens: dict[str, str] = field(default_factory=dict[str, str])
    running: dict[str, Process] = field(default_factory=dict["str", "Process"])

    @property
    def place(self) -> Path:
        """Its directory."""
        return self.host.place

    @property
    def url(self) -> str:
        """Where agents send to."""
        return f"https://{DOMAIN}:{PUSH}"

    def mac(self) -> str:
        """Return the hardware address of its network."""
        return self.host.run("cat", "/sys/class/net/eth0/address").strip()

    @property
    def ca(self) -> Path:
        """The certificate that agents trust."""
        return self.place / "certificate.pem"

    def start_metrics(self, which: Which, *extra: str, data: Path | None = None) -> None:
        """Start VictoriaMetrics. It keeps what is a day ahead or behind, and finds samples at once."""
        command = [
            scraper_program("victoria-metrics", which),
            f"-httpListenAddr=127.0.0.1:{METRICS}",
            f"-storageDataPath={data or self.place / 'metrics'}",
            "-search.latencyOffset=0s",
            # Without it, a busy VictoriaMetrics ends uncleanly after 7 s, and loses what it took just before.
            "-http.maxGracefulShutdownDuration=1m",
            *extra,
        ]
        self._start("metrics", command, f"http://127.0.0.1:{METRICS}/health")

    def start_logs(self, *extra: str, data: Path | None = None) -> None:
        """Start VictoriaLogs."""
        command = [
            victoria_logs("victoria-logs"),
            f"-httpListenAddr=127.0.0.1:{LOGS}",
            f"-storageDataPath={data or self.place / 'logs'}",
            *extra,
        ]
        self._start("logs", command, f"http://127.0.0.1:{LOGS}/health")

    def start_front(self, logs_kind: LogStoreKind = "victorialogs") -> None:
        """Start nginx with what `token write` writes; TLS with a certificate of its own."""
        self.make_certificate()
        place = self.place / "front"
        place.mkdir(exist_ok=True)
        (place / "tokens").mkdir(exist_ok=True)
        for machine, token in self.tokens.items():
            (place / "tokens" / machine).write_text(f"{token}\n")
        logs = {"victorialogs": LOGS, "loki": LOKI}[logs_kind]
        settings = ReceiveSettings(
            kind="nginx",
            domain=DOMAIN,
            metrics=f"http://127.0.0.1:{METRICS}",
            logs=f"http://127.0.0.1:{logs}",
            logs_kind=logs_kind,
        )
        front = FrontSettings(
            kind="nginx", tls="files", certificate=str(self.ca), key=str(self.place / "key.pem"), https_port=PUSH
        )
        found = read_tokens(place / "tokens", list(self.tokens))
        assert not found.problems
        write_secret(place / "receive.conf", render_receiver(found.tokens, settings, front).encode(), None)
        (place / "nginx.conf").write_text(
            f"user root; daemon off; worker_processes 2; worker_rlimit_nofile 8192; pid {place}/pid;\n"
            "error_log stderr; events { worker_connections 4096; }\n"
            f"http {{ {_temporary(place)} include {place}/receive.conf; }}\n"
        )
        self._start_nginx(place)

    def start_faulty_front(self) -> None:
        """Start nginx without tokens, which answers with a status while the file of its name exists."""
        self.make_certificate()
        place = self.place / "faulty"
        place.mkdir(exist_ok=True)
        faults = " ".join(f"if (-f {place}/{status}) {{ return {status}; }}" for status in FAULTS)
        tls = f"ssl_certificate {self.ca}; ssl_certificate_key {self.place}/key.pem;"
        (place / "nginx.conf").write_text(
            f"user root; daemon off; pid {place}/pid; error_log stderr; events {{ }}\n"
            f"http {{ {_temporary(place)} client_max_body_size 64m; server {{ listen {PUSH} ssl; {tls} {faults}\n"
            f"location /api/ {{ proxy_pass http://127.0.0.1:{METRICS}; }}\n"
            f"location /insert/jsonline {{ proxy_pass http://127.0.0.1:{LOGS}/insert/jsonline?{_FIELDS}; }} }} }}\n"
        )
        self._start_nginx(place)

    def answer_with(self, status: int | None) -> None:
        """Let the faulty front answer with a status, or again as usual."""
        place = self.place / "faulty"
        for known in FAULTS:
            (place / str(known)).unlink(missing_ok=True)
        if status is not None:
            (place / str(status)).touch()

    def _start_nginx(self, place: Path) -> None:
        self.running["front"] = self.host.start(program("nginx"), "-p", place, "-c", place / "nginx.conf", log="front")
        eventually("nginx listens", lambda: f":{PUSH} " in self.host.run("ss", "-ltn"), LONG_S)

    def make_certificate(self) -> None:
        """Make the certificate of the receiver, once."""
        if self.ca.exists():
            return
        words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=bed"]
        names = ["-addext", f"subjectAltName=DNS:{DOMAIN}"]
        files = ["-keyout", str(self.place / "key.pem"), "-out", str(self.ca)]
        subprocess.run([program("openssl"), *words, *names, *files], check=True, capture_output=True)

    def _start(self, name: str, command: Sequence[str | Path], url: str) -> None:
        self.running[name] = started = self.host.start(*command, log=name)

        def ready() -> bool:
            assert started.alive, f"{name} ended: {started.said()[-2000:]}"
            ask(self.host, url)
            return True

        eventually(f"{name} answers", ready, LONG_S)

    def stop(self, *names: str, by: signal.Signals = signal.SIGTERM, seconds: float = 60.0) -> None:
        """Stop programs; kill one that does not end within some seconds."""
        for name in names:
            self.running.pop(name).end(by, seconds)

    def flush(self) -> None:
        """Make what VictoriaMetrics and VictoriaLogs have received visible to queries."""
        if "metrics" in self.running:
            ask(self.host, f"http://127.0.0.1:{METRICS}/internal/force_flush")
        if "logs" in self.running:
            ask(self.host, f"http://127.0.0.1:{LOGS}/internal/force_flush")

    def samples(self, selector: str) -> list[Sample]:
        """Return the stored samples of a series in the order of their times, without stale markers."""
        words = [
            "--get",
            "--data-urlencode",
            f"match[]={selector}",
            "--data",
            "start=0",
            "--data",
            f"end={time.time() + _AHEAD_S:.0f}",
        ]
        found: list[Sample] = []
        for line in ask(self.host, f"http://127.0.0.1:{METRICS}/api/v1/export", *words).splitlines():
            series = json.loads(line)
            pairs = zip(series["timestamps"], series["values"], strict=True)
            found += [Sample(at, value) for at, value in pairs if isinstance(value, int | float)]
        return found

    def count_lines(self) -> int:
        """Return how many log lines are stored."""
        url = f"http://127.0.0.1:{LOGS}/select/logsql/query"
        words = ["--data-urlencode", "query=* | count() total", "--data", "start=0"]
        return int(json.loads(ask(self.host, url, *words))["total"])

    def lines(self, query: str = "*") -> list[Line]:
        """Return the stored log lines that a LogsQL query finds, in the order of their times."""
        words = ["--data-urlencode", f"query={query} | sort by (_time, MESSAGE)", "--data", "limit=1000000"]
        words += ["--data", "start=0", "--data", f"end={time.time() + _AHEAD_S:.0f}"]
        found: list[Line] = []
        for line in ask(self.host, f"http://127.0.0.1:{LOGS}/select/logsql/query", *words).splitlines():
            entry = json.loads(line)
            found.append(Line(_microseconds(entry["_time"]), entry["_msg"], entry.get("_SYSTEMD_UNIT", "")))
        return found


def _temporary(place: Path) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{kind}_temp_path {place}/temporary-{kind};" for kind in kinds)


def _microseconds(text: str) -> int:
    """Return the microseconds of a time such as 2026-11-22T10:00:00.123456Z."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(time.mktime(time.strptime(whole + "UTC", "%Y-%m-%dT%H:%M:%S%Z")) - time.timezone)
    return seconds * 1_000_000 + int(fraction.ljust(6, "0")[:6])


@dataclass
class Agent:
    """A machine with exporters and a journal that it pushes."""

    host: Host
    server: Server
    which: Which = "newer"
    scrape_ms: int = INTERVAL_MS
    most: str = "1GiB"
    queue: Path | None = None
    targets: Path | None = None
    """A target file for vmagent; without it, it scrapes the exporter by its address."""
    running: dict[str, Process] = field(default_factory=dict["str", "Process"])

    @property
    def name(self) -> str:
        """The name of the machine."""
        return self.host.name

    @property
    def place(self) -> Path:
        """Its directory."""
        return self.host.place

    @property
    def state(self) -> Path:
        """The directory of the queues and of the cursor."""
        return self.queue or self.place

    def start_exporter(self, shift_s: float = 0.0, series: int = 0) -> None:
        """Start the exporter that counts."""
        words = [sys.executable, "-m", "tests.stack.counting", EXPORTER, self.place / "scrapes", shift_s, series]
        self.running["exporter"] = self.host.start(*map(str, words), log="exporter")
        eventually("the exporter listens", lambda: f":{EXPORTER} " in self.host.run("ss", "-ltn"), LONG_S)

    def start_metrics(self, *extra: str) -> None:
        """Start vmagent, and wait until it scrapes."""
        (self.place / "token").write_text(self.server.tokens[self.name])
        job: dict[str, Json] = {"job_name": "bed", "honor_timestamps": True}
        if self.targets is None:
            job["static_configs"] = [{"targets": [f"127.0.0.1:{EXPORTER}"]}]
        else:
            job |= {"job_name": self.targets.stem, "file_sd_configs": [{"files": [str(self.targets)]}]}
        interval = {"scrape_interval": f"{self.scrape_ms}ms", "scrape_timeout": f"{self.scrape_ms}ms"}
        config = {"global": interval, "scrape_configs": [job]}
        (self.place / "scrape.yml").write_text(json.dumps(config))
        before = len(self.scrapes())
        started = self._start_vmagent(f"-promscrape.config={self.place / 'scrape.yml'}", *extra)

        def scrapes() -> bool:
            assert started.alive, f"vmagent ended: {started.said()[-2000:]}"
            return len(self.scrapes()) > before

        eventually("vmagent scrapes", scrapes, LONG_S)

    def start_without_jobs(self) -> None:
        """Start a vmagent that scrapes nothing: it sends only what `push_sample` gives it."""
        (self.place / "token").write_text(self.server.tokens[self.name])
        started = self._start_vmagent("-remoteWrite.flushInterval=100ms")

        def ready() -> bool:
            assert started.alive, f"vmagent ended: {started.said()[-2000:]}"
            ask(self.host, f"http://127.0.0.1:{VMAGENT}/health")
            return True

        eventually("vmagent answers", ready, LONG_S)

    def push_sample(self, series: str) -> None:
        """Give vmagent a sample of a series, 1 at the present time."""
        ask(self.host, f"http://127.0.0.1:{VMAGENT}/api/v1/import/prometheus", "--data-binary", f"{series} 1\n")

    def push_line(self, text: str) -> None:
        """Give vlagent a line of the present time, without a journal."""
        entry = {"_msg": text, "__REALTIME_TIMESTAMP": str(time.time_ns() // 1000), "_SYSTEMD_UNIT": "bed.service"}
        words = ["-H", "Content-Type: application/stream+json", "--data-binary", f"{json.dumps(entry)}\n"]
        ask(self.host, f"http://127.0.0.1:{VLAGENT}/insert/jsonline", *words)

    def _start_vmagent(self, *extra: str) -> Process:
        command = [
            scraper_program("vmagent", self.which),
            f"-httpListenAddr=127.0.0.1:{VMAGENT}",
            f"-remoteWrite.url={self.server.url}/api/v1/write",
            f"-remoteWrite.tmpDataPath={self.state / 'vmagent'}",
            *self._sending(),
            *(flag for flag in _RETRYING if self.which == "newer" or "sendTimeout" in flag),
            *extra,
        ]
        self.running["vmagent"] = started = self.host.start(*command, log="vmagent")
        return started

    def start_logs(self, *extra: str) -> None:
        """Start vlagent, and wait until it answers."""
        (self.place / "token").write_text(self.server.tokens[self.name])
        command = [
            victoria_logs("vlagent"),
            f"-httpListenAddr=127.0.0.1:{VLAGENT}",
            f"-remoteWrite.url={self.server.url}/insert/jsonline",
            "-remoteWrite.format=jsonline",
            "-journald.includeEntryMetadata",
            "-journald.timeField=__NONE",
            f"-tmpDataPath={self.state / 'vlagent-data'}",
            f"-remoteWrite.tmpDataPath={self.state / 'vlagent'}",
            *self._sending(),
            *_RETRYING,
            *extra,
        ]
        self.running["vlagent"] = started = self.host.start(*command, log="vlagent")

        def ready() -> bool:
            assert started.alive, f"vlagent ended: {started.said()[-2000:]}"
            ask(self.host, f"http://127.0.0.1:{VLAGENT}/health")
            return True

        eventually("vlagent answers", ready, LONG_S)

    def _sending(self) -> list[str]:
        return [
            "-remoteWrite.queues=1",
            f"-remoteWrite.bearerTokenFile={self.place / 'token'}",
            f"-remoteWrite.tlsCAFile={self.server.ca}",
            f"-remoteWrite.maxDiskUsagePerURL={self.most}",
        ]

    def in_memory(self, name: AgentName) -> float:
        """Return how many blocks of the queue of an agent are only in memory."""
        port = {"vmagent": VMAGENT, "vlagent": VLAGENT}[name]
        return metric(self.host, port, f"{name}_remotewrite_pending_inmemory_blocks")

    def own_filesystem(self) -> Path:
        """Mount a filesystem of its own, whose power can be cut; skip the test where the kernel has no loop device."""
        image, mounted = self.place / "disk.img", self.place / "disk"
        with image.open("wb") as file:
            file.truncate(1024**3)
        mounted.mkdir()
        subprocess.run([program("mkfs.ext4"), "-q", image], check=True, capture_output=True)
        try:
            self.remount()
        except AssertionError as error:
            absent("agents", f"no loop device: {error}", required=False)
        return mounted

    def remount(self) -> None:
        """Mount that filesystem again: its journal is replayed."""
        mounted = self.place / "disk"
        self.host.run("umount", mounted, check=False)
        self.host.run("mount", "-o", "loop", self.place / "disk.img", mounted)

    def leave(self) -> None:
        """Disconnect from the network."""
        self.host.down()

    def come_back(self, number: int) -> None:
        """Connect again, with another address, as a laptop does elsewhere.

        Connections of before are lost with the address, as they are by a reboot: the kernel would send what they hold.
        """
        self.host.run("ip", "addr", "flush", "dev", "eth0", "scope", "global")
        self.host.run("ip", "addr", "add", f"{V4}{number}/24", "dev", "eth0")
        self.host.up()

    def stop(self, *names: str, by: signal.Signals = signal.SIGTERM) -> None:
        """Stop programs in this order."""
        for name in names:
            self.running.pop(name).end(by, 60)

    def scrapes(self) -> dict[int, int]:
        """Return the time in milliseconds of each scrape that the exporter answered."""
        file = self.place / "scrapes"
        if not file.exists():
            return {}
        pairs = [line.split() for line in file.read_text().splitlines()]
        return {int(number): int(at) for number, at in pairs}

    def more_scrapes(self, count: int) -> None:
        """Wait for this many more scrapes."""
        until = len(self.scrapes()) + count
        eventually(f"{until} scrapes", lambda: len(self.scrapes()) >= until, LONG_S)

    def write(self, lines: Sequence[Line]) -> None:
        """Append lines to the journal, each with its own time."""
        boot = "0123456789abcdef0123456789abcdef"
        entries = [
            f"__REALTIME_TIMESTAMP={line.at}\n__MONOTONIC_TIMESTAMP={line.at}\n_BOOT_ID={boot}\n_MACHINE_ID={boot}\n"
            f"_HOSTNAME={self.name}\n_SYSTEMD_UNIT={line.unit}\nPRIORITY=6\nMESSAGE={line.text}\n\n"
            for line in lines
        ]
        (self.place / "journal").mkdir(exist_ok=True)
        command = [str(REMOTE), f"--output={self.place / 'journal' / 'bed.journal'}", "-"]
        done = subprocess.run(command, input="".join(entries), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    def upload(self) -> None:
        """Send what the journal has after the cursor to vlagent, and keep the cursor."""
        url = f"http://127.0.0.1:{VLAGENT}/insert/journald"
        words = [f"--directory={self.place / 'journal'}", f"--save-state={self.state / 'cursor'}", "--follow=no"]
        self.host.run(UPLOAD, f"--url={url}", *words, seconds=LONG_S)

    def pending(self, name: AgentName) -> float:
        """Return the bytes in the queue of an agent."""
        port = {"vmagent": VMAGENT, "vlagent": VLAGENT}[name]
        return metric(self.host, port, f"{name}_remotewrite_pending_data_bytes")


@dataclass
class Bed:
    """The server and the agents of a test."""

    world: World
    server: Server

    def agent(self, name: str, which: Which = "newer") -> Agent:
        """Add a machine; it knows the server's name, and has a token of its own."""
        made = Agent(self.world.host(name), self.server, which)
        made.host.run("sh", "-c", f"echo {self.server.host.v4} {DOMAIN} >> /etc/hosts")
        self.server.tokens[name] = secrets.token_urlsafe(32)
        return made


@contextlib.contextmanager
def agents_bed() -> Generator[Bed]:
    """Run a bed without programs; skip the test where namespaces cannot be made."""
    if os.geteuid() != 0:
        absent("agents", "namespaces, tmpfs and nginx's workers need root", required=False)
    for path in (UPLOAD, REMOTE):
        if not path.exists():
            absent("agents", f"{path} is missing (Debian: systemd-journal-remote)")
    with tempfile.TemporaryDirectory(prefix="cd-") as place:
        try:
            world = World(Path(place)).__enter__()
        except NoWorldError as error:
            absent("agents", f"no namespaces: {error}")
        try:
            yield Bed(world, Server(world.host("server")))
        finally:
            world.__exit__()


def cut_power(agent: Agent) -> None:
    """Stop the filesystem of an agent at once: what was not synced is lost, as by a power cut."""
    flags = f"struct.pack('I', {_NO_FLUSH})"
    shut_down = f"fcntl.ioctl(os.open({str(agent.place / 'disk')!r}, os.O_RDONLY), {_SHUTDOWN}, {flags})"
    script = f"import fcntl, os, struct; {shut_down}"
    agent.host.run(sys.executable, "-c", script)


def unsent(agent: Agent, stored: Sequence[Sample]) -> list[int]:
    """Return the numbers of scrapes, up to the newest stored one, that are not stored."""
    found = {round(sample.value) for sample in stored}
    newest = max(found, default=0)
    return sorted(number for number in agent.scrapes() if number <= newest and number not in found)


def repeated(stored: Sequence[Sample]) -> list[int]:
    """Return the numbers of scrapes that are stored more than once."""
    times = Counter(round(sample.value) for sample in stored)
    return [number for number, count in times.items() if count > 1]


def twice(stored: Sequence[Sample] | Sequence[Line]) -> int:
    """Return how many of the samples or lines are stored again."""
    return len(stored) - len(set(stored))
