"""The command `verify`: its table, JSON, filters, `--wait` and exit codes, with a scraper that a test plays."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Final

import jsonschema
import pytest

from clan_discovery.cli.commands.schema import schema
from clan_discovery.verify.ask import EMPTY, IDENTITIES, NOW
from tests.support.answering import Reply, answering

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

MACHINES: Final = {"db": "10.0.0.1", "web": "10.0.0.2", "nas": "10.0.0.3"}


@pytest.fixture
def home(tmp_path: Path, run: Callable[..., Done]) -> Path:
    """Write an inventory with three machines, a config, and the target files."""
    machines = {name: {"name": name, "machineClass": "nixos", "tags": ["all"]} for name in MACHINES}
    exporter: Json = {"settings": {"exporterType": "node"}, "tags": {"all": {}}}
    instance: Json = {
        "module": {"name": "prometheus"},
        "roles": {"server": {"machines": {"db": {}}}, "exporter": exporter},
    }
    inventory: Json = {"machines": machines, "instances": {"monitoring": instance}}
    (tmp_path / "inventory.json").write_text(json.dumps(inventory))
    configure(tmp_path, "http://127.0.0.1:1")
    assert run("refresh", "-c", tmp_path / "c.json").code == 0
    return tmp_path


def configure(home: Path, url: str) -> None:
    """Name the only scraper in the config."""
    document = {
        "inventory": {"file": "inventory.json"},
        "backends": {"static": {"lab": {"machines": MACHINES}}},
        "output": {"directory": "targets"},
        "verify": {"scrapers": {"one": {"url": url}}, "timeout": "20s"},
    }
    (home / "c.json").write_text(json.dumps(document))


def scraped(home: Path, **health: str) -> Reply:
    """Return the targets of a scraper that has read the target file; `health` by machine, all others are up."""
    file = home / "targets/node.json"
    active: list[Json] = []
    for group in json.loads(file.read_bytes()):
        address, labels = group["targets"][0], group["labels"]
        active.append(
            {
                "discoveredLabels": {"job": "node", "__address__": address, "__meta_filepath": str(file), **labels},
                "labels": {"job": "node", "instance": labels["instance"]},
                "scrapePool": "node",
                "scrapeUrl": f"http://{address}/metrics",
                "lastError": "connection refused" if health.get(labels["machine"]) == "down" else "",
                "health": health.get(labels["machine"], "up"),
            }
        )
    return Reply(json.dumps({"status": "success", "data": {"activeTargets": active}}).encode())


def test_healthy_targets_are_summed_up(home: Path, run: Callable[..., Done]) -> None:
    with answering(
        {"/api/v1/targets": scraped(home), "/metrics": Reply(b'prometheus_build_info{version="3.5.0"} 1')}
    ) as s:
        configure(home, s.url)
        done = run("verify", "-c", home / "c.json")
        assert (done.code, done.err) == (0, "")
        lines = done.out.splitlines()
        assert lines[-1] == "3 targets: 3 up; asked: one 3.5.0"
        verbose = run("verify", "-v", "-c", home / "c.json")
        assert [line.split() for line in verbose.out.splitlines()][:2] == [
            ["VERDICT", "JOB", "INSTANCE", "TARGET", "SCRAPER"],
            ["up", "node", "db", "10.0.0.1:9100", "one"],
        ]


def test_findings_have_a_reason_and_a_fix(home: Path, run: Callable[..., Done]) -> None:
    with answering({"/api/v1/targets": scraped(home, web="down")}) as server:
        configure(home, server.url)
        done = run("verify", "-c", home / "c.json")
    assert done.code == 1
    first, second, third = done.out.splitlines()[:3]
    assert (first, second) == ("down           node: web (one)", "               connection refused")
    assert third.startswith("               to fix: ")
    assert "3 targets: 2 up, 1 down" in done.out


def test_json_conforms_to_the_schema(home: Path, run: Callable[..., Done]) -> None:
    for reply, code in ((scraped(home, web="down", nas="unknown"), 1), (Reply(b"<html>login</html>"), 3)):
        with answering({"/api/v1/targets": reply}) as server:
            configure(home, server.url)
            done = run("verify", "-c", home / "c.json", "--format", "json")
        assert done.code == code
        document = json.loads(done.out)
        jsonschema.validate(document, schema("verify"), cls=jsonschema.Draft202012Validator)
        assert sum(document["summary"]["verdicts"].values()) == document["summary"]["targets"] == 3


def test_only_a_part_is_printed(home: Path, run: Callable[..., Done]) -> None:
    """Also a ghost belongs to a part. An unknown name is refused with a suggestion."""
    with answering({"/api/v1/targets": scraped(home, web="down")}) as server:
        configure(home, server.url)
        config = home / "c.json"
        assert run("verify", "web", "-c", config).code == 1
        assert "2 targets: 2 up" in run("verify", "db", "--machine", "NAS", "-c", config).out
        assert run("verify", "--job", "node", "-c", config).code == 1
        for words, said in ((("webb",), "did you mean 'web'"), (("--job", "nod"), "did you mean 'node'")):
            done = run("verify", *words, "-c", config)
            assert (done.code, said in done.err) == (2, True)
        (home / "inventory.json").write_text((home / "inventory.json").read_text().replace('"nas"', '"new"'))
        os.utime(home / "targets/node.json", (0, 0))  # a file that has just changed may not be read yet
        assert "ghost          node: nas (one)" in run("verify", "-c", config).out
        assert "ghost" not in run("verify", "db", "-c", config).out


def test_scraper_that_cannot_be_asked_is_exit_3(home: Path, run: Callable[..., Done]) -> None:
    done = run("verify", "-c", home / "c.json")
    assert done.code == 3
    assert "not asked" in done.out
    assert "connection refused" in done.out
    assert "3 targets: 3 unknown; asked: none" in done.out


def test_wait_ends_as_soon_as_all_are_up(home: Path, run: Callable[..., Done]) -> None:
    replies = {"/api/v1/targets": scraped(home, web="unknown")}
    with answering(replies) as server:
        configure(home, server.url)
        assert run("verify", "-c", home / "c.json").code == 0  # pending is no finding
        healed = threading.Timer(0.5, replies.update, ({"/api/v1/targets": scraped(home)},))
        healed.start()
        done = run("verify", "-c", home / "c.json", "--wait", "120s")
        healed.join(10)
    assert (done.code, done.out.splitlines()[-1][:18]) == (0, "3 targets: 3 up; a")


def test_wait_that_is_over_is_exit_1_for_pending_targets(home: Path, run: Callable[..., Done]) -> None:
    with answering({"/api/v1/targets": scraped(home, web="unknown")}) as server:
        configure(home, server.url)
        done = run("verify", "-c", home / "c.json", "--wait", "1s")
    assert done.code == 1
    assert "pending" in done.out
    assert run("verify", "-c", home / "c.json", "--wait", "soon").code == 2


def test_pushed_targets_are_verified_and_nobody_waits_for_a_laptop(home: Path, run: Callable[..., Done]) -> None:
    """`db` sends its samples, the laptop `web` is offline, and `nas` is scraped."""
    document = json.loads((home / "inventory.json").read_text())
    document["machines"]["web"]["tags"].append("laptop")
    document["instances"]["monitoring"]["roles"]["agent"] = {"machines": {"db": {}, "web": {}}}
    (home / "inventory.json").write_text(json.dumps(document))
    assert run("refresh", "-c", home / "c.json").code == 0

    def vector(*values: tuple[str, float]) -> Reply:
        result: list[Json] = []
        for job in ("node", "vmagent"):
            for instance, value in values:
                result.append({"metric": {"job": job, "instance": instance}, "value": [1e9, str(value)]})
        return Reply(json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode())

    replies = {"/api/v1/targets": scraped(home), NOW: vector(("db", 1)), "/api/v1/query": vector(("web", 1e9 - 7200))}
    replies["/metrics"] = Reply(b'vm_app_version{short_version="v1"} 1\n')
    replies[IDENTITIES] = replies[EMPTY] = vector()
    with answering(replies) as server:
        configure(home, server.url)
        done = run("verify", "-c", home / "c.json", "--wait", "120s")
        assert (done.code, done.err) == (0, "")
        assert done.out.splitlines()[:2] == [
            "pending        node: web (one)",
            "               no sample for 2 h: its machine comes and goes; down after 7 d",
        ]
        assert "5 targets: 3 up, 2 pending" in done.out
        assert "1 target: 1 pending" in run("verify", "web", "--job", "vmagent", "-c", home / "c.json").out
        replies[NOW] = vector()
        assert run("verify", "db", "-c", home / "c.json").code == 1


def test_hostile_names_reach_no_terminal(home: Path, run: Callable[..., Done]) -> None:
    """What a scraper answers is escaped."""
    reply = scraped(home)
    body = reply.body.replace(b'"instance": "nas"', b'"instance": "\\u001b[2J"')
    body = body.replace(b'"job": "node"', b'"job": "no\\u0007de"', 1)
    with answering({"/api/v1/targets": Reply(body)}) as server:
        configure(home, server.url)
        for format_ in ("table", "json"):
            done = run("verify", "-c", home / "c.json", "--format", format_)
            assert all(character.isprintable() or character == "\n" for character in done.out)
