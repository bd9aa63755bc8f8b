"""The units of an agent, rendered by real Nix and run by a real systemd, with a real journal and real stores.

A restart of the machine is a stop of its units in their order. A power cut is SIGKILL for all of them at once: what
they have in memory is lost.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import urllib.parse
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clan_discovery.emit.receive import render_receiver
from clan_discovery.model import AgentToken, FrontSettings, ReceiveSettings
from tests.support.builds import NotBuiltError, agent_program
from tests.support.nix import value
from tests.support.programs import absent, eventually, program, scraper_program
from tests.support.systemd import booted, unit_text

if TYPE_CHECKING:
    from collections.abc import Generator

    from clan_discovery.model import Json
    from tests.support.systemd import Machine

ROOT = Path(__file__).resolve().parent.parent
UPLOAD: Final = Path("/lib/systemd/system/systemd-journal-upload.service")
TOKEN: Final = "dino-0123456789abcdefghijklmnopqrstuvwxyz"  # noqa: S105 - of the test
ALL: Final = ("clan-discovery-agent", "clan-discovery-logs", "systemd-journal-upload")

STORES: Final = {
    "logs-store.service": """[Service]
ExecStart=/opt/share/victoria-logs -httpListenAddr=127.0.0.1:9428 -storageDataPath=/opt/share/logs
""",
    "metrics-store.service": """[Service]
ExecStart=/usr/bin/victoria-metrics -httpListenAddr=127.0.0.1:8428 -storageDataPath=/opt/share/metrics
""",
    "nginx.service": """[Service]
ExecStart=/usr/sbin/nginx -c /opt/share/nginx.conf
RuntimeDirectory=nginx
""",
    # Two hundred lines of a unit.
    "writer@.service": """[Service]
Type=oneshot
ExecStart=/bin/sh -c 'for n in $$(seq 200); do echo line-%i-$$n; done'
""",
    "exporter.service": """[Service]
ExecStart=/opt/share/python /opt/share/exporter.py
""",
}

NGINX: Final = """daemon off;
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
  include /opt/share/receiver.conf;
}
"""

# Counts its scrapes: a sample for each number from 1 is a fleet of scrapes without a loss.
EXPORTER: Final = """
import http.server, os
count = 0
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global count
        if os.path.exists("/opt/share/paused"):
            self.send_error(503)
            return
        count += 1
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(f"scrapes_total {count}\\n".encode())
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", 9100), Handler).serve_forever()
"""
# An entry as any user can write it, with a field that has a line of 9 MB after a short one.
LARGE: Final = """
import array, fcntl, os, socket, struct
value = b"short\\n" + b"x" * 9_000_000
body = b"MESSAGE=large\\nFILL\\n" + struct.pack("<Q", len(value)) + value + b"\\n"
file = os.memfd_create("entry", os.MFD_ALLOW_SEALING)
os.write(file, body)
fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.connect("/run/systemd/journal/socket")
journal.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))])
"""
PYTHON: Final = """#!/bin/sh
export LD_LIBRARY_PATH=/opt/python/lib
exec /opt/python/bin/python3 -I "$@"
"""
SCRAPE: Final[Json] = {
    "global": {"scrape_interval": "500ms"},
    "scrape_configs": [
        {"job_name": "node", "static_configs": [{"targets": ["127.0.0.1:9100"]}]},
        {"job_name": "vmagent", "static_configs": [{"targets": ["127.0.0.1:8429"]}]},
    ],
}


def rendered() -> dict[str, Json]:
    """Return the units and the script that Nix renders."""
    given = 'vmagent = "/opt/share/vmagent"; vlagent = "/opt/share/vlagent"; url = "http://localhost:8480";'
    found = value(f"import {ROOT}/tests/nix/agent-unit.nix {{ {given} }}")
    assert isinstance(found, dict)
    return found


def unit_files(found: dict[str, Json]) -> dict[str, str]:
    """Return the text of the units; that of systemd-journal-upload is Debian's, with what NixOS adds."""
    if not UPLOAD.exists():
        absent("systemd-journal-upload", "not installed (Debian: systemd-journal-remote)")
    texts: dict[str, str] = {}
    for name in ("agent", "logs", "cursor", "upload"):
        unit = found[name]
        assert isinstance(unit, dict)
        texts[name] = unit_text(unit, "Service")
    timer = found["timer"]
    assert isinstance(timer, dict)
    return {
        "clan-discovery-agent.service": texts["agent"],
        "clan-discovery-logs.service": texts["logs"],
        "clan-discovery-cursor.service": texts["cursor"],
        "clan-discovery-cursor.timer": unit_text(timer, "Timer"),
        "systemd-journal-upload.service": UPLOAD.read_text() + texts["upload"].replace("Description=\n", ""),
    }


