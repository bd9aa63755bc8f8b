"""The board `fleet`: what is declared, what the network shows, and what is scraped."""

from __future__ import annotations

from typing import Final

from tools.boards.model import Board, Column, Look, Panel, Query, Row, Step, Word
from tools.boards.probes import probes
from tools.boards.queries import DATASOURCE, EXPECTED, MACHINES, PAGE, TO_HOST, TO_PAGE, own

_UP: Final = f"({EXPECTED}) and on (job, instance) (up == 1)"
_NOT_UP: Final = f"({EXPECTED}) unless on (job, instance) (up == 1)"
_MISSING: Final = own("clan_discovery_machine_missing")
_COMES_AND_GOES: Final = own("clan_discovery_expected", 'patience="roaming"')
_ROAMING: Final = f"max by (machine) ({_COMES_AND_GOES})"
_BAD: Final = Look(steps=(Step(1, "red"),))
_NOTICE: Final = Look(steps=(Step(1, "orange"),))


def fleet() -> Board:
    """Return the board."""
    return Board(
        name="fleet",
        title="Fleet",
        about="Machines of the inventory: declared, observed by a backend, and scraped.",
        variables=(DATASOURCE, PAGE),
        links=(TO_PAGE,),
        rows=(
            Row(title="Now", height=4, panels=_counts()),
            Row(title="Machines", height=12, panels=(_machines(),)),
            Row(title="Alerts", height=8, panels=(_alerts(), _over_time())),
            Row(title="Probes", height=8, panels=(probes(),)),
        ),
    )


def _counts() -> tuple[Panel, ...]:
    roaming = f"unless on (machine) {_ROAMING}"
    firing = 'ALERTS{alertstate="firing",severity!="none"}'
    given = (
        ("Machines", "Machines with an expected target.", f"count({MACHINES}) or vector(0)", Look(base="blue")),
        (
            "Not all targets up",
            "Machines with an expected target that is not up. Machines that come and go are not counted.",
            f"count(max by (machine) ({_NOT_UP}) {roaming}) or vector(0)",
            _BAD,
        ),
        (
            "Away",
            "Machines that come and go (policy.roaming_tags) and have a target that is not up.",
            f"count(max by (machine) ({_NOT_UP}) and on (machine) {_ROAMING}) or vector(0)",
            Look(base="blue"),
        ),
        (
            "Not observed",
            "Declared machines that no backend sees.",
            'max(clan_discovery_machines_missing{clan_pushed=""})',
            _NOTICE,
        ),
        (
            "Strays",
            "Machines that a backend sees and that are declared nowhere.",
            'max(clan_discovery_machines_stray{clan_pushed=""})',
            _NOTICE,
        ),
        ("Alerts", "Firing alerts, without those that only inhibit others.", f"count({firing}) or vector(0)", _BAD),
    )
    return tuple(
        Panel(title=title, about=about, kind="stat", queries=(Query(text),), look=look)
        for title, about, text, look in given
    )


def _machines() -> Panel:
    none = f"0 * {MACHINES}"
    yes = Look(words=(Word(0, "no", "orange"), Word(1, "yes", "green")))
    return Panel(
        title="Declared, observed, scraped",
        about="Each machine of the inventory. Not up: expected targets without a successful scrape.",
        kind="table",
        queries=(
            Query(f"count by (machine) ({EXPECTED})"),
            Query(f"({MACHINES} unless on (machine) {_MISSING}) or {none}"),
            Query(f"count by (machine) ({_UP}) or {none}"),
            Query(f"count by (machine) ({_NOT_UP}) or {none}"),
            Query(f"max by (machine, tags, description) ({own('clan_discovery_machine_info')})"),
        ),
        columns=(
            Column(field="machine", title="Machine", links=TO_HOST),
            Column(field="tags", title="Tags"),
            Column(field="description", title="Description"),
            Column(field=0, title="Declared targets"),
            Column(field=1, title="Observed", look=yes),
            Column(field=2, title="Up"),
            Column(field=3, title="Not up", look=_BAD),
        ),
    )


def _alerts() -> Panel:
    return Panel(
        title="Firing alerts",
        about="As the server evaluates them: Alertmanager may silence or inhibit some.",
        kind="table",
        width=16,
        queries=(
            Query('sum by (alertname, severity, machine, instance) (ALERTS{alertstate="firing",severity!="none"})'),
        ),
        columns=(
            Column(field="severity", title="Severity"),
            Column(field="alertname", title="Alert"),
            Column(field="machine", title="Machine", links=TO_HOST),
            Column(field="instance", title="Instance"),
        ),
        empty="no alert fires",
    )


def _over_time() -> Panel:
    return Panel(
        title="Targets not up",
        about="Expected targets without a successful scrape, by job.",
        kind="timeseries",
        width=8,
        queries=(Query(f"count by (job) ({_NOT_UP}) or 0 * count by (job) ({EXPECTED})", "{{job}}"),),
        look=Look(lowest=0, decimals=0),
    )
