"""`show --format nix`: the same value as JSON, according to real Nix, in nixfmt's format."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clan_discovery.emit.nix import to_nix
from clan_discovery.errors import InputError
from tests.support.fleet import inventory

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

DATA = Path(__file__).parent / "data"
NASTY: Json = json.loads((DATA / "nasty.json").read_bytes())
KEYWORDS = ("if", "then", "else", "assert", "with", "let", "in", "rec", "inherit", "or")
MAGIC = (
    "outPath", "__toString", "__functor", "type", "derivation", "recurseForDerivations", "__curPos", "__overrides",
    "true", "null",
)  # fmt: skip
ODD = (
    "", "${x}", "$${x}", "$$${", "''", "''${x}", '"', "\\", "\\n", "\\${x}", "$", "$1", "a.b", "a b", "a-b", "a'", "-a",
    "1a", "_", "/a", "a\tb", "\n", "\r\n", "\r", "\x01\x1b[0m\x7f", "\u0085\u2028", "\ufeff", "é", "\U0001f9ea", "# a",
    "/* a */",
)  # fmt: skip
NUMBERS = (
    0, -1, 2**63 - 1, -(2**63) + 1, -(2**63), 0.0, -0.0, 1.0, -1.5, 0.1, 0.1 + 0.2, 1e-5, 1e16, 1e22, 1e300, -1e300,
    1.7976931348623157e308, 2.2250738585072014e-308, 2.225073858507201e-308, 5e-324, -5e-324,
)  # fmt: skip


def repeated(word: str, size: int) -> str:
    """Return a text of this many characters."""
    return (word * size)[:size]


# Texts just below and above the length at which a line is full.
long = st.builds(repeated, st.sampled_from(["k", "k b", "kü", 'k"']), st.integers(80, 105))
texts = (
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
    | st.text("$${}'\"\\\n\r\ta ", max_size=12)
    | st.sampled_from([*KEYWORDS, *MAGIC, *ODD])
    | long
)
floats = st.floats(allow_nan=False, allow_infinity=False)
plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | floats | st.sampled_from(NUMBERS) | texts
documents: st.SearchStrategy[Json] = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=10
)
many = settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

# Nix's == ignores differences: 1 is 1.0, 0.0 is -0.0, and derivations are equal if their outPath is. Its --json loses
# more: a set with outPath or __toString becomes that string, and a float has six digits. So values are converted to
# lists without these cases, and the lists are compared.
APART = """
v:
if builtins.isAttrs v then
  [ "set" (map (name: [ name (apart v.${name}) ]) (builtins.attrNames v)) ]
else if builtins.isList v then
  [ "list" (map apart v) ]
else
  [ v (if builtins.isFloat v then builtins.toJSON v else "") ]
