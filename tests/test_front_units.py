"""The units that give Debian's caddy and nginx the file of fronts, rendered by real Nix and run by a real systemd."""

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

from tests.support.programs import eventually, program
from tests.support.systemd import booted, unit_text
from tests.test_units import rendered as rendered_unit

if TYPE_CHECKING:
    from collections.abc import Generator

    from clan_discovery.model import Json
    from tests.support.systemd import Machine

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("caddy", "nginx")

# As NixOS runs them: as their users, with a check of the configuration in each reload of nginx.
PROXIES = {
    "caddy": """[Service]
Type=notify
User=caddy
Group=caddy
StateDirectory=caddy
Environment=HOME=/var/lib/caddy
ExecStart=/usr/bin/caddy run --config /opt/share/proxy.conf --adapter caddyfile
ExecReload=/usr/bin/caddy reload --config /opt/share/proxy.conf --adapter caddyfile --force
InaccessiblePaths=-/var/lib/clan-discovery
""",
    "nginx": """[Service]
User=www-data
Group=www-data
RuntimeDirectory=nginx
ExecStartPre=/usr/sbin/nginx -t -q -c /opt/share/proxy.conf
ExecStart=/usr/sbin/nginx -c /opt/share/proxy.conf
ExecReload=/usr/sbin/nginx -t -q -c /opt/share/proxy.conf
ExecReload=/bin/kill -HUP $MAINPID
InaccessiblePaths=-/var/lib/clan-discovery
""",
}
CONFIGS = {
    "caddy": """{
	admin localhost:2019
	auto_https off
	http_port 8080
}
import @INCLUDED@
http://own.test:8080 {
	respond "own"
}
""",
    "nginx": """daemon off;
pid /run/nginx/nginx.pid;
error_log stderr;
events { }
http {
  access_log off;
  client_body_temp_path /run/nginx/a;
  proxy_temp_path /run/nginx/b;
  fastcgi_temp_path /run/nginx/c;
  uwsgi_temp_path /run/nginx/d;
  scgi_temp_path /run/nginx/e;
  server { listen 8080; server_name own.test; location / { return 200 own; } }
  include @INCLUDED@;
}
""",
}
FRONTS = {
    "caddy": 'http://app.test:8080 {{\n\trespond "{0}"\n}}\n',
    "nginx": "server {{ listen 8080; server_name app.test; location / {{ return 200 '{0}'; }} }}\n",
}


def rendered(kind: str) -> dict[str, Json]:
    """Return the units, the script and the paths that Nix renders."""
    words = [program("nix-instantiate"), "--eval", "--strict", "--json", "--store", "dummy://", "-E"]
    words.append(f'import {ROOT}/tests/nix/front-unit.nix {{ kind = "{kind}"; }}')
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "NIX_PATH": ""})
    assert done.returncode == 0, done.stderr
    found: dict[str, Json] = json.loads(done.stdout)
    return found


