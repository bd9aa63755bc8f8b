"""The live checks: what keeps targets from being right, each with its mend. Looks, and changes nothing."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from clan_discovery.backends.base import Examinable
from clan_discovery.errors import BackendError
from clan_discovery.localapi.client import LocalAPI
from clan_discovery.memory import Memories
from clan_discovery.publish.files import runtime_directory_warning
from clan_discovery.publish.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from clan_discovery.localapi.types import Status
    from clan_discovery.model import Resolution
    from clan_discovery.round import Plan

Level: TypeAlias = Literal["ok", "warning", "error"]
_EXPIRES_SOON: Final = timedelta(days=14)
_OLDEST_YEAR: Final = 2025
"""The clock of a machine that lost its battery says 1970, or the year its image was built."""
_FIRST: Final = "the first refresh makes it; before that, Prometheus looks for it every 5 minutes only: start it later"
_RENEW: Final = "renew it there with `tailscale up --force-reauth`, or turn key expiry off for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at: how it is, and how it is mended. `code` is the exit code that it is worth."""

    level: Level
    about: str
    what: str
    mend: str = ""
    code: int = 0


@dataclass(slots=True)
class Examination:
    """Gathers findings; `expired` are the machines of whose expired keys it was told already, case-folded."""

    now: datetime
    findings: list[Finding] = field(default_factory=list[Finding])
    expired: set[str] = field(default_factory=set[str])

    def note(self, level: Level, about: str, what: str, mend: str = "", code: int = 0) -> None:
        """Keep one finding."""
        self.findings.append(Finding(level=level, about=about, what=what, mend=mend, code=code))


def examine(
    plan: Plan, resolution: Resolution, sockets: Sequence[Path], now: datetime, runtime_directories: str
) -> list[Finding]:
    """Look at everything that a round stands on, after one was done. Writes nothing."""
    work = Examination(now)
    _clock(work)
    for socket in sockets:
        _socket(work, socket, {machine.name.casefold() for machine in plan.declared.machines})
    for backend in plan.backends:
        if isinstance(backend, Examinable):
            for health in backend.examine():
                work.note(
                    "ok" if health.well else "error", health.about, health.what, health.mend, 3 * (not health.well)
                )
    _beliefs(work, resolution)
    _names(work, resolution)
    try:
        _directory(work, plan.directory, runtime_directories)
    except OSError as error:
        what = f"it cannot be looked at: {error.strerror}"
        work.note("error", f"output {plan.directory}", what, "run as the unit's user, or mend the owner", 5)
    _state(work, plan)
    return work.findings


def _clock(work: Examination) -> None:
    if work.now.year < _OLDEST_YEAR:
        mend = "set the clock: ages, expiry and certificates are judged by it"
        work.note("error", "clock", f"it says {work.now:%Y-%m-%d}", mend, 3)
    else:
        work.note("ok", "clock", f"{work.now:%Y-%m-%d %H:%M} UTC")


def _socket(work: Examination, path: Path, machines: AbstractSet[str]) -> None:
    about = f"socket {path}"
    try:
        mode = path.stat().st_mode
    except OSError as error:
        work.note("error", about, error.strerror or str(error), "start tailscaled; its unit removes the socket", 3)
        return
    if stat.S_ISSOCK(mode) and mode & 0o006 != 0o006:
        what = f"its mode is {stat.S_IMODE(mode):04o}: not every user may ask"
        work.note("warning", about, what, "tailscaled makes it 0666 on Linux: look at UMask and the unit's sandbox")
    try:
        status = LocalAPI(path).status()
    except BackendError as error:
        work.note("error", about, str(error), error.hint or "see tailscaled's journal", 3)
        return
    _status(work, about, status, machines)


def _status(work: Examination, about: str, status: Status, machines: AbstractSet[str]) -> None:
    if status.BackendState != "Running":
        work.note("error", about, f"tailscaled is in state {status.BackendState}", "tailscale up", 3)
        return
    work.note("ok", about, f"tailscaled {status.Version or '?'} runs; {len(status.peers)} peers")
    if status.CurrentTailnet is not None and status.CurrentTailnet.MagicDNSEnabled is False:
        mend = "turn MagicDNS on in the admin console, or give the clan's domain a resolver"
        work.note("warning", about, "MagicDNS is off: names under the tailnet's suffix resolve nowhere", mend)
    if status.Self is not None and status.Self.Online is False:
        what = "this node is out of touch with the control plane: who is online is not known"
        work.note("warning", about, what, "tailscale netcheck")
    for name, expiry in _expiring(status, work.now):
        about_node = f"{'machine' if name in machines else 'node'} {name}"
        when = "expires on" if expiry > work.now else "has expired: nobody reaches it since"
        if expiry <= work.now:
            work.expired.add(name.casefold())
        work.note("warning", about_node, f"its key {when} {expiry:%Y-%m-%d}", _RENEW)
    for text in status.Health or ():
        work.note("warning", about, f"tailscaled says: {text}", "tailscale status")


def _expiring(status: Status, now: datetime) -> list[tuple[str, datetime]]:
    """Return the nodes of this tailnet whose keys expire soon, or have; a neighbour's are the neighbour's."""
    found: list[tuple[str, datetime]] = []
    suffix = status.CurrentTailnet.MagicDNSSuffix if status.CurrentTailnet is not None else None
    for node in (status.Self, *status.peers):
        if node is None or not node.KeyExpiry or node.ShareeNode:
            continue
        if suffix and (node.DNSName or "").rstrip(".").partition(".")[2].casefold() != suffix.strip(".").casefold():
            continue
        try:
            expiry = datetime.fromisoformat(node.KeyExpiry)
        except ValueError:
            continue
        expiry = expiry if expiry.tzinfo is not None else expiry.replace(tzinfo=UTC)
        if expiry.year > 1 and expiry - now < _EXPIRES_SOON:
            found.append(((node.DNSName or node.HostName or "?").partition(".")[0], expiry))
    return found


