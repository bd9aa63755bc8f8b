"""Send questions over HTTPS: each is a POST, several at once on one HTTP/2 connection (RFC 8484).

As in the LocalAPI client, a deadline covers all waiting for one response (ADR 0003). The message id is 0, as the RFC
recommends: HTTP tells which response belongs to which question.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import httpcore
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
    from collections.abc import Iterable, Sequence

    from clan_discovery.dnsclient.wire import EncodedQuestion

_THREADS: Final = 16
_MAX_UNANSWERED: Final = 2 * _THREADS
"""After this many questions in a row without a response, the server is given up."""
_MAX_BODY: Final = 65535
_TYPE: Final = "application/dns-message"
_HEADERS: Final[list[tuple[bytes | str, bytes | str]]] = [
    ("Content-Type", _TYPE),
    ("Accept", _TYPE),
    ("Accept-Encoding", "identity"),
    ("User-Agent", "clan-discovery"),
]
_RETRY_STATUS: Final = frozenset({429, 500, 502, 503, 504})


class HttpsTransport(Transport):
    """Sends questions to one URL. `address` is the IP address of its host, which the caller looked up."""

    def __init__(self, url: str, address: str, context: ssl.SSLContext) -> None:
        super().__init__(name=url)
        self._deadline = _ThreadDeadline()
        self._unanswered = 0
        backend = _FixedAddressBackend(address, self._deadline)
        self._pool = httpcore.ConnectionPool(ssl_context=context, http2=True, network_backend=backend, retries=0)

    @override
    def exchange(self, questions: Sequence[EncodedQuestion], patience: float, until: float) -> list[Received]:
        self._unanswered = 0
        results: list[Received] = [TIMED_OUT] * len(questions)

        def ask(indexes: range) -> None:
            for index in indexes:
                if time.monotonic() >= until or self._unanswered >= _MAX_UNANSWERED:
                    return
                self._deadline.at = min(time.monotonic() + patience, until)
                result = results[index] = self._ask(questions[index])
                if isinstance(result, NoResponse) and result.retry:
                    self._unanswered += 1
                else:
                    self._unanswered = 0

        run_in_threads(len(questions), _THREADS, ask)
        return results

    @override
    def close(self) -> None:
        self._pool.close()

    def _ask(self, question: EncodedQuestion) -> Received:
        try:
            return self._post(question)
        except (TimeoutError, httpcore.TimeoutException):
            return TIMED_OUT
        except Exception as error:  # noqa: BLE001 - errors of h2 pass through httpcore; any error means no response
            return no_response(error)

    def _post(self, question: EncodedQuestion) -> Received:
        query = encode_query(question, 0, edns=self.edns)
        body = b""
        with self._pool.stream("POST", self.name, headers=_HEADERS, content=query) as response:
            if response.status != 200:
                return NoResponse(f"HTTP status {response.status}", retry=response.status in _RETRY_STATUS)
            for chunk in response.iter_stream():
                body += chunk
                if len(body) > _MAX_BODY:
                    return NoResponse("the response is larger than any DNS message", retry=False)
        return decode_on_connection(body, question, 0) or NoResponse("a response to something else", retry=False)


class _ThreadDeadline(threading.local):
    """When the wait of the current thread ends, for the question that it asks (monotonic)."""

    at: float = 0.0


class _DeadlineStream(httpcore.NetworkStream):
    """A stream on which every wait ends at the deadline of the thread."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _ThreadDeadline) -> None:
        self._stream = stream
        self._deadline = deadline

    @override
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, remaining(self._deadline.at))

    @override
    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, remaining(self._deadline.at))

    @override
    def close(self) -> None:
        self._stream.close()

    @override
    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            stream = self._stream.start_tls(ssl_context, server_hostname, remaining(self._deadline.at))
        except BaseException:
            self.close()  # httpcore does not close a stream without TLS
            raise
        return _DeadlineStream(stream, self._deadline)

    @override
    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


class _FixedAddressBackend(httpcore.NetworkBackend):
    """Connects to one address, whatever the host of the URL is."""

    def __init__(self, address: str, deadline: _ThreadDeadline) -> None:
        self._address = address
        self._deadline = deadline
        self._backend = httpcore.SyncBackend()

    @override
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        seconds = remaining(self._deadline.at)
        stream = self._backend.connect_tcp(self._address, port, seconds, local_address, socket_options)
        return _DeadlineStream(stream, self._deadline)
