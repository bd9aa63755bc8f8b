"""An exporter that counts its scrapes: each is answered with the next number, and a file keeps when.

    python -m tests.stack.counting PORT FILE [SHIFT_S [SERIES]]

`bed_sequence` is the number of the scrape; `bed_padding` are further series with the same value. With a shift, samples
carry the time of the scrape plus the shift, as those of a machine whose clock is wrong. FILE gets a line for each
scrape, with the number and the time in milliseconds, and numbers go on from its last line.
"""

from __future__ import annotations

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from typing_extensions import override


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """Answer with the next number."""
        assert isinstance(self.server, _Exporter)
        body = self.server.next()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


class _Exporter(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, file: Path, shift_s: float, series: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        file.touch()
        self._count = len(file.read_text().splitlines())
        self._file = file
        self._lock = threading.Lock()
        self._shift_ms = round(shift_s * 1000)
        self._series = series

    def next(self) -> bytes:
        """Return the samples of the next scrape."""
        with self._lock:
            self._count += 1
            now = time.time_ns() // 1_000_000
            with self._file.open("a") as file:
                file.write(f"{self._count} {now}\n")
            end = f" {self._count}"
        if self._shift_ms:
            end += f" {now + self._shift_ms}"
        padding = [f'bed_padding{{number="{number}"}}{end}' for number in range(self._series)]
        return "\n".join([f"bed_sequence{end}", *padding, ""]).encode()


if __name__ == "__main__":
    _port, _path, *_rest = sys.argv[1:]
    _shift = float(_rest[0]) if _rest else 0.0
    _number = int(_rest[1]) if len(_rest) > 1 else 0
    _Exporter(int(_port), Path(_path), _shift, _number).serve_forever()
