"""`diff` and `doctor`: what would change, and what is wrong, each with its fix."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from clan_discovery.cli.main import main
from clan_discovery.emit.diff import changes, render_changes
from clan_discovery.model import Exclusion
from tests.conftest import Done
from tests.support.fleet import fleet, inventory, node, status
from tests.support.localapi import Behaviour, localapi

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json

    Run = Callable[..., Done]
    PublishedTarget = tuple[str, dict[str, str]]


def world(place: Path, names: list[str], source: str) -> Path:
    """Write a config that asks `source`, and an inventory; return the config."""
    (place / "inventory.json").write_text(json.dumps(inventory(names)))
    (place / "config.yaml").write_text(
        "inventory: {file: inventory.json}\n"
        f"backends: {{tailscale: {{tailnet: {{{source}}}}}}}\noutput: {{directory: targets}}\n"
    )
    return place / "config.yaml"


def test_diff_shows_what_refresh_changes(tmp_path: Path, run: Run) -> None:
    """Added, removed, moved and relabelled targets; nothing is written; after the refresh nothing differs."""
    config = world(tmp_path, ["monitor", "db", "gone"], "status_file: s.json")
    (tmp_path / "s.json").write_text(json.dumps(fleet(["monitor", "db"])))
    assert run("refresh", "-c", config).code == 0
    assert run("diff", "-c", config, "--exit-code") == Done(0, "nothing would change\n", "")
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["monitor", "db", "new"])))
    moved = node(2, "db", TailscaleIPs=["100.64.9.9"], HostName="other")
    (tmp_path / "s.json").write_text(json.dumps(status([node(1, "monitor", OS="freebsd"), moved])))
    before = (tmp_path / "targets/node.json").read_bytes()
    done = run("diff", "-c", config, "--exit-code")
    assert done.code == 1
    assert run("diff", "-c", config).code == 0
    assert (tmp_path / "targets/node.json").read_bytes() == before
    assert done.out.splitlines() == [
        "~ db    node  100.64.0.2:9100 -> 100.64.9.9:9100  (seen by tailnet)",
        "- gone  node  gone.tail1a2b3.ts.net:9100          (no longer declared)",
        "+ new   node  new.tail1a2b3.ts.net:9100           (not seen)",
        "+1 -1 ~1, and 1 target with other labels only (--labels lists them)",
    ]
    assert run("diff", "-c", config, "--labels").out.splitlines() == [
        "~ db       node  100.64.0.2:9100 -> 100.64.9.9:9100  (seen by tailnet)",
        "    ~__meta_tailscale_device_hostname='db' -> 'other'",
        "- gone     node  gone.tail1a2b3.ts.net:9100          (no longer declared)",
        "~ monitor  node  100.64.0.1:9100                     (labels only)",
        "    ~__meta_tailscale_device_os='linux' -> 'freebsd'",
        "+ new      node  new.tail1a2b3.ts.net:9100           (not seen)",
        "+1 -1 ~1, and 1 target with other labels only",
    ]
    run("refresh", "-c", config)
    assert run("diff", "-c", config, "--exit-code") == Done(0, "nothing would change\n", "")


targets = st.dictionaries(
    st.sampled_from(["node", "nginx"]),
    st.lists(
        st.tuples(st.sampled_from(["a:1", "b:2"]), st.fixed_dictionaries({"instance": st.sampled_from(["x", "y"])})),
        max_size=2,
        unique_by=lambda target: target[1]["instance"],
    ),
)


@given(targets, targets)
def test_diff_is_exact(
    before: dict[str, list[tuple[str, dict[str, str]]]], after: dict[str, list[tuple[str, dict[str, str]]]]
) -> None:
    """Equal sets have no changes, the reverse has the reverse changes, and each change is counted once."""
    assert changes(before, before) == []
    there, back = changes(before, after), changes(after, before)
    assert [(c.job, c.instance, c.old, c.new) for c in there] == [(c.job, c.instance, c.new, c.old) for c in back]
    turned = {"+": "-", "-": "+", "~": "~", "=": "="}
    assert [turned[change.mark] for change in there] == [change.mark for change in back]
    lines = [line for line, _ in render_changes(there)]
    if there:
        marks = Counter(change.mark for change in there)
        assert lines[-1].startswith(f"+{marks['+']} -{marks['-']} ~{marks['~']}")


def published(host: str, backend: str | None, *jobs: str, machine: str = "db") -> dict[str, list[PublishedTarget]]:
    """Return a target of each job on a machine, as the files have it; ports are those of the job's name."""
    labels = {"instance": machine, "machine": machine, "__meta_clan_role": "exporter"}
    labels["__meta_clan_observed"] = "false"
    if backend is not None:
        labels |= {"__meta_clan_observed": "true", "__meta_clan_backend": backend}
    return {job: [(f"{host}:{len(job)}", labels)] for job in jobs}


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (
            published("db.ts.net", None, "node", "postgres"),
            published("10.0.0.1", "lan", "node", "postgres"),
            "~ db  node, postgres  db.ts.net -> 10.0.0.1  (now seen by lan)",
        ),
        (
            published("[fd00::1]", "lan", "node"),
            published("10.0.0.1", "tailnet", "node"),
            "~ db  node  [fd00::1]:4 -> 10.0.0.1:4  (now seen by tailnet)",
        ),
        (
            published("10.0.0.1", "lan", "node"),
            published("db.ts.net", None, "node"),
            "~ db  node  10.0.0.1:4 -> db.ts.net:4  (no longer seen)",
        ),
        ({}, published("10.0.0.1", "lan", "a", "bb"), "+ db  a, bb  10.0.0.1  (seen by lan)"),
        (published("10.0.0.1", "lan", "off"), {}, "- db  off  10.0.0.1:3  (excluded: offline)"),
        (published("10.0.0.1", "lan", "node"), {}, "- db  node  10.0.0.1:4  (no longer declared)"),
        (
            {"app": [("10.0.0.1:1", {"instance": "db:1", "machine": "db"})]},
            {},
            "- db  app/db:1  10.0.0.1:1  (no longer declared, listed or selected)",
        ),
    ],
)
def test_equal_changes_of_a_machine_share_a_line(
    before: dict[str, list[PublishedTarget]], after: dict[str, list[PublishedTarget]], line: str
) -> None:
    """With hosts only if the ports differ, and with the reason."""
    excluded = [Exclusion(name="DB", reason="offline", detail="", by="lan", job="off")]
    lines = [text for text, _ in render_changes(changes(before, after), excluded)]
    assert lines[0] == line
    assert len(lines) == 2


