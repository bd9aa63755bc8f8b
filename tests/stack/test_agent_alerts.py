"""The alerts on machines that push, in a real Prometheus and in VictoriaMetrics with vmalert; the times are shortened.

`web01` should always be up, and `dino` is a laptop. Each runs a vmagent that scrapes itself and writes to the store,
which also scrapes the metrics of a real `run`.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import pytest
from typing_extensions import override

from tests.stack.stores import store
from tests.support.programs import eventually, free_port, get, get_json, program, running, scraper_program
from tests.support.receiver import victoria_logs
from tests.support.rules import expression, inlined, shipped, write_group
from tests.test_run import resident

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.stack.scrapers import Kind, Which
    from tests.support.rules import Rule

Alerts: TypeAlias = "set[tuple[str, str, str]]"
"""Firing alerts: the name, and the labels job and machine; `-` for a label that an alert does not have."""
PATIENCE_S: Final = 20
"""How long a roaming machine may be silent here, instead of seven days."""
LONGEST_S: Final = 240.0
SYSTEMS: Final[tuple[tuple[Kind, Which], ...]] = (
    ("prometheus", "debian"),
    ("victoria-metrics", "debian"),
    ("victoria-metrics", "newer"),
)
DOWN: Final = {("TargetDown", job, "web01") for job in ("node", "vmagent")}
DROPPING: Final = {("AgentDropping", job, "dino") for job in ("node", "vmagent")}
SILENT: Final = {("MachineSilent", "-", "dino")}
NEVER: Final = {("TargetDown", job, "dino") for job in ("node", "vmagent")}
"""No other alert is asserted not to fire: without their waits, they also fire while the machine is busy."""


def write_rules(place: Path, *, without_records: bool) -> None:
    """Write the shipped rules without what they wait for; `without_records` as the NixOS module does it for vmalert.

    ClanVerifyStale is left out: without its wait, it fires when a busy store answers `verify` late. Without its wait,
    TargetDown would fire for a laptop between the samples of its two targets.
    """
    rules = [impatient(rule) for rule in shipped() if rule.get("alert") != "ClanVerifyStale"]
    if without_records:
        rules = inlined(rules)
    write_group(place / "rules.json", rules, waits={"TargetDown": "10s"})


def impatient(rule: Rule) -> Rule:
    """Return a rule that waits for seconds where it waits for a week."""
    expr = str(rule["expr"])
    expr = expr.replace("[1d] offset 7d", f"[1d] offset {PATIENCE_S}s").replace("[7d]", f"[{PATIENCE_S}s]")
    return {**rule, "expr": expr}


def write_jobs(file: Path, port: int, **rest: Json) -> None:
    """Write the config of the server's scraper, which only reads the metrics of `run`."""
    target: Json = {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": "monitor", "machine": "monitor"}}
    timing: Json = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    document: Json = {"global": timing, "scrape_configs": [{"job_name": "own", "static_configs": [target]}], **rest}
    file.write_text(json.dumps(document))


def write_fleet(place: Path, url: str) -> Path:
    """Write a config with the two agents and their server, which has no targets of its own; `url` is the store."""
    machines: Json = {
        name: {"name": name, "machineClass": "nixos", "tags": tags}
        for name, tags in (("monitor", []), ("web01", []), ("dino", ["laptop"]))
    }
    roles: Json = {
        "server": {"machines": {"monitor": {"settings": {"scrapeServers": False}}}},
        "exporter": {"machines": {"web01": {}, "dino": {}}, "settings": {"exporterType": "node"}},
        "agent": {"machines": {"web01": {}, "dino": {}}},
    }
    instances: Json = {"monitoring": {"module": {"name": "prometheus"}, "roles": roles}}
    (place / "inventory.json").write_text(json.dumps({"machines": machines, "instances": instances}))
    config: Json = {
        "inventory": {"file": "inventory.json"},
        "backends": {"static": {"lab": {"machines": {}}}},
        "output": {"directory": "targets"},
        "verify": {"scrapers": {"store": {"url": url}}},
    }
    (place / "config.json").write_text(json.dumps(config))
    return place / "config.json"


@dataclass
class System:
    """A store, the URLs of its alerts and of the metrics of `run`, and all alerts that were seen."""

    place: Path
    url: str
    alerts_url: str
    own: str
    which: Which
    seen: Alerts = field(default_factory=set["tuple[str, str, str]"])

    def alerts(self) -> Alerts:
        """Return the firing alerts."""
        match get_json(f"{self.alerts_url}/api/v1/alerts"):
            case {"data": {"alerts": None}}:  # vmalert has none
                return set()
            case {"data": {"alerts": [*alerts]}}:
                firing = [alert["labels"] for alert in alerts if isinstance(alert, dict) and alert["state"] == "firing"]
                return {
                    (str(labels["alertname"]), str(labels.get("job", "-")), str(labels.get("machine", "-")))
                    for labels in firing
                    if isinstance(labels, dict)
                }
            case other:
                raise AssertionError(other)

    def waits_for(self, expected: Alerts) -> None:
        """Wait until these alerts fire, and no others."""

        def look() -> bool:
            found = self.alerts()
            self.seen |= found
            return found == expected

        eventually(f"{sorted(expected)} fire", look, LONGEST_S)

    def verdicts(self) -> dict[str, int]:
        """Return how many targets have a verdict, by the metrics of `run`."""
        lines = get(f"{self.own}/metrics").decode().splitlines()
        found = [re.fullmatch(r'clan_discovery_verify_targets\{verdict="(\w+)"\} (\d+)\.0', line) for line in lines]
        return {match[1]: int(match[2]) for match in found if match is not None and match[2] != "0"}

    @contextlib.contextmanager
    def agent(self, machine: str, *, also: str = "") -> Generator[None]:
        """Run the vmagent of a machine; `also` is a second receiver. It scrapes itself as job `node`, too."""
        port = free_port()
        config = self.place / f"{machine}.json"
        target = {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": machine, "machine": machine}}
        jobs = [{"job_name": job, "static_configs": [target]} for job in ("node", "vmagent")]
        config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
        command = [program("setpriv"), "--pdeathsig", "KILL", scraper_program("vmagent", self.which)]
        command += [f"-promscrape.config={config}", f"-httpListenAddr=127.0.0.1:{port}"]
        command += [f"-remoteWrite.url={self.url}/api/v1/write", f"-remoteWrite.tmpDataPath={self.place}/{machine}"]
        command += ["-remoteWrite.queues=1", "-remoteWrite.flushInterval=1s", "-loggerTimezone=UTC"]
        if also:
            command += [f"-remoteWrite.url={also}"]
        with running(command, self.place / f"{machine}.log"):
            yield


@contextlib.contextmanager
def system(place: Path, kind: Kind, which: Which) -> Generator[System]:
    """Run `run` and a store that scrapes its metrics and evaluates the rules."""
    own, port = free_port(), free_port()
    write_rules(place, without_records=kind != "prometheus")
    if kind == "prometheus":
        flags = ["--query.lookback-delta=5s"]
        write_jobs(place / "prometheus.json", own, rule_files=["rules.json"])
    else:
        flags = [f"-promscrape.config={place}/scrape.json", "-search.maxStalenessInterval=5s"]
        write_jobs(place / "scrape.json", own)
    with contextlib.ExitStack() as stack:
        url = alerts_url = stack.enter_context(store(kind, which, place, *flags))
        words = ("--interval", "1s", "--metrics-listen", f"127.0.0.1:{own}", "--verify-interval", "10s")
        stack.enter_context(resident(write_fleet(place, url), *words))
        if kind != "prometheus":
            alerts_url = f"http://127.0.0.1:{port}"
            command = [program("vmalert"), f"-rule={place}/rules.json", f"-datasource.url={url}"]
            command += ["-datasource.queryStep=5s", "-notifier.url=http://127.0.0.1:9"]
            stack.enter_context(running([*command, f"-httpListenAddr=127.0.0.1:{port}"], place / "vmalert.log"))
            eventually("vmalert answers", lambda: bool(get(f"{alerts_url}/api/v1/alerts")), LONGEST_S)
        yield System(place, url, alerts_url, f"http://127.0.0.1:{own}", which)


class _Refusing(http.server.BaseHTTPRequestHandler):
    """A receiver that refuses what it gets, so that the agent drops it."""

    def do_POST(self) -> None:
        """Answer 400."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(400)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@contextlib.contextmanager
def refusing() -> Generator[str]:
    """Run a receiver that refuses everything; return its URL."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/api/v1/write"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("kind", "which"), SYSTEMS)
def test_alerts_on_agents(kind: Kind, which: Which, tmp_path: Path) -> None:
    """Of a machine that should be up, each target; of a laptop, one alert after its patience, and what it drops.

    The laptop is silent at first. None of its targets is ever reported as down.
    """
    with refusing() as other, system(tmp_path, kind, which) as made:
        made.waits_for(DOWN)
        with made.agent("dino"):
            with made.agent("web01"):
                made.waits_for(set())
            made.waits_for(DOWN)
        with made.agent("web01"):
            made.waits_for(SILENT)
            if kind != "prometheus":  # which is asked for the samples of every fifth minute
                eventually("`verify` knows", lambda: made.verdicts() == {"pending": 2, "up": 2}, LONGEST_S)
            with made.agent("dino", also=other):
                made.waits_for(DROPPING)
        assert not made.seen & NEVER


@pytest.mark.parametrize("agent", ["vmagent-debian", "vmagent-newer", "vlagent"])
def test_agents_count_what_they_drop(agent: str, tmp_path: Path) -> None:
    """From 0 on, so that the first increase is seen; under the names that AgentDropping reads."""
    name, _, which = agent.partition("-")
    port = free_port()
    command = [program("setpriv"), "--pdeathsig", "KILL"]
    if name == "vlagent":
        command += [victoria_logs(name), "-remoteWrite.url=http://127.0.0.1:9/insert/jsonline"]
    else:
        command += [scraper_program(name, which), "-remoteWrite.url=http://127.0.0.1:9/api/v1/write"]
    command += [f"-remoteWrite.tmpDataPath={tmp_path}/queue", f"-httpListenAddr=127.0.0.1:{port}"]
    with running(command, tmp_path / "log"):
        eventually("it answers", lambda: bool(get(f"http://127.0.0.1:{port}/metrics")), LONGEST_S)
        lines = get(f"http://127.0.0.1:{port}/metrics").decode().splitlines()
    counters = {line.partition("{")[0] for line in lines if "dropped_total{" in line and line.endswith(" 0")}
    read = set(re.findall(r"increase\((\w+)", expression("AgentDropping")))
    assert counters & read == {"vm_persistentqueue_bytes_dropped_total", f"{name}_remotewrite_packets_dropped_total"}
