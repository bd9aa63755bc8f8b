"""Tests of the completion scripts in real shells, and of the names that they complete."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from clan_discovery.cli.commands import completion
from clan_discovery.cli.words import all_commands
from tests.conftest import ROOT, Done
from tests.support.fleet import inventory
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clan_discovery.cli.command import Args

    Run = Callable[..., Done]
    Complete: TypeAlias = Callable[[Path, Sequence[str]], list[set[str]]]

HOMELAB = ROOT / "examples/homelab/config.yaml"
PROGRAM = f"""\
#!{sys.executable}
from clan_discovery.cli.commands import completion
from clan_discovery.__main__ import main
completion._PATIENCE_S = 60  # a busy machine must not fail the test
main()
"""

_BASH = """\
source "$1"; shift
for line; do
    mapfile -t COMP_WORDS <<< "$line"
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    current=${COMP_WORDS[COMP_CWORD]}
    _clan_discovery clan-discovery "$current" "${COMP_WORDS[COMP_CWORD - 1]}"
    printf '%s\\n' "${COMPREPLY[@]}" --END--
done
"""
_FISH = 'source $argv[1]; for line in $argv[2..-1]; complete -C "$line"; echo -- --END--; end'
_ZSH = """\
PS1=; bindkey '^Xk' kill-whole-line; autoload -Uz compinit; compinit -u -D; source {script}
compadd() {{ local -a hits
  if (( ! ${{@[(I)-[AOD]]}} )); then builtin compadd -O hits "$@"; print -rl -- $hits >> {out}; fi
  builtin compadd "$@" }}