def test_target_whose_address_changes_is_not_taken_over() -> None:
    """The file has it already, as after a cycle that was killed before it wrote the history."""
    found = changes(published("[fd00::1]", "lan", "node"), published("10.0.0.1", "tailnet", "node"))
    lines = [text for text, _ in render_changes(found, taken_over={("node", "db")})]
    assert lines[0] == "~ db  node  [fd00::1]:4 -> 10.0.0.1:4  (now seen by tailnet)"


def findings(run: Run, config: Path) -> tuple[int, dict[str, list[tuple[str, str]]]]:
    """Run doctor; return its exit code, and level and text by what was looked at."""
    done = run("doctor", "-c", config, "-f", "json")
    found: dict[str, list[tuple[str, str]]] = {}
    for finding in json.loads(done.out):
        found.setdefault(finding["about"].split()[0], []).append((finding["level"], finding["what"]))
        assert finding["level"] == "ok" or finding["fix"], finding
    return done.code, found


def test_healthy_setup_has_only_ok_findings(tmp_path: Path, run: Run) -> None:
    """Each finding says what was checked."""
    config = world(tmp_path, ["monitor", "db"], f"socket: {tmp_path}/s")
    with localapi(tmp_path / "s", Behaviour(body=json.dumps(fleet(["monitor", "db"])).encode())):
        (tmp_path / "s").chmod(0o666)
        assert run("refresh", "-c", config).code == 0
        code, found = findings(run, config)
        assert code == 0
        assert {level for notes in found.values() for level, _ in notes} == {"ok"}
        assert set(found) == {"clock", "socket", "backend", "output", "state"}
        table = run("doctor", "-c", config).out
        assert "ok    socket" in table


