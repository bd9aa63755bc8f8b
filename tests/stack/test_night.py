"""A night: machines die, come back and roam; what arrives in the mailbox is what a person needs, and nothing else.

Each machine is a network namespace with a real node exporter. The server has `clan-discovery run`, a real Prometheus or
VictoriaMetrics with vmalert, the shipped rules, Alertmanager with the shipped config, and a real mail server. All times
of rules and routes are a twentieth of the shipped ones.
"""

from __future__ import annotations

import contextlib
import json
import mailbox
import os
import re
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from email import message_from_binary_file, policy
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import pytest

from tests.stack.agents import ask
from tests.support.alerting import alerting_tool, alertmanager_config, write_config
from tests.support.builds import NotBuiltError, newer_scraper
from tests.support.programs import absent, eventually, program, scraper_program
from tests.support.rules import FILES
from tests.tailnet.world import NoWorldError, World

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from email.message import EmailMessage

    from clan_discovery.model import Json
    from tests.tailnet.world import Host, Process

ServerKind = Literal["prometheus", "victoria-metrics"]

LONG_S: Final = 300.0
QUICKER: Final = 20
"""How many seconds of a rule are one here."""
APPS: Final = tuple(f"app{number}" for number in range(1, 7))
MACHINES: Final = ("server", "db", "nas", *APPS, "dino")
EXPORTERS: Final = {"node": 9100, "app": 9101}
METRICS: Final = "127.0.0.1:9942"
ALERTMANAGER: Final = "http://127.0.0.1:9093"
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}


def quicker(text: str) -> str:
    """Return a duration divided: `5m` is `10s`."""
    return f"{max(1, int(text[:-1]) * _SECONDS[text[-1]] // QUICKER)}s"


def quicker_rules(place: Path) -> None:
    """Write the shipped rules: they wait, hold and are evaluated in shorter times."""
    place.mkdir()
    for file in FILES:
        waits, holds = r"(?<=\bfor: )\d+[smh]$", r"(?<=\[)\d+m(?=\]\) == )"
        text = re.sub(f"{waits}|{holds}", lambda found: quicker(found[0]), file.read_text(), flags=re.MULTILINE)
        (place / file.name).write_text(re.sub(r"\binterval: \w+", "interval: 1s", text))


def inventory() -> Json:
    """Return a clan: six machines need the database, and one comes and goes."""
    machines: dict[str, Json] = {name: {"tags": ["web"]} for name in APPS}
    machines |= {
        "server": {"tags": ["server"]},
        "db": {"tags": ["postgres"], "description": "the database of all apps"},
        "nas": {"tags": ["storage", "zfs"], "description": "the big disk box"},
        "dino": {"tags": ["laptop"]},
    }
    apps: Json = {"tags": ["web"], "settings": {"exporters": {"app": {"port": EXPORTERS["app"]}}}}
    roles: Json = {
        "server": {"machines": {"server": {"settings": {"scrapeServers": False}}}},
        "exporter": {"tags": ["all"], "settings": {"exporters": {"node": {}}}},
    }
    services: Json = {"exporter": apps}
    module: Json = {"name": "prometheus"}
    instances: Json = {
        "monitoring": {"module": module, "roles": roles},
        "apps": {"module": module, "roles": services},
    }
    return {"machines": machines, "instances": instances}


