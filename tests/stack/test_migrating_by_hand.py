"""docs/migrating.md, "From a stack made by hand": each step, typed on machines that run the stack.

A machine is a network and a mount namespace with a hostname of its own, so that ports and addresses are those of the
files. Containers are programs beside each other: `docker compose up` only restarts what reads its config at the start.
`ssh` and `scp` enter the namespaces of another machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import quote

import pytest
import yaml

from tests.stack.agents import ask, loki_program
from tests.support.builds import NotBuiltError, front_program
from tests.support.nix import ROOT, value
from tests.support.pages import blocks_of, typed
from tests.support.programs import absent, eventually, program, scraper_program
from tests.tailnet.world import NoWorldError, World

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.tailnet.world import Host, Process

Series: TypeAlias = "Counter[tuple[str, str]]"
"""How many series of `up` have a job and an instance."""

PAGE: Final = ROOT / "docs/migrating.md"
EXAMPLES: Final = ROOT / "examples/migrating"
LONG_S: Final = 180.0
NODE_PORT: Final = 9100
TOKENS: Final = {"dino": "n5Uq0bTjWfXo2xG7cYkLr8vE", "cabin": "Qm3sZ1hVdP9aKi6tRwBy4oJu"}
DOMAIN: Final = "push.home.example.org"
_SSH: Final = """#!/bin/sh
set -eu
host=$1
shift
. "{place}/$host.pid"
exec nsenter --target "$pid" --net --mount sh -euc "cd '{place}/$host'; $*"
"""
_SCP: Final = """#!/bin/sh
set -eu
recursive=
[ "$1" = -r ] && recursive=-r && shift
exec cp $recursive "$1" "{place}/${{2%%:*}}/${{2#*:}}"
"""
_DOCKER: Final = """#!/bin/sh
set -eu
[ "$1" = compose ] && shift
[ "$1" = up ] && exit 0
exec docker-compose "$@"
"""


@dataclass
class Stack:
    """The machines of a stack; commands are typed in the directory of the first."""

    world: World
    example: Path
    restarts: dict[str, Callable[[], None]] = field(default_factory=dict["str", "Callable[[], None]"])
    running: dict[str, Process] = field(default_factory=dict["str", "Process"])

    @property
    def first(self) -> Host:
        """The machine on which the steps are typed."""
        return next(host for host in self.world.hosts.values() if host.name != "edge")

    def machine(self, name: str, *addresses: str, hosts: str = "") -> Host:
        """Add a machine with addresses and with lines for /etc/hosts; its directory has the files of `before`."""
        made = self.world.host(name)
        for address in addresses:
            made.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")
        made.run("sh", "-c", f"printf '%s\\n' '{hosts}' >> /etc/hosts")
        for file in (self.example / "before").iterdir():
            shutil.copy(file, made.place)
        (self.world.place / f"{name}.pid").write_text(f"pid={made.holder.pid}\n")
        if made is self.first:
            for part in ("before", "after"):
                shutil.copytree(self.example / part, made.place / part)
        return made

    def start(self, host: Host, name: str, *words: str | Path, url: str = "") -> None:
        """Start a program in the directory of a machine, and wait until it answers at a URL."""
        line = 'cd "$1" && hostname "$2" && shift 2 && exec "$@"'
        named = ["unshare", "--uts", "sh", "-c", line, "sh", host.place, host.name, *words]
        home = {"HOME": str(host.place), "XDG_DATA_HOME": str(host.place / "data")}
        self.running[name] = started = host.start(*named, log=name, environment=home)

        def ready() -> bool:
            assert started.alive, f"{name} ended: {started.said()[-2000:]}"
            ask(host, url)
            return True

        if url:
            eventually(f"{name} answers", ready, LONG_S)

    def exporter(self, host: Host, port: int = NODE_PORT, address: str = "") -> None:
        """Start a node exporter, also in place of an exporter that cannot be had here."""
        words = [program("prometheus-node-exporter"), f"--web.listen-address={address}:{port}"]
        url = f"http://{address or '127.0.0.1'}:{port}/metrics"
        self.start(host, f"exporter-{host.name}-{port}", *words, url=url)

    def prometheus(self, host: Host) -> None:
        """Start the Prometheus of the stack."""
        words = ["--config.file=prometheus.yml", "--web.enable-lifecycle", "--web.listen-address=127.0.0.1:9090"]
        path = scraper_program("prometheus", "debian")
        self.start(host, "prometheus", path, *words, "--storage.tsdb.path=tsdb", url="http://127.0.0.1:9090/-/ready")

    def victoria_metrics(self, host: Host, *flags: str) -> None:
        """Start the VictoriaMetrics of the stack."""
        words = ["-httpListenAddr=127.0.0.1:8428", "-storageDataPath=vm", "-search.latencyOffset=0s", *flags]
        path = scraper_program("victoria-metrics", "debian")
        self.start(host, "victoria-metrics", path, *words, url="http://127.0.0.1:8428/health")

    def series(self, port: int) -> Series:
        """Return the series of `up` that the server has now."""
        url = f"http://127.0.0.1:{port}/api/v1/query?query={quote('last_over_time(up[8s])')}"
        found = json.loads(ask(self.first, url))["data"]["result"]
        return Counter((one["metric"]["job"], one["metric"]["instance"]) for one in found)

    def type(self, heading: str, part: str = "") -> None:
        """Type the commands beneath a heading of the page; `part` is the way back, else all before it."""
        found = [block for block in blocks_of(PAGE) if heading in block.headings and block.language == "console"]
        assert len(found) > 1, heading
        for block in found[-1:] if part == "back" else found[:-1]:
            for command, shown in typed(block):
                said = self.do(command)
                assert not shown.strip() or said == shown, f"{PAGE.name}:{block.line}: {command}\n{said}"
                if " verify " in command:
                    counts = re.search(r"^(\d+) targets: (\d+) up; asked: ", said, re.MULTILINE)
                    assert counts is not None, said
                    assert counts[1] == counts[2], said

    def do(self, command: str) -> str:
        """Do what a command says; return its output."""
        if restart := re.fullmatch(r"systemctl restart (\w+)", command):
            self.running.pop(restart[1]).end()
            self.restarts[restart[1]]()
            return ""
        environment = {
            "PATH": f"{self.world.place}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.first.place),
            "XDG_DATA_HOME": str(self.first.place / "data"),
            "NIX_REMOTE": str(self.first.place / "store"),
        }
        done = subprocess.run(
            self.first.command("sh", "-euc", f"cd '{self.first.place}'\n{command}"),
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=LONG_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout


@contextlib.contextmanager
def stack(example: str) -> Generator[Stack]:
    """Make an example's stack without machines; skip the test where namespaces cannot be made."""
    if os.geteuid() != 0:
        absent("migrating", "namespaces with hostnames need root", required=False)
    with tempfile.TemporaryDirectory(prefix="cd-") as place:
        try:
            world = World(Path(place)).__enter__()
        except NoWorldError as error:
            absent("migrating", f"no namespaces: {error}")
        try:
            (Path(place) / "bin").mkdir()
            for name, script in (("ssh", _SSH), ("scp", _SCP), ("docker", _DOCKER)):
                file = Path(place) / "bin" / name
                file.write_text(script.format(place=place) if name != "docker" else script)
                file.chmod(file.stat().st_mode | stat.S_IXUSR)
            yield Stack(world, EXAMPLES / example)
        finally:
            world.__exit__()


