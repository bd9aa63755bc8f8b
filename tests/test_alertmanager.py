"""The shipped config of Alertmanager and its mail template, read by real amtool."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.alerting import TEMPLATE, alerting_tool, alertmanager_config, write_config

if TYPE_CHECKING:
    from pathlib import Path

    from clan_discovery.model import Json

WORDS: dict[str, str] = {
    "summary": "nas of job node does not answer",
    "description": "Its exporter is stopped.",
    "inventory": "nas (storage, zfs): the big disk box",
    "explain": "clan-discovery explain nas",
    "runbook": "docs/alerts.md#targetdown",
    "board": "/d/clan-host?var-machine=nas",
}
DOWN = {"alertname": "TargetDown", "machine": "nas", "severity": "critical"}
BOTH = pytest.mark.parametrize("which", ["debian", "newer"])


def amtool(which: str, *words: str) -> str:
    """Run amtool, which must succeed."""
    done = subprocess.run([alerting_tool("amtool", which), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alert(labels: dict[str, str], words: dict[str, str], *, resolved: bool = False) -> Json:
    """Return an alert as a template gets it."""
    return {
        "status": "resolved" if resolved else "firing",
        "labels": {**labels},
        "annotations": {**words},
        "startsAt": "2026-11-22T03:04:05+01:00",
        "endsAt": "2026-11-22T03:09:05Z",
    }


def rendered(place: Path, part: str, *alerts: Json, which: str = "debian") -> str:
    """Return a part of the mail about alerts."""
    firing = any(isinstance(one, dict) and one["status"] == "firing" for one in alerts)
    labels = [one["labels"] for one in alerts if isinstance(one, dict)]
    common: Json = {
        name: value
        for name, value in (labels[0].items() if isinstance(labels[0], dict) else ())
        if all(isinstance(other, dict) and other.get(name) == value for other in labels)
    }
    data: Json = {
        "status": "firing" if firing else "resolved",
        "commonLabels": common,
        "alerts": [*alerts],
    }
    (place / "data.json").write_text(json.dumps(data))
    kind = part if part == "html" else "text"
    words = [f"--template.glob={TEMPLATE}", f"--template.type={kind}", f"--template.data={place}/data.json"]
    return amtool(which, "template", "render", *words, f'--template.text={{{{ template "clan.mail.{part}" . }}}}')


@BOTH
def test_amtool_accepts_the_config_and_the_template(which: str, tmp_path: Path) -> None:
    file = write_config(tmp_path, alertmanager_config("127.0.0.1:25", deadman="http://127.0.0.1:1/ping"))
    said = amtool(which, "check-config", str(file))
    assert said.count("SUCCESS") == 2
    assert "FAILED" not in said


@BOTH
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("alertname=TargetDown severity=critical", "critical"),
        ("alertname=Disk severity=warning", "warning"),
        ("alertname=ClanTargetStray severity=info", "info"),
        # A rule of the user's own.
        ("alertname=Own", "warning"),
        ("alertname=Own severity=page", "warning"),
        ("alertname=DependencyDown severity=none", "inhibitors"),
        ("alertname=Watchdog severity=none", "deadman"),
    ],
)
def test_severity_selects_the_receiver(which: str, labels: str, receiver: str, tmp_path: Path) -> None:
    file = write_config(tmp_path, alertmanager_config("127.0.0.1:25"))
    assert amtool(which, "config", "routes", "test", f"--config.file={file}", *labels.split()).strip() == receiver


@BOTH
def test_mail_says_what_is_wrong_where_and_how_to_fix_it(which: str, tmp_path: Path) -> None:
    assert rendered(tmp_path, "subject", alert(DOWN, WORDS), which=which) == "[critical] nas: TargetDown"
    assert rendered(tmp_path, "text", alert(DOWN, WORDS), which=which) == (
        "nas (storage, zfs): the big disk box\n"
        "\n"
        "TargetDown (critical), since 2026-11-22 02:04:05 UTC\n"
        "  nas of job node does not answer\n"
        "  Its exporter is stopped.\n"
        "  Fix:     clan-discovery explain nas\n"
        "  Runbook: docs/alerts.md#targetdown\n"
        "  Board:   /d/clan-host?var-machine=nas\n"
        "\n"
        "Silence this machine for two hours, where Alertmanager runs:\n"
        '  amtool silence add machine=nas --duration=2h --comment="..."\n'
    )


def test_mail_about_an_end_is_short(tmp_path: Path) -> None:
    ended = alert(DOWN, WORDS, resolved=True)
    assert rendered(tmp_path, "subject", ended) == "[resolved] nas: TargetDown"
    assert rendered(tmp_path, "text", ended) == (
        "nas (storage, zfs): the big disk box\n"
        "\n"
        "Resolved: TargetDown, from 2026-11-22 02:04:05 UTC to 2026-11-22 03:09:05 UTC\n"
        "  nas of job node does not answer\n"
    )


def test_subject_of_several_alerts_counts_those_that_fire(tmp_path: Path) -> None:
    other = {**DOWN, "instance": "nas:9633"}
    disk = {**DOWN, "alertname": "Disk"}
    assert rendered(tmp_path, "subject", alert(DOWN, {}), alert(other, {})) == "[critical] nas: 2 x TargetDown"
    assert rendered(tmp_path, "subject", alert(DOWN, {}), alert(disk, {})) == "[critical] nas: 2 alerts"
    ended = alert(disk, {}, resolved=True)
    assert rendered(tmp_path, "subject", alert(DOWN, {}), ended) == "[critical] nas: TargetDown"


def test_alert_without_a_machine_or_annotations_is_a_mail(tmp_path: Path) -> None:
    bare = alert({"alertname": "ClanConfigInvalid"}, {})
    assert rendered(tmp_path, "subject", bare) == "[alert] ClanConfigInvalid"
    assert rendered(tmp_path, "text", bare) == "\nClanConfigInvalid, since 2026-11-22 02:04:05 UTC\n"


HOSTILE = "{{ .Status }} {{ $x }} ${HOME} $$ <script>\r\nBcc: evil@example.org\u2028\u202e\x85\x1b[31mx"
HARMLESS = "{{ .Status }} {{ $x }} ${HOME} $$ <script> Bcc: evil@example.org [31mx"


def test_text_of_others_is_one_line_and_no_template(tmp_path: Path) -> None:
    """Also in the subject, where a new line would begin another header."""
    words = dict.fromkeys(WORDS, HOSTILE)
    text = rendered(tmp_path, "text", alert({**DOWN, "machine": HOSTILE}, words))
    assert text.count(HARMLESS) == len(WORDS)
    assert len(text.splitlines()) == 2 + len(WORDS)
    assert "amtool" not in text
    subject = rendered(tmp_path, "subject", alert(dict.fromkeys(DOWN, HOSTILE), words))
    assert subject == f"[{HARMLESS}] {HARMLESS}: {HARMLESS}"


def test_html_says_the_same_and_escapes_it(tmp_path: Path) -> None:
    html = rendered(tmp_path, "html", alert(DOWN, WORDS))
    for word in WORDS.values():
        assert word in html
    hostile = rendered(tmp_path, "html", alert(dict.fromkeys(DOWN, HOSTILE), dict.fromkeys(WORDS, HOSTILE)))
    assert "<script>" not in hostile
    # The machine's line is that of the inventory.
    assert hostile.count(HARMLESS.replace("<", "&lt;").replace(">", "&gt;")) == len(WORDS) + 2


@BOTH
def test_mail_has_a_bounded_size(which: str, tmp_path: Path) -> None:
    """A machine can send any number of alerts about itself, with labels of any length."""
    firing = [alert({**DOWN, "instance": f"{number}"}, {"summary": "é" * 5000}) for number in range(120)]
    ended = [alert({**DOWN, "instance": f"{number}"}, {}, resolved=True) for number in range(70)]
    for part in ("text", "html"):
        mail = rendered(tmp_path, part, *firing, *ended, which=which)
        assert mail.count("TargetDown") == 100
        assert mail.count("é") == 50 * 1500
        assert "Of 120 alerts that fire and 70 that are resolved, this mail has at most 50 each." in mail
        assert "this mail has" not in rendered(tmp_path, part, *firing[:50], *ended[:50], which=which)
