"""Secrets of an input appear in no message, no command line of ours and no more widely readable file."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from clan_discovery.errors import InputError
from clan_discovery.inventory.nix import evaluate
from clan_discovery.inventory.queries import INVENTORY
from clan_discovery.syntax.secret import exposes, hide, hide_in_urls, is_secret
from tests.support.fleet import fleet, inventory

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

SECRET: Final = "hunter2-geheim"  # noqa: S105 - not in use
URL: Final = f"git+https://oauth2:{SECRET}@git.example.org/clan"
PROGRAM: Final = str(Path(sys.executable).with_name("clan-discovery"))
CONFIG: Final = """\
inventory: {file: inventory.json}
backends: {tailscale: {tailnet: {status_file: status.json}}}
output: {directory: targets}
"""
SCRAPE: Final[Json] = {"job_name": "mine", "basic_auth": {"username": "u", "password": SECRET}}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a directory with a config and an inventory with a scrape config that holds a password."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "status.json").write_text(json.dumps(fleet(["monitor", "db"])))
    document = inventory(["monitor", "db"], server={"additionalScrapeConfigs": [SCRAPE]})
    (tmp_path / "inventory.json").write_text(json.dumps(document))
    for name in ("config.yaml", "status.json", "inventory.json"):
        (tmp_path / name).chmod(0o644)
    return tmp_path


def mode_of(file: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(file.stat().st_mode)


@pytest.mark.parametrize(
    "text",
    [
        "exporters: {node: {params: {token: [%s]}}}",
        "exporters: {node: {params: {auth_token: {a: %s}}}}",
        "exporters: {node: {labels: {password: [%s]}}}",
        "labels: {api_key: !!binary %s}",
        "exporters: {node: {params: {password: *%s}}}",
        "exporters: {node: {params: {password: &%s [*hunter2-geheim]}}}",
        "exporters: {node: {params: {password: !%s x}}}",
        "exporters: {node: {params: {password: !%s [x]}}}",
        "exporters: {node: {params: {password: !%s!x y}}}",
        "labels: {password: !!int %s}",
        "backends: {static: {lab: {targets: {node: ['http://u:%s@host:1/x']}}}}",
        "inventory: {flake: 'git+https://u:%s@h/x', file: x}",
        "inventory: {flake: '-https://u:%s@h/x'}",
        "inventory: {file: 'https://u:%s@h/x'}",
        "policy: {max_age: {password: %s}}",
        "policy: {offline: {password: [%s]}}",
        "output: {lock_wait: [{token: %s}]}",
        "backends: {dns: {lan: {names: [x.y], job: node, deny_networks: [{secret: %s}]}}}",
        "backends: {dns: {lan: {names: [x.y], job: node, servers: ['ftp://u:%s@h']}}}",
        "backends: {dns: {lan: {names: [x.y], job: node, servers: ['https://u:%s@h:99999/q']}}}",
    ],
)
def test_an_invalid_config_shows_no_secret(home: Path, run: Run, text: str) -> None:
    """The error names the key but not the value."""
    (home / "config.yaml").write_text(text % SECRET)
    done = run("check", "-c", home / "config.yaml")
    assert done.code == 2
    assert SECRET not in done.err


@pytest.mark.parametrize(
    "settings",
    [
        {"params": {"token": [SECRET, SECRET]}},
        {"params": {"password": {"a": SECRET}}},
        {"labels": {"bearer_token": [SECRET, 1]}},
        {"labels": [{"password": SECRET}]},
        {"exporterType": {"password": SECRET}},
        {"port": {"credentials": SECRET}},
        {"path": {"authorization": {"credentials": SECRET}}},
        {"scheme": f"https://u:{SECRET}@x"},
        {"path": f"metrics?token={SECRET}"},
    ],
)
def test_invalid_settings_show_no_secret(home: Path, run: Run, settings: Json) -> None:
    """In an inventory."""
    document = inventory({"monitor": {}}, instances={"m": {"module": {"name": "prometheus"}, "roles": {
        "exporter": {"machines": {"monitor": {"settings": settings}}}}}})  # fmt: skip
    (home / "inventory.json").write_text(json.dumps(document))
    for command in (("check", "-c", home / "config.yaml"), ("inventory", "--file", home / "inventory.json")):
        done = run(*command)
        assert done.code == 2
        assert SECRET not in done.err


def test_conflicting_settings_show_no_secret(home: Path, run: Run) -> None:
    """Both values are hidden, also within a larger value."""
    for option in ({"token": SECRET}, {"x": [{"basic_auth": {"password": SECRET}}]}):
        other = dict.fromkeys(option, "other")
        document = inventory({"monitor": {}}, instances={"m": {"module": {"name": "prometheus"}, "roles": {
            "exporter": {"settings": option, "machines": {"monitor": {"settings": other}}}}}})  # fmt: skip
        (home / "inventory.json").write_text(json.dumps(document))
        done = run("check", "-c", home / "config.yaml")
        assert done.code == 2
        assert "conflicting definitions" in done.err
        assert SECRET not in done.err


@pytest.fixture
def nix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return a function that installs a script as `nix`, which writes down its arguments."""
    file = tmp_path / "bin/nix"
    file.parent.mkdir()
    monkeypatch.setenv("PATH", f"{file.parent}:{os.environ['PATH']}")

    def write(text: str) -> Path:
        file.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/words\n{text}\n')
        file.chmod(0o755)
        return tmp_path / "words"

    return write


