"""Read `front` from a config, and check the declared fronts against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from clan_discovery.inventory.exporters import known_exporters
from clan_discovery.model import ForwardAuth, FrontKind, FrontSettings
from clan_discovery.resolve.fronts import named_fronts, served_fronts
from clan_discovery.syntax.endpoint import is_address
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.config.models import FrontConfig
    from clan_discovery.model import Declared, Problem

_OF_ONE_KIND: Final = {
    "ports": ("caddy", "nginx"),
    "listen": ("caddy", "nginx"),
    "metrics": ("caddy", "nginx"),
    "refuse_unknown_hosts": ("caddy", "nginx"),
    "resolver": ("nginx",),
    "entry_point": ("traefik",),
    "cert_resolver": ("traefik",),
}
"""The keys that not every proxy has, and which ones have them."""
_INSTEAD: Final = {
    "ports": "Traefik's ports are those of its entry points: set front.entry_point",
    "listen": "Traefik's addresses are those of its entry points: set front.entry_point",
    "metrics": "in Traefik's own config, set `metrics.prometheus.entryPoint`",
}


def front_settings(loaded: LoadedConfig, kind: FrontKind | None) -> tuple[FrontSettings | None, list[Problem]]:
    """Return how the reverse proxy serves fronts, and what it does not have of what the config says.

    The settings are None if the config has none, and no `kind` is asked for. `kind` replaces the config's.
    """
    front = loaded.config.front
    if front is None:
        return None if kind is None else FrontSettings(kind=kind), []
    wanted = kind or front.kind
    problems = [*_tls_problems(loaded, front, wanted)]
    if wanted == front.kind:
        problems += _key_problems(loaded, front)
    settings = _settings(front, wanted)
    problems += _name_problems(loaded, settings)
    if front.receive is not None and wanted == front.kind:
        from clan_discovery.assemble.receive import receive_settings  # noqa: PLC0415 - most fronts receive nothing

        receive, more = receive_settings(loaded, front, front.receive, settings)
        problems += more
        own = settings.own_domains
        if receive.kind == "nginx":
            own = (*own, receive.domain)
        settings = msgspec.structs.replace(settings, receive=receive, own_domains=own)
    return settings, problems


def _settings(front: FrontConfig, kind: FrontKind) -> FrontSettings:
    settings = FrontSettings(
        kind=kind,
        machine=_text(front.machine),
        domain=_text(front.domain),
        tls=front.tls.mode,
        certificate=_text(front.tls.certificate),
        key=_text(front.tls.key),
        listen=tuple(front.listen),
        http_port=front.ports.http,
        https_port=front.ports.https,
        metrics=_text(front.metrics),
        resolvers=tuple(front.resolver),
        ca=_text(front.ca_file),
        entry_point=_text(front.entry_point),
        cert_resolver=front.cert_resolver,
        refuses_unknown=front.refuse_unknown_hosts,
        own_domains=tuple(front.own_domains),
        file=_text(front.file),
    )
    auth = front.auth
    if auth.basic is not None:
        settings = msgspec.structs.replace(settings, basic=str(auth.basic.file))
    if auth.forward is not None:
        asked = auth.forward
        forward = ForwardAuth(url=asked.url, headers=tuple(asked.headers), login=_text(asked.login))
        settings = msgspec.structs.replace(settings, forward=forward)
    if auth.oidc is not None:
        settings = msgspec.structs.replace(settings, oidc=auth.oidc.url)
    return settings


def _text(value: Path | str | None) -> str:
    """Return the value as text; an empty one if there is none."""
    if value is None:
        return ""
    return str(value)


def _tls_problems(loaded: LoadedConfig, front: FrontConfig, kind: FrontKind) -> Iterator[Problem]:
    path = ("front", "tls")
    if front.tls.mode == "internal" and kind != "caddy":
        hint = "write `tls: {certificate: FILE, key: FILE}`"
        yield loaded.problem(path, f"{kind} has no CA of its own: internal is for Caddy", hint)
    elif front.tls.mode == "acme" and kind == "nginx":
        hint = "get them with another program (such as security.acme), and write `tls: {certificate: FILE, key: FILE}`"
        yield loaded.problem(path, "nginx gets no certificates by itself", hint)


def _key_problems(loaded: LoadedConfig, front: FrontConfig) -> Iterator[Problem]:
    """Yield a problem for each key that this proxy does not have."""
    for key in sorted(front.model_fields_set):
        kinds = _OF_ONE_KIND.get(key, (front.kind,))
        if front.kind not in kinds:
            hint = _INSTEAD.get(key, "remove it")
            yield loaded.problem(("front", key), f"is for {' and '.join(kinds)}, not for {front.kind}", hint)
    forward = front.auth.forward
    if forward is not None and forward.login and front.kind != "nginx":
        path = ("front", "auth", "forward", "login")
        yield loaded.problem(path, f"is for nginx, not for {front.kind}", "remove it: the server's answer redirects")


def _name_problems(loaded: LoadedConfig, settings: FrontSettings) -> Iterator[Problem]:
    """Yield a problem for each login server at a name that nginx cannot look up."""
    if settings.kind != "nginx" or settings.resolvers:
        return
    asked = {"oidc": settings.oidc}
    if settings.forward is not None:
        asked["forward"] = settings.forward.url
    for name, url in sorted(asked.items()):
        if url and not _is_fixed(urlsplit(url).hostname or ""):
            what = f"{url} is at a name, and nginx does not start while it cannot be looked up"
            hint = "set front.resolver to the address of a DNS server"
            yield loaded.problem(("front", "auth", name, "url"), what, hint)


def _is_fixed(host: str) -> bool:
    return is_address(host) or host == "localhost"


def checked_fronts(loaded: LoadedConfig, declared: Declared, settings: FrontSettings | None) -> Declared:
    """Return what is declared with the fronts that can be served, and a problem for each other one.

    Without settings, only names, paths and headers are checked: no proxy serves the fronts.
    """
    fronts, problems, refused = named_fronts(declared.fronts)
    refused = (*declared.refused, *refused)
    if settings is not None:
        fronts, more, later = served_fronts(fronts, settings, declared.expected, _only_metrics(), refused)
        refused += later
        problems += [*more, *_unknown_machine(loaded, declared, settings)]
    return msgspec.structs.replace(declared, fronts=fronts, problems=(*declared.problems, *problems), refused=refused)


def _only_metrics() -> frozenset[str]:
    """Return the exporter types that serve nothing but metrics."""
    return frozenset(type_ for type_, known in known_exporters().items() if known.nixos)


def _unknown_machine(loaded: LoadedConfig, declared: Declared, settings: FrontSettings) -> Iterator[Problem]:
    """Warn about a proxy on a machine that nothing declares: its own fronts would not be found."""
    names = {machine.name.casefold(): machine.name for machine in declared.machines}
    if settings.machine and settings.machine.casefold() not in names and settings.machine not in loaded.config.aliases:
        hint = did_you_mean(settings.machine, names.values()) or "name a machine that a source declares, or remove it"
        what = f"there is no machine {settings.machine!r}: no front is reached at 127.0.0.1"
        yield loaded.problem(("front", "machine"), what, hint, severity="warning")
