"""Probe targets as the scraper would: open a TCP connection and get the metrics path."""

from __future__ import annotations

import errno
import re
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from clan_discovery.doctor.finding import Finding
from clan_discovery.errors import Exit
from clan_discovery.syntax.counting import first_names, plural
from clan_discovery.syntax.endpoint import split_endpoint
from clan_discovery.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clan_discovery.model import Target

CONCURRENCY: Final = 64
PROBE_S: Final = 2.0
WHOLE_S: Final = 30.0
"""The time limits of one probe, and of all of them."""
_MOST_BYTES: Final = 8192
_NAMED_MOST: Final = 5
_STATUS: Final = re.compile(rb"HTTP/\d\.?\d? (\d{3})")
_SAMPLE: Final = re.compile(rb"\s*(?:#|[a-zA-Z_:][a-zA-Z0-9_:.]*[ {])")
_PROTOBUF: Final = b"application/vnd.google.protobuf"
_HTTPS_EXPECTED: Final = re.compile(rb"HTTPS? (?:server|port)", re.IGNORECASE)
_OK: Final = 200


class Probed(NamedTuple):
    """What a probe found: what is wrong and how to fix it; `what` is empty if nothing is."""

    what: str = ""
    fix: str = ""


_NO_TIME: Final = Probed("not probed: the time is over", "name machines: clan-discovery doctor --live MACHINE")
_FIREWALL: Final = (
    "is the machine up? open the port there (networking.firewall), and in the tailnet's access rules; "
    "a firewall drops without an answer"
)
_TIMED_OUT: Final = Probed(f"no connection within {PROBE_S:g} s", _FIREWALL)
_SILENT: Final = Probed(
    f"connected, but no complete HTTP response within {PROBE_S:g} s",
    "see the exporter's log: it hangs or is slow (compare with scrape_timeout)",
)
_BY_ERRNO: Final = {
    errno.ECONNREFUSED: Probed(
        "connection refused: nothing listens on this port",
        "start the exporter on the machine (systemctl status), or correct its port",
    ),
    errno.EHOSTUNREACH: Probed("no route to the host", "is the machine up? check `ip route` and the VPN here"),
    errno.ENETUNREACH: Probed("network unreachable", "check that the VPN, or IPv6, is up on this machine"),
}


def probe_all(targets: Sequence[Target], *, probe_s: float = PROBE_S, whole_s: float = WHOLE_S) -> dict[int, Probed]:
    """Probe targets in parallel; return the results by index. Targets that exceed the time limit are left out."""
    end = time.monotonic() + whole_s
    found: dict[int, Probed] = {}
    numbers = iter(range(len(targets)))

    def work() -> None:
        # Threads share the iterator: next() of a range is atomic.
        for number in numbers:
            if time.monotonic() >= end:
                return
            found[number] = probe(targets[number], probe_s)

    workers = [Worker(work) for _ in range(min(CONCURRENCY, len(targets)))]
    for worker in workers:
        try:
            worker.start()
        except RuntimeError:  # no more threads can be started: the running ones do the rest
            break
    for worker in workers:
        worker.join(max(end - time.monotonic(), 0))
    return dict(found)


def probe(target: Target, seconds: float) -> Probed:
    """Connect to a target and get its metrics path, within so many seconds. Raises nothing."""
    deadline = time.monotonic() + seconds
    host, port = split_endpoint(target.address)
    try:
        connection = socket.create_connection((host, port or 80), timeout=seconds)
    except TimeoutError:
        return _TIMED_OUT
    except socket.gaierror as error:
        fix = "check DNS, or MagicDNS, on this machine"
        if not target.asked:
            fix = "check DNS on this machine; only `verify` can check a name in a network of the scraper, as in Compose"
        return Probed(f"the name {host} does not resolve: {error.strerror}", fix)
    except (OSError, ValueError) as error:
        return _failed(error)
    with connection:
        try:
            return judge(target, _get(target, host, connection, deadline))
        except TimeoutError:
            return _SILENT
        except ssl.SSLCertVerificationError as error:
            fix = "give the scraper the CA, or the name in the certificate: tls_config (ca_file, server_name)"
            return Probed(f"the certificate is not trusted here: {error.verify_message}", fix)
        except ssl.SSLError:
            return Probed("does not speak TLS", f"set exporters.{target.job}.scheme: http, or turn TLS on there")
        except OSError as error:
            return _failed(error)


