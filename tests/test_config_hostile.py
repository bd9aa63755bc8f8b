"""Hostile-input tests of the config's parser: it raises only InputError, in linear time and bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clan_discovery.config.load import load_config
from clan_discovery.errors import InputError
from tests.support.growth import PARTS, assert_linear

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Json

ROOT: Final = Path(__file__).resolve().parent.parent
EXAMPLES: Final = [(ROOT / f"examples/{name}/config.yaml").read_bytes() for name in ("homelab", "static")]


def lines_of(tmp_path: Path, text: str | bytes, name: str = "c.yaml") -> list[str]:
    """Return the messages about a config, without the directory; empty if it is valid."""
    file = tmp_path / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    try:
        load_config(file)
    except InputError as error:
        return str(error).replace(f"{tmp_path}/", "").splitlines()
    return []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("!!timestamp 2001-99-99", "c.yaml:1:13: labels.a: '2001-99-99' is a date in YAML (if it is text, put it in"),
        ("2001-01-01", "labels.a: '2001-01-01' is a date in YAML"),
        ("2001-99-99", "labels.a: '2001-99-99' is a date in YAML"),
        ("2001-01-01 25:61:61", "is a date in YAML"),
        ("!!binary '*'", "values with the tag 'binary' are not supported"),
        ("!!int x", "'x' is not a number or boolean"),
        ("!!int ''", "is not a number or boolean"),
        ("!!int 0x", "is not a number or boolean"),
        ("0b_", "is not a number or boolean"),
        ("0x__", "is not a number or boolean"),
        ("9" * 5000, "is not a number or boolean"),
        ("1" + "_0" * 30, "is not a number or boolean"),
        ("190:20:30", "is not a number or boolean"),
        ("190:20:30.15", "is not a number or boolean"),
        ("!!float x", "is not a number or boolean"),
        (".inf", "is not a number or boolean"),
        (".nan", "is not a number or boolean"),
        ("1.0e+400", "is not a number or boolean"),
        ("!!bool maybe", "is not a number or boolean"),
        ("=", "has a meaning of its own in YAML"),
        ("<<", "has a meaning of its own in YAML"),
        ("!!set {a, b}", "values with the tag 'set' are not supported"),
        ("!!omap [a: 1]", "values with the tag 'omap' are not supported"),
        ("!!pairs [a: 1]", "values with the tag 'pairs' are not supported"),
        ("!!python/name:os.system x", "values with the tag 'python/name:os.system' are not supported"),
        ("!mine [x]", "values with the tag '!mine' are not supported"),
        ("!!seq {a: 1}", "values with the tag 'seq' are not supported"),
        ("!!str [a]", "values with the tag 'str' are not supported"),
        ("*gone", "found undefined alias 'gone'"),
        ("&a [*a]", "alias 'a' is inside the value that it names"),
        ("{? [a] : b}", "a key must be text, not a list or a mapping"),
        ("{? {a: b} : c}", "a key must be text, not a list or a mapping"),
        ("{? &x a : b, *x : c}", "a key must be text, not an alias"),
        ("{1: x}", "labels.a.1: the key '1' is not text in YAML (put it in quotes)"),
        ("{on: x}", "the key 'on' is not text in YAML"),
        ("{2001-99-99: x}", "the key '2001-99-99' is not text in YAML"),
        ("{!!binary x: y}", "the key 'x' is not text in YAML"),
        ("{<<: 1}", "labels.a.<<: only a mapping or a list of mappings can be merged"),
        ("{<<: [1, 2]}", "only a mapping or a list of mappings can be merged"),
        ("{<<: [{b: c}, [d]]}", "only a mapping or a list of mappings can be merged"),
        ("x}\n---\na: {", "it has more than one document"),
        ("x\0", "the character U+0000 is not allowed"),
        ("\x1b[31m", "the character U+001B is not allowed"),
        ("\ufffe", "the character U+FFFE is not allowed"),
    ],
)
def test_unsupported_yaml_is_refused_with_one_line(tmp_path: Path, value: str, said: str) -> None:
    """With the position, and without an exception of PyYAML or Python."""
    lines = lines_of(tmp_path, f"labels: {{a: {value}}}\n")
    assert said in lines[0]
    assert lines[0].startswith("c.yaml:")
    assert len(lines[0]) < 250
    assert len(lines) <= 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("labels: {a: '5', b: !!str 5}", {"a": "5", "b": "5"}),
        ("exporters: {node: {labels: &x {a: b, c: d}}}\nlabels: {<<: *x, c: e}", {"a": "b", "c": "e"}),
        ("labels: {<<: [{a: one}, {a: two, b: three}]}", {"a": "one", "b": "three"}),
        ("labels: !!map {a: b}", {"a": "b"}),
        ("labels: {a: &t text, b: *t}", {"a": "text", "b": "text"}),
        ('labels: {"<<": x}', None),
    ],
)
def test_strings_aliases_and_merge_keys_are_supported(tmp_path: Path, text: str, value: dict[str, str] | None) -> None:
    """A merged mapping is complete."""
    lines = lines_of(tmp_path, text)
    if value is None:
        assert "is no label name" in lines[0]
    else:
        assert load_config(tmp_path / "c.yaml").config.labels == value


@pytest.mark.parametrize(
    ("text", "port"), [("0x10", 16), ("0b11", 3), ("0o17", None), ("017", 15), ("1_0", 10), ("+7", 7), ("0", None)]
)
def test_numbers_are_read_as_by_pyyaml(tmp_path: Path, text: str, port: int | None) -> None:
    """Integers and floats of YAML 1.1."""
    (tmp_path / "c.yaml").write_text(f"exporters: {{node: {{port: {text}}}}}")
    if port is None:
        assert "invalid port" in lines_of(tmp_path, f"exporters: {{node: {{port: {text}}}}}")[0]
    else:
        assert load_config(tmp_path / "c.yaml").config.exporters["node"].port == port


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"labels": {"a": NaN}}', "NaN is not a JSON number"),
        ('{"labels": {"a": 1e999}}', "1e999 is too large a number"),
        ('{"labels": {"a": ' + "9" * 5000 + "}}", "999... is too large a number"),
        ('{"labels": {"a": 18446744073709551616}}', "must be a string, not 18446744073709551616"),
        ('{"labels": {"a": "\\ud800"}}', "c.json:1:18: labels.a: holds half of a surrogate pair"),
        ('{"server": "\\uDFFFx"}', "c.json:1:12: server: holds half of a surrogate pair"),
        ('{"a": ' + "[" * 100_000, "holds more than 100,000 values"),
        ('{"a": ' + "[" * 50_000, "nested too deeply"),
        ("[" + "1," * 100_001 + "1]", "holds more than 100,000 values"),
        ('\ufeff{"x": 1}', "unknown key"),
        ('{"a\\u0000": 1}', "unknown key"),
    ],
)
def test_unsupported_json_is_refused_with_one_line(tmp_path: Path, text: str, said: str) -> None:
    """With the position, if it is known."""
    assert said in "\n".join(lines_of(tmp_path, text, "c.json"))


LARGE: Final[dict[str, Callable[[int], str]]] = {
    "unknown keys": lambda n: "".join(f"key{i}: 1\n" for i in range(3 * n)),
    "unknown keys at many paths": lambda n: "exporters:\n" + "".join(f"  e{i}: {{prot: 1}}\n" for i in range(20 * n)),
    "wrong labels": lambda n: "labels:\n" + "".join(f"  bad-{i}: x\n" for i in range(20 * n)),
    "wrong values": lambda n: "labels:\n" + "".join(f"  good{i}: {i}\n" for i in range(20 * n)),
    "dates": lambda n: "labels:\n" + "".join(f"  good{i}: 2001-01-01\n" for i in range(20 * n)),
    "the same key": lambda n: "labels:\n" + "  same: x\n" * (20 * n),
    "wrong targets": lambda n: "backends: {static: {lab: {targets: {node: [" + "'a b'," * (20 * n) + "]}}}}",
    "a long list": lambda n: "a: [" + "1," * (2000 * n) + "]",
    "empty collections": lambda n: "a: [" + "[]," * (1000 * n) + "]",
    "tags": lambda n: "".join(f"%TAG !{i}! x\n" for i in range(200 * n)) + "---\na: b\n",
    "one scalar": lambda n: "labels: {a: " + "x" * (3000 * n) + "}",
    "aliases": lambda _: "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1},' * 9}]\n" for i in range(1, 12)),
    "merges": lambda _: (
        "a0: &a0 {x: y}\n" + "".join(f"a{i}: &a{i} {{<<: [{f'*a{i - 1},' * 9}]}}\n" for i in range(1, 12))
    ),
    "quotes": lambda n: "a: '" + "''" * (1500 * n) + "'",
    "comments": lambda n: "# x\n" * (900 * n),
    "documents": lambda n: "---\n" * (900 * n),
    "a long key": lambda n: "? " + "k" * (2000 * n) + "\n:\n" + "  - =\n" * (5 * n),
    "a long key in JSON": lambda n: json.dumps({"backends": {"static": {"k" * (1000 * n): [1] * (2 * n)}}}),
    "long keys, nested": lambda n: (
        "".join(" " * i + "k" * 290 + ":\n" for i in range(60)) + (" " * 60 + "- =\n") * (10 * n)
    ),
    "a long tag": lambda n: "%TAG !e! " + "x" * (2000 * n) + "\n---\n" + "- !e!x b\n" * (20 * n),
}
SIZE: Final = 1000
CHILD: Final = """
import gc, io, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
gc.disable()  # as the program does
from clan_discovery.cli.main import main
for config in sys.argv[1:]:
    began = time.process_time()
    code = main(["check", "-c", config], sys.stdout, err := io.StringIO())
    print(time.process_time() - began)
