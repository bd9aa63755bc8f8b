"""Print the layout of each board: python -m tools.boards."""

from __future__ import annotations

from tools.boards import BOARDS
from tools.boards.grafana import lines

for board in BOARDS:
    print("\n".join(lines(board)))  # noqa: T201 - the output
