"""Find and start real programs on loopback; skip or fail without them."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.support.builds import NotBuiltError, newer_scraper

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from clan_discovery.model import Json

REQUIRE_REAL = os.environ.get("CLAN_DISCOVERY_REQUIRE_REAL") == "1"
PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-node-exporter": "prometheus-node-exporter",
    "nix": "nix-bin",
    "nix-instantiate": "nix-bin",
    "git": "git",
    "inotifywait": "inotify-tools",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "strace": "strace",
    "systemd-analyze": "systemd",
    "vmagent": "victoria-metrics",
    "vmalert": "victoria-metrics",
    "victoria-metrics": "victoria-metrics",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
    "knotd": "knot",
    "named": "bind9",
    "curl": "curl",
    "jq": "jq",
    "zsh": "zsh",
    "fish": "fish",
    "groff": "groff-base",
    "mandoc": "mandoc",
    "htpasswd": "apache2-utils",
    "openssl": "openssl",
    "chromium": "chromium",
    "caddy": "caddy",
    "nginx": "nginx",
}
NIX_NEWER = "CLAN_DISCOVERY_NIX_NEWER"
_given: set[int] = set()
"""The ports that this process has given out."""


def program(name: str) -> str:
    """Return the path of a program; without it, skip the test, or fail if real parts are required."""
    found = shutil.which(name)
    if found is None:
        absent(name, f"not on PATH (Debian: {PACKAGES.get(name, name)})")
    return found


def absent(name: str, why: str, *, required: bool = True) -> NoReturn:
    """Skip a test without a real part, or fail it if real parts are required."""
    if required and REQUIRE_REAL:
        pytest.fail(f"{name}: {why}, and CLAN_DISCOVERY_REQUIRE_REAL is set")
    pytest.skip(f"{name}: {why}")


def checkout(variable: str) -> str:
    """Return the checkout in an environment variable; never required, because it cannot be installed."""
    found = os.environ.get(variable)
    if not found:
        absent(variable, "not set", required=False)
    return found


def nixfmt_path() -> str:
    """Return nixfmt's path, from the environment or PATH; never required, because Debian has none."""
    found = os.environ.get("CLAN_DISCOVERY_NIXFMT") or shutil.which("nixfmt")
    if not found:
        absent("nixfmt", "not on PATH, and CLAN_DISCOVERY_NIXFMT is not set (it is not in Debian)", required=False)
    return found


def nix_program(name: str, which: str) -> str:
    """Return a program of Nix: Debian's, or a newer one from the environment."""
    if which == "debian":
        return program(name)
    if not os.environ.get(NIX_NEWER):
        absent(NIX_NEWER, "not set (a directory with a newer Nix's bin/)", required=False)
    return str(Path(os.environ[NIX_NEWER]) / "bin" / name)


def scraper_program(name: str, which: str) -> str:
    """Return prometheus, victoria-metrics or vmagent: Debian's, or a newer one.

    The newer one is in the environment, or else the pinned build. `make test` sets the variable to nothing, so that its
    time does not depend on what is built.
    """
    if which == "debian":
        return program(name)
    variable = f"CLAN_DISCOVERY_{name.upper().replace('-', '_')}_NEWER"
    found = os.environ.get(variable)
    if found == "":
        absent(variable, f"empty (the path of a newer {name})", required=False)
    if found is not None:
        return found
    try:
        return str(newer_scraper(name))
    except NotBuiltError as error:
        absent(variable, f"not set, and {error}", required=False)


def free_port() -> int:
    """Return a loopback port that is free for TCP and UDP and that no other worker uses."""
    # Below the kernel's range of ephemeral ports. Each worker of pytest-xdist uses every sixteenth, so that no other
    # takes the port before the server starts.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for _ in range(100):
        port = 16_000 + 16 * secrets.randbelow(1000) + worker % 16
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    pytest.fail("no port is free for TCP and UDP")


def _is_free(port: int) -> bool:
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        try:
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def running(command: Sequence[str], log: Path) -> Generator[subprocess.Popen[bytes]]:
    """Run a program until the block ends; its output goes to `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(120)


def get(url: str) -> bytes:
    """Get a page from loopback."""
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - a server of the test's own
        body: bytes = answer.read()
        return body


def get_json(url: str) -> Json:
    """Get a JSON document from loopback."""
    found: Json = json.loads(get(url))
    return found


def eventually(what: str, check: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait until a condition holds, up to a limit in seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if check():
                return
        time.sleep(0.1)
    pytest.fail(f"not so after {seconds:g} s: {what}")


def promtool_accepts(directory: Path) -> None:
    """Check a Prometheus config with a job for every target file of a directory, with promtool."""
    config = {
        "scrape_configs": [
            {"job_name": file.stem, "file_sd_configs": [{"files": [str(file)]}]}
            for file in sorted(directory.glob("*.json"))
        ]
    }
    file = directory.parent / "promtool.yml"
    file.write_text(json.dumps(config))
    done = subprocess.run(
        [program("promtool"), "check", "config", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
