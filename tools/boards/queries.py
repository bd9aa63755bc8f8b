"""Parts of the boards' queries: the series of clan-discovery, limits, variables. Pure.

A scraper sets `job` and `instance` of what it reads, and renames our `machine` to `exported_machine` where the target
has a machine itself. An agent could push series of our names; the receiver marks them (`clan_pushed`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from tools.boards.model import Link, Query, Step, Variable

LIMITS: Final = Path(__file__).resolve().parents[2] / "clan_discovery/data/limits.json"


class Limit(msgspec.Struct, frozen=True):
    """What limits.json says of a limit."""

    default: float


def default_of(name: str) -> float:
    """Return the default of a limit, which is also that of its alert."""
    return msgspec.json.decode(LIMITS.read_bytes(), type=dict[str, Limit])[name].default


def own(name: str, *matchers: str) -> str:
    """Select a series of clan-discovery, with the machine that it is about in `machine`."""
    given = ",".join(('clan_pushed=""', *matchers))
    return f'label_replace({name}{{{given}}}, "machine", "$1", "exported_machine", "(.+)")'


def own_of_machine(name: str, *matchers: str) -> str:
    """Select a series of clan-discovery about `$machine`."""
    given = ",".join(('clan_pushed=""', *matchers))
    return (
        f'({name}{{{given},exported_machine="$machine"}} '
        f'or {name}{{{given},machine="$machine",exported_machine=""}})'
    )  # fmt: skip


def _as_series(vector: str, labels: str) -> str:
    """Turn target_job and target_instance into job and instance, so that `up` can be joined."""
    return (
        f"label_replace(label_replace(max by (target_job, target_instance{labels}) ({vector}), "
        '"job", "$1", "target_job", "(.*)"), "instance", "$1", "target_instance", "(.*)")'
    )


EXPECTED: Final = _as_series(own("clan_discovery_expected"), ", machine")
"""1 for each target that the inventory expects: job, instance, machine."""
EXPECTED_OF_MACHINE: Final = _as_series(own_of_machine("clan_discovery_expected"), "")
"""The same for `$machine`, without that label."""
MACHINES: Final = f"max by (machine) ({own('clan_discovery_expected')})"
"""1 for each machine with an expected target."""


def share_used(free: str, total: str, where: str, labels: str) -> str:
    """Return the percentage in use of the file systems that Disk and Inodes look at."""
    local = f'{where},fstype!~"nfs4?|cifs|fuse[.].+"'
    used = f"1 - node_filesystem_{free}{{{local}}} / node_filesystem_{total}{{{local}}}"
    return f"100 * max by ({labels}) ({used} unless node_filesystem_readonly{{{local}}} == 1)"


def limit_line(name: str) -> Query:
    """Return the limit of `$machine`, or the default of the alert."""
    series = own_of_machine("clan_discovery_limit", f'name="{name}"')
    return Query(f"max({series}) or vector({default_of(name):g})", "limit", is_limit=True)


def limit_steps(name: str, *, factor: float = 1) -> tuple[Step, ...]:
    """Return red from the limit on, in another unit by a factor."""
    return (Step(default_of(name) * factor, "red"),)


DATASOURCE: Final = Variable(name="datasource", title="Data source", kind="datasource", text="prometheus")
PAGE: Final = Variable(name="page", title="Status page", kind="constant", text="")
ONE_MACHINE: Final = Variable(name="machine", title="Machine", kind="query", text=f"query_result({MACHINES})")
MACHINES_CHOSEN: Final = Variable(
    name="machine", title="Machine", kind="query", text=f"query_result({MACHINES})", several=True
)

TO_PAGE: Final = Link("Status page", "${page}/")
TO_MACHINE_PAGE: Final = Link("Page of this machine", "${page}/machines/${machine}")
TO_HOST: Final = (
    Link("Board of this machine", "/d/clan-host?var-datasource=${datasource}&var-machine=${__data.fields.Machine}"),
    Link("Page of this machine", "${page}/machines/${__data.fields.Machine}"),
)
"""Links of a cell in a column that is called Machine."""
