"""What may stand in a config. Strict: an unknown key is an error. The config schema is generated from here."""

from __future__ import annotations

import os
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    model_validator,
)

from clan_discovery.syntax.duration import PATTERN, duration
from clan_discovery.syntax.endpoint import split_endpoint
from clan_discovery.syntax.labels import is_job, label_complaint, labels_complaint, parameter_complaint, path_complaint

if TYPE_CHECKING:
    from pydantic import ValidationInfo

    from clan_discovery.model import Json, Offline

DEFAULT_DIRECTORY: Final = Path("/var/lib/clan-discovery/targets")
DEFAULT_STATE: Final = Path("/var/lib/clan-discovery/state")


def _label(name: str) -> str:
    if complaint := label_complaint(name):
        raise ValueError(complaint)
    return name


def _labels(labels: dict[str, str]) -> dict[str, str]:
    if complaint := labels_complaint(labels):
        raise ValueError(complaint)
    return labels


def _metrics_path(path: str) -> str:
    if complaint := path_complaint(path):
        raise ValueError(complaint)
    return path


def _parameter(name: str) -> str:
    if complaint := parameter_complaint(name):
        raise ValueError(complaint)
    return name


def _name(name: str) -> str:
    if not is_job(name):
        raise ValueError(
            f"{name!r} cannot be a name here: letters, digits, '_', '-', '.', ':', and a letter, digit or '_' first"
        )
    return name


def _endpoint(text: str) -> str:
    split_endpoint(text)
    return text


def _address(text: str) -> str:
    host, port = split_endpoint(text)
    if port is not None:
        raise ValueError(f"{text!r} has a port: a machine has an address, its exporters have ports")
    return host


def _network(value: object) -> IPv4Network | IPv6Network:
    try:
        return ip_network(value) if isinstance(value, str) else ip_network("")
    except ValueError as error:
        raise ValueError(f"{value!r} is no network: write 10.0.0.0/8 or fd00::/8 ({error})") from None


def _path(path: Path, info: ValidationInfo[Path | None]) -> Path:
    """Make a path absolute: relative ones start at the config's directory, which is the validation's context.

    Absolute, because a backend's memory is known by its paths, wherever a command is run.
    """
    _word(str(path))
    if info.context is None:
        return path
    return info.context / path


def _flake(reference: str, info: ValidationInfo[Path | None]) -> str:
    """Make a flake reference absolute where it is a relative path."""
    _word(reference)
    is_path = reference in ("", ".") or reference.startswith(("./", "../"))
    if not is_path or info.context is None:
        return reference
    return str((info.context / reference).resolve())


def _word(text: str) -> None:
    if "\0" in text:
        raise ValueError("no path holds a NUL")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError("no path holds half of a surrogate pair") from None


def _timeout(value: object) -> float:
    return duration(value, least="1ms", most="1h")


def _min_ttl(value: object) -> float:
    return duration(value, least="1s")


def _duration_or_never(value: object) -> float | None:
    return None if value == "never" else duration(value)


def _offline(value: Json) -> Offline:
    match value:
        case "keep":
            return None
        case "drop":
            return 0.0
        case {"grace": grace, **rest} if not rest:
            return duration(grace)
        case _:
            raise ValueError(f"{value!r} is no policy: write keep, drop, or {{grace: 30m}}")


def _shrink_after(value: Json) -> Json:
    return {"time": value, "rounds": None} if isinstance(value, str) else value


def _any_of(value: Json) -> Json:
    return {"any": value} if isinstance(value, list) else value


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


_DurationText: TypeAlias = Annotated[str, Field(pattern=PATTERN, examples=["10s", "5m", "24h", "1h30m"])]
Duration: TypeAlias = Annotated[float, BeforeValidator(duration, json_schema_input_type=_DurationText)]
"""Seconds, written like Prometheus writes durations: `10s`, `5m`, `1h30m`, `24h`."""
DurationOrNever: TypeAlias = Annotated[
    float | None,
    BeforeValidator(_duration_or_never, json_schema_input_type=_DurationText | Literal["never"]),
]
MinTtl: TypeAlias = Annotated[float, BeforeValidator(_min_ttl, json_schema_input_type=_DurationText)]
Timeout: TypeAlias = Annotated[float, BeforeValidator(_timeout, json_schema_input_type=_DurationText)]
Network: TypeAlias = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network, json_schema_input_type=str)]
Port: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=65535)]
Name: TypeAlias = Annotated[StrictStr, AfterValidator(_name)]
File: TypeAlias = Annotated[Path, AfterValidator(_path)]
Endpoint: TypeAlias = Annotated[StrictStr, AfterValidator(_endpoint)]
Address: TypeAlias = Annotated[StrictStr, AfterValidator(_address)]
Labels: TypeAlias = Annotated[dict[Annotated[StrictStr, AfterValidator(_label)], StrictStr], AfterValidator(_labels)]
Parameters: TypeAlias = dict[Annotated[StrictStr, AfterValidator(_parameter)], StrictStr]


