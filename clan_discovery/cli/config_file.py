"""Find the config file if the command line names none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from clan_discovery.errors import InputError, refuse
from clan_discovery.model import Problem

CONFIG_VARIABLE: Final = "CLAN_DISCOVERY_CONFIG"
LOCAL_CONFIG: Final = Path("clan-discovery.yaml")
"""Relative to the working directory."""
SYSTEM_CONFIGS: Final = (Path("/etc/clan-discovery/config.yaml"), Path("/etc/clan-discovery/config.json"))
_ROOT: Final = 0


def default_config(local: Path = LOCAL_CONFIG, system: tuple[Path, ...] = SYSTEM_CONFIGS) -> Path:
    """Return the first default config that exists: of the environment, the working directory, the system.

    Raises:
        InputError: there is none, or that of the working directory belongs to another user.
    """
    if named := os.environ.get(CONFIG_VARIABLE):
        return Path(named)
    if os.path.lexists(local):
        _check_owner(local)
        return local
    for file in system:
        if os.path.lexists(file):
            return file
    places = ", ".join(map(str, (f"./{local}", *system)))
    what = f"no config: ${CONFIG_VARIABLE} is not set, and none of these files exists: {places}"
    hint = "name one with --config FILE, or write one with: clan-discovery init"
    raise InputError([Problem(where="", what=what, hint=hint)])


def _check_owner(file: Path) -> None:
    """Raise InputError if a file, or the symlink to it, belongs neither to this user nor to root.

    The config decides where files are written. In a shared directory such as /tmp, any user can create one.
    """
    if why := stranger_of(file):
        what = f"{why}, so it is not used as the default config"
        refuse(str(file), what, f"to use it, name it: --config {file}; to use another: --config FILE")


def stranger_of(file: Path) -> str:
    """Say that a file, or the symlink to it, belongs neither to this user nor to root; else an empty string."""
    owners = {os.lstat(file).st_uid}
    if file.exists():
        owners.add(file.stat().st_uid)
    strangers = owners - {os.geteuid(), _ROOT}
    if not strangers:
        return ""
    from clan_discovery.publish.user import whose  # noqa: PLC0415 - only for a message

    return f"belongs to {whose(min(strangers), file)}"
