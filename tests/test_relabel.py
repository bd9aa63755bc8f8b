"""Relabel rules give what Prometheus makes of them."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.syntax.relabel import ExpressionError, Relabelling
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from clan_discovery.model import Json

LABELS = {"job": "node", "instance": "db.example.org", "machine": "db", "tags": ",a,b,", "__param_target": "X"}
# What promtool 2.42 prints as `discoveredLabels` has parts of the labels after relabelling.
DISCOVERED = {
    **LABELS,
    "__address__": "db:9100",
    "__metrics_path__": "/metrics",
    "__scheme__": "http",
    "__scrape_interval__": "1m",
    "__scrape_timeout__": "10s",
}

RULES: list[list[Mapping[str, Json]]] = [
    [],
    [{"source_labels": ["machine"], "target_label": "instance"}],
    [
        {
            "source_labels": ["instance"],
            "regex": r"([^.]+)\.(?P<zone>.*)",
            "target_label": "z",
            "replacement": "$1@${zone}$$",
        }
    ],
    [{"source_labels": ["machine"], "target_label": "a", "replacement": "$1x-${1}x"}],
    [{"source_labels": ["machine"], "target_label": "a", "replacement": "$2"}],
    [{"source_labels": ["absent"], "target_label": "a", "replacement": "fixed"}],
    [{"source_labels": ["machine"], "regex": "d", "target_label": "a"}],
    [{"source_labels": ["machine"], "regex": "d|db", "target_label": "${0}_x", "replacement": "y"}],
    [{"source_labels": ["instance"], "target_label": "${1}_x", "replacement": "y"}],
    [{"source_labels": ["machine"], "target_label": "instance", "replacement": ""}],
    [{"source_labels": ["job", "machine"], "separator": "@", "regex": "node@d.", "action": "keep"}],
    [{"source_labels": ["machine"], "regex": "d", "action": "keep"}],
    [{"source_labels": ["tags"], "regex": ".*,b,.*", "action": "drop"}],
    [{"source_labels": ["tags"], "regex": ".*,c,.*", "action": "DROP"}],
    [{"source_labels": ["machine"], "target_label": "job", "action": "keepequal"}],
    [{"source_labels": ["machine"], "target_label": "machine", "action": "keepequal"}],
    [{"source_labels": ["machine"], "target_label": "machine", "action": "dropequal"}],
    [{"source_labels": ["__param_target"], "target_label": "t", "action": "lowercase"}],
    [{"source_labels": ["machine"], "target_label": "t", "action": "uppercase"}],
    [{"regex": "__param_(.+)", "action": "labelmap"}],
    [{"regex": "__param_(.+)", "replacement": "p_$1_p", "action": "labelmap"}],
    [{"regex": "machine|tags", "action": "labeldrop"}],
    [{"regex": "__.*|job|instance|tags", "action": "labelkeep"}],
    [{"source_labels": ["tags"], "regex": r"\Q,a,\E(?i)B[[:punct:]]", "target_label": "re2"}],
    [{"source_labels": ["job", "instance"], "modulus": 10_000, "target_label": "shard", "action": "hashmod"}],
]


def discovered(config: Path, job: str) -> dict[str, dict[str, str]]:
    """Return what promtool says of a job's only target. It uses the processor until its time is over."""
    for limit in ("100ms", "1s", "20s"):
        words = [program("promtool"), "check", "service-discovery", f"--timeout={limit}", str(config), job]
        done = subprocess.run(words, capture_output=True, check=True)
        said: list[dict[str, dict[str, str]]] = json.loads(done.stdout)
        if said:
            return said[0]
    raise AssertionError(job)


def test_rules_give_what_prometheus_makes_of_them(tmp_path: Path) -> None:
    """The labels after each list of rules are those that promtool prints; a dropped target has none."""
    jobs: list[Json] = [
        {
            "job_name": f"job{number}",
            "static_configs": [{"targets": ["db:9100"], "labels": LABELS}],
            "relabel_configs": rules,
        }
        for number, rules in enumerate(RULES)
    ]
    (tmp_path / "prometheus.json").write_text(json.dumps({"scrape_configs": jobs}))
    for number, rules in enumerate(RULES):
        said = discovered(tmp_path / "prometheus.json", f"job{number}")
        found = Relabelling(rules).apply(DISCOVERED)
        assert (found.dropped_by is None) == bool(said.get("labels")), rules
        if found.dropped_by is None:
            expected = {name: value for name, value in said["labels"].items() if name != "instance"}
            assert {name: value for name, value in found.labels.items() if name != "instance"} == expected, rules


