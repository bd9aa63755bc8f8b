"""The vocabulary of the prometheus service: merged settings of a role become an exporter or a server's wishes.

Source of the words: the interface of the service that clans use today (roles `server` and `exporter`); what is not
named here is NixOS's business and ignored. Every wrong value is one complaint that names option and value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, get_args

import msgspec

from clan_discovery.inventory.clan.settings import Submodule, kind
from clan_discovery.inventory.clan.wire import shown
from clan_discovery.inventory.exporters import is_idle, known_exporters, unknown_type_hint
from clan_discovery.model import DnsJob, Endpoint, Exporter, Json, Method, Pairs, ServerSettings
from clan_discovery.syntax.endpoint import MAX_PORT, split_endpoint
from clan_discovery.syntax.labels import is_job, labels_complaint, parameter_complaint, path_complaint
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.inventory.clan.settings import Lists

METHODS: Final[tuple[Method, ...]] = get_args(Method)
AskedFor = Literal["A", "AAAA", "SRV", "A+AAAA"]
RECORD_TYPES: Final[tuple[AskedFor, ...]] = get_args(AskedFor)

BACKENDS: Final = ("prometheus", "victoriametrics", "vmagent")
"""What a server scrapes with; each has its port under its own name among the known exporters."""

_COLLECTORS: Final[Mapping[str, Lists]] = {"disabledCollectors": True, "enabledCollectors": True, "extraFlags": True}
LISTS: Final[Mapping[str, Mapping[str, Lists]]] = {
    "server": {
        "additionalScrapeConfigs": True,
        "alertmanagers": True,
        "discoveryMethod": True,
        "dnsDiscovery": {"*": Submodule({"names": True})},
        "extraFlags": True,
        "firewallInterfaces": True,
        "remoteRead": True,
        "remoteWrite": True,
        "ruleFiles": True,
        "rules": True,
        "scrapeConfigs": True,
        "staticTargets": {"*": True},
    },
    "exporter": {**_COLLECTORS, "firewallInterfaces": True, "exporters": {"*": Submodule(_COLLECTORS)}},
}
"""The options that the service declares as lists, by role: their definitions concatenate.

