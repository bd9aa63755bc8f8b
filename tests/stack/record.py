"""Record what real scrapers answer about a small fleet with a target in each state.

python -m tests.stack.record

Writes `tests/data/scrapers/<program>-<version>/`: a file for each answer, without paths and ports of this machine.
`answers.json` lists the URL, the status and the content type of each. The fleet, whose expected targets are in
`tests/data/scrapers/expected.json`:

- job `node`: `db` is up; `web` answers, but is the machine `other`; `attic` refuses the connection; `cache` wants a
  password; `lamp` is too slow; `shed` speaks TLS; `kiosk` answers without samples.
- job `systemd`: `db` has an expired certificate, `web` a certificate that nobody knows, of the rest `lamp` is dropped
  by a rule, and all but shard 0 of 2 by another.
- job `blackbox`: a probe; a rule writes the target's name into `instance`.
- job `nginx` is not in the scraper's config; the file of job `redis` is another.
- job `postgres` waits an hour before its first scrape, and job `mine`, written by hand, has a target of `node` too.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
import shutil
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clan_discovery.cli.main import main
from clan_discovery.syntax.tree import parse_yaml
from tests.stack.exporters import Answers, certificate_for, node_exporter, node_metrics, serving
from tests.stack.scrapers import VERSIONS, scraper
from tests.support.fleet import inventory
from tests.support.programs import eventually, free_port, get

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clan_discovery.model import Json
    from tests.stack.scrapers import Scraper

DATA: Final = Path(__file__).resolve().parents[1] / "data/scrapers"
MACHINES: Final = ("db", "web", "attic", "cache", "lamp", "shed", "kiosk")
HOSTS: Final = {name: f"127.0.0.{number}" for number, name in enumerate(MACHINES, 2)}
TYPES: Final = ("node", "systemd", "blackbox", "nginx", "redis", "postgres")
PATHS: Final[Mapping[str, str]] = {
    "targets.json": "/api/v1/targets?state=any",
    "targets-active.json": "/api/v1/targets?state=active",
    "targets-dropped.json": "/api/v1/targets?state=dropped",
    "targets-pool.json": "/api/v1/targets?state=any&scrapePool=systemd",
    "scrape_pools.json": "/api/v1/scrape_pools",
    "relabel_steps.json": "/api/v1/targets/relabel_steps?scrapePool=systemd&labels=LABELS",
    "status-config.json": "/api/v1/status/config",
    "status-buildinfo.json": "/api/v1/status/buildinfo",
    "status-runtimeinfo.json": "/api/v1/status/runtimeinfo",
    "status-flags.json": "/api/v1/status/flags",
    "query-uname.json": "/api/v1/query?query=node_uname_info",
    "query-samples.json": "/api/v1/query?query=scrape_samples_scraped",
    "query-up.json": "/api/v1/query?query=up",
    "query-wrong.json": "/api/v1/query?query=up%7B",
    "config.txt": "/config",
    "flags.txt": "/flags",
    "targets.txt": "/targets?format=text",
    "metrics.txt": "/metrics",
    "ready.txt": "/-/ready",
    "health.txt": "/health",
    "unknown.txt": "/api/v1/unknown",
}


def command(*words: str) -> str:
    """Run a command of clan-discovery; return what it printed."""
    out, err = io.StringIO(), io.StringIO()
    code = main(list(words), out, err)
    assert code == 0, err.getvalue()
    return out.getvalue()


def jobs(place: Path, ports: Mapping[str, int]) -> list[dict[str, Json]]:
    """Return our own jobs with the mistakes made."""
    match parse_yaml(command("show", "-c", f"{place}/config.yaml", "--format", "scrape-config"), most=10_000).value:
        case {"scrape_configs": [*configs]}:
            pass
        case other:
            raise AssertionError(other)
    found: list[dict[str, Json]] = []
    for config in configs:
        assert isinstance(config, dict)
        if config["job_name"] == "redis":
            config["file_sd_configs"] = [{"files": [f"{place}/old/redis.json"]}]
        if config["job_name"] != "nginx":
            found.append(config)
    targets: Json = [f"{HOSTS['db']}:{ports['node']}", f"127.0.0.9:{ports['nginx']}"]
    return [*found, {"job_name": "mine", "static_configs": [{"targets": targets}]}]


def furnish(place: Path, ports: Mapping[str, int]) -> None:
    """Write the config and the inventory, and refresh."""
    exporters: dict[str, Json] = {name: {} for name in TYPES}
    exporters["systemd"] = {"scheme": "https"}
    document = inventory([*MACHINES, "monitor"], exporter={"exporters": exporters})
    match document:
        case {"instances": {"monitoring": {"roles": {"exporter": dict(role)}}}}:
            role["tags"] = []
            role["machines"] = {name: {} for name in MACHINES}
        case other:
            raise AssertionError(other)
    relabel: Json = [
        {"source_labels": ["machine"], "regex": "lamp|shed", "action": "drop"},
        {"source_labels": ["machine"], "modulus": 2, "target_label": "__tmp_shard", "action": "hashmod"},
        {"source_labels": ["__tmp_shard"], "regex": "0", "action": "keep"},
    ]
    probe: Json = [
        {"source_labels": ["__param_target"], "target_label": "instance"},
        {"source_labels": ["machine"], "target_label": "__param_machine"},
    ]
    config = {
        "inventory": {"file": "inventory.json"},
        "backends": {"static": {"lab": {"machines": HOSTS}}},
        "output": {"directory": "targets"},
        "exporters": {
            **{name: {"port": port} for name, port in ports.items()},
            "blackbox": {"port": ports["blackbox"], "params": {"target": "http://example.org", "module": "http_2xx"}},
        },
        "jobs": {
            "systemd": {"relabel_configs": relabel},
            "blackbox": {"relabel_configs": probe},
            "postgres": {"scrape_interval": "1h"},
        },
    }
    (place / "inventory.json").write_text(json.dumps(document))
    (place / "config.yaml").write_text(json.dumps(config))
    command("refresh", "-c", f"{place}/config.yaml")


def serve(stack: contextlib.ExitStack, place: Path, ports: Mapping[str, int]) -> None:
    """Start the exporters."""

    def one(name: str, job: str, answers: Answers, **tls: int) -> None:
        certificate = None
        if tls:
            certificate = certificate_for(place / f"{name}-{job}", HOSTS[name], **tls)
        stack.enter_context(serving(HOSTS[name], ports[job], answers, certificate))

    stack.enter_context(node_exporter(HOSTS["db"], ports["node"], "db", place / "db.log"))
    stack.enter_context(node_exporter(HOSTS["web"], ports["node"], "other", place / "web.log"))
    one("cache", "node", Answers(login=("a", "b")))
    one("lamp", "node", Answers(body=node_metrics("lamp"), delay_s=3))
    one("shed", "node", Answers(body=node_metrics("shed")), days=2)
    one("kiosk", "node", Answers(body=""))
    one("db", "systemd", Answers(), days=-1)
    for name in ("web", "attic", "cache", "kiosk"):
        one(name, "systemd", Answers(), days=2)
    for name in MACHINES:
        one(name, "blackbox", Answers(body="probe_success 1\n", path="/probe"))


def record(member: Scraper, secret: Mapping[str, str]) -> None:
    """Write the answers of a scraper."""
    place = DATA / member.name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    listed: dict[str, Json] = {}
    for name, path in PATHS.items():
        words = path.replace("LABELS", urllib.parse.quote(json.dumps({"machine": "lamp", "__address__": "a:1"})))
        status, kind, body = ask(f"{member.url}{words}")
        known = status == 200 or name.startswith(("unknown", "query-wrong", "status-config"))
        if known and name == "metrics.txt":
            keep = ("prometheus_sd_", "prometheus_build_info", "vm_app_version", "vm_promscrape_scrape_pool_targets")
            body = "".join(line for line in body.splitlines(keepends=True) if line.startswith(keep))
        listed[path] = {"status": status, "content_type": kind, "file": name if known else None}
        if known:
            (place / name).write_text(anonymous(body, name, secret))
    (place / "answers.json").write_text(json.dumps(listed, indent=1) + "\n")


def ask(url: str) -> tuple[int, str, str]:
    """Return status, content type and body of an answer."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - a server of our own
            return answer.status, answer.headers["Content-Type"] or "", answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"] or "", error.read().decode()


