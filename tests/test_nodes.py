"""YAML as nodes: positions, merge keys, and texts that would take too much time or memory."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.errors import InputError
from clan_discovery.syntax.nodes import YamlPart, parse_parts


def parsed(text: str, most: int = 10_000) -> YamlPart:
    part = parse_parts(text, "c.yaml", most=most)
    assert part is not None
    return part


def refused(text: str, most: int = 10_000) -> str:
    with pytest.raises(InputError) as error:
        walk(parsed(text, most))
    return str(error.value)


def walk(part: YamlPart) -> int:
    """Visit every value, as a reader could."""
    return 1 + sum(map(walk, [*part.items(), *part.pairs().values()]))


def test_scalars_stay_text_as_written() -> None:
    """A port of `22:22` is a number to the base 60 in YAML 1.1, and `0o1`, `yes` and dates have meanings, too."""
    part = parsed("[22:22, 010, yes, 2024-01-01, 1e3, '8080', null, ~, '', 'null']")
    texts = ["22:22", "010", "yes", "2024-01-01", "1e3", "8080", None, None, "", "null"]
    assert [item.text for item in part.items()] == texts
    assert [item.is_null for item in part.items()] == [text is None for text in texts]


def test_positions_of_values_and_keys() -> None:
    part = parsed("a:\n  b: c\n  d:\n    - e\n").pairs()["a"]
    assert part.where_key == "c.yaml:1:1"
    assert part.pairs()["b"].where == "c.yaml:2:6"
    assert part.pairs()["b"].where_key == "c.yaml:2:3"
    (item,) = part.pairs()["d"].items()
    assert (item.where, item.where_key) == ("c.yaml:4:7", "c.yaml:4:7")


def test_merge_keys_lose_against_own_keys_and_earlier_ones() -> None:
    text = "x: &x {a: 1, b: 1, c: 1}\ny: &y {b: 2, d: 2}\nz: {a: 3, <<: [*y, *x]}\n"
    pairs = parsed(text).pairs()["z"].pairs()
    assert {key: part.text for key, part in pairs.items()} == {"a": "3", "b": "2", "c": "1", "d": "2"}
    assert pairs["c"].where == "c.yaml:1:23"


def test_own_tags_are_kept() -> None:
    pairs = parsed("a: !reset null\nb: !override [x]\nc: d").pairs()
    assert [part.tag for part in pairs.values()] == ["!reset", "!override", ""]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [*a]", "c.yaml:1:4: an alias is inside the value that it names"),
        ("a: &a {b: 1, <<: *a}", "an alias is inside the value that it names"),
        ("a: &a {b: &b {c: *a}}", "an alias is inside the value that it names"),
        ("a: *b", "found undefined alias"),
        ("a: 1\nb: 2\na: 3", "c.yaml:3:1: the key 'a' is given twice, first on line 1 (keep one of them)"),
        ("? [a]\n: b", "c.yaml:1:3: a key must be text, not a list or a mapping"),
        ("a: {<<: b}", "c.yaml:1:9: only a mapping or a list of mappings can be merged"),
        ("a: [", "c.yaml:"),
        ("a: 1\n---\nb: 2", "more than one document"),
        ("a: \x00", "the character U+0000 is not allowed"),
        ("[" * 100_000, "is nested too deeply"),
        ("- " * 5000 + "x", "is nested too deeply"),
        ("\n".join(f"{' ' * depth}a:" for depth in range(1000)), "is nested too deeply"),
    ],
)
def test_refused(text: str, said: str) -> None:
    assert said in refused(text)


def test_billion_laughs_is_refused() -> None:
    """Aliases are not expanded, but what they stand for is counted."""
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    assert "holds more than 10,000 values, aliases expanded" in refused("\n".join(lines))
    merged = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 30)]
    assert "aliases expanded" in refused("\n".join(merged))


def test_deep_aliases_are_refused() -> None:
    lines = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: *a{n - 1}}}" for n in range(1, 200)]
    assert "is nested too deeply, aliases expanded" in refused("\n".join(lines))


def test_syntax_errors_quote_no_values() -> None:
    """A line that does not parse may hold a password."""
    assert "hunter2" not in refused("a:\n  PASSWORD: 'hunter2'x: hunter2\n")


def test_empty_text_is_nothing() -> None:
    assert parse_parts("# nothing\n", "c.yaml", most=10) is None


@given(st.text(alphabet="ab:-[]{}&*<>!?|'\"#\n \t%$,", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(InputError):
        part = parse_parts(text, "c.yaml", most=1000)
        assert part is None or walk(part) > 0
