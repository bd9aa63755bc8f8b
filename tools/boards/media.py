"""The board `media`: Jellyfin, and the programs that exportarr reads."""

from __future__ import annotations

from typing import Final

from tools.boards.model import Board, Column, Look, Panel, Query, Row, Step, Word
from tools.boards.queries import DATASOURCE, MACHINES_CHOSEN, PAGE, TO_HOST, TO_PAGE

_JELLYFIN: Final = 'machine=~"$machine",job=~"jellyfin.*"'
_ARR: Final = "bazarr|lidarr|prowlarr|radarr|readarr|sonarr"


def media() -> Board:
    """Return the board."""
    return Board(
        name="media",
        title="Media",
        about="Jellyfin (a job whose name begins with jellyfin; set EnableMetrics in its system.xml) and exportarr.",
        variables=(DATASOURCE, MACHINES_CHOSEN, PAGE),
        links=(TO_PAGE,),
        rows=(
            Row(title="Jellyfin", height=7, panels=(_requests(), _slowest(), _memory())),
            Row(title="Downloads", height=8, panels=(_programs(), _queues(), _space())),
            Row(title="Health", height=7, panels=(_issues(),)),
        ),
    )


def _arr(metric: str) -> str:
    """Select a metric of each program that exportarr reads."""
    return f'{{__name__=~"({_ARR})_{metric}",machine=~"$machine"}}'


def _requests() -> Panel:
    rate = f"rate(http_requests_received_total{{{_JELLYFIN}}}[$__rate_interval])"
    return Panel(
        title="Requests",
        about="By status: 5xx are failures of Jellyfin.",
        kind="timeseries",
        queries=(Query(f"sum by (machine, code) ({rate})", "{{machine}} {{code}}"),),
        look=Look(unit="reqps", lowest=0),
        empty="Jellyfin is not scraped",
    )


def _slowest() -> Panel:
    rate = f"rate(http_request_duration_seconds_bucket{{{_JELLYFIN}}}[$__rate_interval])"
    return Panel(
        title="Slow requests",
        about="95 of 100 requests are faster. A stream counts as long as it plays.",
        kind="timeseries",
        queries=(Query(f"histogram_quantile(0.95, sum by (machine, le) ({rate}))", "{{machine}}"),),
        look=Look(unit="s", lowest=0),
        empty="Jellyfin is not scraped",
    )


def _memory() -> Panel:
    return Panel(
        title="Memory",
        about="Of Jellyfin itself, without ffmpeg.",
        kind="timeseries",
        queries=(Query(f"max by (machine) (process_working_set_bytes{{{_JELLYFIN}}})", "{{machine}}"),),
        look=Look(unit="bytes", lowest=0),
        empty="Jellyfin is not scraped",
    )


def _programs() -> Panel:
    return Panel(
        title="Programs",
        about="Whether exportarr reaches each program.",
        kind="table",
        queries=(Query(f"max by (machine, job) ({_arr('system_status')})"),),
        columns=(
            Column(field="machine", title="Machine", links=TO_HOST),
            Column(field="job", title="Job"),
            Column(field=0, title="Answers", look=Look(words=(Word(0, "no", "red"), Word(1, "yes", "green")))),
        ),
        empty="exportarr is not scraped",
    )


def _queues() -> Panel:
    return Panel(
        title="Queues",
        about="Downloads that wait or run. A queue that only grows is stuck.",
        kind="timeseries",
        queries=(Query(f"sum by (machine, job) ({_arr('queue_total')})", "{{machine}} {{job}}"),),
        look=Look(lowest=0, decimals=0),
        empty="the queues are empty",
    )


def _space() -> Panel:
    return Panel(
        title="Space for media",
        about="Free space of the folders that the programs write to.",
        kind="timeseries",
        queries=(Query(f"min by (machine, path) ({_arr('rootfolder_freespace_bytes')})", "{{machine}} {{path}}"),),
        look=Look(unit="bytes", lowest=0),
        empty="exportarr is not scraped",
    )


def _issues() -> Panel:
    return Panel(
        title="Health issues",
        about="What the programs say themselves.",
        kind="table",
        queries=(Query(f"sum by (machine, job, type, message) ({_arr('system_health_issues')})"),),
        columns=(
            Column(field="machine", title="Machine", links=TO_HOST),
            Column(field="job", title="Job"),
            Column(field="type", title="Kind"),
            Column(field="message", title="Message"),
            Column(field=0, title="Issues", look=Look(steps=(Step(1, "orange"),))),
        ),
        empty="exportarr is not scraped",
    )
