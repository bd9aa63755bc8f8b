"""Read a checklist: the boxes of a Markdown file, and the evidence that each names. Pure.

Markdown says what is a list item and what is code, a quote or a comment; a box in one of these is an example, and does
not count. What looks like a box and is none is an error: a person may take it for one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec
from markdown_it import MarkdownIt

from clan_discovery.errors import InputError
from clan_discovery.gates.evidence import PREFIX, Evidence, EvidenceError, read_evidence
from clan_discovery.model import Problem, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from markdown_it.token import Token

_DEEPEST: Final = 100
"""How deep lists may be nested, counted as Markdown's parser does: a list and an item are two levels."""
_LONGEST: Final = 300
_BLOCKS: Final = ("blockquote", "code", "fence", "heading", "hr", "html_block", "lheading", "list", "paragraph")
_SPANS: Final = ("backticks", "escape")
_BOX: Final = re.compile(r"\[([ xX])\](?=\s|$)")
_WRONG_BOX: Final = re.compile(r"\[[ \t]*[^\[\]\n]{0,2}?[ \t]*\](?![(\[:])")
_NO_ITEM: Final = re.compile(
    r"[ \t]*(?:(?:[-*+]|[0-9]{1,9}[.)])[ \t]*\[[ \t]*[^\[\]\n]{0,2}?[ \t]*\](?![(\[:])|\[[ \txX]?\](?=\s|$))"
)
"""What looks like an item with a box, where Markdown sees text."""
_GATE_SPAN: Final = re.compile(r"\s?(?<!`)(`+)\s*gate:[^`]*\1")
_ITEM_HINT: Final = (
    "write `- [ ] ` at the start of a line, or `- [x] ` if you have done it; begin other text with a backslash"
)


class Box(msgspec.Struct, frozen=True):
    """An item with a box: its line, its text, whether a person has ticked it, and the evidence that it names."""

    line: int
    text: str
    is_ticked: bool
    evidence: tuple[Evidence, ...] = ()


def read_checklist(body: bytes, name: str) -> tuple[Box, ...]:
    """Return the boxes of a checklist, in its order. `name` is the file in messages.

    Raises:
        InputError: it is not UTF-8, has no box, or a box or the evidence of one is wrong. It has all problems found.
    """
    return _Reader(_decoded(body, name), name).boxes()


def _decoded(body: bytes, name: str) -> str:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        what = f"is not UTF-8: byte 0x{body[error.start]:02x}"
        raise InputError([Problem(where=f"{name}:{line}", what=what, hint="save it as UTF-8")]) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


class _Item(msgspec.Struct):
    """A list item; `line` is 0 without a box."""

    line: int = 0
    text: str = ""
    is_ticked: bool = False
    evidence: list[Evidence] = []


class _Reader:
    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._lines = text.split("\n")
        self._text = text
        self._found: list[_Item] = []
        self._open: list[_Item] = []
        self._problems: list[Problem] = []

    def boxes(self) -> tuple[Box, ...]:
        tokens = self._tokens()
        quotes = 0
        for index, token in enumerate(tokens):
            match token.type:
                case "blockquote_open" | "blockquote_close":
                    quotes += token.nesting
                case "list_item_open":
                    self._open.append(_Item())
                case "list_item_close":
                    self._open.pop()
                case "inline" if not quotes:
                    self._inline(token, is_head=tokens[index - 2].type == "list_item_open")
                case _:
                    pass
        if not self._found and not self._problems:
            hint = "write items such as `- [ ] The board shows the new machine`"
            self._problems.append(Problem(where=self._name, what="has no box", hint=hint))
        if self._problems:
            raise InputError(self._problems)
        return tuple(Box(item.line, item.text, item.is_ticked, tuple(item.evidence)) for item in self._found)

    def _tokens(self) -> Sequence[Token]:
        parser = MarkdownIt("zero", {"maxNesting": _DEEPEST, "html": True}).enable([*_BLOCKS, *_SPANS])
        tokens = parser.parse(self._text)
        for token in tokens:
            if token.level >= _DEEPEST - 2:  # the parser leaves out what is nested deeper
                self._complain(_line(token), 0, "a list is nested too deeply", "write the items below each other")
                break
        return tokens

    def _inline(self, token: Token, *, is_head: bool) -> None:
        """Read a paragraph or a heading; the head of an item is its first paragraph."""
        first, *others = token.content.split("\n")
        line = _line(token)
        if is_head:
            self._head(token, first, line)
        else:
            others, line = [first, *others], line - 1
        for number, text in enumerate(others, line + 1):
            if _NO_ITEM.match(text):
                self._complain(number, 1, f"{text.strip()[:40]!r} is no item with a box", _ITEM_HINT)
        for span, at in _gate_spans(token):
            self._evidence(span, at)

    def _head(self, token: Token, first: str, line: int) -> None:
        box = _BOX.match(first)
        if box is None:
            if wrong := _WRONG_BOX.match(first):
                hint = "write `[ ]`, or `[x]` if you have done it, and a space after it"
                self._complain(line, self._lines[line - 1].find("[") + 1, f"{wrong[0]!r} is no box", hint)
            return
        text = " ".join(_GATE_SPAN.sub("", token.content[box.end() :]).split())
        text = one_line(text.rstrip(":,; "))[:_LONGEST]
        if not text:
            text = one_line(" ".join(token.content[box.end() :].split()))[:_LONGEST]
        if not text:
            self._complain(line, self._lines[line - 1].find("[") + 1, "the box has no text", "write what is to be done")
            return
        item = self._open[-1]
        item.line, item.text, item.is_ticked = line, text, box[1] != " "
        self._found.append(item)

    def _evidence(self, span: str, line: int) -> None:
        """Add evidence to the innermost item with a box."""
        try:
            evidence = read_evidence(span)
        except EvidenceError as error:
            self._complain(line, self._lines[line - 1].find(PREFIX) + 1, str(error), error.hint)
            return
        for item in reversed(self._open):
            if item.line:
                if evidence not in item.evidence:
                    item.evidence.append(evidence)
                return
        what = f"`{PREFIX} {evidence.text}` belongs to no box"
        self._complain(line, self._lines[line - 1].find(PREFIX) + 1, what, "write it in an item with a box")

    def _complain(self, line: int, column: int, what: str, hint: str) -> None:
        where = f"{self._name}:{line}"
        if column > 0:
            where = f"{where}:{column}"
        self._problems.append(Problem(where=where, what=what, hint=hint))


def _line(token: Token) -> int:
    """Return the first line of a block, from 1."""
    if token.map is None:
        return 1
    return token.map[0] + 1


def _gate_spans(token: Token) -> Iterator[tuple[str, int]]:
    """Yield the code spans that name evidence, each with its line."""
    start = 0
    for child in token.children or ():
        if child.type == "code_inline" and child.content.strip().startswith(PREFIX):
            start = max(token.content.find(PREFIX, start), start)
            yield child.content.strip(), _line(token) + token.content.count("\n", 0, start)
            start += len(PREFIX)
