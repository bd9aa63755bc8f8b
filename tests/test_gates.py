"""The command `gates`: states, evidence, exit codes, JSON, and that the checklist is only read."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import jsonschema
import pytest

from clan_discovery.cli.commands.schema import schema
from clan_discovery.gates.sockets import listeners
from clan_discovery.verify.ask import RULES
from tests.support.answering import Reply, answering
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

EMPTY: Final = Reply(b'{"status":"success","data":{"groups":[]}}')


def rule(name: str, **more: str) -> Reply:
    """Return an answer with one loaded alert."""
    found: Json = [{"name": name, "type": "alerting", **more}]
    return Reply(json.dumps({"status": "success", "data": {"groups": [{"name": "g", "rules": found}]}}).encode())


@pytest.fixture
def gates(tmp_path: Path, run: Callable[..., Done]) -> Callable[..., Done]:
    """Return a function that writes a checklist and runs `gates` on it; with a config if there is one."""

    def call(text: str, *words: object) -> Done:
        (tmp_path / "list.md").write_text(text)
        config = tmp_path / "c.json"
        if config.exists():
            words = (*words, "-c", config)
        return run("gates", tmp_path / "list.md", *words)

    return call


def document_of(done: Done) -> list[tuple[str, list[str]]]:
    """Return the state of each box and the results of its evidence; the JSON is valid."""
    found = json.loads(done.out)
    jsonschema.validate(found, schema("gates"), cls=jsonschema.Draft202012Validator)
    return [(box["state"], [one["result"] for one in box["evidence"]]) for box in found["boxes"]]


def test_states_and_exit_codes(gates: Callable[..., Done], tmp_path: Path) -> None:
    """With --require, 0 only if every box is ticked and all evidence holds."""
    with answering({"/ok": Reply(b"ok"), "/no": Reply(b"", 503)}) as server:
        ok, no = f"`gate: http {server.url}/ok`", f"`gate: http {server.url}/no`"
        for text, code, state in (
            (f"- [x] a {ok}", 0, "ticked"),
            ("- [x] a", 0, "ticked"),
            (f"- [ ] a {ok}", 1, "unticked"),
            ("- [x] a\n- [ ] b", 1, "ticked"),
            (f"- [x] a {no}", 1, "ticked against the evidence"),
            (f"- [ ] a {no}", 1, "unticked"),
            (f"- [x] a {ok} {no}", 1, "ticked against the evidence"),
            (f"- [x] a {no[:-1]} 503`", 0, "ticked"),
        ):
            assert gates(text, "--require").code == code
            done = gates(text, "--format", "json")
            assert (done.code, document_of(done)[0][0]) == (0, state)
            assert (tmp_path / "list.md").read_text() == text
        done = gates(f"- [x] The page answers: {no}\n- [ ] b")
        assert done.out == (
            f"ticked against the evidence: The page answers ({tmp_path}/list.md:1)\n"
            f"    contradicts  http {server.url}/no: HTTP 503\n"
            f"                 to fix: curl -i {server.url}/no\n"
            f"unticked: b ({tmp_path}/list.md:2)\n"
            "2 boxes: 1 ticked against the evidence, 1 unticked; evidence: 1 contradicts\n"
        )


def test_http_follows_redirects_on_the_same_host_only(gates: Callable[..., Done]) -> None:
    """A redirect to another host, or in a circle, is no success; each URL is asked once."""
    replies = {
        "/a": Reply(b"", 302, (("Location", "/b"),)),
        "/b": Reply(b"", 204),
        "/circle": Reply(b"", 307, (("Location", "/circle"),)),
        "/file": Reply(b"", 301, (("Location", "file:///etc/passwd"),)),
        "/nowhere": Reply(b"", 302),
        "/bracket": Reply(b"", 302, (("Location", "http://["),)),
    }
    with answering(replies) as server:
        elsewhere = server.url.replace("127.0.0.1", "localhost")
        replies["/away"] = Reply(b"", 301, (("Location", f"{elsewhere}/ok"),))
        replies["/ok"] = Reply(b"ok")
        expected = {"/a": "holds", "/a 302": "holds", "/b 200": "contradicts", "/circle": "contradicts"}
        expected |= {"/away": "contradicts", "/file": "contradicts", "/nowhere": "contradicts", "/away 301": "holds"}
        expected |= {"/bracket": "contradicts"}
        text = "".join(f"- [ ] x `gate: http {server.url}{path}`\n" for path in expected)
        done = gates(text + f"- [ ] again `gate: http {server.url}/b 200`\n", "-f", "json")
        assert [results for _, results in document_of(done)][:-1] == [[result] for result in expected.values()]
        assert [path for path, _ in server.requests].count("/b") == 2  # after /a, and by itself


def test_server_that_does_not_answer_contradicts(gates: Callable[..., Done]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = gates(f"- [x] a `gate: http http://127.0.0.1:{port}/`", "--require")
    assert done.code == 1
    assert "connection refused" in done.out


def test_unit_is_asked_without_reading_its_name_as_an_option(
    gates: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A systemctl that a test plays: three states, an unknown unit, and no systemd."""
    fake = tmp_path / "bin/systemctl"
    fake.parent.mkdir()
    fake.write_text(
        f"""#!/bin/sh
echo "$@" >> {tmp_path}/asked
case "$3" in
a.service) echo active;;
b.service) echo failed; exit 3;;
--version) echo inactive; exit 3;;
d.service) echo inactive; exit 4;;
*) echo "System has not been booted" >&2; exit 1;;
esac
"""
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    names = ["a.service", "b.service", "--version", "d.service", "e.service"]
    text = "".join(f"- [x] x `gate: unit {name}`\n" for name in names)
    done = gates(text, "-f", "json")
    assert [results[0] for _, results in document_of(done)] == [
        "holds",
        "contradicts",
        "contradicts",
        "contradicts",
        "unknown",
    ]
    assert (tmp_path / "asked").read_text().splitlines() == [f"is-active -- {name}" for name in names]
    assert gates("- [x] x `gate: unit e.service`", "--require").code == 3
    assert gates("- [x] x `gate: unit e.service`\n- [ ] y", "--require").code == 1
    fake.unlink()
    monkeypatch.setenv("PATH", str(fake.parent))
    assert "cannot ask systemctl" in gates("- [x] x `gate: unit a.service`").out


def configure(home: Path, url: str, **more: Json) -> None:
    """Write a config with one target on loopback, the scraper and the rules at one URL."""
    (home / "rules.yml").write_text("groups: [{name: g, rules: [{alert: Disk, expr: up}]}]")
    document: Mapping[str, Json] = {
        "backends": {"static": {"lab": {"targets": {"node": ["127.0.0.1:9100"]}}}},
        "output": {"directory": "targets"},
        "verify": {
            "scrapers": {"one": {"url": url}},
            "rules": {"alerts": {"url": url, "files": ["rules.yml"]}},
            "timeout": "20s",
        },
        **more,
    }
    (home / "c.json").write_text(json.dumps(document))


def targets(home: Path, health: str) -> Reply:
    """Return the answer of a scraper that scrapes the target."""
    labels: Json = {"job": "node", "instance": "127.0.0.1"}
    address: Json = {"__address__": "127.0.0.1:9100", "job": "node", "__meta_filepath": f"{home}/targets/node.json"}
    active: Json = [
        {
            "discoveredLabels": address,
            "labels": labels,
            "scrapePool": "node",
            "scrapeUrl": "http://127.0.0.1:9100/metrics",
            "lastError": "" if health == "up" else "refused",
            "health": health,
        }
    ]
    return Reply(json.dumps({"status": "success", "data": {"activeTargets": active}}).encode())


def test_verify_and_rules_are_evidence(gates: Callable[..., Done], tmp_path: Path, run: Callable[..., Done]) -> None:
    """`verify` holds if all targets are up and the rules are loaded; a scraper that is silent is unknown."""
    replies = {"/api/v1/targets": targets(tmp_path, "up"), RULES: rule("Disk")}
    text = "- [x] a `gate: verify`\n- [x] b `gate: verify 127.0.0.1`\n- [x] c `gate: rule Disk`\n"
    text += "- [x] d `gate: rule Memory`\n- [x] e `gate: verify nas`\n"

    def results() -> list[str]:
        return [found[0] for _, found in document_of(gates(text, "-f", "json"))]

    with answering(replies) as server:
        configure(tmp_path, server.url)
        assert run("refresh", "-c", tmp_path / "c.json").code == 0
        assert results() == ["holds", "holds", "holds", "contradicts", "contradicts"]
        replies[RULES] = EMPTY
        assert results() == ["contradicts", "holds", "contradicts", "contradicts", "contradicts"]
        replies[RULES] = rule("Disk", health="err", lastError="no such function")
        assert results()[2] == "contradicts"
        assert "no such function" in gates(text).out
        replies |= {RULES: rule("Disk"), "/api/v1/targets": targets(tmp_path, "down")}
        assert results()[:3] == ["contradicts", "contradicts", "holds"]
        assert "node of 127.0.0.1 is down" in gates(text).out
    assert results() == ["unknown", "unknown", "unknown", "unknown", "contradicts"]


def test_unpublished_names_the_port_that_is_open(gates: Callable[..., Done], tmp_path: Path) -> None:
    """A target on loopback whose port listens on another address, and a port that Compose publishes."""
    labels = "labels: {prometheus.io/scrape: 'true', prometheus.io/port: '9187'}"
    compose = f"services: {{db: {{image: a, ports: ['%s9187:9187'], {labels}}}}}"
    for public, prefix, result, words in (
        (False, "127.0.0.1:", "holds", "2 ports of this machine only on loopback, or closed"),
        (True, "127.0.0.1:", "contradicts", "node of 127.0.0.1 listens on 0.0.0.0:"),
        (False, "", "contradicts", "port 9187 of db on nas is published on all addresses"),
        (False, "192.0.2.7:", "contradicts", "port 9187 of db on nas is published on 192.0.2.7"),
    ):
        (tmp_path / "compose.yaml").write_text(compose % prefix)
        host = "0.0.0.0" if public else "127.0.0.1"  # noqa: S104 - the mistake
        with socket.create_server((host, 0)) as listening:
            port = listening.getsockname()[1]
            configure(
                tmp_path,
                "http://127.0.0.1:1",
                backends={"static": {"lab": {"targets": {"node": [f"127.0.0.1:{port}"]}}}},
                inventory={"compose": {"nas": {"files": ["compose.yaml"], "scraper": "host"}}},
            )
            done = gates("- [x] a `gate: unpublished`", "-f", "json")
        assert document_of(done) == [("ticked" if result == "holds" else "ticked against the evidence", [result])]
        assert words in done.out


def test_listening_sockets_are_read() -> None:
    """Lines as Linux writes them; broken ones are left out."""
    if sys.byteorder != "little":
        pytest.skip("the lines are those of a little-endian machine")
    tcp = "  sl  local_address rem_address   st\n   0: 0100007F:1F90 00000000:0000 0A 0\n"
    tcp += "   1: 00000000:0016 00000000:0000 0A\n   2: 0100007F:1F91 0100007F:0016 01\nbroken\n   3: zz:zz 0 0A\n"
    assert [tuple(one) for one in listeners(tcp)] == [("127.0.0.1", 8080, True), ("0.0.0.0", 22, False)]  # noqa: S104
    words = {"00000000000000000000000001000000": ("::1", True), "0000000000000000FFFF00000100007F": ("127.0.0.1", True)}
    words |= {
        "00000000000000000000000000000000": ("::", False),
        "B80D0120000000000000000001000000": ("2001:db8::1", False),
    }
    for word, (host, is_local) in words.items():
        (found,) = listeners(f"head\n 0: {word}:0050 0:0 0A\n")
        assert tuple(found) == (host, 80, is_local)


def test_checklist_is_opened_for_reading_only(tmp_path: Path) -> None:
    """Also with --require, and nothing else is opened for writing."""
    file = tmp_path / "list.md"
    file.write_text("- [ ] a\n- [x] b\n")
    for words, code in (((), 0), (("--require",), 1)):
        trace = tmp_path / "trace"
        strace = [program("strace"), "-f", "-o", str(trace)]
        strace += ["-e", "trace=open,openat,openat2,creat,rename,renameat,renameat2,unlink,unlinkat,truncate,ftruncate"]
        command = [*strace, sys.executable, "-B", "-m", "clan_discovery", "gates", *words, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == code, done.stderr
        lines = trace.read_text().splitlines()
        opened = [line for line in lines if str(file) in line]
        assert opened
        assert all("O_RDONLY" in line for line in opened)
        assert not any(
            "O_WRONLY" in line or "O_RDWR" in line or "O_CREAT" in line for line in lines if "/dev/" not in line
        )
    assert file.read_text() == "- [ ] a\n- [x] b\n"


def test_files_that_are_no_checklist_are_refused(tmp_path: Path, run: Callable[..., Done]) -> None:
    """Without a stack trace, and without waiting; a symlink to a checklist is read."""
    os.mkfifo(tmp_path / "fifo.md")
    (tmp_path / "empty.md").write_text("")
    (tmp_path / "bytes.md").write_bytes(b"- [ ] \xff")
    (tmp_path / "real.md").write_text("- [x] a")
    (tmp_path / "link.md").symlink_to(tmp_path / "real.md")
    for name, words in (
        ("none.md", "cannot read the checklist: No such file or directory (to write checklists:"),
        ("fifo.md", "is a pipe, not a regular file"),
        (".", "is a directory, not a regular file"),
        ("empty.md", "has no box"),
        ("bytes.md", "is not UTF-8"),
    ):
        done = run("gates", tmp_path / name, "--require")
        assert (done.code, done.out) == (2, "")
        assert words in done.err
        assert "Traceback" not in done.err
    assert run("gates", tmp_path / "link.md", "--require").code == 0
    assert "a checklist is missing" in run("gates").err
    assert run("gates", "--init", tmp_path, "--require").code == 2


def test_hostile_text_reaches_no_terminal(gates: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    """Control characters and escape sequences are escaped, in both formats and in messages."""
    monkeypatch.setenv("NO_COLOR", "1")
    for text in ("- [ ] a\x1b[2Jb \u202e c\n", "- [ ] a `gate: unit \x1b[31m`\n", "- [\x07] a\n"):
        for words in ((), ("-f", "json")):
            done = gates(text, *words)
            assert all(character.isprintable() or character == "\n" for character in done.out + done.err)
