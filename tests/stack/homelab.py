"""Everything that the boards show, on loopback: real exporters and programs, and recorded ones that cannot be had.

`nas` has node, systemd, smartctl and zfs exporter, Jellyfin and exportarr; `web` is probed; the others are away.
"""

from __future__ import annotations

import contextlib
import json
import re
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest

from tests.conftest import ROOT
from tests.stack.exporters import Answers, certificate_for, serving
from tests.support.builds import NotBuiltError, exporter
from tests.support.fleet import inventory
from tests.support.programs import absent, eventually, free_port, get, program, running
from tests.support.receiver import victoria_logs
from tests.support.systemd import booted
from tests.test_run import resident

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from clan_discovery.model import Json

LONG_S: Final = 240.0
EXPOSITION: Final = ROOT / "tests/data/exposition"
_GROWING: Final = re.compile(r"^(\S+(?:_total|_sum|_count|_bucket)(?:\{.*\})?) (\S+)$", re.MULTILINE)

_UNITS: Final = {
    "good.service": "[Service]\nExecStart=/bin/sleep infinity\n",
    "broken.service": "[Service]\nExecStart=/bin/false\n",
    "flapping.service": (
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=500ms\n"
    ),
    "backup.service": "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    "backup.timer": "[Timer]\nOnActiveSec=1s\nAccuracySec=100ms\n",
}

_MDSTAT: Final = """\
Personalities : [raid1]
md0 : active raid1 sdb1[1] sda1[0](F)
      1046528 blocks super 1.2 [2/1] [_U]

unused devices: <none>
"""
_ARC: Final = """\
13 1 0x01 4 1088 8012345678 9123456789
name                            type data
hits                            4    81234
misses                          4    1234
size                            4    4294967296
c_max                           4    8589934592
"""

_DISKS: Final[dict[str, dict[str, Json]]] = {
    "sda": {
        "device": {"name": "/dev/sda", "info_name": "/dev/sda [SAT]", "type": "sat", "protocol": "ATA"},
        "smartctl": {"version": [7, 4], "exit_status": 0},
        "model_name": "SpinningRust 4000",
        "serial_number": "SR4000-17",
        "smart_status": {"passed": True},
        "power_on_time": {"hours": 20100},
        "temperature": {"current": 34},
        "ata_smart_attributes": {
            "table": [
                {
                    "id": 5,
                    "name": "Reallocated_Sector_Ct",
                    "value": 100,
                    "worst": 100,
                    "thresh": 10,
                    "flags": {"string": "PO--CK "},
                    "raw": {"value": 8, "string": "8"},
                }
            ]
        },
    },
    "nvme0": {
        "device": {"name": "/dev/nvme0", "info_name": "/dev/nvme0", "type": "nvme", "protocol": "NVMe"},
        "smartctl": {"version": [7, 4], "exit_status": 8},
        "model_name": "QuickFlash 1T",
        "serial_number": "QF1T-4",
        "smart_status": {"passed": False},
        "power_on_time": {"hours": 310},
        "temperature": {"current": 51},
        "nvme_smart_health_information_log": {"percentage_used": 97, "media_errors": 4, "available_spare": 3},
    },
}
"""What a fake smartctl answers, in smartctl's own JSON."""


@dataclass
class Homelab:
    """What is there to scrape, and the parts that a test changes."""

    place: Path
    jobs: list[dict[str, Json]] = field(default_factory=list["dict[str, Json]"])
    jellyfin: Answers = field(default_factory=Answers)
    alertmanager: int = 0
    has_systemd: bool = False

    def add(self, job: str, port: int, machine: str, instance: str = "", **settings: Json) -> None:
        """Add a target on loopback."""
        labels = {"machine": machine, "instance": instance or machine}
        target: Json = {"targets": [f"127.0.0.1:{port}"], "labels": labels}
        self.jobs.append({"job_name": f"{job}-{len(self.jobs)}", "static_configs": [target], **settings, **_named(job)})

    def play(self, times: int) -> None:
        """Let the counters of Jellyfin be so many times what is recorded."""
        text = (EXPOSITION / "jellyfin.txt").read_text()
        self.jellyfin.body = _GROWING.sub(lambda found: f"{found[1]} {float(found[2]) * times:g}", text)


def _named(job: str) -> dict[str, Json]:
    """Set the label `job`: several jobs of a config may have it."""
    return {"relabel_configs": [{"target_label": "job", "replacement": job}]}


@contextlib.contextmanager
def homelab(place: Path) -> Generator[Homelab]:
    """Run all of it, but the servers."""
    made = Homelab(place)
    with contextlib.ExitStack() as stack:
        for add in (_nodes, _smartctl, _blackbox, _recorded, _systemd, _alerting, _agents):
            add(made, stack)
        yield made


