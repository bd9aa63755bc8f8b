"""The board `stack`: the monitoring itself."""

from __future__ import annotations

from typing import Final

from tools.boards.model import Board, Column, Look, Panel, Query, Row, Step, Word
from tools.boards.queries import DATASOURCE, MACHINES_CHOSEN, PAGE, TO_PAGE

_YES: Final = Look(words=(Word(0, "no", "red"), Word(1, "yes", "green")))
_WHERE: Final = '{machine=~"$machine"}'
_BAD: Final = Look(steps=(Step(1, "red"),))


def stack() -> Board:
    """Return the board."""
    return Board(
        name="stack",
        title="Stack",
        about="clan-discovery, the servers, Alertmanager, agents and stores of logs.",
        variables=(DATASOURCE, MACHINES_CHOSEN, PAGE),
        links=(TO_PAGE,),
        rows=(
            Row(title="Discovery", height=7, panels=(*_discovery(), _backends(), _verdicts())),
            Row(title="Alerts", height=7, panels=(_rules(), _notifications(), _firing())),
            Row(title="Agents and logs", height=7, panels=(_queues(), _dropped(), _lines())),
            Row(title="Servers", height=7, panels=(_samples(), _memory())),
        ),
    )


def _discovery() -> tuple[Panel, ...]:
    newest = 'max by (instance) (clan_discovery_last_round_timestamp_seconds{clan_pushed=""})'
    loaded = " or ".join(
        f'label_replace(clan_discovery_{name}_last_reload_successful{{clan_pushed=""}}, "input", "{name}", "", "")'
        for name in ("config", "inventory")
    )
    return (
        Panel(
            title="Last cycle",
            about="Of clan-discovery. Red: ClanDiscoveryStale fires.",
            kind="stat",
            width=4,
            queries=(Query(f"time() - {newest}", "{{instance}}"),),
            look=Look(unit="s", steps=(Step(600, "red"),), decimals=0),
        ),
        Panel(
            title="Inputs loaded",
            about="If not, the last good one is used. Look at: clan-discovery check.",
            kind="stat",
            width=4,
            queries=(Query(f"min by (input) ({loaded})", "{{input}}"),),
            look=_YES,
        ),
    )


def _backends() -> Panel:
    return Panel(
        title="Backends",
        about="Held: a large loss waits for --accept-shrink. Look at: clan-discovery doctor.",
        kind="table",
        width=8,
        queries=(
            Query('min by (backend) (clan_discovery_backend_up{clan_pushed=""})'),
            Query('max by (backend) (clan_discovery_backend_age_seconds{clan_pushed=""})'),
            Query('max by (backend) (clan_discovery_backend_shrink_held{clan_pushed=""})'),
        ),
        columns=(
            Column(field="backend", title="Backend"),
            Column(field=0, title="Answers", look=_YES),
            Column(field=1, title="Age", look=Look(unit="s", base="text", decimals=0)),
            Column(field=2, title="Held", look=Look(words=(Word(0, "no", "green"), Word(1, "yes", "red")))),
        ),
        empty="no backend is asked",
    )


def _verdicts() -> Panel:
    return Panel(
        title="Verdicts",
        about="What verify says of the expected targets (run --verify-interval).",
        kind="timeseries",
        width=8,
        queries=(Query('max by (verdict) (clan_discovery_verify_targets{clan_pushed=""})', "{{verdict}}"),),
        look=Look(lowest=0, decimals=0),
        empty="run has no --verify-interval",
    )


def _rules() -> Panel:
    failures = (
        "sum by (instance, job) (increase(prometheus_rule_evaluation_failures_total[1h]) "
        "or increase(vmalert_execution_errors_total[1h]))"
    )
    return Panel(
        title="Failed rule evaluations, 1 h",
        about="Alerts of rules that cannot be evaluated never fire. Look at the page Rules of the server.",
        kind="stat",
        queries=(Query(failures, "{{job}} {{instance}}"),),
        look=Look(steps=(Step(0.5, "red"),), decimals=0),
        empty="no server is scraped",
    )


