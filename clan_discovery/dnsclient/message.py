"""Define the parts of a DNS message: questions, records, responses and codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from clan_discovery.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Mapping

RecordType: TypeAlias = Literal["A", "AAAA", "SRV", "PTR", "TXT"]
"""The record types that are asked for."""

A: Final = 1
NS: Final = 2
CNAME: Final = 5
PTR: Final = 12
TXT: Final = 16
AAAA: Final = 28
SRV: Final = 33
DNAME: Final = 39
TYPES: Final[Mapping[RecordType, int]] = {"A": A, "AAAA": AAAA, "SRV": SRV, "PTR": PTR, "TXT": TXT}

NOERROR: Final = 0
FORMERR: Final = 1
NXDOMAIN: Final = 3
NOTIMP: Final = 4
BADVERS: Final = 16
RCODES: Final = {1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 9: "NOTAUTH", 16: "BADVERS"}

MAX_TTL: Final = 0x7FFFFFFF
"""The longest TTL in seconds (RFC 2181, 8)."""


class MalformedError(BackendError):
    """The bytes are not a DNS message."""


class Question(NamedTuple):
    """A name in the form of `names`, and the type of the records to look up.

    `hosting`: the name is an SRV target. Additional records of an SRV response are used only for such questions.
    """

    name: str
    type: RecordType
    hosting: bool = False


class Record(NamedTuple):
    """A resource record: owner name, type, TTL in seconds, and data as text.

    `text` is an IP address or a name; for SRV it is `priority weight port target`, for TXT the value of `path` (RFC
    6763, 6).
    """

    name: str
    type: int
    ttl: int
    text: str


class Response(NamedTuple):
    """A decoded response to one question.

    `negative` is the negative caching TTL (RFC 2308, 5), if the response has an SOA record, and `zone` its owner.
    `referral`: the response only names other servers. `extra` are the addresses of the additional section.
    """

    rcode: int
    truncated: bool
    authoritative: bool
    recursive: bool
    answer: tuple[Record, ...] = ()
    negative: int | None = None
    zone: str = ""
    referral: bool = False
    extra: tuple[Record, ...] = ()
