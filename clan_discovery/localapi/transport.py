"""Send one HTTP request on a Unix socket, with one deadline.

No other module imports httpx. One time budget covers the whole response, from connecting to the last byte, so a daemon
that sends a byte every second times out as well. httpx's own timeouts restart with each read, so the socket enforces
the budget. A connection serves one request, because the daemon may be restarted between two. It uses http.client:
importing httpcore instead would take 25 ms of each start (ADR 0003).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from typing import TYPE_CHECKING, Final

import httpx
import msgspec
from typing_extensions import override

from clan_discovery.deadline import BoundedSocket
from clan_discovery.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from pathlib import Path

    from clan_discovery.deadline import Deadline

# tailscaled refuses any other Host, and any Origin or Referer (ipn/localapi, since 1.34).
_HOST: Final = "local-tailscaled.sock"
_BASE: Final = f"http://{_HOST}/localapi/v0/"
_CHUNK: Final = 256 * 1024
_HINTS: Final = {
    errno.ENOENT: "is tailscaled running? its unit removes the socket when it stops",
    errno.ECONNREFUSED: "no process listens: tailscaled has ended, or its old socket is bind-mounted",
    errno.EACCES: "this user may not open it: tailscaled creates it with mode 0666 on Linux; check the sandbox",
    errno.ENOTSOCK: "not a socket: for a saved status use status_file",
}


class LocalAPIError(BackendError):
    """No response, or an error. `status` is the HTTP status, if there was one."""

    def __init__(self, message: str, *, hint: str | None = None, status: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class StreamedResponse(msgspec.Struct, frozen=True):
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
    """Convert errors of httpx, http.client and the kernel."""
    try:
        yield
    except TimeoutError as error:
        what = f"no complete response from {path} within {deadline.budget:g} s"
        raise LocalAPIError(what, hint="does tailscaled hang? see its journal") from error
    except (HTTPException, httpx.HTTPError, OSError, ValueError) as error:
        # ValueError: a NUL in the path.
        raise _failed(path, error) from error


def _failed(path: Path, error: Exception) -> LocalAPIError:
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        return LocalAPIError(f"socket {path}: {str(error) or type(error).__name__}")
    if number == errno.ECONNREFUSED and not path.is_socket():
        number = errno.ENOTSOCK  # the kernel refuses a connection to any other file, too
    return LocalAPIError(f"socket {path}: {os.strerror(number)}", hint=_HINTS.get(number))


class _UnixTransport(httpx.BaseTransport):
    """Sends one request of httpx on a Unix socket."""

    def __init__(self, path: Path, deadline: Deadline) -> None:
        self._path = path
        self._deadline = deadline
        self._connection = HTTPConnection(_HOST)

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._connect()
        self._connection.putrequest(
            request.method, request.url.raw_path.decode("ascii"), skip_host=True, skip_accept_encoding=True
        )
        for name, value in request.headers.raw:
            self._connection.putheader(name, value)
        with contextlib.suppress(ConnectionError):  # read what the daemon sent before it closed the connection
            self._connection.endheaders()
        response = self._connection.getresponse()
        return httpx.Response(response.status, stream=_Body(response))  # the headers are not used

    def _connect(self) -> None:
        sock = BoundedSocket(self._deadline, socket.AF_UNIX)
        self._connection.sock = sock  # `close` closes it
        sock.settimeout(self._deadline.remaining())
        sock.connect(str(self._path))
        self._deadline.sock = sock

    @override
    def close(self) -> None:
        self._deadline.sock = None
        self._connection.close()


class _Body(httpx.SyncByteStream):
    """The body of a response of http.client, for httpx."""

    def __init__(self, response: HTTPResponse) -> None:
        self._response = response

    @override
    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._response.read1(_CHUNK):
            yield chunk
        if self._response.length:  # read1 ends without an error where the connection ends too early
            raise IncompleteRead(b"", self._response.length)

    @override
    def close(self) -> None:
        self._response.close()
