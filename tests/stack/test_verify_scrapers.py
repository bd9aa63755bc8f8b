"""`verify` and the ways to reach scrapers: logins, proxies, agents, pairs and shards."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import pytest

from tests.stack.exporters import Answers, certificate_for, serving
from tests.stack.fleet import LONGEST_S, Fleet, Found, Says, new_ports, says
from tests.stack.scrapers import VERSIONS, Scraper, scraper
from tests.support.programs import absent, eventually, free_port, program, running

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.stack.scrapers import Kind, Which

    Make: TypeAlias = Callable[..., Fleet]

UP = {"node/db": "up", "node/web": "up"}
UNKNOWN = {"node/db": "unknown", "node/web": "unknown"}
WHICH: list[Which] = ["debian", "newer"]


@pytest.fixture
def made(tmp_path: Path) -> Generator[Fleet]:
    """A healthy fleet without scrapers."""
    with contextlib.ExitStack() as stack:
        hosts = {"db": "127.0.0.2", "web": "127.0.0.3"}
        found = Fleet(tmp_path, [], hosts, new_ports("node"), running=stack)
        found.serve_all()
        found.refresh()
        yield found


@pytest.fixture
def prometheus(made: Fleet) -> Scraper:
    """Debian's Prometheus with our jobs."""
    return made.running.enter_context(scraper("prometheus", "debian", made.place / "scraper", made.jobs()))


def unknown(made: Fleet, scrapers: dict[str, Json]) -> Found:
    """Ask scrapers of which none answers; return what was found."""
    found = made.verify(scrapers=scrapers)
    assert found.verdicts() == UNKNOWN
    assert found.code == 3
    (asked,) = found.asked
    assert not asked.ok
    assert asked.reason
    assert asked.fix
    assert all(target.reason for target in found.targets)
    return found


def settle(
    made: Fleet, scrapers: dict[str, Json], verdicts: dict[str, str], code: int, reason: Says | None = None
) -> Found:
    """Ask these scrapers until the verdicts, and the reason of one target, are these."""
    return made.settle(" and ".join(scrapers), lambda: made.verify(scrapers=scrapers), verdicts, code, says=reason)


def test_nothing_listens_at_the_url(made: Fleet, prometheus: Scraper) -> None:
    """The port is a wrong one."""
    found = unknown(made, {"main": {"url": f"http://127.0.0.1:{free_port()}"}})
    assert "refused" in found.asked[0].reason
    assert "verify.scrapers.main" in found.asked[0].fix
    settle(made, {"main": {"url": prometheus.url}}, UP, 0)


def test_the_url_is_another_program(made: Fleet) -> None:
    """A node exporter's: it answers every path with metrics or 404."""
    found = unknown(made, {"main": {"url": f"http://127.0.0.2:{made.ports['node']}"}})
    assert "verify.scrapers.main" in found.asked[0].fix


def test_a_login_page_answers(made: Fleet) -> None:
    """As a proxy that knows nobody: HTML with status 200."""
    port = free_port()
    page = Answers(body="<!doctype html><title>Sign in</title>", content_type="text/html")
    with serving("127.0.0.1", port, page):
        found = unknown(made, {"main": {"url": f"http://127.0.0.1:{port}"}})
    assert "HTML" in found.asked[0].reason or "login" in found.asked[0].reason or "JSON" in found.asked[0].reason


@pytest.mark.parametrize("status", [302, 401, 403, 500, 502])
def test_a_proxy_refuses(made: Fleet, status: int) -> None:
    """With each of these; its status is in the reason."""
    port = free_port()
    with serving("127.0.0.1", port, Answers(body="no\n", status=status)):
        found = unknown(made, {"main": {"url": f"http://127.0.0.1:{port}"}})
    assert str(status) in found.asked[0].reason


@pytest.mark.parametrize("which", WHICH)
def test_a_prometheus_with_a_password(made: Fleet, which: Which) -> None:
    """Its own `web.yml`: without the password, with a wrong one, and with the right one."""
    words = [program("htpasswd"), "-nbBC", "4", "verify", "hunter2"]
    user, _, digest = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip().partition(":")
    web = made.place / "web.yml"
    web.write_text(json.dumps({"basic_auth_users": {user: digest}}))
    secret = made.place / "password"
    secret.write_text("wrong\n")
    extra = [f"--web.config.file={web}"]
    place = made.place / "scraper"
    with scraper("prometheus", which, place, made.jobs(), extra=extra, ready=False) as member:
        eventually("it answers", lambda: "Server is ready to receive" in member.log(), LONGEST_S)
        login: Json = {"username": "verify", "password_file": str(secret)}
        found = unknown(made, {"main": {"url": member.url}})
        assert "401" in found.asked[0].reason
        assert "basic_auth" in found.asked[0].fix
        found = unknown(made, {"main": {"url": member.url, "basic_auth": login}})
        assert "401" in found.asked[0].reason
        secret.write_text("hunter2\n")
        found = settle(made, {"main": {"url": member.url, "basic_auth": login}}, UP, 0)
        assert "hunter2" not in msgspec.json.encode(found).decode()


