"""Alertmanager with the shipped config and mail template, and a mail server that keeps what arrives."""

from __future__ import annotations

import contextlib
import json
import shutil
import urllib.request
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from typing import TYPE_CHECKING, Final

from aiosmtpd.controller import Controller

from tests.support.builds import NotBuiltError, alerting_program
from tests.support.nix import ROOT
from tests.support.programs import absent, eventually, free_port, get, program, running

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from email.message import EmailMessage
    from pathlib import Path

    from aiosmtpd.smtp import SMTP, Envelope, Session

    from clan_discovery.model import Json

DATA: Final = ROOT / "clan_discovery/data"
TEMPLATE: Final = DATA / "mail.tmpl"
SENDER: Final = "alerts@example.org"
RECIPIENT: Final = "admin@example.org"
LONG_S: Final = 120.0
_DEBIAN: Final = {"alertmanager": "prometheus-alertmanager"}
QUICK: Final = {"10s": "5s", "5m": "2s"}
"""How long a test waits, instead of `group_wait` and `group_interval`. A busy machine needs a while for a group."""


def alerting_tool(name: str, which: str) -> str:
    """Return alertmanager or amtool: Debian's, or the newer one of nixpkgs, which must be built."""
    if which == "debian":
        return program(_DEBIAN.get(name, name))
    try:
        return str(alerting_program(name))
    except NotBuiltError as error:
        absent(f"newer {name}", str(error), required=False)


@dataclass(frozen=True)
class Mail:
    """A mail, and to whom it was really sent."""

    sender: str
    recipients: list[str]
    message: EmailMessage

    @property
    def subject(self) -> str:
        """Its subject."""
        return str(self.message["Subject"])

    @property
    def text(self) -> str:
        """What a reader of plain text sees."""
        return self._body("plain")

    @property
    def html(self) -> str:
        """What a reader of HTML gets."""
        return self._body("html")

    def _body(self, kind: str) -> str:
        (part,) = (part for part in self.message.walk() if part.get_content_subtype() == kind)
        assert not part.is_multipart()
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        return content.decode().replace("\r\n", "\n")


@dataclass
class Mailbox:
    """A mail server that takes everything."""

    host: str
    port: int
    mails: list[Mail] = field(default_factory=list[Mail])

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's
        """Keep a mail."""
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=policy.default)
        self.mails.append(Mail(str(envelope.mail_from), [str(one) for one in envelope.rcpt_tos], message))
        return "250 kept"

    @property
    def address(self) -> str:
        """Where it listens, as a smarthost."""
        return f"{self.host}:{self.port}"

    @property
    def subjects(self) -> list[str]:
        """The subjects of all mails in the order in which they arrived."""
        return [mail.subject for mail in self.mails]


@contextlib.contextmanager
def mailbox(host: str = "127.0.0.1", port: int | None = None) -> Generator[Mailbox]:
    """Run a mail server."""
    box = Mailbox(host, port or free_port())
    controller = Controller(box, hostname=box.host, port=box.port, ready_timeout=LONG_S)
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


def alertmanager_config(
    smarthost: str, *, deadman: str | None = None, times: Mapping[str, str] | None = None
) -> dict[str, Json]:
    """Return the shipped config with a mail server, as NixOS completes it; `times` replaces durations of routes."""
    text = (DATA / "alertmanager.json").read_text()
    for shipped, other in (times or {}).items():
        text = text.replace(f'"{shipped}"', f'"{other}"')
    config: dict[str, Json] = json.loads(text)
    receivers = config["receivers"]
    assert isinstance(receivers, list)
    for receiver in receivers:
        match receiver:
            case {"email_configs": [dict(mail)]}:
                mail["to"] = RECIPIENT
            case {"webhook_configs": [dict(hook)]} if deadman is not None:
                hook["url"] = deadman
            case {"webhook_configs": list(hooks)}:
                hooks.clear()
            case _:
                pass
    return {**config, "global": {"smtp_from": SENDER, "smtp_smarthost": smarthost, "smtp_require_tls": False}}


def write_config(place: Path, config: Mapping[str, Json]) -> Path:
    """Write a config with the mail template beside it; return it."""
    shutil.copy(TEMPLATE, place / TEMPLATE.name)
    file = place / "alertmanager.yml"
    file.write_text(json.dumps(config))
    return file


@contextlib.contextmanager
def alertmanager(
    place: Path, config: Mapping[str, Json], which: str = "debian", port: int | None = None
) -> Generator[int]:
    """Run Alertmanager alone on loopback; give its port."""
    port = port or free_port()
    command = [
        alerting_tool("alertmanager", which),
        f"--config.file={write_config(place, config)}",
        f"--storage.path={place / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with running(command, place / "alertmanager.log") as process:

        def ready() -> bool:
            assert process.poll() is None, (place / "alertmanager.log").read_text()[-2000:]
            return bool(get(f"http://127.0.0.1:{port}/-/ready"))

        eventually("Alertmanager answers", ready, LONG_S)
        yield port


def send(port: int, alerts: Sequence[Json]) -> None:
    """Send alerts to Alertmanager, as Prometheus does."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v2/alerts",
        data=json.dumps(alerts).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - same
        assert answer.status == 200
