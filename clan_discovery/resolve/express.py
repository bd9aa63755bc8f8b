"""What Prometheus can read of a target, and what it cannot. Pure.

One bad label makes Prometheus 2 refuse the whole file (facts: prometheus, discovery/file), so what cannot be expressed
is taken out before the file is written: a label rather than a target.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from clan_discovery.syntax.labels import parameter_complaint

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
    """Say which parameter of an exporter cannot be written as a label, or None."""
    for name, _ in exporter.params:
        if complaint := parameter_complaint(name):
            return complaint
    return None


def is_text(labels: Mapping[str, str]) -> bool:
    """Tell whether every value can be written as UTF-8: half of a surrogate pair cannot."""
    text = "".join(labels.values())
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
