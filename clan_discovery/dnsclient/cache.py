"""Cache DNS answers.

An answer is valid until its TTL ends, and usable for longer while no server responds.
"""

from __future__ import annotations

import re
import zlib
from functools import partial
from socket import AF_INET, AF_INET6, inet_pton  # parses an address, does no I/O
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import msgspec

from clan_discovery.dnsclient.lookup import Absent, Found
from clan_discovery.dnsclient.message import AAAA, MAX_TTL, A, Question, RecordType
from clan_discovery.dnsclient.names import is_below, is_name, service_domain
from clan_discovery.elapsed import LATEST, Behind, elapsed, noted

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

    from clan_discovery.dnsclient.message import Record

Absence: TypeAlias = Literal["", "NXDOMAIN", "NODATA"]

_FAMILIES: Final[dict[int, RecordType]] = {A: "A", AAAA: "AAAA"}
_SRV: Final = re.compile(r"([0-9]{1,5}) ([0-9]{1,5}) ([0-9]{1,5}) (?P<target>\S+)")
_MAX_ABSENT_S: Final = 300.0
"""The longest negative caching: a new machine is found after this time, whatever TTL the zone has."""
_FORGET_S: Final = 86400.0
_SPREAD_S: Final = 30.0
"""The time between the parts of a list that is spread over its TTL. Each part costs a refresh cycle."""
_MOST: Final = 100_000


