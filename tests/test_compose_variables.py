"""Variables in Compose files, and the env files that define them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.errors import InputError
from clan_discovery.inventory.compose.variables import ExpansionError, expand, parse_env

VARIABLES = {"A": "one", "EMPTY": "", "B_2": "two"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("$A/${A}/$B_2", "one/one/two"),
        ("$$A $$$A", "$A $one"),
        ("${NO:-d} ${EMPTY:-d} ${A:-d}", "d d one"),
        ("${NO-d} ${EMPTY-d}", "d "),
        ("${NO:-${A}-${NO:-x}}", "one-x"),
        ("${A:?e} ${A?e}", "one one"),
        ("${A:+x} ${EMPTY:+x} ${EMPTY+x} ${NO+x}", "x  x "),
        ("Host(`${A}.example.org`)", "Host(`one.example.org`)"),
    ],
)
def test_forms(text: str, expanded: str) -> None:
    assert expand(text, VARIABLES).text == expanded
    assert expand(text, VARIABLES).unset == ()


def test_unset_variables_are_empty_and_named_once() -> None:
    found = expand("$NO ${NO} ${OTHER}", VARIABLES)
    assert (found.text, found.unset) == ("  ", ("NO", "OTHER"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("$", "a '$' begins no variable"),
        ("$(A)", "a '$' begins no variable"),
        ("$1", "a '$' begins no variable"),
        ("${1}", "a '$' begins no variable"),
        ("${A", "a '${' is not closed"),
        ("${A:-${B}", "a '${' is not closed"),
        ("${A b}", "is not followed by '}' or a default"),
        ("${NO:?secret words}", "the variable NO is required and not set"),
        ("${EMPTY:?}", "the variable EMPTY is required and not set"),
        ("${NO?e}", "the variable NO is required and not set"),
        ("${N:-" * 30 + "}" * 30, "nested too deeply"),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(ExpansionError, match=said.replace("$", r"\$").replace("{", r"\{").replace("}", r"\}")):
        expand(text, VARIABLES)


def test_length_is_limited() -> None:
    with pytest.raises(ExpansionError, match="longer than 65,536"):
        expand("$A" * 10, {"A": "x" * 10_000})


def test_env_file() -> None:
    text = (
        "# comment\n\nA=one\nexport B = two words # comment\nC='$A # no comment'\n"
        'D="line\\n${A} \\$A \\"q\\""\nE=$A#b\nF=\nG\nH: yaml\nI="first\nsecond"\nJ=${NO:-d}\r\n'
    )
    assert parse_env(f"\ufeff{text}", ".env") == {
        "A": "one",
        "B": "two words",
        "C": "$A # no comment",
        "D": 'line\none $A "q"',
        "E": "one#b",
        "F": "",
        "H": "yaml",
        "I": "first\nsecond",
        "J": "d",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A=1\nhunter2 hunter2", ".env:2:1: is not a line of an env file (write NAME=value"),
        ("A=1\nB='hunter2\n", ".env:2:1: the quote ' is not closed"),
        ("B=${hunter2", ".env:1:1: a '${' is not closed"),
    ],
)
def test_wrong_env_file_is_refused_without_its_values(text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        parse_env(text, ".env")
    assert said in str(error.value)
    assert "hunter2" not in str(error.value)


def test_variables_that_double_each_other_are_bounded() -> None:
    lines = ["A0=xxxxxxxxxx"] + [f"A{n}=${{A{n - 1}}}${{A{n - 1}}}" for n in range(1, 60)]
    with pytest.raises(InputError, match="longer than 65,536"):
        parse_env("\n".join(lines), ".env")


def test_variables_that_copy_a_long_one_are_bounded() -> None:
    lines = ["A=" + "x" * 60_000, *(f"B{n}=$A" for n in range(100))]
    with pytest.raises(InputError, match="its variables become longer than 4,000,000 characters"):
        parse_env("\n".join(lines), ".env")


@given(st.text(alphabet="AB_${}:-?+ '\"\\#\n=", max_size=60))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    with suppress(InputError):
        assert isinstance(parse_env(text, ".env"), dict)
    with suppress(ExpansionError):
        assert "$" in text or expand(text, VARIABLES).text == text
        expand(text, VARIABLES)
