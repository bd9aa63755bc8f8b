"""One round: ask, remember, resolve. What a round decides is returned; `publish_round` is the step that writes."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from clan_discovery import __version__
from clan_discovery.backends.base import Ask, Naming
from clan_discovery.counters import Counters, Report
from clan_discovery.emit.file_sd import render_jobs
from clan_discovery.errors import BackendError, PublishError
from clan_discovery.model import Belief, Outage, Snapshot
from clan_discovery.publish.files import Published, prepare, publish, published, target_jobs
from clan_discovery.publish.lock import locked
from clan_discovery.resolve.recall import recall
from clan_discovery.resolve.resolver import Policy, resolve
from clan_discovery.resolve.trust import Memory, Remembered, Trust, believe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from clan_discovery.backends.base import Backend
    from clan_discovery.model import Declared, Outcome, Resolution, SelectRule
    from clan_discovery.state import State


class Places(NamedTuple):
    """Where a round writes, and how long it waits for another one (seconds)."""

    directory: Path
    state_directory: Path
    lock_wait: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a round needs, put together from a config by `make_plan`. `lock_wait` is in seconds."""

    declared: Declared
    backends: Sequence[Backend]
    rules: Sequence[SelectRule]
    policy: Policy
    trust: Trust
    directory: Path
    state_directory: Path
    lock_wait: float

    @property
    def jobs(self) -> frozenset[str]:
        """Every job that is declared, picked or written down."""
        endpoints = [e for server in self.declared.servers for e in server.static_targets]
        for backend in self.backends:
            endpoints += getattr(backend, "endpoints", ())
        listed = {job for backend in self.backends if isinstance(backend, Naming) for job in backend.jobs}
        found = listed | {expected.exporter.type for expected in self.declared.expected}
        found |= {rule.exporter.type for rule in self.rules}
        return frozenset(found | {endpoint.exporter.type for endpoint in endpoints})


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a round found, what is to be remembered of it, and for how many seconds each backend was asked."""

    resolution: Resolution
    memories: Mapping[str, Memory]
    durations: Mapping[str, float]

    @property
    def degraded(self) -> tuple[Belief, ...]:
        """The backends that did not answer, or not for every name."""
        return tuple(b for b in self.resolution.beliefs if b.state in ("partial", "kept", "expired", "unknown"))

    @property
    def due(self) -> float | None:
        """When the next answer that says so ends, in seconds since the epoch; None where none does."""
        dues = (b.snapshot.due for b in self.resolution.beliefs if b.snapshot is not None)
        return min((due for due in dues if due is not None), default=None)

    @property
    def polls(self) -> bool:
        """Whether a backend does not say when it is to be asked again, or nobody is asked at all."""
        asked = [b for b in self.resolution.beliefs if b.backend in self.memories]
        return not asked or any(b.snapshot is None or b.snapshot.due is None for b in asked)

    @property
    def held(self) -> tuple[Belief, ...]:
        """The backends whose answer is not believed yet."""
        return tuple(b for b in self.resolution.beliefs if b.state == "held")

    @property
    def exit_code(self) -> int:
        """0 all well, 3 degraded, 4 held; of several, the highest (DESIGN 4.2)."""
        return 4 if self.held else 3 if self.degraded else 0


def run_round(plan: Plan, state: State, now: datetime, *, counts: bool = True) -> Round:
    """Ask every backend once, side by side, and resolve what is believed of them.

    `counts` says whether this round is one of those that `policy.shrink_after` counts; one that a trigger called is
    not, for a daemon that fails may call many.

    `now` is aware (UTC). Publishes nothing; a state that cannot be read is set aside, unless it is `read_only`.
    """
    remembering = _Remembering(plan, state, now)
    answers = _ask_all(plan.backends, remembering)
    beliefs: list[Belief] = []
    memories: dict[str, Memory] = {}
    for backend, (outcome, _) in zip(plan.backends, answers, strict=True):
        if backend.fingerprint is None and isinstance(outcome, Snapshot):
            beliefs.append(Belief(backend=backend.name, state="fresh", snapshot=outcome))
            continue
        remembered = remembering.of(backend, outcome)
        belief, memory = believe(
            outcome,
            remembered,
            plan.trust,
            fingerprint=backend.fingerprint or "",
            now=now.timestamp(),
            counts=counts,
        )
        locates = not isinstance(backend, Naming) or backend.locates
        beliefs.append(msgspec.structs.replace(belief, locates=locates))
        memories[backend.name] = memory
    standing: dict[str, list[tuple[str, dict[str, str]]]] = {}
    if any(belief.state == "unknown" for belief in beliefs):
        standing = {rule.exporter.type: published(plan.directory, rule.exporter.type) for rule in plan.rules}
    resolution = resolve(plan.declared, beliefs, plan.rules, plan.policy, now=now, published=standing)
    durations = {b.name: seconds for b, (_, seconds) in zip(plan.backends, answers, strict=True)}
    return Round(resolution=resolution, memories=memories, durations=durations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """What one refresh did: the plan that it went by, what it found, and what it wrote."""

    plan: Plan
    round: Round
    published: Published


class _Remembering:
    """What is remembered of each backend, read when it is needed: before it is asked, or after it answered."""

    def __init__(self, plan: Plan, state: State, now: datetime) -> None:
        self.now = now
        self._plan = plan
        self._state = state
        self._found: dict[str, Memory] = {}
        self._standing: list[tuple[str, dict[str, str]]] | None = None
        state.prepare()  # threads ask for it side by side

    def last(self, backend: Backend) -> Snapshot | None:
        """Return a backend's last good answer, whatever it was asked then."""
        memory = self._found[backend.name] = self._state.load(backend.name)
        return memory.last.snapshot if memory.last is not None else None

    def recall(self, backend: Backend, *, renamed: bool = True) -> Snapshot | None:
        """Return what the published files know of a backend; `renamed`: also of one that is gone now."""
        beside = (other for other in self._plan.backends if other is not backend)
        others = {other.name: other.names if isinstance(other, Naming) else frozenset[str]() for other in beside}
        by_name = isinstance(backend, Naming)
        return recall(backend.name, self.standing(), others if renamed else None, by_name=by_name)

    def of(self, backend: Backend, outcome: Outcome) -> Memory:
        """Return what is remembered of a backend, now that it was asked."""
        memory = self._found.get(backend.name)
        if memory is None:
            memory = self._state.load(backend.name, outcome if isinstance(outcome, Snapshot) else None)
        return self._recalled(backend, memory, outcome)

    def standing(self) -> list[tuple[str, dict[str, str]]]:
        """Return the targets that are published, read once."""
        if self._standing is None:
            directory = self._plan.directory
            self._standing = [t for job in target_jobs(directory) for t in published(directory, job)]
        return self._standing

    def _recalled(self, backend: Backend, remembered: Memory, outcome: Outcome) -> Memory:
        """Recall from the published files what the state does not know of a backend: lost, or of another config.

        With an answer at hand, a lost state is recalled so that a loss is noticed; a changed config is never a loss.
        How old what is recalled is, nobody knows: a file that did not change for weeks may be made of an answer of a
        minute ago. Its age counts from now on, so that policy.max_age bounds it.
        """
        failed = isinstance(outcome, Outage)
        known = remembered.last is not None and (not failed or remembered.last.fingerprint == backend.fingerprint)
        if known:
            return remembered
        snapshot = self.recall(backend, renamed=failed)
        if snapshot is None:
            return remembered
        last = Remembered(snapshot=snapshot, taken_at=self.now.timestamp(), fingerprint=backend.fingerprint or "")
        return Memory(last=last)