@dataclass
class Night:
    """The machines, and what arrived in the mailbox."""

    world: World
    kind: ServerKind
    hosts: dict[str, Host] = field(default_factory=dict["str", "Host"])
    exporters: dict[tuple[str, str], Process] = field(default_factory=dict["tuple[str, str]", "Process"])

    @property
    def server(self) -> Host:
        """The machine that scrapes and sends mails."""
        return self.hosts["server"]

    def start_exporter(self, name: str, type_: str) -> None:
        """Start an exporter of a machine."""
        host = self.hosts[name]
        words = ["unshare", "--uts", "sh", "-c", 'hostname "$1" && shift && exec "$@"', "sh", name]
        words += [program("prometheus-node-exporter"), f"--web.listen-address=:{EXPORTERS[type_]}"]
        words += ["--collector.disable-defaults", "--collector.uname", "--collector.loadavg"]
        self.exporters[name, type_] = host.start(*words, log=type_)

    def kill(self, name: str, type_: str) -> None:
        """Kill an exporter of a machine."""
        self.exporters.pop((name, type_)).end(signal.SIGKILL)

    def write_config(self) -> None:
        """Write the config with the present addresses of the machines."""
        addresses: Json = {name: host.run("hostname", "-I").split()[0] for name, host in self.hosts.items()}
        config: Json = {
            "inventory": {"file": "inventory.json"},
            "backends": {"static": {"lan": {"machines": addresses}}},
            "server": "server",
            "needs": {name: ["db"] for name in APPS},
            "output": {"directory": "targets"},
        }
        file = self.server.place / "config.json"
        (file.parent / "new.json").write_text(json.dumps(config))
        (file.parent / "new.json").rename(file)

    def start_server(self) -> None:
        """Start the programs of the server."""
        server = self.server
        place = server.place
        (place / "inventory.json").write_text(json.dumps(inventory()))
        self.write_config()
        quicker_rules(place / "rules")
        server.start(
            *(Path(sys.executable).with_name("aiosmtpd"), "-n", "-l", "127.0.0.1:25"),
            *("-c", "aiosmtpd.handlers.Mailbox", place / "mails"),
            log="mail",
        )
        times = {"10s": "3s", "5m": quicker("5m")}
        file = write_config(place, alertmanager_config("127.0.0.1:25", times=times))
        server.start(
            *(alerting_tool("alertmanager", "debian"), f"--config.file={file}", f"--storage.path={place}/alertmanager"),
            *("--web.listen-address=127.0.0.1:9093", "--cluster.listen-address="),
            log="alertmanager",
        )
        ours, config = Path(sys.executable).with_name("clan-discovery"), ("-c", place / "config.json")
        # Before Prometheus starts, as on NixOS: it does not watch a directory that is not there.
        server.run("env", f"STATE_DIRECTORY={place}/state", ours, "refresh", *config, seconds=LONG_S)
        words = ("--interval", "1s", "--metrics-listen", METRICS)
        server.start(ours, "run", *config, *words, log="run", environment={"STATE_DIRECTORY": f"{place}/state"})
        jobs: list[Json] = [
            {"job_name": name, "file_sd_configs": [{"files": [f"{place}/targets/{name}.json"]}]} for name in EXPORTERS
        ]
        own: Json = {"targets": [METRICS], "labels": {"instance": "server", "machine": "server"}}
        jobs.append({"job_name": "clan-discovery", "static_configs": [own]})
        if self.kind == "prometheus":
            self.start_prometheus(jobs)
        else:
            self.start_victoria_metrics(jobs)

    def start_prometheus(self, jobs: list[Json]) -> None:
        """Start Prometheus, which evaluates the rules itself."""
        place = self.server.place
        timing: Json = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        manager: Json = {"alertmanagers": [{"static_configs": [{"targets": ["127.0.0.1:9093"]}]}]}
        document = {"global": timing, "scrape_configs": jobs, "rule_files": ["rules/*.yml"], "alerting": manager}
        (place / "prometheus.yml").write_text(json.dumps(document))
        words = [f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/tsdb"]
        words += ["--web.listen-address=127.0.0.1:9090", "--rules.alert.resend-delay=5s"]
        self.server.start(scraper_program("prometheus", "debian"), *words, log="prometheus")

    def start_victoria_metrics(self, jobs: list[Json]) -> None:
        """Start VictoriaMetrics, and vmalert, which writes its records back."""
        place = self.server.place
        timing: Json = {"scrape_interval": "1s", "scrape_timeout": "1s"}
        (place / "scrape.yml").write_text(json.dumps({"global": timing, "scrape_configs": jobs}))
        store = "http://127.0.0.1:8428"
        words = [f"-promscrape.config={place}/scrape.yml", f"-storageDataPath={place}/vm", "-search.latencyOffset=0s"]
        words += ["-httpListenAddr=127.0.0.1:8428", "-promscrape.fileSDCheckInterval=1s", "-memory.allowedBytes=128MB"]
        self.server.start(scraper_program("victoria-metrics", "newer"), *words, log="victoria-metrics")
        eventually("VictoriaMetrics answers", lambda: bool(ask(self.server, f"{store}/health")), LONG_S)
        words = [f"-rule={place}/rules/*.yml", f"-datasource.url={store}", f"-remoteWrite.url={store}"]
        words += [f"-notifier.url={ALERTMANAGER}", "-evaluationInterval=1s", "-rule.evalDelay=0s"]
        words += ["-remoteWrite.flushInterval=200ms", "-rule.resendDelay=5s", "-httpListenAddr=127.0.0.1:8880"]
        self.server.start(vmalert(), *words, log="vmalert")

    def query(self, expression: str) -> float:
        """Return the value of a query, or 0 without a result."""
        port = {"prometheus": 9090, "victoria-metrics": 8428}[self.kind]
        words = ["--get", "--data-urlencode", f"query={expression}"]
        found = json.loads(ask(self.server, f"http://127.0.0.1:{port}/api/v1/query", *words))["data"]["result"]
        return float(found[0]["value"][1]) if found else 0.0

    def waits_up(self, count: int) -> None:
        """Wait until so many targets are up."""

        def are_up() -> bool:
            for process in self.server.started:
                assert process.alive, process.said()[-2000:]
            return self.query("sum(up)") == count

        eventually(f"{count} targets are up", are_up, LONG_S)

    def mails(self) -> list[EmailMessage]:
        """Return the mails in the order in which they arrived."""
        place = self.server.place / "mails"
        if not place.is_dir():
            return []
        box = mailbox.Maildir(place, factory=None, create=False)
        files = sorted((place / "new").glob("*"), key=lambda file: file.stat().st_mtime_ns)
        assert len(files) == len(box)
        found: list[EmailMessage] = []
        for file in files:
            with file.open("rb") as content:
                found.append(message_from_binary_file(content, policy=policy.default))
        return found

    def subjects(self) -> list[str]:
        """Return the subjects of all mails."""
        return [str(mail["Subject"]) for mail in self.mails()]

    def inhibited(self) -> set[str]:
        """Return the machines with an alert that Alertmanager has and does not mail."""
        found = json.loads(ask(self.server, f"{ALERTMANAGER}/api/v2/alerts?active=false"))
        return {one["labels"]["machine"] for one in found if one["labels"]["alertname"] == "TargetDown"}

    def expects(self, subjects: Sequence[str]) -> None:
        """Wait until the last of these mails has arrived; these are all."""
        eventually(f"mail {subjects[-1]}", lambda: len(self.subjects()) >= len(subjects), LONG_S)
        assert self.subjects() == list(subjects)

    def stays(self, subjects: Sequence[str]) -> None:
        """Wait as long as a mail takes; then these are all mails."""
        time.sleep(300 / QUICKER + 5)
        assert self.subjects() == list(subjects)


def vmalert() -> str:
    """Return the newer vmalert."""
    try:
        return str(newer_scraper("vmalert"))
    except NotBuiltError as error:
        absent("vmalert", str(error), required=False)


@contextlib.contextmanager
def night(kind: ServerKind) -> Generator[Night]:
    """Start all machines; skip the test where namespaces cannot be made."""
    if os.geteuid() != 0:
        absent("night", "namespaces with hostnames need root", required=False)
    with tempfile.TemporaryDirectory(prefix="cd-") as place:
        try:
            world = World(Path(place)).__enter__()
        except NoWorldError as error:
            absent("night", f"no namespaces: {error}")
        try:
            made = Night(world, kind)
            for name in MACHINES:
                made.hosts[name] = world.host(name)
                made.start_exporter(name, "node")
            for name in APPS:
                made.start_exporter(name, "app")
            made.start_server()
            yield made
        finally:
            world.__exit__()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["prometheus", "victoria-metrics"])
