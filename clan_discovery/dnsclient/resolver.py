"""Asks servers until every question has its meaning: who is asked next, how often, and with what left out.

Every server is asked once, then those who were silent once more, with more patience and without EDNS; each has its
share of the time. A server's `no` (SERVFAIL, REFUSED, lame) is believed of that server alone: the next one is asked.
What nobody answered was not found out.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from clan_discovery.dnsclient.lookup import LONGEST_CHAIN, Absent, Failed, Follow, Found, understand
from clan_discovery.dnsclient.message import BADVERS, FORMERR, MAX_TTL, NOTIMP, TYPES
from clan_discovery.dnsclient.transport import NoResponse
from clan_discovery.dnsclient.wire import encode_question

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.dnsclient.message import Question
    from clan_discovery.dnsclient.transport import Came, Transport
    from clan_discovery.dnsclient.wire import EncodedQuestion

PATIENCE_S: Final = (1.5, 4.0)
"""How long one answer is waited for, in the first pass over the servers and in the second."""
_DICE: Final = 256
_UNASKED: Final = Failed("there was no time left to ask it")


@dataclass(slots=True)
class _Lookup:
    """A question on its way: the aliases that led on, and what is known of it so far."""

    question: Question
    seen: list[str] = field(default_factory=list[str])
    ttl: int = MAX_TTL
    result: Found | Absent | Failed = _UNASKED
    silent: list[str] = field(default_factory=list[str])

    @property
    def name(self) -> str:
        return self.seen[-1] if self.seen else self.question.name

    @property
    def is_open(self) -> bool:
        return isinstance(self.result, Failed)

    def take(self, came: Came, server: str) -> bool:
        """Take what came; say whether the same server must be asked on, for a name that this one is an alias of."""
        if isinstance(came, NoResponse):
            self.result = Failed(f"{server}: {came.reason}")
            if came.again:
                self.silent.append(server)
            return False
        type_ = TYPES[self.question.type]
        before = [self.question.name, *self.seen[:-1]] if self.seen else ()
        meaning = understand(self.name, type_, came, before)
        match meaning:
            case Follow():
                if meaning.name in self.seen or len(self.seen) > LONGEST_CHAIN:
                    self.result = Failed(f"{server}: an alias loop, or more than {LONGEST_CHAIN} aliases in a row")
                    return False
                self.seen.append(meaning.name)
                self.ttl = min(self.ttl, meaning.ttl)
                return True
            case Found():
                self.result = meaning._replace(ttl=min(meaning.ttl, self.ttl))
            case Absent():
                self.result = meaning._replace(ttl=None if meaning.ttl is None else min(meaning.ttl, self.ttl))
            case Failed():
                self.result = Failed(f"{server}: {meaning.reason}")
        return False


def ask(
    questions: Sequence[Question], servers: Sequence[Transport], until: float
) -> dict[Question, Found | Absent | Failed]:
    """Ask all questions side by side; `until` (monotonic) ends everything. Raises nothing."""
    lookups: list[_Lookup] = [_Lookup(question) for question in questions]
    for number, patience in enumerate(PATIENCE_S):
        again = {server.name: [lookup for lookup in lookups if server.name in lookup.silent] for server in servers}
        for left, server in zip(range(len(servers), 0, -1), servers, strict=True):
            open_ = [lookup for lookup in (again[server.name] if number else lookups) if lookup.is_open]
            now = time.monotonic()
            if open_ and now < until:
                if number:
                    server.edns = False  # a firewall perhaps drops what it does not know
                _at(server, open_, patience, now + (until - now) / left)  # one that is slow leaves time for the others
    return {lookup.question: lookup.result for lookup in lookups}


def _at(server: Transport, lookups: Sequence[_Lookup], patience: float, until: float) -> None:
    """Ask one server, on along the aliases, and once more without EDNS where it cannot take that."""
    for lookup in lookups:
        lookup.seen, lookup.ttl = [], MAX_TTL
    left = list(lookups)
    for _ in range(LONGEST_CHAIN + 2):
        if not left or time.monotonic() >= until:
            return
        came = _exchange(server, left, patience, until)
        plain = [i for i, reply in enumerate(came) if server.edns and _refuses_edns(reply)]
        if plain:
            server.edns = False
            again = _exchange(server, [left[i] for i in plain], patience, until)
            for i, reply in zip(plain, again, strict=True):
                came[i] = reply
        left = [lookup for lookup, reply in zip(left, came, strict=True) if lookup.take(reply, server.name)]


def _exchange(server: Transport, lookups: Sequence[_Lookup], patience: float, until: float) -> list[Came]:
    came: list[Came] = [NoResponse("a name that cannot be asked", again=False)] * len(lookups)
    dice = os.urandom(_DICE * len(lookups)) if server.mixed else b""
    queries: list[EncodedQuestion] = []
    places: list[int] = []
    for i, lookup in enumerate(lookups):
        rolled = dice[i * _DICE : (i + 1) * _DICE] if server.mixed else None
        try:
            queries.append(encode_question(lookup.name, TYPES[lookup.question.type], rolled))
            places.append(i)
        except ValueError:
            continue
    try:
        replies = server.exchange(queries, patience, until) if queries else []
    except OSError as error:  # no file descriptor is left, say
        return [NoResponse(error.strerror or type(error).__name__)] * len(lookups)
    for i, reply in zip(places, replies, strict=True):
        came[i] = reply
    return came


def _refuses_edns(reply: Came) -> bool:
    return not isinstance(reply, NoResponse) and reply.rcode in (FORMERR, NOTIMP, BADVERS)
