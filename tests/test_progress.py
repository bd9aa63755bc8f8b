"""Progress: on a terminal, after a second, one line names what is waited for, and is then erased."""

from __future__ import annotations

import io
import json
import os
import re
import time
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from clan_discovery.assemble import make_plan
from clan_discovery.cli.main import main
from clan_discovery.cli.progress import Waits, can_rewrite, progress
from clan_discovery.config.load import load_config
from clan_discovery.errors import InputError
from tests.support.fleet import inventory
from tests.support.localapi import Behaviour, localapi

if TYPE_CHECKING:
    from pathlib import Path


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    @override
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")


def screen(written: str) -> str:
    """Return what a terminal shows after these bytes; `CR` and `EL` restart the line."""
    return re.sub(r"[^\n]*\r\x1b\[K", "", written)


def config_of(directory: Path, socket: Path) -> Path:
    """Write a config with a socket and a timeout of three seconds."""
    (directory / "inventory.json").write_text(json.dumps(inventory(["monitor"])))
    config = directory / "c.yaml"
    config.write_text(
        f"inventory: {{file: inventory.json}}\noutput: {{directory: targets}}\n"
        f"backends: {{tailscale: {{tailnet: {{socket: {socket}, timeout: 3s}}}}}}\n"
    )
    return config


def test_a_daemon_that_hangs_is_named_with_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a second; it is erased before other output."""
    monkeypatch.setenv("COLUMNS", "300")
    config = config_of(tmp_path, tmp_path / "s")
    with localapi(tmp_path / "s", Behaviour(hang=True)):
        out, err, plain = io.StringIO(), Terminal(), io.StringIO()
        code = main(["show", "-c", str(config)], out, err)
        assert code == 3
        assert re.search(rf"asking tailscaled \({tmp_path}/s\), \d s of 3 s", err.getvalue())
        assert screen(err.getvalue()).startswith("clan-discovery: ")
        assert "asking" not in screen(err.getvalue())
        assert main(["show", "-c", str(config)], io.StringIO(), plain) == code
    assert plain.getvalue() == screen(err.getvalue())  # in a pipe: no progress, and the same output otherwise


def test_an_evaluation_is_named_with_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nix may take five minutes. The flake is named without secrets in its URL."""
    (tmp_path / "nix").write_text("#!/bin/sh\nsleep 3\nexit 1\n")
    (tmp_path / "nix").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    err = Terminal()
    assert main(["machines", "--flake", "git+https://u:secret@host/x"], io.StringIO(), err) == 2
    assert re.search(r"\r\x1b\[Kevaluating flake git\+https://\*\*\*@host/x with nix, \d s of 300 s", err.getvalue())
    assert "evaluating" not in screen(err.getvalue())
    assert "secret" not in err.getvalue()


def test_a_fast_answer_shows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no output until something takes long, here half a minute."""
    monkeypatch.setattr("clan_discovery.cli.progress._AFTER_S", 30.0)
    err = Terminal()
    config = config_of(tmp_path, tmp_path / "none")
    for command in ("refresh", "show", "diff", "doctor", "check", "machines", "inventory"):
        main([command, "-c", str(config)], io.StringIO(), err)
    assert "\r" not in err.getvalue()


def test_no_progress_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot erase a line. NO_COLOR, set here, has no effect."""
    assert can_rewrite(Terminal())
    assert not can_rewrite(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not can_rewrite(Terminal())
    monkeypatch.delenv("TERM")
    assert not can_rewrite(Terminal())


def test_the_line_fits_and_is_safe() -> None:
    """It names the oldest wait and counts others.

    Long names are cut, control characters removed.
    """
    waits = Waits()
    waits.begin("a", "asking \x1b[31m" + "x" * 200, 10)
    now = time.monotonic()
    assert waits.line(now + 0.5, 80) == ""
    line = waits.line(now + 3.2, 80)
    assert len(line) == 79
    assert line.endswith("..., 3 s of 10 s")
    assert line.startswith("asking \\x1b[31mxxx")
    waits.begin("b", "asking b", 20)
    assert waits.line(now + 5, 80).endswith("..., 5 s of 10 s (and 1 other)")
    waits.end("a")
    assert waits.line(now + 5, 80) == "asking b, 5 s of 20 s"
    assert len(waits.line(now + 5, 5)) == 4
    waits.end("b")
    assert waits.line(now + 5, 80) == ""


def test_an_error_ends_the_line() -> None:
    """The exception is raised, and the line erased."""
    err = Terminal()
    with pytest.raises(InputError), progress(err) as waits, waits.evaluating("."):
        raise InputError([])
    assert waits.line(1e9, 80) == ""


def test_every_waiting_backend_says_for_what(tmp_path: Path) -> None:
    """Tailscale names its socket, DNS its servers; a static list does not wait."""
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["monitor"])))
    (tmp_path / "c.yaml").write_text(
        "inventory: {file: inventory.json}\n"
        "backends:\n"
        "  tailscale: {tailnet: {socket: /run/t.sock, timeout: 5s}}\n"
        "  dns: {lan: {servers: [192.0.2.1, 192.0.2.2, 192.0.2.3], timeout: 7s}, home: {}}\n"
        "  static: {list: {targets: {node: [db]}}}\n"
    )
    backends = make_plan(load_config(tmp_path / "c.yaml")).backends
    names = {"tailnet", "lan", "home"}
    shown: set[str] = set()
    for name in names:
        waits = Waits()
        waits.asking(backends)
        for other in names - {name}:
            waits.end(other)
        shown.add(re.sub(r", \d+ s of", ", of", waits.line(1e9, 200)))
    assert shown == {
        "asking tailscaled (/run/t.sock), of 5 s",
        "asking DNS (192.0.2.1, 192.0.2.2 and 1 more), of 7 s",
        "asking DNS (the servers of /etc/resolv.conf), of 10 s",
    }
