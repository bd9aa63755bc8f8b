"""Prometheus and VictoriaMetrics as stores that agents write to."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.support.programs import eventually, free_port, get, program, running, scraper_program

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.stack.scrapers import Kind, Which


@contextlib.contextmanager
def store(kind: Kind, which: Which, place: Path, *flags: str) -> Generator[str]:
    """Run a store that accepts remote writes; return its URL. The config of Prometheus is `prometheus.json`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [program("setpriv"), "--pdeathsig", "KILL", scraper_program(kind, which)]
    if kind == "prometheus":
        config = place / "prometheus.json"
        if not config.exists():
            config.write_text("{}")
        command += [f"--config.file={config}", f"--storage.tsdb.path={place}/tsdb"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--web.enable-remote-write-receiver"]
        ready = f"{url}/-/ready"
    else:
        command += [f"-storageDataPath={place}/data", f"-httpListenAddr=127.0.0.1:{port}"]
        command += ["-search.latencyOffset=0s", "-memory.allowedBytes=128MB", "-loggerTimezone=UTC"]
        ready = f"{url}/health"
    with running([*command, *flags], place / "store.log"):
        eventually("the store answers", lambda: bool(get(ready)))
        yield url
