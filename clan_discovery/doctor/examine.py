"""Check what a refresh cycle depends on, in that order. Changes nothing."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.backends.base import Examinable
from clan_discovery.doctor.finding import Finding
from clan_discovery.doctor.front import examine_front
from clan_discovery.emit.alias import alias_advice, alias_entry, suggested_aliases
from clan_discovery.emit.file_sd import render_jobs
from clan_discovery.errors import BackendError, Exit, PublishError
from clan_discovery.localapi.client import decode_status
from clan_discovery.memory import Memories
from clan_discovery.model import BeliefState, span
from clan_discovery.publish.files import foreign_files, runtime_directory_warning
from clan_discovery.publish.lock import lock_complaint
from clan_discovery.publish.mark import owner_complaint
from clan_discovery.publish.state import State
from clan_discovery.publish.user import check_user, refresher, run_as
from clan_discovery.reading import has_content
from clan_discovery.resolve.names import unmatched_names
from clan_discovery.syntax.counting import first_names, plural
from clan_discovery.syntax.instant import minute

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from clan_discovery.backends.base import Backend, Health
    from clan_discovery.localapi.types import PeerStatus, Status
    from clan_discovery.model import Belief, Frozen, Resolution, Stray
    from clan_discovery.round import Plan

_OLDEST_YEAR: Final = 2025
"""The earliest plausible year: without a clock battery, a machine starts in 1970 or when its image was built."""
_EXPIRES_SOON: Final = timedelta(days=14)
_RENEW: Final = "renew it there with `tailscale up --force-reauth`, or turn key expiry off for it"
_RUN_AS: Final = "run as the unit's user, or change the owner"
_FIRST: Final = (
    "the first refresh creates it; start Prometheus after it, which looks for new directories every 5 minutes"
)
_WITHOUT_ANSWER: Final = frozenset({BeliefState.KEPT, BeliefState.EXPIRED, BeliefState.UNKNOWN})
_MISSING_MOST: Final = 5
_JOBS_MOST: Final = 5


def recording(plan: Plan, responses: dict[Path, bytes]) -> Plan:
    """Return a plan that also stores the response of each tailscaled, so that each is asked once.

    `responses` maps a socket to its response.
    """
    from clan_discovery.backends.tailscale import TailscaleSocket  # noqa: PLC0415 - httpx, 40 ms, only for a socket

    backends: list[Backend] = []
    for backend in plan.backends:
        if isinstance(backend, TailscaleSocket):
            backends.append(msgspec.structs.replace(backend, responses=responses))
        else:
            backends.append(backend)
    return msgspec.structs.replace(plan, backends=backends)


def examine(
    plan: Plan, resolution: Resolution, responses: Mapping[Path, bytes], now: datetime, runtime_directories: str
) -> Iterator[Finding]:
    """Check everything that a cycle depends on, after one was run (`resolution`).

    `responses` are those of each tailscaled, by socket. `runtime_directories` is systemd's `RUNTIME_DIRECTORY`.
    """
    yield _check_clock(now)
    machines = frozenset(machine.name.casefold() for machine in plan.declared.machines)
    expired: set[str] = set()
    for socket, body in responses.items():
        yield from _check_tailscaled(socket, body, machines, now, expired)
    without_answer = {b.backend for b in resolution.beliefs if b.state in _WITHOUT_ANSWER}
    for backend in plan.backends:
        # A tailscaled that did not answer in the cycle is not asked again.
        if isinstance(backend, Examinable) and backend.name not in without_answer:
            yield from map(_check_health, backend.examine())
    for belief in resolution.beliefs:
        yield _check_belief(belief, resolution, plan.trust.max_age)
    if not resolution.beliefs:
        declared = plural(len(resolution.targets), "target")
        yield Finding("ok", "backends", f"none is asked; {declared} at declared addresses or names")
    yield from _check_machines(resolution, expired)
    yield from map(_check_ignored, unmatched_names(plan.policy.ignore, resolution))
    if plan.static:
        yield _check_built(plan, resolution)
        return
    if not plan.no_files:
        yield from _check_directory(plan.directory, runtime_directories)
        yield from _check_foreign(plan)
        yield from _check_owner(plan)
    yield from _check_user(plan)
    yield from examine_front(plan, resolution)
    yield from _check_state(plan)


def _check_clock(now: datetime) -> Finding:
    if now.year < _OLDEST_YEAR:
        fix = "set the clock: ages, expiry and certificates depend on it"
        return Finding("error", "clock", f"it says {now:%Y-%m-%d}", fix, Exit.DEGRADED)
    return Finding("ok", "clock", f"{now:%Y-%m-%d %H:%M} UTC")


def _check_tailscaled(
    path: Path, body: bytes, machines: AbstractSet[str], now: datetime, expired: set[str]
) -> Iterator[Finding]:
    """Check tailscaled behind a socket by its response: MagicDNS, and keys that expire.

    `machines` are the declared machines. Nodes whose expired key is reported are added to `expired`. Both are
    case-folded. A daemon that is not ready is a finding of its backend.
    """
    about = f"socket {path}"
    mode = _mode(path)
    if stat.S_ISSOCK(mode) and mode & 0o006 != 0o006:
        fix = "tailscaled sets 0666 on Linux: check UMask and the sandbox of its unit"
        yield Finding("warning", about, f"mode {stat.S_IMODE(mode):04o}: only some users can open it", fix)
    try:
        status = decode_status(body)
    except BackendError as error:
        yield Finding("warning", about, str(error), "keys and MagicDNS are not checked; update clan-discovery")
        return
    if status.BackendState != "Running":
        return
    yield Finding("ok", about, f"tailscaled {status.Version or '?'} runs; {plural(len(status.peers), 'peer')}")
    yield from _check_status(about, status)
    yield from _check_keys(status, machines, now, expired)


def _mode(path: Path) -> int:
    """Return the mode of a file; 0 if it is gone."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


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


