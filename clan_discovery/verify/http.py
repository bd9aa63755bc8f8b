"""Get one path of a running program, bounded in time and bytes.

The budget covers the whole response, so a server that sends a byte every second times out as well (ADR 0003). Redirects
are not followed, no proxy of the environment is used, and secrets are read at the time of use and never shown.
"""

from __future__ import annotations

import shlex
import socket
from base64 import b64encode
from http.client import HTTPConnection, HTTPException, IncompleteRead
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn
from urllib.parse import urlsplit

from clan_discovery.deadline import BoundedSocket
from clan_discovery.model import one_line
from clan_discovery.reading import UnreadableError, read_input
from clan_discovery.syntax.endpoint import split_endpoint
from clan_discovery.syntax.secret import hide_in_urls
from clan_discovery.verify.settings import AskedProgram

if TYPE_CHECKING:
    from pathlib import Path

    from clan_discovery.deadline import Deadline

MOST_BYTES: Final = 256 * 1024 * 1024
"""The largest answer that is read by default."""
_MOST_SECRET: Final = 65536
_MOST_ADDRESSES: Final = 8
_CHUNK: Final = 1024 * 1024
_SHOWN: Final = 200
_DENIED: Final = (401, 403)


class AskError(Exception):
    """A program could not be asked, or refused. It holds no secret."""

    def __init__(self, reason: str, fix: str = "") -> None:
        super().__init__(reason)
        self.reason = one_line(hide_in_urls(reason))
        self.fix = fix


class Probe(NamedTuple):
    """The status of an answer, and where it redirects to; empty if it does not say."""

    status: int
    location: str


def get(access: AskedProgram, path: str, deadline: Deadline, most: int = MOST_BYTES) -> bytes:
    """Send `GET <url><path>` and return the body of an answer with status 200.

    Raises:
        AskError: no connection, no complete answer in time, another status, or a longer body.
    """
    url = urlsplit(access.url)
    host, port = split_endpoint(url.netloc)
    headers = {"Accept": "application/json, text/plain", "Accept-Encoding": "identity", "User-Agent": "clan-discovery"}
    headers |= _login(access)
    connection = HTTPConnection(url.netloc)
    try:
        connection.sock = _connect(access, host, port or _default_port(url.scheme), deadline)
        connection.request("GET", url.path + path, headers=headers)
        response = connection.getresponse()
        if response.status != 200:
            _refuse(access, path, response.status, response.reason, response.getheader("Location"))
        body = bytearray()
        while chunk := response.read1(_CHUNK):
            body += chunk
            if len(body) > most:
                raise AskError(f"its answer is larger than {most >> 20} MiB")
        if response.length:  # read1 ends without an error where the connection ends too early
            raise IncompleteRead(b"", response.length)
    except TimeoutError:
        raise AskError(
            f"no complete response within {deadline.budget:g} s", "see its log, or raise verify.timeout"
        ) from None
    except (HTTPException, OSError, ValueError) as error:
        raise _failed(access, error) from None
    finally:
        connection.close()
    return bytes(body)


def probe(url: str, deadline: Deadline) -> Probe:
    """Send `GET` to a URL and return the status of the answer; its body is not read.

    Raises:
        AskError: no connection, or no answer in time.
    """
    access = AskedProgram(name="", kind="clan-discovery", url=url)
    parts = urlsplit(url)
    host, port = split_endpoint(parts.netloc)
    connection = HTTPConnection(parts.netloc)
    path = parts.path or "/"
    if parts.query:
        path = f"{path}?{parts.query}"
    try:
        connection.sock = _connect(access, host, port or _default_port(parts.scheme), deadline)
        connection.request("GET", path, headers={"User-Agent": "clan-discovery", "Connection": "close"})
        response = connection.getresponse()
        return Probe(response.status, response.getheader("Location") or "")
    except TimeoutError:
        raise AskError(f"no response within {deadline.budget:g} s") from None
    except (HTTPException, OSError, ValueError) as error:
        raise _failed(access, error) from None
    finally:
        connection.close()


