"""Make the status of all machines, and of one, from a resolution and the verdicts of `verify`. Pure."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from clan_discovery.emit.attention import attention
from clan_discovery.emit.explain import Explainer, Limits
from clan_discovery.emit.states import MEANINGS, NO_TARGET, STATES, TargetStates
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
    from collections.abc import Iterator, Mapping, Sequence

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
_UNDECLARED: Final = "it has no role `exporter` in an instance, and no rule picks it"


class StatusInput(msgspec.Struct, frozen=True, kw_only=True):
    """What the status is made from: one refresh cycle, and what else is known.

    `since` and `changes` are from the history. `scrapers` are the URLs of scrapers by name, `dashboards` URLs by title,
    in which `{machine}` stands for the machine. `config` is the path of the config, for commands that are shown.
    """

    declared: Declared
    report: Report
    limits: Limits = msgspec.field(default_factory=Limits)
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
        given, resolution = self._given, self._given.report.resolution
        machines = _Rows(given).machines()
        return FleetStatus(
            at=resolution.taken_at.timestamp(),
            verified_at=None if given.verification is None else given.verification.at,
            machines=machines,
            attention=attention(given.report, given.verification, machines, given.config),
            jobs=resolution.jobs,
            targets=len(resolution.targets),
            states=_counted([{m.state, *(t.state for t in m.targets)} for m in machines], (*STATES, *NO_TARGET)),
            verdicts=_counted([{t.verdict for t in m.targets if t.verdict} for m in machines], tuple(Verdict)),
        )

    def machine(self, name: str) -> MachineDetail | None:
        """Return everything that is known of a machine or a node; None if it is unknown. Case does not count."""
        status = self._by_name.get(name.casefold())
        if status is None:
            return None
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
    def _by_name(self) -> Mapping[str, MachineStatus]:
        return {machine.name.casefold(): machine for machine in self.fleet.machines}

    @cached_property
    def _explainer(self) -> Explainer:
        given = self._given
        return Explainer(given.declared, given.report.resolution, given.limits, given.since)

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


def _counted(words: Sequence[set[str]], order: Sequence[str]) -> dict[str, int]:
    """Count the machines that have a word, in the order of the words."""
    counts = Counter(word for of_machine in words for word in of_machine)
    return {str(word): counts[word] for word in order if counts[word]}


class _Rows:
    """Makes the status of each machine."""

    def __init__(self, given: StatusInput) -> None:
        self._resolution = given.report.resolution
        self._declared = given.declared
        self._since = given.since
        self._verdicts: dict[tuple[str, str], Verified] = {}
        if given.verification is not None:
            self._verdicts = {(v.job, v.instance): v for v in reversed(given.verification.targets)}
        self._changed = {change.machine: change.at for change in given.changes if change.is_of_machine}
        self._missing = {missing.machine: missing for missing in self._resolution.missing}
        self._excluded: dict[str, Exclusion] = {}
        for exclusion in reversed(self._resolution.excluded):
            self._excluded[exclusion.name.casefold()] = exclusion

    def machines(self) -> tuple[MachineStatus, ...]:
        """Return the machines that are declared or have targets, then strays, then excluded nodes; each by name."""
        declared = {machine.name for machine in self._declared.machines}
        targets: dict[str, list[Target]] = {name: [] for name in declared}
        for target in self._resolution.targets:
            targets.setdefault(target.machine, []).append(target)
        state_of = TargetStates(self._resolution).of
        found: list[MachineStatus] = []
        for name, own in sorted(targets.items()):
            rows = tuple(self._target(target, state_of(target)) for target in own)
            found.append(self._machine(name, rows, own, is_declared=name in declared))
        return (*found, *self._strays(), *self._nodes({name.casefold() for name in targets}))

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

    def _machine(
        self, name: str, rows: tuple[TargetStatus, ...], targets: Sequence[Target], *, is_declared: bool
    ) -> MachineStatus:
        if rows:
            state: StateOfMachine = max({row.state for row in rows}, key=STATES.index)
            reason = self._why(name, state)
        else:
            state, reason = self._unscraped(name)
        return MachineStatus(
            name=one_line(name),
            state=state,
            declared=is_declared,
            targets=rows,
            reason=one_line(reason),
            since=self._since_of(name, targets),
        )

    def _unscraped(self, name: str) -> tuple[StateOfMachine, str]:
        """Return the state of a declared machine without a target, and the reason."""
        if name in self._missing:
            return "missing", self._why(name, "missing")
        exclusion = self._excluded.get(name.casefold())
        if exclusion is not None:
            return "excluded", f"{exclusion.reason}: {exclusion.detail}"
        return "excluded", _UNDECLARED

    def _why(self, name: str, state: StateOfMachine) -> str:
        """Say why a machine is in its state; nothing if a backend sees it."""
        if state == "seen":
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
