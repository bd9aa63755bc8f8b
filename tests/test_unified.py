"""The unified diff: `git apply` makes the new text of the old one, also where everything has moved."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from clan_discovery.emit.unified import unified
from tests.support.programs import program

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


@settings(max_examples=150)
@given(TEXTS, TEXTS, st.booleans(), st.booleans())
def test_the_new_text_is_made_of_the_old_one(old: str, new: str, ended: bool, also: bool) -> None:  # noqa: FBT001
    """Whatever repeats, moves, is empty, or has no newline at its end."""
    old, new = old + "\n" * ended, new + "\n" * also
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
