"""Write what `verify` found: as the JSON document of `verify.schema.json`, and as text for people. Pure."""

from __future__ import annotations

import textwrap
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from clan_discovery.emit.columns import Column, fitted
from clan_discovery.model import WORST_FIRST, UnloadedRules, Verdict, one_line
from clan_discovery.syntax.counting import first_names, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clan_discovery.model import Ghost, Program, Verification, Verified
    from clan_discovery.syntax.terminal import Style

_NAMES_MOST: Final = 8
_GROUPS_MOST: Final = 100
_ORDER: Final = {verdict: number for number, verdict in enumerate(WORST_FIRST)}
_COLUMNS: Final = (
    Column("VERDICT", least=8),
    Column("JOB", least=8),
    Column("INSTANCE", least=16, tail=6),
    Column("TARGET", least=21, tail=6, drop=2),
    Column("SCRAPER", least=8, drop=1),
)
_WIDEST: Final = max(len(verdict) for verdict in Verdict)


def verification_document(verification: Verification) -> Mapping[str, object]:
    """Return the document that `verify.schema.json` describes."""
    return {
        "targets": verification.targets,
        "ghosts": verification.ghosts,
        "asked": verification.asked,
        "summary": summary(verification),
    }


def summary(verification: Verification) -> Mapping[str, object]:
    """Count the targets by verdict and by the number of servers, the ghosts, and the targets of other shards."""
    counts = Counter(target.verdict for target in verification.targets)
    return {
        "at": datetime.fromtimestamp(verification.at, UTC).isoformat(timespec="seconds"),
        "targets": len(verification.targets),
        "verdicts": {str(verdict): counts[verdict] for verdict in Verdict},
        "ghosts": len(verification.ghosts),
        "other_shards": verification.other_shards,
        "replicas": {str(servers): count for servers, count in _replicas(verification)},
    }


def _replicas(verification: Verification) -> Sequence[tuple[int, int]]:
    """Return how many shared targets are scraped by how many servers, the most servers first."""
    counts = Counter(copies for copies in verification.copies if copies is not None)
    return sorted(counts.items(), reverse=True)


def render_verification(
    verification: Verification, *, verbose: bool = False, width: int | None = None
) -> Iterator[tuple[str, Style]]:
    """Yield lines: every target if `verbose`, each cause once with its targets and the fix, then the total."""
    if verbose and verification.targets:
        yield from _rows(verification.targets, width)
    yield from _findings(verification.targets, width)
    yield from _ghosts(verification.ghosts, width)
    for program in verification.asked:
        yield from _program(program, width)
    yield _total(verification), "plain"
    if any(target.verdict is not Verdict.UP for target in verification.targets):
        yield "to check backends, DNS and the output directory: clan-discovery doctor", "dim"


def _rows(targets: Sequence[Verified], width: int | None) -> Iterator[tuple[str, Style]]:
    ordered = sorted(targets, key=lambda target: _ORDER[target.verdict])
    rows = [[one_line(cell) for cell in (t.verdict, t.job, t.instance, t.address, t.scraper or "-")] for t in ordered]
    styles: list[Style] = [_style(target.verdict) for target in ordered]
    return zip(fitted(_COLUMNS, rows, width), ["bold", *styles], strict=True)


def _style(verdict: Verdict) -> Style:
    if verdict.is_finding:
        return "red"
    if verdict is Verdict.UP:
        return "plain"
    return "yellow"


def _findings(targets: Sequence[Verified], width: int | None) -> Iterator[tuple[str, Style]]:
    """Yield each cause once, with the targets that have it, the worst first."""
    causes: dict[tuple[int, str, str, str], list[Verified]] = {}
    for target in targets:
        if target.verdict is not Verdict.UP:
            key = _ORDER[target.verdict], target.job, target.scraper, target.reason
            causes.setdefault(key, []).append(target)
    for key, alike in sorted(causes.items())[:_GROUPS_MOST]:
        _, job, scraper, reason = key
        first = alike[0]
        names = first_names([target.instance for target in alike], _NAMES_MOST)
        by = f" ({scraper})" if scraper else ""
        fix = "" if first.verdict is Verdict.UNKNOWN else first.fix  # it is below, at the program
        yield from _block(first.verdict, f"{job}: {names}{by}", reason, fix, width)
    if len(causes) > _GROUPS_MOST:
        yield f"and {len(causes) - _GROUPS_MOST} more causes: use --job, --machine or --format json", "yellow"


def _block(verdict: Verdict, about: str, reason: str, fix: str, width: int | None) -> Iterator[tuple[str, Style]]:
    style = _style(verdict)
    for line in _wrapped(f"{verdict.ljust(_WIDEST)}  {about}", width):
        yield line, style
    yield from _indented(reason, fix, width)


def _indented(reason: str, fix: str, width: int | None) -> Iterator[tuple[str, Style]]:
    indent = " " * (_WIDEST + 2)
    if reason:
        for line in _wrapped(f"{indent}{reason}", width):
            yield line, "plain"
    if fix:
        for line in _wrapped(f"{indent}to fix: {fix}", width):
            yield line, "plain"


def _wrapped(text: str, width: int | None) -> Sequence[str]:
    """Break a line at spaces; longer words (paths) stay whole. Without a width it is one line."""
    text = one_line(text)
    if width is None or len(text) <= width:
        return [text]
    indent = " " * (_WIDEST + 4)
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _ghosts(ghosts: Sequence[Ghost], width: int | None) -> Iterator[tuple[str, Style]]:
    causes: dict[tuple[str, str, str, str], list[str]] = {}
    for ghost in ghosts:
        causes.setdefault((ghost.job, ghost.scraper, ghost.reason, ghost.fix), []).append(ghost.instance)
    for (job, scraper, reason, fix), instances in sorted(causes.items())[:_GROUPS_MOST]:
        names = first_names(instances, _NAMES_MOST)
        for line in _wrapped(f"{'ghost'.ljust(_WIDEST)}  {job}: {names} ({scraper})", width):
            yield line, "red"
        yield from _indented(reason, fix, width)


def _program(program: Program, width: int | None) -> Iterator[tuple[str, Style]]:
    if program.ok and not program.reason:
        return
    word = "note"
    style: Style = "yellow"
    if isinstance(program, UnloadedRules):
        word, style = "rules", "red"
    elif not program.ok:
        word = "not asked"
    where = f"{program.name} at {program.url}" if program.url else program.name
    for line in _wrapped(f"{word.ljust(_WIDEST)}  {where}", width):
        yield line, style
    yield from _indented(program.reason, program.fix, width)


def _total(verification: Verification) -> str:
    """Sum up in one line: `12 targets: 10 up, 2 down; 1 ghost; asked: prometheus 2.42.0`."""
    counts = Counter(target.verdict for target in verification.targets)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in sorted(counts, key=lambda v: -_ORDER[v]))
    total = plural(len(verification.targets), "target")
    parts = [f"{total}: {told}" if told else total]
    if replicas := _replicas(verification):
        parts.append(", ".join(f"{count} at {plural(servers, 'server')}" for servers, count in replicas))
    if verification.ghosts:
        parts.append(plural(len(verification.ghosts), "ghost"))
    if verification.other_shards:
        parts.append(f"{plural(verification.other_shards, 'target')} of other shards, whose scrapers were not asked")
    asked = [f"{program.name} {program.version}".rstrip() for program in verification.asked if program.ok]
    parts.append(f"asked: {first_names(asked, _NAMES_MOST) or 'none'}")
    return one_line("; ".join(parts))
