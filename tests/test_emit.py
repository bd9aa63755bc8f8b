"""Emitted files: sorted, byte-stable, and read correctly by the real programs."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clan_discovery.emit.diff import diff_lines
from clan_discovery.emit.file_sd import render_jobs
from clan_discovery.emit.snapshot import render_snapshot
from clan_discovery.emit.table import notes, render_table
from clan_discovery.errors import InputError
from clan_discovery.inventory.clan.declare import Options, declare
from clan_discovery.inventory.clan.wire import parse_inventory
from clan_discovery.model import (
    Belief,
    BeliefState,
    Declared,
    Endpoint,
    Exclusion,
    Expected,
    Exporter,
    Machine,
    Node,
    Reason,
    Resolution,
    Snapshot,
    Target,
)
from clan_discovery.publish.files import prepare, publish
from clan_discovery.resolve.resolver import Policy, resolve
from clan_discovery.syntax.counting import and_more, first_names, plural
from clan_discovery.syntax.target_file import EMPTY
from tests.support.fleet import inventory
from tests.support.programs import program, promtool_accepts

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def resolution(**labels: str) -> Resolution:
    """Return a resolution with one target."""
    target = Target(
        job="node", machine="a", address="a:1", labels=labels, observed=True, backend="t", because="", located=""
    )
    return Resolution(
        jobs=("empty", "node"), targets=(target,), missing=(), unknown=(), stray=(), ambiguous=(), excluded=(),
        beliefs=(), problems=(), additional_scrape_configs=(), taken_at=NOW,
    )  # fmt: skip


def test_a_file_has_exactly_two_keys_a_group_and_ends_with_a_newline() -> None:
    """One group a line; a job without targets is an empty list."""
    assert EMPTY == b"[]\n"
    assert render_jobs(resolution(instance="a", b="ü")) == {
        "empty": b"[]\n",
        "node": '[\n{"labels":{"b":"ü","instance":"a"},"targets":["a:1"]}\n]\n'.encode(),
    }


def test_a_label_with_nul_is_left_out_of_nix() -> None:
    """The target is kept: one foreign name must not prevent the output."""
    text = render_snapshot(resolution(a="x\0", b="ü", c="\ud800"), ".nix")
    assert (
        """
        labels = {
          b = "ü";
        };
        targets = [ "a:1" ];
