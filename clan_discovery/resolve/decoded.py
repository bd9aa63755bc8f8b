"""Keep what a file of the state was decoded to, so that the same bytes are not decoded again."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

_T = TypeVar("_T")


class DecodedFile(msgspec.Struct, Generic[_T]):
    """The bytes that a file had last, and their value; both are None until something is kept."""

    body: bytes | None = None
    value: _T | None = None

    def of(self, body: bytes) -> _T | None:
        """Return the value of these bytes; None if it is not known."""
        return self.value if self.body == body else None

    def keep(self, body: bytes, value: _T) -> None:
        """Keep the value of these bytes instead of what was kept before."""
        self.body, self.value = body, value