def test_problems_of_a_tailnet_are_reported(tmp_path: Path, run: Run) -> None:
    """Keys that expire, MagicDNS off, no control plane, a re-registered machine, a socket with a restrictive mode."""
    soon = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    far = (datetime.now(UTC) + timedelta(days=90)).isoformat()
    nodes = [
        node(1, "monitor", Online=False, KeyExpiry=soon),
        node(2, "db-1", KeyExpiry=far),
        node(3, "web", KeyExpiry="0001-01-01T00:00:00Z"),
        node(6, "lamp", Expired=True, KeyExpiry="2026-11-01T00:00:00Z"),
        node(9, "depot", HostName="Shed"),
        node(10, "laptop", HostName="web"),  # web is seen itself, so nodes with its hostname are not reported
        node(11, "x", DNSName="lamp.elsewhere.ts.net.", KeyExpiry=soon),
        node(12, "guest", KeyExpiry=soon),
        node(4, "dup"),
        node(5, "dup"),
    ]
    tailnet: Json = {"Name": "x", "MagicDNSSuffix": "tail1a2b3.ts.net", "MagicDNSEnabled": False}
    answer = status(nodes, CurrentTailnet=tailnet, Health=["update available"])
    config = world(tmp_path, ["monitor", "db", "web", "attic", "dup", "lamp", "shed"], f"socket: {tmp_path}/s")
    with localapi(tmp_path / "s", Behaviour(body=json.dumps(answer).encode())):
        (tmp_path / "s").chmod(0o600)
        code, found = findings(run, config)
    assert code == 1  # a name that two nodes claim is a FAIL
    said = " | ".join(text for _, text in found["socket"])
    for part in ("mode 0600", "MagicDNS is off", "not connected to the control plane", "update available"):
        assert part in said
    machines = " | ".join(text for _, text in found["machine"])
    assert machines.count("its key") == 2
    assert [text for _, text in found["node"]] == [f"its key expires on {soon[:10]}"]
    assert "laptop" not in machines
    assert "its key expires on" in machines
    assert "its key expired on 2026-11-01: it is unreachable" in machines
    assert "it is not seen, but db-1 is seen, a name that the control plane gives if db is taken" in machines
    assert "it is not seen, but depot, which calls itself shed, is seen" in machines
    assert machines.count("declared, but no backend sees it") == 1  # attic
    assert found["name"][0][0] == "error"


def test_reregistered_machine_is_reported(tmp_path: Path, run: Run) -> None:
    """The old node is offline and keeps the name; the new one has it as its hostname. The old one is to be removed."""
    config = world(tmp_path, ["monitor", "nas"], "status_file: s.json")
    nodes = [node(1, "monitor"), node(2, "nas", Online=False), node(3, "nas-1", HostName="nas")]
    (tmp_path / "s.json").write_text(json.dumps(status(nodes)))
    done = run("doctor", "-c", config)
    assert "machine nas: it is offline, but nas-1, which calls itself nas, is seen" in done.out
    assert "remove the old node nas, then rename nas-1 to nas" in done.out
    assert "remove the old node nas, then rename nas-1 to nas" in run("explain", "nas", "-c", config).out


def test_expired_key_is_reported_once(tmp_path: Path, run: Run) -> None:
    """Also from a saved status, and if the time of expiry is unknown."""
    nodes = [
        node(1, "monitor"),
        node(2, "lamp", Expired=True),
        node(3, "web", Expired=True, KeyExpiry="2026-11-01T00:00:00Z"),
    ]
    (tmp_path / "s.json").write_text(json.dumps(status(nodes)))
    saved = findings(run, world(tmp_path, ["monitor", "lamp", "web"], "status_file: s.json"))[1]
    assert [text for _, text in saved["machine"]] == ["its key has expired: it is unreachable"] * 2
    config = world(tmp_path, ["monitor", "lamp", "web"], f"socket: {tmp_path}/s")
    with localapi(tmp_path / "s", Behaviour(body=json.dumps(status(nodes)).encode())):
        asked = findings(run, config)[1]
    said = ["its key expired on 2026-11-01: it is unreachable", "its key has expired: it is unreachable"]
    assert [text for _, text in asked["machine"]] == said


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (Behaviour(body=json.dumps(fleet(["a"], BackendState="NeedsLogin")).encode()), "in state 'NeedsLogin'"),
        (Behaviour(status=403, body=b"invalid localapi request"), "answered 403"),
        (None, "No such file"),
    ],
)
def test_unready_daemon_is_reported_once(tmp_path: Path, run: Run, how: Behaviour | None, said: str) -> None:
    """Exit 3, one finding with the daemon's own message and the effect."""
    config = world(tmp_path, ["monitor"], f"socket: {tmp_path}/s, timeout: 20s")
    if how is None:
        code, found = findings(run, config)
    else:
        with localapi(tmp_path / "s", how):
            code, found = findings(run, config)
    assert code == 3
    ((level, text),) = found["backend"]
    assert level == "error"
    assert said in text
    assert text.endswith("; there is no last good answer; 1 target at a declared address or name")
    assert all(level == "warning" for level, _ in found.get("socket", []))  # its mode


