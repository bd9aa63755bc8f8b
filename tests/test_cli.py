"""Tests of the command line: files, output and exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest

from clan_discovery.cli.commands.schema import SCHEMAS, schema
from clan_discovery.cli.parser import COMMANDS
from tests.conftest import ROOT, Done
from tests.support.fleet import fleet, inventory, node, status
from tests.support.localapi import Behaviour, localapi
from tests.support.programs import program, promtool_accepts

if TYPE_CHECKING:
    from collections.abc import Callable

    from jsonschema.protocols import Validator

    from clan_discovery.model import Json

    Run = Callable[..., Done]

CONFIG = """\
inventory: {file: inventory.json}
backends: {tailscale: {tailnet: {status_file: status.json}}}
output: {directory: targets, lock_wait: 300ms}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a directory with a config, an inventory of three machines, and a tailnet that sees two."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    write(tmp_path / "inventory.json", inventory(["monitor", "db", "attic"]))
    write(tmp_path / "status.json", fleet(["monitor", "db"]))
    return tmp_path


def write(file: Path, document: Json) -> None:
    """Write a JSON file."""
    file.write_text(json.dumps(document))


def conforms(document: Json, name: str) -> None:
    """Validate a document against one of the schemas."""
    validator(name).validate(document)


@cache
def validator(name: str) -> Validator:
    """Return the validator of one of the schemas."""
    jsonschema.Draft202012Validator.check_schema(schema(name))
    return jsonschema.Draft202012Validator(schema(name))


def groups(home: Path, job: str = "node") -> dict[str, str]:
    """Return the address of each instance of a published file."""
    found = json.loads((home / "targets" / f"{job}.json").read_bytes())
    return {group["labels"]["instance"]: group["targets"][0] for group in found}


def test_refresh_publishes_and_prints_one_line(home: Path, run: Run) -> None:
    """The result is on stdout; stderr is empty if nothing is wrong."""
    done = run("refresh", "--config", home / "config.yaml")
    assert done == Done(0, "3 targets in 1 job; 2 seen, 1 not seen; 1 file written, 0 unchanged; missing: attic\n", "")
    assert groups(home) == {
        "attic": "attic.tail1a2b3.ts.net:9100",
        "db": "100.64.0.2:9100",
        "monitor": "100.64.0.1:9100",
    }
    promtool_accepts(home / "targets")
    again = run("refresh", "-c", home / "config.yaml")
    assert "0 files written, 1 unchanged" in again.out
    assert run("refresh", "-q", "-c", home / "config.yaml").out == ""


def test_outage_keeps_every_target(home: Path, run: Run) -> None:
    """The daemon restarts, logs out or is gone: exit 3, and the files are unchanged."""
    run("refresh", "-c", home / "config.yaml")
    before = (home / "targets/node.json").read_bytes()
    for body in (json.dumps(fleet(["monitor"], BackendState="NeedsLogin")), "{", ""):
        (home / "status.json").write_text(body)
        done = run("refresh", "-c", home / "config.yaml")
        assert done.code == 3
        assert "is kept" in done.err
        assert (home / "targets/node.json").read_bytes() == before
    (home / "status.json").unlink()
    assert run("refresh", "-c", home / "config.yaml").code == 3
    assert (home / "targets/node.json").read_bytes() == before


def test_outage_without_any_answer_publishes_names(home: Path, run: Run) -> None:
    """No machine is reported as missing."""
    (home / "status.json").unlink()
    done = run("refresh", "-c", home / "config.yaml")
    assert done.code == 3
    assert "there is no last good answer" in done.err
    assert groups(home)["db"] == "db.home.arpa:9100"
    assert "missing" not in done.out


def test_outage_keeps_targets_of_select_rules(home: Path, run: Run) -> None:
    """Only the backend lists these targets."""
    (home / "config.yaml").write_text(
        "backends: {tailscale: {tailnet: {status_file: status.json}}}\n"
        "exporters: {node: {select: {tags: [server]}}}\noutput: {directory: targets}\n"
    )
    assert run("refresh", "-c", home / "config.yaml").code == 0
    assert groups(home) == {"db": "100.64.0.2:9100", "monitor": "100.64.0.1:9100"}
    (home / "status.json").write_text("")
    assert run("refresh", "-c", home / "config.yaml").code == 3
    assert groups(home) == {"db": "100.64.0.2:9100", "monitor": "100.64.0.1:9100"}


