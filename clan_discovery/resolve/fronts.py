"""Check the fronts that sources declare, and find where the proxy connects. Pure.

A front that the proxy cannot serve as declared is left out, with a problem: it is never served with less protection.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

from clan_discovery.model import CADDY_ADMIN_PORT, Front, Pairs, Problem
from clan_discovery.syntax.endpoint import (
    LOOPBACK,
    is_address,
    is_host,
    is_loopback,
    is_nowhere,
    join_endpoint,
    nowhere,
)
from clan_discovery.syntax.hosts import OIDC_PATH, OWN_PATH, is_header, url_path, virtual_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from clan_discovery.model import Expected, FrontAuth, FrontSettings

_MOST_ABOVE: Final = 250
_VALUE: Final = re.compile(r"[A-Za-z0-9 !#%&'()*+,./:;<=>?@\[\]^_|~-]{0,1000}")
_ADMIN: Final = f"port {CADDY_ADMIN_PORT} is Caddy's admin API, which can replace the whole config of Caddy"
_Check: TypeAlias = "Callable[[Front], Front]"
_AUTH_KEYS: Final = {"basic": "front.auth.basic", "forward": "front.auth.forward", "oidc": "front.auth.oidc"}


class UnusableFrontError(ValueError):
    """A front cannot be served as it is declared. The message says why, `hint` what to do."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.hint = hint


class CheckedFronts(NamedTuple):
    """The fronts that can be served, those that cannot, and why."""

    fronts: tuple[Front, ...]
    problems: list[Problem]
    refused: tuple[Front, ...] = ()


def named_fronts(fronts: Iterable[Front]) -> CheckedFronts:
    """Check names, paths and headers: what is left is safe in the config of every proxy."""
    return _checked(fronts, _named)


def served_fronts(
    fronts: Iterable[Front],
    settings: FrontSettings,
    expected: Iterable[Expected],
    exporters: AbstractSet[str],
    refused: Iterable[Front] = (),
) -> CheckedFronts:
    """Complete the domains of named fronts, and leave out those that the proxy cannot serve as declared.

    `expected` are the targets: metrics are never published without authentication. `exporters` are the types that
    serve nothing but metrics. `refused` are the fronts that are left out already: no other front takes their requests.
    """
    fronts = tuple(fronts)
    metrics = _Metrics(expected, exporters)
    inside = {front.machine.casefold() for front in fronts if front.loopback and front.host}

    def check(front: Front) -> Front:
        front = _complete(front, settings)
        _check_served(front, settings)
        _check_reached(front, settings, inside)
        return metrics.hide(front)

    found = _without_conflicts(_checked(fronts, check))
    return _without_refused(found, [*refused, *found.refused], settings)


def located_front(front: Front, host: str, proxy: str) -> Front:
    """Return the front with the address where the proxy connects.

    `host` is that of the machine; empty if it is not known. `proxy` is the machine of the proxy, in lower case.
    """
    if front.host:
        host = front.host
    elif proxy and front.machine.casefold() == proxy:
        host = LOOPBACK
    if not is_host(host):
        host = nowhere(front.machine)
    return msgspec.structs.replace(front, address=join_endpoint(host, front.port))


def unanswered_fronts(fronts: Iterable[Front], settings: FrontSettings) -> Iterator[Problem]:
    """Yield a problem for each front that answers 502 or 503, because its address is not known or cannot be used."""
    for front in fronts:
        if is_nowhere(front.upstream):
            what = f"no address of {front.machine} is known: the proxy answers 503 for {front.domain}{front.path}"
            hint = f"give its address: `backends: {{static: {{lab: {{machines: {{{front.machine}: ADDRESS}}}}}}}}`"
            yield Problem(where=_place(front), what=what, hint=hint, severity="warning")
        elif settings.kind == "nginx" and not settings.resolvers and not is_address(front.upstream):
            what = (
                f"{front.upstream} is a name, and nginx would not start while it cannot be looked up: 503 is answered"
            )
            hint = "set front.resolver to the address of a DNS server"
            yield Problem(where=_place(front), what=what, hint=hint, severity="problem")
        elif settings.kind == "nginx" and front.scheme == "https" and not front.insecure and is_address(front.upstream):
            what = f"nginx verifies a certificate for a name alone, and {front.upstream} is an address: 502 is answered"
            hint = "let the machine be found by a name, with front.resolver; or let the service speak http"
            yield Problem(where=_place(front), what=what, hint=hint, severity="problem")


def _checked(fronts: Iterable[Front], check: _Check) -> CheckedFronts:
    usable: list[Front] = []
    problems: list[Problem] = []
    refused: list[Front] = []
    for front in fronts:
        try:
            usable.append(check(front))
        except UnusableFrontError as error:
            problems.append(_left_out(front, str(error), error.hint))
            refused.append(front)
    return CheckedFronts(tuple(usable), problems, tuple(refused))


