"""Read the roles `agent` and `logs` of the prometheus service: who sends metrics and logs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

from clan_discovery.inventory.clan.keys import AGENT_OPTIONS, LOGS_OPTIONS
from clan_discovery.model import Exporter

if TYPE_CHECKING:
    from clan_discovery.inventory.clan.options import SettingsReader

LogsBackend = Literal["victorialogs", "loki"]
LOGS_BACKENDS: Final[tuple[LogsBackend, ...]] = get_args(LogsBackend)
_PARTS: Final = {
    "token": ("file", "generation"),
    "queue": ("maxDiskUsage",),
    "logs": ("enable", "maxDiskUsage"),
}
"""The settings of the role `agent` that are attribute sets, and what is in them."""
_VMAGENT: Final = Exporter(type="vmagent", port=8429)
_VLAGENT: Final = Exporter(type="vlagent", port=9429)


def read_agent(reader: SettingsReader) -> bool | None:
    """Read the settings of one machine in role `agent`: whether it sends its logs; None if they do not say."""
    reader.warn_of_misspelt(AGENT_OPTIONS)
    sends_logs: bool | None = None
    for option, known in _PARTS.items():
        own = reader.below(option, reader.attributes(option, "settings", f"known: {' and '.join(known)}"))
        own.refuse_unknown(known, f"known: {' and '.join(known)}")
        if option == "logs":
            sends_logs = own.flag("enable")
    return sends_logs


def read_logs(reader: SettingsReader) -> LogsBackend:
    """Read the settings of one machine in role `logs`: what stores the logs."""
    reader.warn_of_misspelt(LOGS_OPTIONS)
    return reader.word("backend", LOGS_BACKENDS, "store of logs") or LOGS_BACKENDS[0]


def own_exporters(*, vlagent: bool) -> tuple[Exporter, ...]:
    """Return the programs of an agent, which it scrapes as well: vmagent, and vlagent if it sends logs with it."""
    if vlagent:
        return _VMAGENT, _VLAGENT
    return (_VMAGENT,)
