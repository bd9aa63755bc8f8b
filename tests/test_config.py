"""Tests of configs: every problem says where, what, and how to fix it; all are reported at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.assemble import make_plan
from clan_discovery.config.load import LoadedConfig, load_config
from clan_discovery.errors import InputError
from tests.support.fleet import inventory

if TYPE_CHECKING:
    from clan_discovery.model import Json
    from clan_discovery.round import Plan

DESIGN = """\
inventory:
  file: inventory.json
server: monitor
instances: [monitoring]
backends:
  tailscale:
    tailnet:
      socket: /run/tailscale/tailscaled.sock
      tags: [server]
  dns:
    lan: {names: [_node._tcp.example.org], type: SRV, job: node}
  static:
    lab: {targets: {node: ["10.0.0.5:9100"]}}
exporters:
  node: {port: 9100, select: {tags: [server]}}
policy: {max_age: 24h, max_shrink: 0.5, absent: keep}
output: {directory: /var/lib/clan-discovery/targets}
state: /var/lib/clan-discovery/state
"""


def load(tmp_path: Path, text: str | bytes, name: str = "c.yaml") -> LoadedConfig:
    """Load a config from text."""
    file = tmp_path / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(file)


def complaints(tmp_path: Path, text: str | bytes, name: str = "c.yaml") -> list[str]:
    """Return the messages about a config, without the directory."""
    with pytest.raises(InputError) as caught:
        make_plan(load(tmp_path, text, name))
    return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]


def plan(tmp_path: Path, text: str) -> Plan:
    """Return the plan of a valid config."""
    return make_plan(load(tmp_path, text))


STATIC = "backends: {static: {lab: {targets: {node: [a]}}}}\n"


def test_documented_config_loads(tmp_path: Path) -> None:
    """With all its values; durations are in seconds."""
    config = load(tmp_path, DESIGN).config
    assert config.policy.max_age == 86400.0
    assert config.exporters["node"].select is not None
    assert config.exporters["node"].select.tags.any == ["server"]


def test_json_config_loads(tmp_path: Path) -> None:
    """As Nix writes it, and with tabs."""
    text = '{\n\t"backends": {"static": {"lab": {"targets": {"node": ["a:1"]}}}},\n\t"polcy": {}\n}'
    assert complaints(tmp_path, text, "c.json") == ["c.json:3:2: polcy: unknown key (did you mean 'policy'?)"]
    assert complaints(tmp_path, '{"a": 1,}', "c.json")[0].startswith("c.json:1:8: is not valid JSON")
    assert complaints(tmp_path, '{"labels": {}, "labels": {}}', "c.json") == [
        "c.json:1:16: labels: is given twice, first on line 1 (keep one of them)"
    ]


def test_all_problems_are_reported_with_line_and_column(tmp_path: Path) -> None:
    """The position is that of the value, or of an unknown key."""
    text = """\
inventory: {file: x.json, flake: .}
backends:
  tailscale:
    tailnet:
      sokcet: /x
      timeout: 10
  static:
    lab: {targets: {node: [1]}}
exporters:
  node: {port: 70000, select: {tag: [a]}}