def _notifications() -> Panel:
    failed = "sum by (instance, integration) (increase(alertmanager_notifications_failed_total[1h])) > 0"
    sent = "sum by (instance) (increase(alertmanager_notifications_total[1h]))"
    return Panel(
        title="Notifications, 1 h",
        about="Mails and calls of Alertmanager. Look at: journalctl -u alertmanager.",
        kind="timeseries",
        queries=(
            Query(sent, "{{instance}} sent"),
            Query(f"({failed}) or 0 * {sent}", "{{instance}} {{integration}} failed"),
        ),
        look=Look(lowest=0, decimals=0),
        empty="Alertmanager is not scraped",
    )


def _firing() -> Panel:
    return Panel(
        title="Firing alerts",
        about="By severity. Those of severity none only inhibit others, or prove that alerts arrive (Watchdog).",
        kind="timeseries",
        queries=(Query('count by (severity) (ALERTS{alertstate="firing"})', "{{severity}}"),),
        look=Look(lowest=0, decimals=0),
        empty="no alert fires: Watchdog should",
    )


def _queues() -> Panel:
    return Panel(
        title="Queues of agents",
        about="Data that agents of the chosen machines could not send yet.",
        kind="timeseries",
        queries=(
            Query(
                "sum by (machine, job) "
                f"(vmagent_remotewrite_pending_data_bytes{_WHERE} or vlagent_remotewrite_pending_data_bytes{_WHERE})",
                "{{machine}} {{job}}",
            ),
        ),
        look=Look(unit="bytes", lowest=0),
        empty="no agent",
    )


def _dropped() -> Panel:
    kinds = (
        "vm_persistentqueue_bytes_dropped_total",
        "vmagent_remotewrite_packets_dropped_total",
        "vlagent_remotewrite_packets_dropped_total",
    )
    return Panel(
        title="Dropped by agents, 6 h",
        about="Bytes of a full queue, and blocks that the receiver refused. Red: AgentDropping fires.",
        kind="stat",
        queries=(
            Query(
                f"sum by (machine, job) ({' or '.join(f'increase({kind}{_WHERE}[6h])' for kind in kinds)})",
                "{{machine}} {{job}}",
            ),
        ),
        look=_BAD,
        empty="no agent",
    )


def _lines() -> Panel:
    stored = "sum by (instance) (rate(vl_rows_ingested_total[$__rate_interval]))"
    lost = "sum by (instance) (rate(vl_rows_dropped_total[$__rate_interval]))"
    loki = "sum by (instance) (rate(loki_distributor_lines_received_total[$__rate_interval]))"
    refused = "sum by (instance) (rate(loki_discarded_samples_total[$__rate_interval]))"
    return Panel(
        title="Log lines",
        about="Stored and refused each second, in VictoriaLogs or Loki.",
        kind="timeseries",
        queries=(
            Query(f"{stored} or {loki}", "{{instance}} stored"),
            Query(f"{lost} or {refused}", "{{instance}} refused"),
        ),
        look=Look(unit="cps", lowest=0),
        empty="no store of logs is scraped",
    )


def _samples() -> Panel:
    return Panel(
        title="Samples of targets",
        about="In each scrape, by job. A step down is an exporter that lost a collector.",
        kind="timeseries",
        queries=(Query("topk(10, sum by (job) (scrape_samples_scraped))", "{{job}}"),),
        look=Look(unit="short", lowest=0),
    )


def _memory() -> Panel:
    return Panel(
        title="Memory of programs",
        about="Of those that are scraped: the ten with the most.",
        kind="timeseries",
        queries=(Query("topk(10, max by (job, instance) (process_resident_memory_bytes))", "{{job}} {{instance}}"),),
        look=Look(unit="bytes", lowest=0),
    )