def receiver() -> str:
    """Return the config of nginx that `token write` writes."""
    settings = ReceiveSettings(
        kind="nginx", domain="localhost", metrics="http://127.0.0.1:8428", logs="http://127.0.0.1:9428"
    )
    front = FrontSettings(kind="nginx", listen=("127.0.0.1",), http_port=8480, https_port=8480)
    return render_receiver([AgentToken("dino", TOKEN)], settings, front)


class Agent:
    """A booted systemd with an agent, its exporter, a receiver and its stores."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def run(self, script: str, seconds: float = 60) -> str:
        """Run a shell script, which must succeed, as root."""
        done = self.machine.command("sh", "-ec", script, seconds=seconds)
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *units: str) -> None:
        """Start units, in this order."""
        for unit in units:
            self.machine.ctl("start", unit)

    def write(self, *names: str) -> None:
        """Write lines to the journal: 200 for each name."""
        for name in names:
            self.machine.ctl("start", f"writer@{name}")

    def query(self, text: str) -> list[dict[str, str]]:
        """Ask VictoriaLogs."""
        asked = urllib.parse.urlencode({"query": text})
        lines = self.run(f"curl -sS --fail 'http://127.0.0.1:9428/select/logsql/query?{asked}'").splitlines()
        return [json.loads(line) for line in lines]

    def stored(self, *names: str) -> Counter[str]:
        """Return how often each line of `write` is stored."""
        units = ",".join(f'"writer@{name}.service"' for name in names)
        found = self.query(f'"_SYSTEMD_UNIT":in({units}) | fields _msg')
        return Counter(entry["_msg"] for entry in found)

    def samples(self) -> Counter[int]:
        """Return how often each value of the exporter's counter is stored."""
        self.run("curl -sS --fail http://127.0.0.1:8428/internal/force_flush")
        lines = self.run("curl -sS --fail 'http://127.0.0.1:8428/api/v1/export?match\\[\\]=scrapes_total'").splitlines()
        # Without the marks that a series has ended.
        return Counter(int(number) for line in lines for number in json.loads(line)["values"] if number is not None)

    def scrapes(self) -> int:
        """Return how often the exporter was scraped; the question is one of them."""
        return int(self.run("curl -sS --fail http://127.0.0.1:9100/").split()[1])

    def is_uploaded(self, name: str) -> bool:
        """Tell whether systemd-journal-upload has saved a cursor behind the lines of `write`."""
        cursor = "$(sed -n s/^LAST_CURSOR=//p /var/lib/systemd/journal-upload/state)"
        return self.run(f'journalctl -q -o cat -u writer@{name} --after-cursor="{cursor}"') == ""

    def pending(self) -> int:
        """Return how many bytes vlagent has on disk or in memory."""
        found = re.findall(r"^vlagent_remotewrite_pending_\w+\{.*\} (\d+)$", self.run(METRICS), re.MULTILINE)
        return sum(map(int, found))

    def failures(self) -> int:
        """Return how many attempts of vlagent failed."""
        found = re.findall(r"^vlagent_remotewrite_errors_total\{.*\} (\d+)$", self.run(METRICS), re.MULTILINE)
        return sum(map(int, found))

    def fail_again(self) -> None:
        """Wait until another attempt of vlagent fails."""
        failed = self.failures()
        eventually("another attempt failed", lambda: self.failures() > failed)

    def notes(self) -> set[str]:
        """Return the names of the files with cursors."""
        return set(self.run("ls /var/lib/clan-discovery-cursor").split())

    def on_disk(self) -> int:
        """Return how many bytes are in vlagent's queue on disk."""
        found = re.findall(r"^vm_persistentqueue_bytes_pending\{.*\} (\d+)$", self.run(METRICS), re.MULTILINE)
        return sum(map(int, found))

    def restart(self, *names: str) -> None:
        """Restart the agent's units as a restart of the machine does; write lines while they are stopped."""
        # The exporter does not count a scrape whose sample is not read.
        (self.machine.share / "paused").touch()
        for unit in reversed(ALL):
            self.machine.ctl("stop", unit)
        (self.machine.share / "paused").unlink()
        self.write(*names)
        self.start(*ALL)

    def power_cut(self) -> None:
        """Kill the agent's units at once, and start them again."""
        self.run(f"systemctl kill --kill-whom=all -s KILL {' '.join(ALL)}; systemctl stop {' '.join(ALL)} || true")
        self.start(*ALL)


