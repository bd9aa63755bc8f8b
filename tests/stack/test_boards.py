"""Every query of the boards in real servers, which scrape real exporters."""

from __future__ import annotations

import contextlib
import json
import math
import re
import signal
import time
import urllib.error
import urllib.parse
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import pytest

from tests.stack.homelab import LONG_S, Homelab, discovery, homelab
from tests.stack.scrapers import VERSIONS, Scraper, scraper
from tests.support.boards import NAMES, Asked, board, filled, queries
from tests.support.programs import absent, eventually, free_port, get, program, running

if TYPE_CHECKING:
    from collections.abc import Generator

    from clan_discovery.model import Json

SERVERS: Final = [key for key in VERSIONS if key[0] != "vmagent"]
RULES: Final[Json] = {
    "groups": [
        {
            "name": "boards",
            "interval": "1s",
            "rules": [
                {"alert": "Disk", "expr": "vector(1)", "labels": {"severity": "warning", "machine": "nas"}},
                {"alert": "Watchdog", "expr": "vector(1)", "labels": {"severity": "none"}},
            ],
        }
    ]
}


class Series(msgspec.Struct):
    """A series of an answer, of one time or of several."""

    metric: dict[str, str]
    value: tuple[float, str] | None = None
    values: list[tuple[float, str]] = []

    def numbers(self) -> list[float]:
        """Return its values."""
        return [float(text) for _, text in ([self.value] if self.value else self.values)]


class Data(msgspec.Struct, rename="camel"):
    """The data of an answer."""

    result: list[Series]


