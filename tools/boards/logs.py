"""The board `logs`: the log of a machine, in VictoriaLogs or in Loki.

Loki has a tenant for each machine. Its label `__tenant_id__` exists where a query asks several tenants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tools.boards.grafana import PLUGINS, VARIABLES
from tools.boards.model import Board, Look, Panel, Query, Row, Variable
from tools.boards.queries import DATASOURCE, ONE_MACHINE, PAGE, TO_MACHINE_PAGE

if TYPE_CHECKING:
    from tools.boards.model import Store

_VICTORIA: Final = '{machine="$machine"} ~"(?i)$search"'
_LOKI: Final = '{__tenant_id__="$machine",unit=~".+"} |~ "(?i)$search"'
_COUNT: Final = Look(lowest=0, decimals=0)


def logs() -> Board:
    """Return the board."""
    return Board(
        name="logs",
        title="Logs",
        about="The log of a machine. Search is a regular expression (RE2), of any case. Open the row of your store.",
        variables=(
            DATASOURCE,
            ONE_MACHINE,
            Variable(name="search", title="Search", kind="textbox", text=""),
            _store("victorialogs", "VictoriaLogs"),
            _store("loki", "Loki"),
            PAGE,
        ),
        links=(TO_MACHINE_PAGE,),
        rows=(
            Row(title="VictoriaLogs", height=8, panels=(_by_unit(), _lines("victorialogs", _VICTORIA))),
            Row(title="Loki", height=8, panels=(_lines("loki", _LOKI),), is_open=False),
        ),
    )


def _store(store: Store, title: str) -> Variable:
    return Variable(name=VARIABLES[store], title=title, kind="datasource", text=PLUGINS[store])


def _by_unit() -> Panel:
    """Return the chart of VictoriaLogs. Loki finds no lines where a metric query selects a tenant of several."""
    return Panel(
        title="Lines by unit",
        about="Those that match the search.",
        kind="timeseries",
        width=8,
        store="victorialogs",
        queries=(Query(f"{_VICTORIA} | stats by (_SYSTEMD_UNIT) count() lines", "{{_SYSTEMD_UNIT}}"),),
        look=_COUNT,
        empty="no line matches",
    )


def _lines(store: Store, query: str) -> Panel:
    return Panel(
        title="Log",
        about="The newest lines that match the search.",
        kind="logs",
        store=store,
        queries=(Query(query),),
        empty="no line matches",
    )
