"""A unified diff of two texts, in time that grows with their length.

difflib searches for the longest match again and again, which takes minutes when ten thousand targets have moved. So the
texts are divided first at anchors: lines that both texts contain equally often, in one order. This is a patience diff
whose anchors need not be unique, because a machine appears in several jobs. difflib compares only short stretches
between two anchors, because its time is the cube of their length. Of a long stretch, the common start and end are kept,
and the rest is replaced as a whole.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict, deque
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
"""Most pairs of lines that difflib compares between two anchors: 128 lines of each text."""
_UNENDED: Final = "\n\\ No newline at end of file"


def unified(old: str, new: str, name: str) -> Iterator[str]:
    """Yield the lines of a diff that `patch` accepts if they are not escaped; none if the texts are equal."""
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
    """Split at newlines only. Other line separators of Unicode may be part of a value."""
    lines = text.split("\n")
    last = lines.pop()
    if last:
        lines.append(last + _UNENDED)
    return lines


def _marked(mark: str, lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield from f"{mark}{line}".split("\n")


def _range(start: int, end: int) -> str:
    """Write a range of lines as diff does: it counts from one, and an empty range names the line before it."""
    length = end - start
    if length == 0:
        return f"{start},0"
    if length == 1:
        return str(start + 1)
    return f"{start + 1},{length}"


class _Matched(SequenceMatcher[str]):
    """Groups opcodes that were found already, with their context, as difflib does."""

    def __init__(self, codes: list[_Opcode]) -> None:
        super().__init__()
        self._codes = codes

    @override
    def get_opcodes(self) -> list[_Opcode]:
        return self._codes


def _opcodes(a: list[str], b: list[str]) -> list[_Opcode]:
    """Match the anchors with each other, and compare what lies between two of them."""
    found: list[_Opcode] = []
    ends = [(-1, -1), *_rising(_candidates(a, b)), (len(a), len(b))]
    for (i, j), (i_next, j_next) in pairwise(ends):
        if i >= 0:
            _add(found, ("equal", i, i + 1, j, j + 1))
        for tag, i1, i2, j1, j2 in _between(a[i + 1 : i_next], b[j + 1 : j_next]):
            _add(found, (tag, i + 1 + i1, i + 1 + i2, j + 1 + j1, j + 1 + j2))
    return found


def _candidates(a: Sequence[str], b: Sequence[str]) -> list[_Pair]:
    """Pair the lines that both texts contain equally often, first with first, in the order of `a`."""
    in_a, in_b = Counter(a), Counter(b)
    positions: defaultdict[str, deque[int]] = defaultdict(deque)
    for j, line in enumerate(b):
        positions[line].append(j)
    return [(i, positions[line].popleft()) for i, line in enumerate(a) if in_a[line] == in_b[line]]


def _rising(pairs: Sequence[_Pair]) -> list[_Pair]:
    """Return the longest chain of pairs that rises in both texts, by patience sorting."""
    lowest: list[int] = []  # for each length of a chain, the lowest line of `b` that ends one
    last: list[int] = []  # and which pair that is
    previous: list[int] = []  # for each pair, the pair before it in its chain; -1 for none
    for index, (_, j) in enumerate(pairs):
        length = bisect_left(lowest, j)
        previous.append(last[length - 1] if length else -1)
        lowest[length : length + 1] = [j]
        last[length : length + 1] = [index]
    chain: list[_Pair] = []
    index = last[-1] if last else -1
    while index >= 0:
        chain.append(pairs[index])
        index = previous[index]
    return chain[::-1]


def _between(a: list[str], b: list[str]) -> list[_Opcode]:
    """Compare what lies between two anchors."""
    if len(a) * len(b) <= _GAP_MOST:
        return SequenceMatcher(None, a, b).get_opcodes()
    head = _common(a, b)
    tail = _common(a[head:][::-1], b[head:][::-1])
    i, j = len(a) - tail, len(b) - tail
    codes: list[_Opcode] = [
        ("equal", 0, head, 0, head),
        ("delete", head, i, head, head),
        ("insert", i, i, head, j),
        ("equal", i, len(a), j, len(b)),
    ]
    return [(tag, i1, i2, j1, j2) for tag, i1, i2, j1, j2 in codes if i1 < i2 or j1 < j2]


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Count the lines that both begin with."""
    for count, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return count
    return min(len(a), len(b))


def _add(found: list[_Opcode], code: _Opcode) -> None:
    """Append an opcode; merge two equal stretches in a row."""
    if found and found[-1][0] == code[0] == "equal":
        _, i1, _, j1, _ = found.pop()
        code = ("equal", i1, code[2], j1, code[4])
    found.append(code)