def table(heading: str) -> tuple[Series, Series]:
    """Return the table of the page: the pairs of job and instance before and after, without repetitions."""
    section = PAGE.read_text().partition(f"### {heading}\n")[2].partition("\n### ")[0].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*?) ?\| (.*?) ?\|$", section, re.MULTILINE)[1:]
    assert rows, heading
    pairs = [[re.fullmatch(r"`(.*)`, `(.*)`", cell) for cell in row] for row in rows]
    before, after = (Counter({(cell[1], cell[2]) for cell in column if cell}) for column in zip(*pairs, strict=True))
    return before, after


def migrate(stack: Stack, heading: str, port: int) -> None:
    """Take the steps and the way back: the series of `up` are those of the table, and each target is up once."""
    before, after = table(heading)
    once = set(before), set(after)
    eventually("the series before", lambda: set(stack.series(port)) == once[0], LONG_S)
    stack.type(heading)
    eventually("the series after", lambda: stack.series(port) == after, LONG_S)
    stack.type(heading, "back")
    eventually("the series before, again", lambda: set(stack.series(port)) == once[0], LONG_S)


def test_the_nix_of_the_examples() -> None:
    """It says what the files of the scrapers say, before and after."""
    modules = {part: f"{EXAMPLES}/victoriametrics/{part}" for part in ("before", "after")}
    host = '{ config.networking.hostName = "nas"; }'
    jobs = " ++ ".join(
        f"(import {modules['before']}/{name}.nix {host}).homelab.prometheus.scrapeConfigs"
        for name in ("jellyfin", "node")
    )
    scrape = yaml.safe_load(Path(modules["before"], "scrape.yml").read_text())
    assert value(jobs) == scrape["scrape_configs"]
    exposed = " // ".join(
        f"(import {modules['after']}/{name}.nix).services.clan-discovery.expose" for name in ("jellyfin", "node")
    )
    written = json.loads(Path(modules["after"], "exposed.json").read_text())
    assert value(exposed) == written["machines"]["nas"]["expose"]
    manifest = f"{EXAMPLES}/manifest/before"
    made = value(f"import {manifest}/prometheus.nix (import {manifest}/service-manifest.nix)")
    assert made == yaml.safe_load(Path(manifest, "prometheus.yml").read_text())


