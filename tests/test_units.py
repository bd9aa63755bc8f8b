"""The units of the NixOS module: rendered by real Nix, checked by systemd-analyze, and run by systemd.

The sandbox is tested from within it. Also: files for other users, a late and restarted tailscaled, a hanging process.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import fleet, inventory
from tests.support.programs import eventually, program
from tests.support.systemd import booted, unit_text

if TYPE_CHECKING:
    from collections.abc import Generator

    from clan_discovery.model import Json
    from tests.support.systemd import Machine

ROOT = Path(__file__).resolve().parent.parent
TARGETS = "/var/lib/clan-discovery/targets"
SOCKET = "/run/tailscale/tailscaled.sock"
CASES: dict[str, dict[str, Json]] = {
    "timer": {"mode": "timer"},
    "timer with the network": {"mode": "timer", "network": True},
    "resident": {"mode": "resident"},
    "resident with metrics": {"mode": "resident", "network": True, "listen": "127.0.0.1:9199"},
    "resident with web and verify": {
        "mode": "resident",
        "network": True,
        "listen": "127.0.0.1:9942",
        "settings": {"web": {"listen": "127.0.0.1:9942"}},
        "verifyInterval": "5m",
    },
}
TAILSCALED = """[Service]
Type=simple
UMask=0000
RuntimeDirectory=tailscale
Environment=PYTHONPATH=/opt/project:/opt/site LD_LIBRARY_PATH=/opt/python/lib
ExecStart=/opt/python/bin/python3 -m tests.support.localapi /run/tailscale/tailscaled.sock /opt/share/status.json
"""
PROMETHEUS = """[Service]
User=scraper
Group=scraper
PrivateTmp=true
StateDirectory=prometheus2
ExecStart=/usr/bin/prometheus --config.file=/opt/share/prometheus.yml --storage.tsdb.path=/var/lib/prometheus2 \
  --web.listen-address=127.0.0.1:9090
"""


def rendered(program_: str, config: str, **arguments: Json) -> dict[str, dict[str, Json]]:
    """Return the units that Nix renders."""
    given = json.dumps(json.dumps({"program": program_, "config": config, **arguments}))
    words = [program("nix-instantiate"), "--eval", "--strict", "--json", "--store", "dummy://", "-E"]
    words.append(f"import {ROOT}/tests/nix/unit.nix (builtins.fromJSON {given})")
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "NIX_PATH": ""})
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Json]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("case", CASES)
def test_systemd_accepts_the_units(case: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` prints nothing, and the exposure is at most 1.5."""
    found = rendered(sys.prefix, str(tmp_path / "config.json"), **CASES[case])
    service, timer = tmp_path / "clan-discovery.service", tmp_path / "clan-discovery.timer"
    service.write_text(unit_text(found["service"], "Service"))
    timer.write_text(unit_text(found["timer"], "Timer"))
    (tmp_path / "clan-discovery-unreachable.service").write_text(unit_text(found["unreachable"], "Service"))
    analyze = program("systemd-analyze")
    verified = subprocess.run(
        [analyze, "verify", "--man=no", *map(str, tmp_path.glob("clan-*"))], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    judged = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(service)], capture_output=True, text=True, check=True
    )
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", judged.stdout)
    assert exposure is not None
    assert float(exposure[1]) <= 1.5, judged.stdout


@contextlib.contextmanager
def machine(units: dict[str, str] | None = None, **arguments: Json) -> Generator[Machine]:
    """Boot a systemd with the units, a tailnet of two machines, and its inventory."""
    found = rendered("/opt/share", "/opt/share/config.json", **arguments)
    texts = {
        "clan-discovery.service": unit_text(found["service"], "Service").replace("/opt/share/bin/", "/opt/share/"),
        "clan-discovery.timer": unit_text(found["timer"], "Timer"),
        "tailscaled.service": TAILSCALED,
        "prometheus.service": PROMETHEUS,
        **(units or {}),
    }
    with booted(texts) as booted_:
        share = booted_.share
        config: Json = {
            "inventory": {"file": "inventory.json"},
            "backends": {"tailscale": {"tailnet": {}}},
            "output": {"directory": TARGETS},
            "state": "/var/lib/clan-discovery/state",
        }
        (share / "config.json").write_text(json.dumps(config))
        (share / "inventory.json").write_text(json.dumps(inventory(["db", "web"])))
        (share / "status.json").write_text(json.dumps(fleet(["db", "web"])))
        jobs = [{"job_name": "node", "file_sd_configs": [{"files": [f"{TARGETS}/node.json"]}]}]
        (share / "prometheus.yml").write_text(json.dumps({"scrape_configs": jobs}))
        yield booted_


def addresses(machine_: Machine) -> list[str]:
    """Return the published addresses, read as the scraper's user."""
    words = ("setpriv", "--reuid=4712", "--regid=4712", "--clear-groups", "cat", f"{TARGETS}/node.json")
    done = machine_.command(*words)
    if done.returncode:
        raise OSError(done.stderr)
    return [group["targets"][0] for group in json.loads(done.stdout)]


