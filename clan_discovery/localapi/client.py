"""Call tailscaled's endpoints: one method each."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

import msgspec

from clan_discovery.deadline import Deadline
from clan_discovery.localapi.transport import LocalAPIError, StreamedResponse, request
from clan_discovery.localapi.types import Event, Status, WhoIs
from clan_discovery.reading import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_SOCKET: Final = Path("/run/tailscale/tailscaled.sock")
_WATCH_MASK: Final = 2 + 16 + 4096
"""Initial state, no private keys (1.54 to 1.90 require this for unprivileged users), peer changes (since 1.98)."""
_STATUS_HINTS: Final = {
    403: "tailscaled refuses this user, or another daemon listens on the socket",
    404: "this tailscaled is too old",
    503: "tailscaled is starting; the next refresh cycle asks again",
}
_MAX_LINE: Final = 64 * 1024 * 1024
_T = TypeVar("_T")


class LocalAPI:
    """A client of one tailscaled. It keeps no connection open; threads may share it.

    `budget` is the time for one whole response, in seconds; `max_bytes` is its largest size.
    """

    def __init__(self, path: str | Path = DEFAULT_SOCKET, *, budget: float = 10.0, max_bytes: int = MAX_BYTES) -> None:
        self.path = Path(path)
        self.budget = budget
        self.max_bytes = max_bytes

    def status(self) -> Status:
        """Return the status, as `tailscale status --json` prints it. Stable.

        Raises:
            LocalAPIError: no socket, no daemon, no response in time, an HTTP error, or not a status.
        """
        return decode_status(self.get("status"))

    def whois(self, address: str) -> WhoIs:
        """Return who has an address (`IP`, `IP:port`) or a key (`nodekey:...`). Stable.

        Raises:
            LocalAPIError: as `status`; its `status` is 404 if no node has it.
        """
        return _decoded(WhoIs, self.get("whois", {"addr": address}), "the response is not a WhoIs")

    def get(self, endpoint: str, query: Mapping[str, str] | None = None) -> bytes:
        """Return the body of `GET /localapi/v0/<endpoint>`.

        Raises:
            LocalAPIError: as `status`.
        """
        with request(self.path, endpoint, query or {}, Deadline(self.budget)) as response:
            return _body(response, self.max_bytes)

    def watch(self) -> Watch:
        """Return the stream of changes (`watch-ipn-bus`), which ends when the daemon ends.

        The budget covers the time until the stream is open. Declared unstable by Tailscale.

        Raises:
            LocalAPIError: as `status`; 403 if this user may not watch, 404 if the daemon is too old.
        """
        return Watch(self)


def decode_status(body: bytes) -> Status:
    """Decode the body of `GET /localapi/v0/status`.

    Raises:
        LocalAPIError: not a status.
    """
    return _decoded(Status, body, "the response is not a Status")


def _body(response: StreamedResponse, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    for chunk in response.chunks:
        size += len(chunk)
        if size > max_bytes:
            raise LocalAPIError(f"the response is larger than {max_bytes >> 20} MiB")
        chunks.append(chunk)
    body = b"".join(chunks)
    if response.status != 200:
        what = f"tailscaled answered {response.status}: {body[:200].decode('utf-8', 'replace')}"
        hint = _STATUS_HINTS.get(response.status, "see tailscaled's journal")
        raise LocalAPIError(what.strip().removesuffix(":"), hint=hint, status=response.status)
    return body


class Watch:
    """The stream of changes, opened as a context manager.

    Iterate over it in one thread; `close` may be called from any thread. Iteration ends when the daemon ends the stream
    or `close` is called.
    """

    def __init__(self, api: LocalAPI) -> None:
        self._path = api.path
        self._max_bytes = api.max_bytes
        self._deadline = Deadline(api.budget)
        self._open = contextlib.ExitStack()
        self._response: StreamedResponse | None = None

    def __enter__(self) -> Self:
        query = {"mask": str(_WATCH_MASK)}
        with contextlib.ExitStack() as opening:
            response = opening.enter_context(request(self._path, "watch-ipn-bus", query, self._deadline))
            if response.status != 200:
                _body(response, self._max_bytes)
            self._deadline.at = None  # the open stream is silent while nothing changes
            self._response = response
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        # Closing a connection that was shut down under a reader may fail.
        with contextlib.suppress(LocalAPIError, RuntimeError):
            self._open.close()

    def __iter__(self) -> Iterator[Event]:
        """Yield each message.

        Raises:
            LocalAPIError: a message is not JSON, or larger than 64 MiB. A broken connection ends the iteration.
        """
        parts: list[bytes] = []
        size = 0
        for chunk in self._chunks():
            parts.append(chunk)
            size += len(chunk)
            if b"\n" in chunk:  # a long message has many chunks, which are joined once
                *lines, rest = b"".join(parts).split(b"\n")
                parts, size = [rest], len(rest)
                for line in lines:
                    if line.strip():
                        yield _decoded(Event, line, "a message of the watch stream does not parse")
            if size > _MAX_LINE:
                raise LocalAPIError(f"a message of the watch stream is larger than {_MAX_LINE >> 20} MiB")

    def _chunks(self) -> Iterator[bytes]:
        if self._response is not None:
            with contextlib.suppress(LocalAPIError):  # this is how the stream ends
                yield from self._response.chunks

    def close(self) -> None:
        """End the stream, even while another thread reads it."""
        self._deadline.abort()


def _decoded(type_: type[_T], body: bytes, complaint: str) -> _T:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LocalAPIError(f"{complaint}: {error}") from error
