"""headscale: the control plane, with its embedded DERP relay, without outside connections."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import yaml

from tests.support import builds

if TYPE_CHECKING:
    from datetime import datetime

    from clan_discovery.model import Json
    from tests.tailnet.world import Host, Process

DOMAIN: Final = "tailnet.test"
_PORT: Final = 8080
_START_S: Final = 120.0
_POLICY: Final = {
    "tagOwners": {"tag:server": ["ops@"], "tag:retired": ["ops@"]},
    "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
}


@dataclass
class Headscale:
    """The control plane on one host; its command line uses its unix socket."""

    host: Host
    v4: bool = True

    def __post_init__(self) -> None:
        place = self.host.place
        self.config = place / "config.yaml"
        self.url = f"http://{self.host.v4}:{_PORT}"
        self._socket = place / "headscale.sock"
        self._database = place / "db.sqlite"
        prefixes = {"v6": "fd7a:115c:a1e0::/48", "allocation": "sequential"}
        config: dict[str, Json] = {
            "server_url": self.url,
            "listen_addr": f"0.0.0.0:{_PORT}",
            "metrics_listen_addr": "127.0.0.1:9090",
            "grpc_listen_addr": "127.0.0.1:50443",
            "noise": {"private_key_path": str(place / "noise.key")},
            "prefixes": {"v4": "100.64.0.0/10", **prefixes} if self.v4 else prefixes,
            "derp": {
                "server": {
                    "enabled": True,
                    "region_id": 900,
                    "region_code": "bed",
                    "region_name": "Test bed",
                    "verify_clients": True,
                    "stun_listen_addr": "0.0.0.0:3478",
                    "private_key_path": str(place / "derp.key"),
                    "automatically_add_embedded_derp_region": True,
                    "ipv4": self.host.v4,
                },
                "urls": [],
                "paths": [],
                "auto_update_enabled": False,
            },
            "disable_check_updates": True,
            "node": {"expiry": 0, "ephemeral": {"inactivity_timeout": "66s"}},
            "database": {"type": "sqlite", "sqlite": {"path": str(self._database), "write_ahead_log": True}},
            "log": {"level": "info", "format": "json"},
            "policy": {"mode": "file", "path": str(place / "policy.json")},
            "dns": {
                "magic_dns": True,
                "base_domain": DOMAIN,
                "override_local_dns": False,
                "nameservers": {"global": [], "split": {}},
                "search_domains": [],
                "extra_records": [],
            },
            "unix_socket": str(self._socket),
            "unix_socket_permission": "0700",
            "logtail": {"enabled": False},
            "taildrop": {"enabled": False},
            "auto_update": {"enabled": False},
        }
        self.config.write_text(yaml.safe_dump(config))
        (place / "policy.json").write_text(json.dumps(_POLICY))
        self.process: Process | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.process = self.host.start(builds.headscale(), "-c", self.config, "serve", log="headscale")
        end = time.monotonic() + _START_S
        while not self._answers():
            if time.monotonic() > end or not self.process.alive:
                raise AssertionError(f"headscale did not start: {self.process.said()[-2000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it."""
        if self.process is not None:
            self.process.end()

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(os.fspath(self._socket))
            except OSError:
                return False
        return subprocess.run(self._command("health"), capture_output=True, check=False).returncode == 0

    def _command(self, *words: str) -> list[str]:
        return self.host.command(builds.headscale(), "-c", self.config, "-o", "json", "--force", *words)

    def ask(self, *words: str) -> Json:
        """Run a command of headscale; return its JSON output."""
        done = subprocess.run(self._command(*words), capture_output=True, text=True, timeout=30, check=False)
        if done.returncode != 0:
            raise AssertionError(f"headscale {' '.join(words)}: {done.stdout}{done.stderr}")
        found: Json = json.loads(done.stdout) if done.stdout.strip() else None
        return found

    def user(self, name: str = "ops") -> None:
        """Create the user that owns the nodes."""
        self.ask("users", "create", name)

    def key(self, *flags: str) -> str:
        """Create a reusable login key for nodes."""
        found = self.ask("preauthkeys", "create", "--user", "1", "--reusable", "--expiration", "24h", *flags)
        assert isinstance(found, dict)
        return str(found["key"])

    def nodes(self) -> dict[str, int]:
        """Return its nodes: given name to number."""
        found = self.ask("nodes", "list")
        assert isinstance(found, list)
        return {str(n["given_name"]): int(str(n["id"])) for n in found if isinstance(n, dict)}

    def registered_at(self, name: str) -> datetime | None:
        """Return when it stored a node, from its database, to the microsecond."""
        from datetime import datetime  # noqa: PLC0415 - needed at run time only here

        with sqlite3.connect(f"file:{self._database}?mode=ro", uri=True) as database:
            row = database.execute("select created_at from nodes where given_name = ?", (name,)).fetchone()
        return datetime.fromisoformat(row[0]) if row else None
