"""A real systemd as PID 1 in namespaces, on a copy-on-write view of this machine.

It cannot change the machine: writes go to an overlay on a tmpfs, /run and /tmp are its own, and only the journal's and
the test's units exist. It ends with the block.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.programs import absent, eventually, program

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from clan_discovery.model import Json

ROOT = Path(__file__).resolve().parent.parent.parent
SYSTEMD = Path("/lib/systemd/systemd")

# The interpreter, the libraries and the project are below /opt, because units cannot see home directories.
_LAUNCHER = """#!/bin/sh
export LD_LIBRARY_PATH=/opt/python/lib
exec /opt/python/bin/{python} -I -c '
import sys
sys.path[:0] = ["/opt/project", "/opt/site"]
from clan_discovery.__main__ import main
sys.exit(main())' "$@"
"""

# A unit with `IPAddressDeny` leaves its filter on its control group, which outlives the bed: the next bed gets its own.
_CGROUPS: Final = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified"))
_ENTER = r"""
for group in $CGROUPS; do
  echo $$ > "$group/cgroup.procs"
done
exec "$@"
"""

_BOOT = r"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$BED/scratch"
mkdir "$BED/scratch/up" "$BED/scratch/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$BED/scratch/up,workdir=$BED/scratch/work" "$BED/root"
cd "$BED/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
mkdir sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
mkdir -p opt/python opt/site opt/project opt/share
mount --bind "$PREFIX" opt/python
mount --bind "$SITE" opt/site
mount --bind "$PROJECT" opt/project
mount --bind "$BED/share" opt/share
rm -rf etc/systemd/system etc/systemd/system.conf.d lib/systemd/system/*.wants var/lib/clan-discovery var/lib/private
mkdir etc/systemd/system
cp "$BED"/units/* etc/systemd/system/
for name in sysinit basic multi-user timers; do
  printf '[Unit]\nDefaultDependencies=no\n' > "etc/systemd/system/$name.target"
done
printf '[Unit]\nRequires=systemd-journald.service\nAfter=systemd-journald.service\n' > etc/systemd/system/bed.target
echo 'clan-discovery:x:4711:4711::/nonexistent:/usr/sbin/nologin' >> etc/passwd
echo 'clan-discovery:x:4711:' >> etc/group
echo 'scraper:x:4712:4712::/nonexistent:/usr/sbin/nologin' >> etc/passwd
echo 'scraper:x:4712:' >> etc/group
ip link set lo up
# Not chroot: the kernel refuses user namespaces in it, and units with PrivateUsers fail.
mkdir -p old
pivot_root . old
umount -l /old
# As in a container: systemd mounts a unit's credentials in another namespace.
mount --make-rshared /
exec "$SYSTEMD" --system --unit=bed.target --show-status=no
"""


