"""Read the options of the prometheus service. Pure.

Merged settings of a role become exporters or the settings of a server. The names are those of the service that clans
use today (roles `server` and `exporter`). Options that are not read here belong to NixOS and are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from itertools import chain
from typing import TYPE_CHECKING, Final, Literal, get_args

import msgspec

from clan_discovery.inventory.clan.alerting import OPTIONS
from clan_discovery.inventory.clan.decode import attributes, is_list, kind, shown
from clan_discovery.inventory.clan.keys import EXPORTER_OPTIONS
from clan_discovery.inventory.clan.settings import Submodule
from clan_discovery.inventory.exporters import (
    TargetError,
    known_exporters,
    listed_target,
    unknown_type_hint,
)
from clan_discovery.model import DnsJob, Endpoint, Exporter, FrontKind, Json, Method, Pairs, ServerSettings
from clan_discovery.syntax.endpoint import is_address
from clan_discovery.syntax.labels import is_job, labels_complaint, parameter_complaint, path_complaint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clan_discovery.inventory.clan.options import SettingsReader
    from clan_discovery.inventory.clan.settings import Lists
    from clan_discovery.inventory.exporters import ExporterLookup

METHODS: Final[tuple[Method, ...]] = get_args(Method)
_RecordType = Literal["A", "AAAA", "SRV", "A+AAAA"]
RECORD_TYPES: Final[tuple[_RecordType, ...]] = get_args(_RecordType)

BACKENDS: Final = ("prometheus", "victoriametrics", "vmagent", "alloy")
"""The programs a server scrapes with; each is a known exporter, which gives its port."""

_COLLECTORS: Final[Mapping[str, Lists]] = {"disabledCollectors": True, "enabledCollectors": True, "extraFlags": True}
LISTS: Final[Mapping[str, Mapping[str, Lists]]] = {
    "server": {
        "additionalScrapeConfigs": True,
        "alertmanagers": True,
        "discoveryMethod": True,
        "dnsDiscovery": {"*": Submodule({"names": True})},
        "endpoints": True,
        "extraFlags": True,
        "firewallInterfaces": True,
        "forwardTo": True,
        "remoteRead": True,
        "remoteWrite": True,
        "ruleFiles": True,
        "rules": True,
        "scrapeConfigs": True,
        "staticTargets": {"*": True},
        "web": {"allow": True},
    },
    "exporter": {
        **_COLLECTORS,
        "exporters": {"*": Submodule(_COLLECTORS)},
        "firewallInterfaces": True,
        "needs": True,
        "units": True,
    },
    "front": {"auth": {"forward": {"headers": True}}, "firewallInterfaces": True, "receive": {"tokens": {"*": True}}},
    "agent": {"urls": True},
    "logs": {"firewallInterfaces": True},
    "alerting": {"firewallInterfaces": True, "mail": {"to": True}, "peers": True},
    "dashboards": {"datasources": True, "oidc": {"scopes": True}},
    "storage": {"firewallInterfaces": True},
}
"""The options that the service declares as lists, by role: their definitions concatenate.