class Answer(msgspec.Struct):
    """An answer of a server."""

    data: Data
    status: Literal["success"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Generator[Homelab]:
    """Everything that is scraped."""
    with homelab(tmp_path_factory.mktemp("homelab")) as made:
        yield made


@pytest.fixture(scope="module")
def servers(lab: Homelab, tmp_path_factory: pytest.TempPathFactory) -> Generator[dict[str, Scraper]]:
    """The servers with their rules, and clan-discovery, which verifies the first."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Scraper] = {}
        for kind, which in SERVERS:
            place = tmp_path_factory.mktemp(f"{kind}-{which}")
            with contextlib.suppress(pytest.skip.Exception):
                one = stack.enter_context(scraper(kind, which, place))
                found[one.name] = one
        if not found:
            absent("stack", "no server is installed")
        first = next(iter(found.values()))
        stack.enter_context(discovery(lab, first.port))
        lab.add("server", first.port, "monitor")
        for one in found.values():
            _evaluate(stack, lab, one)
        for one in found.values():
            _scrape(lab, one)
        yield found


def _evaluate(stack: contextlib.ExitStack, lab: Homelab, server: Scraper) -> None:
    """Write the rules; VictoriaMetrics needs a vmalert, which is scraped, too."""
    rules = server.place / "rules.json"
    rules.write_text(json.dumps(RULES))
    if server.kind == "prometheus":
        return
    port = free_port()
    command = [program("setpriv"), "--pdeathsig", "KILL", program("vmalert"), f"-rule={rules}"]
    command += [f"-{name}.url={server.url}" for name in ("datasource", "remoteWrite")]
    command += [f"-notifier.url=http://127.0.0.1:{lab.alertmanager}", f"-httpListenAddr=127.0.0.1:{port}"]
    stack.enter_context(running(command, server.place / "vmalert.log"))
    lab.add("vmalert", port, "monitor", f"monitor:{port}")


def _scrape(lab: Homelab, server: Scraper) -> None:
    """Let a server scrape all, every two seconds. A slow scrape must not fail."""
    timing = {"scrape_interval": "2s", "scrape_timeout": "2s"}
    document: dict[str, Json] = {"global": timing, "scrape_configs": lab.jobs}
    if server.kind == "prometheus":
        document["rule_files"] = ["rules.json"]
    (server.place / "scrape.yml").write_text(json.dumps(document))
    server.process.send_signal(signal.SIGHUP)


def ask(server: Scraper, asked: Asked, *, at_once: bool = False) -> list[Series]:
    """Send a query as its panel does: for one time, or for the last minute."""
    text = filled(asked.target.expr, "nas")
    if at_once or asked.kind != "timeseries":
        return _get(server, "query", query=text)
    now = time.time()
    return _get(server, "query_range", query=text, start=f"{now - 60}", end=f"{now}", step="5")


def _get(server: Scraper, path: str, **words: str) -> list[Series]:
    """Ask a server; a query that it refuses fails the test."""
    try:
        body = get(f"{server.url}/api/v1/{path}?{urllib.parse.urlencode(words)}")
    except urllib.error.HTTPError as error:
        pytest.fail(f"{words['query']}: {error.read().decode(errors='replace')}")
    return msgspec.json.decode(body, type=Answer).data.result


def has_rows(server: Scraper, asked: Asked) -> bool:
    """Tell whether a query returns a number."""
    return any(math.isfinite(number) for series in ask(server, asked) for number in series.numbers())


@pytest.mark.parametrize("name", [VERSIONS[key] for key in SERVERS])
def test_every_query_returns_rows(lab: Homelab, servers: dict[str, Scraper], name: str) -> None:
    """A panel without rows is broken."""
    if name not in servers:
        pytest.skip(f"{name} is not installed")
    wanted = [asked for asked in queries() if lab.has_systemd or "systemd_" not in asked.target.expr]
    missing = {asked.place: asked for asked in wanted}
    times = 1

    def complete() -> bool:
        nonlocal times
        times += 1
        lab.play(times)
        for place in [place for place, asked in missing.items() if has_rows(servers[name], asked)]:
            del missing[place]
        return not missing

    with contextlib.suppress(pytest.fail.Exception):
        eventually("all queries return rows", complete, LONG_S)
    assert sorted(missing) == []
    assert len(wanted) >= 60


def values(server: Scraper, place: str) -> dict[str, float]:
    """Return the values of an instant query by those labels that tell its rows apart."""
    [asked] = [asked for asked in queries() if asked.place == place]
    found = [(series.metric, series.numbers()[0]) for series in ask(server, asked, at_once=True)]
    labels = {key for metric, _ in found for key in metric}
    differing = sorted(key for key in labels if len(found) == 1 or len({m.get(key) for m, _ in found}) > 1)
    return {" ".join(metric[key] for key in differing if key in metric): number for metric, number in found}


SHOWN: Final = {
    "fleet/Declared, observed, scraped/A": {"nas": 1, "web": 1, "lap": 1, "db": 1, "monitor": 1},
    "fleet/Declared, observed, scraped/B": {"nas": 1, "web": 1, "lap": 0, "db": 0, "monitor": 1},
    "fleet/Declared, observed, scraped/C": {"nas": 1, "web": 0, "lap": 0, "db": 0, "monitor": 0},
    "fleet/Declared, observed, scraped/D": {"nas": 0, "web": 1, "lap": 1, "db": 1, "monitor": 1},
    "fleet/Declared, observed, scraped/E": {
        "the big disk box nas storage,zfs": 1,
        "web dmz": 1,
        "lap laptop": 1,
        "db": 1,
        "monitor": 1,
    },
    "fleet/Not all targets up/A": {"": 3},
    "fleet/Away/A": {"": 1},
    "fleet/Alerts/A": {"": 1},
    "host/CPU in use/B": {"": 99},
    "host/Memory in use/B": {"": 90},
    "units/Failed units/A": {"nas broken.service": 1},
    "units/Units that must be active/A": {"good.service": 1, "never.service": 0},
    "storage/ZFS pools/A": {"tank": 0, "backup": 1},
    "storage/RAID arrays/A": {"md0 nas": 1},
    "storage/Disks/A": {"sda": 1, "nvme0": 0},
    "storage/Disks/B": {"sda": 8, "nvme0": 4},
    "media/Programs/A": {"exportarr-sonarr": 1, "exportarr-radarr": 0},
    "media/Queues/A": {"exportarr-sonarr nas": 3},
}
"""What panels show of the homelab, by labels that differ, in their order."""


@pytest.mark.parametrize("name", [VERSIONS[key] for key in SERVERS])
def test_panels_show_the_homelab(lab: Homelab, servers: dict[str, Scraper], name: str) -> None:
    """Rows of tables, and the limits of a machine."""
    if name not in servers:
        pytest.skip(f"{name} is not installed")
    wanted = {place: rows for place, rows in SHOWN.items() if lab.has_systemd or not place.startswith("units/")}
    shown: dict[str, dict[str, float]] = {}

    def is_shown() -> bool:
        shown.update({place: values(servers[name], place) for place in wanted})
        return shown == wanted

    with contextlib.suppress(pytest.fail.Exception):
        eventually("the panels show the homelab", is_shown, LONG_S)
    assert shown == wanted


@pytest.mark.parametrize("name", [VERSIONS[key] for key in SERVERS])
def test_variables_have_values(servers: dict[str, Scraper], name: str) -> None:
    """All machines of the inventory, also those that are away.

    Grafana applies the regular expression to each series as text.
    """
    if name not in servers:
        pytest.skip(f"{name} is not installed")
    for found in map(board, NAMES):
        for variable in found.templating.variables:
            if isinstance(variable.query, str):
                continue
            text = re.fullmatch(r"query_result\((.*)\)", variable.query.query)
            assert text is not None
            expression = text[1]
            pattern = variable.regex.strip("/")

            def machines(expression: str = expression, pattern: str = pattern) -> set[str]:
                lines = [
                    "{" + ",".join(f'{key}="{value}"' for key, value in series.metric.items()) + "} 1 1795300000000"
                    for series in _get(servers[name], "query", query=expression)
                ]
                return {match[1] for line in lines if (match := re.search(pattern, line))}

            eventually(f"{found.title} knows machines", lambda: machines() == {"nas", "web", "lap", "db", "monitor"})