@pytest.mark.parametrize("which", WHICH)
def test_a_prometheus_with_tls(made: Fleet, which: Which) -> None:
    """Plain http, https without its CA, and https with it."""
    certificate = certificate_for(made.place / "tls", "127.0.0.1")
    web = made.place / "web.yml"
    server = {"cert_file": str(certificate.certificate), "key_file": str(certificate.key)}
    web.write_text(json.dumps({"tls_server_config": server}))
    extra = [f"--web.config.file={web}"]
    with scraper("prometheus", which, made.place / "scraper", made.jobs(), extra=extra, ready=False) as member:
        eventually("it answers", lambda: "Server is ready to receive" in member.log(), LONGEST_S)
        found = unknown(made, {"main": {"url": member.url}})
        assert "https" in found.asked[0].reason + found.asked[0].fix
        url = member.url.replace("http", "https")
        found = unknown(made, {"main": {"url": url}})
        assert "certificate" in found.asked[0].reason
        assert "ca_file" in found.asked[0].fix
        settle(made, {"main": {"url": url, "ca_file": str(certificate.authority)}}, UP, 0)


def test_a_prometheus_below_a_path(made: Fleet) -> None:
    """With and without the path in the URL."""
    extra = ["--web.route-prefix=/monitoring"]
    with scraper("prometheus", "debian", made.place / "scraper", made.jobs(), extra=extra, ready=False) as member:
        eventually("it answers", lambda: "Server is ready to receive" in member.log(), LONGEST_S)
        found = unknown(made, {"main": {"url": member.url}})
        assert "404" in found.asked[0].reason or "302" in found.asked[0].reason
        for path in ("/monitoring", "/monitoring/"):
            settle(made, {"main": {"url": f"{member.url}{path}"}}, UP, 0)


@pytest.mark.parametrize("which", WHICH)
def test_a_prometheus_in_agent_mode(made: Fleet, which: Which) -> None:
    """It has no queries: which machine answers is not judged, and nothing else is lost."""
    flags = {"debian": "--enable-feature=agent", "newer": "--agent"}
    data = "--storage.agent.path"
    home = made.place / "scraper"
    with scraper("prometheus", which, home, made.jobs(), extra=[flags[which]], data=data) as member:
        found = settle(made, {"main": {"url": member.url}}, UP, 0)
        assert found.asked[0].kind == "prometheus"
        member.scrape([])
        settle(made, {"main": {"url": member.url}}, {"node/db": "not_read", "node/web": "not_read"}, 1)


def test_one_of_a_pair_is_dead(made: Fleet, prometheus: Scraper) -> None:
    """What the other one scrapes is up; the dead one could not be asked."""
    place = made.place / "second"
    with scraper("prometheus", "debian", place, made.jobs()) as second:
        both: dict[str, Json] = {"a": {"url": prometheus.url}, "b": {"url": second.url}}
        found = settle(made, both, UP, 0)
        assert [program.ok for program in found.asked] == [True, True]
    found = settle(made, both, UP, 3)
    assert [(program.name, program.ok) for program in found.asked] == [("a", True), ("b", False)]
    assert "refused" in found.asked[1].reason


def sharded(made: Fleet, shard: int) -> list[dict[str, Json]]:
    """Return our jobs with the rules of a shard of two."""
    rules: Json = [
        {"source_labels": ["machine"], "modulus": 2, "target_label": "__tmp_shard", "action": "hashmod"},
        {"source_labels": ["__tmp_shard"], "regex": str(shard), "action": "keep"},
    ]
    return [{**job, "relabel_configs": rules} for job in made.jobs()]


def spread(made: Fleet) -> None:
    """Take machines of whom each shard of two has at least one."""
    made.running.close()
    made.hosts = {f"m{number}": f"127.0.0.{number + 2}" for number in range(6)}
    made.serve_all()
    made.refresh()


