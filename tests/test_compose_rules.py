"""Rules of Traefik's routers, and the authentication of their middlewares."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.inventory.compose.traefik import Route, RuleError, routes_of


def pairs(rule: str) -> list[tuple[str, str]]:
    return [(route.domain, route.path) for route in routes_of(rule)]


@pytest.mark.parametrize(
    ("rule", "routes"),
    [
        ("Host(`a.b`)", [("a.b", "/")]),
        ('Host("A.b")', [("a.b", "/")]),
        ("Host(`a.b`,`c.d`)", [("a.b", "/"), ("c.d", "/")]),
        ("Host(`a.b`) || Host(`c.d`)", [("a.b", "/"), ("c.d", "/")]),
        ("Host(`a.b`) && PathPrefix(`/x`)", [("a.b", "/x")]),
        ("PathPrefix(`/x`) && Host(`a.b`)", [("a.b", "/x")]),
        ("Host(`a.b`) && (PathPrefix(`/x`) || PathPrefix(`/y`))", [("a.b", "/x"), ("a.b", "/y")]),
        ("Host(`a.b`) && PathPrefix(`/x`, `/y`)", [("a.b", "/x"), ("a.b", "/y")]),
        (
            "(Host(`a.b`) || Host(`c.d`)) && PathPrefix(`/x`) || Host(`e.f`)",
            [("a.b", "/x"), ("c.d", "/x"), ("e.f", "/")],
        ),
        ("Host(`a.b`)||Host(`a.b`)", [("a.b", "/")]),
        ("Host(`a.b`) && Host(`c.d`)", []),
    ],
)
def test_routes(rule: str, routes: list[tuple[str, str]]) -> None:
    assert pairs(rule) == routes


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("HostRegexp(`.+`)", "HostRegexp is neither a domain nor one path prefix"),
        ("Host(`a.b`) && Headers(`X`, `y`)", "Headers is neither"),
        ("Host(`a.b`) && Path(`/x`)", "Path is neither"),
        ("Host(`a.b`) && PathPrefix(`/x`) && PathPrefix(`/y`)", "PathPrefix is neither"),
        ("Host(`a.b`) && !PathPrefix(`/x`)", "'!' cannot be expressed"),
        ("PathPrefix(`/x`)", "names no domain"),
        ("Host(`a.b`", "lacks a closing parenthesis"),
        ("(Host(`a.b`)", "lacks a closing parenthesis"),
        ("Host(`a.b`) &&", "ends too early"),
        ("Host(`a.b`) Host(`c.d`)", "does not parse at 'Host('"),
        ("Host:a.b", "does not parse at 'Host:a.b'"),
        ("", "ends too early"),
        ("(" * 100, "nested too deeply"),
        (" && ".join(["(Host(`a`) || Host(`b`))"] * 20), "more than 200 alternatives"),
        ("Host(`a`)" * 2000, "more than 10,000 characters"),
    ],
)
def test_refused(rule: str, said: str) -> None:
    with pytest.raises(RuleError) as error:
        routes_of(rule)
    assert said in str(error.value)


@given(st.text(alphabet='Host(`a.b`)|&!, PathPrefix"/', max_size=80))
def test_any_rule_is_read_or_refused(rule: str) -> None:
    try:
        found = routes_of(rule)
    except RuleError:
        found = []
    assert all(isinstance(route, Route) for route in found)
