"""Compare targets before and after a refresh, and lines of a snapshot."""

from __future__ import annotations

from collections import Counter
from difflib import unified_diff
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import msgspec

from clan_discovery.emit.columns import aligned
from clan_discovery.emit.publishers import EVERY_SERVER
from clan_discovery.model import one_line
from clan_discovery.syntax.counting import plural

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from clan_discovery.model import Exclusion, Target
    from clan_discovery.syntax.terminal import Style

_Target: TypeAlias = "tuple[str, Mapping[str, str]]"
Targets: TypeAlias = "Mapping[str, Sequence[_Target]]"
"""Targets by job: address and labels of each."""
_Mark: TypeAlias = Literal["+", "-", "~", "="]
_STYLES: Final[Mapping[str, Style]] = {"+": "green", "-": "red", "~": "yellow"}
_MOST_LINES: Final = 3_000
"""The longest text, in lines, for which a unified diff is made."""
_WIDEST: Final = 40


class Change(msgspec.Struct, frozen=True, gc=False):
    """A target of a job that differs before (`old`) and after (`new`); None: it does not exist."""

    job: str
    instance: str
    old: _Target | None
    new: _Target | None

    @property
    def mark(self) -> _Mark:
        """Return `+` (added), `-` (removed), `~` (moved) or `=` (only labels changed)."""
        if self.old is None:
            return "+"
        if self.new is None:
            return "-"
        if self.old[0] != self.new[0]:
            return "~"
        return "="

    @property
    def machine(self) -> str:
        """Return the name of its machine; the instance if a foreign file has no machine."""
        _, labels = self.new or self.old or ("", {})
        return labels.get("machine", self.instance)

    @property
    def name(self) -> str:
        """Return the job, with the instance if the machine has several in it."""
        if self.instance == self.machine:
            return self.job
        return f"{self.job}/{self.instance}"

    def where(self, *, ports: bool) -> str:
        """Return its address, or both addresses: `old -> new`; without `ports`, the hosts."""
        addresses = [target[0] for target in (self.old, self.new) if target is not None]
        if not ports:
            addresses = [address.rpartition(":")[0] for address in addresses]
        return " -> ".join(dict.fromkeys(addresses))

    @property
    def keeps_port(self) -> bool:
        """Tell whether the port is the same before and after."""
        return len({target[0].rpartition(":")[2] for target in (self.old, self.new) if target is not None}) == 1

    def labels(self) -> tuple[str, ...]:
        """Return a line for each label that differs; only if the target exists before and after."""
        if self.old is None or self.new is None:
            return ()
        before, after = self.old[1], self.new[1]
        lines: list[str] = []
        for name in sorted({*before, *after}):
            if name not in before:
                lines.append(f"    +{name}={after[name]!r}")
            elif name not in after:
                lines.append(f"    -{name}={before[name]!r}")
            elif before[name] != after[name]:
                lines.append(f"    ~{name}={before[name]!r} -> {after[name]!r}")
        return tuple(lines)


class _Same(NamedTuple):
    """What changes must have in common to be printed in one line."""

    machine: str
    mark: _Mark
    where: str
    why: str
    labels: tuple[str, ...]


def changes(published: Targets, wanted: Targets) -> list[Change]:
    """Return what differs between two sets of targets, sorted by machine and job.

    A target is identified by its job and instance.
    """
    found: list[Change] = []
    for job in {*published, *wanted}:
        before, after = _by_instance(published.get(job, ())), _by_instance(wanted.get(job, ()))
        both = (Change(job, instance, before.get(instance), after.get(instance)) for instance in {*before, *after})
        found += [change for change in both if change.old != change.new]
    return sorted(found, key=lambda change: (change.machine, change.job, change.instance))


def _by_instance(targets: Sequence[_Target]) -> dict[str, _Target]:
    return {labels.get("instance", address): (address, labels) for address, labels in targets}


def render_changes(
    found: Sequence[Change],
    excluded: Iterable[Exclusion] = (),
    targets: Iterable[Target] = (),
    *,
    taken_over: Container[tuple[str, str]] = (),
    labels: bool = False,
) -> Iterator[tuple[str, Style]]:
    """Yield one line for all targets of a machine that change in the same way, then the sum.

    `excluded` says why targets go, and `targets`, all that there are now, which of them no backend is asked about, and
    which of them other servers publish. `taken_over` are targets, by job and instance, that other servers published.
    Without `labels`, a target whose labels alone change is counted, not listed.
    """
    if not found:
        yield "nothing would change", "plain"
        return
    reasons = _Reasons(excluded, targets, taken_over)
    groups: dict[_Same, list[Change]] = {}
    for change in found:
        if labels or change.mark != "=":
            groups.setdefault(_same(change, reasons.of(change), labels=labels), []).append(change)
    rows = [_row(same, group) for same, group in groups.items()]
    for line, same in zip(aligned(rows, _WIDEST), groups, strict=True):
        yield line, _STYLES.get(same.mark, "plain")
        for label in same.labels:
            yield one_line(label), "dim"
    yield _sum(found, labels=labels), "plain"


