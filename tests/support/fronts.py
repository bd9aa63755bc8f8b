"""Fronts with every feature, and the proxies' own validators."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.emit.fronts import render_fronts
from clan_discovery.model import ForwardAuth, Front, FrontKind, FrontSettings, Pairs
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from clan_discovery.model import FrontAuth

KINDS: Final[tuple[FrontKind, ...]] = ("caddy", "nginx", "traefik")


def front(
    domain: str,
    address: str = "10.0.0.5:8080",
    *,
    path: str = "/",
    auth: FrontAuth = "none",
    headers: Pairs = (),
    hidden: tuple[str, ...] = (),
) -> Front:
    """Return a front that is checked and located."""
    return Front(
        service=domain.partition(".")[0],
        domain=domain,
        path=path,
        machine="nas",
        port=int(address.rpartition(":")[2]),
        auth=auth,
        headers=headers,
        hidden=hidden,
        address=address,
        because=f"exposed: {domain.partition('.')[0]}",
    )


FORWARD: Final = ForwardAuth(
    url="http://127.0.0.1:9091/api/authz/forward-auth", headers=("Remote-User", "Remote-Groups")
)


def settings(kind: FrontKind, **changes: object) -> FrontSettings:
    """Return settings with every kind of authentication; `changes` are fields."""
    base = FrontSettings(kind=kind, basic="/run/secrets/front-users", forward=FORWARD, oidc="http://127.0.0.1:4180")
    return msgspec.structs.replace(base, **changes)


def certificate(directory: Path) -> dict[str, str]:
    """Make a certificate, and return the settings that use it."""
    files = {"certificate": str(directory / "certificate.pem"), "key": str(directory / "key.pem")}
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=test"]
    subprocess.run(
        [program("openssl"), *words, "-keyout", files["key"], "-out", files["certificate"]],
        check=True,
        capture_output=True,
    )
    return {"tls": "files", **files}


def validate(fronts: Sequence[Front], given: FrontSettings, directory: Path) -> str:
    """Let the proxy's own validator read the config; return what is wrong with it, or an empty string."""
    file = directory / f"fronts.{given.kind}"
    file.write_text(render_fronts(fronts, given))
    if given.kind == "caddy":
        words = [program("caddy"), "validate", "--adapter", "caddyfile", "--config", str(file)]
    else:
        main = directory / "nginx.conf"
        temporary = "".join(f"{kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi"))
        main.write_text(f"pid {directory}/pid; error_log stderr; events {{}} http {{ {temporary} include {file}; }}\n")
        words = [program("nginx"), "-t", "-c", str(main)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={"HOME": str(directory)})
    if done.returncode == 0:
        return ""
    return done.stderr
