"""Names of virtual hosts: what reaches the config of a proxy, and what never does."""

from __future__ import annotations

import re
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.syntax.hosts import url_path, virtual_host

HOSTILE: Final = st.text(st.characters(), max_size=40) | st.text("a.*-_/{}$\"'`\\;\n \t#@:%é", max_size=12)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("grafana", "grafana"),
        ("Grafana.Home.Example.ORG.", "grafana.home.example.org"),
        ("bücher.example.org", "xn--bcher-kva.example.org"),
        ("*.example.org", "*.example.org"),
        ("media_server.lan", "media_server.lan"),
    ],
)
def test_host_is_written_in_lower_case_ascii(text: str, name: str) -> None:
    assert virtual_host(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a..b",
        "a b",
        "a{b}",
        "{env.SECRET}.example.org",
        "$host",
        "a;b",
        'a"b',
        "a\nb",
        "`id`",
        "a.*.org",
        "**.org",
        "*",
        "-a.org",
        "10.0.0.5",
        "[::1]",
        "a:80",
        "a/b",
        "x" * 64,
        ".".join(["abcdefgh"] * 40),
        "é" * 300,
        "a\ud800.org",
    ],
)
def test_what_is_no_host_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a"):
        virtual_host(text)


@given(HOSTILE)
def test_host_holds_only_safe_characters(text: str) -> None:
    try:
        name = virtual_host(text)
    except ValueError:
        return
    assert re.fullmatch(r"(\*\.)?[a-z0-9_.-]+", name)
    assert len(name) <= 253
    assert virtual_host(name) == name


@pytest.mark.parametrize(("text", "path"), [("/", "/"), ("/grafana/", "/grafana"), ("/a/b.c_d~e", "/a/b.c_d~e")])
def test_path_has_no_slash_at_the_end(text: str, path: str) -> None:
    assert url_path(text) == path


@pytest.mark.parametrize(
    "text",
    ["", "grafana", "//", "/a//b", "/a b", "/a{b}", "/$1", "/a\n", "/../etc", "/a/./b", "/*", "/a?b", f"/{'a' * 300}"],
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"path|part"):
        url_path(text)


@given(HOSTILE)
def test_path_holds_only_safe_characters(text: str) -> None:
    try:
        path = url_path(f"/{text}")
    except ValueError:
        return
    assert re.fullmatch(r"/[A-Za-z0-9._~@:+/-]*", path)
    assert url_path(path) == path
