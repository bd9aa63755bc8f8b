"""Serve a WSGI application with waitress: few connections, a deadline for each, no log on stderr.

Every local user can connect, so nothing that a client does may cost the process more than a few file descriptors for a
few seconds. waitress by itself stops accepting at its limit of connections, and has only a timeout of inactivity.
Here a new client replaces the oldest, and the time of a whole connection is limited. Each connection is for one
request.
"""

from __future__ import annotations

import contextlib
import queue
import resource
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

from typing_extensions import override
from waitress.adjustments import Adjustments
from waitress.buffers import OverflowableBuffer
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, Task, ThreadedTaskDispatcher
from waitress.utilities import InternalServerError, logger, queue_logger
from waitress.wasyncore import dispatcher, poll2

from clan_discovery.threads import Worker

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-cache"),
)
"""The headers of every response."""
BACKLOG: Final = 128
"""The length of the accept queue. The SYN of any further connection is dropped, which delays it by a second."""
_THREADS: Final = 3
_MAX_CLIENTS: Final = 16
_FILES_PER_CLIENT: Final = 8
"""File descriptors of the process per client: clients use at most an eighth of those it may open."""
_REQUEST_S: Final = 5.0
"""The time limit for the request."""
_CONNECTION_S: Final = 30.0
"""The time limit of a whole connection: a list of 24 MB takes so long at 7 Mbit/s."""
_MAX_REQUEST: Final = 8192
_UNLIMITED: Final = 1 << 40
_POLL_S: Final = 0.5
_PAUSE_S: Final = 0.2
_JOIN_S: Final = 5.0
_PART: Final = 1 << 16
_MOST_BUFFERED: Final = 1 << 26
"""The most bytes that wait for slow clients. Lists and metrics do not count: all clients share them."""

logger.disabled = queue_logger.disabled = True  # without a handler, Python would print warnings on stderr


class _Parser(HTTPRequestParser):
    """Parses a request; refuses one with a body, and other versions than HTTP/1.0 and 1.1."""

    @override
    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError as error:
            raise ParsingError("the address of the request is not valid") from error
        finally:
            self.expect_continue = False
        if self.version not in ("1.0", "1.1"):
            raise ParsingError("this is no HTTP/1 request")
        if self.body_rcv is not None:
            raise ParsingError("a request must not have a body")
        self.headers = {**self.headers, "CONNECTION": "close"}


class _ErrorTask(ErrorTask):
    """Answers a request that cannot be parsed, or for which the application failed."""

    @override
    def execute(self) -> None:
        error = self.channel.requests[0].error or InternalServerError("internal error: please report it")
        body = f"{error.body}\n".encode("utf-8", "backslashreplace")
        self.status = f"{error.code} {error.reason}"
        self.response_headers = [("Content-Type", "text/plain; charset=utf-8"), *HEADERS]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Client(HTTPChannel):
    """A connection. After the response, what the client still sends is discarded.

    Closing the socket at once could reset the connection before the client has read the response.
    """

    error_task_class = _ErrorTask
    parser_class = _Parser

    def __init__(self, server: _Server, sock: socket.socket, address: tuple[str, int]) -> None:
        self._clients = server.clients
        self._began = time.monotonic()
        self._is_answered = False
        self._is_ended = False
        super().__init__(server, sock, address, server.adj, map=server.sockets)
        self._clients.append(self)

    @property
    def deadline(self) -> float:
        """Return when the connection is closed (monotonic): sooner while there is no request yet."""
        limit = _CONNECTION_S
        if not self.requests and not self.close_when_flushed and not self._is_answered:
            limit = _REQUEST_S
        return self._began + limit

    @property
    def buffered(self) -> int:
        """Return how many bytes of its own wait for this client."""
        return sum(map(_own_bytes, tuple(self.outbufs)))

    def end(self) -> None:
        """Close the connection now."""
        self._is_ended = True
        self.handle_close()

    @override
    def readable(self) -> bool:
        return self._is_answered or super().readable()

    @override
    def writable(self) -> bool:
        return not self._is_answered and bool(super().writable())

    @override
    def handle_read(self) -> None:
        if not self._is_answered:
            super().handle_read()
            return
        try:
            if not self.recv(_PART):
                self.end()
        except OSError:
            self.end()

    @override
    def handle_close(self) -> None:
        """Close the socket; after a whole response, only its sending half."""
        if self.will_close and self.connected and not self.total_outbufs_len and not self._is_ended:
            self._is_ended = self._is_answered = True
            with contextlib.suppress(OSError):
                if self.socket is not None:
                    self.socket.shutdown(socket.SHUT_WR)
            return
        if self in self._clients:
            self._clients.remove(self)
        super().handle_close()

    @override
    def handle_error(self) -> None:
        self.end()


class _Waker(dispatcher):
    """Wakes the thread of the server. That of waitress closes itself if memory runs out."""

    def __init__(self, sockets: dict[int, socket.socket]) -> None:
        receiving, self._sending = socket.socketpair()
        self._sending.setblocking(False)  # noqa: FBT003 - the signature of the standard library
        super().__init__(receiving, map=sockets)

    def wake(self) -> None:
        """Let `poll` return; from any thread."""
        with contextlib.suppress(BlockingIOError):  # then it is awake
            self._sending.send(b"x")

    @override
    def writable(self) -> bool:
        return False

    @override
    def handle_read(self) -> None:
        self.recv(_PART)

    @override
    def handle_close(self) -> None:
        """Stay open."""

    @override
    def handle_error(self) -> None:
        time.sleep(_PAUSE_S)

    @override
    def close(self) -> None:
        super().close()
        self._sending.close()


