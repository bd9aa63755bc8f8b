"""The values that all packages share: frozen data without I/O.

They are msgspec structs: a cycle with 10,000 machines makes 100,000 of them, and a struct is made seven times as fast
as a frozen dataclass (ADR 0004).

A *machine* is a clan machine, an *exporter* serves metrics on one. A *backend* is asked where machines are and answers
with a *snapshot* (everything that it knows; empty means proven empty) or with an *outage* (no answer).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Final, Literal, TypeAlias, get_args
from urllib.parse import urlencode

import msgspec
from typing_extensions import override

from clan_discovery.syntax.instant import minute
from clan_discovery.syntax.secret import hide_in_urls

_LONGEST: Final = 2000
"""The longest message part, in characters: a message may quote a value of megabytes."""

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""A JSON value, read only."""

Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""A frozen, ordered string map: labels, parameters."""

MachineClass: TypeAlias = Literal["nixos", "darwin"]
DarwinPolicy: TypeAlias = Literal["exclude", "node", "include"]
Family: TypeAlias = Literal["ipv4", "ipv6", "any"]
Absent: TypeAlias = Literal["keep", "drop"]
Method: TypeAlias = Literal["none", "tailscale", "dns", "static"]
"""How a server of the service finds machines, in its own words (`discoveryMethod`)."""
Delivery: TypeAlias = Literal["pull", "push"]
"""How samples arrive: a server scrapes the target (`pull`), or the agent on its machine sends them (`push`)."""
Patience: TypeAlias = Literal["always", "roaming"]
"""Whether a machine should be up at all times, or comes and goes, as a laptop does."""

Reason: TypeAlias = Literal[
    "absent",
    "ambiguous",
    "auto_discovery_off",
    "darwin",
    "disabled",
    "foreign_tailnet",
    "funnel_ingress",
    "ignored",
    "inexpressible",
    "loopback",
    "missing_tag",
    "mullvad_exit",
    "no_address",
    "no_dns_name",
    "no_port",
    "no_such_name",
    "offline",
    "phone_or_tv",
    "probe_without_target",
    "refused_address",
    "sharee",
    "unreachable_network",
    "untrusted_name",
    "withdrawn",
]
"""Why something is not a target. Every exclusion is counted and shown."""

Severity: TypeAlias = Literal["error", "problem", "warning"]
"""`error` stops every command (exit 2); `problem` fails `check`, others report it; `warning` is only reported."""


class Problem(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A problem: where it is, what is wrong, and how to fix it."""

    where: str
    what: str
    hint: str | None = None
    severity: Severity = "error"

    @override
    def __str__(self) -> str:
        """Write it as `place: what (hint)`: one line of a bounded length, without the passwords in URLs."""
        text = _cut(self.what)
        if self.where:
            text = f"{_cut(self.where)}: {text}"
        if self.hint:
            text = f"{text} ({_cut(self.hint)})"
        return one_line(hide_in_urls(text))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


COMPUTED_TAGS: Final = frozenset({"all", "nixos", "darwin"})
"""The tags that every machine of a clan has for its class, even if the inventory names none."""