`discoveryMethod` is a word or a list of them (lib.types.either): definitions of one kind merge as that kind does.
"""

FRONT_PORTS: Final[Mapping[FrontKind, int]] = {"caddy": 9180, "nginx": 9113, "traefik": 8082}
"""The ports on which the role `front` serves the metrics of each reverse proxy: never an admin API."""

_LOOPBACK: Final = re.compile(r"localhost|127\.[0-9.]+|\[?::1]?")
_PREFIX: Final = re.compile(r"(?:[a-z]+://[^/]*)?(/[^?#]*[^/?#])/*")
# Where NixOS modules of exporters keep the path (nixpkgs, services/monitoring/prometheus/exporters/*.nix).
_PATH_OPTIONS: Final = ("path", "telemetryPath", "metricsEndpoint", "metricsPath")
_JOB_CHARACTERS: Final = "letters, digits, '_', '-', '.'"
_EXPORTERS_HINT: Final = "exporters.node = {} for its defaults, enable = false for none"
_DNS_OPTIONS: Final = ("names", "type", "port")
_SECURITY: Final = ("none", "basic-auth", "tls")


class ExporterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """An exporter as the settings declare it.

    `exporter` is None if they say `enable = false`. `loopback` is a `listenAddress` that no other machine can reach.
    `host` is the address of the machine in `listenAddress`; empty: every address.
    """

    type: str
    exporter: Exporter | None
    nixos: bool
    loopback: str | None = None
    host: str = ""


def read_exporters(
    reader: SettingsReader, lookup: ExporterLookup, *, is_agent: bool = False
) -> tuple[ExporterSettings, ...]:
    """Read the exporters of one machine in role `exporter`.

    These are the type in `exporterType` and every key of `exporters`. If neither is set, it is the node exporter.
    Those of an agent (`is_agent`) are read on the machine itself: `security` does not apply to them.
    """
    reader.warn_of_misspelt(EXPORTER_OPTIONS)
    type_ = reader.settings.get("exporterType")
    if type_ is None and not reader.settings.get("exporters"):
        type_ = "node"
    security = _security(reader, is_agent=is_agent) or "none"
    found: list[ExporterSettings | None] = []
    if type_ is not None:
        found.append(_exporter(type_, "exporterType", reader, lookup, security))
    for name, own in _jobs(reader, "exporters", "exporters", _EXPORTERS_HINT):
        if name == type_:
            hint = "set it once: as `exporterType` with its settings, or as this key"
            reader.complain(f"exporters.{name}", f"`exporterType` says {name!r}, too", hint)
        own.warn_of_misspelt(EXPORTER_OPTIONS)
        _refuse_nested(name, own)
        own_security = _security(own, is_agent=is_agent) or security
        found.append(_exporter(name, "", own, lookup, own_security))
    return tuple(filter(None, found))


def _security(reader: SettingsReader, *, is_agent: bool) -> str | None:
    security = reader.word("security", _SECURITY, "security")
    if is_agent:
        return None
    return security


def _refuse_nested(type_: str, reader: SettingsReader) -> None:
    for option in ("exporterType", "exporters"):
        if reader.settings.get(option) not in (None, type_):
            reader.complain(option, f"does not belong here: the type is {type_!r}", "remove it")
    for option in OPTIONS:
        if reader.settings.get(option) is not None:
            reader.complain(option, "is a setting of the machine", "write it beside `exporters`")


def _jobs(reader: SettingsReader, option: str, of: str, hint: str) -> Iterator[tuple[str, SettingsReader]]:
    """Yield each job of an attribute set by name, with a reader of its own settings."""
    for name, settings in sorted(reader.attributes(option, of, hint).items()):
        if not isinstance(settings, Mapping):
            reader.complain(f"{option}.{name}", f"must be an attribute set, not {kind(settings)}", hint)
        elif _is_job(name, option, reader):
            yield name, reader.below(f"{option}.{name}", settings)


def _exporter(
    type_: Json, named_by: str, reader: SettingsReader, lookup: ExporterLookup, security: str
) -> ExporterSettings | None:
    """Read the settings of one exporter; `named_by` is the option that names its type."""
    if not isinstance(type_, str) or not is_job(type_):
        reader.complain(named_by, f"{shown(type_)} is not an exporter type", "for example: node")
        return None
    if reader.flag("enable") is False:
        return ExporterSettings(type=type_, exporter=None, nixos=False)
    port = reader.port()
    base = lookup(type_, port)
    if base is None:
        if reader.settings.get("port") is None:  # a wrong port is already a complaint
            hint = unknown_type_hint(type_, reader.suggester)
            reader.complain(named_by, f"unknown exporter type {type_!r} without a port", hint)
        return None
    exporter = Exporter(
        type=type_,
        port=base.port,
        path=_path(reader) or base.path,
        scheme=_scheme(reader, security) or base.scheme,
        params=_merged(base.params, _params(type_, reader)),
        labels=_merged(base.labels, _labels(reader)),
    )
    known = known_exporters().get(type_)
    nixos = known is not None and known.nixos
    loopback, host = _loopback(reader.settings), _host(reader.settings)
    return ExporterSettings(type=type_, exporter=exporter, nixos=nixos, loopback=loopback, host=host)


def _loopback(settings: Mapping[str, Json]) -> str | None:
    address = settings.get("listenAddress")
    return address if isinstance(address, str) and _LOOPBACK.fullmatch(address) else None


def _host(settings: Mapping[str, Json]) -> str:
    address = settings.get("listenAddress")
    host = address.removeprefix("[").removesuffix("]") if isinstance(address, str) else ""
    return host if is_address(host) and not ip_address(host).is_unspecified else ""


def _scheme(reader: SettingsReader, security: str) -> str | None:
    scheme = reader.word("scheme", ("http", "https"), "scheme")
    if security != "tls":
        return scheme
    if scheme == "http":
        reader.complain("scheme", "is http, but `security` is tls", "remove it")
    return "https"


def _merged(defaults: Pairs, own: Pairs) -> Pairs:
    return tuple(sorted({**dict(defaults), **dict(own)}.items()))


def _path(reader: SettingsReader) -> str | None:
    for option in _PATH_OPTIONS:
        path = reader.checked(option, "path", path_complaint)
        if path is not None:
            return path
    return None


def _params(type_: str, reader: SettingsReader) -> Pairs:
    """Read the URL parameters: `params`, and for a probe `target` and `module`.

    Prometheus takes one value for each.
    """
    params = dict(reader.strings("params"))
    for name in params:
        if complaint := parameter_complaint(name):
            reader.complain("params", complaint)
    known = known_exporters().get(type_)
    if known is not None and known.kind == "probe":
        for option in ("target", "module"):
            value = reader.string(option)
            if value is not None:
                params[option] = value
    return tuple(params.items())


def _labels(reader: SettingsReader) -> Pairs:
    labels = reader.strings("labels")
    if complaint := labels_complaint(dict(labels)):
        reader.complain("labels", complaint)
    return labels


def _is_job(name: str, option: str, reader: SettingsReader) -> bool:
    """Tell whether this is a valid job name; if not, add a complaint."""
    if is_job(name):
        return True
    reader.complain(option, f"{name!r} cannot be the name of a job", _JOB_CHARACTERS)
    return False


def read_own_metrics(reader: SettingsReader, lookup: ExporterLookup) -> ExporterSettings | None:
    """Read the metrics that one machine in role `server` serves about itself.

    They are a target if `scrapeServers` is true. None if the user has a job called `prometheus`, or if the server
    listens only on loopback, as Alloy does. The path is below that of `webExternalUrl`, as in Prometheus
    (cmd/prometheus/main.go, web.route-prefix). It counts as a NixOS exporter: the service sets up no server on darwin.
    """
    if not reader.flag("scrapeServers"):
        return None
    backend = reader.word("backend", BACKENDS, "backend") or BACKENDS[0]
    port = reader.port() or known_exporters()[backend].port
    is_local = backend == "alloy" or _loopback(reader.settings) is not None
    if is_local or _has_own_job(reader.settings):
        return None
    exporter = lookup("prometheus", port)
    if exporter is None:
        return None
    if backend == "prometheus":
        prefix = _PREFIX.fullmatch(str(reader.settings.get("webExternalUrl")))
        if prefix is not None:
            exporter = msgspec.structs.replace(exporter, path=f"{prefix[1]}{exporter.path}")
    return ExporterSettings(type="prometheus", exporter=exporter, nixos=True)


def read_front(reader: SettingsReader, lookup: ExporterLookup) -> ExporterSettings | None:
    """Read the metrics of the reverse proxy on one machine in role `front`; None if they are off."""
    kinds: tuple[FrontKind, ...] = tuple(FRONT_PORTS)
    kind_ = reader.word("kind", kinds, "reverse proxy") or kinds[0]
    own = reader.below("metrics", reader.attributes("metrics", "settings", "enable and port"))
    own.refuse_unknown(("enable", "port"), "known: enable and port")
    exporter = lookup(kind_, own.port() or FRONT_PORTS[kind_])
    if own.flag("enable") is False or exporter is None:
        return None
    return ExporterSettings(type=kind_, exporter=exporter, nixos=True)


def _has_own_job(settings: Mapping[str, Json]) -> bool:
    """Tell whether the user's own scrape configs have a job called `prometheus`."""
    lists = (settings.get("additionalScrapeConfigs"), settings.get("scrapeConfigs"))
    configs = chain.from_iterable(filter(is_list, lists))
    return any(attributes(config).get("job_name") == "prometheus" for config in configs)


