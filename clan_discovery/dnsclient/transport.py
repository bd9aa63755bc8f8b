"""Define the interface of a transport to one DNS server, with shared functions."""

from __future__ import annotations

import os
import ssl
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from clan_discovery.dnsclient.message import MalformedError, Response
from clan_discovery.dnsclient.pace import Pace
from clan_discovery.dnsclient.wire import Mismatch, decode_response
from clan_discovery.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clan_discovery.dnsclient.wire import EncodedQuestion


class NoResponse(NamedTuple):
    """Why a question has no response.

    Without `retry`, the server sent something unusable, and asking again does not help.
    """

    reason: str
    retry: bool = True


Received: TypeAlias = Response | NoResponse
TIMED_OUT: Final = NoResponse("no response in time")
NOT_ASKED: Final = NoResponse("not asked: the time was used up")


@dataclass(slots=True, kw_only=True)
class Transport(ABC):
    """Sends questions to one server. `name` is the server as written in the config.

    The caller turns off `edns` for a server that does not support it. The transport turns off `randomise_case` (0x20
    case randomisation) for a server that does not keep the case. `pace` limits how many are sent per second.
    """

    name: str
    pace: Pace = field(default_factory=Pace)
    edns: bool = True
    randomise_case: bool = False

    @abstractmethod
    def exchange(self, questions: Sequence[EncodedQuestion], patience: float, until: float) -> list[Received]:
        """Ask several questions at once; return their results in the same order.

        `patience` is how many seconds to wait for one response, `until` (monotonic) when all waiting ends.

        Raises:
            OSError: no socket could be opened at all.
        """

    def close(self) -> None:  # noqa: B027 - most keep no connection open
        """Close connections that were kept open."""


def run_in_threads(count: int, most: int, task: Callable[[range], None]) -> None:
    """Divide the numbers below `count` among at most `most` threads, and wait for all.

    If no thread can be started, everything runs in this one. The threads do not delay the end of the process (SIGTERM).
    """
    shares = [range(first, count, most) for first in range(min(most, count))]
    if len(shares) == 1:
        task(shares[0])
        return
    workers = [Worker(partial(task, share)) for share in shares]
    for worker in workers:
        try:
            worker.start()
        except RuntimeError:  # no more threads can be started
            worker.run()
    for worker in workers:
        worker.join()


def remaining(until: float) -> float:
    """Return the seconds until a time (monotonic).

    Raises:
        TimeoutError: none remain.
    """
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def no_response(error: BaseException) -> NoResponse:
    """Return the message of the kernel's or TLS's error.

    httpcore and asyncio wrap it in exceptions of their own.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return NoResponse(f"its certificate is not trusted: {cause.verify_message}")
        if isinstance(cause, ssl.SSLError) and cause.strerror:
            return NoResponse(cause.strerror)
        if isinstance(cause, OSError) and cause.errno:
            return NoResponse(os.strerror(cause.errno))
        cause = cause.__cause__ or cause.__context__
    return NoResponse(str(error) or type(error).__name__)


def decode_on_connection(body: bytes, question: EncodedQuestion, message_id: int) -> Received | None:
    """Decode a response received on a connection; None if it is for another question.

    The case of its letters may differ: a third party cannot send on a connection.
    """
    try:
        response = decode_response(body, question, message_id, exact_case=False)
    except MalformedError as error:
        return NoResponse(str(error), retry=False)
    if isinstance(response, Mismatch):
        return None
    return response
