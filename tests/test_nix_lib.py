"""nix/lib with real Nix: its own tests, and the targets of Python in each scraper's form."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import msgspec
import pytest

from clan_discovery.inventory.exporters import known_exporters
from clan_discovery.inventory.manifest.declare import ManifestOptions, parse_manifest
from clan_discovery.syntax.endpoint import split_endpoint
from clan_discovery.syntax.labels import labels_complaint
from tests.support.nix import ROOT, ask, nixpkgs_lib, quoted
from tests.support.nix import value as value_of
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Declared, Json
    from tests.conftest import Done

    Run = Callable[..., Done]

EXAMPLE = ROOT / "examples/homelab/config.yaml"


def value(nix: str, expression: str) -> Json:
    """Return the value of an expression; `cd` is the library."""
    return value_of(f"let cd = import {ROOT}/nix/lib; in {expression}", nix)


def test_the_tests_of_the_library_pass(nix: str) -> None:
    """`lib.runTests` names failing tests; a failing one is found."""
    lib = f"import {nixpkgs_lib()}"
    assert value_of(f"import {ROOT}/nix/lib/tests.nix {{ lib = {lib}; }}", nix) == []
    wrong = f"let lib = {lib}; in lib.runTests {{ test_x = {{ expr = 1; expected = 2; }}; }}"
    assert value_of(wrong, nix) == [{"name": "test_x", "expected": 2, "result": 1}]


def test_exporters_are_those_of_python(nix: str) -> None:
    """From one data file, with any additions: port, path, kind, whether NixOS has it, parameters."""
    expected = {
        name: {
            "port": e.port,
            "path": e.path,
            "kind": e.kind,
            "nixos": e.nixos,
            "params": {param: values[0] for param, values in e.params.items()},
        }
        for name, e in known_exporters().items()
    }
    assert value(nix, "cd.exporters") == expected


def test_public_manifest_declares_the_same(nix: str) -> None:
    """The example is the JSON of its Nix, and all that is read of it stays."""
    source = ROOT / "examples/manifest/service-manifest.nix"
    whole = value(nix, f"import {source}")
    assert whole == json.loads(source.with_suffix(".json").read_text())
    public = value(nix, f"cd.manifest.public (import {source})")
    assert public != whole
    declared = [declared_without_places(document) for document in (whole, public)]
    assert declared[0] == declared[1]
    assert len(declared[0].fronts) == 16


def declared_without_places(document: Json) -> Declared:
    """Return what a manifest declares; the places differ where keys are removed."""
    declared = parse_manifest(json.dumps(document).encode(), "m.json", ManifestOptions())
    return msgspec.structs.replace(
        declared,
        addresses={name: msgspec.structs.replace(address, where="") for name, address in declared.addresses.items()},
        fronts=tuple(msgspec.structs.replace(front, where="") for front in declared.fronts),
        services=tuple(msgspec.structs.replace(service, where="") for service in declared.services),
    )


def test_targets_are_those_of_python(nix: str, tmp_path: Path, run: Run) -> None:
    """In snapshot, `show` and files. promtool and vmagent accept the jobs."""
    for format_ in ("nix", "json"):
        (tmp_path / f"targets.{format_}").write_text(run("show", "-c", EXAMPLE, "--format", format_).out)
    assert run("refresh", "-q", "-c", EXAMPLE, "--output", tmp_path / "targets").code == 0
    files = {file.stem: json.loads(file.read_bytes()) for file in (tmp_path / "targets").glob("*.json")}
    expected = [{"job_name": job, "static_configs": files[job]} for job in sorted(files) if files[job]]
    sources = [f"cd.snapshot {tmp_path}/targets.{format_}" for format_ in ("nix", "json")]
    found = value(
        nix,
        f"""{{
          jobs = map cd.staticJobs [ ({sources[0]}) ({sources[1]}) {quoted(files)} ];
          prometheus = cd.prometheus (cd.staticJobs ({sources[0]}));
          vmagent = cd.victoriametrics (cd.staticJobs ({sources[0]}));
        }}""",
    )
    assert isinstance(found, dict)
    assert isinstance(found["jobs"], list)
    for jobs in found["jobs"]:
        assert by_target(jobs) == by_target(expected)
    (tmp_path / "prometheus.yml").write_text(json.dumps({"scrape_configs": found["prometheus"]}))
    (tmp_path / "vmagent.yml").write_text(json.dumps(found["vmagent"]))
    succeeds(program("promtool"), "check", "config", f"{tmp_path}/prometheus.yml")
    words = [f"-promscrape.config={tmp_path}/vmagent.yml", "-dryRun", "-promscrape.config.strictParse=true"]
    words += ["-remoteWrite.url=http://127.0.0.1:9/", f"-remoteWrite.tmpDataPath={tmp_path}/vm"]
    succeeds(program("vmagent"), *words)


def succeeds(*words: str) -> None:
    """Run a program that must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def by_target(jobs: Json) -> list[str]:
    """Return the targets of these jobs as sorted texts."""
    found: list[str] = []
    for job in jobs if isinstance(jobs, list) else []:
        match job:
            case {"job_name": str(name), "static_configs": [*groups]}:
                found += [json.dumps([name, group], sort_keys=True) for group in groups]
            case other:
                raise AssertionError(other)
    return sorted(found)


