"""Evaluate relabel rules as Prometheus does (its package model/relabel). Pure.

Expressions are RE2, so a pattern of a foreign config cannot take exponential time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Json

_ANYTHING: Final = "(.*)"
_MOST_MEMORY: Final = 8 << 20
"""The most memory of one compiled expression, in bytes; a larger one is refused."""
_MOST_RULES: Final = 1000
_MOST_SOURCES: Final = 100
_MOST_TEMPLATE: Final = 4096
_MOST_LABELS: Final = 2000
_MOST_TEXT: Final = 16384
"""Each rule can double a value or the number of labels. A rule whose result would be larger changes nothing."""
_MOST_EXPRESSION: Final = 1 << 18
MOST_SIZE: Final = 1_000_000
"""The most instructions of all expressions of a job: they take 30 MB and some seconds to compile."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_:;/ @,=<>~-]*")
"""Patterns that match only themselves."""
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_REFERENCE: Final = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)\})")
_WITHOUT_REGEX: Final = ("hashmod", "lowercase", "uppercase", "keepequal", "dropequal")
_NEEDS_TARGET: Final = (*_WITHOUT_REGEX, "replace")
_DECIDING: Final = ("keep", "drop", "keepequal", "dropequal")
_OF_NAMES: Final = ("labelmap", "labeldrop", "labelkeep")
_ACTIONS: Final = (*_NEEDS_TARGET, *_DECIDING, *_OF_NAMES)

_Groups: TypeAlias = Mapping[str, str]
"""The groups of a match, by number and by name; `0` is the whole text."""
_Matches: TypeAlias = "Callable[[str], _Groups | None]"