def test_large_loss_is_held_until_accepted(home: Path, run: Run) -> None:
    """Exit 4 with the old addresses; --accept-shrink publishes the new ones."""
    names = ["monitor", "a", "b", "c", "d"]
    write(home / "inventory.json", inventory(names))
    write(home / "status.json", fleet(names))
    assert run("refresh", "-c", home / "config.yaml").code == 0
    before = groups(home)
    write(home / "status.json", fleet(["monitor"]))
    done = run("refresh", "-c", home / "config.yaml")
    assert done.code == 4
    assert "5 machines would become 1" in done.err
    assert "--accept-shrink" in done.err
    assert groups(home) == before
    assert run("refresh", "--accept-shrink", "-c", home / "config.yaml").code == 0
    assert groups(home)["a"] == "a.tail1a2b3.ts.net:9100"


def test_file_of_a_removed_job_becomes_empty(home: Path, run: Run) -> None:
    """It is not deleted: Prometheus would keep its targets, and vmagent would report an error."""
    run("refresh", "-c", home / "config.yaml")
    write(home / "inventory.json", inventory(["monitor", "db"], exporter={"exporterType": "systemd"}))
    run("refresh", "-c", home / "config.yaml")
    assert (home / "targets/node.json").read_text() == "[]\n"
    assert groups(home, "systemd")["db"] == "100.64.0.2:9558"
    promtool_accepts(home / "targets")


def test_unknown_machine_in_the_inventory_fails_check_only(home: Path, run: Run) -> None:
    """`refresh` goes on without it."""
    document = inventory(["monitor", "db"])
    document["instances"] = {
        "mon": {"module": {"name": "prometheus"}, "roles": {"exporter": {"machines": {"bd": {}, "monitor": {}}}}}
    }
    write(home / "inventory.json", document)
    done = run("check", "-c", home / "config.yaml")
    assert done.code == 2
    assert "'bd' is not a machine of the inventory: it gets no target (did you mean 'db'?)" in done.err
    done = run("refresh", "-c", home / "config.yaml")
    assert done.code == 0
    assert "warning:" in done.err
    assert list(groups(home)) == ["monitor"]


@pytest.mark.parametrize(
    "body",
    [
        '{"machines": {"a": {}, "inst',
        "[]",
        "",
        '{"services": {"p": {}}, "machines": {}}',
        '{"machines": {"../x": {}}, "instances": {}}',
    ],
)
@pytest.mark.parametrize("command", ["refresh", "check", "show"])
def test_wrong_inventory_changes_no_file(home: Path, run: Run, command: str, body: str) -> None:
    """Exit 2 with one line of text."""
    run("refresh", "-c", home / "config.yaml")
    before = {f: f.read_bytes() for f in (home / "targets").iterdir()}
    (home / "inventory.json").write_text(body)
    done = run(command, "-c", home / "config.yaml")
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert {f: f.read_bytes() for f in (home / "targets").iterdir()} == before


def test_unusable_output_directory_is_refused(home: Path, run: Run) -> None:
    """A symlink or a file: exit 5 with a hint. A missing directory is created."""
    (home / "real").mkdir()
    (home / "targets").symlink_to(home / "real")
    done = run("refresh", "-c", home / "config.yaml")
    assert done.code == 5
    assert "is a symlink" in done.err
    assert list((home / "real").iterdir()) == []
    (home / "file").touch()
    assert run("refresh", "-c", home / "config.yaml", "--output", home / "file").code == 5
    assert run("refresh", "-c", home / "config.yaml", "--output", home / "new/deep").code == 0
    assert (home / "new/deep/node.json").is_file()


def test_second_refresh_names_the_process_with_the_lock(home: Path, run: Run) -> None:
    """The first one waits for a tailscaled that never answers; the lock covers the whole cycle."""
    hang = "inventory: {file: inventory.json}\noutput: {directory: targets}\n"
    (home / "slow.yaml").write_text(hang + f"backends: {{tailscale: {{tailnet: {{socket: {home}/s, timeout: 2m}}}}}}\n")
    asked = threading.Event()
    how = Behaviour(hang=True)
    with localapi(home / "s", how):
        words = [sys.executable, "-m", "clan_discovery", "refresh", "-c", str(home / "slow.yaml")]
        first = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(1200):
                if how.connections:
                    break
                asked.wait(0.05)
            done = run("refresh", "-c", home / "config.yaml")
        finally:
            first.kill()
            first.wait()
    assert done.code == 5
    assert f"process {first.pid}" in done.err
    assert run("refresh", "-c", home / "config.yaml").code == 0


