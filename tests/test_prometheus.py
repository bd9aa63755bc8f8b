"""The main use with the real programs: from inventory and tailnet to a scraped target with its name."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from tests.support.fleet import fleet, inventory, node, status
from tests.support.localapi import Behaviour, localapi
from tests.support.programs import eventually, free_port, get, get_json, program, promtool_accepts, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done


def active(port: int) -> dict[str, tuple[str, str, str]]:
    """Return job, scrape URL and health of each of Prometheus's targets, by instance."""
    match get_json(f"http://127.0.0.1:{port}/api/v1/targets?state=active"):
        case {"data": {"activeTargets": [*targets]}}:
            return dict(_target(target) for target in targets)
        case other:
            raise AssertionError(other)


def _target(target: Json) -> tuple[str, tuple[str, str, str]]:
    match target:
        case {"labels": {"instance": str(instance), "job": str(job)}, "scrapeUrl": str(url), "health": str(health)}:
            return instance, (job, url, health)
        case other:
            raise AssertionError(other)


def start_prometheus(home: Path, targets: Path, through: int | None = None) -> list[str]:
    """Write a config that watches the target files; return the command.

    `through` is the port of an exporter that answers for all machines: every scrape uses it as a proxy.
    """
    proxy: dict[str, Json] = {}
    if through is not None:
        proxy = {"proxy_url": f"http://127.0.0.1:{through}"}
    config: Json = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "900ms"},
        "scrape_configs": [
            {
                "job_name": job,
                **proxy,
                "file_sd_configs": [{"files": [f"{targets}/{job}.json"]}],
                "relabel_configs": [
                    {"source_labels": ["__meta_clan_observed"], "target_label": "observed"},
                    {"source_labels": ["__meta_clan_machine_tags"], "target_label": "tags"},
                ],
            }
            for job in ("node", "systemd")
        ],
    }
    (home / "prometheus.yml").write_text(json.dumps(config))
    return [
        program("prometheus"),
        f"--config.file={home}/prometheus.yml",
        f"--storage.tsdb.path={home}/tsdb",
        "--web.listen-address=127.0.0.1:",
    ]


def test_a_real_prometheus_scrapes_the_declared_machines_by_name(tmp_path: Path, run: Callable[..., Done]) -> None:
    """LocalAPI, refresh, file, Prometheus, node exporter: `up` has the names of exactly the declared machines.

    Then the tailnet changes, and Prometheus follows without a restart; then tailscaled fails, and nothing changes.
    """
    exporter_port, port = free_port(), free_port()
    targets = tmp_path / "targets"
    # A real node exporter answers at the tailnet address of `monitor`; the phone must not appear.
    here, phone, db = node(1, "monitor"), node(9, "pixel", OS="android"), node(2, "db")
    document = inventory({"monitor": {"tags": ["hub"]}, "db": {}, "attic": {}}, exporter={"port": exporter_port})
    (tmp_path / "inventory.json").write_text(json.dumps(document))
    (tmp_path / "config.yaml").write_text(
        "inventory: {file: inventory.json}\n"
        f"backends: {{tailscale: {{tailnet: {{socket: {tmp_path}/s}}}}}}\n"
        "output: {directory: targets}\n"
    )

    def refresh() -> Done:
        done = run("refresh", "--config", tmp_path / "config.yaml")
        promtool_accepts(targets)
        return done

    how = Behaviour(body=json.dumps(status([here, phone])).encode())
    exporter = [
        program("prometheus-node-exporter"),
        f"--web.listen-address=127.0.0.1:{exporter_port}",
        "--collector.disable-defaults",
        "--collector.time",
    ]
    with (
        localapi(tmp_path / "s", how),
        running(exporter, tmp_path / "exporter.log"),
    ):
        assert refresh().code == 0
        command = start_prometheus(tmp_path, targets, exporter_port)
        command[-1] += str(port)
        with running(command, tmp_path / "prometheus.log"):
            up = ("node", f"http://100.64.0.1:{exporter_port}/metrics", "up")
            eventually("monitor is up", lambda: active(port).get("monitor") == up)
            assert sorted(active(port)) == ["attic", "db", "monitor"]
            assert active(port)["attic"][1] == f"http://attic.tail1a2b3.ts.net:{exporter_port}/metrics"
            labels = get_json(f"http://127.0.0.1:{port}/api/v1/query?query=up{{machine=%22monitor%22}}")
            assert '"tags": ",all,hub,nixos,"' in json.dumps(labels)

            how.body = json.dumps(status([here, db, phone])).encode()
            assert refresh().code == 0
            eventually("db stands on the tailnet", lambda: active(port)["db"][1].startswith("http://100.64.0.2"))

            for failing in (
                {"status": 500},
                {"body": b"null"},
                {"body": json.dumps(fleet(["x"], BackendState="Stopped")).encode()},
            ):
                how.status, how.body = 200, how.body
                for key, value in failing.items():
                    setattr(how, key, value)
                before = (targets / "node.json").stat().st_mtime_ns
                assert refresh().code == 3
                assert (targets / "node.json").stat().st_mtime_ns == before
            time.sleep(2)
            assert sorted(active(port)) == ["attic", "db", "monitor"]
            metrics = get(f"http://127.0.0.1:{port}/metrics").decode()
            errors = [line for line in metrics.splitlines() if line.startswith("prometheus_sd_file_read_errors_total")]
            assert errors == ["prometheus_sd_file_read_errors_total 0"]