class Grace(BaseModel):
    """How long a machine may be offline and stay a target."""

    grace: _DurationText = Field(description="After so long it is no target, until it is seen online again.")


OfflinePolicy: TypeAlias = Annotated[
    float | None, BeforeValidator(_offline, json_schema_input_type=Literal["keep", "drop"] | Grace)
]
"""None: keep; 0: drop; else seconds of grace."""


class _Model(BaseModel):
    # Built once, as part of the whole, at the first use: it spares the start a validator for each part.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class InventorySource(_Model):
    """Where the clan inventory is: a file of JSON, or a flake to evaluate."""

    file: File | None = Field(
        default=None,
        description="JSON of `nix eval --json .#clanInternals.inventoryClass.inventorySerialization`, or one "
        "written by hand in the same shape. Relative to the config.",
    )
    flake: Annotated[str, AfterValidator(_flake)] | None = Field(
        default=None,
        description="A flake whose inventory is evaluated with `nix eval` at each round.",
        examples=["."],
    )
    settings: File | None = Field(
        default=None,
        description="JSON of the merged settings (`finalSettings`); where given, it wins over merging.",
    )
    exports: File | None = Field(
        default=None,
        description="JSON of the clan's exports (docs/inventory.md has the command): where machines are while nobody "
        "sees them, instead of at their names. Relative to the config.",
    )
    modules: list[str] = Field(
        default=["prometheus"], description="Instances of a module of one of these names are the service's."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.file is None) == (self.flake is None):
            raise ValueError("needs exactly one of `file` and `flake`")
        return self


