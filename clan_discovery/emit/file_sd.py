"""Write Prometheus file_sd JSON: one list per job, one group and line per target.

JSON, not YAML: a truncated JSON file never parses, so Prometheus keeps its targets.
"""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.model import Target  # noqa: TC001 - msgspec reads the annotations
from clan_discovery.syntax.target_file import EMPTY, file_number, join_targets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clan_discovery.model import Resolution

_HEAD: Final = b"[\n"
_TAIL: Final = b"\n]\n"
_BETWEEN: Final = b",\n"
_encode: Final = msgspec.json.Encoder(order="sorted").encode


class RenderedList(msgspec.Struct, frozen=True):
    """The list of one job: its targets, its bytes, and where the line of each target ends in them."""

    targets: list[Target]
    body: bytes
    ends: array[int]


class _Divided(msgspec.Struct, frozen=True):
    """The list of one job, the number of the file of each target (`output.split`), and the content of each file."""

    rendered: RenderedList
    numbers: array[int]
    parts: list[bytes]


class ListCache(msgspec.Struct):
    """The lists of the last cycle, by job, and those that were divided into files, in it and in the one before."""

    lists: dict[str, RenderedList] = {}
    _divided: dict[str, _Divided] = {}
    _before: dict[str, _Divided] = {}

    def replace(self, lists: dict[str, RenderedList]) -> None:
        """Keep the lists of a new cycle instead."""
        self.lists, self._divided, self._before = lists, {}, self._divided

    def divide(self, job: str, count: int) -> list[bytes]:
        """Return the content of each file of a job; only files with a changed target are made again."""
        divided = self._divided[job] = _divided(self.lists[job], count, self._before.pop(job, None))
        return divided.parts


def render_jobs(resolution: Resolution, cache: ListCache | None = None) -> dict[str, bytes]:
    """Return the target list of each job for this server, by job; a job without targets is `[]`.

    With `output.split`, `Split.files` divides the lists into files. The lines of targets that are the same objects as
    in the last cycle are copied from the `cache`, which then has the lists of this one.
    """
    targets: dict[str, list[Target]] = {job: [] for job in resolution.jobs}
    for target in resolution.published:
        targets.setdefault(target.job, []).append(target)
    if cache is None:
        return {job: join_targets(list(map(_line, of_job))) for job, of_job in sorted(targets.items())}
    known = cache.lists
    cache.replace({job: _rendered(of_job, known.get(job)) for job, of_job in sorted(targets.items())})
    return {job: rendered.body for job, rendered in cache.lists.items()}


def _rendered(targets: list[Target], before: RenderedList | None) -> RenderedList:
    """Render a list, with the lines of the list before."""
    if not targets or before is None or not before.targets:
        lines = list(map(_line, targets))
        sizes = (len(line) + len(_BETWEEN) for line in lines)
        places = list(accumulate(sizes, initial=len(_HEAD) - len(_BETWEEN)))
        return RenderedList(targets, join_targets(lines), array("Q", places[1:]))
    head = _same(targets, before.targets)
    if head == len(targets) == len(before.targets):
        return before
    tail = _same(targets[head:][::-1], before.targets[head:][::-1])
    return _changed(targets, before, head, len(before.targets) - tail)


def _changed(targets: list[Target], before: RenderedList, head: int, last: int) -> RenderedList:
    """Render a list; copy what is before the target `head` and from the target `last` of the list before."""
    old, body, ends = before.targets, before.body, before.ends
    # By id: the targets of before still exist.
    known = {id(old[n]): body[_start(ends, n) : ends[n]] for n in range(head, last)}
    between = targets[head : len(targets) - (len(old) - last)]
    lines = [known.get(id(target)) or _line(target) for target in between]
    whole = memoryview(body)
    kept = whole[_start(ends, 0) : _start(ends, head) - len(_BETWEEN)], whole[_start(ends, last) : -len(_TAIL)]
    parts: list[bytes | memoryview] = [kept[0], *lines, kept[1]]
    # Joined once: with 100,000 targets, a list has 76 MB.
    pieces: list[bytes | memoryview] = [_HEAD]
    for part in parts:
        if len(part) > 0:
            pieces += [part, _BETWEEN]
    pieces[-1] = _TAIL
    found = ends[:head]
    for line in lines:
        found.append(_start(found, len(found)) + len(line))
    shift = _start(found, len(found)) - _start(ends, last)
    found.extend([end + shift for end in ends[last:]])
    return RenderedList(targets, b"".join(pieces), found)


def _divided(rendered: RenderedList, count: int, before: _Divided | None) -> _Divided:
    """Divide a list as `Split.files` does."""
    if before is None or len(before.parts) != count:
        before = _Divided(RenderedList([], b"", array("Q")), array("H"), [EMPTY] * count)
    targets, old = rendered.targets, before.rendered.targets
    head = _same(targets, old)
    tail = _same(targets[head:][::-1], old[head:][::-1])
    numbers = array("H", [file_number(t.labels["machine"], count) for t in targets[head : len(targets) - tail]])
    lines: dict[int, list[bytes]] = {number: [] for number in (*before.numbers[head : len(old) - tail], *numbers)}
    numbers = before.numbers[:head] + numbers + before.numbers[len(old) - tail :]
    for index, number in enumerate(numbers):
        if number in lines:
            lines[number].append(rendered.body[_start(rendered.ends, index) : rendered.ends[index]])
    parts = list(before.parts)
    for number, of_file in lines.items():
        parts[number] = join_targets(of_file)
    return _Divided(rendered, numbers, parts)


def _same(some: Sequence[Target], others: Sequence[Target]) -> int:
    """Return how many targets at the beginning are the same objects."""
    different = (n for n, (one, other) in enumerate(zip(some, others, strict=False)) if one is not other)
    return next(different, min(len(some), len(others)))


def _start(ends: array[int], number: int) -> int:
    """Return where the line of a target begins."""
    return ends[number - 1] + len(_BETWEEN) if number else len(_HEAD)


def render_all(resolution: Resolution) -> bytes:
    """Return one target list over all jobs, with the label `job` on each group: what `show` prints."""
    return join_targets([_group(t.address, {**t.labels, "job": t.job}) for t in resolution.targets])


def _line(target: Target) -> bytes:
    return _group(target.address, target.labels)


def _group(address: str, labels: Mapping[str, str]) -> bytes:
    line = _encode({"targets": [address], "labels": labels})
    # vmagent expands %{NAME} from its environment in the text of a file (lib/envtemplate) before it parses it. The name
    # of an untrusted node must not read the environment. The escaped form is the same JSON.
    if b"%" in line:
        line = line.replace(b"%{", b"\\u0025{")
    return line