def is_server(reader: SettingsReader) -> bool:
    """Tell whether a machine in role `server` is one: not if it has `enable = false`."""
    return reader.flag("enable") is not False


def read_server(reader: SettingsReader, lookup: ExporterLookup, *, instance: str, machine: str) -> ServerSettings:
    """Read the settings of one machine in role `server`."""
    return ServerSettings(
        instance=instance,
        machine=machine,
        auto_discovery=reader.flag("enableAutoDiscovery") is not False,
        discovery=_methods(reader),
        static_targets=tuple(_static_targets(reader, instance, lookup)),
        dns=tuple(_dns_jobs(reader)),
        additional_scrape_configs=_scrape_configs(reader),
    )


def _methods(reader: SettingsReader) -> tuple[Method, ...] | None:
    """Read `discoveryMethod`: a method or a list of methods, without duplicates."""
    value = reader.settings.get("discoveryMethod")
    if value is None:
        return None
    given = value if is_list(value) else [value]
    found: list[Method] = []
    for one in given:
        method = reader.one_of("discoveryMethod", one, METHODS, "discovery method")
        if method is not None and method not in found:
            found.append(method)
    if "none" in found and len(found) > 1:
        what = '"none" cannot be combined with other discovery methods'
        reader.complain("discoveryMethod", what, 'remove "none"')
    return tuple(found)


