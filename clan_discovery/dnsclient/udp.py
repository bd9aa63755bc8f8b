"""UDP: many questions in flight to one server, one for each socket, each socket of a random port.

A socket is connected, so the kernel drops what comes from elsewhere; it carries one question at a time and is thrown
away after a few, so an attacker has to guess port, id and the case of the letters at once (RFC 5452). A reply that was
cut off, or whose letters are not in our case, is asked for again over TCP, where nobody can slip an answer in.
"""

from __future__ import annotations

import random
import selectors
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from clan_discovery.dnsclient.message import MalformedError, Response
from clan_discovery.dnsclient.stream import Stream
from clan_discovery.dnsclient.transport import Came, NoResponse, numbers
from clan_discovery.dnsclient.wire import MAX_DATAGRAM, Mismatch, decode_response, encode_query

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.dnsclient.wire import EncodedQuestion

IN_FLIGHT: Final = 256
"""Questions that wait for their answers at once."""
_USES: Final = 16
"""Questions that one socket carries before its port is another one."""
_ENOUGH_LOST: Final = 3
_LOOK_S: Final = 0.05
_LATE: Final = NoResponse("no answer in time")
_UNSENT: Final = NoResponse("not asked, for it answered none of those before")
_UNMIXED: Final = NoResponse("an answer in another case, and nothing over TCP", again=False)


@dataclass(slots=True)
class Datagrams:
    """Carries questions over UDP, and over TCP where UDP does not do."""

    host: str
    port: int
    name: str
    edns: bool = True
    mixed: bool = True

    def exchange(self, queries: Sequence[EncodedQuestion], patience: float, until: float) -> list[Came]:
        """See `Transport.exchange`."""
        flight = _Flight(self, queries)
        flight.run(patience, until)
        came = flight.came
        if flight.unmixed:
            self.mixed = False  # TCP proves what a server said that does not keep the case; it is asked plainly now
        again = [
            i
            for i, reply in enumerate(came)
            if i in flight.unmixed or (not isinstance(reply, NoResponse) and reply.truncated)
        ]
        if again:
            stream = Stream(self.host, self.port, self.name, edns=self.edns)
            for i, reply in zip(again, stream.exchange([queries[i] for i in again], patience, until), strict=True):
                came[i] = reply
        return came

    def close(self) -> None:
        """Nothing is kept open."""


@dataclass(slots=True, eq=False)
class _Slot:
    """A socket and the question that it carries."""

    sock: socket.socket
    left: int = _USES
    index: int = -1
    number: int = 0
    sent: float = 0.0


class _Flight:
    """One exchange: what waits, what is in flight, and what came."""

    def __init__(self, carrier: Datagrams, queries: Sequence[EncodedQuestion]) -> None:
        self._carrier = carrier
        self._queries = queries
        self.came: list[Came] = [_UNSENT] * len(queries)
        self.unmixed: set[int] = set()
        # In no order: names of one dead zone, side by side in a config, must not hide the others for ever.
        self._waiting = iter(random.sample(range(len(queries)), len(queries)))
        self._numbers = numbers(len(queries))
        self._slots: set[_Slot] = set()
        self._lost = 0
        self._answered = False
        self._selector = selectors.DefaultSelector()

    def run(self, patience: float, until: float) -> None:
        """Ask everything, or give up: at `until`, or where several in a row are lost."""
        try:
            for _ in range(min(IN_FLIGHT, len(self._queries))):
                self._next(None)
            looked = time.monotonic()
            while self._slots:
                for key, _ in self._selector.select(_LOOK_S):
                    self._receive(key.data)
                now = time.monotonic()
                if now >= until:
                    for index in (*(slot.index for slot in self._slots), *self._waiting):
                        self.came[index] = _LATE
                    return
                if now - looked >= _LOOK_S:
                    looked = now
                    for slot in [slot for slot in self._slots if now - slot.sent >= patience]:
                        self._settle(slot, _LATE)
        finally:
            for slot in self._slots:
                slot.sock.close()
            self._selector.close()

    def _next(self, slot: _Slot | None) -> None:
        """Send the next question, on this socket where it may carry one more."""
        while (index := self._take()) is not None:
            try:
                if slot is None:
                    slot = self._open()
                slot.index, slot.number, slot.sent = index, self._numbers[index], time.monotonic()
                slot.left -= 1
                slot.sock.send(encode_query(self._queries[index], slot.number, edns=self._carrier.edns))
            except OSError as error:
                self._lose(index, _why(error))
            else:
                return
            if slot is not None:
                self._close(slot)
                slot = None
        if slot is not None:
            self._close(slot)

    def _take(self) -> int | None:
        """Return the next question; none where a flight is being lost and nobody has ever answered."""
        return None if self._lost >= _ENOUGH_LOST and not self._answered else next(self._waiting, None)

    def _open(self) -> _Slot:
        host, port = self._carrier.host, self._carrier.port
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.settimeout(0.0)
            address, _, interface = host.partition("%")  # a link-local server is one of an interface
            sock.connect((address, port, 0, socket.if_nametoindex(interface)) if interface else (host, port))
        except OSError:
            sock.close()
            raise
        slot = _Slot(sock)
        self._slots.add(slot)
        self._selector.register(sock, selectors.EVENT_READ, slot)
        return slot

    def _close(self, slot: _Slot) -> None:
        self._slots.discard(slot)
        self._selector.unregister(slot.sock)
        slot.sock.close()

    def _receive(self, slot: _Slot) -> None:
        """Take a datagram: the answer, an answer to something else, or the kernel's word that nobody listens."""
        query = self._queries[slot.index]
        try:
            reply = decode_response(slot.sock.recv(MAX_DATAGRAM), query, slot.number)
        except BlockingIOError:
            return
        except OSError as error:
            self._settle(slot, _why(error))
        except MalformedError as error:
            self._settle(slot, NoResponse(str(error), again=False))
        else:
            if reply is Mismatch.CASE:
                self.unmixed.add(slot.index)
                self._settle(slot, _UNMIXED)
            elif isinstance(reply, Response):
                self._settle(slot, reply)

    def _settle(self, slot: _Slot, came: Came) -> None:
        """Keep what came of a question, and let its socket go on."""
        if isinstance(came, NoResponse) and came.again:
            self._lose(slot.index, came)
            slot.left = 0  # what comes late must not meet another question
        else:
            self.came[slot.index] = came
            if not self._answered and self._lost >= _ENOUGH_LOST:  # somebody is there after all
                self._answered = True
                for _ in range(IN_FLIGHT - len(self._slots)):
                    self._next(None)
            self._answered = True
        if slot.left == 0:
            self._close(slot)
            self._next(None)
        else:
            self._next(slot)

    def _lose(self, index: int, why: NoResponse) -> None:
        self.came[index] = why
        self._lost += 1


def _why(error: OSError) -> NoResponse:
    return NoResponse(error.strerror or type(error).__name__)
