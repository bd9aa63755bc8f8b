"""Compare the DNS backend with Prometheus's dns_sd: same names, same Knot, one run.

    python -m bench.dns [NAMES] [ROUNDS]
    python -m bench.dns --large [NAMES]    100,000 names, ours alone: time, questions, memory, and the load over the TTL

Prometheus reads only /etc/resolv.conf, so both run in a network and a mount namespace where that file names a Knot on a
loopback address. Prometheus's CPU time for a refresh is its CPU time while it refreshes, minus its idle CPU time. Ours
is a cycle of `run` (ask, resolve, render, publish), and `refresh` as a whole process. The kernel counts datagrams.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from bench.refresh import PROGRAM, ROOT, timed
from clan_discovery.assemble import make_plan
from clan_discovery.config.load import load_config
from clan_discovery.dnsclient.pace import DEFAULT_RATE
from clan_discovery.publish.state import State
from clan_discovery.round import publish_round, run_round
from tests.support.fleet import inventory

SERVER: Final = "127.0.0.53"
ZONE: Final = "bench.example"
TTL_S: Final = 300
POLL_S: Final = 30.0
WAIT_S: Final = 60.0
SETUP: Final = """
set -eu
ip link set lo up
printf 'nameserver {server}\\n' > {place}/resolv.conf
mount --bind {place}/resolv.conf /etc/resolv.conf
exec {python} -m bench.dns {names} {rounds} --inside {place}
"""


def names(count: int) -> list[str]:
    """Return the names that both resolve."""
    return [f"m{i:05d}.{ZONE}" for i in range(1, count + 1)]


def write_world(place: Path, count: int) -> None:
    """Write the zone and the configs of all programs."""
    head = f"$ORIGIN {ZONE}.\n$TTL {TTL_S}\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 10.0.0.1\n"
    hosts = "".join(f"m{i:05d} A 10.{i >> 16}.{i >> 8 & 255}.{i & 255}\n" for i in range(1, count + 1))
    (place / "bench.zone").write_text(head + hosts)
    (place / "db").mkdir()
    (place / "knot.conf").write_text(
        f"server:\n  listen: {SERVER}@53\n  rundir: {place}\n  udp-workers: 1\n  background-workers: 1\n"
        f"database:\n  storage: {place}/db\nzone:\n- domain: {ZONE}\n  file: {place}/bench.zone\n"
    )
    lan = {"names": names(count), "type": "A", "job": "node", "timeout": "2m"}
    for name, more in (("config", {}), ("due", {"min_ttl": "1s", "max_ttl": "1s"})):
        config = {"backends": {"dns": {"lan": lan | more}}, "output": {"directory": "targets", "owner": "bench"}}
        (place / f"{name}.yaml").write_text(json.dumps(config))


def prometheus_config(place: Path, count: int, interval: str) -> Path:
    """Write a config of Prometheus that resolves every name at this interval and almost never scrapes."""
    sd = {"names": [f"{name}." for name in names(count)], "type": "A", "port": 9100, "refresh_interval": interval}
    config = {"global": {"scrape_interval": "1d"}, "scrape_configs": [{"job_name": "node", "dns_sd_configs": [sd]}]}
    file = place / f"prometheus-{interval}.yml"
    file.write_text(json.dumps(config))
    return file


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process, as the kernel counts them."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def datagrams() -> int:
    """Return the number of datagrams sent in this namespace, including answers."""
    lines = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Udp:")]
    return int(dict(zip(lines[0], lines[1], strict=True))["OutDatagrams"])


def metric(port: int, name: str) -> float:
    """Return a metric of Prometheus."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def sample(pid: int, port: int) -> tuple[float, float, int]:
    """Return CPU seconds, names asked and datagrams of a Prometheus, between two refreshes."""
    end = time.monotonic() + WAIT_S
    before = -1.0
    while time.monotonic() < end:
        asked, sent = metric(port, "prometheus_sd_dns_lookups_total"), datagrams()
        if asked == before:
            return cpu_of(pid), asked, sent
        before = asked
        time.sleep(0.3)
    raise RuntimeError("Prometheus never rests")


