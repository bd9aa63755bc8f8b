"""Read Traefik's labels: which domains and paths lead to which port, and who may use them. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from clan_discovery.model import FRONT_AUTHS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from clan_discovery.inventory.compose.service import Label
    from clan_discovery.model import FrontAuth

_ROUTER: Final = "traefik.http.routers."
_SERVICE: Final = "traefik.http.services."
_MIDDLEWARE: Final = "traefik.http.middlewares."
_LONGEST_RULE: Final = 10_000
_MAX_ROUTES: Final = 200
_MAX_DEPTH: Final = 50
_TOKEN: Final = re.compile(r"""\s*(?:(\w+)\(\s*|(`[^`]*`|"(?:[^"\\]|\\.)*"|'[^']*')|(&&|\|\||[!(),]))""")
_AUTH_KINDS: Final[Mapping[str, FrontAuth]] = {
    "basicauth": "basic",
    "digestauth": "basic",
    "forwardauth": "forward",
}
_AUTH_NAMES: Final = re.compile("auth|oidc|openid|sso|keycloak|login|ldap|saml")
_LIMITS: Final = ("ipallowlist", "ipwhitelist")
_LIMIT_NAMES: Final = re.compile("(?:allow|white)[-_]?list|(?:home|internal|lan|local|private|vpn)[-_]?only")
# At the beginning of a word: the name `corporate-vpn` holds `rate`.
_HARMLESS_NAMES: Final = re.compile(
    "(?:^|[^a-z])(?:buffer|cache|compress|cors|crowdsec|csp|error|fail2ban|gzip|hsts|https|prefix|rate|redir|retry|rewrite|"
    "robots|strip|www)|header"
)
_ENTRY_POINT: Final = re.compile(r"(?i)--entrypoints\.([a-z0-9_-]{1,60})\.http\.middlewares=([^\s\"']{1,2000})")
_MAX_MIDDLEWARES: Final = 200
_HOSTS: Final = re.compile(r"\bHost\(([^()]{0,1000})\)")
_QUOTED: Final = re.compile("[`\"']([^`\"']+)[`\"']")


class RuleError(Exception):
    """A rule that cannot be written as domains and paths."""


class _Match(NamedTuple):
    """One matcher of a rule, such as Host, with its arguments."""

    name: str
    values: tuple[str, ...]


class Route(NamedTuple):
    """A domain, and the path below which requests are taken."""

    domain: str
    path: str


def routes_of(rule: str) -> list[Route]:
    """Return the domains and paths of a router's rule.

    Raises:
        RuleError: the rule has other conditions than Host and PathPrefix, names no domain, or does not parse.
    """
    if len(rule) > _LONGEST_RULE:
        raise RuleError(f"the rule has more than {_LONGEST_RULE:,} characters")
    alternatives = _Rule(rule).parse()
    found: dict[Route, None] = {}
    for conditions in alternatives:
        for route in _routes(conditions):
            found[route] = None
    return list(found)


def _routes(conditions: Sequence[_Match]) -> Iterator[Route]:
    hosts: set[str] | None = None
    paths: set[str] | None = None
    for match in conditions:
        values = set(match.values)
        if match.name == "Host":
            values = {value.lower() for value in values}
            hosts = values if hosts is None else hosts & values
        elif match.name == "PathPrefix" and paths is None:
            paths = values
        else:
            raise RuleError(f"{match.name} is neither a domain nor one path prefix")
    if hosts is None:
        raise RuleError("the rule names no domain")
    for host in sorted(hosts):
        for path in sorted(paths or {"/"}):
            yield Route(host, path)


def hosts_in(rule: str) -> list[str]:
    """Return the domains that a rule names, also one that is not understood."""
    found = [host for values in _HOSTS.findall(rule[:_LONGEST_RULE]) for host in _QUOTED.findall(values)]
    return list(dict.fromkeys(host.lower() for host in found))


class _Rule:
    """Parses a rule into alternatives, each a list of conditions that hold together."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0

    def parse(self) -> list[tuple[_Match, ...]]:
        found = self._either(0)
        if self._at < len(self._tokens):
            raise RuleError(f"the rule does not parse at {self._tokens[self._at]!r}")
        return found

    def _either(self, depth: int) -> list[tuple[_Match, ...]]:
        found = self._both(depth)
        while self._take("||"):
            found = [*found, *self._both(depth)]
        _check_count(len(found))
        return found

    def _both(self, depth: int) -> list[tuple[_Match, ...]]:
        found = self._one(depth)
        while self._take("&&"):
            right = self._one(depth)
            _check_count(len(found) * len(right))
            found = [(*first, *second) for first in found for second in right]
        return found

    def _one(self, depth: int) -> list[tuple[_Match, ...]]:
        if depth > _MAX_DEPTH:
            raise RuleError("the rule is nested too deeply")
        if self._take("("):
            found = self._either(depth + 1)
            if not self._take(")"):
                raise RuleError("the rule lacks a closing parenthesis")
            return found
        if self._at == len(self._tokens):
            raise RuleError("the rule ends too early")
        token = self._tokens[self._at]
        self._at += 1
        if token == "!":  # noqa: S105 - a token of the rule
            raise RuleError("'!' cannot be expressed by domains and paths")
        if not token.endswith("("):
            raise RuleError(f"the rule does not parse at {token!r}")
        return [(_Match(token[:-1], self._values()),)]

    def _values(self) -> tuple[str, ...]:
        found: list[str] = []
        while not self._take(")"):
            if self._at == len(self._tokens):
                raise RuleError("the rule lacks a closing parenthesis")
            token = self._tokens[self._at]
            self._at += 1
            if token[0] in "`\"'":
                found.append(token[1:-1])
            elif token != ",":  # noqa: S105 - a token of the rule
                raise RuleError(f"the rule does not parse at {token!r}")
        return tuple(found)

    def _take(self, token: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at] == token:
            self._at += 1
            return True
        return False


def _check_count(count: int) -> None:
    if count > _MAX_ROUTES:
        raise RuleError(f"the rule has more than {_MAX_ROUTES} alternatives")


def _tokens(text: str) -> Iterator[str]:
    at = 0
    text = text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise RuleError(f"the rule does not parse at {text[at : at + 20]!r}")
        name, quoted, sign = found.groups()
        yield f"{name}(" if name is not None else quoted or sign
        at = found.end()


class Router(msgspec.Struct, frozen=True):
    """A router that labels declare: its rule, and where its requests go.

    `port` is None where the labels give none; `elsewhere` names a service of Traefik's that is not this container.
    `limit` is a middleware that limits which clients may connect, `unknown` one that is in no label.
    """

    name: str
    rule: Label
    port: Label | None
    scheme: str
    auth: FrontAuth
    elsewhere: str = ""
    limit: str = ""
    unknown: str = ""


class Demand(NamedTuple):
    """What middlewares demand of a client. `limit` and `unknown` as in `Router`."""

    auth: FrontAuth = "none"
    limit: str = ""
    unknown: str = ""


class Middlewares:
    """The middlewares of all services of a machine: routers of one service use those of another.

    `arguments` are Traefik's own, which name middlewares of whole entry points.
    """

    def __init__(self, labels: Sequence[Mapping[str, Label]], arguments: Iterable[str] = ()) -> None:
        self._entry_points: dict[str, str] = {}
        for argument in arguments:
            for name, named in _ENTRY_POINT.findall(argument):
                self._entry_points[name.lower()] = named
        self._kinds: dict[str, Demand] = {}
        self._chains: dict[str, tuple[str, ...]] = {}
        for of_service in labels:
            for key, label in of_service.items():
                name, _, option = key.lower().removeprefix(_MIDDLEWARE).partition(".")
                if not key.lower().startswith(_MIDDLEWARE):
                    continue
                kind, _, rest = option.partition(".")
                if kind == "chain":
                    self._chains[name] = _listed(label.text.lower())
                elif kind == "plugin":
                    self._kinds[name] = _by_name(f"{name}.{rest.partition('.')[0]}")._replace(unknown="")
                else:
                    self._kinds[name] = Demand(_AUTH_KINDS.get(kind, "none"), name if kind in _LIMITS else "")

    def of_router(self, options: Mapping[str, Label]) -> Demand:
        """Return what the middlewares of a router demand, and those of its entry points: of all if it names none."""
        named = [options["middlewares"].text] if "middlewares" in options else []
        chosen = set(self._entry_points)
        if "entrypoints" in options:
            chosen &= set(_listed(options["entrypoints"].text.lower()))
        return self.demand(",".join([*named, *(self._entry_points[name] for name in sorted(chosen))]))

    def demand(self, named: str) -> Demand:
        """Return what a list of middlewares demands: the strictest authentication.

        Those of a file are known by their names only: where one speaks of authentication, a forward to a server is
        assumed, because to assume none would open the service.
        """
        found = Demand()
        waiting = [*_listed(named.lower())]
        seen: set[str] = set()
        while waiting:
            whole = waiting.pop()
            if whole in seen:
                continue
            if len(seen) >= _MAX_MIDDLEWARES:
                return found._replace(limit=whole)
            seen.add(whole)
            name, _, provider = whole.partition("@")
            is_here = provider in ("", "docker")
            if is_here and name in self._chains:
                waiting += self._chains[name]
                continue
            one = self._kinds[name] if is_here and name in self._kinds else _by_name(whole)
            found = Demand(stricter(found.auth, one.auth), found.limit or one.limit, found.unknown or one.unknown)
        return found


def _by_name(whole: str) -> Demand:
    """Guess what a middleware demands that is in no label."""
    name = whole.partition("@")[0]
    if _LIMIT_NAMES.search(name) is not None:
        return Demand(limit=whole)
    if "basic" in name and "auth" in name:
        return Demand("basic")
    if _AUTH_NAMES.search(name) is not None:
        return Demand("forward")
    return Demand(unknown="" if _HARMLESS_NAMES.search(name) is not None else whole)


def stricter(one: FrontAuth, other: FrontAuth) -> FrontAuth:
    """Return the stricter of two kinds of authentication."""
    if FRONT_AUTHS.index(one) > FRONT_AUTHS.index(other):
        return one
    return other


def _listed(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def routers_of(labels: Mapping[str, Label], middlewares: Middlewares) -> list[Router]:
    """Return the routers that the labels of a service declare, in the order of their names."""
    routers: dict[str, dict[str, Label]] = {}
    services: dict[str, dict[str, Label]] = {}
    for key, label in labels.items():
        lower = key.lower()
        for prefix, into in ((_ROUTER, routers), (_SERVICE, services)):
            if lower.startswith(prefix):
                name, _, option = lower.removeprefix(prefix).partition(".")
                into.setdefault(name, {})[option] = label
    return [
        _router(name, options, services, middlewares) for name, options in sorted(routers.items()) if "rule" in options
    ]


def _router(
    name: str, options: Mapping[str, Label], services: Mapping[str, Mapping[str, Label]], middlewares: Middlewares
) -> Router:
    named, elsewhere = "", ""
    service: Mapping[str, Label] = {}
    if "service" in options:
        named = options["service"].text.lower().removesuffix("@docker")
        service = services.get(named, {})
        if named not in services:
            elsewhere = named
    elif len(services) == 1:
        (service,) = services.values()
    elif services:
        elsewhere = "one of several services"
    demand = middlewares.of_router(options)
    scheme = service.get("loadbalancer.server.scheme")
    return Router(
        name=name,
        rule=options["rule"],
        port=service.get("loadbalancer.server.port"),
        scheme=scheme.text if scheme is not None else "http",
        auth=demand.auth,
        elsewhere=elsewhere,
        limit=demand.limit,
        unknown=demand.unknown,
    )