def test_dropping_rule_is_named() -> None:
    rules: Json = [{"target_label": "a", "replacement": "1"}, {"source_labels": ["a"], "regex": "1", "action": "drop"}]
    found = Relabelling(rules).apply({"job": "node", "empty": ""})
    assert found == ({"job": "node", "empty": "", "a": "1"}, 1)
    assert Relabelling(rules).steps[1].action == "drop"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"regex": "(", "action": "keep"}, "relabel rule 2: invalid expression '(': missing ): ("),
        ({"regex": "((a{99}){99}){9}", "action": "keep"}, "relabel rule 2: invalid expression"),
        ({"action": "replacement"}, "relabel rule 2: unknown action 'replacement'"),
        ({}, "relabel rule 2: replace needs `target_label`"),
        ({"action": "hashmod", "target_label": "a"}, "relabel rule 2: hashmod needs a `modulus`"),
        ({"source_labels": "job"}, "relabel rule 2: Expected `array`, got `str`"),
        ("drop", "relabel rule 2: Expected `object`, got `str`"),
    ],
)
def test_wrong_rule_is_an_error_with_its_number(rule: Json, message: str) -> None:
    with pytest.raises(ValueError, match="relabel rule 2") as caught:
        Relabelling([{"target_label": "a"}, rule])
    assert str(caught.value).startswith(message)


MANY: list[Json] = [{"action": "drop"}] * 1001


@pytest.mark.parametrize("rules", [None, "drop", {"action": "drop"}, MANY])
def test_rules_are_a_list(rules: Json) -> None:
    with pytest.raises(ValueError, match="relabel_configs must be a list"):
        Relabelling(rules)


def test_hostile_expression_takes_linear_time() -> None:
    """Python's `re` would need longer than the age of the universe."""
    found = Relabelling([{"source_labels": ["a"], "regex": "(a*)*(a*)*b", "action": "keep"}]).apply({"a": "a" * 10_000})
    assert found.dropped_by == 0


@pytest.mark.parametrize(
    "rule",
    [
        {"source_labels": ["a"], "target_label": "a", "replacement": "$1$1"},
        {"source_labels": ["a", "a"], "target_label": "a", "action": "lowercase"},
        {"action": "labelmap", "regex": "(.*)", "replacement": "x$1"},
        {"action": "labelmap", "regex": "(.*)", "replacement": "$1$1"},
        {"source_labels": ["a"], "target_label": "b", "replacement": "$1" * 4096},
        {"source_labels": ["a"] * 1_000_000, "target_label": "a"},
        {"source_labels": ["a"], "regex": "a" * 1_000_000, "action": "keep"},
    ],
)
def test_rules_that_double_are_bounded(rule: Json) -> None:
    """Forty of them would fill a terabyte."""
    try:
        rules = Relabelling([rule] * 500)
    except ValueError:
        return
    after = rules.apply({f"{name}": "x" * 100 for name in ("a", "b", "c")}).labels
    assert sum(len(name) + len(value) for name, value in after.items()) < 40_000_000


@pytest.mark.parametrize("pattern", [r"(\pL{100})", "(.{1000})(.{1000})"])
def test_large_expressions_are_refused(pattern: str) -> None:
    """Each takes up to a MiB, and half a second."""
    rules = [{"source_labels": ["a"], "regex": f"{number}{pattern}", "action": "keep"} for number in range(200)]
    with pytest.raises(ExpressionError, match="too large"):
        Relabelling(rules)


NAMES = st.sampled_from(["job", "instance", "machine", "a", "__tmp"])


@given(
    values=st.dictionaries(NAMES, st.text(max_size=10)), source=st.lists(NAMES, max_size=3), members=st.integers(1, 5)
)
def test_each_target_is_in_exactly_one_share(values: dict[str, str], source: Sequence[str], members: int) -> None:
    kept = 0
    for number in range(members):
        hashed: Json = {"source_labels": source, "modulus": members, "target_label": "__tmp", "action": "hashmod"}
        rules: Json = [hashed, {"source_labels": ["__tmp"], "regex": str(number), "action": "keep"}]
        kept += Relabelling(rules).apply(values).dropped_by is None
    assert kept == 1
