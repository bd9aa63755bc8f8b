"""What arrives in the mailbox: alerts in a real Alertmanager with the shipped config, and a real mail server."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final

import pytest
from typing_extensions import override

from tests.support.alerting import (
    LONG_S,
    QUICK,
    RECIPIENT,
    SENDER,
    Mailbox,
    alerting_tool,
    alertmanager,
    alertmanager_config,
    mailbox,
    send,
    write_config,
)
from tests.support.programs import eventually, free_port, get, running

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from clan_discovery.model import Json

QUIET_S: Final = 9.0
"""Longer than `group_wait` and `group_interval` of the tests: what would arrive has arrived."""
DEPENDENTS: Final = ("cloud", "git", "photos", "tickets", "wiki", "words")
BOTH: Final = pytest.mark.parametrize("which", ["debian", "newer"])


def alert(name: str, machine: str, severity: str = "warning", *, ended: bool = False, **labels: str) -> Json:
    """Return an alert as the shipped rules make it. One that does not begin now would not wait for what inhibits it."""
    begins = datetime.now(UTC)
    ends = begins + timedelta(hours=1)
    if ended:
        begins, ends = begins - timedelta(minutes=5), begins
    return {
        "labels": {"alertname": name, "machine": machine, "severity": severity, **labels},
        "annotations": {
            "summary": f"{name} on {machine}",
            "inventory": f"{machine} (server): what it is for",
            "explain": f"clan-discovery explain {machine}",
        },
        "startsAt": begins.isoformat(),
        "endsAt": ends.isoformat(),
    }


@pytest.fixture
def bed(tmp_path: Path) -> Generator[Callable[[str], tuple[int, Mailbox]]]:
    """Return a function that runs Alertmanager and a mail server: the port of the one, and the other."""
    with contextlib.ExitStack() as stack:

        def start(which: str) -> tuple[int, Mailbox]:
            box = stack.enter_context(mailbox())
            config = alertmanager_config(box.address, times=QUICK)
            return stack.enter_context(alertmanager(tmp_path, config, which)), box

        yield start


def arrived(box: Mailbox, count: int) -> None:
    """Wait until so many mails have arrived, and check that no more do."""
    eventually(f"{count} mails have arrived, not {box.subjects}", lambda: len(box.mails) >= count, LONG_S)
    time.sleep(QUIET_S)
    assert len(box.mails) == count, box.subjects


@BOTH
def test_all_that_is_wrong_with_a_machine_is_one_mail(which: str, bed: Callable[[str], tuple[int, Mailbox]]) -> None:
    """Those of another machine are in another mail; `info` and `none` are in none."""
    port, box = bed(which)
    of_nas = [alert("TargetDown", "nas", job="node"), alert("TargetDown", "nas", job="smartctl"), alert("Disk", "nas")]
    others = [alert("ClanTargetStray", "phone", "info"), alert("Own", "nas", "none")]
    send(port, [*of_nas, *others, alert("Disk", "db", "critical")])
    arrived(box, 2)
    assert sorted(box.subjects) == ["[critical] db: Disk", "[warning] nas: 3 alerts"]
    assert {(mail.sender, *mail.recipients) for mail in box.mails} == {(SENDER, RECIPIENT)}
    (nas,) = (mail for mail in box.mails if "nas" in mail.subject)
    assert nas.text.startswith("nas (server): what it is for\n")
    assert nas.text.count("  Fix:     clan-discovery explain nas\n") == 3
    assert nas.message["Auto-Submitted"] == "auto-generated"
    assert [part.get_content_type() for part in nas.message.iter_parts()] == ["text/plain", "text/html"]


@BOTH
def test_end_of_an_alert_is_a_mail(which: str, bed: Callable[[str], tuple[int, Mailbox]]) -> None:
    port, box = bed(which)
    send(port, [alert("Disk", "nas")])
    eventually("it is told", lambda: len(box.mails) == 1, LONG_S)
    send(port, [alert("Disk", "nas", ended=True)])
    arrived(box, 2)
    assert box.subjects == ["[warning] nas: Disk", "[resolved] nas: Disk"]
    assert "amtool" not in box.mails[1].text


@BOTH
def test_dead_database_is_the_only_mail(which: str, bed: Callable[[str], tuple[int, Mailbox]]) -> None:
    """Its six dependents fail as well. Their full disks are told all the same."""
    port, box = bed(which)
    needs = [alert("DependencyDown", one, "none", on="db") for one in DEPENDENTS]
    failing = [alert("UnitFailed", one, "critical", scope="service") for one in DEPENDENTS]
    send(port, needs)  # DependencyDown waits for nothing, so it fires first
    send(port, [*failing, alert("TargetDown", "db", scope="service"), alert("Disk", "wiki")])
    arrived(box, 2)
    assert sorted(box.subjects) == ["[warning] db: TargetDown", "[warning] wiki: Disk"]


@BOTH
def test_failing_network_of_the_server_is_one_mail(which: str, bed: Callable[[str], tuple[int, Mailbox]]) -> None:
    """Every machine seems to be down."""
    port, box = bed(which)
    cause: Json = {"labels": {"alertname": "MostTargetsDown", "severity": "critical"}}
    send(port, [cause])  # it fires a minute earlier
    send(port, [alert("TargetDown", one, scope="service") for one in DEPENDENTS])
    arrived(box, 1)
    assert box.subjects == ["[critical] MostTargetsDown"]


@BOTH
def test_critical_alert_hides_its_own_warning(which: str, bed: Callable[[str], tuple[int, Mailbox]]) -> None:
    port, box = bed(which)
    send(port, [alert("Disk", "nas", "critical"), alert("Disk", "nas"), alert("Disk", "db")])
    arrived(box, 2)
    assert sorted(box.subjects) == ["[critical] nas: Disk", "[warning] db: Disk"]


@BOTH
def test_text_of_a_machine_adds_no_header(which: str, bed: Callable[[str], tuple[int, Mailbox]]) -> None:
    """It arrives as it is, but on one line: also a machine's name, which is a part of the subject."""
    port, box = bed(which)
    hostile = "x\r\nBcc: evil@example.org\r\n\r\n{{ .ExternalURL }} $HOME ${HOME} ü"
    harmless = "x Bcc: evil@example.org {{ .ExternalURL }} $HOME ${HOME} ü"
    labels: Json = {"alertname": hostile, "machine": hostile, "severity": "critical"}
    send(port, [{"labels": labels, "annotations": dict.fromkeys(("summary", "inventory", "explain"), hostile)}])
    arrived(box, 1)
    (mail,) = box.mails
    assert mail.subject == f"[critical] {harmless}: {harmless}"
    assert (mail.sender, mail.recipients) == (SENDER, [RECIPIENT])
    assert mail.message["From"] == SENDER
    assert "Bcc" not in mail.message
    assert mail.text.splitlines()[0] == harmless
    assert f"  Fix:     {harmless}\n" in mail.text
    assert "amtool" not in mail.text


