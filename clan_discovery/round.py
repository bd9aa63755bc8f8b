"""One round: ask, remember, resolve. What a round decides is returned; `publish_round` is the step that writes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from clan_discovery.backends.base import Ask
from clan_discovery.emit.file_sd import render_jobs
from clan_discovery.errors import BackendError
from clan_discovery.model import Belief, Outage, Snapshot
from clan_discovery.publish import Published, locked, prepare, publish, published
from clan_discovery.resolve.memory import Memory, Trust, believe
from clan_discovery.resolve.roles import Policy, resolve

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
        found = {expected.exporter.type for expected in self.declared.expected}
        found |= {rule.exporter.type for rule in self.rules}
        return frozenset(found | {endpoint.exporter.type for endpoint in endpoints})


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a round found, and what is to be remembered of it."""

    resolution: Resolution
    memories: Mapping[str, Memory]

    @property
    def degraded(self) -> tuple[Belief, ...]:
        """The backends that did not answer."""
        return tuple(b for b in self.resolution.beliefs if b.state in ("kept", "expired", "unknown"))

    @property
    def held(self) -> tuple[Belief, ...]:
        """The backends whose answer is not believed yet."""
        return tuple(b for b in self.resolution.beliefs if b.state == "held")

    @property
    def exit_code(self) -> int:
        """0 all well, 3 degraded, 4 held; of several, the highest (DESIGN 4.2)."""
        return 4 if self.held else 3 if self.degraded else 0


def run_round(plan: Plan, state: State, now: datetime) -> Round:
    """Ask every backend once, side by side, and resolve what is believed of them.

    `now` is aware (UTC). Publishes nothing; a state that cannot be read is set aside, unless it is `read_only`.
    """
    outcomes = _ask_all(plan.backends, Ask(now=now))
    beliefs: list[Belief] = []
    memories: dict[str, Memory] = {}
    for backend, outcome in zip(plan.backends, outcomes, strict=True):
        if backend.fingerprint is None and isinstance(outcome, Snapshot):
            beliefs.append(Belief(backend=backend.name, state="fresh", snapshot=outcome))
            continue
        belief, memory = believe(
            outcome,
            state.load(backend.name, outcome if isinstance(outcome, Snapshot) else None),
            plan.trust,
            fingerprint=backend.fingerprint or "",
            now=now.timestamp(),
        )
        beliefs.append(belief)
        memories[backend.name] = memory
    standing: dict[str, list[tuple[str, dict[str, str]]]] = {}
    if any(belief.state == "unknown" for belief in beliefs):
        standing = {rule.exporter.type: published(plan.directory, rule.exporter.type) for rule in plan.rules}
    resolution = resolve(plan.declared, beliefs, plan.rules, plan.policy, now=now, published=standing)
    return Round(resolution=resolution, memories=memories)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """What one refresh did: the plan that it went by, what it found, and what it wrote."""

    plan: Plan
    round: Round
    published: Published


def refresh(places: Places, plan_of: Callable[[], Plan], state: State, clock: Callable[[], datetime]) -> Refreshed:
    """Do one round and publish it, alone: the whole of it is under the lock of the output directory.

    `plan_of` is called under the lock, so that an inventory that was read before another refresher published a newer
    one is never published over it. Where there is no directory yet, it is called before, too: an input that is wrong
    makes none.

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
        round_ = run_round(plan, state, clock())
        return Refreshed(plan=plan, round=round_, published=publish_round(plan, state, round_))


def publish_round(plan: Plan, state: State, round_: Round) -> Published:
    """Write what the round decided: the target files first, then what is remembered. Takes no lock: see `refresh`.

    Raises:
        PublishError: the target files could not be written; the old ones stand.
    """
    done = publish(plan.directory, render_jobs(round_.resolution), state.scratch)
    state.save(round_.memories)
    return done


def _ask_all(backends: Sequence[Backend], ask: Ask) -> list[Outcome]:
    if sum(backend.fingerprint is not None for backend in backends) < 2:  # the others ask nobody
        return [_ask(backend, ask) for backend in backends]
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - one backend needs no threads

    with ThreadPoolExecutor(max_workers=len(backends)) as pool:
        asked = [pool.submit(_ask, backend, ask) for backend in backends]
        return [future.result() for future in asked]


def _ask(backend: Backend, ask: Ask) -> Outcome:
    try:
        return backend.ask(ask)
    except BackendError as error:
        return Outage(backend=backend.name, reason=str(error), hint=error.hint)
