"""The values that every room shares: frozen, and nothing but data. No I/O.

They are msgspec's structs because a round at ten thousand machines makes a hundred thousand of them, and a struct is
made seven times as fast as a frozen dataclass (ADR 0004).

Words are those of DESIGN: a *machine* is a clan machine, an *exporter* serves metrics on one, a *backend* is
asked where machines are and answers with a *snapshot* (everything that it knows; empty means proven empty) or an
*outage* (it could not find out). There is no third kind of answer, and the two are never confused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, TypeAlias

import msgspec
from typing_extensions import override

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""A JSON value, read only."""

Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""A frozen, ordered string map: labels, parameters."""

MachineClass: TypeAlias = Literal["nixos", "darwin"]
Family: TypeAlias = Literal["ipv4", "ipv6", "any"]
Absent: TypeAlias = Literal["keep", "drop"]
RecordType: TypeAlias = Literal["A", "AAAA", "SRV", "PTR", "TXT"]
Method: TypeAlias = Literal["none", "tailscale", "dns", "static"]
"""How a server of the service finds machines, in its own words (`discoveryMethod`)."""

Reason: TypeAlias = Literal[
    "absent",
    "ambiguous",
    "auto_discovery_off",
    "darwin",
    "disabled",
    "foreign_tailnet",
    "funnel_ingress",
    "inexpressible",
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
    "withdrawn",
]
"""Why something is no target. Each is counted, shown and never silent."""

Severity: TypeAlias = Literal["error", "problem", "warning"]
"""`error` stops every command (exit 2); `problem` fails `check` and is reported by the rest; `warning` is told."""


class Problem(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One complaint: where it is, what is wrong, how it is mended."""

    where: str
    what: str
    hint: str | None = None
    severity: Severity = "error"

    @override
    def __str__(self) -> str:
        """Write it as `place: what (hint)`, one line whatever the parts hold."""
        text = f"{self.where}: {self.what}" if self.where else self.what
        return one_line(f"{text} ({self.hint})" if self.hint else text)


