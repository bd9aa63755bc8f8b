"""Check what can be written as labels for Prometheus. Pure.

One bad label makes Prometheus 2 refuse the whole file (facts: prometheus, discovery/file). So a bad label is left out
before the file is written, and the target stays.
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
    """Make any text usable in a label name: `_` replaces all other characters."""
    return _NOT_LABEL.sub("_", text)


def tag_labels(tags: tuple[str, ...]) -> Pairs:
    """Write clan tags as Prometheus writes lists: `,a,b,`, and one label per tag."""
    if not tags:
        return ()
    each = [(f"__meta_clan_machine_tag_{label_safe(tag)}", "1") for tag in tags if tag]
    return (("__meta_clan_machine_tags", f",{','.join(tags)},"), *each)


def exporter_complaint(exporter: Exporter) -> str | None:
    """Return why a parameter of the exporter cannot be written as a label, or None."""
    for name, _ in exporter.params:
        if complaint := parameter_complaint(name):
            return complaint
    return None


def is_text(labels: Mapping[str, str]) -> bool:
    """Tell whether every value can be written as UTF-8 (no lone surrogates)."""
    text = "".join(labels.values())
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
