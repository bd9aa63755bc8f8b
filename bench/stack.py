"""Measure the stack of examples/stack on this machine: the memory of each part, and how soon a mail arrives.

    make bench-stack

Its machines are network namespaces. Every part runs with real ports and the intervals of Prometheus and NixOS: scrapes
and rules every 15 s and every minute. Not measured: Grafana, which cannot be had, and exporters that need a daemon of
their machine (systemd, PostgreSQL, smartctl). Memory is the resident set after some idle minutes; node exporter counts
once for each machine. Then exporters end, one after another: the time is that from the end of the alert's `for`, when
Prometheus or vmalert sends it, to the mail in a real mail server.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.stack.agents import ask
from tests.support.alerting import alerting_tool, alertmanager_config, write_config
from tests.support.builds import agent_program, newer_scraper
from tests.support.programs import eventually, program, scraper_program
from tests.support.rules import FILES
from tests.tailnet.world import World

if TYPE_CHECKING:
    from clan_discovery.model import Json
    from tests.tailnet.world import Host, Process

IDLE_S: Final = 240.0
LONG_S: Final = 900.0
MEMORY_GOAL_MIB: Final = 600
MAIL_GOAL_S: Final = 15
OURS: Final = Path(sys.executable).with_name("clan-discovery")
EXAMPLE: Final = Path(__file__).resolve().parent.parent / "examples/stack"
SCRAPED: Final = ("monitor", "backup", "db", "nas", "web01", "web02")
AGENT: Final = "dino"
DYING: Final = ("nas", "web01", "backup")
"""Fewer than half of the machines, and none that another one needs."""
NGINX: Final = (
    "daemon off; events {} pid nginx.pid; http { access_log off; client_body_temp_path b; proxy_temp_path p; "
)


class Bed:
    """The machines of the example, and the parts that run on them."""

    def __init__(self, world: World) -> None:
        self.hosts = {name: world.host(name) for name in (*SCRAPED, AGENT)}
        self.parts: dict[str, list[Process]] = {}

    @property
    def monitor(self) -> Host:
        """The machine with most components."""
        return self.hosts["monitor"]

    def start(self, machine: str, name: str, *words: str | Path, url: str = "") -> Process:
        """Start a part on a machine, and wait until it answers."""
        host = self.hosts[machine]
        state = {"STATE_DIRECTORY": f"{host.place}/state", "HOME": str(host.place)}
        process = host.start(*words, log=name.partition(" ")[0], environment=state)
        self.parts.setdefault(name, []).append(process)

        def ready() -> bool:
            if not process.alive:
                raise SystemExit(f"{name} ended: {process.said()[-2000:]}")
            ask(host, url)
            return True

        if url:
            eventually(f"{name} answers", ready, LONG_S)
        return process

    def memory(self) -> dict[str, float]:
        """Return the resident set of each part in MiB, with all its processes."""
        return {name: sum(_resident(process.pid) for process in found) for name, found in self.parts.items()}


def _resident(pid: int) -> float:
    """Return the resident set of a process and its children in MiB."""
    match = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(match[1]) / 1024 if match else 0.0) + sum(_resident(int(child)) for child in children)


def write_discovery(bed: Bed) -> None:
    """Write the inventory of the example, with node exporters only, and a config with the addresses of the bed."""
    inventory = json.loads((EXAMPLE / "inventory.json").read_text())
    roles = inventory["instances"]["monitoring"]["roles"]
    roles["server"] = {"machines": {"monitor": {}, "backup": {}}, "settings": {"scrapeServers": False}}
    roles["exporter"] = {"tags": {"all": {}}, "settings": {"exporters": {"node": {}}}}
    for role in ("alerting", "dashboards", "front", "logs"):
        del roles[role]
    config: Json = {
        "inventory": {"file": "inventory.json"},
        "backends": {"static": {"home": {"machines": {name: bed.hosts[name].v4 for name in SCRAPED}}}},
        "needs": {"web01": ["db"], "web02": ["db"]},
        "output": {"directory": "targets"},
        "web": {"listen": "127.0.0.1:9942"},
        "verify": {"scrapers": {"store": {"url": "http://127.0.0.1:8428"}}},
    }
    for machine in ("monitor", "backup"):
        place = bed.hosts[machine].place
        (place / "inventory.json").write_text(json.dumps(inventory))
        (place / "config.json").write_text(json.dumps(config))
        words = ("refresh", "-c", place / "config.json")
        bed.hosts[machine].run("env", f"STATE_DIRECTORY={place}/state", OURS, *words, seconds=LONG_S)


def write_scraping(place: Path, **more: Json) -> Path:
    """Write the config of a server."""
    own: Json = {"targets": ["127.0.0.1:9942"], "labels": {"instance": place.name, "machine": place.name}}
    jobs: Json = [
        {"job_name": "node", "file_sd_configs": [{"files": [f"{place}/targets/node.json"]}]},
        {"job_name": "clan-discovery", "static_configs": [own]},
    ]
    file = place / "scrape.yml"
    file.write_text(json.dumps({"global": {"scrape_interval": "15s"}, "scrape_configs": jobs, **more}))
    return file


def write_rules(place: Path) -> None:
    """Write the shipped rules; TargetDown waits for a minute, so that the measurement ends today."""
    place.mkdir()
    for file in FILES:
        found = re.sub(r"(- alert: TargetDown\n.*?\n +for: )5m", r"\g<1>1m", file.read_text(), flags=re.DOTALL)
        (place / file.name).write_text(found)


def start(bed: Bed) -> None:
    """Start all parts."""
    for name in (*SCRAPED, AGENT):
        bed.start(name, "node exporter", program("prometheus-node-exporter"), url="http://127.0.0.1:9100/metrics")
    write_discovery(bed)
    start_monitor(bed)
    start_backup(bed)
    start_agent(bed)


def start_monitor(bed: Bed) -> None:
    """Start what runs on `monitor`."""
    place = bed.monitor.place
    store, manager = "http://127.0.0.1:8428", "http://127.0.0.1:9093"
    bed.monitor.start(OURS.with_name("aiosmtpd"), "-n", "-l", "127.0.0.1:25", *_mailbox(place), log="mail")
    ours = ["run", "-c", f"{place}/config.json", "--verify-interval", "5m"]
    bed.start("monitor", "clan-discovery run, status page", OURS, *ours, url="http://127.0.0.1:9942/healthz")
    words = ["-httpListenAddr=127.0.0.1:8428", f"-storageDataPath={place}/vm"]
    words += [f"-promscrape.config={write_scraping(place)}", "-promscrape.fileSDCheckInterval=5s"]
    bed.start("monitor", "VictoriaMetrics", newer_scraper("victoria-metrics"), *words, url=f"{store}/health")
    file = write_config(place, alertmanager_config("127.0.0.1:25"))
    words = [f"--config.file={file}", f"--storage.path={place}/am", "--web.listen-address=:9093"]
    alertmanager = alerting_tool("alertmanager", "debian")
    bed.start("monitor", "Alertmanager", alertmanager, *words, "--cluster.listen-address=", url=f"{manager}/-/ready")
    write_rules(place / "rules")
    words = [f"-rule={place}/rules/*.yml", f"-datasource.url={store}", f"-remoteWrite.url={store}"]
    words += [f"-notifier.url={manager}", f"-remoteRead.url={store}", "-httpListenAddr=127.0.0.1:8880"]
    bed.start("monitor", "vmalert", newer_scraper("vmalert"), *words, url="http://127.0.0.1:8880/health")
    words = ["-httpListenAddr=127.0.0.1:9428", f"-storageDataPath={place}/logs"]
    bed.start("monitor", "VictoriaLogs", agent_program("victoria-logs"), *words, url="http://127.0.0.1:9428/health")
    servers = "server { listen 8443; location /api/v1/write { proxy_pass http://127.0.0.1:8428; } "
    servers += "location / { proxy_pass http://127.0.0.1:9428; } } }"
    (place / "nginx.conf").write_text(f"user root; {NGINX}{servers}")
    bed.start("monitor", "nginx", program("nginx"), "-p", place, "-c", "nginx.conf")


def _mailbox(place: Path) -> tuple[str | Path, ...]:
    return "-c", "aiosmtpd.handlers.Mailbox", place / "mails"


def start_backup(bed: Bed) -> None:
    """Start the second server."""
    place = bed.hosts["backup"].place
    words: list[str | Path] = ["run", "-c", place / "config.json"]
    bed.start("backup", "clan-discovery run, status page", OURS, *words, url="http://127.0.0.1:9942/healthz")
    write_rules(place / "rules")
    manager: Json = {"alertmanagers": [{"static_configs": [{"targets": [f"{bed.monitor.v4}:9093"]}]}]}
    file = write_scraping(place, rule_files=["rules/*.yml"], alerting=manager)
    words = [f"--config.file={file}", f"--storage.tsdb.path={place}/tsdb"]
    prometheus = scraper_program("prometheus", "newer")
    bed.start("backup", "Prometheus", prometheus, *words, url="http://127.0.0.1:9090/-/ready")


def start_agent(bed: Bed) -> None:
    """Start what runs on the laptop."""
    place, push = bed.hosts[AGENT].place, f"http://{bed.monitor.v4}:8443"
    bed.hosts["monitor"].run(
        OURS, "render", "-c", bed.monitor.place / "config.json", "--agent", AGENT, "--output", place
    )
    jobs: Json = [
        {"job_name": name, "file_sd_configs": [{"files": [f"{place}/{name}.json"]}]}
        for name in ("node", "vmagent", "vlagent")
    ]
    (place / "scrape.yml").write_text(json.dumps({"global": {"scrape_interval": "15s"}, "scrape_configs": jobs}))
    words = [f"-promscrape.config={place}/scrape.yml", f"-remoteWrite.url={push}/api/v1/write"]
    words += [f"-remoteWrite.tmpDataPath={place}/metrics", "-httpListenAddr=127.0.0.1:8429"]
    bed.start(AGENT, "vmagent", newer_scraper("vmagent"), *words, url="http://127.0.0.1:8429/health")
    words = [f"-remoteWrite.url={push}/insert/jsonline", f"-remoteWrite.tmpDataPath={place}/logs"]
    words += ["-remoteWrite.format=jsonline", f"-tmpDataPath={place}/data", "-httpListenAddr=127.0.0.1:9429"]
    bed.start(AGENT, "vlagent", agent_program("vlagent"), *words, url="http://127.0.0.1:9429/health")


def mail_times(bed: Bed) -> list[float]:
    """End exporters, 20 s after each other; return the seconds from each alert's start to its mail."""
    place = bed.monitor.place / "mails/new"
    found: dict[str, float] = {}

    def arrived() -> bool:
        for file in place.glob("*"):
            subject = re.search(r"^Subject: .* (\w+): TargetDown$", file.read_text(), re.MULTILINE)
            if subject is not None:
                found.setdefault(subject[1], file.stat().st_mtime)
        return found.keys() >= set(DYING)

    for machine in DYING:
        bed.parts["node exporter"][(*SCRAPED, AGENT).index(machine)].end()
        time.sleep(20)
    eventually("all mails arrived", arrived, LONG_S)
    alerts = json.loads(ask(bed.monitor, "http://127.0.0.1:9093/api/v2/alerts"))
    starts = {
        one["labels"]["machine"]: datetime.fromisoformat(one["startsAt"]).timestamp()
        for one in alerts
        if one["labels"]["alertname"] == "TargetDown"
    }
    return [found[machine] - starts[machine] for machine in DYING]


def main() -> None:
    """Print the two tables."""
    with tempfile.TemporaryDirectory(prefix="cd-") as place, World(Path(place)) as world:
        bed = Bed(world)
        start(bed)
        time.sleep(IDLE_S)
        memory = bed.memory()
        for name, size in sorted(memory.items(), key=lambda pair: -pair[1]):
            count = len(bed.parts[name])
            print(f"{name:<32} {f'{count} x' if count > 1 else '':>4} {size:7.1f} MiB")
        print(f"{'sum':<37} {sum(memory.values()):7.1f} MiB (to reach: {MEMORY_GOAL_MIB})")
        times = mail_times(bed)
        shown = ", ".join(f"{seconds:.1f}" for seconds in times)
        print(f"from `for` to the mail: {shown} s; median {statistics.median(times):.1f} s (to reach: {MAIL_GOAL_S})")


if __name__ == "__main__":
    main()