class TailscaleBackend(_Model):
    """Asks Tailscale where machines are: the LocalAPI of the running tailscaled, or a saved status."""

    socket: File | None = Field(
        default=None, description="tailscaled's socket. Default: /run/tailscale/tailscaled.sock."
    )
    status_file: File | None = Field(
        default=None, description="A file that `tailscale status --json` wrote, instead of the socket."
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
    timeout: Timeout = Field(
        default=10.0,
        description="The time budget of one whole answer.",
        json_schema_extra={"default": "10s"},
    )
    volatile_labels: StrictBool = Field(
        default=False,
        description="Also write `__meta_tailscale_device_online`. It changes by itself, and each change writes files.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.socket is not None and self.status_file is not None:
            raise ValueError("takes `socket` or `status_file`, not both")
        return self


class DnsBackend(_Model):
    """Asks DNS: names that list targets (`names`), and where declared machines are (`domain`).

    With neither, each declared machine is asked for below the clan's own domain.
    """

    names: list[StrictStr] = Field(
        default=[],
        description="Names to ask, absolute unless `search` says otherwise. `*.example.org` stands for each declared "
        "machine below example.org: a resolver cannot list a zone.",
        examples=[["_node._tcp.example.org"]],
    )
    type: Literal["A", "AAAA", "SRV", "A+AAAA"] | None = Field(
        default=None,
        description="What is asked: SRV (the default of `names`; a name that has PTR records instead is browsed as a "
        "DNS-SD service), or addresses, those of both families as one host (the default of `domain`).",
    )
    port: Port | None = Field(
        default=None, description="Port of addresses, and of SRV records with port 0; default: the job's port."
    )
    job: Name | None = Field(default=None, description="The exporter type that the names list: answers are targets.")
    domain: StrictStr | None = Field(
        default=None,
        description="Where declared machines are: `<machine>.<domain>` is asked for addresses. Default, without "
        "`names`: the inventory's `meta.domain`.",
        examples=["lan.example.org"],
    )
    machines: Literal["name", "target", "ptr"] | None = Field(
        default=None,
        description="Answers tell where machines are, too: the machine is the first label of the asked name, of the "
        "SRV target, or of the name that the address's PTR record gives.",
    )
    servers: list[StrictStr] = Field(
        default=[],
        description="Servers in the order in which they are asked: `host`, `host:port`, `[v6]:port`, `tcp://`, "
        "`tls://host:port#name-in-its-certificate` or `https://host/dns-query`. Default: those of /etc/resolv.conf.",
        examples=[["10.0.0.1", "tls://9.9.9.9#dns.quad9.net"]],
    )
    search: StrictBool | list[StrictStr] = Field(
        default=False,
        description="Whether names are completed: with the search list of /etc/resolv.conf (true), or with these "
        "domains. A name that ends in a dot never is.",
    )
    min_ttl: MinTtl = Field(
        default=5.0,
        description="An answer holds for at least so long, whatever its TTL.",
        json_schema_extra={"default": "5s"},
    )
    max_ttl: Duration = Field(
        default=3600.0,
        description="An answer holds for at most so long. That a name is not there holds for 5 minutes at most.",
        json_schema_extra={"default": "1h"},
    )
    timeout: Timeout = Field(
        default=10.0,
        description="The time budget of a round: a name that is not answered then keeps its last good answer.",
        json_schema_extra={"default": "10s"},
    )
    allow_networks: list[Network] = Field(
        default=[],
        description="Networks that targets may be in all the same: loopback, link-local, multicast and metadata "
        "addresses are refused.",
        examples=[["127.0.0.0/8"]],
    )
    deny_networks: list[Network] = Field(
        default=[], description="Networks in which no target is; goes before `allow_networks`."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.names and self.job is None and self.machines is None:
            raise ValueError("needs `job` (its answers are targets) or `machines` (they tell where machines are)")
        if not self.names and (self.job is not None or self.machines is not None or self.port is not None):
            raise ValueError("has no `names`: `job`, `machines` and `port` are about their answers")
        if not self.names and self.type == "SRV":
            raise ValueError("has no `names`: machines are asked for addresses, not for SRV")
        service = self.type in (None, "SRV") and bool(self.names)
        if self.machines == "name" and service:
            raise ValueError('asks for SRV: the machine is in the target (`machines: target`), or in PTR ("ptr")')
        if self.machines == "target" and not service:
            raise ValueError("asks for addresses, which have no target: `machines` is `name` or `ptr`")
        if self.min_ttl > self.max_ttl:
            raise ValueError("`min_ttl` is longer than `max_ttl`: raise the one or lower the other")
        return self


class StaticBackend(_Model):
    """Addresses that are written down: whole targets by job, or addresses of machines."""

    targets: dict[Name, list[Endpoint]] = Field(
        default={},
        description='Targets by job: "host:port", or "host" where the job is an exporter with a known port.',
        examples=[{"node": ["10.0.0.5:9100"]}],
    )
    machines: dict[
        StrictStr,
        Annotated[
            list[Address],
            BeforeValidator(_one_or_more, json_schema_input_type=StrictStr | list[StrictStr]),
        ],
    ] = Field(
        default={},
        description="Where machines are: an address or a name in DNS for each. It goes before what Tailscale says.",
        examples=[{"nas": "10.0.0.7"}],
    )


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
    """Conditions on tags; all that are given must hold."""

    any: list[StrictStr] = Field(default=[], description="The machine bears at least one of these.")
    all: list[StrictStr] = Field(default=[], description="The machine bears all of these.")
    none: list[StrictStr] = Field(default=[], description="The machine bears none of these.")


class Select(_Model):
    """Picks machines from the tailnet, for an exporter that no inventory declares. Phones and TVs are never meant."""

    tags: Annotated[Tags, BeforeValidator(_any_of, json_schema_input_type=list[StrictStr] | Tags)] = Field(
        default_factory=Tags, description="ACL tags, with or without `tag:`. A list means any of them."
    )
    os: list[StrictStr] = Field(
        default=[], description="Only these operating systems, as Tailscale names them.", examples=[["linux"]]
    )


class ExporterRule(_Model):
    """An exporter type: what differs from its defaults, and which machines of the tailnet have it."""

    port: Port | None = Field(default=None, description="Its port; default: the type's port in NixOS.")
    path: Annotated[StrictStr, AfterValidator(_metrics_path)] | None = Field(
        default=None, description="Its path; default: the type's, mostly /metrics."
    )
    scheme: Literal["http", "https"] = Field(default="http", description="How it is scraped.")
    params: Parameters = Field(default={}, description="URL parameters of the scrape.")
    labels: Labels = Field(default={}, description="Labels on each of its targets.", examples=[{"site": "home"}])
    offline: OfflinePolicy = Field(
        default=None, description="For machines that `select` picks; where it is absent, `policy.offline` counts."
    )

    @model_validator(mode="after")
    def _select_says_something(self) -> Self:
        if "select" in self.model_fields_set and self.select is None:
            raise ValueError("`select` says nothing: write {} for every machine of the tailnet")
        return self

    select: Select | None = Field(
        default=None,
        description="Machines of the tailnet that have it, beside those that the inventory declares.",
    )


class ShrinkAfter(_Model):
    """When a large loss is believed without `--accept-shrink`: seen unchanged for so many rounds, or for so long."""

    rounds: Annotated[int, Field(strict=True, ge=2)] | None = Field(default=10, description="Rounds; null: never.")
    time: Duration | None = Field(default=600.0, description="Time; null: never.", json_schema_extra={"default": "10m"})


_ShrinkInput: TypeAlias = _DurationText | ShrinkAfter


class Policy(_Model):
    """What is done about what is not there."""

    max_age: DurationOrNever = Field(
        default=86400.0,
        description="How long the last good answer of a backend stands in for one that fails; `never` ends that never. "
        "After it, declared machines stand at their names, and what only the backend could list goes.",
        json_schema_extra={"default": "24h"},
    )
    max_shrink: Annotated[float, Field(strict=True, ge=0, le=1)] = Field(
        default=0.5,
        description="A backend that loses more than this fraction of at least 4 machines at once is not believed "
        "until `refresh --accept-shrink`, or until `shrink_after`.",
    )
    shrink_after: Annotated[ShrinkAfter, BeforeValidator(_shrink_after, json_schema_input_type=_ShrinkInput)] = Field(
        default_factory=ShrinkAfter, description="When a loss that was not accepted is believed all the same."
    )
    offline: OfflinePolicy = Field(
        default=None,
        json_schema_extra={"default": "keep"},
        description="Whether a machine that the tailnet calls offline, or whose key has expired, stays a target: "
        "`keep` (the default), `drop`, or `{grace: 30m}` for one that comes and goes. Where nobody knows, it stays.",
    )
    offline_tags: dict[StrictStr, OfflinePolicy] = Field(
        default={},
        description="The same for machines with a tag of the inventory (or, undeclared, an ACL tag); the most patient "
        "of several counts.",
        examples=[{"roaming": {"grace": "30m"}}],
    )
    absent: Literal["keep", "drop"] = Field(
        default="keep",
        description="Whether a declared machine that no backend sees stays a target, at its name.",
    )
    darwin: Literal["exclude", "include"] = Field(
        default="exclude", description="Whether darwin machines get targets for NixOS exporters."
    )


class Output(_Model):
    """Where target files go."""

    directory: File = Field(
        default=DEFAULT_DIRECTORY,
        description="A directory of its own for `<job>.json`. Not a symlink, and not below /run: a systemd "
        "RuntimeDirectory is emptied when its unit ends. Relative to the config.",
    )
    lock_wait: Timeout = Field(
        default=5.0,
        description="How long to wait for another refresh of this directory to end.",
        json_schema_extra={"default": "5s"},
    )


class Config(_Model):
    """The config of clan-discovery."""

    inventory: InventorySource | None = Field(default=None, description="The clan inventory: which targets there are.")
    server: StrictStr | None = Field(
        default=None, description="The machine that scrapes. Default: every server of the instances."
    )
    instances: list[StrictStr] | None = Field(
        default=None,
        description="Inventory instances to read. Default: every one of the module `prometheus`.",
    )
    backends: Backends = Field(default_factory=Backends, description="Who is asked where machines are.")
    exporters: dict[Name, ExporterRule] = Field(
        default={}, description="Exporter types: settings, and rules that pick machines from the tailnet."
    )
    labels: Labels = Field(default={}, description="Labels on every target.", examples=[{"site": "home"}])
    policy: Policy = Field(default_factory=Policy, description="What is done about what is not there.")
    output: Output = Field(default_factory=Output, description="Where target files go.")
    state: File | None = Field(
        default=None,
        description="A directory for what is remembered between rounds. Default: /var/lib/clan-discovery/state, or "
        "`<output.directory>.state` where the output directory is set. Relative to the config.",
    )
