"""A hostile value anywhere in any input gives a result or InputError."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.cli.main import main
from tests.support.fleet import fleet, inventory
from tests.test_config_hostile import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from clan_discovery.model import Json

HOSTILE: Final[list[Json]] = [
    None, True, 0, -1, 65536, 2**63, 2**64, 10**30, 1e308, -0.0, "", "a" * 5000, "\0", "\n", "\x1b[31m", "\u202e",
    "\ud800", "..", "/", "../x", ".", "--help", "=", "<<", "${x}", "''", "%{HOME}", "http://u:p@h/", "[::1]", "[",
    "a:0", "1.2.3.4", "127.1", "\u00e9", "\ufb00", "\u0130", "x" * 256, "a." * 200, "*", "_type", [], {}, [[]], [None],
    {"": 1}, {"_type": "override"}, {"_type": "merge", "contents": 1}, {"_type": "if", "condition": 1, "content": {}},
    {"_type": "order", "priority": 1e9, "content": []}, {"_type": "override", "priority": "x", "content": 1},
    {"imports": 1}, {"imports": [1]}, {"imports": [{"key": "a"}, {"key": "a"}]}, {"config": {"imports": []}},
]  # fmt: skip
FILES: Final[dict[str, Json]] = {
    "inventory": inventory(
        {"monitor": {"tags": ["x"]}, "db": {}, "mac": {"machineClass": "darwin"}},
        exporter={
            "exporters": {
                "node": {"port": 1, "labels": {"a": "b"}, "params": {"x": ["y"]}, "path": "/m", "scheme": "https"},
                "blackbox": {"target": "http://x", "module": "m"},
            }
        },
        server={
            "discoveryMethod": ["static", "dns"],
            "staticTargets": {"node": ["a:1", "[::1]:2"]},
            "dnsDiscovery": {"node": {"names": ["_a._tcp.x.y"], "type": "SRV"}},
            "additionalScrapeConfigs": [{"job_name": "z", "basic_auth": {"password": "p"}}],
            "scrapeServers": True,
            "webExternalUrl": "http://x/y",
        },
        tags={"t": ["db"]},
    ),
    "example": json.loads((ROOT / "examples/homelab/inventory.json").read_text()),
    "settings": {"self-prometheus": {"monitoring": {"exporter": {"db": {"exporterType": "node"}}, "server": {}}}},
    "exports": {
        "wg:wg::": {"networking": {"priority": 1000, "module": "clan_lib.network.direct"}, "peer": None},
        "wg:wg:peer:db": {"networking": None, "peer": {"hosts": [{"plain": "fd00::5"}]}},
    },
    "status": fleet(["monitor", "db"]),
}
COMMANDS: Final = (
    *("check", "inventory", "machines", "show -f json", "show -f nix", "show", "explain db", "diff"),
    "snapshot --force --output {}/out.json",
)


def paths(value: Json, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each part of a value."""
    yield path
    parts: list[tuple[str | int, Json]] = []
    if isinstance(value, dict):
        parts = list(value.items())
    elif isinstance(value, list):
        parts = list(enumerate(value))
    for key, part in parts:
        yield from paths(part, (*path, key))


def replaced(value: Json, path: Sequence[str | int], new: Json, *, key: bool) -> Json:
    """Return a value with one part replaced, or with the key of that part replaced by a text."""
    if not path:
        return new
    first, rest = path[0], path[1:]
    if isinstance(value, dict):
        if key and not rest and isinstance(new, str):
            return {new if name == first else name: part for name, part in value.items()}
        return {n: replaced(part, rest, new, key=key) if n == first else part for n, part in value.items()}
    if isinstance(value, list):
        return [replaced(part, rest, new, key=key) if i == first else part for i, part in enumerate(value)]
    return value


CASES: Final = [(name, path) for name, document in FILES.items() for path in paths(document)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a config that reads all inputs, and one that reads only the inventory."""
    place = tmp_path_factory.mktemp("home")
    for file in ("inventory", "example"):
        for more in ("", ", settings: settings.json", ", exports: exports.json"):
            (place / f"{file}{more[2:5]}.yaml").write_text(
                f"inventory: {{file: {file}.json{more}}}\noutput: {{directory: targets}}\n"
                "backends: {tailscale: {tailnet: {status_file: status.json}}, dns: {}}\n"
            )
    return place


@given(
    case=st.sampled_from(CASES),
    new=st.sampled_from(HOSTILE),
    key=st.booleans(),
    command=st.sampled_from(COMMANDS),
    config=st.sampled_from(["inventory", "inventoryset", "inventoryexp", "example"]),
)
def test_a_hostile_value_gives_a_result_or_an_error(
    home: Path, *, case: tuple[str, tuple[str | int, ...]], new: Json, key: bool, command: str, config: str
) -> None:
    """The output goes through streams as on a terminal."""
    for name, document in FILES.items():
        text = document if name != case[0] else replaced(document, case[1], new, key=key)
        (home / f"{name}.json").write_text(json.dumps(text))
    with (home / "out").open("w", encoding="utf-8") as out, (home / "err").open("w", encoding="utf-8") as err:
        code = main([*command.format(home).split(), "-c", str(home / f"{config}.yaml")], out, err)
    assert code in (0, 2, 3)
    said = (home / "err").read_bytes()
    assert b"\x1b" not in said
    assert b"Traceback" not in said
    assert b"no Unicode: " not in said