def _beliefs(work: Examination, resolution: Resolution) -> None:
    for belief in resolution.beliefs:
        about = f"backend {belief.backend}"
        if belief.state == "fresh" and belief.snapshot is not None:
            nodes, listed = len(belief.snapshot.nodes), len(belief.snapshot.endpoints)
            work.note("ok", about, f"it answers; {nodes} machines" + (f"; targets listed: {listed}" if listed else ""))
        elif belief.state == "held":
            work.note("warning", about, belief.why, "clan-discovery refresh --accept-shrink", 4)
        else:
            work.note("error", about, f"{belief.why} ({belief.state})", belief.hint or "", 3)


def _names(work: Examination, resolution: Resolution) -> None:
    for ambiguous in resolution.ambiguous:
        what = f"{len(ambiguous.claims)} nodes claim the name: {', '.join(ambiguous.claims)}"
        work.note("error", f"name {ambiguous.name}", what, "rename or remove all but one in the admin console")
    for machine in resolution.expired:
        if machine.casefold() not in work.expired:  # a saved status, or one that says expired and not since when
            work.note("warning", f"machine {machine}", "its key has expired: nobody reaches it", _RENEW)
    missing = {m.machine for m in resolution.missing}
    told: set[str] = set()
    for stray in resolution.stray:
        numbered = _numbered(stray.name, missing)
        machine = stray.alias or numbered
        if not machine:
            continue
        told.add(machine)
        how = f"{stray.name} is, which calls itself so" if stray.alias else f"{stray.name} is, as a taken name is made"
        if machine in missing:
            what = f"it is not seen, and {how}: renamed, or registered again"
            mend = f"if it is that machine, rename {stray.name} to {machine} in the admin console"
        else:
            what = f"it is offline, and {how}: registered again while its old node is there"
            mend = f"if it is that machine, remove the old node {machine}, then rename {stray.name} to {machine}"
        work.note("warning", f"machine {machine}", what, mend)
    for machine in sorted(missing - told):
        mend = f"clan-discovery explain {machine}"
        work.note("warning", f"machine {machine}", "declared, and no backend sees it", mend)


def _numbered(name: str, missing: AbstractSet[str]) -> str:
    """Return the missing machine of whose name this is what the control plane makes where it is taken: `db-1`."""
    prefix, dash, number = name.rpartition("-")
    return next((m for m in missing if dash and number.isdigit() and prefix.casefold() == m.casefold()), "")


def _directory(work: Examination, path: Path, runtime_directories: str) -> None:
    about = f"output {path}"
    if path.is_symlink():
        work.note("error", about, "it is a symlink", "give the directory itself", 5)
        return
    if not path.exists():
        work.note("warning", about, "it is not there yet", _FIRST)
        return
    if not path.is_dir():
        work.note("error", about, "it is no directory", "give another one", 5)
        return
    before = len(work.findings)
    if not os.access(path, os.W_OK | os.X_OK):
        work.note("error", about, "this user may not write there", "run as the unit's user, or mend the owner", 5)
    if path.stat().st_mode & 0o005 != 0o005:
        work.note("warning", about, "other users may not read it: Prometheus is one", f"chmod 755 {path}")
    if os.path.ismount(path):
        what = "it is a mount of its own: files are prepared inside it, and a bind mount of one file sees no rename"
        work.note("warning", about, what, "mount the parent directory")
    if warning := runtime_directory_warning(path, runtime_directories):
        work.note("warning", about, warning.partition("lies ")[2] or warning, "use StateDirectory")
    for file in sorted(path.iterdir()):
        _file(work, about, file)
    if len(work.findings) == before:
        work.note("ok", about, f"{len(list(path.glob('*.json')))} target files")


def _file(work: Examination, about: str, file: Path) -> None:
    if file.is_symlink():
        what = f"{file.name} is a symlink: Prometheus sees a change behind it only at its next refresh"
        work.note("warning", about, what, "the next change replaces it")
    elif file.suffix in (".json", ".yml", ".yaml") and file.name.startswith("."):
        what = f"{file.name} is matched by the glob `*{file.suffix}`: Go's globs match dotfiles"
        work.note("warning", about, what, "remove it, or have its writer use another suffix")
    elif file.suffix == ".json" and file.is_file() and file.stat().st_mode & 0o004 == 0:
        work.note("warning", about, f"other users may not read {file.name}", "the next refresh mends it")


def _state(work: Examination, plan: Plan) -> None:
    about = f"state {plan.state_directory}"
    state = State(plan.state_directory, read_only=True)
    memories = Memories.read(state, plan.backends)
    for backend in plan.backends:
        memories.load(backend.name, None)
    for problem in state.problems:
        work.note("warning", about, problem.what, "the next refresh sets it aside and starts anew")
    if not state.problems:
        if plan.state_directory.exists() and not plan.state_directory.is_dir():
            work.note("warning", about, "it is no directory: nothing can be remembered", "move it away")
        else:
            there = "readable" if plan.state_directory.is_dir() else "not there yet: the first refresh makes it"
            work.note("ok", about, there)
