"""Make the status of all machines, and of one, from a resolution and the verdicts of `verify`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final, overload
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from typing_extensions import override

from clan_discovery.emit.attention import Tally, attention
from clan_discovery.emit.explain import Explainer, Limits
from clan_discovery.emit.states import MEANINGS, NO_EXPORTER, NO_TARGET, STATES, TargetStates
from clan_discovery.emit.status_json import fleet_json, machine_json
from clan_discovery.model import (
    FleetStatus,
    Link,
    MachineDetail,
    MachineStatus,
    Since,
    TargetStatus,
    Verdict,
    one_line,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clan_discovery.emit.states import AddressTimes
    from clan_discovery.model import (
        ChangeRecord,
        Declared,
        Exclusion,
        Report,
        State,
        StateOfMachine,
        Target,
        Verification,
        Verified,
    )

_CHANGES_MOST: Final = 50
"""The most changes of one machine that are shown."""
_VICTORIA: Final = ("vmagent", "victoriametrics", "victoria-metrics")


class StatusInput(msgspec.Struct, frozen=True, kw_only=True):
    """What the status is made from: one refresh cycle, and what else is known.

    `since` and `changes` are from the history. `scrapers` are the URLs of scrapers by name, `dashboards` URLs by title,
    in which `{machine}` stands for the machine. `config` is the path of the config, for commands that are shown.
    """

    declared: Declared
    report: Report
    limits: Callable[[], Limits] = Limits
    since: AddressTimes = {}
    changes: Sequence[ChangeRecord] = ()
    verification: Verification | None = None
    scrapers: Mapping[str, str] = {}
    dashboards: Mapping[str, str] = {}
    config: str = ""


class FleetView:
    """The status of one refresh cycle. What is expensive is made when it is first asked for, and kept."""

    def __init__(self, given: StatusInput) -> None:
        self._given = given

    @property
    def fleet(self) -> FleetStatus:
        """The status of all machines: those that are declared or have targets, then strays, then excluded nodes."""
        return self._fleet

    @cached_property
    def _fleet(self) -> FleetStatus:
        given, resolution, machines = self._given, self._given.report.resolution, self._rows
        tally = machines.tally()
        return FleetStatus(
            at=resolution.taken_at.timestamp(),
            verified_at=None if given.verification is None else given.verification.at,
            machines=machines,
            attention=attention(given.report, given.verification, tally, machines, given.config),
            jobs=tuple(sorted({*resolution.jobs, *(target.job for target in resolution.pushed)})),
            targets=len(resolution.all_targets),
            states=_in_order(tally.states, (*STATES, *NO_TARGET)),
            verdicts=_in_order(tally.verdicts, tuple(Verdict)),
        )

    def machine(self, name: str) -> MachineDetail | None:
        """Return everything that is known of a machine or a node; None if it is unknown. Case does not count."""
        index = self._rows.by_name.get(name.casefold())
        if index is None:
            return None
        status = self._rows[index]
        found = self._explainer.explain(self._raw_names.get(name.casefold(), name))
        if not found:
            return None
        dashboards = self._given.dashboards
        return MachineDetail(
            status=status,
            explanation=found[0],
            changes=tuple(self._changes_of(name.casefold())),
            links=tuple(
                Link(title, url.replace("{machine}", _quoted(status.name))) for title, url in dashboards.items()
            ),
            scrapes={target.job: tuple(self._scrapers_of(target)) for target in status.targets},
        )

    def fleet_json(self, machines: Sequence[MachineStatus], total: int) -> bytes:
        """Return the status of some of `total` machines as JSON."""
        return fleet_json(self.fleet, machines, total)

    def machine_json(self, detail: MachineDetail) -> bytes:
        """Return everything that is known of one machine as JSON."""
        return machine_json(detail)

    @cached_property
    def _rows(self) -> _Rows:
        return _Rows(self._given)

    @cached_property
    def _explainer(self) -> Explainer:
        given = self._given
        return Explainer(given.declared, given.report.resolution, given.limits(), given.since)

    @cached_property
    def _raw_names(self) -> Mapping[str, str]:
        """Return the names that are shown in another way than they are, by the shown one."""
        names = self._explainer.names.values()
        return {one_line(name).casefold(): name for name in names if not (name.isascii() and name.isprintable())}

    def _changes_of(self, fold: str) -> Iterator[ChangeRecord]:
        """Yield the newest changes of a machine."""
        left = _CHANGES_MOST
        for change in reversed(self._given.changes):
            if fold in [one_line(name).casefold() for name in change.names]:
                yield change
                left -= 1
                if left == 0:
                    return

    def _scrapers_of(self, target: TargetStatus) -> Iterator[Link]:
        """Yield the page of each scraper that may scrape a target; only its own if `verify` has found it."""
        if target.state == "pushed":  # no page of a server lists it
            return
        for name, (kind, url) in self._scrapers.items():
            if target.scraper in ("", name):
                yield Link(name, targets_page(kind, url, target.job, target.instance))

    @cached_property
    def _scrapers(self) -> Mapping[str, tuple[str, str]]:
        """Return the kind and the URL of each scraper, by name: of the config, and those that `verify` asked."""
        found = {name: ("prometheus", url) for name, url in self._given.scrapers.items()}
        if self._given.verification is not None:
            for program in self._given.verification.asked:
                if program.kind in ("prometheus", *_VICTORIA):
                    found[program.name] = (program.kind, program.url)
        return {name: scraper for name, scraper in found.items() if is_web_url(scraper[1])}


def is_web_url(url: str) -> bool:
    """Tell whether a URL can be a link: `http` or `https`, with a host and without a password."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.password is None
    except ValueError:
        return False


