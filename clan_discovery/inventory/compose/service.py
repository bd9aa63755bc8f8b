"""Read a service of a Compose project: its labels, networks and ports. Pure."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import msgspec

from clan_discovery.syntax.endpoint import MAX_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clan_discovery.inventory.compose.project import Fields, Project
    from clan_discovery.syntax.nodes import YamlPart

Software: TypeAlias = Literal["scraper", "traefik", "caddy", "nginx", ""]
"""What the image of a service is, if that matters here."""

OWN_KEY: Final = "x-clan-discovery"
_SCRAPERS: Final = frozenset(
    {
        "prom/prometheus",
        "prometheus/prometheus",
        "victoriametrics/victoria-metrics",
        "victoriametrics/vmagent",
    }
)
_PROXIES: Final[Mapping[str, Software]] = {"traefik": "traefik", "caddy": "caddy", "nginx": "nginx"}
_PREFIXES: Final = ("prometheus.", "traefik.", "clan-discovery.")
_WEB_PORTS: Final = (80, 443)
_PORT_KEYS: Final = ("target", "published", "host_ip", "protocol")
_SPAN: Final = re.compile("[0-9]{1,5}(-[0-9]{1,5})?")
_EVERY_ADDRESS: Final = ("0.0.0.0", "::")  # noqa: S104 - nothing is bound


class Label(msgspec.Struct, frozen=True, gc=False):
    """The value of a label, its place, and the variables in it that are not set."""

    text: str
    part: YamlPart
    unset: tuple[str, ...] = ()


class PublishedPort(msgspec.Struct, frozen=True, gc=False):
    """Ports of a container that are published: `count` from `target` on, at `first` of the address `ip`.

    `first` is None where Docker chooses the port. `ip` is empty for all addresses.
    """

    target: int
    count: int
    first: int | None
    ip: str
    part: YamlPart


class ComposeService:
    """One service of a project. Its image and ports are read when they are asked for.

    `mode` is its network mode, empty for networks of the project. `networks` are their real names, each with the
    service's aliases there. `depends_on` are services of the same project. A service with `profiles` starts with one of
    these only. `own` are the settings below `x-clan-discovery`, each with its variables.
    """

    def __init__(self, name: str, project: Project, fields: Fields) -> None:
        self.name = name
        self.project = project
        self.fields = fields
        self.labels = _labels(fields)
        self.mode = fields.scalar("network_mode")
        self.container_name = fields.scalar("container_name")
        self.networks: Mapping[str, Sequence[str]] = {}
        if not self.mode:
            self.networks = _networks(project, fields)
        self.depends_on = tuple(fields.keys("depends_on"))
        self.profiles = frozenset(fields.keys("profiles"))
        self.own = {
            key: (part, variables) for whole, variables in fields.parts(OWN_KEY) for key, part in whole.pairs().items()
        }

    @property
    def where(self) -> str:
        """The position of the service in the first file that has it."""
        return self.project.places[self.name].where_key

    @cached_property
    def image(self) -> str:
        """The image without registry host, tag and digest."""
        image = self.fields.scalar("image").partition("@")[0]
        first, slash, rest = image.partition("/")
        if slash and ("." in first or ":" in first or first == "localhost"):
            image = rest
        return image.partition(":")[0].removeprefix("library/")

    @cached_property
    def software(self) -> Software:
        """What the image is: a scraper, or a reverse proxy that publishes a port for browsers."""
        if self.image in _SCRAPERS:
            return "scraper"
        last = self.image.rpartition("/")[2]
        if last.startswith("caddy-"):
            last = "caddy"
        found: Software = _PROXIES.get(last, "")
        if found in ("caddy", "nginx") and not any(_serves_web(port) for port in self.published):
            return ""
        return found

    @property
    def arguments(self) -> Iterator[str]:
        """The arguments of its program as they are written, without variables: one may be a secret."""
        for part, _ in self.fields.parts("command")[-1:]:
            yield part.text or ""
            for item in part.items():
                yield item.text or ""

    @cached_property
    def published(self) -> tuple[PublishedPort, ...]:
        """The TCP ports that are published on the machine."""
        found: dict[tuple[int, int, int | None, str], PublishedPort] = {}
        for part, variables in self.fields.parts("ports"):
            for item in part.items():
                if item.is_mapping:
                    port = _long_port(self.fields, item, variables)
                else:
                    port = _short_port(self.fields, item, variables)
                if port is not None:
                    found[port.target, port.count, port.first, port.ip] = port
        return tuple(found.values())

    @cached_property
    def ports(self) -> tuple[int, ...]:
        """The ports of the container that the file names, sorted; of a range only the first."""
        found = {port.target for port in self.published}
        for text in self.fields.keys("expose"):
            first = text.partition("/")[0].partition("-")[0]
            if not text.endswith("/udp") and first.isdecimal():
                found.add(int(first))
        return tuple(sorted(found))


def _serves_web(port: PublishedPort) -> bool:
    return any(port.target <= web < port.target + port.count for web in _WEB_PORTS)


def _networks(project: Project, fields: Fields) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key in fields.keys("networks") or ("default",):
        found[network_name(project, key)] = []
    for part, variables in fields.parts("networks"):
        for key, options in part.pairs().items():
            if (aliases := options.pairs().get("aliases")) is not None:
                values = [fields.value(alias, variables) for alias in aliases.items()]
                found[network_name(project, key)] += values
    return found


def network_name(project: Project, key: str) -> str:
    """Return the real name of a network of a project: the same network of other projects has it, too."""
    fields = project.networks.get(key)
    if fields is None:
        return f"{project.name}_{key}"
    name = fields.scalar("name")
    external = fields.parts("external")
    if not external:
        return name or f"{project.name}_{key}"
    part, variables = external[-1]
    if part.is_mapping:  # the form of version 2: `external: {name: web}`
        named = part.pairs().get("name")
        if named is not None:
            name = fields.value(named, variables)
        return name or key
    if name:
        return name
    if fields.value(part, variables).lower() in ("true", "yes", "on", "y"):
        return key
    return f"{project.name}_{key}"


def _labels(fields: Fields) -> dict[str, Label]:
    """Return the labels that matter here; later layers win."""
    found: dict[str, Label] = {}
    for part, variables in fields.parts("labels"):
        for key, value in part.pairs().items():
            if key.startswith(_PREFIXES):
                expanded = fields.expanded(value, variables)
                found[key] = Label(expanded.text.strip(), value, expanded.unset)
        for item in part.items():
            key, _, text = (item.text or "").partition("=")
            unset: tuple[str, ...] = ()
            if "$" in key or ("$" in text and key.startswith(_PREFIXES)):
                expanded = fields.expanded(item, variables)
                key, _, text = expanded.text.partition("=")
                unset = expanded.unset
            if key.startswith(_PREFIXES):
                found[key.strip()] = Label(text.strip(), item, unset)
    return found


def _short_port(fields: Fields, item: YamlPart, variables: Mapping[str, str]) -> PublishedPort | None:
    """Read `[[ip:]published:]target[/protocol]`; None for UDP and for what is not a port, which is reported."""
    whole = fields.value(item, variables)
    text, _, protocol = whole.partition("/")
    if protocol not in ("", "tcp"):
        return None
    before, _, target = text.rpartition(":")
    ip, _, published = before.rpartition(":")
    return _port(fields, item, _Written(whole, target, published, ip))


def _long_port(fields: Fields, item: YamlPart, variables: Mapping[str, str]) -> PublishedPort | None:
    """Read a port that is written as a mapping."""
    pairs = item.pairs()
    values = {key: fields.value(pairs[key], variables) for key in _PORT_KEYS if key in pairs}
    if values.get("protocol", "tcp") != "tcp":
        return None
    target, published = values.get("target", ""), values.get("published", "")
    return _port(fields, item, _Written(target, target, published, values.get("host_ip", "")))


class _Written(NamedTuple):
    """A port as it is written: the whole, and its parts."""

    whole: str
    target: str
    published: str
    ip: str


def _port(fields: Fields, item: YamlPart, written: _Written) -> PublishedPort | None:
    targets, published = _span(written.target), _span(written.published)
    if targets is None or (published is None and written.published):
        what = f"{written.whole[:60]!r} is not a port"
        fields.findings.add(item.where, what, "write published:target, such as 8080:80", "problem")
        return None
    first = None
    if published is not None and len(published) == len(targets):
        first = published.start
    ip = written.ip.strip("[]")
    return PublishedPort(targets.start, len(targets), first, "" if ip in _EVERY_ADDRESS else ip, item)


def _span(text: str) -> range | None:
    """Return the ports of `80` or `8000-8010`; None if it is neither."""
    if _SPAN.fullmatch(text) is None:
        return None
    first, dash, last = text.partition("-")
    span = range(int(first), int(last if dash else first) + 1)
    if not span or span.start < 1 or span.stop > MAX_PORT + 1:
        return None
    return span
