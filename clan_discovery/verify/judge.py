"""Give each expected target its verdict, from the answers of all scrapers. Pure.

A target that any scraper has is judged by those scrapers (the worst verdict counts: in a pair, each should scrape it).
One that no scraper has gets the reason of the scraper that says most about it. With a shard, the scrapers of its
servers count: each of them should have it, and no other one.
"""

from __future__ import annotations

import math
import posixpath
import re
from shlex import quote
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from clan_discovery.model import (
    WORST_FIRST,
    Ghost,
    Program,
    Resolution,
    Target,
    Verdict,
    Verification,
    Verified,
    one_line,
    span,
)
from clan_discovery.syntax.counting import and_more, first_names
from clan_discovery.syntax.secret import hide_in_urls
from clan_discovery.syntax.target_file import Split
from clan_discovery.syntax.yaml_text import yaml_text
from clan_discovery.verify.causes import fix_of
from clan_discovery.verify.jobs import HashmodShard, file_job, path_job
from clan_discovery.verify.match import ScraperAnswer, ScraperTargets, host_of, our_jobs
from clan_discovery.verify.members import membership
from clan_discovery.verify.pushed import verify_pushed
from clan_discovery.verify.wire import discovery_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from clan_discovery.verify.jobs import Outcome, ScrapeJob
    from clan_discovery.verify.match import Matched
    from clan_discovery.verify.wire import Scraped

_LONGEST: Final = 500
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_NAMES_MOST: Final = 3
_MOST_DIRECTORIES: Final = 100
_MOST_GHOSTS: Final = 10_000
_WATCHED_S: Final = 60.0
_POLLED_S: Final = 330.0
"""How long a change may take: Prometheus watches directories, vmagent 1.79 polls every 5 minutes, HTTP is polled."""
_WRITE: Final = "clan-discovery refresh (is another machine the server? run verify there)"
_ABSENT: Final = (Verdict.DROPPED, Verdict.NOT_READ)
"""Verdicts on targets that a scraper does not have, and need not have if another one has them."""


