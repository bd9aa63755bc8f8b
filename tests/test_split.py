"""`output.split`: several files of one job. Every target is in one of them, at every instant."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clan_discovery.emit.file_sd import ListCache, render_jobs
from clan_discovery.errors import PublishError
from clan_discovery.publish.files import prepare, publish, read_jobs
from clan_discovery.syntax.target_file import (
    EMPTY,
    MARK,
    Split,
    file_number,
    job_of_file,
    join_files,
    join_targets,
    parse_target_file,
)
from tests.support.fleet import fleet, inventory
from tests.test_history import resolution, target

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

COUNTS = st.integers(1, 9)
MACHINES = [f"m{number}" for number in range(60)]


def target_list(machines: Iterable[str]) -> bytes:
    """Return the list of a job with one target of each machine."""
    groups = [{"labels": {MARK: "true", "machine": machine}, "targets": [f"{machine}:1"]} for machine in machines]
    return join_targets([json.dumps(group).encode() for group in groups])


def machines_in(directory: Path, job: str = "node") -> set[str]:
    """Return the machines in all target files of a job that are there."""
    body = read_jobs(directory).get(job, EMPTY)
    return {labels["machine"] for _, labels in parse_target_file(body) or ()}


# --- which file -------------------------------------------------------------------------------------------------------


def test_the_file_of_a_machine_never_changes() -> None:
    """On no platform and with no later version: all files would be written again."""
    assert [file_number(name, 64) for name in ("db", "web", "ü", "")] == [3, 52, 55, 52]
    assert [file_number("db", count) for count in (1, 2, 3, 5, 100, 1024)] == [0, 1, 1, 3, 67, 67]


@given(st.text(max_size=20), st.integers(1, 1023))
def test_one_file_more_moves_targets_into_the_new_file_alone(machine: str, count: int) -> None:
    """So that the order of writing is enough (see `file_number`)."""
    assert file_number(machine, count) < count
    assert file_number(machine, count + 1) in {file_number(machine, count), count}


@pytest.mark.parametrize("count", [2, 64, 1024])
def test_files_have_about_the_same_size(count: int) -> None:
    """With a power of two: within 5 standard deviations of the mean."""
    found = [0] * count
    for number in range(64 * count):
        found[file_number(f"machine-{number}", count)] += 1
    assert all(64 - 40 < size < 64 + 40 for size in found)


@given(st.lists(st.text(max_size=8), max_size=30, unique=True), st.integers(1, 70))
def test_the_files_hold_the_list(machines: list[str], count: int) -> None:
    """Each target is in one file, in the order of the list."""
    whole = target_list(machines)
    split = Split(count)
    files = split.files({"node": whole, "a": EMPTY})
    assert sorted(files) == sorted([*split.names("node"), *split.names("a")])
    assert sorted(
        join_files(files[name] for name in split.names("node")).replace(b",\n", b"\n").split(b"\n")
    ) == sorted(whole.replace(b",\n", b"\n").split(b"\n"))
    for name in split.names("node"):
        found = [labels["machine"] for _, labels in parse_target_file(files[name]) or ()]
        assert found == [machine for machine in machines if split.name("node", machine) == name]
    assert {files[name] for name in split.names("a")} == {EMPTY}


def test_names() -> None:
    """One file has the name of its job; a scrape config has a pattern for several."""
    split = Split(by_job={"node": 2, "systemd": 1})
    assert [split.names(job) for job in ("node", "systemd", "other")] == [["node.0", "node.1"], ["systemd"], ["other"]]
    assert [split.pattern(job) for job in ("node", "systemd", "other")] == ["node.*", "systemd", "other"]
    assert [split.count(job) for job in ("node", "other")] == [2, 1]
    assert Split(3).names("x") == ["x.0", "x.1", "x.2"]


def test_the_job_of_a_file() -> None:
    """A number without leading zeros, below 1024, unless there is a job of the whole name."""
    names = ("node.3", "node", "node.03", "node.1023", "node.1024", "node.x", ".3", "node.3.4")
    assert [job_of_file(name, ()) for name in names] == [
        *("node", "node", "node.03", "node", "node.1024", "node.x", ".3", "node.3"),
    ]
    assert job_of_file("node.3", {"node.3"}) == "node.3"


# --- writing ----------------------------------------------------------------------------------------------------------


class _Renames:
    """Calls `before` before each rename of this process. An audit hook cannot be removed: it is installed once."""

    def __init__(self) -> None:
        self.before: Callable[[], None] | None = None
        sys.addaudithook(self._hook)

    def _hook(self, event: str, _: tuple[object, ...]) -> None:
        if event == "os.rename" and self.before is not None:
            self.before()

    @contextlib.contextmanager
    def watched(self, before: Callable[[], None]) -> Generator[None]:
        """Call `before` before each rename in the block."""
        self.before = before
        try:
            yield
        finally:
            self.before = None


@pytest.fixture(scope="module")
def renames() -> _Renames:
    """Return what watches renames."""
    return _Renames()


def write(directory: Path, split: Split, machines: Iterable[str], keep: frozenset[str] = frozenset()) -> None:
    """Publish the job `node`."""
    files = split.files({} if keep else {"node": target_list(machines)})
    publish(directory, files, directory.parent / "tmp", keep=keep)


STEPS = st.lists(st.tuples(COUNTS, st.none() | st.integers(0, 9)), min_size=1, max_size=4)


@settings(max_examples=20)
@given(first=COUNTS, steps=STEPS)
def test_no_target_is_ever_in_no_file(renames: _Renames, first: int, steps: list[tuple[int, int | None]]) -> None:
    """Between any two renames, also of cycles with other numbers of files that each end after some renames."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "targets"
        prepare(directory)
        write(directory, Split(first), MACHINES)
        for count, last in steps:
            left = last

            def check() -> None:
                nonlocal left
                assert machines_in(directory) == set(MACHINES)
                if left is not None:
                    left -= 1
                    if left < 0:
                        raise OSError(5, "Input/output error")

            with renames.watched(check), contextlib.suppress(PublishError):
                write(directory, Split(count), MACHINES)
            assert machines_in(directory) == set(MACHINES)
        count = steps[-1][0]
        write(directory, Split(count), MACHINES)
        there = {file.stem for file in directory.glob("[!.]*") if file.read_bytes() != EMPTY}
        assert there <= set(Split(count).names("node"))
        assert read_jobs(directory).keys() == {"node"}


