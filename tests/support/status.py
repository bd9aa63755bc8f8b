"""Build the status of a small fleet, and serve it."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from clan_discovery.backends.tailscale_wire import TailscaleOptions, parse_status
from clan_discovery.emit.status import FleetView, StatusInput
from clan_discovery.inventory.clan.declare import Options, declare
from clan_discovery.inventory.clan.wire import parse_inventory
from clan_discovery.model import (
    Belief,
    BeliefState,
    ChangeRecord,
    Counters,
    InputStatus,
    Program,
    Report,
    Since,
    Verdict,
    Verification,
    Verified,
)
from clan_discovery.resolve.resolver import Policy, resolve
from clan_discovery.web.access import LoopbackAccess
from clan_discovery.web.app import App
from clan_discovery.web.server import listen
from clan_discovery.web.site import Body, Cycle, Lazy, Site
from tests.support.fleet import inventory, node, status
from tests.support.programs import free_port

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from clan_discovery.model import Declared, Resolution
    from tests.support.fleet import Object

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
AT = NOW.timestamp()
DAY = 86400


def report_of(resolution: Resolution, **changes: object) -> Report:
    """Return the report of a cycle in which everything else is fine."""
    read = InputStatus(ok=True, succeeded_at=AT)
    report = Report(
        resolution=resolution,
        answered_at={},
        durations={},
        counters=Counters(),
        declared=0,
        version="0",
        now=AT,
        config=read,
        inventory=read,
    )
    return msgspec.structs.replace(report, **changes)


def small_fleet() -> tuple[Declared, Resolution]:
    """Resolve a fleet in which `laptop` is offline, `attic` is missing, and `printer` is a stray."""
    exporters: Object = {"exporters": {"node": {}, "systemd": {}}}
    names = ["attic", "db", "laptop", "monitor", "nas", "web"]
    declared = declare(parse_inventory(json.dumps(inventory(names, exporters)).encode(), "inv.json"), Options())
    nodes = [node(1, "monitor"), node(2, "db"), node(3, "web"), node(4, "nas"), node(5, "laptop", Online=False)]
    nodes += [node(6, "printer"), node(7, "pixel", OS="android")]
    snapshot = parse_status(json.dumps(status(nodes)).encode(), TailscaleOptions(backend="tailnet"))
    belief = Belief(backend="tailnet", state=BeliefState.FRESH, snapshot=snapshot)
    return declared, resolve(declared, [belief], (), Policy(), now=NOW)


def verification_of(resolution: Resolution, verdicts: Mapping[tuple[str, str], Verified]) -> Verification:
    """Return a verification in which each target is up, unless `verdicts` says otherwise (by job and machine)."""
    targets = [
        verdicts.get(
            (t.job, t.machine),
            Verified(
                job=t.job,
                machine=t.machine,
                instance=t.labels["instance"],
                address=t.address,
                verdict=Verdict.UP,
                scraper="main",
            ),
        )
        for t in resolution.targets
    ]
    asked = (Program(name="main", url="http://127.0.0.1:9090", kind="prometheus", version="2.42.0"),)
    return Verification(at=AT - 60, targets=tuple(targets), asked=asked)


def verified(job: str, machine: str, verdict: Verdict, reason: str = "", fix: str = "") -> Verified:
    """Return a verdict of the scraper `main`."""
    address = "100.64.0.3:9100"
    return Verified(
        job=job,
        machine=machine,
        instance=machine,
        address=address,
        verdict=verdict,
        reason=reason,
        fix=fix,
        scraper="main",
    )


def small_input() -> StatusInput:
    """Return a small fleet with verdicts, history, a scraper and a dashboard."""
    declared, resolution = small_fleet()
    findings = {
        ("node", "web"): verified(
            "node", "web", Verdict.WRONG_MACHINE, "the machine there calls itself printer", "clan-discovery explain web"
        ),
        ("systemd", "nas"): verified(
            "systemd", "nas", Verdict.DOWN, "connection refused", "on nas: systemctl list-units '*exporter*'"
        ),
        ("node", "attic"): verified("node", "attic", Verdict.DOWN, "no such host"),
    }
    since = {
        (t.job, t.labels["instance"], t.address): Since(int(AT) - number * DAY - 5 * 3600, is_exact=number > 0)
        for number, t in enumerate(resolution.targets)
    }
    moved = ChangeRecord(
        at=int(AT) - 2 * DAY,
        what="moved",
        machine="db",
        job="node",
        instance="db",
        old="100.64.0.9:9100",
        new="100.64.0.2:9100",
        backend="tailnet",
    )
    return StatusInput(
        declared=declared,
        report=report_of(resolution),
        since=since,
        changes=(ChangeRecord(at=int(AT) - 3 * DAY, what="missing", machine="attic"), moved),
        verification=verification_of(resolution, findings),
        dashboards={"Node": "https://grafana.example.org/d/abc?var-instance={machine}"},
        config="/etc/clan-discovery/config.yaml",
    )


def small_status() -> FleetView:
    """Return the status of `small_input`."""
    return FleetView(small_input())


@contextlib.contextmanager
def served(view: FleetView, failing: str = "") -> Generator[str]:
    """Serve these statuses by the real server; return the URL."""
    declared, resolution = small_fleet()
    cycle = Cycle(
        declared=declared,
        resolution=resolution,
        jobs={},
        every=Lazy(lambda: Body(b"[]\n")),
        document=Lazy(lambda: Body(b"{}\n")),
    )
    site = Site(cycle=cycle, statuses=Lazy(lambda: view), health=lambda: failing)
    port = free_port()
    listener = listen("127.0.0.1", port, App(lambda: site, LoopbackAccess()))
    try:
        listener.ensure_started()
        yield f"http://127.0.0.1:{port}/"
    finally:
        listener.stop()