`discoveryMethod` is a word or a list of them (lib.types.either): definitions of one kind merge as that kind does.
"""

_LOOPBACK: Final = re.compile(r"localhost|127\.[0-9.]+|\[?::1]?")
_PREFIX: Final = re.compile(r"(?:[a-z]+://[^/]*)?(/[^?#]*[^/?#])/*")
# Where NixOS modules of exporters keep the path (nixpkgs, services/monitoring/prometheus/exporters/*.nix).
_PATH_OPTIONS: Final = ("path", "telemetryPath", "metricsEndpoint", "metricsPath")


@dataclass(slots=True)
class Complaints:
    """What is wrong with one machine's settings: (option, what, hint). `within` is the option that they are part of."""

    found: list[tuple[str, str, str | None]] = field(default_factory=list[tuple[str, str, str | None]])
    within: str = ""

    def add(self, option: str, what: str, hint: str | None = None) -> None:
        """Keep one complaint; the empty option is the one that they all are part of."""
        self.found.append((self._path(option), what, hint))

    def below(self, option: str) -> Complaints:
        """Return complaints about the parts of an option; they are kept in here."""
        return Complaints(self.found, self._path(option))

    def _path(self, option: str) -> str:
        return ".".join(part for part in (self.within, option) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExporterSettings:
    """An exporter as the settings ask for it.

    `exporter` is None where it is no target: it serves nothing without one of its own, or is `disabled`.
    """

    type: str
    exporter: Exporter | None
    nixos: bool
    disabled: bool = False


def read_exporters(
    settings: Mapping[str, Json],
    complaints: Complaints,
    lookup: Callable[[str, int | None], Exporter | None],
) -> tuple[ExporterSettings, ...]:
    """Read the settings of one machine in role `exporter`: what `exporterType` names, and every key of `exporters`.

    Where neither names one, it is the node exporter.
    """
    given = settings.get("exporters")
    if given is not None and not isinstance(given, Mapping):
        complaints.add("exporters", f"must be an attribute set of exporters, not {kind(given)}", "exporters.node = {}")
    several: Mapping[str, Json] = given if isinstance(given, Mapping) else {}
    type_ = settings.get("exporterType")
    found: list[ExporterSettings | None] = []
    if not several or type_ is not None:
        type_ = "node" if type_ is None else type_
        off = _switched_off(type_, settings, complaints)
        found.append(off or _exporter(type_, "exporterType", settings, complaints, lookup))
    for name, said in sorted(several.items()):
        if name == type_:
            hint = "say it once: `exporterType` with its settings beside it, or the key"
            complaints.add(f"exporters.{name}", f"`exporterType` says {name!r}, too", hint)
        found.append(_named(name, said, complaints, lookup))
    return tuple(one for one in found if one is not None)


def _named(
    type_: str,
    said: Json,
    complaints: Complaints,
    lookup: Callable[[str, int | None], Exporter | None],
) -> ExporterSettings | None:
    """Read one of `exporters`; with `enable = false` a machine is without what its role or a tag gives it."""
    if not is_job(type_):
        complaints.add("exporters", f"{type_!r} cannot be the name of a job", "letters, digits, '_', '-', '.'")
        return None
    below = complaints.below(f"exporters.{type_}")
    if not isinstance(said, Mapping):
        below.add("", f"must be an attribute set, not {kind(said)}", "{} for its defaults, enable = false for none")
        return None
    for option in ("exporterType", "exporters"):
        if said.get(option) not in (None, type_):
            below.add(option, f"does not belong here: the type is {type_!r}", "take it out")
    return _switched_off(type_, said, below) or _exporter(type_, "", said, below, lookup)


def _switched_off(type_: Json, said: Mapping[str, Json], complaints: Complaints) -> ExporterSettings | None:
    enable = said.get("enable")
    if enable is False and isinstance(type_, str) and is_job(type_):
        return ExporterSettings(type=type_, exporter=None, nixos=False, disabled=True)
    if enable is not None and not isinstance(enable, bool):
        complaints.add("enable", f"must be true or false, not {shown(enable)}")
    return None


def _exporter(
    type_: Json,
    named_by: str,
    settings: Mapping[str, Json],
    complaints: Complaints,
    lookup: Callable[[str, int | None], Exporter | None],
) -> ExporterSettings | None:
    """Read the settings of one exporter, whose type an option names; None where they name nothing usable."""
    if not isinstance(type_, str) or not is_job(type_):
        complaints.add(named_by, f"{shown(type_)} is no exporter type", "for example: node")
        return None
    before = len(complaints.found)
    port = _port(settings.get("port"), complaints)
    base = lookup(type_, port)
    if base is None:
        if len(complaints.found) == before:
            what = f"unknown exporter type {type_!r} without a port"
            complaints.add(named_by, what, unknown_type_hint(type_))
        return None
    params = dict(base.params) | dict(_params(type_, settings, complaints))
    exporter = Exporter(
        type=type_,
        port=base.port,
        path=_path(settings, complaints) or base.path,
        scheme=_scheme(settings, complaints) or base.scheme,
        params=tuple(sorted(params.items())),
        labels=tuple(sorted((dict(base.labels) | dict(_labels(settings, complaints))).items())),
    )
    known = known_exporters().get(type_)
    idle = known is not None and known.kind == "probe" and not params.keys() & {"target", "script"}
    return ExporterSettings(type=type_, exporter=None if idle else exporter, nixos=known is not None and known.nixos)


def _port(value: Json, complaints: Complaints) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_PORT:
        complaints.add("port", f"{shown(value)} is no port", f"a port is a number from 1 to {MAX_PORT}")
        return None
    return value


def _path(settings: Mapping[str, Json], complaints: Complaints) -> str | None:
    for option in _PATH_OPTIONS:
        value = settings.get(option)
        if value is None:
            continue
        complaint = path_complaint(value) if isinstance(value, str) else f"{shown(value)} is no path"
        if complaint is None:
            return str(value)
        complaints.add(option, complaint)
    return None


def _scheme(settings: Mapping[str, Json], complaints: Complaints) -> str | None:
    value = settings.get("scheme")
    if isinstance(value, str) and value in ("http", "https"):
        return value
    if value is not None:
        complaints.add("scheme", f"{shown(value)} is no scheme", "http or https")
    return None


def _params(type_: str, settings: Mapping[str, Json], complaints: Complaints) -> Pairs:
    """Collect URL parameters: `params`, and `target` and `module` for probes. Prometheus takes one value each."""
    found = list(_strings_of(settings.get("params"), "params", complaints))
    for name, _ in found:
        if complaint := parameter_complaint(name):
            complaints.add("params", complaint)
    known = known_exporters().get(type_)
    if known is not None and known.kind == "probe":
        found += [
            (option, value)
            for option in ("target", "module")
            for value in [_one(settings.get(option), option, complaints)]
            if value is not None
        ]
    return tuple(found)


def _labels(settings: Mapping[str, Json], complaints: Complaints) -> Pairs:
    labels = _strings_of(settings.get("labels"), "labels", complaints)
    if complaint := labels_complaint(dict(labels)):
        complaints.add("labels", complaint)
    return labels


def _strings_of(value: Json, option: str, complaints: Complaints) -> Pairs:
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        complaints.add(option, f"must be an attribute set of strings, not {kind(value)}")
        return ()
    pairs = [(name, _one(item, f"{option}.{name}", complaints)) for name, item in value.items()]
    return tuple((name, text) for name, text in pairs if text is not None)


def _one(value: Json, option: str, complaints: Complaints) -> str | None:
    """Read a string, or a list of exactly one (as Prometheus writes params)."""
    match value:
        case None | str():
            return value
        case [str(one)]:
            return one
        case _:
            complaints.add(option, f"must be one string, not {shown(value)}")
            return None


def read_own_metrics(
    settings: Mapping[str, Json],
    complaints: Complaints,
    lookup: Callable[[str, int | None], Exporter | None],
) -> ExporterSettings | None:
    """Read what one machine in role `server` serves of itself: a target only where `scrapeServers` is true.

    A job of the user's own of that name goes before it, and one that listens on the loopback alone is nobody's target.
    It stands below the path of its `webExternalUrl`, as Prometheus does (cmd/prometheus/main.go, web.route-prefix), and
    counts as a NixOS exporter: the service sets up no server on darwin.
    """
    wanted = settings.get("scrapeServers")
    if wanted is not True:
        if wanted is not None and wanted is not False:
            complaints.add("scrapeServers", f"must be true or false, not {shown(wanted)}")
        return None
    given = settings.get("backend")
    backend = next((name for name in BACKENDS if name == given), BACKENDS[0])
    if given is not None and given != backend:
        hint = (did_you_mean(given, BACKENDS) if isinstance(given, str) else None) or f"one of {', '.join(BACKENDS)}"
        complaints.add("backend", f"{shown(given)} is no backend", hint)
    port = _port(settings.get("port"), complaints) or known_exporters()[backend].port
    if _has_own_job(settings) or _LOOPBACK.fullmatch(str(settings.get("listenAddress") or "")):
        return None
    exporter = lookup("prometheus", port)
    prefix = _PREFIX.fullmatch(str(settings.get("webExternalUrl") or "")) if backend == "prometheus" else None
    if exporter is not None and prefix is not None:
        exporter = msgspec.structs.replace(exporter, path=f"{prefix[1]}{exporter.path}")
    return ExporterSettings(type="prometheus", exporter=exporter, nixos=True)


def _has_own_job(settings: Mapping[str, Json]) -> bool:
    for option in ("additionalScrapeConfigs", "scrapeConfigs"):
        configs = settings.get(option)
        for config in configs if isinstance(configs, Sequence) else ():
            if isinstance(config, Mapping) and config.get("job_name") == "prometheus":
                return True
    return False


def read_server(
    settings: Mapping[str, Json],
    complaints: Complaints,
    *,
    instance: str,
    machine: str,
    lookup: Callable[[str, int | None], Exporter | None],
) -> ServerSettings:
    """Read the settings of one machine in role `server`."""
    auto = settings.get("enableAutoDiscovery", True)
    if not isinstance(auto, bool):
        complaints.add("enableAutoDiscovery", f"must be true or false, not {shown(auto)}")
        auto = True
    return ServerSettings(
        instance=instance,
        machine=machine,
        auto_discovery=auto,
        discovery=_methods(settings.get("discoveryMethod"), complaints),
        static_targets=_static_targets(settings, complaints, instance, lookup),
        dns=_dns_jobs(settings, complaints),
        additional_scrape_configs=_scrape_configs(settings, complaints),
    )


def _methods(value: Json, complaints: Complaints) -> tuple[Method, ...] | None:
    """Read `discoveryMethod`: a method, or a list of them, each of which counts once."""
    if value is None:
        return None
    given = [value] if isinstance(value, str) or not isinstance(value, Sequence) else value
    methods: list[Method] = [method for one in given if (method := _method(one, complaints)) is not None]
    found = tuple(dict.fromkeys(methods))
    if "none" in found and len(found) > 1:
        complaints.add("discoveryMethod", f"{shown(value)} asks somebody and nobody", '"none" asks nobody: take it out')
    return found


def _method(value: Json, complaints: Complaints) -> Method | None:
    for method in METHODS:
        if value == method:
            return method
    hint = (did_you_mean(value, METHODS) if isinstance(value, str) else None) or f"one of {', '.join(METHODS)}"
    complaints.add("discoveryMethod", f"{shown(value)} is no discovery method", hint)
    return None


def _dns_jobs(settings: Mapping[str, Json], complaints: Complaints) -> tuple[DnsJob, ...]:
    jobs = settings.get("dnsDiscovery")
    if jobs is None:
        return ()
    if not isinstance(jobs, Mapping):
        complaints.add("dnsDiscovery", f"must be an attribute set of jobs, not {kind(jobs)}")
        return ()
    return tuple(found for job, said in jobs.items() for found in _dns_job(job, said, complaints))


def _dns_job(job: str, said: Json, complaints: Complaints) -> list[DnsJob]:
    option = f"dnsDiscovery.{job}"
    if not is_job(job):
        complaints.add("dnsDiscovery", f"{job!r} cannot be the name of a job", "letters, digits, '_', '-', '.'")
        return []
    if not isinstance(said, Mapping):
        complaints.add(option, f"must be an attribute set, not {kind(said)}", 'for example: names = [ "..." ]')
        return []
    before = len(complaints.found)
    names = said.get("names", ())
    if isinstance(names, str) or not isinstance(names, Sequence):
        complaints.add(f"{option}.names", f"must be a list of names, not {kind(names)}")
        names = ()
    for unknown in sorted(said.keys() - {"names", "type", "port"}):
        hint = did_you_mean(unknown, ("names", "type", "port")) or "there are names, type and port"
        complaints.add(f"{option}.{unknown}", "unknown option", hint)
    # Addresses have no port of their own: who gives one means them, as in the service that clans use today.
    given = said.get("type") or ("SRV" if said.get("port") is None else "A")
    type_: AskedFor | None = next((t for t in RECORD_TYPES if t == given), None)
    if type_ is None:
        complaints.add(f"{option}.type", f"{shown(given)} is no type to ask for", f"one of {', '.join(RECORD_TYPES)}")
    texts = [name for name in names if isinstance(name, str)]
    if len(texts) < len(names):
        complaints.add(f"{option}.names", "a name must be a string")
    port = _port(said.get("port"), complaints.below(option))
    if type_ is None or len(complaints.found) > before:
        return []
    return [DnsJob(job=job, names=tuple(texts), type=type_, port=port)]


def _static_targets(
    settings: Mapping[str, Json],
    complaints: Complaints,
    instance: str,
    lookup: Callable[[str, int | None], Exporter | None],
) -> tuple[Endpoint, ...]:
    jobs = settings.get("staticTargets")
    if jobs is None:
        return ()
    if not isinstance(jobs, Mapping):
        complaints.add("staticTargets", f"must be an attribute set of lists, not {kind(jobs)}")
        return ()
    found: list[Endpoint] = []
    for job, targets in jobs.items():
        if not is_job(job):
            complaints.add("staticTargets", f"{job!r} cannot be the name of a job", "letters, digits, '_', '-', '.'")
        elif not isinstance(targets, Sequence) or isinstance(targets, str):
            complaints.add(f"staticTargets.{job}", f"must be a list of strings, not {kind(targets)}")
        else:
            for target in targets:
                found += _static_target(job, target, complaints, instance, lookup)
    return tuple(found)


def _static_target(
    job: str,
    target: Json,
    complaints: Complaints,
    instance: str,
    lookup: Callable[[str, int | None], Exporter | None],
) -> list[Endpoint]:
    option = f"staticTargets.{job}"
    if not isinstance(target, str):
        complaints.add(option, f"{shown(target)} is no target", 'write "host:port"')
        return []
    try:
        host, port = split_endpoint(target)
    except ValueError as error:
        complaints.add(option, str(error))
        return []
    exporter = lookup(job, port)
    if exporter is None:
        complaints.add(option, f"{target!r} has no port, and no exporter is called {job!r}", 'write "host:port"')
        return []
    if is_idle(exporter):
        complaints.add(option, f"{job} probes others: {target!r} serves nothing without a target to probe")
        return []
    because = f"inventory: instance {instance}, role server, staticTargets.{job}"
    return [Endpoint(host=host, exporter=exporter, machine=host, because=because, backend="inventory")]


def _scrape_configs(settings: Mapping[str, Json], complaints: Complaints) -> tuple[Mapping[str, Json], ...]:
    configs = settings.get("additionalScrapeConfigs")
    if configs is None:
        return ()
    if not isinstance(configs, Sequence) or isinstance(configs, str):
        complaints.add("additionalScrapeConfigs", f"must be a list, not {kind(configs)}")
        return ()
    found = [config for config in configs if isinstance(config, Mapping)]
    seen: set[str] = set()
    for config in found:
        name = config.get("job_name")
        if not isinstance(name, str) or not name:
            complaints.add("additionalScrapeConfigs", "an entry has no job_name", "Prometheus needs one")
        elif name in seen:
            what = f"the job {name!r} is there twice"
            complaints.add("additionalScrapeConfigs", what, "Prometheus refuses two jobs of one name")
        else:
            seen.add(name)
    if len(found) < len(configs):
        complaints.add("additionalScrapeConfigs", "an entry is no attribute set")
    return tuple(found)
