"""The state directory: what is remembered between refresh cycles, as named files of bytes.

Nothing here stops a cycle: a file that cannot be read is set aside and reported, a write that fails is reported.
Nothing secret is in it; it is 0600 because nobody else needs it.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clan_discovery.model import Problem
from clan_discovery.publish.files import write_file
from clan_discovery.publish.lock import locked

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path


@dataclass(slots=True)
class State:
    """The state directory. `problems` gathers what went wrong with it; `read_only` leaves it as it is.

    `hidden`: something is there that this user may not read, and that was left as it is.
    """

    directory: Path
    read_only: bool = False
    hidden: bool = False
    problems: list[Problem] = field(default_factory=list[Problem])

    @property
    def scratch(self) -> Path:
        """Return the directory in which files are prepared before they are moved into place."""
        return self.directory / "publishing"

    @contextlib.contextmanager
    def locked(self, wait: float) -> Generator[None]:
        """Hold the state for one cycle, if possible: refreshers of several outputs may share it.

        Raises:
            PublishError: another process holds it for more than `wait` seconds.
        """
        usable = False
        if not self.read_only:
            with contextlib.suppress(OSError):  # `write` reports it
                self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                usable = os.access(self.directory, os.R_OK | os.X_OK)
        with locked(self.directory, wait) if usable else contextlib.nullcontext():
            yield

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None where there is none, or where it cannot be read."""
        file = self.directory / name
        try:
            return file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError:
            if not self.read_only:
                self.set_aside(name, "this user may not read it")
            elif not self.hidden:
                self.hidden = True
                self._complain("this user may not read it", "what is remembered is not known here: run as the owner")
            return None
        except OSError as error:
            self.set_aside(name, error.strerror or str(error))
            return None

    def write(self, contents: Mapping[str, bytes]) -> bool:
        """Write files in the given order, each only if it differs; False, with a problem, where one failed."""
        if self.read_only:
            return False
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, content in contents.items():
                write_file(self.directory / name, content)
        except OSError as error:
            self._complain(f"cannot write the state: {error.strerror or error}")
            return False
        return True

    def set_aside(self, name: str, why: str) -> None:
        """Move a file away that cannot be used, and report it."""
        if self.read_only:
            self._complain(f"cannot read {name}: {why}")
            return
        file = self.directory / name
        with contextlib.suppress(OSError):
            file.replace(file.with_name(f"{name}.unreadable"))
        self._complain(f"cannot read {name}, which is set aside: {why}")

    def _complain(self, what: str, hint: str = "this cycle continues without it") -> None:
        self.problems.append(Problem(where=f"state {self.directory}", what=what, hint=hint, severity="warning"))