def _check_belief(belief: Belief, resolution: Resolution, max_age: float | None) -> Finding:
    """Report what a backend answered, or the cause of its failure, the effect on the targets, and the fix."""
    about = f"backend {belief.backend}"
    frozen = [frozen for frozen in resolution.frozen if frozen.backend == belief.backend]
    if belief.state is BeliefState.HELD:
        what = "; ".join([belief.why, *_frozen_effect(frozen)])
        return Finding("warning", about, what, "clan-discovery refresh --accept-shrink", Exit.HELD)
    if belief.state is not BeliefState.FRESH or belief.snapshot is None:
        effect = _frozen_effect(frozen) or [_effect(belief, resolution, max_age)]
        fix = belief.hint or "see the log of what it asks"
        if frozen:
            fix += f"; to write declared addresses now, remove {frozen[0].job}.json"
        return Finding("error", about, "; ".join([belief.why, *effect]), fix, Exit.DEGRADED)
    what = f"it answers; {plural(len(belief.snapshot.nodes), 'machine')}"
    if belief.snapshot.endpoints:
        what += f"; targets listed: {len(belief.snapshot.endpoints)}"
    return Finding("ok", about, what)


def _effect(belief: Belief, resolution: Resolution, max_age: float | None) -> str:
    """Say what happens to the targets while a backend does not answer."""
    if belief.state in (BeliefState.UNKNOWN, BeliefState.EXPIRED):
        return _lost_effect(belief, resolution)
    count = sum(target.backend == belief.backend for target in resolution.targets)
    if belief.state is BeliefState.PARTIAL:
        return f"{plural(count, 'target')} from this backend; failed lookups keep their last good answers"
    kept = f"{plural(count, 'target')} kept from {span(belief.age)} ago"
    if max_age is None:
        return f"{kept}; none is lost, however long it lasts"
    return f"{kept}; none is lost before {span(max(max_age - belief.age, 0))} from now"


def _frozen_effect(frozen: Sequence[Frozen]) -> list[str]:
    """Say which jobs keep their present files; empty if none does."""
    if not frozen:
        return []
    effect = f"these jobs keep their present files: {first_names([found.job for found in frozen], _JOBS_MOST)}"
    untils = [found.until for found in frozen if found.until is not None]
    if untils:
        effect += f" (until {minute(min(untils))} at the latest)"
    return [effect]