def rounds(machine_: Machine) -> int:
    """Return the number of cycles, from the metrics."""
    metrics = machine_.command("cat", "/var/lib/clan-discovery/metrics/clan-discovery.prom").stdout
    found = re.search(r"^clan_discovery_rounds_total ([0-9.]+)$", metrics, re.MULTILINE)
    return int(float(found[1])) if found else 0


def test_timer_mode_with_a_late_tailscaled() -> None:
    """The unit succeeds without it, the scraper starts after the first files, and the timer finds the tailnet."""
    with machine(mode="timer", onCalendar="*:*:*") as booted_:
        booted_.ctl("start", "clan-discovery.service", "prometheus.service")
        assert "there is no last good answer" in booted_.journal()
        started = booted_.command("journalctl", "-o", "cat", "_PID=1").stdout
        assert started.index("Finished clan-discovery.service") < started.index("Started prometheus.service")
        assert all(address.endswith(":9100") for address in addresses(booted_))
        assert not any(address.startswith("100.") for address in addresses(booted_))
        assert targets_of_prometheus(booted_) == {"db", "web"}
        booted_.ctl("start", "tailscaled.service")
        before = rounds(booted_)
        booted_.ctl("start", "clan-discovery.timer")
        eventually("the timer's rounds found the tailnet", lambda: addresses(booted_)[0].startswith("100."))
        eventually("the timer goes on", lambda: rounds(booted_) >= before + 3)
        assert "Failed" not in booted_.journal()


def targets_of_prometheus(machine_: Machine) -> set[str]:
    """Wait until this machine's Prometheus has targets; return their instances."""

    def ask() -> set[str]:
        done = machine_.command("curl", "-sf", "http://127.0.0.1:9090/api/v1/targets")
        if done.returncode:
            raise OSError(done.stderr)
        active = json.loads(done.stdout)["data"]["activeTargets"]
        return {target["labels"]["instance"] for target in active}

    eventually("prometheus has targets", lambda: bool(ask()))
    return ask()


def test_run_survives_a_restart_of_tailscaled() -> None:
    """It replaces its directory, which a bind mount of that directory would hide."""
    with machine(mode="resident", watchdog="30s") as booted_:
        booted_.ctl("start", "tailscaled.service", "clan-discovery.service")
        eventually("it has asked", lambda: addresses(booted_)[0].startswith("100."))
        pid = booted_.show("clan-discovery.service", "MainPID")
        booted_.ctl("stop", "tailscaled.service")
        assert not booted_.command("ls", "/run/tailscale").stdout
        (booted_.share / "status.json").write_text(json.dumps(fleet(["web", "db"])))
        moved = sorted(addresses(booted_), reverse=True)
        booted_.ctl("start", "tailscaled.service")
        # A started unit may not listen yet: an earlier reload would get no answer until the next interval.
        eventually("tailscaled listens", lambda: not booted_.command("test", "-S", SOCKET).returncode)
        booted_.ctl("reload", "clan-discovery.service")
        eventually("it has asked the new one", lambda: addresses(booted_) == moved)
        told = ("/opt/share/clan-discovery", "history", "db", "--config", "/opt/share/config.json")
        eventually("the history has the new address", lambda: "moved" in booted_.command(*told).stdout)
        assert booted_.show("clan-discovery.service", "MainPID") == pid
        assert booted_.show("clan-discovery.service", "NRestarts") == "0"


def test_the_unit_serves_http_and_verifies() -> None:
    """The targets, the metrics and the health on one port; the metrics have what Prometheus does with the targets."""
    web: dict[str, Json] = {"web": {"listen": "127.0.0.1:9942"}}
    listens: Json = "127.0.0.1:9942"
    with machine(mode="resident", network=True, listen=listens, settings=web, verifyInterval="10s") as booted_:
        configure(booted_, web)
        booted_.ctl("start", "tailscaled.service", "clan-discovery.service", "prometheus.service")

        def served(path: str) -> str:
            return booted_.command("curl", "-sf", f"http://127.0.0.1:9942{path}").stdout

        eventually("it serves the target list", lambda: '"db"' in served("/sd/node"))
        assert served("/healthz") == "ok\n"
        assert "\nclan_discovery_rounds_total " in served("/metrics")
        answered = '\nclan_discovery_verify_targets{verdict="unknown"} 0.0\n'
        eventually("Prometheus has answered it", lambda: answered in served("/metrics"))


def test_the_listener_on_the_tailnet_comes_later() -> None:
    """At a boot there is no address yet. In the sandbox, tailscaled is asked who connects; here it knows nobody."""
    web: dict[str, Json] = {"web": {"listen": "100.64.0.1:9942", "allow": ["tag:admin"]}}
    with machine(mode="resident", network=True, settings=web) as booted_:
        configure(booted_, web)
        booted_.ctl("start", "clan-discovery.service")
        assert booted_.show("clan-discovery.service", "ActiveState") == "active"
        assert len(addresses(booted_)) == 2
        booted_.command("ip", "address", "add", "100.64.0.1/32", "dev", "lo")
        booted_.ctl("start", "tailscaled.service")
        eventually("tailscaled listens", lambda: not booted_.command("test", "-S", SOCKET).returncode)
        booted_.ctl("reload", "clan-discovery.service")
        ask = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://100.64.0.1:9942/healthz")
        eventually("it listens", lambda: booted_.command(*ask).stdout == "403")
        assert booted_.show("clan-discovery.service", "NRestarts") == "0"


