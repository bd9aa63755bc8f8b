"""`verify` finds nothing on healthy fleets: generated ones, new ones, and shards."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from typing_extensions import override

from tests.stack.exporters import Answers, node_exporter, node_metrics
from tests.stack.fleet import LONGEST_S, Fleet, command, new_ports
from tests.stack.scrapers import VERSIONS, scraper
from tests.support.programs import eventually, program

if TYPE_CHECKING:
    from collections.abc import Generator

    from clan_discovery.model import Json
    from tests.stack.scrapers import Kind, Scraper, Which

NAMES: Final = ("db", "Web-01", "a--b", "x", "n2", "42", "node", "long-" * 11 + "name")
TYPES: Final = ("node", "systemd", "blackbox", "nginx", "smartctl")
CHECKS: Final = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)
RULES: Final[dict[str, list[dict[str, Json]]]] = {
    "none": [],
    "meta labels become labels": [{"action": "labelmap", "regex": "__meta_clan_(instance|role|machine_tags)"}],
    "nothing is dropped": [{"action": "drop", "source_labels": ["machine"], "regex": "nobody|phone.*"}],
    "everything is kept": [{"action": "keep", "source_labels": ["__meta_clan_machine_tag_all"], "regex": "1"}],
    "another instance": [{"source_labels": ["__address__"], "target_label": "instance"}],
    "another job": [{"source_labels": ["job"], "target_label": "job", "replacement": "prod/$1"}],
    "no machine": [{"action": "labeldrop", "regex": "machine"}],
    "few labels": [{"action": "labelkeep", "regex": "__.*|job|instance"}],
    "a hash": [{"action": "hashmod", "source_labels": ["machine"], "modulus": 4, "target_label": "shard"}],
    "lower case": [{"action": "lowercase", "source_labels": ["machine"], "target_label": "machine"}],
    "a parameter": [{"source_labels": ["machine"], "target_label": "__param_machine"}],
}


class Plan:
    """A generated fleet."""

    def __init__(self, draw: st.DrawFn) -> None:
        names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
        self.hosts = {name: f"127.0.0.{number}" for number, name in enumerate(names, 2)}
        if draw(st.booleans()):
            self.hosts[names[-1]] = "::1"
        self.types = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True))
        self.rules = {name: draw(st.sampled_from(sorted(RULES))) for name in self.types}
        self.paths = {name: draw(st.sampled_from(["/metrics", "/metrics/extra", "/a b", "/p"])) for name in self.types}
        self.params = {name: draw(st.sampled_from([{}, {"module": "icmp v4"}, {"x": "a&b=c"}])) for name in self.types}

    @override
    def __repr__(self) -> str:
        """Write it for a failing test."""
        return f"Plan(hosts={self.hosts}, rules={self.rules}, paths={self.paths}, params={self.params})"


def furnish(made: Fleet, plan: Plan) -> None:
    """Serve what a plan says."""
    for kind in plan.types:
        path = {"blackbox": "/probe"}.get(kind, plan.paths[kind])
        params: Json = {"target": "http://[::1]:8080/?a=b c", **plan.params[kind]}
        if kind != "blackbox":
            params = plan.params[kind]
        made.exporters[kind] = {"path": path, "params": params}
        made.settings[kind] = {"relabel_configs": RULES[plan.rules[kind]]}
        for machine in made.hosts:
            body = {"node": node_metrics(machine)}.get(kind, "one 1\ntwo 2\n")
            made.serve(machine, kind, Answers(body=body))


@settings(max_examples=5, phases=[Phase.generate], suppress_health_check=CHECKS, deadline=None)
@given(plan=st.composite(Plan)())
def test_generated_fleets(members: list[Scraper], plan: Plan) -> None:
    """Odd names and paths, parameters, IPv6, and rules that change labels: all up, no ghost, exit 0."""
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made = Fleet(place, members, plan.hosts, new_ports(*plan.types), running=stack)
        furnish(made, plan)
        made.scrape()
        for found in made.expect().values():
            assert all(program.ok for program in found.asked)
            assert not found.err.strip(), found.err


def test_a_probe_of_other_addresses(members: list[Scraper], tmp_path: Path) -> None:
    """As blackbox exporter is configured: rules make the address a parameter and ask one exporter for all."""
    with contextlib.ExitStack() as stack:
        made = Fleet(tmp_path, members, {"db": "127.0.0.2", "web": "127.0.0.3"}, new_ports("blackbox"), running=stack)
        made.serve("db", "blackbox", Answers(body="probe_success 1\n"))
        made.exporters["blackbox"] = {"params": {"target": "http://example.org"}}
        exporter = f"127.0.0.2:{made.ports['blackbox']}"
        made.settings["blackbox"] = {
            "relabel_configs": [
                {"source_labels": ["__address__"], "target_label": "__param_target"},
                {"source_labels": ["__param_target"], "target_label": "instance"},
                {"target_label": "__address__", "replacement": exporter},
            ]
        }
        made.scrape()
        made.expect()


@pytest.fixture
def made(tmp_path: Path) -> Generator[Fleet]:
    """A fleet of two machines with node exporters, without scrapers."""
    with contextlib.ExitStack() as stack:
        hosts = {"db": "127.0.0.2", "web": "127.0.0.3"}
        yield Fleet(tmp_path, [], hosts, new_ports("node"), running=stack)


@pytest.mark.parametrize(("kind", "which"), VERSIONS)
def test_waiting_right_after_the_start(made: Fleet, kind: Kind, which: Which) -> None:
    """`--wait` returns 0 as soon as all are up; one exporter starts later than the scraper."""
    made.serve("db")
    made.refresh()
    with scraper(kind, which, made.place / "scraper", made.jobs()) as member:
        made.members = [member]
        late = threading.Timer(3, made.serve, ["web"])
        began = time.monotonic()
        late.start()
        found = made.verify(member.name, words=["--wait", f"{LONGEST_S:.0f}s"])
        took = time.monotonic() - began
        late.join()
        assert (found.code, found.verdicts()) == (0, made.all_up()), found
        assert 3 <= took < LONGEST_S


def test_waiting_for_what_never_comes(made: Fleet) -> None:
    """The time is over: exit 1, and the reason."""
    made.serve("db")
    made.refresh()
    with scraper("prometheus", "debian", made.place / "scraper", made.jobs()) as member:
        made.members = [member]
        made.expect({"node/web": "down"})
        found = made.verify(member.name, words=["--wait", "3s"])
        assert found.code == 1
        assert found.of("node/web").verdict == "down"


def test_only_what_is_asked_for(made: Fleet) -> None:
    """`--machine` and `--job`: the finding of another machine is not there."""
    made.serve("db")
    made.refresh()
    with scraper("prometheus", "debian", made.place / "scraper", made.jobs()) as member:
        made.members = [member]
        made.expect({"node/web": "down"})
        only = functools.partial(made.verify, member.name, words=["--machine", "db"])
        made.settle("only db", only, {"node/db": "up"}, 0)
        only = functools.partial(made.verify, member.name, words=["--job", "node"])
        made.settle("only node", only, {"node/db": "up", "node/web": "down"}, 1)


def test_real_node_exporters(members: list[Scraper], tmp_path: Path) -> None:
    """Hostnames in another case and with a domain are those of the machine."""
    program("unshare")
    with contextlib.ExitStack() as stack:
        made = Fleet(tmp_path, members, {"db": "127.0.0.2", "web": "127.0.0.3"}, new_ports("node"), running=stack)
        for (machine, host), nodename in zip(made.hosts.items(), ("DB", "web.example.org"), strict=True):
            log = tmp_path / f"{machine}.log"
            stack.enter_context(node_exporter(host, made.ports["node"], nodename, log))
        made.scrape()
        made.expect()


def test_a_table_without_findings(made: Fleet) -> None:
    """The table is short and says that everything is up."""
    made.serve_all()
    made.refresh()
    with scraper("prometheus", "newer", made.place / "scraper", made.jobs()) as member:
        made.members = [member]
        made.expect()
        tables: list[str] = []

        def all_up() -> bool:
            code, out, _ = command("verify", "-c", made.place / "verify.yaml")
            tables.append(out)
            return code == 0

        eventually("all are up", all_up, LONGEST_S)
        assert "up" in tables[-1]
        assert len(tables[-1].splitlines()) < 10
