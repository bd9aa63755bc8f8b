"""A mistake in any threshold, duration or matcher of a rule makes one of its cases fail.

Each mutant of a rule changes one number, one window, `for`, or one matcher. promtool runs its cases.
"""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Final

import promql_parser
import pytest

from tests.support.programs import program
from tests.support.rules import Case, cases, name_of, needed_by, read_by, seconds, shipped, write_rules, write_tests

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.rules import Rule

TOKEN: Final = re.compile(
    r'(?P<string>"[^"]*")|[{](?P<matchers>[^}]*)[}]|(?:\[|offset )(?P<window>[0-9]+[smhd])'
    r"|(?<![\w.])(?P<number>[0-9]+(?:[.][0-9]+)?)(?![\w.])"
)
MATCHER: Final = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
OTHER: Final = {"=": "!=", "!=": "=", "=~": "!~", "!~": "=~"}
UNSELECTED: Final = re.compile(r'\bclan:\w+\b(?!\{instance="")')
"""A record that is selected together with what machines send under its name: tests/test_rules.py finds each one."""
SAME_LABELS: Final = "the other side has no series of agents, and all labels are compared"
SAME_MODE: Final = "the other side selects the mode, and all labels are compared"
EQUIVALENT: Final = {
    ("ClanBackendWithoutAnswer", 'clan_pushed="" ->  at 108'): SAME_LABELS,
    ("CPU", 'mode="idle" ->  at 82'): SAME_MODE,
    ("CPU", 'mode="idle" ->  at 127'): SAME_MODE,
    ("ClanDiscoveryAbsent", 'clan_pushed="" ->  at 133'): SAME_LABELS,
    ("ClanInventoryInvalid", 'clan_pushed="" ->  at 100'): SAME_LABELS,
    ("ClanVerifyStale", 'clan_pushed="" ->  at 54'): SAME_LABELS,
    ("ClanVerifyStale", 'clan_pushed="" ->  at 115'): SAME_LABELS,
    ("ClanVerifyStale", 'clan_pushed="" ->  at 241'): SAME_LABELS,
    ("clan:roaming", 'clan_pushed="",patience="roaming" -> clan_pushed="" at 185'): "`unless` removes the others",
    ("TimerLate", "0 -> 1 at 95"): "no timer ran in the first second of 1970",
    ("TimerLate", "0 -> 1 at 137"): "no timer ran in the first second of 1970",
    ("Watchdog", "1 -> 0 at 7"): "any number fires",
    ("Watchdog", "1 -> 2 at 7"): "any number fires",
}
"""Mutants that change nothing, by the alert and what is changed, and why."""


def mutants(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """Yield what is changed, and the rule with it."""
    expr = str(rule["expr"])
    for found in TOKEN.finditer(expr):
        kind = found.lastgroup
        if kind is None or kind == "string":
            continue
        start, end = found.span(kind)
        for changed in changes(kind, found[kind]):
            text = expr[:start] + changed + expr[end:]
            promql_parser.parse(text)
            if len(UNSELECTED.findall(text)) > len(UNSELECTED.findall(expr)):
                continue
            yield f"{found[kind]} -> {changed} at {start}", {**rule, "expr": text}
    if "for" in rule:
        for factor in (0.5, 1.5):
            yield f"for * {factor}", {**rule, "for": f"{seconds(str(rule['for'])) * factor:.0f}s"}


def changes(kind: str, text: str) -> list[str]:
    """Return what a part of an expression becomes: a number, a window, or the matchers of a series."""
    if kind == "matchers":
        return list(other_matchers(text))
    if kind == "window":
        return [f"{seconds(text) * factor:.0f}s" for factor in (0.5, 2)]
    number = float(text)
    if number.is_integer() and number < 10:
        return [f"{number - 1:.0f}", f"{number + 1:.0f}"]
    return [f"{number * factor:g}" for factor in (0.9, 1.1)]


def other_matchers(text: str) -> Iterator[str]:
    """Yield the matchers with one of them reversed, with another value, and without it."""
    parts = MATCHER.findall(text)
    assert ",".join(f'{name}{op}"{value}"' for name, op, value in parts) == text
    for number, (name, op, value) in enumerate(parts):
        for changed in ([(name, OTHER[op], value)], [(name, op, f"{value}x")], []):
            some = [*parts[:number], *changed, *parts[number + 1 :]]
            yield ",".join(f'{one}{how}"{what}"' for one, how, what in some)


def uses(name: str) -> set[str]:
    """Return the rule, and the rules that read it if it is a record."""
    return {name, *(name_of(one) for one in shipped() if name in read_by(one))}


def survivors(place: Path, changed: Mapping[str, Rule], case: Case) -> set[str]:
    """Return the mutants with which promtool finds nothing in a case."""
    for number, rule in enumerate(changed.values()):
        rules = [rule if name_of(one) == name_of(rule) else one for one in needed_by([case])]
        write_rules(place / f"{number}.rules.json", rules)
        write_tests(place / f"{number}.test.json", place / f"{number}.rules.json", [case], "promtool")
    files = [str(place / f"{number}.test.json") for number in range(len(changed))]
    done = subprocess.run([program("promtool"), "test", "rules", *files], capture_output=True, text=True, check=False)
    parts = [part.strip() for part in done.stdout.split("Unit Testing:")[1:]]
    assert len(parts) == len(changed), done.stdout + done.stderr
    return {what for what, part in zip(changed, parts, strict=True) if part.endswith("SUCCESS")}


def test_equivalent_mutants_exist() -> None:
    """An entry that no mutant has is out of date."""
    assert set(EQUIVALENT) <= {(name_of(rule), what) for rule in shipped() for what, _ in mutants(rule)}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("rule", shipped(), ids=name_of)
def test_each_mutant_makes_a_case_fail(rule: Rule, tmp_path: Path) -> None:
    name = name_of(rule)
    some = [case.only(one) for one in sorted(uses(name)) for case in cases() if case.of(one)]
    some.sort(key=lambda case: (not case.of(name), case.steps))
    left = {what: changed for what, changed in mutants(rule) if (name, what) not in EQUIVALENT}
    for case in some:
        missed = survivors(tmp_path, left, case) if left else set[str]()
        left = {what: left[what] for what in sorted(missed)}
    assert sorted(left) == []
