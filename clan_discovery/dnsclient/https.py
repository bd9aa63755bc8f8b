"""Send questions over HTTPS, several at once on one HTTP/2 connection (RFC 8484).

Each question is a POST. As in the LocalAPI client, a deadline covers all waiting for one response (ADR 0003). The
message id is 0, as the RFC recommends: HTTP tells which response belongs to which question.

All requests of a connection are tasks of one event loop. Threads cannot share an HTTP/2 connection of httpcore: h2 has
no lock, and two threads take the same stream number (seen with httpcore 1.0.9).
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpcore
from typing_extensions import override

from clan_discovery.dnsclient.transport import (
    TIMED_OUT,
    NoResponse,
    Received,
    Transport,
    decode_on_connection,
    no_response,
)
from clan_discovery.dnsclient.wire import encode_query

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Sequence

    from clan_discovery.dnsclient.pace import Pace
    from clan_discovery.dnsclient.wire import EncodedQuestion

_TASKS: Final = 6
"""Questions in flight. With 9, BIND 9.18.49 does not respond to some of them; 8 are no problem (measured)."""
_MAX_UNANSWERED: Final = 2 * _TASKS
"""After this many questions in a row without a response, the server is not asked any more."""
_MAX_BODY: Final = 65535
_TYPE: Final = "application/dns-message"
_HEADERS: Final = [
    ("Content-Type", _TYPE),
    ("Accept", _TYPE),
    ("Accept-Encoding", "identity"),
    ("User-Agent", "clan-discovery"),
]
_RETRY_STATUS: Final = frozenset({429, 500, 502, 503, 504})


class HttpsTransport(Transport):
    """Sends questions to one URL.

    `address` is the IP address of its host, which the caller looked up.
    """

    def __init__(self, url: str, address: str, context: ssl.SSLContext, pace: Pace) -> None:
        super().__init__(name=url, pace=pace)
        self._unanswered = 0
        self._runner = asyncio.Runner(loop_factory=_new_event_loop)  # called at the first exchange
        self._is_used = False
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context, http2=True, network_backend=_Backend(), retries=0
        )
        named = urlsplit(url)
        target = httpcore.URL(url).target
        self._url = httpcore.URL(scheme="https", host=address, port=named.port or 443, target=target)
        self._headers = [("Host", named.netloc), *_HEADERS]
        self._extensions = {"sni_hostname": named.hostname}  # the certificate must be for this name

    @override
    def exchange(self, questions: Sequence[EncodedQuestion], patience: float, until: float) -> list[Received]:
        self._unanswered = 0
        results: list[Received] = [TIMED_OUT] * len(questions)
        left = iter(range(len(questions)))

        async def ask_next() -> None:
            for index in left:
                wait = self.pace.reserve()
                if time.monotonic() + wait >= until or self._unanswered >= _MAX_UNANSWERED:
                    return
                await asyncio.sleep(wait)
                result = results[index] = await self._ask(questions[index], min(time.monotonic() + patience, until))
                if isinstance(result, NoResponse) and result.retry:
                    self._unanswered += 1
                else:
                    self._unanswered = 0

        async def ask_all() -> None:
            self._is_used = True
            await asyncio.gather(*(ask_next() for _ in range(min(_TASKS, len(questions)))))

        self._runner.get_loop()  # raises OSError if none can be created
        self._runner.run(ask_all())
        return results

    @override
    def close(self) -> None:
        if self._is_used:
            with suppress(OSError):  # anyio imports modules here, which needs a file descriptor
                self._runner.run(self._pool.aclose())
        self._runner.close()

    async def _ask(self, question: EncodedQuestion, deadline: float) -> Received:
        try:
            async with asyncio.timeout_at(deadline):  # the clock of the event loop is time.monotonic
                return await self._post(question)
        except TimeoutError:
            return TIMED_OUT
        except Exception as error:  # noqa: BLE001 - errors of h2 pass through httpcore; any error means no response
            return no_response(error)

    async def _post(self, question: EncodedQuestion) -> Received:
        query = encode_query(question, 0, edns=self.edns)
        body = b""
        async with self._pool.stream(
            "POST", self._url, headers=self._headers, content=query, extensions=self._extensions
        ) as response:
            if response.status != 200:
                return NoResponse(f"HTTP status {response.status}", retry=response.status in _RETRY_STATUS)
            async for chunk in response.aiter_stream():
                body += chunk
                if len(body) > _MAX_BODY:
                    return NoResponse("the response is larger than any DNS message", retry=False)
        return decode_on_connection(body, question, 0) or NoResponse("a response to something else", retry=False)


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """Create an event loop.

    Raises:
        OSError: no file descriptors are left. asyncio would raise it, too, but leave an incomplete loop that prints
            tracebacks.
    """
    first, second = socket.socketpair()
    with first, second, selectors.DefaultSelector():
        pass
    return asyncio.new_event_loop()


class _Backend(httpcore.AsyncNetworkBackend):
    """Wraps httpcore's asyncio backend to close streams after a cancelled handshake.

    httpcore leaves a stream open if a deadline ends its handshake.
    """

    def __init__(self) -> None:
        backend: object = httpcore.AnyIOBackend()
        if not isinstance(backend, httpcore.AsyncNetworkBackend):  # httpcore's placeholder for a missing anyio
            raise TypeError("anyio is not installed")
        self._backend = backend

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._backend.connect_tcp(host, port, timeout, local_address, socket_options))


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    @override
    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except asyncio.CancelledError:  # the deadline, at which httpcore leaves it open
            await self._stream.aclose()
            raise
