"""Send what many agents send: remote write and jsonline over TLS, a connection and a token for each agent.

    python -m bench.agent_load TOKENS CA HOST PORT SERIES LINES INTERVAL_S ROUNDS

TOKENS is a JSON object of machines and tokens. In each round, each agent sends one block of metrics (`bed_load` with
the number of the round as value) and one of log lines, spread over the interval. A block that is refused or lost is
sent again until it is taken. Prints a JSON object with what was taken and what was tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.receiver import DOMAIN
from tests.support.remote_write import HEADERS, Series, write_request

_RETRY_S = 1.0
_TRIES = 120


@dataclass
class Load:
    """What is sent to where, and what became of it."""

    host: str
    port: int
    tls: ssl.SSLContext
    series: int
    lines: int
    interval_s: float
    rounds: int
    blocks: int = 0
    again: int = 0
    slowest_s: float = 0.0
    bodies: dict[int, tuple[bytes, bytes]] = field(default_factory=dict[int, tuple[bytes, bytes]])

    def body(self, number: int) -> tuple[bytes, bytes]:
        """Return the blocks of a round: all agents send the same, and only the token tells them apart."""
        if number not in self.bodies:
            now = time.time()
            labels = [("__name__", "bed_load"), ("job", "node")]
            series = [Series([*labels, ("number", str(one))], [(now, float(number))]) for one in range(self.series)]
            entries = (
                {
                    "__REALTIME_TIMESTAMP": str(round(now * 1e6) + one),
                    "_msg": f"round {number} line {one}",
                    "_SYSTEMD_UNIT": "bed.service",
                    "PRIORITY": "6",
                }
                for one in range(self.lines)
            )
            lines = "".join(json.dumps(entry) + "\n" for entry in entries)
            self.bodies[number] = write_request(series), lines.encode()
        return self.bodies[number]


@dataclass
class Sender:
    """One agent: its connection is kept, as vmagent keeps it."""

    load: Load
    token: str
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None

    async def run(self, offset_s: float) -> None:
        """Send each round at its time."""
        start = time.monotonic() + offset_s
        for number in range(self.load.rounds):
            await asyncio.sleep(max(0.0, start + number * self.load.interval_s - time.monotonic()))
            metrics, lines = self.load.body(number)
            headers = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
            await self.send("/api/v1/write", headers, metrics)
            await self.send("/insert/jsonline", "Content-Type: application/stream+json\r\n", lines)
        self.close()

    async def send(self, path: str, headers: str, body: bytes) -> None:
        """Send a block until it is taken."""
        begun = time.monotonic()
        status = 0
        for _ in range(_TRIES):
            status = 0
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
                status = await self.request(path, headers, body)
            if status in {200, 204}:
                self.load.blocks += 1
                self.load.slowest_s = max(self.load.slowest_s, time.monotonic() - begun)
                return
            self.load.again += 1
            self.close()
            await asyncio.sleep(_RETRY_S)
        raise RuntimeError(f"{path}: not taken after {_TRIES} tries, the last status was {status}")

    async def request(self, path: str, headers: str, body: bytes) -> int:
        """Send a request, and return the status."""
        if self.writer is None or self.reader is None:
            self.reader, self.writer = await asyncio.open_connection(
                self.load.host, self.load.port, ssl=self.load.tls, server_hostname=DOMAIN
            )
        head = f"POST {path} HTTP/1.1\r\nHost: {DOMAIN}\r\nAuthorization: Bearer {self.token}\r\n"
        self.writer.write(f"{head}{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await self.writer.drain()
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = dict(line.lower().split(": ", 1) for line in answer.split("\r\n")[1:] if ": " in line)
        await self.reader.readexactly(int(fields.get("content-length", "0")))
        if fields.get("connection") == "close":
            self.close()
        return int(answer.split(" ", 2)[1])

    def close(self) -> None:
        """End the connection."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


async def run(load: Load, tokens: dict[str, str]) -> None:
    """Run all agents."""
    senders = [Sender(load, token) for token in tokens.values()]
    step = load.interval_s / len(senders)
    await asyncio.gather(*(sender.run(number * step) for number, sender in enumerate(senders)))


def main() -> None:
    """Send, and print what became of it."""
    tokens, ca, host, port, series, lines, interval, rounds = sys.argv[1:]
    tls = ssl.create_default_context(cafile=ca)
    load = Load(host, int(port), tls, int(series), int(lines), float(interval), int(rounds))
    asyncio.run(run(load, json.loads(Path(tokens).read_text())))
    print(json.dumps({"blocks": load.blocks, "again": load.again, "slowest_s": load.slowest_s}))


if __name__ == "__main__":
    main()
