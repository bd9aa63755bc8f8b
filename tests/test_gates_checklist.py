"""Read checklists: real boxes, broken ones, and what only looks like a box."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.errors import InputError
from clan_discovery.gates.checklist import read_checklist
from clan_discovery.gates.evidence import KINDS, Evidence, EvidenceError, read_evidence
from tests.support.growth import PARTS, assert_linear, cpu_time

if TYPE_CHECKING:
    from clan_discovery.gates.checklist import Box


def read(text: str | bytes) -> tuple[Box, ...]:
    """Read a checklist."""
    return read_checklist(text if isinstance(text, bytes) else text.encode(), "c.md")


def boxes(text: str | bytes) -> list[tuple[int, str, bool]]:
    """Return the line, the text and the tick of each box."""
    return [(box.line, box.text, box.is_ticked) for box in read(text)]


def refused(text: str | bytes) -> list[str]:
    """Return the messages of a broken checklist."""
    with pytest.raises(InputError) as found:
        read(text)
    return [str(problem) for problem in found.value.problems]


def test_boxes_are_read_with_their_lines_and_evidence() -> None:
    text = """# Title

- [ ] One: `gate: verify`
- [x] Two `code` stays, `gate: unit nginx.service`, `gate: verify db  web`
  and goes on `gate: http https://a.example/x?y=1 401`
  * [X] nested `gate: unpublished`

    more of the nested item: `` gate: rule Disk ``
