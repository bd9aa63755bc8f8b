"""One refresh cycle: ask, trust, resolve, render, publish. `publish_round` is the only step that writes."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from clan_discovery import __version__
from clan_discovery.backends.base import Asked, Reusing
from clan_discovery.emit.file_sd import ListCache, render_jobs
from clan_discovery.errors import BackendError, Exit, PublishError, SupersededError, describe
from clan_discovery.memory import HistoryFile, Memories
from clan_discovery.model import Belief, BeliefState, Counters, InputStatus, Outage, Report, Resolution, Snapshot
from clan_discovery.publish.evaluations import admit
from clan_discovery.publish.files import Published, prepare, publish, publish_front, read_jobs
from clan_discovery.publish.lock import locked
from clan_discovery.publish.mark import check_owner, write_owner
from clan_discovery.publish.user import check_user
from clan_discovery.resolve.decoded import DecodedFile
from clan_discovery.resolve.freeze import Recovery, observed_machines
from clan_discovery.resolve.history import History
from clan_discovery.resolve.resolver import Policy, resolve
from clan_discovery.resolve.targets import TargetCache
from clan_discovery.resolve.trust import Trust, believe
from clan_discovery.syntax.target_file import Split
from clan_discovery.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from clan_discovery.backends.base import Backend
    from clan_discovery.emit.explain import Limits
    from clan_discovery.model import Declared, Json, Offline, SelectRule, Target
    from clan_discovery.publish.files import FrontOutcome
    from clan_discovery.publish.state import State
    from clan_discovery.resolve.changes import Changes
    from clan_discovery.resolve.memory import Memory


class OutputPaths(NamedTuple):
    """Output paths, and how long a cycle waits for another one (seconds).

    With `no_files`, no target file is written, and `directory` is that of the state.

    `owner` is written to the owner mark of the output directory; if empty, no mark is written or checked. With
    `take_over`, a directory with the mark of another config is accepted.
    """

    directory: Path
    state_directory: Path
    lock_wait: float
    owner: str = ""
    take_over: bool = False
    no_files: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a cycle needs, made from a config by `make_plan`.

    `jobs` are all jobs that are declared, selected or listed, including those without a target. `lock_wait` is in
    seconds. `static` says that a Nix build made the files in `directory`; `no_files` that there are none (see
    `OutputPaths`). `evaluation` is the number of the flake's evaluation. `owner` is the value of the owner mark.
    `relabel` has the `relabel_configs` of each job that has any. `front_file` is the file of the reverse proxy. `split`
    is the number of target files of each job. `shared_targets` is a hash of the jobs and machines that servers share,
    as the sources declare them; empty without a shard.
    """

    declared: Declared
    backends: Sequence[Backend]
    rules: Sequence[SelectRule]
    jobs: frozenset[str]
    policy: Policy
    trust: Trust
    directory: Path
    state_directory: Path
    lock_wait: float
    static: bool = False
    no_files: bool = False
    evaluation: int | None = None
    owner: str = ""
    relabel: Mapping[str, Json] = {}
    front_file: Path | None = None
    split: Split = Split()
    shared_targets: str = ""

    def foreign_read(self, foreign: Iterable[str]) -> dict[str, str]:
        """Return those of these files that the pattern of a split job matches, and in words what reads them."""
        found = {name: self.split.job_reading(name, sorted(self.jobs)) for name in foreign}
        return {
            name: f"job {job} reads {self.split.pattern(job)}.json" for name, job in found.items() if job is not None
        }


class CycleCache(msgspec.Struct):
    """What a resident process keeps between cycles so that unchanged machines cost less.

    A cycle has the same result without it. `answers` is what each backend keeps (see `Reusing`), `snapshots` the last
    good answers as stored, both by backend.
    """

    answers: dict[str, object] = {}
    snapshots: dict[str, DecodedFile[Snapshot]] = {}
    targets: TargetCache = msgspec.field(default_factory=TargetCache)
    lists: ListCache = msgspec.field(default_factory=ListCache)
    history: DecodedFile[History] = msgspec.field(default_factory=DecodedFile[History])


