"""Explain from a resolution why a machine has its targets, or none."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from clan_discovery.emit.alias import alias_advice, suggested_aliases
from clan_discovery.emit.filter import machine_names
from clan_discovery.emit.json import address_document, exclusion_document, front_document
from clan_discovery.emit.publishers import EVERY_SERVER, publishers_reason
from clan_discovery.emit.services import NO_BELONGINGS, Belongings, ServiceIndex
from clan_discovery.emit.states import MEANINGS, NO_EXPORTER, TargetStates, failed_machines
from clan_discovery.model import (
    EVERY_MACHINE,
    Absent,
    BeliefState,
    Declaration,
    ExplainedTarget,
    Explanation,
    Offline,
    one_line,
    placed,
    span,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from clan_discovery.emit.states import AddressTimes
    from clan_discovery.model import (
        Belief,
        Declared,
        Exclusion,
        ExplainedService,
        Front,
        MachineLimit,
        Resolution,
        State,
        Stray,
        Target,
    )

_Targets: TypeAlias = "Sequence[Target]"

_WITHOUT_METRICS: Final = "no source declares metrics of this service"


_ROAMING: Final = "the machine comes and goes, and no alert fires while it is off (policy.roaming_tags)"


def _never(_: Target) -> Offline:
    return None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of `policy` that remove targets, in seconds (None: no limit).

    `patience` returns how long a target may be offline. `fallible` are the backends that can fail; static lists cannot.
    """

    absent: Absent = "keep"
    max_age: float | None = None
    patience: Callable[[Target], Offline] = _never
    fallible: frozenset[str] = frozenset()


