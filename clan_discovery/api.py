"""The values and protocols for backends and emitters of your own. docs/library.md is the guide.

The names in `__all__` are stable within a major version. To load a config and run a refresh cycle, see
`clan_discovery`.
"""

from __future__ import annotations

from clan_discovery.assemble.kinds import BackendModel, Duration, File, Port, Timeout
from clan_discovery.backends.base import Asked, Backend, BackendContext, BackendKind, Examinable, Health
from clan_discovery.errors import BackendError
from clan_discovery.model import (
    Ambiguous,
    Answer,
    Belief,
    BeliefState,
    Declared,
    Endpoint,
    Exclusion,
    Expected,
    Exporter,
    Failure,
    Group,
    Machine,
    Missing,
    Node,
    Outage,
    Problem,
    Resolution,
    Snapshot,
    Stray,
    Target,
    one_line,
)
from clan_discovery.syntax.endpoint import join_endpoint, split_endpoint

__all__ = [
    "Ambiguous",
    "Answer",
    "Asked",
    "Backend",
    "BackendContext",
    "BackendError",
    "BackendKind",
    "BackendModel",
    "Belief",
    "BeliefState",
    "Declared",
    "Duration",
    "Endpoint",
    "Examinable",
    "Exclusion",
    "Expected",
    "Exporter",
    "Failure",
    "File",
    "Group",
    "Health",
    "Machine",
    "Missing",
    "Node",
    "Outage",
    "Port",
    "Problem",
    "Resolution",
    "Snapshot",
    "Stray",
    "Target",
    "Timeout",
    "join_endpoint",
    "one_line",
    "split_endpoint",
]