class Round(msgspec.Struct, frozen=True):
    """The result of a cycle, and the memory to save.

    `memories` is the memory of trust for each backend, `own` the backend's own memory, `durations` the response time in
    seconds. `dues` has the time at which each backend wants to be asked again, in seconds since the epoch; None: at the
    next interval.
    """

    resolution: Resolution
    memories: Mapping[str, Memory]
    own: Mapping[str, bytes]
    durations: Mapping[str, float]
    dues: Sequence[float | None]
    remembered: Memories

    @property
    def due(self) -> float | None:
        """Return the earliest time at which a backend wants to be asked again; None if none says so."""
        return min((due for due in self.dues if due is not None), default=None)

    @property
    def polls(self) -> bool:
        """Tell whether the interval decides when to ask: some backend gives no time, or there is no backend."""
        return not self.dues or None in self.dues

    @property
    def degraded(self) -> tuple[Belief, ...]:
        """Return the backends that did not answer, or answered only some lookups."""
        return tuple(b for b in self.resolution.beliefs if b.state.degraded)

    @property
    def held(self) -> tuple[Belief, ...]:
        """Return the backends whose loss is held."""
        return tuple(b for b in self.resolution.beliefs if b.state is BeliefState.HELD)

    @property
    def exit_code(self) -> Exit:
        """Return 0, 3 (degraded) or 4 (held); of several, the highest (DESIGN 4.2)."""
        if self.held:
            return Exit.HELD
        if self.degraded:
            return Exit.DEGRADED
        return Exit.OK


def run_round(
    plan: Plan,
    state: State,
    now: datetime,
    *,
    counts: bool = True,
    answered: Callable[[str], None] | None = None,
    cache: CycleCache | None = None,
) -> Round:
    """Ask every backend once, in parallel, and resolve the answers that are trusted. Publishes nothing.

    `counts` says whether `policy.shrink_after` counts this cycle. A cycle that a trigger started does not count,
    because a failing daemon may trigger many. `now` is aware (UTC). A state file that cannot be read is set aside,
    unless the state is `read_only`. `answered` is called with the name of each backend that is done, in its thread.
    """
    remembered = Memories.read(state, plan.backends, cache.snapshots if cache is not None else None)
    own_memories = [remembered.own(backend.name) for backend in plan.backends]
    replies = _ask_all(plan.backends, now, own_memories, answered, cache.answers if cache is not None else None)
    beliefs: list[Belief] = []
    before: dict[str, Memory] = {}
    memories: dict[str, Memory] = {}
    own: dict[str, bytes] = {}
    dues: list[float | None] = []
    for backend, reply in zip(plan.backends, replies, strict=True):
        found = _judge(backend, reply.asked, remembered, plan.trust, now.timestamp(), counts=counts)
        beliefs.append(found.belief)
        if found.before is not None and found.after is not None:
            before[backend.name], memories[backend.name] = found.before, found.after
            own[backend.name] = reply.asked.memory
            dues.append(reply.asked.next_due)
    targets = cache.targets if cache is not None else None
    resolution = resolve(plan.declared, beliefs, plan.rules, plan.policy, now=now, jobs=plan.jobs, cache=targets)
    if remembered.lost or any(memory.lost is not None for memory in before.values()):
        recovery = _recovery(plan, before, remembered.lost, counts=counts)
        resolution, memories = recovery.apply(resolution, memories)
    durations = {reply.backend: reply.seconds for reply in replies}
    return Round(resolution, memories, own, durations, dues, remembered)


def run_stateless(plan: Plan, now: datetime) -> Resolution:
    """Resolve a plan without memory: declared targets at declared addresses. Only for backends that cannot fail."""
    beliefs: list[Belief] = []
    for backend in plan.backends:
        answer = backend.ask(now, b"").answer
        if isinstance(answer, Snapshot):
            beliefs.append(
                Belief(backend=backend.name, state=BeliefState.FRESH, snapshot=answer, locates=backend.locates)
            )
    return resolve(plan.declared, beliefs, plan.rules, plan.policy, now=now, jobs=plan.jobs)


def run_agent(plan: Plan, machine: str, now: datetime) -> Resolution:
    """Resolve what the agent of a machine scrapes: its pushed targets are the targets. No backend is asked."""
    own = [e for e in plan.declared.expected if e.machine.name == machine and e.delivery == "push"]
    declared = msgspec.structs.replace(plan.declared, expected=tuple(own), servers=(), endpoints=(), fronts=())
    found = resolve(declared, (), (), plan.policy, now=now)
    jobs = tuple(sorted({expected.exporter.type for expected in own}))
    return msgspec.structs.replace(found, targets=found.pushed, pushed=(), jobs=jobs)


