"""Run a Prometheus whose dns_sd asks a knot, then give it target files; in namespaces.

Prometheus asks only the servers of /etc/resolv.conf at port 53, so the namespaces have their own file.

    python -m tests.support.resolving PLACE PROMETHEUS BEFORE AFTER    inside: what `tried` has prepared
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from tests.support.dns import write_zone
from tests.support.programs import absent, program, running
from tests.support.scraper import Target, prometheus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clan_discovery.model import Json

    Jobs = Sequence[Mapping[str, Json]]

_ROOT: Final = Path(__file__).resolve().parent.parent.parent
_SETUP: Final = """
set -eu
ip link set lo up
printf 'nameserver 127.0.0.53\\nsearch lan.example\\n' > resolv.conf
mount --bind resolv.conf /etc/resolv.conf
cd {root}
exec {python} -m tests.support.resolving {place} {prometheus} {first} {second}
"""


class Seen(msgspec.Struct, frozen=True):
    """The targets before and after, the fewest in between, and the output of `refresh`."""

    before: list[Target]
    after: list[Target]
    fewest: int
    said: str


def tried(place: Path, path: str, records: str, before: Jobs, after: Jobs, *, counts: tuple[int, int]) -> Seen:
    """Serve the zone lan.example, run the Prometheus at PATH with the jobs before, then after.

    PLACE has the config.yaml from which target files are published in between. `counts`: the expected numbers of
    targets before and after.
    """
    for tool in ("unshare", "ip", "mount"):
        if shutil.which(tool) is None:
            absent(tool, "not on PATH (Debian: util-linux, iproute2, mount)")
    program("knotd")
    write_zone(place, "lan.example", records)
    (place / "db").mkdir()
    (place / "knot.conf").write_text(
        f"server:\n  listen: 127.0.0.53@53\n  rundir: {place}\ndatabase:\n  storage: {place}/db\n"
        f"zone:\n- domain: lan.example\n  file: {place}/lan.example.zone\n"
    )
    for name, jobs in (("before", before), ("after", after)):
        (place / f"{name}.json").write_text(json.dumps(list(jobs)))
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    first, second = counts
    script = _SETUP.format(root=_ROOT, python=sys.executable, place=place, prometheus=path, first=first, second=second)
    command = ["unshare", *user, "--net", "--mount", "sh", "-c", script]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=180, check=False)
    if "Operation not permitted" in done.stderr and user:
        absent("unshare", "this user may make no namespaces", required=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return msgspec.json.decode(done.stdout, type=Seen)


def _inside(place: Path, path: str, first: int, second: int) -> Seen:
    with (
        running([program("knotd"), "-c", str(place / "knot.conf")], place / "knot.log"),
        prometheus(place, json.loads((place / "before.json").read_text()), path) as scraper,
    ):
        before = scraper.until("dns_sd found them", lambda found: len(found) == first)[-1]
        command = [sys.executable, "-m", "clan_discovery", "refresh", "-c", str(place / "config.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        scraper.change(json.loads((place / "after.json").read_text()))
        after = scraper.until("the files took over", lambda found: len(found) == second and all(map(_of_a_file, found)))
        return Seen(before, after[-1], min(len(found) for found in after), done.stdout + done.stderr)


def _of_a_file(target: Target) -> bool:
    return "__meta_filepath" in target.discovered_labels


if __name__ == "__main__":
    sys.stdout.buffer.write(
        msgspec.json.encode(_inside(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    )
