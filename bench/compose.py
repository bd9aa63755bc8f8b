"""Measure a source of 500 Compose services, compared with `docker-compose config`.

    make bench-compose

`check` runs on a config with 500 services, and on one with a single service: the difference is what the services take
beyond the start. Each command is a process of its own with one thread. The figure is its CPU time, so that other
programs on the machine count less; the median of some runs counts.
"""

from __future__ import annotations

import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

PROGRAM: Final = Path(sys.executable).with_name("clan-discovery")
SERVICES: Final = 500
REPEATS: Final = 9
CONFIG: Final = """inventory: {compose: {nas: {files: compose.yaml}}}
backends: {static: {lan: {machines: {nas: 192.0.2.1}}}}
output: {directory: targets}
"""
HEAD: Final = """services:
  prometheus:
    image: prom/prometheus:v3
    networks: [monitoring]
  traefik:
    image: traefik:v3
    networks: [proxy]
"""
SERVICE: Final = """  app{number}:
    image: example/app:${{TAG:-latest}}
    container_name: app{number}
    restart: unless-stopped
    depends_on: [prometheus]
    environment:
      PUID: "1000"
      TZ: ${{TZ:-UTC}}
    networks: [monitoring, proxy]
    volumes:
      - ./data{number}:/data
    labels:
      - traefik.enable=true
      - traefik.http.routers.app{number}.rule=Host(`app{number}.${{DOMAIN}}`)
      - traefik.http.services.app{number}.loadbalancer.server.port=8080
      - prometheus.io/scrape=true
      - prometheus.io/port=9121
"""


def write_project(place: Path, services: int) -> None:
    """Write a project, its variables and a config."""
    place.mkdir()
    text = HEAD + "".join(SERVICE.format(number=number) for number in range(services))
    (place / "compose.yaml").write_text(f"{text}networks:\n  monitoring: {{}}\n  proxy: {{external: true}}\n")
    (place / ".env").write_text("DOMAIN=example.org\n")
    (place / "config.yaml").write_text(CONFIG)


def cpu_ms(words: list[str], place: Path) -> float:
    """Return the median CPU time of a command."""
    times: list[float] = []
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, cwd=place, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000)
    return statistics.median(times)


def main() -> None:
    """Print the times and their ratio."""
    with tempfile.TemporaryDirectory() as scratch:
        many, one = Path(scratch, "many"), Path(scratch, "one")
        write_project(many, SERVICES)
        write_project(one, 1)
        check = [str(PROGRAM), "check", "-c", "config.yaml"]
        start, all_ = cpu_ms(check, one), cpu_ms(check, many)
        print(f"check, 1 service: {start:.0f} ms; {SERVICES} services: {all_:.0f} ms")
        print(f"beyond the start: {all_ - start:.0f} ms")
        oracle = shutil.which("docker-compose")
        if oracle is None:
            print("docker-compose is not installed")
            return
        theirs = cpu_ms([oracle, "config", "--quiet"], many)
        print(f"docker-compose config: {theirs:.0f} ms; ratio {all_ / theirs:.2f}")


if __name__ == "__main__":
    main()