def traefik() -> Path | None:
    """Return the real Traefik, if it is built."""
    try:
        return front_program("traefik")
    except NotBuiltError:
        return None


@pytest.mark.timeout(900)
def test_prometheus_traefik_and_compose() -> None:
    """Traefik is the real one where it is built, else an exporter at its port, as it is for Redis."""
    program("docker-compose")
    containers = "192.168.1.10 traefik redis-exporter"
    with stack("compose") as made:
        nas = made.machine("nas", "192.168.1.10", hosts=containers)
        made.exporter(nas)
        made.exporter(nas, 9121)
        real = traefik()
        if real is None:
            made.exporter(nas, 8082)
        else:
            words = ["--entryPoints.websecure.address=:443", "--entryPoints.metrics.address=:8082"]
            flag = "--metrics.prometheus.entryPoint=metrics"
            made.start(nas, "traefik", real, *words, flag, url="http://127.0.0.1:8082/metrics")
        made.prometheus(nas)
        migrate(made, "Prometheus, Traefik and Compose", 9090)


@pytest.mark.timeout(900)
def test_victoria_metrics_modules_and_caddy() -> None:
    """Caddy serves the same page after the steps, but no longer the metrics of the service."""
    heading = "VictoriaMetrics, scrape configs in each module, and Caddy"
    site = "https://films.home.example.org"
    with stack("victoriametrics") as made:
        nas = made.machine("nas", hosts="127.0.0.1 films.home.example.org")
        made.exporter(nas)
        made.exporter(nas, 8096)
        made.victoria_metrics(nas, "-promscrape.config=scrape.yml")
        made.start(nas, "caddy", program("caddy"), "run", "--config", "Caddyfile")
        eventually("Caddy serves", lambda: "Metrics" in ask(nas, f"{site}/", "-k"), LONG_S)
        assert "node_uname_info" in ask(nas, f"{site}/metrics", "-k")
        before, after = table(heading)
        eventually("the series before", lambda: made.series(8428) == before, LONG_S)
        made.type(heading)
        eventually("the series after", lambda: made.series(8428) == after, LONG_S)
        assert "Metrics" in ask(nas, f"{site}/", "-k")
        with pytest.raises(OSError, match="404"):
            ask(nas, f"{site}/metrics", "-k")
        made.type(heading, "back")
        eventually("the series before, again", lambda: made.series(8428) == before, LONG_S)
        assert "node_uname_info" in ask(nas, f"{site}/metrics", "-k")


@pytest.mark.timeout(900)
def test_victoria_metrics_loki_nginx_and_tokens() -> None:
    """The agents keep their tokens; each log line is then in the tenant of its machine, whatever the client says."""
    heading = "VictoriaMetrics, Loki, nginx and tokens"
    loki = loki_program()
    with stack("tokens") as made:
        web01 = made.machine("web01")
        certificate(web01)

        def start_loki() -> None:
            url = "http://127.0.0.1:3100/ready"
            made.start(web01, "loki", loki, "-config.file=loki.yaml", url=url)

        made.restarts["loki"] = start_loki
        start_loki()
        made.victoria_metrics(web01, "-maxLabelsPerTimeseries=1000000")
        made.start(web01, "nginx", program("nginx"), "-p", ".", "-c", "nginx.conf", "-g", "daemon off;")
        for name in TOKENS:
            agent(made, web01, name)
        dino = made.world.hosts["dino"]
        before, after = table(heading)
        eventually("the series before", lambda: set(made.series(8428)) == set(before), LONG_S)
        push(dino, web01, "before")
        made.type(heading)
        eventually("the series after", lambda: made.series(8428) == after, LONG_S)
        push(dino, web01, "after")
        eventually("the tenant of dino", lambda: lines(web01, "dino") == ["after"], LONG_S)
        assert lines(web01, "fake") == ["before"]
        made.type(heading, "back")
        eventually("the series before, again", lambda: set(made.series(8428)) == set(before), LONG_S)
        push(dino, web01, "back")