def _same(change: Change, why: str, *, labels: bool) -> _Same:
    where = change.where(ports=not change.keeps_port)
    shown: tuple[str, ...] = ()
    if labels:
        shown = change.labels()
    return _Same(change.machine, change.mark, where, why, shown)


def _row(same: _Same, group: Sequence[Change]) -> list[str]:
    """Return the cells of a line: machine, jobs, addresses (without ports where these differ), and why."""
    where = same.where
    with_ports = {change.where(ports=True) for change in group}
    if len(with_ports) == 1:
        where = min(with_ports)
    mark, why = same.mark, f"({same.why})"
    if mark == "=":
        mark, why = "~", "(labels only)"
    jobs = ", ".join(change.name for change in group)
    return [one_line(cell) for cell in (f"{mark} {same.machine}", jobs, where, why)]


class _Reasons:
    """Says why a target is added, removed or moved."""

    def __init__(
        self, excluded: Iterable[Exclusion], targets: Iterable[Target], taken_over: Container[tuple[str, str]]
    ) -> None:
        self._taken_over = taken_over
        self._excluded: dict[tuple[str, str | None], str] = {(e.name.casefold(), e.job): e.reason for e in excluded}
        self._declared: set[tuple[str, str]] = set()
        self._servers: dict[tuple[str, str], tuple[str, ...]] = {}
        for target in targets:
            key = target.job, target.labels.get("instance", "")
            self._servers[key] = target.servers
            if not target.asked:
                self._declared.add(key)

    def of(self, change: Change) -> str:
        """Return the reason of a change."""
        if change.new is None:
            return self._of_removed(change)
        if change.old is None and (change.job, change.instance) in self._taken_over:
            return self._published_by(change)
        if (change.job, change.instance) in self._declared:
            return "at its declared address or name"
        before = _seen_by(change.old)
        after = _seen_by(change.new)
        if after is None and before is not None:
            return "no longer seen"
        if after is None:
            return "not seen"
        if change.old is None or before == after:
            return f"seen by {after}"
        return f"now seen by {after}"

    def _of_removed(self, change: Change) -> str:
        if self._servers.get((change.job, change.instance)):
            return self._published_by(change)
        machine = change.machine.casefold()
        reason = self._excluded.get((machine, change.job)) or self._excluded.get((machine, None))
        if reason:
            return f"excluded: {reason}"
        if change.old is not None and "__meta_clan_role" in change.old[1]:
            return "no longer declared"
        return "no longer declared, listed or selected"

    def _published_by(self, change: Change) -> str:
        return f"now published by {', '.join(self._servers[change.job, change.instance]) or EVERY_SERVER}"


def _seen_by(target: _Target | None) -> str | None:
    """Return the backend that sees a target; None if no backend does."""
    if target is None or target[1].get("__meta_clan_observed") != "true":
        return None
    return target[1].get("__meta_clan_backend", "a backend")


def _sum(found: Iterable[Change], *, labels: bool) -> str:
    """Sum up the changes: `+2 -0 ~3`, and how many targets only change labels."""
    counts = Counter(change.mark for change in found)
    text = f"+{counts['+']} -{counts['-']} ~{counts['~']}"
    if not counts["="]:
        return text
    text += f", and {plural(counts['='], 'target')} with other labels only"
    if labels:
        return text
    return f"{text} (--labels lists them)"


def diff_lines(old: str, new: str, name: str) -> Iterator[str]:
    """Yield a unified diff of two texts, or only the lines that differ if they are too long.

    difflib takes minutes if thousands of lines moved. For long texts, the lines only in `old` come first, then the
    lines only in `new`; lines that only moved are not reported.
    """
    before, after = old.split("\n"), new.split("\n")
    if max(len(before), len(after)) <= _MOST_LINES:
        for line in unified_diff(before, after, name, name, lineterm=""):
            yield one_line(line)
        return
    yield f"--- {name}"
    yield f"+++ {name}"
    yield from _surplus("-", before, after)
    yield from _surplus("+", after, before)


def _surplus(mark: str, lines: Iterable[str], others: Iterable[str]) -> Iterator[str]:
    """Yield the lines that are not among the others, each after the mark."""
    left = Counter(others)
    for line in lines:
        left[line] -= 1
        if left[line] < 0:
            yield one_line(f"{mark}{line}")


def with_styles(lines: Iterable[str]) -> Iterator[tuple[str, Style]]:
    """Yield the lines of a diff, each with its style on a terminal."""
    styles: dict[str, Style] = {"-": "red", "+": "green", "@": "cyan"}
    for line in lines:
        if line.startswith(("--- ", "+++ ")):
            yield line, "bold"
        else:
            yield line, styles.get(line[:1], "plain")
