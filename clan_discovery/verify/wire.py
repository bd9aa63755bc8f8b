"""Decode the answers of scrapers: bytes in, values out. Lenient with unknown keys, strict with types.

Prometheus documents them as its HTTP API (prometheus.io/docs, "HTTP API"); VictoriaMetrics and vmagent answer the same
paths with some keys more and others less. With `-promscrape.dropOriginalLabels`, the default of newer ones,
`discoveredLabels` are empty.
"""

from __future__ import annotations

import re
from sys import intern
from typing import TYPE_CHECKING, Final, Generic, Literal, NamedTuple, TypeVar

import msgspec

from clan_discovery.model import one_line
from clan_discovery.syntax.target_file import MARK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Data = TypeVar("Data")

_SHOWN: Final = 300
_LEAST_BYTES: Final = 30
_SLACK: Final = 65536
"""A real target or series has 35 bytes or more for each `{`. One of two would take a hundred times as much memory."""
_UNIQUE: Final = ("__address__", "instance")
_SHARED: Final = ("job", "__meta_filepath", "__meta_url", "__meta_clan_exporter", MARK)
"""The labels that are read: those with a value for each target, and those with a few values in all."""


class WireError(Exception):
    """An answer is not what the API documents."""


class Scraped(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An active target, with the labels that are read. Only VictoriaMetrics and vmagent tell `last_samples_scraped`."""

    discovered_labels: dict[str, str] = {}
    labels: dict[str, str] = {}
    scrape_pool: str = ""
    scrape_url: str = ""
    last_error: str = ""
    health: str = ""
    last_samples_scraped: int | None = None

    @property
    def is_pending(self) -> bool:
        """Tell whether it was not scraped yet."""
        return self.health == "unknown" or (self.health != "up" and not self.last_error)


class DroppedTarget(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A target that relabelling dropped."""

    discovered_labels: dict[str, str] = {}
    scrape_pool: str = ""


class ScrapedTargets(msgspec.Struct, frozen=True, rename="camel"):
    """The targets of a scraper."""

    active_targets: list[Scraped] | None = None
    dropped_targets: list[DroppedTarget] | None = None


class _RawTargets(msgspec.Struct, frozen=True, rename="camel"):
    active_targets: list[msgspec.Raw] | None = None
    dropped_targets: list[msgspec.Raw] | None = None


class _Envelope(msgspec.Struct, Generic[Data], frozen=True, rename="camel"):
    status: Literal["success"]
    data: Data


class _ConfigText(msgspec.Struct, frozen=True):
    yaml: str


class _Series(msgspec.Struct, frozen=True):
    metric: dict[str, str]


class _Vector(msgspec.Struct, frozen=True, rename="camel"):
    result_type: Literal["vector"]
    result: list[_Series] | None = None


class _Sample(msgspec.Struct, frozen=True, gc=False):
    metric: dict[str, str]
    value: tuple[float, str]


class _Samples(msgspec.Struct, frozen=True, rename="camel"):
    result_type: Literal["vector"]
    result: list[_Sample] | None = None


class Sample(NamedTuple):
    """A series at one time: its job and instance, its value, and the time of the query on the store's clock."""

    key: tuple[str, str]
    value: float
    at: float


class _AlertmanagerVersion(msgspec.Struct, frozen=True):
    version: str = ""


class _AlertmanagerStatus(msgspec.Struct, frozen=True, rename="camel"):
    version_info: _AlertmanagerVersion


class _GrafanaHealth(msgspec.Struct, frozen=True):
    database: str
    version: str = ""


class LoadedRule(NamedTuple):
    """A rule that a program evaluates: its group, what it is, its name, and why it cannot be evaluated."""

    group: str
    kind: Literal["alert", "record"]
    name: str
    error: str = ""


class _RuleState(msgspec.Struct, frozen=True, rename="camel"):
    type: Literal["alerting", "recording"]
    name: str
    health: str = ""
    last_error: str = ""


class _RuleGroup(msgspec.Struct, frozen=True):
    name: str
    rules: list[_RuleState] | None = None


class _RuleGroups(msgspec.Struct, frozen=True):
    groups: list[_RuleGroup] | None = None


class About(msgspec.Struct, frozen=True):
    """What a program says of itself in its own metrics.

    `kind` is empty if it is unknown. `mtimes` are the modification times of the target files that it has read.
    `reloaded_at` is the time of the last reload that succeeded, where every reload sets it; else 0. `is_store`: it
    keeps samples, and answers queries.
    """

    kind: str = ""
    version: str = ""
    mtimes: Mapping[str, float] = {}
    reload_failed: bool = False
    reloaded_at: float = 0.0
    is_store: bool = True


_targets: Final = msgspec.json.Decoder(_Envelope[_RawTargets])
_scraped: Final = msgspec.json.Decoder(Scraped)
_dropped: Final = msgspec.json.Decoder(DroppedTarget)
_config: Final = msgspec.json.Decoder(_Envelope[_ConfigText])
_vector: Final = msgspec.json.Decoder(_Envelope[_Vector])
_samples: Final = msgspec.json.Decoder(_Envelope[_Samples])
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:e[+-]?[0-9]{1,3})?")
_rules: Final = msgspec.json.Decoder(_Envelope[_RuleGroups])
_alertmanager: Final = msgspec.json.Decoder(_AlertmanagerStatus)
_grafana: Final = msgspec.json.Decoder(_GrafanaHealth)
_BUILD: Final = re.compile(rb'^prometheus_build_info\{(?:.*?,)?version="([^"]*)"', re.MULTILINE)
_VM: Final = re.compile(rb'^vm_app_version\{.*?short_version="([^"]*)"', re.MULTILINE)
_MTIME: Final = re.compile(
    rb'^prometheus_sd_file_mtime_seconds\{filename="((?:[^"\\]|\\.){1,4096})"\} ([0-9.e+]{1,40})$', re.MULTILINE
)
_RELOAD: Final = re.compile(rb"^(?:prometheus|vm_promscrape|vmalert)_config_last_reload_successful 0$", re.MULTILINE)
_RELOADED: Final = re.compile(
    rb"^prometheus_config_last_reload_success_timestamp_seconds ([0-9.e+]{1,40})$", re.MULTILINE
)
"""That of vmalert stays as it is if the rules are the same."""


