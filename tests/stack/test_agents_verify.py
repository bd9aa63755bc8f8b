"""From an inventory to verdicts: `render --agent` says what an agent scrapes, and `verify` finds it in the store."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.stack.agents import LONG_S, METRICS, agents_bed
from tests.support.nix import ROOT
from tests.support.programs import eventually

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.stack.agents import Bed

_CONFIG = {
    "inventory": {"file": str(ROOT / "examples/agents/inventory.json")},
    "backends": {"static": {"home": {"machines": {"web01": "192.0.2.10", "nas": "192.0.2.11"}}}},
    "verify": {"scrapers": {"store": {"url": f"http://127.0.0.1:{METRICS}"}}},
    "policy": {"silent_after": "1m"},
    "output": {"directory": "targets"},
}


@pytest.fixture
def bed() -> Generator[Bed]:
    with agents_bed() as made:
        yield made


@pytest.mark.timeout(600)
def test_a_silent_agent_is_down_and_a_silent_laptop_only_after_its_patience(bed: Bed) -> None:
    server = bed.server
    config = server.place / "config.json"
    config.write_text(json.dumps(_CONFIG))
    agents = [bed.agent("cabin"), bed.agent("dino")]
    # Silence counts after seconds, not after five minutes.
    server.start_metrics("newer", "-search.maxStalenessInterval=5s", "-search.setLookbackToStep")
    server.start_front()
    for agent in agents:
        targets = agent.place / "targets"
        words = ["render", "--config", str(config), "--agent", agent.name, "--output", str(targets)]
        agent.host.run(sys.executable, "-m", "clan_discovery", *words)
        agent.targets = targets / "node.json"
        agent.start_exporter()
        agent.start_metrics()

    def verdicts() -> dict[str, str]:
        words = ["verify", "--config", str(config), "--job", "node", "--format", "json"]
        said = server.host.run(sys.executable, "-m", "clan_discovery", *words, check=False)
        found = {one["machine"]: one["verdict"] for one in json.loads(said)["targets"]}
        return {name: found[name] for name in ("cabin", "dino")}

    eventually("both are up", lambda: verdicts() == {"cabin": "up", "dino": "up"}, LONG_S)
    for agent in agents:
        agent.leave()
    eventually("the other machine is down", lambda: verdicts() == {"cabin": "down", "dino": "pending"}, LONG_S)
    eventually("the laptop is down", lambda: verdicts() == {"cabin": "down", "dino": "down"}, LONG_S)
    for number, agent in enumerate(agents, 120):
        agent.come_back(number)
    eventually("both are up again", lambda: verdicts() == {"cabin": "up", "dino": "up"}, LONG_S)
