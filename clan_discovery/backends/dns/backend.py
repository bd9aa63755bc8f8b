"""The DNS backend: asks what is due, keeps what it was told, and says what that means."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.backends.base import Health
from clan_discovery.backends.dns.findings import snapshot
from clan_discovery.backends.dns.reading import Known, Reading, Wanted, blank, entries, is_due, is_sound, questions
from clan_discovery.dnsclient.lookup import Failed, Found
from clan_discovery.dnsclient.message import Question
from clan_discovery.dnsclient.resolver import ask
from clan_discovery.dnsclient.servers import Server, open_transports, read_resolv
from clan_discovery.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from clan_discovery.backends.base import Ask
    from clan_discovery.backends.dns.reading import Book
    from clan_discovery.dnsclient.transport import Transport
    from clan_discovery.model import Snapshot

_STAGES: Final = 8
"""How often answers lead to more questions: a service, its instances, their hosts, addresses of both families, PTR."""
_MORE_MOST: Final = 20_000
"""So many questions at the most follow from answers, in one round: a zone that lists without end ends here."""

_EXAMINED_S: Final = 6.0
_FORGOTTEN_S: Final = 86400.0
_BOOK_MOST: Final = 100_000
_TOO_MANY: Final = f"more than {_MORE_MOST} questions follow from the answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dns:
    """Asks DNS. `servers` empty: those of `resolv_conf`, read again each time. `budget` in seconds, for one round.

    `search`: domains that complete a name; None for none, empty for those of `resolv_conf`.
    """

    name: str
    reading: Reading
    resolv_conf: Path
    fingerprint: str
    servers: tuple[Server, ...] = ()
    search: tuple[str, ...] | None = None
    budget: float = 10.0

    @property
    def jobs(self) -> tuple[str, ...]:
        """The jobs that it lists."""
        return tuple(self.reading.exporters)

    @property
    def locates(self) -> bool:
        """Whether it tells where machines are, or only lists targets."""
        return self.reading.machines is not None or any(wanted.machine for wanted in self.reading.wanted)

    @property
    def names(self) -> frozenset[str]:
        """The names that it asks, as they stand in the config."""
        return frozenset(wanted.text for wanted in self.reading.wanted)

    def ask(self, ask_: Ask, /) -> Snapshot:
        """Ask what is due; see `Backend.ask`. A name that nobody could answer keeps its last good answer.

        Raises:
            BackendError: nothing at all could be found out, and nothing is known from before.
        """
        reading = self._completed()
        now, start = ask_.now.timestamp(), time.monotonic()
        before = ask_.last()
        sound = filter(is_sound, before.answers if before is not None else ())
        book: Book = {Question(a.name, a.type, a.hosting): a for a in sound}
        failed: dict[Question, str] = {}
        known = Known(book, failed, now, reading.max_age)
        relevant = self._ask_all(reading, known, book, failed)
        silent = bool(failed) and not any(q in book and not is_due(book[q], now) for q in relevant)
        self._forget(book, relevant, now)
        book.update({question: blank(question, now) for question in failed if question not in book})
        ended = now + time.monotonic() - start
        found = snapshot(reading, known, relevant, ask_.recall, ended=ended, silent=silent)
        if silent and before is None and not (found.nodes or found.endpoints):
            raise _outage(failed)
        return found

    def _forget(self, book: Book, relevant: dict[Question, None], now: float) -> None:
        """Forget what nobody asks for any more, once it is too old to stand; before, it may be asked for again."""
        most = self.reading.max_age if self.reading.max_age is not None else _FORGOTTEN_S
        for question in [q for q in book if q not in relevant]:
            if now - book[question].at > most or len(book) > _BOOK_MOST:
                del book[question]

    def examine(self) -> list[Health]:
        """Ask each server the first name, alone; see `Examinable.examine`."""
        try:
            question = next(questions(self._completed(), Known({}, {}, 0.0, None)))
            return [_examined(self.name, server, question) for server in self._servers()]
        except BackendError as error:
            return [Health(f"backend {self.name}", well=False, what=str(error), mend=error.hint or "")]

    def _ask_all(self, reading: Reading, known: Known, book: Book, failed: dict[Question, str]) -> dict[Question, None]:
        """Ask, and what follows from the answers, until nothing more is due; return every question that matters."""
        until = time.monotonic() + self.budget
        asked: set[Question] = set()
        wanted = dict.fromkeys(questions(reading, known))
        more = _MORE_MOST
        servers: list[Transport] = []
        try:
            for _ in range(_STAGES):
                due = [q for q in wanted if q not in asked and is_due(book.get(q), known.now)]
                if not due:
                    break
                if asked:
                    failed.update(dict.fromkeys(due[more:], _TOO_MANY))
                    asked.update(due[more:])
                    due, more = due[:more], max(more - len(due), 0)
                servers = servers or open_transports(self._servers(), until)
                asked.update(due)
                for question, result in ask(due, servers, until).items():
                    if isinstance(result, Failed):
                        failed[question] = result.reason
                    else:
                        book.update(entries(question, result, reading, known.now))
                wanted = dict.fromkeys(questions(reading, known))
        finally:
            for server in servers:
                server.close()
        return wanted

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


def _examined(backend: str, server: Server, question: Question) -> Health:
    about = f"backend {backend}, server {server.text}"
    start = time.monotonic()
    (carrier,) = open_transports([server], start + _EXAMINED_S)
    try:
        result = ask([question], [carrier], start + _EXAMINED_S)[question]
    finally:
        carrier.close()
    took = f"{(time.monotonic() - start) * 1000:.0f} ms"
    asked = f"{question.name} {question.type}"
    if isinstance(result, Failed):
        reason = result.reason.removeprefix(f"{server.text}: ")
        return Health(about, well=False, what=f"asked for {asked}: {reason}", mend=_mend(reason))
    what = f"{len(result.texts)} records, TTL {result.ttl} s" if isinstance(result, Found) else result.code
    return Health(about, well=True, what=f"it answers within {took}; {asked}: {what}")


def _mend(reason: str) -> str:
    if "lame" in reason or "REFUSED" in reason:
        return "it does not serve this zone to this machine: name another server, or mend its access list"
    if "SERVFAIL" in reason:
        return "look at its own log: it could not find out either, or DNSSEC is broken"
    if "certificate" in reason:
        return "name whom its certificate names: tls://host#name; SSL_CERT_FILE gives an authority of your own"
    return "is it up, and is the port open? a firewall that drops, and a server that hangs, look alike"


def fingerprint_of(reading: Reading, search: Sequence[str] | None) -> str:
    """Return what decides the answers: what they stand for, and what is refused; not which names, nor who is asked."""
    refused = [str(network) for network in (*reading.allow, *reading.deny)]
    told = (reading.machines, refused, search)
    return f"dns {hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:32]}"


def _searched(wanted: Wanted, domains: Sequence[str], ndots: int) -> Wanted:
    name = wanted.names[0]
    if wanted.text.endswith("."):
        return wanted
    completed = [f"{name}.{domain}" for domain in domains]
    names = [name, *completed] if name.count(".") >= ndots else [*completed, name]
    return msgspec.structs.replace(wanted, names=tuple(names))


def _outage(failed: Mapping[Question, str]) -> BackendError:
    question, reason = next(iter(failed.items()))
    more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
    what = f"no name could be asked: {question.name} {question.type} ({reason}){more}"
    return BackendError(what, hint="is the resolver up, and may it be asked? see: clan-discovery doctor")
