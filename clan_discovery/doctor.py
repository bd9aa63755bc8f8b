"""Check what a refresh cycle depends on, in that order. Changes nothing."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from clan_discovery.backends.base import Examinable
from clan_discovery.emit.alias import alias_advice, suggested_aliases
from clan_discovery.emit.file_sd import render_jobs
from clan_discovery.errors import BackendError, Exit, PublishError
from clan_discovery.localapi.client import LocalAPI
from clan_discovery.memory import Memories
from clan_discovery.model import BeliefState
from clan_discovery.publish.files import runtime_directory_warning
from clan_discovery.publish.lock import lock_complaint
from clan_discovery.publish.mark import owner_complaint
from clan_discovery.publish.state import State
from clan_discovery.publish.user import check_user, refresher, run_as
from clan_discovery.reading import has_content
from clan_discovery.resolve.names import unmatched_names
from clan_discovery.syntax.counting import first_names, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from clan_discovery.backends.base import Health
    from clan_discovery.localapi.types import PeerStatus, Status
    from clan_discovery.model import Belief, Frozen, Resolution, Stray
    from clan_discovery.round import Plan

_OLDEST_YEAR: Final = 2025
"""A machine whose clock battery is empty reports 1970, or the year in which its image was built."""
_EXPIRES_SOON: Final = timedelta(days=14)
_RENEW: Final = "renew it there with `tailscale up --force-reauth`, or turn key expiry off for it"
_RUN_AS: Final = "run as the unit's user, or change the owner"
_FIRST: Final = (
    "the first refresh creates it; start Prometheus after it, which looks for new directories every 5 minutes"
)


class Finding(msgspec.Struct, frozen=True):
    """One thing that was checked: how it is, how to fix it, and the exit code that it causes."""

    level: Literal["ok", "warning", "error"]
    about: str
    what: str
    fix: str = msgspec.field(default="", name="mend")
    code: Exit = Exit.OK


def examine(
    plan: Plan, resolution: Resolution, sockets: Sequence[Path], now: datetime, runtime_directories: str
) -> Iterator[Finding]:
    """Check everything that a cycle depends on, after one was run (`resolution`).

    `runtime_directories` is systemd's `RUNTIME_DIRECTORY`.
    """
    yield _check_clock(now)
    machines = frozenset(machine.name.casefold() for machine in plan.declared.machines)
    expired: set[str] = set()
    for socket in sockets:
        yield from _check_tailscaled(socket, machines, now, expired)
    for backend in plan.backends:
        if isinstance(backend, Examinable):
            yield from map(_check_health, backend.examine())
    yield from map(_check_belief, resolution.beliefs)
    yield from map(_check_frozen, resolution.frozen)
    yield from _check_machines(resolution, expired)
    yield from map(_check_ignored, unmatched_names(plan.policy.ignore, resolution))
    if plan.static:
        yield _check_built(plan, resolution)
        return
    yield from _check_directory(plan.directory, runtime_directories)
    yield from _check_owner(plan)
    yield from _check_user(plan)
    yield from _check_state(plan)


def _check_clock(now: datetime) -> Finding:
    if now.year < _OLDEST_YEAR:
        fix = "set the clock: ages, expiry and certificates depend on it"
        return Finding("error", "clock", f"it says {now:%Y-%m-%d}", fix, Exit.DEGRADED)
    return Finding("ok", "clock", f"{now:%Y-%m-%d %H:%M} UTC")


def _check_tailscaled(path: Path, machines: AbstractSet[str], now: datetime, expired: set[str]) -> Iterator[Finding]:
    """Check tailscaled behind a socket: its state, MagicDNS, and keys that expire.

    `machines` are the declared machines. Nodes whose expired key is reported are added to `expired`. Both are
    case-folded.
    """
    about = f"socket {path}"
    try:
        mode = path.stat().st_mode
    except OSError as error:
        fix = "start tailscaled; when its unit stops, the socket is removed"
        yield Finding("error", about, error.strerror or str(error), fix, Exit.DEGRADED)
        return
    if stat.S_ISSOCK(mode) and mode & 0o006 != 0o006:
        fix = "tailscaled sets 0666 on Linux: check UMask and the sandbox of its unit"
        yield Finding("warning", about, f"its mode is {stat.S_IMODE(mode):04o}: not every user may ask", fix)
    try:
        status = LocalAPI(path).status()
    except BackendError as error:
        yield Finding("error", about, str(error), error.hint or "see the journal of tailscaled", Exit.DEGRADED)
        return
    if status.BackendState != "Running":
        what = f"tailscaled is in state {status.BackendState}"
        yield Finding("error", about, what, "tailscale up", Exit.DEGRADED)
        return
    yield Finding("ok", about, f"tailscaled {status.Version or '?'} runs; {plural(len(status.peers), 'peer')}")
    yield from _check_status(about, status)
    yield from _check_keys(status, machines, now, expired)


def _check_status(about: str, status: Status) -> Iterator[Finding]:
    if status.CurrentTailnet is not None and status.CurrentTailnet.MagicDNSEnabled is False:
        fix = "turn MagicDNS on in the admin console, or give the clan's domain a resolver"
        yield Finding("warning", about, "MagicDNS is off: names under the tailnet's suffix do not resolve", fix)
    if status.Self is not None and status.Self.Online is False:
        what = "this node is not connected to the control plane: who is online is unknown"
        yield Finding("warning", about, what, "tailscale netcheck")
    for text in status.Health or ():
        yield Finding("warning", about, f"tailscaled reports: {text}", "tailscale status")


def _check_keys(status: Status, machines: AbstractSet[str], now: datetime, expired: set[str]) -> Iterator[Finding]:
    """Report the nodes of this tailnet whose keys expire soon, or have expired."""
    suffix = status.CurrentTailnet.MagicDNSSuffix if status.CurrentTailnet is not None else None
    for node in (status.Self, *status.peers):
        if node is None or node.ShareeNode or not _is_of_tailnet(node, suffix):
            continue
        expiry = _expiry(node)
        if expiry is None or expiry - now >= _EXPIRES_SOON:
            continue
        name = (node.DNSName or node.HostName or "?").partition(".")[0]
        about = f"machine {name}" if name in machines else f"node {name}"
        if expiry > now:
            what = f"its key expires on {expiry:%Y-%m-%d}"
        else:
            what = f"its key expired on {expiry:%Y-%m-%d}: it is unreachable"
            expired.add(name.casefold())
        yield Finding("warning", about, what, _RENEW)


def _is_of_tailnet(node: PeerStatus, suffix: str | None) -> bool:
    """Return whether a node is of the tailnet with this suffix; the keys of a shared node are not ours to renew."""
    if not suffix:
        return True
    own = (node.DNSName or "").rstrip(".").partition(".")[2]
    return own.casefold() == suffix.strip(".").casefold()


def _expiry(node: PeerStatus) -> datetime | None:
    """Return when the key of a node expires; None if never, or if it is not a time."""
    try:
        expiry = datetime.fromisoformat(node.KeyExpiry or "")
    except ValueError:
        return None
    if expiry.year == 1:  # Go's zero time
        return None
    if expiry.tzinfo is None:
        return expiry.replace(tzinfo=UTC)
    return expiry


def _check_health(health: Health) -> Finding:
    if health.well:
        return Finding("ok", health.about, health.what, health.fix)
    return Finding("error", health.about, health.what, health.fix, Exit.DEGRADED)


def _check_belief(belief: Belief) -> Finding:
    about = f"backend {belief.backend}"
    if belief.state is BeliefState.HELD:
        return Finding("warning", about, belief.why, "clan-discovery refresh --accept-shrink", Exit.HELD)
    if belief.state is not BeliefState.FRESH or belief.snapshot is None:
        return Finding("error", about, f"{belief.why} ({belief.state})", belief.hint or "", Exit.DEGRADED)
    what = f"it answers; {plural(len(belief.snapshot.nodes), 'machine')}"
    if belief.snapshot.endpoints:
        what += f"; targets listed: {len(belief.snapshot.endpoints)}"
    return Finding("ok", about, what)


def _check_frozen(frozen: Frozen) -> Finding:
    fix = f"see the finding of backend {frozen.backend}; to write the declared addresses now, remove {frozen.job}.json"
    return Finding("warning", f"job {frozen.job}", f"its present file is kept: {frozen.why}", fix)


def _check_machines(resolution: Resolution, expired: AbstractSet[str]) -> Iterator[Finding]:
    """Report names claimed twice, keys not yet in `expired`, and missing machines."""
    for ambiguous in resolution.ambiguous:
        what = f"{len(ambiguous.claims)} nodes claim the name: {', '.join(ambiguous.claims)}"
        fix = "rename or remove all but one in the admin console"
        yield Finding("error", f"name {ambiguous.name}", what, fix)
    for machine in resolution.expired:
        if machine.casefold() not in expired:
            yield Finding("warning", f"machine {machine}", "its key has expired: it is unreachable", _RENEW)
    missing = {m.machine for m in resolution.missing}
    explained: set[str] = set()
    for stray in resolution.stray:
        if machine := stray.alias or _original_name(stray.name, missing):
            explained.add(machine)
            yield _registered_again(stray, machine, is_missing=machine in missing)
    suggested = suggested_aliases(resolution)
    for machine in sorted(missing - explained):
        fix = f"clan-discovery explain {machine}"
        if machine in suggested:
            fix = alias_advice(suggested[machine], machine)
        yield Finding("warning", f"machine {machine}", "declared, but no backend sees it", fix)


def _check_ignored(name: str) -> Finding:
    fix = "remove it from the config, unless such a machine may come back"
    return Finding("warning", f"ignore.names {name}", "no machine has this name, declared or seen", fix)


def _registered_again(stray: Stray, machine: str, *, is_missing: bool) -> Finding:
    """Report a stray that is probably a declared machine under another name."""
    if stray.alias:
        other = f"{stray.name}, which calls itself {machine}, is seen"
    else:
        other = f"{stray.name} is seen, a name that the control plane gives if {machine} is taken"
    if is_missing:
        what = f"it is not seen, but {other}: renamed, or registered again"
        fix = f"rename {stray.name} to {machine} in the admin console, or {alias_advice(stray.name, machine)}"
    else:
        what = f"it is offline, but {other}: registered again while its old node still exists"
        fix = f"if it is that machine, remove the old node {machine}, then rename {stray.name} to {machine}"
    return Finding("warning", f"machine {machine}", what, fix)


def _original_name(name: str, missing: Iterable[str]) -> str:
    """Return the missing machine whose name the control plane numbered: `db` for `db-1`; empty if there is none."""
    prefix, _, number = name.rpartition("-")
    if not number.isdigit():
        return ""
    return next((machine for machine in missing if machine.casefold() == prefix.casefold()), "")


def _check_built(plan: Plan, resolution: Resolution) -> Finding:
    """Check target files that a Nix build made: they are there, readable, and those of this config."""
    about = f"output {plan.directory}"
    fix = "rebuild the system, and switch to it; Nix makes these files"
    different: list[str] = []
    for job, content in sorted(render_jobs(resolution).items()):
        file = plan.directory / f"{job}.json"
        try:
            if not has_content(file.resolve(strict=True), content):
                different.append(file.name)
        except OSError as error:
            return Finding("error", about, f"cannot read {file.name}: {error.strerror}", fix, Exit.NOT_WRITTEN)
    if different:
        what = f"not what this config gives: {first_names(different, 5)}"
        return Finding("warning", about, what, fix)
    return Finding("ok", about, f"built by Nix; {plural(len(list(plan.directory.glob('*.json'))), 'target file')}")


def _check_directory(path: Path, runtime_directories: str) -> Iterator[Finding]:
    """Check the output directory and its files."""
    about = f"output {path}"
    try:
        if path.is_symlink():
            yield Finding("error", about, "it is a symlink", "set the directory itself", Exit.NOT_WRITTEN)
            return
        files = sorted(path.iterdir())
        findings = [*_check_place(about, path, runtime_directories), *_check_files(about, files)]
    except FileNotFoundError:
        findings = [Finding("warning", about, "it does not exist yet", _FIRST)]
    except NotADirectoryError:
        findings = [Finding("error", about, "it is not a directory", "set another one", Exit.NOT_WRITTEN)]
    except OSError as error:
        findings = [Finding("error", about, f"it cannot be read: {error.strerror}", _RUN_AS, Exit.NOT_WRITTEN)]
    else:
        if not findings:
            count = sum(file.suffix == ".json" for file in files)
            findings = [Finding("ok", about, plural(count, "target file"))]
    yield from findings


def _not_written(about: str, error: PublishError) -> Finding:
    """Report what a refresh would end with."""
    return Finding("error", about, str(error), error.hint or _RUN_AS, Exit.NOT_WRITTEN)


def _check_owner(plan: Plan) -> Iterator[Finding]:
    """Check that the output directory is this config's."""
    try:
        complaint = owner_complaint(plan.directory, plan.owner, refresher(plan.state_directory))
    except PublishError as error:
        complaint = error
    if complaint is not None:
        yield _not_written(f"output {plan.directory}", complaint)


