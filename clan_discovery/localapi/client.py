"""tailscaled's endpoints, one method each."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

import msgspec

from clan_discovery.localapi.transport import Answer, Deadline, LocalAPIError, request
from clan_discovery.localapi.types import Event, Status, WhoIs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_SOCKET: Final = Path("/run/tailscale/tailscaled.sock")
MAX_BYTES: Final = 256 * 1024 * 1024
"""An answer larger than this is none; 100,000 nodes are about 120 MB."""
WATCH_MASK: Final = 2 + 16 + 4096
"""Initial state, no private keys (without which 1.54 to 1.90 refuse plain users), peer changes (from 1.98 on)."""
_STATUS_HINTS: Final = {
    403: "tailscaled refuses this user, or another daemon answers on the socket",
    404: "this tailscaled is too old for it",
    503: "tailscaled is starting; the next round will tell",
}
_MAX_LINE: Final = 64 * 1024 * 1024
_T = TypeVar("_T")


class LocalAPI:
    """A tailscaled behind a socket. Holds no connection; may be shared between threads.

    `budget` is in seconds, for one whole answer; `max_bytes` bounds its size.
    """

    def __init__(self, path: str | Path = DEFAULT_SOCKET, *, budget: float = 10.0, max_bytes: int = MAX_BYTES) -> None:
        self.path = Path(path)
        self.budget = budget
        self.max_bytes = max_bytes

    def status(self, *, peers: bool = True) -> Status:
        """Return the status, as `tailscale status --json` prints it. Stable.

        Raises:
            LocalAPIError: no socket, nobody behind it, no answer in time, an HTTP error, or no status.
        """
        return self._decoded(Status, "status", {} if peers else {"peers": "false"})

    def whois(self, address: str) -> WhoIs:
        """Return who has an address: `IP`, `IP:port` or `nodekey:...`. Stable.

        Raises:
            LocalAPIError: as `status`; its `status` is 404 where nobody has it.
        """
        return self._decoded(WhoIs, "whois", {"addr": address})

    def get(self, endpoint: str, query: Mapping[str, str] | None = None) -> bytes:
        """Return the body of `GET /localapi/v0/<endpoint>`.

        Raises:
            LocalAPIError: as `status`.
        """
        with request(self.path, endpoint, query or {}, Deadline(self.budget)) as answer:
            return _body(answer, self.max_bytes)

    def watch(self, mask: int = WATCH_MASK) -> Watch:
        """Open the stream of changes (`watch-ipn-bus`): newline-delimited, without an end of its own.

        The budget covers the time until the stream is open. Declared unstable by Tailscale.

        Raises:
            LocalAPIError: as `status`; 403 where this user may not watch, 404 where the daemon is too old.
        """
        return Watch(self, mask)

    def _decoded(self, type_: type[_T], endpoint: str, query: Mapping[str, str]) -> _T:
        body = self.get(endpoint, query)
        try:
            return msgspec.json.decode(body, type=type_)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise LocalAPIError(f"the answer is no {type_.__name__}: {error}") from error


def _body(answer: Answer, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    for chunk in answer.chunks:
        size += len(chunk)
        if size > max_bytes:
            raise LocalAPIError(f"the answer is larger than {max_bytes >> 20} MiB")
        chunks.append(chunk)
    body = b"".join(chunks)
    if answer.status != 200:
        said = body[:200].decode("utf-8", "replace").strip()
        answered = f"tailscaled answered {answer.status}"
        hint = _STATUS_HINTS.get(answer.status, "see tailscaled's journal")
        raise LocalAPIError(f"{answered}: {said}" if said else answered, hint=hint, status=answer.status)
    return body


class Watch:
    """The stream of changes, opened as a context manager. Iterate over it in one thread; `close` it from any.

    Iteration ends when the daemon ends the stream or `close` is called.
    """

    def __init__(self, api: LocalAPI, mask: int) -> None:
        self._path = api.path
        self._max_bytes = api.max_bytes
        self._mask = mask
        self._deadline = Deadline(api.budget)
        self._open = contextlib.ExitStack()
        self._answer: Answer | None = None

    def __enter__(self) -> Self:
        query = {"mask": str(self._mask)}
        with contextlib.ExitStack() as opening:
            answer = opening.enter_context(request(self._path, "watch-ipn-bus", query, self._deadline))
            if answer.status != 200:
                _body(answer, self._max_bytes)
            self._deadline.at = None  # open: from now on it is silent for as long as nothing changes
            self._answer = answer
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        # What was shut down under a reader may fail to close in every way, and says nothing.
        with contextlib.suppress(LocalAPIError, RuntimeError):
            self._open.close()

    def __iter__(self) -> Iterator[Event]:
        """Yield each message.

        Raises:
            LocalAPIError: a message is no JSON, or larger than 64 MiB. (A connection that breaks is an end.)
        """
        parts: list[bytes] = []
        size = 0
        for chunk in self._chunks():
            parts.append(chunk)
            size += len(chunk)
            if b"\n" in chunk:  # only then is anything joined: a long message comes in many chunks
                *lines, rest = b"".join(parts).split(b"\n")
                parts, size = [rest], len(rest)
                for line in lines:
                    if line.strip():
                        yield _event(line)
            if size > _MAX_LINE:
                raise LocalAPIError(f"a message of the watch stream is larger than {_MAX_LINE >> 20} MiB")

    def _chunks(self) -> Iterator[bytes]:
        with contextlib.suppress(LocalAPIError):  # a stream without an end of its own can only break
            yield from self._answer.chunks if self._answer is not None else ()

    def close(self) -> None:
        """End the stream, also under a thread that reads it."""
        self._deadline.abort()


def _event(line: bytes) -> Event:
    try:
        return msgspec.json.decode(line, type=Event)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LocalAPIError(f"a message of the watch stream does not parse: {error}") from error