def test_hanging_daemon_is_asked_once(tmp_path: Path, run: Run) -> None:
    """One connection, and one finding with the cause, the effect on the targets and the fix."""
    config = world(tmp_path, ["monitor", "db"], f"socket: {tmp_path}/s, timeout: 20s")
    behaviour = Behaviour(body=json.dumps(fleet(["monitor", "db"])).encode())
    with localapi(tmp_path / "s", behaviour):
        assert run("refresh", "-c", config).code == 0
        config.write_text(config.read_text().replace("timeout: 20s", "timeout: 1s"))
        behaviour.hang = True
        before = behaviour.connections
        done = run("doctor", "-c", config, "-f", "json")
        assert behaviour.connections == before + 1
    assert done.code == 3
    (failed,) = [finding for finding in json.loads(done.out) if finding["level"] != "ok"]
    cause, effect = failed["what"].split("; ", 1)
    assert cause == f"no complete response from {tmp_path}/s within 1 s"
    assert re.fullmatch(r"2 targets kept from \d s ago; none is lost before 24 h from now", effect)
    assert failed["fix"] == "does tailscaled hang? see its journal"


def test_many_missing_machines_are_one_finding(tmp_path: Path, run: Run) -> None:
    """300 machines that no backend sees."""
    config = world(tmp_path, ["monitor", *(f"m{number:03}" for number in range(300))], "status_file: s.json")
    (tmp_path / "s.json").write_text(json.dumps(fleet(["monitor"])))
    done = run("doctor", "-c", config)
    said = "300 declared machines are missing, no backend sees them: m000, m001, m002, m003, m004 and 295 more"
    assert f"WARN  machines: {said}\n      to fix: clan-discovery explain m000\n" in done.out
    assert done.out.count("\n") < 15


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    @override
    def isatty(self) -> bool:
        return True


def test_findings_fit_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines break at spaces; a longer word, such as a path, is not broken."""
    monkeypatch.setenv("COLUMNS", "80")
    config = world(tmp_path, ["monitor", *(f"m{number:03}" for number in range(300))], "status_file: s.json")
    (tmp_path / "s.json").write_text(json.dumps(fleet(["monitor"])))
    out = Terminal()
    main(["doctor", "-c", str(config)], out, io.StringIO())
    lines = out.getvalue().splitlines()
    assert "WARN  machines: 300 declared machines are missing, no backend sees them: m000," in lines
    assert "      m001, m002, m003, m004 and 295 more" in lines
    assert all(len(line) <= 80 or str(tmp_path) in line for line in lines)


def test_problems_of_the_output_directory_are_reported(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Symlinks, modes, dotfiles that a glob matches, a runtime directory, a state that cannot be read."""
    config = world(tmp_path, ["monitor"], "status_file: s.json")
    (tmp_path / "s.json").write_text(json.dumps(fleet(["monitor"])))
    run("refresh", "-c", config)
    out = tmp_path / "targets"
    (out / ".hidden.json").write_text("[]")
    (out / "link.json").symlink_to(tmp_path / "s.json")
    (out / "node.json").chmod(0o600)
    out.chmod(0o700)
    (tmp_path / "targets.state/index.json").write_text("garbage")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    code, found = findings(run, config)
    assert code == 0
    said = " | ".join(text for level, text in found["output"] if level == "warning")
    for part in ("matched by the glob", "link.json is a symlink", "cannot read node.json", "other users", "runtime"):
        assert part in said
    assert found["state"][0][0] == "warning"
    assert (tmp_path / "targets.state/index.json").read_text() == "garbage"
    config.write_text(config.read_text().replace("directory: targets", "directory: alias"))
    (tmp_path / "alias").symlink_to(out)
    code, found = findings(run, config)
    assert (code, found["output"][0]) == (5, ("error", "it is a symlink"))
    config.write_text(config.read_text().replace("directory: alias", "directory: s.json"))
    assert findings(run, config)[0] == 5


def test_strays_are_listed_with_their_tags(tmp_path: Path, run: Run) -> None:
    """A node with a server's tag that the inventory does not declare."""
    config = world(tmp_path, ["monitor", "attic"], "status_file: s.json")
    (tmp_path / "s.json").write_text(json.dumps(fleet(["monitor", "forgotten"])))
    document = json.loads(run("show", "-f", "json", "-c", config).out)
    assert document["stray"] == [{"name": "forgotten", "backend": "tailnet", "tags": ["server"], "alias": ""}]
    assert [m["machine"] for m in document["missing"]] == ["attic"]
    assert document["ambiguous"] == []
