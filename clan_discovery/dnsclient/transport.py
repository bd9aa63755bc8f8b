"""What carries questions to one server promises, whatever it is: UDP, TCP, TLS, HTTPS."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from clan_discovery.dnsclient.message import MalformedError
from clan_discovery.dnsclient.wire import Mismatch, decode_response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clan_discovery.dnsclient.message import Response
    from clan_discovery.dnsclient.wire import EncodedQuestion


class NoResponse(NamedTuple):
    """No reply. `again`: the server may answer if it is asked once more; else it did, and not with a message."""

    reason: str
    again: bool = True


Came: TypeAlias = "Response | NoResponse"


class Transport(Protocol):
    """Carries questions to one server. `edns` and `mixed` are lowered for a server that cannot take them."""

    edns: bool
    mixed: bool

    @property
    def name(self) -> str:
        """The server as people write it."""
        ...

    def exchange(self, queries: Sequence[EncodedQuestion], patience: float, until: float) -> list[Came]:
        """Ask these side by side; one reply or loss for each, in their order. Raises nothing.

        `patience` is for how many seconds a reply is waited for, `until` (monotonic) when all waiting ends.
        """
        ...

    def close(self) -> None:
        """Let go of what is kept open."""
        ...


def side_by_side(works: Sequence[Callable[[], None]]) -> None:
    """Do these in threads, and wait for all. Whoever is interrupted meanwhile (SIGTERM) waits for none of them."""
    if len(works) == 1:
        works[0]()
        return
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def numbers(count: int) -> list[int]:
    """Return so many random message ids."""
    dice = os.urandom(2 * count)
    return [dice[i] << 8 | dice[i + 1] for i in range(0, 2 * count, 2)]


def judged(body: bytes, query: EncodedQuestion, number: int) -> Came | None:
    """Read a reply that came over a connection, where the case proves nothing; None: it answers something else."""
    try:
        reply = decode_response(body, query, number, exact_case=False)
    except MalformedError as error:
        return NoResponse(str(error), again=False)
    return None if isinstance(reply, Mismatch) else reply
