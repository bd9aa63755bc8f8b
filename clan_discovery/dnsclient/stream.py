"""Send questions over TCP or TLS (RFC 7766, RFC 7858).

Responses arrive in any order. A few connections are used at once, each with a window of questions in flight. After the
server closes a connection, its remaining questions are sent on a new one, and once more if that brought no response. A
server that responds only to the first of several questions (NSD over TLS) gets one question at a time.
"""

from __future__ import annotations

import secrets
import socket
import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from clan_discovery.dnsclient.transport import (
    TIMED_OUT,
    NoResponse,
    Received,
    Transport,
    decode_on_connection,
    no_response,
    remaining,
    run_in_threads,
)
from clan_discovery.dnsclient.wire import encode_query

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Sequence

    from clan_discovery.dnsclient.wire import EncodedQuestion

_CONNECTIONS: Final = 4
_WINDOW: Final = 32
"""Questions in flight on one connection: on all of them, half as many as over UDP."""
_TRIES: Final = 2
_CLOSED: Final = NoResponse("the server closed the connection")


@dataclass(slots=True, kw_only=True)
class StreamTransport(Transport):
    """Sends questions over TCP, or over TLS with a `context`.

    `server_name` is the name in the certificate.
    """

    host: str
    port: int
    context: ssl.SSLContext | None = None
    server_name: str | None = None
    window: int = _WINDOW

    @override
    def exchange(self, questions: Sequence[EncodedQuestion], patience: float, until: float) -> list[Received]:
        results: list[Received] = [TIMED_OUT] * len(questions)

        def ask(indexes: range) -> None:
            self._ask_share(_Share(questions, results, dict.fromkeys(indexes)), patience, until)

        run_in_threads(len(questions), _CONNECTIONS, ask)
        return results

    def _ask_share(self, share: _Share, patience: float, until: float) -> None:
        """Ask questions on one connection after the other.

        It stops if no question is left or the server does not respond.
        """
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
            with self._connect(min(time.monotonic() + patience, until)) as sock:
                while share.left:
                    count = min(window, len(share.left), self.pace.most_at_once)
                    self._wait(self.pace.reserve(count), until)
                    if not self._ask_window(sock, share, count, min(time.monotonic() + patience, until)):
                        break
        except TimeoutError:
            return TIMED_OUT
        except OSError as error:
            return no_response(error)
        except ValueError as error:  # a server name that TLS cannot send
            return NoResponse(str(error), retry=False)
        return _CLOSED

    def _wait(self, seconds: float, until: float) -> None:
        """Wait until questions may be sent.

        Raises:
            TimeoutError: that is too late.
        """
        if seconds > 0:
            if seconds >= remaining(until):
                raise TimeoutError
            time.sleep(seconds)

    def _connect(self, until: float) -> socket.socket:
        sock = socket.create_connection((self.host, self.port), remaining(until))
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context is None:
                return sock
            sock.settimeout(remaining(until))
            return self.context.wrap_socket(sock, server_hostname=self.server_name)
        except BaseException:
            sock.close()
            raise

    def _ask_window(self, sock: socket.socket, share: _Share, window: int, until: float) -> bool:
        """Send the next questions, and read their responses.

        Returns whether the connection can be used for more.
        """
        in_flight = {secrets.randbits(16): index for index in islice(share.left, window)}
        sock.settimeout(remaining(until))
        queries = [encode_query(share.questions[i], id_, edns=self.edns) for id_, i in in_flight.items()]
        sock.sendall(b"".join(len(query).to_bytes(2, "big") + query for query in queries))
        for body in _messages(sock, until):
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
    """The questions of one connection.

    `questions` and `results` are those of all connections; `left` are the indexes of the questions to ask on this one.
    """

    questions: Sequence[EncodedQuestion]
    results: list[Received]
    left: dict[int, None]


def _messages(sock: socket.socket, until: float) -> Iterator[bytes]:
    """Yield the messages of a stream until the server closes it."""
    buffer = b""
    while True:
        end = 2 + int.from_bytes(buffer[:2], "big")
        if len(buffer) >= max(end, 2):
            yield buffer[2:end]
            buffer = buffer[end:]
            continue
        sock.settimeout(remaining(until))
        received = sock.recv(65536)
        if not received:
            return
        buffer += received
