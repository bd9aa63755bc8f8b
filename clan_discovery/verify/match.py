"""Find the expected targets among those that one scraper has. Pure.

A target is recognised by what it was discovered with: the target file (or the URL of http_sd) and our labels, which no
relabel rule changes. A scraper that does not tell that (`-promscrape.dropOriginalLabels` of VictoriaMetrics) is
searched for the labels and the address that its relabel rules make of the expected target.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from clan_discovery.syntax.target_file import MARK, Split
from clan_discovery.verify.jobs import Outcome, ScrapeJob, file_job, outcome, path_job
from clan_discovery.verify.wire import About, DroppedTarget, Scraped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from clan_discovery.model import Resolution, Target
    from clan_discovery.verify.pushed import StoredSamples

_MOST_AT_URL: Final = 100
"""How many targets at one URL are compared with each other."""
_PORTS: Final = {"http": ":80", "https": ":443"}


class ScraperAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a scraper answered.

    `jobs` is None if its config could not be read. `identities` are the names that machines give themselves, by job and
    instance; `empty` are the targets without samples, `emptied` those of which `metric_relabel_configs` keeps none.
    `members` is the number of vmagents that share the targets. `stored` are its samples of pushed targets; None if it
    keeps no samples, or there are no such targets.
    """

    name: str
    url: str
    about: About = About()
    active: Sequence[Scraped] = ()
    dropped: Sequence[DroppedTarget] = ()
    jobs: tuple[ScrapeJob, ...] | None = None
    identities: Mapping[tuple[str, str], frozenset[str]] = {}
    empty: frozenset[tuple[str, str]] = frozenset()
    emptied: frozenset[tuple[str, str]] = frozenset()
    members: int = 0
    stored: StoredSamples | None = None


class Matched(NamedTuple):
    """The active targets that an expected target matches, as indices: at its address, and elsewhere.

    Of several at its address, those in the job of its name come first.
    """

    here: tuple[int, ...] = ()
    there: tuple[int, ...] = ()


class Evaluated(NamedTuple):
    """What a job of the scraper makes of an expected target; `result` is None if that cannot be told."""

    job: ScrapeJob
    result: Outcome | None