def test_show_prints_every_format(home: Path, run: Run) -> None:
    """Each format parses, and nothing is written."""
    table = run("show", "-c", home / "config.yaml")
    assert "node  attic     attic.tail1a2b3.ts.net:9100  missing  -\n" in table.out
    document = json.loads(run("show", "-c", home / "config.yaml", "--format", "json").out)
    conforms(document, "resolution")
    assert document["missing"] == [{"machine": "attic", "jobs": ["node"], "similar": []}]
    flat = json.loads(run("show", "-c", home / "config.yaml", "--format", "file-sd").out)
    assert {g["labels"]["job"] for g in flat} == {"node"}
    assert "\n  jobs = {\n    node = [\n" in run("show", "-c", home / "config.yaml", "--format", "nix").out
    assert not (home / "targets").exists()
    assert not (home / "targets.state").exists()


def test_hostile_name_is_escaped_on_the_terminal(home: Path, run: Run) -> None:
    """Escape sequences and newlines in names are printed as text."""
    evil = "x\x1b[2J\n\u202e"
    peers = [
        node(1, "monitor"),
        node(2, "y", DNSName=f"{evil}.tail1a2b3.ts.net."),
        node(3, "z", HostName=evil, DNSName=""),
    ]
    write(home / "status.json", status(peers))
    for command in (["show"], ["explain", "monitor"], ["explain", evil]):
        done = run(*command, "-c", home / "config.yaml")
        assert "\x1b" not in done.out + done.err
        assert "\u202e" not in done.out + done.err
    assert "x\\x1b[2j\\n\\u202e" in run("show", "-c", home / "config.yaml").out


def test_explain_describes_a_machine_and_refuses_an_unknown_name(home: Path, run: Run) -> None:
    """An unknown name gets a suggestion."""
    assert "no backend sees it: at its MagicDNS name" in run("explain", "attic", "-c", home / "config.yaml").out
    done = run("explain", "atic", "-c", home / "config.yaml")
    assert done.code == 2
    assert "did you mean 'attic'?" in done.err


def test_config_needs_only_an_inventory(home: Path, run: Run) -> None:
    """A server with discoveryMethod "tailscale" asks tailscaled, unless the config has no Tailscale backend."""
    write(home / "inventory.json", inventory(["monitor"], server={"discoveryMethod": "tailscale"}))
    (home / "config.yaml").write_text("inventory: {file: inventory.json}\n")
    assert "backends: tailscale" in run("check", "-c", home / "config.yaml").out
    (home / "config.yaml").write_text("inventory: {file: inventory.json}\nbackends: {tailscale: {}}\n")
    assert "backends: none" in run("check", "-c", home / "config.yaml").out
    write(home / "inventory.json", inventory(["monitor"], server={"discoveryMethod": "none"}))
    (home / "config.yaml").write_text("inventory: {file: inventory.json}\n")
    assert "backends: none" in run("check", "-c", home / "config.yaml").out
    write(home / "inventory.json", inventory(["monitor"], server={"discoveryMethod": "dns"}))
    assert "backends: dns" in run("check", "-c", home / "config.yaml").out
    for methods, backends in ((["dns", "tailscale"], "tailscale, dns"), ([], "none"), (["none"], "none")):
        write(home / "inventory.json", inventory(["monitor"], server={"discoveryMethod": methods}))
        assert f"backends: {backends}\n" in run("check", "-c", home / "config.yaml").out
    write(home / "inventory.json", inventory(["monitor"], server={"discoveryMethod": "dns"}))
    (home / "config.yaml").write_text("inventory: {file: inventory.json}\nbackends: {dns: {}}\n")
    assert "backends: none" in run("check", "-c", home / "config.yaml").out


def test_inventory_output_can_be_read_again(home: Path, run: Run) -> None:
    """Normalising it twice gives the same result as once."""
    example = ROOT / "examples/homelab/inventory.json"
    first = run("inventory", "--file", example)
    assert first.code == 0
    document = json.loads(first.out)
    conforms(document, "inventory")
    assert len(document["exporters"]) == 6
    (home / "again.json").write_text(first.out)
    second = json.loads(run("inventory", "--file", home / "again.json").out)
    for key in ("machines", "tags", "instances", "meta"):
        assert second[key] == document[key]
    assert json.loads(run("inventory", "-c", home / "config.yaml").out)["meta"] == {"domain": "home.arpa"}
    write(home / "dump.json", {"self-prometheus": {"monitoring": {"exporter": {"db": {"port": 7}}}}})
    document = json.loads(run("inventory", "--file", home / "inventory.json", "--settings", home / "dump.json").out)
    assert {e["machine"]: e["port"] for e in document["exporters"]} == {"attic": 9100, "db": 7, "monitor": 9100}
    assert run("inventory", "--file", home / "gone.json").code == 2