policy: {absent: forget, max_age: 1x}
labels: {a: 1}
"""
    assert complaints(tmp_path, text) == [
        "c.yaml:1:12: inventory: takes `file` or `flake`, not both",
        "c.yaml:6:16: backends.tailscale.tailnet.timeout: invalid duration 10: must have a unit, such as 10s or 10m",
        "c.yaml:5:7: backends.tailscale.tailnet.sokcet: unknown key (did you mean 'socket'?)",
        "c.yaml:8:28: backends.static.lab.targets.node.0: must be a string, not 1 (put it in quotes)",
        "c.yaml:10:16: exporters.node.port: invalid port 70000: must be 1 to 65535",
        "c.yaml:10:32: exporters.node.select.tag: unknown key (did you mean 'tags'?)",
        "c.yaml:12:13: labels.a: must be a string, not 1 (put it in quotes)",
        "c.yaml:11:35: policy.max_age: invalid duration '1x': must be like 10s, 5m, 1h30m or 2w",
        "c.yaml:11:18: policy.absent: 'forget' is not one of 'keep' or 'drop'",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the config is empty"),
        ("# nothing\n", "the config is empty"),
        ("[]", "must be a mapping"),
        ("just text", "must be a mapping"),
        ("a: [", "c.yaml:2:1: the YAML does not parse"),
        ("a: b: c", "c.yaml:1:5: the YAML does not parse"),
        ("\tx: 1", "does not parse"),
        (b"\xff\xfe\x00", "not UTF-8"),
        ("a: !!python/object:os.system x", "does not parse"),
        ("x: 1", "c.yaml:1:1: x: unknown key"),
        ("exporters: {node: {port: 0, select: {}}}", "invalid port 0: must be 1 to 65535"),
        ("exporters: {node: {port: 9100x, select: {}}}", "invalid port '9100x': must be 1 to 65535"),
        ("exporters: {node: {port: true, select: {}}}", "invalid port true: must be 1 to 65535"),
        ("exporters:\n  node: {select: {}}\n  node: {select: {}}", "c.yaml:3:3: exporters.node: is given twice"),
        ("exporters: {nodee: {select: {}}}", "did you mean 'node'?"),
        ("exporters: {nodee: {path: /x}}\n" + STATIC, "nothing uses it (did you mean 'node'?)"),
        ("exporters: {a/b: {port: 1, select: {}}}", "cannot be a name here"),
        ("exporters: {node: {path: x, select: {}}}", "a path starts with a slash"),
        ("exporters: {blackbox: {select: {}}}", "(set exporters.blackbox.params.target in the config)"),
        ("labels: {a-b: x}\n" + STATIC, "c.yaml:1:10: labels.a-b: 'a-b' is no label name"),
        ("labels: {instance: x}\n" + STATIC, "cannot be set"),
        ("labels: {__address__: x}\n" + STATIC, "is reserved"),
        ("exporters: {node: {labels: {1a: x}, select: {}}}", "is no label name"),
        (
            "backends: {static: {lab: {targets: {node: ['http://x']}}}}",
            "c.yaml:1:44: backends.static.lab.targets.node.0:",
        ),
        ("backends: {static: {lab: {targets: {mine: [x]}}}}", "no exporter is called 'mine'"),
        ("backends: {static: {lab: {targets: {'': ['x:1']}}}}", "cannot be a name here"),
        ("backends: {static: {lab: {targets: {node: ['a b:1']}}}}", "is not a host"),
        ("backends: {static: {lab: {targets: {node: ['a:70000']}}}}", "no valid port"),
        ("backends: {static: {lab: {machines: {a: '10.0.0.1:22'}}}}", "has a port: write 10.0.0.1,"),
        ("backends: {static: {x: {}}, tailscale: {x: {}}}", "is taken by backends.tailscale"),
        ("backends: {tailscale: {a/b: {}}}", "cannot be a name here"),
        ("backends: {tailscale: {t: {socket: /x, status_file: y}}}", "not both"),
        ("backends: {tailscale: {t: {family: ipv5}}}", "'ipv5' is not one of"),
        ("backends: {dns: {lan: {names: [a]}}}", "needs `job`"),
        ("backends: {dns: {lan: {}}}", "c.yaml:1:23: backends.dns.lan: without a source there are no machines"),
        ("backends: {dns: {lan: {domain: x.y}}}", "without a source there are no machines to look up"),
        ("backends: {dns: {lan: {domain: x..y, names: [a], job: node}}}", "'x..y' is not a DNS name"),
        ("backends: {dns: {lan: {job: node}}}", "has no `names`"),
        ("backends: {dns: {lan: {type: SRV}}}", "machines are asked for addresses"),
        ("backends: {dns: {lan: {names: [a], type: MX, job: node}}}", "'MX' is not one of"),
        ("backends: {dns: {lan: {names: [a b], job: node}}}", "backends.dns.lan.names.0: 'a b' is not a DNS name"),
        ("backends: {dns: {lan: {names: ['*.x.y'], job: node}}}", "no resolver can list a zone, so '*.x.y'"),
        ("backends: {dns: {lan: {names: ['*.x.y'], job: node}}}", "_node._tcp.x.y"),
        ("backends: {dns: {lan: {names: ['a.*.y'], job: node}}}", "a star means every declared machine"),
        ("backends: {dns: {lan: {names: [x.y], type: A, job: mine}}}", "no exporter is called 'mine'"),
        ("backends: {dns: {lan: {names: [x.y], job: blackbox}}}", "blackbox probes others"),
        ("backends: {dns: {lan: {names: [x.y], machines: name}}}", "the machine is in the target"),
        ("backends: {dns: {lan: {names: [x.y], type: A, machines: target}}}", "which have no target"),
        ("backends: {dns: {lan: {names: [x.y], job: node, servers: ['ftp://x']}}}", "servers.0: 'ftp://x' is not a"),
        ("backends: {dns: {lan: {names: [x.y], job: node, servers: ['a:0']}}}", "no valid port"),
        ("backends: {dns: {lan: {names: [x.y], job: node, servers: ['https://']}}}", "is not the URL of a DNS server"),
        ("backends: {dns: {lan: {names: [x.y], job: node, search: [a..b]}}}", "search.0: 'a..b' is not a DNS name"),
        ("backends: {dns: {lan: {names: [x.y], job: node, min_ttl: 2h}}}", "longer than `max_ttl`"),
        ("backends: {dns: {lan: {names: [x.y], job: node, deny_networks: [10.0.0.1/8]}}}", "is not a network"),
        ("backends: {dns: {lan: {names: [x.y], job: node, deny_networks: [4]}}}", "4 is not a network"),
        ("backends: {tailscale: {t: {}}}", "nothing is declared"),
        ("policy: {max_shrink: 2}\n" + STATIC, "2 is not a fraction: must be a number from 0 to 1"),
        ("inventory: {file: gone.json}", "cannot read the inventory: No such file"),
        ("inventory: {file: .}", "the inventory is a directory"),
        ("no: {}", "c.yaml:1:1"),
    ],
)
def test_invalid_config_is_refused_with_one_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    """Each message has the position."""
    found = complaints(tmp_path, text)
    assert said in found[0]
    assert all("\n" not in line for line in found)
    assert found[0].startswith(("c.yaml", "gone.json", str(tmp_path)))


@pytest.mark.parametrize(("kind", "other"), [("tailscale", "static"), ("tailscale", "dns"), ("dns", "static")])
def test_name_of_an_implied_backend_is_reserved(tmp_path: Path, kind: str, other: str) -> None:
    """The backend that `discoveryMethod` implies is called like its kind; backends of other kinds may not be."""
    document = inventory(["monitor"], server={"discoveryMethod": kind})
    (tmp_path / "inventory.json").write_text(json.dumps(document))
    (line,) = complaints(tmp_path, f"inventory: {{file: inventory.json}}\nbackends: {{{other}: {{{kind}: {{}}}}}}\n")
    assert f"backends.{other}.{kind}: the name {kind!r} is taken by the backend" in line


def test_unreadable_config_file_is_refused(tmp_path: Path) -> None:
    """A missing file, or a directory."""
    with pytest.raises(InputError, match="cannot read the config: No such file"):
        load_config(tmp_path / "gone.yaml")
    with pytest.raises(InputError, match="is a directory"):
        load_config(tmp_path)


def test_relative_paths_start_at_the_directory_of_the_config(tmp_path: Path) -> None:
    """Not at the working directory; the default state is beside the output directory."""
    found = plan(tmp_path, STATIC + "output: {directory: out/targets}\n")
    assert found.directory == tmp_path / "out/targets"
    assert found.state_directory == tmp_path / "out/targets.state"
    assert plan(tmp_path, STATIC + "state: s\n").state_directory == tmp_path / "s"
    assert str(plan(tmp_path, STATIC).state_directory) == "/var/lib/clan-discovery/state"


def test_every_path_of_a_loaded_config_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the config itself has a relative path; a flake is a path only if it starts with a dot."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/c.yaml").write_text(
        "inventory: {file: inv.json, settings: ../s.json, exports: /srv/e.json}\n"
        "backends: {tailscale: {a: {socket: sock}, b: {status_file: status.json}}}\n"
        "output: {directory: out}\nstate: state\n"
    )
    monkeypatch.chdir(tmp_path)
    config = load_config(Path("etc/c.yaml")).config
    place = tmp_path / "etc"
    source, tailscale = config.inventory, config.backends.tailscale
    assert source is not None
    assert tailscale is not None
    assert (source.file, source.settings) == (place / "inv.json", place / "../s.json")
    assert source.exports == Path("/srv/e.json")
    assert (tailscale["a"].socket, tailscale["b"].status_file) == (place / "sock", place / "status.json")
    assert (config.output.directory, config.state) == (place / "out", place / "state")
    for written, found in ((".", place), ("../x", tmp_path / "x"), ("github:a/b", "github:a/b"), ("/srv/x", "/srv/x")):
        (place / "c.yaml").write_text(f"inventory: {{flake: '{written}'}}\n")
        source = load_config(Path("etc/c.yaml")).config.inventory
        assert source is not None
        assert source.flake == str(found)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("250ms", 0.25),
        ("7d", 604800.0),
        ("1w", 604800.0),
        ("1y2w", 365 * 86400.0 + 14 * 86400.0),
        ("1d1s1ms", 86401.001),
        ("292y", 292 * 365 * 86400.0),
        ("never", None),
    ],
)
def test_valid_durations_are_parsed(tmp_path: Path, text: str, seconds: float | None) -> None:
    """In the notation of Prometheus."""
    assert load(tmp_path, f"policy: {{max_age: {text}}}").config.policy.max_age == seconds


@pytest.mark.parametrize("text", ["''", "'1'", "1x", "30m1h", "1h 30m", "1.5h", "-1s", "1H", "\u0661s", "s"])
def test_invalid_durations_are_refused(tmp_path: Path, text: str) -> None:
    """Prometheus refuses the same texts."""
    (line,) = complaints(tmp_path, f"policy: {{max_age: {text}}}\n" + STATIC)
    assert line.startswith("c.yaml:1:19: policy.max_age: invalid duration ")
    assert line.endswith(": must be like 10s, 5m, 1h30m or 2w")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("policy: {max_age: 293y}\n" + STATIC, "policy.max_age: invalid duration '293y': must be between 0s and 292y"),
        ("output: {lock_wait: 0s}\n" + STATIC, "lock_wait: invalid duration '0s': must be between 1ms and 1h"),
        ("output: {lock_wait: 1h1ms}\n" + STATIC, "invalid duration '1h1ms': must be between 1ms and 1h"),
        ("backends: {dns: {a: {min_ttl: 999ms}}}", "invalid duration '999ms': must be between 1s and 292y"),
        ("labels: {__scrape_interval__: 1m}\n" + STATIC, "__scrape_timeout__ come together: set both"),
        ("labels: {__scrape_interval__: 1m, __scrape_timeout__: 61s}\n" + STATIC, "not be longer than the interval"),
    ],
)
def test_durations_have_bounds(tmp_path: Path, text: str, said: str) -> None:
    """The message has the value and both bounds."""
    assert said in complaints(tmp_path, text)[0]


def test_offline_and_shrink_policies_are_parsed(tmp_path: Path) -> None:
    """Words and mappings become seconds; a rule's own policy wins over the general one."""
    found = plan(
        tmp_path,
        "policy:\n  offline: {grace: 30m}\n  offline_tags: {roaming: drop, vip: keep}\n  shrink_after: 1h\n"
        "backends: {tailscale: {tailnet: {}}}\n"
        "exporters:\n  node: {select: {}}\n  systemd: {select: {}, offline: keep}\n",
    )
    assert found.policy.offline == 1800.0
    assert found.policy.offline_tags == {"roaming": 0.0, "vip": None}
    assert (found.trust.shrink_rounds, found.trust.shrink_seconds) == (None, 3600.0)
    assert {rule.exporter.type: rule.offline for rule in found.rules} == {"node": 1800.0, "systemd": None}
    assert "write keep, drop" in complaints(tmp_path, "policy: {offline: forget}\n" + STATIC)[0]
    assert "write keep, drop" in complaints(tmp_path, "policy: {offline: {grace: 1h, x: 1}}\n" + STATIC)[0]


@given(st.text(max_size=40))
def test_arbitrary_text_raises_only_input_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Or it is a valid config."""
    place = tmp_path_factory.mktemp("c")
    try:
        make_plan(load(place, text.encode("utf-8", "surrogatepass")))
    except InputError as error:
        assert error.problems  # noqa: PT017 - either way is right


@pytest.mark.parametrize("key", ["flake", "file", "settings"])
@pytest.mark.parametrize(
    ("value", "said"),
    [("a\0b", "holds a NUL"), ("./a\0b", "holds a NUL"), ("\ud800", "surrogate"), ("./\ud800", "surrogate")],
)
def test_nul_and_surrogates_in_paths_are_refused(tmp_path: Path, key: str, value: str, said: str) -> None:
    """With their position; references of flakes, too."""
    source: dict[str, Json] = {key: value} if key == "flake" else {"file": "x", key: value}
    (line,) = complaints(tmp_path, json.dumps({"inventory": source}), "c.json")
    assert line.startswith("c.json:1:")
    assert f"inventory.{key}: no path holds" in line
    assert said in line