def configure(machine_: Machine, more: dict[str, Json]) -> None:
    """Add keys to the config of the unit."""
    file = machine_.share / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))


def test_verify_in_the_sandbox_of_the_unit() -> None:
    """It reaches a scraper on loopback, and reads a password that only the unit's user may read."""
    found = rendered("/opt/share", "/opt/share/config.json", mode="timer", network=True)
    verify = "/opt/share/clan-discovery verify --config /opt/share/config.json --format json"
    text = re.sub(r"^ExecStart=.*$", f"ExecStart={verify}", unit_text(found["service"], "Service"), flags=re.MULTILINE)
    text = text.replace("SuccessExitStatus=", "SuccessExitStatus=1 ")
    with machine({"probe.service": text}, mode="timer") as booted_:
        password = booted_.share / "password"
        password.write_text("secret")
        password.chmod(0o400)
        os.chown(password, 4711, 4711)
        login: Json = {"username": "verify", "password_file": str(Path("/opt/share/password"))}
        scraper: Json = {"url": "http://127.0.0.1:9090", "basic_auth": login}
        configure(booted_, {"verify": {"scrapers": {"prometheus": scraper}}})
        booted_.ctl("start", "tailscaled.service", "clan-discovery.service", "prometheus.service")
        assert targets_of_prometheus(booted_) == {"db", "web"}
        booted_.ctl("start", "probe.service")
        said = booted_.journal("probe.service")
        assert '"ok": true' in said, said


def test_the_watchdog_restarts_a_hanging_process() -> None:
    """The files are kept meanwhile."""
    with machine(mode="resident", watchdog="1s") as booted_:
        booted_.ctl("start", "tailscaled.service", "clan-discovery.service")
        first = addresses(booted_)
        booted_.command("kill", "-STOP", booted_.show("clan-discovery.service", "MainPID"))
        eventually("systemd has started it again", lambda: booted_.show("clan-discovery.service", "NRestarts") == "1")
        assert "Watchdog timeout" in booted_.journal()
        eventually("it is back", lambda: booted_.show("clan-discovery.service", "ActiveState") == "active")
        assert addresses(booted_) == first


_PROBE = """
import os, socket, sys

def refused(what, call):
    try:
        call()
    except OSError as error:
        return
    print("could", what)

refused("write to /etc", lambda: open("/etc/x", "w"))
refused("write to /var/lib", lambda: open("/var/lib/x", "w"))
refused("write to /run", lambda: open("/run/x", "w"))
refused("write where anybody may", lambda: open("/opt/share/x", "w"))
refused("look into /home", lambda: os.listdir("/home"))
refused("open a network socket", lambda: socket.socket(socket.AF_INET))
refused("open a packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
refused("become root", lambda: os.setuid(0))
refused("pin itself to a processor", lambda: os.sched_setaffinity(0, {0}))
refused("change owners", lambda: os.chown("/var/lib/clan-discovery/targets", os.getuid(), os.getgid()))
refused("see the processes of others", lambda: os.stat("/proc/1/cmdline"))
refused("open the kernel's log", lambda: open("/dev/kmsg"))
refused("make a device", lambda: os.mknod("/tmp/x", 0o20600, os.makedev(1, 3)))
refused("raise its priority", lambda: os.nice(-5))
open("/var/lib/clan-discovery/targets/probe", "w").close()
os.unlink("/var/lib/clan-discovery/targets/probe")
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect("/run/tailscale/tailscaled.sock")
print("done")
"""


def test_the_sandbox_of_the_unit() -> None:
    """A program in it can write its directory and use the socket, and nothing else."""
    found = rendered("/opt/share", "/opt/share/config.json", mode="timer")
    text = unit_text(found["service"], "Service")
    shell = "/opt/python/bin/python3 /opt/share/probe.py"
    text = re.sub(r"^ExecStart=.*$", f"ExecStart={shell}", text, flags=re.MULTILINE)
    text = text.replace("[Service]", "[Service]\nEnvironment=LD_LIBRARY_PATH=/opt/python/lib")
    with machine({"probe.service": text}, mode="timer") as booted_:
        (booted_.share / "probe.py").write_text(_PROBE)
        booted_.ctl("start", "tailscaled.service")
        eventually(
            "the socket is there", lambda: not booted_.command("ls", "/run/tailscale/tailscaled.sock").returncode
        )
        booted_.ctl("start", "probe.service")
        said = [line for line in booted_.journal("probe.service").splitlines() if line.startswith(("could", "done"))]
        assert said == ["done"]
