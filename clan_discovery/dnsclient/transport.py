"""Define what a transport to one DNS server does: UDP, TCP, TLS or HTTPS."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from clan_discovery.dnsclient.message import MalformedError
from clan_discovery.dnsclient.wire import Mismatch, decode_response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clan_discovery.dnsclient.message import Response
    from clan_discovery.dnsclient.wire import EncodedQuestion


class NoResponse(NamedTuple):
    """Why a question has no response; without `retry` the server sent something, and asking again does not help."""

    reason: str
    retry: bool = True


TIMED_OUT: Final = NoResponse("no response in time")


class Transport(Protocol):
    """Sends questions to one server.

    The caller turns off `edns` for a server that does not understand it. The transport turns off `randomise_case` (0x20
    case randomisation) for a server that does not keep the case.
    """

    edns: bool
    randomise_case: bool

    @property
    def name(self) -> str:
        """The server, as the config writes it."""
        ...

    def exchange(
        self, questions: Sequence[EncodedQuestion], patience: float, until: float
    ) -> list[Response | NoResponse]:
        """Ask several questions at once; return the result of each, in their order.

        `patience` is how many seconds to wait for one response, `until` (monotonic) when all waiting ends.

        Raises:
            OSError: no socket could be opened at all.
        """
        ...

    def close(self) -> None:
        """Close connections that were kept open."""
        ...


def run_in_threads(tasks: Sequence[Callable[[], None]]) -> None:
    """Run tasks in threads and wait for all. The threads do not delay the end of the process (SIGTERM)."""
    if len(tasks) == 1:
        tasks[0]()
        return
    threads = [threading.Thread(target=task, daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def shares(count: int, most: int) -> list[range]:
    """Divide the numbers below `count` into at most `most` shares."""
    return [range(first, count, most) for first in range(min(most, count))]


def message_ids(count: int) -> list[int]:
    """Return random message ids."""
    random = os.urandom(2 * count)
    return [int.from_bytes(random[i : i + 2], "big") for i in range(0, 2 * count, 2)]


def decode_on_connection(body: bytes, question: EncodedQuestion, message_id: int) -> Response | NoResponse | None:
    """Decode a response received on a connection; None if it does not answer the question.

    The case of its letters may differ: nobody else can send on a connection.
    """
    try:
        response = decode_response(body, question, message_id, exact_case=False)
    except MalformedError as error:
        return NoResponse(str(error), retry=False)
    if isinstance(response, Mismatch):
        return None
    return response
