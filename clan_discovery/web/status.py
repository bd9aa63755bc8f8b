"""Answer requests for the status page, its parts, and the same data as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from clan_discovery.web.pages import icon, render_fleet, render_machine, render_message, stylesheet
from clan_discovery.web.query import matching, paginated, read_query

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clan_discovery.model import FleetStatus, MachineDetail
    from clan_discovery.web.site import MachineStatuses, Site

_HTML: Final = "text/html; charset=utf-8"
_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"
_NO_CYCLE: Final = b"no refresh cycle has succeeded yet: see the log\n"


class PageRequest(NamedTuple):
    """What is asked for: the path, the query, and the name of a machine; it is in the query if no path can have it."""

    path: str
    query: Mapping[str, str]
    name: str | None = None


class Answer(NamedTuple):
    """What is answered."""

    body: bytes
    content_type: str
    status: int = 200


def _statuses(site: Site) -> MachineStatuses | None:
    """Return the newest statuses; None before the first cycle."""
    if site.statuses is None:
        return None
    return site.statuses.get()


def _fleet(asked: PageRequest, site: Site) -> Answer:
    statuses = _statuses(site)
    if statuses is None:
        return _unready()
    fleet, query = statuses.fleet, read_query(asked.query)
    selected = paginated(matching(fleet.machines, query), query.page)
    return Answer(render_fleet(fleet, query, selected, failing=site.health()), _HTML)


def _machine(asked: PageRequest, site: Site) -> Answer:
    statuses, root = _statuses(site), _root(asked.path)
    if statuses is None:
        return _unready(root)
    found = _found(statuses, asked.name)
    if found is None:
        page = render_message("There is no such machine", _unknown(asked.name), root=root)
        return Answer(page, _HTML, 404)
    fleet, detail = found
    return Answer(render_machine(fleet, detail, failing=site.health(), root=root), _HTML)


def _fleet_json(asked: PageRequest, site: Site) -> Answer:
    """Answer with all machines that match; with `page`, one page of them."""
    statuses = _statuses(site)
    if statuses is None:
        return Answer(_NO_CYCLE, _TEXT, 503)
    query = read_query(asked.query)
    machines = matching(statuses.fleet.machines, query)
    total = len(machines)
    if "page" in asked.query:
        machines = paginated(machines, query.page).machines
    return Answer(statuses.fleet_json(machines, total), _JSON)


def _machine_json(asked: PageRequest, site: Site) -> Answer:
    statuses = _statuses(site)
    if statuses is None:
        return Answer(_NO_CYCLE, _TEXT, 503)
    found = _found(statuses, asked.name)
    if found is None:
        body = f"{_unknown(asked.name)}\n".encode("utf-8", "backslashreplace")
        return Answer(body, _TEXT, 404)
    return Answer(statuses.machine_json(found[1]), _JSON)


def _found(statuses: MachineStatuses, name: str | None) -> tuple[FleetStatus, MachineDetail] | None:
    if name is None:
        return None
    detail = statuses.machine(name)
    if detail is None:
        return None
    return statuses.fleet, detail


def _unknown(name: str | None) -> str:
    if name is None:
        return "Write /machines/NAME, or /machines/?name=NAME."
    return f"{name[:100]!r} is neither declared nor seen."


def _root(path: str) -> str:
    """Return the way from a page to the first one; relative, so that a proxy may serve all pages below a path."""
    return "../" * (path.count("/") - 1)


def _unready(root: str = "") -> Answer:
    page = render_message("Not ready yet", "No refresh cycle has succeeded yet: see the log.", root=root)
    return Answer(page, _HTML, 503)


def _stylesheet(asked: PageRequest, site: Site) -> Answer:
    del asked, site
    return Answer(stylesheet(), "text/css; charset=utf-8")


def _icon(asked: PageRequest, site: Site) -> Answer:
    del asked, site
    return Answer(icon(), "image/svg+xml")


ANSWERS: Final[Mapping[str, Callable[[PageRequest, Site], Answer]]] = {
    "/": _fleet,
    "/machines/": _machine,
    "/machines/<path:name>": _machine,
    "/page.css": _stylesheet,
    "/icon.svg": _icon,
    "/api/v1/machines": _fleet_json,
    "/api/v1/machines/": _machine_json,
    "/api/v1/machines/<path:name>": _machine_json,
}
"""The answer for each route."""