def _recovery(plan: Plan, before: Mapping[str, Memory], lost: set[str], *, counts: bool) -> Recovery:
    """Prepare the recovery from lost memory; only such a cycle reads the target files.

    Without files, it is unknown what the scrapers have, so every job counts as one that has a file.
    """
    present = {job: Counter[str]() for job in plan.jobs}
    if not plan.no_files:
        files = read_jobs(plan.directory, plan.jobs).items()
        present = {job: observed_machines(body) for job, body in files if job in plan.jobs}
    return Recovery(
        declared=plan.declared,
        selected={rule.exporter.type: rule.backends for rule in plan.rules},
        listed={backend.name: backend.jobs for backend in plan.backends},
        present=present,
        has_files=not plan.no_files,
        has_front=plan.front_file is not None and os.path.lexists(plan.front_file),
        trust=plan.trust,
        before=before,
        lost=lost,
        counts=counts,
    )


class _Judged(NamedTuple):
    """The belief about one backend, and its memory before and after the cycle (None if it cannot fail)."""

    belief: Belief
    before: Memory | None = None
    after: Memory | None = None


def _judge(backend: Backend, asked: Asked, remembered: Memories, trust: Trust, now: float, *, counts: bool) -> _Judged:
    """Decide what to believe of one answer. Of a last good answer, only jobs that the config still lists are used."""
    answer, name = asked.answer, backend.name
    if backend.fingerprint is None and isinstance(answer, Snapshot):
        fresh = Belief(backend=name, state=BeliefState.FRESH, snapshot=answer, locates=backend.locates)
        return _Judged(fresh)
    if asked.unusable:
        remembered.forget_own(name, asked.unusable)
    before = remembered.load(name, answer if isinstance(answer, Snapshot) else None)
    fingerprint = backend.fingerprint or ""
    belief, after = believe(answer, before, trust, fingerprint=fingerprint, now=now, counts=counts)
    snapshot = belief.snapshot
    if snapshot is not None and belief.state is BeliefState.KEPT:
        listed = tuple(e for e in snapshot.endpoints if e.exporter.type in backend.jobs)
        if len(listed) < len(snapshot.endpoints):
            snapshot = msgspec.structs.replace(snapshot, endpoints=listed)
    return _Judged(msgspec.structs.replace(belief, snapshot=snapshot, locates=backend.locates), before, after)


