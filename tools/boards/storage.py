"""The board `storage`: ZFS, RAID, disks and what SMART says of them."""

from __future__ import annotations

from typing import Final

from tools.boards.model import Board, Column, Look, Panel, Query, Row, Step, Word
from tools.boards.queries import (
    DATASOURCE,
    MACHINES_CHOSEN,
    PAGE,
    TO_HOST,
    TO_PAGE,
    default_of,
    limit_steps,
    share_used,
)

_WHERE: Final = 'machine=~"$machine"'
_BAD: Final = Look(steps=(Step(1, "red"),))


def storage() -> Board:
    """Return the board."""
    return Board(
        name="storage",
        title="Storage",
        about="Pools, arrays, disks and file systems.",
        variables=(DATASOURCE, MACHINES_CHOSEN, PAGE),
        links=(TO_PAGE,),
        rows=(
            Row(title="Pools and arrays", height=7, panels=(_pools(), _arrays(), _arc())),
            Row(title="SMART", height=8, panels=(_smart(), _temperature())),
            Row(title="Use", height=8, panels=(_used(), _busy(), _wear())),
        ),
    )


def _pools() -> Panel:
    health = f'label_replace(zfs_pool_health{{{_WHERE}}}, "zpool", "$1", "pool", "(.+)") > bool 0'
    used = f"100 * zfs_pool_allocated_bytes{{{_WHERE}}} / zfs_pool_size_bytes{{{_WHERE}}}"
    online = Look(words=(Word(0, "online", "green"), Word(1, "not online", "red")))
    return Panel(
        title="ZFS pools",
        about="Look at: zpool status. The space in use is that of zfs exporter.",
        kind="table",
        width=10,
        queries=(
            Query(
                "max by (machine, zpool) "
                f'(sum without (state) (node_zfs_zpool_state{{{_WHERE},state!="online"}}) or {health})'
            ),
            Query(f'max by (machine, zpool) (label_replace({used}, "zpool", "$1", "pool", "(.+)"))'),
        ),
        columns=(
            Column(field="machine", title="Machine", links=TO_HOST),
            Column(field="zpool", title="Pool"),
            Column(field=0, title="State", look=online),
            Column(field=1, title="Used", look=Look(unit="percent", steps=limit_steps("disk_percent"), decimals=0)),
        ),
        empty="no pool",
    )


def _arrays() -> Panel:
    return Panel(
        title="RAID arrays",
        about="Disks of an array that failed or are missing. Look at: cat /proc/mdstat.",
        kind="table",
        width=6,
        queries=(
            Query(
                f"max by (machine, device) (node_md_disks_required{{{_WHERE}}} - on (machine, instance, job, device) "
                f'node_md_disks{{{_WHERE},state="active"}})'
            ),
        ),
        columns=(
            Column(field="machine", title="Machine", links=TO_HOST),
            Column(field="device", title="Array"),
            Column(field=0, title="Missing disks", look=_BAD),
        ),
        empty="no array",
    )


def _arc() -> Panel:
    return Panel(
        title="ARC of ZFS",
        about="Memory that it uses and gives back when others need it.",
        kind="timeseries",
        width=8,
        queries=(Query(f"max by (machine) (node_zfs_arc_size{{{_WHERE}}})", "{{machine}}"),),
        look=Look(unit="bytes", lowest=0),
        empty="no ZFS",
    )


def _smart() -> Panel:
    names = f"max by (machine, device, model_name, serial_number) (smartctl_device{{{_WHERE}}})"
    attribute = f'smartctl_device_attribute{{{_WHERE},attribute_value_type="raw"'
    return Panel(
        title="Disks",
        about="Failed: replace the disk. Bad sectors: reallocated, pending or uncorrectable ones, or media errors.",
        kind="table",
        width=16,
        queries=(
            Query(f"max by (machine, device) (smartctl_device_smart_status{{{_WHERE}}})"),
            Query(
                "sum by (machine, device) ("
                f'{attribute},attribute_name=~"Reallocated_Sector_Ct|Current_Pending_Sector|Offline_Uncorrectable"}} '
                f"or smartctl_device_media_errors{{{_WHERE}}})"
            ),
            Query(f"max by (machine, device) (smartctl_device_power_on_seconds{{{_WHERE}}})"),
            Query(names),
        ),
        columns=(
            Column(field="machine", title="Machine", links=TO_HOST),
            Column(field="device", title="Disk"),
            Column(field="model_name", title="Model"),
            Column(field="serial_number", title="Serial number"),
            Column(field=0, title="SMART", look=Look(words=(Word(0, "failed", "red"), Word(1, "passed", "green")))),
            Column(field=1, title="Bad sectors", look=Look(steps=(Step(1, "orange"),))),
            Column(field=2, title="Powered on", look=Look(unit="s", base="text", decimals=0)),
        ),
        empty="no disk is read by smartctl exporter",
    )


def _temperature() -> Panel:
    return Panel(
        title="Temperature of disks",
        about="As SMART says.",
        kind="timeseries",
        width=8,
        queries=(
            Query(
                f'max by (machine, device) (smartctl_device_temperature{{{_WHERE},temperature_type="current"}})',
                "{{machine}} {{device}}",
            ),
        ),
        look=Look(unit="celsius"),
    )


def _used() -> Panel:
    space, inodes = (
        f"topk(10, {share_used(free, total, _WHERE, 'machine, mountpoint')})"
        for free, total in (("avail_bytes", "size_bytes"), ("files_free", "files"))
    )
    return Panel(
        title="Fullest file systems",
        about="The ten with the least space or inodes. The dashed line is the default limit of Disk.",
        kind="timeseries",
        queries=(
            Query(space, "{{machine}} {{mountpoint}}"),
            Query(inodes, "{{machine}} {{mountpoint}} inodes"),
            Query(f"vector({default_of('disk_percent'):g})", "limit", is_limit=True),
        ),
        look=Look(unit="percent", lowest=0, highest=100),
    )


def _busy() -> Panel:
    return Panel(
        title="Busiest disks",
        about="Share of time in which a disk has work: the ten with the most.",
        kind="timeseries",
        queries=(
            Query(
                "topk(10, max by (machine, device) "
                f"(rate(node_disk_io_time_seconds_total{{{_WHERE}}}[$__rate_interval])))",
                "{{machine}} {{device}}",
            ),
        ),
        look=Look(unit="percentunit", lowest=0),
    )


def _wear() -> Panel:
    return Panel(
        title="Wear of NVMe disks",
        about="Share of its life that a disk has used, as its maker counts.",
        kind="timeseries",
        queries=(
            Query(f"max by (machine, device) (smartctl_device_percentage_used{{{_WHERE}}})", "{{machine}} {{device}}"),
        ),
        look=Look(unit="percent", lowest=0),
        empty="no NVMe disk",
    )