def _failed(error: Exception) -> Probed:
    number = error.errno if isinstance(error, OSError) else None
    if number in _BY_ERRNO:
        return _BY_ERRNO[number]
    text = error.strerror if isinstance(error, OSError) else None
    return Probed(text or str(error) or type(error).__name__, "see the exporter's log")


def _get(target: Target, host: str, connection: socket.socket, deadline: float) -> bytes:
    """Return the beginning of the response."""
    stream = connection
    stream.settimeout(_left(deadline))
    if target.scheme == "https":
        stream = ssl.create_default_context().wrap_socket(connection, server_hostname=host)
    with stream:
        stream.sendall(_request(target))
        parts = bytearray()
        while len(parts) < _MOST_BYTES:
            stream.settimeout(_left(deadline))
            part = stream.recv(_MOST_BYTES)
            if not part:
                break
            parts += part
        return bytes(parts)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _request(target: Target) -> bytes:
    """Write the request. HTTP/1.0, so that no response is chunked and the server closes the connection."""
    lines = [
        f"GET {target.path_and_query} HTTP/1.0",
        f"Host: {target.address}",
        "User-Agent: clan-discovery-doctor",
        "Accept: text/plain;version=0.0.4,*/*;q=0.1",
    ]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def judge(target: Target, response: bytes) -> Probed:
    """Say what is wrong with the beginning of a response."""
    head, _, body = response.partition(b"\r\n\r\n")
    status = _STATUS.match(head)
    path = target.path
    exporter = f"exporters.{target.job}"
    if status is None:
        return Probed("does not speak HTTP", f"set {exporter}.scheme: https, or correct its port")
    code = int(status[1])
    if code == _OK:
        return _judge_body(target, head, body)
    what = f"HTTP {code}"
    if code == 400 and _HTTPS_EXPECTED.search(body):
        return Probed(f"{what}: it speaks HTTPS", f"set {exporter}.scheme: https")
    if code in (401, 403):
        return Probed(f"{what}: access denied", "give the scraper credentials: authorization or basic_auth")
    if code == 404:
        return Probed(f"{what}: there is no {path}", f"set {exporter}.path, or correct its port")
    if 300 <= code < 400:
        return Probed(f"{what}: redirected from {path}", f"set {exporter}.path (or scheme) to where it leads")
    return Probed(what, "see the exporter's log")


def _judge_body(target: Target, head: bytes, body: bytes) -> Probed:
    is_metrics = _SAMPLE.match(body) is not None or not body.strip() or _PROTOBUF in head
    if is_metrics:
        return Probed()
    fix = f"another service has this port, or set exporters.{target.job}.path"
    return Probed("HTTP 200, but the response is not metrics", fix)


def live_findings(targets: Sequence[Target], found: dict[int, Probed]) -> Iterator[Finding]:
    """Report each cause once, with the affected targets, and how many targets answer."""
    by_cause: dict[Probed, list[str]] = {}
    for number, target in enumerate(targets):
        probed = found.get(number, _NO_TIME)
        by_cause.setdefault(probed, []).append(f"{target.machine} {target.job} ({target.address})")
    well = len(by_cause.pop(Probed(), []))
    if well:
        yield Finding("ok", "live", f"{well} of {plural(len(targets), 'target')} answer with metrics")
    for probed, names in by_cause.items():
        about = "target" if len(names) == 1 else f"{len(names)} targets"
        what = f"{probed.what}: {first_names(names, _NAMED_MOST)}"
        yield Finding("error", about, what, probed.fix, Exit.FINDINGS)
