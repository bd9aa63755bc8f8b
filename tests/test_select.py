"""`exporters.<type>.select`: which backends a rule selects machines from, by default those of Tailscale."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from clan_discovery.model import Belief, BeliefState, Declared, Exporter, Node, SelectRule, Snapshot
from clan_discovery.resolve.resolver import Policy, resolve
from tests.support.dns import lying
from tests.support.fleet import inventory, node, status
from tests.test_dns_memory import zone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Resolution
    from tests.conftest import Done

    Run = Callable[..., Done]

NOW = datetime(2026, 11, 20, tzinfo=UTC)
NODE = Exporter(type="node", port=9100)
ZONE: dict[tuple[str, str], list[str] | int] = {("evil.x", "A"): ["60 10.6.6.6"], ("web.x", "A"): ["60 10.6.6.7"]}


@pytest.fixture
def world(tmp_path: Path) -> Callable[[str, str], Path]:
    """Return a function that writes a config with a rule.

    A tailnet has `web`; a zone and a list have more.
    """

    def write(server: str, select: str) -> Path:
        config = tmp_path / "config.yaml"
        config.write_text(
            f"exporters: {{node: {{select: {select}}}}}\n"
            "output: {directory: targets}\n"
            "backends:\n"
            "  tailscale: {tailnet: {status_file: status.json}}\n"
            f"  dns: {{lan: {{names: [evil.x, web.x], type: A, machines: name, servers: ['{server}']}}}}\n"
            "  static: {lab: {machines: {nas: 10.0.0.7}}}\n"
        )
        (tmp_path / "status.json").write_text(json.dumps(status([node(1, "monitor"), node(2, "web")])))
        return config

    return write


def published(config: Path) -> dict[str, str]:
    """Return the published targets of the job."""
    groups = json.loads((config.parent / "targets/node.json").read_bytes())
    return {group["labels"]["instance"]: group["targets"][0] for group in groups}


@pytest.mark.parametrize(
    ("select", "targets"),
    [
        ("{}", {"monitor": "100.64.0.1:9100", "web": "100.64.0.2:9100"}),
        ("{backends: [tailnet], tags: [server]}", {"monitor": "100.64.0.1:9100", "web": "100.64.0.2:9100"}),
        ("{backends: [lan]}", {"evil": "10.6.6.6:9100", "web": "10.6.6.7:9100"}),
        ("{backends: [lab, tailnet], os: [linux]}", {"monitor": "100.64.0.1:9100", "web": "100.64.0.2:9100"}),
        ("{backends: [lab]}", {"nas": "10.0.0.7:9100"}),
    ],
)
def test_a_rule_selects_only_from_its_backends(
    world: Callable[[str, str], Path], run: Run, select: str, targets: dict[str, str]
) -> None:
    """Neither a zone nor a list adds targets, unless the rule names it; its addresses are then used."""
    with lying(zone(ZONE)) as liar:
        config = world(liar.server, select)
        assert run("refresh", "-c", config).code == 0
    assert published(config) == targets


def test_machines_that_only_other_backends_see_are_reported(world: Callable[[str, str], Path], run: Run) -> None:
    """If the rule names no backends: an earlier version selected them."""
    said = (
        "exporters.node.select: machines that only lab or lan sees are not selected: nas, evil"
        " (to select them, too: `backends: [lab, lan, tailnet]`; to leave them out: `backends: [tailnet]`)"
    )
    with lying(zone(ZONE)) as liar:
        config = world(liar.server, "{}")
        done = run("refresh", "-c", config)
        assert (done.code, f"warning: {said}" in done.err) == (0, True)
        assert f"  not selected: {said}" in run("explain", "EVIL", "-c", config).out
        for select in ("{backends: [tailnet]}", "{tags: [server]}", "{backends: [lab, lan, tailnet]}"):
            assert "not selected" not in run("refresh", "-c", world(liar.server, select)).err
        config = world(liar.server, "{}")
        (config.parent / "status.json").write_text("")
        (config.parent / "targets.state/backend-tailnet.json").unlink()
        assert "not selected" not in run("refresh", "-c", config).err


@pytest.mark.parametrize(
    ("select", "said"),
    [
        (
            "{backends: [tailnit]}",
            "exporters.node.select.backends.0: there is no backend 'tailnit' (did you mean 'tailnet'?)",
        ),
        ("{backends: [x]}", "there is no backend 'x' (there are: lab, lan, tailnet)"),
        ("{backends: []}", "no backend to select machines from"),
        ("{backends: tailnet}", "must be a list, not 'tailnet'"),
    ],
)
def test_check_refuses_an_unknown_backend(world: Callable[[str, str], Path], run: Run, select: str, said: str) -> None:
    """With a suggestion and its position."""
    done = run("check", "-c", world("127.0.0.1:9", select))
    assert done.code == 2
    assert said in done.err


def test_a_rule_without_a_tailscale_backend_is_an_error(tmp_path: Path, run: Run) -> None:
    """Unless a server's `discoveryMethod` adds one.

    An invalid inventory is the only error then.
    """
    config = tmp_path / "config.yaml"
    rule = "exporters: {node: {select: {}}}\noutput: {directory: targets}\n"
    config.write_text(rule + "backends: {static: {lab: {machines: {nas: 10.0.0.7}}}}\n")
    done = run("check", "-c", config)
    assert (done.code, "there is no Tailscale backend to select machines from" in done.err) == (2, True)
    assert "or name others in exporters.node.select.backends (there are: lab)" in done.err
    config.write_text(rule + "inventory: {file: inventory.json}\n")
    (tmp_path / "inventory.json").write_text(
        json.dumps(inventory(["monitor"], server={"discoveryMethod": "tailscale"}))
    )
    assert run("check", "-c", config).code == 0
    (tmp_path / "inventory.json").write_text("{")
    done = run("check", "-c", config)
    assert (done.code, "Tailscale" in done.err) == (2, False)


def resolved(rule: SelectRule, **nodes: Node) -> Resolution:
    """Resolve a rule with one node for each backend."""
    beliefs = [
        Belief(
            backend=backend,
            state=BeliefState.FRESH,
            snapshot=Snapshot(backend=backend, nodes=(node_,)),
            offline={node_.name: 60.0} if node_.online is False else {},
        )
        for backend, node_ in nodes.items()
    ]
    return resolve(Declared(), beliefs, [rule], Policy(), now=NOW)


def test_the_address_comes_from_a_selecting_backend_or_a_list() -> None:
    """Never from another backend, even if it goes first or is the only one with an address."""
    rule = SelectRule(exporter=NODE, backends=frozenset({"tailnet"}), lists=frozenset({"lab"}))
    seen, other = Node("web", ("100.64.0.2",), id="2"), Node("web", ("10.6.6.6",))
    assert [t.address for t in resolved(rule, plugin=other, tailnet=seen).targets] == ["100.64.0.2:9100"]
    assert [t.address for t in resolved(rule, lab=other, tailnet=seen).targets] == ["10.6.6.6:9100"]
    found = resolved(rule, plugin=other, tailnet=Node("web", (), note="it has no address"))
    assert ([t.address for t in found.targets], [e.reason for e in found.excluded]) == ([], ["no_address"])


def test_another_backend_keeps_no_offline_machine() -> None:
    """A name in a zone does not prove that the machine is online."""
    rule = SelectRule(exporter=NODE, backends=frozenset({"tailnet"}), offline=30.0)
    away, named = Node("web", ("100.64.0.2",), online=False), Node("web", ("10.6.6.6",))
    found = resolved(rule, tailnet=away, lan=named)
    assert ([t.address for t in found.targets], [e.reason for e in found.excluded]) == ([], ["offline"])