def anonymous(text: str, name: str, secret: Mapping[str, str]) -> str:
    """Replace paths and ports; write JSON with sorted keys and one value on a line."""
    for word, other in secret.items():
        text = text.replace(word, other)
    text = re.sub(r'("hostname": ?)"[^"]*"', r'\1"monitor"', text)
    text = re.sub(r'("CWD": ?)"[^"]*"', r'\1"/"', text)
    if name.endswith(".json") and text.startswith("{"):
        return json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"
    return text


def run(place: Path) -> None:
    """Record all programs, one after the other, at the same exporters."""
    ports = {name: free_port() for name in TYPES}
    furnish(place, ports)
    numbers = {"node": 9100, "systemd": 9558, "blackbox": 9115, "nginx": 9113, "redis": 9121, "postgres": 9187}
    public = {f":{port}": f":{numbers[name]}" for name, port in ports.items()}
    with contextlib.ExitStack() as stack:
        serve(stack, place, ports)
        for kind, which in VERSIONS:
            home = place / f"{kind}-{which}"
            with scraper(kind, which, home, jobs(place, ports)) as member:
                url = f"{member.url}/api/v1/targets"
                eventually("it scrapes", functools.partial(_scrapes, url), 60)
                time.sleep(5)
                paths = {str(home): "/var/lib/scraper", str(place): "/var/lib/clan-discovery"}
                record(
                    member, {**public, f":{member.port}": ":9090", **paths, command_path(member): f"/usr/bin/{kind}"}
                )
                print(f"recorded {member.name}")  # noqa: T201 - a script
    targets = command("show", "-c", f"{place}/config.yaml", "--format", "file-sd")
    (DATA / "expected.json").write_text(anonymous(targets, "expected", public))


def _scrapes(url: str) -> bool:
    return b'"health":"up"' in get(url)


def command_path(member: Scraper) -> str:
    """Return the path of a scraper's program."""
    return Path(f"/proc/{member.process.pid}/exe").resolve().as_posix()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        run(Path(made))
