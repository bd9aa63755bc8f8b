"""Measure how long the alert rules take with 10,000 machines of three targets each.

    make bench-rules                      10,000 machines: Prometheus 2.42 and 3.5, VictoriaMetrics 1.131 with vmalert
    make bench-rules ARGS="1000"          another number
    make bench-rules ARGS="10000 3.5"     one of the programs: 2.42, 3.5 or vmalert
    make bench-rules ARGS="10000 DIR"     the rules in DIR

A real `refresh` writes clan-discovery's own metrics. The scrapers are real, and so are the rules. The machines are not:
a server on loopback answers with their `up` and with what the rules read of their exporters, and the scraper keeps the
labels (`honor_labels`). First all are up, and nothing but `Watchdog` may fire; then all are down at once, and their
series end. Each phase is measured once no alert is pending and their number is stable.

Then scrapes and rules are off, and the program evaluates `count()` of each expression for a time of the phase. The CPU
time of these queries does not depend on evaluations that a busy machine misses. It is without the annotations, which a
program expands for each alert at each evaluation: with `TargetDown` these take longer than all expressions. Rules that
read hours of samples have minutes of them here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import msgspec
from typing_extensions import override

from bench.refresh import PROGRAM, ROOT, Run, row, timed
from tests.support.programs import free_port, running, scraper_program

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from clan_discovery.model import Json

RULES: Final = ROOT / "clan_discovery/data/rules"
PROGRAMS: Final = ("2.42", "3.5", "vmalert")
SCRAPE_S: Final = 30
EVALUATE_S: Final = 30
SETTLE_S: Final = 1500
PAUSE_S: Final = 300
FETCH_S: Final = 300
TIMES: Final = 3
JOBS: Final = ("node", "systemd", "smartctl")
# Series that the rules read, by job; @TIME@ and @IDLE@ change. A real machine has a hundred units, which have too many
# series for a small machine: here it has three.
SERIES: Final = {
    "node": [
        *(f'node_cpu_seconds_total{{cpu="{n}",mode="idle"}} @IDLE@' for n in range(2)),
        "node_memory_MemTotal_bytes{} 8e9",
        "node_memory_MemAvailable_bytes{} 6e9",
        *(
            f'node_filesystem_{what}{{device="/dev/sd{n}",fstype="ext4",mountpoint="{mount}"}} {value}'
            for n, mount in enumerate(("/", "/srv"))
            for what, value in (
                ("size_bytes", "1e12"),
                ("avail_bytes", "6e11"),
                ("files", "1e7"),
                ("files_free", "9e6"),
                ("readonly", "0"),
            )
        ),
        "node_vmstat_oom_kill{} 0",
        "node_time_seconds{} @TIME@",
    ],
    "systemd": [
        *(
            f'systemd_unit_state{{name="{unit}",state="{state}",type="simple"}} {int(state == "active")}'
            for unit in ("sshd.service", "nginx.service", "backup.timer")
            for state in ("active", "failed")
        ),
        *(f'systemd_service_restart_total{{name="{unit}"}} 0' for unit in ("sshd.service", "nginx.service")),
        'systemd_timer_last_trigger_seconds{name="backup.timer"} @TIME@',
    ],
    "smartctl": [
        'smartctl_device_smart_status{device="sda"} 1',
        'smartctl_device_critical_warning{device="sda"} 0',
    ],
}


def make(size: int, place: Path) -> None:
    """Write an inventory of this size: a tenth has limits, a half needs one of ten databases, a twentieth roams."""
    machines: dict[str, Json] = {}
    members: dict[str, Json] = {}
    for number in range(size):
        name = f"machine-{number:05}"
        tags = [f"rack-{number % 100}"]
        if number % 10 == 0:
            tags.append("storage")
        if number % 20 == 1:
            tags.append("roaming")
        machines[name] = {"tags": tags, "description": f"machine {number} in rack {number % 100}"}
        if number % 2 == 0 and number >= 10:
            members[name] = {"settings": {"needs": [f"machine-{number % 10:05}"]}}
    settings: dict[str, Json] = {
        "all": {"settings": {"exporters": {job: {} for job in JOBS}, "units": ["sshd.service", "nginx.service"]}},
        "storage": {"settings": {"limits": {"disk_percent": 95, "memory_percent": 95}}},
    }
    role: Json = {"machines": members, "tags": settings}
    instance: Json = {"module": {"name": "prometheus"}, "roles": {"exporter": role}}
    (place / "inventory.json").write_text(json.dumps({"machines": machines, "instances": {"monitoring": instance}}))
    (place / "config.yaml").write_text(
        "inventory: {file: inventory.json}\noutput: {directory: targets}\nlimits: {default: {cpu_percent: 80}}\n"
    )


class Machines(ThreadingHTTPServer):
    """Answers with the metrics of clan-discovery, and with those of all machines."""

    daemon_threads = True

    def __init__(self, size: int, own: bytes, names: set[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.own = own
        self.up, self.down = ("".join(_lines(size, names, up=up)).encode() for up in (True, False))
        self.is_up = True

    def body(self) -> bytes:
        """Return the metrics of all machines now."""
        return _current(self.up) if self.is_up else self.down


def _current(body: bytes) -> bytes:
    """Return metrics with the values of this moment."""
    now = time.time()
    return body.replace(b"@TIME@", b"%.3f" % now).replace(b"@IDLE@", b"%.3f" % (0.5 * now))


def _lines(size: int, names: set[str], *, up: bool) -> Iterator[str]:
    """Yield the series of all machines, of the metrics that the rules name."""
    for number in range(size):
        machine = f"machine-{number:05}"
        for job in JOBS:
            labels = f'instance="{machine}",job="{job}",machine="{machine}"'
            yield f"up{{{labels}}} {int(up)}\n"
            yield f"scrape_samples_scraped{{{labels}}} {int(up) * len(SERIES[job])}\n"
            for one in SERIES[job]:
                if up and one.partition("{")[0] in names:
                    yield one.replace("{", f"{{{labels},", 1) + "\n"


class _Handler(BaseHTTPRequestHandler):
    @override
    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        if not isinstance(self.server, Machines):
            raise TypeError("not the server of this bench")
        body = _current(self.server.own) if self.path == "/own" else self.server.body()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)


@contextlib.contextmanager
def serving(machines: Machines) -> Generator[None]:
    """Serve the metrics."""
    thread = threading.Thread(target=machines.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        machines.shutdown()
        machines.server_close()


def scrape_config(port: int) -> dict[str, object]:
    """Return the scrape configs."""
    own = {"job_name": "clan-discovery", "metrics_path": "/own"}
    hosts = {"job_name": "machines", "honor_labels": True}
    static = [{"targets": [f"127.0.0.1:{port}"]}]
    timing = {"scrape_interval": f"{SCRAPE_S}s", "scrape_timeout": f"{SCRAPE_S}s"}
    return {"scrape_configs": [{**job, **timing, "static_configs": static} for job in (own, hosts)]}


@dataclass(frozen=True)
class Program:
    """What evaluates the rules, what answers queries, and their processes: that with the config first."""

    url: str
    store: str
    processes: Sequence[int]
    config: Path

    @contextlib.contextmanager
    def paused(self) -> Generator[None]:
        """Let it neither scrape nor evaluate rules."""
        text = self.config.read_text()
        others = self.processes[1:]
        for process in others:
            os.kill(process, signal.SIGSTOP)
        self._reload("{}")
        yield
        self._reload(text)
        for process in others:
            os.kill(process, signal.SIGCONT)

    def _reload(self, text: str) -> None:
        self.config.write_text(text)
        os.kill(self.processes[0], signal.SIGHUP)
        deadline = time.monotonic() + PAUSE_S
        while (len(targets_of(self.store)) > 0) != (text != "{}"):
            if time.monotonic() > deadline:
                raise SystemExit(f"the config is not reloaded after {PAUSE_S} s")
            time.sleep(1)


@contextlib.contextmanager
def prometheus(version: str, port: int, rules: Path, place: Path) -> Generator[Program]:
    """Run Prometheus with the rules."""
    config = {
        **scrape_config(port),
        "global": {"evaluation_interval": f"{EVALUATE_S}s"},
        "rule_files": [str(file) for file in sorted(rules.glob("*.yml"))],
    }
    file = place / f"{version}.json"
    file.write_text(json.dumps(config))
    address = f"127.0.0.1:{free_port()}"
    which = {"2.42": "debian", "3.5": "newer"}[version]
    command = [scraper_program("prometheus", which), f"--config.file={file}"]
    command += [f"--storage.tsdb.path={place}/{version}", f"--web.listen-address={address}"]
    with running(command, place / f"{version}.log") as process:
        yield Program(f"http://{address}", f"http://{address}", [process.pid], file)


@contextlib.contextmanager
def vmalert(port: int, rules: Path, place: Path) -> Generator[Program]:
    """Run VictoriaMetrics and vmalert with the rules."""
    file = place / "victoria.json"
    file.write_text(json.dumps(scrape_config(port)))
    store, own = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    database = [scraper_program("victoria-metrics", "newer"), f"-storageDataPath={place}/victoria"]
    database += [f"-httpListenAddr={store}", f"-promscrape.config={file}", "-search.disableCache"]
    database += ["-promscrape.maxScrapeSize=1GB", "-search.latencyOffset=0s", "-search.maxMemoryPerQuery=0"]
    alerts = [scraper_program("vmalert", "newer"), f"-rule={rules}/*.yml", f"-httpListenAddr={own}"]
    alerts += [f"-datasource.url=http://{store}", f"-remoteWrite.url=http://{store}", "-notifier.blackhole"]
    alerts += [f"-evaluationInterval={EVALUATE_S}s", "-rule.evalDelay=0s"]
    with running(database, place / "victoria.log") as first, running(alerts, place / "vmalert.log") as second:
        yield Program(f"http://{own}", f"http://{store}", [first.pid, second.pid], file)


class _Active(msgspec.Struct, rename="camel"):
    active_targets: list[msgspec.Raw]


class _Targets(msgspec.Struct):
    data: _Active


def targets_of(url: str) -> list[msgspec.Raw]:
    """Return what is scraped."""
    return msgspec.json.decode(fetch(f"{url}/api/v1/targets"), type=_Targets).data.active_targets


class Alert(msgspec.Struct):
    """An alert; vmalert also keeps inactive ones."""

    state: str


class Rule(msgspec.Struct, rename="camel"):
    """A rule, as Prometheus and vmalert report it."""

    name: str
    query: str
    last_error: str = ""
    alerts: list[Alert] | None = None


class Group(msgspec.Struct):
    """A group of rules."""

    name: str
    rules: list[Rule]


class Groups(msgspec.Struct):
    """The groups of an answer."""

    groups: list[Group]


class Loaded(msgspec.Struct):
    """An answer of `/api/v1/rules`."""

    data: Groups


def fetch(url: str) -> bytes:
    """Get a page; with all machines down, or on a busy machine, it takes long."""
    with urllib.request.urlopen(url, timeout=FETCH_S) as answer:  # noqa: S310 - a server of the bench's own
        body: bytes = answer.read()
        return body


def groups_of(url: str) -> list[Group]:
    """Return the groups of rules as the program reports them; none while it does not answer."""
    try:
        body = fetch(f"{url}/api/v1/rules")
    except OSError:
        return []
    groups = msgspec.json.decode(body, type=Loaded).data.groups
    for rule in (rule for group in groups for rule in group.rules):
        if rule.last_error:
            raise SystemExit(f"{rule.name}: {rule.last_error}")
    return groups


def alerts_of(groups: Sequence[Group]) -> Counter[tuple[str, str]]:
    """Return how many alerts of each name and state there are."""
    return Counter(
        (rule.name, alert.state)
        for group in groups
        for rule in group.rules
        for alert in rule.alerts or ()
        if alert.state != "inactive"
    )


def settled(url: str, *, up: bool) -> list[Group]:
    """Wait until no alert is pending and the same alerts fire for two evaluations; return the groups."""
    deadline = time.monotonic() + SETTLE_S
    before: Counter[tuple[str, str]] = Counter()
    # The last scrape of the phase before is at most this old, and so is the last evaluation.
    time.sleep(2 * SCRAPE_S + EVALUATE_S)
    while time.monotonic() < deadline:
        groups = groups_of(url)
        alerts = alerts_of(groups)
        only_watchdog = set(alerts) == {("Watchdog", "firing")}
        if alerts == before and {state for _, state in alerts} == {"firing"} and only_watchdog == up:
            return groups
        before = alerts
        time.sleep(2 * EVALUATE_S)
    raise SystemExit(f"the alerts are not settled after {SETTLE_S} s: {dict(before)}")


def memory(processes: Sequence[int]) -> float:
    """Return the resident memory of processes in MiB."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in processes)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu(processes: Sequence[int]) -> float:
    """Return the seconds of CPU that processes have used; other load does not change it."""
    ticks = 0
    for pid in processes:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def spent(url: str, processes: Sequence[int], expression: str, at: float) -> float:
    """Return the seconds of CPU of one evaluation of an expression."""
    query = urlencode({"query": f"count({expression})", "time": f"{at:.3f}"})
    before = cpu(processes)
    for _ in range(TIMES):
        fetch(f"{url}/api/v1/query?{query}")
    return (cpu(processes) - before) / TIMES


