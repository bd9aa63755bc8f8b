"""Run time grows linearly with the input, also with invalid input; output is bounded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest

from clan_discovery.errors import first_problems
from clan_discovery.model import Problem
from clan_discovery.syntax.suggest import did_you_mean, similar
from tests.support.fleet import inventory
from tests.support.growth import PARTS, assert_linear, cpu_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

FLEET: Final = [f"machine-{number:05}" for number in range(5000)]
UNKNOWN: Final = [f"machine-x{number:05}" for number in range(1000)]


SIZE: Final = 3200
"""How many machines a hostile inventory has; other numbers grow with it."""


def roles(fleet: Sequence[str], exporter: Json, server: Json = None) -> Json:
    """Return an inventory of the fleet with these roles."""
    found: dict[str, Json] = {"exporter": exporter}
    if server is not None:
        found["server"] = {"machines": {fleet[0]: {"settings": server}}}
    return {
        "machines": {name: {} for name in fleet},
        "instances": {"monitoring": {"module": {"name": "prometheus"}, "roles": found}},
    }


def each(fleet: Sequence[str], make: Callable[[str], Json]) -> Json:
    """Return a role with settings for each machine."""
    return {"machines": {name: {"settings": make(name)} for name in fleet}}


EVERY: Final[Json] = {"tags": ["all"]}
HOSTILE: Final[dict[str, Callable[[int], Json]]] = {
    "unknown machines in a role": lambda n: roles(FLEET[:n], {"machines": {name: {} for name in UNKNOWN[: n // 4]}}),
    "unknown tags in a role": lambda n: inventory(
        {name: {"tags": [name]} for name in FLEET[:n]},
        instances={"m": {"module": {"name": "prometheus"}, "roles": {"exporter": {"tags": UNKNOWN[: n // 4]}}}},
    ),
    "unknown machines in a tag": lambda n: inventory(FLEET[:n], tags={"x": UNKNOWN[: n // 4]}),
    "unknown machines in many tags": lambda n: inventory(FLEET[:n], tags={name: [name] for name in UNKNOWN[: n // 4]}),
    "wrong labels": lambda n: roles(FLEET[:n], each(FLEET[:n], lambda name: {"labels": {f"a-{name}": "x"}})),
    "unknown types": lambda n: roles(FLEET[:n], each(FLEET[:n], lambda name: {"exporterType": f"nod{name}"})),
    "unknown types on one machine": lambda n: roles(
        FLEET[:n], {"tags": ["all"], "settings": {"exporters": {f"nod{number}": {} for number in range(n)}}}
    ),
    "conflicts": lambda n: roles(
        FLEET[:n], {**attributes(each(FLEET[:n], lambda _: {"port": 2})), "settings": {"port": 1}}
    ),
    "methods": lambda n: roles(FLEET[:n], EVERY, {"discoveryMethod": [f"dn{number}" for number in range(5 * n)]}),
    "options": lambda n: roles(
        FLEET[:n], EVERY, {"dnsDiscovery": {"node": {f"nam{number}": 1 for number in range(5 * n)}}}
    ),
    "targets": lambda n: roles(
        FLEET[:n], EVERY, {"staticTargets": {f"job{number}": ["host"] for number in range(5 * n)}}
    ),
    "instances": lambda n: {
        "machines": {name: {} for name in FLEET[:n]},
        "instances": {
            f"i{number}": {"module": {"name": "prometheus"}, "roles": {"exporter": {"machines": {FLEET[number]: {}}}}}
            for number in range(n // 4)
        },
    },
    "other instances": lambda n: {
        "machines": {name: {} for name in FLEET[:n]},
        "instances": {f"i{number}": {"module": {"name": "borgbackup"}} for number in range(5 * n)},
    },
    "roles": lambda n: {
        "machines": {name: {} for name in FLEET[:n]},
        "instances": {"m": {"module": {"name": "prometheus"}, "roles": {f"exportr{i}": {} for i in range(2 * n)}}},
    },
    "names": lambda n: inventory([f"a/{number}" for number in range(5 * n)]),
    "a long name": lambda n: {
        "machines": {"db": {}},
        "instances": {
            "i" * (250 * n): {
                "module": {"name": "prometheus"},
                "roles": {"exporter": {"machines": {name: {} for name in UNKNOWN[: n // 4]}}},
            }
        },
    },
    "names in two cases": lambda n: inventory([f"{letter}{number}" for number in range(2 * n) for letter in "aA"]),
}


def attributes(value: Json) -> dict[str, Json]:
    """Return an object with many keys."""
    assert isinstance(value, dict)
    return value


def check_in_linear_time(run: Run, write: Callable[[int], Path]) -> Done:
    """Check a part and the whole of an input; return the result of the whole.

    `write` writes an input of a size and returns its config.
    """
    part, whole = write(SIZE // PARTS), write(SIZE)
    results = [run("check", "-c", part)]  # the first run imports modules, which is not measured

    def measure(config: Path) -> float:
        return cpu_time(lambda: results.append(run("check", "-c", config)))

    assert_linear(lambda: (measure(part), measure(whole)))
    return results[-1]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_inventory_takes_linear_time_and_its_errors_are_bounded(tmp_path: Path, run: Run, name: str) -> None:
    """At most 21 lines, and no overlong line."""

    def write(size: int) -> Path:
        (tmp_path / f"{size}.json").write_text(json.dumps(HOSTILE[name](size)))
        config = tmp_path / f"{size}.yaml"
        config.write_text(f"inventory: {{file: {size}.json}}\n")
        return config

    done = check_in_linear_time(run, write)
    assert done.code in (0, 2)
    lines = done.err.splitlines()
    assert len(lines) <= 21
    assert max(map(len, lines), default=0) < 1000


HOSTILE_CONFIGS: Final[dict[str, Callable[[int], str]]] = {
    "overrides": lambda n: "exporters: {" + ",".join(f"nod{i}: {{}}" for i in range(2 * n)) + "}",
    "selections": lambda n: "exporters: {" + ",".join(f"nod{i}: {{select: {{}}}}" for i in range(n)) + "}",
    "hosts": lambda n: "backends: {static: {l: {targets: {nod: [" + ",".join(f"h{i}" for i in range(4 * n)) + "]}}}}",
    "instances": lambda n: "instances: [" + ",".join(f"i{i}" for i in range(2 * n)) + "]",
    "names": lambda n: (
        "backends: {dns: {d: {names: [" + ",".join(f"'a b{i}'" for i in range(2 * n)) + "], job: node}}}"
    ),
}


@pytest.mark.parametrize("name", HOSTILE_CONFIGS)
def test_a_hostile_config_takes_linear_time_and_its_errors_are_bounded(tmp_path: Path, run: Run, name: str) -> None:
    """For errors that need the inventory or the list of exporters."""
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(FLEET[:100])))

    def write(size: int) -> Path:
        config = tmp_path / f"{size}.yaml"
        config.write_text(f"inventory: {{file: inventory.json}}\n{HOSTILE_CONFIGS[name](size)}\n")
        return config

    done = check_in_linear_time(run, write)
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
