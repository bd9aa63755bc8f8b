"""`explain`: why a target is in its state, how it is scraped, and what would change that."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import jsonschema
import msgspec
import pytest
import yaml

from clan_discovery.cli.commands.schema import schema
from clan_discovery.emit.explain import Explainer, Limits, lines_of
from clan_discovery.model import BeliefState, Failure, Group, Since
from clan_discovery.resolve.resolver import Policy, resolve
from tests.support.fleet import fleet, inventory, node, status
from tests.test_resolve import NOW, declared, seen

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from clan_discovery.model import Belief, ExplainedTarget, Json
    from tests.conftest import Done

    Run = Callable[..., Done]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a config with a declared machine, selected machines, a listed target, and a phone."""
    nodes = [
        node(1, "db", Tags=["tag:server", "tag:home"]),
        node(2, "guest", Tags=["tag:home"]),
        node(3, "pixel", OS="android", Tags=None),
        node(4, "six", TailscaleIPs=["fd7a::4"]),
    ]
    (tmp_path / "status.json").write_text(json.dumps(status(nodes)))
    exporter: dict[str, Json] = {"scheme": "https", "path": "/probe", "params": {"module": ["http 2xx"]}, "port": 9115}
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["db"], exporter=exporter)))
    document: Json = {
        "inventory": {"file": "inventory.json"},
        "backends": {
            "tailscale": {"tailnet": {"status_file": "status.json"}},
            "static": {"rack": {"targets": {"nginx": ["10.0.0.9:9113"]}}},
        },
        "exporters": {"systemd": {"select": {"tags": ["home"]}, "port": 9558}},
        "policy": {"offline": {"grace": "1h"}, "absent": "drop"},
        "output": {"directory": "targets"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    return tmp_path / "config.yaml"


def test_explain_shows_every_part_of_a_target(config: Path, run: Run) -> None:
    """State, rule, address, URL and what would remove it: declared, selected and listed."""
    assert run("explain", "db", "GUEST", "10.0.0.9", "-c", config).out == (
        "db\n"
        "  declared: a nixos machine with the tags all, nixos\n"
        "  target: 100.64.0.1:9115 in job node, as instance db\n"
        "    state: seen: tailnet sees it now\n"
        "    because: inventory: instance monitoring, role exporter, tag all\n"
        "    address: tailnet sees it\n"
        "    scraped: https://100.64.0.1:9115/probe?module=http+2xx\n"
        "    dropped: when its source no longer declares it, or when no backend sees it (policy.absent), or"
        " after 60 m offline (policy.offline)\n"
        "  target: 100.64.0.1:9558 in job systemd, as instance db\n"
        "    state: seen: tailnet sees it now\n"
        "    because: config: exporters.systemd.select\n"
        "    address: tailnet sees it\n"
        "    scraped: http://100.64.0.1:9558/metrics\n"
        "    dropped: when tailnet no longer has it, or no rule selects it, or after 24 h without an answer"
        " (policy.max_age), or after 60 m offline (policy.offline)\n"
        "guest\n"
        "  target: 100.64.0.2:9558 in job systemd, as instance guest\n"
        "    state: seen: tailnet sees it now\n"
        "    because: config: exporters.systemd.select\n"
        "    address: tailnet sees it\n"
        "    scraped: http://100.64.0.2:9558/metrics\n"
        "    dropped: when tailnet no longer has it, or no rule selects it, or after 24 h without an answer"
        " (policy.max_age), or after 60 m offline (policy.offline)\n"
        "10.0.0.9\n"
        "  target: 10.0.0.9:9113 in job nginx, as instance 10.0.0.9\n"
        "    state: seen: rack sees it now\n"
        "    because: config: backends.static.rack.targets.nginx\n"
        "    address: listed in rack\n"
        "    scraped: http://10.0.0.9:9113/metrics\n"
        "    dropped: when nothing lists it any more\n"
    )


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("DB", ["db: node systemd"]),
        ("100.64.0.1", ["db: node systemd"]),
        ("100.64.0.1:9558", ["db: systemd"]),
        ("node/db", ["db: node"]),
        ("systemd/Guest", ["guest: systemd"]),
        ("100.64.0.3", ["pixel: "]),
        ("pixel", ["pixel: "]),
        ("nodes/db", []),
        ("100.64.0.99", []),
        ("", []),
    ],
)
def test_explain_finds_machines_addresses_and_targets(config: Path, run: Run, asked: str, found: list[str]) -> None:
    """Also nodes that are not targets."""
    done = run("explain", asked, "-c", config, "-f", "json")
    if not found:
        assert (done.code, done.out) == (2, "")
        assert f"{asked!r} is neither declared nor seen" in done.err
        return
    document = json.loads(done.out)
    jsonschema.validate(document, schema("explain"), cls=jsonschema.Draft202012Validator)
    assert [f"{e['name']}: {' '.join(t['job'] for t in e['targets'])}" for e in document] == found
    assert {explanation["asked"] for explanation in document} == {asked}


