"""The unified diff: `git apply` makes the new text of the old one, also where everything has moved."""

from __future__ import annotations

import subprocess
import tempfile
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clan_discovery.emit.unified import unified
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "d", "", " ", "x\u2028y", "\\", "-", "+++ t"]), max_size=14).map(
    "\n".join
)


def patched(old: str, diff: str) -> str:
    """Return what the real `git apply` makes of a text."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "t"
        file.write_bytes(old.encode())
        words = [program("git"), "apply", "-p0", "--unidiff-zero", "--whitespace=nowarn", "-"]
        done = subprocess.run(words, cwd=scratch, input=diff.encode(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return file.read_bytes().decode()


@settings(max_examples=200)
@given(TEXTS, TEXTS, st.booleans(), st.booleans(), st.sampled_from([0, 9, 1 << 14]))
def test_the_new_text_is_made_of_the_old_one(
    old: str,
    new: str,
    ended: bool,  # noqa: FBT001
    also: bool,  # noqa: FBT001
    most: int,
) -> None:
    """Whatever repeats, moves, is empty, has no newline at its end, or is too much to compare."""
    old, new = old + "\n" * ended, new + "\n" * also
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clan_discovery.emit.unified._GAP_MOST", most)
        diff = "".join(f"{line}\n" for line in unified(old, new, "t"))
    assert (diff == "") == (old == new)
    if diff and old and new:  # git takes an empty file for one that is not there
        assert patched(old, diff) == new


def test_what_it_looks_like() -> None:
    """As diff -u writes it: three lines around, ranges from one, and the end without a newline told."""
    old = "".join(f"{n}\n" for n in range(20))
    assert list(unified(old, old.replace("9\n", "nine\n", 1).removesuffix("\n"), "f")) == [
        "--- f", "+++ f",
        "@@ -7,7 +7,7 @@", " 6", " 7", " 8", "-9", "+nine", " 10", " 11", " 12",
        "@@ -17,4 +17,4 @@", " 16", " 17", " 18", "-19", "+19", "\\ No newline at end of file",
    ]  # fmt: skip
    assert list(unified("", "a\n", "f")) == ["--- f", "+++ f", "@@ -0,0 +1 @@", "+a"]
    assert list(unified("a\nb\n", "", "f")) == ["--- f", "+++ f", "@@ -1,2 +0,0 @@", "-a", "-b"]


def test_everything_moved() -> None:
    """A machine stands in several jobs, and no address is what it was: each line with its own, and no minutes."""

    def text(net: int) -> str:
        names = [f"m{n}" for n in range(5000)]
        return "".join(f"{job}\n10.{net}.{name}\n{name}\nsame\n" for job in ("node", "systemd") for name in names)

    lines = list(unified(text(1), text(2), "t"))
    assert sum(line.startswith("-10.1.") for line in lines) == 10_000
    assert sum(line.startswith("+10.2.") for line in lines) == 10_000
    assert not [line for line in lines if line[:1] in "+-" and line[1:4] != "10." and line not in ("--- t", "+++ t")]


def test_much_that_is_the_same_is_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies between two anchors may be one and the same, though it is too much to compare: no part of the diff."""
    monkeypatch.setattr("clan_discovery.emit.unified._GAP_MOST", 0)
    old = "x\n" + "".join(f"{n}\n" for n in range(9))
    added = ["--- t", "+++ t", "@@ -8,3 +8,4 @@", " 6", " 7", " 8", "+x"]
    assert list(unified(old, f"{old}x\n", "t")) == added


class Counted(SequenceMatcher[str]):
    """difflib, and how many pairs of lines it was given to compare."""

    pairs = 0

    def __init__(self, isjunk: None, a: Sequence[str], b: Sequence[str]) -> None:
        super().__init__(isjunk, a, b)
        Counted.pairs += len(a) * len(b)


def test_everything_renamed_and_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line stands equally often any more: twice the lines are twice the work, and the diff is all of both."""

    def compared(machines: int) -> int:
        def text(name: str, more: int) -> str:
            groups = [[f"{name}{g}-{n}" for n in range(20 + more)] for g in range(machines // 20)]
            body = "".join(f"{{\ntags = {g};\nseen\n{name}\n}}\n" for g, names in enumerate(groups) for name in names)
            return f"first\n{body}last\n"

        Counted.pairs = 0
        old, new = text("a", 0), text("b", 1)
        lines = list(unified(old, new, "t"))
        sizes = [len(whole.splitlines()) - 1 for whole in (old, new)]
        assert lines[2:6] == [f"@@ -2,{sizes[0]} +2,{sizes[1]} @@", " {", " tags = 0;", " seen"]
        assert lines[-2:] == [" }", " last"]
        assert [line for line in lines if line.startswith("-a")] == [f"-{x}" for x in old.split("\n") if x[:1] == "a"]
        return Counted.pairs

    monkeypatch.setattr("clan_discovery.emit.unified.SequenceMatcher", Counted)
    few, many = compared(1000), compared(2000)
    assert many <= 2 * few + 1000
    assert many < 100_000
