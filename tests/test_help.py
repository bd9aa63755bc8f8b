"""Help, and errors for unknown commands, options and values."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.cli.help_text import blocks, wrap
from clan_discovery.cli.man import man_page
from clan_discovery.cli.parser import COMMAND_GROUPS, COMMANDS, CommandParser
from clan_discovery.cli.words import CommandWords, all_commands
from clan_discovery.errors import Exit, InputError
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Done

    Run = Callable[..., Done]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_has_an_example(run: Run, name: str) -> None:
    """`help NAME` and `NAME --help` print the same: a sentence, options, an example, exit codes."""
    done = run(name, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"clan-discovery {name}" in done.out.partition("for example:\n")[2]
    assert "\nexit codes: 0 ok, " in done.out
    assert run("help", name) == done


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_the_terminal(run: Run, monkeypatch: pytest.MonkeyPatch, name: str, columns: int) -> None:
    """Except lines to copy, which are not wrapped."""
    monkeypatch.setenv("COLUMNS", str(columns))
    text = run(*name.split(), "--help").out
    to_copy = {line for block in blocks(text) if block.kind == "code" for line in block.text.split("\n")}
    assert [line for line in text.split("\n") if len(line) > columns and line not in to_copy] == []


def test_the_help_of_the_program(run: Run) -> None:
    """Each way to ask prints it on stdout, with each command once, the exit codes, and where configs are."""
    done = run("--help")
    assert done == run("-h") == run("help")
    assert done.code == 0
    for title, commands in COMMAND_GROUPS.items():
        assert f"\n{title}:\n" in done.out
        for name in commands:
            assert done.out.count(f"\n  {name} ") == 1
    for code in Exit:
        assert f"\n  {code:d}  " in done.out
    for place in ("$CLAN_DISCOVERY_CONFIG", "./clan-discovery.yaml", "/etc/clan-discovery/config.json"):
        assert place in done.out


def test_the_man_page_is_correct_and_complete(run: Run) -> None:
    """The programs groff and mandoc print no warning, and all of the help is in it."""
    page = run("help", "--man").out
    checked = subprocess.run(
        [program("groff"), "-man", "-ww", "-Tutf8", "-P-c"], input=page, capture_output=True, text=True, check=True
    )
    assert checked.stderr == ""
    linted = subprocess.run(
        [program("mandoc"), "-T", "lint", "-W", "warning"], input=page, capture_output=True, text=True, check=False
    )
    assert ".B \\-\\-output DIR" in page  # roff prints a plain hyphen as a typographic one
    complaints = [line for line in linted.stdout.splitlines() if "missing date" not in line]  # the same in each build
    assert complaints == []
    plain = re.sub(r"[^a-zA-Z0-9]", "", re.sub("\b.|\x1b\\[[0-9;]*m|\u2010\\s+", "", checked.stdout))
    for command in all_commands():
        for word in command.words:
            if "--help" not in word.names:
                assert re.sub(r"[^a-zA-Z0-9]", "", word.help) in plain
        for paragraph in f"{command.description}\n\n{command.epilog}".split("\n\n"):
            assert re.sub(r"[^a-zA-Z0-9]", "", paragraph) in plain


def test_the_man_page_escapes_what_roff_would_interpret() -> None:
    """A leading dot or quote, and a backslash."""
    words = CommandWords("x", "", "usage", ".nix is not a request", "'either'\n\n  \\n", ())
    lines = man_page("1", words, [words]).split("\n")
    for expected in ("\\&.nix is not a request", "\\(aqeither\\(aq", "\\(rsn"):
        assert expected in lines


def test_options_and_operands_may_be_mixed() -> None:
    """Also where an operand repeats."""
    parser = CommandParser("x", "", "")
    parser.add_argument("names", nargs="+")
    parser.add_argument("-c")
    args = parser.parse(["a", "-c", "f", "b"])
    assert (args.names, args.c) == (["a", "b"], "f")
    with pytest.raises(InputError, match="the following arguments are required: names"):
        parser.parse(["-c", "f"])


def test_without_a_command_the_short_help_is_an_error(run: Run) -> None:
    """On stderr with exit code 2, so that a script with an empty variable fails."""
    done = run()
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("usage: clan-discovery ")
    for name in COMMANDS:
        assert f"\n  {name} " in done.err
    assert "exit codes" not in done.err
    assert run("-c", "x") == done


def test_version(run: Run) -> None:
    """Long and short."""
    assert run("--version").out.startswith("clan-discovery ")
    assert run("-V") == run("--version")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("refersh", "there is no command 'refersh' (did you mean 'refresh'? see: clan-discovery --help)"),
        ("-c x refersh -q", "there is no command 'refersh' (did you mean 'refresh'? see: clan-discovery --help)"),
        ("--config=x refersh --help", "there is no command 'refersh' (did you mean 'refresh'?"),
        ("help refersh", "there is no command 'refersh' (did you mean 'refresh'?"),
        ("xyzzy", "there is no command 'xyzzy' (see: clan-discovery --help)"),
        ("show --formt json", "no option --formt (did you mean '--format'? see: clan-discovery show --help)"),
        ("snapshot --ouput=x.nix", "there is no option --ouput (did you mean '--output'?"),
        ("--qiet refresh", "no option --qiet (options of a command are written after it; see: clan-discovery --help)"),
        ("show --format jsn", "argument -f/--format: invalid value 'jsn' (did you mean 'json'? see:"),
        ("show --format q", "invalid value 'q' (choose from: table, json"),
        ("check -x", "unexpected argument '-x' (see: clan-discovery check --help)"),
        ("check db", "unexpected argument 'db' (see: clan-discovery check --help)"),
        ("-c", "expected one argument (see: clan-discovery --help)"),
        ("render", "the following arguments are required: --output (see: clan-discovery render --help)"),
        ("schema confg", "did you mean 'config'?"),
    ],
)
def test_a_usage_error_suggests_and_names_the_right_help(run: Run, words: str, said: str) -> None:
    """In one line on stderr, with exit code 2."""
    done = run(*words.split())
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert done.err.count("\n") == 1


def test_wrapping_keeps_lists_and_examples() -> None:
    """List items have a hanging indent, and examples are not wrapped."""
    text = (
        "One sentence that is\nlonger than the width.\n\nfiles:\n  a.json  the first file of several\n"
        "          files\n  - a point of a list that is long\n\nfor example:\n  run   this --very-long-option | cat\n"
    )
    assert wrap(text, 24).split("\n") == [
        "One sentence that is",
        "longer than the width.",
        "",
        "files:",
        "  a.json  the first file",
        "          of several",
        "          files",
        "  - a point of a list",
        "    that is long",
        "",
        "for example:",
        "  run   this --very-long-option | cat",
        "",
    ]


@given(st.text(st.sampled_from("a-: \n"), max_size=80), st.integers(10, 100))
def test_wrapping_keeps_all_words_and_is_idempotent(text: str, width: int) -> None:
    """Words keep their order."""
    wrapped = wrap(text, width)
    assert wrapped.split() == text.split()
    assert wrap(wrapped, width).split() == text.split()
