"""Service discovery for clan and NixOS: the inventory is the list, the network is the address book.

The front door. The names in `__all__` are stable within a major version; everything else may move.

    from datetime import UTC, datetime
    from pathlib import Path
    from clan_discovery import State, load_config, make_plan, render_jobs, run_round

    plan = make_plan(load_config(Path("config.yaml")))
    found = run_round(plan, State(plan.state_directory, read_only=True), datetime.now(UTC))
    for job, content in render_jobs(found.resolution).items():
        ...

Names are imported when they are asked for: pydantic and httpx cost a tenth of a second that not every use needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from clan_discovery.assemble import directories, make_plan
    from clan_discovery.config.load import load_config
    from clan_discovery.emit.file_sd import render_jobs
    from clan_discovery.errors import BackendError, ClanDiscoveryError, InputError, PublishError
    from clan_discovery.model import Belief, Declared, Outage, Resolution, Snapshot, Target
    from clan_discovery.publish.state import State
    from clan_discovery.round import Plan, refresh, run_round

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "Belief",
    "ClanDiscoveryError",
    "Declared",
    "InputError",
    "Outage",
    "Plan",
    "PublishError",
    "Resolution",
    "Snapshot",
    "State",
    "Target",
    "directories",
    "load_config",
    "make_plan",
    "refresh",
    "render_jobs",
    "run_round",
]

_HOME: Final = {
    "BackendError": "errors",
    "Belief": "model",
    "ClanDiscoveryError": "errors",
    "Declared": "model",
    "InputError": "errors",
    "Outage": "model",
    "Plan": "round",
    "PublishError": "errors",
    "Resolution": "model",
    "Snapshot": "model",
    "State": "publish.state",
    "Target": "model",
    "directories": "assemble",
    "load_config": "config.load",
    "make_plan": "assemble",
    "refresh": "round",
    "render_jobs": "emit.file_sd",
    "run_round": "round",
}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