def test_a_flake_reference_with_a_password(home: Path, run: Run, nix: Callable[[str], Path]) -> None:
    """Nix gets it.

    Our messages and Nix's hide it, and warn that other users can read a command line.
    """
    nix(f"echo 'error: unable to download {URL}/x?token={SECRET}' >&2; exit 1")
    (home / "config.yaml").write_text(f"inventory: {{flake: '{URL}'}}\n")
    for command in (
        ("check", "-c", home / "config.yaml"),
        ("inventory", "--flake", URL),
        ("dump", "--flake", URL, "--output", home / "out"),
        ("dump", "--flake", f"{URL}#x", "--output", home / "out"),
    ):
        done = run(*command)
        assert done.code == 2
        assert "flake git+https://***@git.example.org/clan" in done.err
        assert SECRET not in done.err + done.out
    words = nix("cat " + str(home / "inventory.json"))
    done = run("inventory", "--flake", URL)
    assert done.code == 0
    assert f"{URL}#{INVENTORY.attribute}" in words.read_text()
    assert "which every local user sees in the list of processes (use ssh, or Nix's netrc-file" in done.err
    assert "***@" in json.dumps(json.loads(done.out)["problems"])
    assert f"{SECRET}@" not in done.err + done.out


@pytest.mark.parametrize("reference", ["-x", "--option", "--expr=1", "-"])
def test_a_flake_reference_must_not_begin_with_a_dash(
    home: Path, run: Run, nix: Callable[[str], Path], reference: str
) -> None:
    """It is refused wherever it comes from, because Nix would take it for an option."""
    words = nix("exit 1")
    (home / "config.yaml").write_text(f"inventory: {{flake: '{reference}'}}\n")
    for command in (
        ("refresh", "-c", home / "config.yaml"),
        ("inventory", f"--flake={reference}"),
        ("machines", f"--flake={reference}"),
        ("dump", f"--flake={reference}", "--output", home / "out"),
    ):
        done = run(*command)
        assert done.code == 2
        assert "nix would take it for an option (write ./ before it)" in done.err
    assert not words.exists()
    with pytest.raises(InputError, match="1"):
        evaluate(Path(reference), INVENTORY)
    assert words.read_text().splitlines()[4:6] == ["--file", f"./{reference}"]


@pytest.mark.parametrize("name", ["inventory.json", "config.yaml"])
@pytest.mark.parametrize("output", ["targets.nix", "targets.json"])
def test_a_snapshot_of_a_private_input_is_private(home: Path, run: Run, name: str, output: str) -> None:
    """Whatever mode it had before, and also if its text is unchanged."""
    words = ("snapshot", "-c", home / "config.yaml", "--output", home / output)
    done = run(*words)
    assert (done.code, mode_of(home / output)) == (0, 0o644)
    assert "closed" not in done.err
    (home / name).chmod(0o600)
    done = run(*words)
    assert (done.code, mode_of(home / output)) == (0, 0o600)
    assert f"{output}: is closed to other users (mode 0600): it is made from {home / name}, which" in done.err
    assert "closed" not in run(*words).err  # unchanged mode: reported before
    (home / name).chmod(0o644)
    (home / output).chmod(0o644)
    (home / "status.json").chmod(0o600)
    assert "closed" not in run(*words).err  # a status has no more than target files have
    (home / name).chmod(0o600)
    (home / output).unlink()
    assert run(*words).code == 0
    assert mode_of(home / output) == 0o600
    (home / name).chmod(0o644)
    (home / output).write_text((home / output).read_text().replace("monitor", "monitors"))
    assert run(*words, "--force").code == 0
    assert mode_of(home / output) == 0o600  # a private file is never made readable


