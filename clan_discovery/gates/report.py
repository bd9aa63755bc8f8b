"""Write judged boxes: as the JSON document of `gates.schema.json`, and as text for people. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from clan_discovery.gates.judge import AGAINST, RESULTS, STATES, exit_of
from clan_discovery.model import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clan_discovery.gates.evidence import Evidence
    from clan_discovery.gates.judge import BoxState, EvidenceResult, Gathered, JudgedBox
    from clan_discovery.syntax.terminal import Style

_STYLES: Final[Mapping[BoxState, Style]] = {"unticked": "yellow", "ticked": "plain", AGAINST: "red"}
_RESULTS: Final[Mapping[EvidenceResult, Style]] = {"holds": "plain", "contradicts": "red", "unknown": "yellow"}
_WIDEST: Final = max(map(len, RESULTS))


def gates_document(file: str, judged: Sequence[JudgedBox]) -> Mapping[str, object]:
    """Return the document that `gates.schema.json` describes."""
    states = Counter(box.state for box in judged)
    results = Counter(one.result for box in judged for _, one in box.gathered)
    return {
        "file": file,
        "boxes": [
            {
                "line": box.box.line,
                "text": box.box.text,
                "state": box.state,
                "evidence": [_evidence(evidence, one) for evidence, one in box.gathered],
            }
            for box in judged
        ],
        "summary": {
            "boxes": len(judged),
            "states": {state: states[state] for state in STATES},
            "evidence": {result: results[result] for result in RESULTS},
            "passes": not exit_of(judged),
        },
    }


def _evidence(evidence: Evidence, found: Gathered) -> Mapping[str, str]:
    return {"gate": evidence.text, "result": found.result, "what": found.what, "fix": _fix(found)}


def _fix(found: Gathered) -> str:
    if found.result == "holds":
        return ""
    return found.fix


def render_gates(file: str, judged: Sequence[JudgedBox]) -> Iterator[tuple[str, Style]]:
    """Yield lines: each box with its state, below it what was found, then the total."""
    for box in judged:
        yield f"{box.state}: {box.box.text} ({file}:{box.box.line})", _STYLES[box.state]
        for evidence, one in box.gathered:
            yield f"    {one.result.ljust(_WIDEST)}  {evidence.text}: {one.what}".rstrip(": "), _RESULTS[one.result]
            if fix := _fix(one):
                yield f"    {' ' * _WIDEST}  to fix: {fix}", _RESULTS[one.result]
    yield one_line(_total(judged)), "plain"


def _total(judged: Sequence[JudgedBox]) -> str:
    """Sum up in one line: `5 boxes: 3 ticked, 2 unticked; evidence: 2 holds, 1 contradicts`."""
    states = Counter(box.state for box in judged)
    results = Counter(one.result for box in judged for _, one in box.gathered)
    count = "1 box" if len(judged) == 1 else f"{len(judged)} boxes"
    total = f"{count}: {', '.join(f'{states[state]} {state}' for state in STATES if states[state])}"
    if results:
        said = ", ".join(f"{results[result]} {result}" for result in RESULTS if results[result])
        total = f"{total}; evidence: {said}"
    return total
