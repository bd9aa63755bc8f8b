"""Send questions over UDP, many at once, from sockets with random ports.

A socket is connected, so the kernel drops datagrams from elsewhere. It has one question in flight at a time and is
closed after a few questions. So an attacker has to guess the port, the message id and the case of the letters at once
(RFC 5452). If a response is truncated or has letters of another case, the question is asked again over TCP, where a
third party cannot inject a response.
"""

from __future__ import annotations

import secrets
import selectors
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from clan_discovery.dnsclient.message import MalformedError, Response
from clan_discovery.dnsclient.stream import StreamTransport
from clan_discovery.dnsclient.transport import NOT_ASKED, TIMED_OUT, NoResponse, Received, Transport, no_response
from clan_discovery.dnsclient.wire import MAX_DATAGRAM, Mismatch, decode_response, encode_query

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.dnsclient.wire import EncodedQuestion

MAX_IN_FLIGHT: Final = 256
"""Questions that wait for a response at once."""
_QUESTIONS_PER_SOCKET: Final = 16
_MAX_UNANSWERED: Final = 3
"""After this many questions without any response, no further ones are sent until a response arrives."""
_POLL_S: Final = 0.05
_NOT_SENT: Final = NoResponse("not asked, because the server did not respond to earlier questions")
_WRONG_CASE: Final = NoResponse("a response with letters of another case, and none over TCP", retry=False)


@dataclass(slots=True, kw_only=True)
class UdpTransport(Transport):
    """Sends questions over UDP, and over TCP if the UDP response cannot be used."""

    host: str
    port: int
    randomise_case: bool = True

    @override
    def exchange(self, questions: Sequence[EncodedQuestion], patience: float, until: float) -> list[Received]:
        flight = _Flight(self, questions)
        flight.run(patience, until)
        results = flight.results
        if _WRONG_CASE in results:
            self.randomise_case = False  # the server does not keep the case: TCP now, and plain letters from now on
        again = [i for i, result in enumerate(results) if result is _WRONG_CASE or _is_truncated(result)]
        if again:
            stream = StreamTransport(host=self.host, port=self.port, name=self.name, edns=self.edns, pace=self.pace)
            over_tcp = stream.exchange([questions[i] for i in again], patience, until)
            for i, result in zip(again, over_tcp, strict=True):
                results[i] = result
        return results


def _is_truncated(result: Received) -> bool:
    return isinstance(result, Response) and result.truncated


@dataclass(slots=True, eq=False)
class _Slot:
    """A socket, and the question in flight on it; without one, the index is -1."""

    sock: socket.socket
    questions_left: int = _QUESTIONS_PER_SOCKET
    index: int = -1
    message_id: int = 0
    sent_at: float = 0.0


