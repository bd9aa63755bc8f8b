"""Read the scrape configs of a running scraper: which job reads which files, and how it relabels. Pure.

The config is not ours: what has an unexpected shape is left out, and a rule that is not understood is marked.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from clan_discovery.syntax.relabel import MOST_SIZE, ExpressionError, Relabelling

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from clan_discovery.model import Json, Target
    from clan_discovery.syntax.relabel import Relabelled, RelabelStep

_MOST_JOBS: Final = 10_000
_MOST_SIZE: Final = 2_000_000
"""The most instructions of all expressions: more could take hours to compile, and any memory."""
_MOST_PATTERN: Final = 1000
_FILE: Final = re.compile(r"(?:.*/)?([^/]+?)(?:\.\d+)?\.json")
_KNOWN_KEYS: Final = frozenset(
    {"action", "source_labels", "separator", "regex", "target_label", "replacement", "modulus"}
)


class HashmodShard(msgspec.Struct, frozen=True):
    """The share that a target belongs to: a number below `modulus`, None where it is not known."""

    number: str | None
    modulus: int


class Sharing(msgspec.Struct, frozen=True):
    """How a job shares its targets with other scrapers: the number of shards, and the pattern of those that it keeps.

    `labels` hold the result of the `hashmod` rule.
    """

    modulus: int
    kept: str
    labels: frozenset[str]


class ScrapeJob(msgspec.Struct, frozen=True, kw_only=True):
    """A scrape config: its name, the files and URLs that it reads, and what goes into the labels of its targets.

    `rules` is None if they cannot be evaluated here. `sharing` is None if the job takes all targets.
    """

    name: str
    files: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    defaults: Mapping[str, str] = {}
    rules: Relabelling | None = None
    sharing: Sharing | None = None

    def reads(self, job: str, names: Collection[str], directories: Sequence[str]) -> bool:
        """Tell whether it reads a target file in one of these directories, or this job by http_sd.

        `names` are files of the job, without suffix: one of them is enough.
        """
        if any(path_job(url) in (job, "") for url in self.urls):
            return True
        return next(self.matching(names, directories), None) is not None

    def matching(self, names: Collection[str], directories: Sequence[str]) -> Iterator[str]:
        """Yield those of its files and patterns that match a file of these names in one of these directories."""
        for pattern in self.files:
            directory, name = posixpath.split(posixpath.normpath(pattern))
            if (
                len(name) <= _MOST_PATTERN
                and any(fnmatchcase(f"{file}.json", name) for file in names)
                and (not directory.startswith("/") or directory in directories)
            ):
                yield pattern

    def labels_of(self, target: Target, file: str) -> dict[str, str]:
        """Return the labels that the scraper discovers for a target in this file, before relabelling."""
        return {
            "job": self.name,
            **self.defaults,
            "__meta_filepath": file,
            **target.labels,
            "__address__": target.address,
        }


class Outcome(msgspec.Struct, frozen=True):
    """What the rules of a job make of a target: its labels, or the rule that drops it, with its number from 1.

    `shard` is set if another scraper should have the target.
    """

    labels: Mapping[str, str]
    number: int = 0
    rule: RelabelStep | None = None
    shard: HashmodShard | None = None

    @property
    def rule_text(self) -> str:
        """The rule that drops the target, in one line."""
        if self.rule is None:
            return ""
        step = self.rule
        parts = [f"action: {step.action}"]
        if step.source_labels:
            parts.append(f"source_labels: [{', '.join(step.source_labels)}]")
        if step.regex != "(.*)":
            parts.append(f"regex: {step.regex[:_MOST_PATTERN]}")
        if step.target_label:
            parts.append(f"target_label: {step.target_label}")
        return f"{{{', '.join(parts)}}}"


def outcome(rules: Relabelling, sharing: Sharing | None, labels: Mapping[str, str]) -> Outcome:
    """Return what rules make of the labels of a target."""
    found: Relabelled = rules.apply(labels)
    if found.dropped_by is None:
        return Outcome(found.labels)
    step = rules.steps[found.dropped_by]
    shard = None
    if sharing is not None:
        for name in sharing.labels.intersection(step.source_labels):
            shard = HashmodShard(found.labels.get(name), sharing.modulus)
    return Outcome(found.labels, found.dropped_by + 1, step, shard)


@lru_cache(maxsize=4096)
def file_job(path: str) -> str:
    """Return the job of one of our target files, by its name; empty if it cannot be one."""
    found = _FILE.fullmatch(path)
    if found is None:
        return ""
    return found[1]


@lru_cache(maxsize=4096)
def path_job(url: str) -> str | None:
    """Return the job that a URL of http_sd serves; empty for all jobs, None if it is none of ours."""
    try:
        path = urlsplit(url).path.rstrip("/")
    except ValueError:
        return None
    if path.endswith("/sd"):
        return ""
    directory, _, job = path.rpartition("/")
    if directory.endswith("/sd"):
        return job
    return None


def scrape_jobs(config: Json, *, md5: bool = True) -> tuple[ScrapeJob, ...]:
    """Return the jobs of a config, in its order.

    `md5`: `hashmod` has the hash of Prometheus. That of VictoriaMetrics is not known here, so the rule that keeps its
    result is left out: whether a target is in the shard is not evaluated.
    """
    if not isinstance(config, Mapping):
        return ()
    entries = list(_mappings(config.get("scrape_configs")))
    found: list[ScrapeJob] = []
    left = _MOST_SIZE
    for entry in entries[:_MOST_JOBS]:
        job, size = _job(entry, md5=md5, compiles=left > 0)
        found.append(job)
        left -= size
    return tuple(found)


def _job(entry: Mapping[str, Json], *, md5: bool, compiles: bool) -> tuple[ScrapeJob, int]:
    """Return a job, and the size of its expressions."""
    rules = [_plain(rule) for rule in _mappings(entry.get("relabel_configs"))]
    sharing = _sharing(rules)
    if sharing is not None and not md5:
        rules = [rule for rule in rules if not sharing.labels.intersection(_texts(rule.get("source_labels")))]
    urls = tuple(_text(found.get("url")) for found in _mappings(entry.get("http_sd_configs")))
    files = tuple(file for found in _mappings(entry.get("file_sd_configs")) for file in _texts(found.get("files")))
    compiled, size = None, 0
    if compiles and (files or urls):  # other jobs read no target file
        compiled, size = _relabelling(rules)
    job = ScrapeJob(
        name=_text(entry.get("job_name")),
        files=files,
        urls=urls,
        defaults=_defaults(entry),
        rules=compiled,
        sharing=sharing,
    )
    return job, size


def _defaults(entry: Mapping[str, Json]) -> dict[str, str]:
    """Return the labels that a job gives to targets without them."""
    defaults = {
        "__scheme__": _text(entry.get("scheme")) or "http",
        "__metrics_path__": _text(entry.get("metrics_path")) or "/metrics",
    }
    params = entry.get("params")
    if isinstance(params, Mapping):
        defaults |= {f"__param_{name}": next(_texts(values), "") for name, values in params.items()}
    return defaults


def _plain(rule: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return a rule with scalars as text: YAML reads `regex: 0` as a number, and vmagent writes `a|b` as a list."""
    found = dict(rule)
    for key in ("action", "separator", "regex", "target_label", "replacement"):
        value = rule.get(key)
        if isinstance(value, bool | int | float):
            found[key] = _text(value)
        elif key == "regex" and value is not None:
            found[key] = "|".join(_texts(value))
    return found


