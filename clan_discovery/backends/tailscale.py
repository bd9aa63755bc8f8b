"""Asks a running tailscaled: its LocalAPI over the unix socket. The only file that knows httpx.

One time budget covers the whole answer, from connect to the last byte: a peer that drips one byte a second is as
dead as one that never answers. It is kept at the one place where every byte passes, the network stream (httpcore's
`NetworkBackend` is the seam; httpx's own timeouts start anew at each read). A connection lives for one round: the
daemon may have been restarted between two, and its old socket with it.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpcore
import httpx
from typing_extensions import override

from clan_discovery.backends.tailscale_wire import MAX_BYTES, Reading, parse_status
from clan_discovery.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clan_discovery.backends.base import Ask
    from clan_discovery.model import Snapshot

DEFAULT_SOCKET: Final = Path("/run/tailscale/tailscaled.sock")
# tailscaled refuses any other Host, and any Origin or Referer (ipn/localapi, since 1.34).
_STATUS_URL: Final = "http://local-tailscaled.sock/localapi/v0/status"
_HINTS: Final = {
    errno.ENOENT: "is tailscaled running? its unit removes the socket when it stops",
    errno.ECONNREFUSED: "nobody listens: the socket is left over from a tailscaled that is gone, or was bind-mounted",
    errno.EACCES: "this user may not open it: tailscaled makes it 0666 on Linux; look at the sandbox",
    errno.ENOTSOCK: "this is no socket: for a saved status use status_file",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TailscaleSocket:
    """Asks a running tailscaled. `budget` is in seconds, for one whole answer; `max_bytes` bounds its size."""

    name: str
    socket: Path
    reading: Reading
    budget: float = 10.0
    max_bytes: int = MAX_BYTES

    @property
    def fingerprint(self) -> str:
        """What decides the answer: the source, the family, the tags."""
        return f"socket {self.socket} {self.reading.fingerprint}"

    def ask(self, _: Ask, /) -> Snapshot:
        """Ask over the socket; see `Backend.ask`."""
        return parse_status(get_status(self.socket, self.budget, self.max_bytes), self.reading)


def get_status(path: Path, budget: float, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the body of `GET status`, within `budget` seconds.

    Raises:
        BackendError: no socket, nobody behind it, no answer in time, an HTTP error, or a body over `max_bytes`.
    """
    deadline = time.monotonic() + budget
    try:
        with (
            httpx.Client(transport=_Unix(path, deadline), trust_env=False, timeout=budget) as client,
            client.stream("GET", _STATUS_URL, headers={"Accept-Encoding": "identity"}) as response,
        ):
            body = _body(response, max_bytes)
            if response.status_code != 200:
                said = body[:200].decode("utf-8", "replace").strip()
                answered = f"tailscaled answered {response.status_code}"
                raise BackendError(f"{answered}: {said}" if said else answered)
            return body
    except (httpcore.TimeoutException, httpx.TimeoutException) as error:
        raise BackendError(
            f"no whole answer from {path} within {budget:g} s", hint="is tailscaled stuck? see its journal"
        ) from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpx.HTTPError, OSError) as error:
        raise _failed(path, error) from error


def _failed(path: Path, error: Exception) -> BackendError:
    # httpcore raises its own errors again `from None`: the kernel's is somewhere behind them.
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno is not None):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, OSError) and cause.errno is not None:
        # The kernel refuses a connection to any file that is no socket, too.
        number = errno.ENOTSOCK if cause.errno == errno.ECONNREFUSED and not path.is_socket() else cause.errno
        return BackendError(f"socket {path}: {os.strerror(number)}", hint=_HINTS.get(number))
    return BackendError(f"socket {path}: {str(error) or type(error).__name__}")


def _body(response: httpx.Response, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    for chunk in response.iter_raw():
        size += len(chunk)
        if size > max_bytes:
            raise BackendError(f"the status is larger than {max_bytes >> 20} MiB")
        chunks.append(chunk)
    return b"".join(chunks)


class _Stream(httpcore.NetworkStream):
    """A connected socket on which every wait ends at the deadline."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def _arm(self, late: type[httpcore.TimeoutException]) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise late("the time budget is used up")
        self._sock.settimeout(left)

    @override
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._arm(httpcore.ReadTimeout)
        try:
            return self._sock.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    @override
    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._arm(httpcore.WriteTimeout)
        try:
            self._sock.sendall(buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    @override
    def close(self) -> None:
        self._sock.close()


class _Connect(httpcore.NetworkBackend):
    """Connects to unix sockets only, and closes what it could not connect."""

    def __init__(self, deadline: float) -> None:
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
            sock.settimeout(max(self._deadline - time.monotonic(), 0.001))
            sock.connect(path)
        except TimeoutError as error:
            sock.close()
            raise httpcore.ConnectTimeout(str(error)) from error
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            sock.close()
            raise httpcore.ConnectError(str(error)) from error
        return _Stream(sock, self._deadline)


class _Answer(httpx.SyncByteStream):
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

    def __init__(self, path: Path, deadline: float) -> None:
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
        return httpx.Response(response.status, headers=response.headers, stream=_Answer(response))

    @override
    def close(self) -> None:
        self._pool.close()
