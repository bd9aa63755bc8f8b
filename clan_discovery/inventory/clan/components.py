"""Find the programs of roles other than `exporter` and `front` that serve metrics of their own. Pure.

The NixOS modules of the service decide where these listen (nix/clan-service, nix/nixos/alerting); this follows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.inventory.clan.agents import LOGS_BACKENDS
from clan_discovery.inventory.clan.keys import ALERTING_OPTIONS, DASHBOARDS_OPTIONS
from clan_discovery.inventory.clan.options import SettingsReader
from clan_discovery.inventory.clan.service import BACKENDS, is_server
from clan_discovery.inventory.clan.storage import STORAGE, is_read_as_one
from clan_discovery.inventory.exporters import known_exporters
from clan_discovery.syntax.endpoint import LOOPBACK, is_loopback

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from clan_discovery.model import DeclaredRole, Json

SERVER: Final = "server"
_ROLES: Final = ("alerting", "dashboards", "logs", SERVER, STORAGE)


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """A program of a role on a machine. `address` is where it listens; empty: every address."""

    instance: str
    role: str
    machine: str
    type: str
    port: int
    address: str = LOOPBACK

    @property
    def is_local(self) -> bool:
        """Tell whether only its own machine reaches it."""
        return is_loopback(self.address)


def check_alerting(reader: SettingsReader) -> None:
    """Check the settings of one machine in role `alerting`."""
    reader.warn_of_misspelt(ALERTING_OPTIONS)
    reader.port()
    reader.string("listenAddress")


def check_dashboards(reader: SettingsReader) -> None:
    """Check the settings of one machine in role `dashboards`."""
    reader.warn_of_misspelt(DASHBOARDS_OPTIONS)
    reader.port()


def servers_of(roles: Sequence[DeclaredRole]) -> dict[str, Mapping[str, Json]]:
    """Return the settings of the machines in role `server`, by name, without those that have `enable = false`."""
    return {
        name: settings
        for role in roles
        if role.role == SERVER
        for name, settings in role.members.items()
        if settings.get("enable") is not False
    }


def components_of(roles: Sequence[DeclaredRole]) -> Iterator[Component]:
    """Yield the programs of all members of these roles. What is wrong in their settings is reported elsewhere."""
    # The role exporter may have 10,000 members.
    members = [
        (role, name, settings) for role in roles if role.role in _ROLES for name, settings in role.members.items()
    ]
    alerting = {name for role, name, _ in members if role.role == "alerting"}
    with_rules = _with_rules(roles)
    evaluating = _servers_of(roles, with_rules)
    with_vmalert = with_rules - {"prometheus"} if alerting else set[str]()
    for role, name, settings in members:
        is_alone = alerting == {name} >= evaluating
        found = _program(role.role, settings, is_alone=is_alone, with_vmalert=with_vmalert)
        if found is None:
            continue
        type_, port, address = found
        yield Component(
            instance=role.instance,
            role=role.role,
            machine=name,
            type=type_,
            port=port or known_exporters()[type_].port,
            address=address,
        )


def _program(
    role: str, settings: Mapping[str, Json], *, is_alone: bool, with_vmalert: Collection[str]
) -> tuple[str, int | None, str] | None:
    """Return type, port and address of a role's program; None if the role has none that is a target.

    `is_alone`: no other machine has an Alertmanager or evaluates rules, so that Alertmanager listens on loopback.
    `with_vmalert`: the backends of servers beside which a vmalert runs.
    """
    reader = SettingsReader(settings)
    match role:
        case "alerting":
            address = LOOPBACK if is_alone else ""
            return "alertmanager", reader.port(), _address(settings, address)
        case "dashboards":
            return "grafana", reader.port(), LOOPBACK
        case "logs":
            backend = reader.word("backend", LOGS_BACKENDS, "store of logs") or LOGS_BACKENDS[0]
            return backend, reader.port(), _address(settings, LOOPBACK)
        case "server" if _backend(settings) in with_vmalert:
            return "vmalert", None, LOOPBACK
        case "storage":
            return _store(settings, reader.port())
        case _:
            return None


def _store(settings: Mapping[str, Json], port: int | None) -> tuple[str, int | None, str] | None:
    """Return type, port and address of the program of a node; Thanos serves its own metrics on loopback."""
    match settings.get("engine", "victoriametrics"):
        case "victoriametrics":
            return "victoriametrics", port, _address(settings, "")
        case "thanos":
            return "thanos", None, LOOPBACK
        case _:
            return None


def _servers_of(roles: Sequence[DeclaredRole], backends: Collection[str]) -> set[str]:
    """Return the servers with one of these backends."""
    return {
        name
        for role in roles
        if role.role == SERVER
        for name, settings in role.members.items()
        if _backend(settings) in backends
    }


def _with_rules(roles: Sequence[DeclaredRole]) -> set[str]:
    """Return the backends of servers that evaluate rules, by themselves or by vmalert.

    vmagent evaluates none, but a vmalert reads what it writes to a storage.
    """
    stores = [settings for role in roles if role.role == STORAGE for settings in role.members.values()]
    if is_read_as_one(stores):
        return {"prometheus", "victoriametrics", "vmagent"}
    return {"prometheus", "victoriametrics"}


def _address(settings: Mapping[str, Json], default: str) -> str:
    """Return where a program listens, without brackets; empty: every address."""
    given = settings.get("listenAddress")
    if not isinstance(given, str):
        return default
    address = given.removeprefix("[").removesuffix("]")
    return "" if address in ("0.0.0.0", "::") else address  # noqa: S104 - it is compared


def _backend(settings: Mapping[str, Json]) -> str | None:
    """Return the backend of a server; None if it is switched off."""
    reader = SettingsReader(settings)
    if not is_server(reader):
        return None
    return reader.word("backend", BACKENDS, "backend") or BACKENDS[0]
