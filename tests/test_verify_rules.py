"""Compare rule files with what a program has loaded: each cause has its reason and its fix."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import jsonschema
import pytest

from clan_discovery.assemble.verification import parse_yaml_text
from clan_discovery.cli.commands.schema import schema
from clan_discovery.verify.ask import RULES
from clan_discovery.verify.rules import RuleFile, judge_rules, rule_file
from clan_discovery.verify.wire import About, LoadedRule
from tests.support.answering import Reply, answering

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

TEXT: Final = """\
groups:
- name: host
  rules:
  - {alert: Disk, expr: up == 0, labels: {severity: warning}}
  - {alert: Disk, expr: up == 0, labels: {severity: critical}}
  - {record: "clan:up", expr: sum(up)}
- name: empty
"""
LOADED: Final = (
    LoadedRule("host", "alert", "Disk"),
    LoadedRule("host", "alert", "Disk"),
    LoadedRule("host", "record", "clan:up"),
    LoadedRule("other", "alert", "Mine"),
)
PROMETHEUS: Final = About(kind="prometheus", reloaded_at=1000.0)
VMALERT: Final = About(kind="vmalert")


def read(text: str, path: str = "/r/host.yml") -> RuleFile:
    """Read a rule file that was changed long ago."""
    return rule_file(path, text, 10.0, parse_yaml_text)


def test_loaded_rules_are_no_finding() -> None:
    """Rules of other files do not matter, nor does a file without rules."""
    for about in (PROMETHEUS, VMALERT):
        assert judge_rules([read(TEXT), read(""), read("groups: []")], LOADED, about, "k") == (True, "", "")


@pytest.mark.parametrize(
    ("loaded", "about", "reason", "fix"),
    [
        (
            LOADED[1:],
            PROMETHEUS,
            "1 of 2 rules of /r/host.yml are not loaded: alert Disk",
            "reload the program; if that fails: promtool check rules /r/host.yml",
        ),
        (
            LOADED[:2],
            VMALERT,
            "1 of 2 rules of /r/host.yml are not loaded: record clan:up",
            "reload the program; if that fails: vmalert -dryRun -rule=/r/host.yml",
        ),
        (
            LOADED[3:],
            PROMETHEUS,
            "no rule of /r/host.yml is loaded",
            "rule_files: [/r/host.yml] in its config; then reload it",
        ),
        (
            [rule._replace(group="hosts") for rule in LOADED],
            VMALERT,
            "no rule of /r/host.yml is loaded",
            "start it with -rule=/r/host.yml, or reload it",
        ),
        (
            [],
            About(kind="victoriametrics"),
            "it has no rules; no rule of /r/host.yml is loaded",
            "verify.rules.a.url: VictoriaMetrics evaluates no rules; write the URL of vmalert",
        ),
        (
            [],
            About(),
            "it has no rules; no rule of /r/host.yml is loaded",
            "verify.rules.a.url: is that the program that evaluates the rules? Then let it read /r/host.yml",
        ),
        (
            LOADED,
            About(kind="prometheus", reload_failed=True),
            "its last reload failed: it evaluates older rules",
            "promtool check rules /r/host.yml; see its log: journalctl -u prometheus -n 20",
        ),
        (
            LOADED,
            About(kind="vmalert", reload_failed=True),
            "its last reload failed: it evaluates older rules",
            "vmalert -dryRun -rule=/r/host.yml; see its log",
        ),
        (
            [LOADED[0]._replace(error="many-to-many matching"), *LOADED[1:]],
            PROMETHEUS,
            "1 rule cannot be evaluated: alert Disk: many-to-many matching",
            "compare its expression with the series that it reads; see the log of the program",
        ),
    ],
)
def test_each_cause_has_a_reason_and_a_fix(loaded: Sequence[LoadedRule], about: About, reason: str, fix: str) -> None:
    assert judge_rules([read(TEXT)], loaded, about, "verify.rules.a") == (False, reason, fix)


def test_rule_of_another_file_that_fails_is_not_ours() -> None:
    loaded = [*LOADED[:3], LOADED[3]._replace(error="no such function")]
    assert judge_rules([read(TEXT)], loaded, PROMETHEUS, "k").is_loaded


def test_two_files_with_the_same_rule_need_it_twice() -> None:
    files = [read(TEXT), read(TEXT, "/r/copy.yml")]
    assert judge_rules(files, LOADED, PROMETHEUS, "k").reason == "no rule of /r/copy.yml is loaded"
    assert judge_rules(files, LOADED * 2, PROMETHEUS, "k").is_loaded


def test_file_that_is_newer_than_the_last_reload_is_a_note() -> None:
    newer = rule_file("/r/host.yml", TEXT, 2000.0, parse_yaml_text)
    reason = "changed after its last reload: /r/host.yml"
    found = judge_rules([newer], LOADED, PROMETHEUS, "k")
    assert found == (True, reason, "reload it: systemctl reload prometheus")
    assert judge_rules([newer], LOADED, VMALERT, "k") == (True, "", "")  # a reload without changes does not tell


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("groups: {", "the YAML does not parse"),
        ("- alert: Disk", "the file is not a mapping with `groups`"),
        ("groups: all", "`groups` of the file is not a list"),
        ("groups: [host]", "`groups` of the file has an entry that is not a mapping"),
        ("groups: [{rules: []}]", "group 1 has no `name`"),
        ("groups: [{name: a, rules: {}}]", "`rules` of group 'a' is not a list"),
        ("groups: [{name: a, rules: [{expr: up}]}]", "rule 1 of group 'a' needs either `alert` or `record`"),
        ("groups: [{name: a, rules: [{alert: A, record: B}]}]", "rule 1 of group 'a' needs either `alert` or `record`"),
        ("groups: [{name: a, rules: [{alert: 7}]}]", "rule 1 of group 'a' needs either `alert` or `record`"),
    ],
)
def test_file_that_no_program_would_load_is_a_finding(text: str, problem: str) -> None:
    found = judge_rules([read(text)], LOADED, PROMETHEUS, "k")
    assert not found.is_loaded
    assert found.reason.startswith(f"/r/host.yml: {problem}")
    assert found.fix == "promtool check rules /r/host.yml"


def test_many_files_are_summed_up() -> None:
    files = [read(TEXT.replace("host", f"g{number}"), f"/r/{number}.yml") for number in range(9)]
    found = judge_rules(files, LOADED, PROMETHEUS, "k")
    assert found.reason.endswith("; no rule of /r/2.yml is loaded; the same of 6 more files")


def rules_answer(*rules: Mapping[str, Json]) -> Reply:
    """Return an answer with these rules in the group `host`."""
    groups: Json = [{"name": "host", "file": "r.yml", "rules": list(rules)}]
    return Reply(json.dumps({"status": "success", "data": {"groups": groups}}).encode())


DISK: Final[Mapping[str, Json]] = {"name": "Disk", "type": "alerting", "health": "ok"}
RECORD: Final[Mapping[str, Json]] = {"name": "clan:up", "type": "recording", "health": "ok"}


@pytest.fixture
def verified(tmp_path: Path, run: Callable[..., Done]) -> Callable[..., tuple[int, Mapping[str, Json]]]:
    """Return a function that runs `verify` with a scraper and rules, and returns the exit code and what it says."""
    (tmp_path / "one.yml").write_text(TEXT)

    def verify(url: str, *files: str) -> tuple[int, Mapping[str, Json]]:
        document = {
            "backends": {"static": {"lab": {"targets": {"node": ["10.0.0.1:9100"]}}}},
            "output": {"directory": "targets"},
            "verify": {"scrapers": {"one": {"url": url}}, "rules": {"alerts": {"url": url, "files": files}}},
        }
        (tmp_path / "c.json").write_text(json.dumps(document))
        assert run("refresh", "-c", tmp_path / "c.json").code == 0
        done = run("verify", "-c", tmp_path / "c.json", "--format", "json")
        found = json.loads(done.out)
        jsonschema.validate(found, schema("verify"), cls=jsonschema.Draft202012Validator)
        (rules,) = [program for program in found["asked"] if program["name"] == "alerts"]
        return done.code, rules

    return verify


def test_command_reports_a_rule_that_is_not_loaded(
    verified: Callable[..., tuple[int, Mapping[str, Json]]], tmp_path: Path, run: Callable[..., Done]
) -> None:
    """It is a finding (1); a program that cannot be asked is 3, also if its scraper answers."""
    address: Json = {
        "__address__": "10.0.0.1:9100",
        "job": "node",
        "__meta_filepath": str(tmp_path / "targets/node.json"),
    }
    active: Json = [
        {
            "discoveredLabels": address,
            "labels": {"job": "node", "instance": "10.0.0.1"},
            "scrapePool": "node",
            "scrapeUrl": "http://10.0.0.1:9100/metrics",
            "lastError": "",
            "health": "up",
        }
    ]
    targets = Reply(json.dumps({"status": "success", "data": {"activeTargets": active}}).encode())
    replies = {"/api/v1/targets": targets, RULES: rules_answer(DISK, DISK, RECORD)}
    replies["/metrics"] = Reply(b'# HELP\nprometheus_build_info{version="2.42.0"} 1\n')
    with answering(replies) as server:
        code, rules = verified(server.url, "one.yml")
        assert (code, rules["ok"], rules["kind"], rules["version"], rules["reason"]) == (0, True, "rules", "2.42.0", "")
        code, rules = verified(server.url, "o*.yml")
        assert (code, rules["ok"]) == (0, True)
        replies[RULES] = rules_answer(DISK, RECORD)
        code, rules = verified(server.url, "one.yml")
        assert (code, rules["ok"]) == (1, False)
        assert rules["reason"] == f"1 of 2 rules of {tmp_path}/one.yml are not loaded: alert Disk"
        done = run("verify", "-c", tmp_path / "c.json")
        assert f"\nrules          alerts at {server.url}\n" in done.out
        assert "not asked" not in done.out
        for reply in (Reply(b"<html>login</html>"), Reply(b"no", 404), Reply(b'{"status":"success","data":[]}')):
            replies[RULES] = reply
            code, rules = verified(server.url, "one.yml")
            assert (code, rules["ok"]) == (3, False)
        replies[RULES] = rules_answer({**DISK, "name": "a\x1b[2J", "health": "err", "lastError": "\x07"}, DISK)
        assert verified(server.url, "one.yml")[0] == 1


def test_files_that_cannot_be_read_are_no_verdict(
    verified: Callable[..., tuple[int, Mapping[str, Json]]], tmp_path: Path
) -> None:
    """A file that is missing, a directory and a pattern without a match; bytes that are no text are a finding."""
    (tmp_path / "bytes.yml").write_bytes(b"\xff\xfe")
    with answering({RULES: rules_answer(DISK, DISK, RECORD)}) as server:
        for file, reason in (
            ("two.yml", "No such file or directory"),
            ("none*.yml", "No such file or directory"),
            (".", "is a directory, not a regular file"),
        ):
            code, rules = verified(server.url, file)
            assert (code, rules["ok"]) == (3, False)
            assert str(rules["reason"]).endswith(reason)
            assert str(rules["fix"]).startswith("verify.rules.alerts.files: ls -l ")
        code, rules = verified(server.url, "bytes.yml")
        assert rules["reason"] == f"{tmp_path}/bytes.yml: it is not UTF-8"
