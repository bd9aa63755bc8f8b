"""State files are checked as foreign input: none can add labels or write outside the output directory."""

from __future__ import annotations

import io
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clan_discovery.backends.tailscale_wire import TailscaleOptions, parse_status
from clan_discovery.cli.main import main
from clan_discovery.dnsclient.cache import Cache
from clan_discovery.resolve.history import decode_history
from clan_discovery.resolve.memory import decode_index, decode_snapshot, encode_snapshot
from clan_discovery.syntax.endpoint import split_endpoint
from tests.support.dns import lying, reply
from tests.support.fleet import fleet, inventory
from tests.support.programs import promtool_accepts

if TYPE_CHECKING:
    from collections.abc import Generator

    import dns.message

    from clan_discovery.model import Family, Json

NAMES = ["a", "b", "c", "d", "e", "monitor"]
CONFIG = """\
inventory: {{file: inventory.json}}
backends:
  tailscale: {{tailnet: {{status_file: status.json}}}}
  dns: {{lan: {{names: [_node._tcp.lan.example], job: web, servers: ["{server}"], timeout: 5s}}}}
exporters: {{web: {{port: 80, params: {{module: x}}, labels: {{site: home}}}}, systemd: {{select: {{tags: [server]}}}}}}
output: {{directory: targets, owner: test}}
state: state
"""
STATE_FILES: Final = ("index.json", "backend-tailnet.json", "backend-lan.json", "memory-lan", "history-ea54b3b3.json")
HOSTILE: Final[list[Json]] = [
    "../../escape", "/escape", "", ".", "a\nb", "\x1b[2J", "\x00", "\u202e", "a b", "%{HOME}", "[::1]:1", "x" * 5000,
    "-1", "127.0.0.1.", 0, -1, 65536, 1e308, 2**63, 10**30, -(10**30), None, True, [], {}, ["x"], {"x": 1},
    {"a b": "x"}, {"__address__": "evil:1"}, {"__meta_clan_observed": "true"}, [["a b", "x"]], "*", "é",
]  # fmt: skip


def _answer(query: dns.message.Message, _stream: bool) -> bytes:  # noqa: FBT001
    name = query.question[0].name.to_text()
    if query.question[0].rdtype.name == "SRV":
        hosts = [f"{name} 300 SRV 0 0 {port} h{port}.lan.example." for port in (1, 2, 3, 4, 5)]
        return reply(query, *hosts).to_wire()
    if query.question[0].rdtype.name == "A":
        return reply(query, f"{name} 300 A 10.0.0.{name[1]}").to_wire()
    return reply(query).to_wire()