class ScraperTargets:
    """The targets of one scraper, and which expected target each of them is.

    Rules are evaluated while `in_time` returns true: a config may have millions of them. `split` is None if the target
    files are those of another server, which may have another number of files for each job.
    """

    def __init__(
        self,
        answer: ScraperAnswer,
        resolution: Resolution,
        directories: Sequence[str],
        split: Split | None,
        in_time: Callable[[], bool],
    ) -> None:
        self.answer = answer
        self._in_time = in_time
        self._directories = directories
        self._directory = next(iter(directories), "")
        self._split = split
        self._jobs = frozenset(resolution.jobs)
        self._by_key: dict[tuple[str, str], list[int]] = {}
        self._by_url: dict[str, list[int]] = {}
        self._readers: dict[str, list[ScrapeJob]] = {}
        self._file_readers: dict[tuple[str, str], list[ScrapeJob]] = {}
        self._read_by = self._jobs_by_pool()
        for index, scraped in enumerate(answer.active):
            for key in self._keys(scraped):
                self._by_key.setdefault(key, []).append(index)
            at_url = self._by_url.setdefault(scraped.scrape_url, [])
            if len(at_url) < _MOST_AT_URL:
                at_url.append(index)
        matches = [self._match(target) for target in resolution.targets]
        at_home = {index for found in matches for index in found.here}
        # With the labels alone, a target may look like another one that relabelling gives the same instance.
        self.matched = [Matched(here, tuple(i for i in there if i not in at_home)) for here, there in matches]
        self.claimed = {index for found in self.matched for index in (*found.here, *found.there)}

    def readers(self, job: str) -> list[ScrapeJob]:
        """Return the jobs of its config that read targets of one of our jobs, from one of its files at least."""
        found = self._readers.get(job)
        if found is None:
            names = self._names(job)
            found = [one for one in self.answer.jobs or () if one.reads(job, names, self._directories)]
            self._readers[job] = found
        return found

    def readers_of(self, target: Target) -> list[ScrapeJob]:
        """Return the jobs of its config that read the file with a target."""
        found = self.readers(target.job)
        if self._split is None or self._split.count(target.job) == 1:
            return found
        name = self._split.name(target.job, target.machine)
        key = target.job, name
        if key not in self._file_readers:
            self._file_readers[key] = [one for one in found if one.reads(target.job, (name,), self._directories)]
        return self._file_readers[key]

    def files(self, job: str) -> list[str]:
        """Return the files and patterns of its config that match target files of one of our jobs."""
        names = self._names(job)
        return [file for one in self.answer.jobs or () for file in one.matching(names, self._directories)]

    def _names(self, job: str) -> Sequence[str]:
        """Return names of target files of a job; of another server, those that any number of files has."""
        if self._split is None:
            return job, f"{job}.0"
        return self._split.names(job)

    def evaluated(self, target: Target) -> Iterator[Evaluated]:
        """Yield what each job that reads the target makes of it.

        A scraper in a container has another path: then a file of the same name may be the target file.
        """
        split = self._split or Split()
        file = f"{self._directory}/{split.name(target.job, target.machine)}.json"
        for job in self.readers_of(target) or self._namesakes(target.job):
            result = None
            if job.rules is not None and self._in_time():
                result = outcome(job.rules, job.sharing, job.labels_of(target, file))
            yield Evaluated(job, result)

    def _namesakes(self, job: str) -> list[ScrapeJob]:
        """Return the jobs that read a file with the name of a target file, in any directory."""
        return [one for one in self.answer.jobs or () if any(file_job(file) == job for file in one.files)]

    def lists_as_dropped(self, target: Target) -> bool:
        """Tell whether it says itself that relabelling dropped this target."""
        return (target.job, target.labels["instance"], target.address) in self._dropped

    def others_at(self, index: int) -> list[Scraped]:
        """Return other targets that it scrapes at the same URL, and that are no expected targets."""
        others = self._by_url[self.answer.active[index].scrape_url]
        return [self.answer.active[other] for other in others if other != index and other not in self.claimed]

    def ours_unclaimed(self) -> Iterator[Scraped]:
        """Yield targets in our jobs that are no expected targets."""
        for index, scraped in enumerate(self.answer.active):
            if index not in self.claimed and self._jobs.intersection(our_jobs(scraped)):
                yield scraped

    @cached_property
    def _by_final(self) -> dict[tuple[str, str], list[int]]:
        """The active targets by job and instance after relabelling."""
        found: dict[tuple[str, str], list[int]] = {}
        for index, scraped in enumerate(self.answer.active):
            found.setdefault((scraped.scrape_pool, scraped.labels.get("instance", "")), []).append(index)
        return found

    @cached_property
    def _dropped(self) -> set[tuple[str, str, str]]:
        found: set[tuple[str, str, str]] = set()
        for dropped in self.answer.dropped:
            labels = dropped.discovered_labels
            found.add((_discovered_job(labels), labels.get("instance", ""), labels.get("__address__", "")))
        return found

    def _jobs_by_pool(self) -> dict[str, set[str]]:
        """Return which jobs of ours each job of the scraper reads."""
        found: dict[str, set[str]] = {}
        for job in self._jobs:
            for reader in self.readers(job):
                found.setdefault(reader.name, set()).add(job)
        return found

    def _keys(self, scraped: Scraped) -> set[tuple[str, str]]:
        """Return the jobs and instances that a scraped target may be."""
        labels = scraped.discovered_labels
        if MARK in labels and "instance" in labels:
            return {(_discovered_job(labels), labels["instance"])}
        instance = scraped.labels.get("instance", "")
        # Without discovered labels the config tells whose target file the job reads.
        named = {scraped.scrape_pool, scraped.labels.get("job", "")}
        return {(job, instance) for job in self._read_by.get(scraped.scrape_pool, named)}

    def _match(self, target: Target) -> Matched:
        instance = target.labels["instance"]
        found: Iterable[int] | None = self._by_key.get((target.job, instance))
        if found is None:
            found = self._search(target)
        here: list[int] = []
        there: list[int] = []
        for index in found:
            if self._is_at(self.answer.active[index], target):
                here.append(index)
            else:
                there.append(index)
        here.sort(key=lambda index: self.answer.active[index].scrape_pool != target.job)
        return Matched(tuple(here), tuple(there))

    def _search(self, target: Target) -> Iterable[int]:
        """Return targets with the labels that relabelling makes of the expected one.

        Prometheus 2.42 may show discovered labels as relabelling has changed them.
        """
        found: dict[int, None] = {}
        for job, result in self.evaluated(target):
            instance = target.labels["instance"]
            if result is not None:
                instance = _instance(result)
            found.update(dict.fromkeys(self._by_final.get((job.name, instance), ())))
        return found

    def _is_at(self, scraped: Scraped, target: Target) -> bool:
        """Tell whether a target is at the expected address, or at the one that relabelling makes of it."""
        address = scraped.discovered_labels.get("__address__", "")
        if address == target.address:
            return True
        if not address and _is_same(scraped.scrape_url, target.address):
            return True
        for _, result in self.evaluated(target):
            if result is None:
                return not address
            is_instance = _instance(result) == scraped.labels.get("instance", "")
            if is_instance and _is_same(scraped.scrape_url, result.labels.get("__address__", "")):
                return True
        return False


def _instance(result: Outcome) -> str:
    """Return the instance after relabelling: by default the address."""
    return result.labels.get("instance") or result.labels.get("__address__", "")


def our_jobs(scraped: Scraped) -> set[str]:
    """Return the names by which a scraped target may be in a job of ours."""
    return {_discovered_job(scraped.discovered_labels), scraped.scrape_pool, scraped.labels.get("job", "")}


def _discovered_job(labels: Mapping[str, str]) -> str:
    """Return our job that discovered labels belong to, by the target file, the URL or the name of the job."""
    file = labels.get("__meta_filepath")
    if file and (job := file_job(file)):
        return job
    url = labels.get("__meta_url")
    if url and (served := path_job(url)) is not None:
        return served or labels.get("__meta_clan_exporter", "")
    return labels.get("job", "")


def host_of(url: str) -> str:
    """Return the `host:port` of a URL; the URL if it is none."""
    try:
        return urlsplit(url).netloc or url
    except ValueError:
        return url


def _is_same(url: str, address: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    port = _PORTS.get(parts.scheme, "")
    return parts.netloc.removesuffix(port).casefold() == address.removesuffix(port).casefold()
