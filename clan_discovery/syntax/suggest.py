"""Suggestions for misspelt keys, machines, exporters and commands. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

_COMPARED_MOST: Final = 200
_ALIKE: Final = 0.6
_ALIKE_ELSEWHERE: Final = 0.65
CLOSE: Final = 0.7
"""A high ratio, for words that may be right as they are: `paths` is similar to `path`, `host` not to `port`."""


def similar(word: str, known: Iterable[str], most: int = 1, ratio: float = _ALIKE) -> tuple[str, ...]:
    """Return up to `most` known words that are similar to `word`, best first, whatever their case.

    `ratio` is the least similarity, from 0 to 1 (difflib). Without it, 0.5 is enough for short words. A
    typo seldom changes the first letter: a word with another first letter must be more similar.
    """
    import difflib  # noqa: PLC0415 - only where something is wrong
    import heapq  # noqa: PLC0415 - as above

    by_fold: dict[str, str] = {}
    for name in known:
        by_fold.setdefault(name.casefold(), name)
    if len(word) <= 4 and ratio == _ALIKE:  # two letters swapped in a short name leave half of it in place
        ratio = 0.5
    folded = word.casefold()[:100]
    candidates: Iterable[str] = by_fold
    if len(by_fold) > _COMPARED_MOST:  # difflib takes 20 microseconds for each
        candidates = heapq.nlargest(_COMPARED_MOST, by_fold, key=lambda name: _same_ends(folded, name))
    close = difflib.get_close_matches(folded, candidates, n=most, cutoff=ratio)
    return tuple(by_fold[fold] for fold in close if _begins_alike(folded, fold))


def _begins_alike(word: str, name: str) -> bool:
    """Tell whether two words have the same first letter or letters, one is a part of the other, or they are close."""
    if word[:1] == name[:1] or sorted(word) == sorted(name) or word in name or name in word:
        return True
    import difflib  # noqa: PLC0415 - as above

    return difflib.SequenceMatcher(None, name, word).ratio() > _ALIKE_ELSEWHERE


def _same_ends(word: str, name: str) -> int:
    """Count the characters that two words share at both ends, less the difference of their lengths."""
    shorter = min(len(word), len(name))
    first = 0
    while first < shorter and word[first] == name[first]:
        first += 1
    last = 0
    while last < shorter - first and word[-1 - last] == name[-1 - last]:
        last += 1
    return first + last - abs(len(word) - len(name))


def did_you_mean(word: str, known: Iterable[str], ratio: float = _ALIKE) -> str | None:
    """Return the hint `did you mean 'x'?`, or None if no word is similar."""
    for close in similar(word, known, ratio=ratio):
        return f"did you mean {close!r}?"
    return None


class Suggester(msgspec.Struct):
    """Suggests for the first misspelt words only: to search 10,000 words takes 20 ms."""

    left: int = 20

    def did_you_mean(self, word: str, known: Iterable[str]) -> str | None:
        """Return the hint as `did_you_mean` does, or None after enough suggestions."""
        if not self.take():
            return None
        return did_you_mean(word, known)

    def take(self) -> bool:
        """Tell whether one more suggestion is allowed, and count it."""
        self.left -= 1
        return self.left >= 0