def _check_user(plan: Plan) -> Iterator[Finding]:
    """Check that the user who refreshes can lock both directories.

    Root, who is refused where the state belongs to another user, checks for that user, who may not read what root may.
    """
    is_root = os.geteuid() == 0
    try:
        user = refresher(plan.state_directory)
        try:
            check_user(plan.directory, plan.state_directory)
        except PublishError as error:
            if not is_root:
                raise
            yield Finding("ok", "user", f"root may not refresh here: {error}; {run_as(user)}")
        found = [lock_complaint(directory, user) for directory in (plan.directory, plan.state_directory)]
        if is_root:
            found += State(plan.state_directory).foreign_files(user)
    except PublishError as error:
        found = [error]
    yield from (_not_written("user", complaint) for complaint in found if complaint is not None)


def _check_place(about: str, path: Path, runtime_directories: str) -> Iterator[Finding]:
    if not os.access(path, os.W_OK | os.X_OK):
        yield Finding("error", about, "this user cannot write there", _RUN_AS, Exit.NOT_WRITTEN)
    mode = path.stat().st_mode
    if mode & 0o002:
        what = "every user can write there, and decides what is scraped"
        yield Finding("warning", about, what, f"chmod o-w {path}")
    if mode & 0o005 != 0o005:
        yield Finding("warning", about, "other users, such as Prometheus, cannot read it", f"chmod 755 {path}")
    if os.path.ismount(path):
        what = "it is a mount point: files are prepared inside it, and a bind mount of one file does not see a rename"
        yield Finding("warning", about, what, "mount the parent directory")
    if warning := runtime_directory_warning(path, runtime_directories):
        yield Finding("warning", about, warning.partition("lies ")[2] or warning, "use StateDirectory")