def _left_out(front: Front, what: str, hint: str | None) -> Problem:
    what = f"front {front.domain[:80]}: {what}; it is left out"
    return Problem(where=_place(front), what=what, hint=hint, severity="problem")


def _place(front: Front) -> str:
    return front.where or front.because


def _named(front: Front) -> Front:
    try:
        domain, path = virtual_host(front.domain), url_path(front.path)
    except ValueError as error:
        raise UnusableFrontError(str(error)) from None
    if front.host and not is_host(front.host):
        raise UnusableFrontError(f"{front.host[:80]!r} is not a host: write a name or an address")
    if path == OWN_PATH or path.startswith(f"{OWN_PATH}/"):
        raise UnusableFrontError(f"the proxies use the paths below {OWN_PATH} themselves", "take another path")
    for name, value in front.headers:
        if not is_header(name) or not _VALUE.fullmatch(value):
            hint = "write a name of letters, digits and '-', and a value without quotes, '\\', '$', '{' and '}'"
            raise UnusableFrontError(f"the header {name[:80]!r} cannot be written", hint)
    return msgspec.structs.replace(front, domain=domain, path=path, headers=_last_of_each(front.headers))


def _last_of_each(headers: Pairs) -> Pairs:
    """Return the headers with each name once: the last one wins."""
    found = {name.lower(): (name, value) for name, value in headers}
    return tuple(found[name] for name in sorted(found))


def _complete(front: Front, settings: FrontSettings) -> Front:
    """Add the proxy's own domain to one without a dot."""
    if "." in front.domain:
        return front
    if not settings.domain:
        raise UnusableFrontError("its domain has no dot", "set front.domain, or write the whole domain")
    domain = f"{front.domain}.{settings.domain}"
    try:
        return msgspec.structs.replace(front, domain=virtual_host(domain))
    except ValueError as error:
        raise UnusableFrontError(str(error)) from None


def _check_served(front: Front, settings: FrontSettings) -> None:
    """Refuse a front that this proxy cannot serve as it is declared."""
    if front.domain in settings.own_domains:
        hint = "remove one of them, or declare another domain"
        raise UnusableFrontError("the proxy serves its domain by its own config, too (front.own_domains)", hint)
    if not settings.gives(front.auth):
        hint = f"set {_AUTH_KEYS[front.auth]}, or declare another `auth`"
        raise UnusableFrontError(f"it demands auth {front.auth}, which the config does not give", hint)
    if front.port == CADDY_ADMIN_PORT:
        raise UnusableFrontError(_ADMIN, "publish another port; for metrics, set front.metrics")


def _check_reached(front: Front, settings: FrontSettings, inside: AbstractSet[str]) -> None:
    """Refuse a front that only a proxy on another machine reaches: its address would lead to another service here.

    `inside` are the machines with fronts in networks of their own. If it is one, and the proxy's machine is not known,
    the proxy is in these networks.
    """
    machine = front.machine.casefold()
    if not front.loopback or machine == settings.machine.casefold():
        return
    if front.host and not settings.machine and len(inside) == 1:
        return
    listens, hint = f"on loopback of {front.machine}", "let it listen on an address of the overlay"
    if front.host:
        listens, hint = f"at {front.host} in a network of {front.machine}", "publish its port, with `proxy: none`"
    what = f"it listens {listens}, and the proxy runs on {settings.machine or 'no known machine'}"
    raise UnusableFrontError(what, f"{hint}, or run the proxy there (front.machine)")


def is_weaker(one: FrontAuth, other: FrontAuth) -> bool:
    """Tell whether the first authentication lets in a client that the other one refuses."""
    return one != other and (one == "none" or other in ("forward", "oidc"))


_Served: TypeAlias = tuple[str, str, int]
"""The host that replaces the machine's (mostly empty), the machine in lower case, and the port."""


class _Metrics:
    """The paths of metrics by service."""

    def __init__(self, expected: Iterable[Expected], exporters: AbstractSet[str]) -> None:
        self._exporters = exporters
        self._found: defaultdict[_Served, dict[str, str]] = defaultdict(dict)
        for each in expected:
            host = "" if is_loopback(each.host) else each.host  # a front on loopback has no host
            served = (host, each.machine.name.casefold(), each.exporter.port)
            self._found[served][_bare(each.exporter.path)] = each.exporter.type

    def hide(self, front: Front) -> Front:
        """Hide the paths of metrics that a front without authentication would publish.

        A front that would publish nothing else is refused.
        """
        served = (front.host, front.machine.casefold(), front.port)
        known = {_bare(path): front.service for path in front.hidden} | self._found.get(served, {})
        if front.auth != "none":
            known = {}
        hidden: list[str] = []
        for path, type_ in sorted(known.items()):
            if not is_below(path, front.path) and not is_below(front.path, path):
                continue
            try:
                safe = url_path(path)
            except ValueError:
                safe = "/"
            if type_ in self._exporters or is_below(front.path, safe):
                what = f"it publishes the metrics of {type_} to every client of the proxy"
                raise UnusableFrontError(what, "remove the front, or declare an `auth`")
            hidden.append(safe)
        return msgspec.structs.replace(front, hidden=tuple(hidden))


