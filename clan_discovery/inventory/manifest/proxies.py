"""Read `interface.proxy` of a service: the fronts of a manifest. Pure.

It is one proxy, or an attrset of named ones:

    proxy = { domain = "vault.example.org"; path = "/"; upstream = "10.0.0.14:8080"; };
    proxy = { sonarr = { domain = "sonarr.example.org"; upstream = "10.0.0.17:8989"; auth.type = "forward_auth"; }; };
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from clan_discovery.inventory.manifest.extra import Extra, ExtraError, parse_extra
from clan_discovery.inventory.manifest.reader import is_number, kind_of
from clan_discovery.model import CADDY_ADMIN_PORT, Front, FrontAuth
from clan_discovery.syntax.endpoint import MAX_PORT, is_loopback, split_endpoint

if TYPE_CHECKING:
    from clan_discovery.inventory.manifest.reader import ManifestReader
    from clan_discovery.model import Json
    from clan_discovery.syntax.tree import KeyPath

_FIELDS: Final = ("domain", "path", "port", "upstream")
_URL: Final = re.compile(r"(?:(https?)://)?([^/?#@\s]+)/?")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_UPSTREAM: Final = 'write HOST:PORT, such as "127.0.0.1:8096", or a port alone'
_AUTH: Final[Mapping[str, FrontAuth]] = {
    "": "none",
    "basic": "basic",
    "basic_auth": "basic",
    "basicauth": "basic",
    "forward": "forward",
    "forward-auth": "forward",
    "forward_auth": "forward",
    "none": "none",
    "oauth2-proxy": "oidc",
    "oidc": "oidc",
}
_AUTH_HINT: Final = 'known here: "none", "basic", "forward_auth", "oidc"'
_CALLBACK: Final = "/oauth2/callback"
"""Where oauth2-proxy expects the answer of the identity provider."""
_LEFT_OUT: Final = "the front is left out"


class ProxySite(msgspec.Struct, frozen=True, kw_only=True):
    """A service with its machine, as its proxies need it. `machines` are all machines by address and by host name."""

    name: str
    path: tuple[str, ...]
    machine: str
    domain: str
    because: str
    machines: Mapping[str, str]


class _ProxyError(ValueError):
    """A proxy cannot be read: where, what is wrong, and the fix."""

    def __init__(self, path: KeyPath, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.path = path
        self.hint = hint


class _Upstream(msgspec.Struct, frozen=True):
    """Where a proxy connects. `host` is empty if it is the service's own machine."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    loopback: bool = False


def read_proxies(reader: ManifestReader, site: ProxySite, interface: Mapping[str, Json]) -> list[Front]:
    """Return the fronts of a service. One that cannot be read is left out, with a problem."""
    path = (*site.path, "interface", "proxy")
    proxy = interface.get("proxy")
    entries = reader.mapping(proxy, path)
    found: list[Front] = []
    own = interface.get("auth")
    if any(key in entries and not isinstance(entries[key], Mapping) for key in _FIELDS):
        reading = [(site.name, path, entries, own, True)]
    else:
        reading = [
            (name, (*path, name), reader.mapping(entry, (*path, name)), own, False) for name, entry in entries.items()
        ]
    for name, at, entry, auth, is_single in reading:
        one = _ProxyReader(reader, site, at, entry)
        try:
            if entry:
                found.append(one.front(name, auth, is_single=is_single))
        except _ProxyError as error:
            reader.refused.append(one.refused(name))
            reader.complain(error.path, f"{error}: {_LEFT_OUT}", error.hint, severity="problem")
    return found


