"""Gather the evidence that a checklist names: ask each thing once, within a time limit. The only asker."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

import msgspec

from clan_discovery.deadline import Deadline
from clan_discovery.gates.judge import Gathered
from clan_discovery.gates.sockets import listeners
from clan_discovery.gates.unpublished import judge_ports
from clan_discovery.gates.verified import judge_verification
from clan_discovery.inventory.process import TooMuchError, run
from clan_discovery.model import one_line
from clan_discovery.syntax.counting import first_names
from clan_discovery.syntax.secret import hide_in_urls
from clan_discovery.threads import Worker
from clan_discovery.verify import LOCAL_RULES, AskError, loaded_rules, probe, verify

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from clan_discovery.gates.evidence import Evidence
    from clan_discovery.gates.sockets import ListeningSocket
    from clan_discovery.model import Declared, Resolution, Verification
    from clan_discovery.verify import VerifySettings

MOST_EVIDENCE: Final = 1000
"""How many different things a checklist may name."""
PROBE_S: Final = 10.0
_UNIT_S: Final = 10.0
WHOLE_S: Final = 120.0
"""The time limits of one HTTP probe, of one unit, and of all of either kind together."""
_CONCURRENCY: Final = 16
_MOST_REDIRECTS: Final = 5
_MOST_OUTPUT: Final = 4096
_NAMES_MOST: Final = 3
_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
_MOST_TABLE: Final = 64 * 1024 * 1024
_LATE: Final = Gathered("unknown", "not looked at: the time is over", "name fewer things in one checklist")


class GateInputs(msgspec.Struct, frozen=True, kw_only=True):
    """What evidence about targets and rules needs. `machine` is the name of this machine."""

    declared: Declared
    resolution: Resolution
    settings: VerifySettings
    machine: str
    now: datetime


def needs_config(evidence: Evidence) -> bool:
    """Tell whether the config is needed to gather this evidence."""
    return evidence.kind in ("verify", "unpublished", "rule")


def gather(evidence: Sequence[Evidence], inputs: GateInputs | None) -> Mapping[Evidence, Gathered]:
    """Return what was found for each evidence. `inputs` may be None if none needs the config."""
    wanted = dict.fromkeys(evidence)
    found = _probe_all([one for one in wanted if one.kind == "http"])
    end = time.monotonic() + WHOLE_S
    for one in wanted:
        if one.kind == "unit":
            found[one] = _LATE if time.monotonic() >= end else _unit(one.words[0])
    if inputs is not None:
        asking = _Asking(inputs)
        found |= {one: asking.look(one) for one in wanted if needs_config(one)}
    return found


def _probe_all(wanted: Sequence[Evidence]) -> dict[Evidence, Gathered]:
    """Probe URLs in parallel."""
    found: dict[Evidence, Gathered] = {}
    numbers = iter(range(len(wanted)))
    end = time.monotonic() + WHOLE_S

    def work() -> None:
        for number in numbers:  # threads share the iterator: next() of a range is atomic
            if time.monotonic() >= end:
                return
            found[wanted[number]] = _http(*wanted[number].words)

    workers = [Worker(work) for _ in range(min(_CONCURRENCY, len(wanted)))]
    for worker in workers:
        with suppress(RuntimeError):  # no more threads can be started: the running ones do the rest
            worker.start()
    for worker in workers:
        if worker.is_started:
            worker.join(max(end + PROBE_S - time.monotonic(), 0))
    return {one: found.get(one, _LATE) for one in wanted}


def _http(url: str, status: str = "") -> Gathered:
    """Get a URL: any status from 200 to 299 holds, or the given one. Redirects are followed on the same host."""
    deadline = Deadline(PROBE_S)
    host = urlsplit(url).hostname
    fix = f"curl -i {url}"
    for _ in range(_MOST_REDIRECTS + 1):
        try:
            answer = probe(url, deadline)
        except AskError as error:
            return Gathered("contradicts", error.reason, fix)
        except Exception as error:  # noqa: BLE001 - whatever a server answers ends its own probe only
            return Gathered("contradicts", one_line(f"{type(error).__name__}: {error}")[:200], fix)
        said = f"HTTP {answer.status}"
        if status:
            return Gathered("holds" if said == f"HTTP {status}" else "contradicts", said, fix)
        if 200 <= answer.status < 300:
            return Gathered("holds", said)
        if not 300 <= answer.status < 400 or not answer.location:
            return Gathered("contradicts", said, fix)
        said = f"{said}: it redirects to {one_line(hide_in_urls(answer.location))[:200]}"
        try:
            url = urljoin(url, answer.location)
            is_same = urlsplit(url).hostname == host and url.startswith(("http://", "https://"))
        except ValueError:
            return Gathered("contradicts", f"{said}, which is no URL", fix)
        if not is_same:
            return Gathered("contradicts", f"{said}, another host", f"{fix}; name the URL that should answer")
    return Gathered("contradicts", f"more than {_MOST_REDIRECTS} redirects", fix)


def _unit(name: str) -> Gathered:
    """Ask systemd whether a unit is active."""
    fix = f"systemctl status {name}"
    try:
        code, out, err = run(["systemctl", "is-active", "--", name], seconds=_UNIT_S, most=_MOST_OUTPUT)
    except TimeoutError:
        return Gathered("unknown", f"systemctl gave no answer within {_UNIT_S:g} s", fix)
    except (OSError, TooMuchError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it prints too much"
        return Gathered("unknown", f"cannot ask systemctl: {reason}", "run it on a machine with systemd")
    said = one_line(out.decode(errors="replace").strip())[:60]
    if code == 0:
        return Gathered("holds", said)
    if not said or said == "offline" or code == 1:
        why = one_line(" ".join(err.decode(errors="replace").split()))[:200] or said or f"exit code {code}"
        return Gathered("unknown", f"systemctl cannot tell: {why}", "run it on a machine with systemd")
    if code == 4:
        said = "there is no such unit"
    return Gathered("contradicts", said, fix)


class _Asking:
    """Asks what needs the config; each program is asked once."""

    def __init__(self, inputs: GateInputs) -> None:
        self._inputs = inputs

    def look(self, evidence: Evidence) -> Gathered:
        match evidence.kind:
            case "verify":
                return judge_verification(self._verification, self._inputs.resolution, evidence.words)
            case "unpublished":
                return judge_ports(
                    self._inputs.declared, self._inputs.resolution, self._inputs.machine, _tables(Path("/"))
                )
            case _:
                return self._rule(evidence.words[0])

    @cached_property
    def _verification(self) -> Verification:
        return verify(self._inputs.resolution, self._inputs.settings, self._inputs.now)

    @cached_property
    def _rules(self) -> Mapping[str, Mapping[str, str] | AskError]:
        """The loaded rules of each program: their names, with the error of their evaluation."""
        programs = [program for program in self._inputs.settings.programs if program.kind == "rules"]
        found: dict[str, Mapping[str, str] | AskError] = {}
        for program in programs or LOCAL_RULES:
            try:
                loaded = loaded_rules(program, self._inputs.settings.timeout)
                found[program.url] = {rule.name: rule.error for rule in loaded}
            except AskError as error:
                found[program.url] = error
        return found

    def _rule(self, name: str) -> Gathered:
        """Tell whether a program has loaded a rule. One that answers is enough to find it, not to miss it."""
        silent = [f"{url}: {found.reason}" for url, found in self._rules.items() if isinstance(found, AskError)]
        for url, found in self._rules.items():
            if not isinstance(found, AskError) and name in found:
                if not found[name]:
                    return Gathered("holds", f"loaded at {url}")
                reason = one_line(found[name])[:200]
                return Gathered(
                    "contradicts", f"loaded at {url}, but cannot be evaluated: {reason}", "correct the rule"
                )
        fix = "verify: {rules: {NAME: {url: URL of Prometheus or vmalert, files: [FILE]}}}"
        if len(silent) == len(self._rules) or (silent and self._is_configured):
            return Gathered("unknown", f"cannot ask {first_names(silent, _NAMES_MOST)}", fix)
        asked = [url for url, found in self._rules.items() if not isinstance(found, AskError)]
        return Gathered(
            "contradicts", f"not loaded at {first_names(asked, _NAMES_MOST)}", "clan-discovery verify; " + fix
        )

    @property
    def _is_configured(self) -> bool:
        return any(program.kind == "rules" for program in self._inputs.settings.programs)


def _tables(root: Path) -> Sequence[ListeningSocket] | None:
    """Return the listening sockets of this machine; None if they cannot be read."""
    found: list[ListeningSocket] | None = None
    for table in _TABLES:
        with suppress(OSError), (root / table.removeprefix("/")).open() as file:
            found = [*(found or []), *listeners(file.read(_MOST_TABLE))]
    return found