"""


def agree(nix: str, written: str, wanted: str) -> list[bool]:
    """Return for each pair of expression and JSON whether they are equal; in one evaluation."""
    with tempfile.TemporaryDirectory() as place:
        left, right = Path(place) / "a.nix", Path(place) / "a.json"
        left.write_bytes(written.encode())
        right.write_bytes(wanted.encode())
        expression = f"""
          let
            apart = {APART};
            written = import {left};
            wanted = builtins.fromJSON (builtins.readFile {right});
            agree = i: apart (builtins.elemAt written i) == apart (builtins.elemAt wanted i);
          in
          assert builtins.length written == builtins.length wanted;
          builtins.genList agree (builtins.length wanted)
        """
        done = subprocess.run(
            [nix, "--eval", "--strict", "--json", "--store", "dummy://", "-E", expression],
            capture_output=True, text=True, check=False, env={**os.environ, "NIX_PATH": ""},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[bool] = json.loads(done.stdout)
    return found


def formatted(nixfmt: str, values: list[Json]) -> list[tuple[str, str]]:
    """Return for each value our text and nixfmt's; in one run."""
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place) / f"{i}.nix" for i in range(len(values))]
        before = [to_nix(value) + "\n" for value in values]
        for file, text in zip(files, before, strict=True):
            file.write_bytes(text.encode())
        done = subprocess.run([nixfmt, *files], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return list(zip(before, (file.read_bytes().decode() for file in files), strict=True))


@many
@given(st.lists(documents, min_size=20, max_size=40))
def test_nix_reads_the_same_value(nix: str, values: list[Json]) -> None:
    """For any strings, names and numbers."""
    assert agree(nix, to_nix(values), json.dumps(values)) == [True] * len(values)


@many
@given(st.lists(documents, min_size=20, max_size=40))
def test_nixfmt_changes_nothing(nixfmt: str, values: list[Json]) -> None:
    """So a formatting hook does not change the committed file."""
    for before, after in formatted(nixfmt, values):
        assert after == before


def test_the_comparison_is_strict(nix: str) -> None:
    """It finds differences that `==` or `--json` do not."""
    pairs: list[tuple[Json, Json]] = [
        (1, 1.0),
        (0.0, -0.0),
        (0.1, 0.10000000000000002),
        ({"type": "derivation", "outPath": "a"}, {"type": "derivation", "outPath": "a", "b": 1}),
        ({"outPath": "a"}, "a"),
        ([], {}),
    ]
    left, right = [left for left, _ in pairs], [right for _, right in pairs]
    assert agree(nix, to_nix(left), json.dumps(right)) == [False] * len(pairs)


def test_nix_reads_the_golden(nix: str) -> None:
    """Every name and text with a special meaning, every kind of number, every line of full length."""
    golden = (DATA / "nasty.nix").read_text(encoding="utf-8")
    assert agree(nix, f"[ ({golden}) ]", json.dumps([NASTY])) == [True]


def test_the_golden_file_is_current() -> None:
    """Also checked without Nix and nixfmt."""
    assert to_nix(NASTY) + "\n" == (DATA / "nasty.nix").read_text(encoding="utf-8")


def test_the_input_order_does_not_matter() -> None:
    """Attributes are sorted as Nix sorts them, with the same bytes each time."""
    names = ["b", "a", "é", "A", "a b", "if", "\U0001f9ea", "\uffee"]
    forward: Json = {name: {"y": 1, "x": 2} for name in names}
    backward: Json = {name: {"x": 2, "y": 1} for name in reversed(names)}
    assert to_nix(forward) == to_nix(backward)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("a\0b", "NUL"),
        ({"a\0b": 1}, "NUL"),
        ("\ud800", "surrogate"),
        (["\udfff"], "surrogate"),
        (2**63, "64 bits: 9223372036854775808"),
        (-(2**63) - 1, "64 bits: -9223372036854775809"),
        (float("nan"), "no number nan"),
        (float("-inf"), "no number -inf"),
    ],
)
def test_values_that_nix_does_not_have_are_refused(value: Json, said: str) -> None:
    """NaN and NUL: builtins.fromJSON of Nix 2.8 truncates a string at NUL without an error."""
    with pytest.raises(InputError, match=said):
        to_nix(value)


def nested(depth: int, name: str | None) -> Json:
    """Return this many nested lists or sets around a number."""
    value: Json = 1
    for _ in range(depth):
        value = [value] if name is None else {name: value}
    return value


@pytest.mark.parametrize("name", [None, "a", "a b"])
def test_deep_values_are_read_and_deeper_ones_refused(nix: str, name: str | None) -> None:
    """Before Nix runs out of memory or this program out of stack."""
    deepest = nested(127, name)
    assert agree(nix, to_nix([deepest]), json.dumps([deepest])) == [True]
    with pytest.raises(InputError, match="nested more than 128 deep"):
        to_nix([nested(128, name)])


def test_show_names_a_value_that_nix_does_not_have(run: Run, tmp_path: Path) -> None:
    """Exit 2 and no traceback, for values that an inventory in JSON may have."""
    odd: list[tuple[Json, str]] = [
        (nested(400, None), "nested more than 128 deep"),
        ("\0", "NUL"),
        (2**64, "64 bits"),
    ]
    config = tmp_path / "config.yaml"
    config.write_text(
        "inventory: {file: inventory.json}\nbackends: {static: {lab: {targets: {node: [10.0.0.5:9100]}}}}\n"
    )
    for value, said in odd:
        found = inventory(["monitor"], server={"additionalScrapeConfigs": [{"job_name": "x", "odd": value}]})
        (tmp_path / "inventory.json").write_text(json.dumps(found))
        assert run("show", "-c", config, "--format", "json").code == 0
        done = run("show", "-c", config, "--format", "nix")
        assert (done.code, done.out) == (2, "")
        assert said in done.err
