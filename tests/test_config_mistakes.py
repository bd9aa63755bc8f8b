"""Mistakes that operators make in a config: each message says where, what is wrong and what to write."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from clan_discovery.assemble import make_plan
from clan_discovery.config.load import load_config
from clan_discovery.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Done

FILE: Final = Path(__file__).resolve().parent / "data/config_mistakes.txt"
ESCAPES: Final = {r"\t": "\t", r"\r": "\r", r"\ufeff": "\ufeff", r"\u00a0": "\u00a0"}
# Terms of the libraries, which no message may contain.
FOREIGN: Final = re.compile(
    r"(?i)\binput should|(?<!bearer_)(?<!their )token|scalar|errno|delimiter|pydantic|dict\b|NoneType|block mapping"
)


def mistakes() -> dict[str, tuple[str, list[str]]]:
    """Return the config and the expected messages of each mistake, by title."""
    found: dict[str, tuple[str, list[str]]] = {}
    for part in FILE.read_text(encoding="utf-8").split("\n== ")[1:]:
        title, _, rest = part.partition("\n")
        lines = rest.splitlines()
        text = "".join(f"{line}\n" for line in lines if not line.startswith("=> ") and line)
        for escape, character in ESCAPES.items():
            text = text.replace(escape, character)
        found[title] = text, [line.removeprefix("=> ") for line in lines if line.startswith("=> ")]
    return found


MISTAKES: Final = mistakes()


@pytest.mark.parametrize("title", MISTAKES)
def test_mistake_has_its_message(tmp_path: Path, title: str) -> None:
    """The whole text is compared; no message has terms of the libraries."""
    text, expected = MISTAKES[title]
    file = tmp_path / "c.yaml"
    if title.startswith("json:"):
        file = tmp_path / "c.json"
    file.write_bytes(text.encode())
    said = ["accepted"]
    try:
        make_plan(load_config(file))
    except InputError as error:
        said = [str(problem).replace(f"{tmp_path}/", "") for problem in error.problems]
    assert said == expected
    assert not any(FOREIGN.search(line) for line in said)


def test_mistakes_are_distinct_and_have_positions() -> None:
    """Almost all have line and column, and no title is repeated."""
    assert len(MISTAKES) == FILE.read_text(encoding="utf-8").count("\n== ") > 90
    refused = [lines for _, lines in MISTAKES.values() if lines != ["accepted"]]
    assert all(re.match(r"c\.(yaml|json):\d+:\d+: ", line) for lines in refused for line in lines)


def test_port_in_use_is_reported(tmp_path: Path, run: Callable[..., Done]) -> None:
    """The message does not show the errno."""
    (tmp_path / "c.yaml").write_text("backends: {static: {lab: {targets: {node: [a]}}}}\noutput: {directory: out}\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("run", "-c", tmp_path / "c.yaml", "--metrics-listen", address)
    assert done.code == 2
    assert f"cannot serve on '{address}': another program listens there (stop it, or choose another port)" in done.err
