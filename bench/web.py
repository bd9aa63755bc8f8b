"""Measure `run` with and without `web`, at 10,000 machines with 3 exporters: memory, and the time of requests.

    make bench-web                    10,000 machines, 100 requests of each kind
    make bench-web ARGS="1000 20"     fewer of each

Requests go over loopback, each on a connection of its own, as the server closes each. The memory is the resident set
after the requests, and its peak.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.fleet import fleet, inventory
from tests.support.localapi import Behaviour, localapi

if TYPE_CHECKING:
    from clan_discovery.model import Json

PROGRAM = str(Path(sys.executable).with_name("clan-discovery"))
JOBS = ("node", "systemd", "nginx")


def write_world(place: Path, names: list[str], more: str, jobs: int = len(JOBS)) -> Path:
    """Write a config and an inventory with up to three exporters on each machine; return the config."""
    document = inventory(names)
    instances: dict[str, Json] = {
        job: {
            "module": {"name": "prometheus"},
            "roles": {"exporter": {"tags": ["all"], "settings": {"exporterType": job}}},
        }
        for job in JOBS[1:jobs]
    }
    declared = document["instances"]
    document["instances"] = instances
    if isinstance(declared, dict):
        document["instances"] = {**declared, **instances}
    (place / "inventory.json").write_text(json.dumps(document))
    config = place / "config.yaml"
    config.write_text(
        "inventory: {file: inventory.json}\noutput: {directory: targets}\n"
        f"backends: {{tailscale: {{tailnet: {{socket: {place}/s, timeout: 60s}}}}}}\n{more}"
    )
    return config


def free_port() -> int:
    """Return a free port of loopback."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def ask(port: int, path: str, etag: str = "") -> tuple[float, int, str, int]:
    """Return the time of a request in ms, its status, its ETag and the size of the body."""
    headers = {"If-None-Match": etag} if etag else {}
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    size = len(answer.read())
    connection.close()
    return 1000 * (time.perf_counter() - start), answer.status, answer.headers.get("ETag", ""), size


def memory(pid: int) -> str:
    """Return the resident set of a process and its peak, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return f"{found['VmRSS']:5.0f} MiB, peak {found['VmHWM']:.0f}"


def started(config: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start `run` and wait for its first cycle."""
    with log.open("wb") as stream:
        process = subprocess.Popen([PROGRAM, "run", "-c", str(config), "--interval", "10s"], stderr=stream)
    deadline = time.monotonic() + 120
    while "published" not in log.read_text() and "unchanged" not in log.read_text():
        if time.monotonic() > deadline:
            raise SystemExit(log.read_text())
        time.sleep(0.1)
    return process


def measure(place: Path, names: list[str], requests: int, *, web: bool, asked: bool) -> None:
    """Print the memory of `run` after four cycles, and the time of requests."""
    port = free_port()
    config = write_world(place, names, f'web: {{listen: "127.0.0.1:{port}"}}\n' if web else "")
    process = started(config, place / "log")
    try:
        if asked:
            for path in ("/sd/node", "/sd", "/"):
                first, status, etag, size = ask(port, path)
                times = sorted(ask(port, path, etag)[0] for _ in range(requests))
                again = ask(port, path, etag)[1]
                print(
                    f"  {path:9} first {first:6.1f} ms ({status}, {size / 1e6:.1f} MB), then p50 "
                    f"{statistics.median(times):5.2f} ms, p99 {times[int(len(times) * 0.99) - 1]:5.2f} ms ({again})"
                )
        for _ in range(3):
            time.sleep(11)
            if asked:
                for job in JOBS:
                    ask(port, f"/sd/{job}")
        kind = {(False, False): "without web", (True, False): "web, no request", (True, True): "web, asked"}
        print(f"  {kind[web, asked]:17} {memory(process.pid)}", flush=True)
    finally:
        process.terminate()
        process.wait(20)


def main(machines: int = 10_000, requests: int = 100) -> None:
    """Measure the three cases side by side."""
    names = ["monitor", *(f"m{number}" for number in range(machines - 1))]
    print(f"{machines} machines, {len(JOBS)} exporters on each; {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        with localapi(place / "s", Behaviour(body=json.dumps(fleet(names)).encode())):
            for web, asked in ((False, False), (True, False), (True, True)):
                measure(place, names, requests, web=web, asked=asked)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