def _sharing(rules: Sequence[Mapping[str, Json]]) -> Sharing | None:
    """Return how rules share targets: by a `hashmod` rule, and a rule that keeps some of its results."""
    labels: set[str] = set()
    modulus = 0
    for rule in rules:
        number = rule.get("modulus")
        if _text(rule.get("action")).lower() == "hashmod" and isinstance(number, int):
            labels.add(_text(rule.get("target_label")))
            modulus = number
        elif _text(rule.get("action")).lower() == "keep" and labels.intersection(_texts(rule.get("source_labels"))):
            return Sharing(modulus, _text(rule.get("regex")), frozenset(labels))
    return None


def _relabelling(rules: Sequence[Mapping[str, Json]]) -> tuple[Relabelling | None, int]:
    """Return compiled rules, and the size of their expressions.

    There are no rules if one is unknown to Prometheus, such as `if` and other actions of vmagent.
    """
    if any(not rule.keys() <= _KNOWN_KEYS for rule in rules):
        return None, 0
    try:
        found = Relabelling(rules)
    except ExpressionError:
        return None, MOST_SIZE
    except ValueError:
        return None, 0
    return found, found.size


def _mappings(value: Json) -> Iterator[Mapping[str, Json]]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        for part in value:
            if isinstance(part, Mapping):
                yield part


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Sequence):
        for part in value:
            yield _text(part)


def _text(value: Json) -> str:
    """Return a scalar as the text that it is in YAML; `regex: 0` is a pattern."""
    match value:
        case str():
            return value
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case _:
            return ""