def refresh(
    places: Places,
    plan_of: Callable[[], Plan],
    state: State,
    clock: Callable[[], datetime],
    *,
    before_writing: Callable[[], None] | None = None,
    counts: bool = True,
) -> Refreshed:
    """Do one round and publish it, alone: the whole of it is under the lock of the output directory.

    `plan_of` is called under the lock, so that an inventory that was read before another refresher published a newer
    one is never published over it. Where there is no directory yet, it is called before, too: an input that is wrong
    makes none. `before_writing` is called when everything is asked and nothing is written yet.

    Raises:
        InputError: `plan_of` raised it.
        PublishError: the directory cannot be made or written, or another refresher holds it for too long; the old
            files stand.
    """
    if not os.path.lexists(places.directory):
        plan_of()
    prepare(places.directory)
    with locked(places.directory, places.lock_wait), state.locked(places.lock_wait):
        plan = plan_of()
        round_ = run_round(plan, state, clock(), counts=counts)
        if before_writing is not None:
            before_writing()
        return Refreshed(plan=plan, round=round_, published=publish_round(plan, state, round_))


def publish_round(plan: Plan, state: State, round_: Round) -> Published:
    """Write what the round decided: the target files first, then what is remembered. Takes no lock: see `refresh`.

    Raises:
        PublishError: the target files could not be written; the old ones stand.
    """
    beliefs = round_.resolution.beliefs
    try:
        done = publish(plan.directory, render_jobs(round_.resolution), state.scratch)
    except PublishError:
        state.save(round_.memories, state.counters.after(beliefs, None))
        raise
    state.save(round_.memories, state.counters.after(beliefs, done))
    return done


def report(round_: Round, plan: Plan, counters: Counters) -> Report:
    """Return what the metrics of a round are made of."""
    return Report(
        resolution=round_.resolution,
        memories=round_.memories,
        durations=round_.durations,
        counters=counters,
        declared=len(plan.declared.machines),
        version=__version__,
        now=round_.resolution.taken_at.timestamp(),
    )


def _ask_all(backends: Sequence[Backend], remembering: _Remembering) -> list[tuple[Outcome, float]]:
    asks = [
        Ask(now=remembering.now, last=partial(remembering.last, b), recall=partial(remembering.recall, b))
        for b in backends
    ]
    if sum(backend.fingerprint is not None for backend in backends) < 2:  # the others ask nobody
        return [_ask(backend, ask) for backend, ask in zip(backends, asks, strict=True)]
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - one backend needs no threads

    pool = ThreadPoolExecutor(max_workers=len(backends))
    try:
        asked = [pool.submit(_ask, backend, ask) for backend, ask in zip(backends, asks, strict=True)]
        return [future.result() for future in asked]
    finally:
        # Whoever is interrupted (SIGTERM) does not wait for a backend that hangs; its own budget ends the thread.
        pool.shutdown(wait=False, cancel_futures=True)


def _ask(backend: Backend, ask: Ask) -> tuple[Outcome, float]:
    start = time.perf_counter()
    try:
        outcome: Outcome = backend.ask(ask)
    except BackendError as error:
        outcome = Outage(backend=backend.name, reason=str(error), hint=error.hint)
    return outcome, time.perf_counter() - start