class Explainer:
    """Explains machines of one resolution. `since` says since when targets are at their addresses.

    `names` has every machine and node that is known, by its case-folded name.
    """

    def __init__(
        self,
        declared: Declared,
        resolution: Resolution,
        limits: Limits | None = None,
        since: AddressTimes | None = None,
    ) -> None:
        self._declared = declared
        self._resolution = resolution
        self._limits = limits or Limits()
        self._since = since or {}
        self._states = TargetStates(resolution)
        self._services = ServiceIndex(resolution)
        self._beliefs = {belief.backend: belief for belief in resolution.beliefs}
        self._expected = {(e.machine.name, e.exporter.type, e.because) for e in declared.expected}
        self.names = {name.casefold(): name for name in machine_names(declared, resolution)}
        self._frozen = {frozen.job: frozen.why for frozen in resolution.frozen}

    def explain(self, asked: str) -> list[Explanation]:
        """Explain a machine, an address (with or without a port), `job/instance`, a service or a domain.

        Empty if nothing is known of it. Case does not count. Several machines may have one address or one service.
        """
        fold = asked.casefold()
        fold = self._resolution.aliases.get(fold, fold).casefold()
        targets = [target for target in self._resolution.all_targets if target.machine.casefold() == fold]
        machine = self._machine(asked, self.names.get(fold, asked), targets, self._services.of(fold))
        if machine is not None:
            return [self._with_alerting(machine)]
        found: dict[str, list[Target]] = {}
        for target in self._resolution.all_targets:
            if _is_meant(asked, target):
                found.setdefault(target.machine, []).append(target)
        for name in self._nodes_at(asked):
            found.setdefault(name, [])
        explained = [self._machine(asked, name, of) for name, of in found.items()]
        if not found:
            explained += self._named(asked)
        return [explanation for explanation in explained if explanation is not None]

    @property
    def words(self) -> set[str]:
        """Every word that can be explained, but addresses and targets."""
        return {*self.names.values(), *self._services.words}

    def _nodes_at(self, address: str) -> Iterator[str]:
        """Yield the nodes that have an address, targets or not."""
        for belief in self._resolution.beliefs:
            if belief.snapshot is not None:
                yield from (node.name for node in belief.snapshot.nodes if address in node.addresses)

    def _named(self, asked: str) -> list[Explanation]:
        services = [self._service(asked, name, own) for name, own in self._services.named(asked)]
        return services or list(self._excluded(asked))

    def _excluded(self, asked: str) -> Iterator[Explanation]:
        """Explain what is excluded under a name: exposed services that are no targets, and exporters."""
        found: dict[str, list[Exclusion]] = {}
        for exclusion in self._resolution.excluded:
            if exclusion.job is not None and exclusion.job.casefold() == asked.casefold():
                found.setdefault(exclusion.name, []).append(exclusion)
        for name, excluded in found.items():
            yield Explanation(
                asked=asked,
                name=name,
                declared=self._declaration(name.casefold()),
                notes=("no target: see below",),
                targets=(),
                excluded=tuple(excluded),
            )

    def _service(self, asked: str, machine: str, own: Belongings) -> Explanation:
        """Explain a service of a machine: its targets, services of this name, fronts and exclusions."""
        names = {service.name for service in own.services} | {front.service for front in own.fronts}
        targets = tuple(
            self._target(target)
            for target in self._resolution.all_targets
            if target.machine.casefold() == machine.casefold() and target.because in own.reasons
        )
        excluded = tuple(
            exclusion
            for exclusion in self._resolution.excluded
            if exclusion.name.casefold() == machine.casefold()
            and (exclusion.job in names or exclusion.detail.startswith(tuple(own.reasons)))
        )
        notes: list[str] = []
        if not targets:
            notes.append(f"no target: {'see below' if excluded else _WITHOUT_METRICS}")
        return Explanation(
            asked=asked,
            name=machine,
            declared=self._declaration(machine.casefold()),
            notes=tuple(notes),
            targets=targets,
            excluded=excluded,
            services=own.services,
            fronts=own.fronts,
        )

    def _machine(self, asked: str, name: str, targets: _Targets, own: Belongings = NO_BELONGINGS) -> Explanation | None:
        fold = name.casefold()
        excluded = tuple(e for e in self._resolution.excluded if e.name.casefold() == fold)
        declared = self._declaration(fold)
        notes = [*self._problems(name), *self._seen(fold), *self._same_machine(fold)]
        if asked.casefold() in self._resolution.aliases:
            notes.insert(0, f"alias: {asked} is {name} (config: aliases)")
        if declared is None and not notes and not targets and not excluded:
            return None
        if declared is not None and not targets:
            notes.append(f"no target: {'see below' if excluded else NO_EXPORTER}")
        return Explanation(
            asked=asked,
            name=name,
            declared=declared,
            notes=tuple(notes),
            targets=tuple(map(self._target, targets)),
            excluded=excluded,
            services=own.services,
            fronts=own.fronts,
        )

    def _with_alerting(self, explanation: Explanation) -> Explanation:
        """Add what alert rules read of the machine."""
        fold, found = explanation.name.casefold(), self._resolution
        return msgspec.structs.replace(
            explanation,
            limits=self._limits_of_rules(fold),
            units=tuple(unit for unit in found.units if unit.machine.casefold() == fold),
            needs=tuple(need for need in found.needs if need.machine.casefold() == fold),
            needed_by=tuple(sorted({need.machine for need in found.needs if need.on.casefold() == fold})),
        )

    def _limits_of_rules(self, fold: str) -> tuple[MachineLimit, ...]:
        """Return the limits of a machine by name: its own, and the defaults of the config for the others."""
        found: dict[str, MachineLimit] = {}
        for limit in self._resolution.limits:
            is_own = limit.machine.casefold() == fold
            if is_own or (limit.machine == EVERY_MACHINE and limit.name not in found):
                found[limit.name] = limit
        return tuple(found[name] for name in sorted(found))

    def _declaration(self, fold: str) -> Declaration | None:
        for machine in self._declared.machines:
            if machine.name.casefold() == fold:
                return Declaration(
                    machine_class=machine.machine_class,
                    tags=machine.tags,
                    address=self._declared.addresses.get(machine.name),
                    description=machine.description,
                )
        return None

    def _problems(self, machine: str) -> Iterator[str]:
        for problem in self._declared.problems:
            if problem.what.startswith(f"{machine!r} is not a machine"):
                yield f"{problem.severity}: {problem}"

    def _seen(self, fold: str) -> Iterator[str]:
        resolution = self._resolution
        for stray in resolution.stray:
            if stray.name.casefold() == fold:
                yield f"stray: {stray.backend} sees it, but no source declares it and no rule picks it"
                if stray.alias:
                    yield f"  it calls itself {stray.alias}, which is declared"
                    yield f"  {_renamed(stray, resolution)}"
            elif stray.alias and stray.alias.casefold() == fold:
                yield f"namesake: {stray.backend} sees {stray.name}, which calls itself {stray.alias}"
                yield f"  {_renamed(stray, resolution)}"
        for unselected in resolution.unselected:
            if fold in map(str.casefold, unselected.machines):
                yield f"not selected: {unselected.problem}"
        for missing in resolution.missing:
            if missing.machine.casefold() == fold:
                similar_names = ""
                if missing.similar:
                    similar_names = f"; similar names seen: {', '.join(missing.similar)}"
                yield f"missing: every backend was asked, and none sees it{similar_names}"

    def _same_machine(self, fold: str) -> Iterator[str]:
        """Suggest an alias where this machine is missing, or this stray may be a missing machine."""
        missing = {missing.machine.casefold() for missing in self._resolution.missing}
        strays = {stray.name.casefold() for stray in self._resolution.stray}
        if fold not in missing | strays:
            return
        for machine, stray in suggested_aliases(self._resolution).items():
            if fold in (machine.casefold(), stray.casefold()):
                yield f"to fix: {alias_advice(stray, machine)}"

    def _target(self, target: Target) -> ExplainedTarget:
        labels = target.labels
        state = self._states.of(target)
        belief = self._beliefs.get(target.backend or "")
        detail, since = self._state(target, state, belief)
        until, there_since, is_exact = None, None, True
        there = self._since.get((target.job, labels["instance"], target.address))
        if there is not None:
            there_since, is_exact = there.at, there.is_exact
        if state == "kept" and since is not None and self._limits.max_age is not None:
            until = since + self._limits.max_age
        return ExplainedTarget(
            job=target.job,
            instance=labels["instance"],
            address=target.address,
            state=state,
            state_detail=detail,
            state_since=_time(since),
            located=target.located,
            backend=target.backend,
            because=target.because,
            scheme=target.scheme,
            port=int(target.address.rpartition(":")[2]),
            path=target.path,
            params=target.params,
            url=f"{target.scheme}://{target.address}{target.path_and_query}",
            until=_time(until),
            dropped=tuple(self._dropped(target)),
            not_written=self._frozen.get(target.job),
            there_since=_time(there_since),
            there_since_is_exact=is_exact,
            where=target.where,
            delivery=target.delivery,
            patience=target.patience,
            servers=target.servers,
            servers_because=publishers_reason(target, self._resolution.shard),
        )

    def _state(self, target: Target, state: State, belief: Belief | None) -> tuple[str, float | None]:
        """Return why a target is in its state, and since when, if that is known."""
        now = self._resolution.taken_at.timestamp()
        if belief is None or state in ("declared", "missing", "refused", "unknown"):
            return MEANINGS[state], None
        if state == "seen":
            return f"{belief.backend} sees it now", None
        if state == "held":
            return f"{belief.why}; the answer before that is used ({belief.hint})", now - belief.age
        if state == "kept" and belief.state is BeliefState.KEPT:
            return f"{belief.why}; the last good answer is used", now - belief.age
        if state == "kept":
            age = failed_machines(belief).get(target.machine.casefold())
            if age is None:
                return "its lookup failed; the last good answer is used", None
            return "its lookup failed; the last good answer is used", now - age
        offline = {name.casefold(): seconds for name, seconds in belief.offline.items()}
        seconds = offline.get(target.machine.casefold())
        if seconds is None:
            return MEANINGS[state], None
        return MEANINGS[state], now - seconds

    def _dropped(self, target: Target) -> Iterator[str]:
        """Yield what would remove a target."""
        limits = self._limits
        if (target.machine, target.job, target.because) in self._expected:
            yield "when its source no longer declares it"
            if target.delivery == "push":
                return
            if limits.absent == "drop":
                yield "when no backend sees it (policy.absent)"
        elif target.backend in limits.fallible:
            yield f"when {target.backend} no longer has it, or no rule selects it"
            if limits.max_age is not None:
                yield f"after {span(limits.max_age)} without an answer (policy.max_age)"
        else:
            yield "when nothing lists it any more"
        patience = limits.patience(target)
        if patience == 0:
            yield "when it is offline (policy.offline)"
        elif patience is not None:
            yield f"after {span(patience)} offline (policy.offline)"