@pytest.fixture(scope="module")
def good() -> Generator[Path]:
    """Return a directory after a good cycle, whose backends now fail."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "inventory.json").write_text(json.dumps(inventory(NAMES)))
        (place / "status.json").write_text(json.dumps(fleet([*NAMES, "stray"])))
        with lying(_answer) as server:
            (place / "config.yaml").write_text(CONFIG.format(server=server.server))
            assert refresh(place) == 0
        (place / "status.json").write_text("")
        assert sorted(f.name for f in (place / "state").glob("[!.]*") if f.is_file()) == sorted(STATE_FILES)
        assert refresh(place) == 3
        yield place


def refresh(place: Path) -> int:
    """Refresh in this process, so that a bug raises."""
    return main(["refresh", "-q", "-c", str(place / "config.yaml")], io.StringIO(), io.StringIO())


def tree(place: Path) -> set[str]:
    """Return all paths outside the state directory."""
    return {str(path.relative_to(place)) for path in place.rglob("*") if "state" not in path.parts}


def check_target_files(place: Path) -> None:
    """Apply promtool's checks, and check that every declared machine is a target."""
    for file in (place / "targets").glob("*.json"):
        for group in json.loads(file.read_bytes()):
            assert group.keys() == {"targets", "labels"}
            for target in group["targets"]:
                assert split_endpoint(target)[1] is not None
            assert all(re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", label) for label in group["labels"])
            assert group["labels"]["__meta_clan_observed"] in ("true", "false")
    machines = {g["labels"]["machine"] for g in json.loads((place / "targets/node.json").read_bytes())}
    assert machines == set(NAMES)


def damaged_cycle(good: Path, name: str, body: bytes) -> None:
    """Run two cycles on a damaged state: no exception, no new file elsewhere, valid target files."""
    with tempfile.TemporaryDirectory() as outer:
        place = Path(outer) / "deep/er"
        shutil.copytree(good, place)
        (place / "state" / name).write_bytes(body)
        before = tree(Path(outer))
        for _ in range(2):
            assert refresh(place) in (0, 3, 4)
            check_target_files(place)
            assert tree(Path(outer)) == before


def decoded(name: str, body: bytes) -> object:
    """Decode a state file; return None if it is refused. Only ValueError is expected."""
    try:
        match name:
            case "index.json":
                return decode_index(body)
            case "history-ea54b3b3.json":
                return decode_history(body)
            case "memory-lan":
                return Cache.from_bytes(body).to_bytes()
            case _:
                return decode_snapshot(body, name.removeprefix("backend-").removesuffix(".json"))
    except ValueError:
        return None


def is_taken(good: Path, name: str, body: bytes) -> bool:
    """Return whether a damaged body decodes to another value, so that the cycle uses it."""
    return decoded(name, body) not in (None, decoded(name, (good / "state" / name).read_bytes()))


@settings(max_examples=60)
@given(st.sampled_from(STATE_FILES), st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_a_flipped_byte_does_no_harm(good: Path, name: str, place: int, flip: int) -> None:
    """In any file of the state."""
    body = bytearray((good / "state" / name).read_bytes())
    body[place % len(body)] ^= flip
    if is_taken(good, name, bytes(body)):
        damaged_cycle(good, name, bytes(body))


def paths(value: Json, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the path of every value in a document."""
    found = [path]
    if isinstance(value, dict):
        for key, below in value.items():
            found += paths(below, (*path, key))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            found += paths(below, (*path, index))
    return found


def replaced(document: Json, path: tuple[str | int, ...], value: Json, *, key: bool) -> Json:
    """Return a document with another value at a path, or with another key."""
    if not path:
        return value
    first, *rest = path
    if isinstance(document, dict):
        new = dict(document)
        if key and not rest:
            new[str(value)] = new.pop(str(first))
        else:
            new[str(first)] = replaced(document[str(first)], tuple(rest), value, key=key)
        return new
    assert isinstance(document, list)
    assert isinstance(first, int)
    below = list(document)
    below[first] = replaced(document[first], tuple(rest), value, key=key)
    return below


@settings(max_examples=40)
@given(st.sampled_from(STATE_FILES), st.data(), st.sampled_from(HOSTILE), st.booleans())
def test_a_hostile_value_does_no_harm(good: Path, name: str, data: st.DataObject, value: Json, key: bool) -> None:  # noqa: FBT001
    """Any value or key is replaced, and the document still parses."""
    document: Json = json.loads((good / "state" / name).read_bytes())
    where = data.draw(st.sampled_from(paths(document)))
    body = json.dumps(replaced(document, where, value, key=key)).encode()
    if is_taken(good, name, body):
        damaged_cycle(good, name, body)


@pytest.mark.parametrize("name", STATE_FILES)
def test_a_refused_state_file_does_not_stop_the_cycle(good: Path, name: str) -> None:
    """The cycle runs without it."""
    assert decoded(name, b"{") is None
    damaged_cycle(good, name, b"{")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"type":"web"', '"type":"../../escape"'),
        ('"port":1,', '"port":70000,'),
        ('"port":1,', '"port":0,'),
        ('"scheme":"http"', '"scheme":"gopher"'),
        ('"path":"/metrics"', '"path":"metrics"'),
        ('"params":[["module"', '"params":[["mod ule"'),
        ('"labels":[["site"', '"labels":[["si te"'),
        ('"labels":[["site"', '"labels":[["__address__"'),
        ('"__meta_dns_name"', '"__meta dns name"'),
        ('"__meta_dns_name"', '"__meta_clan_backend"'),
        ('"backend":"lan"', '"backend":"evil"'),
        ('"job":"web"', '"job":"../web"'),
    ],
)
def test_an_invalid_target_list_is_set_aside(good: Path, old: str, new: str) -> None:
    """It is reported, and counts as lost."""
    body = (good / "state/backend-lan.json").read_text()
    assert old in body
    with pytest.raises(ValueError, match=r"."):
        decode_snapshot(body.replace(old, new).encode(), "lan")
    with tempfile.TemporaryDirectory() as outer:
        place = Path(outer) / "w"
        shutil.copytree(good, place)
        (place / "state/backend-lan.json").write_text(body.replace(old, new))
        before = (place / "targets/web.json").read_bytes()
        err = io.StringIO()
        assert main(["refresh", "-q", "-c", str(place / "config.yaml")], io.StringIO(), err) == 3
        assert "cannot read backend-lan.json, which is set aside" in err.getvalue()
        assert (place / "state/backend-lan.json.unreadable").exists()
        assert (place / "targets/web.json").read_bytes() == before
        promtool_accepts(place / "targets")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("100.64.0.1", "100.64.0.q"),
        ("100.64.0.1", "evil.example"),
        ("100.64.0.1", "100.64.0.1:9100"),
        ("100.64.0.1", "127.0.0.1"),
        ("100.64.0.1", "169.254.169.254"),
        ("100.64.0.1", "64:ff9b::7f00:1"),
        ("tail1a2b3.ts.net", "tail net"),
        ("tail1a2b3.ts.net", "localhost"),
        ("tail1a2b3.ts.net", "LocalHost."),
        ("tail1a2b3.ts.net", "1.2.3"),
    ],
)
def test_an_invalid_address_or_suffix_is_refused(good: Path, old: str, new: str) -> None:
    """As in a status."""
    body = (good / "state/backend-tailnet.json").read_text()
    assert f'"{old}"' in body
    with pytest.raises(ValueError, match=r"."):
        decode_snapshot(body.replace(f'"{old}"', f'"{new}"').encode(), "tailnet")


def test_allow_networks_applies_to_the_state(good: Path) -> None:
    """With `allow_networks` a loopback address is accepted; without it, it is refused here too."""
    body = (good / "state/backend-lan.json").read_text().replace("10.0.0.1", "127.0.0.1").encode()
    assert decode_snapshot(body, "lan", any_address=True).endpoints
    with pytest.raises(ValueError, match="no target may have: loopback"):
        decode_snapshot(body, "lan")


@pytest.mark.parametrize(
    "entry",
    [
        '"taken_at":1e18', '"taken_at":-1', '"taken_at":null,"lost":{"since":1e300,"jobs":[]}',
        '"lost":{"since":1,"jobs":["../x"]}', '"offline":{"a":{"since":1,"last":1e99}}',
        '"held":{"":{"names":[],"since":-5,"rounds":1}}', '"held":{"":{"names":[],"since":5,"rounds":1e9}}',
        '"held":{"":{"names":[],"since":5,"rounds":99999999999}}',
        '"unanswered":{"g":{"since":1e99,"last":1}}', '"jobs":["a\\nb"]',
    ],
)  # fmt: skip
def test_an_index_with_a_value_out_of_range_is_refused(entry: str) -> None:
    """Impossible times and invalid names of jobs."""
    with pytest.raises(ValueError, match=r"."):
        decode_index(f'{{"version":2,"backends":{{"t":{{{entry}}}}}}}'.encode())


@pytest.mark.parametrize("counters", ['"rounds":-1', '"outages":{"a b":1}', '"down":["../x"]', '"writes":1' + "0" * 30])
def test_invalid_counters_are_refused(counters: str) -> None:
    """They become metrics."""
    with pytest.raises(ValueError, match=r"."):
        decode_index(f'{{"version":2,"counters":{{{counters}}}}}'.encode())


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5), st.sampled_from(["ipv4", "ipv6", "any"]))
def test_every_accepted_status_can_be_read_back(names: list[str], family: Family) -> None:
    """An answer that the backend accepts is never set aside in the next cycle."""
    options = TailscaleOptions(backend="t", family=family)
    status = fleet(["a"])
    peers: dict[str, Json] = {}
    for number, name in enumerate(names):
        peers[str(number)] = {
            "HostName": name,
            "DNSName": f"{name}.tail1a2b3.ts.net.",
            "ID": name,
            "OS": name,
            "Tags": [f"tag:{name}"],
            "TailscaleIPs": [f"100.64.0.{number}", "fd7a:115c:a1e0::1"],
        }
    snapshot = parse_status(json.dumps({**status, "Peer": peers}).encode(), options)
    assert decode_snapshot(encode_snapshot(snapshot), "t").nodes
