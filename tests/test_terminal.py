"""Hostile names reach no terminal as escape sequences, whatever command prints them."""

from __future__ import annotations

import io
import json
import sys
import tempfile
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from clan_discovery.cli.main import main
from clan_discovery.model import one_line
from clan_discovery.resident.log import Log
from clan_discovery.syntax.terminal import escape_json
from tests.support.dns import lying
from tests.support.fleet import SUFFIX, inventory, node, status
from tests.test_dns_memory import zone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clan_discovery.model import Json

NASTY = (
    "\x1b[2J\x1b]0;pwned\x07", "\x9b31m\x9d0;pwned\x9c", "\x7f\x08\x00", "a\rb\nc\td", "\u202eevil\u202c",
    "\u2066x\u2069",
    "\u200e\u200f\u061c", "a\u200bb\u2060\ufeff", "\u2028x\u2029y\u0085", "\U000e0041\U000e007f", "\u0600\u06dd\u070f",
    "%{HOME}\x1b", "\x1bPq#0\x1b\\", "\u00adsoft\u180e", "\x1b_apc\x1b\\", "plain \u00fc\U0001f9ea",
)  # fmt: skip
hostile = st.sampled_from(NASTY) | st.text(
    st.characters(exclude_categories=["Cs", "L", "N", "P", "S", "M"]), min_size=1, max_size=8
)


