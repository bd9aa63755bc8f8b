"""Suggestions for misspelt keys, machines, exporters and commands. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def similar(word: str, known: Iterable[str], most: int = 1) -> tuple[str, ...]:
    """Return up to `most` known words that resemble `word`, best first; case does not count."""
    import difflib  # noqa: PLC0415 - only where something is wrong

    by_fold: dict[str, str] = {}
    for name in known:
        by_fold.setdefault(name.casefold(), name)
    cutoff = 0.6
    if len(word) <= 4:  # two letters swapped in a short name leave half of it in place
        cutoff = 0.5
    close = difflib.get_close_matches(word.casefold()[:100], by_fold, n=most, cutoff=cutoff)
    return tuple(by_fold[fold] for fold in close)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return the hint `did you mean 'x'?`, or None where nothing resembles the word."""
    for close in similar(word, known):
        return f"did you mean {close!r}?"
    return None