class Refreshed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one refresh: the plan that it used, what it found, and what it wrote.

    `changes` are those since the previous cycle. `lists` has the target list of each job, as its files have it now;
    None for a job that keeps its present file, and has none. `taken_from` is the previous owner of the output directory
    if `--take-over` replaced the mark, else None.
    """

    plan: Plan
    round: Round
    published: Published
    changes: Changes
    lists: Mapping[str, bytes | None]
    taken_from: str | None = None

    @property
    def foreign_read(self) -> dict[str, str]:
        """Files of others that the pattern of a split job matches, by name without suffix, and what reads them."""
        return self.plan.foreign_read(self.published.foreign)


def refresh(
    places: OutputPaths,
    plan_of: Callable[[], Plan],
    state: State,
    clock: Callable[[], datetime],
    *,
    before_writing: Callable[[], None] | None = None,
    counts: bool = True,
    answered: Callable[[str], None] | None = None,
    cache: CycleCache | None = None,
) -> Refreshed:
    """Run one cycle and publish it, under the locks of the state and the output directory.

    `plan_of` is called under the lock: another process may have published a newer inventory while this one waited. If
    the output directory does not exist yet, `plan_of` is also called before, so that a wrong input creates no
    directory. `before_writing` is called after the backends are asked and before anything is written; for `answered`,
    see `run_round`. `cache` is that of the process.

    Raises:
        InputError: `plan_of` raised it.
        SupersededError: files of an evaluation that started later are published; evaluate again.
        PublishError: a directory cannot be created, read or written, belongs to another user or config, or another
            process holds its lock for too long; the old files are kept.
    """
    check_user(places.directory, places.state_directory)
    with contextlib.ExitStack() as stack:
        if not os.path.lexists(places.directory):
            plan_of()
        if not places.no_files:
            prepare(places.directory)
        # The state is locked first: if that fails, no lock file is left in an output directory of many users.
        stack.enter_context(state.locked(places.lock_wait))
        if not places.no_files:
            stack.enter_context(locked(places.directory, places.lock_wait, keep=True))
        taken_from = None
        if places.owner:
            taken_from = check_owner(places.directory, places.owner, take_over=places.take_over)
        plan = plan_of()
        if not admit(places.state_directory, places.directory, plan.evaluation):
            what = f"{places.directory} has files of a newer evaluation of the flake"
            raise SupersededError(what, hint="evaluate the flake again; nothing was changed")
        round_ = run_round(plan, state, clock(), counts=counts, answered=answered, cache=cache)
        history = HistoryFile.read(state, places.directory)
        if before_writing is not None:
            before_writing()
        if places.owner:
            write_owner(places.directory, places.owner)
        rendered = render_jobs(round_.resolution, cache.lists if cache is not None else None)
        published = publish_round(plan, round_, rendered, cache.lists.divide if cache is not None else None)
        changes = history.record(round_.resolution, cache.history if cache is not None else None)
        lists = {**rendered, **_present(plan, round_)}
        return Refreshed(
            plan=plan, round=round_, published=published, changes=changes, lists=lists, taken_from=taken_from
        )


def _present(plan: Plan, round_: Round) -> dict[str, bytes | None]:
    """Return the present file of each job that keeps it; None if there is none or it cannot be read."""
    frozen = [frozen.job for frozen in round_.resolution.frozen]
    if not frozen:
        return {}
    found: Mapping[str, bytes] = {}
    if not plan.no_files:
        with contextlib.suppress(PublishError):
            found = read_jobs(plan.directory, plan.jobs)
    return {job: found.get(job) for job in frozen}


def publish_round(
    plan: Plan,
    round_: Round,
    rendered: Mapping[str, bytes] | None = None,
    divide: Callable[[str, int], Sequence[bytes]] | None = None,
) -> Published:
    """Write the target files and the file of the reverse proxy, then the memory. Takes no lock: see `refresh`.

    `rendered` is the target list of each job, if it was made before, and `divide` is that of `Split.files`.

    Raises:
        PublishError: the target files could not be written; the old ones are kept.
    """
    resolution, remembered = round_.resolution, round_.remembered
    keep = {frozen_job.job for frozen_job in resolution.frozen}
    if rendered is None:
        rendered = render_jobs(resolution)
    done = Published(written=(), unchanged=tuple(rendered), emptied=(), foreign=())
    try:
        if not plan.no_files:
            files = plan.split.files({job: body for job, body in rendered.items() if job not in keep}, divide)
            done = publish(plan.directory, files, remembered.state.scratch, keep=keep)
        done = msgspec.structs.replace(done, front=_publish_front(plan, resolution))
    except PublishError:
        remembered.save(round_.memories, round_.own, counted(remembered.counters, resolution.beliefs, None))
        raise
    remembered.save(round_.memories, round_.own, counted(remembered.counters, resolution.beliefs, done))
    return done


def _publish_front(plan: Plan, resolution: Resolution) -> FrontOutcome:
    """Write the file of the reverse proxy, if there is one; raise PublishError as `publish_front`."""
    settings, file = plan.policy.front, plan.front_file
    if settings is None or file is None:
        return "none"
    if resolution.front_kept:
        return "kept"
    from clan_discovery.emit.fronts import render_fronts  # noqa: PLC0415 - only for fronts
    from clan_discovery.emit.fronts.sites import MADE  # noqa: PLC0415 - as above

    return publish_front(file, render_fronts(resolution.fronts, settings).encode(), MADE.encode())


def counted(counters: Counters, beliefs: Sequence[Belief], published: Published | None) -> Counters:
    """Return the totals after one more cycle; `published` is None if the files could not be written."""
    unanswered = (BeliefState.KEPT, BeliefState.EXPIRED, BeliefState.UNKNOWN)
    down = tuple(sorted(b.backend for b in beliefs if b.state in unanswered))
    outages = dict(counters.outages)
    for backend in set(down) - set(counters.down):
        outages[backend] = outages.get(backend, 0) + 1
    after = msgspec.structs.replace(counters, outages=outages, down=down)
    if published is None:
        return msgspec.structs.replace(after, failures=counters.failures + 1)
    writes = len(published.written) + len(published.emptied)
    return msgspec.structs.replace(
        after,
        rounds=counters.rounds + 1,
        unchanged=counters.unchanged + (writes == 0),
        writes=counters.writes + writes,
        front_writes=counters.front_writes + (published.front == "written"),
    )


def report(round_: Round, plan: Plan) -> Report:
    """Return the data of a cycle's metrics. Config and inventory count as read, because the plan was made from them."""
    now = round_.resolution.taken_at.timestamp()
    read = InputStatus(ok=True, succeeded_at=now)
    return Report(
        resolution=round_.resolution,
        answered_at={name: now - m.last.age(now) for name, m in round_.memories.items() if m.last is not None},
        durations=round_.durations,
        counters=round_.remembered.counters,
        declared=len(plan.declared.machines),
        version=__version__,
        now=now,
        config=read,
        inventory=read,
        relabel=plan.relabel,
        shared_targets=plan.shared_targets,
    )


