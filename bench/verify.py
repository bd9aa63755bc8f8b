"""Compare `verify` as a process with a `curl | jq` that lists the targets that are not up.

    make bench-verify                10,000 targets, 7 pairs
    make bench-verify ARGS="1000"    another number

Both ask the same server for the same bytes, those of `/api/v1/targets` as Prometheus 2.42 writes them. `verify` also
reads the inventory and the status of the tailnet, resolves the targets, and reads the config, the metrics and two
queries. They run in turn, and the ratio is the median of the ratios of the pairs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.refresh import PROGRAM, ROOT, make, median, row, timed
from clan_discovery.verify.ask import EMPTY
from tests.support.answering import Reply, answering

if TYPE_CHECKING:
    from collections.abc import Sequence

PAIRS = 7
UP = '(.data.activeTargets | map(select(.health != "up") | {job: .labels.job, instance: .labels.instance, lastError}))'


def scraped(group: dict[str, list[str] | dict[str, str]], number: int, file: str) -> dict[str, object]:
    """Return an active target as Prometheus shows a group of a target file."""
    addresses, labels = group["targets"], group["labels"]
    if not isinstance(addresses, list) or not isinstance(labels, dict):
        raise TypeError("not a target group")
    address, job = addresses[0], Path(file).stem
    defaults = {
        "__address__": address,
        "__meta_filepath": file,
        "__metrics_path__": "/metrics",
        "__scheme__": "http",
        "__scrape_interval__": "1m",
        "__scrape_timeout__": "10s",
        "job": job,
    }
    final = {name: value for name, value in labels.items() if not name.startswith("__")}
    return {
        "discoveredLabels": {**defaults, **labels},
        "labels": {**final, "job": job},
        "scrapePool": job,
        "scrapeUrl": f"http://{address}/metrics",
        "globalUrl": f"http://{address}/metrics",
        "lastError": "",
        "lastScrape": "2026-11-20T10:00:00.123456789Z",
        "lastScrapeDuration": 0.01 + number / 1e6,
        "health": "up",
        "scrapeInterval": "1m",
        "scrapeTimeout": "10s",
    }


def replies(files: Sequence[Path]) -> dict[str, Reply]:
    """Return the answers of a scraper that scrapes all targets of these target files."""
    active: list[dict[str, object]] = []
    names: list[dict[str, object]] = []
    config = "scrape_configs:\n"
    for file in files:
        config += f"- job_name: {file.stem}\n  file_sd_configs:\n  - files: ['{file}']\n"
        for number, group in enumerate(json.loads(file.read_bytes())):
            active.append(scraped(group, number, str(file)))
            labels = group["labels"]
            if file.stem == "node":
                found = {"job": "node", "instance": labels["instance"], "nodename": labels["machine"]}
                names.append({"metric": found, "value": [1, "1"]})
    metrics = 'prometheus_build_info{version="2.42.0"} 1\n'

    def success(data: object) -> Reply:
        return Reply(json.dumps({"status": "success", "data": data}, separators=(",", ":")).encode())

    return {
        "/api/v1/targets": success({"activeTargets": active, "droppedTargets": []}),
        "/api/v1/status/config": success({"yaml": config}),
        "/metrics": Reply(metrics.encode()),
        "/api/v1/query": success({"resultType": "vector", "result": names}),
        EMPTY: success({"resultType": "vector", "result": []}),
    }


def serve(place: Path, files: Sequence[Path]) -> None:
    """Serve the answers until the process is killed."""
    with answering(replies(files)) as server:
        (place / "url.new").write_text(server.url)
        (place / "url.new").rename(place / "url")
        time.sleep(3600)


def wait_for_url(place: Path, seconds: float = 60.0) -> str:
    """Wait until the server listens."""
    deadline = time.monotonic() + seconds
    while not (place / "url").exists():
        if time.monotonic() > deadline:
            raise SystemExit("the server did not start")
        time.sleep(0.02)
    return (place / "url").read_text()


def measure(size: int, place: Path) -> None:
    """Measure one size, and print its rows."""
    make(size, place)
    config = place / "config.yaml"
    text = (
        "inventory: {file: inventory.json}\n"
        "backends: {tailscale: {tailnet: {status_file: status.json}}}\n"
        "output: {directory: out/targets}\n"
    )
    config.write_text(text)
    subprocess.run([str(PROGRAM), "refresh", "--config", str(config)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    server = subprocess.Popen([sys.executable, "-m", "bench.verify", "--serve", str(place)], cwd=ROOT)
    try:
        url = wait_for_url(place)
        config.write_text(f"{text}verify: {{scrapers: {{one: {{url: '{url}'}}}}, timeout: 60s}}\n")
        ours = [str(PROGRAM), "verify", "--config", str(config)]
        pipeline = f"curl -s '{url}/api/v1/targets?state=any' | jq -c '{UP}'"
        theirs = ["bash", "-o", "pipefail", "-c", pipeline]
        pairs = [(timed(ours), timed(theirs)) for _ in range(PAIRS + 1)][1:]  # the first warms the page cache
    finally:
        server.kill()
        server.wait()
    print(f"{size} targets")
    print(row("verify", [pair[0] for pair in pairs]))
    print(row("curl | jq", [pair[1] for pair in pairs]))
    ratio, memory = (median([getattr(a, key) / getattr(b, key) for a, b in pairs]) for key in ("wall", "memory"))
    print(f"  verify / pipeline: {ratio:.2f}, memory {memory:.2f}")


def main() -> None:
    """Measure the sizes that are named."""
    if sys.argv[1:2] == ["--serve"]:
        served = Path(sys.argv[2])
        serve(served, [served / "out/targets/node.json"])
        return
    for size in [int(word) for word in sys.argv[1:]] or [10_000]:
        with tempfile.TemporaryDirectory() as place:
            measure(size, Path(place))


if __name__ == "__main__":
    main()