def targets(body: bytes) -> ScrapedTargets:
    """Decode `/api/v1/targets`. Of each target, only the labels that are read are kept: 300,000 have 380 MB.

    Raises:
        WireError: it is something else, or would take much more memory than its size.
    """
    _check_density(body)
    found = _decoded(_targets, body)
    return ScrapedTargets(
        active_targets=[_slim(_whole(_scraped, raw)) for raw in found.active_targets or ()],
        dropped_targets=[_slim_dropped(_whole(_dropped, raw)) for raw in found.dropped_targets or ()],
    )


def _slim(found: Scraped) -> Scraped:
    labels = {name: value for name in ("job", "instance") if (value := found.labels.get(name)) is not None}
    return Scraped(
        discovered_labels=_read_labels(found.discovered_labels),
        labels=labels,
        scrape_pool=intern(found.scrape_pool),
        scrape_url=found.scrape_url,
        last_error=found.last_error,
        health=intern(found.health),
        last_samples_scraped=found.last_samples_scraped,
    )


def _slim_dropped(found: DroppedTarget) -> DroppedTarget:
    return DroppedTarget(_read_labels(found.discovered_labels), intern(found.scrape_pool))


def _read_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the discovered labels that are read, and for a target of another kind of discovery one that names it."""
    found = {name: labels[name] for name in _UNIQUE if name in labels}
    found |= {name: intern(labels[name]) for name in _SHARED if name in labels}
    if "__meta_filepath" not in found and "__meta_url" not in found and (kind := discovery_kind(labels)):
        found[f"__meta_{kind}_sd"] = ""
    return found


def discovery_kind(labels: Iterable[str]) -> str:
    """Return the first kind of discovery that labels are of, such as `consul`; empty if there is none."""
    kinds = (name.split("_")[3] for name in labels if name.startswith("__meta_") and name.count("_") > 3)
    return min(kinds, default="")


def _check_density(body: bytes) -> None:
    if body.count(b"{") * _LEAST_BYTES > len(body) + _SLACK:
        raise WireError("not the answer that the API documents: its objects are nearly empty")


def config_text(body: bytes) -> str:
    """Return the YAML in `/api/v1/status/config`. Raises as `targets`."""
    return _decoded(_config, body).yaml


def series(body: bytes) -> Sequence[Mapping[str, str]]:
    """Return the labels of each series in the answer to an instant query. Raises as `targets`."""
    _check_density(body)
    return [found.metric for found in _decoded(_vector, body).result or ()]


def samples(body: bytes) -> list[Sample]:
    """Return the samples in the answer to an instant query. Raises as `targets`, also for a value that is no number."""
    _check_density(body)
    found: list[Sample] = []
    for sample in _decoded(_samples, body).result or ():
        at, text = sample.value
        if not _NUMBER.fullmatch(text):
            raise WireError(f"the value of a sample is {one_line(text)[:_SHOWN]!r}, not a number")
        key = sample.metric.get("job", ""), sample.metric.get("instance", "")
        found.append(Sample(key, float(text), at))
    return found


def rules(body: bytes) -> list[LoadedRule]:
    """Return the rules in `/api/v1/rules`. Raises as `targets`."""
    found: list[LoadedRule] = []
    for group in _decoded(_rules, body).groups or ():
        for rule in group.rules or ():
            kind: Literal["alert", "record"] = "alert"
            if rule.type == "recording":
                kind = "record"
            error = ""
            if rule.health == "err":
                error = rule.last_error or "its evaluation fails"
            found.append(LoadedRule(group.name, kind, rule.name, error))
    return found


def alertmanager_version(body: bytes) -> str:
    """Return the version in `/api/v2/status` of Alertmanager. Raises as `targets`."""
    return _whole(_alertmanager, body).version_info.version


def grafana_version(body: bytes) -> str:
    """Return the version in `/api/health` of Grafana. Raises as `targets`, also if its database fails."""
    health = _whole(_grafana, body)
    if health.database != "ok":
        raise WireError(f"its database is {one_line(health.database)[:_SHOWN]!r}, not ok")
    return health.version


def plain_word(body: bytes, word: str) -> None:
    """Check the answer of `/ready` or `/health`, which is one word. Raises as `targets`."""
    if body.strip().lower() != word.encode():
        raise WireError(_kind_of(body))


def _decoded(decoder: msgspec.json.Decoder[_Envelope[Data]], body: bytes) -> Data:
    return _whole(decoder, body).data


def _whole(decoder: msgspec.json.Decoder[Data], body: bytes | msgspec.Raw) -> Data:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"{_kind_of(bytes(body))}: {one_line(str(error))[:_SHOWN]}") from None


def _kind_of(body: bytes) -> str:
    start = body[:200].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "an HTML page, not the API (a login page or a proxy?)"
    return "not the answer that the API documents"


def about(body: bytes) -> About:
    """Read the scraper's own metrics, in the text format; what is not found stays empty."""
    version = ""
    kind = ""
    if found := _BUILD.search(body):
        kind, version = "prometheus", found[1].decode("utf-8", "replace")
    elif found := _VM.search(body):
        kind = next((name for name in ("vmagent", "vmalert") if f"\n{name}_".encode() in body), "victoriametrics")
        version = found[1].decode("utf-8", "replace").removeprefix("v")
    return About(
        kind=kind,
        version=version,
        mtimes=dict(_mtimes(body)),
        reload_failed=_RELOAD.search(body) is not None,
        reloaded_at=_number(_RELOADED.search(body)),
        is_store=kind not in ("vmagent", "vmalert") and b"\nprometheus_agent_" not in body,
    )


def _number(found: re.Match[bytes] | None) -> float:
    if found is None:
        return 0.0
    try:
        return float(found[1])
    except ValueError:
        return 0.0


def _mtimes(body: bytes) -> Iterator[tuple[str, float]]:
    for found in _MTIME.finditer(body):
        try:
            yield found[1].decode("utf-8", "replace"), float(found[2])
        except ValueError:
            continue


class Flags(msgspec.Struct, frozen=True):
    """What a program of VictoriaMetrics was started with: whether it is a vmagent, and of how many in a cluster."""

    is_agent: bool = False
    members: int = 0


_MEMBERS: Final = re.compile(rb'^-promscrape\.cluster\.membersCount="?([0-9]{1,6})"?$', re.MULTILINE)


def flags(body: bytes) -> Flags:
    """Read `/flags`, which lists the flags that are set."""
    found = _MEMBERS.search(body)
    members = 0
    if found is not None:
        members = int(found[1])
    return Flags(b"-remoteWrite.url=" in body, members)
