"""Real reverse proxies on loopback: Debian's Caddy and nginx, a newer Caddy, Traefik.

Each has the part of its config that the operator writes by hand; this part includes the generated file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from tests.support.builds import NotBuiltError, front_program
from tests.support.programs import absent, eventually, free_port, get, program, running

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

Kind: TypeAlias = Literal["caddy", "nginx", "traefik"]

VERSIONS: Final[tuple[tuple[Kind, str], ...]] = (
    ("caddy", "debian"),
    ("caddy", "newer"),
    ("nginx", "debian"),
    ("traefik", "newer"),
)
_CONFIGS: Final[dict[Kind, tuple[str, str]]] = {
    "caddy": ("Caddyfile", "clan.caddy"),
    "nginx": ("nginx.conf", "clan.conf"),
    "traefik": ("traefik.yaml", "clan.yaml"),
}
"""The file that is written by hand, and the generated one."""
_VARIABLES: Final = {
    "caddy": "CLAN_DISCOVERY_CADDY_NEWER",
    "oauth2-proxy": "CLAN_DISCOVERY_OAUTH2_PROXY",
    "traefik": "CLAN_DISCOVERY_TRAEFIK",
}
_COMMAND_S: Final = 60.0
"""A reload of Caddy takes less than a second, on a busy machine longer."""


def built(name: str) -> str:
    """Return a program that is not Debian's: from the environment, or the pinned build."""
    variable = _VARIABLES[name]
    found = os.environ.get(variable)
    if found == "":
        absent(variable, f"empty (the path of {name})", required=False)
    if found is not None:
        return found
    try:
        return str(front_program(name))
    except NotBuiltError as error:
        absent(variable, f"not set, and {error}", required=False)


@dataclass(frozen=True)
class Proxy:
    """A proxy in a directory of its own, with its ports; `fronts` is the generated file."""

    kind: Kind
    executable: str
    place: Path
    http: int
    https: int
    metrics: int

    @property
    def config(self) -> Path:
        """The config that is written by hand."""
        return self.place / _CONFIGS[self.kind][0]

    @property
    def fronts(self) -> Path:
        """The generated file."""
        return self.place / "fronts" / _CONFIGS[self.kind][1]

    @property
    def log(self) -> Path:
        """What the proxy says."""
        return self.place / "log"

    @property
    def _admin(self) -> Path:
        return self.place / "admin"

    def prepare(self) -> None:
        """Write the config that is written by hand; there is no generated file yet."""
        self.fronts.parent.mkdir(parents=True)
        texts = {"caddy": self._caddyfile, "nginx": self._nginx_conf, "traefik": self._traefik_yaml}
        self.config.write_text(texts[self.kind]())
        if self.kind == "traefik":  # it listens before it has read the files
            ready = "{rule: 'Path(`/ready`)', entryPoints: [metrics], service: ping@internal}"
            (self.fronts.parent / "ready.yaml").write_text(f"http: {{routers: {{ready: {ready}}}}}\n")

    @contextlib.contextmanager
    def run(self) -> Generator[subprocess.Popen[bytes]]:
        """Run the proxy until the block ends."""
        commands = {
            "caddy": [self.executable, "run", *self._caddy()],
            "nginx": [*self._nginx(), "-g", "daemon off;"],
            "traefik": [self.executable, f"--configFile={self.config}"],
        }
        with running([*self._environment(), *commands[self.kind]], self.log) as process:

            def is_up() -> bool:
                assert process.poll() is None, self.log.read_text()
                return self._is_up()

            eventually(f"{self.kind} accepts connections", is_up)
            yield process

    def reload(self) -> None:
        """Load the config again; Traefik does it by itself."""
        commands = {
            "caddy": [self.executable, "reload", *self._caddy(), "--address", f"unix/{self._admin}"],
            "nginx": [*self._nginx(), "-s", "reload"],
            "traefik": ["true"],
        }
        done = self._call(*commands[self.kind])
        assert done.returncode == 0, done.stderr

    def complaint(self) -> str:
        """Return what the program's own validator says against its config; Traefik has none."""
        commands = {
            "caddy": [self.executable, "validate", *self._caddy()],
            "nginx": [*self._nginx(), "-t"],
            "traefik": ["true"],
        }
        done = self._call(*commands[self.kind])
        return done.stderr if done.returncode != 0 else ""

    def _is_up(self) -> bool:
        match self.kind:
            case "caddy":
                return b"serving initial configuration" in self.log.read_bytes()
            case "nginx":
                return (self.place / "pid").exists()
            case "traefik":
                return get(f"http://127.0.0.1:{self.metrics}/ready") == b"OK"

    def _call(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [*self._environment(), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_COMMAND_S)

    def _environment(self) -> list[str]:
        """Return the start of a command that keeps the files of a proxy in its own directory."""
        return ["env", *(f"{name}={self.place}" for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"))]

    def _caddy(self) -> list[str]:
        return ["--config", str(self.config), "--adapter", "caddyfile"]

    def _caddyfile(self) -> str:
        return (
            "{\n"
            f"\tadmin unix/{self._admin}\n"
            f"\thttp_port {self.http}\n"
            f"\thttps_port {self.https}\n"
            "\tskip_install_trust\n"
            "}\n"
            f"import {self.fronts.parent}/*.caddy\n"
        )

    def _nginx(self) -> list[str]:
        return [self.executable, "-p", str(self.place), "-c", str(self.config), "-e", "stderr"]

    def _nginx_conf(self) -> str:
        # As root, the workers are another user, who cannot read the test's directory.
        user = "user root;\n" if os.geteuid() == 0 else ""
        temporary = "".join(
            f"\t{name}_temp_path {self.place}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return (
            f"{user}pid {self.place}/pid;\n"
            "worker_processes 2;\n"
            "events { worker_connections 1024; }\n"
            "http {\n"
            "\taccess_log off;\n"
            f"{temporary}"
            f"\tinclude {self.fronts.parent}/*.conf;\n"
            "}\n"
        )

    def _traefik_yaml(self) -> str:
        return (
            "global: {checkNewVersion: false, sendAnonymousUsage: false}\n"
            "log: {level: INFO}\n"
            "entryPoints:\n"
            f"  web: {{address: '127.0.0.1:{self.http}'}}\n"
            f"  websecure: {{address: '127.0.0.1:{self.https}'}}\n"
            f"  metrics: {{address: '127.0.0.1:{self.metrics}'}}\n"
            "providers:\n"
            "  providersThrottleDuration: 100ms\n"
            f"  file: {{directory: '{self.fronts.parent}', watch: true}}\n"
            "metrics: {prometheus: {entryPoint: metrics}}\n"
            "ping: {entryPoint: metrics}\n"
        )


def make_proxy(kind: Kind, which: str, place: Path) -> Proxy:
    """Return a proxy with free ports that does not run yet; without its program, skip the test."""
    executable = program(kind) if which == "debian" else built(kind)
    proxy = Proxy(kind, shutil.which(executable) or executable, place, free_port(), free_port(), free_port())
    proxy.prepare()
    return proxy
