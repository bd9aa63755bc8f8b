"""Compare the targets and the states of machines of two refresh cycles. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from clan_discovery.model import BeliefState, ChangeRecord, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from clan_discovery.model import Resolution

Row: TypeAlias = tuple[str, str, str, str, str]
"""A target: job, instance, machine, address, backend. The backend is empty if none sees the machine."""

_AT_ONCE: Final = 1000
"""So many rows are compared at once, because most cycles change few of them."""
_ANSWERED: Final = (BeliefState.FRESH, BeliefState.PARTIAL)


class MachineState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The bad state of a machine.

    `node` belongs to the state `renamed`: the node that calls itself by the machine's name.
    """

    state: Literal["missing", "offline", "expired", "renamed"]
    node: str = ""


class ShareChange(msgspec.Struct, frozen=True, gc=False):
    """How many targets a server begins and ceases to publish because the settings of its shard changed.

    If the shard was removed, `added` counts all targets.
    """

    added: int
    removed: int


class Changes(msgspec.Struct, frozen=True, gc=False):
    """The changes of one refresh cycle.

    `is_first`: there was no earlier cycle to compare with. `share` is None while the servers that share the targets
    are the same, with the same settings.
    """

    found: tuple[ChangeRecord, ...] = ()
    is_first: bool = False
    share: ShareChange | None = None

    @property
    def summary(self) -> str:
        """Count the added, removed and changed targets: `+2 -0 ~3`; empty without changes."""
        counts = {"+": 0, "-": 0, "~": 0}
        for change in self.found:
            if change.job:
                counts[change.sign] += 1
        if not any(counts.values()):
            return ""
        return " ".join(f"{sign}{count}" for sign, count in counts.items())


def rows_of(resolution: Resolution, before: Sequence[Row]) -> list[Row]:
    """Return a row for each target.

    Jobs that keep their present file keep their rows of `before`.
    """
    frozen = {frozen.job for frozen in resolution.frozen}
    rows = [(t.job, t.labels["instance"], t.machine, t.address, t.backend or "") for t in resolution.targets]
    if not frozen:
        return rows
    return [row for row in rows if row[0] not in frozen] + [row for row in before if row[0] in frozen]


def states_of(resolution: Resolution, before: Mapping[str, MachineState]) -> dict[str, MachineState]:
    """Return the state of each machine that has a bad one.

    A machine whose lookup or backend failed in this cycle keeps its state of `before`, so an outage does not clear it.
    """
    found = _found(resolution)
    for name in before.keys() & _unsure(resolution):
        found.setdefault(name, before[name])
    # A name may contain surrogates, which cannot be written to a file.
    return {one_line(name): MachineState(state.state, one_line(state.node)) for name, state in sorted(found.items())}


def _found(resolution: Resolution) -> dict[str, MachineState]:
    """Return the bad states that this cycle shows, by machine."""
    found = {target.machine: MachineState("offline") for target in resolution.targets if target.online is False}
    found |= {e.name: MachineState("offline") for e in resolution.excluded if e.reason == "offline"}
    found |= {name: MachineState("expired") for name in resolution.expired}
    found |= {missing.machine: MachineState("missing") for missing in resolution.missing}
    for stray in resolution.stray:
        if stray.alias in found:
            found[stray.alias] = MachineState("renamed", stray.name)
    return found


def _unsure(resolution: Resolution) -> set[str]:
    """Return the machines about which this cycle learned nothing.

    A lookup of the machine failed, or its backend did.
    """
    silent = {belief.backend for belief in resolution.beliefs if belief.state not in _ANSWERED}
    unsure = set(resolution.unknown)
    if silent:
        unsure |= {t.machine for t in resolution.targets if t.online is None and t.backend in silent}
    return unsure


def differing(before: Sequence[Row], after: Sequence[Row]) -> tuple[list[int], list[int]]:
    """Return the positions of the rows that only one of two sorted lists has.

    Of lists that are not sorted, they may be of more rows.
    """
    gone: list[int] = []
    added: list[int] = []
    at = number = 0
    while number < len(after):
        some = after[number : number + _AT_ONCE]
        if before[at : at + len(some)] == some:
            at += len(some)
            number += len(some)
            continue
        for row in some:
            while at < len(before) and before[at] < row:
                gone.append(at)
                at += 1
            if at < len(before) and before[at] == row:
                at += 1
            else:
                added.append(number)
            number += 1
    gone += range(at, len(before))
    return gone, added


def sharing(before: tuple[Row, ...], after: tuple[Row, ...]) -> tuple[Row, ...]:
    """Return `after` with the objects of `before` where many rows are equal, so that fewer new objects stay."""
    rows: list[Row] = []
    for start in range(0, len(after), _AT_ONCE):
        old, new = before[start : start + _AT_ONCE], after[start : start + _AT_ONCE]
        rows += old if old == new else new
    return tuple(rows)


def compare(before: Sequence[Row], after: Sequence[Row], at: int) -> Iterator[ChangeRecord]:
    """Yield the changes of targets, sorted by job and instance.

    `at` is in seconds since the epoch. A target is identified by its job and instance; a change of its labels alone is
    not reported. If one target was removed and another was added at the same address in the same job, it was renamed.
    """
    gone_at, new_at = differing(before, after)
    old = {before[number][:2]: before[number] for number in gone_at}
    new = {after[number][:2]: after[number] for number in new_at}
    gone = {key: row for key, row in old.items() if key not in new}
    at_address = {(row[0], row[3]): row for row in gone.values()}
    for key, row in sorted(new.items()):
        was = old.get(key)
        if was is None:
            was = at_address.pop((row[0], row[3]), None)
            if was is None:
                yield _change("added", row, at, new=row[3])
            else:
                del gone[was[:2]]
                yield _change("renamed", row, at, old=was[1], new=row[1])
        elif was[3] != row[3]:
            yield _change("moved", row, at, old=was[3], new=row[3])
    for row in gone.values():
        yield _change("removed", row, at, old=row[3])


def _change(
    what: Literal["added", "removed", "moved", "renamed"], row: Row, at: int, *, old: str = "", new: str = ""
) -> ChangeRecord:
    job, instance, machine, _, backend = row
    return ChangeRecord(
        at=at, what=what, machine=machine, job=job, instance=instance, old=old, new=new, backend=backend
    )


def compare_states(
    before: Mapping[str, MachineState], after: Mapping[str, MachineState], machines: AbstractSet[str], at: int
) -> Iterator[ChangeRecord]:
    """Yield the changes of machine states, sorted by name.

    A machine that is not in `machines` has left the inventory: it is not reported as `back`.
    """
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was == now:
            continue
        old = ""
        if was is not None:
            old = was.state
        if now is not None:
            yield ChangeRecord(at=at, what=now.state, machine=name, old=old, new=now.node)
        elif name in machines:
            yield ChangeRecord(at=at, what="back", machine=name, old=old)
