"""TCP and TLS: questions follow each other on a connection, and answers come in any order (RFC 7766, RFC 7858).

A few connections side by side, each with a window of questions on their way. A server that hangs up is connected to
again, and once more where nothing came: what it did not answer then is lost. One that answers the first of several
questions and no other (NSD over TLS) is asked one by one.
"""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from clan_discovery.dnsclient.transport import Came, NoResponse, judged, numbers, side_by_side
from clan_discovery.dnsclient.wire import encode_query

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clan_discovery.dnsclient.wire import EncodedQuestion

CONNECTIONS: Final = 4
WINDOW: Final = 32
"""Questions on their way on one connection: with the connections, half of what is in flight over UDP."""
_TRIES: Final = 2
_LATE: Final = NoResponse("no answer in time")
_HUNG_UP: Final = NoResponse("the server hung up")


@dataclass(slots=True)
class Stream:
    """Carries questions over TCP, or over TLS where there is a `context`; its certificate names `server_name`."""

    host: str
    port: int
    name: str
    context: ssl.SSLContext | None = None
    server_name: str | None = None
    edns: bool = True
    mixed: bool = False
    window: int = WINDOW

    def exchange(self, queries: Sequence[EncodedQuestion], patience: float, until: float) -> list[Came]:
        """See `Transport.exchange`."""
        shares = [range(i, len(queries), CONNECTIONS) for i in range(min(CONNECTIONS, len(queries)))]
        came: list[Came] = [_LATE] * len(queries)
        side_by_side([partial(self._share, queries, share, came, patience, until) for share in shares])
        return came

    def close(self) -> None:
        """Nothing is kept open."""

    def _share(
        self, queries: Sequence[EncodedQuestion], share: Sequence[int], came: list[Came], patience: float, until: float
    ) -> None:
        """Ask a share of the questions on one connection, and on a second one where the server hangs up."""
        left = dict.fromkeys(share)
        tries = _TRIES
        while left and tries > 0:
            before, window = len(left), self.window
            why = _HUNG_UP
            try:
                with self._connect(_Clock(patience, until)) as sock:
                    while left and self._window(sock, queries, left, came, _Clock(patience, until), window=window):
                        pass
            except TimeoutError:
                why = _LATE
                tries = tries if window > 1 and len(left) < before else 0
                self.window = 1
            except OSError as error:
                why = NoResponse(_why(error))
            except ValueError as error:  # a server name that TLS cannot say
                why, tries = NoResponse(str(error), again=False), 0
            if len(left) == before:  # nothing at all came
                tries -= 1
            for i in left:
                came[i] = why

    def _connect(self, clock: _Clock) -> socket.socket:
        sock = socket.create_connection((self.host, self.port), clock.left())
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context is None:
                return sock
            sock.settimeout(clock.left())
            return self.context.wrap_socket(sock, server_hostname=self.server_name or self.host)
        except BaseException:
            sock.close()
            raise

    def _window(
        self,
        sock: socket.socket,
        queries: Sequence[EncodedQuestion],
        left: dict[int, None],
        came: list[Came],
        clock: _Clock,
        *,
        window: int,
    ) -> bool:
        """Send the next questions and read until each is answered; say whether the connection may go on."""
        asked = dict(zip(numbers(window), left, strict=False))
        sock.settimeout(clock.left())
        out = [encode_query(queries[i], number, edns=self.edns) for number, i in asked.items()]
        sock.sendall(b"".join(len(body).to_bytes(2, "big") + body for body in out))
        for body in _messages(sock, clock):
            number = int.from_bytes(body[:2], "big")
            index = asked.get(number)
            reply = judged(body, queries[index], number) if index is not None else None
            if index is not None and reply is not None:
                came[index] = reply
                del asked[number], left[index]
                if not asked:
                    return True
        return False


class _Clock:
    """When waiting ends: after `patience` seconds, or at `until`."""

    def __init__(self, patience: float, until: float) -> None:
        self._until = min(time.monotonic() + patience, until)

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            TimeoutError: none are.
        """
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _messages(sock: socket.socket, clock: _Clock) -> Iterator[bytes]:
    """Yield the messages of a stream until it ends.

    Raises:
        TimeoutError: the time ended before.
        OSError: the connection broke.
    """
    buffer = b""
    while True:
        while len(buffer) >= 2 and len(buffer) >= 2 + (size := int.from_bytes(buffer[:2], "big")):
            yield buffer[2 : 2 + size]
            buffer = buffer[2 + size :]
        sock.settimeout(clock.left())
        more = sock.recv(65536)
        if not more:
            return
        buffer += more


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    return error.strerror or type(error).__name__
