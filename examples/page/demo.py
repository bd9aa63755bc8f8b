"""Show the status page of a small fleet on this machine: node exporter, Prometheus and `run`, all on loopback.

    make demo-page

Nothing needs root, nothing is sent elsewhere, and Ctrl-C ends everything. The inventory declares four machines:

    kitchen   its exporter runs: healthy
    cellar    nothing answers at its address: down
    attic     no backend sees it: missing
    monitor   runs Prometheus and `run`
    printer   the tailnet has it, the inventory does not: stray
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

PROGRAM: Final = Path(sys.executable).with_name("clan-discovery")
PACKAGES: Final = {"prometheus": "prometheus", "prometheus-node-exporter": "prometheus-node-exporter"}
START_S: Final = 60.0
KITCHEN, CELLAR, PRINTER = "127.0.0.2", "127.0.0.3", "127.0.0.4"


def missing_programs() -> list[str]:
    """Return a line for each program that is not installed."""
    return [
        f"{name} is not on PATH (Debian: apt install {package})"
        for name, package in PACKAGES.items()
        if shutil.which(name) is None
    ]


def free_ports(count: int) -> list[int]:
    """Return loopback ports that are free now."""
    with contextlib.ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def write_files(place: Path, exporter: int, prometheus: int, web: int) -> None:
    """Write the inventory, the config, the list of addresses and the config of Prometheus."""
    names = ["attic", "cellar", "kitchen", "monitor"]
    inventory = {
        "machines": {name: {} for name in names},
        "instances": {
            "monitoring": {
                "module": {"name": "prometheus", "input": "clan-discovery"},
                "roles": {
                    "server": {"machines": {"monitor": {}}},
                    "exporter": {"tags": ["all"], "settings": {"exporters": {"node": {"port": exporter}}}},
                },
            }
        },
    }
    (place / "inventory.json").write_text(json.dumps(inventory))
    config = {
        "inventory": {"file": "inventory.json"},
        "backends": {
            "static": {
                "lab": {"machines": {"kitchen": KITCHEN, "cellar": CELLAR, "monitor": KITCHEN, "printer": PRINTER}}
            }
        },
        "output": {"directory": "targets"},
        "web": {"listen": f"127.0.0.1:{web}"},
        "verify": {"scrapers": {"prometheus": {"url": f"http://127.0.0.1:{prometheus}"}}},
    }
    (place / "config.json").write_text(json.dumps(config, indent=2))
    job = {"job_name": "node", "file_sd_configs": [{"files": [str(place / "targets/node.json")]}]}
    document = {"global": {"scrape_interval": "5s", "scrape_timeout": "4s"}, "scrape_configs": [job]}
    (place / "prometheus.yml").write_text(json.dumps(document))


@contextlib.contextmanager
def running(commands: Mapping[str, Sequence[str]], place: Path) -> Generator[list[subprocess.Popen[bytes]]]:
    """Run programs while the block lasts, and return their processes; the output of each is in a file."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for name, command in commands.items():
            with (place / f"{name}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(  # noqa: S603 - programs of PATH
                        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                    )
                )
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def page_says(url: str, text: str, processes: Sequence[subprocess.Popen[bytes]]) -> bool:
    """Wait until the page has a text, up to a limit, and while all programs run."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and all(process.poll() is None for process in processes):
        # An error is that it does not listen yet, or a 503.
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
            if text in answer.read().decode():
                return True
        time.sleep(0.5)
    return False


def main() -> int:
    """Start everything, print the address, and wait for Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--once", action="store_true", help="end as soon as the page shows the verdicts")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    args = parser.parse_args()
    if missing := missing_programs():
        sys.stderr.write("".join(f"{line}\n" for line in missing))
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    exporter, prometheus, web = free_ports(3)
    url = f"http://127.0.0.1:{web}/"
    with tempfile.TemporaryDirectory(prefix="clan-discovery-page-") as directory:
        place = Path(directory)
        (place / "targets").mkdir()
        write_files(place, exporter, prometheus, web)
        commands = {
            "node-exporter": [
                "prometheus-node-exporter",
                f"--web.listen-address={KITCHEN}:{exporter}",
                "--no-collector.uname",
            ],
            "prometheus": [
                "prometheus",
                f"--config.file={place}/prometheus.yml",
                f"--storage.tsdb.path={place}/tsdb",
                f"--web.listen-address=127.0.0.1:{prometheus}",
            ],
            "run": [str(PROGRAM), "run", f"--config={place}/config.json", "--interval=10s", "--verify-interval=10s"],
        }
        with contextlib.suppress(KeyboardInterrupt), running(commands, place) as processes:
            sys.stdout.write(f"starting; this takes about 20 seconds: {url}\n")
            sys.stdout.flush()
            if not page_says(url, "Scraped", processes):
                for log in sorted(place.glob("*.log")):
                    sys.stderr.write(f"{log.stem} wrote:\n{log.read_text()[-2000:]}\n")
                sys.stderr.write("the page shows no verdicts: a program has ended, or is too slow\n")
                return 1
            sys.stdout.write(f"the status page: {url}\nPrometheus:      http://127.0.0.1:{prometheus}/\n")
            if args.once:
                return 0
            sys.stdout.write("Ctrl-C ends everything.\n")
            sys.stdout.flush()
            if not args.no_browser:
                webbrowser.open(url)
            signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