class CachedAnswer(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An answer to a question, received `at` a time and valid `until` a later time.

    Times are in seconds since the epoch. It has either `records`, as `Record.text` writes them, or an absence that a
    server proved. `behind` is the time that passed while the clock was before `at` (`elapsed`).
    """

    name: str
    type: RecordType
    at: float
    until: float
    records: tuple[str, ...] = ()
    absent: Absence = ""
    hosting: bool = False
    behind: Behind | None = None

    def age(self, now: float) -> float:
        """Return how old the answer is, in seconds."""
        return elapsed(self.at, now, self.behind)

    def is_valid(self, now: float) -> bool:
        """Tell whether its TTL has not ended.

        An answer from the future is not valid: the clock was set back.
        """
        return self.at <= now < self.until

    @property
    def question(self) -> Question:
        """The question that this answers."""
        return Question(self.name, self.type, self.hosting)


class TtlBounds(NamedTuple):
    """The shortest and the longest time in seconds for which an answer is valid."""

    min_ttl: float
    max_ttl: float

    def clamp(self, ttl: float) -> float:
        """Return a TTL within the bounds."""
        return min(max(ttl, self.min_ttl), self.max_ttl)


class Cache:
    """The cached answers by question.

    The time is always an argument, in seconds since the epoch.
    """

    def __init__(self, answers: Iterable[CachedAnswer] = ()) -> None:
        self._answers = {answer.question: answer for answer in answers}

    @classmethod
    def from_bytes(cls, body: bytes) -> Cache:
        """Decode a cache; entries that cannot be DNS answers are dropped.

        Raises:
            ValueError: the bytes are not a cache.
        """
        try:
            entries = _ENTRIES.decode(body)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ValueError(f"not a DNS cache: {error}") from error
        return cls(filter(None, map(_sound_answer, entries)))

    def to_bytes(self) -> bytes:
        """Encode the cache as JSON."""
        return _encode(list(self))

    def __iter__(self) -> Iterator[CachedAnswer]:
        return iter(self._answers.values())

    def __len__(self) -> int:
        return len(self._answers)

    def note(self, now: float) -> None:
        """Note the time for answers from the future, so that their age counts from now on."""
        for question, answer in list(self._answers.items()):
            if answer.at > now:
                behind = noted(answer.at, now, answer.behind)
                self._answers[question] = msgspec.structs.replace(answer, behind=behind)

    def get(self, question: Question, now: float, max_age: float | None) -> CachedAnswer | None:
        """Return an answer that is valid or at most `max_age` seconds old.

        If `max_age` is None, it may have any age.
        """
        answer = self._answers.get(question)
        if answer is None or max_age is None or answer.is_valid(now) or answer.age(now) <= max_age:
            return answer
        return None

    def ever(self, question: Question) -> CachedAnswer | None:
        """Return the answer, whatever its age."""
        return self._answers.get(question)

    def is_absent(self, name: str, types: Iterable[RecordType]) -> bool:
        """Tell whether a server proved that a name has no records of these types."""
        answers = [self._answers.get(Question(name, type_)) for type_ in types]
        return all(answer is not None and answer.absent for answer in answers)

    def until(self, question: Question) -> float | None:
        """Return until when the answer is valid; None without an answer."""
        answer = self._answers.get(question)
        return None if answer is None else answer.until

    def is_due(self, question: Question, now: float) -> bool:
        """Tell whether the question is to be asked now."""
        answer = self._answers.get(question)
        return answer is None or not answer.is_valid(now)

    def store(self, question: Question, result: Found | Absent, bounds: TtlBounds, now: float, parts: int = 1) -> None:
        """Store an answer; for SRV, also the addresses of its targets.

        An answer that comes much later than it was due, or is the first one, is valid for a share of its TTL that
        depends on the name. So a long list is asked for in up to `parts` parts from then on.

        The addresses are in the additional section. The servers of the service's domain are trusted for hosts in that
        domain; other hosts are looked up.
        """
        if isinstance(result, Absent):
            ttl = bounds.clamp(min(result.ttl or 0.0, _MAX_ABSENT_S))
            self._put(question, now, self._spread(question, ttl, now, parts), absent=result.code)
            return
        ttl = self._spread(question, bounds.clamp(result.ttl), now, parts)
        self._put(question, now, ttl, records=result.texts)
        if question.type == "SRV":
            targets = {text.rpartition(" ")[2] for text in result.texts}
            domain = service_domain(question.name)
            for host, records in _addresses(result.extra).items():
                if host.name in targets and is_below(host.name, domain):
                    ttl = bounds.clamp(min(record.ttl for record in records))
                    self._put(host, now, ttl, records=[record.text for record in records])

    def forget(self, relevant: Container[Question], now: float, max_age: float | None, most: int = _MOST) -> None:
        """Remove answers to questions that are no longer relevant.

        They are kept for `max_age` seconds (None: for one day), because the questions may become relevant again, unless
        there are more than `most` answers.
        """
        limit = _FORGET_S if max_age is None else max_age
        for question, answer in list(self._answers.items()):
            is_old = answer.age(now) > limit
            if question not in relevant and (is_old or len(self._answers) > most):
                del self._answers[question]

    def _spread(self, question: Question, ttl: float, now: float, parts: int) -> float:
        """Return the TTL, or the part of it after which a name is asked for again, so that not all are due at once."""
        parts = min(parts, int(ttl / _SPREAD_S))
        known = self._answers.get(question)
        if parts < 2 or (known is not None and now - known.until < _SPREAD_S):
            return ttl
        return ttl * (1 + zlib.crc32(question.name.encode()) % parts) / parts

    def _put(
        self, question: Question, now: float, ttl: float, *, records: Iterable[str] = (), absent: Absence = ""
    ) -> None:
        name, type_, hosting = question
        answer = CachedAnswer(name, type_, now, now + ttl, tuple(sorted(set(records))), absent, hosting)
        self._answers[question] = answer


def _addresses(additional: Iterable[Record]) -> dict[Question, list[Record]]:
    """Group address records by the question that they answer."""
    found: dict[Question, list[Record]] = {}
    for record in additional:
        found.setdefault(Question(record.name, _FAMILIES[record.type], hosting=True), []).append(record)
    return found


_ANSWER: Final = msgspec.json.Decoder(CachedAnswer)
_ENTRIES: Final = msgspec.json.Decoder(list[msgspec.Raw])
_encode: Final = msgspec.json.Encoder().encode


def _sound_answer(entry: msgspec.Raw) -> CachedAnswer | None:
    """Decode an entry; None if it cannot be a DNS answer."""
    try:
        answer = _ANSWER.decode(entry)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    has_sound_times = 0 <= answer.at <= LATEST and 0 <= answer.until - answer.at <= MAX_TTL
    has_one_meaning = bool(answer.records) != bool(answer.absent)
    if is_name(answer.name) and has_sound_times and has_one_meaning and all(map(_DATA[answer.type], answer.records)):
        return answer
    return None


def _is_address(family: int, text: str) -> bool:
    try:
        inet_pton(family, text)
    except (ValueError, OSError):
        return False
    return True


def _is_service(text: str) -> bool:
    match = _SRV.fullmatch(text)
    if match is None or not is_name(match["target"]):
        return False
    return max(map(int, match.groups()[:3])) <= 65535


_DATA: Final[dict[RecordType, Callable[[str], bool]]] = {
    "A": partial(_is_address, AF_INET),
    "AAAA": partial(_is_address, AF_INET6),
    "PTR": is_name,
    "SRV": _is_service,
    "TXT": lambda _: True,
}