def test_merged_lists_are_not_merged_twice(home: Path, run: Run) -> None:
    """Lists in the output are not concatenated again when it is read."""
    document = inventory(["monitor", "db"])
    server: Json = {
        "settings": {"discoveryMethod": ["tailscale"], "rules": ["role"]},
        "machines": {"monitor": {"settings": {"discoveryMethod": ["dns"], "rules": ["machine"]}}},
    }
    document["instances"] = {"mon": {"module": {"name": "prometheus"}, "roles": {"server": server}}}
    write(home / "first.json", document)
    first = run("inventory", "--file", home / "first.json")
    (home / "again.json").write_text(first.out)
    assert run("inventory", "--file", home / "again.json").out == first.out
    said = json.loads(first.out)["instances"]["mon"]["roles"]["server"]["machines"]["monitor"]["settings"]
    assert said == {"discoveryMethod": ["dns", "tailscale"], "rules": ["machine", "role"]}


def test_inventory_evaluates_a_flake(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With real Nix; its error is reported in one line."""
    program("nix-instantiate")
    flake = home / "flake"
    flake.mkdir()
    (flake / "inventory.json").write_text(json.dumps(inventory(["monitor", "db"])))
    (flake / "flake.nix").write_text(
        "{ outputs = _: { clanInternals.inventoryClass.inventorySerialization = "
        "builtins.fromJSON (builtins.readFile ./inventory.json); }; }"
    )
    monkeypatch.setenv("NIX_REMOTE", str(home / "store"))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NIX_CONFIG", "substituters =\nsandbox = false\nbuild-users-group =")
    done = run("inventory", "--flake", f"path:{flake}")
    assert done.code == 0, done.err
    assert set(json.loads(done.out)["machines"]) == {"monitor", "db"}
    (flake / "flake.nix").write_text('{ outputs = _: { clanInternals = throw "no clan here"; }; }')
    done = run("inventory", "--flake", f"path:{flake}")
    assert done.code == 2
    assert "nix eval exited with 1" in done.err
    assert "no clan here" in done.err
    assert done.err.count("\n") == 1
    monkeypatch.setenv("PATH", str(home))
    assert "nix is not on PATH" in run("inventory", "--flake", ".").err


def test_config_is_accepted_before_and_after_the_command(home: Path, run: Run) -> None:
    """The one after the command wins; a command that needs no config has no such option."""
    config = home / "config.yaml"
    after = run("show", "--config", config)
    assert after.code == 0
    for words in (
        ["-c", config, "show"],
        ["--config", config, "show"],
        [f"--config={config}", "show"],
        [f"-c{config}", "show"],
    ):
        assert run(*words) == after
    assert run("-c", "/nowhere.yaml", "show", "-c", config) == after
    assert run("-c", config, "schema", "config").code == 2
    assert run("-c", config).code == 2
    assert "expected one argument" in run("-c").err


def test_each_command_has_one_file() -> None:
    """And no command imports another."""
    files = {file.stem: file for file in (ROOT / "clan_discovery/cli/commands").glob("[!_]*.py")}
    assert set(files) == set(COMMANDS)
    for file in files.values():
        assert "clan_discovery.cli.commands" not in file.read_text()


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_valid_documented_and_current(name: str, run: Run) -> None:
    """JSON Schema 2020-12; every property has a description; the committed files are up to date."""
    text = run("schema", name).out
    document = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(document)
    assert (ROOT / "schemas" / f"{name}.schema.json").read_text() == text
    for definition in [document, *document.get("$defs", {}).values()]:
        for key, value in definition.get("properties", {}).items():
            assert "description" in value or "$ref" in value, f"{definition.get('title')}.{key}"


@pytest.mark.parametrize("example", sorted(p.parent for p in ROOT.glob("examples/*/config.yaml")), ids=lambda p: p.name)
def test_examples_give_their_expected_output(example: Path, run: Run, tmp_path: Path) -> None:
    """The table, the Nix expression and the documents; promtool accepts the files."""
    done = run("refresh", "-c", example / "config.yaml", "--output", tmp_path / "targets")
    assert done.code == 0
    published = {f.name: f.read_text() for f in (tmp_path / "targets").glob("[!.]*")}
    assert published == {f.name: f.read_text() for f in (example / "expected").glob("*.json")}
    for format_, file in (("table", "show.txt"), ("nix", "targets.nix")):
        shown = run("show", "-c", example / "config.yaml", "--format", format_)
        assert shown.out == (example / "expected" / file).read_text()
    front = example / "expected/front.caddy"
    if front.exists():
        assert run("show", "-c", example / "config.yaml", "--format", "caddy").out == front.read_text()
    for agent in (example / "expected/agents").glob("*"):
        done = run("render", "-c", example / "config.yaml", "--agent", agent.name, "--output", tmp_path / agent.name)
        assert done.code == 0
        rendered = {f.name: f.read_text() for f in (tmp_path / agent.name).glob("[!.]*")}
        assert rendered == {f.name: f.read_text() for f in agent.glob("*")}
        promtool_accepts(tmp_path / agent.name)
    for text in published.values():
        conforms(json.loads(text), "file_sd")
    promtool_accepts(tmp_path / "targets")


def test_config_schema_accepts_the_examples() -> None:
    """An editor that uses the schema reports no error in them."""
    import yaml  # noqa: PLC0415 - as an editor would

    for file in ROOT.glob("examples/*/config.yaml"):
        conforms(yaml.safe_load(file.read_text()), "config")
    wrongs: list[Json] = [{"polcy": {}}, {"policy": {"max_age": "1x"}}]
    for wrong in wrongs:
        with pytest.raises(jsonschema.ValidationError):
            conforms(wrong, "config")


def test_config_schema_has_examples_and_exporter_types() -> None:
    """Each example is valid, and every plain field has one. Known exporter types are suggested, others are valid."""
    document = json.loads(json.dumps(schema("config")))
    assert document["$id"] == "urn:clan-discovery:schema:config"
    definitions = document["$defs"]
    examples: list[Json] = []
    shapes: list[Json] = []
    for owner in [document, *definitions.values()]:
        for key, value in owner.get("properties", {}).items():
            is_told = value.get("default") or re.search("examples|enum|const|boolean|[$]ref", json.dumps(value))
            assert is_told, f"{owner.get('title')}.{key} needs an example"
            examples += value.get("examples", [])
            shapes += [value] * len(value.get("examples", []))
    assert len(examples) > 50
    # In one call: each call checks the whole schema.
    tuple_schema = {"$defs": definitions, "type": "array", "prefixItems": shapes}
    jsonschema.validate(examples, tuple_schema, cls=jsonschema.Draft202012Validator)
    suggested, free = definitions["ExporterType"]["anyOf"]
    assert {"node", "systemd"} <= set(suggested["enum"])
    assert free["type"] == "string"
    conforms({"exporters": {"mine": {"port": 1}}, "jobs": {"mine": {"scrape_interval": "1m"}}}, "config")
    with pytest.raises(jsonschema.ValidationError):
        conforms({"jobs": {"a/b": {}}}, "config")


def test_defaults_of_the_config_schema_are_valid(run: Run, tmp_path: Path) -> None:
    """An editor may write them into a config."""
    document = json.loads(run("schema", "config").out)
    groups = {"output": "Output", "policy": "PolicyConfig"}
    static: dict[str, Json] = {"static": {"l": {"targets": {"node": ["a"]}}}}
    for key, name in groups.items():
        values = {k: v["default"] for k, v in document["$defs"][name]["properties"].items() if "default" in v}
        assert values
        write(tmp_path / "c.json", {key: values, "backends": static})
        assert run("check", "-c", tmp_path / "c.json").err == ""
        conforms({key: values}, "config")
    tailscale = document["$defs"]["TailscaleBackend"]["properties"]["timeout"]["default"]
    write(tmp_path / "c.json", {"backends": {"tailscale": {"t": {"timeout": tailscale}}, **static}})
    assert run("check", "-c", tmp_path / "c.json").code == 0


def test_inventories_conform_to_the_schema() -> None:
    """Inventories from clan, from a person, and from `inventory`."""
    conforms(json.loads((ROOT / "examples/homelab/inventory.json").read_bytes()), "inventory")
    conforms(inventory(["a", "b"]), "inventory")
    with pytest.raises(jsonschema.ValidationError):
        conforms({"machines": ["a"], "instances": {}}, "inventory")


def test_library_example_of_the_readme_runs(home: Path) -> None:
    """Unchanged, in a new interpreter."""
    text = (ROOT / "README.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("node attic attic.tail1a2b3.ts.net:9100 inventory:")


def test_generated_documents_are_current() -> None:
    """`make docs` changes nothing."""
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_wrong_nixpkgs_checkout_is_reported(tmp_path: Path) -> None:
    """`make docs` with a wrong NIXPKGS_LIB prints one line with the path, and no traceback."""
    words = [sys.executable, "docs/generate.py", "--check"]
    environment = {**os.environ, "NIXPKGS_LIB": str(tmp_path)}
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith(f"NIXPKGS_LIB: {tmp_path} is no checkout of nixpkgs")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("buffered", [True, False])
def test_installed_program_runs(home: Path, monkeypatch: pytest.MonkeyPatch, buffered: bool) -> None:  # noqa: FBT001
    """Its exit code, a pipe that closes early, and a full disk behind stdout."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "" if buffered else "1")
    words = [shutil.which("clan-discovery") or str(Path(sys.executable).with_name("clan-discovery"))]
    done = subprocess.run(
        [*words, "show", "-c", str(home / "config.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith("JOB")
    closed = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{words[0]} schema config | head -c 10"], capture_output=True, check=False
    )
    assert closed.stderr == b""
    if os.path.exists("/dev/full"):  # noqa: PTH110
        with open("/dev/full", "wb") as full:  # noqa: PTH123
            done = subprocess.run([*words, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert "Traceback" not in done.stderr
        assert done.returncode == 5


def test_import_loads_no_heavy_library() -> None:
    """The package imports neither pydantic nor httpx; `check` never imports httpx."""
    code = "import sys, clan_discovery; print(sorted({'pydantic', 'httpx', 'yaml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    code = (
        "import sys, io; from clan_discovery.cli.main import main\n"
        f"assert main(['check', '-c', '{ROOT}/examples/homelab/config.yaml'], io.StringIO(), sys.stderr) == 0\n"
        "print(sorted({'httpx', 'dns'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def on_a_terminal(*words: object, **environment: str) -> str:
    """Run a command on a terminal of its own, 80 columns wide; return what it wrote there."""
    ours, theirs = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")} | environment
    with os.fdopen(ours, "rb", buffering=0) as screen:
        done = subprocess.run(
            [sys.executable, "-m", "clan_discovery", *(str(word) for word in words)],
            stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, env=env, check=False,
        )  # fmt: skip
        os.close(theirs)
        assert done.returncode in (0, 2, 3)
        parts: list[bytes] = []
        with contextlib.suppress(OSError):  # the other end is closed: a read from a terminal then fails
            while part := screen.read(65536):
                parts.append(part)
    return b"".join(parts).decode()


@pytest.mark.parametrize(
    ("words", "colour"),
    [
        (("diff",), "\x1b[32m+ attic"),
        (
            ("snapshot", "--check", "--output", "no.nix"),
            "\x1b[1m+++ no.nix\x1b[0m\r\n\x1b[36m@@ -1",
        ),
        (("doctor",), "\x1b[33mWARN  machine attic"),
        (
            ("show",),
            "\x1b[1mJOB   INSTANCE  TARGET                       STATE    SEEN BY\x1b[0m\r\n\x1b[33mnode  attic",
        ),
    ],
)
def test_colour_is_used_only_on_a_terminal(home: Path, words: tuple[str, ...], colour: str) -> None:
    """Unless NO_COLOR or TERM disables it; never in a pipe."""
    config = home / "config.yaml"
    assert colour in on_a_terminal(*words, "-c", config, TERM="xterm")
    if words != ("show",):  # what decides is the same for every command
        return
    assert colour in on_a_terminal(*words, "-c", config, TERM="xterm", NO_COLOR="")
    assert "\x1b" not in on_a_terminal(*words, "-c", config, TERM="xterm", NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(*words, "-c", config, TERM="dumb")
    command = [sys.executable, "-m", "clan_discovery", *words, "-c", str(config)]
    assert (
        b"\x1b"
        not in subprocess.run(command, capture_output=True, env=os.environ | {"TERM": "xterm"}, check=False).stdout
    )
