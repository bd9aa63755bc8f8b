"""Send questions over TCP or TLS, where responses arrive in any order (RFC 7766, RFC 7858).

A few connections are used at once, each with a window of questions in flight. After the server closes a connection, the
rest of its questions is sent on a new one, and once more if that brought no response. A server that responds to the
first of several questions only (NSD over TLS) gets one question at a time.
"""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from clan_discovery.dnsclient.transport import (
    TIMED_OUT,
    NoResponse,
    decode_on_connection,
    message_ids,
    run_in_threads,
    shares,
)
from clan_discovery.dnsclient.wire import encode_query

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clan_discovery.dnsclient.message import Response
    from clan_discovery.dnsclient.wire import EncodedQuestion

CONNECTIONS: Final = 4
WINDOW: Final = 32
"""Questions in flight on one connection: on all of them, half as many as over UDP."""
_TRIES: Final = 2
_CLOSED: Final = NoResponse("the server closed the connection")


@dataclass(slots=True)
class StreamTransport:
    """Sends questions over TCP, or over TLS with a `context`; `server_name` is the name in the certificate."""

    host: str
    port: int
    name: str
    context: ssl.SSLContext | None = None
    server_name: str | None = None
    edns: bool = True
    randomise_case: bool = False
    window: int = WINDOW

    def exchange(
        self, questions: Sequence[EncodedQuestion], patience: float, until: float
    ) -> list[Response | NoResponse]:
        """Ask several questions at once; see `Transport.exchange`."""
        results: list[Response | NoResponse] = [TIMED_OUT] * len(questions)
        run_in_threads(
            [
                partial(self._ask_share, _Share(questions, results, dict.fromkeys(share)), patience, until)
                for share in shares(len(questions), CONNECTIONS)
            ]
        )
        return results

    def close(self) -> None:
        """Do nothing: no connection is kept open."""

    def _ask_share(self, share: _Share, patience: float, until: float) -> None:
        """Ask questions on one connection after the other, until none is left or the server stops responding."""
        tries = _TRIES
        while share.left and tries > 0:
            before, window = len(share.left), self.window
            why = self._use_connection(share, window, patience, until)
            for index in share.left:
                share.results[index] = why
            got_none = len(share.left) == before
            if why is TIMED_OUT:
                self.window = 1
                if got_none or window == 1:
                    return
            if not why.retry:
                return
            if got_none:
                tries -= 1

    def _use_connection(self, share: _Share, window: int, patience: float, until: float) -> NoResponse:
        """Ask on one connection until it ends; return why it ended."""
        try:
            with self._connect(_Timer(patience, until)) as sock:
                while share.left and self._ask_window(sock, share, window, _Timer(patience, until)):
                    pass
        except TimeoutError:
            return TIMED_OUT
        except OSError as error:
            return NoResponse(_reason(error))
        except ValueError as error:  # a server name that TLS cannot send
            return NoResponse(str(error), retry=False)
        return _CLOSED

    def _connect(self, timer: _Timer) -> socket.socket:
        sock = socket.create_connection((self.host, self.port), timer.remaining())
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context is None:
                return sock
            sock.settimeout(timer.remaining())
            return self.context.wrap_socket(sock, server_hostname=self.server_name or self.host)
        except BaseException:
            sock.close()
            raise

    def _ask_window(self, sock: socket.socket, share: _Share, window: int, timer: _Timer) -> bool:
        """Send the next questions and read their responses; tell whether the connection can be used for more."""
        in_flight = dict(zip(message_ids(window), share.left, strict=False))
        sock.settimeout(timer.remaining())
        queries = [encode_query(share.questions[i], id_, edns=self.edns) for id_, i in in_flight.items()]
        sock.sendall(b"".join(len(query).to_bytes(2, "big") + query for query in queries))
        for body in _messages(sock, timer):
            message_id = int.from_bytes(body[:2], "big")
            index = in_flight.get(message_id)
            if index is None:
                continue
            result = decode_on_connection(body, share.questions[index], message_id)
            if result is None:
                continue
            share.results[index] = result
            del in_flight[message_id], share.left[index]
            if not in_flight:
                return True
        return False


@dataclass(slots=True)
class _Share:
    """The questions of one connection: all questions and results, and the indexes of those left to ask."""

    questions: Sequence[EncodedQuestion]
    results: list[Response | NoResponse]
    left: dict[int, None]


class _Timer:
    """The end of a wait: after `patience` seconds, or at `until`."""

    def __init__(self, patience: float, until: float) -> None:
        self._until = min(time.monotonic() + patience, until)

    def remaining(self) -> float:
        """Return the remaining seconds.

        Raises:
            TimeoutError: none remain.
        """
        remaining = self._until - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        return remaining


def _messages(sock: socket.socket, timer: _Timer) -> Iterator[bytes]:
    """Yield the messages of a stream until the server closes it.

    Raises:
        TimeoutError: the time ended before.
        OSError: the connection failed.
    """
    buffer = b""
    while True:
        end = 2 + int.from_bytes(buffer[:2], "big")
        if len(buffer) >= max(end, 2):
            yield buffer[2:end]
            buffer = buffer[end:]
            continue
        sock.settimeout(timer.remaining())
        received = sock.recv(65536)
        if not received:
            return
        buffer += received


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    return error.strerror or type(error).__name__
