"""Read the filters in the query of a URL, and select the machines that match them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clan_discovery.model import MachineStatus

PER_PAGE: Final = 100
_LONGEST: Final = 200
"""The longest value of a filter, in characters."""
_PAGES_MOST: Final = 100_000


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """The filters of a list of machines. An empty one accepts everything; `q` is searched for in all columns."""

    q: str = ""
    state: str = ""
    job: str = ""
    verdict: str = ""
    page: int = 1

    @property
    def is_filter(self) -> bool:
        """Tell whether some machines may be left out."""
        return any((self.q, self.state, self.job, self.verdict))

    @property
    def text(self) -> str:
        """Return the query part of a URL with these filters; empty if there are none."""
        found = {name: value for name, value in msgspec.structs.asdict(self).items() if value not in ("", 1)}
        if not found:
            return ""
        return f"?{urlencode(found, errors='replace')}"

    def at(self, page: int) -> Query:
        """Return the same filters for another page."""
        return msgspec.structs.replace(self, page=page)


class Selected(msgspec.Struct, frozen=True, kw_only=True):
    """One page of the machines that match; `total` is how many match."""

    machines: Sequence[MachineStatus]
    total: int
    page: int
    pages: int

    @property
    def first(self) -> int:
        """The number of the first machine on this page, counted from 1."""
        return (self.page - 1) * PER_PAGE + 1

    @property
    def last(self) -> int:
        """The number of the last machine on this page."""
        return self.first + len(self.machines) - 1


def read_query(values: Mapping[str, str]) -> Query:
    """Read the filters; a page that is not a number is the first one."""
    words = {name: values.get(name, "")[:_LONGEST].strip() for name in ("q", "state", "job", "verdict")}
    page = values.get("page", "1")
    number = 1
    if page.isascii() and page.isdecimal() and len(page) <= len(str(_PAGES_MOST)):
        number = max(int(page), 1)
    return Query(q=words["q"], state=words["state"], job=words["job"], verdict=words["verdict"], page=number)


def matching(machines: Sequence[MachineStatus], query: Query) -> Sequence[MachineStatus]:
    """Return the machines that match all filters, in their order."""
    if not query.is_filter:
        return machines
    words = query.q.casefold().split()
    return [machine for machine in machines if _matches(machine, query, words)]


def paginated(machines: Sequence[MachineStatus], page: int) -> Selected:
    """Return one page of machines; the last one if there are fewer pages."""
    pages = max(1, -(-len(machines) // PER_PAGE))
    page = min(page, pages)
    part = machines[(page - 1) * PER_PAGE : page * PER_PAGE]
    return Selected(machines=part, total=len(machines), page=page, pages=pages)


def _matches(machine: MachineStatus, query: Query, words: Sequence[str]) -> bool:
    targets = machine.targets
    if query.state not in ("", machine.state, *(target.state for target in targets)):
        return False
    if query.job not in ("", *(target.job for target in targets)):
        return False
    if query.verdict not in ("", *(target.verdict for target in targets)):
        return False
    return not words or _has_words(machine, words)


def _has_words(machine: MachineStatus, words: Sequence[str]) -> bool:
    """Tell whether every word is somewhere in the columns."""
    parts = [machine.name, machine.state, machine.reason]
    for target in machine.targets:
        parts += (target.job, target.instance, target.address, target.backend, target.state, target.verdict or "")
    text = "\n".join(parts).casefold()
    return all(word in text for word in words)
