"""The JSON documents that the program writes or reads, as types. The schemas in `schemas/` are generated from them.

The docstring of an attribute becomes its `description` in the schema.
"""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from clan_discovery.model import MachineClass, Reason, Severity


class TargetGroup(TypedDict):
    """One target with its labels: a target group of file_sd, with exactly these two keys."""

    targets: list[str]
    """One address, `host:port`; IPv6 in brackets."""
    labels: dict[str, str]
    """Labels: `instance`, `machine`, `__meta_*`, and what the scrape needs (`__metrics_path__`, `__scheme__`)."""


class TargetDocument(TypedDict):
    """A target, and why it exists."""

    job: str
    """The exporter type: the name of the Prometheus job and of the target file."""
    machine: str
    """The machine's name."""
    address: str
    """`host:port`, IPv6 in brackets."""
    observed: bool
    """Whether a backend sees the machine. A declared machine that no backend sees is still a target."""
    online: bool | None
    """Whether the backend reports it as online; null if unknown."""
    expired: bool
    """Whether its key on the tailnet has expired. It is unreachable until somebody logs in there again."""
    backend: str | None
    """The backend that gave the address; null if none did."""
    because: str
    """Which rule of the inventory or the config asks for this target."""
    located: str
    """How the address was found."""
    labels: dict[str, str]
    """The labels as published."""


class MissingDocument(TypedDict):
    """A declared machine with exporters that no backend sees."""

    machine: str
    """The machine's name."""
    jobs: list[str]
    """The jobs in which it is still a target, at the address of the clan's exports or at its name."""
    similar: list[str]
    """Machines with a similar name that are seen but not declared: it may have been renamed."""


class StrayDocument(TypedDict):
    """A machine that is seen, but neither declared nor picked by a rule. It is not a target."""

    name: str
    """Its name on the network."""
    backend: str
    """The backend that sees it."""
    tags: list[str]
    """Its tags there. A stray with the tag of a server may be missing from the inventory."""
    alias: str
    """The declared machine that it calls itself; else empty. It may have been renamed or registered again."""


class AmbiguousDocument(TypedDict):
    """A name that several nodes claim: none of them gets it."""

    name: str
    """The name."""
    backend: str
    """The backend on which it is claimed."""
    claims: list[str]
    """The nodes that claim it."""


class ExclusionDocument(TypedDict):
    """Something that is not a target, and why."""

    name: str
    """The machine or node."""
    reason: Reason
    """Why, as a word to count by."""
    detail: str
    """Why, as a sentence."""
    by: str
    """The backend, or `inventory`."""
    job: str | None
    """The exporter type; null if the whole machine is excluded."""


class UnansweredDocument(TypedDict):
    """A failed lookup."""

    name: str
    """The name."""
    reason: str
    """Which server was asked last, and how it responded."""
    machine: str
    """The machine that is unknown because of it; `*` means any unseen machine; empty where there is none."""
    age_seconds: float | None
    """Age of the last good answer, which is used; null where there is none."""


class BackendDocument(TypedDict):
    """What is believed of one backend."""

    backend: str
    """Its name in the config."""
    state: Literal["fresh", "partial", "kept", "held", "expired", "unknown"]
    """`fresh`: it answered; `partial`: the lookups in `unanswered` failed, and their last good answers are used;
    `kept`: it did not answer, and its last good answer is used; `held`: a large loss waits to be accepted;
    `expired`: the last good answer is too old to be used; `unknown`: there is no answer yet."""
    why: str
    """What went wrong, where something did."""
    age_seconds: float
    """How old the answer is that is served."""
    nodes: int
    """How many machines it sees."""
    unanswered: list[UnansweredDocument]
    """Lookups that failed."""


class FrozenDocument(TypedDict):
    """A job whose present file is served instead of the targets here."""

    job: str
    """The job."""
    backend: str
    """The backend that has no answer, or whose answer is held."""
    since: str
    """When that began (RFC 3339)."""
    why: str
    """What is missing."""


class ProblemDocument(TypedDict):
    """A complaint about the inventory or the config."""

    where: str
    """Where it is: a file, and the place in it."""
    what: str
    """What is wrong."""
    hint: str | None
    """How to fix it."""
    severity: Severity
    """`problem` fails `check`; `warning` is only reported."""


