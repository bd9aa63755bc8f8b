"""Ask the questions that are due, cache the answers, and return a snapshot."""

from __future__ import annotations

import hashlib
import math
import time
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.backends.base import Asked, Health
from clan_discovery.backends.dns.findings import snapshot
from clan_discovery.backends.dns.reading import Reading, View, Wanted, questions
from clan_discovery.dnsclient.cache import Cache
from clan_discovery.dnsclient.lookup import Failed, Found
from clan_discovery.dnsclient.pace import DEFAULT_RATE
from clan_discovery.dnsclient.resolver import ask
from clan_discovery.dnsclient.servers import Server, open_transports, read_resolv
from clan_discovery.errors import BackendError
from clan_discovery.model import Outage
from clan_discovery.syntax.counting import first_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from clan_discovery.dnsclient.message import Question
    from clan_discovery.dnsclient.transport import Transport
    from clan_discovery.model import Answer, Snapshot

_STAGES: Final = 8
"""How often answers lead to further questions: service, instances, hosts, both families, PTR, and its name."""
_MORE: Final = 250_000
_MORE_EACH: Final = 4
"""The most questions that follow from answers: `_MORE` in all, or `_MORE_EACH` for each question of the config if that
is more. A zone may list names without end, and the cache needs a limit."""
_MOST_REPORTED: Final = 1000
_EXAMINED_S: Final = 6.0
_RETRY_S: Final = 10.0
"""Seconds after which a failed lookup is repeated."""


class Dns(msgspec.Struct, frozen=True, kw_only=True):
    """Asks DNS.

    `servers`: if empty, those of `resolv_conf`, which is read each time. `budget` is in seconds, for one cycle.
    `rate`: the most questions per second to each server. `search`: domains that complete a name; None for none, empty
    for those of `resolv_conf`.
    """

    name: str
    reading: Reading
    resolv_conf: Path
    servers: tuple[Server, ...] = ()
    search: tuple[str, ...] | None = None
    budget: float = 10.0
    rate: float = DEFAULT_RATE

    @property
    def fingerprint(self) -> str:
        """Return the settings that decide what answers mean, and the servers.

        The names are not part of it: they may be added and removed.
        """
        refused = [str(network) for network in (*self.reading.allow, *self.reading.deny)]
        servers = [server.text for server in self.servers]
        domains = self.reading.domains or ()
        settings = (self.reading.machines, refused, self.search, servers, *domains)
        return f"dns {hashlib.sha256(msgspec.json.encode(settings)).hexdigest()[:32]}"

    @property
    def jobs(self) -> frozenset[str]:
        """Return the jobs that it lists targets for."""
        return frozenset(self.reading.exporters)

    @property
    def locates(self) -> bool:
        """Tell whether it locates machines."""
        return self.reading.machines is not None or any(wanted.machine for wanted in self.reading.wanted)

    @property
    def any_address(self) -> bool:
        """Tell whether the config may allow addresses that are refused by default."""
        return bool(self.reading.allow)

    @property
    def asks(self) -> str:
        """Name the servers; see `Timed`."""
        servers = [server.text for server in self.servers] or [f"the servers of {self.resolv_conf}"]
        return f"DNS ({first_names(servers, 2)})"

    def ask(self, now: datetime, memory: bytes, /) -> Asked:
        """Ask the questions that are due; see `Backend.ask`. The memory is the cache.

        A name whose lookup fails keeps its last good answer. If every lookup fails, the answer is an outage with the
        cached answers.
        """
        at, start = now.timestamp(), time.monotonic()
        reading = self._completed()
        cache, unusable = _cache(memory)
        cache.note(at)
        failed: dict[Question, str] = {}
        view = View(cache, failed, at, reading.max_age)
        relevant = self._ask_all(reading, view, failed)
        cache.forget(relevant, at, reading.max_age)
        found = snapshot(reading, view)
        dues = [until for q in relevant if q not in failed and (until := cache.until(q)) is not None]
        if failed:
            dues.append(at + time.monotonic() - start + _RETRY_S)
        answer: Answer = found
        if failed and all(q in failed or cache.is_due(q, at) for q in relevant):
            newest = min((known.age(at) for known in cache), default=0.0)
            answer = _outage(self.name, failed, found, age=newest)
        return Asked(answer, cache.to_bytes(), min(dues, default=None), unusable)

    def examine(self) -> list[Health]:
        """Ask each server for the first name; see `Examinable.examine`."""
        try:
            question = next(questions(self._completed(), View(Cache(), {}, 0.0, None)))
            return [_examined(self.name, server, question) for server in self._servers()]
        except BackendError as error:
            return [Health(f"backend {self.name}", well=False, what=str(error), fix=error.hint or "")]

    def _ask_all(self, reading: Reading, view: View, failed: dict[Question, str]) -> dict[Question, None]:
        """Ask until nothing is due; return every relevant question.

        Answers lead to further questions, which are asked, too.
        """
        until = time.monotonic() + self.budget
        asked: set[Question] = set()
        own = dict.fromkeys(questions(reading, View(Cache(), {}, view.now, None)))
        relevant = _relevant(own, reading, view, failed)
        transports: list[Transport] = []
        try:
            for _ in range(_STAGES):
                # The config's own first: what follows from the answers of one zone must not take the time for them.
                due = _due(own, asked, view) or _due(relevant, asked, view)
                if not due:
                    break
                transports = transports or open_transports(self._servers(), until, self.rate)
                asked.update(due)
                parts = math.ceil(len(due) / self.rate)  # each takes a second to ask for
                for question, result in ask(due, transports, until).items():
                    if isinstance(result, Failed):
                        failed[question] = result.reason
                    else:
                        view.cache.store(question, result, reading.bounds, view.now, parts)
                relevant = _relevant(own, reading, view, failed)
        finally:
            for transport in transports:
                transport.close()
        return relevant

    def _servers(self) -> Sequence[Server]:
        return self.servers or read_resolv(self.resolv_conf).servers

    def _completed(self) -> Reading:
        """Complete the names by the search list, as resolv.conf(5) says."""
        if self.search is None:
            return self.reading
        resolv = read_resolv(self.resolv_conf)
        domains = self.search or resolv.search
        wanted = tuple(_searched(wanted, domains, resolv.ndots) for wanted in self.reading.wanted)
        return msgspec.structs.replace(self.reading, wanted=wanted)