def _is_meant(asked: str, target: Target) -> bool:
    """Tell whether a word names this target: its address, with or without port, or `job/instance`."""
    job, slash, instance = asked.partition("/")
    if slash and target.job == job:
        return instance.casefold() in (target.labels["instance"].casefold(), target.machine.casefold())
    host = target.address.rpartition(":")[0]
    return asked in (target.address, host, host.removeprefix("[").removesuffix("]"))


def _renamed(stray: Stray, resolution: Resolution) -> str:
    if any(missing.machine == stray.alias for missing in resolution.missing):
        return f"if it is that machine, renamed or registered again: rename {stray.name} to {stray.alias}"
    fix = f"remove the old node {stray.alias}, then rename {stray.name} to {stray.alias}"
    return f"if it is that machine, registered again: {fix}"


def lines_of(explanation: Explanation) -> list[str]:
    """Yield an explanation as text: the machine, then a line for each fact about it."""
    lines: list[str] = []
    if explanation.declared is not None:
        lines += _declared_lines(explanation.declared)
    lines += explanation.notes
    for target in explanation.targets:
        lines += _target_lines(target)
    for e in explanation.excluded:
        job = f" ({e.job})" if e.job else ""
        lines.append(f"excluded{job}: {e.reason}: {e.detail} [{e.by}]")
    for service in explanation.services:
        lines += _service_lines(service)
    for front in explanation.fronts:
        lines += _front_lines(front)
    lines += _alerting_lines(explanation)
    return [one_line(explanation.name), *(f"  {one_line(line)}" for line in lines)]


