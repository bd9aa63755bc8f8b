"""Render the status of all machines, and of one, as HTML. The only user of Jinja."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from clan_discovery import __version__
from clan_discovery.model import WORST_FIRST, MachineStatus, TargetStatus, Verdict, one_line, placed, span
from clan_discovery.syntax.endpoint import split_endpoint
from clan_discovery.syntax.instant import minute, rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clan_discovery.model import FleetStatus, MachineDetail
    from clan_discovery.web.query import Query, Selected

_HERE: Final = Path(__file__).parent
_NAME_MOST: Final = 255
"""The longest name that is shown whole and has a link: that of a DNS name."""

_LOOKS: Final[Mapping[str, str]] = {
    "seen": "good",
    "pushed": "good",
    "declared": "good",
    "up": "good",
    "offline": "idle",
    "excluded": "idle",
    "pending": "idle",
    "kept": "warn",
    "held": "warn",
    "unknown": "warn",
    "stray": "warn",
}
"""The look of each state and verdict; every other one is bad."""


def render_fleet(fleet: FleetStatus, query: Query, selected: Selected, *, failing: str) -> bytes:
    """Return the page with all machines. `failing` says why refresh cycles fail; empty while they do not."""
    return _rendered("fleet.html", fleet=fleet, query=query, found=selected, failing=failing, now=fleet.at, root="")


def render_machine(fleet: FleetStatus, detail: MachineDetail, *, failing: str, root: str = "../") -> bytes:
    """Return the page of one machine; `root` leads from it to the first page."""
    return _rendered("machine.html", fleet=fleet, machine=detail, failing=failing, now=fleet.at, root=root)


def render_message(title: str, text: str, *, root: str = "") -> bytes:
    """Return a page that says why there is no other: an unknown machine, or no refresh cycle yet."""
    return _rendered("message.html", title=title, text=text, root=root)


@cache
def stylesheet() -> bytes:
    """Return the style sheet."""
    return (_HERE / "templates/page.css").read_bytes()


@cache
def icon() -> bytes:
    """Return the icon (SVG)."""
    return (_HERE / "templates/icon.svg").read_bytes()


@cache
def _templates() -> jinja2.Environment:
    """Return the templates. Every value is escaped twice: control characters as in a terminal, then for HTML."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        auto_reload=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )


def _rendered(name: str, **values: object) -> bytes:
    """Render a template with these values, and with the functions that templates call."""
    functions: dict[str, object] = {
        "cut": _cut,
        "minute": minute,
        "has_page": has_page,
        "look": _look,
        "machine_url": machine_url,
        "placed": placed,
        "places": _places,
        "rfc3339": rfc3339,
        "span": span,
        "verdicts": _verdicts,
        "version": __version__,
    }
    page = _templates().get_template(name, globals=functions).render(values)
    return page.encode("utf-8", "backslashreplace")


def _printable(value: object) -> object:
    """Escape what cannot be printed: control characters, and those that change the direction of text."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return one_line(value)
    return value


def has_page(name: str) -> bool:
    """Tell whether a machine's page can be reached by a link."""
    return len(name) <= _NAME_MOST


def machine_url(name: str) -> str:
    """Return the address of a machine's page below the first page.

    A name that is not that of a host is in the query: browsers and proxies change paths with `..` or `/`.
    """
    if name.strip(".") and name.replace("-", "").replace("_", "").replace(".", "").isalnum() and name.isascii():
        return f"machines/{name}"
    return f"machines/?name={quote(name, safe='', errors='backslashreplace')}"


def _cut(text: str, most: int = _NAME_MOST) -> str:
    if len(text) <= most:
        return text
    return f"{text[:most]}…"


def _look(word: str) -> str:
    return _LOOKS.get(word, "bad")


def _places(machine: MachineStatus) -> list[tuple[str, str]]:
    """Return where a machine is: each host of its targets once, with the backend that says so."""
    found: dict[tuple[str, str], None] = {}
    for target in machine.targets:
        found.setdefault((_host(target), target.backend))
    return list(found)


def _host(target: TargetStatus) -> str:
    try:
        return split_endpoint(target.address)[0]
    except ValueError:
        return target.address


def _verdicts(machine: MachineStatus) -> list[tuple[Verdict, list[str]]]:
    """Return the verdicts on a machine's targets, the worst first, each with its jobs; without jobs if it is alone."""
    jobs: dict[Verdict, list[str]] = {}
    for target in machine.targets:
        if target.verdict is not None:
            jobs.setdefault(target.verdict, []).append(target.job)
    if len(jobs) == 1:
        return [(verdict, []) for verdict in jobs]
    return [(verdict, jobs[verdict]) for verdict in WORST_FIRST if verdict in jobs]