METRICS: Final = "curl -sS --fail http://127.0.0.1:9429/metrics"


@contextlib.contextmanager
def agent() -> Generator[Agent]:
    """Boot a machine with a running agent and receiver."""
    try:
        programs = {
            "vlagent": agent_program("vlagent"),
            "victoria-logs": agent_program("victoria-logs"),
            "vmagent": Path(scraper_program("vmagent", "newer")),
        }
    except NotBuiltError as error:
        absent("vlagent", str(error), required=False)
    for name in ("nginx", "victoria-metrics", "curl"):
        program(name)
    found = rendered()
    with booted({**unit_files(found), **STORES}) as machine:
        share = machine.share
        for name, path in programs.items():
            shutil.copy(path, share / name)
        (share / "cursor").write_text(str(found["script"]))
        (share / "nginx.conf").write_text(NGINX)
        (share / "receiver.conf").write_text(receiver())
        (share / "scrape.yaml").write_text(json.dumps(SCRAPE))
        (share / "exporter.py").write_text(EXPORTER)
        (share / "python").write_text(PYTHON)
        (share / "python").chmod(0o755)
        (share / "secret").mkdir(mode=0o700)
        (share / "secret" / "token").write_text(TOKEN + "\n")
        (share / "secret" / "token").chmod(0o600)
        one = Agent(machine)
        # As systemd's tmpfiles do.
        one.run(
            'd=/var/log/journal/$(cat /etc/machine-id); mkdir "$d"; chgrp systemd-journal "$d"; chmod 2755 "$d"\n'
            f"printf '[Upload]\\nURL={found['journal']}\\n' > /etc/systemd/journal-upload.conf\n"
            "journalctl --flush"
        )
        one.start("logs-store", "metrics-store", "nginx", "exporter", *ALL)
        eventually("the exporter was scraped", lambda: one.samples().total() > 0)
        yield one


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` prints nothing, and the exposure is at most 1.6; of what runs as root, at most 3.5."""
    found = unit_files(rendered())
    for name, text in found.items():
        (tmp_path / name).write_text(
            text.replace("/opt/share/vmagent", "/bin/true").replace("/opt/share/vlagent", "/bin/true")
        )
    analyze = program("systemd-analyze")
    verified = subprocess.run(
        [analyze, "verify", "--man=no", *map(str, tmp_path.iterdir())], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    limits = {"clan-discovery-agent": 1.6, "clan-discovery-logs": 1.6, "clan-discovery-cursor": 3.5}
    for name, limit in limits.items():
        judged = subprocess.run(
            [analyze, "security", "--offline=true", "--no-pager", str(tmp_path / f"{name}.service")],
            capture_output=True,
            text=True,
            check=True,
        )
        exposure = re.search(r"exposure level for \S+: ([0-9.]+)", judged.stdout)
        assert exposure is not None
        assert float(exposure[1]) <= limit, judged.stdout


def test_entries_arrive_with_their_fields_times_and_order() -> None:
    """Every field of the journal is stored, in one stream per machine and unit, with the entry's own time."""
    with agent() as one:
        one.write("a", "b")
        eventually("all lines are stored", lambda: one.stored("a", "b").total() == 400)
        assert set(one.stored("a", "b").values()) == {1}

        # VictoriaLogs finds the words of a new entry later than the entry.
        eventually("the line is found", lambda: len(one.query('_msg:="line-a-1"')) == 1)
        (first,) = one.query('_msg:="line-a-1"')
        (written,) = [
            entry
            for entry in map(json.loads, one.run("journalctl -o json -u writer@a").splitlines())
            if entry["MESSAGE"] == "line-a-1"
        ]
        assert first["_stream"] == '{_SYSTEMD_UNIT="writer@a.service",machine="dino"}'
        # Some are added by journald from a cache, when the writer's process is gone.
        kept = {name: text for name, text in written.items() if name not in {"MESSAGE", "__REALTIME_TIMESTAMP"}}
        assert {name: first.get(name) for name in kept} == kept
        own = timedelta(microseconds=int(written["__REALTIME_TIMESTAMP"]))
        assert datetime.fromisoformat(first["_time"]) == datetime.fromtimestamp(0, UTC) + own

        # As the journal numbers them: lines of one microsecond have no order in the store.
        lines = sorted(
            one.query('"_SYSTEMD_UNIT":="writer@a.service" | fields _msg, _time, __CURSOR'),
            key=lambda entry: int(entry["__CURSOR"].split(";")[1].removeprefix("i="), 16),
        )
        assert [entry["_msg"] for entry in lines] == [f"line-a-{n}" for n in range(1, 201)]
        times = [datetime.fromisoformat(entry["_time"]) for entry in lines]
        assert times == sorted(times)


def test_the_token_is_in_no_readable_place() -> None:
    """The token is in no command line, no environment, no log, and in no file that other users can read."""
    with agent() as one:
        one.write("a")
        eventually("the token is accepted", lambda: one.stored("a").total() == 200)
        # Not in the command of the search itself.
        (one.machine.share / "secret" / "pattern").write_text(TOKEN[:30])
        search = "grep -l -a -s -F -f /opt/share/secret/pattern"
        assert one.run(f"{search} /proc/[0-9]*/cmdline /proc/[0-9]*/environ || true") == ""
        assert one.run("journalctl -o export | grep -a -c -F -f /opt/share/secret/pattern || true").strip() == "0"
        paths = "/run /var/lib /var/log /var/cache /etc/systemd /tmp"
        found = one.run(f"find {paths} -type f -readable -size -10M -exec {search} {{}} + || true").split()
        assert set(found) <= {
            f"/run/credentials/{unit}.service/token" for unit in ("clan-discovery-agent", "clan-discovery-logs")
        }
        for path in found:
            assert one.run(f"stat -c %a {path}").strip() in {"400", "440"}


def test_a_restart_while_the_receiver_is_away_loses_nothing() -> None:
    """No sample and no line is lost, and none is stored twice."""
    with agent() as one:
        one.write("a")
        eventually("the lines are stored", lambda: one.stored("a").total() == 200)
        one.machine.ctl("stop", "nginx")
        one.write("b")
        eventually("vlagent has entries on disk", lambda: one.pending() > 0)
        eventually("the lines are uploaded", lambda: one.is_uploaded("b"))
        one.restart("c")
        eventually("the lines are uploaded", lambda: one.is_uploaded("c"))
        one.restart("d")
        one.start("nginx")
        eventually("every line is stored", lambda: len(one.stored("a", "b", "c", "d")) == 800, 180)
        last = one.scrapes()
        eventually("every sample is stored", lambda: {*range(1, last)} <= {*one.samples()}, 180)
        assert set(one.stored("a", "b", "c", "d").values()) == {1}
        assert set(one.samples().values()) == {1}
        assert "rewind" not in one.notes()
        # systemd-journal-upload 252 begins with the entry that it sent last.
        twice = one.query("* | stats by (__CURSOR) count() n | filter n:>1")
        assert len(twice) <= 2
        assert {entry["n"] for entry in twice} <= {"2"}


def test_a_power_cut_loses_no_line() -> None:
    """The journal is sent again from the last entry that was known to be delivered, and from no earlier one."""
    with agent() as one:
        one.write("a")
        eventually("the lines are stored", lambda: one.stored("a").total() == 200)
        eventually("nothing is pending", lambda: one.is_uploaded("a") and one.pending() == 0)
        for _ in range(4):
            one.start("clan-discovery-cursor")
        assert {"delivered", "note.0", "note.1", "note.2"} <= one.notes()
        one.write("b")
        eventually("the lines are stored", lambda: one.stored("b").total() == 200)

        one.machine.ctl("stop", "nginx")
        one.write("c")
        eventually("a block is being sent", lambda: one.failures() > 0)
        one.write("d")
        eventually("more is on disk", lambda: one.on_disk() > 0)
        one.power_cut()
        one.write("e")
        one.start("nginx")
        eventually("every line is stored", lambda: len(one.stored("a", "b", "c", "d", "e")) == 1000, 180)
        # Sent before the power cut and after the last note.
        twice = {line for line, times in one.stored("a", "b", "c", "d", "e").items() if times > 1}
        assert twice == {f"line-b-{n}" for n in range(1, 201)}
        assert max(one.stored("b").values()) == 2
        # The copies have one cursor.
        assert one.query('"_SYSTEMD_UNIT":="writer@b.service" | count_uniq(__CURSOR) n')[0]["n"] == "200"


def test_an_entry_that_is_too_large_does_not_stop_the_others() -> None:
    """The request with it is refused; it is skipped, and every other entry is stored once."""
    with agent() as one:
        (one.machine.share / "send.py").write_text(LARGE)
        one.write("a")
        one.run("/opt/share/python /opt/share/send.py")
        one.write("b")
        eventually("all lines are stored", lambda: one.stored("a", "b").total() >= 400, 120)
        assert set(one.stored("a", "b").values()) == {1}
        assert one.query('_msg:="large"') == []
        assert "skipped an entry that is too large" in one.machine.journal("systemd-journal-upload")


def test_what_is_not_delivered_is_no_cursor_to_go_back_to() -> None:
    """While the receiver is away or refuses, no note is taken, and the one before remains."""
    with agent() as one:
        one.write("a")
        eventually("the lines are stored", lambda: one.stored("a").total() == 200)
        eventually("nothing is pending", lambda: one.is_uploaded("a") and one.pending() == 0)
        for _ in range(4):
            one.start("clan-discovery-cursor")
        before = one.run("cat /var/lib/clan-discovery-cursor/delivered")
        one.machine.ctl("stop", "nginx")
        one.write("b")
        for _ in range(4):
            one.fail_again()
            one.start("clan-discovery-cursor")
        assert one.run("cat /var/lib/clan-discovery-cursor/delivered") == before
        # It is no line in the journal.
        assert "how far" not in one.run("journalctl -o cat")


def test_a_full_disk_loses_neither_the_cursor_nor_a_line() -> None:
    """The units fail while the disk is full, and deliver everything afterwards."""
    with agent() as one:
        for unit in reversed(ALL):
            one.machine.ctl("stop", unit)
        one.run(
            "mkdir /var/small; mount -t tmpfs -o size=8m,mode=700 tmpfs /var/small\n"
            "cp -a /var/lib/private/. /var/small/\n"
            "mount --bind /var/small /var/lib/private"
        )
        one.start(*ALL)
        one.write("a")
        eventually("the lines are stored", lambda: one.stored("a").total() == 200)
        one.machine.ctl("stop", "nginx")
        one.run("head -c 20m /dev/zero > /var/lib/private/filler || true")
        one.write("b")
        eventually(
            "systemd-journal-upload does not run",
            lambda: int(one.machine.show("systemd-journal-upload", "NRestarts")) > 1,
            120,
        )
        one.write("c")
        one.start("nginx")
        one.run("rm /var/lib/private/filler")
        eventually("every line is stored", lambda: len(one.stored("a", "b", "c")) == 600, 180)
        eventually("all units run", lambda: {one.machine.show(unit, "ActiveState") for unit in ALL} == {"active"})