def test_a_dump_of_a_private_file_is_private(home: Path, run: Run, nix: Callable[[str], Path]) -> None:
    """Settings contain what the Nix file contains."""
    nix('echo \'{"machines": {}, "instances": {}}\'')
    (home / "clan.nix").write_text("{}")
    (home / "clan.nix").chmod(0o640)
    done = run("dump", "--file", home / "clan.nix", "--output", home / "out")
    assert done.code == 0
    assert {mode_of(file) for file in (home / "out").iterdir()} == {0o600}
    assert "clan.nix, which other users may not read (it may hold secrets" in done.err


@pytest.mark.parametrize("command", ["inventory", "show -f json", "show -f nix"])
def test_a_redirect_into_a_readable_file_is_a_warning(home: Path, command: str) -> None:
    """The shell creates the file, so its mode is not changed. A pipe needs no warning."""
    (home / "inventory.json").chmod(0o600)
    words = f"{PROGRAM} {command} -c {home}/config.yaml"
    for mask, warned in (("022", True), ("077", False)):
        done = subprocess.run(
            ["sh", "-c", f"umask {mask}; {words} > {home}/out{mask}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0
        assert ("the output goes to a file that other users can read" in done.stderr) is warned
    done = subprocess.run(["sh", "-c", f"{words} | cat > /dev/null"], capture_output=True, text=True, check=False)
    assert "other users" not in done.stderr


def test_secrets_in_target_files_are_a_warning(home: Path, run: Run) -> None:
    """Target files keep mode 0644 for Prometheus."""
    settings: dict[str, Json] = {
        "params": {"token": SECRET, "module": "x"},
        "labels": {"password": SECRET, "site": "a"},
    }
    (home / "inventory.json").write_text(json.dumps(inventory(["monitor", "db"], exporter=settings)))
    (home / "config.yaml").write_text(
        CONFIG + "labels: {client_secret: x, token_bucket: small, docs: 'https://u:p@h/'}\n"
        "exporters: {blackbox: {params: {target: 'https://u:p@h/'}, select: {}}}\n"
    )
    done = run("refresh", "-c", home / "config.yaml")
    assert done.code == 0
    assert mode_of(home / "targets/node.json") == 0o644
    assert SECRET not in done.err
    told = [line for line in done.err.splitlines() if "looks like a secret" in line]
    names = (
        ": labels.client_secret: looks",
        ": labels.docs: looks",
        "exporter node: 'password'",
        "exporter node: 'token'",
        ": exporters.blackbox.params.target: looks",
    )
    assert len(told) == len(names)
    assert sum("config.yaml:" in line for line in told) == 3
    assert all(any(name in line for line in told) for name in names)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("https://u:p@h/x and ssh://git@h/y", "https://***@h/x and ssh://git@h/y"),
        ("git+ssh://git:pw@h", "git+ssh://***@h"),
        ("https://token@github.com/x", "https://***@github.com/x"),
        ("https://h/x?a=b&access_token=abc&ref=main", "https://h/x?a=b&access_token=***&ref=main"),
        ("https://h/x@y?q=a@b", "https://h/x@y?q=a@b"),
        ("github:a/b", "github:a/b"),
        ("a@b.c", "a@b.c"),
    ],
)
def test_secrets_in_urls_are_hidden(text: str, hidden: str) -> None:
    """Userinfo and tokens in queries; the user name of ssh is shown."""
    assert hide_in_urls(text) == hidden


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "exporters: {token-exporter: {port: 70000}}",
            "exporters.token-exporter.port: invalid port 70000: must be 1 to 65535",
        ),
        ("backends: {tailscale: {token: {family: ipv5}}}", "'ipv5' is not one of"),
        ("backends: {static: {lab: {machines: {token-server: ['a b']}}}}", "'a b'"),
    ],
)
def test_values_below_user_chosen_names_are_shown(home: Path, run: Run, text: str, shown: str) -> None:
    """Exporter types, backends and machines may have names like `token`."""
    (home / "config.yaml").write_text(text)
    done = run("check", "-c", home / "config.yaml")
    assert done.code == 2
    assert shown in done.err


def test_names_of_secrets_are_recognised() -> None:
    """The name of a file that has a secret is no secret."""
    for name in ("password", "basicAuthPassword", "bearer_token", "apiKey", "credentials", "Authorization"):
        assert is_secret(name)
        assert exposes(name, "x")
    for name in ("secret_access_key", "API_TOKEN", "token2", "passwords"):
        assert exposes(name, "x")
    for name in ("token_bucket", "secretary", "tokenizer", "site"):
        assert not exposes(name, "x")
    for name in ("password_file", "credentialsFile", "token_type", "target", "module", "auth", "keytab", "bearer_name"):
        assert not is_secret(name)
    assert hide({"a": [{"password": 1}], "token": {"x": 1}}) == {"a": [{"password": "***"}], "token": "***"}
