"""A small fleet with exposed services and a real proxy that serves what `refresh` writes."""

from __future__ import annotations

import io
import json
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from clan_discovery.cli.main import main
from tests.fronts.client import browser
from tests.support.programs import program

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    import httpx

    from clan_discovery.model import Json
    from tests.fronts.proxies import Proxy

DOMAIN: Final = "home.example.org"
PROXY_MACHINE: Final = "web01"
PASSWORD: Final = "correct horse"  # noqa: S105 - of the test alone


@dataclass
class Bed:
    """Machines with exposed services, and the proxy in front of them.

    `hosts` are the addresses of the machines, `exposed` their services, `settings` the config's `front` beside what the
    bed needs.
    """

    proxy: Proxy
    hosts: dict[str, str] = field(default_factory=lambda: {PROXY_MACHINE: "127.0.0.1"})
    exposed: dict[str, dict[str, Json]] = field(default_factory=lambda: {PROXY_MACHINE: {}})
    settings: dict[str, Json] = field(default_factory=dict[str, "Json"])

    @property
    def place(self) -> Path:
        """The directory of the bed."""
        return self.proxy.place

    def expose(
        self,
        name: str,
        port: int,
        /,
        *,
        machine: str = PROXY_MACHINE,
        scheme: str = "http",
        domain: str = "",
        **front: Json,
    ) -> str:
        """Expose a service of a machine, at a domain of its name; return the whole domain."""
        entry: Json = {"port": port, "scheme": scheme, "metrics": False, "front": {"domain": domain or name, **front}}
        self.exposed.setdefault(machine, {})[name] = entry
        found = domain or name
        return found if "." in found else f"{found}.{DOMAIN}"

    def write_config(self) -> Path:
        """Write the config and what is exposed; return the config."""
        machines: Json = {machine: {"expose": services} for machine, services in self.exposed.items()}
        (self.place / "exposed.json").write_text(json.dumps({"machines": machines}))
        front: dict[str, Json] = {
            "kind": self.proxy.kind,
            "machine": PROXY_MACHINE,
            "domain": DOMAIN,
            "file": str(self.proxy.fronts),
            **self.settings,
        }
        if self.proxy.kind != "traefik":
            front = {
                "listen": ["127.0.0.1"],
                "ports": {"http": self.proxy.http, "https": self.proxy.https},
                "metrics": f"127.0.0.1:{self.proxy.metrics}",
                **front,
            }
        config: Json = {
            "inventory": {"exposed": "exposed.json"},
            "backends": {"static": {"lab": {"machines": self.hosts}}},
            "output": {"directory": "targets"},
            "state": "state",
            "front": front,
        }
        path = self.place / "config.yaml"
        path.write_text(json.dumps(config))
        return path

    def refresh(self) -> str:
        """Write the proxy's config with `refresh`; return its messages."""
        out, err = io.StringIO(), io.StringIO()
        code = main(["refresh", "-c", str(self.write_config())], out, err)
        assert code == 0, err.getvalue()
        return err.getvalue()

    def apply(self) -> None:
        """Write the proxy's config, and load it."""
        self.refresh()
        self.proxy.reload()

    def browser(self, *, ca_file: Path | None = None, http2: bool = False) -> AbstractContextManager[httpx.Client]:
        """Return a client that finds every name at the proxy."""
        return browser(self.proxy, ca_file=ca_file, http2=http2)

    def users(self, **passwords: str) -> Path:
        """Write a file of users with bcrypt hashes as this proxy reads it; return it."""
        lines = [
            subprocess.run(
                [program("htpasswd"), "-nbB", "-C", "4", user, password], capture_output=True, text=True, check=True
            ).stdout.strip()
            for user, password in passwords.items()
        ]
        if self.proxy.kind == "caddy":
            lines = [line.replace(":", " ", 1) for line in lines]
        file = self.place / "users"
        file.write_text("".join(f"{line}\n" for line in lines))
        return file
