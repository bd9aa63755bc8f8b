"""Send questions over HTTPS: each is a POST, several at once on one HTTP/2 connection (RFC 8484).

As in the LocalAPI client, a deadline covers all waiting for one response (ADR 0003). The message id is 0, as the RFC
recommends: HTTP tells which response belongs to which question.
"""

from __future__ import annotations

import ssl
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import httpcore
from typing_extensions import override

from clan_discovery.dnsclient.transport import (
    TIMED_OUT,
    NoResponse,
    decode_on_connection,
    run_in_threads,
    shares,
)
from clan_discovery.dnsclient.wire import encode_query

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from clan_discovery.dnsclient.message import Response
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


class HttpsTransport:
    """Sends questions to one URL. `address` is the IP address of its host, which the caller looked up."""

    edns = True
    randomise_case = False

    def __init__(self, url: str, address: str, context: ssl.SSLContext) -> None:
        self.name = url
        self._deadline = _ThreadDeadline()
        self._unanswered = 0
        backend = _FixedAddressBackend(address, self._deadline)
        self._pool = httpcore.ConnectionPool(ssl_context=context, http2=True, network_backend=backend, retries=0)

    def exchange(
        self, questions: Sequence[EncodedQuestion], patience: float, until: float
    ) -> list[Response | NoResponse]:
        """Ask several questions at once; see `Transport.exchange`."""
        self._unanswered = 0
        results: list[Response | NoResponse] = [TIMED_OUT] * len(questions)
        run_in_threads(
            [
                partial(self._ask_share, questions, share, results, patience, until)
                for share in shares(len(questions), _THREADS)
            ]
        )
        return results

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()

    def _ask_share(
        self,
        questions: Sequence[EncodedQuestion],
        share: range,
        results: list[Response | NoResponse],
        patience: float,
        until: float,
    ) -> None:
        for index in share:
            if time.monotonic() >= until or self._unanswered >= _MAX_UNANSWERED:
                return
            self._deadline.at = min(time.monotonic() + patience, until)
            result = self._ask(questions[index])
            results[index] = result
            if isinstance(result, NoResponse) and result.retry:
                self._unanswered += 1
            else:
                self._unanswered = 0

    def _ask(self, question: EncodedQuestion) -> Response | NoResponse:
        try:
            return self._post(question)
        except httpcore.TimeoutException:
            return TIMED_OUT
        except Exception as error:  # noqa: BLE001 - errors of h2 pass through httpcore; any error means no response
            return NoResponse(_reason(error))

    def _post(self, question: EncodedQuestion) -> Response | NoResponse:
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

    def remaining(self, timeout: type[httpcore.TimeoutException]) -> float:
        """Return the remaining seconds; raise `timeout` if none remain."""
        remaining = self.at - time.monotonic()
        if remaining <= 0:
            raise timeout("the time is used up")
        return remaining


class _DeadlineStream(httpcore.NetworkStream):
    """A stream on which every wait ends at the deadline of the thread."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _ThreadDeadline) -> None:
        self._stream = stream
        self._deadline = deadline

    @override
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.remaining(httpcore.ReadTimeout))

    @override
    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.remaining(httpcore.WriteTimeout))

    @override
    def close(self) -> None:
        self._stream.close()

    @override
    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            remaining = self._deadline.remaining(httpcore.ConnectTimeout)
            stream = self._stream.start_tls(ssl_context, server_hostname, remaining)
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
        remaining = self._deadline.remaining(httpcore.ConnectTimeout)
        stream = self._backend.connect_tcp(self._address, port, remaining, local_address, socket_options)
        return _DeadlineStream(stream, self._deadline)


def _reason(error: Exception) -> str:
    """Return the message of the kernel's or TLS's error behind an error of httpcore, which hides it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__