def _dns_jobs(reader: SettingsReader) -> Iterator[DnsJob]:
    for job, own in _jobs(reader, "dnsDiscovery", "jobs", 'for example: names = [ "..." ]'):
        before = len(reader.complaints)
        found = _dns_job(job, own)
        if len(reader.complaints) == before:
            yield found


def _dns_job(job: str, reader: SettingsReader) -> DnsJob:
    reader.refuse_unknown(_DNS_OPTIONS, "known: names, type and port")
    names = reader.elements("names", reader.settings.get("names"), "names")
    texts = tuple(name for name in names if isinstance(name, str))
    if len(texts) < len(names):
        reader.complain("names", "a name must be a string")
    port = reader.port()
    # Addresses have no port of their own: a job with a port asks for them, as in the service that clans use today.
    default: _RecordType = "SRV" if port is None else "A"
    type_ = reader.word("type", RECORD_TYPES, "type to ask for") or default
    return DnsJob(job=job, names=texts, type=type_, port=port)


def _static_targets(reader: SettingsReader, instance: str, lookup: ExporterLookup) -> Iterator[Endpoint]:
    for job, targets in reader.attributes("staticTargets", "lists").items():
        if not _is_job(job, "staticTargets", reader):
            continue
        option = f"staticTargets.{job}"
        because = f"inventory: instance {instance}, role server, {option}"
        for target in reader.elements(option, targets, "strings"):
            if not isinstance(target, str):
                reader.complain(option, f"{shown(target)} is no target", 'write "host:port"')
                continue
            try:
                host, exporter = listed_target(job, target, lookup)
            except TargetError as error:
                reader.complain(option, str(error), error.hint)
                continue
            yield Endpoint(host=host, exporter=exporter, machine=host, because=because, backend="inventory")


def _scrape_configs(reader: SettingsReader) -> tuple[Mapping[str, Json], ...]:
    option = "additionalScrapeConfigs"
    configs = reader.elements(option, reader.settings.get(option), "scrape configs")
    found = tuple(config for config in configs if isinstance(config, Mapping))
    if len(found) < len(configs):
        reader.complain(option, "an entry is not an attribute set")
    seen: set[Json] = set()
    for config in found:
        name = config.get("job_name")
        if not isinstance(name, str) or not name:
            reader.complain(option, "an entry has no job_name", "Prometheus needs one")
        elif name in seen:
            reader.complain(option, f"there are two jobs {name!r}", "Prometheus refuses two jobs of one name")
        seen.add(str(name))
    return found