def prometheus(place: Path, count: int, interval: str, seconds: float) -> tuple[float, float, float]:
    """Run Prometheus this long after its first refresh; return CPU seconds, names asked and datagrams."""
    port = 19090
    command = ["prometheus", f"--config.file={prometheus_config(place, count, interval)}"]
    command += [f"--storage.tsdb.path={place}/tsdb-{interval}", f"--web.listen-address=127.0.0.1:{port}"]
    with (place / "prometheus.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            time.sleep(0.5)
            try:
                if metric(port, "prometheus_sd_discovered_targets") >= count:
                    break
            except OSError:
                continue
        time.sleep(8)  # until it has created a scrape loop for each target
        before = sample(process.pid, port)
        time.sleep(seconds)
        after = sample(process.pid, port)
    finally:
        process.terminate()
        process.wait(20)
    return after[0] - before[0], after[1] - before[1], (after[2] - before[2]) / 2


class Ours:
    """Cycles of `run` at any given time."""

    def __init__(self, place: Path) -> None:
        self.plan = make_plan(load_config(place / "config.yaml"))
        self.plan.directory.mkdir(exist_ok=True)

    def round(self, now: datetime) -> float:
        """Do a cycle, and return when the next one is due."""
        state = State(self.plan.state_directory)
        done = run_round(self.plan, state, now)
        publish_round(self.plan, done)
        if done.degraded or done.due is None:
            raise RuntimeError(done.degraded[0].why if done.degraded else "nothing is due")
        return done.due

    def rounds(self, count: int) -> tuple[list[float], list[float]]:
        """Do cycles in which every name is due; return CPU and wall seconds of each but the first."""
        now = datetime.now(UTC)
        cpu: list[float] = []
        wall: list[float] = []
        for number in range(count + 1):
            start = time.process_time(), time.perf_counter()
            self.round(now + timedelta(seconds=(TTL_S + 1) * number))
            cpu.append(time.process_time() - start[0])
            wall.append(time.perf_counter() - start[1])
        return cpu[1:], wall[1:]

    def hour(self) -> float:
        """Do an hour of cycles with an empty cache; return the number of questions sent."""
        shutil.rmtree(self.plan.state_directory, ignore_errors=True)
        now = datetime.now(UTC)
        end = now + timedelta(hours=1)
        before = datagrams()
        while now < end:
            now = datetime.fromtimestamp(self.round(now), UTC) + timedelta(seconds=0.2)
        return (datagrams() - before) / 2


def whole(config: Path, count: int) -> tuple[list[float], list[float]]:
    """Run `refresh` as a process; return CPU and wall seconds of each run but the first."""
    cpu: list[float] = []
    wall: list[float] = []
    for _ in range(count + 1):
        time.sleep(1.1)  # answers that are valid for a second have expired
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        subprocess.run([PROGRAM, "refresh", "-q", "-c", str(config)], check=True)
        wall.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return cpu[1:], wall[1:]


def inside(place: Path, count: int, rounds: int) -> None:
    """Measure within the namespaces, and print; without rounds, ours alone."""
    write_world(place, count)
    with (place / "knot.log").open("wb") as log:
        knot = subprocess.Popen(["knotd", "-c", str(place / "knot.conf")], stdout=log, stderr=log)
    try:
        time.sleep(2)
        if rounds:
            measure(place, count, rounds)
        else:
            large(place, count)
    finally:
        knot.terminate()
        knot.wait(10)


def large(place: Path, count: int) -> None:
    """Measure a first `refresh` of as many machines as a process, and then the cycles of `run` in two TTLs."""
    lan = {"domain": ZONE, "type": "A", "timeout": "2m", "servers": [SERVER]}
    config = {"inventory": {"file": "inventory.json"}, "backends": {"dns": {"lan": lan}}}
    (place / "inventory.json").write_text(json.dumps(inventory([name.partition(".")[0] for name in names(count)])))
    (place / "config.yaml").write_text(json.dumps(config | {"output": {"directory": "targets"}}))
    ours = Ours(place)
    before = datagrams()
    first = timed([str(PROGRAM), "refresh", "-q", "-c", str(place / "config.yaml")])
    asked = (datagrams() - before) / 2
    state = sum(file.stat().st_size for file in ours.plan.state_directory.rglob("*") if file.is_file())
    print(f"{count:,} A names, TTL {TTL_S} s, one knot, at most {DEFAULT_RATE:,} questions a second")
    print(f"  first refresh: {first.wall:.1f} s, CPU {first.cpu:.1f} s, {first.memory:.0f} MiB, {asked:,.0f} questions")
    print(f"  state: {state / 1e6:.1f} MB")
    now = start = datetime.now(UTC)
    questions: list[float] = []
    cpu: list[float] = []
    while now < start + timedelta(seconds=2 * TTL_S):
        before, begin = datagrams(), time.process_time()
        now = datetime.fromtimestamp(ours.round(now), UTC) + timedelta(seconds=0.2)
        questions.append((datagrams() - before) / 2)
        cpu.append(time.process_time() - begin)
    busy = sorted(questions[1:])
    print(
        f"  `run` in two TTLs: {len(busy)} cycles, {statistics.median(busy):,.0f} questions (most {busy[-1]:,.0f}),"
        f" CPU of a cycle {statistics.median(cpu[1:]):.2f} s; peak {peak():.0f} MiB"
    )


def peak() -> float:
    """Return the peak memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(place: Path, count: int, rounds: int) -> None:
    """Measure ours, Prometheus's, and ours again."""
    ours = Ours(place)
    first = ours.rounds(rounds)
    idle, _, _ = prometheus(place, count, "1d", 30.0)
    busy, asked, sent = prometheus(place, count, "5s", 30.0)
    second = ours.rounds(rounds)
    cpu, wall = (statistics.median(a + b) for a, b in zip(first, second, strict=True))
    process_cpu, process_wall = (statistics.median(found) for found in whole(place / "due.yaml", rounds))
    held_cpu, _ = (statistics.median(found) for found in whole(place / "config.yaml", rounds))
    theirs = (busy - idle) / (asked / count)
    polled = sent / (asked / count) * 3600 / POLL_S
    own = ours.hour()
    print(f"{count} A names, one knot; {asked / count:.1f} refreshes of dns_sd, {2 * rounds} rounds of ours")
    print(f"  dns_sd        CPU {theirs:.3f} s a refresh ({busy:.2f} s in 30 s, less {idle:.2f} s without refreshes)")
    print(f"  a round       CPU {cpu:.3f} s, wall {wall:.3f} s: {cpu / theirs:.2f} times dns_sd's CPU")
    print(f"  whole refresh CPU {process_cpu:.3f} s, wall {process_wall:.3f} s: {process_cpu / theirs:.2f} times")
    print(f"  none due      CPU {held_cpu:.3f} s: {held_cpu / theirs:.2f} times")
    times = f"{polled / own:.1f} times as many"
    print(f"  an hour, TTL {TTL_S} s: {own:.0f} questions; polled every {POLL_S:.0f} s: {polled:.0f}, {times}")


def main() -> int:
    """Create the namespaces, and measure in them."""
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    if "--inside" in sys.argv:
        count, rounds, place = int(words[0]), int(words[1]), Path(words[2])
        inside(place, count, rounds)
        return 0
    is_large = "--large" in sys.argv
    tools = ("knotd", "unshare", "ip", "mount") if is_large else ("knotd", "prometheus", "unshare", "ip", "mount")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        print(f"DNS: skipped, for there is no {', '.join(missing)}")
        return 0
    default = ["100000", "0"] if is_large else ["5000", "7"]
    names_, turns = (words + default[len(words) :])[:2]
    with tempfile.TemporaryDirectory() as made:
        script = SETUP.format(server=SERVER, place=made, python=sys.executable, names=names_, rounds=turns)
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        done = subprocess.run(["unshare", *user, "--net", "--mount", "sh", "-c", script], cwd=ROOT, check=False)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
