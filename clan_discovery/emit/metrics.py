"""What clan-discovery says of itself, in Prometheus's text format.

The names are a contract: alert rules stand on them (examples/alerts). Counters are kept in the state, so that they go
on counting in the timer's mode, where each round is a process.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry
from typing_extensions import override

from clan_discovery.model import BeliefState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prometheus_client.core import Metric

    from clan_discovery.model import Belief, Counters, Report, Resolution

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX: Final = "clan_discovery_"


def render(report: Report) -> bytes:
    """Return the metrics of one report."""
    registry = CollectorRegistry()
    registry.register(_Collector(report))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, report: Report) -> None:
        self._report = report

    @override
    def collect(self) -> Iterable[Metric]:
        report = self._report
        yield from _machines(report.resolution, report.declared)
        yield from _backends(report)
        yield from _rounds(report.counters)
        yield _gauge("last_round_timestamp_seconds", "When the newest round was, in seconds since 1970.", report.now)
        info = InfoMetricFamily(f"{_PREFIX}build", "The version of clan-discovery.")
        info.add_metric([], {"version": report.version})
        yield info


def _gauge(name: str, help_: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, help_, value=value)


def _labelled(name: str, help_: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, help_, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


def _machines(resolution: Resolution, declared: int) -> Iterable[Metric]:
    targets = Counter(dict.fromkeys(resolution.jobs, 0))
    targets.update(target.job for target in resolution.targets)
    yield _labelled("targets", "Targets by job.", "job", targets)
    observed = {target.machine for target in resolution.targets if target.observed}
    yield _gauge("machines_declared", "Machines that the inventory declares.", declared)
    yield _gauge("machines_observed", "Machines with targets that a backend sees.", len(observed))
    yield _gauge("machines_missing", "Declared machines with exporters that no backend sees.", len(resolution.missing))
    yield _gauge("machines_unknown", "Declared machines that nobody could ask for.", len(resolution.unknown))
    yield _gauge("machines_stray", "Machines that are seen and neither declared nor picked.", len(resolution.stray))
    missing = {m.machine: 1.0 for m in resolution.missing}
    yield _labelled("machine_missing", "1 for each declared machine that no backend sees.", "machine", missing)
    stray = {s.name: 1.0 for s in resolution.stray}
    yield _labelled("machine_stray", "1 for each machine that is seen and not declared.", "machine", stray)
    expired = dict.fromkeys(resolution.expired, 1.0)
    yield _labelled("machine_key_expired", "1 for each machine whose key on the tailnet expired.", "machine", expired)
    frozen = dict.fromkeys((f.job for f in resolution.frozen), 1.0)
    help_ = "1 for each job whose present file is served, because memory is lost and a backend does not answer."
    yield _labelled("job_frozen", help_, "job", frozen)
    excluded = Counter(str(e.reason) for e in resolution.excluded)
    yield _labelled("excluded", "What is no target, by reason.", "reason", excluded)


def _backends(report: Report) -> Iterable[Metric]:
    beliefs = report.resolution.beliefs
    up = {b.backend: float(b.state.answered) for b in beliefs}
    yield _labelled("backend_up", "Whether the backend answered in the newest round.", "backend", up)
    name, help_ = "backend_last_success_timestamp_seconds", "When the backend last gave an answer that is believed."
    yield _labelled(name, help_, "backend", report.answered_at)
    yield _labelled("backend_age_seconds", "How old the answer is that is served.", "backend", _ages(beliefs))
    yield _labelled("backend_duration_seconds", "How long the newest answer took.", "backend", report.durations)
    held = {b.backend: float(b.state is BeliefState.HELD) for b in beliefs}
    yield _labelled("backend_shrink_held", "1 while a large loss is held.", "backend", held)
    failing = {b.backend: float(len(b.snapshot.failures)) for b in beliefs if b.snapshot is not None}
    help_ = "Names of which the backend could not find out; their last good answers stand."
    yield _labelled("backend_names_failing", help_, "backend", failing)
    outages = CounterMetricFamily(f"{_PREFIX}backend_outages", "Outages that began.", labels=["backend"])
    for backend in beliefs:
        outages.add_metric([backend.backend], report.counters.outages.get(backend.backend, 0))
    yield outages


def _ages(beliefs: Sequence[Belief]) -> dict[str, float]:
    return {belief.backend: belief.age for belief in beliefs if belief.snapshot is not None}


def _rounds(counters: Counters) -> Iterable[Metric]:
    counts = {
        "rounds": ("Rounds that were published, changed or not.", counters.rounds),
        "unchanged_rounds": ("Rounds that wrote no file.", counters.unchanged),
        "file_writes": ("Target files that were written.", counters.writes),
        "publish_failures": ("Rounds whose files could not be written.", counters.failures),
    }
    for name, (help_, value) in counts.items():
        yield CounterMetricFamily(_PREFIX + name, help_, value=value)
