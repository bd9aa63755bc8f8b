"""Write the config of vmauth: a user for each token, who may write to the stores under the name of one machine.

Query parameters of a URL below win over those of a client. vmauth limits no sizes and no methods.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from clan_discovery.emit.fronts.sites import MADE
from clan_discovery.emit.receive.stores import paths_without_store, store_paths, writable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clan_discovery.emit.receive.stores import StorePath
    from clan_discovery.model import AgentToken, Json, ReceiveSettings

_LOGS_PARAMETERS: Final = ("decolorize_fields", "preserve_json_keys", "debug")
_LOGS_HEADERS: Final = (
    "AccountID",
    "ProjectID",
    "VL-Debug",
    "VL-Decolorize-Fields",
    "VL-Extra-Fields",
    "VL-Ignore-Fields",
    "VL-Msg-Field",
    "VL-Preserve-JSON-Keys",
    "VL-Stream-Fields",
    "VL-Time-Field",
)
"""What a client could say to VictoriaLogs: removed."""
_NOWHERE: Final = "http://127.0.0.1:0/"
"""Nothing can listen there: vmauth answers with 502, and the agent sends again. Without a route it answers with 400."""


def render_vmauth_receiver(tokens: Sequence[AgentToken], receive: ReceiveSettings) -> str:
    """Return the users, as YAML that is also JSON."""
    paths = list(store_paths(receive))
    routes: list[Json] = []
    if unserved := paths_without_store(receive):
        routes.append({"src_paths": [*unserved], "url_prefix": _NOWHERE})
    users = [_user(token, paths, routes, receive.limits.connections) for token in writable(tokens)]
    return "\n".join([f"# {MADE} It holds secrets.", *_document(users)]) + "\n"


def _document(users: Sequence[Json]) -> Iterator[str]:
    """Yield a line for each user: two versions of the file differ where the users do."""
    if not users:  # vmauth refuses a file without users
        yield f'unauthorized_user: {{"url_map": [{{"src_paths": ["/-"], "url_prefix": "{_NOWHERE}"}}]}}'
        return
    yield "users:"
    for user in users:
        yield f"- {json.dumps(user)}"


def _user(token: AgentToken, paths: Sequence[StorePath], others: Sequence[Json], connections: int) -> dict[str, Json]:
    return {
        "bearer_token": token.token,
        "name": token.machine,
        "max_concurrent_requests": connections,
        "url_map": [*(_route(path, token.machine) for path in paths), *others],
    }


def _route(path: StorePath, machine: str) -> dict[str, Json]:
    query = path.query.replace("%s", machine)
    headers: list[str] = []
    if path.name == "logs" and not path.tenant:
        query += "".join(f"&{name}=" for name in _LOGS_PARAMETERS)
        headers = [f"{name}:" for name in _LOGS_HEADERS]
    if path.type and headers:
        headers.append(f"Content-Type: {path.type}")
    if path.tenant:
        headers.append(f"X-Scope-OrgID: {path.tenant.replace('%s', machine)}")
    route: dict[str, Json] = {"src_paths": [path.path], "url_prefix": f"{path.store}/?{query}".rstrip("?")}
    if headers:  # vmauth 1.79 knows none, and is enough for metrics
        route["headers"] = headers
    return route
