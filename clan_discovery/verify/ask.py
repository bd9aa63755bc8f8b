"""Ask all programs at once, each within its time limit, and judge. The only asker."""

from __future__ import annotations

import glob
import os
import posixpath
import re
import shlex
import time
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote

import msgspec

from clan_discovery.deadline import Deadline
from clan_discovery.model import Program, UnloadedRules, one_line
from clan_discovery.reading import UnreadableError, read_input, read_regular
from clan_discovery.syntax.secret import hide_in_urls
from clan_discovery.syntax.target_file import join_files
from clan_discovery.threads import Worker
from clan_discovery.verify import wire
from clan_discovery.verify.http import MOST_BYTES, AskError, get, key_of
from clan_discovery.verify.jobs import scrape_jobs
from clan_discovery.verify.judge import Situation, judge
from clan_discovery.verify.match import ScraperAnswer
from clan_discovery.verify.pushed import StoredSamples, key_of_target
from clan_discovery.verify.rules import RuleFile, judge_rules, rule_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from clan_discovery.model import Json, Resolution, Target, Verification
    from clan_discovery.verify.jobs import ScrapeJob
    from clan_discovery.verify.settings import AskedProgram, VerifySettings

Value = TypeVar("Value")

_MOST_TARGETS: Final = 64 * 1024 * 1024
_MOST_TARGET: Final = 4096
"""How large the list of targets may be: so much, and more for each expected target, which has 1 to 2 KB."""
_MOST_CONFIG: Final = 32 * 1024 * 1024
_MOST_SMALL: Final = 1024 * 1024
_MOST_DIRECTORIES: Final = 100
_MOST_RULES: Final = 4 * 1024 * 1024
_MOST_RULE_FILES: Final = 1000
_SPARE_S: Final = 1.0
_PAUSES_S: Final = (0.0, 0.5, 1.5)
_NO_MEMORY: Final = "not enough memory for its answer"
_QUERY: Final = "/api/v1/query?query="
IDENTITIES: Final = _QUERY + quote(
    "count by (job, instance, nodename, hostname) "
    '({__name__=~"node_uname_info|windows_cs_hostname|windows_os_hostname"})'
)
"""The names that machines give themselves."""
_KEPT: Final = "scrape_samples_post_metric_relabeling"
EMPTY: Final = _QUERY + quote(f'{{__name__=~"scrape_samples_scraped|{_KEPT}"}} == 0')
"""The targets without samples, and those whose samples are all dropped."""
NOW: Final = _QUERY + quote("max by (job, instance) (up)")
"""Whether each target is up now."""
_AGES: Final = {
    "victoriametrics": "max by (job, instance) (tlast_over_time(up{{instance=~{names}}}[{seconds:.0f}s]))",
    "": "max by (job, instance) "
    "(max_over_time(timestamp(last_over_time(up{{instance=~{names}}}[5m]))[{seconds:.0f}s:5m]))",
}
"""When the last sample of some instances was. Prometheus has no function for it: it looks every 5 minutes."""
RULES: Final = "/api/v1/rules?exclude_alerts=true"
"""The rules without what fires; older programs ignore the parameter."""
_LONGEST_QUERY: Final = 6000
"""How long the path of a query may be: proxies refuse 8 KiB."""


def verify(resolution: Resolution, settings: VerifySettings, now: datetime) -> Verification:
    """Ask the running programs, and compare them with a resolution.

    Asking takes `settings.timeout` and a second at most; so does evaluating relabel rules, where that is needed. It
    raises nothing that a program could cause.
    """
    if not settings.pushed:
        resolution = msgspec.structs.replace(resolution, pushed=())
    accesses = (*settings.scrapers, *settings.programs)
    found = _ask_all(accesses, settings, resolution)
    answers = [answer for answer in found if isinstance(answer, ScraperAnswer)]
    others = [answer for answer in found[len(settings.scrapers) :] if isinstance(answer, Program)]
    return judge(
        Situation(
            resolution=resolution,
            answers=_without_idle_guesses(answers, settings.scrapers),
            unasked=_unasked(settings.scrapers, found),
            others=others,
            mtimes=_mtimes(resolution.jobs, settings),
            split=settings.split,
            directories=_spellings(settings, answers),
            served=settings.served,
            now=now.timestamp(),
            silent_after=settings.silent_after,
            in_time=Deadline(settings.timeout).is_left,
        )
    )