class Machine(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A clan machine: its inventory name, final tags (sorted), class, and its description for people."""

    name: str
    tags: tuple[str, ...] = ()
    machine_class: MachineClass = "nixos"
    description: str = ""


class Exporter(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something that serves metrics: the port, the path and whatever else the scrape needs.

    `type` is the NixOS exporter's name or a job name of the user's; it names the job and the file.
    """

    type: str
    port: int
    path: str = "/metrics"
    scheme: str = "http"
    params: Pairs = ()
    labels: Pairs = ()


class Expected(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An exporter that a source declares on a machine, and the words of the source that declare it.

    `instance` and `role` are those of a clan service. `host` replaces the address of the machine: a name in a network
    that the scraper shares, such as that of a Compose service. Of a pushed exporter, it is the address on the machine
    where its agent scrapes it, if that is not 127.0.0.1. `where` is the place of the declaration, such as
    `compose.yaml:12:5`; empty where it is not known.
    """

    machine: Machine
    exporter: Exporter
    instance: str = ""
    role: str = ""
    because: str
    host: str = ""
    where: str = ""
    delivery: Delivery = "pull"
    patience: Patience = "always"


class Exclusion(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Something that is not a target, and why.

    `by` is the backend, `inventory` or `config`; `job` is the exporter concerned, `group` the backend's group that says
    so.
    """

    name: str
    reason: Reason
    detail: str
    by: str
    job: str | None = None
    group: str = ""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A complete target from a file or from DNS: `host` without brackets, and what serves there.

    `labels` are the backend's own `__meta_*` labels; `located` says where the target is listed, if not in a file. A
    target that is not `observed` is listed without a known address. `group` is the backend's group that lists it.
    `dns_name` is a name that leads to `host` and nowhere else; empty where there is none.
    """

    host: str
    exporter: Exporter
    machine: str
    because: str
    backend: str
    labels: Mapping[str, str] = {}
    located: str = ""
    observed: bool = True
    group: str = ""
    dns_name: str = ""


class DnsJob(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A job that a server of the service finds in DNS: the names to look up, and the record type."""

    job: str
    names: tuple[str, ...]
    type: Literal["A", "AAAA", "SRV", "A+AAAA"] = "SRV"
    port: int | None = None


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the inventory tells a server of the service, in the service's own vocabulary.

    `discovery` are the methods, all of which are asked; if empty, or `none` alone, no backend is asked. It is None if
    the inventory does not say. `additional_scrape_configs` are carried, not read.
    """

    instance: str
    machine: str
    auto_discovery: bool = True
    discovery: tuple[Method, ...] | None = None
    static_targets: tuple[Endpoint, ...] = ()
    dns: tuple[DnsJob, ...] = ()
    additional_scrape_configs: tuple[Mapping[str, Json], ...] = ()


class DeclaredRole(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A role of a service instance, with the merged settings of each member by name."""

    instance: str
    module: str
    source: str | None
    role: str
    members: Mapping[str, Mapping[str, Json]]


class DeclaredAddress(msgspec.Struct, frozen=True, gc=False):
    """Where a source says that a machine is: an address or a name, and in words which source says so.

    `where` is the place of the declaration; empty where it is not known.
    """

    host: str
    words: str
    where: str = ""


FrontAuth: TypeAlias = Literal["none", "basic", "forward", "oidc"]
"""Who may use a front: every client (`none`), users of a file (`basic`), or users of a server (`forward`, `oidc`)."""
FRONT_AUTHS: Final[tuple[FrontAuth, ...]] = get_args(FrontAuth)
"""From open to strict."""


class Front(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A virtual host of a reverse proxy: requests for `domain` at and below `path` go to `port` of `machine`.

    `service` is the name of what is exposed. A `domain` without a dot is a name below the proxy's own domain. `host`
    replaces the address of the machine (see `Expected`). `loopback`: only a proxy on the same machine reaches the
    service, on loopback or at `host` in a network of this machine. `headers` are set on requests to the service;
    `unbuffered`: its responses are passed on without delay; `insecure`: the certificate of an https service is not
    verified. `hidden` are paths that the proxy does not pass on, those of metrics and of fronts that are left out; of a
    wildcard also domains. `address` is where the proxy connects, as `host:port`; empty until the front is resolved.
    `where` is the place of the declaration.
    """

    service: str
    domain: str
    machine: str
    port: int
    because: str
    path: str = "/"
    scheme: Literal["http", "https"] = "http"
    auth: FrontAuth = "none"
    host: str = ""
    loopback: bool = False
    headers: Pairs = ()
    unbuffered: bool = False
    insecure: bool = False
    hidden: tuple[str, ...] = ()
    address: str = ""
    where: str = ""

    @property
    def upstream(self) -> str:
        """The host where the proxy connects, without brackets."""
        return self.address.rpartition(":")[0].strip("[]")


FrontKind: TypeAlias = Literal["caddy", "nginx", "traefik"]
"""The reverse proxies that fronts are written for."""
CADDY_ADMIN_PORT: Final = 2019
"""The port of Caddy's admin API, which can replace its whole config: it must not be exposed for its metrics."""


class ForwardAuth(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A server that is asked about each request; `headers` of its answer are passed to the service.

    `login` is where nginx sends a browser that is not logged in; empty: where the server's answer says.
    """

    url: str
    headers: tuple[str, ...] = ()
    login: str = ""


ReceiverKind: TypeAlias = Literal["nginx", "vmauth"]
"""The programs that receive what agents send."""
LogStoreKind: TypeAlias = Literal["victorialogs", "loki"]
"""The stores of logs that a receiver writes to."""


class ReceiveLimits(msgspec.Struct, frozen=True, gc=False):
    """What one machine may send: requests a second, how many more wait, bytes of a request, and requests at a time."""

    requests: int = 20
    burst: int = 200
    body: int = 32 * 1024 * 1024
    connections: int = 8


class ReceiveSettings(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How the front receives what agents send: the `domain` of nginx, and the URLs of stores; empty: there is none."""

    kind: ReceiverKind
    domain: str = ""
    metrics: str = ""
    logs: str = ""
    logs_kind: LogStoreKind = "victorialogs"
    limits: ReceiveLimits = ReceiveLimits()


StorageEngine: TypeAlias = Literal["victoriametrics", "victoriametrics-cluster", "thanos", "remote-write"]
"""What stores samples: single-node VictoriaMetrics, its cluster, Thanos receivers, or any receiver of remote writes."""
StorageMode: TypeAlias = Literal["replicate", "shard"]
"""Whether each node gets every sample, or vmagent shards the series among the nodes."""


class StorageNode(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A node that stores samples: `port` takes writes, `read_port` answers queries.

    `host` is its address, without brackets; where the config gives none, it is empty until the node is resolved. `url`
    replaces all of that for a node that only has a URL.
    """

    name: str
    port: int
    read_port: int
    host: str = ""
    url: str = ""


class Storage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where servers store samples: the nodes in the order of the lists that programs get, and how they are written to.

    `replicas` is the number of copies of each sample. `server` is the name of this server, which its HA label has;
    empty where it is not known. `is_scraped_twice`: several servers scrape a target. `cluster` is Mimir's label for the
    servers of an HA pair; empty without Mimir. Of the samples of a series within `dedup` milliseconds, VictoriaMetrics
    keeps one. `write_url` is where servers write if they do not write to the nodes themselves.
    """

    engine: StorageEngine
    nodes: tuple[StorageNode, ...]
    replicas: int
    mode: StorageMode = "replicate"
    server: str = ""
    is_scraped_twice: bool = False
    cluster: str = ""
    dedup: int = 1
    write_url: str = ""


class AgentToken(msgspec.Struct, frozen=True, gc=False, order=True):
    """A bearer token, and the machine whose name it forces."""

    machine: str
    token: str

    @override
    def __repr__(self) -> str:
        return f"AgentToken({self.machine!r}, ***)"


class FrontSettings(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a reverse proxy serves fronts.

    `machine` is where it runs. `domain` completes the domains without a dot. `tls` is `files` if there are a
    `certificate` and a `key`. `basic` is a file of users and hashes, `oidc` the URL of oauth2-proxy; empty where there
    is none. `metrics` is the `host:port` of the proxy's own metrics. `resolvers` are the DNS servers that nginx asks.
    `ca` verifies services that speak https. `entry_point` and `cert_resolver` are names in Traefik's own config.
    `refuses_unknown`: requests for other hosts are refused. `own_domains` are in its own config. `file` is written by
    `refresh`; empty: no file is. `receive` says how it receives what agents send; None: it does not.
    """

    kind: FrontKind
    machine: str = ""
    domain: str = ""
    tls: Literal["off", "internal", "acme", "files"] = "off"
    certificate: str = ""
    key: str = ""
    basic: str = ""
    forward: ForwardAuth | None = None
    oidc: str = ""
    listen: tuple[str, ...] = ()
    http_port: int = 80
    https_port: int = 443
    metrics: str = ""
    resolvers: tuple[str, ...] = ()
    ca: str = ""
    entry_point: str = ""
    cert_resolver: str = ""
    refuses_unknown: bool = True
    own_domains: tuple[str, ...] = ()
    file: str = ""
    receive: ReceiveSettings | None = None

    def gives(self, auth: FrontAuth) -> bool:
        """Tell whether the proxy can demand this authentication."""
        match auth:
            case "none":
                return True
            case "basic":
                return bool(self.basic)
            case "forward":
                return self.forward is not None
            case "oidc":
                return bool(self.oidc)


class DeclaredService(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A service that a source declares on a machine: what it depends on, and how its health is checked.

    `depends_on` are names of services. `units` are systemd units that must be active, `probes` URLs that must answer
    with success, as seen from the machine. `where` is the place of the declaration.
    """

    name: str
    machine: str
    because: str
    depends_on: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    where: str = ""


class PublishedMetrics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A port with metrics that a container publishes on its machine, not only on loopback; `ip` is empty for all."""

    service: str
    machine: str
    port: int
    ip: str = ""
    where: str = ""


def dependencies(services: Iterable[DeclaredService]) -> Iterator[tuple[DeclaredService, DeclaredService]]:
    """Yield each service that depends on another, with that one.

    A name means the service of this name on the same machine; without one there, those on other machines.
    """
    services = tuple(services)
    by_name: dict[str, dict[str, DeclaredService]] = {}
    for service in services:
        by_name.setdefault(service.name, {})[service.machine] = service
    for service in services:
        for name in service.depends_on:
            there = by_name.get(name, {})
            if service.machine in there:
                yield service, there[service.machine]
            else:
                yield from ((service, other) for other in there.values())


EVERY_MACHINE: Final = "*"


class MachineLimit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A limit that an alert rule has for a machine instead of its default (data/limits.json).

    The machine `*` means every machine without a limit of this name.
    """

    machine: str
    name: str
    value: float
    because: str


class MachineUnit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A systemd unit that must be active on a machine."""

    machine: str
    unit: str
    because: str


class MachineNeed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A machine that does not work without the machine `on`. `where` is the place of the declaration."""

    machine: str
    on: str
    because: str
    where: str = ""


class Declared(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything that a source declares: machines, exporters, servers, services, fronts, and the problems found.

    `addresses` are the declared addresses of machines, by machine name: used while no backend sees the machine. Without
    any address, a machine is at its name in `domain`, or at its bare name.
    `endpoints` are complete targets that the source lists; they need not be on a machine of it. `refused` are fronts
    that it leaves out: no other front takes their requests. `agents` are the machines that send the metrics of their
    exporters themselves, sorted. `limits`, `units` and `needs` are what alert rules read of machines. `published` are
    ports with metrics that other machines reach past the scraper's network.
    """

    machines: tuple[Machine, ...] = ()
    expected: tuple[Expected, ...] = ()
    servers: tuple[ServerSettings, ...] = ()
    excluded: tuple[Exclusion, ...] = ()
    problems: tuple[Problem, ...] = ()
    domain: str = ""
    roles: tuple[DeclaredRole, ...] = ()
    addresses: Mapping[str, DeclaredAddress] = {}
    fronts: tuple[Front, ...] = ()
    services: tuple[DeclaredService, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    refused: tuple[Front, ...] = ()
    agents: tuple[str, ...] = ()
    limits: tuple[MachineLimit, ...] = ()
    units: tuple[MachineUnit, ...] = ()
    needs: tuple[MachineNeed, ...] = ()
    published: tuple[PublishedMetrics, ...] = ()


class Node(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A machine as one backend sees it.

    `addresses` are already of the configured family, best first; empty means seen, but nowhere reachable. `note` says
    why, or, for a node with addresses, by which name it was found. `labels` are the backend's own `__meta_*` labels.
    `online` is None where it is unknown. `alias` is the name that the node gives itself, where that is another one: it
    is not trusted. `expired`: its key has expired. `group` is the backend's group that knows it. `dns_name` is a name
    that leads to its addresses and nowhere else; empty where there is none, or where it is the name below the
    snapshot's suffix.
    """

    name: str
    addresses: tuple[str, ...]
    tags: tuple[str, ...] = ()
    os: str = ""
    online: bool | None = None
    id: str = ""
    labels: Mapping[str, str] = {}
    note: str = ""
    alias: str = ""
    expired: bool = False
    group: str = ""
    dns_name: str = ""


class Failure(msgspec.Struct, frozen=True, gc=False):
    """A lookup that failed: the name that was asked for, and why it failed.

    `machine` is the machine whose address is unknown because of it; `*` means any unseen machine, empty means none.
    `age` is the age of the last good answer that is used instead, in seconds; None where there is none.
    """

    name: str
    reason: str
    machine: str = ""
    age: float | None = None


class Group(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A part of a backend that is answered or fails by itself: a tailnet, or one list in DNS.

    `job` is the job that the group lists targets for; empty where it only says where machines are.
    """

    failures: tuple[Failure, ...] = ()
    job: str = ""

    @property
    def state(self) -> Literal["answered", "kept", "failed"]:
        """Return the state of the group's answer.

        `kept`: lookups failed, and their last good answers are used. `failed`: at least one has no last good answer.
        """
        if not self.failures:
            return "answered"
        if any(failure.age is None for failure in self.failures):
            return "failed"
        return "kept"

    @property
    def unknown_machines(self) -> frozenset[str]:
        """Return the machines that are unknown here because of failures, case-folded; `*` means any machine."""
        return frozenset(failure.machine.casefold() for failure in self.failures if failure.machine)


WHOLE: Final[Mapping[str, Group]] = {"": Group()}
"""The groups of a backend that answers as a whole."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Everything that one backend knows now. No nodes and no endpoints: proven to have none.

    `groups` are the parts that are asked by themselves, by name. A backend that answers as a whole has one, named "".
    """

    backend: str
    nodes: tuple[Node, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    excluded: tuple[Exclusion, ...] = ()
    suffix: str | None = None
    groups: Mapping[str, Group] = msgspec.field(default_factory=lambda: WHOLE)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Return the failed lookups of all groups, one for each name, sorted by name.

        Where groups tell different ages for one name, the oldest counts, and no answer at all counts before any age.
        """
        found: dict[str, Failure] = {}
        for group in self.groups.values():
            for failure in group.failures:
                known = found.get(failure.name)
                if known is None or _is_worse(failure, known):
                    found[failure.name] = failure
        return tuple(found[name] for name in sorted(found))


def _is_worse(failure: Failure, known: Failure) -> bool:
    if known.age is None:
        return bool(failure.age is None and failure.machine and not known.machine)
    return failure.age is None or failure.age > known.age


class Outage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The backend was asked and did not answer. An outage says nothing about the machines.

    `last` is the last good answer from the backend's own memory, `age` its age in seconds; None if it has none.
    """

    backend: str
    reason: str
    hint: str | None = None
    last: Snapshot | None = None
    age: float = 0.0


Answer: TypeAlias = Snapshot | Outage


class BeliefState(StrEnum):
    """The state of the belief about a backend after a refresh cycle.

    `fresh`: it answered. `partial`: some lookups failed; their last good answers are used. `kept`: it did not answer;
    its last good answer is used. `held`: it answered, but lost so much that the old answer is used. `expired`: the last
    good answer is too old to be used. `unknown`: it did not answer, and there is no last good answer.
    """

    FRESH = "fresh"
    PARTIAL = "partial"
    KEPT = "kept"
    HELD = "held"
    EXPIRED = "expired"
    UNKNOWN = "unknown"

    @property
    def answered(self) -> bool:
        """Tell whether the backend answered in this cycle."""
        return self in (BeliefState.FRESH, BeliefState.PARTIAL, BeliefState.HELD)

    @property
    def degraded(self) -> bool:
        """Tell whether something failed (exit code 3)."""
        return self not in (BeliefState.FRESH, BeliefState.HELD)


class Belief(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The belief about one backend after a refresh cycle, and the reason.

    `snapshot` is what is used, `age` its age in seconds. `offline` says for how many seconds nodes are offline, by
    name. `locates`: the backend says where machines are; one that does not only lists targets.
    """

    backend: str
    state: BeliefState
    snapshot: Snapshot | None
    why: str = ""
    hint: str | None = None
    age: float = 0.0
    offline: Mapping[str, float] = {}
    locates: bool = True


class Frozen(msgspec.Struct, frozen=True, gc=False):
    """A job whose present file is kept, because a backend did not answer and its memory is lost.

    `since` is when that began, `until` when it ends at the latest (None: not by time), in seconds since the epoch.
    `why` says which backend, and what it lacks.
    """

    job: str
    backend: str
    since: float
    until: float | None
    why: str

    @property
    def limit(self) -> str:
        """Say until when the file is kept; empty if there is no time limit."""
        if self.until is None:
            return ""
        return f" until {minute(self.until)} at the latest"


Offline: TypeAlias = float | None
"""How many seconds a machine may be offline and stay a target. None: no limit; 0: not at all."""


class SelectRule(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Picks machines from the fleet by the backend's tags and by OS (all of the conditions that are given).

    Only machines that one of `backends` sees are picked, at the address that it gives; one that a list of the config
    (`lists`) gives comes first. `by_default`: the config does not name the backends.
    """

    exporter: Exporter
    backends: frozenset[str]
    by_default: bool = False
    lists: frozenset[str] = frozenset()
    tags_any: frozenset[str] = frozenset()
    tags_all: frozenset[str] = frozenset()
    tags_none: frozenset[str] = frozenset()
    os: frozenset[str] = frozenset()
    offline: Offline = None


class Target(msgspec.Struct, frozen=True, gc=False):
    """One target of one job, with its published labels and the reasons for it.

    `asked`: a backend is asked where the target is; if not, it is at its declared address or name. `where` is the place
    of its declaration; empty where it is not known. The `address` of a pushed target is on loopback of its machine.
    `servers` are the members of the shard that publish it, in the order of their case-folded names; empty: every server
    does.
    """

    job: str
    machine: str
    address: str
    labels: Mapping[str, str]
    observed: bool
    backend: str | None
    because: str
    located: str
    online: bool | None = None
    expired: bool = False
    asked: bool = True
    where: str = ""
    delivery: Delivery = "pull"
    patience: Patience = "always"
    servers: tuple[str, ...] = ()

    @property
    def scheme(self) -> str:
        """The scheme of the scrape."""
        return self.labels.get("__scheme__", "http")

    @property
    def path(self) -> str:
        """The path of the metrics."""
        return self.labels.get("__metrics_path__", "/metrics")

    @property
    def params(self) -> dict[str, str]:
        """The URL parameters of the scrape."""
        prefix = "__param_"
        return {name.removeprefix(prefix): value for name, value in self.labels.items() if name.startswith(prefix)}

    @property
    def path_and_query(self) -> str:
        """The path with the parameters, as it is requested."""
        if not self.params:
            return self.path
        return f"{self.path}?{urlencode(self.params)}"


State: TypeAlias = Literal[
    "seen", "pushed", "declared", "kept", "held", "offline", "expired", "missing", "refused", "unknown"
]
"""The state of a target, from good to bad."""
StateOfMachine: TypeAlias = State | Literal["excluded", "stray"]
"""The worst state of a machine's targets, or why it has none."""


class Missing(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A declared machine with exporters that no backend sees, and the similar names that backends see."""

    machine: str
    jobs: tuple[str, ...]
    similar: tuple[str, ...] = ()


class Unselected(msgspec.Struct, frozen=True, gc=False):
    """Machines that a rule without `backends` does not pick, because only non-default backends see them."""

    machines: tuple[str, ...]
    problem: Problem


class Stray(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A machine that a backend sees and that neither the inventory declares nor a rule picks.

    `alias` is the declared machine whose name is the node's own hostname, if any: perhaps it was renamed or registered
    again.
    """

    name: str
    backend: str
    tags: tuple[str, ...] = ()
    alias: str = ""


class Ambiguous(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A name that several nodes of one backend claim: none of them gets it."""

    name: str
    backend: str
    claims: tuple[str, ...]


ShardState: TypeAlias = Literal["active", "joining", "leaving"]
"""Whether a member counts for all others (`active`), or publishes its share beside theirs while it comes or goes."""


LEAST_WEIGHT: Final = 0.001
MOST_WEIGHT: Final = 1000.0
"""Scores are divided by weights: with much smaller or larger ones, they would be rounded to equal numbers."""


class ShardMember(msgspec.Struct, frozen=True, gc=False):
    """A server that publishes a share of the targets, in proportion to its weight."""

    name: str
    weight: float = 1.0
    state: ShardState = "active"


class Shard(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The servers that share the targets, and which of them this one is.

    `member` is the name of this one, spelled as in `members`. Each target is published by `replicas` of the active
    members. Every member publishes all targets of the jobs in `unshared`.
    """

    member: str
    members: tuple[ShardMember, ...]
    replicas: int = 1
    unshared: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that are the same on servers with the same members and settings."""
        members = sorted([member.name.casefold(), float(member.weight), member.state] for member in self.members)
        settings = msgspec.json.encode([members, self.replicas, sorted(self.unshared)])
        return blake2b(settings, digest_size=4).hexdigest()


class Resolution(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The outcome of a refresh cycle: the targets, and what is not a target, each with its reason.

    `targets` are scraped by the servers, `published` of them by this one; `shard` says how they are shared. `pushed`
    are those that the agents on their machines scrape and send: they are in no target file. `jobs` are all jobs of
    `targets`, also those without a target now. `unknown` are declared machines that may or may not be missing, because
    a backend or a lookup failed. `expired` are those whose key has expired. `frozen` are the jobs whose present file is
    served instead of the targets here. `problems` has those of `unselected`, too. `aliases` maps other names of
    declared machines, case-folded, to these machines. `front_kept` says why the present file of the reverse proxy is
    kept; empty if it is written. `machines` are those that the sources declare; `limits`, `units` and `needs` are what
    alert rules read of them. `storage` says where servers store samples.
    """

    jobs: tuple[str, ...]
    targets: tuple[Target, ...]
    missing: tuple[Missing, ...]
    unknown: tuple[str, ...]
    stray: tuple[Stray, ...]
    ambiguous: tuple[Ambiguous, ...]
    excluded: tuple[Exclusion, ...]
    beliefs: tuple[Belief, ...]
    problems: tuple[Problem, ...]
    additional_scrape_configs: tuple[Mapping[str, Json], ...]
    taken_at: datetime
    expired: tuple[str, ...] = ()
    frozen: tuple[Frozen, ...] = ()
    unselected: tuple[Unselected, ...] = ()
    aliases: Mapping[str, str] = {}
    fronts: tuple[Front, ...] = ()
    front_kept: str = ""
    services: tuple[DeclaredService, ...] = ()
    pushed: tuple[Target, ...] = ()
    machines: tuple[Machine, ...] = ()
    limits: tuple[MachineLimit, ...] = ()
    units: tuple[MachineUnit, ...] = ()
    needs: tuple[MachineNeed, ...] = ()
    shard: Shard | None = None
    storage: Storage | None = None

    @property
    def published(self) -> tuple[Target, ...]:
        """The targets that this server publishes: all of them, or its own share."""
        if self.shard is None:
            return self.targets
        member = self.shard.member
        return tuple([target for target in self.targets if not target.servers or member in target.servers])

    @property
    def all_targets(self) -> tuple[Target, ...]:
        """The targets of the server and the pushed ones, sorted by job and instance."""
        if not self.pushed:
            return self.targets
        return tuple(sorted((*self.targets, *self.pushed), key=lambda target: (target.job, target.labels["instance"])))


class Verdict(StrEnum):
    """What a running scraper does with an expected target (DESIGN 4.5).

    `up`: scraped with success. `down`: the scrape fails. `pending`: known to the scraper, not scraped yet. `not_read`:
    the job is not in its config, or it has not read the target file. `dropped`: a relabel rule drops the target.
    `elsewhere`: the scraper has another address for it. `duplicate`: scraped more than once. `wrong_machine`: the
    machine that answers calls itself otherwise. `empty`: scraped with success, without samples. `unknown`: the scraper
    could not be asked.
    """

    UP = "up"
    DOWN = "down"
    PENDING = "pending"
    NOT_READ = "not_read"
    DROPPED = "dropped"
    ELSEWHERE = "elsewhere"
    DUPLICATE = "duplicate"
    WRONG_MACHINE = "wrong_machine"
    EMPTY = "empty"
    UNKNOWN = "unknown"

    @property
    def is_finding(self) -> bool:
        """Tell whether something must be fixed (exit code 1)."""
        return self not in (Verdict.UP, Verdict.PENDING, Verdict.UNKNOWN)


WORST_FIRST: Final = (
    Verdict.WRONG_MACHINE,
    Verdict.DOWN,
    Verdict.NOT_READ,
    Verdict.DROPPED,
    Verdict.ELSEWHERE,
    Verdict.DUPLICATE,
    Verdict.EMPTY,
    Verdict.UNKNOWN,
    Verdict.PENDING,
    Verdict.UP,
)
"""The verdicts, the worst first: in the table, on the status page, and if scrapers do different things."""


class Verified(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The verdict on one expected target, with its reason and a fix that can be typed.

    `scraper` is the name of the scraper that the verdict is about, as `verify.scrapers` names it.
    """

    job: str
    machine: str
    instance: str
    address: str
    verdict: Verdict
    reason: str = ""
    fix: str = ""
    scraper: str = ""


class Ghost(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A target that a scraper scrapes in one of our jobs, and that is declared nowhere."""

    scraper: str
    job: str
    instance: str
    address: str
    reason: str = ""
    fix: str = ""


class Program(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A running program that `verify` asked: the scrapers, those that evaluate rules, our own listener, Alertmanager.

    `kind` is the program's name in lower case, such as `prometheus` or `vmagent`; empty where it is not known. `reason`
    says why it could not be asked or is not ready (then `ok` is false).
    """

    name: str
    url: str
    kind: str = ""
    version: str = ""
    ok: bool = True
    reason: str = ""
    fix: str = ""


class UnloadedRules(Program, frozen=True, kw_only=True, gc=False):
    """A program of `verify.rules` that answered, and has not loaded a rule of its files: a finding (exit code 1)."""


class Verification(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The result of `verify`: a verdict for each expected target, the ghosts, and the programs that were asked.

    `at` is when they were asked, in seconds since the epoch. `other_shards` counts expected targets that relabel rules
    or the shard leave to scrapers that were not asked; they have no verdict. With a shard, `copies` has one number for
    each of `targets`: how many of its members scrape the target, None if it is not shared.
    """

    at: float
    targets: tuple[Verified, ...] = ()
    ghosts: tuple[Ghost, ...] = ()
    asked: tuple[Program, ...] = ()
    other_shards: int = 0
    copies: tuple[int | None, ...] = ()


class ChangeRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What changed in a refresh cycle: of a target, or of a machine (then `job` and `instance` are empty).

    `old` and `new` are addresses, or instances of a `renamed` target. Of a machine, `old` is its former state, and
    `new` is the node whose hostname is the name of a `renamed` one. `at` is in seconds since the epoch.
    """

    at: int
    what: Literal["added", "removed", "moved", "renamed", "missing", "offline", "expired", "back"]
    machine: str
    job: str = ""
    instance: str = ""
    old: str = ""
    new: str = ""
    backend: str = ""

    @property
    def is_of_machine(self) -> bool:
        """Tell whether the state of a machine changed, not a target."""
        return not self.job

    @property
    def sign(self) -> str:
        """Return `+`, `-` or `~` for a target, `!` for a machine."""
        if self.is_of_machine:
            return "!"
        return {"added": "+", "removed": "-"}.get(self.what, "~")

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of machines that the change is about."""
        if self.what == "renamed":
            return self.machine, self.old, self.new
        return (self.machine,)


class Since(msgspec.Struct, frozen=True, gc=False):
    """When a target got its present address, in seconds since the epoch; if not `is_exact`, then or earlier."""

    at: int
    is_exact: bool


class ExplainedTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A target: its state and the reason, how it is scraped, and what would remove it.

    `servers` are the members of the shard that publish it (empty: every server does); `servers_because` says why, and
    is empty without a shard.
    """

    job: str
    instance: str
    address: str
    state: State
    state_detail: str
    state_since: datetime | None
    located: str
    backend: str | None
    because: str
    scheme: str
    port: int
    path: str
    params: Mapping[str, str]
    url: str
    until: datetime | None
    dropped: tuple[str, ...]
    not_written: str | None
    there_since: datetime | None
    there_since_is_exact: bool
    where: str = ""
    delivery: Delivery = "pull"
    patience: Patience = "always"
    servers: tuple[str, ...] = ()
    servers_because: str = ""


class ExplainedService(msgspec.Struct, frozen=True, kw_only=True):
    """A declared service: see `DeclaredService`. `needed_by` are the names of services that depend on it."""

    name: str
    because: str
    where: str
    depends_on: tuple[str, ...]
    needed_by: tuple[str, ...]
    units: tuple[str, ...]
    probes: tuple[str, ...]


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """What the sources say of a machine; `address` is None where none declares one."""

    machine_class: MachineClass
    tags: tuple[str, ...]
    address: DeclaredAddress | None = None
    description: str = ""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one machine or node; `asked` is the word by which it was found.

    Found by a service or a domain, it has only what belongs to that service. `limits` has those of the machine, and the
    defaults of the config for the others. `needed_by` are the machines that need this one.
    """

    asked: str
    name: str
    declared: Declaration | None
    notes: tuple[str, ...]
    targets: tuple[ExplainedTarget, ...]
    excluded: tuple[Exclusion, ...]
    services: tuple[ExplainedService, ...] = ()
    fronts: tuple[Front, ...] = ()
    limits: tuple[MachineLimit, ...] = ()
    units: tuple[MachineUnit, ...] = ()
    needs: tuple[MachineNeed, ...] = ()
    needed_by: tuple[str, ...] = ()


class TargetStatus(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One target on the status page.

    `backend` gave the address; empty if none did. `verdict` is None where the scraper was not asked about it; `reason`,
    `fix` and `scraper` belong to the verdict.
    """

    job: str
    instance: str
    address: str
    state: State
    backend: str = ""
    verdict: Verdict | None = None
    reason: str = ""
    fix: str = ""
    scraper: str = ""


class MachineStatus(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One machine on the status page: the worst state of its targets, or `excluded` or `stray`.

    `reason` says why it is in that state, unless a backend sees it. `since` is when its state or an address last
    changed.
    """

    name: str
    state: StateOfMachine
    declared: bool
    targets: tuple[TargetStatus, ...] = ()
    reason: str = ""
    since: Since | None = None


Urgency: TypeAlias = Literal["error", "warning"]
"""How bad it is: with an error, something is not monitored as it should be."""


class Item(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing that needs attention: what it is about, what is wrong, and a fix that can be typed.

    `machine` is the machine that it is about; empty if it is not about one. `count` is the number of things that have
    this cause.
    """

    about: str
    what: str
    fix: str = ""
    machine: str = ""
    count: int = 1


class Attention(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The things of one kind that need attention. `items` are the first of `total`.

    `kind` is a state, a verdict, or another word. `filter` lists the machines concerned, if they can be listed: `state`
    or `verdict`, and its value.
    """

    kind: str
    level: Urgency
    title: str
    items: tuple[Item, ...]
    total: int
    filter: tuple[str, str] | None = None


class FleetStatus(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The status of all machines. `at` and `verified_at` are in seconds since the epoch; None: not verified.

    `machines` makes a row when it is read. `states` and `verdicts` count the machines that have at least one target in
    the state or with the verdict.
    """

    at: float
    verified_at: float | None
    machines: Sequence[MachineStatus]
    attention: tuple[Attention, ...]
    jobs: tuple[str, ...]
    targets: int
    states: Mapping[str, int]
    verdicts: Mapping[str, int]


class Link(msgspec.Struct, frozen=True, gc=False):
    """A link to another program: a scraper's page, or a dashboard."""

    title: str
    url: str


class MachineDetail(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything that is known of one machine: its status, `explain`, its changes (newest first) and links.

    `scrapes` are the links to the pages of scrapers, by job.
    """

    status: MachineStatus
    explanation: Explanation
    changes: tuple[ChangeRecord, ...]
    links: tuple[Link, ...]
    scrapes: Mapping[str, tuple[Link, ...]]


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """Totals since the state was made; `down` are the backends with an outage now."""

    rounds: int = 0
    unchanged: int = 0
    writes: int = 0
    failures: int = 0
    front_writes: int = 0
    outages: dict[str, int] = {}
    down: tuple[str, ...] = ()


class InputStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the last attempt to read an input succeeded, and when the last success was (seconds since the epoch)."""

    ok: bool
    succeeded_at: float | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The data of the metrics: the newest cycle and the totals.

    `answered_at` says when each backend's last good answer came (seconds since the epoch), `durations` how many seconds
    the newest answer took. `config` and `inventory` say whether they could be read. `relabel` has the `relabel_configs`
    of each job that has any, `shared_targets` a hash of the targets that servers share. Of `run`: how many cycles
    failed since it began, how the evaluation of its flake goes, if there is one, and what the scrapers do with the
    targets, if it asks them every `verify_interval` seconds.
    """

    resolution: Resolution
    answered_at: Mapping[str, float]
    durations: Mapping[str, float]
    counters: Counters
    declared: int
    version: str
    now: float
    config: InputStatus
    inventory: InputStatus
    relabel: Mapping[str, Json] = {}
    shared_targets: str = ""
    failed_cycles: int = 0
    flake: InputStatus | None = None
    verification: Verification | None = None
    verify_interval: float | None = None


def one_line(text: str) -> str:
    """Make text safe for one line of a terminal or a log: escape control characters and surrogates.

    The nodes of a tailnet choose their own names. An escape sequence in a name must not reach a terminal.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def placed(words: str, where: str) -> str:
    """Return the words of a source, with the place of the declaration if it is known."""
    if not where:
        return words
    return f"{words} ({where})"


def span(seconds: float) -> str:
    """Write a time span in the largest unit that fits at least twice."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