"""
        in text
    )


def test_target_files_have_no_variable_of_vmagent() -> None:
    """A %{NAME} in a file is expanded by vmagent; the JSON escapes one of the two characters."""
    body = render_jobs(resolution(instance="%{HOME}%%{X}"))["node"]
    assert b"%{" not in body
    assert json.loads(body)[0]["labels"]["instance"] == "%{HOME}%%{X}"


def test_a_long_cell_widens_only_its_row() -> None:
    """Padding is limited, so the table grows linearly with its rows."""
    found = resolution(instance="a")
    long = msgspec.structs.replace(found.targets[0], address="x" * 100_000)
    lines = [line for line, _ in render_table(msgspec.structs.replace(found, targets=(*found.targets, long)))]
    assert [len(line) > 100_000 for line in lines] == [False, False, True, False]
    assert all(len(line) < 1000 for line in (*lines[:2], lines[3]))


def test_every_exclusion_reason_has_words_in_the_table() -> None:
    """Also the newest one."""
    excluded = tuple(Exclusion(name="x", reason=r, detail="", by="t") for r in get_args(Reason))
    found = notes(msgspec.structs.replace(resolution(instance="a"), excluded=excluded))
    assert len({line for line in found if line.startswith("excluded: 1 ")}) == len(excluded)


def world(names: list[str], tags: list[str], labels: Mapping[str, str], hosts: list[str]) -> Resolution:
    """Resolve machines with these names and labels, some of them seen."""
    document = inventory({name: {"tags": list(tags)} for name in names}, exporter={"labels": dict(labels)})
    try:
        declared = declare(parse_inventory(json.dumps(document).encode(), "inv"), Options())
    except InputError:
        declared = Declared()
    nodes = tuple(Node(name, ("100.64.0.1",), labels={"__meta_x": name}) for name in names[::2])
    endpoints = tuple(
        Endpoint(host=host, exporter=Exporter(type="node", port=1), machine=host, because="", backend="t")
        for host in hosts
    )
    snapshot = Snapshot(backend="t", nodes=nodes, endpoints=endpoints, suffix="ts.net")
    return resolve(declared, [Belief(backend="t", state=BeliefState.FRESH, snapshot=snapshot)], [], Policy(), now=NOW)


wild = st.one_of(
    st.text(min_size=1, max_size=12),
    st.text("ab-_.\"\\$%{}'é\n\x00/ ", min_size=1, max_size=12),
    st.sampled_from(["a" * 300, "ü" * 300, "-x", "x-", "..", "{{", "${x}", "outPath", "\ud800", "a\u2028b"]),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    st.lists(wild, min_size=1, max_size=4, unique=True),
    st.lists(wild, max_size=2),
    st.dictionaries(wild, wild, max_size=2),
    st.lists(wild, max_size=2),
)
def test_any_name_gives_a_valid_file_or_a_report(
    names: list[str], tags: list[str], labels: dict[str, str], hosts: list[str]
) -> None:
    """No crash, no invalid label, and nothing dropped without a message."""
    program("promtool")
    found = world(names, tags, labels, hosts)
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "targets"
        prepare(directory)
        publish(directory, render_jobs(found), Path(place) / "tmp")
        promtool_accepts(directory)
    targets = {t.machine for t in found.targets}
    assert {host for host in hosts if "\ud800" not in host} <= targets
    assert set(hosts) <= targets | {e.name for e in found.excluded if e.reason == "inexpressible"}


def test_an_invalid_label_is_left_out() -> None:
    """The target is kept and the label reported once.

    An invalid parameter excludes the target.
    """
    a = Machine(name="a")
    labels: list[tuple[tuple[str, str], ...]] = [(), (("a-b", "x"), ("c", "y")), (("a", "\ud800"), ("c", "y"))]
    exporters = [Exporter(type="node", port=port, labels=pairs) for port, pairs in enumerate(labels, 1)]
    exporters.append(Exporter(type="node", port=9, params=(("a[]", "x"),)))
    expected = tuple(
        Expected(machine=a, exporter=exporter, instance="i", role="exporter", because="") for exporter in exporters
    )
    found = resolve(Declared(machines=(a,), expected=expected, domain="home.arpa"), [], [], Policy(), now=NOW)
    assert [t.address for t in found.targets] == ["a.home.arpa:1", "a.home.arpa:2", "a.home.arpa:3"]
    assert [(t.labels.get("a"), t.labels.get("a-b"), t.labels.get("c")) for t in found.targets] == [
        (None, None, None),
        (None, None, "y"),
        (None, None, "y"),
    ]
    assert [(e.name, e.reason) for e in found.excluded] == [("a", "inexpressible")]
    said = "\n".join(map(str, found.problems))
    assert "job node: a label is left out: 'a-b' is no label name" in said
    assert "job node: labels left out because their values are not valid Unicode: a" in said


def test_a_line_diff_is_a_unified_diff() -> None:
    """Three lines of context; a missing final newline counts, and control characters are escaped."""
    old = "".join(f"{line}\n" for line in "abcdefgh")
    wanted = ["--- f", "+++ f", "@@ -2,7 +2,7 @@", " b", " c", " d", "-e", "+\\x1b", " f", " g", " h"]
    assert list(diff_lines(old, old.replace("e", "\x1b"), "f")) == wanted
    assert list(diff_lines("a\n", "a", "f")) == ["--- f", "+++ f", "@@ -1,2 +1 @@", " a", "-"]


def test_a_long_text_is_compared_as_a_set_of_lines() -> None:
    """Old lines first, each as often as it is surplus; moved lines are not listed."""
    same = [f"{line}\n" for line in range(3_000)]
    old, new = "".join(["a\n", "b\n", "b\n", *same]), "".join([*reversed(same), "x\n", "b\n"])
    assert list(diff_lines(old, new, "f")) == ["--- f", "+++ f", "-a", "-b", "+x"]


def test_counts_and_shortened_lists() -> None:
    """A count of one has no plural; a list names its first items and counts the rest."""
    assert [plural(count, "target") for count in (0, 1, 2)] == ["0 targets", "1 target", "2 targets"]
    assert [and_more(total, 2) for total in (0, 2, 5)] == ["", "", "and 3 more"]
    assert [first_names(list(names), 2) for names in ("", "ab", "abc")] == ["", "a, b", "a, b and 1 more"]