def _spellings(settings: VerifySettings, answers: Sequence[ScraperAnswer]) -> tuple[str, ...]:
    """Return the paths of the directory of the target files: the config's, without symlinks, and those of scrapers."""
    if settings.directory is None:
        return ()
    home = os.path.realpath(settings.directory)
    files = (file for answer in answers for job in answer.jobs or () for file in job.files)
    others = dict.fromkeys(posixpath.dirname(posixpath.normpath(file)) for file in files)
    same = [path for path in list(others)[:_MOST_DIRECTORIES] if "\0" not in path and os.path.realpath(path) == home]
    return tuple(dict.fromkeys((str(settings.directory), home, *same)))


def _unasked(scrapers: Sequence[AskedProgram], found: Sequence[ScraperAnswer | Program]) -> list[Program]:
    """Return the scrapers that could not be asked; of those that are only looked for, one must be there."""
    pairs = list(zip(scrapers, found, strict=False))
    failed = [answer for access, answer in pairs if isinstance(answer, Program) and not access.is_guess]
    guesses = [answer for access, answer in pairs if isinstance(answer, Program) and access.is_guess]
    if failed or len(guesses) < len(scrapers):
        return failed
    told = "; ".join(f"{program.url}: {program.reason}" for program in guesses)
    reason = f"no scraper answers on this machine: {told}"
    fix = "verify: {scrapers: {NAME: {url: http://HOST:PORT}}}"
    return [Program(name="scraper", url="", ok=False, reason=reason, fix=fix)]


def _without_idle_guesses(answers: Sequence[ScraperAnswer], scrapers: Sequence[AskedProgram]) -> list[ScraperAnswer]:
    """Leave out default programs that scrape nothing, if another one scrapes; not a store that agents write to."""
    guesses = {access.name for access in scrapers if access.is_guess}
    busy = [answer for answer in answers if answer.name not in guesses or _is_busy(answer)]
    return busy or list(answers)


def _is_busy(answer: ScraperAnswer) -> bool:
    stored = answer.stored
    return bool(answer.jobs or answer.active or (stored is not None and (stored.up or stored.ages)))


def _mtimes(jobs: Sequence[str], settings: VerifySettings) -> dict[str, float]:
    """Return when each target file changed, by name; a file that cannot be looked at is left out.

    Without files, return when the history changed, by job.
    """
    if settings.directory is None:
        files = dict.fromkeys(jobs, settings.history)
    else:
        files = {name: settings.directory / f"{name}.json" for job in jobs for name in settings.split.names(job)}
    found: dict[str, float] = {}
    for name, file in files.items():
        with suppress(OSError, ValueError):
            if file is not None:
                found[name] = file.stat().st_mtime
    return found


def _ask_all(
    accesses: Sequence[AskedProgram], settings: VerifySettings, resolution: Resolution
) -> list[ScraperAnswer | Program]:
    """Ask all programs in parallel; return an answer or the reason why there is none, for each."""
    found: dict[int, ScraperAnswer | Program] = {}

    def asking(index: int, access: AskedProgram) -> Callable[[], None]:
        def work() -> None:
            found[index] = _asked(access, settings, resolution)

        return work

    end = time.monotonic() + settings.timeout + _SPARE_S
    workers = [Worker(asking(index, access)) for index, access in enumerate(accesses)]
    reasons = dict.fromkeys(range(len(workers)), f"no complete response within {settings.timeout:g} s")
    for index, worker in enumerate(workers):
        try:
            worker.start()
        except RuntimeError as error:
            reasons[index] = str(error)
    for index, worker in enumerate(workers):
        if worker.is_started:
            worker.join(max(end - time.monotonic(), 0))
            if not worker.is_alive():
                reasons[index] = _NO_MEMORY
    return [found.get(index) or _failed(access, reasons[index]) for index, access in enumerate(accesses)]


def _failed(access: AskedProgram, reason: str, fix: str = "") -> Program:
    kind = access.kind
    if kind == "clan-discovery":  # it has no URL in the config
        fix = f"systemctl status clan-discovery; curl -i {access.url}/healthz"
    return Program(
        name=access.name, url=access.url, kind="" if kind == "scraper" else kind, ok=False, reason=reason, fix=fix
    )


def _asked(access: AskedProgram, settings: VerifySettings, resolution: Resolution) -> ScraperAnswer | Program:
    deadline = Deadline(settings.timeout)
    try:
        if access.kind == "scraper":
            return _ask_scraper(access, settings, resolution, deadline)
        return _ask_program(access, settings, resolution.jobs, deadline)
    except AskError as error:
        return _failed(access, error.reason, error.fix)
    except wire.WireError as error:
        fix = f"{key_of(access)}.url: is that the URL of the program itself? curl -i {access.url}"
        return _failed(access, str(error), fix)
    except Exception as error:  # noqa: BLE001 - whatever a program answers ends its own question only
        return _failed(access, one_line(f"{type(error).__name__}: {error}")[:300], f"curl -i {access.url}")