def test_targets_are_read_as_python_reads_them(nix: str) -> None:
    """Valid and invalid names, ports and addresses."""
    label = "a" * 63
    hosts = ["db", "db.example.org.", "_a-b.c", "10.0.0.1", "a..b", ".a", "-a", "a.-b", "a b", "a/b", "", "[db]"]
    hosts += [label, f"{label}a", ".".join([label] * 3), ".".join([label] * 5), "http://a", "[]", "[::1"]
    addresses = ["::", "::1", "1::", "fd00::5", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "::10.0.0.1"]
    addresses += ["1:2:3:4:5:6:10.0.0.1", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3", ":::", ":::::", "12345::"]
    addresses += ["1:2:3:4:5:6:7::8", ":1::", "1::2:", "::10.0.0.256", "::10.0.0", "fe80::1%eth0", "::g", "10.0.0.1::"]
    hosts += [*addresses, *(f"[{address}]" for address in addresses)]
    ports = ["", ":", ":1", ":0", ":00", ":0080", ":00080", ":65535", ":65536", ":000080", ":x", ":-1", ":1:2"]
    texts: list[Json] = [host + port for host in hosts for port in ports]
    found = value(nix, f"map cd.service.splitEndpoint {quoted(texts)}")
    assert isinstance(found, list)
    assert dict(zip(texts, found, strict=True)) == {text: _split(str(text)) for text in texts}


def test_labels_are_refused_as_python_refuses_them(nix: str) -> None:
    """Names; intervals and timeouts, alone and together."""
    names = ["a", "_a", "A9", "", "9", "a-b", "a.b", "a b", "ü", "a\n", "instance", "job", "machine", "Job", "__a", "_"]
    names += ["__name__", "__address__", "__scrape_interval__", "__scrape_timeout__", "__scrape_interval__x", "jobs"]
    times = ["1m", "60s", "59s", "61s", "1ms", "0s", "0ms", "", "1", "s", "1h30m", "30m1h", "1.5h", "-1s", " 1s"]
    times += [
        "1s\n",
        "292y",
        "293y",
        "292y1ms",
        "1y1w1d1h1m1s1ms",
        "5ms",
        "000001s",
        "1d1ms",
        "1H",
        "\u0661s",
        "01m",
        "060s",
    ]
    times += ["9" * 18 + "y", "9" * 18 + "ms", "9" * 19 + "ms", "0" * 18 + "s", "1" + "0" * 13 + "ms", "86400s", "1d"]
    pairs = [*zip(times, times, strict=True), *((time, "1m") for time in times), *(("1m", time) for time in times)]
    interval, timeout = "__scrape_interval__", "__scrape_timeout__"
    sets: list[dict[str, str]] = [{name: "x"} for name in names]
    sets += [{interval: one, timeout: other} for one, other in pairs]
    document: Json = list(sets)
    found = value(nix, f"map (labels: cd.service.labelComplaints labels == [ ]) {quoted(document)}")
    assert found == [labels_complaint(labels) is None for labels in sets]


def _split(text: str) -> Json:
    try:
        host, port = split_endpoint(text)
    except ValueError:
        return None
    return {"host": host, "port": port}


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ('cd.exporter "nod"', "unknown exporter type 'nod'"),
        ('cd.checked [ { job_name = "a"; } { job_name = "a"; } ]', "more than one scrape config is named 'a'"),
        ('cd.victoriametrics [ { job_name = "a"; x = "%{HOME}"; } ]', "'a' contains '%{'"),
        ("cd.declared.targetsOf { }", "declared.targetsOf was removed: a build runs `clan-discovery render`"),
        ("cd.exports.homes { }", "exports.homes was removed: give `exports.reduced exports` to clan-discovery"),
    ],
)
def test_errors_have_a_fix(nix: str, expression: str, said: str) -> None:
    """`tryEval` has no message, so they are read from Nix's output."""
    assert said in ask(f"let cd = import {ROOT}/nix/lib; in {expression}", nix).stderr
