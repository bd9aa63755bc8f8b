"""`verify` and other ways to set up scrapers: http_sd, clusters, one job for all files, and paths of other names."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from typing import TYPE_CHECKING, TypeAlias

import pytest

from tests.stack.exporters import Answers
from tests.stack.fleet import LONGEST_S, Fleet, Found, new_ports, says
from tests.stack.scrapers import VERSIONS, scraper
from tests.support.programs import eventually, free_port, get, program, running

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.stack.scrapers import Kind, Which

    Make: TypeAlias = Callable[..., Fleet]

NOT_READ = {"node/db": "not_read", "node/web": "not_read"}


@pytest.fixture
def made(tmp_path: Path) -> Generator[Fleet]:
    """A healthy fleet without scrapers."""
    with contextlib.ExitStack() as stack:
        hosts = {"db": "127.0.0.2", "web": "127.0.0.3"}
        found = Fleet(tmp_path, [], hosts, new_ports("node"), running=stack)
        found.serve_all()
        found.refresh()
        yield found


def test_one_job_reads_all_files(fleet: Make) -> None:
    """With a pattern, as in many configs written by hand: all up, and nothing twice."""
    made = fleet("node", "systemd")
    made.serve_all()
    made.refresh()
    made.scrape([{"job_name": "fleet", "file_sd_configs": [{"files": [f"{made.targets}/*.json"]}]}])
    made.expect()


def test_the_directory_has_another_name_for_the_scraper(fleet: Make) -> None:
    """A bind mount or a symlink; a rule changes the instance."""
    made = fleet()
    made.serve_all()
    made.refresh()
    (made.place / "mounted").symlink_to(made.targets)
    rules: Json = [{"source_labels": ["__address__"], "target_label": "instance"}]
    files: Json = [{"files": [f"{made.place}/mounted/node.json"]}]
    made.scrape([{**job, "file_sd_configs": files, "relabel_configs": rules} for job in made.jobs()])
    made.expect()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a mount namespace")
@pytest.mark.parametrize(("kind", "which"), VERSIONS)
def test_the_scraper_is_in_a_container(made: Fleet, kind: Kind, which: Which) -> None:
    """The target files are mounted where only it sees them; a rule changes the instance."""
    (made.place / "seen").mkdir()
    rules: Json = [{"source_labels": ["__address__"], "target_label": "instance"}]
    files: Json = [{"files": [f"{made.place}/seen/node.json"]}]
    jobs = [{**job, "file_sd_configs": files, "relabel_configs": rules} for job in made.jobs()]
    start = f'mount --bind {made.targets} {made.place}/seen && exec "$@"'
    inside = [program("unshare"), "--mount", "--propagation", "private", "sh", "-c", start, "sh"]
    with scraper(kind, which, made.place / "scraper", jobs, inside=inside) as member:
        made.members = [member]
        made.expect()


def test_the_config_is_broken(fleet: Make) -> None:
    """The scraper refuses to reload it, and goes on with the old one."""
    made = fleet()
    made.serve_all()
    made.scrape()
    made.expect()
    made.ports["systemd"] = free_port()
    for machine in made.hosts:
        made.serve(machine, "systemd", Answers())
    made.refresh()
    made.scrape([*made.jobs(), {"job_name": "node"}])
    not_read = {"systemd/db": "not_read", "systemd/web": "not_read"}
    reason = says("systemd/web", "systemd", "reload.* failed", fix="log|check config|reload")
    made.expect(not_read, only=("prometheus", "1.131.0"), says=reason)
    made.expect(not_read, only=("1.79.5",))  # which does not tell
    made.scrape()
    made.expect()


def test_rules_drop_all_samples(fleet: Make) -> None:
    """`metric_relabel_configs` keeps what no exporter has; vmagent has no query API and does not tell."""
    made = fleet()
    made.serve_all()
    rules: Json = [{"source_labels": ["__name__"], "regex": "windows_.*", "action": "keep"}]
    made.settings["node"] = {"metric_relabel_configs": rules}
    made.scrape()
    reason = says("node/web", "metric_relabel_configs", fix="metric_relabel_configs")
    made.expect({"node/db": "empty", "node/web": "empty"}, only=("prometheus", "victoria"), says=reason)
    made.settings.clear()
    made.scrape()
    made.expect()


@pytest.mark.parametrize("which", ["debian", "newer"])
def test_a_cluster_of_vmagents(made: Fleet, which: Which) -> None:
    """Two members: both asked, one asked, and two with the same number."""
    made.running.close()
    made.hosts = {f"m{number}": f"127.0.0.{number + 2}" for number in range(20)}
    made.serve_all()
    made.refresh()

    def members(second: int) -> dict[str, Json]:
        asked: dict[str, Json] = {}
        for name, number in (("a", 0), ("b", second)):
            flags = ["-promscrape.cluster.membersCount=2", f"-promscrape.cluster.memberNum={number}"]
            home = made.place / f"{name}{second}"
            member = made.running.enter_context(scraper("vmagent", which, home, made.jobs(), extra=flags))
            asked[name] = {"url": member.url}
        return asked

    both = members(1)
    made.settle("both", lambda: made.verify(scrapers=both), made.all_up(), 0)
    for name, access in both.items():
        only = functools.partial(made.verify, scrapers={name: access})

        def a_part(only: Callable[[], Found] = only) -> bool:
            found = only()
            return found.code == 0 and 0 < len(found.targets) < len(made.hosts)

        eventually(f"{name} has a part", a_part, LONGEST_S)
    same = members(0)

    def dropped() -> bool:
        found = made.verify(scrapers=same)
        verdicts = found.verdicts()
        return found.code == 1 and len(verdicts) == len(made.hosts) and set(verdicts.values()) == {"up", "dropped"}

    eventually("the other shard is a finding", dropped, LONGEST_S)


@pytest.mark.parametrize(("kind", "which"), VERSIONS)
def test_http_sd(made: Fleet, kind: Kind, which: Which) -> None:
    """The scraper reads our listener; then one of the machine's jobs is not in its config."""
    port = free_port()
    config = made.config({})
    document = json.loads(config.read_text())
    document["web"] = {"listen": f"127.0.0.1:{port}"}
    config.write_text(json.dumps(document))
    command = [sys.executable, "-m", "clan_discovery", "run", "-c", str(config)]
    url = f"http://127.0.0.1:{port}/sd/node"
    with running(command, made.place / "run.log"):
        eventually("the listener serves the job", lambda: b"__meta_clan" in get(url), LONGEST_S)
        # VictoriaMetrics has a flag instead, which is set to 1 s.
        source: dict[str, Json] = {"url": url}
        if kind == "prometheus":
            source["refresh_interval"] = "1s"
        jobs: list[dict[str, Json]] = [{"job_name": "node", "http_sd_configs": [source]}]
        with scraper(kind, which, made.place / "scraper", jobs) as member:
            made.members = [member]
            made.expect()
            member.scrape([])
            made.age()
            made.expect(NOT_READ, says=says("node/db", "node"))
