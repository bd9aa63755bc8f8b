"""Read Compose files: which services serve metrics, which have a domain, and where both are reached. Pure."""

from __future__ import annotations

from typing import Final

ENV_FILE: Final = "env file"
"""What a file with variables is called, in messages and in the log."""