class _Flight:
    """One exchange: the questions that wait, those in flight, and the results."""

    def __init__(self, transport: UdpTransport, questions: Sequence[EncodedQuestion]) -> None:
        self._transport = transport
        # The host is numeric, so this does no lookup. A link-local address names its interface (`fe80::1%eth0`).
        self._endpoint = socket.getaddrinfo(
            transport.host, transport.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )[0]
        self._questions = questions
        self.results: list[Received] = [_NOT_SENT] * len(questions)
        self._waiting = iter(range(len(questions)))
        self._slots: set[_Slot] = set()
        self._idle: list[_Slot] = []
        self._is_early = False  # whether a question waits for the time at which it may be sent
        self._unanswered = 0
        self._answered = False
        self._selector = selectors.DefaultSelector()

    def run(self, patience: float, until: float) -> None:
        """Ask every question; give up at `until`, or if the server responds to none."""
        try:
            self._fill()
            expired_at = time.monotonic()
            while len(self._slots) > len(self._idle) or self._is_early:
                for key, _ in self._selector.select(self._pause()):
                    self._receive(key.data)
                if self._is_early:
                    self._fill()
                now = time.monotonic()
                if now >= until:
                    self._give_up()
                    return
                if now - expired_at >= _POLL_S:
                    expired_at = now
                    self._expire(now - patience)
        finally:
            for slot in self._slots:
                slot.sock.close()
            self._selector.close()

    def _pause(self) -> float:
        """Return how long to wait for responses, in seconds."""
        if self._is_early:
            return min(self._transport.pace.delay(), _POLL_S)
        return _POLL_S

    def _give_up(self) -> None:
        """Fail every question that has no result yet."""
        for slot in self._slots:
            if slot.index >= 0:
                self.results[slot.index] = TIMED_OUT
        for index in self._waiting:
            self.results[index] = NOT_ASKED

    def _fill(self) -> None:
        """Send questions on idle and new sockets, up to the limit."""
        self._is_early = False
        while self._idle or len(self._slots) < MAX_IN_FLIGHT:
            slot = self._idle.pop() if self._idle else None
            if not self._send_next(slot):
                return

    def _expire(self, sent_before: float) -> None:
        for slot in list(self._slots):
            if slot.index >= 0 and slot.sent_at <= sent_before:
                self._settle(slot, TIMED_OUT)

    def _send_next(self, slot: _Slot | None) -> bool:
        """Send the next question, on this socket if it may be used again.

        Returns whether a question was sent.
        """
        if slot is not None and slot.questions_left == 0:
            self._close(slot)
            slot = None
        while self._answered or self._unanswered < _MAX_UNANSWERED:
            if self._transport.pace.delay() > 0:
                self._wait(slot)
                return False
            index = next(self._waiting, None)
            if index is None:
                break
            try:
                slot = slot or self._open()
                self._send(slot, index)
            except OSError as error:
                self._fail(index, no_response(error))
            else:
                return True
            if slot is not None:
                self._close(slot)
                slot = None
        if slot is not None:
            self._close(slot)
        return False

    def _wait(self, slot: _Slot | None) -> None:
        """Keep a socket until the next question may be sent."""
        self._is_early = True
        if slot is not None:
            slot.index = -1
            self._idle.append(slot)

    def _send(self, slot: _Slot, index: int) -> None:
        self._transport.pace.reserve()
        slot.index, slot.message_id, slot.sent_at = index, secrets.randbits(16), time.monotonic()
        slot.questions_left -= 1
        slot.sock.send(encode_query(self._questions[index], slot.message_id, edns=self._transport.edns))

    def _open(self) -> _Slot:
        family, _, _, _, address = self._endpoint
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.settimeout(0.0)
            sock.connect(address)
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
        """Receive a datagram, or the kernel's error that nothing listens on the port."""
        if slot.index < 0:  # a second response: its socket is of no use any more
            self._idle.remove(slot)
            self._close(slot)
            return
        question = self._questions[slot.index]
        try:
            response = decode_response(slot.sock.recv(MAX_DATAGRAM), question, slot.message_id)
        except BlockingIOError:
            return
        except OSError as error:
            self._settle(slot, no_response(error))
        except MalformedError as error:
            self._settle(slot, NoResponse(str(error), retry=False))
        else:
            if response is Mismatch.CASE:
                self._settle(slot, _WRONG_CASE)
            elif not isinstance(response, Mismatch):
                self._settle(slot, response)

    def _settle(self, slot: _Slot, result: Received) -> None:
        """Keep a question's result, and use its socket for the next question."""
        if isinstance(result, NoResponse) and result.retry:
            self._fail(slot.index, result)
            slot.questions_left = 0  # a late response must not be read as one to another question
            self._send_next(slot)
            return
        self.results[slot.index] = result
        was_paused = not self._answered and self._unanswered >= _MAX_UNANSWERED
        self._answered = True
        self._send_next(slot)
        if was_paused:
            self._fill()

    def _fail(self, index: int, why: NoResponse) -> None:
        self.results[index] = why
        self._unanswered += 1
