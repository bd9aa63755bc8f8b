"""Compare rule files with the rules that a program has loaded. Pure.

A rule is found by its group and its name: programs write its expression in another way than the file does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from clan_discovery.syntax.counting import first_names, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clan_discovery.model import Json
    from clan_discovery.verify.wire import About, LoadedRule

_NAMES_MOST: Final = 5
_FILES_MOST: Final = 3
_LONGEST: Final = 300
_KINDS: Final[tuple[Literal["alert", "record"], ...]] = ("alert", "record")


class RuleKey(NamedTuple):
    """What a rule is found by."""

    group: str
    kind: Literal["alert", "record"]
    name: str


class RuleFile(msgspec.Struct, frozen=True):
    """The rules of a file, and when it was changed; `problem` says why it is none that a program would load."""

    path: str
    rules: tuple[RuleKey, ...] = ()
    modified: float = 0.0
    problem: str = ""


class RulesVerdict(NamedTuple):
    """Whether all rules are loaded. If they are, `reason` is a note."""

    is_loaded: bool
    reason: str = ""
    fix: str = ""


def rule_file(path: str, text: str, modified: float, parse_yaml: Callable[[str], Json]) -> RuleFile:
    """Read the names of the rules in the text of a file."""
    try:
        return RuleFile(path, tuple(_rules(parse_yaml(text))), modified)
    except ValueError as error:
        return RuleFile(path, problem=str(error), modified=modified)


def _rules(document: Json) -> Iterator[RuleKey]:
    """Yield the rules of a document; raise ValueError if it is no rule file."""
    if document is None:
        return  # a file without rules is valid
    for number, group in enumerate(_list(document, "groups", "the file"), 1):
        name = group.get("name")
        if not isinstance(name, str) or not name:
            raise ValueError(f"group {number} has no `name`")
        for index, rule in enumerate(_list(group, "rules", f"group {name!r}"), 1):
            kinds: list[Literal["alert", "record"]] = [
                kind for kind in _KINDS if isinstance(rule.get(kind), str) and rule.get(kind)
            ]
            if len(kinds) != 1:
                raise ValueError(f"rule {index} of group {name!r} needs either `alert` or `record`")
            yield RuleKey(name, kinds[0], str(rule[kinds[0]]))


def _list(value: Json, key: str, what: str) -> Iterator[Mapping[str, Json]]:
    """Yield the mappings of a list below a key; an absent key is an empty list."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} is not a mapping with `{key}`")  # noqa: TRY004 - the file is wrong, not the type
    items = value.get(key)
    if items is None:
        return
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise ValueError(f"`{key}` of {what} is not a list")  # noqa: TRY004
    for item in items:
        if not isinstance(item, Mapping):
            raise ValueError(f"`{key}` of {what} has an entry that is not a mapping")  # noqa: TRY004
        yield item


def judge_rules(files: Sequence[RuleFile], loaded: Sequence[LoadedRule], about: About, key: str) -> RulesVerdict:
    """Say whether a program has loaded and can evaluate all rules of some files. `key` is its place in the config."""
    reasons: list[str] = []
    fixes: dict[str, None] = {}
    if about.reload_failed:
        reasons.append("its last reload failed: it evaluates older rules")
        fixes[_fix_reload(files, about)] = None
    left = Counter(RuleKey(rule.group, rule.kind, rule.name) for rule in loaded)
    absent: list[str] = []
    for file in files:
        what, fix = _missing(file, left, about, key)
        left.subtract(file.rules)
        if what:
            absent.append(what)
            fixes[fix] = None
    if absent and not loaded:
        reasons.append("it has no rules")
    reasons += absent[:_FILES_MOST]
    if len(absent) > _FILES_MOST:
        reasons.append(f"the same of {plural(len(absent) - _FILES_MOST, 'more file')}")
    if failing := _failing(files, loaded):
        reasons.append(failing)
        fixes["compare its expression with the series that it reads; see the log of the program"] = None
    if reasons:
        return RulesVerdict(is_loaded=False, reason="; ".join(reasons), fix="; ".join(list(fixes)[:_FILES_MOST]))
    return _note(files, about)


def _missing(file: RuleFile, loaded: Mapping[RuleKey, int], about: About, key: str) -> tuple[str, str]:
    """Say which rules of a file are not loaded, and what to do; empty if all are."""
    path = quote(file.path)
    if file.problem:
        return f"{file.path}: {file.problem}", f"promtool check rules {path}"
    counts = Counter(file.rules)
    missing = [rule for rule, count in counts.items() if loaded.get(rule, 0) < count]
    if not missing:
        return "", ""
    if len(missing) == len(counts):
        return f"no rule of {file.path} is loaded", _fix_file(file, about, key)
    names = first_names([f"{rule.kind} {rule.name}" for rule in missing], _NAMES_MOST)
    what = f"{len(missing)} of {plural(len(counts), 'rule')} of {file.path} are not loaded: {names}"
    return what, f"reload the program; if that fails: {_check(path, about)}"


def _fix_file(file: RuleFile, about: About, key: str) -> str:
    match about.kind:
        case "prometheus":
            return f"rule_files: [{file.path}] in its config; then reload it"
        case "vmalert":
            return f"start it with -rule={quote(file.path)}, or reload it"
        case "victoriametrics":
            return f"{key}.url: VictoriaMetrics evaluates no rules; write the URL of vmalert"
        case _:
            return f"{key}.url: is that the program that evaluates the rules? Then let it read {file.path}"


def _fix_reload(files: Sequence[RuleFile], about: About) -> str:
    paths = " ".join(quote(file.path) for file in files[:_FILES_MOST])
    log = "see its log: journalctl -u prometheus -n 20"
    if about.kind == "vmalert":
        log = "see its log"
    return f"{_check(paths, about)}; {log}"


def _check(paths: str, about: About) -> str:
    """Return the command that checks rule files."""
    if about.kind == "vmalert":
        return f"vmalert -dryRun -rule={paths.replace(' ', ' -rule=')}"
    return f"promtool check rules {paths}"


def _failing(files: Sequence[RuleFile], loaded: Sequence[LoadedRule]) -> str:
    """Say which rules of the files cannot be evaluated; empty if all can."""
    ours = {rule for file in files for rule in file.rules}
    failing = [rule for rule in loaded if rule.error and RuleKey(rule.group, rule.kind, rule.name) in ours]
    if not failing:
        return ""
    names = first_names([f"{rule.kind} {rule.name}" for rule in failing], _NAMES_MOST)
    return f"{plural(len(failing), 'rule')} cannot be evaluated: {names}: {failing[0].error[:_LONGEST]}"


def _note(files: Sequence[RuleFile], about: About) -> RulesVerdict:
    """Return the verdict on files whose rules are all loaded, perhaps in an older version."""
    newer = [file.path for file in files if 0 < about.reloaded_at < file.modified]
    if not newer:
        return RulesVerdict(is_loaded=True)
    reason = f"changed after its last reload: {first_names(newer, _FILES_MOST)}"
    return RulesVerdict(is_loaded=True, reason=reason, fix="reload it: systemctl reload prometheus")