def test_a_night(kind: ServerKind) -> None:
    """One mail for each thing that a person must know, and one when it is over."""
    with night(kind) as made:
        everything = len(MACHINES) + len(APPS) + 1
        made.waits_up(everything)

        # A machine dies and comes back. A laptop leaves at the same time, and is somewhere else the next day.
        dino = made.hosts["dino"]
        dino.down()
        made.hosts["nas"].down()
        mails = ["[warning] nas: TargetDown"]
        made.expects(mails)
        body = made.mails()[0].get_body(("plain",))
        assert body is not None
        for words in (
            "storage, zfs): the big disk box",
            "clan-discovery explain nas",
            "docs/alerts.md#targetdown",
        ):
            assert words in body.get_content()
        made.hosts["nas"].up()
        mails.append("[resolved] nas: TargetDown")
        made.expects(mails)
        made.waits_up(everything - 1)
        dino.run("ip", "addr", "flush", "dev", "eth0", "scope", "global")
        dino.run("ip", "addr", "add", "10.77.0.200/24", "dev", "eth0")
        dino.up()
        made.write_config()
        made.waits_up(everything)

        # The database dies, and with it what needs it. Afterwards, their services start again.
        made.hosts["db"].down()
        for name in APPS:
            made.kill(name, "app")
        mails.append("[warning] db: TargetDown")
        made.expects(mails)
        eventually("their alerts are inhibited", lambda: made.inhibited() == set(APPS), LONG_S)
        made.hosts["db"].up()
        for name in APPS:
            made.start_exporter(name, "app")
        made.waits_up(everything)
        mails.append("[resolved] db: TargetDown")
        made.expects(mails)

        # The server loses its network.
        made.server.down()
        mails.append("[critical] MostTargetsDown")
        made.expects(mails)
        made.stays(mails)
        made.server.up()
        made.waits_up(everything)
        mails.append("[resolved] MostTargetsDown")
        made.expects(mails)
        made.stays(mails)
