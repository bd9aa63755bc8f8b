"""What local clients can do at the listener of an agent's vmagent: every user of the machine reaches it."""

from __future__ import annotations

import http.client
import http.server
import json
import re
import threading
from typing import TYPE_CHECKING, Final

import pytest
from typing_extensions import override

from tests.conftest import ROOT
from tests.support.programs import eventually, free_port, get, get_json, running, scraper_program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.receiver import Which

FLAGS: Final = re.findall(
    r'"(-(?:maxConcurrentInserts|insert\.maxQueueDuration)=\w+)"', (ROOT / "nix/nixos/agent/unit.nix").read_text()
)
SAMPLES: Final = 20_000
PAGE: Final = "".join(f'sample{{number="{number:06}",padding="{"x" * 60}"}} 1\n' for number in range(SAMPLES)).encode()
"""More than 1 MB: vmagent reads it in parts."""
PUSHED: Final = (
    "api/v1/write",
    "api/v1/import",
    "api/v1/import/prometheus",
    "api/v1/import/csv?format=1:metric:a",
    "write",
)


class _Exporter(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("which", ["debian", "newer"])
def test_vmagent_takes_no_samples_from_local_clients(tmp_path: Path, which: Which) -> None:
    """With the flags of the unit; what it scrapes itself, also a large page, is taken."""
    assert len(FLAGS) == 2
    exporter = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Exporter)
    threading.Thread(target=exporter.serve_forever, daemon=True).start()
    port = free_port()
    targets = [f"127.0.0.1:{exporter.server_address[1]}", f"127.0.0.1:{port}"]
    (tmp_path / "scrape.json").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "5s", "scrape_timeout": "5s"},
                "scrape_configs": [{"job_name": "own", "static_configs": [{"targets": targets}]}],
            }
        )
    )
    command = [scraper_program("vmagent", which), f"-httpListenAddr=127.0.0.1:{port}", *FLAGS]
    command += [f"-promscrape.config={tmp_path}/scrape.json", "-remoteWrite.url=http://127.0.0.1:9/"]
    command += [f"-remoteWrite.tmpDataPath={tmp_path}/queue"]

    def scraped() -> bool:
        match get_json(f"http://127.0.0.1:{port}/api/v1/targets"):
            case {"data": {"activeTargets": [{"lastSamplesScraped": int(one)}, {"lastSamplesScraped": int(other)}]}}:
                return SAMPLES in (one, other) and min(one, other) > 0
            case _:
                return False

    with running(command, tmp_path / "log"):
        eventually("vmagent scrapes both", scraped)
        for path in PUSHED:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", f"/{path}", b'evil{a="b"} 1\n', {"Content-Type": "text/plain"})
            assert connection.getresponse().status == 503, path
            connection.close()
        inserted = re.findall(
            r"^vmagent_rows_inserted_total\{[^}]*\} ([1-9]\d*)",
            get(f"http://127.0.0.1:{port}/metrics").decode(),
            re.MULTILINE,
        )
        assert inserted == []
    exporter.shutdown()
    exporter.server_close()
