"""What Prometheus can read of a target, and what it cannot. Pure.

One bad label makes Prometheus 2 refuse the whole file (facts: prometheus, discovery/file), so a target that cannot
be expressed is taken out before the file is written, with the sentence that says why.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from clan_discovery.syntax.endpoint import is_host
from clan_discovery.syntax.labels import label_complaint, parameter_complaint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clan_discovery.model import Exporter, Pairs

_NOT_LABEL: Final = re.compile(r"[^a-zA-Z0-9_]")


def label_safe(text: str) -> str:
    """Write any text as the tail of a label name: what is no label character becomes `_`."""
    return _NOT_LABEL.sub("_", text)


def tag_labels(tags: tuple[str, ...]) -> Pairs:
    """Write clan tags as Prometheus writes lists: `,a,b,`, and one label per tag."""
    if not tags:
        return ()
    each = [(f"__meta_clan_machine_tag_{label_safe(tag)}", "1") for tag in tags if tag]
    return (("__meta_clan_machine_tags", f",{','.join(tags)},"), *each)


def exporter_complaint(exporter: Exporter) -> str | None:
    """Say what of an exporter cannot be written as labels, or None."""
    for name, _ in exporter.labels:
        if complaint := label_complaint(name):
            return complaint
    for name, _ in exporter.params:
        if complaint := parameter_complaint(name):
            return complaint
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