@dataclass(frozen=True)
class Machine:
    """A booted systemd; commands run in its namespaces."""

    pid: int
    share: Path

    def command(self, *words: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as root."""
        enter = [program("nsenter"), "-t", str(self.pid), "-a", "-r", "-w"]
        return subprocess.run(
            [*enter, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            env={"PATH": "/usr/bin:/bin"},
        )

    def ctl(self, *words: str) -> str:
        """Run systemctl, which must succeed; return its output."""
        done = self.command("systemctl", "--no-pager", *words)
        assert done.returncode == 0, f"systemctl {words}: {done.stdout}{done.stderr}{self.journal()}"
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """Return one property of a unit."""
        return self.ctl("show", "-P", name, unit).strip()

    def journal(self, unit: str = "clan-discovery.service") -> str:
        """Return the log of a unit."""
        done = self.command("journalctl", "--no-pager", "-o", "cat", "-u", unit)
        return done.stdout + done.stderr


@contextlib.contextmanager
def booted(units: Mapping[str, str]) -> Generator[Machine]:
    """Boot a systemd with these unit files (name: text); skip without systemd or root."""
    if not SYSTEMD.exists():
        absent("systemd", "not installed (Debian: systemd)")
    if os.geteuid() != 0:
        absent("systemd as PID 1", "only root may give it namespaces of its own", required=False)
    bed = Path(tempfile.mkdtemp(prefix="cd-"))
    for name in ("scratch", "root", "share", "units"):
        (bed / name).mkdir()
    bed.chmod(0o755)
    (bed / "share").chmod(0o777)  # so that only the sandbox can refuse a unit, not file permissions
    for name, text in units.items():
        (bed / "units" / name).write_text(text)
    launcher = bed / "share" / "clan-discovery"
    launcher.write_text(_LAUNCHER.format(python=f"python{sys.version_info.major}.{sys.version_info.minor}"))
    launcher.chmod(0o755)
    process = _start(bed)
    try:
        pid = _settled(process, bed)
        if pid is None:
            said = (bed / "log").read_text(errors="replace")[-2000:]
            absent("systemd as PID 1", f"does not boot in namespaces here: {said}", required=False)
        yield Machine(pid, bed / "share")
    finally:
        process.kill()
        process.wait(120)
        # Namespaces end with their processes, and mounts with their namespaces.
        eventually("the namespaces are gone", lambda: not (bed / "scratch" / "up").exists())
        eventually("its control groups are gone", lambda: not _lasting(bed.name))
        shutil.rmtree(bed, ignore_errors=True)


def _lasting(name: str) -> list[Path]:
    """Remove the control groups of a bed; return those that are still there, because a process is ending."""
    groups = [tree / name for tree in _CGROUPS]
    for group in groups:
        for directory, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()
    return [group for group in groups if group.exists()]


def _start(bed: Path) -> subprocess.Popen[bytes]:
    words = [program("unshare"), "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--net", "--cgroup"]
    groups = [tree / bed.name for tree in _CGROUPS if os.access(tree / "cgroup.procs", os.W_OK)]
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "BED": str(bed),
        "CGROUPS": " ".join(str(group) for group in groups),
        "PREFIX": sys.base_prefix,
        "SITE": sysconfig.get_path("purelib"),
        "PROJECT": str(ROOT),
        "SYSTEMD": str(SYSTEMD),
        "container": "lxc",  # any container type that systemd knows
    }
    for group in groups:
        group.mkdir()
    log = (bed / "log").open("wb")
    with log:
        return subprocess.Popen(
            ["sh", "-c", _ENTER, "sh", *words, "sh", "-c", _BOOT],
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )


def _settled(process: subprocess.Popen[bytes], bed: Path) -> int | None:
    """Wait until systemd is PID 1 of its namespace and its target is reached; return its PID outside."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children and Path(f"/proc/{children[0]}/exe").resolve().name == "systemd":
            pid = int(children[0])
            if Machine(pid, bed).command("systemctl", "is-active", "bed.target").stdout.strip() == "active":
                return pid
        time.sleep(0.1)
    return None


def unit_text(unit: Mapping[str, Json], kind: str) -> str:
    """Return the text of a unit of NixOS's `systemd.services`, `systemd.timers` or `systemd.paths`.

    As nixpkgs' nixos/lib/systemd-lib.nix: a list is one line for each value, a boolean is true or false.
    """
    head: dict[str, Json] = {"Description": unit.get("description", "")}
    for name, key in (("after", "After"), ("before", "Before"), ("wants", "Wants"), ("requires", "Requires")):
        match unit.get(name):
            case [*names]:
                head[key] = " ".join(map(str, names))
            case _:
                pass
    if "startLimitIntervalSec" in unit:
        head["StartLimitIntervalSec"] = unit["startLimitIntervalSec"]
    body = next((unit[f"{name}Config"] for name in ("service", "timer", "path") if f"{name}Config" in unit), None)
    assert isinstance(body, dict)
    environment = unit.get("environment") or {}
    assert isinstance(environment, dict)
    lines = [f'Environment="{name}={value}"' for name, value in environment.items()]
    wanted = unit.get("wantedBy")
    install = {"WantedBy": " ".join(map(str, wanted))} if isinstance(wanted, list) else {}
    return "\n".join([*_section("Unit", head), *_section(kind, body), *lines, "", *_section("Install", install)])


def with_program(unit: str, path: str, config: str) -> str:
    """Return the text of a unit with a program of this machine and a config outside the store."""
    unit = re.sub(r"/nix/store/\S+/bin/clan-discovery", path, unit)
    unit = re.sub(r"/nix/store/\S+/bin/kill", "/usr/bin/kill", unit)
    unit = re.sub(r"--config /nix/store/\S+", f"--config {config}", unit)
    return "\n".join(line for line in unit.splitlines() if 'Environment="PATH=' not in line)


def _section(name: str, values: Mapping[str, Json]) -> Sequence[str]:
    lines = [f"[{name}]"]
    for key, value in values.items():
        lines += [f"{key}={_value(item)}" for item in (value if isinstance(value, list) else [value])]
    return [*lines, ""]


def _value(value: Json) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
