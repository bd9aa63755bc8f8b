"""The board `host`: one machine."""

from __future__ import annotations

from typing import Final

from tools.boards.model import Board, Column, Look, Panel, Query, Row, Step, Word
from tools.boards.probes import probes
from tools.boards.queries import (
    DATASOURCE,
    EXPECTED_OF_MACHINE,
    ONE_MACHINE,
    PAGE,
    TO_MACHINE_PAGE,
    limit_line,
    limit_steps,
    share_used,
)

_PERCENT: Final = Look(unit="percent", lowest=0, highest=100)
_OF_MACHINE: Final = '{machine="$machine"}'
_AVAILABLE: Final = f"node_memory_MemAvailable_bytes{_OF_MACHINE}"


def host() -> Board:
    """Return the board."""
    return Board(
        name="host",
        title="Host",
        about="One machine: its targets, load, space and traffic. Dashed lines are the limits of its alerts.",
        variables=(DATASOURCE, ONE_MACHINE, PAGE),
        links=(TO_MACHINE_PAGE,),
        rows=(
            Row(title="Now", height=6, panels=(_targets(), *_now())),
            Row(title="Load", height=8, panels=(_cpu(), _memory(), _pressure())),
            Row(title="Space", height=8, panels=(_used(), _file_systems())),
            Row(title="Traffic", height=8, panels=(_disks(), _network())),
            Row(title="Probes", height=6, panels=(probes('machine="$machine"'),)),
        ),
    )


def _targets() -> Panel:
    state = Look(words=(Word(0, "down", "red"), Word(1, "up", "green")))
    return Panel(
        title="Targets",
        about="Expected targets that the server has never scraped count as down.",
        kind="table",
        width=8,
        queries=(
            Query(
                'max by (job, instance) (up{machine="$machine"}) '
                f"or max by (job, instance) (0 * ({EXPECTED_OF_MACHINE}))"
            ),
        ),
        columns=(
            Column(field="job", title="Job"),
            Column(field="instance", title="Instance"),
            Column(field=0, title="State", look=state),
        ),
        empty="no target is expected",
    )


def _now() -> tuple[Panel, ...]:
    failed = (
        'max by (name) (node_systemd_unit_state{machine="$machine",state="failed"} '
        'or systemd_unit_state{machine="$machine",state="failed"})'
    )
    skew = limit_steps("clock_skew_seconds")
    given = (
        (
            "Failed units",
            "Of systemd. The board Units names them.",
            f"sum({failed})",
            Look(steps=(Step(1, "red"),)),
        ),
        (
            "OOM kills, 24 h",
            "Processes that the kernel killed because memory ran out.",
            'sum(increase(node_vmstat_oom_kill{machine="$machine"}[24h]))',
            Look(steps=(Step(0.5, "red"),), decimals=0),
        ),
        (
            "Clock off by",
            "Compared with the clock of the server. Red: ClockSkew fires.",
            'max(abs(timestamp(node_time_seconds{machine="$machine"}) - node_time_seconds{machine="$machine"}))',
            Look(unit="s", steps=skew),
        ),
        (
            "Up for",
            "Time since it was booted.",
            'time() - max(node_boot_time_seconds{machine="$machine"})',
            Look(unit="s", base="blue", decimals=0),
        ),
    )
    return tuple(
        Panel(title=title, about=about, kind="stat", queries=(Query(text),), look=look)
        for title, about, text, look in given
    )


def _cpu() -> Panel:
    idle = 'rate(node_cpu_seconds_total{machine="$machine",mode="idle"}[$__rate_interval])'
    return Panel(
        title="CPU in use",
        about="Of all cores.",
        kind="timeseries",
        queries=(Query(f"100 * (1 - avg({idle}))", "in use"), limit_line("cpu_percent")),
        look=_PERCENT,
    )


def _memory() -> Panel:
    arc = f"clamp_min(node_zfs_arc_size{_OF_MACHINE} - node_zfs_arc_c_min{_OF_MACHINE}, 0)"
    free = f"(({_AVAILABLE} + {arc}) or {_AVAILABLE})"
    return Panel(
        title="Memory in use",
        about="Without caches, and without what the ARC of ZFS gives back.",
        kind="timeseries",
        queries=(
            Query(f'100 * max(1 - {free} / node_memory_MemTotal_bytes{{machine="$machine"}})', "in use"),
            limit_line("memory_percent"),
        ),
        look=_PERCENT,
    )


def _pressure() -> Panel:
    return Panel(
        title="Pressure",
        about="Share of time in which processes waited for CPU, memory or disks.",
        kind="timeseries",
        queries=tuple(
            Query(
                f'max(rate(node_pressure_{name}_waiting_seconds_total{{machine="$machine"}}[$__rate_interval]))', name
            )
            for name in ("cpu", "memory", "io")
        ),
        look=Look(unit="percentunit", lowest=0),
    )


def _share(free: str, total: str) -> str:
    return share_used(free, total, 'machine="$machine"', "mountpoint")


def _used() -> Panel:
    return Panel(
        title="File systems in use",
        about="Of the space that users have.",
        kind="timeseries",
        queries=(Query(_share("avail_bytes", "size_bytes"), "{{mountpoint}}"), limit_line("disk_percent")),
        look=_PERCENT,
    )


def _file_systems() -> Panel:
    free = 'node_filesystem_avail_bytes{machine="$machine"}'
    later = "min by (mountpoint) (predict_linear(%s[6h], 86400))"
    return Panel(
        title="File systems",
        about="In 24 h: what is left if it fills as it did for 6 h.",
        kind="table",
        queries=(
            Query(_share("avail_bytes", "size_bytes")),
            Query(_share("files_free", "files")),
            Query(f"min by (mountpoint) ({free})"),
            Query(later % free),
        ),
        columns=(
            Column(field="mountpoint", title="File system"),
            Column(field=0, title="Used", look=Look(unit="percent", steps=limit_steps("disk_percent"), decimals=0)),
            Column(field=1, title="Inodes", look=Look(unit="percent", steps=limit_steps("inodes_percent"), decimals=0)),
            Column(field=2, title="Free", look=Look(unit="bytes", base="text")),
            Column(field=3, title="In 24 h", look=Look(unit="bytes", base="red", steps=(Step(0, "green"),))),
        ),
    )


def _disks() -> Panel:
    return Panel(
        title="Disks busy",
        about="Share of time in which a disk has work.",
        kind="timeseries",
        queries=(Query('rate(node_disk_io_time_seconds_total{machine="$machine"}[$__rate_interval])', "{{device}}"),),
        look=Look(unit="percentunit", lowest=0),
    )


def _network() -> Panel:
    where = '{machine="$machine",device!="lo"}[$__rate_interval]'
    return Panel(
        title="Network",
        about="Sent is below zero.",
        kind="timeseries",
        queries=(
            Query(f"rate(node_network_receive_bytes_total{where})", "{{device}} received"),
            Query(f"-rate(node_network_transmit_bytes_total{where})", "{{device}} sent"),
        ),
        look=Look(unit="Bps"),
    )