def _lost_effect(belief: Belief, resolution: Resolution) -> str:
    if belief.state is BeliefState.EXPIRED:
        why = f"the last good answer is {span(belief.age)} old, older than policy.max_age"
    else:
        why = "there is no last good answer"
    unseen = sum(not target.observed for target in resolution.targets)
    if unseen == 0:
        return f"{why}; no declared target is affected"
    return f"{why}; {plural(unseen, 'target')} at a declared address or name"


def _check_machines(resolution: Resolution, expired: AbstractSet[str]) -> Iterator[Finding]:
    """Report names claimed twice, keys not yet in `expired`, and missing machines."""
    for ambiguous in resolution.ambiguous:
        what = f"{len(ambiguous.claims)} nodes claim the name: {', '.join(ambiguous.claims)}"
        fix = "rename or remove all but one in the admin console"
        yield Finding("error", f"name {ambiguous.name}", what, fix, Exit.FINDINGS)
    for machine in resolution.expired:
        if machine.casefold() not in expired:
            yield Finding("warning", f"machine {machine}", "its key has expired: it is unreachable", _RENEW)
    missing = {m.machine for m in resolution.missing}
    explained: set[str] = set()
    for stray in resolution.stray:
        if machine := stray.alias or _original_name(stray.name, missing):
            explained.add(machine)
            yield _registered_again(stray, machine, is_missing=machine in missing)
    yield from _check_missing(sorted(missing - explained), suggested_aliases(resolution))


def _check_missing(missing: Sequence[str], suggested: Mapping[str, str]) -> Iterator[Finding]:
    """Report machines that no backend sees: those with a suggested alias by themselves, many others in one finding."""
    what = "declared, but no backend sees it"
    for machine in missing:
        if machine in suggested:
            yield Finding("warning", f"machine {machine}", what, alias_advice(suggested[machine], machine))
    others = [machine for machine in missing if machine not in suggested]
    if len(others) > _MISSING_MOST:
        what = f"{len(others)} declared machines are missing, no backend sees them: {first_names(others, 5)}"
        yield Finding("warning", "machines", what, f"clan-discovery explain {others[0]}")
        return
    for machine in others:
        yield Finding("warning", f"machine {machine}", what, f"clan-discovery explain {machine}")


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
        rename = f"rename {stray.name} to {machine} in the admin console"
        fix = f"if it is {machine}, {rename}, or add {alias_entry(stray.name, machine)}"
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
    for name, content in sorted(plan.split.files(render_jobs(resolution)).items()):
        file = plan.directory / f"{name}.json"
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


def _check_foreign(plan: Plan) -> Iterator[Finding]:
    """Report files of others that the pattern of a split job matches."""
    names = {name for job in plan.jobs for name in plan.split.names(job)}
    try:
        foreign = foreign_files(plan.directory, names)
    except PublishError:  # reported by `_check_directory`
        return
    for name, reader in plan.foreign_read(foreign).items():
        what = f"{name}.json was not written by clan-discovery, and {reader}: its targets are scraped"
        yield Finding("warning", f"output {plan.directory}", what, "move it to another directory")


def _not_written(about: str, error: PublishError) -> Finding:
    """Report the error with which a refresh would end."""
    return Finding("error", about, str(error), error.hint or _RUN_AS, Exit.NOT_WRITTEN)


def _check_owner(plan: Plan) -> Iterator[Finding]:
    """Check that the owner mark of the output directory is this config's."""
    try:
        complaint = owner_complaint(plan.directory, plan.owner, refresher(plan.state_directory))
    except PublishError as error:
        complaint = error
    if complaint is not None:
        yield _not_written(f"output {plan.directory}", complaint)


def _check_user(plan: Plan) -> Iterator[Finding]:
    """Check that the user who refreshes can lock both directories.

    Root may not refresh if the state belongs to another user. Then the check is done for that user.
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
        found = [lock_complaint(directory, user) for directory in sorted({plan.directory, plan.state_directory})]
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
        elif is_json and file.is_file() and not os.access(file, os.R_OK):
            what = f"this user cannot read {file.name}, so a refresh does not know whose it is, and writes nothing"
            yield Finding("error", about, what, "give it to this user, or move it away", Exit.NOT_WRITTEN)
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
