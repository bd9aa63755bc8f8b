"""The board `units`: services and timers of systemd."""

from __future__ import annotations

from typing import Final

from tools.boards.model import Board, Column, Look, Panel, Query, Row, Word
from tools.boards.queries import DATASOURCE, MACHINES_CHOSEN, PAGE, TO_HOST, TO_PAGE, default_of, limit_steps, own

_HOUR_S: Final = 3600


def units() -> Board:
    """Return the board."""
    return Board(
        name="units",
        title="Units",
        about="Units of systemd, as node exporter or systemd exporter reads them.",
        variables=(DATASOURCE, MACHINES_CHOSEN, PAGE),
        links=(TO_PAGE,),
        rows=(
            Row(title="State", height=9, panels=(_failed(), _declared())),
            Row(title="Restarts and timers", height=9, panels=(_restarts(), _timers())),
        ),
    )


def _either(name: str, *matchers: str) -> str:
    """Select a metric of both exporters; where both run, the greater value."""
    where = ",".join(('machine=~"$machine"', *matchers))
    return f"max by (machine, name) (node_systemd_{name}{{{where}}} or systemd_{name}{{{where}}})"


def _failed() -> Panel:
    failed = _either("unit_state", 'state="failed"')
    return Panel(
        title="Failed units",
        about="Look at: systemctl status and journalctl -u, on the machine. The board Logs has their log.",
        kind="table",
        width=10,
        queries=(Query(f"{failed} == 1"),),
        columns=(
            Column(field="machine", title="Machine", links=TO_HOST),
            Column(field="name", title="Unit"),
        ),
        empty="no unit has failed",
    )


def _declared() -> Panel:
    declared = f'max by (machine, name) (label_replace({own("clan_discovery_unit")}, "name", "$1", "unit", "(.+)") * 0)'
    active = _either("unit_state", 'state="active"')
    return Panel(
        title="Units that must be active",
        about="Those of the inventory: settings `units`, and health checks of services.",
        kind="table",
        width=14,
        queries=(Query(f"({active} and on (machine, name) {declared}) or {declared}"),),
        columns=(
            Column(field="machine", title="Machine", links=TO_HOST),
            Column(field="name", title="Unit"),
            Column(
                field=0, title="Active", look=Look(words=(Word(0, "not active", "red"), Word(1, "active", "green")))
            ),
        ),
        empty="the inventory names no unit",
    )


def _restarts() -> Panel:
    parts = " or ".join(
        f'increase({kind}_service_restart_total{{machine=~"$machine"}}[1h])' for kind in ("node_systemd", "systemd")
    )
    return Panel(
        title="Restarts within an hour",
        about="Red: UnitFlapping fires. The ten with the most.",
        kind="timeseries",
        queries=(
            Query(f"topk(10, max by (machine, name) ({parts}))", "{{machine}} {{name}}"),
            Query(f"vector({default_of('unit_restarts'):g})", "limit", is_limit=True),
        ),
        look=Look(lowest=0),
        empty="the exporters do not count restarts",
    )


def _timers() -> Panel:
    late = limit_steps("timer_late_hours", factor=_HOUR_S)
    return Panel(
        title="Timers",
        about="Time since each ran its unit. Red: TimerLate fires.",
        kind="table",
        queries=(Query(f"time() - ({_either('timer_last_trigger_seconds')} > 0)"),),
        columns=(
            Column(field="machine", title="Machine", links=TO_HOST),
            Column(field="name", title="Timer"),
            Column(field=0, title="Last run", look=Look(unit="s", steps=late, decimals=0)),
        ),
        empty="no timer has run",
    )