class _Pool(ThreadedTaskDispatcher):
    """Threads that run the application."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._workers: list[Worker] = []

    def ensure_started(self) -> None:
        """Start the threads that do not run; raise RuntimeError if there is no thread."""
        self._workers = [worker for worker in self._workers if worker.is_alive()]
        while len(self._workers) < _THREADS:
            worker = Worker(self._work)
            worker.start()
            self._workers.append(worker)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            with contextlib.suppress(Exception):  # the deadline closes the connection
                task.service()

    @override
    def add_task(self, task: Task) -> None:
        self._tasks.put(task)

    @override
    def shutdown(self, cancel_pending: bool = True, timeout: int = 5) -> bool:
        """End the threads; tell whether all have ended."""
        del cancel_pending
        for _ in self._workers:
            self._tasks.put(None)
        end = time.monotonic() + timeout
        for worker in self._workers:
            worker.join(max(end - time.monotonic(), 0))
        return not any(worker.is_alive() for worker in self._workers)


class _Server(TcpWSGIServer):
    """Accepts connections; `clients` are the open ones, oldest first."""

    def __init__(self, application: WSGIApplication, listening: socket.socket, pool: _Pool) -> None:
        self.sockets: dict[int, socket.socket] = {}
        self.clients: list[_Client] = []
        self.max_clients = _max_clients()
        self._resumes_at = 0.0
        sockinfo = (listening.family, socket.SOCK_STREAM, 0, listening.getsockname())
        adjustments = Adjustments(
            sockets=[listening],
            ident=None,
            backlog=BACKLOG,
            log_socket_errors=False,
            max_request_header_size=_MAX_REQUEST,
            clear_untrusted_proxy_headers=False,
            # The buffers stay in memory, and no thread waits for a slow client: large bodies are not copied (`app`).
            outbuf_overflow=_UNLIMITED,
            outbuf_high_watermark=_UNLIMITED,
        )
        super().__init__(
            application,
            map=self.sockets,
            _sock=listening,
            dispatcher=pool,
            adj=adjustments,
            sockinfo=sockinfo,
            bind_socket=False,
        )
        for number in self.sockets.keys() - {listening.fileno()}:
            self.sockets[number].close()
        self._waker = _Waker(self.sockets)

    @override
    def pull_trigger(self) -> None:
        self._waker.wake()

    @override
    def readable(self) -> bool:
        return self.accepting and time.monotonic() >= self._resumes_at

    @override
    def handle_accept(self) -> None:
        """Accept a connection; wait if there is no file descriptor or no memory for it."""
        try:
            accepted = self.accept()
            if accepted is not None:
                _Client(self, *accepted)
        except (OSError, MemoryError):
            self._resumes_at = time.monotonic() + _PAUSE_S
        while len(self.clients) > self.max_clients:
            self.clients[0].end()

    @override
    def handle_close(self) -> None:
        """Stay open."""

    @override
    def handle_error(self) -> None:
        self._resumes_at = time.monotonic() + _PAUSE_S

    def turn(self) -> None:
        """Wait for events and handle them; close connections whose deadline is over."""
        poll2(_POLL_S, self.sockets)
        now = time.monotonic()
        for client in list(self.clients):
            if client.deadline <= now:
                client.end()
        self._free_buffers()

    def _free_buffers(self) -> None:
        """Close the oldest connections that have much to send, until the others fit into memory."""
        waiting = [(client, size) for client in self.clients if (size := client.buffered)]
        total = sum(size for _, size in waiting)
        for client, size in waiting[:-1]:
            if total <= _MOST_BUFFERED:
                return
            client.end()
            total -= size

    @override
    def close(self) -> None:
        """Close every connection."""
        for client in list(self.clients):
            client.end()
        self._waker.close()
        super().close()


class Listener(Worker):
    """Serves an application on a socket that listens, until it is stopped."""

    def __init__(self, listening: socket.socket, application: WSGIApplication) -> None:
        super().__init__()
        self._pool = _Pool()
        self._server = _Server(application, listening, self._pool)
        self._stopped = threading.Event()

    @property
    def max_clients(self) -> int:
        """Return how many connections are open at most."""
        return self._server.max_clients

    def ensure_started(self) -> None:
        """Start the threads that do not run; raise RuntimeError if no thread can be started."""
        self._pool.ensure_started()
        if not self.is_alive():
            self.start()

    def stop(self) -> None:
        """End the threads and close every connection."""
        self._stopped.set()
        self._server.pull_trigger()
        if self.is_started:
            self.join(_JOIN_S)
        self._pool.shutdown(timeout=int(_JOIN_S))
        self._server.close()

    @override
    def run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._server.turn()
            except Exception:  # noqa: BLE001 - law 11: no file descriptor, no memory; the thread must not end
                self._stopped.wait(_PAUSE_S)


def _own_bytes(buffer: object) -> int:
    """Return the bytes of a buffer, if they are not those of a shared body."""
    if isinstance(buffer, OverflowableBuffer):
        return len(buffer)
    return 0


def _max_clients() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MAX_CLIENTS
    return max(1, min(_MAX_CLIENTS, soft // _FILES_PER_CLIENT))


def listen(host: str, port: int, application: WSGIApplication) -> Listener:
    """Return a listener on an address, not started yet.

    Raises:
        OSError: the address is not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return Listener(socket.create_server((host, port), family=family, backlog=BACKLOG), application)
