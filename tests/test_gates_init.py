"""`gates --init`: a checklist for each component in use, computed from the sources; no file is overwritten."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from clan_discovery.gates.checklist import read_checklist

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from clan_discovery.gates.checklist import Box
    from clan_discovery.model import Json
    from tests.conftest import Done


def write(home: Path, **config: Json) -> Path:
    """Write a config."""
    file = home / "c.json"
    file.write_text(json.dumps({"output": {"directory": "targets"}, **config}))
    return file


def clan(home: Path, **roles: Json) -> Path:
    """Write a clan inventory of `monitor` and `nas` with these roles, and a config for the server `monitor`."""
    machines = {name: {"name": name, "machineClass": "nixos", "tags": ["all"]} for name in ("monitor", "nas")}
    given: Json = {"server": {"machines": {"monitor": {}}}, "exporter": {"tags": {"all": {}}}, **roles}
    instances: Json = {"monitoring": {"module": {"name": "prometheus"}, "roles": given}}
    (home / "inventory.json").write_text(json.dumps({"machines": machines, "instances": instances}))
    return write(home, inventory={"file": "inventory.json"}, server="monitor", backends={})


def on(machine: str, **settings: Json) -> Json:
    """Return a role with one machine."""
    return {"machines": {machine: {"settings": settings}}}


def checklists(home: Path) -> dict[str, Sequence[Box]]:
    """Return the boxes of each checklist; no box is ticked."""
    files = sorted((home / "lists").iterdir())
    found: dict[str, Sequence[Box]] = {file.name: read_checklist(file.read_bytes(), file.name) for file in files}
    assert not any(box.is_ticked for boxes in found.values() for box in boxes)
    return found


def evidence(boxes: Sequence[Box]) -> list[str]:
    """Return all evidence of a checklist."""
    return [one.text for box in boxes for one in box.evidence]


def test_components_of_a_clan_are_in_order(tmp_path: Path, run: Callable[..., Done]) -> None:
    """Health check, log and way back of each; units and loopback only on the server itself."""
    config = clan(
        tmp_path,
        agent=on("nas"),
        logs=on("nas", backend="loki"),
        alerting=on("monitor"),
        dashboards=on("monitor"),
    )
    done = run("gates", "--init", tmp_path / "lists", "-c", config)
    names = ["1-metrics.md", "2-dashboards.md", "3-alerting.md", "4-logs.md", "5-agents.md"]
    assert (done.code, done.out.split()) == (0, [f"{tmp_path}/lists/{name}" for name in names])
    found = checklists(tmp_path)
    assert list(found) == names
    assert evidence(found["1-metrics.md"]) == [
        "http http://127.0.0.1:9090/-/ready",
        "unit prometheus.service",
        "verify",
        "unpublished",
    ]
    assert evidence(found["2-dashboards.md"]) == ["http http://127.0.0.1:3000/api/health", "unit grafana.service"]
    assert evidence(found["3-alerting.md"]) == [
        "http http://127.0.0.1:9093/-/ready",
        "unit alertmanager.service",
        "rule TargetDown",
        "rule Watchdog",
    ]
    assert not any("unit" in one for one in evidence(found["4-logs.md"]))
    assert evidence(found["5-agents.md"]) == ["verify nas"]
    logs = (tmp_path / "lists/4-logs.md").read_text()
    assert "on nas, `journalctl -u loki.service -n 50 --no-pager`" in logs
    assert "take nas out of the role `logs`, then `clan machines update nas`" in logs


def test_only_components_in_use_have_a_checklist(tmp_path: Path, run: Callable[..., Done]) -> None:
    """A role without members, and one that is disabled, are not in use."""
    config = clan(
        tmp_path, server=on("monitor", backend="victoriametrics"), dashboards=on("nas", enable=False), logs={}
    )
    assert run("gates", "--init", tmp_path / "lists", "-c", config).code == 0
    assert list(checklists(tmp_path)) == ["1-metrics.md"]
    assert "http http://127.0.0.1:8428/health" in evidence(checklists(tmp_path)["1-metrics.md"])


def test_targets_services_and_the_config_name_components(tmp_path: Path, run: Callable[..., Done]) -> None:
    """Without a clan: an Alertmanager in Compose, a Grafana that is a target, a Loki in `verify`."""
    (tmp_path / "compose.yaml").write_text(
        "services: {alertmanager: {image: prom/alertmanager}, prometheus: {image: prom/prometheus}}"
    )
    config = write(
        tmp_path,
        inventory={"compose": {"nas": {"files": ["compose.yaml"]}}},
        backends={"static": {"lab": {"targets": {"grafana": ["10.0.0.7:3000"], "node": ["10.0.0.7:9100"]}}}},
        verify={"loki": {"logs": {"url": "https://logs.example.org"}}},
    )
    assert run("gates", "--init", tmp_path / "lists", "-c", config).code == 0
    found = checklists(tmp_path)
    assert list(found) == ["1-metrics.md", "2-dashboards.md", "3-alerting.md", "4-logs.md"]
    assert "http http://10.0.0.7:3000/api/health" in evidence(found["2-dashboards.md"])
    assert "http https://logs.example.org/ready" in evidence(found["4-logs.md"])
    alerting = (tmp_path / "lists/3-alerting.md").read_text()
    assert "on nas, `docker compose logs --tail 50 alertmanager`" in alerting
    assert "`docker compose up -d alertmanager`" in alerting
    assert "systemctl" not in alerting


def test_no_file_is_overwritten(tmp_path: Path, run: Callable[..., Done]) -> None:
    """What a person has ticked stays, also behind a symlink; new components get their checklist."""
    config = clan(tmp_path)
    lists, other = tmp_path / "lists", tmp_path / "other"
    lists.mkdir()
    (lists / "1-metrics.md").write_text("- [x] mine")
    done = run("gates", "--init", lists, "-c", config)
    assert (done.code, done.out) == (0, "")
    assert f"kept {lists}/1-metrics.md: it exists" in done.err
    (lists / "1-metrics.md").unlink()
    (lists / "1-metrics.md").symlink_to(other)
    assert run("gates", "--init", lists, "-c", config).code == 0
    assert not other.exists()
    assert run("gates", "--init", tmp_path / "one.md", "-c", clan(tmp_path, alerting=on("nas"))).code == 0
    assert (tmp_path / "one.md").read_text().count("\n# ") == 1  # the second heading; the first is at the start
    (tmp_path / "file").write_text("")
    assert run("gates", "--init", tmp_path / "file", "-c", config).code == 5


def test_names_with_marks_of_markdown_make_valid_checklists(tmp_path: Path, run: Callable[..., Done]) -> None:
    """A name that looks like evidence or a box is only text."""
    name = "a`gate: nonsense`[x] b"
    config = clan(tmp_path)
    document = json.loads((tmp_path / "inventory.json").read_text())
    document["machines"][name] = {"name": name, "machineClass": "nixos", "tags": []}
    document["instances"]["monitoring"]["roles"]["dashboards"] = {"machines": {name: {}}}
    (tmp_path / "inventory.json").write_text(json.dumps(document))
    done = run("gates", "--init", tmp_path / "lists", "-c", config)
    if done.code == 0:  # else the inventory refuses the name
        assert "2-dashboards.md" in checklists(tmp_path)
    else:
        assert name in done.err
