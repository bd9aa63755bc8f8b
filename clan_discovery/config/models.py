"""The config as pydantic models. Strict: an unknown key is an error. The config schema is generated from here."""

from __future__ import annotations

import json
import re
from functools import cache, partial
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, TypeAlias, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    StrictStr,
    create_model,
    model_validator,
)

from clan_discovery.config.values import File, ScrapeConfig, check_word, one_or_more
from clan_discovery.model import CADDY_ADMIN_PORT, LEAST_WEIGHT, MOST_WEIGHT, StorageEngine, StorageMode
from clan_discovery.syntax.duration import LONGEST, PATTERN, duration
from clan_discovery.syntax.endpoint import is_address, is_domain, is_ipv6, is_loopback, join_endpoint, split_endpoint
from clan_discovery.syntax.labels import (
    JOB_PATTERN,
    is_job,
    label_complaint,
    labels_complaint,
    parameter_complaint,
    path_complaint,
)
from clan_discovery.syntax.limits import known_limits
from clan_discovery.syntax.secret import HIDDEN, has_secret
from clan_discovery.syntax.target_file import MOST_FILES, Split
from clan_discovery.syntax.units import unit_complaint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import ValidationInfo

    from clan_discovery.model import Json, Offline
    from clan_discovery.syntax.limits import KnownLimit

Value = TypeVar("Value")

DEFAULT_DIRECTORY: Final = Path("/var/lib/clan-discovery/targets")
DEFAULT_STATE: Final = Path("/var/lib/clan-discovery/state")
_OWNER_LENGTH: Final = 200
_SHOWN: Final = 60
_CONTROL: Final = re.compile("[\\0-\\x1f\\x7f-\\x9f\\u2028\\u2029]")
_EXPANDED: Final = ("$", "%{", "{{")
"""Prometheus expands `$NAME` in external labels, vmagent `%{NAME}` in its whole config; `{{` begins a template."""


def _refused(complaint_of: Callable[[Value], str | None]) -> AfterValidator:
    """Return a validator that raises the message of a check."""

    def check(value: Value) -> Value:
        if complaint := complaint_of(value):
            raise ValueError(complaint)
        return value

    return AfterValidator(check)


def _name_complaint(name: str) -> str | None:
    if is_job(name):
        return None
    return f"{name!r} cannot be a name here: letters, digits, '_', '-', '.', ':', and a letter, digit or '_' first"


def _alias_complaint(alias: str) -> str | None:
    if alias and not set("*?[").intersection(alias):
        return None
    return f"{alias!r} cannot be an alias: write one name, patterns are for `ignore.names`"


def _owner_complaint(owner: str) -> str | None:
    if 0 < len(owner) <= _OWNER_LENGTH and owner.isprintable():
        return None
    return f"{owner[:60]!r} cannot be an owner: one line of 1 to {_OWNER_LENGTH} printable characters"


def _label_value_complaint(text: str) -> str | None:
    """Say why a text cannot be the value of an external label, which scrapers expand."""
    if not 0 < len(text) <= _OWNER_LENGTH or _CONTROL.search(text):
        return f"{text[:_SHOWN]!r} cannot be a label: write one line of 1 to {_OWNER_LENGTH} printable characters"
    found = next((mark for mark in _EXPANDED if mark in text), None)
    if found is not None:
        return f"{text[:_SHOWN]!r} cannot be a label: scrapers expand {found!r}, write a name without it"
    return None


def _endpoint(text: str) -> str:
    host, _, last = text.rpartition(":")
    if is_ipv6(text) and is_ipv6(host) and re.fullmatch("[1-9][0-9]{3}", last):
        raise ValueError(f'{text!r} may be an address or have a port: write "[{host}]:{last}" or "[{text}]"')
    split_endpoint(text)
    return text


def _address(text: str) -> str:
    if "/" in text:
        host = text.rpartition("://")[2].partition("/")[0]
        raise ValueError(f"{text!r} is not an address: write the host alone, such as {host.partition(':')[0] or 'nas'}")
    host, port = split_endpoint(text)
    if port is not None:
        raise ValueError(f"{text!r} has a port: write {host}, as the exporters of a machine have the ports")
    return host


def _node_address(text: str) -> str:
    """Check the address of a storage node, whose ports are keys of their own."""
    if "/" not in text:
        host, port = split_endpoint(text)
        if port is not None:
            raise ValueError(f"{text!r} has a port: write `address: {host}` and `port: {port}`")
    return _address(text)


def _network(value: object) -> IPv4Network | IPv6Network:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a network: write 10.0.0.0/8 or fd00::/8")  # noqa: TRY004 - pydantic's way
    try:
        return ip_network(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a network: write {_network_of(value)}") from None


def _network_of(text: str) -> str:
    """Return the network that an address with a prefix length is in, or examples."""
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        return "10.0.0.0/8 or fd00::/8"


def _program_url(text: str) -> str:
    """Check the URL of a running program: scheme, host, and a path below which its API is."""
    if has_secret(text):
        raise ValueError("the URL holds a password, which everybody who reads the config would know: use `basic_auth`")
    shown = HIDDEN if "@" in text else repr(text)
    if not text.startswith(("http://", "https://")):
        raise ValueError(f"{shown} is not a URL: write http://host:port or https://host:port")
    if not text.isprintable() or " " in text:
        raise ValueError("the URL holds a space or a control character: remove it")
    if "@" in text or "?" in text or "#" in text:
        raise ValueError(f"{shown} has more than a host and a path: write http://host:port/path")
    split_endpoint(urlsplit(text).netloc)
    return text.rstrip("/")


def _value_complaint(value: str) -> str | None:
    if "${" in value:
        return f"{value!r}: variables are not expanded: write the value"
    return None


def _flake(reference: str, info: ValidationInfo[Path | None]) -> str:
    """Make a flake reference absolute where it is a relative path."""
    check_word(reference)
    if reference.startswith("-"):
        raise ValueError(f"{reference!r} begins with '-': nix would take it for an option (write ./ before it)")
    is_path = reference in ("", ".") or reference.startswith(("./", "../"))
    if not is_path or info.context is None:
        return reference
    return str((info.context / reference).resolve())


def _seconds(default: str, description: str) -> float:
    """Declare a duration with its default; the schema has the default as written (`10s`)."""
    return Field(default=duration(default), description=description, json_schema_extra={"default": default})


def _duration_or_never(value: object) -> float | None:
    if value == "never":
        return None
    return duration(value)


def _interval_or_never(value: object) -> float | None:
    if value == "never":
        return None
    return duration(value, least="1s")


def _offline(value: Json) -> Offline:
    match value:
        case "keep":
            return None
        case "drop":
            return 0.0
        case {"grace": grace, **rest} if not rest:
            return duration(grace)
        case _:
            raise ValueError(f"{value!r} is not a policy: write keep, drop, or {{grace: 30m}}")


def _shrink_after(value: Json) -> Json:
    if isinstance(value, str):
        return {"time": value, "rounds": None}
    return value


def _any_of(value: Json) -> Json:
    if isinstance(value, list):
        return {"any": value}
    return value


_DurationText: TypeAlias = Annotated[str, Field(pattern=PATTERN, examples=["10s", "5m", "24h", "1h30m"])]


def _duration(*, least: str = "0s", most: str = LONGEST) -> BeforeValidator:
    return BeforeValidator(partial(duration, least=least, most=most), json_schema_input_type=_DurationText)


Duration: TypeAlias = Annotated[float, _duration()]
"""Seconds, written like Prometheus writes durations: `10s`, `5m`, `1h30m`, `24h`."""
DurationOrNever: TypeAlias = Annotated[
    float | None,
    BeforeValidator(_duration_or_never, json_schema_input_type=_DurationText | Literal["never"]),
]
IntervalOrNever: TypeAlias = Annotated[
    float | None,
    BeforeValidator(_interval_or_never, json_schema_input_type=_DurationText | Literal["never"]),
]
MinTtl: TypeAlias = Annotated[float, _duration(least="1s")]
Timeout: TypeAlias = Annotated[float, _duration(least="1ms", most="1h")]
Network: TypeAlias = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network, json_schema_input_type=str)]
Port: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=65535)]
Rate: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Name: TypeAlias = Annotated[StrictStr, _refused(_name_complaint)]
Endpoint: TypeAlias = Annotated[StrictStr, AfterValidator(_endpoint)]
ProgramUrl: TypeAlias = Annotated[StrictStr, AfterValidator(_program_url)]
Address: TypeAlias = Annotated[StrictStr, AfterValidator(_address)]
Labels: TypeAlias = Annotated[
    dict[Annotated[StrictStr, _refused(label_complaint)], Annotated[StrictStr, _refused(_value_complaint)]],
    _refused(labels_complaint),
]
Parameters: TypeAlias = dict[Annotated[StrictStr, _refused(parameter_complaint)], StrictStr]


class Grace(BaseModel):
    """How long a machine may be offline and stay a target."""

    grace: _DurationText = Field(description="After this time it is no target, until it is seen online again.")