def _bare(path: str) -> str:
    return path.partition("?")[0].rstrip("/") or "/"


def is_below(path: str, above: str) -> bool:
    """Tell whether a path is another one or below it."""
    return above in ("/", path) or path.startswith(f"{above}/")


def _without_conflicts(found: CheckedFronts) -> CheckedFronts:
    """Leave out fronts of one domain and path, and those at a path that oauth2-proxy needs."""
    by_place: defaultdict[tuple[str, str], list[Front]] = defaultdict(list)
    for front in found.fronts:
        by_place[front.domain, front.path.lower()].append(front)
    with_oidc = {front.domain for front in found.fronts if front.auth == "oidc"}
    usable: list[Front] = []
    problems = list(found.problems)
    refused = list(found.refused)
    for same in by_place.values():
        only = _only(same, with_oidc, problems)
        usable += only
        if not only:
            refused += same
    return CheckedFronts(tuple(sorted(usable, key=_order)), problems, tuple(refused))


def _only(same: Sequence[Front], with_oidc: AbstractSet[str], problems: list[Problem]) -> list[Front]:
    """Return the front of a domain and path if there is one only and the proxy does not need the path."""
    front = same[0]
    if len(same) > 1:
        places = " and ".join(sorted(_place(each) for each in same[:3]))
        what = f"{front.domain}{front.path} is declared {len(same)} times: {places}"
        problems.append(_left_out(front, what, "give each a domain or a path of its own"))
        return []
    if front.domain in with_oidc and is_below(front.path.lower(), OIDC_PATH):
        what = f"oauth2-proxy answers below {OIDC_PATH} of this domain"
        problems.append(_left_out(front, what, "take another path or domain"))
        return []
    return [front]


_Key: TypeAlias = tuple[str, str]
"""A domain, and a path in lower case."""


def _without_refused(found: CheckedFronts, refused: Iterable[Front], settings: FrontSettings) -> CheckedFronts:
    """Hide the places of fronts that are left out: no other front takes their requests.

    A front at such a place itself is left out, too, if it asks for less.
    """
    kept = {(front.domain, front.path.lower()): front for front in found.fronts}
    problems = list(found.problems)
    keys: list[_Key] = []
    for front in refused:
        key = _refused_place(front, settings)
        keys.append(key)
        if key in kept and is_weaker(kept[key].auth, front.auth):
            same = kept.pop(key)
            what = f"it would answer for the front of {_place(front)}, which lets in fewer clients and is left out"
            problems.append(_left_out(same, what, "correct that one, or give this one an `auth`"))
    for key, hidden in _hidden(kept.keys(), keys, settings).items():
        kept[key] = msgspec.structs.replace(kept[key], hidden=tuple(sorted({*kept[key].hidden, *hidden})))
    return CheckedFronts(tuple(kept.values()), problems, found.refused)


def _hidden(kept: AbstractSet[_Key], refused: Iterable[_Key], settings: FrontSettings) -> dict[_Key, set[str]]:
    """Return what the fronts that are kept hide: paths, and a wildcard also domains."""
    some_path = dict(kept)  # of each domain: what a wildcard hides counts for all of its paths
    found: defaultdict[_Key, set[str]] = defaultdict(set)
    for domain, path in refused:
        above = next((above for above in _above(path) if (domain, above) in kept), None)
        wildcard = f"*.{domain.partition('.')[2]}"
        if above is not None and above != path:
            found[domain, above].add(path)
        elif domain not in some_path and wildcard in some_path and domain not in settings.own_domains:
            found[wildcard, some_path[wildcard]].add(domain)
    return found


def _refused_place(front: Front, settings: FrontSettings) -> tuple[str, str]:
    """Return the domain of a front that is left out, empty if there cannot be one, and its path in lower case.

    Of a path that cannot be written, this is the longest part above it that can.
    """
    try:
        domain = _complete(front, settings).domain
        domain = virtual_host(domain)
    except ValueError:
        return "", "/"
    path = front.path[:_MOST_ABOVE].lower()
    while path and ".." not in path:
        try:
            return domain, url_path(path)
        except ValueError:
            path = path.rpartition("/")[0]
    return domain, "/"


def _above(path: str) -> Iterator[str]:
    """Yield a path, and each one above it, the longest first."""
    while path not in ("", "/"):
        yield path
        path = path.rpartition("/")[0]
    yield "/"


def _order(front: Front) -> tuple[str, str]:
    return front.domain, front.path