def test_one_changed_target_is_one_written_file(tmp_path: Path) -> None:
    """The others keep their inodes."""
    directory = tmp_path / "targets"
    prepare(directory)
    write(directory, Split(64), MACHINES)
    before = {file.name: file.stat().st_ino for file in directory.iterdir()}
    changed = target_list(MACHINES).replace(b'"m7:1"', b'"m7:2"')
    done = publish(directory, Split(64).files({"node": changed}), tmp_path / "tmp")
    assert done.written == (Split(64).name("node", "m7"),)
    after = {file.name: file.stat().st_ino for file in directory.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {f"{done.written[0]}.json"}


def test_a_kept_job_keeps_all_its_files(tmp_path: Path) -> None:
    """Whatever their number; another job whose name looks like one of its files is not kept."""
    directory = tmp_path / "targets"
    prepare(directory)
    write(directory, Split(4), MACHINES)
    before = {file.name: file.read_bytes() for file in directory.iterdir()}
    for split in (Split(2), Split(), Split(9)):
        write(directory, split, (), keep=frozenset({"node"}))
        assert {file.name: file.read_bytes() for file in directory.iterdir()} == before
    done = publish(directory, {"node.3": EMPTY}, tmp_path / "tmp", keep=frozenset({"node"}))
    assert (done.written, done.emptied) == (("node.3",), ())


def test_a_file_of_somebody_else_with_the_name_of_one_of_ours(tmp_path: Path) -> None:
    """Overwritten and reported where it is needed, left alone where it is not."""
    directory = tmp_path / "targets"
    prepare(directory)
    for number in (1, 3):
        (directory / f"node.{number}.json").write_text('[{"targets": ["x:1"]}]')
    done = publish(directory, Split(2).files({"node": target_list(MACHINES)}), tmp_path / "tmp")
    assert (done.replaced, done.foreign) == (("node.1",), ("node.3",))
    assert (directory / "node.3.json").read_text() == '[{"targets": ["x:1"]}]'
    assert machines_in(directory) == set(MACHINES)


def test_a_job_with_the_longest_name(tmp_path: Path) -> None:
    """Its files are ours, too."""
    job = "j" * 200
    prepare(tmp_path / "targets")
    files = Split(3).files({job: target_list(MACHINES)})
    publish(tmp_path / "targets", files, tmp_path / "tmp")
    assert machines_in(tmp_path / "targets", job) == set(MACHINES)
    done = publish(tmp_path / "targets", {job: EMPTY}, tmp_path / "tmp")
    assert len(done.emptied) == sum(body != EMPTY for body in files.values())


# --- the commands -----------------------------------------------------------------------------------------------------


def place(home: Path, split: Json = None, names: Iterable[str] = MACHINES, **output: Json) -> Path:
    """Write a config with one job, its inventory and its tailnet; return the config."""
    output = {"directory": "targets", **output}
    if split is not None:
        output["split"] = split
    document: dict[str, Json] = {
        "inventory": {"file": "inventory.json"},
        "backends": {"tailscale": {"tailnet": {"status_file": "status.json"}}},
        "output": output,
        "state": "state",
    }
    (home / "config.json").write_text(json.dumps(document))
    (home / "inventory.json").write_text(json.dumps(inventory([*names])))
    (home / "status.json").write_text(json.dumps(fleet(names)))
    return home / "config.json"


def names_of(home: Path) -> set[str]:
    """Return the files with targets, and one `[]` for all others."""
    return {"[]" if file.read_bytes() == EMPTY else file.name for file in (home / "targets").glob("[!.]*")}


def test_refresh_with_another_number_of_files(tmp_path: Path, run: Run) -> None:
    """All targets are in the files of the new number; the others are empty, and no `node.json` is needed."""
    for split, expected in (
        (None, {"node.json"}),
        (4, {f"node.{number}.json" for number in range(4)} | {"[]"}),
        ({"node": 2}, {"node.0.json", "node.1.json", "[]"}),
        ({"node": 1}, {"node.json", "[]"}),
    ):
        config = place(tmp_path, split)
        assert run("refresh", "-q", "-c", config).code == 0
        assert names_of(tmp_path) == expected
        assert machines_in(tmp_path / "targets") == set(MACHINES)
        again = run("refresh", "-c", config)
        assert "0 files written" in again.out
    (tmp_path / "new").mkdir()
    config = place(tmp_path / "new", 4)
    assert run("refresh", "-q", "-c", config).code == 0
    assert names_of(tmp_path / "new") == {f"node.{number}.json" for number in range(4)}


def test_diff_compares_targets_whatever_file_they_are_in(tmp_path: Path, run: Run) -> None:
    """Another number of files changes no target."""
    run("refresh", "-q", "-c", place(tmp_path, 4))
    assert run("diff", "--exit-code", "-c", place(tmp_path, 3)).code == 0
    done = run("diff", "--exit-code", "-c", place(tmp_path, 3, MACHINES[1:]))
    assert (done.code, done.out.split()[:3]) == (1, ["-", "m0", "node"])


def test_a_lost_memory_keeps_all_files_of_a_job(tmp_path: Path, run: Run) -> None:
    """While the backend does not answer; what is in them is served and compared as one list."""
    config = place(tmp_path, 4)
    run("refresh", "-q", "-c", config)
    before = {file.name: file.read_bytes() for file in (tmp_path / "targets").glob("[!.]*")}
    for file in (tmp_path / "state").glob("*.json"):
        file.unlink()
    (tmp_path / "status.json").write_text("broken")
    done = run("refresh", "-c", config)
    assert done.code == 3
    assert "1 present file kept" in done.out
    assert {file.name: file.read_bytes() for file in (tmp_path / "targets").glob("[!.]*")} == before
    assert run("diff", "--exit-code", "-c", config).code == 3


def test_a_lost_memory_counts_the_targets_of_all_files(tmp_path: Path, run: Run) -> None:
    """An answer that loses most of them is held."""
    config = place(tmp_path, 4)
    run("refresh", "-q", "-c", config)
    before = {file.name: file.read_bytes() for file in (tmp_path / "targets").glob("[!.]*")}
    for file in (tmp_path / "state").glob("*.json"):
        file.unlink()
    (tmp_path / "status.json").write_text(json.dumps(fleet(MACHINES[:10])))
    done = run("refresh", "-c", config)
    assert done.code == 4
    assert "of 60 observed targets in the files 10 would be left" in done.err
    assert {file.name: file.read_bytes() for file in (tmp_path / "targets").glob("[!.]*")} == before


def test_a_scrape_config_has_a_pattern(tmp_path: Path, run: Run) -> None:
    """For a job with several files alone."""
    done = run("show", "--format", "scrape-config", "-c", place(tmp_path, 4))
    assert f'- "{tmp_path}/targets/node.*.json"\n' in done.out
    done = run("show", "--format", "scrape-config", "-c", place(tmp_path, {"node": 1}))
    assert f"- {tmp_path}/targets/node.json\n" in done.out


def test_render_writes_the_files_and_empties_those_of_another_number(tmp_path: Path, run: Run) -> None:
    """Those of jobs that are not rendered are left alone."""
    document = json.loads(place(tmp_path, 2).read_text()) | {"backends": {"tailscale": {}}}
    out = tmp_path / "out"
    for split, expected in (
        (2, {"node.0.json", "node.1.json"}),
        (1, {"node.json"}),
        (2, {"node.0.json", "node.1.json"}),
    ):
        document["output"]["split"] = split
        (tmp_path / "config.json").write_text(json.dumps(document))
        assert run("render", "-c", tmp_path / "config.json", "--output", out).code == 0
        assert machines_in(out) == set(MACHINES)
        assert {file.name for file in out.iterdir() if file.read_bytes() != EMPTY} == expected
        (out / "other.0.json").write_bytes(target_list(["x"]))
        assert run("render", "-c", tmp_path / "config.json", "--output", out).out.endswith("; 0 files written\n")
        assert machines_in(out, "other") == {"x"}
        (out / "other.0.json").unlink()


@pytest.mark.parametrize(
    ("split", "problem"),
    [
        (0, "output.split: invalid number of files: 0 is not from 1 to 1024; write `split: 64`"),
        (1025, "invalid number of files: 1025 is not"),
        (True, "invalid number of files: True is not"),
        (2.0, "invalid number of files: 2.0 is not"),
        ("64", "invalid number of files: '64' is not"),
        ([64], "invalid number of files: a list is not"),
        ({"node": 0}, "invalid number of files of job 'node': 0 is not"),
        ({"../node": 2}, "'../node' cannot be a name here"),
    ],
)
def test_a_wrong_number_of_files(tmp_path: Path, run: Run, split: Json, problem: str) -> None:
    """An error of the config, with its place and what to write."""
    done = run("check", "-c", place(tmp_path, split))
    assert done.code == 2
    assert problem in done.err


def test_a_job_that_does_not_exist(tmp_path: Path, run: Run) -> None:
    """A warning with a suggestion, which `check` refuses."""
    config = place(tmp_path, {"nodes": 4})
    assert run("refresh", "-q", "-c", config).code == 0
    done = run("check", "-c", config)
    assert done.code == 2
    assert "there is no job 'nodes': this number of files is not used (did you mean 'node'?)" in done.err


def test_a_job_whose_files_another_pattern_would_match(tmp_path: Path, run: Run) -> None:
    """`node.*.json` would give the targets of `node.a` the label `job="node"`."""
    document = json.loads(place(tmp_path, {"node": 4}).read_text())
    document["backends"]["static"] = {"lab": {"targets": {"node.a": ["a:1"], "node-b": ["b:1"], "node.0": ["c:1"]}}}
    (tmp_path / "config.json").write_text(json.dumps(document))
    done = run("check", "-c", tmp_path / "config.json")
    assert done.code == 2
    assert "the files of job 'node', node.*.json, would have the targets of node.0, node.a, too" in done.err
    assert "give 'node.0' a name that does not begin with 'node.'" in done.err
    document["output"]["split"] = {"node-b": 4, "node.a": 4, "node": 1}
    (tmp_path / "config.json").write_text(json.dumps(document))
    assert run("refresh", "-q", "-c", tmp_path / "config.json").code == 0
    assert [address for address, _ in parse_target_file((tmp_path / "targets/node.0.json").read_bytes()) or ()] == [
        "c:1"
    ]


def test_a_file_of_others_that_a_pattern_matches(tmp_path: Path, run: Run) -> None:
    """`refresh` and `doctor` name the job and the pattern; a file that no pattern matches is left alone in silence."""
    config = place(tmp_path, {"node": 2})
    assert run("refresh", "-q", "-c", config).code == 0
    for name in ("node.extra", "node-extra", "other.extra"):
        (tmp_path / "targets" / f"{name}.json").write_text('[{"targets": ["x:1"]}]')
    said = f"{tmp_path}/targets/node.extra.json was not written by clan-discovery and is left alone"
    done = run("refresh", "-c", config)
    assert f"{said}, and job node reads node.*.json: its targets are scraped (move it)" in done.err
    assert done.err.count("reads") == 1
    found = [line for line in run("doctor", "-c", config).out.splitlines() if "its targets are scraped" in line]
    assert len(found) == 1
    assert "node.extra.json was not written by clan-discovery, and job node reads node.*.json" in found[0]
    assert "its targets are scraped" not in run("doctor", "-c", place(tmp_path)).out


TARGETS = [target(machine, f"{machine}:{port}") for machine in MACHINES[:20] for port in (1, 2)]


@given(st.lists(st.tuples(st.sets(st.sampled_from(range(len(TARGETS)))), st.integers(1, 4)), min_size=1, max_size=5))
def test_files_that_are_made_of_the_last_ones_are_those_that_are_made_anew(cycles: list[tuple[set[int], int]]) -> None:
    """Whatever targets came, went and changed, and with another number of files."""
    cache = ListCache()
    for chosen, count in cycles:
        lists = render_jobs(resolution(*(TARGETS[number] for number in sorted(chosen))), cache)
        assert Split(count).files(lists, cache.divide) == Split(count).files(lists)
