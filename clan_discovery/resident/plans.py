"""Keep the loaded config, the evaluation of its flake and the plan made from both; the last good ones if they fail."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.model import InputStatus, Verification
from clan_discovery.resident.events import INVALID, NOT_EVALUATED, NOT_LOADED
from clan_discovery.resident.flake import Evaluator, Flake, look
from clan_discovery.resident.triggers import Wake, identity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from clan_discovery.inventory.nix import Evaluation
    from clan_discovery.model import Resolution
    from clan_discovery.resident.events import Events
    from clan_discovery.resident.serving import WebSettings
    from clan_discovery.round import OutputPaths, Plan


_RETRY_S: Final = 60.0
_RETRY_SHARE: Final = 10
"""A failed evaluation is repeated after ten times its duration, so that it uses at most a tenth of a core."""


def not_verified(_: Resolution) -> Verification:
    """Return the verification without scrapers."""
    return Verification(at=0.0)


class Loaded(msgspec.Struct, frozen=True):
    """A loaded config: its output paths, how to make a plan, and the files and sockets to watch.

    `found` returns files that are known when a plan has been made, because other files name them.

    `plan` is given the evaluation of the `flake`, if there is one. `web` says where to serve HTTP. `verify` asks the
    scrapers what they do with the targets. `name` is the path of the config, for the log.
    """

    places: OutputPaths
    plan: Callable[[Evaluation | None], Plan]
    files: tuple[tuple[Path, str], ...]
    sockets: tuple[Path, ...]
    flake: Flake | None = None
    web: WebSettings | None = None
    verify: Callable[[Resolution], Verification] = not_verified
    name: str = ""
    found: Callable[[], Mapping[Path, str]] = dict["Path", str]

    @property
    def watched(self) -> tuple[tuple[Path, str], ...]:
        """All files to watch, each with its name in the log."""
        return (*self.files, *self.found().items())


class Plans:
    """The newest good config, evaluation and plan. `load` reads the config.

    Raises:
        InputError: the config or the inventory is invalid, or the flake cannot be evaluated.
    """

    def __init__(self, load: Callable[[], Loaded], events: Events, wake: Wake | None = None) -> None:
        self._load = load
        self._events = events
        self._evaluator = Evaluator(wake or Wake())
        self.loaded = load()
        self._loaded_at = time.monotonic()
        self._waiting: Loaded | None = None
        self._wanted = ""
        self._because = ""
        self._started_at = time.monotonic()
        self._earliest = 0.0
        self._retry_at: float | None = None
        self._evaluated_at: float | None = None
        self.seen: int | None = None
        self._evaluation: Evaluation | None = None
        flake = self.loaded.flake
        if flake is not None:
            self._look(flake)
            self._evaluation = flake.evaluate(None)
            self._evaluated_at = time.monotonic()
        self._files = _identities(self.loaded)
        self.plan = self.loaded.plan(self._evaluation)
        self._made_at = time.monotonic()

    @property
    def newest_config(self) -> Loaded:
        """Return the newest valid config, which may still wait for the first evaluation of its flake."""
        return self._waiting or self.loaded

    def reload(self) -> None:
        """Load the config and make the plan again; if that fails, both are kept.

        A config with another flake is used when that is evaluated; until then, and if the config changes back, the
        old evaluation is used.

        Raises:
            InputError: the config or the inventory is invalid.
        """
        loaded = self._load()
        reference = _reference(loaded)
        changed = reference != _reference(self.newest_config)
        if reference is None or reference == _reference(self.loaded):
            self._make(loaded, self._evaluation)
            self._waiting = None
        else:
            self._waiting = loaded
        self._loaded_at = time.monotonic()
        if changed:
            self.evaluate_again("config", cancel=True)

    def config_status(self, now: float) -> InputStatus:
        """Return whether the config could be read. `now` is in seconds since the epoch, here and below."""
        return self._status(now, self._loaded_at, NOT_LOADED)

    def inventory_status(self, now: float) -> InputStatus:
        """Return whether the inventory could be read, and evaluated if it is a flake."""
        return self._status(now, self._made_at, INVALID, NOT_EVALUATED)

    def flake_status(self, now: float) -> InputStatus | None:
        """Return how the flake's evaluation goes; None without a flake."""
        if self.newest_config.flake is None:
            return None
        return self._status(now, self._evaluated_at, NOT_EVALUATED)

    def _status(self, now: float, at: float | None, *failures: str) -> InputStatus:
        succeeded_at = None
        if at is not None:
            succeeded_at = now - (time.monotonic() - at)
        return InputStatus(ok=not any(map(self._events.fails, failures)), succeeded_at=succeeded_at)

    def newest(self) -> Plan:
        """Return the plan, made again if a file has changed; if that fails, the last good one."""
        if self._files == _identities(self.loaded):
            return self.plan
        try:
            self._make(self.loaded, self._evaluation)
        except Exception as error:  # noqa: BLE001 - law 11: a file must not stop the process
            self._events.failed(INVALID, error)
        else:
            self._events.reloaded("inventory")
        return self.plan

    def evaluate_again(self, because: str, *, cancel: bool = False) -> None:
        """Evaluate the flake as soon as possible. `cancel`: at once, because a user waits for the result in the log."""
        self._wanted = because
        if cancel:
            self._earliest = 0.0
            self._events.answer(NOT_EVALUATED)
            self._evaluator.cancel()

    def superseded(self) -> None:
        """Evaluate the flake as soon as possible, unless the last evaluation failed: then at its scheduled time."""
        if self._retry_at is None:
            self.evaluate_again("a newer evaluation")

    def tend(self) -> None:
        """Take the result of an evaluation, and start the next one if it is time."""
        if self._evaluator.is_busy:
            self._take()
        flake = self.newest_config.flake
        if flake is None or self._evaluator.is_busy or self.pause() > 0:
            return
        try:
            self._look(flake)
            self._because = self._wanted or "interval"
            self._started_at = time.monotonic()
            self._evaluator.start(flake)
        except Exception as error:  # noqa: BLE001 - no thread, no memory: law 11
            self._fail(error, 0.0)
        else:
            self._wanted, self._retry_at = "", None

    def pause(self) -> float:
        """Return the seconds until the flake is evaluated again."""
        flake, now = self.newest_config.flake, time.monotonic()
        if flake is None or self._evaluator.is_busy:
            return float("inf")
        if self._wanted:
            return max(self._earliest - now, 0.0)
        at = self._retry_at
        if at is None and flake.every is not None:
            at = self._started_at + flake.every
        return float("inf") if at is None else max(at - now, 0.0)

    @property
    def is_evaluating(self) -> bool:
        """Tell whether an evaluation runs, or its result was not taken."""
        return self._evaluator.is_busy

    def stop(self) -> None:
        """End an evaluation that runs."""
        self._evaluator.stop()

    def _take(self) -> None:
        """Use the result of an evaluation that has ended."""
        result = self._evaluator.take()
        if result is None:
            return
        if self._evaluator.reference != _reference(self.newest_config):  # it is of the flake of another config
            return
        took = time.monotonic() - self._started_at
        self._earliest = time.monotonic() + took  # files that change all the time cost half a core at most
        if isinstance(result, Exception):
            if not self._wanted:  # else it was cancelled, or is out of date
                self._fail(result, took)
            return
        try:
            self._make(self.newest_config, result)
        except Exception as error:  # noqa: BLE001 - law 11: a file must not stop the process
            self._fail(error, took)
        else:
            self._waiting = None
            self._evaluated_at = time.monotonic()
            self._events.evaluated(self._because, took)

    def _fail(self, error: Exception, took: float) -> None:
        """Log why the evaluation failed, and schedule another one."""
        self._wanted = ""
        self._retry_at = time.monotonic() + max(_RETRY_S, _RETRY_SHARE * took)
        self._events.failed(NOT_EVALUATED, error)

    def _look(self, flake: Flake) -> None:
        self.seen = look(flake.directory, flake.own) if flake.directory is not None else None

    def _make(self, loaded: Loaded, evaluation: Evaluation | None) -> None:
        files = _identities(loaded)  # before the files are read: a change meanwhile makes the next plan
        evaluation = evaluation if loaded.flake is not None else None
        plan = loaded.plan(evaluation)
        self.loaded, self.plan, self._files, self._evaluation = loaded, plan, files, evaluation
        self._made_at = time.monotonic()
        self._events.succeeded(INVALID)


def _reference(loaded: Loaded) -> str | None:
    return loaded.flake.reference if loaded.flake is not None else None


def _identities(loaded: Loaded) -> tuple[object, ...]:
    """Identify the files of a plan. Status files are not part of it, and a changed config is for `reload`."""
    return tuple(identity(file) for file, reason in loaded.watched if reason not in {"config", "status"})
