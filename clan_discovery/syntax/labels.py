"""Check names of labels, parameters and jobs, for config, inventory and resolver alike. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from clan_discovery.syntax.duration import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")  # prometheus/common, model.LabelName (legacy validation)
_META: Final = re.compile(r"__meta_(?!clan_)[a-zA-Z0-9_]+")
JOB_PATTERN: Final = r"[a-zA-Z0-9_][a-zA-Z0-9_.:-]{0,199}"
_JOB: Final = re.compile(JOB_PATTERN)
_OURS: Final = frozenset({"instance", "machine", "job"})
# A target's labels may set these two. Prometheus refuses a target whose timeout is longer than its interval, even if
# one of them is the job's. Hence both must be set, or neither.
_INTERVAL: Final = "__scrape_interval__"
_TIMEOUT: Final = "__scrape_timeout__"


def label_complaint(name: str) -> str | None:
    """Say what is wrong with a label name that a user set; None if nothing is."""
    if not _LABEL.fullmatch(name):
        return f"{name!r} is no label name: letters, digits and underscores, and no digit first"
    if name in _OURS:
        return f"{name!r} is given by clan-discovery and cannot be set"
    if name.startswith("__") and name not in (_INTERVAL, _TIMEOUT):
        return f"{name!r} is reserved: names that start with two underscores are Prometheus's own"
    return None


def labels_complaint(labels: Mapping[str, str]) -> str | None:
    """Say what is wrong with a set of labels: a bad name, scrape interval or timeout; None if nothing is."""
    for name in labels:
        if complaint := label_complaint(name):
            return complaint
    given = labels.keys() & {_INTERVAL, _TIMEOUT}
    if not given:
        return None
    if len(given) == 1:
        return f"{_INTERVAL} and {_TIMEOUT} come together: set both"
    try:
        timeout = duration(labels[_TIMEOUT], least="1ms")
        interval = duration(labels[_INTERVAL], least="1ms")
    except ValueError as error:
        return f"{_INTERVAL} and {_TIMEOUT} come together: {error}"
    if timeout > interval:
        return f"{_INTERVAL} and {_TIMEOUT} come together: the timeout must not be longer than the interval"
    return None


def path_complaint(path: str) -> str | None:
    """Say what is wrong with the metrics path of an exporter; None if nothing is."""
    if not path.startswith("/"):
        return f"{path!r} is no path: a path starts with a slash"
    if "?" in path or "#" in path:
        return f"{path!r} holds more than a path: what follows the question mark goes into `params`"
    return None


def parameter_complaint(name: str) -> str | None:
    """Say why a URL parameter cannot be written as a label; None if it can."""
    if not _LABEL.fullmatch(f"__param_{name}"):
        return f"the parameter {name!r} cannot be written as a label (__param_{name}): set it in the scrape config"
    return None


def is_meta_label(name: str) -> bool:
    """Tell whether a backend may use this label name: `__meta_*`, but not `__meta_clan_*`."""
    return _META.fullmatch(name) is not None


def is_job(name: str) -> bool:
    """Tell whether a job's name can be a file name: plain characters, no leading dot, dash or colon."""
    return _JOB.fullmatch(name) is not None
