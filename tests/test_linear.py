"""Run time grows linearly with the input, also with invalid input; output is bounded."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

import pytest

from clan_discovery.errors import first_problems
from clan_discovery.model import Problem
from clan_discovery.syntax.suggest import did_you_mean, similar
from tests.support.fleet import inventory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

FLEET: Final = [f"machine-{number:05}" for number in range(5000)]
UNKNOWN: Final = [f"machine-x{number:05}" for number in range(1000)]


def roles(exporter: Json, server: Json = None) -> Json:
    """Return an inventory of the fleet with these roles."""
    found: dict[str, Json] = {"exporter": exporter}
    if server is not None:
        found["server"] = {"machines": {FLEET[0]: {"settings": server}}}
    return {
        "machines": {name: {} for name in FLEET},
        "instances": {"monitoring": {"module": {"name": "prometheus"}, "roles": found}},
    }


def each(make: Callable[[str], Json]) -> Json:
    """Return a role with settings for each machine."""
    return {"machines": {name: {"settings": make(name)} for name in FLEET}}


EVERY: Final[Json] = {"tags": ["all"]}
HOSTILE: Final[dict[str, Callable[[], Json]]] = {
    "unknown machines in a role": lambda: roles({"machines": {name: {} for name in UNKNOWN}}),
    "unknown tags in a role": lambda: inventory(
        {name: {"tags": [name]} for name in FLEET},
        instances={"m": {"module": {"name": "prometheus"}, "roles": {"exporter": {"tags": UNKNOWN}}}},
    ),
    "unknown machines in a tag": lambda: inventory(FLEET, tags={"x": UNKNOWN}),
    "unknown machines in many tags": lambda: inventory(FLEET, tags={name: [name] for name in UNKNOWN}),
    "wrong labels": lambda: roles(each(lambda name: {"labels": {f"a-{name}": "x"}})),
    "unknown types": lambda: roles(each(lambda name: {"exporterType": f"nod{name}"})),
    "unknown types on one machine": lambda: roles(
        {"tags": ["all"], "settings": {"exporters": {f"nod{number}": {} for number in range(5000)}}}
    ),
    "conflicts": lambda: roles({**attributes(each(lambda _: {"port": 2})), "settings": {"port": 1}}),
    "methods": lambda: roles(EVERY, {"discoveryMethod": [f"dn{number}" for number in range(20_000)]}),
    "options": lambda: roles(EVERY, {"dnsDiscovery": {"node": {f"nam{number}": 1 for number in range(20_000)}}}),
    "targets": lambda: roles(EVERY, {"staticTargets": {f"job{number}": ["host"] for number in range(20_000)}}),
    "instances": lambda: {
        "machines": {name: {} for name in FLEET},
        "instances": {
            f"i{number}": {"module": {"name": "prometheus"}, "roles": {"exporter": {"machines": {FLEET[number]: {}}}}}
            for number in range(1000)
        },
    },
    "other instances": lambda: {
        "machines": {name: {} for name in FLEET},
        "instances": {f"i{number}": {"module": {"name": "borgbackup"}} for number in range(20_000)},
    },
    "roles": lambda: {
        "machines": {name: {} for name in FLEET},
        "instances": {"m": {"module": {"name": "prometheus"}, "roles": {f"exportr{n}": {} for n in range(10_000)}}},
    },
    "names": lambda: inventory([f"a/{number}" for number in range(20_000)]),
    "a long name": lambda: {
        "machines": {"db": {}},
        "instances": {
            "i" * 1_000_000: {
                "module": {"name": "prometheus"},
                "roles": {"exporter": {"machines": {name: {} for name in UNKNOWN}}},
            }
        },
    },
    "names in two cases": lambda: inventory([f"{letter}{number}" for number in range(10_000) for letter in "aA"]),
}


def attributes(value: Json) -> dict[str, Json]:
    """Return an object with many keys."""
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_inventory_is_fast_and_its_errors_bounded(tmp_path: Path, run: Run, name: str) -> None:
    """Less than 2 s of CPU time, 21 lines, and no overlong line."""
    (tmp_path / "inventory.json").write_text(json.dumps(HOSTILE[name]()))
    (tmp_path / "c.yaml").write_text("inventory: {file: inventory.json}\n")
    began = time.process_time()
    done = run("check", "-c", tmp_path / "c.yaml")
    assert time.process_time() - began < 2
    assert done.code in (0, 2)
    lines = done.err.splitlines()
    assert len(lines) <= 21
    assert max(map(len, lines), default=0) < 1000


@pytest.mark.parametrize(
    "text",
    [
        "exporters: {" + ",".join(f"nod{number}: {{}}" for number in range(10_000)) + "}",
        "exporters: {" + ",".join(f"nod{number}: {{select: {{}}}}" for number in range(5000)) + "}",
        "backends: {static: {l: {targets: {nod: [" + ",".join(f"h{number}" for number in range(20_000)) + "]}}}}",
        "instances: [" + ",".join(f"i{number}" for number in range(10_000)) + "]",
        "backends: {dns: {d: {names: [" + ",".join(f"'a b{number}'" for number in range(10_000)) + "], job: node}}}",
    ],
)
def test_a_hostile_config_is_fast_and_its_errors_bounded(tmp_path: Path, run: Run, text: str) -> None:
    """For errors that need the inventory or the list of exporters."""
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(FLEET[:100])))
    (tmp_path / "c.yaml").write_text(f"inventory: {{file: inventory.json}}\n{text}\n")
    began = time.process_time()
    done = run("check", "-c", tmp_path / "c.yaml")
    assert time.process_time() - began < 3
    assert (done.code, done.err.count("\n")) == (2, 21)
    assert "and " in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    "text",
    [
        "policy: {max_age: %s}" % ("x" * 1_000_000),
        "policy: {max_age: [%s]}" % ("x," * 50_000),
        "policy: {offline: {" + ",".join(f"k{number}: 1" for number in range(40_000)) + "}}",
        "labels: {%s: x}" % ("-" * 1000),
        "backends: {static: {l: {targets: {node: ['%s']}}}}" % ("x y" * 300_000),
        "backends: {dns: {d: {names: ['%s'], job: node}}}" % ("x y" * 300_000),
        "instances: ['%s']" % ("x" * 1_000_000),
        "server: '%s'" % ("x" * 1_000_000),
    ],
)
def test_a_value_of_a_megabyte_is_cut(tmp_path: Path, run: Run, text: str) -> None:
    """A message quotes its beginning."""
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(FLEET[:100])))
    (tmp_path / "c.yaml").write_text(f"inventory: {{file: inventory.json}}\n{text}\n")
    done = run("check", "-c", tmp_path / "c.yaml")
    assert done.code == 2
    assert max(map(len, done.err.splitlines())) < 4000


def test_an_inventory_with_too_many_values_is_refused(tmp_path: Path, run: Run) -> None:
    """Values are counted before they are created: 30 MB of brackets would take 800 MB."""
    body = b'{"machines": {}, "instances": {}, "x": [' + b"[]," * 10_000_000 + b"1]}"
    (tmp_path / "inventory.json").write_bytes(body)
    done = run("inventory", "--file", tmp_path / "inventory.json")
    assert done.code == 2
    assert "the inventory holds more than 10,000,000 values" in done.err


def test_errors_come_before_warnings_when_some_are_left_out(tmp_path: Path, run: Run) -> None:
    """So a truncated list explains exit code 2."""
    document = inventory([*FLEET[:5], "monitor"], tags={"x": UNKNOWN})
    document["instances"] = {"m": {"module": {"name": "prometheus"}, "roles": {"exporter": {"machines": {"gone": {}}}}}}
    (tmp_path / "inventory.json").write_text(json.dumps(document))
    (tmp_path / "c.yaml").write_text("inventory: {file: inventory.json}\n")
    done = run("check", "-c", tmp_path / "c.yaml")
    assert done.code == 2
    assert "'gone' is not a machine of the inventory" in done.err.splitlines()[0]
    assert done.err.splitlines()[-1] == (
        "clan-discovery: warning: and 981 more (to see all of them: clan-discovery show --format json | jq .problems)"
    )


def test_many_errors_of_a_kind_do_not_hide_others() -> None:
    """The first five of each kind come first; others fill the list."""
    tags = [Problem(where="i", what=f"tag 'x' names 'gone-{n}'", severity="warning") for n in range(25)]
    secret = Problem(where="i", what="'token' looks like a secret", severity="warning")
    error = Problem(where="i", what="'x' is no machine")
    shown = first_problems([*tags, secret, error])
    assert [shown[0], shown[19]] == [error, secret]
    assert list(shown[1:19]) == tags[:18]
    assert shown[20].what == "and 7 more"
    assert shown[20].severity == "warning"
    assert first_problems(tags[:21]) == tags[:21]
    assert [p.what for p in first_problems([error], 3)] == [error.what, "and 3 more"]


def test_suggestions_in_a_large_fleet() -> None:
    """A typo anywhere in a name is found among 5,000 names."""
    for typo in ("machin-00017", "machine-0001", "machine-000177", "mcahine-00017", "machine_00017", "xachine-00017"):
        assert did_you_mean(typo, FLEET) is not None
    assert similar("machine_00017", FLEET) == ("machine-00017",)
    assert did_you_mean("completely different", FLEET) is None


def test_no_far_suggestions() -> None:
    """A word with another first letter is suggested only if it is close, or a part of the other."""
    known = ["aliases", "history", "show", "state", "names", "db"]
    found = {word: similar(word, known) for word in ("listen", "list", "zones", "how", "tate", "bd", "my-db")}
    assert found == {
        "listen": (),
        "list": (),
        "zones": (),
        "how": ("show",),
        "tate": ("state",),
        "bd": ("db",),
        "my-db": (),
    }