class _Pings(ThreadingHTTPServer):
    """A dead-man's switch that counts."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Ping)
        self.paths: list[str] = []

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that went away."""


class _Ping(BaseHTTPRequestHandler):
    timeout = 20

    def do_POST(self) -> None:
        """Count a ping."""
        server = self.server
        assert isinstance(server, _Pings)
        self.rfile.read(int(self.headers["Content-Length"]))
        server.paths.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@BOTH
def test_dead_mans_switch_is_pressed_again_and_again(which: str, tmp_path: Path) -> None:
    """And `Watchdog` is no mail."""
    with mailbox() as box, _Pings() as pings:
        thread = threading.Thread(target=pings.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{pings.server_address[1]}/ping"
        config = alertmanager_config(box.address, deadman=url, times={**QUICK, "30s": "1s", "1m": "1s"})
        with alertmanager(tmp_path, config, which) as port:
            send(port, [{"labels": {"alertname": "Watchdog", "severity": "none"}}])
            eventually("three pings have arrived", lambda: len(pings.paths) >= 3, LONG_S)
        pings.shutdown()
        thread.join(30)
        assert set(pings.paths) == {"/ping"}
        assert not box.mails


def is_settled(url: str) -> bool:
    """Tell whether an Alertmanager is ready in a cluster of two."""
    status = get(url)
    return status.count(b'"address"') == 2 and b'"status":"ready"' in status


@BOTH
def test_two_alertmanagers_of_a_cluster_send_one_mail(which: str, tmp_path: Path) -> None:
    """Each server sends its alerts to both."""
    with contextlib.ExitStack() as stack:
        box = stack.enter_context(mailbox())
        gossip, web = (free_port(), free_port()), (free_port(), free_port())
        for number in (0, 1):
            place = tmp_path / str(number)
            place.mkdir()
            config = alertmanager_config(box.address, times=QUICK)
            command = [
                alerting_tool("alertmanager", which),
                f"--config.file={write_config(place, config)}",
                f"--storage.path={place / 'data'}",
                f"--web.listen-address=127.0.0.1:{web[number]}",
                f"--cluster.listen-address=127.0.0.1:{gossip[number]}",
                f"--cluster.peer=127.0.0.1:{gossip[1 - number]}",
                # How long the second one waits for the first, which this test must not depend on.
                "--cluster.peer-timeout=20s",
            ]
            stack.enter_context(running(command, place / "log"))
        for port in web:
            eventually("it sees both", functools.partial(is_settled, f"http://127.0.0.1:{port}/api/v2/status"), LONG_S)
        for port in web:
            send(port, [alert("Disk", "nas")])
        eventually("it is told", lambda: len(box.mails) >= 1, LONG_S)
        # The second one would send after its turn.
        time.sleep(25)
        assert box.subjects == ["[warning] nas: Disk"]