def _default_port(scheme: str) -> int:
    if scheme == "https":
        return 443
    return 80


def _connect(access: AskedProgram, host: str, port: int, deadline: Deadline) -> socket.socket:
    """Connect to the first address of the host that answers."""
    if access.url.startswith("http://"):
        return _connect_tcp(host, port, deadline)
    from clan_discovery.verify.tls import client_context, start_tls  # noqa: PLC0415 - ssl, only for https

    try:
        context = client_context(access.ca_file)
    except OSError as error:
        what = f"cannot use the CA file {access.ca_file}: {error.strerror or error}"
        raise AskError(what, f"openssl x509 -noout -subject -in {access.ca_file}") from None
    return start_tls(_connect_tcp(host, port, deadline), host, context, deadline)


def _connect_tcp(host: str, port: int, deadline: Deadline) -> BoundedSocket:
    last: OSError | None = None
    for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[:_MOST_ADDRESSES]:
        connection = BoundedSocket(deadline, family)
        try:
            connection.settimeout(deadline.remaining())
            connection.connect(address)
        except OSError as error:
            connection.close()
            last = error
        else:
            return connection
    raise last or OSError("the name has no address")


def _login(access: AskedProgram) -> dict[str, str]:
    if access.bearer_token_file is not None:
        return {"Authorization": f"Bearer {_secret(access.bearer_token_file)}"}
    if access.password_file is not None:
        pair = f"{access.username}:{_secret(access.password_file)}"
        return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
    return {}


def _secret(file: Path) -> str:
    fix = f"sudo -u clan-discovery cat {file}"
    try:
        text = read_input(file, _MOST_SECRET).decode().strip()
    except UnreadableError as error:
        raise AskError(f"cannot read {file}: {error.why}", fix) from None
    except UnicodeDecodeError:
        raise AskError(f"{file} is not UTF-8", fix) from None
    if not text or not text.isprintable():
        raise AskError(f"{file} is empty, or has more than one line", fix)
    return text


def _refuse(access: AskedProgram, path: str, status: int, phrase: str, location: str | None) -> NoReturn:
    """Raise an AskError for another status than 200."""
    what = f"HTTP {status} {phrase[:_SHOWN]}".rstrip()
    if 300 <= status < 400 and location is not None:
        fix = f"{key_of(access)}.url: the URL of the program itself, not of a login page"
        raise AskError(f"{what}: it redirects to {location[:_SHOWN]}", fix)
    if status == 400 and access.url.startswith("http://"):
        raise AskError(what, f"{key_of(access)}.url: write https://, if it speaks TLS: curl -i {access.url}")
    if status in _DENIED:
        raise AskError(f"{what}: access denied", f"{key_of(access)}: set bearer_token_file or basic_auth")
    if status == 404:
        raise AskError(
            f"{what}: there is no such API",
            f"{key_of(access)}.url: where is the API? curl -i {shlex.quote(access.url + path)}",
        )
    raise AskError(what, f"curl -i {access.url}; is {key_of(access)}.url right?")


def _failed(access: AskedProgram, error: Exception) -> AskError:
    fix = f"{key_of(access)}.url: does the program answer there? curl -i {access.url}"
    certificate: object = getattr(error, "verify_message", None)
    if certificate:
        return AskError(f"its certificate is not trusted: {certificate}", f"{key_of(access)}.ca_file: the CA's file")
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.strerror:
        text = error.strerror
        if type(error).__module__ == "ssl":
            return AskError(f"no TLS there: {text[:_SHOWN]}", f"{key_of(access)}.url: write http://, or turn TLS on")
        return AskError(text[:1].lower() + text[1:_SHOWN], fix)
    if isinstance(error, socket.gaierror):
        return AskError(f"the name of its host does not resolve: {error.strerror}", fix)
    return AskError(f"not an HTTP response: {(str(error) or type(error).__name__)[:_SHOWN]}", fix)


def key_of(access: AskedProgram) -> str:
    """Return the key of a program in the config."""
    if access.kind == "scraper":
        return f"verify.scrapers.{access.name}"
    return f"verify.{access.kind}.{access.name}"
