"""Make remote write requests byte by byte: snappy around protobuf, also ones that no well-behaved client sends."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Labels: TypeAlias = "Sequence[tuple[str, str]]"
HEADERS: Final = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
_LITERAL_MOST: Final = 65_536


class Series(NamedTuple):
    """Labels in the order in which they are written, also repeated ones, and samples: seconds and value."""

    labels: Labels
    samples: Sequence[tuple[float, float]]


def write_request(series: Iterable[Series]) -> bytes:
    """Return the body of a remote write request."""
    return snappy(b"".join(_part(1, _series(each)) for each in series))


def snappy(body: bytes) -> bytes:
    """Return bytes as a snappy block that compresses nothing."""
    parts = [_varint(len(body))]
    for start in range(0, len(body), _LITERAL_MOST):
        literal = body[start : start + _LITERAL_MOST]
        parts += [bytes([61 << 2]), struct.pack("<H", len(literal) - 1), literal]
    return b"".join(parts)


def _series(series: Series) -> bytes:
    labels = [_part(1, _part(1, name.encode()) + _part(2, value.encode())) for name, value in series.labels]
    samples = [
        _part(2, b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(round(seconds * 1000)))
        for seconds, value in series.samples
    ]
    return b"".join([*labels, *samples])


def _part(number: int, body: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)