OfflinePolicy: TypeAlias = Annotated[
    float | None, BeforeValidator(_offline, json_schema_input_type=Literal["keep", "drop"] | Grace)
]
"""None: keep; 0: drop; else seconds of grace."""


class _Model(BaseModel):
    # The validators are built at the first use, once for the whole config: this makes the start faster.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class GivenExporter(_Model):
    """An exporter that a service has. What is not set is as the type's defaults and `exporters` of the config say."""

    type: Name = Field(description="The exporter type: the job.", examples=["postgres"])
    port: Port | None = Field(default=None, description="Its port. Default: the type's.", examples=[9187])
    path: Annotated[StrictStr, _refused(path_complaint)] | None = Field(
        default=None, description="Its path. Default: the type's, mostly /metrics.", examples=["/metrics"]
    )
    scheme: Literal["http", "https"] | None = Field(default=None, description="The scheme of the scrape.")
    params: Parameters = Field(default={}, description="URL parameters of the scrape.", examples=[{"target": "db"}])
    labels: Labels = Field(default={}, description="Labels on the target.", examples=[{"site": "home"}])


def _domain_complaint(name: str) -> str | None:
    if is_domain(name):
        return None
    return f"{name!r} is not a DNS domain: write one such as home.example.org"


def _given_exporter(value: object) -> object:
    """Accept the type alone."""
    if isinstance(value, str):
        return {"type": value}
    return value


GivenExporters: TypeAlias = Annotated[
    list[Annotated[GivenExporter, BeforeValidator(_given_exporter, json_schema_input_type=Name | GivenExporter)]],
    BeforeValidator(one_or_more, json_schema_input_type=Name | list[Name | GivenExporter]),
]


class ManifestSource(_Model):
    """A service manifest: an attrset of services with the address and the machine of each."""

    file: File = Field(
        description="JSON of `nix eval --json -f service-manifest.nix`, or YAML (`.yaml`, `.yml`).",
        examples=["service-manifest.json"],
    )
    exporters: dict[StrictStr, GivenExporters] = Field(
        default={},
        description="The exporters of each service: types, or mappings with more settings.",
        examples=[{"postgresql": ["postgres"], "media": [{"type": "jellyfin", "port": 8096}]}],
    )
    default: GivenExporters = Field(
        default=[GivenExporter.model_construct(type="node")],
        description="The exporters of every machine with a service that is enabled. Default: the node exporter.",
        examples=[["node", "systemd"]],
        json_schema_extra={"default": ["node"]},
    )


EnvFiles: TypeAlias = Annotated[
    list[File],
    Field(
        description="Files with variables. Default: `.env` beside the first file, if it is there.",
        examples=[["production.env"]],
    ),
]
Profiles: TypeAlias = Annotated[
    list[StrictStr],
    Field(
        description="Profiles that are started. Default: `COMPOSE_PROFILES` of the env files. Services of other "
        "profiles are no targets.",
        examples=[["monitoring"]],
    ),
]


class ComposeFiles(_Model):
    """A Compose project, as in `docker compose -f FILE --env-file FILE --profile NAME`."""

    files: Annotated[list[File], BeforeValidator(one_or_more, json_schema_input_type=File | list[File])] = Field(
        description="Compose files; later ones override earlier ones.", examples=[["compose.yaml"]], min_length=1
    )
    env_files: EnvFiles = []
    profiles: Profiles = []


class ComposeSource(_Model):
    """The Compose projects of one machine: one by `files`, or several by `projects`."""

    files: Annotated[list[File], BeforeValidator(one_or_more, json_schema_input_type=File | list[File])] = Field(
        default=[], description="Compose files; later ones override earlier ones.", examples=[["compose.yaml"]]
    )
    env_files: EnvFiles = []
    profiles: Profiles = []
    projects: list[ComposeFiles] = Field(default=[], description="Several projects, each with its own files.")
    scraper: StrictStr | None = Field(
        default=None,
        description="The service that scrapes: targets in its networks are at their names there. `host`: the scraper "
        "runs on this machine, outside of Compose. `none`: it is on another machine. Default: the service with an "
        "image of Prometheus, VictoriaMetrics or vmagent, else `none`.",
        examples=["prometheus"],
    )
    proxy: StrictStr | None = Field(
        default=None,
        description="The service that is the reverse proxy, `host` or `none`, as `scraper`. Default: the service with "
        "an image of Traefik, Caddy or nginx, else `none`.",
        examples=["traefik"],
    )

    @model_validator(mode="after")
    def _has_files(self) -> Self:
        if bool(self.files) == bool(self.projects):
            raise ValueError("needs either `files` or `projects`")
        if self.projects and (self.env_files or self.profiles):
            raise ValueError("`env_files` and `profiles` belong to each of the `projects`")
        return self

    @property
    def all_projects(self) -> list[ComposeFiles]:
        """The projects; `files` alone are one."""
        if self.projects:
            return self.projects
        return [ComposeFiles.model_construct(files=self.files, env_files=self.env_files, profiles=self.profiles)]


class InventorySource(_Model):
    """Where the sources are, which declare the targets. A clan inventory is a file of JSON, or a flake to evaluate."""

    file: File | None = Field(
        default=None,
        description="JSON of `nix eval --json .#clanInternals.inventoryClass.inventorySerialization`, or one "
        "written by hand in the same shape, also as YAML (`.yaml`, `.yml`).",
        examples=["inventory.json"],
    )
    flake: Annotated[str, AfterValidator(_flake)] | None = Field(
        default=None,
        description="A flake whose inventory is evaluated: at each `refresh`; by `run` when files of a local flake "
        "change, on SIGHUP, and every `refresh_interval`.",
        examples=["."],
    )
    refresh_interval: IntervalOrNever = _seconds(
        "1h",
        "How often `run` evaluates an unchanged flake. At least 1s; `never` disables it.",
    )
    settings: File | None = Field(
        default=None,
        description="JSON of the merged settings (`finalSettings`). It wins over merging here.",
        examples=["settings.json"],
    )
    exports: File | None = Field(
        default=None,
        description="JSON of the clan's exports (docs/inventory.md has the command): the addresses of machines that no "
        "backend sees. Without it, their names are used.",
        examples=["exports.json"],
    )
    modules: list[str] = Field(
        default=["prometheus"], description="Instances of a module with one of these names are read."
    )
    exposed: File | None = Field(
        default=None,
        description="JSON of the services that machines expose themselves (docs/sources.md), as "
        "`dump --exposed` writes it.",
        examples=["exposed.json"],
    )
    manifest: ManifestSource | None = Field(
        default=None, description="A service manifest, alone or beside a clan inventory."
    )
    compose: dict[Name, ComposeSource] = Field(
        default={}, description="Compose projects by the machine that they run on (docs/sources.md)."
    )
    domain: Annotated[StrictStr, _refused(_domain_complaint)] | None = Field(
        default=None,
        description="A machine without any known address is at its name in this domain. Default: the clan's "
        "`meta.domain`, or `network.domain` of the manifest; without these, its bare name is used.",
        examples=["home.example.org"],
    )

    @model_validator(mode="after")
    def _has_source(self) -> Self:
        if self.file is not None and self.flake is not None:
            raise ValueError("takes `file` or `flake`, not both")
        if not (self.has_clan or self.manifest or self.exposed or self.compose):
            raise ValueError("needs one of `file`, `flake`, `manifest`, `exposed` and `compose`")
        of_clan = sorted(self.model_fields_set & {"settings", "exports", "modules"})
        if of_clan and not self.has_clan:
            raise ValueError(f"`{of_clan[0]}` belongs to a clan inventory: set `file` or `flake`")
        if self.flake is None and "refresh_interval" in self.model_fields_set:
            raise ValueError("`refresh_interval` is for `flake`: a file is read again when it changes")
        return self

    @property
    def has_clan(self) -> bool:
        """Tell whether a clan inventory is a source."""
        return self.file is not None or self.flake is not None


