"""The boards of Grafana, as `make docs` writes them to clan_discovery/data/dashboards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.emit.json import pretty
from tools.boards.fleet import fleet
from tools.boards.grafana import document
from tools.boards.host import host
from tools.boards.logs import logs
from tools.boards.media import media
from tools.boards.stack import stack
from tools.boards.storage import storage
from tools.boards.units import units

if TYPE_CHECKING:
    from tools.boards.model import Board

BOARDS: Final[tuple[Board, ...]] = (fleet(), host(), units(), storage(), media(), stack(), logs())


def files() -> dict[str, str]:
    """Return the text of each board's file, by its path from the root."""
    return {f"clan_discovery/data/dashboards/{board.name}.json": pretty(document(board)) for board in BOARDS}
