"""Read a scrape config that a machine has for a Prometheus of its own. Pure.

Modules of many homelabs append to one list, as `homelab.prometheus.scrapeConfigs`. A target on `localhost` is then on
the machine that declares it. Keys that NixOS sets to null, `[]` or `{}` are not set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from clan_discovery.inventory.clan.decode import is_list, kind, shown
from clan_discovery.model import Exporter
from clan_discovery.syntax.endpoint import is_loopback, split_endpoint
from clan_discovery.syntax.labels import is_job, label_complaint, labels_complaint, parameter_complaint, path_complaint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clan_discovery.inventory.exporters import ExporterLookup
    from clan_discovery.model import Json, Pairs, Severity

_READ: Final = ("job_name", "static_configs", "metrics_path", "scheme", "params")
_PORTS: Final = {"http": 80, "https": 443}
_ANY_ADDRESS: Final = ("0.0.0.0", "::")  # noqa: S104 - read, not listened on
_KEEP_IT: Final = "keep it as a scrape config of the scraper itself"


class AdoptComplaint(NamedTuple):
    """Something in a scrape config that is not adopted: its path, what is wrong, and how to fix it."""

    path: tuple[str | int, ...]
    what: str
    hint: str | None = None
    severity: Severity = "problem"


class Adopted(msgspec.Struct, frozen=True, kw_only=True):
    """A target of a scrape config. `host` is empty for loopback of the machine that declares the scrape config."""

    host: str
    exporter: Exporter
    path: tuple[str | int, ...]


class AdoptedJob(msgspec.Struct):
    """The targets of a scrape config, and what is not adopted."""

    name: str = ""
    targets: list[Adopted] = []
    complaints: list[AdoptComplaint] = []

    def complain(
        self, path: tuple[str | int, ...], what: str, hint: str | None = None, severity: Severity = "problem"
    ) -> None:
        """Add a complaint."""
        self.complaints.append(AdoptComplaint(path, what, hint, severity))


def read_scrape_config(config: Mapping[str, Json], lookup: ExporterLookup) -> AdoptedJob:
    """Read one scrape config of a machine."""
    found = AdoptedJob()
    name = config.get("job_name")
    if not isinstance(name, str) or not is_job(name):
        found.complain(("job_name",), f"{shown(name)} cannot be the name of a job here", "rename the job")
        return found
    found.name = name
    if _replaces_address(config.get("relabel_configs")):
        found.complain(("relabel_configs",), "write `__address__`, so the targets are elsewhere", _KEEP_IT)
        return found
    _complain_of_unread(config, found)
    template = Exporter(
        type=name,
        port=_PORTS["http"],
        path=_path(config, found),
        scheme=_scheme(config, found),
        params=_params(config, found),
    )
    for place, target, labels in _targets(config, found):
        try:
            host, port = split_endpoint(target)
        except ValueError as error:
            found.complain(place, str(error), _KEEP_IT)
            continue
        if is_loopback(host) or host in _ANY_ADDRESS:
            host = ""
        exporter = _exporter(template, port, labels, lookup)
        found.targets.append(Adopted(host=host, exporter=exporter, path=place))
    if not found.targets and not found.complaints:
        found.complain((), "has no target in `static_configs`", _KEEP_IT, "warning")
    return found


def _exporter(template: Exporter, port: int | None, labels: Mapping[str, str], lookup: ExporterLookup) -> Exporter:
    """Return the exporter of one target; without a port, it is that of the scheme, as in Prometheus."""
    port = port or _PORTS[template.scheme]
    base = lookup(template.type, port)
    own = dict(base.labels) if base is not None else {}
    return msgspec.structs.replace(template, port=port, labels=tuple(sorted({**own, **labels}.items())))


def _replaces_address(rules: Json) -> bool:
    """Tell whether a relabel rule gives targets another address, as for probes."""
    if not is_list(rules):
        return False
    return any(isinstance(rule, Mapping) and rule.get("target_label") == "__address__" for rule in rules)


def _is_set(value: Json) -> bool:
    return value is not None and value not in ([], {}, "")


def _complain_of_unread(config: Mapping[str, Json], found: AdoptedJob) -> None:
    """Name the keys that are not adopted; their values may be secrets."""
    unread = sorted(key for key, value in config.items() if key not in _READ and _is_set(value))
    if unread:
        what = f"not read: {', '.join(unread)}"
        found.complain((unread[0],), what, f"set them in the config: jobs.{found.name}", "warning")


def _scheme(config: Mapping[str, Json], found: AdoptedJob) -> str:
    scheme = config.get("scheme")
    if isinstance(scheme, str) and scheme in _PORTS:
        return scheme
    if scheme is not None:
        found.complain(("scheme",), f"{shown(scheme)} is no scheme: http is used", "write http or https")
    return "http"


def _path(config: Mapping[str, Json], found: AdoptedJob) -> str:
    path = config.get("metrics_path")
    complaint = None
    if path is not None:
        complaint = f"{shown(path)} is no path" if not isinstance(path, str) else path_complaint(path)
    if complaint is not None:
        found.complain(("metrics_path",), f"{complaint}; /metrics is used")
    if not isinstance(path, str) or complaint is not None:
        return "/metrics"
    return path


def _params(config: Mapping[str, Json], found: AdoptedJob) -> Pairs:
    """Read the URL parameters. A label can write one value for each."""
    given = config.get("params")
    if not isinstance(given, Mapping):
        return ()
    pairs: dict[str, str] = {}
    for name, value in sorted(given.items()):
        values = value if is_list(value) else [value]
        first = values[0] if values else None
        if len(values) == 1 and isinstance(first, str) and parameter_complaint(name) is None:
            pairs[name] = first
        else:
            hint = f"set it in the config: jobs.{found.name}.params"
            found.complain(("params", name), "is not one string, or has a name that no label can write", hint)
    return tuple(pairs.items())


def _targets(
    config: Mapping[str, Json], found: AdoptedJob
) -> Iterator[tuple[tuple[str | int, ...], str, Mapping[str, str]]]:
    """Yield each listed target with its place and labels."""
    for number, group in enumerate(_listed(config.get("static_configs"), ("static_configs",), found)):
        place = ("static_configs", number)
        if not isinstance(group, Mapping):
            found.complain(place, f"must be an object, not {kind(group)}")
            continue
        labels = _labels(group.get("labels"), (*place, "labels"), found)
        for index, target in enumerate(_listed(group.get("targets"), (*place, "targets"), found)):
            at = (*place, "targets", index)
            if isinstance(target, str):
                yield at, target, labels
            else:
                found.complain(at, f"{shown(target)} is no target", "write host:port")


def _listed(value: Json, path: tuple[str | int, ...], found: AdoptedJob) -> Sequence[Json]:
    if is_list(value):
        return value
    if value is not None:
        found.complain(path, f"must be a list, not {kind(value)}")
    return ()


def _labels(given: Json, path: tuple[str | int, ...], found: AdoptedJob) -> Mapping[str, str]:
    """Read the labels of a group without `instance`, which is the machine's name here."""
    if not isinstance(given, Mapping):
        return {}
    labels: dict[str, str] = {}
    for name, value in given.items():
        complaint = label_complaint(name)
        if complaint is None and isinstance(value, str):
            labels[name] = value
        elif name not in ("instance", "job"):
            found.complain((*path, name), complaint or f"{shown(value)} is no string", "remove it", "warning")
    if complaint := labels_complaint(labels):
        found.complain(path, complaint, f"set them in the config: jobs.{found.name}", "warning")
        return {}
    return labels