def test_a_shard_that_nobody_serves(made: Fleet) -> None:
    """Both scrapers serve shard 0 of 2; then one of them is corrected."""
    spread(made)
    jobs = sharded(made, 0)
    with (
        scraper("prometheus", "debian", made.place / "first", jobs) as prometheus,
        scraper("prometheus", "newer", made.place / "second", jobs) as second,
    ):
        both: dict[str, Json] = {"a": {"url": prometheus.url}, "b": {"url": second.url}}
        wanted = settle_some(made, both, "dropped")
        assert "up" in wanted.verdicts().values()
        for target in wanted.targets:
            if target.verdict.value == "dropped":
                assert "shard 1" in target.reason
                assert "0" in target.reason
                assert target.fix
        second.scrape(sharded(made, 1))
        found = settle(made, both, made.all_up(), 0)
        for member in ("a", "b"):
            only: dict[str, Json] = {member: both[member]}

            def its_shard_is_up(only: dict[str, Json] = only) -> bool:
                return made.verify(scrapers=only).code == 0

            eventually("the other shard belongs to a program that was not asked", its_shard_is_up, LONGEST_S)
        assert {target.scraper for target in found.targets} == {"a", "b"}


def settle_some(made: Fleet, scrapers: dict[str, Json], verdict: str) -> Found:
    """Ask until some targets are up, all others have this verdict, and none of them twice."""
    found: list[Found] = []

    def check() -> bool:
        found[:] = [made.verify(scrapers=scrapers)]
        return set(found[0].verdicts().values()) == {"up", verdict} and found[0].code == 1

    eventually(f"some are {verdict}", check, LONGEST_S)
    assert len(found[0].targets) == len(made.hosts)
    return found[0]


def test_one_scraper_under_two_names(made: Fleet, prometheus: Scraper) -> None:
    """As `localhost` and as an address: each target is scraped once."""
    twice: dict[str, Json] = {"a": {"url": prometheus.url}, "b": {"url": f"http://localhost:{prometheus.port}"}}
    settle(made, twice, UP, 0)


def test_a_second_scraper_lacks_a_job(made: Fleet, prometheus: Scraper) -> None:
    """Of a pair one was not deployed: what the other one scrapes is up, and the difference is said."""
    with scraper("prometheus", "newer", made.place / "second", []) as second:
        both: dict[str, Json] = {"a": {"url": prometheus.url}, "b": {"url": second.url}}
        not_read = {"node/db": "not_read", "node/web": "not_read"}
        settle(made, {"b": both["b"]}, not_read, 1, says("node/db", "node"))
        settle(made, both, UP, 0)


def test_a_proxy_of_the_environment_is_not_used(
    made: Fleet, prometheus: Scraper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`http_proxy` leads nowhere."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    settle(made, {"main": {"url": prometheus.url}}, UP, 0)


def namespace(stack: contextlib.ExitStack, log: Path) -> list[str]:
    """Make a network namespace in which 10.77.0.0/24 swallows packets; return the command that enters it."""
    if os.geteuid() != 0:
        absent("firewall", "needs root: a network namespace", required=False)
    # A tun device that nobody reads: packets vanish as behind a firewall that drops them.
    setup = (
        "ip link set lo up && ip tuntap add gone mode tun && ip addr add 10.77.0.1/24 dev gone && ip link set gone up"
    )
    words = [program("setpriv"), "--pdeathsig", "KILL", program("unshare"), "--net", "sh", "-c"]
    holder = stack.enter_context(running([*words, f"{setup} && echo ready && exec sleep 600"], log))
    eventually("the namespace is there", lambda: "ready" in log.read_text(), LONGEST_S)
    return [program("nsenter"), "--net", "--target", str(holder.pid)]


def verify_inside(made: Fleet, enter: Sequence[str], member: Scraper) -> Found:
    """Run `verify` in a namespace."""
    config = made.config({"main": {"url": member.url}}, "verify")
    words = [*enter, sys.executable, "-m", "clan_discovery", "verify", "-c", str(config), "--format", "json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout, done.stderr
    found = msgspec.json.decode(done.stdout, type=Found)
    return msgspec.structs.replace(found, code=done.returncode, err=done.stderr)


@pytest.mark.parametrize(("kind", "which"), VERSIONS)
def test_a_firewall_drops_packets(made: Fleet, kind: Kind, which: Which) -> None:
    """Also on the way to a scraper: `verify` does not wait longer than its limit."""
    enter = namespace(made.running, made.place / "namespace.log")
    made.hosts = {"web": "10.77.0.3"}
    made.refresh()
    home = made.place / "scraper"
    with scraper(kind, which, home, made.jobs(), inside=enter, ready=False) as member:
        reason = says("node/web", "deadline exceeded|timeout|Timeout", fix="firewall")
        made.settle(member.name, lambda: verify_inside(made, enter, member), {"node/web": "down"}, 1, says=reason)
