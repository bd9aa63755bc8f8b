"""From an exporter that dies to the mail: `run`, a real server with the shipped rules, Alertmanager, a mail server."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Final

import pytest
import yaml

from tests.stack.exporters import Answers, node_exporter, node_metrics, serving
from tests.support.alerting import LONG_S, QUICK, alertmanager, alertmanager_config, mailbox
from tests.support.fleet import inventory
from tests.support.programs import eventually, free_port, get, get_json, running, scraper_program
from tests.support.rules import name_of, shipped, write_group
from tests.test_run import resident

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

HOSTS: Final = {name: f"127.0.1.{number}" for number, name in enumerate(("monitor", "nas", "web", "laptop"), 11)}
NAS: Final = 'the big {{ .Status }} "box" of $HOME ${HOME}'


def write_inventory(place: Path, node: int) -> Path:
    """Write the config of a fleet with a laptop that is off, and a machine that is described; return it."""
    machines: dict[str, dict[str, Json]] = {name: {} for name in HOSTS}
    machines["nas"] = {"tags": ["zfs", "storage"], "description": NAS}
    machines["laptop"] = {"tags": ["roaming"]}
    (place / "inventory.json").write_text(json.dumps(inventory(machines, server={"scrapeServers": False})))
    config: Json = {
        "inventory": {"file": "inventory.json"},
        "backends": {"static": {"lab": {"machines": HOSTS}}},
        "exporters": {"node": {"port": node}},
        "output": {"directory": "targets"},
    }
    (place / "config.yaml").write_text(json.dumps(config))
    return place / "config.yaml"


def write_jobs(place: Path, run: Callable[..., Done], own: int) -> dict[str, Json]:
    """Return a scrape config with the jobs of the fleet, and `run` itself."""
    done = run("show", "-c", place / "config.yaml", "--format", "scrape-config")
    assert done.code == 0, done.err
    target: Json = {"targets": [f"127.0.0.1:{own}"], "labels": {"instance": "monitor", "machine": "monitor"}}
    job: Json = {"job_name": "clan-discovery", "static_configs": [target]}
    timing: Json = {"scrape_interval": "3s", "scrape_timeout": "3s"}
    return {"global": timing, "scrape_configs": [job, *yaml.safe_load(done.out)["scrape_configs"]]}


@contextlib.contextmanager
def prometheus(place: Path, which: str, config: dict[str, Json], notified: str) -> Generator[str]:
    """Run Prometheus with the rules; give its URL."""
    port = free_port()
    alerting: Json = {"alertmanagers": [{"static_configs": [{"targets": [notified]}]}]}
    document = {**config, "rule_files": ["rules.json"], "alerting": alerting}
    (place / "prometheus.json").write_text(json.dumps(document))
    command = [scraper_program("prometheus", which), f"--config.file={place}/prometheus.json"]
    command += [f"--storage.tsdb.path={place}/tsdb", f"--web.listen-address=127.0.0.1:{port}"]
    with running(command, place / "prometheus.log"):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def victoriametrics(place: Path, which: str, config: dict[str, Json], notified: str) -> Generator[str]:
    """Run VictoriaMetrics, and vmalert as the NixOS module does; give the URL of vmalert."""
    store, port = free_port(), free_port()
    (place / "scrape.json").write_text(json.dumps(config))
    command = [scraper_program("victoria-metrics", which), f"-promscrape.config={place}/scrape.json"]
    command += [f"-storageDataPath={place}/data", f"-httpListenAddr=127.0.0.1:{store}", "-search.latencyOffset=0s"]
    url = f"http://127.0.0.1:{store}"
    ruler = [scraper_program("vmalert", which), f"-rule={place}/rules.json", f"-httpListenAddr=127.0.0.1:{port}"]
    ruler += [f"-datasource.url={url}", f"-remoteWrite.url={url}", f"-remoteRead.url={url}"]
    ruler += [f"-notifier.url=http://{notified}", "-rule.evalDelay=0s", "-remoteWrite.flushInterval=200ms"]
    with running(command, place / "store.log"):
        eventually("VictoriaMetrics answers", lambda: bool(get(f"{url}/health")), LONG_S)
        with running(ruler, place / "vmalert.log"):
            yield f"http://127.0.0.1:{port}"


SERVERS: Final = {
    "prometheus 2.42": (prometheus, "debian"),
    "prometheus 3.5": (prometheus, "newer"),
    "vmalert 1.131": (victoriametrics, "newer"),
}


def alerts(url: str) -> list[dict[str, Json]]:
    """Return the alerts of Prometheus or vmalert that wait or fire."""
    match get_json(f"{url}/api/v1/alerts"):
        case {"data": {"alerts": list(found)}}:
            return [one for one in found if isinstance(one, dict)]
        case other:
            raise AssertionError(other)


def evaluates(url: str) -> bool:
    """Tell whether every rule was evaluated at least once, and none failed."""
    match get_json(f"{url}/api/v1/rules"):
        case {"data": {"groups": [{"rules": list(rules)}]}}:
            return all(
                isinstance(rule, dict)
                and not str(rule["lastEvaluation"]).startswith("0001")
                and not rule.get("lastError")
                for rule in rules
            )
        case _:
            return False


@pytest.mark.parametrize("kind", SERVERS)
def test_exporter_that_dies_is_one_mail(kind: str, tmp_path: Path, run: Callable[..., Done]) -> None:
    """It names the machine, its tags and the fix. The laptop that is off is in none."""
    node, own = free_port(), free_port()
    serve, which = SERVERS[kind]
    config = write_inventory(tmp_path, node)
    # A scrape that is late on a busy machine is no mail.
    waits = {name_of(rule): "1m" for rule in shipped() if "for" in rule} | {"TargetDown": "12s"}
    write_group(tmp_path / "rules.json", shipped(), waits=waits)
    with contextlib.ExitStack() as stack:
        for name in ("monitor", "web"):
            stack.enter_context(serving(HOSTS[name], node, Answers(body=node_metrics(name))))
        of_nas = stack.enter_context(contextlib.ExitStack())
        of_nas.enter_context(node_exporter(HOSTS["nas"], node, "nas", tmp_path / "node.log"))
        stack.enter_context(resident(config, "--interval", "1s", "--metrics-listen", f"127.0.0.1:{own}"))
        eventually("the targets are written", (tmp_path / "targets/node.json").exists, LONG_S)
        box = stack.enter_context(mailbox())
        port = free_port()
        url = stack.enter_context(serve(tmp_path, which, write_jobs(tmp_path, run, own), f"127.0.0.1:{port}"))
        eventually("the rules are evaluated", lambda: evaluates(url), LONG_S)
        eventually("all is well", lambda: not alerts(url), LONG_S)
        # It starts last: what was wrong before the first scrapes is in no mail.
        stack.enter_context(alertmanager(tmp_path, alertmanager_config(box.address, times=QUICK), which, port))
        of_nas.close()
        eventually("it is told", lambda: len(box.mails) >= 1, LONG_S)
        of_nas.enter_context(node_exporter(HOSTS["nas"], node, "nas", tmp_path / "node.log"))
        eventually("its end is told", lambda: len(box.mails) >= 2, LONG_S)
        assert box.subjects == ["[warning] nas: TargetDown", "[resolved] nas: TargetDown"]
        down, resolved = (mail.text for mail in box.mails)
        assert down.splitlines()[0] == resolved.splitlines()[0] == f"nas (storage, zfs): {NAS}"
        assert "\n  Fix:     clan-discovery explain nas\n  Runbook: docs/alerts.md#targetdown\n" in down
        assert "\n  Board:   /d/clan-host?var-machine=nas\n" in down
