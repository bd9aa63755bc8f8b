"""The shipped alert rules in a real Prometheus, which reads the metrics of a real `run`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from tests.support.dns import lying, reply
from tests.support.fleet import inventory
from tests.support.programs import eventually, free_port, get_json, program, running
from tests.support.rules import shipped, write_group
from tests.test_run import resident

if TYPE_CHECKING:
    from pathlib import Path

    import dns.message

    from clan_discovery.model import Json


def write_prometheus(place: Path, port: int) -> Path:
    """Write a config with the rules, without what they wait for, and the listener at a port; return it."""
    write_group(place / "rules.json", shipped())
    target: Json = {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": "monitor", "machine": "monitor"}}
    config: Json = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.json"],
        "scrape_configs": [{"job_name": "clan-discovery", "static_configs": [target]}],
    }
    (place / "prometheus.json").write_text(json.dumps(config))
    return place / "prometheus.json"


def alerts(port: int) -> dict[str, dict[str, Json]]:
    """Return the firing alerts of Prometheus by name: each with its labels and its annotations."""
    match get_json(f"http://127.0.0.1:{port}/api/v1/alerts"):
        case {"data": {"alerts": [*found]}}:
            firing = [alert for alert in found if isinstance(alert, dict) and alert["state"] == "firing"]
            return {str(labels["alertname"]): a for a in firing if isinstance(labels := a["labels"], dict)}
        case other:
            raise AssertionError(other)


def answer(query: dns.message.Message, _: bool) -> bytes:  # noqa: FBT001 - the server's form
    """Answer for `db`, and fail for every other name."""
    name = query.question[0].name
    if name.to_text().lower().startswith("db."):
        return reply(query, f"{name} 300 A 10.0.0.3").to_wire()
    return reply(query, rcode=2).to_wire()


def test_alerts_of_a_failing_lookup_and_a_failing_flake(tmp_path: Path) -> None:
    """They fire for their causes only, and the flake's alert ends with its cause."""
    nix, flake = tmp_path / "bin/nix", tmp_path / "clan/flake.nix"
    for file in (nix, flake):
        file.parent.mkdir()
    # A stand-in for Nix, with the inventory as the flake.
    nix.write_text(f"#!/bin/sh\ncat {flake}\n")
    nix.chmod(0o755)
    good = json.dumps(inventory(["db", "web"]))
    flake.write_text(good)
    port, own = free_port(), free_port()
    with lying(answer) as liar:
        config: Json = {
            "inventory": {"flake": str(flake.parent)},
            "backends": {"dns": {"lan": {"servers": [liar.server], "domain": "lan.example", "type": "A"}}},
            "output": {"directory": "targets"},
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        words = ("--interval", "1s", "--metrics-listen", f"127.0.0.1:{port}")
        prometheus = [program("prometheus"), f"--config.file={write_prometheus(tmp_path, port)}"]
        prometheus += [f"--storage.tsdb.path={tmp_path}/tsdb", f"--web.listen-address=127.0.0.1:{own}"]
        with (
            resident(tmp_path / "config.json", *words, PATH=f"{nix.parent}:{os.environ['PATH']}"),
            running(prometheus, tmp_path / "prometheus.log"),
        ):
            # This Prometheus does not scrape the targets.
            first = {"ClanNamesFailing", "TargetDown"}
            seen: dict[str, dict[str, Json]] = {}

            def fire(*names: str) -> bool:
                seen.clear()
                seen.update(alerts(own))
                return set(seen) == set(names)

            eventually("the lookup's alert fires", lambda: fire(*first))
            match seen["ClanNamesFailing"]:
                case {"labels": labels, "annotations": {"summary": summary}}:
                    assert summary == "1 lookups of backend lan fail"
                    assert labels == {
                        "alertname": "ClanNamesFailing",
                        "backend": "lan",
                        "instance": "monitor",
                        "job": "clan-discovery",
                        "machine": "monitor",
                        "severity": "warning",
                    }
                case other:
                    raise AssertionError(other)
            flake.write_text("no JSON")
            both = first | {"ClanFlakeFailing"}
            eventually("the flake's alert fires, too", lambda: fire(*both))
            flake.write_text(good)
            eventually("the flake's alert ends", lambda: fire(*first))
