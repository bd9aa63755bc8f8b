"""A real HTTP server on loopback that answers paths with given bytes, and recorded scrapers."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from typing_extensions import override

from clan_discovery.assemble.verification import parse_yaml_text
from clan_discovery.model import Resolution, Target
from clan_discovery.verify.ask import EMPTY, IDENTITIES
from clan_discovery.verify.settings import AskedProgram, VerifySettings

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

RECORDED: Final = Path(__file__).resolve().parents[1] / "data/scrapers"
PROGRAMS: Final = sorted(path.name for path in RECORDED.iterdir() if path.is_dir())
DIRECTORY: Final = Path("/var/lib/clan-discovery/targets")


class Reply(NamedTuple):
    """A status, headers and a body."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


NOT_FOUND: Final = Reply(b"404 page not found\n", 404)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, replies: Mapping[str, Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies = replies
        self.requests: list[tuple[str, dict[str, str]]] = []

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a client may end the connection."""


class _Handler(BaseHTTPRequestHandler):
    @override
    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        replies = self.server.replies
        reply = replies.get(self.path) or replies.get(self.path.partition("?")[0]) or NOT_FOUND
        self.send_response(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)


class Answering(NamedTuple):
    """A running server: its URL, and the requests that it got, with their headers in lower case."""

    url: str
    requests: list[tuple[str, dict[str, str]]]


@contextmanager
def answering(replies: Mapping[str, Reply]) -> Generator[Answering]:
    """Serve replies by path, with the query or without it; anything else is 404."""
    server = _Server(replies)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Answering(f"http://127.0.0.1:{server.server_address[1]}", server.requests)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def recorded_replies(program: str) -> dict[str, Reply]:
    """Return the recorded replies of a program by path and query; the metrics are shortened."""
    directory = RECORDED / program
    found: dict[str, Reply] = {}
    for path, answer in json.loads((directory / "answers.json").read_bytes()).items():
        body = b"recorded without its body"
        if answer["file"] is not None:
            body = (directory / answer["file"]).read_bytes()
        found[path] = Reply(body, answer["status"], (("Content-Type", answer["content_type"]),))
    found[IDENTITIES] = found["/api/v1/query?query=node_uname_info"]
    samples = found["/api/v1/query?query=scrape_samples_scraped"]
    found[EMPTY] = samples
    if samples.status == 200:
        document = json.loads(samples.body)
        result = [series for series in document["data"]["result"] if series["value"][1] == "0"]
        document["data"]["result"] = result
        found[EMPTY] = samples._replace(body=json.dumps(document).encode())
    return found


def resolution_of(targets: Sequence[Target], jobs: Sequence[str] = ()) -> Resolution:
    """Return a resolution with only these targets."""
    return Resolution(
        jobs=tuple(dict.fromkeys([*jobs, *(target.job for target in targets)])),
        targets=tuple(targets),
        missing=(),
        unknown=(),
        stray=(),
        ambiguous=(),
        excluded=(),
        beliefs=(),
        problems=(),
        additional_scrape_configs=(),
        taken_at=datetime.now(UTC),
    )


def target_of(job: str, machine: str, address: str, /, **labels: str) -> Target:
    """Return a target as the resolver writes it for a declared machine."""
    found = {
        "__meta_clan_observed": "true",
        "__meta_clan_role": "exporter",
        "instance": machine,
        "machine": machine,
        **labels,
    }
    return Target(job, machine, address, found, observed=True, backend="lab", because="test", located="test")


class _Group(msgspec.Struct):
    targets: list[str]
    labels: dict[str, str]


def recorded_targets() -> list[Target]:
    """Return the targets that the recorded scrapers should have."""
    groups = msgspec.json.decode((RECORDED / "expected.json").read_bytes(), type=list[_Group])
    found: list[Target] = []
    for group in groups:
        labels = dict(group.labels)
        found.append(target_of(labels.pop("job"), labels["machine"], group.targets[0], **labels))
    return found


def settings_of(*accesses: AskedProgram, timeout: float = 20.0, directory: Path | None = DIRECTORY) -> VerifySettings:
    """Return settings that ask these programs."""
    return VerifySettings(
        scrapers=tuple(access for access in accesses if access.kind == "scraper"),
        programs=tuple(access for access in accesses if access.kind != "scraper"),
        timeout=timeout,
        silent_after=7 * 86400.0,
        directory=directory,
        parse_yaml=parse_yaml_text,
    )


def scraper(name: str, url: str) -> AskedProgram:
    """Return a scraper without a login."""
    return AskedProgram(name=name, kind="scraper", url=url)
