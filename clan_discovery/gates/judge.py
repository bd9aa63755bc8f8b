"""Judge the boxes of a checklist by their evidence. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from clan_discovery.errors import Exit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clan_discovery.gates.checklist import Box
    from clan_discovery.gates.evidence import Evidence

EvidenceResult: TypeAlias = Literal["holds", "contradicts", "unknown"]
BoxState: TypeAlias = Literal["unticked", "ticked", "ticked against the evidence"]
AGAINST: Final[BoxState] = "ticked against the evidence"
STATES: Final[tuple[BoxState, ...]] = ("ticked", AGAINST, "unticked")
RESULTS: Final[tuple[EvidenceResult, ...]] = ("holds", "contradicts", "unknown")


class Gathered(msgspec.Struct, frozen=True):
    """What was found for some evidence: whether it holds, in words, and what to do. Unknown: nothing could be found."""

    result: EvidenceResult
    what: str = ""
    fix: str = ""


class JudgedBox(msgspec.Struct, frozen=True):
    """A box, its state, and what was found for each evidence that it names."""

    box: Box
    state: BoxState
    gathered: tuple[tuple[Evidence, Gathered], ...] = ()


def judge_boxes(boxes: Sequence[Box], found: Mapping[Evidence, Gathered]) -> tuple[JudgedBox, ...]:
    """Return each box with its state."""
    return tuple(_judged(box, found) for box in boxes)


def _judged(box: Box, found: Mapping[Evidence, Gathered]) -> JudgedBox:
    gathered = tuple((evidence, found[evidence]) for evidence in box.evidence)
    state: BoxState = "unticked"
    if box.is_ticked:
        state = "ticked"
        if any(one.result == "contradicts" for _, one in gathered):
            state = AGAINST
    return JudgedBox(box, state, gathered)


def exit_of(judged: Sequence[JudgedBox]) -> Exit:
    """Return the exit code of `--require`.

    It is 0 only if a person ticked every box, and all evidence holds; 3 if evidence is unknown and nothing is against.
    """
    results = Counter(one.result for box in judged for _, one in box.gathered)
    if any(box.state != "ticked" for box in judged):
        return Exit.FINDINGS
    if results["unknown"]:
        return Exit.DEGRADED
    return Exit.OK
