"""A real oauth2-proxy, and an OpenID provider that logs everybody in as one user."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.fronts.proxies import built
from tests.fronts.servers import Answer, serve
from tests.support.programs import eventually, free_port, get, program, running

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.fronts.servers import Asked

EMAIL: Final = "alice@example.org"
_CLIENT: Final = "lab"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Provider:
    """An OpenID provider: discovery, authorization code flow, and tokens signed with RSA."""

    key: Path
    url: str = ""
    nonces: dict[str, str] = field(default_factory=dict[str, str])

    def answer(self, asked: Asked) -> Answer:
        """Answer a request of a browser or of oauth2-proxy."""
        parts = urlsplit(asked.path)
        match parts.path:
            case "/.well-known/openid-configuration":
                return _json(
                    {
                        "issuer": self.url,
                        "authorization_endpoint": f"{self.url}/authorize",
                        "token_endpoint": f"{self.url}/token",
                        "jwks_uri": f"{self.url}/keys",
                        "id_token_signing_alg_values_supported": ["RS256"],
                    }
                )
            case "/authorize":
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                back = urlencode({"code": "code", "state": query["state"]})
                return Answer(302, (("Location", f"{query['redirect_uri']}?{back}"),))
            case "/token":
                token: dict[str, Json] = {"access_token": "access", "token_type": "Bearer", "id_token": self._token()}
                return _json(token)
            case "/keys":
                modulus = self._openssl("rsa", "-noout", "-modulus").decode().strip().partition("=")[2]
                key: dict[str, Json] = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1", "e": "AQAB"}
                return _json({"keys": [{**key, "n": _base64(bytes.fromhex(modulus))}]})
            case _:
                return Answer(404)

    def _token(self) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "aud": _CLIENT, "sub": "1", "email": EMAIL, "email_verified": True}
        parts = ({"alg": "RS256", "kid": "1"}, {**claims, "iat": now, "exp": now + 3600})
        signed = ".".join(_base64(json.dumps(part).encode()) for part in parts)
        signature = subprocess.run(
            [program("openssl"), "dgst", "-sha256", "-sign", str(self.key)],
            input=signed.encode(),
            capture_output=True,
            check=True,
        ).stdout
        return f"{signed}.{_base64(signature)}"

    def _openssl(self, *words: str) -> bytes:
        return subprocess.run(
            [program("openssl"), *words, "-in", str(self.key)], capture_output=True, check=True
        ).stdout


def _json(document: dict[str, Json]) -> Answer:
    return Answer(200, (("Content-Type", "application/json"),), json.dumps(document).encode())


@contextlib.contextmanager
def oauth2_proxy(place: Path, domain: str) -> Generator[str]:
    """Run oauth2-proxy for the names of a domain until the block ends; return its URL."""
    executable = built("oauth2-proxy")
    key = place / "provider.pem"
    subprocess.run([program("openssl"), "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    provider = Provider(key)
    port = free_port()
    with serve("provider", answer=provider.answer) as server:
        provider.url = server.url
        command = [
            executable,
            f"--http-address=127.0.0.1:{port}",
            "--provider=oidc",
            f"--oidc-issuer-url={server.url}",
            f"--client-id={_CLIENT}",
            "--client-secret=secret",
            f"--cookie-secret={'0' * 32}",
            "--cookie-secure=false",
            f"--cookie-domain=.{domain}",
            f"--whitelist-domain=.{domain}",
            "--email-domain=*",
            "--reverse-proxy=true",
            "--set-xauthrequest=true",
            "--skip-provider-button=true",
            "--upstream=static://202",
        ]
        with running(command, place / "oauth2-proxy.log"):
            eventually("oauth2-proxy answers", lambda: get(f"http://127.0.0.1:{port}/ping") == b"OK")
            yield f"http://127.0.0.1:{port}"