def unit_of(found: dict[str, Json], name: str, kind: str) -> str:
    """Return the text of one rendered unit."""
    unit = found[name]
    assert isinstance(unit, dict)
    return unit_text(unit, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_systemd_accepts_the_units(kind: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` prints nothing, and the exposure is at most 1.5."""
    found = rendered(kind)
    service = tmp_path / "clan-discovery-front.service"
    service.write_text(unit_of(found, "service", "Service"))
    (tmp_path / "clan-discovery-front-changed.service").write_text(unit_of(found, "changed", "Service"))
    (tmp_path / "clan-discovery-front.path").write_text(unit_of(found, "path", "Path"))
    (tmp_path / f"{kind}.service").write_text("[Service]\nExecStart=/bin/true\n")
    analyze = program("systemd-analyze")
    verified = subprocess.run(
        [analyze, "verify", "--man=no", *map(str, tmp_path.iterdir())], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    judged = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(service)], capture_output=True, text=True, check=True
    )
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", judged.stdout)
    assert exposure is not None
    assert float(exposure[1]) <= 1.5, judged.stdout


class Bed:
    """A booted systemd with a proxy and its units."""

    def __init__(self, kind: str, machine: Machine, source: Path) -> None:
        self.kind = kind
        self.machine = machine
        self.source = source

    def write(self, text: str) -> None:
        """Write the file of fronts as the unit of clan-discovery does: by rename, as its user."""
        (self.machine.share / "new").write_text(text)
        copied = f"cp /opt/share/new {self.source}.new && mv {self.source}.new {self.source}"
        self.as_discovery(copied)

    def as_discovery(self, script: str) -> None:
        """Run a shell script as the user of clan-discovery."""
        done = self.machine.command(
            "setpriv", "--reuid=4711", "--regid=4711", "--clear-groups", "sh", "-c", f"umask 022; {script}"
        )
        assert done.returncode == 0, done.stderr

    def front(self, answer: str) -> str:
        """Return a file of fronts whose only one gives this answer."""
        return FRONTS[self.kind].format(answer)

    def answer(self, host: str = "app.test") -> str:
        """Return what the proxy answers for a host."""
        return self.machine.command("curl", "-s", "-m", "20", "-H", f"Host: {host}", "http://127.0.0.1:8080/").stdout

    def await_answer(self, text: str) -> None:
        """Wait until the front gives this answer."""
        eventually(text, lambda: self.answer() == text)

    def result(self) -> str:
        """Return the result of the last start of the unit."""
        return self.machine.show("clan-discovery-front.service", "Result")


@contextlib.contextmanager
def proxied(kind: str, more: dict[str, str] | None = None) -> Generator[Bed]:
    """Boot a systemd in which the proxy of a kind runs, without a file of fronts, and with more units."""
    program(kind)
    found = rendered(kind)
    units = {
        f"{kind}.service": PROXIES[kind],
        "clan-discovery-front.service": unit_of(found, "service", "Service"),
        "clan-discovery-front-changed.service": unit_of(found, "changed", "Service"),
        "clan-discovery-front.path": unit_of(found, "path", "Path"),
        **(more or {}),
    }
    with booted(units) as machine:
        (machine.share / "proxy.conf").write_text(CONFIGS[kind].replace("@INCLUDED@", str(found["included"])))
        (machine.share / "front").write_text(str(found["script"]))
        source = Path(str(found["source"]))
        # As the StateDirectory of the other unit.
        machine.command("install", "-d", "-o", "4711", "-g", "4711", str(source.parent.parent), str(source.parent))
        machine.ctl("enable", "clan-discovery-front.service", "clan-discovery-front.path")
        machine.ctl("start", f"{kind}.service", "clan-discovery-front.path")
        bed = Bed(kind, machine, source)
        eventually("the proxy answers", lambda: bed.answer("own.test") == "own")
        try:
            yield bed
        except BaseException:  # pytest's own, too
            sys.stderr.write(machine.command("journalctl", "--no-pager", "-o", "short-precise").stdout[-8000:])
            sys.stderr.write(machine.command("systemctl", "--no-pager", "--all", "list-jobs").stdout)
            raise


@pytest.mark.parametrize("kind", KINDS)
def test_the_proxy_reloads_each_new_file(kind: str) -> None:
    """It starts without a file. Its process stays the same, and the last of many changes is served."""
    with proxied(kind) as bed:
        process = bed.machine.show(f"{kind}.service", "MainPID")
        bed.write(bed.front("first"))
        eventually("the first front", lambda: bed.answer() == "first")
        for number in range(40):
            bed.write(bed.front(f"change {number}"))
        eventually("the last change", lambda: bed.answer() == "change 39")
        assert bed.answer("own.test") == "own"
        assert bed.machine.show(f"{kind}.service", "MainPID") == process
        eventually("it is settled", lambda: bed.machine.show("clan-discovery-front.service", "SubState") == "dead")
        left = bed.machine.command("ls", "/var/lib/clan-discovery-front").stdout.split()
        assert len(left) == 1, left


# A service at one of two places.
APP = """[Service]
Environment=HOME=/tmp
ExecStart=/usr/bin/caddy respond --listen 127.0.0.%i:8081 "place %i"
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_front_follows_a_machine_that_moves(kind: str) -> None:
    """The unit of clan-discovery writes the file, and the proxy passes requests to the new place."""
    unit = rendered_unit("/opt/share", "/opt/share/config.json", mode="timer", network=True)
    discovery = unit_text(unit["service"], "Service").replace("/opt/share/bin/", "/opt/share/")
    with proxied(kind, {"clan-discovery.service": discovery, "app@.service": APP}) as bed:
        share = bed.machine.share
        front: Json = {"domain": "app.test"}
        exposed: Json = {"machines": {"app": {"expose": {"app": {"port": 8081, "metrics": False, "front": front}}}}}
        (share / "exposed.json").write_text(json.dumps(exposed))
        bed.machine.ctl("start", "app@2.service", "app@3.service")
        for place in ("2", "3"):
            config: Json = {
                "inventory": {"exposed": "exposed.json"},
                "backends": {"static": {"lan": {"machines": {"app": f"127.0.0.{place}"}}}},
                "front": {"kind": kind, "file": str(bed.source), "ports": {"http": 8080}},
                "output": {"directory": "/var/lib/clan-discovery/targets"},
                "state": "/var/lib/clan-discovery/state",
            }
            (share / "config.json").write_text(json.dumps(config))
            bed.machine.ctl("start", "clan-discovery.service")
            bed.await_answer(f"place {place}")
        assert bed.answer("own.test") == "own"


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_file_leaves_the_running_configuration(kind: str) -> None:
    """The unit fails, the proxy serves the last good file also after a restart, and the next good file is taken."""
    with proxied(kind) as bed:
        bed.write("wrong {")
        eventually("the first file is refused", lambda: bed.result() == "exit-code")
        bed.machine.ctl("restart", f"{kind}.service")
        eventually("the proxy answers without it", lambda: bed.answer("own.test") == "own")
        bed.write(bed.front("good"))
        eventually("the good file", lambda: bed.answer() == "good")
        bed.write(bed.front("bad") + "wrong {")
        eventually("the file is refused", lambda: bed.result() == "exit-code")
        assert f"{kind} does not take {bed.source}, and goes on without this version" in bed.machine.journal(
            "clan-discovery-front.service"
        )
        assert bed.answer() == "good"
        bed.machine.ctl("restart", f"{kind}.service")
        eventually("the proxy is back", lambda: bed.answer() == "good")
        bed.write(bed.front("better"))
        eventually("the next file", lambda: bed.answer() == "better")


@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_that_starts_later_has_the_newest_file(kind: str) -> None:
    """A change while it does not run is no failure."""
    with proxied(kind) as bed:
        bed.write(bed.front("old"))
        eventually("the old front", lambda: bed.answer() == "old")
        bed.machine.ctl("stop", f"{kind}.service")
        bed.write(bed.front("new"))
        bed.machine.ctl("start", f"{kind}.service")
        eventually("the new front", lambda: bed.answer() == "new")
        assert bed.result() == "success"


@pytest.mark.parametrize("kind", KINDS)
def test_the_proxy_sees_nothing_else_of_the_state(kind: str) -> None:
    """In its sandbox the directory of clan-discovery is not accessible, and the copy is."""
    with proxied(kind) as bed:
        bed.write(bed.front("good"))
        eventually("the good file", lambda: bed.answer() == "good")
        process = bed.machine.show(f"{kind}.service", "MainPID")
        shown = bed.machine.command("nsenter", "-t", process, "-m", "ls", "-A", "/var/lib/clan-discovery/front")
        # The directory existed before the proxy started.
        assert shown.stdout == ""
