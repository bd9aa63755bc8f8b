"""Measure how long the alert rules take with 10,000 machines of three targets each.

    make bench-rules                      10,000 machines: Prometheus 2.42 and 3.5, VictoriaMetrics 1.131 with vmalert
    make bench-rules ARGS="1000"          another number
    make bench-rules ARGS="10000 3.5"     one of the programs: 2.42, 3.5 or vmalert
    make bench-rules ARGS="10000 DIR"     the rules in DIR

A real `refresh` writes clan-discovery's own metrics. The scrapers are real, and so are the rules. The machines are not:
a server on loopback answers with their `up` and with what the rules read of their exporters, and the scraper keeps the
labels (`honor_labels`). First all are up; then all are down at once, and their series end. The times are the least, the
median and the greatest of the evaluations within `PHASE_S` seconds, as the program itself reports them: the least is
that without other load. Rules that read hours of samples have minutes of them here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from typing_extensions import override

from bench.refresh import PROGRAM, ROOT, Run, row, timed
from tests.support.programs import free_port, get, running, scraper_program

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from clan_discovery.model import Json

RULES: Final = ROOT / "clan_discovery/data/rules"
PROGRAMS: Final = ("2.42", "3.5", "vmalert")
SCRAPE_S: Final = 30
EVALUATE_S: Final = 20
PHASE_S: Final = 60
WARM_UP_S: Final = 60
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
        if not self.is_up:
            return self.down
        now = time.time()
        return self.up.replace(b"@TIME@", b"%.3f" % now).replace(b"@IDLE@", b"%.3f" % (0.5 * now))


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
        body = self.server.own if self.path == "/own" else self.server.body()
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


@contextlib.contextmanager
def prometheus(version: str, port: int, rules: Path, place: Path) -> Generator[tuple[str, list[int]]]:
    """Run Prometheus with the rules; yield its URL and its process ID."""
    config = {
        **scrape_config(port),
        "global": {"evaluation_interval": f"{EVALUATE_S}s"},
        "rule_files": [str(file) for file in sorted(rules.glob("*.yml"))],
    }
    (place / "prometheus.json").write_text(json.dumps(config))
    address = f"127.0.0.1:{free_port()}"
    which = {"2.42": "debian", "3.5": "newer"}[version]
    command = [scraper_program("prometheus", which), f"--config.file={place}/prometheus.json"]
    command += [f"--storage.tsdb.path={place}/{version}", f"--web.listen-address={address}"]
    with running(command, place / f"{version}.log") as process:
        yield f"http://{address}", [process.pid]


@contextlib.contextmanager
def vmalert(port: int, rules: Path, place: Path) -> Generator[tuple[str, list[int]]]:
    """Run VictoriaMetrics and vmalert with the rules; yield vmalert's URL and both process IDs."""
    (place / "victoria.json").write_text(json.dumps(scrape_config(port)))
    store, own = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    database = [scraper_program("victoria-metrics", "newer"), f"-storageDataPath={place}/victoria"]
    database += [f"-httpListenAddr={store}", f"-promscrape.config={place}/victoria.json"]
    database += ["-promscrape.maxScrapeSize=1GB", "-search.latencyOffset=0s", "-search.maxMemoryPerQuery=0"]
    alerts = [scraper_program("vmalert", "newer"), f"-rule={rules}/*.yml", f"-httpListenAddr={own}"]
    alerts += [f"-datasource.url=http://{store}", f"-remoteWrite.url=http://{store}", "-notifier.blackhole"]
    alerts += [f"-evaluationInterval={EVALUATE_S}s", "-rule.evalDelay=0s"]
    with running(database, place / "victoria.log") as first, running(alerts, place / "vmalert.log") as second:
        yield f"http://{own}", [first.pid, second.pid]


class Rule(msgspec.Struct, rename="camel"):
    """A rule, as Prometheus and vmalert report it."""

    name: str
    evaluation_time: float
    last_evaluation: str
    last_error: str = ""
    alerts: list[msgspec.Raw] | None = None


class Rules(msgspec.Struct):
    """A group of rules."""

    name: str
    rules: list[Rule]


class Groups(msgspec.Struct):
    """The groups of an answer."""

    groups: list[Rules]


class Loaded(msgspec.Struct):
    """An answer of `/api/v1/rules`."""

    data: Groups


def groups_of(url: str) -> list[Rules]:
    """Return the groups of rules as the program reports them; none while it does not answer."""
    try:
        body = get(f"{url}/api/v1/rules")
    except OSError:
        return []
    groups = msgspec.json.decode(body, type=Loaded).data.groups
    for rule in (rule for group in groups for rule in group.rules):
        if rule.last_error:
            raise SystemExit(f"{rule.name}: {rule.last_error}")
    return groups


def watch(url: str) -> tuple[dict[str, list[float]], int]:
    """Return the seconds of each evaluation within a phase, and how many alerts there are at its end."""
    found: dict[str, list[float]] = {}
    seen: set[tuple[str, str]] = set()
    alerts = 0
    deadline = time.monotonic() + PHASE_S
    while time.monotonic() < deadline:
        time.sleep(3)
        groups = groups_of(url)
        alerts = sum(len(rule.alerts or ()) for group in groups for rule in group.rules)
        for group in groups:
            key = group.name, max((rule.last_evaluation for rule in group.rules), default="")
            if key not in seen:
                seen.add(key)
                found.setdefault(f"{group.name} (all)", []).append(sum(rule.evaluation_time for rule in group.rules))
                for rule in group.rules:
                    found.setdefault(rule.name, []).append(rule.evaluation_time)
    return found, alerts


def report(title: str, found: dict[str, list[float]], alerts: int) -> None:
    """Print the groups, and the rules that take longest."""
    print(f"  {title}: {alerts} alerts")
    ordered = sorted(found.items(), key=lambda pair: -statistics.median(pair[1]))
    for name, seconds in ordered:
        if name.endswith("(all)") or statistics.median(seconds) >= 0.05:
            best, middle, worst = min(seconds), statistics.median(seconds), max(seconds)
            print(f"    {name:<24} {best:7.3f} {middle:7.3f} {worst:7.3f} s ({len(seconds)} evaluations)")


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


def measure(name: str, machines: Machines, rules: Path, place: Path) -> None:
    """Measure one program."""
    port = machines.server_address[1]
    started = vmalert(port, rules, place) if name == "vmalert" else prometheus(name, port, rules, place)
    machines.is_up = True
    with started as (url, processes):
        print(f"{name} (load {os.getloadavg()[0]:.1f})", flush=True)
        time.sleep(WARM_UP_S)
        for title in ("all machines up", "all machines down"):
            machines.is_up = title.endswith("up")
            before = cpu(processes)
            report(title, *watch(url))
            each = (cpu(processes) - before) * EVALUATE_S / PHASE_S
            print(
                f"    CPU: {each:.2f} s in {EVALUATE_S} s, for one evaluation of all groups and the scrapes", flush=True
            )
        print(f"  memory: {memory(processes):.0f} MiB", flush=True)


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
    return text


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