1. [ ] numbered
2) [x] other
+ [ ] plus
"""
    assert boxes(text) == [
        (3, "One", False),
        (4, "Two `code` stays,, and goes on", True),
        (6, "nested", True),
        (9, "numbered", False),
        (10, "other", True),
        (11, "plus", False),
    ]
    assert [[evidence.text for evidence in box.evidence] for box in read(text)][:3] == [
        ["verify"],
        ["unit nginx.service", "verify db web", "http https://a.example/x?y=1 401"],
        ["unpublished", "rule Disk"],
    ]


@pytest.mark.parametrize(
    "text",
    [
        "- [ ] a\r\n- [x] b\r\n",
        "\ufeff- [ ] a\n- [x] b",
        "- [ ] a\r- [x] b\r",
        "-   [ ] a\n-\t[x] b\n",
        "   - [ ] a\n   - [x] b\n",
    ],
)
def test_line_endings_byte_order_mark_and_indentation_do_not_matter(text: str) -> None:
    assert boxes(text) == [(1, "a", False), (2, "b", True)]


@pytest.mark.parametrize(
    "text",
    [
        "```\n- [ ] example\n-[ ] example `gate: nonsense`\n```\n",
        "~~~ markdown\n- [y] example\n~~~\n",
        "    - [ ] example\n",
        "> - [x] quoted `gate: nonsense`\n> -[ ] wrong\n",
        "<!--\n- [ ] commented out\n-->\n",
        "- [link](https://example.org)\n- [a][b]\n- [c]: d\n- [release] notes\n",
        "- \\[ ] escaped\n- `[ ]` code\n- text [ ] in the middle\n",
    ],
)
def test_examples_are_no_boxes(text: str) -> None:
    """In code, quotes and comments; links, and what is escaped."""
    assert boxes(f"{text}\n# End\n\n- [ ] real\n") == [(text.count("\n") + 4, "real", False)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- [y] a", "c.md:1:3: '[y]' is no box (write `[ ]`, or `[x]` if you have done it, and a space after it)"),
        ("- [] a", "c.md:1:3: '[]' is no box"),
        ("- [ x] a", "c.md:1:3: '[ x]' is no box"),
        ("- [x]a", "c.md:1:3: '[x]' is no box"),
        ("- [\u2713] a", "c.md:1:3: '[\u2713]' is no box"),
        ("-[ ] a", "c.md:1:1: '-[ ] a' is no item with a box"),
        ("*[x] a", "c.md:1:1: '*[x] a' is no item with a box"),
        ("1.[x] a", "c.md:1:1: '1.[x] a' is no item with a box"),
        ("[ ] a", "c.md:1:1: '[ ] a' is no item with a box"),
        ("- [ ] a\n-[x] b", "c.md:2:1: '-[x] b' is no item with a box"),
        ("- [ ] a\n  [ ] b", "c.md:2:1: '[ ] b' is no item with a box"),
        ("- [ ]", "c.md:1:3: the box has no text (write what is to be done)"),
        ("- [ ] a `gate: veriy`", "c.md:1:10: 'veriy' is no evidence (did you mean 'verify'?)"),
        ("- [ ] a `gate:`", "c.md:1:10: '' is no evidence (write one of: gate: verify,"),
        ("- [ ] a\n  b `gate: unit`", "c.md:2:6: `gate: unit` alone is incomplete (write `gate: unit NAME.service`)"),
        ("text `gate: verify`\n\n- [ ] a", "c.md:1:7: `gate: verify` belongs to no box"),
        ("- [ ] a\n\n# `gate: verify`", "c.md:3:4: `gate: verify` belongs to no box"),
        ("", "c.md: has no box (write items such as"),
        ("# Title\n\n- item", "c.md: has no box"),
        (b"- [ ] a\n- [x] \xff", "c.md:2: is not UTF-8: byte 0xff (save it as UTF-8)"),
        ("- [ ] a\n".encode("utf-16"), "c.md:1: is not UTF-8"),
    ],
)
def test_broken_boxes_and_evidence_have_a_place_and_a_fix(text: str | bytes, message: str) -> None:
    (found,) = refused(text)
    assert found.startswith(message)
    assert "(" in found


def test_all_problems_are_reported_at_once() -> None:
    assert len(refused("- [y] a\n- [z] b `gate: x`\n\n-[ ] c\n")) == 4


def test_lists_that_are_nested_too_deeply_are_refused() -> None:
    """The parser leaves out what is deeper: a box there would count as done."""
    deep = "".join("  " * level + f"- [ ] item {level}\n" for level in range(200))
    assert any("nested too deeply" in message for message in refused(deep))
    shallow = "".join("  " * level + f"- [ ] item {level}\n" for level in range(40))
    assert len(read(shallow)) == 40


def test_time_grows_linearly_with_the_items() -> None:
    """8,000 items take 8 times as long as 1,000."""
    part = b"".join(b"- [ ] item %d `gate: unit u%d`\n" % (number, number % 7) for number in range(1000))
    whole = part * PARTS

    def measure() -> tuple[float, float]:
        return cpu_time(lambda: read(part)), cpu_time(lambda: read(whole))

    assert_linear(measure)


def lines_of(body: bytes) -> list[str]:
    """Return what is printed of a checklist: the text of its boxes, or its problems."""
    try:
        return [box.text for box in read(body)]
    except InputError as error:
        return [str(problem) for problem in error.problems]


@given(st.text(alphabet="-*+[]xX y`>\n\r\t 1.)#\\gate:unitvrfy\u2713\x00\x1b", max_size=80))
def test_any_text_is_boxes_or_problems(text: str) -> None:
    """Nothing of it reaches a terminal as a control character."""
    lines = lines_of(text.encode())
    assert lines
    assert all(line.isprintable() for line in lines)


@given(st.binary(max_size=60))
def test_any_bytes_are_boxes_or_problems(body: bytes) -> None:
    assert lines_of(body)


@pytest.mark.parametrize(
    ("span", "words"),
    [
        ("gate: http", "`gate: http` alone is incomplete"),
        ("gate: http ftp://a", "is no URL with http:// or https://"),
        ("gate: http http://", "is no URL"),
        ("gate: http http://a:99999/", "is no URL"),
        ("gate: http http://a/\u00e4", "has a character that no URL has"),
        ("gate: http http://me:hunter2@a/", "the URL has a user or a password"),
        ("gate: http http://a/ 99", "'99' is no HTTP status"),
        ("gate: http http://a/ ok", "'ok' is no HTTP status"),
        ("gate: http http://a/ 200 201", "with 3 words"),
        ("gate: unit a;b", "'a;b' is no name of a systemd unit"),
        ("gate: unit *", "is no name of a systemd unit"),
        ("gate: unpublished now", "with 1 words"),
        ("gate: rule", "alone is incomplete"),
        ("gate: shell rm", "'shell' is no evidence"),
    ],
)
def test_wrong_evidence_is_refused(span: str, words: str) -> None:
    with pytest.raises(EvidenceError) as found:
        read_evidence(span)
    assert words in str(found.value)
    assert found.value.hint
    assert "hunter2" not in str(found.value)


def test_every_kind_of_evidence_is_read() -> None:
    spans = ["verify", "http http://a 204", "unit -.mount", "unpublished", "rule clan:expected"]
    assert [read_evidence(f"gate: {span}").text for span in spans] == spans
    assert {read_evidence(f"gate:{span}").kind for span in spans} == set(KINDS)
    assert read_evidence("gate:  verify   DB ") == Evidence("verify", ("DB",))


def test_time_grows_linearly_with_a_run_of_backticks() -> None:
    """In the text of one item."""

    def measure() -> tuple[float, float]:
        part, whole = (b"- [ ] a %b b\n" % (b"`" * length) for length in (30_000, 30_000 * PARTS))
        return cpu_time(lambda: read(part)), cpu_time(lambda: read(whole))

    assert_linear(measure)