class Machine(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A clan machine: its inventory name, final tags (sorted) and class."""

    name: str
    tags: tuple[str, ...] = ()
    machine_class: MachineClass = "nixos"


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
    """An exporter that the inventory declares on a machine, and the words of the inventory that declare it."""

    machine: Machine
    exporter: Exporter
    instance: str
    role: str
    because: str


class Exclusion(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something that is no target, and why. `by` is the backend or `inventory`, `job` the exporter concerned."""

    name: str
    reason: Reason
    detail: str
    by: str
    job: str | None = None


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A target that somebody wrote down whole, in a file or in DNS: `host` without brackets, and what serves there.

    `labels` are the backend's own `__meta_*` labels, `located` says where it is written, if not in a file. One that is
    not `observed` is listed, and no address of it is known.
    """

    host: str
    exporter: Exporter
    machine: str
    because: str
    backend: str
    labels: Mapping[str, str] = {}
    located: str = ""
    observed: bool = True


class DnsJob(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a server of the service finds in DNS: a job, the names that list it, and what they are asked for."""

    job: str
    names: tuple[str, ...]
    type: Literal["A", "AAAA", "SRV", "A+AAAA"] = "SRV"
    port: int | None = None


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the inventory tells a server of the service, in the service's own vocabulary.

    `discovery` are the methods, all of which are asked; none of them, or `none` alone: nobody is. It is None where the
    inventory does not say. `additional_scrape_configs` are carried, not read.
    """

    instance: str
    machine: str
    auto_discovery: bool = True
    discovery: tuple[Method, ...] | None = None
    static_targets: tuple[Endpoint, ...] = ()
    dns: tuple[DnsJob, ...] = ()
    additional_scrape_configs: tuple[Mapping[str, Json], ...] = ()


class DeclaredRole(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A role of an instance of the service, with the merged settings of each member by name."""

    instance: str
    module: str
    source: str | None
    role: str
    members: Mapping[str, Mapping[str, Json]]


class Home(msgspec.Struct, frozen=True, gc=False):
    """Where a machine is by the clan's own word: an address or a name, and where that is said. Nobody saw it there."""

    host: str
    words: str


class Declared(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What an inventory says, whole: the machines, what runs on them, who scrapes, and what is wrong with it.

    `homes` are where machines stand while nobody sees them, by name; one without stands at its name.
    """

    machines: tuple[Machine, ...] = ()
    expected: tuple[Expected, ...] = ()
    servers: tuple[ServerSettings, ...] = ()
    excluded: tuple[Exclusion, ...] = ()
    problems: tuple[Problem, ...] = ()
    domain: str = "clan"
    roles: tuple[DeclaredRole, ...] = ()
    homes: Mapping[str, Home] = {}


class Node(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A machine as one backend sees it.

    `addresses` are already of the wanted family, best first; empty means seen, but nowhere reachable. `note` says why,
    or, of a node with addresses, by which name it was found. `labels` are the backend's own `__meta_*` labels. `online`
    is None where nobody knows. `alias` is what it calls itself, where that is another name: nobody vouches for it.
    `expired`: its key there has expired.
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


class DnsAnswer(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What DNS said of a name and a type: at which time, and until when that holds (seconds since the epoch).

    `records` as text: an address, a name, `priority weight port target`, a TXT record's `path`. `absent` is NXDOMAIN
    or NODATA where there are none, and that is proven. `hosting`: it was asked as the host of a service, or came along
    with one, and counts for services alone.
    """

    name: str
    type: RecordType
    at: float
    until: float
    records: tuple[str, ...] = ()
    absent: str = ""
    hosting: bool = False


class Unanswered(msgspec.Struct, frozen=True, gc=False):
    """A name of which a backend could not find out, and of which `machine` it would be the address.

    Empty: of none; `*`: of any that the backend does not see. `age` is how old the answer is that stands for it, in
    seconds (0: as it stands in the published files); None where there is none.
    """

    name: str
    reason: str
    machine: str = ""
    age: float | None = None


class DnsList(NamedTuple):
    """What a name in DNS is asked for: a job (empty: only where machines are), as services or as addresses."""

    job: str
    name: str
    service: bool


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Everything that one backend knows now. No nodes and no endpoints: proven to have none.

    A backend that asks for many names finds out for each alone: `answers` are what it was told and until when that
    holds, `unanswered` the names of which it could not find out, `due` when the next of them is to be asked (seconds
    since the epoch; None: nobody says). `jobs` are the jobs that it lists, also those of which it lists nothing now.
    `silent`: nothing that was asked this time was answered, and what stands here is remembered. `asked` are the lists
    that it consists of, and `found` those of which everything could be found out: a loss is one of these (None: of
    everything). Each is a `DnsList`.
    """

    backend: str
    nodes: tuple[Node, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    excluded: tuple[Exclusion, ...] = ()
    suffix: str | None = None
    answers: tuple[DnsAnswer, ...] = ()
    unanswered: tuple[Unanswered, ...] = ()
    due: float | None = None
    jobs: tuple[str, ...] = ()
    silent: bool = False
    asked: frozenset[DnsList] | None = None
    found: frozenset[DnsList] | None = None


class Outage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The backend was asked and could not find out: says nothing about any machine."""

    backend: str
    reason: str
    hint: str | None = None


Outcome: TypeAlias = Snapshot | Outage


class Belief(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is believed of one backend after a round, and how that came about.

    `fresh` it answered; `partial` it could not find out of some names, whose last good answers stand; `kept` it did
    not, its last good answer stands (`age` seconds old); `held` it answered, but lost so much that the old answer
    stands; `expired` the last good answer is too old to stand; `unknown` it never answered. It `locates` machines, or
    only lists targets.
    """

    backend: str
    state: Literal["fresh", "partial", "kept", "held", "expired", "unknown"]
    snapshot: Snapshot | None
    why: str = ""
    hint: str | None = None
    age: float = 0.0
    offline: Mapping[str, float] = {}
    locates: bool = True


Offline: TypeAlias = float | None
"""For how many seconds a machine may be offline before it is no target: None for ever, 0 not at all."""


class SelectRule(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Picks machines from the fleet by the backend's tags and by OS (all of the conditions that are given)."""

    exporter: Exporter
    tags_any: frozenset[str] = frozenset()
    tags_all: frozenset[str] = frozenset()
    tags_none: frozenset[str] = frozenset()
    os: frozenset[str] = frozenset()
    offline: Offline = None


class Target(msgspec.Struct, frozen=True, gc=False):
    """One target of one job, with its labels as published and the reasons for which it stands there."""

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


class Missing(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A declared machine with exporters that no backend sees, and the names there that resemble its own."""

    machine: str
    jobs: tuple[str, ...]
    similar: tuple[str, ...] = ()


class Stray(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A machine that a backend sees and that neither the inventory declares nor a rule picks.

    `alias` is the declared machine that it calls itself, where it does: renamed perhaps, or registered anew.
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


class Resolution(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The outcome of a round: the targets, and beside them whatever is no target, each with its reason.

    `jobs` are all jobs that there are, also those without a target now. `unknown` are machines of which nobody
    can say whether they are missing, because a backend could not be asked. `expired` are those whose key has expired.
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


def list_of(job: str, labels: Mapping[str, str]) -> DnsList:
    """Return which list in DNS a target of a job is of, or a machine (of no job), by the labels that DNS gave."""
    return DnsList(job, labels.get("__meta_dns_name", ""), "__meta_dns_srv_record_target" in labels)


def one_line(text: str) -> str:
    """Make text safe for one line of a terminal or a log: control characters and surrogates are escaped.

    Names come from strangers (a tailnet's nodes call themselves what they like); an escape sequence in one
    must not reach a terminal.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def span(seconds: float) -> str:
    """Write a span of time as a person says it: in the largest unit of which there are two."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