def _ask_program(access: AskedProgram, settings: VerifySettings, jobs: Sequence[str], deadline: Deadline) -> Program:
    """Ask a program that scrapes nothing whether it is ready."""

    def body(path: str) -> bytes:
        return get(access, path, deadline)

    version = ""
    match access.kind:
        case "alertmanager":
            version = wire.alertmanager_version(body("/api/v2/status"))
        case "grafana":
            version = wire.grafana_version(body("/api/health"))
        case "loki":
            wire.plain_word(body("/ready"), "ready")
        case "victorialogs":
            wire.plain_word(body("/health"), "ok")
        case "rules":
            return _ask_rules(access, settings, deadline)
        case _:
            body("/healthz")
            for job in jobs:
                _check_list(job, body, settings)
    return Program(name=access.name, url=access.url, kind=access.kind, version=version)


def _ask_rules(access: AskedProgram, settings: VerifySettings, deadline: Deadline) -> Program:
    """Ask a program which rules it has loaded, and compare them with its files.

    Raises:
        AskError: it gives no answer, or a file cannot be read.
        WireError: its answer is something else.
    """
    loaded = wire.rules(get(access, RULES, deadline, _MOST_CONFIG))
    about = wire.About()
    with suppress(AskError):
        about = wire.about(get(access, "/metrics", deadline, _MOST_CONFIG))
    files = [_rule_file(access, file, settings.parse_yaml) for file in _rule_files(access)]
    found = judge_rules(files, loaded, about, key_of(access))
    made = Program if found.is_loaded else UnloadedRules
    return made(
        name=access.name,
        url=access.url,
        kind=access.kind,
        version=about.version,
        ok=found.is_loaded,
        reason=one_line(hide_in_urls(found.reason)),
        fix=one_line(found.fix),
    )


def loaded_rules(access: AskedProgram, timeout: float) -> list[wire.LoadedRule]:
    """Return the rules that a program has loaded.

    Raises:
        AskError: it gives no answer, or not that of the API.
    """
    try:
        return wire.rules(get(access, RULES, Deadline(timeout), _MOST_CONFIG))
    except wire.WireError as error:
        raise AskError(str(error)) from None


def _rule_files(access: AskedProgram) -> list[Path]:
    """Return the rule files, with those that a pattern matches; a pattern that matches none stays.

    Raises:
        AskError: there are too many.
    """
    found: dict[Path, None] = {}
    for file in access.files:
        matching = []
        if glob.has_magic(str(file)):
            matching = sorted(map(Path, islice(glob.iglob(str(file)), _MOST_RULE_FILES + 1)))  # noqa: PTH207 - absolute
        found |= dict.fromkeys(matching or [file])
    if len(found) > _MOST_RULE_FILES:
        raise AskError(f"more than {_MOST_RULE_FILES} rule files", f"{key_of(access)}.files: name fewer")
    return list(found)


def _rule_file(access: AskedProgram, file: Path, parse_yaml: Callable[[str], Json]) -> RuleFile:
    """Read a rule file. Raises AskError if it cannot be read."""
    try:
        text = read_input(file, _MOST_RULES).decode("utf-8-sig")
        modified = file.stat().st_mtime
    except UnicodeDecodeError:
        return RuleFile(str(file), problem="it is not UTF-8")
    except (UnreadableError, OSError) as error:
        why = error.why if isinstance(error, UnreadableError) else error.strerror
        raise AskError(
            f"cannot read {file}: {why}", f"{key_of(access)}.files: ls -l {shlex.quote(str(file))}"
        ) from None
    return rule_file(str(file), text, modified, parse_yaml)


def _check_list(job: str, body: Callable[[str], bytes], settings: VerifySettings) -> None:
    """Check that our listener serves the target files of a job; both may change between two looks.

    Raises:
        AskError: it serves something else, or nothing.
    """
    path = f"/sd/{quote(job, safe='')}"
    directory = settings.directory
    if directory is None:
        body(path)
        return
    files = [directory / f"{name}.json" for name in settings.split.names(job)]
    for pause in _PAUSES_S:
        time.sleep(pause)
        listed = join_files(read_regular(file) or b"" for file in files)
        if _lines(body(path)) == _lines(listed):
            return
    raise AskError(f"{path} is not what {directory / settings.split.pattern(job)}.json holds")


def _lines(targets: bytes) -> list[bytes]:
    """Return the targets of a list in an order that does not depend on files."""
    return sorted(line.removesuffix(b",") for line in targets.split(b"\n"))