def targets_page(kind: str, url: str, job: str, instance: str) -> str:
    """Return the address of a scraper's page of targets, showing one target."""
    query = {"pool": job, "search": instance}
    if kind in _VICTORIA:
        query = {"label_search": f"{{job={_label_value(job)},instance={_label_value(instance)}}}"}
    return f"{url.rstrip('/')}/targets?{urlencode(query, errors='replace')}"


def _label_value(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="replace")


def _in_order(counts: Mapping[str, int], order: Sequence[str]) -> dict[str, int]:
    """Return the counts that are not 0, in this order."""
    return {str(word): counts[word] for word in order if counts.get(word)}


class _Rows(Sequence[MachineStatus]):
    """The machines that are declared or have targets, then strays, then excluded nodes; each by name.

    A row is made when it is first read: a page shows 100 of 10,000.
    """

    def __init__(self, given: StatusInput) -> None:
        self._resolution = given.report.resolution
        self._since = given.since
        self._verdicts: dict[tuple[str, str], Verified] = {}
        if given.verification is not None:
            self._verdicts = {(v.job, v.instance): v for v in reversed(given.verification.targets)}
        self._changed = {change.machine: change.at for change in given.changes if change.is_of_machine}
        self._missing = {missing.machine: missing for missing in self._resolution.missing}
        self._excluded: dict[str, Exclusion] = {}
        for exclusion in reversed(self._resolution.excluded):
            self._excluded[exclusion.name.casefold()] = exclusion
        self._state_of = TargetStates(self._resolution).of
        self._declared = {machine.name for machine in given.declared.machines}
        self._targets: dict[str, list[Target]] = {name: [] for name in self._declared}
        for target in self._resolution.all_targets:
            self._targets.setdefault(target.machine, []).append(target)
        self._names = sorted(self._targets)
        self._others = (*self._strays(), *self._nodes({name.casefold() for name in self._names}))
        self._made: dict[int, MachineStatus] = {}

    @override
    def __len__(self) -> int:
        return len(self._names) + len(self._others)

    @overload
    def __getitem__(self, index: int) -> MachineStatus: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[MachineStatus]: ...

    @override
    def __getitem__(self, index: int | slice) -> MachineStatus | Sequence[MachineStatus]:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return [self._row(number) for number in numbers]
        return self._row(numbers)

    @cached_property
    def by_name(self) -> Mapping[str, int]:
        """The index of each machine, by its case-folded name."""
        names = [*map(one_line, self._names), *(machine.name for machine in self._others)]
        return {name.casefold(): index for index, name in enumerate(names)}

    def tally(self) -> Tally:
        """Count the machines by state and verdict, and find those that need attention, without making rows."""
        tally = Tally()
        for index, name in enumerate(self._names):
            own = self._targets[name]
            states: list[State] = [self._state_of(target) for target in own]
            tally.add(index, states, self._worst(name, states))
            if self._verdicts:
                tally.add_verdicts(index, states, list(map(self._verdict, own)))
        for index, machine in enumerate(self._others, len(self._names)):
            tally.add(index, (), machine.state)
        return tally

    def _verdict(self, target: Target) -> Verdict | None:
        verified = self._verdicts.get((target.job, target.labels["instance"]))
        if verified is None:
            return None
        return verified.verdict

    def _row(self, index: int) -> MachineStatus:
        if index >= len(self._names):
            return self._others[index - len(self._names)]
        row = self._made.get(index)
        if row is None:
            row = self._made[index] = self._machine(self._names[index])
        return row

    def _target(self, target: Target, state: State) -> TargetStatus:
        instance = target.labels["instance"]
        verified = self._verdicts.get((target.job, instance))
        if verified is None:
            return TargetStatus(
                job=target.job,
                instance=instance,
                address=target.address,
                state=state,
                backend=target.backend or "",
            )
        return TargetStatus(
            job=target.job,
            instance=instance,
            address=target.address,
            state=state,
            backend=target.backend or "",
            verdict=verified.verdict,
            reason=one_line(verified.reason),
            fix=one_line(verified.fix),
            scraper=verified.scraper,
        )

    def _machine(self, name: str) -> MachineStatus:
        targets = self._targets[name]
        rows = tuple(self._target(target, self._state_of(target)) for target in targets)
        state = self._worst(name, [row.state for row in rows])
        reason = self._why(name, state) if rows else self._unscraped(name)[1]
        return MachineStatus(
            name=one_line(name),
            state=state,
            declared=name in self._declared,
            targets=rows,
            reason=one_line(reason),
            since=self._since_of(name, targets),
        )

    def _worst(self, name: str, states: Sequence[State]) -> StateOfMachine:
        """Return the state of a machine with targets in these states."""
        if states:
            return max(states, key=STATES.index)
        return self._unscraped(name)[0]

    def _unscraped(self, name: str) -> tuple[StateOfMachine, str]:
        """Return the state of a declared machine without a target, and the reason."""
        if name in self._missing:
            return "missing", self._why(name, "missing")
        exclusion = self._excluded.get(name.casefold())
        if exclusion is not None:
            return "excluded", f"{exclusion.reason}: {exclusion.detail}"
        return "excluded", NO_EXPORTER

    def _why(self, name: str, state: StateOfMachine) -> str:
        """Say why a machine is in its state; nothing if it is a good one."""
        if state in ("seen", "pushed", "declared"):
            return ""
        missing = self._missing.get(name)
        if missing is not None and missing.similar:
            return f"{MEANINGS[state]}; similar names seen: {', '.join(missing.similar)}"
        return MEANINGS[state]

    def _since_of(self, name: str, targets: Sequence[Target]) -> Since | None:
        """Return when the state or an address of a machine last changed, if the history knows it."""
        newest: Since | None = None
        if name in self._changed:
            newest = Since(self._changed[name], is_exact=True)
        for target in targets:
            since = self._since.get((target.job, target.labels["instance"], target.address))
            if since is not None and (newest is None or since.at > newest.at):
                newest = since
        return newest

    def _strays(self) -> Iterator[MachineStatus]:
        for stray in self._resolution.stray:
            reason = f"{stray.backend} sees it, but it is neither declared nor selected"
            if stray.alias:
                reason = f"{reason}; it calls itself {stray.alias}, which is declared"
            yield MachineStatus(name=one_line(stray.name), state="stray", declared=False, reason=one_line(reason))

    def _nodes(self, others: set[str]) -> Iterator[MachineStatus]:
        """Yield the excluded nodes that are neither declared nor targets."""
        strays = {stray.name.casefold() for stray in self._resolution.stray}
        for fold, exclusion in sorted(self._excluded.items()):
            if fold not in others and fold not in strays:
                reason = one_line(f"{exclusion.reason}: {exclusion.detail}")
                yield MachineStatus(name=one_line(exclusion.name), state="excluded", declared=False, reason=reason)
