"""Checks of the output directory and of the state directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from clan_discovery.doctor.finding import Finding
from clan_discovery.errors import Exit
from clan_discovery.memory import Memories
from clan_discovery.publish.files import runtime_directory_warning
from clan_discovery.publish.state import State
from clan_discovery.syntax.counting import plural

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clan_discovery.round import Plan

_RUN_AS: Final = "run as the unit's user, or change the owner"
_FIRST: Final = (
    "the first refresh creates it; start Prometheus after that, because it looks for a missing directory only every "
    "5 minutes"
)


def check_directory(path: Path, runtime_directories: str) -> Iterator[Finding]:
    """Check the output directory and its files. `runtime_directories` is systemd's `RUNTIME_DIRECTORY`."""
    about = f"output {path}"
    try:
        yield from _check_directory(about, path, runtime_directories)
    except OSError as error:
        yield Finding("error", about, f"it cannot be read: {error.strerror}", _RUN_AS, Exit.NOT_WRITTEN)


def _check_directory(about: str, path: Path, runtime_directories: str) -> Iterator[Finding]:
    if path.is_symlink():
        yield Finding("error", about, "it is a symlink", "set the directory itself", Exit.NOT_WRITTEN)
        return
    if not path.exists():
        yield Finding("warning", about, "it does not exist yet", _FIRST)
        return
    if not path.is_dir():
        yield Finding("error", about, "it is not a directory", "set another one", Exit.NOT_WRITTEN)
        return
    well = True
    for check in (
        _check_access(about, path),
        _check_place(about, path, runtime_directories),
        _check_files(about, path),
    ):
        for finding in check:
            well = False
            yield finding
    if well:
        yield Finding("ok", about, plural(len(list(path.glob("*.json"))), "target file"))


def _check_access(about: str, path: Path) -> Iterator[Finding]:
    if not os.access(path, os.W_OK | os.X_OK):
        yield Finding("error", about, "this user cannot write there", _RUN_AS, Exit.NOT_WRITTEN)
    if path.stat().st_mode & 0o005 != 0o005:
        yield Finding("warning", about, "other users, such as Prometheus, cannot read it", f"chmod 755 {path}")


def _check_place(about: str, path: Path, runtime_directories: str) -> Iterator[Finding]:
    if os.path.ismount(path):
        what = "it is a mount point: files are prepared inside it, and a bind mount of one file does not see a rename"
        yield Finding("warning", about, what, "mount the parent directory")
    if warning := runtime_directory_warning(path, runtime_directories):
        yield Finding("warning", about, warning.partition("lies ")[2] or warning, "use StateDirectory")


def _check_files(about: str, path: Path) -> Iterator[Finding]:
    for file in sorted(path.iterdir()):
        yield from _check_file(about, file)


def _check_file(about: str, file: Path) -> Iterator[Finding]:
    is_json = file.suffix == ".json"
    if file.is_symlink():
        what = f"{file.name} is a symlink: Prometheus sees a change behind it only at its next refresh"
        yield Finding("warning", about, what, "the next change replaces it")
    elif file.name.startswith(".") and (is_json or file.suffix in (".yml", ".yaml")):
        what = f"{file.name} is matched by the glob `*{file.suffix}`: globs in Go match dotfiles"
        yield Finding("warning", about, what, "remove it, or let its writer use another suffix")
    elif is_json and file.is_file() and file.stat().st_mode & 0o004 == 0:
        yield Finding("warning", about, f"other users cannot read {file.name}", "the next refresh fixes it")


def check_state(plan: Plan) -> list[Finding]:
    """Check that the memory of each backend can be read."""
    about = f"state {plan.state_directory}"
    state = State(plan.state_directory, read_only=True)
    memories = Memories.read(state, plan.backends)
    for backend in plan.backends:
        memories.load(backend.name, None)
    if state.problems:
        fix = "the next refresh sets it aside and starts with an empty memory"
        return [Finding("warning", about, problem.what, fix) for problem in state.problems]
    if not plan.state_directory.exists():
        return [Finding("ok", about, "it does not exist yet; the first refresh creates it")]
    if not plan.state_directory.is_dir():
        return [Finding("warning", about, "it is not a directory: nothing can be remembered", "move it away")]
    return [Finding("ok", about, "readable")]