def _always() -> bool:
    return True


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that verdicts depend on.

    `unasked` are the scrapers that could not be asked, `others` other programs. `mtimes` are the modification times of
    the target files, by name; without files, the times when the targets of each job changed. `split` is the number of
    files of each job. `directories` are the spellings of their directory, the config's first. Without files there is
    none, and `served` is the URL of our listener. Relabel rules are evaluated while `in_time` returns true.
    `silent_after` is the patience with roaming machines, in seconds.
    """

    resolution: Resolution
    answers: Sequence[ScraperAnswer] = ()
    unasked: Sequence[Program] = ()
    others: Sequence[Program] = ()
    mtimes: Mapping[str, float] = {}
    split: Split = Split()
    directories: tuple[str, ...] = ()
    served: str = ""
    now: float
    silent_after: float = 0.0
    in_time: Callable[[], bool] = _always


class _Finding(NamedTuple):
    """What one scraper does with one expected target. `is_own`: its config says that it should have the target."""

    verdict: Verdict
    scraper: str
    reason: str = ""
    fix: str = ""
    shard: HashmodShard | None = None
    is_own: bool = False


def judge(situation: Situation) -> Verification:
    """Return one verdict for each expected target, the ghosts, and the programs."""
    expected = situation.resolution.targets
    scrapers = [_Judge(answer, situation) for answer in situation.answers]
    verified: list[Verified] = []
    copies: list[int | None] = []
    others = 0
    for number, target in enumerate(expected):
        found = (scraper.finding(number, target) for scraper in scrapers)
        finding = _combined(
            [one for one in found if one is not None], target, scrapers, _unasked_about(target, situation)
        )
        if finding is None:
            others += 1
        else:
            verified.append(_verified(target, finding))
            copies.append(_copies(number, target, scrapers))
    pushed = [*map(_shown, _pushed(situation))]
    verified += pushed
    copies += [None] * len(pushed)
    ghosts = [ghost for scraper in scrapers for ghost in scraper.ghosts()]
    asked = [*map(_program, situation.answers), *situation.unasked, *situation.others]
    return Verification(
        at=situation.now,
        targets=tuple(verified),
        ghosts=tuple(ghosts[:_MOST_GHOSTS]),
        asked=tuple(asked),
        other_shards=others,
        copies=() if situation.resolution.shard is None else tuple(copies),
    )


def _unasked_about(target: Target, situation: Situation) -> Sequence[Program]:
    """Return the scrapers that could not be asked, and that may have a target."""
    shard = situation.resolution.shard
    if shard is None or not situation.unasked:
        return situation.unasked
    absent = ("must not", "other")
    return [one for one in situation.unasked if membership(shard, one.name, one.url).duty(target) not in absent]


def _copies(number: int, target: Target, scrapers: Sequence[_Judge]) -> int | None:
    """Return how many members of the shard scrape a target; None if it is not shared."""
    if not target.servers:
        return None
    return len({scraper.member for scraper in scrapers if scraper.member and scraper.has(number)})


def _pushed(situation: Situation) -> Iterator[Verified]:
    """Yield the verdicts on the targets that the agents on their machines send."""
    stores = [answer.stored for answer in situation.answers if answer.stored is not None]
    unasked = {program.name: program.fix for program in situation.unasked}
    return verify_pushed(situation.resolution.pushed, stores, unasked, situation.silent_after)


def _shown(found: Verified) -> Verified:
    return msgspec.structs.replace(found, reason=_bounded(found.reason), fix=_bounded(found.fix))


def _verified(target: Target, finding: _Finding) -> Verified:
    return Verified(
        job=target.job,
        machine=target.machine,
        instance=target.labels["instance"],
        address=target.address,
        verdict=finding.verdict,
        reason=_bounded(finding.reason),
        fix=_bounded(finding.fix),
        scraper=finding.scraper,
    )


def _program(answer: ScraperAnswer) -> Program:
    reason, fix = "", ""
    if answer.about.reload_failed:
        reason = "its last reload of the config failed: it runs with an older config"
    elif answer.stored is not None and answer.stored.failed:
        reason, fix = f"its samples could not be asked for: {answer.stored.failed}", answer.stored.fix
    elif answer.jobs is None:
        reason = "its config could not be read: relabel rules are unknown"
    return Program(
        name=answer.name,
        url=answer.url,
        kind=answer.about.kind,
        version=answer.about.version,
        reason=_bounded(reason),
        fix=fix,
    )


def _bounded(text: str) -> str:
    if not text:
        return text
    text = one_line(hide_in_urls(text[: 2 * _LONGEST]))
    if len(text) > _LONGEST:
        return f"{text[:_LONGEST]}..."
    return text


def _combined(
    findings: Sequence[_Finding], target: Target, scrapers: Sequence[_Judge], unasked: Sequence[Program]
) -> _Finding | None:
    """Return the verdict of all scrapers; None for a target of a shard that no asked scraper serves."""
    if any(finding.verdict not in _ABSENT for finding in findings):
        counted = (finding for finding in findings if finding.is_own or finding.verdict not in _ABSENT)
        return min(counted, key=lambda finding: WORST_FIRST.index(finding.verdict))
    if unasked:
        return _unknown(findings, unasked)
    if not findings:
        return _of_other_members(scrapers)
    sharded = [finding for finding in findings if finding.shard is not None]
    if sharded:
        return _of_other_shard(sharded, target, scrapers)
    return min(findings, key=lambda finding: _ABSENT.index(finding.verdict))  # a rule says more than its absence


def _unknown(findings: Sequence[_Finding], unasked: Sequence[Program]) -> _Finding:
    first = unasked[0]
    reason = f"could not ask {first_names([program.name for program in unasked], _NAMES_MOST)}"
    for finding in findings:
        reason = f"{reason}; {finding.scraper}: {finding.reason}"
    return _Finding(Verdict.UNKNOWN, first.name, reason, first.fix or f"curl -i {first.url}")


def _of_other_members(scrapers: Sequence[_Judge]) -> _Finding | None:
    """Judge a target that none of the scrapers need have: None, unless no scraper was asked."""
    if scrapers:
        return None
    return _Finding(Verdict.UNKNOWN, "", "no scraper was asked", "verify: {scrapers: {NAME: {url: URL}}}")


def _of_other_shard(sharded: Sequence[_Finding], target: Target, scrapers: Sequence[_Judge]) -> _Finding | None:
    """Judge a target that all scrapers leave to another shard: a finding if there is no other scraper."""
    first = sharded[0]
    if first.shard is None:
        return first
    serving = {scraper.name: kept for scraper in scrapers if (kept := scraper.shard(target.job)) is not None}
    if len(serving) < first.shard.modulus:
        return None
    told = ", ".join(f"{name} keeps {kept or 'its share'}" for name, kept in list(serving.items())[:8])
    which = f"shard {first.shard.number} of {first.shard.modulus}"
    if first.shard.number is None:
        which = "its shard"
    reason = f"no scraper serves {which} of job {target.job}: {told}{and_more(len(serving), 8)}"
    return first._replace(reason=reason, fix=f"give each scraper its own number: {first.fix}")


def _directories_of(answer: ScraperAnswer, jobs: Collection[str]) -> tuple[str, ...]:
    """Return the directories of the target files that the scraper of another server reads."""
    files = (file for job in answer.jobs or () if job.name in jobs for file in job.files)
    found = dict.fromkeys(posixpath.dirname(posixpath.normpath(file)) for file in files)
    return tuple(found)[:_MOST_DIRECTORIES]


class _Judge:
    """Judges the expected targets by the answer of one scraper."""

    def __init__(self, answer: ScraperAnswer, situation: Situation) -> None:
        resolution = situation.resolution
        self.name = answer.name
        self._answer = answer
        self._situation = situation
        self._frozen = {frozen.job: frozen.why for frozen in resolution.frozen}
        self._aliases: dict[str, set[str]] = {}
        for alias, machine in resolution.aliases.items():
            self._aliases.setdefault(machine, set()).add(alias.casefold())
        self._split = situation.split if situation.directories else Split()
        self._membership = membership(resolution.shard, answer.name, answer.url)
        self._directories = situation.directories
        if situation.directories and not self._membership.is_here:
            self._directories = _directories_of(answer, resolution.jobs) or situation.directories
        split = self._split if self._membership.is_here else None
        self._targets = ScraperTargets(answer, resolution, self._directories, split, situation.in_time)

    @property
    def member(self) -> str:
        """The member of the shard that the scraper belongs to; empty if it belongs to none."""
        return self._membership.name

    def has(self, number: int) -> bool:
        """Tell whether it scrapes the expected target of this number, at its address."""
        return bool(self._targets.matched[number].here)

    def finding(self, number: int, target: Target) -> _Finding | None:
        """Judge the expected target of this number; None if the scraper may leave it out, and does."""
        matched = self._targets.matched[number]
        duty = self._membership.duty(target)
        is_absent = not matched.here and not matched.there
        if duty == "other" or (is_absent and duty in ("may", "must not")):
            return None
        if duty == "must not" and target.job not in self._frozen:
            return self._of_other_servers(matched, target)
        found = self._judged(matched, target)
        if duty == "must":
            if found.shard is not None:
                found = found._replace(
                    shard=None,
                    reason=f"{found.reason}; `shard` shares the targets already",
                    fix=f"on {self.member}: remove the hashmod and keep rules of job {target.job}",
                )
            return found._replace(is_own=True)
        return found

    def _of_other_servers(self, matched: Matched, target: Target) -> _Finding | None:
        """Judge a target that it has and that is not of its server."""
        scraped = self._answer.active[(*matched.here, *matched.there)[0]]
        if self._is_recent(scraped):
            return None
        source, fix = self._old_source(scraped)
        fix = f"{fix}; its shard.members may be an older list"
        servers = first_names(target.servers, _NAMES_MOST)
        reason = f"scraped by {self.member} in job {scraped.scrape_pool}, and only {servers} should; {source}"
        return self._found(Verdict.DUPLICATE, reason, fix)

    def _judged(self, matched: Matched, target: Target) -> _Finding:
        if target.job in self._frozen:
            return self._frozen_finding(matched, target)
        if matched.here:
            return self._here(matched, target)
        if matched.there:
            return self._elsewhere(self._answer.active[matched.there[0]], target)
        return self._absent(target)

    def shard(self, job: str) -> str | None:
        """Return the pattern of the shards that it serves of a job; None if it does not share the job."""
        for reader in self._targets.readers(job):
            if reader.sharing is not None:
                return reader.sharing.kept
        if self._answer.members > 1 and self._targets.readers(job):
            return ""
        return None

    def ghosts(self) -> Iterator[Ghost]:
        """Yield the targets that it scrapes in our jobs and that are not declared."""
        for scraped in self._targets.ours_unclaimed():
            if self._frozen.keys() & our_jobs(scraped) or self._is_recent(scraped):
                continue
            source, fix = self._old_source(scraped)
            yield Ghost(
                scraper=self.name,
                job=scraped.labels.get("job", scraped.scrape_pool),
                instance=scraped.labels.get("instance", ""),
                address=_bounded(scraped.discovered_labels.get("__address__") or host_of(scraped.scrape_url)),
                reason=_bounded(f"scraped in job {scraped.scrape_pool}, and declared nowhere; {source}"),
                fix=_bounded(fix),
            )

    def _found(self, verdict: Verdict, reason: str = "", fix: str = "", shard: HashmodShard | None = None) -> _Finding:
        return _Finding(verdict, self.name, reason, fix, shard)

    def _frozen_finding(self, matched: Matched, target: Target) -> _Finding:
        """Judge a target of a job that keeps its present file, whose content the resolution does not know."""
        found = (*matched.here, *matched.there)
        if found:
            return self._state(self._answer.active[found[0]], target)
        return self._found(Verdict.PENDING, f"the job keeps its present file: {self._frozen[target.job]}")

    def _here(self, matched: Matched, target: Target) -> _Finding:
        scraped = self._answer.active[matched.here[0]]
        others = [self._answer.active[index] for index in (*matched.here[1:], *matched.there)]
        others += self._targets.others_at(matched.here[0])
        if not others:
            return self._state(scraped, target)
        other = others[0]
        where = f"job {other.scrape_pool}"
        if other.scrape_url != scraped.scrape_url:
            where = f"job {other.scrape_pool} at {other.scrape_url}"
        source, fix = self._source(other)
        more = and_more(len(others), 1)
        reason = f"scraped in job {scraped.scrape_pool}, and again in {where} {more}".rstrip()
        return self._found(Verdict.DUPLICATE, f"{reason}; {source}", fix)

    def _state(self, scraped: Scraped, target: Target) -> _Finding:
        """Judge a target that is scraped once, at its address."""
        key = scraped.labels.get("job", ""), scraped.labels.get("instance", "")
        if scraped.is_pending:
            return self._found(Verdict.PENDING, "discovered, and not scraped yet", "clan-discovery verify --wait 60s")
        if scraped.health != "up":
            fix = fix_of(scraped.last_error, scraped.scrape_url, target)
            return self._found(Verdict.DOWN, scraped.last_error, fix)
        if (names := self._other_names(key, target)) is not None:
            told = first_names(sorted(names), _NAMES_MOST)
            reason = f"the machine that answers at {target.address} calls itself {told}"
            fix = f"clan-discovery explain {quote(target.machine)}"
            name = min(names)
            if _HOST_NAME.fullmatch(name):  # the machine itself chose it
                alias = f"aliases: {{{yaml_text(name)}: {yaml_text(target.machine)}}}"
                fix = f"{fix}; if it is that machine: {alias}"
            return self._found(Verdict.WRONG_MACHINE, reason, fix)
        if scraped.last_samples_scraped == 0 or key in self._answer.empty:
            return self._found(
                Verdict.EMPTY,
                "scraped with success, but without a single sample",
                f"curl -s {quote(scraped.scrape_url)}",
            )
        if key in self._answer.emptied:
            rules = f"metric_relabel_configs of job {scraped.scrape_pool}"
            return self._found(Verdict.EMPTY, f"{rules} keeps none of its samples", f"correct {rules}")
        return self._found(Verdict.UP)

    def _other_names(self, key: tuple[str, str], target: Target) -> frozenset[str] | None:
        """Return the names that the machine gives itself, if none of them is the declared machine's."""
        names = self._answer.identities.get(key)
        if not names or "__meta_clan_role" not in target.labels:  # only the inventory's names are names of machines
            return None
        known = {target.machine.casefold(), *self._aliases.get(target.machine, ())}
        for name in names:
            folded = name.casefold().rstrip(".")
            if folded in known or folded.partition(".")[0] in known:
                return None
        return names

    def _elsewhere(self, scraped: Scraped, target: Target) -> _Finding:
        found = scraped.discovered_labels.get("__address__", scraped.scrape_url)
        reason = f"it scrapes {found}, and the target is at {target.address}"
        if self._is_recent(scraped):
            return self._found(Verdict.PENDING, f"{reason}: the targets have just changed")
        source, fix = self._old_source(scraped)
        jobs = self._answer.jobs
        unread = self._found(Verdict.NOT_READ)
        if self._is_our_file(scraped):
            unread = self._unread(target)
        elif not scraped.discovered_labels and jobs is not None and not self._targets.readers_of(target):
            unread = self._no_job(target, jobs)
        if unread.fix:
            return unread._replace(verdict=Verdict.ELSEWHERE, reason=f"{reason}: {unread.reason}")
        return self._found(Verdict.ELSEWHERE, f"{reason}; {source}", fix)

    def _absent(self, target: Target) -> _Finding:
        """Judge a target that the scraper does not have."""
        if self._answer.jobs is None:
            if self._targets.lists_as_dropped(target):
                return self._found(Verdict.DROPPED, "dropped by a relabel rule of its config, which could not be read")
            return self._found(Verdict.NOT_READ, "not among its targets, and its config could not be read")
        if not self._targets.readers_of(target):
            return self._no_job(target, self._answer.jobs)
        for job, result in self._targets.evaluated(target):
            if result is not None and result.rule is not None:
                return self._dropped(job, result)
            if job.sharing is not None and self._answer.about.kind != "prometheus":
                return self._left_to_another(HashmodShard(None, job.sharing.modulus))
        if self._targets.lists_as_dropped(target):
            reason = f"dropped by a relabel rule of job {target.job}, which cannot be evaluated here"
            return self._found(Verdict.DROPPED, reason, f"its page /service-discovery: {self._answer.url}")
        if self._answer.members > 1:
            shard = HashmodShard(None, self._answer.members)
            return self._found(
                Verdict.DROPPED, "of another member of its cluster", "-promscrape.cluster.memberNum", shard
            )
        return self._unread(target)

    def _dropped(self, job: ScrapeJob, result: Outcome) -> _Finding:
        what = f"{result.number} of job {job.name}"
        reason = f"relabel rule {what} drops it: {result.rule_text}"
        fix = f"relabel_configs of job {job.name}: change or remove rule {result.number}, {result.rule_text}"
        return self._found(Verdict.DROPPED, reason, fix, result.shard)

    def _left_to_another(self, shard: HashmodShard) -> _Finding:
        fix = "the relabel rule that keeps a shard, or -promscrape.cluster.memberNum"
        return self._found(Verdict.DROPPED, "it is left to another scraper", fix, shard)

    def _no_job(self, target: Target, jobs: Sequence[ScrapeJob]) -> _Finding:
        """Judge a target whose file no job reads."""
        if not self._membership.is_here:
            return self._no_job_elsewhere(target, jobs)
        ours = self._list(target.job, self._split.pattern(target.job))
        reload = ""
        if self._answer.about.reload_failed:
            reload = "; its last reload of the config failed, see its log"
        for job in jobs:
            if job.name == target.job:
                files = first_names([*job.files, *job.urls], _NAMES_MOST) or "no target file"
                reason = f"its job {job.name} reads {files}, and its targets are in {ours}{reload}"
                return self._found(Verdict.NOT_READ, reason, self._discovery(ours))
        fix = "clan-discovery show --format scrape-config: add this to its config, and reload it"
        if not self._situation.directories:
            fix = f"add a job to its config, and reload it: {{job_name: {target.job}, {self._discovery(ours)}}}"
        return self._found(Verdict.NOT_READ, f"no job of its config reads {ours}{reload}", fix)

    def _no_job_elsewhere(self, target: Target, jobs: Sequence[ScrapeJob]) -> _Finding:
        """Judge a target that no job of another server reads. Which files that server has is not known here."""
        reason = f"no job of its config reads the targets of job {target.job}"
        for job in jobs:
            if job.name == target.job:
                files = first_names([*job.files, *job.urls], _NAMES_MOST) or "no target file"
                reason = f"its job {job.name} reads {files}, and none of the targets of job {target.job}"
        if self._answer.about.reload_failed:
            reason += "; its last reload of the config failed, see its log"
        fix = f"on {self.member}: compare its config with clan-discovery show --format scrape-config, and reload it"
        return self._found(Verdict.NOT_READ, reason, fix)

    def _list(self, job: str, name: str) -> str:
        """Return what a scraper should read: a target file of a job, or its URL if there are no files."""
        if self._directories:
            return f"{self._directories[0]}/{name}.json"
        return f"{self._situation.served}/sd/{job}"

    def _discovery(self, ours: str) -> str:
        """Return the setting of a scrape config that reads a target file, or its URL."""
        if self._situation.directories:
            return f"file_sd_configs: [{{files: ['{ours}']}}]"
        return f"http_sd_configs: [{{url: '{ours}'}}]"

    def _unread(self, target: Target) -> _Finding:
        """Judge a target that its job should have: the list was not read, or does not have it."""
        if not self._membership.is_here:
            return self._unread_elsewhere(target)
        name = self._split.name(target.job, target.machine)
        file = self._list(target.job, name)
        now, changed = self._situation.now, self._changed_at(name)
        if not changed and self._situation.directories:
            return self._found(Verdict.NOT_READ, f"there is no file {file} on this machine", _WRITE)
        url = self._url(target.job)
        age = abs(now - changed)
        if age < self._grace(is_polled=bool(url)):
            return self._not_read_yet(age)
        if url:
            return self._own(f"it could not read {url}, or that does not list it", f"curl -i {quote(url)}; see its log")
        read = self._mtime(name)
        if read is None and self._answer.about.kind == "prometheus":
            return self._own(f"it could not read {file}", f"ls -l {file}; see its log")
        if read is not None and read < math.floor(changed):  # it tells whole seconds
            reason = f"it has read an older {file}, which changed {span(age)} ago"
            fix = f"clan-discovery refresh; if it stays so, reload it: does it see this file? ls -li {file}"
            return self._own(reason, fix)
        return self._own(f"{file} does not list it", "clan-discovery refresh")

    def _unread_elsewhere(self, target: Target) -> _Finding:
        """Judge a target that the job of another server should have."""
        url = self._url(target.job)
        age = abs(self._situation.now - (self._changed(target.job) or 0.0))
        if age < self._grace(is_polled=bool(url)):
            return self._not_read_yet(age)
        read = url or first_names(self._targets.files(target.job), _NAMES_MOST) or f"its job {target.job}"
        fix = f"{self._refresh}; its `shard` may differ from this one"
        return self._own(f"{read} of {self.member} does not list it", fix)

    def _not_read_yet(self, age: float) -> _Finding:
        return self._found(Verdict.PENDING, f"the targets changed {span(age)} ago, and were not read yet")

    def _url(self, job: str) -> str:
        """Return the URL at which a scraper reads a job by http_sd; empty if it reads a file."""
        if any(reader.files for reader in self._targets.readers(job)):
            return ""
        urls = (url for reader in self._targets.readers(job) for url in reader.urls)
        return next((url for url in urls if path_job(url) in (job, "")), "")

    def _grace(self, *, is_polled: bool) -> float:
        """Return how long a change may take until the scraper has read it."""
        if is_polled or self._answer.about.kind != "prometheus":
            return _POLLED_S
        return _WATCHED_S

    def _own(self, reason: str, fix: str) -> _Finding:
        """Return the finding on a target that the scraper should have and does not have."""
        return _Finding(Verdict.NOT_READ, self.name, reason, fix, is_own=True)

    def _mtime(self, name: str) -> float | None:
        """Return the time of the target file that the scraper has read, by its own metrics."""
        for file, at in self._answer.about.mtimes.items():
            if posixpath.basename(file) == f"{name}.json":
                return at
        return None

    def _is_our_file(self, scraped: Scraped) -> bool:
        file = scraped.discovered_labels.get("__meta_filepath", "")
        directory = posixpath.dirname(posixpath.normpath(file))
        return bool(file) and (directory in self._directories or not directory.startswith("/"))

    def _is_recent(self, scraped: Scraped) -> bool:
        """Tell whether the target is from a list of ours that has just changed."""
        is_polled = path_job(scraped.discovered_labels.get("__meta_url", "")) is not None
        if scraped.discovered_labels and not is_polled and not self._is_our_file(scraped):
            return False
        grace = self._grace(is_polled=is_polled)
        changed = [at for job in our_jobs(scraped) if (at := self._changed(job)) is not None]
        return any(abs(self._situation.now - at) < grace for at in changed)

    def _changed(self, job: str) -> float | None:
        """Return when a target file of a job changed last; None if that is not known.

        Files of another server may change when ours do; the scraper there tells when those changed that it has read.
        """
        times = [at for name in self._split.names(job) if (at := self._changed_at(name))]
        if not self._membership.is_here:
            times += [at for file, at in self._answer.about.mtimes.items() if file_job(file) == job]
        return max(times, default=None)

    def _changed_at(self, name: str) -> float:
        """Return when a target file of this server changed last; 0 if that is not known."""
        return self._situation.mtimes.get(name, 0.0)

    @property
    def _refresh(self) -> str:
        if self._membership.is_here:
            return "clan-discovery refresh"
        return f"on {self.member}: clan-discovery refresh"

    def _old_source(self, scraped: Scraped) -> tuple[str, str]:
        """Say where a target that we do not have comes from; a list of ours has to be read again."""
        source, fix = self._source(scraped)
        url = scraped.discovered_labels.get("__meta_url", "")
        if self._is_our_file(scraped):
            fix = self._refresh
        elif path_job(url) is not None:
            fix = f"curl -i {quote(url)}; see its log"
        return source, fix

    def _source(self, scraped: Scraped) -> tuple[str, str]:
        """Say where a scraped target comes from, and how to be rid of it."""
        labels, pool = scraped.discovered_labels, scraped.scrape_pool
        file, url = labels.get("__meta_filepath"), labels.get("__meta_url")
        if file:
            return f"it is from the file {file}", f"take {file} out of file_sd_configs of job {pool}"
        if url:
            return f"it is from {url}", f"take {url} out of http_sd_configs of job {pool}"
        if not labels:
            return f"it is from job {pool}", f"remove it from the scrape config of job {pool}"
        if kind := discovery_kind(labels):
            return f"it is from {kind}_sd_configs", f"remove it from {kind}_sd_configs of job {pool}"
        return "it is from static_configs", f"remove it from static_configs of job {pool}"
