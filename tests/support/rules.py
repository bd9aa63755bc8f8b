"""The shipped alert rules, for tests that load them into real programs."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import yaml

from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from clan_discovery.model import Json

Rule: TypeAlias = "dict[str, Json]"
Tool: TypeAlias = Literal["promtool", "vmalert-tool"]
FILES: Final = tuple(sorted((ROOT / "clan_discovery/data/rules").glob("*.yml")))
GROUPS: Final = json.loads((ROOT / "clan_discovery/data/rules.json").read_text())["groups"]


def shipped() -> list[Rule]:
    """Return all rules, without their groups."""
    return [rule for group in GROUPS for rule in group["rules"]]


def labels_of(name: str) -> dict[str, str]:
    """Return the labels of an alert; one that is empty removes a label."""
    match rule(name)["labels"]:
        case dict(labels):
            return {key: str(value) for key, value in labels.items()}
        case other:
            raise AssertionError(other)


def name_of(rule: Rule) -> str:
    """Return the name of an alert or a record."""
    return str(rule.get("alert", rule.get("record")))


def rule(name: str) -> Rule:
    """Return the rule with this name."""
    (found,) = (one for one in shipped() if name_of(one) == name)
    return found


def expression(name: str) -> str:
    """Return the expression of a rule."""
    return str(rule(name)["expr"])


def inlined(rules: list[Rule]) -> list[Rule]:
    """Return the alerts with the recording rules in their expressions, as the NixOS module does it for vmalert."""
    records = {str(one["record"]): str(one["expr"]) for one in rules if "record" in one}

    def expanded(found: re.Match[str]) -> str:
        # Records have no instance; the series that they read have one.
        given = (found[2] or "").replace('instance="",', "").replace('instance=""', "")
        matchers = f"{given}," if given else ""
        return "(" + records[found[1]].replace("clan_pushed=", f"{matchers}clan_pushed=") + ")"

    pattern = re.compile(r"(clan:[a-z]+)(?:\{([^}]*)\})?")
    return [{**one, "expr": pattern.sub(expanded, str(one["expr"]))} for one in rules if "alert" in one]


def write_group(file: Path, rules: Sequence[Rule], *, waits: Mapping[str, str] | None = None) -> None:
    """Write rules as one group of a rule file, without the alerts that need no cause, or many.

    Rules wait for nothing, but for what `waits` has of an alert.
    """
    some: list[Json] = []
    for one in rules:
        name = name_of(one)
        if name not in {"MostTargetsDown", "Watchdog"}:
            wait: Rule = {"for": waits[name]} if waits and name in waits else {}
            some.append({**{key: value for key, value in one.items() if key != "for"}, **wait})
    file.write_text(json.dumps({"groups": [{"name": "clan-discovery", "interval": "1s", "rules": some}]}))


@dataclass(frozen=True)
class Case:
    """A test of alerts: series, and what fires and is recorded at which times."""

    name: str
    step: str
    series: dict[str, str]
    quiet: dict[str, list[str]]
    fires: dict[str, dict[str, list[dict[str, str]]]]
    records: dict[str, dict[str, list[dict[str, str]]]]

    def of(self, name: str) -> bool:
        """Tell whether it tests a rule."""
        return name in self.quiet or name in self.fires or name in self.records

    def only(self, name: str) -> Case:
        """Return the part that tests one rule."""
        quiet = {key: value for key, value in self.quiet.items() if key == name}
        fires = {key: value for key, value in self.fires.items() if key == name}
        records = {key: value for key, value in self.records.items() if key == name}
        return replace(self, quiet=quiet, fires=fires, records=records)

    @property
    def steps(self) -> float:
        """How often a tool evaluates the rules."""
        times = [time for times in self.quiet.values() for time in times]
        times += [time for part in (self.fires, self.records) for times in part.values() for time in times]
        return max(map(seconds, times)) / seconds(self.step)

    def written(self, tool: Tool) -> Json:
        """Return the test as a unit test of a tool, which has no annotations."""
        alerts: list[Json] = [_alert(tool, name, time, []) for name, times in self.quiet.items() for time in times]
        for name, times in self.fires.items():
            alerts += [_alert(tool, name, time, labels) for time, labels in times.items()]
        kind = "promql_expr_test" if tool == "promtool" else "metricsql_expr_test"
        return {
            "interval": self.step,
            "input_series": [{"series": series, "values": values} for series, values in self.series.items()],
            "alert_rule_test": alerts,
            kind: [
                {"expr": name, "eval_time": time, "exp_samples": [_sample(name, sample) for sample in samples]}
                for name, times in self.records.items()
                for time, samples in times.items()
            ],
        }


def seconds(duration: str) -> float:
    """Return a duration of Prometheus with one unit in seconds."""
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[duration[-1]]


def _alert(tool: Tool, name: str, time: str, expected: Sequence[Mapping[str, str]]) -> Json:
    labels = labels_of(name)
    added = {key: value for key, value in labels.items() if value}
    alerts: list[Json] = []
    for one in expected:
        # An empty label of a rule removes the label from the alerts of Prometheus, and not from those of vmalert, which
        # also keeps empty labels of an expression.
        left = {key: value for key, value in one.items() if tool != "promtool" or (value and labels.get(key) != "")}
        alerts.append({"exp_labels": {**added, **left}})
    return {"eval_time": time, "alertname": name, "exp_alerts": alerts}


def _sample(name: str, sample: Mapping[str, str]) -> Json:
    labels = ", ".join(f"{key}={json.dumps(value)}" for key, value in sample.items() if key != "value")
    return {"labels": f"{name}{{{labels}}}", "value": sample.get("value", 1)}


def cases() -> list[Case]:
    """Return the tests in tests/data/rules."""
    found: list[Case] = []
    for file in sorted((ROOT / "tests/data/rules").glob("*.yml")):
        for number, test in enumerate(yaml.safe_load(file.read_text())["tests"], 1):
            given = {key: test.get(key, {}) for key in ("series", "quiet", "fires", "records")}
            found.append(Case(name=f"{file.stem}-{number}", step=test["step"], **given))
    return found


def read_by(one: Rule) -> set[str]:
    """Return the records that a rule reads, also through other records."""
    found = set(re.findall(r"\bclan:\w+", str(one["expr"])))
    return found.union(*(read_by(rule(name)) for name in found))


def needed_by(tests: Sequence[Case]) -> list[Rule]:
    """Return the rules of tests, and the records that they read. A tool takes long to evaluate all rules each time."""
    tested = [one for one in shipped() if any(test.of(name_of(one)) for test in tests)]
    names = set(map(name_of, tested)).union(*map(read_by, tested))
    return [one for one in shipped() if name_of(one) in names]


def write_rules(file: Path, rules: Sequence[Rule]) -> None:
    """Write rules in their groups, without annotations."""
    groups: list[Json] = []
    for group in GROUPS:
        names = {name_of(one) for one in group["rules"]}
        some: list[Json] = [
            {key: value for key, value in one.items() if key != "annotations"} for one in rules if name_of(one) in names
        ]
        if some:
            groups.append({**group, "rules": some})
    file.write_text(json.dumps({"groups": groups}))


def write_tests(file: Path, rules: Path, tests: Sequence[Case], tool: Tool) -> None:
    """Write unit tests of a rule file. The records are evaluated first. Tests of a file have one step."""
    (step,) = {test.step for test in tests}
    names = [str(group["name"]) for group in GROUPS]
    document: Json = {
        "rule_files": [str(rules)],
        "evaluation_interval": step,
        "group_eval_order": sorted(names, key=lambda name: name != "clan-inventory"),
        "tests": [test.written(tool) for test in tests],
    }
    file.write_text(json.dumps(document))