def measure(name: str, machines: Machines, rules: Path, place: Path) -> None:
    """Measure one program."""
    port = machines.server_address[1]
    machines.is_up = True
    started = vmalert(port, rules, place) if name == "vmalert" else prometheus(name, port, rules, place)
    with started as program:
        for title in ("all machines up", "all machines down"):
            machines.is_up = title.endswith("up")
            groups = settled(program.url, up=machines.is_up)
            at = time.time()
            print(f"{name}, {title}, memory {memory(program.processes):.0f} MiB, load {os.getloadavg()[0]:.1f}")
            print(f"    {sum(alerts_of(groups).values())} alerts: {', '.join({rule for rule, _ in alerts_of(groups)})}")
            with program.paused():
                for group in groups:
                    costs = {rule.name: spent(program.store, program.processes, rule.query, at) for rule in group.rules}
                    print(f"    {group.name:<24} {sum(costs.values()):7.3f} s of CPU", flush=True)
                    for rule, cost in sorted(costs.items(), key=lambda pair: -pair[1]):
                        if cost >= 0.05:
                            print(f"      {rule:<22} {cost:7.3f}")


def refreshed(place: Path) -> bytes:
    """Run `refresh`, with and without metrics, and return the metrics."""
    base = [str(PROGRAM), "refresh", "--quiet", "--config", str(place / "config.yaml")]
    file = place / "metrics.prom"
    runs: dict[str, list[Run]] = {"refresh": [], "refresh with metrics": []}
    for turn in range(4):
        done = timed(base), timed([*base, "--metrics-file", str(file)])
        if turn:
            for kept, run in zip(runs.values(), done, strict=True):
                kept.append(run)
    for title, kept in runs.items():
        print(row(title, kept))
    text = file.read_bytes()
    for pattern in (b"expected", b"machine_info|limit|unit|needs"):
        lines = re.findall(rb"(?m)^clan_discovery_(?:%s)\{.*\n" % pattern, text)
        print(f"  clan_discovery_({pattern.decode()}): {len(lines)} series, {sum(map(len, lines)) / 1e6:.1f} MB")
    return re.sub(rb"(?m)^(clan_discovery_last_round_timestamp_seconds) .*$", rb"\1 @TIME@", text)


def main(arguments: Sequence[str]) -> None:
    """Measure with this many machines, in these programs."""
    size = int(next((argument for argument in arguments if argument.isdecimal()), "10000"))
    names = [argument for argument in arguments if argument in PROGRAMS] or list(PROGRAMS)
    rules = next((Path(argument).resolve() for argument in arguments if Path(argument).is_dir()), RULES)
    read = set(re.findall(r"\w+", "".join(file.read_text() for file in rules.glob("*.yml"))))
    print(f"{size} machines with {len(JOBS)} targets each")
    with tempfile.TemporaryDirectory(prefix="rules-") as made:
        place = Path(made)
        make(size, place)
        machines = Machines(size, refreshed(place), read)
        print(f"  metrics of the machines: {machines.up.count(10)} series, {len(machines.up) / 1e6:.0f} MB")
        with serving(machines):
            for name in names:
                measure(name, machines, rules, place)


if __name__ == "__main__":
    main(sys.argv[1:])