def _check_files(about: str, files: Iterable[Path]) -> Iterator[Finding]:
    for file in files:
        is_json = file.suffix == ".json"
        if file.is_symlink():
            what = f"{file.name} is a symlink: Prometheus sees a change behind it only at its next refresh"
            yield Finding("warning", about, what, "the next change replaces it")
        elif file.name.startswith(".") and (is_json or file.suffix in (".yml", ".yaml")):
            what = f"{file.name} is matched by the glob `*{file.suffix}`: globs in Go match dotfiles"
            yield Finding("warning", about, what, "remove it, or let its writer use another suffix")
        elif is_json and file.is_file() and file.stat().st_mode & 0o004 == 0:
            yield Finding("warning", about, f"other users cannot read {file.name}", "the next refresh fixes it")


def _check_state(plan: Plan) -> Iterator[Finding]:
    """Check that the memory of each backend can be read."""
    about = f"state {plan.state_directory}"
    state = State(plan.state_directory, read_only=True)
    memories = Memories.read(state, plan.backends)
    for backend in plan.backends:
        memories.load(backend.name, None)
    for problem in state.problems:
        if state.hidden:
            yield Finding("error", about, problem.what, problem.hint or _RUN_AS, Exit.NOT_WRITTEN)
            continue
        yield Finding("warning", about, problem.what, "the next refresh sets it aside and starts with an empty memory")
    if state.problems:
        return
    if not plan.state_directory.exists():
        yield Finding("ok", about, "it does not exist yet; the first refresh creates it")
    elif not plan.state_directory.is_dir():
        yield Finding("warning", about, "it is not a directory: nothing can be remembered", "move it away")
    else:
        yield Finding("ok", about, "readable")
