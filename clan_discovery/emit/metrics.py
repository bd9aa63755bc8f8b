"""Write the program's own metrics in Prometheus's text format.

Alert rules depend on the names (data/rules/). Counters are kept in the state, because with a timer each cycle runs
in a new process.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry
from typing_extensions import override

from clan_discovery.emit.expected import render_expected
from clan_discovery.model import BeliefState, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.core import Metric

    from clan_discovery.model import Counters, InputStatus, Report, Resolution, Verification

_PREFIX: Final = "clan_discovery_"
_FINDINGS_MOST: Final = 100
"""How many findings of one verdict and one job are series of their own; `verify_targets` counts them all."""
_JOBS_MOST: Final = 1000
"""How many pairs of a verdict and a job have such series."""


def render(report: Report) -> bytes:
    """Return the metrics of one report."""
    registry = CollectorRegistry()
    registry.register(_Collector(report))
    return generate_latest(registry) + render_expected(report.resolution, report.relabel)


class _Collector(Collector):
    def __init__(self, report: Report) -> None:
        self._report = report

    @override
    def collect(self) -> Iterable[Metric]:
        report = self._report
        yield from _machines(report.resolution, report.declared)
        yield from _shard(report.resolution, report.shared_targets)
        yield from _backends(report)
        yield from _cycles(report.counters, report.failed_cycles)
        yield from _fronts(report.resolution, report.counters)
        yield from _input("config", report.config)
        yield from _input("inventory", report.inventory)
        yield from _flake(report.flake)
        yield from _verification(report.verification, report.verify_interval)
        yield _gauge(
            "last_round_timestamp_seconds", "When the newest refresh cycle was, in seconds since 1970.", report.now
        )
        yield InfoMetricFamily(f"{_PREFIX}build", "The version of clan-discovery.", {"version": report.version})


def _gauge(name: str, help_: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, help_, value=value)


def _labelled(name: str, help_: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, help_, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


def _present(name: str, help_: str, label: str, keys: Iterable[str]) -> Metric:
    return _labelled(name, help_, label, dict.fromkeys(keys, 1.0))


def _machines(found: Resolution, declared: int) -> Iterable[Metric]:
    targets = Counter(dict.fromkeys(found.jobs, 0))
    targets.update(target.job for target in found.targets)
    yield _labelled("targets", "Targets by job.", "job", targets)
    pushed = Counter(target.job for target in found.pushed)
    yield _labelled("pushed_targets", "Targets that agents scrape and send, by job.", "job", pushed)
    observed = {target.machine for target in found.targets if target.observed}
    yield _gauge("machines_declared", "Machines that the sources declare.", declared)
    yield _gauge("machines_observed", "Machines with targets that a backend sees.", len(observed))
    yield _gauge("machines_missing", "Declared machines with exporters that no backend sees.", len(found.missing))
    yield _gauge("machines_unknown", "Declared machines whose backend could not be asked.", len(found.unknown))
    yield _gauge("machines_stray", "Machines that are seen and neither declared nor picked.", len(found.stray))
    missing, stray = [m.machine for m in found.missing], [s.name for s in found.stray]
    yield _present("machine_missing", "1 for each declared machine that no backend sees.", "machine", missing)
    yield _present("machine_stray", "1 for each machine that is seen and not declared.", "machine", stray)
    help_ = "1 for each machine whose key on the tailnet expired."
    yield _present("machine_key_expired", help_, "machine", found.expired)
    help_ = "1 for each job whose present file is served, because memory is lost and a backend does not answer."
    yield _present("job_frozen", help_, "job", [frozen.job for frozen in found.frozen])
    excluded = Counter(str(e.reason) for e in found.excluded)
    yield _labelled("excluded", "What is not a target, by reason.", "reason", excluded)


def _shard(found: Resolution, targets: str) -> Iterable[Metric]:
    """Yield the share of this server.

    Servers with different members have different values of `list`, those with different sources of `targets`.
    """
    shard = found.shard
    if shard is None:
        return
    yield _gauge("shard_targets", "Targets that this server publishes: its share.", len(found.published))
    hashes = {"list": shard.fingerprint, "targets": targets}
    labels = {"member": shard.member, "replicas": str(shard.replicas), **hashes}
    help_ = "1: which member this server is, and hashes of all members and of the targets that the sources declare."
    yield InfoMetricFamily(f"{_PREFIX}shard", help_, labels)


def _backends(report: Report) -> Iterable[Metric]:
    beliefs = report.resolution.beliefs
    up = {b.backend: float(b.state.answered) for b in beliefs}
    held = {b.backend: float(b.state is BeliefState.HELD) for b in beliefs}
    ages = {b.backend: b.age for b in beliefs if b.snapshot is not None}
    failing = {b.backend: float(len(b.snapshot.failures)) for b in beliefs if b.snapshot is not None}
    by_backend: dict[str, tuple[str, Mapping[str, float]]] = {
        "up": ("Whether the backend answered in the newest refresh cycle.", up),
        "last_success_timestamp_seconds": ("When the backend last gave a believed answer.", report.answered_at),
        "age_seconds": ("How old the answer is that is served.", ages),
        "duration_seconds": ("How long the newest answer took.", report.durations),
        "shrink_held": ("1 while a large loss is held.", held),
        "names_failing": ("Failed lookups; their last good answers are used.", failing),
    }
    for name, (help_, values) in by_backend.items():
        yield _labelled(f"backend_{name}", help_, "backend", values)
    outages = CounterMetricFamily(f"{_PREFIX}backend_outages", "Outages that began.", labels=["backend"])
    for belief in beliefs:
        outages.add_metric([belief.backend], report.counters.outages.get(belief.backend, 0))
    yield outages


def _input(name: str, status: InputStatus) -> Iterable[Metric]:
    """Yield the metrics of an input, named as Prometheus and Alertmanager name those of their config."""
    help_ = f"Whether the last attempt to load the {name} succeeded; if not, the last good one is used."
    yield _gauge(f"{name}_last_reload_successful", help_, float(status.ok))
    if status.succeeded_at is not None:
        help_ = f"When the {name} was last loaded with success, in seconds since 1970."
        yield _gauge(f"{name}_last_reload_success_timestamp_seconds", help_, status.succeeded_at)


def _flake(flake: InputStatus | None) -> Iterable[Metric]:
    if flake is None:
        return
    yield _gauge("flake_up", "Whether the newest evaluation of the flake succeeded.", float(flake.ok))
    if flake.succeeded_at is not None:
        help_ = "When the flake was last evaluated with success."
        yield _gauge("flake_last_success_timestamp_seconds", help_, flake.succeeded_at)


def _verification(found: Verification | None, interval: float | None) -> Iterable[Metric]:
    """Yield what the scrapers do with the targets, from the newest `verify` of `run`."""
    if interval is not None:
        yield _gauge("verify_interval_seconds", "The time between two checks of the scrapers.", interval)
    if found is None:
        return
    yield _gauge("verify_last_timestamp_seconds", "When the scrapers were asked, in seconds since 1970.", found.at)
    counts = Counter(dict.fromkeys(map(str, Verdict), 0))
    counts.update(str(target.verdict) for target in found.targets)
    yield _labelled("verify_targets", "Expected targets by the verdict on them.", "verdict", counts)
    yield _gauge("verify_ghosts", "Targets that a scraper scrapes and that are declared nowhere.", len(found.ghosts))
    labels = ["verdict", "target_job", "target_instance", "machine"]
    family = GaugeMetricFamily(f"{_PREFIX}verify_finding", "1 for each finding, a bounded number.", labels=labels)
    written = dict.fromkeys(
        (str(target.verdict), target.job, target.instance, target.machine)
        for target in found.targets
        if target.verdict.is_finding
    )
    groups: Counter[tuple[str, str]] = Counter()
    for values in written:
        group = values[:2]
        if groups[group] < _FINDINGS_MOST and (group in groups or len(groups) < _JOBS_MOST):
            groups[group] += 1
            family.add_metric(values, 1)
    yield family


def _fronts(found: Resolution, counters: Counters) -> Iterable[Metric]:
    """Yield the metrics of the reverse proxy's file, where there are fronts or it was written."""
    if not found.fronts and not counters.front_writes:
        return
    yield _gauge("fronts", "Fronts that the reverse proxy serves.", len(found.fronts))
    help_ = "1 while the file of the reverse proxy is kept, because memory is lost and a backend does not answer."
    yield _gauge("front_kept", help_, float(bool(found.front_kept)))
    help_ = "How often the file of the reverse proxy was written."
    yield CounterMetricFamily(f"{_PREFIX}front_writes", help_, value=counters.front_writes)


def _cycles(counters: Counters, failed: int) -> Iterable[Metric]:
    counts = {
        "rounds": ("Refresh cycles that were published, changed or not.", counters.rounds),
        "unchanged_rounds": ("Refresh cycles that wrote no file.", counters.unchanged),
        "file_writes": ("Target files that were written.", counters.writes),
        "publish_failures": ("Refresh cycles whose files could not be written.", counters.failures),
        "failed_cycles": ("Cycles that failed since the process began, for any reason.", failed),
    }
    for name, (help_, value) in counts.items():
        yield CounterMetricFamily(_PREFIX + name, help_, value=value)
