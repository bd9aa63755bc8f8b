"""An inventory in YAML is read as one in JSON, with the limits and checks of a YAML config."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import inventory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Done

    Run = Callable[..., Done]

YAML = """\
# written by hand
machines:
  monitor: {tags: [hub]}
  db: {}
instances:
  monitoring:
    module: {name: prometheus, input: self}
    roles:
      exporter: {tags: [all], settings: {exporters: {node: {}, systemd: {port: 9558}}}}
      server: {machines: {monitor: {}}}
meta: {name: test, domain: home.arpa}
"""


@pytest.mark.parametrize("name", ["inventory.yaml", "inventory.yml"])
def test_yaml_and_json_declare_the_same(tmp_path: Path, run: Run, name: str) -> None:
    """By the config, and by --file."""
    exporters = {"exporters": {"node": {}, "systemd": {"port": 9558}}}
    document = inventory({"monitor": {"tags": ["hub"]}, "db": {}}, exporter=dict(exporters))
    (tmp_path / "inventory.json").write_text(json.dumps(document))
    (tmp_path / name).write_text(YAML)
    expected = run("inventory", "--file", tmp_path / "inventory.json")
    assert expected.code == 0
    assert run("inventory", "--file", tmp_path / name).out == expected.out
    (tmp_path / "c.yaml").write_text(f"inventory: {{file: {name}}}\nbackends: {{tailscale: {{}}}}\n")
    assert run("inventory", "-c", tmp_path / "c.yaml").out == expected.out
    assert run("check", "-c", tmp_path / "c.yaml").code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("machines:\n\tdb: {}\n", "inventory.yaml:2:1: the YAML does not parse: a tab is not allowed here"),
        ("machines: {}\nmachines: {}\n", "inventory.yaml:2:1: machines: is given twice, first on line 1"),
        ("machines: {on: {}}\ninstances: {}\n", "inventory.yaml:1:12: machines.on: the key 'on' is not text in YAML"),
        ("machines: {a: !x b}\n", "inventory.yaml:1:15: the YAML does not parse: values with the tag '!x'"),
        ("machines:\n  db:\ninstances: {}\n", "machines.db: must be an object, not null (write {} for the defaults)"),
        ("a: &a [x, x]\nb: [" + "*a," * 40_000 + "]\n", "holds more than 100,000 values, aliases expanded"),
        ("- a\n", "an inventory is an object, not a list"),
        ("", "an inventory is an object, not null"),
    ],
)
def test_errors_in_a_yaml_inventory(tmp_path: Path, run: Run, text: str, said: str) -> None:
    """Syntax errors have line and column."""
    (tmp_path / "inventory.yaml").write_text(text)
    done = run("inventory", "--file", tmp_path / "inventory.yaml")
    assert done.code == 2
    assert said in done.err
