"""The shipped alert rules, tested by promtool with the series in tests/data/rules."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tests.support.programs import program
from tests.support.rules import (
    FILES,
    Case,
    cases,
    labels_of,
    name_of,
    needed_by,
    rule,
    shipped,
    write_rules,
    write_tests,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.rules import Rule


ALERTS = [one for one in shipped() if "alert" in one]
PAGE = (ROOT / "docs/alerts.md").read_text()
HEALTHY = [
    ("up", "", "1x40"),
    ("scrape_samples_scraped", "", "9x40"),
    ("node_cpu_seconds_total", ', cpu="0", mode="idle"', "0+7.5x40"),
    ("node_cpu_seconds_total", ', cpu="0", mode="user"', "0+7.5x40"),
    ("node_memory_MemAvailable_bytes", "", "6x40"),
    ("node_memory_MemTotal_bytes", "", "8x40"),
    ("node_filesystem_avail_bytes", ', mountpoint="/"', "6x40"),
    ("node_filesystem_size_bytes", ', mountpoint="/"', "8x40"),
    ("node_filesystem_files_free", ', mountpoint="/"', "6x40"),
    ("node_filesystem_files", ', mountpoint="/"', "8x40"),
    ("node_filesystem_readonly", ', mountpoint="/"', "0x40"),
    ("node_time_seconds", "", "0+15x40"),
    ("node_vmstat_oom_kill", "", "3x40"),
    ("node_systemd_unit_state", ', name="cron.service", state="active"', "1x40"),
    ("node_systemd_unit_state", ', name="cron.service", state="failed"', "0x40"),
    ("node_systemd_service_restart_total", ', name="cron.service"', "7x40"),
]
"""Series of a machine at half its limits, from its first scrape on: name, labels, values."""


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_alerts_fire_when_they_should(case: Case, tmp_path: Path) -> None:
    """And not before, not otherwise, and with these labels only."""
    write_rules(tmp_path / "rules.json", needed_by([case]))
    write_tests(tmp_path / "test.json", tmp_path / "rules.json", [case], "promtool")
    done = promtool("test", "rules", tmp_path / "test.json")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_healthy_machine_that_was_just_added_has_no_alert_without_for(tmp_path: Path) -> None:
    """In its first minutes the windows of the rules have few samples, and `alerts.rules.<name>.for` may be short."""
    write_rules(tmp_path / "rules.json", [{key: one[key] for key in one if key != "for"} for one in shipped()])
    series = {
        f'{name}{{job="node", instance="nas", machine="nas"{labels}}}': values for name, labels, values in HEALTHY
    }
    document = {
        "rule_files": [str(tmp_path / "rules.json")],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": one, "values": values} for one, values in series.items()],
                "promql_expr_test": [
                    {"expr": 'ALERTS{machine="nas"}', "eval_time": f"{time}s"} for time in range(0, 600, 15)
                ],
            }
        ],
    }
    (tmp_path / "test.json").write_text(json.dumps(document))
    done = promtool("test", "rules", tmp_path / "test.json")
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_files() -> None:
    done = promtool("check", "rules", *FILES)
    assert done.returncode == 0, done.stdout + done.stderr


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    return subprocess.run([program("promtool"), *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("alert", ALERTS, ids=name_of)
def test_each_alert_has_its_section_and_says_what_to_do(alert: Rule) -> None:
    """With the annotations of all alerts; those about a machine name it."""
    name, annotations = name_of(alert), annotations_of(alert)
    assert f"\n### {name}\n\n- **Means**: " in PAGE
    assert annotations["runbook"] == f"docs/alerts.md#{name.lower()}"
    assert {"summary", "description", "board"} <= set(annotations)
    board = annotations["board"].removeprefix("/d/clan-").partition("?")[0]
    assert (ROOT / f"clan_discovery/data/dashboards/{board}.json").is_file()
    joined = "group_left (tags, description) clan:machine" in str(alert["expr"])
    assert joined == ("inventory" in annotations) == (labels_of(name).get("tags") == "")
    assert {"severity"} <= set(labels_of(name)) <= {"severity", "scope", "tags", "description"}
    assert labels_of(name)["severity"] in {"critical", "warning", "info", "none"}


@pytest.mark.parametrize("alert", ALERTS, ids=name_of)
def test_a_name_in_a_command_is_a_word_of_the_shell(alert: Rule) -> None:
    """A machine chooses the names of its units, disks and mount points; a person copies the command."""
    description = annotations_of(alert)["description"]
    for label in ("name", "mountpoint", "device", "zpool"):
        safe = f'{{{{ reReplaceAll "^-|[^a-zA-Z0-9._@:/-]" "?" $labels.{label} }}}}'
        assert f"$labels.{label}" not in description.replace(safe, "")


def test_the_alert_on_rules_that_fail_needs_no_other_rule() -> None:
    assert "clan:" not in str(rule("RuleEvaluationFailing")["expr"])


def test_the_page_has_no_other_sections() -> None:
    sections = [line.removeprefix("### ") for line in PAGE.splitlines() if line.startswith("### ")]
    assert sorted(sections) == sorted(map(name_of, ALERTS))


def test_each_alert_fires_and_is_quiet_in_a_case() -> None:
    """`Watchdog` is never quiet."""
    names = set(map(name_of, ALERTS))
    assert {name for case in cases() for name in case.fires} == names
    assert {name for case in cases() for name in case.quiet} == names - {"Watchdog"}


def test_each_limit_is_read_by_its_alert_with_its_default() -> None:
    limits = json.loads((ROOT / "clan_discovery/data/limits.json").read_text())
    pattern = re.compile(
        r'\(clan:limit\{instance="",name="(\w+)"\} or on \(machine\) clan:machine\{instance=""\} \* (\d+)\)'
    )
    found = [
        (limit, name_of(alert), int(default))
        for alert in ALERTS
        for limit, default in pattern.findall(str(alert["expr"]))
    ]
    assert sorted(found) == sorted((name, limit["alert"], limit["default"]) for name, limit in limits.items())
    assert sum(str(alert["expr"]).count("clan:limit") for alert in ALERTS) == len(found)


def test_records_are_selected_by_labels_that_they_keep() -> None:
    """The NixOS module inlines records for vmalert: it moves the matchers to the series. Records read no records.

    A machine could send a series with the name of a record, which has an instance.
    """
    for one in shipped():
        for record, matchers in re.findall(r"clan:(\w+)(?:\{([^}]*)\})?", str(one["expr"])):
            own = "" if record in {"expected", "roaming"} else 'instance=""'
            assert re.fullmatch(rf'{own}(,name="\w+")?', matchers)
        if "record" in one:
            assert "clan:" not in str(one["expr"])
            assert str(one["expr"]).count("clan_discovery_") == str(one["expr"]).count('clan_pushed=""')


def annotations_of(alert: Rule) -> dict[str, str]:
    """Return the annotations of an alert."""
    match alert["annotations"]:
        case dict(annotations):
            return {key: str(value) for key, value in annotations.items()}
        case other:
            raise AssertionError(other)