def _due(questions: Iterable[Question], asked: set[Question], view: View) -> list[Question]:
    """Return the questions whose cached answers have expired, and that were not asked yet."""
    return [q for q in questions if q not in asked and view.cache.is_due(q, view.now)]


def _relevant(
    own: Mapping[Question, None], reading: Reading, view: View, failed: dict[Question, str]
) -> dict[Question, None]:
    """Return the config's own questions, and those that follow from cached answers; the ones above the limit fail."""
    more = max(_MORE, _MORE_EACH * len(own))
    found = dict(own)
    reported = 0
    for question in questions(reading, view):
        if question in found:
            continue
        if len(found) < len(own) + more:
            found[question] = None
        elif reported < _MOST_REPORTED:
            failed[question] = f"more than {more} questions follow from the answers"
            reported += 1
        else:
            break
    return found


def _cache(memory: bytes) -> tuple[Cache, str]:
    """Decode the cache; if that fails, return an empty one and the reason."""
    if not memory:
        return Cache(), ""
    try:
        return Cache.from_bytes(memory), ""
    except ValueError as error:
        return Cache(), str(error)


def _examined(backend: str, server: Server, question: Question) -> Health:
    about = f"backend {backend}, server {server.text}"
    start = time.monotonic()
    (transport,) = open_transports([server], start + _EXAMINED_S)
    try:
        result = ask([question], [transport], start + _EXAMINED_S)[question]
    finally:
        transport.close()
    took = f"{(time.monotonic() - start) * 1000:.0f} ms"
    asked = f"{question.name} {question.type}"
    if isinstance(result, Failed):
        reason = result.reason.removeprefix(f"{server.text}: ")
        return Health(about, well=False, what=f"lookup of {asked} failed: {reason}", fix=_fix(reason))
    what = f"{len(result.texts)} records, TTL {result.ttl} s" if isinstance(result, Found) else result.code
    return Health(about, well=True, what=f"it responds within {took}; {asked}: {what}")


def _fix(reason: str) -> str:
    if "lame" in reason or "REFUSED" in reason:
        return "this server does not serve the zone to this machine: use another server, or change its access list"
    if "SERVFAIL" in reason:
        return "see the server's log: its own lookup failed, or DNSSEC is broken"
    if "certificate" in reason:
        return "give the name in its certificate, tls://host#name; SSL_CERT_FILE adds a certificate authority"
    return "check that the server is up and that no firewall drops its port"


def _searched(wanted: Wanted, domains: Sequence[str], ndots: int) -> Wanted:
    name = wanted.names[0]
    if wanted.text.endswith("."):
        return wanted
    completed = [f"{name}.{domain}" for domain in domains]
    names = [name, *completed] if name.count(".") >= ndots else [*completed, name]
    return msgspec.structs.replace(wanted, names=tuple(names), domains=(*wanted.domains, *domains))


def _outage(backend: str, failed: Mapping[Question, str], last: Snapshot, *, age: float) -> Outage:
    question, reason = next(iter(failed.items()))
    more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
    what = f"every lookup failed: {question.name} {question.type} ({reason}){more}"
    return Outage(backend=backend, reason=what, hint=_fix(reason), last=last, age=age)
