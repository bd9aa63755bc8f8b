"""Fault tests with real DNS servers: a zone that changes, a server that is killed, another resolv.conf."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.dns import knot, write_zone
from tests.support.programs import absent, eventually, free_port, program, running
from tests.test_prometheus import active, start_prometheus
from tests.test_run import addresses, log_of, resident

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Done

PROGRAM = str(Path(sys.executable).with_name("clan-discovery"))
TTL_S = 3
ZONE = "db A 127.0.1.{db}\nweb A 127.0.1.2\n_node._tcp SRV 0 0 9100 db\n_node._tcp SRV 0 0 9100 web\n"


def write_config(place: Path, port: int) -> Path:
    """Write a config that lists a zone's nodes by SRV."""
    config = place / "config.yaml"
    config.write_text(
        "backends:\n  dns:\n    lan: {names: [_node._tcp.lan.example], job: node, min_ttl: 1s,"
        f' timeout: 3s, allow_networks: [127.0.1.0/24], servers: ["127.0.0.1:{port}"]}}\n'
        "output: {directory: targets}\n"
    )
    return config


def scraped(port: int) -> str:
    """Return where Prometheus scrapes the node exporter of db."""
    return active(port).get("db.lan.example", ("", "", ""))[1]


def test_zone_changes_are_followed_within_the_ttl(tmp_path: Path) -> None:
    """Prometheus gets the new targets, too."""
    port = free_port()
    (tmp_path / "targets").mkdir()
    with (
        knot(tmp_path, {"lan.example": ZONE.format(db=1)}, ttl=TTL_S) as server,
        resident(write_config(tmp_path, server.port), "--interval", "1h", "--log-level", "debug"),
    ):
        config = tmp_path / "config.yaml"
        eventually("published", lambda: addresses(config).get("db.lan.example") == "127.0.1.1:9100")
        command = start_prometheus(tmp_path, tmp_path / "targets")
        command[-1] += str(port)
        with running(command, tmp_path / "prometheus.log"):
            eventually("Prometheus has it", lambda: "127.0.1.1:9100" in scraped(port))
            for db in (11, 12, 13):
                time.sleep(0.7 * db % 3)  # at any time before the TTL ends
                server.rewrite("lan.example", ZONE.format(db=db), TTL_S)
                wanted = f"127.0.1.{db}:9100"
                eventually("followed", lambda: addresses(config)["db.lan.example"] == wanted)  # noqa: B023 - called here
            eventually("in Prometheus", lambda: "127.0.1.13:9100" in scraped(port))
        rounds = len(re.findall(r'msg="?(unchanged|published)', log_of(config)))
        assert rounds < 30, "it sleeps until the next answer ends"


def test_killed_server_removes_no_target(tmp_path: Path, run: Callable[..., Done]) -> None:
    """The server is killed and restarted during cycles: degraded meanwhile, and no target is lost."""
    port = free_port()
    config = write_config(tmp_path, port)
    codes: list[int] = []

    def rounds(until: Callable[[], bool]) -> None:
        end = time.monotonic() + 90
        while time.monotonic() < end:
            codes.append(run("refresh", "-q", "-c", config).code)
            assert len(addresses(config)) == 2
            if until():
                return
            time.sleep(0.2)
        pytest.fail("not so after 90 s")

    with knot(tmp_path, {"lan.example": ZONE.format(db=1)}, ttl=1, port=port) as server:
        rounds(lambda: len(codes) > 4)
        assert set(codes) == {0}
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(60)
        rounds(lambda: codes[-3:] == [3, 3, 3])
    with knot(tmp_path, {"lan.example": ZONE.format(db=7)}, ttl=1, port=port):
        rounds(lambda: codes[-1] == 0)
        assert addresses(config)["db.lan.example"] == "127.0.1.7:9100"


SCRIPT = """
set -eu
ip link set lo up
printf 'nameserver 127.0.0.9\\n' > resolv.conf
mount --bind resolv.conf /etc/resolv.conf
{knotd} -c knot.conf > knot.log 2>&1 &
trap 'kill $!' EXIT
refresh() {{
  {program} refresh -q -c config.yaml 2> said || echo "exit $?"
  cat said targets/node.json 2> /dev/null || true
}}
refresh
printf 'nameserver 127.0.0.53\\nsearch lan.example\\n' > resolv.conf
for try in $(seq 50); do refresh | grep -q 127.0.1.1 && break; sleep 0.1; done
refresh
"""


def test_resolv_conf_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """Without `servers`, those of /etc/resolv.conf are asked, with its search list if enabled.

    It runs in namespaces.
    """
    for tool in ("unshare", "ip", "mount"):
        if shutil.which(tool) is None:
            absent(tool, "not on PATH (Debian: util-linux, iproute2, mount)")
    write_zone(tmp_path, "lan.example", ZONE.format(db=1))
    (tmp_path / "db").mkdir()
    (tmp_path / "knot.conf").write_text(
        f"server:\n  listen: 127.0.0.53@53\n  rundir: {tmp_path}\ndatabase:\n  storage: {tmp_path}/db\n"
        f"zone:\n- domain: lan.example\n  file: {tmp_path}/lan.example.zone\n"
    )
    (tmp_path / "config.yaml").write_text(
        "backends:\n  dns:\n    lan: {names: [db], type: A, job: node, search: true, min_ttl: 1s, timeout: 2s,"
        " allow_networks: [127.0.1.0/24]}\n"
        "output: {directory: targets}\n"
    )
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    script = SCRIPT.format(knotd=program("knotd"), program=PROGRAM)
    command = ["unshare", *user, "--net", "--mount", "sh", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    if "Operation not permitted" in done.stderr and user:
        absent("unshare", "this user may make no namespaces", required=False)
    assert done.stderr == ""
    assert "exit 3" in done.stdout
    assert "127.0.0.9: Connection refused" in done.stdout
    assert "\n[]\n" in done.stdout  # the job exists before its first answer
    found = json.loads(done.stdout[done.stdout.rindex("[\n{") :])
    assert found[0]["targets"] == ["127.0.1.1:9100"]
    assert found[0]["labels"]["instance"] == "db.lan.example"


@pytest.mark.parametrize("free", range(6))
def test_https_without_file_descriptors_fails_in_one_line(free: int) -> None:
    """At any step (event loop, import, connection): a reason in one line, no traceback."""
    script = f"""
import os, resource, time
from clan_discovery.dnsclient.message import Question
from clan_discovery.dnsclient.resolver import ask
from clan_discovery.dnsclient.servers import open_transports, parse_server
servers = open_transports([parse_server("https://127.0.0.1:1/")], time.monotonic() + 5)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1 + {free}, 4096))
(failed,) = ask([Question("a.example", "A")], servers, time.monotonic() + 5).values()
servers[0].close()
print(failed.reason)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith(("Too many open files", "Connection refused"))