class ResolutionDocument(TypedDict):
    """The outcome of one round, as `show --format json` prints it."""

    targets: list[TargetDocument]
    """All targets, sorted by job and instance."""
    jobs: list[str]
    """All jobs, also those without a target."""
    missing: list[MissingDocument]
    """Declared machines that no backend sees."""
    unknown: list[str]
    """Machines that may be missing: a backend that could have seen them did not answer."""
    expired: list[str]
    """Machines whose key on the tailnet has expired, whether they are targets or not."""
    frozen: list[FrozenDocument]
    """Jobs whose present file is served, because a backend's memory is lost while it does not answer."""
    stray: list[StrayDocument]
    """Machines that are seen and not declared."""
    ambiguous: list[AmbiguousDocument]
    """Names that several nodes claim."""
    excluded: list[ExclusionDocument]
    """What is not a target, each with its reason."""
    excluded_by_reason: dict[str, int]
    """How many exclusions there are for each reason."""
    backends: list[BackendDocument]
    """What is believed of each backend."""
    problems: list[ProblemDocument]
    """Problems of the inventory that do not stop a round."""
    additional_scrape_configs: list[dict[str, object]]
    """The `additionalScrapeConfigs` of the server, as in the inventory."""


class InventoryMachine(TypedDict):
    """A machine of the inventory. Other keys belong to clan."""

    name: NotRequired[str | None]
    """Its name, the same as the key."""
    machineClass: NotRequired[MachineClass | None]
    """The module system it is built with; default `nixos`."""
    tags: NotRequired[list[str] | None]
    """Its tags. As printed: the final ones, with those of `inventory.tags` and the computed ones."""


class InventoryMember(TypedDict):
    """A machine or a tag in a role."""

    settings: NotRequired[dict[str, object] | None]
    """Settings. As printed: the merged settings of role, tags and machine."""


class InventoryRole(TypedDict):
    """A role with its members."""

    machines: NotRequired[dict[str, InventoryMember | None] | None]
    """Members by name."""
    tags: NotRequired[list[str] | dict[str, InventoryMember | None] | None]
    """Tags whose machines are members, as a list or with settings for each."""
    settings: NotRequired[dict[str, object] | None]
    """Settings of all members, plain or wrapped as clan serialises them."""


class InventoryModule(TypedDict):
    """The module of an instance."""

    name: NotRequired[str | None]
    """The module's name; default: the instance's."""
    input: NotRequired[str | None]
    """The flake input that it comes from."""


class InventoryInstance(TypedDict):
    """An instance of a service."""

    module: NotRequired[InventoryModule | None]
    """The module."""
    roles: NotRequired[dict[str, InventoryRole | None] | None]
    """Roles by name; the prometheus service has `server` and `exporter`."""


class InventoryMeta(TypedDict):
    """Metadata of the clan."""

    domain: NotRequired[str | None]
    """The domain of machine names where the tailnet gives none; default `clan`."""


class InventoryExporter(TypedDict):
    """An expected target: an exporter that the inventory declares on a machine."""

    machine: str
    """The machine's name."""
    type: str
    """The exporter type."""
    port: int
    """The TCP port."""
    path: str
    """The path of the metrics."""
    scheme: str
    """`http` or `https`."""
    params: dict[str, str]
    """URL parameters of the scrape."""
    labels: dict[str, str]
    """Labels set by the user."""
    instance: str
    """The inventory instance that declares it."""
    because: str
    """Which part of the inventory declares it."""


class InventoryDocument(TypedDict):
    """A clan inventory, as it is read and printed. The output can be read again."""

    machines: dict[str, InventoryMachine]
    """All machines by name."""
    tags: NotRequired[dict[str, list[str]] | None]
    """Tags with their machines."""
    instances: dict[str, InventoryInstance]
    """The instances of services. As printed: those of the prometheus service."""
    meta: NotRequired[InventoryMeta | None]
    """Metadata of the clan."""
    exporters: NotRequired[list[InventoryExporter]]
    """Printed only: the expected targets."""
    excluded: NotRequired[list[ExclusionDocument]]
    """Printed only: exporters that are not targets, each with its reason."""
    problems: NotRequired[list[ProblemDocument]]
    """Printed only: problems that do not stop a round."""
