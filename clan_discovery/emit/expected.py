"""Write `clan_discovery_expected`: one series for each target that this server scrapes or that is pushed. Pure.

The series of the machines of these targets follow. Written by hand: prometheus_client takes half a second for 30,000
series.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.emit.machine_series import escaped, render_machines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clan_discovery.model import Json, Resolution, Target
    from clan_discovery.syntax.relabel import Relabelling

_NAME: Final = "clan_discovery_expected"
_HEAD: Final = (
    f"# HELP {_NAME} 1 for each target that this server scrapes or an agent sends: job and instance of its series.\n"
    f"# TYPE {_NAME} gauge\n"
)
# Not in the target files: Prometheus adds them before it applies the rules.
_DEFAULTS: Final = {
    "__scheme__": "http",
    "__metrics_path__": "/metrics",
    "__scrape_interval__": "1m",
    "__scrape_timeout__": "10s",
}


def render_expected(resolution: Resolution, relabel: Mapping[str, Json]) -> bytes:
    """Return the series of all targets and of their machines.

    `relabel` has the `relabel_configs` of each job that has any. They are part of this server's scrape config: a rule
    that drops a target leaves it to another server. They do not apply to pushed targets.
    """
    lines: dict[str, None] = {_HEAD: None}
    machines: set[str] = set()
    for target, job, instance in _targets(resolution, relabel):
        # Two targets may have the same series after relabelling. A series must not be written twice.
        lines[_line(target, job, instance)] = None
        machines.add(target.machine)
    return "".join(lines).encode() + render_machines(resolution, machines)


def _targets(resolution: Resolution, relabel: Mapping[str, Json]) -> Iterator[tuple[Target, str, str]]:
    """Yield each target with the job and the instance of its series."""
    rules = _compiled(relabel)
    for target in resolution.published:
        job, instance = target.job, target.labels["instance"]
        if job in rules:
            labels = _scraped(target, rules[job])
            if labels is None:
                continue
            job, instance = labels.get("job", ""), labels.get("instance", labels["__address__"])
        yield target, job, instance
    for target in resolution.pushed:
        yield target, target.job, target.labels["instance"]


def _line(target: Target, job: str, instance: str) -> str:
    kind = f'delivery="{target.delivery}",machine="{escaped(target.machine)}",patience="{target.patience}"'
    return f'{_NAME}{{{kind},target_instance="{escaped(instance)}",target_job="{escaped(job)}"}} 1.0\n'


def _compiled(relabel: Mapping[str, Json]) -> dict[str, Relabelling]:
    if not relabel:
        return {}
    from clan_discovery.syntax.relabel import Relabelling  # noqa: PLC0415 - most configs have no rules

    compiled = {job: Relabelling(rules).only({"job", "instance", "__address__"}) for job, rules in relabel.items()}
    return {job: rules for job, rules in compiled.items() if rules}


def _scraped(target: Target, rules: Relabelling) -> Mapping[str, str] | None:
    """Return the labels of a target after relabelling; None if this server does not scrape it."""
    given = target.labels
    if rules.reads is not None:  # of twenty labels, mostly four
        given = {name: given[name] for name in rules.reads if name in given}
    labels = {**_DEFAULTS, "job": target.job, **given, "__address__": target.address}
    after, dropped_by = rules.apply(labels)
    if dropped_by is not None or "__address__" not in after:
        return None
    return after
