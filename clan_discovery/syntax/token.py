"""Check bearer tokens and the files that hold one. Pure. No message contains a token."""

from __future__ import annotations

import re
from typing import Final

MOST_BYTES: Final = 4096
"""The largest file that is read."""
_LEAST: Final = 20
_CHARACTERS: Final = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750, section 2.1."""


def token_in(body: bytes) -> str:
    """Return the token in the bytes of a file; one newline may follow it.

    Raises:
        ValueError: there is none. The message completes a sentence with the file's name: `is empty`.
    """
    token = body.removesuffix(b"\n")
    if token != body:
        token = token.removesuffix(b"\r")
    if not token:
        raise ValueError("is empty")
    if len(token) > MOST_BYTES:
        raise ValueError(f"is larger than {MOST_BYTES} bytes")
    if _CHARACTERS.fullmatch(token) is None:
        raise ValueError(f"holds {_found_in(token)}: write the token alone, of letters, digits and -._~+/")
    if len(token) < _LEAST:
        raise ValueError(f"holds {len(token)} characters, and a token has {_LEAST} at least")
    return token.decode("ascii")


def _found_in(token: bytes) -> str:
    """Say what a token cannot have, without a byte of it."""
    if b"\0" in token:
        return "a NUL"
    if b"\n" in token or b"\r" in token:
        return "more than one line"
    if any(byte in token for byte in b" \t"):
        return "a space"
    return "a character that no token has"
