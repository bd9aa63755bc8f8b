"""Follows docs/tutorial.md and docs/cookbook.md as a reader would, and fills in what the commands print.

In a `console` block, the lines below `$ clan-discovery ...` are replaced by the real output.
`systemctl stop tailscaled` and `systemctl start tailscaled` are done, too; other commands are left as they are.
Blocks before it make files:

- a block that begins with `# NAME` is the file NAME;
- a JSON block is `inventory.json`;
- another YAML block of the cookbook is merged into its first config, clan-discovery.yaml, for this recipe alone.

A recipe begins with the inventory and the tailnet of examples/homelab, and with published files. A command that exits
with 2 or 5 is an error.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from terminal import ROOT, SOCKET, Terminal

from clan_discovery.errors import Exit
from tests.support.fleet import node, status

if TYPE_CHECKING:
    from clan_discovery.model import Json

HOMELAB = ROOT / "examples/homelab"
COLUMNS = 100
CONFIG = "clan-discovery.yaml"
COMMAND = re.compile(r"^(?=\$ )", re.MULTILINE)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)


def tutorial() -> str:
    """Return docs/tutorial.md."""
    nodes = [node(1, "monitor"), node(2, "db"), node(3, "pixel-8", OS="android", Tags=None)]
    text = (ROOT / "docs/tutorial.md").read_text()
    with Terminal({}, json.dumps(status(nodes)).encode(), COLUMNS) as terminal:
        return BLOCK.sub(lambda block: followed(terminal, {}, block), text)


def cookbook() -> str:
    """Return docs/cookbook.md."""
    head, *recipes = re.split(r"^(?=## )", (ROOT / "docs/cookbook.md").read_text(), flags=re.MULTILINE)
    found = BLOCK.search(head)
    if found is None:
        raise SystemExit("docs/cookbook.md: there is no config before the first recipe")
    base: Json = yaml.safe_load(found[2])
    files = {"inventory.json": (HOMELAB / "inventory.json").read_bytes()}
    done = [head]
    for recipe in recipes:
        with Terminal(files, (HOMELAB / "status.json").read_bytes(), COLUMNS) as terminal:
            write_config(base)
            terminal.type("refresh")
            done.append(BLOCK.sub(lambda block: followed(terminal, base, block), recipe))
    return "".join(done)


def followed(terminal: Terminal, base: Json, block: re.Match[str]) -> str:
    """Do what a block says, and return it with the real outputs."""
    language, text = block[1], block[2]
    named = re.match(r"# (\S+\.\w+)\n", text)
    if language == "console":
        screen = "".join(typed(terminal, part) for part in COMMAND.split(text))
        return f"```console\n{screen}```\n"
    if named is not None and named[1] != CONFIG:
        Path(named[1]).write_text(text)
    elif language == "json":
        Path("inventory.json").write_text(text)
    elif language == "yaml":
        write_config(merged(base, yaml.safe_load(text)))
    return block[0]


def typed(terminal: Terminal, part: str) -> str:
    """Type one command of a console; return it with its output."""
    line = part.partition("\n")[0]
    words = shlex.split(line.removeprefix("$ "), comments=True)
    if words[-3:] == ["systemctl", "stop", "tailscaled"]:
        terminal.stop_tailscaled()
    elif words[-3:] == ["systemctl", "start", "tailscaled"]:
        terminal.start_tailscaled()
    elif words[:1] == ["clan-discovery"] and "run" not in words:
        code, lines = terminal.type(*words[1:])
        if code in (Exit.WRONG_INPUT, Exit.NOT_WRITTEN):
            raise SystemExit(f"{line}: exit {code}\n" + "\n".join(lines))
        return "\n".join([line, *lines, ""])
    return part


def write_config(config: Json) -> None:
    """Write a config that asks the terminal's tailscaled."""
    socket: Json = {"backends": {"tailscale": {"tailnet": {"socket": SOCKET}}}}
    Path(CONFIG).write_text(yaml.safe_dump(merged(config, socket), sort_keys=False))


def merged(left: Json, right: Json) -> Json:
    """Merge mappings; of anything else, take the right one."""
    if not isinstance(left, dict) or not isinstance(right, dict):
        return right
    both = {key: merged(left[key], right[key]) for key in left.keys() & right.keys()}
    return {**left, **right, **both}