class _ProxyReader(msgspec.Struct, frozen=True):
    """Reads one proxy."""

    reader: ManifestReader
    site: ProxySite
    path: tuple[str, ...]
    entry: Mapping[str, Json]

    def front(self, name: str, own_auth: Json, *, is_single: bool) -> Front:
        domain = self.text("domain") or name
        if "." not in domain and self.site.domain:
            domain = f"{domain}.{self.site.domain}"
        path = self.text("path") or "/"
        if not path.startswith("/"):
            raise _ProxyError((*self.path, "path"), "must begin with a slash")
        upstream = self.upstream()
        if upstream.port == CADDY_ADMIN_PORT:
            hint = "expose the port of a site instead, and metrics by a listener of their own"
            raise _ProxyError((*self.path, "upstream"), "leads to Caddy's admin API, which can change its config", hint)
        extra = self.extra()
        machine = self.site.machines.get(upstream.host.casefold(), "")
        return Front(
            service=name,
            domain=domain,
            machine=machine or self.site.machine,
            port=upstream.port,
            because=self.site.because,
            path=path,
            scheme=upstream.scheme,
            auth=self.auth(own_auth, domain, is_single=is_single),
            host="" if machine else upstream.host,
            loopback=upstream.loopback,
            headers=extra.headers,
            unbuffered=extra.unbuffered,
            where=self.reader.place(self.path),
        )

    def refused(self, name: str) -> Front:
        """Return the place of a proxy that cannot be read. Its authentication is not known."""
        domain, path = self.entry.get("domain"), self.entry.get("path")
        domain = domain.strip() if isinstance(domain, str) and domain.strip() else name
        if "." not in domain and self.site.domain:
            domain = f"{domain}.{self.site.domain}"
        return Front(
            service=name,
            domain=domain,
            path=path.strip() if isinstance(path, str) else "/",
            machine=self.site.machine,
            port=0,
            because=self.site.because,
            auth="forward",
            where=self.reader.place(self.path),
        )

    def text(self, key: str) -> str:
        value = self.entry.get(key)
        if value is None or isinstance(value, str):
            return (value or "").strip()
        raise _ProxyError((*self.path, key), f"must be a string, not {kind_of(value)}")

    def upstream(self) -> _Upstream:
        given, at = self.entry.get("upstream"), (*self.path, "upstream")
        if given is None and "port" in self.entry:
            given, at = self.entry["port"], (*self.path, "port")
        if is_number(given):
            return _Upstream("http", "", self.port(given, at))
        if not isinstance(given, str) or not given.strip():
            raise _ProxyError(at, "does not say where the service listens", _UPSTREAM)
        text = given.strip()
        if re.fullmatch(":?[0-9]{1,5}", text):
            return _Upstream("http", "", self.port(int(text.removeprefix(":")), at))
        found = _URL.fullmatch(text)
        if found is None:
            raise _ProxyError(at, "is neither HOST:PORT nor a URL without path and login", _UPSTREAM)
        try:
            host, port = split_endpoint(found[2])
        except ValueError:
            raise _ProxyError(at, "has no valid host and port", _UPSTREAM) from None
        scheme: Literal["http", "https"] = "http"
        if found[1] == "https":
            scheme = "https"
        port = port or _DEFAULT_PORTS[scheme]
        if is_loopback(host):
            return _Upstream(scheme, "", port, loopback=True)
        return _Upstream(scheme, host, port)

    def port(self, given: int, at: KeyPath) -> int:
        if 1 <= given <= MAX_PORT:
            return given
        raise _ProxyError(at, f"invalid port: must be 1 to {MAX_PORT}")

    def extra(self) -> Extra:
        at = (*self.path, "extra_config")
        try:
            extra = parse_extra(self.text("extra_config"))
        except ExtraError as error:
            raise _ProxyError(at, str(error), error.hint) from None
        if extra.left_out:
            words = ", ".join(f"`{directive}`" for directive in extra.left_out)
            hint = "let the service send these itself, or configure the proxy by hand"
            self.reader.complain(at, f"not carried over: {words}", hint, severity="warning")
        return extra

    def auth(self, own_auth: Json, domain: str, *, is_single: bool) -> FrontAuth:
        """Return who may use the front. A service may log in its users itself; that is no matter of the proxy."""
        if "auth" in self.entry:
            return self.demanded(self.entry["auth"], (*self.path, "auth"), domain)
        if self.entry.get("authz") is True:
            return "forward"
        inherited = self.demanded(own_auth, (*self.site.path, "interface", "auth"), domain)
        if not is_single and inherited == "oidc":  # it is the login of the service itself, whose proxies have their own
            return "none"
        return inherited

    def demanded(self, auth: Json, at: KeyPath, domain: str) -> FrontAuth:
        oidc: Json = None
        if isinstance(auth, Mapping):
            oidc = auth.get("oidc")
            auth = auth.get("type", True if auth else None)
        if auth is None or isinstance(auth, bool):
            return "forward" if auth else "none"
        found = _AUTH.get(auth.strip().casefold()) if isinstance(auth, str) else None
        if found is None:
            raise _ProxyError(at, "the type of authentication is unknown", _AUTH_HINT)
        if found == "oidc" and _logs_in_itself(oidc, domain):
            return "none"
        return found


def _logs_in_itself(oidc: Json, domain: str) -> bool:
    """Tell whether an OIDC client is the service itself: the provider sends users back to it, not to oauth2-proxy."""
    uris: Json = None
    if isinstance(oidc, Mapping):
        uris = oidc.get("redirect_uris")
    if not isinstance(uris, Sequence):
        return False
    for uri in uris:
        found = re.match(r"https?://([^/?#:]+)(?::[0-9]+)?(/[^?#]*)", uri) if isinstance(uri, str) else None
        if found and found[1].casefold() == domain.casefold() and found[2] != _CALLBACK:
            return True
    return False
