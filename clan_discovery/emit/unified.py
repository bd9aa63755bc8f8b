"""A unified diff of two texts in time that grows as they do. Pure.

difflib looks for the longest match again and again, which is minutes where ten thousand targets have moved. Lines that
both texts have equally often divide them first, as many as stand in one order (a patience diff whose lines need not be
unique: a machine stands in several jobs); difflib gets what is between two, where that is little: its time is the cube
of it. Of much, what both begin and end with stays, and the rest is replaced as a whole.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from difflib import SequenceMatcher
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_Tag: TypeAlias = Literal["replace", "delete", "insert", "equal"]
_Opcode: TypeAlias = tuple[_Tag, int, int, int, int]
_Pair: TypeAlias = tuple[int, int]

_GAP_MOST: Final = 1 << 14
"""So many pairs of lines between two anchors are compared: 128 lines of each text."""
_UNENDED: Final = "\n\\ No newline at end of file"


def unified(old: str, new: str, name: str) -> Iterator[str]:
    """Yield the lines of a diff that `patch` takes, as long as nobody escapes them; none where the texts are one."""
    a, b = _lines(old), _lines(new)
    if a == b:
        return
    yield f"--- {name}"
    yield f"+++ {name}"
    for group in _Matched(_opcodes(a, b)).get_grouped_opcodes():
        yield f"@@ -{_range(group[0][1], group[-1][2])} +{_range(group[0][3], group[-1][4])} @@"
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                yield from _marked(" ", a[i1:i2])
            else:
                yield from _marked("-", a[i1:i2])
                yield from _marked("+", b[j1:j2])


def _lines(text: str) -> list[str]:
    """Split at newlines alone: a separator of Unicode's within a value ends no line."""
    lines = text.split("\n")
    last = lines.pop()
    return [*lines, last + _UNENDED] if last else lines


def _marked(mark: str, lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield from f"{mark}{line}".split("\n")


def _range(start: int, end: int) -> str:
    """Write a range of lines as diff does: from one, and from the line before where it is empty."""
    length = end - start
    return str(start + 1) if length == 1 else f"{start + (length > 0)},{length}"


class _Matched(SequenceMatcher[str]):
    """Lends difflib's grouping to opcodes that are there already."""

    def __init__(self, codes: list[_Opcode]) -> None:
        super().__init__()
        self._codes = codes

    @override
    def get_opcodes(self) -> list[_Opcode]:
        return self._codes


def _opcodes(a: list[str], b: list[str]) -> list[_Opcode]:
    """Match the lines of the anchors, and what lies between two of them."""
    found: list[_Opcode] = []
    for (i, j), (i_next, j_next) in pairwise([(-1, -1), *_anchors(a, b), (len(a), len(b))]):
        if i >= 0:
            _add(found, ("equal", i, i + 1, j, j + 1))
        for tag, i1, i2, j1, j2 in _between(a[i + 1 : i_next], b[j + 1 : j_next]):
            _add(found, (tag, i + 1 + i1, i + 1 + i2, j + 1 + j1, j + 1 + j2))
    return found


def _between(a: list[str], b: list[str]) -> list[_Opcode]:
    """Match what lies between two anchors."""
    if len(a) * len(b) <= _GAP_MOST:
        return SequenceMatcher(None, a, b).get_opcodes()
    shorter = min(len(a), len(b))
    head = next((n for n in range(shorter) if a[n] != b[n]), shorter)
    tail = next((n for n in range(shorter - head) if a[-1 - n] != b[-1 - n]), shorter - head)
    i, j = len(a) - tail, len(b) - tail
    tag: _Tag = "replace" if head < i and head < j else "delete" if head < i else "insert"
    codes: list[_Opcode] = [("equal", 0, head, 0, head), (tag, head, i, head, j), ("equal", i, len(a), j, len(b))]
    return [code for code in codes if code[1] < code[2] or code[3] < code[4]]


def _add(found: list[_Opcode], code: _Opcode) -> None:
    """Add what is the same to what is the same before it."""
    if found and found[-1][0] == code[0] == "equal":
        code = ("equal", found[-1][1], code[2], found[-1][3], code[4])
        found.pop()
    found.append(code)


def _anchors(a: Sequence[str], b: Sequence[str]) -> list[_Pair]:
    """Pair the lines that both have equally often, first with first, and return the longest rising chain of pairs."""
    often = Counter(a)
    even = {line for line, count in Counter(b).items() if often[line] == count}
    places: dict[str, list[int]] = {}
    for j in range(len(b) - 1, -1, -1):
        if b[j] in even:
            places.setdefault(b[j], []).append(j)
    ends: list[int] = []  # patience sorting: the top of each pile, and which pair that is
    tops: list[int] = []
    pairs: list[tuple[_Pair, int]] = []  # each with the one before it in its chain
    for i, line in enumerate(a):
        if line in even:
            j = places[line].pop()
            pile = bisect_left(ends, j)
            before = tops[pile - 1] if pile else -1
            ends[pile : pile + 1], tops[pile : pile + 1] = [j], [len(pairs)]
            pairs.append(((i, j), before))
    found: list[_Pair] = []
    index = tops[-1] if tops else -1
    while index >= 0:
        pair, index = pairs[index]
        found.append(pair)
    return found[::-1]