sys.stderr.write(err.getvalue())
sys.exit(code)
"""


@pytest.mark.parametrize("name", LARGE)
def test_large_config_is_refused_in_linear_time(tmp_path: Path, name: str) -> None:
    """At most 22 lines of output, in a process of 400 MB."""
    ending = "json" if "JSON" in name else "yaml"
    # The first run imports modules, and is not measured.
    configs = [tmp_path / f"{part}.{ending}" for part in ("first", "part", "whole")]
    for config, size in zip(configs, (1, SIZE // PARTS, SIZE), strict=True):
        config.write_text(LARGE[name](size))

    def measure() -> tuple[float, float]:
        words = [sys.executable, "-c", CHILD, *map(str, configs)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr[-500:]
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") <= 22
        _, part, whole = map(float, done.stdout.split())
        return part, whole

    assert_linear(measure)


def test_many_problems_are_cut_and_counted(tmp_path: Path) -> None:
    """The first ones are printed."""
    lines = lines_of(tmp_path, "".join(f"key{n}: 1\n" for n in range(3000)))
    assert lines[0].startswith("c.yaml:1:1: key0: unknown key")
    assert len(lines) == 21
    assert lines[20] == "and 2,980 more"
    lines = lines_of(tmp_path, "labels: {}\n" * 16 + "".join(f"key{n}: 1\n" for n in range(30)))
    assert lines[20] == "and 25 more"


PIECES: Final = (
    *(b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"!!timestamp ", b"!!int ", b"&a ", b"*a", b"<<: ", b"? ", b"[", b"{"),
    *(b"- ", b"\t", b"|", b"'", b'"', b"\\ud800", b"9" * 50, b"1e400", b"2001-99-99", b"%TAG", b"---", b": ", b"\r"),
)
MUTATIONS: Final = st.lists(st.tuples(st.integers(0, 600), st.integers(0, 8), st.sampled_from(PIECES)), max_size=4)


def check_bytes(directory: Path, body: bytes, name: str) -> None:
    """Load bytes; only InputError may escape, and each complaint has a place and is one line."""
    for line in lines_of(directory, body, name):
        assert line.startswith((name, "and "))
        assert "\n" not in line


@given(body=st.sampled_from(EXAMPLES), mutations=MUTATIONS)
@example(body=b"labels: {a: !!timestamp 2001-99-99}", mutations=[])
def test_damaged_example_raises_only_input_error(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, mutations: list[tuple[int, int, bytes]]
) -> None:
    """Bytes of the examples are cut, replaced and inserted."""
    for at, length, new in mutations:
        body = body[:at] + new + body[at + length :]
    check_bytes(tmp_path_factory.getbasetemp(), body, "damaged.yaml")


@given(st.binary(max_size=60))
def test_arbitrary_bytes_raise_only_input_error(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    """As YAML and as JSON."""
    for name in ("any.yaml", "any.json"):
        check_bytes(tmp_path_factory.getbasetemp(), body, name)


@given(st.text("[]{},:-?&*!|>'\"%@`#\n\t ab<0x1_.e~=", max_size=40))
def test_arbitrary_yaml_syntax_raises_only_input_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Text of YAML's special characters reaches more of the parser."""
    for name in ("any.yaml", "any.json"):
        check_bytes(tmp_path_factory.getbasetemp(), text.encode(), name)


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@given(
    key=st.sampled_from(["inventory", "backends", "exporters", "labels", "policy", "output", "instances", "state"]),
    value=JSON,
)
def test_arbitrary_value_of_any_key_raises_only_input_error(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Json
) -> None:
    """As JSON and as YAML."""
    body = json.dumps({key: value}).encode()
    for name in ("any.yaml", "any.json"):
        check_bytes(tmp_path_factory.getbasetemp(), body, name)