def certificate(host: Host) -> None:
    """Make the certificate of the receiver in the directory of its machine."""
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=bed"]
    names = ["-addext", f"subjectAltName=DNS:{DOMAIN}"]
    files = ["-keyout", str(host.place / "push.key"), "-out", str(host.place / "push.pem")]
    subprocess.run([program("openssl"), *words, *names, *files], check=True, capture_output=True)


def agent(made: Stack, server: Host, name: str) -> None:
    """Add a machine whose vmagent pushes to the server."""
    host = made.machine(name, hosts=f"{server.v4} {DOMAIN}")
    (host.place / "token").write_text(TOKENS[name])
    made.exporter(host, address="127.0.0.1")
    words = ["-promscrape.config=vmagent.yml", "-httpListenAddr=127.0.0.1:8429", "-remoteWrite.bearerTokenFile=token"]
    words += [f"-remoteWrite.url=https://{DOMAIN}/api/v1/write", f"-remoteWrite.tlsCAFile={server.place}/push.pem"]
    made.start(
        host, f"vmagent-{name}", scraper_program("vmagent", "debian"), *words, "-remoteWrite.tmpDataPath=queue",
        url="http://127.0.0.1:8429/health",
    )  # fmt: skip


def push(host: Host, server: Host, text: str) -> None:
    """Send a log line as an agent does, once the receiver accepts it."""
    now = host.run("date", "+%s%N").strip()
    stream = {"streams": [{"stream": {"unit": "bed.service"}, "values": [[now, text]]}]}
    words = ["--cacert", str(server.place / "push.pem"), "-H", f"Authorization: Bearer {TOKENS[host.name]}"]
    words += ["-H", "Content-Type: application/json", "-H", "X-Scope-OrgID: other", "-d", json.dumps(stream)]

    def sent() -> bool:
        ask(host, f"https://{DOMAIN}/loki/api/v1/push", *words)
        return True

    eventually(f"{text} is accepted", sent, LONG_S)


def lines(server: Host, tenant: str) -> list[str]:
    """Return the log lines of a tenant."""
    url = "http://127.0.0.1:3100/loki/api/v1/query_range"
    words = ["--get", "--data-urlencode", 'query={unit="bed.service"}', "-H", f"X-Scope-OrgID: {tenant}"]
    found = json.loads(ask(server, url, *words))["data"]["result"]
    return [line for stream in found for _, line in stream["values"]]


@pytest.mark.timeout(900)
def test_a_manifest_prometheus_loki_and_grafana() -> None:
    """The port of Caddy's admin API is closed to the network after the steps."""
    program("nix-instantiate")
    loki = loki_program()
    with stack("manifest") as made:
        monitoring = made.machine("monitoring", "10.20.0.13")
        postgresql = made.machine("postgresql", "10.20.0.11")
        proxy = made.machine("proxy", "10.20.0.12")
        for host in (monitoring, postgresql, proxy):
            made.exporter(host)
        (monitoring.place / "loki.yaml").write_text(
            (EXAMPLES / "tokens/before/loki.yaml").read_text().replace("http_listen_address: 127.0.0.1, ", "")
        )
        made.start(monitoring, "loki", loki, "-config.file=loki.yaml", url="http://127.0.0.1:3100/ready")
        made.start(
            proxy, "caddy", program("caddy"), "run", "--config", "Caddyfile", url="http://10.20.0.12:2019/metrics"
        )
        made.prometheus(monitoring)
        heading = "A service manifest, Prometheus, Loki and Grafana"
        before, after = table(heading)
        eventually("the series before", lambda: made.series(9090) == before, LONG_S)
        made.type(heading)
        eventually("the series after", lambda: made.series(9090) == after, LONG_S)
        with pytest.raises(OSError, match="onnect"):
            ask(monitoring, "http://10.20.0.12:2019/config/")
        made.type(heading, "back")
        eventually("the series before, again", lambda: made.series(9090) == before, LONG_S)