class TailscaleBackend(_Model):
    """Tailscale: the LocalAPI of the running tailscaled, or a saved status, tells where machines are."""

    socket: File | None = Field(
        default=None,
        description="tailscaled's socket. Default: /run/tailscale/tailscaled.sock.",
        examples=["/run/tailscale/tailscaled.sock"],
    )
    status_file: File | None = Field(
        default=None,
        description="A file that `tailscale status --json` wrote, instead of the socket.",
        examples=["status.json"],
    )
    tags: list[StrictStr] = Field(
        default=[],
        description="Only nodes with one of these ACL tags are machines, with or without `tag:`. Default: any node.",
        examples=[["server"]],
    )
    family: Literal["ipv4", "ipv6", "any"] = Field(
        default="ipv4",
        description="Which address of a node is its target; `any` takes IPv4 where there is one.",
    )
    address: Literal["ip", "name"] = Field(
        default="ip",
        description="Whether targets are at IP addresses or at MagicDNS names (docs/names.md).",
    )
    timeout: Timeout = _seconds("10s", "The time limit of one whole response.")
    volatile_labels: StrictBool = Field(
        default=False,
        description="Also write `__meta_tailscale_device_online`. Each change of it writes files.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.socket is not None and self.status_file is not None:
            raise ValueError("takes `socket` or `status_file`, not both")
        return self


class DnsBackend(_Model):
    """DNS: names that list targets (`names`), and the names of declared machines (`domain`).

    With neither, each declared machine is looked up below the clan's own domain.
    """

    names: list[StrictStr] = Field(
        default=[],
        description="Names to look up, absolute unless `search` is set. `*.example.org` looks up each declared machine "
        "below example.org.",
        examples=[["_node._tcp.example.org"]],
    )
    type: Literal["A", "AAAA", "SRV", "A+AAAA"] | None = Field(
        default=None,
        description="The record type. Default: SRV for `names`, where a name with PTR records is browsed as a DNS-SD "
        "service; A+AAAA, one host with addresses of both families, for `domain`.",
    )
    port: Port | None = Field(
        default=None,
        description="Port of addresses, and of SRV records with port 0; default: the job's port.",
        examples=[9100],
    )
    job: Name | None = Field(
        default=None, description="The exporter type that the names list. Each answer is a target.", examples=["node"]
    )
    domain: StrictStr | None = Field(
        default=None,
        description="Declared machines are looked up as `<machine>.<domain>`. Default, without `names`: the "
        "inventory's `meta.domain`.",
        examples=["lan.example.org"],
    )
    machines: Literal["name", "target", "ptr"] | None = Field(
        default=None,
        description="The answers also tell where machines are: the machine is the first label of the name, of the SRV "
        "target, or of the address's PTR record (only if that name has the address).",
    )
    domains: list[StrictStr] | None = Field(
        default=None,
        description="With `machines`: only names directly below these domains are machines. Default: the domain of the "
        "list's own name, `domain`, the search domains, and the inventory's `meta.domain`.",
        examples=[["lan.example.org"]],
    )
    address: Literal["ip", "name"] = Field(
        default="ip",
        description="Whether targets are at IP addresses or at the names that were looked up (docs/names.md).",
    )
    servers: list[StrictStr] = Field(
        default=[],
        description="Servers, in order of preference: `host`, `host:port`, `[v6]:port`, `tcp://`, "
        "`tls://host:port#name-in-its-certificate`, `https://host/dns-query`. Default: those of /etc/resolv.conf.",
        examples=[["10.0.0.1", "tls://9.9.9.9#dns.quad9.net"]],
    )
    search: StrictBool | list[StrictStr] = Field(
        default=False,
        description="Complete names with the search list of /etc/resolv.conf (true), or with these domains. A name "
        "that ends in a dot is absolute.",
    )
    min_ttl: MinTtl = _seconds("5s", "Minimum time for which an answer is used. At least 1s.")
    max_ttl: Duration = _seconds(
        "1h", "Maximum time for which an answer is used; for a missing name, at most 5 minutes."
    )
    max_rate: Rate = Field(
        default=5000,
        description="The most questions per second to each server. A list of more names is spread over the TTL.",
    )
    timeout: Timeout = _seconds(
        "10s", "The time limit of a refresh cycle. Names without a response keep their last good answer."
    )
    allow_networks: list[Network] = Field(
        default=[],
        description="Networks in which targets are allowed although they hold loopback, link-local, multicast or "
        "metadata addresses.",
        examples=[["127.0.0.0/8"]],
    )
    deny_networks: list[Network] = Field(
        default=[],
        description="Networks without targets. Wins over `allow_networks`.",
        examples=[["10.9.0.0/16"]],
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.names:
            self._check_names()
        else:
            self._check_no_names()
        if self.domains is not None and self.machines is None:
            raise ValueError("has `domains`, which say whose names are machines: `machines` is missing")
        if self.min_ttl > self.max_ttl:
            raise ValueError("`min_ttl` is longer than `max_ttl`: raise the one or lower the other")
        return self

    def _check_names(self) -> None:
        if self.job is None and self.machines is None:
            raise ValueError("needs `job` (its answers are targets) or `machines` (they tell where machines are)")
        asks_srv = self.type in (None, "SRV")
        if self.machines == "name" and asks_srv:
            raise ValueError('asks for SRV: the machine is in the target (`machines: target`), or in PTR ("ptr")')
        if self.machines == "target" and not asks_srv:
            raise ValueError("asks for addresses, which have no target: `machines` is `name` or `ptr`")

    def _check_no_names(self) -> None:
        if any(value is not None for value in (self.job, self.machines, self.port)):
            raise ValueError("has no `names`: `job`, `machines` and `port` are about their answers")
        if self.type == "SRV":
            raise ValueError("has no `names`: machines are asked for addresses, not for SRV")


class StaticBackend(_Model):
    """Static lists: targets by job, and addresses of machines."""

    targets: dict[Name, list[Endpoint]] = Field(
        default={},
        description='Targets by job: "host:port", or "host" where the job is an exporter with a known port.',
        examples=[{"node": ["10.0.0.5:9100"]}],
    )
    machines: dict[
        StrictStr,
        Annotated[
            list[Address],
            BeforeValidator(one_or_more, json_schema_input_type=StrictStr | list[StrictStr]),
        ],
    ] = Field(
        default={},
        description="Addresses, or names in DNS, by machine. They win over Tailscale.",
        examples=[{"nas": "10.0.0.7"}],
    )


class BackendModel(_Model):
    """The base of config models of backends that other distributions add. An unknown key is an error."""


class Backends(_Model):
    """The backends, by kind and then by a name of your choice."""

    tailscale: dict[Name, TailscaleBackend] | None = Field(
        default=None,
        description='Tailnets. Without it, a server whose `discoveryMethod` has "tailscale" gets one of the defaults.',
    )
    dns: dict[Name, DnsBackend] | None = Field(
        default=None,
        description='DNS. Without it, a server whose `discoveryMethod` has "dns" gets one that asks the servers of '
        "/etc/resolv.conf; an entry called `dns` says how that one asks.",
    )
    static: dict[Name, StaticBackend] = Field(default={}, description="Lists.")


class Tags(_Model):
    """Conditions on tags. All of them must hold."""

    any: list[StrictStr] = Field(
        default=[], description="The machine has at least one of these.", examples=[["server"]]
    )
    all: list[StrictStr] = Field(default=[], description="The machine has all of these.", examples=[["server"]])
    none: list[StrictStr] = Field(default=[], description="The machine has none of these.", examples=[["phone"]])


class Select(_Model):
    """Selects machines of the tailnet for an exporter that no inventory declares. Phones and TVs are left out."""

    backends: list[StrictStr] | None = Field(
        default=None,
        description="Only machines that one of these backends sees, at the address that it gives. Default: every "
        "Tailscale backend. Name a DNS backend only if its zone may decide what is scraped.",
        examples=[["tailnet"]],
    )

    tags: Annotated[Tags, BeforeValidator(_any_of, json_schema_input_type=list[StrictStr] | Tags)] = Field(
        default_factory=Tags, description="ACL tags, with or without `tag:`. A list means any of them."
    )
    os: list[StrictStr] = Field(
        default=[], description="Only these operating systems, as Tailscale names them.", examples=[["linux"]]
    )


class ExporterRule(_Model):
    """An exporter type: settings that differ from its defaults, and the machines of the tailnet that have it."""

    port: Port | None = Field(default=None, description="Its port; default: the type's port in NixOS.", examples=[9100])
    path: Annotated[StrictStr, _refused(path_complaint)] | None = Field(
        default=None, description="Its path; default: the type's, mostly /metrics.", examples=["/metrics"]
    )
    scheme: Literal["http", "https"] = Field(default="http", description="The scheme of the scrape.")
    params: Parameters = Field(
        default={}, description="URL parameters of the scrape.", examples=[{"module": "http_2xx"}]
    )
    labels: Labels = Field(default={}, description="Labels on each of its targets.", examples=[{"site": "home"}])
    address: Literal["ip", "name"] | None = Field(
        default=None,
        description="As `address` of a backend, for targets of this type. Default: as the backend says.",
    )
    offline: OfflinePolicy = Field(
        default=None, description="As `policy.offline`, for machines that `select` selects. Default: `policy.offline`."
    )

    select: Select | None = Field(
        default=None,
        description="Machines of the tailnet that have it, beside those that the inventory declares.",
    )

    @model_validator(mode="after")
    def _select_says_something(self) -> Self:
        if "select" in self.model_fields_set and self.select is None:
            raise ValueError("`select` is empty: write {} for every machine of the tailnet")
        return self


class ShrinkAfter(_Model):
    """When a large loss is accepted without `--accept-shrink`: after so many refresh cycles, or after so long."""

    rounds: Annotated[int, Field(strict=True, ge=2)] | None = Field(
        default=10, description="Refresh cycles in which it was seen. null: never."
    )
    time: Duration | None = _seconds("10m", "Time since it was first seen. null: never.")


_ShrinkInput: TypeAlias = _DurationText | ShrinkAfter


ROAMING_TAGS: Final = ("roaming", "laptop")
"""The tags of machines that come and go, unless the config names others."""


def _inventory_tag_complaint(tag: str) -> str | None:
    if tag.startswith("tag:"):
        return f"{tag!r} is an ACL tag: name a tag of the inventory, without `tag:`"
    return None


class PolicyConfig(_Model):
    """What happens to machines that are missing or offline, and to backends that fail."""

    max_age: DurationOrNever = _seconds(
        "24h",
        "How long a failed backend's last good answer is used. Then declared machines are targets at their names, and "
        "targets that only the backend lists are removed. `never` disables the limit.",
    )
    max_shrink: Annotated[float, Field(strict=True, ge=0, le=1)] = Field(
        default=0.5,
        description="A backend that loses more than this fraction of at least 4 machines at once is held: its last "
        "good answer is kept until `refresh --accept-shrink` or `shrink_after`.",
    )
    shrink_after: Annotated[ShrinkAfter, BeforeValidator(_shrink_after, json_schema_input_type=_ShrinkInput)] = Field(
        default_factory=ShrinkAfter, description="When a held loss is accepted by itself."
    )
    offline: OfflinePolicy = Field(
        default=None,
        json_schema_extra={"default": "keep"},
        description="What happens to a machine that the tailnet reports as offline, or whose key has expired: `keep` "
        "it as a target, `drop` it, or `{grace: 30m}`: drop it after that time. It is kept where its state is unknown.",
    )
    offline_tags: dict[StrictStr, OfflinePolicy] = Field(
        default={},
        description="As `offline`, for machines with a tag of the inventory, or with an ACL tag if they are not "
        "declared (`tag:NAME`). With several such tags, the longest time counts.",
        examples=[{"roaming": {"grace": "30m"}}],
    )
    roaming_tags: list[Annotated[StrictStr, _refused(_inventory_tag_complaint)]] = Field(
        default=[*ROAMING_TAGS],
        description="Tags of the inventory. A machine with one of them comes and goes: no alert fires while it is off.",
    )
    silent_after: Annotated[float, _duration(least="1m")] = _seconds(
        "7d", "How long a machine with one of `roaming_tags` may send nothing before `verify` and an alert say so."
    )
    absent: Literal["keep", "drop"] = Field(
        default="keep",
        description="Whether a declared machine that no backend sees is kept as a target, with its name as address.",
    )
    darwin: Literal["exclude", "node", "include"] = Field(
        default="exclude",
        description="NixOS exporters of darwin machines that are targets: none (`exclude`), the node exporter, which "
        "nix-darwin has (`node`), or all (`include`). The default of the clan service is `node`.",
    )


_FileCount: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=MOST_FILES)]


