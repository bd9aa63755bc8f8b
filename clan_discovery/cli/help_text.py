"""Lay out help texts: paragraphs, lists and examples, for any width. Pure."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

_ITEM: Final = re.compile(r"(?P<lead> +(?:- |\S.*? {2,}))(?P<text>\S.*)")


class Block(msgspec.Struct, frozen=True):
    """A part of a help text.

    `lead` is what comes before the text of an item: its indentation, its term and a gap, as written. Code has its lines
    as written, and is never wrapped.
    """

    kind: Literal["blank", "paragraph", "item", "code"]
    text: str = ""
    lead: str = ""

    @property
    def term(self) -> str:
        """The term of an item."""
        return self.lead.strip()


def blocks(text: str) -> Iterator[Block]:
    """Split a help text: indented lines are items (`  term  text`) or code, and code only below `example:`."""
    waiting: Block | None = None
    is_example = False
    for line in text.split("\n"):
        block = _block(line, is_example=is_example)
        is_example = line.endswith(("example:", "examples:")) or (is_example and bool(line))
        joined = _joined(waiting, block)
        if joined is None and waiting is not None:
            yield waiting
        waiting = joined or block
    if waiting is not None:
        yield waiting


def _block(line: str, *, is_example: bool) -> Block:
    if not line.strip():
        return Block("blank")
    if not line.startswith(" "):
        return Block("paragraph", line)
    item = _ITEM.fullmatch(line)
    if item is None or is_example:
        return Block("code", line)
    return Block("item", item["text"], item["lead"])


def _joined(first: Block | None, second: Block) -> Block | None:
    """Return two lines as one block; None if they do not belong together."""
    if first is None:
        return None
    if first.kind == second.kind == "paragraph":
        return Block("paragraph", f"{first.text} {second.text}")
    if first.kind == second.kind == "code":
        return Block("code", f"{first.text}\n{second.text}")
    is_aligned = second.text.startswith(" " * len(first.lead))
    if first.kind == "item" and second.kind == "code" and is_aligned:
        return Block("item", f"{first.text} {second.text.strip()}", first.lead)
    return None


def wrap(text: str, width: int) -> str:
    """Wrap paragraphs and items at a width in characters."""
    lines: list[str] = []
    for block in blocks(text):
        if block.kind in ("blank", "code"):
            lines.append(block.text)
            continue
        lines += textwrap.wrap(
            block.text,
            width,
            initial_indent=block.lead,
            subsequent_indent=" " * len(block.lead),
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)