def _declared_lines(declared: Declaration) -> Iterator[str]:
    """Yield what is declared of a machine. Only a clan gives its machines a class, and tags."""
    if declared.tags:
        yield f"declared: a {declared.machine_class} machine with the tags {', '.join(declared.tags)}"
    else:
        yield "declared: a machine without tags"
    if declared.description:
        yield f"description: {declared.description}"
    if declared.address is not None:
        yield f"declared address: {declared.address.host} in {placed(declared.address.words, declared.address.where)}"


def _service_lines(service: ExplainedService) -> Iterator[str]:
    yield f"service: {service.name}"
    yield f"  because: {placed(service.because, service.where)}"
    for title, values in (
        ("depends on", service.depends_on),
        ("needed by", service.needed_by),
        ("units that must be active", service.units),
        ("URLs that must answer", service.probes),
    ):
        if values:
            yield f"  {title}: {', '.join(values)}"


def _front_lines(front: Front) -> Iterator[str]:
    yield f"front: {front.domain}{front.path} of service {front.service}"
    yield f"  because: {placed(front.because, front.where)}"
    yield f"  auth: {front.auth}"
    if front.address:
        yield f"  the proxy connects to: {front.scheme}://{front.address}"


def _alerting_lines(explanation: Explanation) -> Iterator[str]:
    """Yield what alert rules read of a machine, each with what sets it."""
    for limit in explanation.limits:
        yield f"limit: {limit.name} {limit.value:g} [{limit.because}]"
    for unit in explanation.units:
        yield f"unit that must be active: {unit.unit} [{unit.because}]"
    for need in explanation.needs:
        yield f"needs: {need.on} [{need.because}]"
    if explanation.needed_by:
        yield f"needed by: {', '.join(explanation.needed_by)}"


def _target_lines(target: ExplainedTarget) -> Iterator[str]:
    yield f"target: {target.address} in job {target.job}, as instance {target.instance}"
    since = ""
    if target.state_since is not None:
        since = f" since {_date(target.state_since)}"
    yield f"  state: {target.state}{since}: {target.state_detail}"
    yield f"  because: {placed(target.because, target.where)}"
    yield f"  address: {target.located}"
    if target.there_since is not None:
        there_since = _date(target.there_since)
        if not target.there_since_is_exact:  # when the history began
            there_since = f"before {there_since}"
        yield f"  at this address since: {there_since}"
    if target.delivery == "push":
        yield f"  scraped: {target.url} (by the agent on the machine)"
    else:
        yield f"  scraped: {target.url}"
    if target.servers_because:
        yield f"  published by: {', '.join(target.servers) or EVERY_SERVER}: {target.servers_because}"
    if target.patience == "roaming":
        yield f"  patience: roaming: {_ROAMING}"
    if target.until is not None:
        yield f"  kept until: {_date(target.until)} at the latest (policy.max_age)"
    yield f"  dropped: {', or '.join(target.dropped)}"
    if target.not_written is not None:
        yield f"  not written: job {target.job} keeps its present file: {target.not_written}"


def _date(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"


def _time(seconds: float | None) -> datetime | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(round(seconds), UTC)


def documents(explanations: Iterable[Explanation]) -> list[Mapping[str, object]]:
    """Return the document that `explain.schema.json` describes."""
    found: list[Mapping[str, object]] = []
    for explanation in explanations:
        changed = {
            "declared": _declaration_document(explanation.declared),
            "excluded": list(map(exclusion_document, explanation.excluded)),
            "fronts": list(map(front_document, explanation.fronts)),
        }
        found.append({**msgspec.structs.asdict(explanation), **changed})
    return found


def _declaration_document(declared: Declaration | None) -> Mapping[str, object] | None:
    if declared is None:
        return None
    address = None
    if declared.address is not None:
        address = address_document(declared.address)
    return {**msgspec.structs.asdict(declared), "address": address}