def _start(stack: contextlib.ExitStack, place: Path, command: list[str], url: str) -> None:
    """Run a program until the tests end, and wait until it answers."""
    log = place / f"{command[0].rpartition('/')[2]}-{url.rpartition(':')[2].partition('/')[0]}.log"
    process = stack.enter_context(running([program("setpriv"), "--pdeathsig", "KILL", *command], log))

    def answers() -> bool:
        if process.poll() is not None:
            pytest.fail(f"{command[0]} ended: {log.read_text(errors='replace')[-2000:]}")
        get(url)
        return True

    eventually(f"{command[0]} answers", answers, LONG_S)


def _exporter(name: str) -> str:
    try:
        return str(exporter(name))
    except NotBuiltError as error:
        absent(name, str(error), required=False)


def _nodes(made: Homelab, stack: contextlib.ExitStack) -> None:
    """Start node exporter on this machine, and one that reads ZFS and RAID from a fake /proc."""
    path = program("prometheus-node-exporter")
    port = free_port()
    _start(stack, made.place, [path, f"--web.listen-address=127.0.0.1:{port}"], f"http://127.0.0.1:{port}/metrics")
    made.add("node", port, "nas")
    proc = made.place / "proc"
    zfs = proc / "spl/kstat/zfs"
    for pool, state in (("tank", "ONLINE"), ("backup", "DEGRADED")):
        (zfs / pool).mkdir(parents=True)
        (zfs / pool / "state").write_text(f"{state}\n")
    (zfs / "arcstats").write_text(_ARC)
    (proc / "mdstat").write_text(_MDSTAT)
    port = free_port()
    only = ["--collector.disable-defaults", "--collector.zfs", "--collector.mdadm", f"--path.procfs={proc}"]
    command = [path, f"--web.listen-address=127.0.0.1:{port}", *only]
    _start(stack, made.place, command, f"http://127.0.0.1:{port}/metrics")
    made.add("node", port, "nas", "nas:disks")


def _smartctl(made: Homelab, stack: contextlib.ExitStack) -> None:
    """Start smartctl exporter with a fake smartctl."""
    place = made.place / "smartctl"
    place.mkdir()
    devices: Json = [disk["device"] for disk in _DISKS.values()]
    (place / "scan.json").write_text(json.dumps({"devices": devices}))
    for name, disk in _DISKS.items():
        (place / f"{name}.json").write_text(json.dumps({"json_format_version": [1, 0], **disk}))
    fake = place / "smartctl"
    fake.write_text(
        '#!/bin/sh\ncase "$*" in *--scan*) name=scan ;; *) for name; do :; done ;; esac\n'
        f'cat "{place}/${{name##*/}}.json"\n'
    )
    fake.chmod(0o755)
    port = free_port()
    command = [_exporter("smartctl_exporter"), f"--smartctl.path={fake}", f"--web.listen-address=127.0.0.1:{port}"]
    _start(stack, made.place, command, f"http://127.0.0.1:{port}/metrics")
    made.add("smartctl", port, "nas")


