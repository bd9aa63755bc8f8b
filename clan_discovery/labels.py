"""Which names labels, parameters and jobs may have: one rule for config, inventory and resolver. Pure."""

from __future__ import annotations

import re
from typing import Final

_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")  # prometheus/common, model.LabelName (legacy validation)
_OURS: Final = frozenset({"instance", "machine", "job"})
# What a target's own labels may set of Prometheus's scrape (facts: consumers, "Labels").
_SCRAPE: Final = frozenset({"__scrape_interval__", "__scrape_timeout__"})


def label_complaint(name: str) -> str | None:
    """Say what is wrong with a label name of the user's, or None."""
    if not _LABEL.fullmatch(name):
        return f"{name!r} is no label name: letters, digits and underscores, and no digit first"
    if name in _OURS:
        return f"{name!r} is given by clan-discovery and cannot be set"
    if name.startswith("__") and name not in _SCRAPE:
        return f"{name!r} is reserved: names that start with two underscores are Prometheus's own"
    return None


def parameter_complaint(name: str) -> str | None:
    """Say why a URL parameter cannot be written as a label, or None."""
    if not _LABEL.fullmatch(f"__param_{name}"):
        return f"the parameter {name!r} cannot be written as a label (__param_{name}): set it in the scrape config"
    return None


def is_job(name: str) -> bool:
    """Tell whether a job of this name can be a file: no slash, no leading dot or dash, plain characters."""
    plain = all(c.isascii() and (c.isalnum() or c in "_.-:") for c in name)
    return 0 < len(name) <= 200 and plain and (name[0].isalnum() or name[0] == "_")
