"""Evaluate a clan with Nix. No other module runs Nix.

Nix prints the first part of its answer before it fails, so stdout is used only after exit status 0 (seen with 2.8.0).
"""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qs, unquote

from clan_discovery.errors import InputError, refuse
from clan_discovery.model import Problem, one_line
from clan_discovery.reading import MAX_BYTES
from clan_discovery.syntax.secret import has_secret, hide_in_urls

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.inventory.queries import NixQuery

TIMEOUT_S: Final = 300.0
"""How long one evaluation may take."""
_FEATURES: Final = ("--extra-experimental-features", "nix-command flakes")
_MISSING: Final = re.compile(
    r"does not provide attribute|attribute '.*' missing|No such file or directory|does not exist|not tracked by Git"
)
# Not a word about attributes within a function that a query applies.
_ABSENT: Final = re.compile(r"does not provide attribute|in selection path '.*' not found")
_GIT_ADD: Final = "a git flake does not contain untracked files: git add them"
_WARNING: Final = re.compile(r"(?:evaluation )?warning:\s*(.+)")
_WARNINGS_MOST: Final = 5
_PLACE: Final = re.compile(r"at .+:\d+:\d+:")
_SAID_MOST: Final = 500


class AbsentAttributeError(InputError):
    """The flake or the Nix file does not have the attribute of a query."""


class Evaluation(NamedTuple):
    """The JSON of an evaluated flake, and its number in the order of evaluations.

    The number is None if evaluations are not numbered.
    """

    body: bytes
    number: int | None


def evaluate(reference: str | Path, query: NixQuery, cancelled: Callable[[], bool] | None = None) -> bytes:
    """Evaluate a query on a flake or on a plain Nix file, and return the JSON.

    The flake reference has no `#attribute`.

    Raises:
        InputError: Nix is not installed, fails, is killed, prints more than 256 MiB or takes more than five
            minutes. Nix's warnings are included: one of them often says why it failed. It is an AbsentAttributeError if
            there is no such attribute.
        CancelledError: `cancelled` returned true, and Nix was ended.
    """
    where = named(reference)
    if isinstance(reference, str) and reference.startswith("-"):
        what = "a flake reference must not begin with '-': nix would take it for an option"
        refuse(where, what, "write ./ before it")
    see = f"see: {query.command(reference)}"
    code, out, err = _run_nix(query.words(reference), where, see, cancelled)
    if code == 0:
        return out
    raise _failure(code, err.decode("utf-8", "replace"), reference, see)


def _failure(code: int, err: str, reference: str | Path, see: str) -> InputError:
    """Return the error of a failed evaluation, with Nix's warnings."""
    where = named(reference)
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    said = _error_of(lines)
    what = f"nix eval exited with {code}"
    if code < 0:
        what = f"nix eval was killed by {_signal_name(-code)}"
    if said:
        what = f"{what}: {said}"
    if code == -signal.SIGKILL:
        see = f"out of memory? check the kernel log; {see}"
    elif _MISSING.search(said) and _is_git(reference):
        see = f"{_GIT_ADD}; {see}"
    warnings = [Problem(where=where, what=warning, severity="warning") for warning in _warnings(lines)]
    problems = [*warnings, Problem(where=where, what=what, hint=see)]
    if _ABSENT.search(said):
        return AbsentAttributeError(problems)
    return InputError(problems)


def _run_nix(words: list[str], where: str, see: str, cancelled: Callable[[], bool] | None) -> tuple[int, bytes, bytes]:
    """Run `nix eval`; return its exit status, stdout and stderr."""
    import shutil  # noqa: PLC0415 - only where Nix is run

    from clan_discovery.inventory import process  # noqa: PLC0415 - as above

    nix = shutil.which("nix")
    if nix is None:
        refuse(where, "nix is not on PATH", "evaluate on another machine, and pass the JSON with --file")
    try:
        command = [nix, *_FEATURES, "eval", "--json", *words]
        return process.run(command, seconds=TIMEOUT_S, most=MAX_BYTES, cancelled=cancelled)
    except TimeoutError:
        what, hint = f"nix eval took more than {TIMEOUT_S:.0f} s", f"is it waiting for the network? {see}"
    except process.EndedError as error:  # the caller handles the signal itself, and goes on
        what, hint = f"nix eval was ended by {_signal_name(error.number)}", None
    except process.TooMuchError:
        what, hint = f"nix eval printed more than {MAX_BYTES >> 20} MiB, and was ended", see
    except ValueError:  # UnicodeError is one
        what, hint = "contains NUL or half of a surrogate pair, which no command accepts", None
    except OSError as error:
        what, hint = f"nix cannot be run: {error.strerror}", None
    raise InputError([Problem(where=where, what=what, hint=hint)])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def named(reference: str | Path) -> str:
    """Name a flake or a Nix file as errors do, without the secrets in a URL."""
    if isinstance(reference, str):
        return f"flake {hide_in_urls(reference)}"
    return one_line(str(reference))


def secret_warning(reference: str | Path) -> Problem | None:
    """Warn about a flake reference that contains a password.

    A command line is visible to every local user.
    """
    if not isinstance(reference, str) or not has_secret(reference):
        return None
    what = "the reference holds a password or a token, which every local user sees in the list of processes"
    hint = "use ssh, or Nix's netrc-file or access-tokens"
    return Problem(where=named(reference), what=what, hint=hint, severity="warning")


def local_directory(reference: str) -> Path | None:
    """Return the directory of a flake on this machine; None if it is elsewhere."""
    place, _, query = reference.partition("#")[0].partition("?")
    for scheme in ("git+file://", "git+file:", "path:"):
        place = place.removeprefix(scheme)
    if not place.startswith("/"):
        return None
    return Path(unquote(place), *parse_qs(query).get("dir", ()))


def _is_git(reference: str | Path) -> bool:
    """Tell whether a reference may be a local git repository.

    In a git repository, Nix sees only tracked files.
    """
    if not isinstance(reference, str):
        return False
    return reference.startswith("git+file:") or ":" not in reference.partition("?")[0]


def _error_of(lines: list[str]) -> str:
    """Return Nix's last `error:` with its following lines, up to the source position."""
    first = max((i for i, line in enumerate(lines) if line.startswith("error:")), default=len(lines) - 1)
    parts: list[str] = []
    for line in lines[first:]:
        if parts and line.startswith("(use '--show-trace'"):
            break
        parts.append(line.removeprefix("error:").strip())
        if _PLACE.fullmatch(line):  # the next lines quote the source
            break
    said = " ".join(filter(None, parts)).removesuffix(":")
    if len(said) > _SAID_MOST:
        return said[: _SAID_MOST - 3] + "..."
    return said


def _warnings(lines: list[str]) -> list[str]:
    """Return Nix's first warnings without duplicates."""
    return list(dict.fromkeys(found[1] for line in lines if (found := _WARNING.match(line))))[:_WARNINGS_MOST]
