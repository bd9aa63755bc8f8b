"""HTTPS: each question is a POST, all of them side by side on one HTTP/2 connection (RFC 8484).

Like the LocalAPI's, each wait ends at one deadline, kept where every byte passes (ADR 0003). The message's id is 0, as
the RFC asks: the connection itself ties an answer to its question.
"""

from __future__ import annotations

import ssl
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import httpcore
import httpx
from typing_extensions import override

from clan_discovery.dnsclient.transport import Came, NoResponse, judged, side_by_side
from clan_discovery.dnsclient.wire import encode_query
from clan_discovery.localapi.transport import Body

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from clan_discovery.dnsclient.wire import EncodedQuestion

_SIDE_BY_SIDE: Final = 16
_ENOUGH_LOST: Final = 32
"""So many questions lost in a row, two for each thread: nobody is there."""
_LARGEST: Final = 65535
_TYPE: Final = "application/dns-message"
_LATE: Final = NoResponse("no answer in time")


class Https:
    """Carries questions to one URL. `connect_to` is the address behind its host, asked for by the caller."""

    edns = True
    mixed = False

    def __init__(self, url: str, connect_to: str, context: ssl.SSLContext) -> None:
        self.name = url
        self._until = _Until()
        self._lost = 0
        # trust_env off: a proxy of the environment would be asked for the name of the server.
        transport = _Transport(connect_to, context, self._until)
        self._client = httpx.Client(transport=transport, trust_env=False, follow_redirects=False)

    def exchange(self, queries: Sequence[EncodedQuestion], patience: float, until: float) -> list[Came]:
        """See `Transport.exchange`."""
        self._lost = 0
        came: list[Came] = [_LATE] * len(queries)
        shares = [range(i, len(queries), _SIDE_BY_SIDE) for i in range(min(_SIDE_BY_SIDE, len(queries)))]
        side_by_side([partial(self._share, queries, share, came, patience, until) for share in shares])
        return came

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _share(
        self, queries: Sequence[EncodedQuestion], share: Sequence[int], came: list[Came], patience: float, until: float
    ) -> None:
        for i in share:
            if time.monotonic() >= until or self._lost >= _ENOUGH_LOST:
                return
            self._until.at = min(time.monotonic() + patience, until)
            came[i] = reply = self._ask(queries[i])
            self._lost = self._lost + 1 if isinstance(reply, NoResponse) and reply.again else 0

    def _ask(self, query: EncodedQuestion) -> Came:
        try:
            return self._post(query)
        except (httpx.TimeoutException, httpcore.TimeoutException):
            return _LATE
        except Exception as error:  # noqa: BLE001 - h2 raises its own through httpx; whatever it is, nobody answered
            return NoResponse(_why(error))

    def _post(self, query: EncodedQuestion) -> Came:
        headers = {"Content-Type": _TYPE, "Accept": _TYPE, "Accept-Encoding": "identity"}
        body = b""
        content = encode_query(query, 0, edns=self.edns)
        with self._client.stream("POST", self.name, content=content, headers=headers) as came:
            if came.status_code != 200:
                again = came.status_code in (429, 500, 502, 503, 504)
                return NoResponse(f"HTTP status {came.status_code}", again=again)
            for chunk in came.iter_raw():
                body += chunk
                if len(body) > _LARGEST:
                    return NoResponse("an answer that is larger than any DNS message", again=False)
        return judged(body, query, 0) or NoResponse("an answer to something else", again=False)


class _Until(threading.local):
    """When the waiting of a thread ends: with its question."""

    at: float = 0.0

    def left(self, late: type[httpcore.TimeoutException]) -> float:
        """Return the seconds that are left; raise `late` where none are."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise late("the time is used up")
        return left


class _Stream(httpcore.NetworkStream):
    """A stream on which every wait ends in time."""

    def __init__(self, stream: httpcore.NetworkStream, until: _Until) -> None:
        self._stream = stream
        self._until = until

    @override
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._until.left(httpcore.ReadTimeout))

    @override
    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._until.left(httpcore.WriteTimeout))

    @override
    def close(self) -> None:
        self._stream.close()

    @override
    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._until.left(httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._until)

    @override
    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


class _Connect(httpcore.NetworkBackend):
    """Connects to one address, whatever the URL's host is called."""

    def __init__(self, address: str, until: _Until) -> None:
        self._address = address
        self._until = until
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
        left = self._until.left(httpcore.ConnectTimeout)
        stream = self._backend.connect_tcp(self._address, port, left, local_address, socket_options)
        return _Stream(stream, self._until)


class _Transport(httpx.BaseTransport):
    """httpx over HTTP/2 (or 1.1, as the server chooses) to one address."""

    def __init__(self, address: str, context: ssl.SSLContext, until: _Until) -> None:
        backend = _Connect(address, until)
        self._pool = httpcore.ConnectionPool(ssl_context=context, http2=True, network_backend=backend, retries=0)

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        sent = httpcore.Request(
            request.method,
            httpcore.URL(str(request.url)),
            headers=request.headers.raw,
            content=request.read(),
            extensions=request.extensions,
        )
        response = self._pool.handle_request(sent)
        return httpx.Response(response.status, headers=response.headers, stream=Body(response))

    @override
    def close(self) -> None:
        self._pool.close()


def _why(error: Exception) -> str:
    # httpcore raises its own errors again `from None`: the kernel's, or TLS's, is somewhere behind them.
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(error) or type(error).__name__
