"""Build the backends of other distributions, and check their answers.

Their code is not ours: every exception and every invalid answer is an outage of that backend only.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final, TypeGuard

import msgspec
from typing_extensions import override

from clan_discovery.assemble.source import configured_exporter
from clan_discovery.backends.base import Asked, BackendContext, BackendKind, Examinable, Health
from clan_discovery.config.models import BackendModel, Duration, Port, Timeout, others_of
from clan_discovery.config.values import File
from clan_discovery.errors import BackendError, ClanDiscoveryError, describe
from clan_discovery.model import Outage, Snapshot, one_line
from clan_discovery.resolve.sound import check_snapshot
from clan_discovery.syntax.labels import is_job
from clan_discovery.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from clan_discovery.backends.base import Backend
    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.model import Answer, Declared, Problem

__all__ = ["AddedBackend", "BackendModel", "Duration", "File", "Port", "Timeout", "added_backends"]


_BUDGET_S: Final = 60.0
"""How long one `ask` may take."""


class _Question(Worker):
    """One `ask` of code that may never return."""

    def __init__(self, ask: Callable[[], object]) -> None:
        super().__init__()
        self._ask = ask
        self.answer: object = None
        self.error: BaseException | None = None

    @override
    def run(self) -> None:
        try:
            self.answer = self._ask()
        except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that asks
            self.error = error


class AddedBackend(msgspec.Struct, frozen=True, kw_only=True):
    """A backend of another distribution.

    Its properties are read once; each answer is checked.
    """

    name: str
    inner: Backend
    fingerprint: str
    jobs: frozenset[str]
    locates: bool
    any_address: bool
    hanging: list[_Question] = []
    """The last question, which may still run."""

    @classmethod
    def of(cls, kind: str, name: str, inner: Backend) -> AddedBackend:
        """Read the properties of a backend.

        Raises:
            ValueError: a job name is not valid.
        """
        jobs = frozenset(map(str, inner.jobs))
        for job in sorted(jobs):
            if not is_job(job):
                raise ValueError(f"it lists targets for {job[:60]!r}, which is not a valid job name")
        # Without a fingerprint nothing is remembered, and an exception would remove machines.
        fingerprint = one_line(f"{kind} {inner.fingerprint or ''}")
        return cls(
            name=name,
            inner=inner,
            fingerprint=fingerprint,
            jobs=jobs,
            locates=bool(inner.locates),
            any_address=bool(inner.any_address),
        )

    def ask(self, now: datetime, memory: bytes, /) -> Asked:
        """Ask the backend in a thread of its own, and wait a minute at most; see `Backend.ask`.

        While an `ask` hangs, the backend is not asked again.
        """
        if self.hanging and self.hanging[0].is_alive():
            raise BackendError("an earlier question still has no answer")
        question = _Question(partial(self.inner.ask, now, memory))
        question.start()
        self.hanging[:] = [question]
        question.join(_BUDGET_S)
        if question.is_alive():
            raise BackendError(f"no answer within {_BUDGET_S:g} s")
        if question.error is not None:
            if not _ends_its_task(question.error):  # `run_round` makes an outage of it
                raise question.error
            raise BackendError(f"internal error: {describe(question.error)}")
        try:
            return self._checked(question.answer)
        except (TypeError, ValueError, RecursionError) as error:
            raise BackendError(f"its answer cannot be used: {error}") from None

    def examine(self) -> list[Health]:
        """Let the backend examine itself, if it can; see `Examinable.examine`."""
        if not isinstance(self.inner, Examinable):
            return []
        try:
            return list(self.inner.examine())
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it runs the code of another distribution
            return [Health(f"backend {self.name}", well=False, what=f"internal error: {describe(error)}")]

    def _checked(self, asked: object) -> Asked:
        """Return what `ask` returned, converted to the declared types.

        Raises:
            TypeError: a value has another type.
            ValueError: a value is not valid for a backend.
        """
        if not isinstance(asked, Asked):
            raise TypeError(f"`ask` returned {type(asked).__name__}, not Asked")
        due = asked.next_due
        if due is not None and not math.isfinite(due):
            raise ValueError(f"next_due is {due}")
        answer = self._checked_answer(asked.answer)
        return Asked(answer, bytes(memoryview(asked.memory)), due, str(asked.unusable))

    def _checked_answer(self, answer: object) -> Answer:
        if isinstance(answer, Outage):
            outage = msgspec.convert(msgspec.to_builtins(answer), Outage)
            if outage.last is not None:
                self._check(outage.last)
            return outage
        if not isinstance(answer, Snapshot):
            raise TypeError(f"the answer is {type(answer).__name__}, not Snapshot or Outage")
        snapshot = msgspec.convert(msgspec.to_builtins(answer), Snapshot)
        self._check(snapshot)
        return snapshot

    def _check(self, snapshot: Snapshot) -> None:
        check_snapshot(snapshot, self.name, any_address=self.any_address)
        unlisted = {endpoint.exporter.type for endpoint in snapshot.endpoints} - self.jobs
        if unlisted:
            raise ValueError(f"it lists targets for {min(unlisted)!r}, which is not among its jobs")


def added_backends(loaded: LoadedConfig, declared: Declared, problems: list[Problem]) -> Iterator[AddedBackend]:
    """Build the backends of kinds that other distributions add; report failures."""
    context = BackendContext(declared=declared, exporter=partial(configured_exporter, loaded.config))
    for kind, configs in others_of(loaded.config.backends).items():
        found = loaded.kinds[kind]
        for name, config in sorted(configs.items()):
            try:
                yield _built(kind, name, found.loaded, config, context)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - it runs the code of another distribution
                what = f"{found.distribution} cannot build this backend: {_message(error)}"
                problems.append(loaded.problem(("backends", kind, name), what))


def _built(kind: str, name: str, loaded: object, config: BackendModel, context: BackendContext) -> AddedBackend:
    if not _is_kind(loaded):
        raise TypeError(f"its entry point is {type(loaded).__name__}, not BackendKind")
    return AddedBackend.of(kind, name, loaded.build(name, config, context))


def _ends_its_task(error: BaseException) -> bool:
    """Tell whether code of another distribution ended its own task or program: no `Exception`, but an outage."""
    from asyncio import CancelledError  # noqa: PLC0415 - 50 ms of a start, only where a backend fails

    return isinstance(error, SystemExit | CancelledError)


def _is_kind(loaded: object) -> TypeGuard[BackendKind[BackendModel]]:
    return isinstance(loaded, BackendKind)


def _message(error: BaseException) -> str:
    """Return the message of an error.

    For an error that was not raised on purpose, it includes where it was raised.
    """
    if isinstance(error, ValueError | ClanDiscoveryError):
        return str(error)
    return describe(error)