class RelabelStep(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One rule of `relabel_configs`, with Prometheus's defaults."""

    source_labels: tuple[str, ...] = ()
    separator: str = ";"
    regex: str = _ANYTHING
    modulus: int = 0
    target_label: str = ""
    replacement: str = "$1"
    action: str = "replace"


class Relabelled(NamedTuple):
    """The labels after relabelling, without empty ones.

    If a rule drops the target, `dropped_by` is the rule's index, and `labels` are those that it saw.
    """

    labels: Mapping[str, str]
    dropped_by: int | None = None


class ExpressionError(ValueError):
    """An expression is invalid or too large."""


class Relabelling:
    """The rules of one job, compiled. `steps` are the rules in their order.

    `reads` are the only labels that matter to the rules; None: all do. `size` is the number of instructions of all
    expressions, which take 16 to 32 bytes each.

    Raises:
        ExpressionError: an expression is wrong. All other errors are found before one is compiled.
        ValueError: a rule is wrong. The message has its number.
    """

    def __init__(self, rules: Json) -> None:
        if not isinstance(rules, Sequence) or isinstance(rules, str) or len(rules) > _MOST_RULES:
            raise ValueError(f"relabel_configs must be a list of at most {_MOST_RULES} rules")
        steps = [_step(number, rule) for number, rule in enumerate(rules, 1)]
        self.size = 0
        self._compiled: list[tuple[RelabelStep, _Matches]] = []
        for number, step in enumerate(steps, 1):
            try:
                matches, size = _matcher(step.regex)
            except ExpressionError as error:
                raise ExpressionError(f"relabel rule {number}: {error}") from None
            self._compiled.append((step, matches))
            self.size += size
            if self.size > MOST_SIZE:
                raise ExpressionError(f"relabel rule {number}: the expressions are too large")
        self.reads: frozenset[str] | None = None

    def __bool__(self) -> bool:
        """Tell whether there are rules."""
        return bool(self._compiled)

    @property
    def steps(self) -> tuple[RelabelStep, ...]:
        """Return the rules."""
        return tuple(step for step, _ in self._compiled)

    def only(self, names: Collection[str]) -> Relabelling:
        """Return the rules that decide about the target or about these labels, in their order."""
        needed, kept = set(names), [pair for pair in self._compiled if pair[0].action in _OF_NAMES]
        if kept:
            return self
        for step, matches in reversed(self._compiled):
            if step.action in _DECIDING or step.target_label in needed or "$" in step.target_label:
                needed |= {step.target_label, *step.source_labels}
                kept.append((step, matches))
        reduced = Relabelling(())
        reduced._compiled = kept[::-1]
        reduced.reads = frozenset(needed)
        return reduced

    def apply(self, labels: Mapping[str, str]) -> Relabelled:
        """Return the labels of a target after all rules, or those that the rule sees that drops it."""
        after = dict(labels)
        for index, (step, matches) in enumerate(self._compiled):
            value = step.separator.join([after.get(name, "") for name in step.source_labels])
            if step.action not in _DECIDING:
                _change(step, matches, value, after)
            elif not _keeps(step, matches, value, after):
                return Relabelled(after, index)
        return Relabelled({name: value for name, value in after.items() if value})


def _step(number: int, rule: Json) -> RelabelStep:
    try:
        step = msgspec.convert(rule, RelabelStep, strict=False)
        step = msgspec.structs.replace(step, action=step.action.lower())
        if step.action not in _ACTIONS:
            raise ValueError(f"unknown action {step.action[:40]!r}")  # noqa: TRY301 - gets the rule's number below
        if step.action in _NEEDS_TARGET and not step.target_label:
            raise ValueError(f"{step.action} needs `target_label`")  # noqa: TRY301
        if step.action == "hashmod" and step.modulus < 1:
            raise ValueError("hashmod needs a `modulus` of at least 1")  # noqa: TRY301
        _check_length(step)
    except ValueError as error:
        raise ValueError(f"relabel rule {number}: {error}") from None
    return step


def _check_length(step: RelabelStep) -> None:
    if len(step.source_labels) > _MOST_SOURCES:
        raise ValueError(f"`source_labels` has more than {_MOST_SOURCES} labels")
    if len(step.regex) > _MOST_EXPRESSION:
        raise ValueError(f"the expression is longer than {_MOST_EXPRESSION} characters")
    if max(map(len, (step.separator, step.target_label, step.replacement))) > _MOST_TEMPLATE:
        raise ValueError(f"a text is longer than {_MOST_TEMPLATE} characters")


def _keeps(step: RelabelStep, matches: _Matches, value: str, labels: Mapping[str, str]) -> bool:
    """Tell whether a rule keeps the target with these labels."""
    match step.action:
        case "keep":
            return matches(value) is not None
        case "drop":
            return matches(value) is None
        case "keepequal":
            return labels.get(step.target_label, "") == value
        case _:
            return labels.get(step.target_label, "") != value


def _change(step: RelabelStep, matches: _Matches, value: str, labels: dict[str, str]) -> None:
    """Change the labels as a rule says."""
    match step.action:
        case "replace":
            _replace(step, matches(value), labels)
        case "hashmod":
            # The last 8 bytes of the MD5, as a big-endian number.
            digest = hashlib.md5(value.encode(), usedforsecurity=False).digest()
            labels[step.target_label] = str(int.from_bytes(digest[8:], "big") % step.modulus)
        case "lowercase" if len(value) <= _MOST_TEXT:
            labels[step.target_label] = value.lower()
        case "uppercase" if len(value) <= _MOST_TEXT:
            labels[step.target_label] = value.upper()
        case "labelmap" | "labeldrop" | "labelkeep":
            _change_names(step, matches, labels)
        case _:
            pass


def _change_names(step: RelabelStep, matches: _Matches, labels: dict[str, str]) -> None:
    """Copy or remove labels by their names."""
    for name, value in list(labels.items()):
        groups = matches(name)
        if step.action == "labelmap":
            if groups is not None and len(labels) < _MOST_LABELS and _is_short(step.replacement, groups):
                labels[_expanded(step.replacement, groups)] = value
        elif (groups is not None) is (step.action == "labeldrop"):
            del labels[name]


def _replace(step: RelabelStep, groups: _Groups | None, labels: dict[str, str]) -> None:
    if groups is None or not (_is_short(step.target_label, groups) and _is_short(step.replacement, groups)):
        return
    target = _expanded(step.target_label, groups)
    if _LABEL.fullmatch(target):
        labels[target] = _expanded(step.replacement, groups)


def _expanded(template: str, groups: _Groups) -> str:
    """Fill in `$1`, `${1}` and `${name}` as Go's regexp.Expand does; a group that does not exist is empty."""
    if "$" not in template:
        return template
    return _REFERENCE.sub(lambda found: found[1] or groups.get(found[2] or found[3], ""), template)


def _is_short(template: str, groups: _Groups) -> bool:
    """Tell whether a template cannot become a very long text; no group is longer than the whole match."""
    return len(template) + template.count("$") * len(groups["0"]) <= _MOST_TEXT


def check_expression(pattern: str) -> None:
    """Check a regular expression.

    Raises:
        ValueError: Prometheus cannot read it.
    """
    _matcher(pattern)


def _matcher(pattern: str) -> tuple[_Matches, int]:
    """Return the function that matches a whole text, and its size in instructions."""
    if pattern == _ANYTHING:
        return lambda text: {"0": text, "1": text}, 1
    if _PLAIN.fullmatch(pattern):
        return lambda text: {"0": text} if text == pattern else None, 1
    import re2  # noqa: PLC0415 - most configs have none of these patterns

    options = re2.Options()
    options.dot_nl, options.log_errors, options.max_mem = True, False, _MOST_MEMORY
    try:
        expression = re2.compile(pattern, options)
    except re2.error as error:
        why = error.args[0].decode(errors="replace")
        raise ExpressionError(f"invalid expression {pattern[:200]!r}: {why}") from None

    def matches(text: str) -> _Groups | None:
        found = expression.fullmatch(text)
        if found is None:
            return None
        numbered = {str(number): group for number, group in enumerate(found.groups(""), 1)}
        return {"0": text, **numbered, **found.groupdict("")}

    return matches, expression.programsize
