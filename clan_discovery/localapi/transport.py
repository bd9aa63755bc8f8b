"""One HTTP answer over one unix socket under one deadline. The only file that knows httpx.

One time budget covers a whole answer, from connect to the last byte: a peer that drips one byte a second is as dead
as one that never answers. It is kept at the one place where every byte passes, the network stream (httpcore's
`NetworkBackend` is the seam; httpx's own timeouts start anew at each read). A connection lives for one answer: the
daemon may have been restarted between two, and its old socket with it.
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
    errno.ECONNREFUSED: "nobody listens: the socket is left over from a tailscaled that is gone, or was bind-mounted",
    errno.EACCES: "this user may not open it: tailscaled makes it 0666 on Linux; look at the sandbox",
    errno.ENOTSOCK: "this is no socket: for a saved status use status_file",
}


class LocalAPIError(BackendError):
    """The daemon did not answer, or refused. `status` is the HTTP status where there was one."""

    def __init__(self, message: str, *, hint: str | None = None, status: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose headers have come: its status, and the body as it comes."""

    status: int
    chunks: Iterator[bytes]


@contextlib.contextmanager
def request(path: Path, endpoint: str, query: Mapping[str, str], deadline: Deadline) -> Generator[Answer]:
    """Ask `GET /localapi/v0/<endpoint>`; the block reads the answer.

    Raises:
        LocalAPIError: no socket, nobody behind it, or not in time; reading the chunks raises it too.
    """
    headers = {"Accept-Encoding": "identity"}
    with contextlib.ExitStack() as stack:
        with _failures(path, deadline):
            client = stack.enter_context(httpx.Client(transport=_Unix(path, deadline), trust_env=False))
            stream = client.stream("GET", _BASE + endpoint, params=dict(query), headers=headers)
            response = stack.enter_context(stream)
        yield Answer(response.status_code, _chunks(response, path, deadline))


def _chunks(response: httpx.Response, path: Path, deadline: Deadline) -> Iterator[bytes]:
    with _failures(path, deadline):
        yield from response.iter_raw()


@contextlib.contextmanager
def _failures(path: Path, deadline: Deadline) -> Generator[None]:
    """Turn whatever httpx, httpcore and the kernel raise into our own error."""
    try:
        yield
    except (httpcore.TimeoutException, httpx.TimeoutException) as error:
        what = f"no whole answer from {path} within {deadline.budget:g} s"
        raise LocalAPIError(what, hint="is tailscaled stuck? see its journal") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpx.HTTPError, OSError) as error:
        raise _failed(path, error) from error


def _failed(path: Path, error: Exception) -> LocalAPIError:
    # httpcore raises its own errors again `from None`: the kernel's is somewhere behind them.
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno is not None):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, OSError) and cause.errno is not None:
        # The kernel refuses a connection to any file that is no socket, too.
        number = errno.ENOTSOCK if cause.errno == errno.ECONNREFUSED and not path.is_socket() else cause.errno
        return LocalAPIError(f"socket {path}: {os.strerror(number)}", hint=_HINTS.get(number))
    return LocalAPIError(f"socket {path}: {str(error) or type(error).__name__}")


class Deadline:
    """When waiting ends: `budget` seconds from now, never (`at` is None), or at once (`abort`)."""

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.at: float | None = time.monotonic() + budget
        self.sock: socket.socket | None = None
        self.aborted = False

    def left(self, late: type[httpcore.TimeoutException]) -> float | None:
        """Return the seconds that are left, None for no bound; raise `late` where none is."""
        if self.aborted:
            raise httpcore.ReadError("aborted")
        if self.at is None:
            return None
        left = self.at - time.monotonic()
        if left <= 0:
            raise late("the time budget is used up")
        return left

    def abort(self) -> None:
        """End every wait at once, from any thread."""
        self.aborted = True
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)  # wakes a reader, which closing would not


class _Stream(httpcore.NetworkStream):
    """A connected socket on which every wait ends at the deadline."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        deadline.sock = sock

    @override
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._sock.settimeout(self._deadline.left(httpcore.ReadTimeout))
        try:
            return self._sock.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    @override
    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._sock.settimeout(self._deadline.left(httpcore.WriteTimeout))
        try:
            self._sock.sendall(buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    @override
    def close(self) -> None:
        self._deadline.sock = None
        self._sock.close()


class _Connect(httpcore.NetworkBackend):
    """Connects to unix sockets only, and closes what it could not connect."""

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
            sock.settimeout(self._deadline.left(httpcore.ConnectTimeout))
            sock.connect(path)
        except TimeoutError as error:
            sock.close()
            raise httpcore.ConnectTimeout(str(error)) from error
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            sock.close()
            raise httpcore.ConnectError(str(error)) from error
        except httpcore.TimeoutException:
            sock.close()
            raise
        return _Stream(sock, self._deadline)


class Body(httpx.SyncByteStream):
    """The body of an answer, whatever the pool hands out."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    @override
    def __iter__(self) -> Iterator[bytes]:
        yield from self._response.iter_stream()

    @override
    def close(self) -> None:
        self._response.close()


class _Unix(httpx.BaseTransport):
    """httpx over one unix socket under one deadline."""

    def __init__(self, path: Path, deadline: Deadline) -> None:
        # No TLS is spoken here; an empty context spares the start the certificates of the whole world.
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            max_keepalive_connections=0,
            retries=0,
            uds=str(path),
            network_backend=_Connect(deadline),
        )

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(str(request.url))
        response = self._pool.handle_request(
            httpcore.Request(request.method, url, headers=request.headers.raw, extensions=request.extensions)
        )
        return httpx.Response(response.status, headers=response.headers, stream=Body(response))

    @override
    def close(self) -> None:
        self._pool.close()
