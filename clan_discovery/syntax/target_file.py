"""Parse target files of file_sd, and recognise ours."""

from __future__ import annotations

from typing import Final

import msgspec

MARK: Final = "__meta_clan_observed"
"""The label that every target of ours has."""


class _Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    targets: list[str]
    labels: dict[str, str]


_decode: Final = msgspec.json.Decoder(list[_Group]).decode


def parse_target_file(body: bytes) -> list[tuple[str, dict[str, str]]] | None:
    """Return the targets of a file of ours (address and labels); None if the file is not ours.

    A file without targets counts as ours, because nothing in it can be lost.
    """
    try:
        groups = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if any(MARK not in group.labels for group in groups):
        return None
    return [(address, group.labels) for group in groups for address in group.targets]