def _split(value: Json) -> Split:
    """Read the number of files of every job, or of some jobs."""
    if not isinstance(value, dict):
        return Split(_file_count("", value))
    for job in value:
        if complaint := _name_complaint(job):
            raise ValueError(complaint)
    return Split(by_job={job: _file_count(f"of job {job!r}", count) for job, count in value.items()})


def _file_count(whose: str, count: Json) -> int:
    if isinstance(count, int) and not isinstance(count, bool) and 1 <= count <= MOST_FILES:
        return count
    what = f"invalid number of files {whose}".rstrip()
    raise ValueError(f"{what}: {count!r} is not from 1 to {MOST_FILES}; write `split: 64`, or `split: {{node: 64}}`")


class Output(_Model):
    """Where target files go."""

    directory: File = Field(
        default=DEFAULT_DIRECTORY,
        description="A directory for the target files alone, `<job>.json` (see `split`). It must not be a symlink "
        "(unless `static` is true), and should not be below /run: a systemd RuntimeDirectory is removed when its unit "
        "stops.",
    )
    files: StrictBool = Field(
        default=True,
        description="Whether to write target files. Without them, `run` serves the targets over HTTP alone (`web`), "
        "and `directory` is not used.",
    )
    split: Annotated[Split, PlainValidator(_split, json_schema_input_type=_FileCount | dict[Name, _FileCount])] = Field(
        default_factory=Split,
        json_schema_extra={"default": 1},
        description="How many files each job has, or the jobs of a mapping. With 2 or more, they are `<job>.0.json`, "
        "`<job>.1.json` and so on, for jobs whose file has over 50 MB: scrapers read whole files "
        "(docs/running.md#large-jobs). Files have the same size if it is a power of two.",
        examples=[64, {"node": 64}],
    )
    owner: Annotated[StrictStr, _refused(_owner_complaint)] | None = Field(
        default=None,
        description="The owner of `directory`: `refresh` and `run` mark it with this name, and refuse a directory with "
        "another mark (exit 5). Default: the path of the config, absolute, symlinks not followed. Set it where that "
        "path changes.",
        examples=["monitoring"],
    )
    lock_wait: Timeout = _seconds("5s", "How long to wait for another refresh of this directory.")
    static: StrictBool = Field(
        default=False,
        description="Whether a Nix build makes the target files. Then `directory` may be a symlink, and `refresh` and "
        "`run` refuse to write there (exit 2). The NixOS module sets it.",
    )


def _weight_complaint(weight: float) -> str | None:
    if LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        return None
    return f"{weight:g} is not a weight: write a number from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}, such as 1"


class ShardMemberConfig(_Model):
    """A server of the shard."""

    weight: Annotated[float, Field(strict=True, allow_inf_nan=False), _refused(_weight_complaint)] = Field(
        default=1.0,
        description="Its part of the targets, beside the weights of the others: with 2, twice as many as with 1. "
        f"From {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}.",
    )
    state: Literal["active", "joining", "leaving"] = Field(
        default="active",
        description="`joining` and `leaving`: it publishes its share, and the active members compute theirs without "
        "it. Use them to add or remove servers without a gap (docs/sharding.md).",
    )


def _with_settings(value: Json) -> Json:
    """Read a list of names as a mapping of names to settings.

    Raises:
        ValueError: it is neither of them, or has something that is no name, or a name twice.
    """
    if isinstance(value, dict):
        return value
    if not isinstance(value, list):
        example = value if isinstance(value, str) and value else "NAME"
        raise ValueError(f"must be a list of names, not {_as_written(value)}: write [{example[:_SHOWN]}]")  # noqa: TRY004 - pydantic's way
    found: dict[str, Json] = {}
    for name in value:
        if isinstance(name, dict | list):
            what = "has more than names: write a mapping of names to settings, such as `{NAME: {}}`"
            raise ValueError(what)  # noqa: TRY004 - as above
        if not isinstance(name, str) or not name:
            raise ValueError(f"{_as_written(name)} is not a name: write a name, in quotes if it is a number")
        if complaint := _name_complaint(name):
            raise ValueError(complaint)
        if name in found:
            raise ValueError(f"has the name {name!r} twice: remove one of them")
        found[name] = {}
    return found