def limits_of(plan: Plan, resolution: Resolution) -> Limits:
    """Return what ends targets, by the policy and the rules of a plan."""
    from clan_discovery.emit.explain import Limits  # noqa: PLC0415 - not for `refresh`

    tags: dict[str, tuple[str, ...]] = {}
    for belief in reversed(resolution.beliefs):
        if belief.snapshot is not None:
            tags |= {node.name.casefold(): node.tags for node in belief.snapshot.nodes}
    tags |= {machine.name.casefold(): machine.tags for machine in plan.declared.machines if machine.tags}
    rules = {f"config: exporters.{rule.exporter.type}.select": rule.offline for rule in plan.rules}
    expected = {(e.machine.name, e.exporter.type, e.because) for e in plan.declared.expected}

    def patience(target: Target) -> Offline:
        if target.because in rules:
            default = rules[target.because]
        elif (target.machine, target.job, target.because) in expected:
            default = plan.policy.offline
        else:
            return None
        return plan.policy.patience(tags.get(target.machine.casefold(), ()), default)

    return Limits(
        absent=plan.policy.absent,
        max_age=plan.trust.max_age,
        patience=patience,
        fallible=frozenset(backend.name for backend in plan.backends if backend.fingerprint is not None),
    )


class _Reply(NamedTuple):
    """The result of asking one backend, and how many seconds it took."""

    backend: str
    asked: Asked
    seconds: float


def _ask_all(
    backends: Sequence[Backend],
    now: datetime,
    memories: Sequence[bytes],
    answered: Callable[[str], None] | None,
    last: dict[str, object] | None,
) -> list[_Reply]:
    """Ask all backends, each in a thread; without threads if there is only one, or if no thread can be started.

    `last` is what backends keep of their last answers; None: nothing is kept.
    """
    replies: dict[str, _Reply] = {}

    def ask(backend: Backend, memory: bytes) -> None:
        replies[backend.name] = _ask(backend, now, memory, last)
        if answered is not None:
            answered(backend.name)

    # Backends without a fingerprint use no network.
    side_by_side = sum(backend.fingerprint is not None for backend in backends) > 1
    # A process that is stopped does not wait for a backend that hangs: workers are daemon threads.
    workers = [Worker(partial(ask, *pair)) for pair in zip(backends, memories, strict=True)]
    for worker in workers:
        try:
            if side_by_side:
                worker.start()
                continue
        except RuntimeError:  # no more threads can be started
            pass
        worker.run()
    for worker in workers:
        worker.join()
    for backend, memory in zip(backends, memories, strict=True):
        if backend.name not in replies:  # its thread ran out of memory
            outage = Outage(backend=backend.name, reason="its thread ended without an answer")
            replies[backend.name] = _Reply(backend.name, Asked(outage, memory), 0.0)
    return [replies[backend.name] for backend in backends]


def _ask(backend: Backend, now: datetime, memory: bytes, last: dict[str, object] | None) -> _Reply:
    """Ask one backend. An exception becomes an outage of this backend and does not affect the others."""
    start = time.perf_counter()
    try:
        if last is not None and isinstance(backend, Reusing):
            asked, last[backend.name] = backend.ask_reusing(now, memory, last.get(backend.name))
        else:
            asked = backend.ask(now, memory)
    except BackendError as error:
        asked = Asked(Outage(backend=backend.name, reason=str(error), hint=error.hint), memory)
    except Exception as error:  # noqa: BLE001 - a bug, or no memory: laws 1 and 11
        asked = Asked(Outage(backend=backend.name, reason=f"internal error: {describe(error)}"), memory)
    return _Reply(backend.name, asked, time.perf_counter() - start)
