"""Errors and exit codes.

Each error class says what the caller does next. Errors carry data and a hint; only the command line exits.

ClanDiscoveryError
├── InputError      fix the config, the inventory or the command line
├── BackendError    a backend did not answer: try again later
└── PublishError    fix the disk or the directory, or wait for the lock
    └── SupersededError    evaluate the flake again
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, Final, NoReturn

from clan_discovery.model import Problem, one_line
from clan_discovery.syntax.secret import hide_in_urls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.model import Severity


class Exit(IntEnum):
    """Exit codes of the program. If several apply, the highest is returned."""

    OK = 0
    FINDINGS = 1
    WRONG_INPUT = 2
    DEGRADED = 3
    HELD = 4
    NOT_WRITTEN = 5


class ClanDiscoveryError(Exception):
    """Base class of every error that this package raises on purpose. `exit_code` is what a command returns for it."""

    hint: str | None
    exit_code: ClassVar[Exit] = Exit.WRONG_INPUT

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InputError(ClanDiscoveryError):
    """The config, the inventory or the command line is wrong. `problems` holds every problem found."""

    problems: tuple[Problem, ...]

    def __init__(self, problems: Sequence[Problem], more: int = 0) -> None:
        """Store the problems; `more` counts those that are not included."""
        super().__init__("\n".join(map(str, first_problems(problems, more))))
        self.problems = tuple(problems)
        self.more = more


PROBLEMS_MOST: Final = 20
"""How many problems a command prints."""
_ALIKE_MOST: Final = 5
_SEE_ALL: Final = "to see all of them: clan-discovery show --format json | jq .problems"
_KIND_MOST: Final = 300
_OWN_PART: Final = r"^\S+: |'[^']*'|\"[^\"]*\"|[0-9]+"


def first_problems(problems: Sequence[Problem], more: int = 0) -> Sequence[Problem]:
    """Return the problems to print, errors first, and one that counts the others and `more`.

    One mistake may be repeated 10,000 times. The first five of a kind come before the others of that kind, so that they
    do not hide what differs from them.
    """
    if not more and len(problems) <= PROBLEMS_MOST + 1:
        return problems
    problems = sorted(problems, key=lambda problem: problem.severity)  # their names sort
    kinds: dict[str, int] = {}
    first: list[int] = []
    alike: list[int] = []
    for index, problem in enumerate(problems):
        kind = re.sub(_OWN_PART, "", problem.what[:_KIND_MOST])
        kinds[kind] = kinds.get(kind, 0) + 1
        (first if kinds[kind] <= _ALIKE_MOST else alike).append(index)
    order = first + alike
    shown = [problems[index] for index in sorted(order[:PROBLEMS_MOST])]
    severity: Severity = "error"
    if not more:
        severity = problems[min(order[PROBLEMS_MOST:])].severity
    hint = None if severity == "error" else _SEE_ALL
    more += len(problems) - len(shown)
    return [*shown, Problem(where="", what=f"and {more:,} more", hint=hint, severity=severity)]


def refuse(where: str, what: str, hint: str | None = None) -> NoReturn:
    """Raise an InputError with one problem."""
    raise InputError([Problem(where=where, what=what, hint=hint)]) from None


def describe(error: BaseException) -> str:
    """Return the message of one of our errors; of any other, one line with its type and where it was raised.

    Opens no file: this runs where none can be opened.
    """
    if isinstance(error, ClanDiscoveryError):
        return str(error)
    where = ""
    raised = error.__traceback__
    while raised is not None:
        where = f" ({raised.tb_frame.f_code.co_filename.rpartition('/')[2]}:{raised.tb_lineno})"
        raised = raised.tb_next
    message = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    return f"{message}{where}"


class BackendError(ClanDiscoveryError):
    """A backend did not answer. A round turns it into an `Outage`; it never means "no machines".

    The message goes into the state, JSON and logs: it holds no password of a URL, and no byte that is not UTF-8.
    """

    exit_code = Exit.DEGRADED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(one_line(hide_in_urls(message)), hint=hint)


class PublishError(ClanDiscoveryError):
    """The target files could not be written; the old files are kept."""

    exit_code = Exit.NOT_WRITTEN


class SupersededError(PublishError):
    """The target files are those of an evaluation of the flake that started later."""
