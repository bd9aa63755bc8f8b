"""What Prometheus can read of a target, and what it cannot. Pure.

One bad label makes Prometheus 2 refuse the whole file (facts: prometheus, discovery/file), so a target that cannot
be expressed is taken out before the file is written, with the sentence that says why.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from clan_discovery.endpoint import is_host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clan_discovery.model import Exporter, Pairs

_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")  # prometheus/common, model.LabelName (legacy validation)
_NOT_LABEL: Final = re.compile(r"[^a-zA-Z0-9_]")
_OURS: Final = frozenset({"instance", "machine", "job"})
# What a target's own labels may set of Prometheus's scrape (facts: consumers, "Labels").
_SCRAPE: Final = frozenset({"__scrape_interval__", "__scrape_timeout__"})


def label_safe(text: str) -> str:
    """Write any text as the tail of a label name: what is no label character becomes `_`."""
    return _NOT_LABEL.sub("_", text)


def tag_labels(tags: tuple[str, ...]) -> Pairs:
    """Write clan tags as Prometheus writes lists: `,a,b,`, and one label per tag."""
    if not tags:
        return ()
    each = [(f"__meta_clan_machine_tag_{label_safe(tag)}", "1") for tag in tags if tag]
    return (("__meta_clan_machine_tags", f",{','.join(tags)},"), *each)


def user_label_complaint(name: str) -> str | None:
    """Say what is wrong with a label name of the user's, or None."""
    if not _LABEL.fullmatch(name):
        return f"{name!r} is no label name: letters, digits and underscores, and no digit first"
    if name in _OURS:
        return f"{name!r} is given by clan-discovery and cannot be set"
    if name.startswith("__") and name not in _SCRAPE:
        return f"{name!r} is reserved: names that start with two underscores are Prometheus's own"
    return None


def exporter_complaint(exporter: Exporter) -> str | None:
    """Say what of an exporter cannot be written as labels, or None."""
    for name, _ in exporter.labels:
        if complaint := user_label_complaint(name):
            return f"label {complaint}"
    for name, _ in exporter.params:
        if not _LABEL.fullmatch(f"__param_{name}"):
            return f"parameter {name!r} cannot be written as the label __param_{name}"
    return None


def target_complaint(host: str, labels: Mapping[str, str]) -> str | None:
    """Say why this target cannot be written into a target file, or None."""
    if not is_host(host):
        return f"{host[:80]!r} is no name in DNS and no address"
    if "".join(labels.values()).isascii():
        return None
    for name, value in labels.items():
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"the value of {name} is no Unicode text"
    return None