print -r -- --END-- >> {out}
"""


def _answers(text: str) -> list[set[str]]:
    """Return the words of each answer."""
    return [set(answer.split()) for answer in text.split("--END--\n")[:-1]]


def _environment(home: Path) -> dict[str, str]:
    return {
        "PATH": f"{home}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
    }


def in_bash(home: Path, lines: Sequence[str]) -> list[set[str]]:
    """Complete lines in bash, which splits them at spaces and at `=`."""
    split = ["\n".join(re.split(r" |(?<=\S)(?==)|(?<==)", line)) for line in lines]
    words = [program("bash"), "--norc", "-c", _BASH, "bash", str(home / "script"), *split]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=_environment(home))
    assert done.stderr == ""
    return _answers(done.stdout)


def in_fish(home: Path, lines: Sequence[str]) -> list[set[str]]:
    """Complete lines in fish; a description follows a tab."""
    words = [program("fish"), "--no-config", "-c", _FISH, str(home / "script"), *lines]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=_environment(home))
    assert done.stderr == ""
    return _answers(re.sub(r"\t.*|^--\w+=(?=.)", "", done.stdout, flags=re.MULTILINE))


def in_zsh(home: Path, lines: Sequence[str]) -> list[set[str]]:
    """Press Tab after each line in an interactive zsh; note what it adds."""
    out = home / "out"
    out.touch()
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [program("zsh"), "-f", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, env=_environment(home),
        cwd=home, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        os.write(ours, _ZSH.format(script=home / "script", out=out).encode())
        _wait(ours, out, 1)
        for number, line in enumerate(lines, 2):
            os.write(ours, f"{line}\t\x18kprint -r -- --END-- >> {out}\n".encode())
            _wait(ours, out, number)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return _answers(out.read_text())[1:]


def _wait(terminal: int, out: Path, count: int) -> None:
    """Read what the terminal shows until `count` answers are noted."""
    deadline = time.monotonic() + 120
    while out.read_text().count("--END--\n") < count:
        assert time.monotonic() < deadline, out.read_text()
        os.set_blocking(terminal, False)
        try:
            os.read(terminal, 65536)
        except BlockingIOError:
            time.sleep(0.01)


@pytest.fixture(params=["bash", "fish", "zsh"])
def complete(request: pytest.FixtureRequest, run: Run, tmp_path: Path) -> Callable[[Sequence[str]], list[set[str]]]:
    """Return a function that completes lines in one of the shells."""
    shell: str = request.param
    (tmp_path / "script").write_text(run("completion", shell).out)
    (tmp_path / "clan-discovery").write_text(PROGRAM)
    (tmp_path / "clan-discovery").chmod(0o755)
    within: Complete = {"bash": in_bash, "fish": in_fish, "zsh": in_zsh}[shell]
    return lambda lines: within(tmp_path, lines)


def test_shells_complete_commands_options_values_and_names(
    complete: Callable[[Sequence[str]], list[set[str]]], tmp_path: Path
) -> None:
    """A config may be given before or after the command; a wrong one completes nothing and prints nothing."""
    (tmp_path / "wrong.yaml").write_text("inventory: [")
    expected: dict[str, set[str]] = {
        "ch": {"check"},
        "sn": {"snapshot"},
        f"-c {HOMELAB} ma": {"machines"},
        "help sn": {"snapshot"},
        "refresh --acc": {"--accept-shrink"},
        "show --format file": {"file-sd"},
        "show --format=file": {"file-sd"},
        "completion z": {"zsh"},
        f"-c {HOMELAB} explain at": {"attic"},
        f"machines --config={HOMELAB} --job no": {"node"},
        f"explain -c {tmp_path}/wrong.yaml at": set(),
        f"check -c {tmp_path}/wro": {f"{tmp_path}/wrong.yaml"},
    }
    found = complete([f"clan-discovery {words}" for words in expected])
    by_line = {line: {Path(word).name for word in words} for line, words in zip(expected, found, strict=True)}
    assert by_line == {line: {Path(word).name for word in words} for line, words in expected.items()}


@pytest.mark.parametrize("complete", ["bash", "fish"], indirect=True)
def test_every_option_of_every_command_is_completed(complete: Callable[[Sequence[str]], list[set[str]]]) -> None:
    """Exactly the options of the parsers."""
    commands = all_commands()
    found = complete([f"clan-discovery {command.name} --" for command in commands])
    for command, words in zip(commands, found, strict=True):
        assert words == {name for option in command.options for name in option.names if name.startswith("--")}


def test_names_come_from_the_config(run: Run) -> None:
    """Machines of the inventory, and jobs; sorted."""
    names = run("completion", "machines", "-c", HOMELAB).out.split()
    assert names == sorted(json.loads((HOMELAB.parent / "inventory.json").read_bytes())["machines"])
    assert "node\n" in run("completion", "jobs", "-c", HOMELAB).out


@pytest.mark.parametrize("text", ["inventory: [", "inventory: {file: gone.json}", ""])
def test_wrong_config_or_inventory_gives_no_names(run: Run, tmp_path: Path, text: str) -> None:
    """A config that does not parse, or an inventory that is missing."""
    (tmp_path / "c.yaml").write_text(text)
    assert run("completion", "machines", "-c", tmp_path / "c.yaml") == Done(0, "", "")
    assert run("completion", "machines", "-c", tmp_path / "gone.yaml") == Done(0, "", "")


def test_flake_gives_no_names(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nix takes seconds, so it is not started."""
    nix = tmp_path / "nix"
    nix.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    nix.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "c.yaml").write_text("inventory: {flake: .}")
    assert run("completion", "machines", "-c", tmp_path / "c.yaml") == Done(0, "", "")
    assert not (tmp_path / "ran").exists()


def test_name_with_shell_syntax_is_not_completed(run: Run, tmp_path: Path) -> None:
    """The user runs a completed word by pressing Enter."""
    (tmp_path / "i.json").write_text(json.dumps(inventory(["db", "$(reboot)", "a;b", "-rf", "x y", "q'"])))
    (tmp_path / "c.yaml").write_text("inventory: {file: i.json}")
    assert run("completion", "machines", "-c", tmp_path / "c.yaml") == Done(0, "db\n", "")


def test_names_have_a_time_limit(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user waits for them at the prompt."""

    def slow(args: Args) -> list[str]:
        time.sleep(0.2)
        return [args.shell]

    monkeypatch.setattr(completion, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(completion, "_read_names", slow)
    assert run("completion", "machines", "-c", HOMELAB) == Done(0, "", "")
