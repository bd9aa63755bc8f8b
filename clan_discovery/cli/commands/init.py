"""Look around, and write a first config that `check` accepts.

It asks nothing and evaluates nothing. It looks for
  - an inventory: inventory.json or clan/inventory.json (as `dump` writes it)
  - a clan's flake: flake.nix, if nix is on PATH
  - service-manifest.json (or .yaml), and compose.yaml (or another of Compose's
    names), which is taken for that of this machine
  - tailscaled: its socket, and whether it answers within two seconds
  - Prometheus or vmagent: the config in /etc/prometheus or of a systemd unit,
    and a directory that it reads target files from

Such a file of another user than you or root is not used. What is missing is a
comment with an example. An existing file is overwritten only with --force.

for example:
  clan-discovery init && clan-discovery check
  clan-discovery init --output -
  sudo clan-discovery init --output /etc/clan-discovery/config.yaml
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clan_discovery.cli.command import Args, Command, Parser, Streams
from clan_discovery.cli.config_file import CONFIG_VARIABLE, LOCAL_CONFIG, SYSTEM_CONFIGS
from clan_discovery.cli.first_config import Choices, first_config
from clan_discovery.cli.surroundings import look
from clan_discovery.config.models import DEFAULT_DIRECTORY
from clan_discovery.errors import Exit, refuse
from clan_discovery.publish.failure import publish_error
from clan_discovery.publish.writing import write_file
from clan_discovery.syntax.counting import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clan_discovery.cli.surroundings import FoundScraper, Surroundings

_ROOT: Final = Path("/")
_PATIENCE_S: Final = 2.0
_MODE: Final = 0o644


def _add(parser: Parser) -> None:
    help_ = f"write the config here, or print it with - (default: {LOCAL_CONFIG})"
    parser.add_argument("--output", "-c", "--config", metavar="FILE", type=Path, default=LOCAL_CONFIG, help=help_)
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")


def _run(args: Args, streams: Streams) -> Exit:
    file: Path = args.output
    is_printed = str(file) == "-"
    if os.path.lexists(file) and not is_printed and not args.force:
        refuse(str(file), "exists", "choose another file with --output, or overwrite it with --force")
    here = Path.cwd()
    directory = here if is_printed else (here / file).parent
    found = look(here, _ROOT, _PATIENCE_S)
    output = _output_directory(found.scraper, directory)
    text = first_config(found, Choices(directory, output))
    if is_printed:
        streams.out.write(text)
    else:
        _write(file, text)
    for line in _report(found, file, output):
        streams.log(line)
    return Exit.OK


def _output_directory(scraper: FoundScraper | None, directory: Path) -> Path:
    """Return an empty directory that the scraper reads; else the default one, or one beside the config."""
    if scraper is not None:
        for candidate in scraper.directories:
            if _is_usable(candidate):
                return candidate
    if os.geteuid() == 0:
        return DEFAULT_DIRECTORY
    return directory / "targets"


def _is_usable(directory: Path) -> bool:
    """Tell whether a directory can hold target files alone: empty or missing, and writable by this user."""
    if directory.is_relative_to("/run") or "*" in str(directory):
        return False
    try:
        if directory.is_symlink():
            return False
        return not any(directory.iterdir()) and os.access(directory, os.W_OK)
    except FileNotFoundError:
        return os.access(directory.parent, os.W_OK)
    except (OSError, ValueError):  # this user may not look there, or a scraper's config names no path
        return False


def _write(file: Path, text: str) -> None:
    try:
        write_file(file, text.encode(), _MODE)
    except OSError as error:
        raise publish_error(f"cannot write {file}", error) from error


def _report(found: Surroundings, file: Path, output: Path) -> Iterator[str]:
    """Yield what was found, what is wrong with it, and what to do next."""
    yield f"found: {'; '.join(_found(found)) or 'no source, no tailscaled, no Prometheus: see the examples in it'}"
    yield from found.notes
    config = ""
    if str(file) == "-":
        config = " --config FILE"
    elif os.environ.get(CONFIG_VARIABLE) or file not in (LOCAL_CONFIG, *SYSTEM_CONFIGS):
        config = f" --config {shlex.quote(str(file))}"
    if str(file) != "-":
        yield f"wrote {file}"
    yield f"next: clan-discovery check{config}; clan-discovery show{config}; `refresh` will write to {output}"


def _found(found: Surroundings) -> Iterator[str]:
    if found.inventory is not None:
        counts = f"{plural(found.inventory.machines, 'machine')}, {plural(found.inventory.targets, 'target')}"
        yield f"inventory {found.inventory.file} ({counts})"
    elif found.flake is not None:
        yield f"flake {found.flake} (not evaluated yet: check does it)"
    if found.manifest is not None:
        yield f"service manifest {found.manifest}"
    if found.compose is not None:
        yield f"Compose file {found.compose.file}, as that of the machine {found.compose.machine}"
    tailnet = found.tailnet
    if tailnet is not None and tailnet.why:
        yield f"tailscaled, which does not answer: {tailnet.why}"
    elif tailnet is not None:
        yield f"tailscaled ({tailnet.state}, {plural(tailnet.nodes, 'other node')})"
    if found.scraper is not None:
        yield f"scraper config {found.scraper.file}"


COMMAND: Final = Command(__doc__, _add, _run)