def _blackbox(made: Homelab, stack: contextlib.ExitStack) -> None:
    """Start blackbox exporter, and a server with TLS that it probes."""
    site, port = free_port(), free_port()
    certificate = certificate_for(made.place / "site", "127.0.0.1", days=10)
    stack.enter_context(serving("127.0.0.1", site, Answers(body="hello\n"), certificate))
    tls: Json = {"tls_config": {"ca_file": str(certificate.authority)}, "preferred_ip_protocol": "ip4"}
    config = made.place / "blackbox.yml"
    config.write_text(json.dumps({"modules": {"http_2xx": {"prober": "http", "timeout": "30s", "http": tls}}}))
    command = [_exporter("blackbox_exporter"), f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
    _start(stack, made.place, command, f"http://127.0.0.1:{port}/-/healthy")
    url = f"https://127.0.0.1:{site}/"
    parameters: Json = {"module": ["http_2xx"], "target": [url]}
    made.add("blackbox", port, "nas", url, metrics_path="/probe", params=parameters)


def _recorded(made: Homelab, stack: contextlib.ExitStack) -> None:
    """Serve what Jellyfin, exportarr and zfs exporter would."""
    made.play(1)
    sources = {name: Answers(body=(EXPOSITION / f"{name}.txt").read_text()) for name in ("sonarr", "radarr", "zfs")}
    for name, answers in {**sources, "jellyfin": made.jellyfin}.items():
        port = free_port()
        stack.enter_context(serving("127.0.0.1", port, answers))
        made.add(f"exportarr-{name}" if name.endswith("arr") else name, port, "nas")


def _systemd(made: Homelab, stack: contextlib.ExitStack) -> None:
    """Boot a systemd, and serve what both exporters say inside; not where it cannot boot."""
    node = "prometheus-node-exporter --collector.disable-defaults --collector.systemd --collector.systemd.private"
    flags = "--collector.systemd.enable-restarts-metrics"
    other = f"{_exporter('systemd_exporter')} --systemd.collector.private --systemd.collector.enable-restart-count"
    services = {
        "node.service": f"[Service]\nExecStart=/usr/bin/{node} {flags} --web.listen-address=127.0.0.1:9100\n",
        "systemd.service": f"[Service]\nExecStart={other} --web.listen-address=127.0.0.1:9558\n",
    }
    with contextlib.suppress(pytest.skip.Exception):
        machine = stack.enter_context(booted({**_UNITS, **services}))
        machine.ctl("start", "--no-block", *services, *(unit for unit in _UNITS if unit != "backup.service"))
        for port, job, metric in ((9100, "node", "node_systemd"), (9558, "systemd", "systemd")):
            words = ("curl", "-sS", "--fail", f"http://127.0.0.1:{port}/metrics")
            said = ""

            def is_there(words: tuple[str, ...] = words, metric: str = metric) -> bool:
                nonlocal said
                said = machine.command(*words).stdout
                failed = re.search(rf'^{metric}_unit_state{{.*"broken.service".*"failed".*}} 1$', said, re.MULTILINE)
                ran = re.search(rf"^{metric}_timer_last_trigger_seconds{{.*}} [1-9]", said, re.MULTILINE)
                return failed is not None and ran is not None

            eventually(f"{job} exporter sees the units", is_there, LONG_S)
            served = free_port()
            stack.enter_context(serving("127.0.0.1", served, Answers(body=said)))
            made.add(job, served, "nas", f"nas:{port}")
        made.has_systemd = True


def _alerting(made: Homelab, stack: contextlib.ExitStack) -> None:
    """Start Alertmanager."""
    port = free_port()
    config = made.place / "alertmanager.yml"
    config.write_text(json.dumps({"route": {"receiver": "none"}, "receivers": [{"name": "none"}]}))
    command = [program("prometheus-alertmanager"), f"--config.file={config}", "--cluster.listen-address="]
    command += [f"--storage.path={made.place}/alertmanager", f"--web.listen-address=127.0.0.1:{port}"]
    _start(stack, made.place, command, f"http://127.0.0.1:{port}/-/ready")
    made.add("alertmanager", port, "monitor")
    made.alertmanager = port


def _agents(made: Homelab, stack: contextlib.ExitStack) -> None:
    """Start vmagent, vlagent and VictoriaLogs. No server listens where the agents send to."""
    nowhere = "-remoteWrite.url=http://127.0.0.1:9/nowhere"
    for job, path, flags in (
        ("vmagent", program("vmagent"), [nowhere, f"-remoteWrite.tmpDataPath={made.place}/vmagent"]),
        ("vlagent", victoria_logs("vlagent"), [nowhere, f"-remoteWrite.tmpDataPath={made.place}/vlagent"]),
        ("victorialogs", victoria_logs("victoria-logs"), [f"-storageDataPath={made.place}/logs"]),
    ):
        port = free_port()
        command = [path, f"-httpListenAddr=127.0.0.1:{port}", *flags]
        _start(stack, made.place, command, f"http://127.0.0.1:{port}/health")
        made.add(job, port, "nas")
        if job == "victorialogs":  # it counts lines from the first one on
            line = json.dumps({"_msg": "hello", "_time": "0"}).encode()
            url = f"http://127.0.0.1:{port}/insert/jsonline"
            request = urllib.request.Request(url, line, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - a server of the test's own
                assert answer.status == 200


def own_config(place: Path, server: int) -> Path:
    """Write a config of clan-discovery whose scraper is at this port."""
    machines: dict[str, dict[str, Json]] = {
        "nas": {"tags": ["storage", "zfs"], "description": "the big disk box"},
        "web": {"tags": ["dmz"]},
        "lap": {"tags": ["laptop"]},
        "db": {},
        "monitor": {},
    }
    (place / "inventory.json").write_text(json.dumps(inventory(machines)))
    addresses = {name: f"127.0.0.{n}" for n, name in enumerate(("nas", "web", "monitor"), 11)}
    config: Json = {
        "inventory": {"file": "inventory.json"},
        "backends": {"static": {"lab": {"machines": addresses}}},
        "output": {"directory": "targets"},
        "limits": {"machines": {"nas": {"cpu_percent": 99}}},
        "units": {"machines": {"nas": ["good.service", "never.service"]}},
        "verify": {"scrapers": {"prometheus": {"url": f"http://127.0.0.1:{server}"}}},
    }
    (place / "config.yaml").write_text(json.dumps(config))
    return place / "config.yaml"


@contextlib.contextmanager
def discovery(made: Homelab, server: int) -> Generator[None]:
    """Run clan-discovery, which verifies what the server at a port scrapes."""
    port = free_port()
    config = own_config(made.place, server)
    words = ("--interval", "2s", "--verify-interval", "10s", "--metrics-listen", f"127.0.0.1:{port}")
    with resident(config, *words):
        eventually("run has metrics", lambda: bool(get(f"http://127.0.0.1:{port}/metrics")), LONG_S)
        made.add("clan-discovery", port, "monitor")
        yield
