"""TLS on a socket whose waits all end at one deadline."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from typing_extensions import override

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed import ReadableBuffer, WriteableBuffer

    from clan_discovery.deadline import BoundedSocket, Deadline


class _BoundedTls(ssl.SSLSocket):
    """A TLS socket on which every wait ends at the deadline."""

    deadline: Deadline

    @override
    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        self.settimeout(self.deadline.remaining())
        return super().recv_into(buffer, nbytes, flags)

    @override
    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        self.settimeout(self.deadline.remaining())
        super().sendall(data, flags)


def client_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that trusts one CA, or those of the system.

    Raises:
        OSError: the file cannot be read, or holds no certificate.
    """
    if ca_file is None:
        context = ssl.create_default_context()
    else:
        context = ssl.create_default_context(cafile=str(ca_file))
    context.sslsocket_class = _BoundedTls
    return context


def start_tls(connection: BoundedSocket, host: str, context: ssl.SSLContext, deadline: Deadline) -> ssl.SSLSocket:
    """Begin TLS on a connection, and verify the certificate for this host; it owns the connection then.

    Raises:
        ssl.SSLError: the server has no TLS, or a certificate that is not trusted.
        OSError: the connection ended, or the time is over.
    """
    stream = context.wrap_socket(connection, server_hostname=host, do_handshake_on_connect=False)
    try:
        if isinstance(stream, _BoundedTls):
            stream.deadline = deadline
        stream.settimeout(deadline.remaining())
        stream.do_handshake()
    except BaseException:
        stream.close()
        raise
    return stream
