"""Send one HTTP request on a Unix socket, under one deadline. No other module imports httpx.

One time budget covers the whole response, from connecting to the last byte, so that a daemon that sends a byte every
second times out as well. httpx's own timeouts start anew with each read, so the budget is enforced in the network
stream, below httpcore. A connection serves one request, because the daemon may be restarted between two.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpcore
import httpx
from typing_extensions import override

from clan_discovery.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping
    from pathlib import Path

# tailscaled refuses any other Host, and any Origin or Referer (ipn/localapi, since 1.34).
_BASE: Final = "http://local-tailscaled.sock/localapi/v0/"
_HINTS: Final = {
    errno.ENOENT: "is tailscaled running? its unit removes the socket when it stops",
    errno.ECONNREFUSED: "no process listens: the socket of a tailscaled that has ended, or bind-mounted",
    errno.EACCES: "this user may not open it: tailscaled creates it with mode 0666 on Linux; check the sandbox",
    errno.ENOTSOCK: "not a socket: for a saved status use status_file",
}


class LocalAPIError(BackendError):
    """No response, or an error. `status` is the HTTP status if there was one."""

    def __init__(self, message: str, *, hint: str | None = None, status: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class StreamedResponse:
    """A response whose headers were received: its status, and the chunks of its body."""

    status: int
    chunks: Iterator[bytes]


@contextlib.contextmanager
def request(path: Path, endpoint: str, query: Mapping[str, str], deadline: Deadline) -> Generator[StreamedResponse]:
    """Send `GET /localapi/v0/<endpoint>`; the block reads the response.

    Raises:
        LocalAPIError: no socket, no daemon or no response in time; reading the chunks raises it too.
    """
    headers = {"Accept-Encoding": "identity"}
    with contextlib.ExitStack() as stack:
        with _failures(path, deadline):
            client = stack.enter_context(httpx.Client(transport=_UnixTransport(path, deadline), trust_env=False))
            stream = client.stream("GET", _BASE + endpoint, params=dict(query), headers=headers)
            response = stack.enter_context(stream)
        yield StreamedResponse(response.status_code, _chunks(response, path, deadline))


def _chunks(response: httpx.Response, path: Path, deadline: Deadline) -> Iterator[bytes]:
    with _failures(path, deadline):
        yield from response.iter_raw()


@contextlib.contextmanager
def _failures(path: Path, deadline: Deadline) -> Generator[None]:
    """Convert errors of httpx, httpcore and the kernel."""
    try:
        yield
    except TimeoutError as error:
        what = f"no complete response from {path} within {deadline.budget:g} s"
        raise LocalAPIError(what, hint="does tailscaled hang? see its journal") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpx.HTTPError, OSError, ValueError) as error:
        # ValueError: a NUL in the path.
        raise _failed(path, error) from error


def _failed(path: Path, error: Exception) -> LocalAPIError:
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        return LocalAPIError(f"socket {path}: {str(error) or type(error).__name__}")
    if number == errno.ECONNREFUSED and not path.is_socket():
        number = errno.ENOTSOCK  # the kernel refuses a connection to any other file, too
    return LocalAPIError(f"socket {path}: {os.strerror(number)}", hint=_HINTS.get(number))


class Deadline:
    """The end of all waiting: `budget` seconds from now, never (`at` is None), or at once (`abort`)."""

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.at: float | None = time.monotonic() + budget
        self.sock: socket.socket | None = None
        self.aborted = False

    def remaining(self) -> float | None:
        """Return the remaining seconds; None if unlimited.

        Raises:
            TimeoutError: none remain.
            ConnectionAbortedError: `abort` was called.
        """
        if self.aborted:
            raise ConnectionAbortedError("aborted")
        if self.at is None:
            return None
        remaining = self.at - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        return remaining

    def abort(self) -> None:
        """End every wait at once, from any thread."""
        self.aborted = True
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)  # unlike closing, this wakes a reader


class _SocketStream(httpcore.NetworkStream):
    """A connected socket on which every wait ends at the deadline. Errors of the kernel pass through httpcore."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        deadline.sock = sock

    @override
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._sock.settimeout(self._deadline.remaining())
        return self._sock.recv(max_bytes)

    @override
    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._sock.settimeout(self._deadline.remaining())
        try:
            self._sock.sendall(buffer)
        except ConnectionError as error:  # httpcore then reads what the daemon sent before it closed the connection
            raise httpcore.WriteError(str(error)) from error

    @override
    def close(self) -> None:
        self._deadline.sock = None
        self._sock.close()


class _UnixBackend(httpcore.NetworkBackend):
    """Connects to Unix sockets."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    @override
    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._deadline.remaining())
            sock.connect(path)
        except BaseException:
            sock.close()
            raise
        return _SocketStream(sock, self._deadline)


class _Body(httpx.SyncByteStream):
    """The body of a response of httpcore, for httpx."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    @override
    def __iter__(self) -> Iterator[bytes]:
        yield from self._response.iter_stream()

    @override
    def close(self) -> None:
        self._response.close()


class _UnixTransport(httpx.BaseTransport):
    """Sends requests of httpx on a Unix socket."""

    def __init__(self, path: Path, deadline: Deadline) -> None:
        # There is no TLS on the socket; an empty context saves the time to load the certificates.
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            max_keepalive_connections=0,
            retries=0,
            uds=str(path),
            network_backend=_UnixBackend(deadline),
        )

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(str(request.url))
        response = self._pool.handle_request(
            httpcore.Request(request.method, url, headers=request.headers.raw, extensions=request.extensions)
        )
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response))

    @override
    def close(self) -> None:
        self._pool.close()