def interpreted(text: str) -> set[str]:
    """Return the characters that a terminal interprets or does not show, except newlines."""
    return {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


def printed(words: Sequence[object]) -> tuple[int, str]:
    """Run a command; return its exit code and all output."""
    out, err = io.StringIO(), io.StringIO()
    code = main([str(word) for word in words], out, err)
    return code, out.getvalue() + err.getvalue()


def world(place: Path, name: str) -> Path:
    """Write a config whose tailnet, inventory and exports use this name everywhere."""
    plain = node(2, "db", HostName=name, OS=name, ID=name, Tags=["tag:server", f"tag:{name}"])
    nodes = [
        node(1, "monitor"),
        plain,
        node(3, "x", DNSName=f"{name}.{SUFFIX}.", HostName=name),
        node(4, "x", DNSName=f"a.{name}.", HostName=name),
        node(5, "x", DNSName="", HostName=name),
        node(6, "twice", ID=name),
        node(7, "twice"),
        node(8, "v6", TailscaleIPs=[name], AllowedIPs=[name]),
        node(9, "loop", TailscaleIPs=["127.0.0.1"], HostName="gone"),
    ]
    tailnet: Json = {"Name": name, "MagicDNSSuffix": SUFFIX, "MagicDNSEnabled": True}
    (place / "status.json").write_text(json.dumps(status(nodes, CurrentTailnet=tailnet, Version=name)))
    machines: dict[str, dict[str, Json]] = {"monitor": {}, "db": {"tags": [name]}, "gone": {}, "loop": {}}
    value = name.replace("\0", "")  # Nix has no strings with NUL
    server: dict[str, Json] = {"additionalScrapeConfigs": [{"job_name": "extra", value: [value, {value: value}]}]}
    found = inventory(machines, exporter={"labels": {"rack": name}}, server=server)
    (place / "inventory.json").write_text(json.dumps(found))
    peer: Json = {"networking": None, "peer": {"hosts": [{"plain": name}]}}
    (place / "exports.json").write_text(json.dumps({f"a:b:c:{name}": peer, f"a:b::{name}": peer, name: peer}))
    config: Json = {
        "inventory": {"file": "inventory.json", "exports": "exports.json"},
        "backends": {"tailscale": {"tailnet": {"status_file": "status.json", "volatile_labels": True}}},
        "exporters": {"systemd": {"select": {"tags": ["server", name]}, "labels": {"who": name}}},
        "labels": {"site": name},
        "output": {"directory": "targets"},
    }
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    return place / "config.yaml"


def commands(config: Path, name: str) -> Iterator[Sequence[object]]:
    """Yield each command that prints names, in each format."""
    place = config.parent
    yield "check", "-c", config
    yield "refresh", "-c", config
    for format_ in ("table", "json", "file-sd", "nix"):
        yield "show", "-c", config, "-f", format_
    for machine in ("db", "gone", "twice", "loop", f"{name}", "nobody"):
        yield "explain", machine, "-c", config
    (place / "targets" / "node.json").write_text("[]")
    yield "explain", "db", "gone", "-c", config, "-f", "json"
    yield "show", name, "-c", config, "--job", name
    yield "show", "-c", config, "--state", "excluded", "--state", "stray"
    yield "diff", "-c", config, "--exit-code", "--labels"
    for suffix in ("nix", "json"):
        file = place / f"snapshot.{suffix}"
        yield "snapshot", "-c", config, "--output", file, "--force"
        file.write_text(file.read_text().replace("db", "other"))
        yield "snapshot", "-c", config, "--output", file, "--check"
    for format_ in ("names", "json"):
        yield "machines", "--file", place / "inventory.json", "-f", format_
    yield "inventory", "--file", place / "inventory.json"
    for format_ in ("table", "json"):
        yield "doctor", "-c", config, "-f", format_
    yield name, "-c", config
    yield f"--{name}", "show"
    yield "show", f"--{name}"
    yield "show", "-f", name
    yield "show", "-c", place / name.replace("/", "").replace("\0", "")
    yield "machines", "--file", place / "inventory.json", "--job", name
    yield "snapshot", "-c", config, "--output", name


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(hostile)
@example("".join(NASTY[:6]))
@example("".join(NASTY[6:]))
def test_no_command_prints_control_characters(name: str) -> None:
    """In results, messages, and files for people."""
    with tempfile.TemporaryDirectory() as place:
        config = world(Path(place), name)
        for command in commands(config, name):
            code, text = printed(command)
            assert interpreted(text) == set(), (command[0], text[:200])
            if command[0] in ("check", "refresh"):
                assert code == 0, text
        for suffix in ("nix", "json"):
            assert interpreted((Path(place) / f"snapshot.{suffix}").read_text(encoding="utf-8")) == set()


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(hostile)
def test_escaping_keeps_the_values(name: str) -> None:
    """Escaped JSON has the same value, and published files are not escaped."""
    with tempfile.TemporaryDirectory() as place:
        config = world(Path(place), name)
        assert printed(["refresh", "-q", "-c", config])[0] == 0
        groups = json.loads((Path(place) / "targets/node.json").read_bytes())
        out, err = io.StringIO(), io.StringIO()
        assert main(["show", "-c", str(config), "-f", "file-sd"], out, err) == 0
        shown = [
            {"targets": group["targets"], "labels": {k: v for k, v in group["labels"].items() if k != "job"}}
            for group in json.loads(out.getvalue())
            if group["labels"]["job"] == "node"
        ]
        assert shown == groups
        assert any(name in group["labels"].values() for group in groups)
        body = (Path(place) / "targets/node.json").read_bytes()
        assert b"\\u" not in body or any(ord(c) < 0x20 for c in name) or b"\\u0025" in body


@given(st.text(max_size=20) | hostile)
def test_escaped_json_has_the_same_value(text: str) -> None:
    """Also as an object in a log line."""
    written = escape_json(json.dumps([text, {text: text}], ensure_ascii=False))
    assert json.loads(written) == [text, {text: text}]
    assert written.isprintable()
    for form in ("json", "logfmt"):
        stream = io.StringIO()
        Log(stream, form).event("error", text, reason=text)
        assert interpreted(stream.getvalue()) == set()
        assert stream.getvalue().count("\n") == 1
    assert one_line(text).isprintable()


@pytest.mark.parametrize("name", NASTY[:-1])
def test_inventory_errors_escape_names(tmp_path: Path, name: str) -> None:
    """Machines, roles, instances and settings."""
    config = world(tmp_path, "x")
    wrongs: list[Json] = [
        inventory(["monitor", name]),
        inventory(["monitor"], exporter={name: 1}),
        inventory(["monitor"], exporter={"labels": {name: "x"}}),
        inventory(["monitor"], server={"staticTargets": {name: [name]}}),
        inventory(["monitor"], server={"staticTargets": {"app": [name]}}),
        inventory(["monitor"], server={"dnsDiscovery": {name: {"names": [name]}}, "discoveryMethod": name}),
        inventory(["monitor"], meta={"domain": f"a{name}", "name": name}),
        inventory(["monitor"], instances={name: {"module": {"name": "prometheus"}, "roles": {f"server{name}": {}}}}),
    ]
    for wrong in wrongs:
        (tmp_path / "inventory.json").write_text(json.dumps(wrong))
        for command in ("check", "refresh", "show"):
            assert interpreted(printed([command, "-c", config])[1]) == set()
    for text in (f"{name}: 1", f"inventory: {{file: {name}}}", json.dumps({name: {name: name}}), f"a: [{name}"):
        config.write_text(text, encoding="utf-8")
        assert interpreted(printed(["check", "-c", config])[1]) == set()


def test_names_from_dns_are_escaped(tmp_path: Path) -> None:
    """TXT, SRV and PTR records can have any bytes."""
    odd = "\\027[2j\\155\\226\\128\\174.x"
    table: dict[tuple[str, str], list[str] | int] = {
        ("_m.x", "PTR"): [f"60 {odd}."],
        (odd, "SRV"): [f"60 0 0 9200 {odd}."],
        (odd, "TXT"): ['60 "path=/\\027[2J\\226\\128\\174"'],
        (odd, "A"): ["60 127.0.0.1", "60 10.0.0.3"],
    }
    with lying(zone(table)) as liar:
        dns: Json = {
            "lan": {"names": ["_m.x"], "job": "app", "port": 1, "servers": [liar.server]},
            "book": {"names": ["_m.x"], "machines": "target", "servers": [liar.server]},
        }
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump({"backends": {"dns": dns}, "output": {"directory": "targets"}}))
        for command in (["refresh"], ["show", "-f", "json"], ["show", "-f", "nix"], ["show"], ["doctor"], ["diff"]):
            _, text = printed([*command, "-c", config])
            assert interpreted(text) == set(), command
    (group,) = json.loads((tmp_path / "targets/app.json").read_bytes())
    assert group["labels"]["__metrics_path__"] == "/\x1b[2J\u202e"


@pytest.mark.skipif(sys.platform != "linux", reason="a directory of any bytes")
def test_paths_are_escaped(tmp_path: Path) -> None:
    """Of an output directory, a config and a snapshot."""
    place = tmp_path / "a\x1b[2J\u202e\x9b"
    place.mkdir()
    config = world(place, "x")
    for command in commands(config, "y"):
        assert interpreted(printed(command)[1]) == set(), command
