"""Name, split, join and parse target files of file_sd, and recognise ours."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

MARK: Final = "__meta_clan_observed"
"""The label that every target of ours has."""
MOST_FILES: Final = 1024
"""The most files of a job."""
EMPTY: Final = b"[]\n"
_PART: Final = re.compile(r"(.+)\.(0|[1-9][0-9]{0,3})")
_BETWEEN: Final = b",\n"


class _Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    targets: list[str]
    labels: dict[str, str]


class _MachineLabel(msgspec.Struct, frozen=True):
    machine: str = ""


class _LabelledLine(msgspec.Struct, frozen=True):
    labels: _MachineLabel


_decode: Final = msgspec.json.Decoder(list[_Group]).decode
_decode_line: Final = msgspec.json.Decoder(_LabelledLine).decode


def parse_target_file(body: bytes) -> list[tuple[str, dict[str, str]]] | None:
    """Return the targets of a file of ours (address and labels); None if the file is not ours.

    A file without targets counts as ours, because nothing in it can be lost.
    """
    try:
        groups = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if any(MARK not in group.labels for group in groups):
        return None
    return [(address, group.labels) for group in groups for address in group.targets]


class Split(msgspec.Struct, frozen=True):
    """The number of target files of each job (1 to `MOST_FILES`): `by_job`, or `default`.

    The names of files are without the suffix. A job with one file has `<job>`, another one `<job>.0`, `<job>.1`, ...
    """

    default: int = 1
    by_job: dict[str, int] = {}

    def count(self, job: str) -> int:
        """Return the number of files of a job."""
        return self.by_job.get(job, self.default)

    def names(self, job: str) -> list[str]:
        """Return the names of all files of a job."""
        count = self.count(job)
        if count == 1:
            return [job]
        return [f"{job}.{number}" for number in range(count)]

    def name(self, job: str, machine: str) -> str:
        """Return the name of the file that has the targets of a machine."""
        count = self.count(job)
        if count == 1:
            return job
        return f"{job}.{file_number(machine, count)}"

    def pattern(self, job: str) -> str:
        """Return the name for a scrape config; it matches all files of a job."""
        return job if self.count(job) == 1 else f"{job}.*"

    def job_reading(self, name: str, jobs: Iterable[str]) -> str | None:
        """Return the job whose pattern matches a file that is not one of its files; None without such a job."""
        for job in jobs:
            if self.count(job) > 1 and name.startswith(f"{job}.") and name not in self.names(job):
                return job
        return None

    def files(
        self, lists: Mapping[str, bytes], divide: Callable[[str, int], Sequence[bytes]] | None = None
    ) -> dict[str, bytes]:
        """Return the content of each file, by name, from the list of each job.

        The files of a job are in the order in which they must be written: the last number first (see `file_number`).
        `divide` returns the parts of a job's list, for a caller that keeps them.
        """
        files: dict[str, bytes] = {}
        for job, body in lists.items():
            count = self.count(job)
            if count == 1:
                files[job] = body
                continue
            parts = _split(body, count) if divide is None else divide(job, count)
            files |= {f"{job}.{number}": parts[number] for number in reversed(range(count))}
        return files


def file_number(machine: str, count: int) -> int:
    """Return which of `count` files has the targets of a machine, by linear hashing.

    With one file more, a target stays where it is or moves into the new file (Litwin 1980). So if the last number is
    written first, and files beyond `count` are emptied last, no target is ever missing from all files, whatever counts
    were used before. The files have the same size if `count` is a power of two, else some are twice as large.
    """
    key = int.from_bytes(blake2b(machine.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
    bits = count.bit_length()
    number = key & ((1 << bits) - 1)
    if number >= count:
        number &= (1 << (bits - 1)) - 1
    return number


def _split(body: bytes, count: int) -> list[bytes]:
    """Divide a list that has one target in each line."""
    parts: list[list[bytes]] = [[] for _ in range(count)]
    if body != EMPTY:
        for line in body[2:-3].split(_BETWEEN):
            parts[file_number(_decode_line(line).labels.machine, count)].append(line)
    return [join_targets(part) for part in parts]


def join_targets(lines: list[bytes]) -> bytes:
    """Return the list of these targets; changes `lines`."""
    if not lines:
        return EMPTY
    # Brackets on the first and last line: a file of 10,000 targets has 8 MB, and is copied once.
    lines[0] = b"[\n" + lines[0]
    lines[-1] += b"\n]\n"
    return _BETWEEN.join(lines)


def join_files(bodies: Iterable[bytes]) -> bytes:
    """Return one list with the targets of files of ours; a single file is returned as it is."""
    bodies = list(bodies)
    if len(bodies) == 1:
        return bodies[0]
    lines: list[bytes] = []
    for body in bodies:
        start, end = body.find(b"{"), body.rfind(b"}")
        if start >= 0:
            lines.append(body[start : end + 1])
    return join_targets(lines)


def job_of_file(name: str, jobs: Container[str]) -> str:
    """Return the job whose targets a file has, by the name of the file without suffix.

    `node.3` is a file of `node`, unless `jobs` has a job of that name.
    """
    found = _PART.fullmatch(name)
    if found is None or name in jobs or int(found[2]) >= MOST_FILES:
        return name
    return found[1]
