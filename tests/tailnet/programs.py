"""Build Go programs, pinned by `go/<name>/go.mod` and `go.sum`, once into a cache.

The cache is `$XDG_CACHE_HOME/clan-discovery` (default `~/.cache`). The directory name depends on the pins and on Go's
version, so a change of either builds again. A finished build is renamed into place.

python -m tests.tailnet.programs    build what is missing
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PINNED: Final = Path(__file__).parent / "go"
_BUILD_S: Final = 1800
_GO_MINOR: Final = 21

_COMMANDS: Final = {
    "headscale": "github.com/juanfont/headscale/cmd/headscale",
    "tailscalesd": "github.com/cfunkhouser/tailscalesd/cmd/tailscalesd",
    "tailscaled": "tailscale.com/cmd/tailscaled",
}
# One program that is also `tailscale` when called by that name: half the time to build.
_TAGS: Final = "ts_include_cli"

OLD: Final = "v1.96.4"
"""The newest release before 1.98, in which the bus changed first."""
NEW: Final = "v1.102.3"
"""From 1.100, the bus sends no network map after the first message."""
OLDEST: Final = "v1.80.3"
"""The oldest release that headscale 0.29 accepts."""


class NotBuiltError(Exception):
    """A program is missing and could not be built; the message is one line."""


class NoGoError(NotBuiltError):
    """Go is missing or too old."""


def cache() -> Path:
    """Return the directory of the builds."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clan-discovery"


def headscale() -> Path:
    """Return headscale."""
    return _built(_CALLED["headscale"], "headscale")


def tailscalesd() -> Path:
    """Return tailscalesd."""
    return _built(_CALLED["tailscalesd"], "tailscalesd")


def tailscaled(version: str) -> Path:
    """Return tailscaled of a version; `tailscale` is beside it."""
    return _built(_CALLED[f"tailscaled {version}"], "tailscaled")


_CALLED: Final = {
    "headscale": PINNED / "headscale-v0.29.0",
    "tailscalesd": PINNED / "tailscalesd-v0.5.0",
    **{f"tailscaled {version}": PINNED / f"tailscale-{version}" for version in (OLDEST, OLD, NEW)},
}


def build_all(say: Callable[[str], object] | None = None) -> None:
    """Build what is missing; announce each build, because it takes minutes.

    Raises:
        NotBuiltError: one could not be built.
    """
    for called, pinned in _CALLED.items():
        name = called.partition(" ")[0]
        if say is not None and not _place(pinned).exists():
            say(f"building {called} with go, once, into {cache()}")
        _built(pinned, name)


@functools.cache
def go_version() -> str:
    """Return Go's version text.

    Raises:
        NoGoError: it is missing, or older than 1.21 and cannot fetch the Go that a module needs.
    """
    go = shutil.which("go")
    if go is None:
        raise NoGoError("go is not on PATH, and builds tailscaled and headscale")
    said = subprocess.run([go, "version"], capture_output=True, check=False, text=True, cwd="/").stdout.strip()
    found = re.search(r"go1\.(\d+)", said)
    if found is None or int(found[1]) < _GO_MINOR:
        raise NoGoError(
            f"{said or 'a go that says nothing'} builds neither tailscaled nor headscale: 1.{_GO_MINOR} does"
        )
    return said


def _place(pinned: Path) -> Path:
    """Return the directory of a program built from these locks by this Go."""
    made_of = [(pinned / file).read_bytes() for file in ("go.mod", "go.sum")]
    made_of += [part.encode() for part in (go_version(), _TAGS, *_COMMANDS.values())]
    key = hashlib.sha256(b"\0".join(made_of)).hexdigest()[:16]
    return cache() / f"{pinned.name}-{key}"


@functools.cache
def _built(pinned: Path, name: str) -> Path:
    place = _place(pinned)
    if not place.exists():
        _build(pinned, name, place)
    return place / name


def _build(pinned: Path, name: str, place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".build-") as made:
            fresh = Path(made) / "programs"
            fresh.mkdir()
            _go_build(pinned, name, fresh / name)
            if name == "tailscaled":
                (fresh / "tailscale").symlink_to("tailscaled")
            fresh.rename(place)
    except OSError as error:
        if not place.exists():  # else another process built it meanwhile
            raise NotBuiltError(f"{pinned.name} cannot be kept in {cache()}: {error.strerror}") from error


def _go_build(pinned: Path, name: str, target: Path) -> None:
    command = ["go", "build", "-mod=readonly", "-modcacherw", "-tags", _TAGS, "-o", str(target), _COMMANDS[name]]
    try:
        done = subprocess.run(command, cwd=pinned, capture_output=True, text=True, timeout=_BUILD_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotBuiltError(f"{pinned.name} was not built within {_BUILD_S} s") from error
    if done.returncode != 0:
        last = (done.stderr.strip() or "no word").splitlines()[-1]
        raise NotBuiltError(f"{pinned.name} could not be built: {last}")


def _main() -> None:
    """Build what is missing; failures are reported by the tests."""
    with contextlib.suppress(NotBuiltError):
        build_all(lambda line: print(line, flush=True))  # noqa: T201 - somebody waits for minutes


if __name__ == "__main__":
    _main()