def test_json_has_each_part_of_the_url(config: Path, run: Run) -> None:
    """Unknown values are null."""
    (explanation,) = json.loads(run("explain", "node/db", "-c", config, "-f", "json").out)
    assert explanation["declared"] == {
        "machine_class": "nixos",
        "tags": ["all", "nixos"],
        "address": None,
        "description": "",
    }
    (target,) = explanation["targets"]
    parts = {key: target[key] for key in ("scheme", "port", "path", "params")}
    assert parts == {"scheme": "https", "port": 9115, "path": "/probe", "params": {"module": "http 2xx"}}
    assert (target["state"], target["state_since"], target["until"], target["there_since"]) == (
        "seen",
        None,
        None,
        None,
    )


def test_unknown_names_are_reported_together(config: Path, run: Run) -> None:
    """With suggestions.

    Nothing is printed, so that a script never gets part of an answer.
    """
    done = run("explain", "db", "gest", "zzzzzz", "-c", config)
    assert (done.code, done.out) == (2, "")
    assert "'gest' is neither declared nor seen (did you mean 'guest'?)" in done.err
    assert "'zzzzzz' is neither declared nor seen (see: clan-discovery show)" in done.err


def explained_target(belief: Belief, limits: Limits | None = None) -> ExplainedTarget:
    """Explain the only target of machine `a` with one belief."""
    world = declared(inventory(["a"]))
    resolution = resolve(world, [belief], [], Policy(), now=NOW)
    address = resolution.targets[0].address
    times = {("node", "a", address): Since(1_790_000_000, is_exact=True)}
    ((explanation),) = Explainer(world, resolution, limits, times).explain("a")
    assert "    at this address since: 2026-09-21 14:13 UTC" in lines_of(explanation)
    (target,) = explanation.targets
    return target


def ago(hours: int) -> datetime:
    """Return a time this long before the cycle."""
    return NOW - timedelta(hours=hours)


def test_explain_says_since_when_a_state_lasts() -> None:
    """Kept since the last good answer until max_age; held; offline since first seen offline."""
    fresh = seen(fleet(["a"]))
    kept = msgspec.structs.replace(fresh, state=BeliefState.KEPT, age=7200.0, why="it is stopped")
    found = explained_target(kept, Limits(max_age=86400.0))
    assert (found.state, found.state_since, found.until) == ("kept", ago(2), ago(-22))
    assert found.state_detail == "it is stopped; the last good answer is used"
    assert explained_target(kept).until is None
    held = explained_target(msgspec.structs.replace(kept, state=BeliefState.HELD, why="4 would become 0", hint="fix"))
    assert (held.state, held.state_since) == ("held", ago(2))
    assert held.state_detail == "4 would become 0; the answer before that is used (fix)"
    offline = msgspec.structs.replace(
        seen(status([node(1, "monitor"), node(2, "A", Online=False)])), offline={"A": 3600.0}
    )
    assert explained_target(offline).state_since == ago(1)
    expired = explained_target(seen(status([node(1, "monitor"), node(2, "a", Expired=True)])))
    assert (expired.state, expired.state_since) == ("expired", None)
    assert fresh.snapshot is not None
    for age, since in ((3600.0, ago(1)), (None, None)):
        groups = {"": Group((Failure("a.x", "timeout", "a", age),))}
        snapshot = msgspec.structs.replace(fresh.snapshot, groups=groups)
        partial = msgspec.structs.replace(fresh, state=BeliefState.PARTIAL, snapshot=snapshot)
        target = explained_target(partial)
        assert (target.state, target.state_since) == ("kept", since)
        assert target.state_detail == "its lookup failed; the last good answer is used"
