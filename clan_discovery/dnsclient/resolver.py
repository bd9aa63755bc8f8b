"""Look up questions: choose the next server, and retry without EDNS.

Every server is asked once. Then those that did not respond are asked once more, with more patience and without EDNS.
Each has its share of the time. After an error response (SERVFAIL, REFUSED, lame) the next server is asked. A question
without a usable response from any server has failed.
"""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.dnsclient.lookup import MAX_ALIASES, Absent, Failed, Follow, Found, understand
from clan_discovery.dnsclient.message import BADVERS, FORMERR, MAX_TTL, NOTIMP, TYPES, Response
from clan_discovery.dnsclient.transport import NoResponse, no_response
from clan_discovery.dnsclient.wire import EncodedQuestion, encode_question

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clan_discovery.dnsclient.message import Question
    from clan_discovery.dnsclient.transport import Received, Transport

_PATIENCE_S: Final = 1.5
"""How long to wait for one response."""
_RETRY_PATIENCE_S: Final = 4.0
"""How long to wait for one response of a server that did not respond before."""
_NO_TIME: Final = Failed("not asked: the time was used up")
_NOT_A_NAME: Final = NoResponse("not a DNS name", retry=False)


class _Lookup(msgspec.Struct):
    """A question in progress: its aliases so far, and the newest result."""

    question: Question
    chain: list[str] = []
    ttl: int = MAX_TTL
    result: Found | Absent | Failed = _NO_TIME
    silent: set[str] = set()

    @property
    def is_open(self) -> bool:
        """Whether no server gave a usable response yet."""
        return isinstance(self.result, Failed)

    def restart(self) -> None:
        """Forget the aliases: each server is asked for the name itself."""
        self.chain, self.ttl = [self.question.name], MAX_TTL

    def take(self, received: Received, server: str) -> bool:
        """Take a server's result; tell whether to ask it for the target of an alias next."""
        if isinstance(received, NoResponse):
            self.result = Failed(f"{server}: {received.reason}")
            if received.retry:
                self.silent.add(server)
            return False
        *aliases, name = self.chain
        meaning = understand(name, TYPES[self.question.type], received, aliases)
        match meaning:
            case Follow():
                self.chain.append(meaning.name)
                self.ttl = min(self.ttl, meaning.ttl)
                return True
            case Failed():
                self.result = Failed(f"{server}: {meaning.reason}")
            case Found(ttl=int(ttl)) | Absent(ttl=int(ttl)):
                self.result = meaning._replace(ttl=min(ttl, self.ttl))
            case Absent():
                self.result = meaning
        return False


def ask(
    questions: Sequence[Question], servers: Sequence[Transport], until: float
) -> dict[Question, Found | Absent | Failed]:
    """Look up all questions at once; `until` (monotonic) ends all waiting."""
    lookups = [_Lookup(question) for question in questions]
    for server, deadline in _with_deadlines(servers, until):
        _ask_server(server, [lookup for lookup in lookups if lookup.is_open], _PATIENCE_S, deadline)
    for server, deadline in _with_deadlines(servers, until):
        silent = [lookup for lookup in lookups if lookup.is_open and server.name in lookup.silent]
        if silent:
            server.edns = False  # a firewall may drop queries with EDNS
            _ask_server(server, silent, _RETRY_PATIENCE_S, deadline)
    return {lookup.question: lookup.result for lookup in lookups}


def _with_deadlines(servers: Sequence[Transport], until: float) -> Iterator[tuple[Transport, float]]:
    """Yield each server with the end of its share of the time that is left then."""
    for asked, server in enumerate(servers):
        now = time.monotonic()
        yield server, now + (until - now) / (len(servers) - asked)


def _ask_server(server: Transport, lookups: Sequence[_Lookup], patience: float, until: float) -> None:
    """Ask one server, following aliases."""
    for lookup in lookups:
        lookup.restart()
    # In random order: if the time is not enough for all, or adjacent names are in one dead zone, other names are left
    # over in each cycle.
    left = random.sample(lookups, len(lookups))
    for _ in range(MAX_ALIASES + 2):
        if not left or time.monotonic() >= until:
            return
        results = _exchange_any_edns(server, left, patience, until)
        left = [lookup for lookup, result in zip(left, results, strict=True) if lookup.take(result, server.name)]


def _exchange_any_edns(server: Transport, lookups: Sequence[_Lookup], patience: float, until: float) -> list[Received]:
    """Ask once, and again without EDNS if the server does not understand it."""
    results = _exchange(server, lookups, patience, until)
    refused = [i for i, result in enumerate(results) if _refuses_edns(result)]
    if server.edns and refused:
        server.edns = False
        again = _exchange(server, [lookups[i] for i in refused], patience, until)
        for i, result in zip(refused, again, strict=True):
            results[i] = result
    return results


def _exchange(server: Transport, lookups: Sequence[_Lookup], patience: float, until: float) -> list[Received]:
    encoded: dict[int, EncodedQuestion] = {}
    for i, lookup in enumerate(lookups):
        name = lookup.chain[-1]
        # An encoded name has two more bytes, for the first length and the root.
        case_bits = os.urandom(len(name) + 2) if server.randomise_case else None
        try:
            encoded[i] = encode_question(name, TYPES[lookup.question.type], case_bits)
        except ValueError:
            continue
    results: list[Received] = [_NOT_A_NAME] * len(lookups)
    try:
        received = server.exchange(list(encoded.values()), patience, until)
    except OSError as error:  # for example, no file descriptor is left
        return [no_response(error)] * len(lookups)
    for i, result in zip(encoded, received, strict=True):
        results[i] = result
    return results


def _refuses_edns(result: Received) -> bool:
    return isinstance(result, Response) and result.rcode in (FORMERR, NOTIMP, BADVERS)
