"""What a receiver passes to stores: the paths, and what forces the name of the machine. Pure.

The name is forced by the query, which no client sends: a store also reads query parameters from a body that calls
itself a form, so the type of the body is set, too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clan_discovery.model import AgentToken, ReceiveSettings

METRICS_TYPE: Final = "application/x-protobuf"
PUSHED: Final = "clan_pushed"
"""A label of all that agents send. Alert rules on clan-discovery's own metrics do not read what has it."""
LOGS_TYPE: Final = "application/stream+json"
_INGESTION: Final = ("/api/v1/write", "/insert/jsonline", "/loki/api/v1/push")
_LOGS_QUERY: Final = (
    "extra_fields=machine=%s&_stream_fields=machine,_SYSTEMD_UNIT&ignore_fields=_stream,_stream_id"
    "&_time_field=__REALTIME_TIMESTAMP,_time&_msg_field=_msg"
)
"""Without `ignore_fields`, an entry could show another stream than its own.

vlagent sends the journal's time field, and no `_time`.
"""
_SAFE: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")


class StorePath(NamedTuple):
    """A path that agents send to, and the store behind it.

    In `query` and `tenant`, `%s` is the machine. `tenant` is the one of Loki, which cannot force a label; empty where
    the query forces the name. `type` is the type of the body; empty where the client says which of several it is.
    """

    name: str
    path: str
    store: str
    query: str = ""
    type: str = ""
    tenant: str = ""


def store_paths(receive: ReceiveSettings) -> Iterator[StorePath]:
    """Yield the paths of the stores that there are."""
    if receive.metrics:
        query = f"extra_label=machine=%s&extra_label=instance=%s&extra_label={PUSHED}=true"
        yield StorePath("metrics", "/api/v1/write", receive.metrics, query, METRICS_TYPE)
    if receive.logs and receive.logs_kind == "victorialogs":
        yield StorePath("logs", "/insert/jsonline", receive.logs, _LOGS_QUERY, LOGS_TYPE)
    if receive.logs and receive.logs_kind == "loki":
        yield StorePath("logs", "/loki/api/v1/push", receive.logs, tenant="%s")


def paths_without_store(receive: ReceiveSettings) -> list[str]:
    """Return the paths that agents may send to, though there is no store behind them.

    They need an answer that makes an agent send again: it drops what is refused with 400, and vlagent with 404, too.
    """
    stored = {path.path for path in store_paths(receive)}
    return [path for path in _INGESTION if path not in stored]


def writable(tokens: Sequence[AgentToken]) -> list[AgentToken]:
    """Return the tokens of machines whose name means nothing to a proxy, a URL or a store."""
    return [token for token in tokens if is_writable(token.machine)]


def is_writable(machine: str) -> bool:
    """Tell whether a machine's name can be forced: letters, digits, and `_.-` inside."""
    return _SAFE.fullmatch(machine) is not None
