"""Read one exposed service: a port of a machine with metrics, a web interface, or both. Pure.

The NixOS option `services.clan-discovery.expose`, the settings of the role `exporter` and the JSON of exposed services
have the same attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, get_args

import msgspec

from clan_discovery.inventory.clan.decode import kind
from clan_discovery.inventory.clan.options import Complaint
from clan_discovery.inventory.exporters import idle_complaint
from clan_discovery.model import FRONT_AUTHS, Exclusion, Expected, Exporter, Front, Reason
from clan_discovery.syntax.endpoint import LOOPBACK
from clan_discovery.syntax.labels import is_job, labels_complaint, parameter_complaint, path_complaint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.inventory.clan.options import SettingsReader
    from clan_discovery.inventory.exporters import ExporterLookup
    from clan_discovery.model import Machine, Pairs

_Scheme = Literal["http", "https"]
_SCHEMES: Final[tuple[_Scheme, ...]] = get_args(_Scheme)
_OPTIONS: Final = ("port", "path", "scheme", "type", "labels", "params", "metrics", "loopback", "front")
_FRONT_OPTIONS: Final = ("domain", "path", "auth", "port", "scheme", "headers", "unbuffered")
_EXAMPLE: Final = "for example: expose.jellyfin.port = 8096"


class Exposed(msgspec.Struct, frozen=True, kw_only=True):
    """An exposed service: its exporter, its front, or both.

    `loopback`: it listens only there. The front belongs to no machine yet.
    """

    name: str
    exporter: Exporter | None
    front: Front | None
    loopback: bool = False

    def front_of(self, machine: str, because: str, where: str) -> Sequence[Front]:
        """Return its front on a machine, if it has one."""
        if self.front is None:
            return ()
        return (msgspec.structs.replace(self.front, machine=machine, because=because, where=where),)

    def target_of(self, machine: Machine, because: str, where: str, *, is_local: bool) -> Expected | Exclusion | None:
        """Return its exporter on a machine as a target, or why it is none; None if it has no metrics.

        A service on loopback is a target only if what scrapes it is on the same machine (`is_local`).
        """
        exporter = self.exporter
        if exporter is None:
            return None
        reason: Reason = "probe_without_target"
        detail = idle_complaint(exporter)
        if detail is None and self.loopback and not is_local:
            reason = "loopback"
            detail = f"{self.name} listens on loopback, which no other machine can reach"
        if detail is not None:
            return Exclusion(name=machine.name, reason=reason, detail=detail, by="inventory", job=exporter.type)
        host = LOOPBACK if self.loopback else ""
        return Expected(machine=machine, exporter=exporter, because=because, host=host, where=where)


def read_services(reader: SettingsReader, lookup: ExporterLookup) -> tuple[Exposed, ...]:
    """Read the setting `expose` of a machine: services by name. No two may serve the same metrics."""
    found: dict[str, Exposed] = {}
    served: dict[tuple[int, str, Pairs], str] = {}
    for name, settings in sorted(reader.attributes("expose", "services", _EXAMPLE).items()):
        if not isinstance(settings, Mapping):
            reader.complain(f"expose.{name}", f"must be an attribute set, not {kind(settings)}", _EXAMPLE)
            continue
        service = read_service(name, reader.below(f"expose.{name}", settings), lookup)
        if service is None:
            continue
        found[name] = service
        exporter = service.exporter
        if exporter is not None:
            first = served.setdefault((exporter.port, exporter.path, exporter.params), name)
            if first != name:
                reader.complain(f"expose.{name}", *same_port(first, exporter))
    return tuple(found.values())


def same_port(first: str, exporter: Exporter) -> tuple[str, str]:
    """Say that another service has the same metrics, and how to fix it."""
    what = f"{first!r} has the same port {exporter.port} and path {exporter.path}"
    return what, "set another `port`, or `metrics = false` for one of them"


def read_service(name: str, reader: SettingsReader, lookup: ExporterLookup) -> Exposed | None:
    """Read one exposed service; None if something is wrong, which is then a complaint."""
    before = len(reader.complaints)
    reader.refuse_unknown(_OPTIONS, f"known: {', '.join(_OPTIONS)}")
    port = reader.port()
    if reader.settings.get("port") is None:
        reader.complain("port", "is missing", "write the port on which the service listens")
    metrics = reader.flag("metrics") is not False
    exporter = _exporter(name, reader, lookup, port or 1)
    loopback = reader.flag("loopback") is True
    front = _front(name, reader, exporter, port or 1, loopback=loopback)
    if any(complaint.severity == "error" for complaint in reader.complaints[before:]):
        return None
    if metrics:
        return Exposed(name=name, exporter=exporter, front=front, loopback=loopback)
    if front is None:
        what = "has neither metrics nor a front"
        reader.complaints.append(Complaint(reader.path, what, "set `front`, or remove `metrics`", "warning"))
    return Exposed(name=name, exporter=None, front=front, loopback=loopback)


def _exporter(name: str, reader: SettingsReader, lookup: ExporterLookup, port: int) -> Exporter:
    type_ = reader.checked("type", "exporter type", _type_complaint) or name
    if not is_job(type_):
        reader.complain("", f"{name!r} cannot be the name of a job", "set `type`: letters, digits, '_', '-', '.'")
    params = dict(reader.strings("params"))
    for parameter in params:
        if complaint := parameter_complaint(parameter):
            reader.complain("params", complaint)
    labels = dict(reader.strings("labels"))
    if complaint := labels_complaint(labels):
        reader.complain("labels", complaint)
    base = lookup(type_, port) or Exporter(type=type_, port=port)
    return Exporter(
        type=type_,
        port=port,
        path=reader.checked("path", "path", path_complaint) or base.path,
        scheme=reader.word("scheme", _SCHEMES, "scheme") or base.scheme,
        params=_sorted({**dict(base.params), **params}),
        labels=_sorted({**dict(base.labels), **labels}),
    )


def _type_complaint(type_: str) -> str | None:
    if is_job(type_):
        return None
    return f"{type_!r} cannot be the name of a job: letters, digits, '_', '-', '.'"


def _sorted(pairs: Mapping[str, str]) -> Pairs:
    return tuple(sorted(pairs.items()))


def _front(name: str, reader: SettingsReader, exporter: Exporter, port: int, *, loopback: bool) -> Front | None:
    """Read the front of a service: its port and scheme are those of the metrics if it has none of its own."""
    settings = reader.settings.get("front")
    if settings is None:
        return None
    if not isinstance(settings, Mapping):
        reader.complain("front", f"must be an attribute set, not {kind(settings)}", 'for example: domain = "photos"')
        return None
    own = reader.below("front", settings)
    own.refuse_unknown(_FRONT_OPTIONS, f"known: {', '.join(_FRONT_OPTIONS)}")
    domain = own.checked("domain", "domain", _domain_complaint)
    if settings.get("domain") is None:
        own.complain("domain", "is missing", "write a name such as photos, or photos.example.org")
    own_port = own.port()
    scheme = own.word("scheme", _SCHEMES, "scheme")
    if scheme is None and own_port in (None, port) and exporter.scheme == "https":
        scheme = "https"
    return Front(
        service=name,
        domain=domain or "",
        machine="",
        port=own_port or port,
        because="",
        path=own.checked("path", "path", _front_path_complaint) or "/",
        scheme=scheme or "http",
        auth=own.word("auth", FRONT_AUTHS, "kind of auth") or "none",
        loopback=loopback,
        headers=_sorted(dict(own.strings("headers"))),
        unbuffered=own.flag("unbuffered") is True,
    )


def _domain_complaint(domain: str) -> str | None:
    if domain and domain.isprintable() and " " not in domain:
        return None
    return f"{domain!r} is not a domain"


def _front_path_complaint(path: str) -> str | None:
    if path.startswith("/"):
        return None
    return f"{path!r} is no path: a path starts with a slash"