def _as_written(value: Json) -> str:
    """Return a value as a config has it."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return repr(value[:_SHOWN])
    return json.dumps(value)[:_SHOWN]


def _members(value: Json) -> Json:
    """Read the members: names, or a mapping of names to settings."""
    if not value:
        raise ValueError("is empty: name the servers, also this one")
    return _with_settings(value)


def _same_names_complaint(members: dict[str, ShardMemberConfig]) -> str | None:
    known: dict[str, str] = {}
    for name in members:
        other = known.setdefault(name.casefold(), name)
        if other != name:
            return f"has {other!r} and {name!r}, which differ in case only: rename one, or remove it"
    return None


class ShardConfig(_Model):
    """Servers that share the targets by rendezvous hashing (docs/sharding.md)."""

    member: Name | None = Field(
        default=None, description="The name of this server in `members`. Default: `server`.", examples=["mon1"]
    )
    replicas: Annotated[int, Field(strict=True, ge=1)] = Field(
        default=1, description="How many of the active members publish each target."
    )
    members: Annotated[
        dict[Name, ShardMemberConfig],
        BeforeValidator(_members, json_schema_input_type=list[Name] | dict[Name, ShardMemberConfig]),
        _refused(_same_names_complaint),
    ] = Field(
        description="All servers that share the targets: names, or a mapping of names to settings. The order does not "
        "matter; upper and lower case are the same.",
        examples=[["mon1", "mon2", "mon3"]],
    )
    unshared: list[Name] = Field(
        default=["prometheus", "clan-discovery"],
        description="Jobs that are not shared: every member publishes all their targets.",
    )


_TAILNETS: Final = (ip_network("100.64.0.0/10"), ip_network("fd7a:115c:a1e0::/48"))
_TAG: Final = re.compile(r"tag:[A-Za-z][A-Za-z0-9-]*")


def _web_endpoint(text: str) -> str:
    """Refuse what is neither an address of loopback nor one of a tailnet."""
    if "://" in text:
        raise ValueError(f"{text!r} is a URL: write host:port, such as 127.0.0.1:9942")
    if text.startswith(":"):
        raise ValueError(f"{text!r} has no host: write 127.0.0.1{text}")
    host, port = split_endpoint(text)
    if port is None:
        raise ValueError(f"{text!r} has no port: write {join_endpoint(host, 9942)}")
    if not is_loopback(host) and not _is_of_tailnet(host):
        raise ValueError(
            f"{text!r} is neither loopback nor an address of the tailnet, and everybody there could read it: write "
            f"127.0.0.1:{port}, and let a reverse proxy on this machine pass requests to it"
        )
    return text


def _link(text: str) -> str:
    """Check the URL of a dashboard."""
    if has_secret(text):
        raise ValueError("the URL holds a password, which everybody who reads the page would know: remove it")
    shown = HIDDEN if "@" in text else repr(text)
    is_url = text.startswith(("http://", "https://")) and text.isprintable() and " " not in text
    if not is_url or not urlsplit(text).netloc:
        raise ValueError(f"{shown} is not a URL: write https://host/path, with {{machine}} for the machine's name")
    if unknown := set(re.findall(r"\{(\w*)\}", text)) - {"machine"}:
        raise ValueError(f"{shown} has {{{min(unknown)}}}: only {{machine}} is replaced")
    split_endpoint(urlsplit(text).netloc)
    return text


def _is_of_tailnet(host: str) -> bool:
    return is_address(host) and any(ip_address(host) in network for network in _TAILNETS)


def _allow_complaint(entry: str) -> str | None:
    if entry.startswith("tag:"):
        if _TAG.fullmatch(entry):
            return None
        return f"{entry!r} is not a tag: write tag:NAME"
    if "*" in entry:
        return f"{entry!r} would let everybody in: write users (user@example.org) and tags (tag:admin)"
    if entry.startswith(("group:", "autogroup:")):
        return f"{entry!r}: tailscaled does not say who is in a group: write its users, or a tag (tag:admin)"
    if not entry or re.search(r"[\s:/]", entry):
        return f"{entry!r} is not a user: write user@example.org, or tag:NAME"
    return None


class Web(_Model):
    """Where `run` serves HTTP."""

    listen: Annotated[StrictStr, AfterValidator(_web_endpoint)] = Field(
        default="127.0.0.1:9942",
        description="A port on an address of loopback, or of this machine in its tailnet (with `allow`).",
        examples=["127.0.0.1:9942", "100.64.0.1:9942"],
    )
    allow: list[Annotated[StrictStr, _refused(_allow_complaint)]] = Field(
        default=[],
        description="Who may read on an address of the tailnet: tags, and login names of users. tailscaled is asked "
        "for each connection.",
        examples=[["tag:admin", "user@example.org"]],
    )
    links: dict[StrictStr, Annotated[StrictStr, AfterValidator(_link)]] = Field(
        default={},
        description="Dashboards that the page of each machine links to, by title. `{machine}` in a URL stands for the "
        "machine's name.",
        examples=[{"Node": "https://grafana.example.org/d/abc?var-instance={machine}"}],
    )

    @model_validator(mode="after")
    def _is_protected(self) -> Self:
        host, _ = split_endpoint(self.listen)
        if is_loopback(host) and self.allow:
            raise ValueError("has `allow`, which is for an address of the tailnet, and listens on loopback: remove it")
        if not is_loopback(host) and not self.allow:
            raise ValueError(
                f"listens on {host}, an address of the tailnet: say who may read it, such as "
                "`allow: [tag:admin, user@example.org]`"
            )
        return self


_URL_PATH: Final = re.compile(r"/[A-Za-z0-9._~/:@!&=+%,?-]*")
_PROXY_PATH: Final = re.compile(r"[\w ./@+:,=~-]+")


def _proxy_url(text: str) -> str:
    """Check the URL of a server that a reverse proxy asks: scheme, host, path and query."""
    if has_secret(text):
        raise ValueError("the URL holds a password, which everybody who reads the config would know: remove it")
    if not text.startswith(("http://", "https://")):
        raise ValueError(f"{text!r} is not a URL: write http://host:port or https://host:port/path")
    parts = urlsplit(text)
    split_endpoint(parts.netloc)
    rest = text.partition("://")[2].removeprefix(parts.netloc)
    if rest and _URL_PATH.fullmatch(rest) is None:
        raise ValueError(f"{text!r} has a character that a path cannot hold: encode it as %XX")
    return text


def _server_url(text: str) -> str:
    """Check the URL of a server that gets requests with their own path."""
    if urlsplit(_proxy_url(text)).path.strip("/") or "?" in text:
        raise ValueError(f"{text!r} has a path: write scheme, host and port alone")
    return text.rstrip("/")


def _proxy_path_complaint(path: Path) -> str | None:
    if _PROXY_PATH.fullmatch(str(path)):
        return None
    return f"{str(path)!r} has a character that a proxy would interpret: use letters, digits, '.', '-' and '_'"


def _header_complaint(name: str) -> str | None:
    from clan_discovery.syntax.hosts import is_header  # noqa: PLC0415 - only for fronts

    if is_header(name):
        return None
    return f"{name!r} is not a header name: letters, digits and '-' only, such as Remote-User"


def _front_domain(text: str) -> str:
    from clan_discovery.syntax.hosts import virtual_host  # noqa: PLC0415 - only for fronts

    return virtual_host(text)


def _interface(text: str) -> str:
    host, port = split_endpoint(text)
    if port is not None or not is_address(host):
        raise ValueError(f"{text!r} is not an IP address: write 0.0.0.0, [::], or an address of the proxy's machine")
    return host


def _dns_server(text: str) -> str:
    host, port = split_endpoint(text)
    if not is_address(host):
        raise ValueError(f"{text!r} is not an IP address: write that of a DNS server, such as 127.0.0.53")
    return text if port is not None else join_endpoint(host, 53)


def _metrics_endpoint(text: str) -> str:
    host, port = split_endpoint(text)
    if port is None or not is_address(host):
        raise ValueError(f"{text!r} is not an address with a port: write 127.0.0.1:9180, or an address of the overlay")
    if ip_address(host).is_unspecified:
        raise ValueError(f"{text!r} serves metrics in every network: write 127.0.0.1:{port}, or one address")
    if port == CADDY_ADMIN_PORT:
        raise ValueError(
            f"{text!r} is the port of Caddy's admin API, which can replace its whole config: write another port"
        )
    return join_endpoint(host, port)


def _tls(value: Json) -> Json:
    """Read a word; YAML reads `off` as false."""
    if value is False:
        return {"mode": "off"}
    if isinstance(value, str):
        return {"mode": value}
    return value


ProxyFile: TypeAlias = Annotated[File, _refused(_proxy_path_complaint)]
ProxyUrl: TypeAlias = Annotated[StrictStr, AfterValidator(_proxy_url)]
ServerUrl: TypeAlias = Annotated[StrictStr, AfterValidator(_server_url)]
Interface: TypeAlias = Annotated[StrictStr, AfterValidator(_interface)]
DnsServer: TypeAlias = Annotated[StrictStr, AfterValidator(_dns_server)]


TlsMode: TypeAlias = Literal["off", "internal", "acme"]


class TlsFiles(_Model):
    """A certificate and its key, for all fronts."""

    mode: TlsMode | Literal["files"] = Field(default="files", description="`files`, or one of the words.")
    certificate: ProxyFile | None = Field(
        default=None,
        description="The certificate chain as PEM, for every domain of the fronts.",
        examples=["/var/lib/acme/home.example.org/fullchain.pem"],
    )
    key: ProxyFile | None = Field(
        default=None,
        description="The private key as PEM. The proxy reads it; clan-discovery does not.",
        examples=["/var/lib/acme/home.example.org/key.pem"],
    )

    @model_validator(mode="after")
    def _has_files(self) -> Self:
        has_both = self.certificate is not None and self.key is not None
        if self.mode == "files" and not has_both:
            raise ValueError("needs both `certificate` and `key`")
        if self.mode != "files" and (self.certificate is not None or self.key is not None):
            raise ValueError(f"has files, which `mode: {self.mode}` does not use: remove one of them")
        return self


class BasicAuthFile(_Model):
    """Users and password hashes that the proxy checks."""

    file: ProxyFile = Field(
        description="The file of users: htpasswd's format for nginx and Traefik; a user and a bcrypt hash on each line "
        "for Caddy (docs/fronts.md). The proxy reads it; clan-discovery does not.",
        examples=["/run/secrets/front-users"],
    )


class ForwardAuthConfig(_Model):
    """A server that the proxy asks about each request: Authelia, Authentik, or another one."""

    url: ProxyUrl = Field(
        description="What the proxy asks: 2xx lets the request pass; the client gets any other answer.",
        examples=["http://127.0.0.1:9091/api/authz/forward-auth"],
    )
    headers: list[Annotated[StrictStr, _refused(_header_complaint)]] = Field(
        default=[],
        description="Headers of the answer that the service gets. Those that a client sends are removed.",
        examples=[["Remote-User", "Remote-Groups"]],
    )
    login: ProxyUrl | None = Field(
        default=None,
        description="nginx only: where a browser that is not logged in is sent, with its URL as parameter `rd`. "
        "Default: where the `Location` of the answer leads.",
        examples=["https://auth.example.org/"],
    )


class OidcConfig(_Model):
    """An oauth2-proxy that logs users in with OpenID Connect."""

    url: ServerUrl = Field(description="The URL of oauth2-proxy.", examples=["http://127.0.0.1:4180"])


class FrontAuthConfig(_Model):
    """What a front with `auth: basic`, `forward` or `oidc` demands."""

    basic: BasicAuthFile | None = Field(default=None, description="For `auth: basic`: a file of users.")
    forward: ForwardAuthConfig | None = Field(default=None, description="For `auth: forward`: a server that is asked.")
    oidc: OidcConfig | None = Field(default=None, description="For `auth: oidc`: oauth2-proxy.")


class FrontPorts(_Model):
    """The ports of Caddy and nginx. Traefik has entry points in its own config."""

    http: Port = Field(default=80, description="The port of http. With TLS it only redirects.")
    https: Port = Field(default=443, description="The port of https.")

    @model_validator(mode="after")
    def _differ(self) -> FrontPorts:
        if self.http == self.https:
            raise ValueError("http and https have the same port: give each its own")
        return self


def _push_domain(text: str) -> str:
    name = _front_domain(text)
    if name.startswith("*."):
        raise ValueError(f"{text!r} is a wildcard: agents send to one name, such as push")
    return name


_SIZES: Final = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_BODY_LEAST: Final = 1024**2
_BODY_MOST: Final = 1024**3


def _size(value: object) -> int:
    """Read the limit of a request: a number of bytes with a unit."""
    found = re.fullmatch(r"([1-9][0-9]{0,6})(KiB|MiB|GiB)", str(value))
    if found is None:
        raise ValueError(f"{value!r} is not a size: write one such as 32MiB")
    size = int(found[1]) * _SIZES[found[2]]
    if not _BODY_LEAST <= size <= _BODY_MOST:
        raise ValueError(f"{value!r} must be between 1MiB and 1GiB")
    return size


def _count_complaint(count: int) -> str | None:
    if count <= _COUNT_MOST:
        return None
    return f"{count} must be at most {_COUNT_MOST}"


_COUNT_MOST: Final = 100_000
_Count: TypeAlias = Annotated[int, Field(strict=True, ge=1), _refused(_count_complaint)]


class ReceiveLogsConfig(_Model):
    """The store of the logs that agents send."""

    url: ServerUrl = Field(description="Its URL.", examples=["http://127.0.0.1:9428"])
    kind: Literal["victorialogs", "loki"] = Field(
        default="victorialogs",
        description="Which store it is. With Loki, each machine is a tenant of its own: Loki needs `auth_enabled`.",
    )


class ReceiveLimitsConfig(_Model):
    """What one machine may send. More is answered with 429 or 413, and other machines are not affected."""

    requests: _Count = Field(default=20, description="nginx only: requests a second. Faster ones wait.")
    burst: Annotated[int, Field(strict=True, ge=0), _refused(_count_complaint)] = Field(
        default=200, description="nginx only: how many requests wait; further ones are answered with 429."
    )
    body: Annotated[int, BeforeValidator(_size, json_schema_input_type=StrictStr)] = Field(
        default=32 * 1024**2,
        json_schema_extra={"default": "32MiB"},
        description="nginx only: the largest request, compressed, from 1MiB to 1GiB. An agent sends 8 MiB at most.",
    )
    connections: _Count = Field(default=8, description="Requests at a time.")


class ReceiveConfig(_Model):
    """How the front receives what agents send, with the name that each token stands for (docs/agents.md)."""

    kind: Literal["nginx", "vmauth"] | None = Field(
        default=None,
        description="Which program receives. Default: nginx if it is the proxy, else vmauth, a program of its own.",
    )
    domain: Annotated[StrictStr, AfterValidator(_push_domain)] = Field(
        default="push",
        description="nginx only: the domain that agents send to; one without a dot is completed by `front.domain`.",
    )
    tokens: File = Field(
        description="The directory of the token files: `MACHINE`, or `MACHINE.` and a word for a second token. Each "
        "holds one token.",
        examples=["/run/credentials/clan-discovery-receive.service"],
    )
    metrics: ServerUrl | None = Field(
        default=None, description="The URL of VictoriaMetrics, or of a vmagent.", examples=["http://127.0.0.1:8428"]
    )
    logs: ReceiveLogsConfig | None = Field(default=None, description="The store of logs. Default: none are received.")
    limits: ReceiveLimitsConfig = Field(default_factory=ReceiveLimitsConfig, description="What one machine may send.")
    file: ProxyFile = Field(
        description="The file that `token write` writes: an include for the `http` block of nginx.conf, or the config "
        "of vmauth. It holds every token, and only its owner and `group` may read it.",
        examples=["/run/clan-discovery-receive/nginx.conf"],
    )
    group: Name | None = Field(
        default=None, description="A group that may read the file. Default: none.", examples=["nginx"]
    )

    @model_validator(mode="after")
    def _has_a_store(self) -> Self:
        if self.metrics is None and self.logs is None:
            raise ValueError("needs `metrics`, `logs`, or both: the stores that agents write to")
        return self


class FrontConfig(_Model):
    """The reverse proxy in front of the exposed services (docs/fronts.md)."""

    kind: Literal["caddy", "nginx", "traefik"] = Field(description="Which proxy the config is written for.")
    machine: StrictStr | None = Field(
        default=None,
        description="The machine on which the proxy runs: it reaches this machine's services at 127.0.0.1.",
        examples=["web01"],
    )
    domain: Annotated[StrictStr, AfterValidator(_front_domain)] | None = Field(
        default=None,
        description="The domain of fronts whose own has no dot: `grafana` becomes grafana.home.example.org.",
        examples=["home.example.org"],
    )
    file: File | None = Field(
        default=None,
        description="The file that `refresh` and `run` write, for the proxy to include. Default: none.",
        examples=["/var/lib/clan-discovery/front/clan.caddy"],
    )
    tls: Annotated[TlsFiles, BeforeValidator(_tls, json_schema_input_type=TlsMode | TlsFiles)] = Field(
        default_factory=lambda: TlsFiles(mode="off"),
        json_schema_extra={"default": "off"},
        description="`off`: http alone. `internal`: Caddy's own CA. `acme`: Caddy or Traefik gets certificates. Or the "
        "files of a certificate.",
    )
    auth: FrontAuthConfig = Field(default_factory=FrontAuthConfig, description="What fronts with `auth` demand.")
    ports: FrontPorts = Field(default_factory=FrontPorts, description="Caddy and nginx: the ports.")
    listen: list[Interface] = Field(
        default=[],
        description="Caddy and nginx: the addresses to listen on. Default: all.",
        examples=[["10.0.0.2", "fd00::2"]],
    )
    metrics: Annotated[StrictStr, AfterValidator(_metrics_endpoint)] | None = Field(
        default=None,
        description="Caddy and nginx: where the proxy serves its own metrics: `/metrics` of Caddy, `/stub_status` of "
        "nginx. Default: nowhere.",
        examples=["127.0.0.1:9180"],
    )
    resolver: Annotated[
        list[DnsServer], BeforeValidator(one_or_more, json_schema_input_type=StrictStr | list[StrictStr])
    ] = Field(
        default=[],
        description="nginx only: the DNS servers that it asks for services at a name. Without them, such a front "
        "answers 503.",
        examples=["127.0.0.53"],
    )
    ca_file: ProxyFile | None = Field(
        default=None,
        description="The CA certificates that verify services of scheme https. Default: those of the system.",
        examples=["/etc/ssl/clan-ca.pem"],
    )
    entry_point: Name | None = Field(
        default=None,
        description="Traefik only: the entry point of the fronts. Default: `websecure`; `web` without TLS.",
        examples=["websecure"],
    )
    cert_resolver: Name = Field(default="acme", description="Traefik only, with `tls: acme`: the certificate resolver.")
    refuse_unknown_hosts: StrictBool = Field(
        default=True,
        description="Caddy and nginx: whether requests for other hosts are refused. Set it to false where the proxy "
        "has a default site of its own.",
    )
    own_domains: list[Annotated[StrictStr, AfterValidator(_front_domain)]] = Field(
        default=[],
        description="Domains that the proxy serves by its own config. A front with one of them is left out, which is a "
        "problem.",
        examples=[["cloud.home.example.org"]],
    )
    receive: ReceiveConfig | None = Field(
        default=None, description="What agents send: metrics and logs. Default: nothing is received."
    )


class IgnoreConfig(_Model):
    """What is neither a target nor a stray."""

    names: list[StrictStr] = Field(
        default=[],
        description="Names or shell patterns, also of declared machines: these are shown as excluded.",
        examples=[["old-laptop", "*-guest"]],
    )
    tags: list[StrictStr] = Field(
        default=[],
        description="ACL tags, with or without `tag:`. Declared machines are not ignored.",
        examples=[["guest"]],
    )
    os: list[StrictStr] = Field(
        default=[],
        description="Operating systems, as Tailscale names them. Declared machines are not ignored.",
        examples=[["windows"]],
    )


class ProgramLogin(_Model):
    """The user name and the password that a program asks for."""

    username: StrictStr = Field(description="The user name.", examples=["verify"])
    password_file: File = Field(
        description="A file with the password, read at each use.", examples=["/run/secrets/verify-password"]
    )


class ProgramAccess(_Model):
    """Where a running program is, and how `verify` logs in."""

    url: ProgramUrl = Field(
        description="Its URL, with the path below which its API is, if it has one. No proxy of the environment is "
        "used, and redirects are not followed.",
        examples=["http://127.0.0.1:9090", "https://metrics.example.org/prometheus"],
    )
    bearer_token_file: File | None = Field(
        default=None, description="A file with a bearer token, read at each use.", examples=["/run/secrets/verify"]
    )
    basic_auth: ProgramLogin | None = Field(default=None, description="The user name and the file of the password.")
    ca_file: File | None = Field(
        default=None,
        description="The CA certificate that verifies the program. Default: those of the system.",
        examples=["/etc/ssl/clan-ca.pem"],
    )

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        if self.bearer_token_file is not None and self.basic_auth is not None:
            raise ValueError("takes `bearer_token_file` or `basic_auth`, not both")
        if self.ca_file is not None and not self.url.startswith("https://"):
            raise ValueError("has a `ca_file`, which is for https, and its URL is http: write https://, or remove it")
        return self


class RulesAccess(ProgramAccess):
    """A program that evaluates rules, and the files that it should have loaded."""

    files: Annotated[list[File], BeforeValidator(one_or_more, json_schema_input_type=File | list[File])] = Field(
        description="Rule files, as the program reads them; `*` in a name stands for any text.",
        examples=[["/etc/prometheus/rules/*.yml"]],
        min_length=1,
    )


class VerifyConfig(_Model):
    """The running programs that `clan-discovery verify` asks. Each has a name of your choice."""

    scrapers: dict[Name, ProgramAccess] = Field(
        default={},
        description="Prometheus, VictoriaMetrics and vmagent. Default: the one on this machine, at port 9090 "
        "(Prometheus), 8428 (VictoriaMetrics) or 8429 (vmagent) of 127.0.0.1.",
        examples=[{"prometheus": {"url": "http://127.0.0.1:9090"}}],
    )
    rules: dict[Name, RulesAccess] = Field(
        default={},
        description="Programs that evaluate rules: Prometheus or vmalert. Each alert and record of the files must be "
        "loaded.",
        examples=[{"alerts": {"url": "http://127.0.0.1:9090", "files": ["alerts.rules.yml"]}}],
    )
    alertmanager: dict[Name, ProgramAccess] = Field(
        default={}, description="Alertmanagers.", examples=[{"main": {"url": "http://127.0.0.1:9093"}}]
    )
    loki: dict[Name, ProgramAccess] = Field(
        default={}, description="Loki.", examples=[{"logs": {"url": "http://127.0.0.1:3100"}}]
    )
    victorialogs: dict[Name, ProgramAccess] = Field(
        default={}, description="VictoriaLogs.", examples=[{"logs": {"url": "http://127.0.0.1:9428"}}]
    )
    grafana: dict[Name, ProgramAccess] = Field(
        default={}, description="Grafana.", examples=[{"dashboards": {"url": "http://127.0.0.1:3000"}}]
    )
    timeout: Timeout = _seconds("10s", "The time limit of all questions to one program.")
    pushed: StrictBool = Field(
        default=True,
        description="Whether a scraper has the samples that agents send; if not, another server verifies them.",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        kinds = (self.scrapers, self.rules, self.alertmanager, self.loki, self.victorialogs, self.grafana)
        names = [name for kind in kinds for name in kind]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"has two programs of the name {name!r}: findings name the program, rename one")
        return self


if TYPE_CHECKING:

    class LimitValues(_Model):
        """Limits of alert rules."""

else:  # its fields are the names in data/limits.json

    def _limit_field(limit: KnownLimit) -> tuple[object, object]:
        text = f"{limit.description} Alert `{limit.alert}`, by default {limit.default:g} ({limit.unit})."
        number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=limit.most)]
        return number | None, Field(default=None, description=text, examples=[limit.default])

    LimitValues = create_model(
        "LimitValues",
        __base__=_Model,
        __doc__="Limits of alert rules. What is not set is as the rules say.",
        **{name: _limit_field(limit) for name, limit in known_limits().items()},
    )


class LimitsConfig(_Model):
    """Limits of alert rules for machines. Of machine, tag, inventory and default, the first that is set wins."""

    default: LimitValues = Field(
        default_factory=LimitValues,
        description="For machines for which nothing else says one, neither here nor in the inventory.",
        examples=[{"disk_percent": 85}],
    )
    tags: dict[StrictStr, LimitValues] = Field(
        default={},
        description="For machines with a tag of the inventory. Wins over the settings in the inventory.",
        examples=[{"storage": {"disk_percent": 95}}],
    )
    machines: dict[StrictStr, LimitValues] = Field(
        default={}, description="For single machines.", examples=[{"nas": {"cpu_percent": 99}}]
    )


UnitNames: TypeAlias = Annotated[
    list[Annotated[StrictStr, _refused(unit_complaint)]],
    BeforeValidator(one_or_more, json_schema_input_type=StrictStr | list[StrictStr]),
]


class UnitsConfig(_Model):
    """Systemd units that must be active. Those of a machine and of its tags add up, with those of the inventory."""

    tags: dict[StrictStr, UnitNames] = Field(
        default={},
        description="On machines with a tag of the inventory. `nginx` is `nginx.service`.",
        examples=[{"web": ["nginx.service"]}],
    )
    machines: dict[StrictStr, UnitNames] = Field(
        default={}, description="On single machines.", examples=[{"db": ["postgresql.service"]}]
    )


def _storage_url(text: str) -> str:
    """Check a URL that takes remote writes: scheme, host and path."""
    parts = urlsplit(_proxy_url(text))
    if not parts.path.strip("/"):
        such = f"{text.rstrip('/')}/api/v1/push"
        raise ValueError(f"{text!r} has no path: write the URL that takes remote writes, such as {such}")
    if "," in text:
        raise ValueError(f"{text!r} has a comma, at which vmagent divides the values of a flag: write %2C")
    return text


class StorageNodeConfig(_Model):
    """Where a node is that stores samples."""

    address: Annotated[StrictStr, AfterValidator(_node_address)] | None = Field(
        default=None,
        description="Its address or name. Default: that of the machine of this name, as for a target. With "
        "`mode: shard`, an address that changes moves series to other nodes.",
        examples=["10.0.0.11"],
    )
    port: Port | None = Field(
        default=None,
        description="The port that takes writes. Default: 8428 (victoriametrics), 8400 (victoriametrics-cluster), "
        "19291 (thanos), 9090 (remote-write).",
        examples=[8428],
    )
    read_port: Port | None = Field(
        default=None,
        description="The port that queries are sent to, of victoriametrics-cluster (default: 8401) and thanos "
        "(default: 10901).",
        examples=[10901],
    )
    url: Annotated[StrictStr, AfterValidator(_storage_url)] | None = Field(
        default=None,
        description="remote-write only: the whole URL, in place of the address. Default: "
        "`http://ADDRESS:PORT/api/v1/write`.",
        examples=["https://mimir.example.org/api/v1/push"],
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        given = {"address": self.address, "port": self.port, "read_port": self.read_port}
        if self.url is not None and (other := next((key for key, value in given.items() if value is not None), None)):
            raise ValueError(f"has `url`, which replaces `{other}`: remove one of them")
        return self


def _storage_nodes(value: Json) -> Json:
    """Read the nodes: names, or a mapping of names to settings, which may be empty."""
    found = _with_settings(value)
    if not isinstance(found, dict):
        return found
    return {name: {} if given is None else given for name, given in found.items()}


def _same_nodes_complaint(nodes: dict[str, StorageNodeConfig]) -> str | None:
    seen: set[str] = set()
    for name in nodes:
        if name.casefold() in seen:
            return f"has two nodes of the name {name!r}: each copy needs a node of its own, remove one"
        seen.add(name.casefold())
    return None


class StorageConfig(_Model):
    """Where servers store samples: the nodes of an existing engine (docs/storage.md)."""

    engine: StorageEngine | None = Field(
        default=None,
        description="What runs on the nodes. `remote-write`: anything that takes remote writes, such as Mimir. "
        "Default: that of the role `storage`, else victoriametrics.",
    )
    nodes: Annotated[
        dict[Name, StorageNodeConfig],
        BeforeValidator(_storage_nodes, json_schema_input_type=list[Name] | dict[Name, StorageNodeConfig | None]),
        _refused(_same_nodes_complaint),
    ] = Field(
        default={},
        description="The nodes, by the names of their machines: a list, or a mapping with addresses and ports. Add new "
        "ones at the end. Default: the machines of the role `storage`.",
        examples=[["db1", "db2", "db3"], {"db1": {"address": "10.0.0.11"}, "db2": {"port": 8429}}],
    )
    replicas: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        default=None,
        description="How many copies there are of each sample. Default: as many as nodes; 2 with `mode: shard` and "
        "victoriametrics-cluster, 3 with thanos, or fewer if there are fewer nodes.",
        examples=[2],
    )
    mode: StorageMode | None = Field(
        default=None,
        description="victoriametrics only. `replicate`: each node gets every sample. `shard`: vmagent writes each "
        "series to `replicas` nodes; vmauth cannot read such nodes as one. Default: replicate.",
    )
    cluster: Annotated[StrictStr, _refused(_label_value_complaint)] | None = Field(
        default=None,
        description="remote-write to Mimir only: the label `cluster` of the servers of an HA pair. Mimir then keeps "
        "the samples of one of them. Default: no labels for Mimir.",
        examples=["home"],
    )
    write_url: Annotated[StrictStr, AfterValidator(_storage_url)] | None = Field(
        default=None,
        description="thanos and victoriametrics-cluster: where servers write, which passes it to the nodes. Default: "
        "vmauth at `http://127.0.0.1:8427/api/v1/receive` (thanos), vminsert at "
        "`http://127.0.0.1:8480/insert/0/prometheus/api/v1/write`.",
        examples=["https://receive.example.org/api/v1/receive"],
    )
    dedup_interval: Annotated[float, _duration(least="1ms", most="1h")] = Field(
        default=duration("1ms"),
        json_schema_extra={"default": "1ms"},
        description="VictoriaMetrics only: of the samples of a series in this time, one is kept. Where several servers "
        "scrape the same targets, set it to the scrape interval.",
        examples=["15s"],
    )


def _scrape_config(value: Json, info: ValidationInfo[Path | None]) -> ScrapeConfig:
    from clan_discovery.config.scrape import read_scrape_config  # noqa: PLC0415 - its models cost 25 ms of a start

    return read_scrape_config(value, info.context)


_AnyMapping: TypeAlias = dict[str, object]


class Config(_Model):
    """The config of clan-discovery."""

    inventory: InventorySource | None = Field(
        default=None, description="The sources, which declare the targets (docs/sources.md)."
    )
    server: Annotated[StrictStr, _refused(_label_value_complaint)] | None = Field(
        default=None,
        description="The machine that scrapes. Default: every server of the instances.",
        examples=["monitor"],
    )
    instances: list[StrictStr] | None = Field(
        default=None,
        description="Inventory instances to read. Default: every one of the module `prometheus`.",
        examples=[["monitoring"]],
    )
    backends: Backends = Field(default_factory=Backends, description="What is asked where machines are.")
    exporters: dict[Name, ExporterRule] = Field(
        default={}, description="Exporter types: settings, and rules that select machines of the tailnet."
    )
    jobs: dict[Name, Annotated[ScrapeConfig, PlainValidator(_scrape_config, json_schema_input_type=_AnyMapping)]] = (
        Field(
            default={},
            description="Scrape configs by exporter type, for `show --format scrape-config`.",
            examples=[{"node": {"scrape_interval": "30s", "sample_limit": 10000}}],
        )
    )
    labels: Labels = Field(default={}, description="Labels on every target.", examples=[{"site": "home"}])
    ignore: IgnoreConfig = Field(default_factory=IgnoreConfig, description="What is neither a target nor a stray.")
    aliases: dict[Annotated[StrictStr, _refused(_alias_complaint)], StrictStr] = Field(
        default={},
        description="Other names of declared machines: a node with this name is that machine (docs/names.md).",
        examples=[{"desktop-pc": "desktop"}],
    )
    policy: PolicyConfig = Field(
        default_factory=PolicyConfig,
        description="What happens to machines that are missing or offline, and to backends that fail.",
    )
    limits: LimitsConfig = Field(
        default_factory=LimitsConfig,
        description="Limits of alert rules that some machines have instead of the rules' own.",
    )
    units: UnitsConfig = Field(
        default_factory=UnitsConfig, description="Systemd units that must be active: an alert fires if one is not."
    )
    needs: dict[
        StrictStr,
        Annotated[list[StrictStr], BeforeValidator(one_or_more, json_schema_input_type=StrictStr | list[StrictStr])],
    ] = Field(
        default={},
        description="The machines that a machine does not work without: while one of them is down, the alerts on its "
        "services are inhibited.",
        examples=[{"web": ["db"]}],
    )
    output: Output = Field(default_factory=Output, description="Where target files go.")
    shard: ShardConfig | None = Field(
        default=None,
        description="The servers that share the targets; each publishes its own share. Default: all are published.",
        examples=[{"members": ["mon1", "mon2", "mon3"], "replicas": 2}],
    )
    storage: StorageConfig | None = Field(
        default=None,
        description="Where servers store samples. Default: the role `storage` of the inventory, or nowhere else.",
        examples=[{"engine": "victoriametrics", "nodes": ["db1", "db2", "db3"]}],
    )
    verify: VerifyConfig = Field(default_factory=VerifyConfig, description="The running programs that `verify` asks.")
    web: Web | None = Field(
        default=None,
        description="Where `run` serves target lists for http_sd, metrics and health over HTTP. Default: nowhere.",
        examples=[{"listen": "127.0.0.1:9942"}],
    )
    front: FrontConfig | None = Field(
        default=None,
        description="The reverse proxy in front of the exposed services. Default: none.",
        examples=[{"kind": "caddy", "domain": "home.example.org"}],
    )
    state: File | None = Field(
        default=None,
        description="A directory for the last good answers of backends. Default: /var/lib/clan-discovery/state, or "
        "`<output.directory>.state` if `output.directory` is set.",
        examples=["state"],
    )


def config_schema(model: type[Config] = Config, exporter_types: Sequence[str] = ()) -> dict[str, Json]:
    """Return the JSON Schema of a config, including that of its scrape configs.

    `exporter_types` are suggested wherever an exporter type is wanted; other types are valid, too. `model` is `Config`,
    or one with more kinds of backends (`config_with`).
    """
    from clan_discovery.config.scrape import ScrapeConfigModel  # noqa: PLC0415 - as above

    schema, scrape = model.model_json_schema(), ScrapeConfigModel.model_json_schema()
    definitions, top = schema["$defs"], schema["properties"]
    definitions |= {**scrape.pop("$defs"), "ScrapeConfig": scrape}
    top["jobs"]["additionalProperties"] = {"$ref": "#/$defs/ScrapeConfig"}
    if exporter_types:
        definitions["ExporterType"] = {
            "description": "An exporter type with a known port, or a name of your own.",
            "anyOf": [{"enum": exporter_types}, {"type": "string", "pattern": f"^{JOB_PATTERN}$"}],
        }
        reference = {"$ref": "#/$defs/ExporterType"}
        for mapping in (top["exporters"], top["jobs"], definitions["StaticBackend"]["properties"]["targets"]):
            mapping["propertyNames"] = reference
        definitions["DnsBackend"]["properties"]["job"]["anyOf"] = [reference, {"type": "null"}]
    return schema


_ADDED: Final = "added_"
"""Before the name of a kind, in the name of its field: `copy` is a kind, and a method of each model."""


if TYPE_CHECKING:

    def _with_kind(base: type[Backends], kind: str, model: type[BackendModel]) -> type[Backends]: ...

else:  # no type checker can know a field whose name and type come from another distribution

    def _with_kind(base: type[Backends], kind: str, model: type[BackendModel]) -> type[Backends]:
        """Add a kind of backends, whose entries have this model."""
        field = Field(default={}, alias=kind, description=model.__doc__)
        fields = {f"{_ADDED}{kind}": (dict[Name, model], field)}
        return create_model("Backends", __base__=base, __doc__=Backends.__doc__, **fields)


@cache
def config_with(kinds: tuple[tuple[str, type[BackendModel]], ...]) -> type[Config]:
    """Return the config's model with more kinds of backends, each with the model of its entries."""
    if not kinds:
        return Config
    backends = Backends
    for kind, model in kinds:
        backends = _with_kind(backends, kind, model)
    field: Backends = Field(default_factory=backends, description="What is asked where machines are.")
    return create_model("Config", __base__=Config, __doc__=Config.__doc__, backends=(backends, field))


def others_of(backends: Backends) -> dict[str, dict[str, BackendModel]]:
    """Return the configs of backends that are not built in, by kind and name."""
    fields = [field for field in type(backends).model_fields if field.startswith(_ADDED)]
    return {field.removeprefix(_ADDED): getattr(backends, field) for field in fields}
