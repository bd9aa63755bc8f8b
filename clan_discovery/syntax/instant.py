"""Write instants, given in seconds since the epoch, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def minute(at: float) -> str:
    """Write an instant for people: `2026-11-21 22:41 UTC`."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def rfc3339(at: float) -> str:
    """Write an instant for programs: `2026-11-21T22:41:56Z`."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