def _ask_scraper(
    access: AskedProgram, settings: VerifySettings, resolution: Resolution, deadline: Deadline
) -> ScraperAnswer:
    """Ask a scraper for its targets, and for what else it tells of them."""

    def ask(path: str, decode: Callable[[bytes], Value], default: Value, most: int = MOST_BYTES) -> Value:
        try:
            return decode(get(access, path, deadline, most))
        except (AskError, wire.WireError, ValueError):
            return default

    def samples(query: str) -> list[wire.Sample]:
        return wire.samples(get(access, query, deadline, most))

    most = _MOST_TARGETS + (len(resolution.targets) + len(resolution.pushed)) * _MOST_TARGET
    targets = wire.targets(get(access, "/api/v1/targets?state=any", deadline, most))
    about = ask("/metrics", wire.about, wire.About(), _MOST_CONFIG)
    text = ask("/api/v1/status/config", wire.config_text, None, _MOST_CONFIG)
    flags = wire.Flags()
    if about.kind in ("vmagent", "victoriametrics"):
        flags = ask("/flags", wire.flags, flags, _MOST_SMALL)
    if flags.is_agent:
        about = msgspec.structs.replace(about, kind="vmagent", is_store=False)
    named: Sequence[Mapping[str, str]] = ()
    without: Sequence[Mapping[str, str]] = ()
    stored = None
    if about.is_store:
        named = ask(IDENTITIES, wire.series, named, most)
        without = ask(EMPTY, wire.series, without, most)
        if resolution.pushed:
            age_of = partial(_AGES.get(about.kind, _AGES[""]).format, seconds=settings.silent_after)
            stored = _ask_samples(access, resolution.pushed, samples, age_of)
    return ScraperAnswer(
        name=access.name,
        url=access.url,
        about=about,
        active=targets.active_targets or (),
        dropped=targets.dropped_targets or (),
        jobs=_jobs(text, settings, md5=about.kind == "prometheus"),
        identities=_identities(named),
        empty=frozenset(_key(labels) for labels in without if labels.get("__name__") != _KEPT),
        emptied=frozenset(_key(labels) for labels in without if labels.get("__name__") == _KEPT),
        members=flags.members,
        stored=stored,
    )


def _jobs(text: str | None, settings: VerifySettings, *, md5: bool) -> tuple[ScrapeJob, ...] | None:
    """Return the jobs of a scraper's config; None if it could not be read."""
    if text is None:
        return None
    try:
        return scrape_jobs(settings.parse_yaml(text), md5=md5)
    except ValueError:
        return None


def _ask_samples(
    access: AskedProgram,
    pushed: Sequence[Target],
    samples: Callable[[str], Sequence[wire.Sample]],
    age_of: Callable[..., str],
) -> StoredSamples:
    """Ask a store which pushed targets are up, and when the last sample of those without one now was."""
    expected = {key_of_target(target) for target in pushed}
    up: dict[tuple[str, str], float] = {}
    ages: dict[tuple[str, str], float] = {}
    failed, fix = "", ""
    try:
        up = {sample.key: sample.value for sample in samples(NOW) if sample.key in expected}
        silent = sorted({instance for job, instance in expected if (job, instance) not in up})
        for names in _patterns(silent):
            found = samples(_QUERY + quote(age_of(names=names)))
            ages |= {sample.key: sample.at - sample.value for sample in found if sample.key in expected}
    except AskError as error:
        failed, fix = error.reason, error.fix
    except wire.WireError as error:
        failed, fix = str(error), f"curl -i '{access.url}{NOW}'"
    return StoredSamples(name=access.name, up=up, ages=ages, failed=failed, fix=fix)


def _patterns(names: Sequence[str]) -> Iterator[str]:
    """Yield regular expressions that match some of the names each, as PromQL, in queries of a bounded length."""
    size = 0
    batch: list[str] = []
    for name in names:
        pattern = re.escape(name)
        size += len(quote(_promql_text(f"|{pattern}")))
        if batch and size > _LONGEST_QUERY:
            yield _promql_text("|".join(batch))
            batch, size = [], 0
        batch.append(pattern)
    if batch:
        yield _promql_text("|".join(batch))


def _promql_text(text: str) -> str:
    """Write a string of PromQL, whose escapes are those of JSON."""
    return msgspec.json.encode(text).decode()


def _identities(series: Sequence[Mapping[str, str]]) -> dict[tuple[str, str], frozenset[str]]:
    """Return the names that machines give themselves, by job and instance."""
    found: dict[tuple[str, str], frozenset[str]] = {}
    for labels in series:
        if name := labels.get("nodename") or labels.get("hostname"):
            found[_key(labels)] = found.get(_key(labels), frozenset()) | {name}
    return found


def _key(labels: Mapping[str, str]) -> tuple[str, str]:
    return labels.get("job", ""), labels.get("instance", "")
