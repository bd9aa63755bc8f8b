"""The command `token`: it makes tokens, writes the receiver's config, and lists what there is; it shows no secret."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from clan_discovery.syntax.token import token_in
from tests.support.programs import absent, program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

ROLES: Final[Json] = {"server": {"machines": {"web01": {}}}, "agent": {"machines": {"dino": {}, "rex": {}}}}
INVENTORY: Final[Json] = {
    "machines": {"dino": {}, "rex": {}, "web01": {}},
    "instances": {"monitoring": {"module": {"name": "prometheus"}, "roles": ROLES}},
}
CONFIG: Final = """\
inventory: {file: inventory.json}
front:
  kind: KIND
  machine: web01
  domain: home.example.org
  tls: {certificate: /var/lib/acme/push/fullchain.pem, key: /var/lib/acme/push/key.pem}
  receive:
    tokens: tokens
    metrics: http://127.0.0.1:8428
    logs: {url: http://127.0.0.1:9428}
    file: run/receiver
"""
TOKENS: Final = {
    "dino": "q0J3mXbTn7cKfVw2yRz8LhPdSg5uAe1iOo4xNtB6CZk",
    "rex": "Zk6CBtNx4oOi1eAu5gSdPhL8zRy2wVfKc7nTbXm3J0q",
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config with two agents and their tokens."""
    (tmp_path / "inventory.json").write_text(json.dumps(INVENTORY))
    (tmp_path / "run").mkdir()
    (tmp_path / "tokens").mkdir()
    for machine, token in TOKENS.items():
        (tmp_path / "tokens" / machine).write_text(f"{token}\n")
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.replace("KIND", "nginx"))
    return file


def assert_no_secret(done: Done) -> None:
    """Check that nothing printed is a token, or a part of one."""
    said = done.out + done.err
    assert not any(token[at : at + 8] in said for token in TOKENS.values() for at in range(len(token) - 8))


def test_new_token_is_alone_on_stdout(run: Callable[..., Done]) -> None:
    """So that it can go to a file; it needs no config, and each is another one."""
    first, second = run("token", "new", "laptop"), run("token", "new", "laptop")
    assert first.code == second.code == 0
    assert token_in(first.out.encode()) != token_in(second.out.encode())
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}\n", first.out)
    assert first.out.strip() not in first.err
    for way in ("clan vars", "sops-nix", "agenix", "a plain file"):
        assert way in first.err


def test_a_token_that_age_has_kept_is_read(config: Path, run: Callable[..., Done]) -> None:
    """As agenix and sops-nix decrypt it on the machine."""
    if shutil.which("age") is None:
        absent("age", "not on PATH (Debian: age)", required=False)
    key, secret = config.parent / "key", config.parent / "dino.age"
    subprocess.run(["age-keygen", "-o", key], check=True, capture_output=True)
    recipient = subprocess.run(["age-keygen", "-y", key], check=True, capture_output=True, text=True).stdout.strip()
    made = run("token", "new", "dino").out
    subprocess.run(["age", "-r", recipient, "-o", secret], input=made, check=True, text=True)
    assert made.encode().strip() not in secret.read_bytes()
    subprocess.run(["age", "-d", "-i", key, "-o", config.parent / "tokens/dino", secret], check=True)
    assert run("token", "write", "-c", config).code == 0
    assert made.strip() in (config.parent / "run/receiver").read_text()


@pytest.mark.parametrize("words", [("new",), ("new", "a b"), ("write", "dino"), ("rotate",), ()])
def test_wrong_words_are_refused(run: Callable[..., Done], words: tuple[str, ...]) -> None:
    """With exit 2 and what to write."""
    done = run("token", *words)
    assert done.code == 2
    assert "clan-discovery" in done.err


def test_write_writes_once(config: Path, run: Callable[..., Done]) -> None:
    """The file is closed; without a change, it is not written again."""
    done = run("token", "write", "-c", config)
    file = config.parent / "run/receiver"
    assert (done.code, done.err) == (0, "")
    assert done.out == f"2 tokens of 2 machines; {file} written: reload the receiver\n"
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.stat()
    assert run("token", "write", "-c", config).out == f"2 tokens of 2 machines; {file} unchanged\n"
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert_no_secret(done)
    assert all(token in file.read_text() for token in TOKENS.values())


@pytest.mark.parametrize("kind", ["caddy", "traefik"])
def test_vmauth_receives_beside_other_proxies(config: Path, run: Callable[..., Done], kind: str) -> None:
    """Each token is a user."""
    text = CONFIG.replace("KIND", kind)
    config.write_text(text)
    assert run("token", "write", "-c", config).code == 0
    users = (config.parent / "run/receiver").read_text().splitlines()
    assert [line.removeprefix("- ")[:15] for line in users[2:]] == ['{"bearer_token"'] * 2


def test_list_counts_tokens(config: Path, run: Callable[..., Done]) -> None:
    """And says what is wrong with files."""
    (config.parent / "tokens/rex").write_text("")
    (config.parent / "tokens/dino.2").write_text(TOKENS["rex"])
    done = run("token", "list", "-c", config)
    assert done.code == 0
    assert done.out == "dino  2 tokens\nrex   0 tokens\n"
    assert "tokens/rex: the token file of rex is empty; it gives no access" in done.err
    assert "agent rex has no token: what it sends is refused" in done.err
    assert_no_secret(done)


def test_shared_token_writes_nothing(config: Path, run: Callable[..., Done]) -> None:
    """Both machines are named; the old file is kept."""
    (config.parent / "run/receiver").write_text("old")
    (config.parent / "tokens/rex").write_text(TOKENS["dino"])
    done = run("token", "write", "-c", config)
    assert done.code == 2
    assert "dino and rex have the same token" in done.err
    assert (config.parent / "run/receiver").read_text() == "old"
    assert_no_secret(done)


def test_file_that_cannot_be_written_is_exit_5(config: Path, run: Callable[..., Done]) -> None:
    """Such as a directory of other users."""
    (config.parent / "run").chmod(0o777)
    done = run("token", "write", "-c", config)
    assert done.code == 5
    assert "other users can write to" in done.err
    assert_no_secret(done)


def test_config_that_receives_nothing_is_refused(config: Path, run: Callable[..., Done]) -> None:
    """Also one whose TLS is off."""
    config.write_text("inventory: {file: inventory.json}\n")
    done = run("token", "write", "-c", config)
    assert done.code == 2
    assert "the config has no `front.receive`" in done.err
    tls = re.sub("  tls: .*\n", "", CONFIG.replace("KIND", "nginx"))
    config.write_text(tls)
    assert "in clear text" in run("token", "write", "-c", config).err


def test_config_of_1000_agents_is_accepted_by_nginx(tmp_path: Path, run: Callable[..., Done]) -> None:
    """Nginx may warn of its hash, and goes on."""
    machines = [f"machine-{number:04}.example" for number in range(1000)]
    roles: Json = {"server": {"machines": {"web01": {}}}, "agent": {"machines": {machine: {} for machine in machines}}}
    instances = {"monitoring": {"module": {"name": "prometheus"}, "roles": roles}}
    inventory: Json = {"machines": {machine: {} for machine in ["web01", *machines]}, "instances": instances}
    (tmp_path / "inventory.json").write_text(json.dumps(inventory))
    (tmp_path / "run").mkdir()
    (tmp_path / "tokens").mkdir()
    for number, machine in enumerate(machines):
        # Also the longest and the strangest ones: `~` begins a regular expression of nginx, and `*` is a wildcard.
        token = f"~{number:030}+/.-_~" if number % 2 else f"{number:040}" * (1 + number % 5)
        (tmp_path / "tokens" / machine).write_text(token)
    (tmp_path / "config.yaml").write_text(
        CONFIG.replace("KIND", "nginx").replace("  tls:", "  listen: [127.0.0.1]\n  ports: {http: 8080}\n  #")
    )
    done = run("token", "write", "-c", tmp_path / "config.yaml")
    assert (done.code, done.err) == (0, "")
    main = tmp_path / "nginx.conf"
    main.write_text(f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ include {tmp_path}/run/receiver; }}\n")
    checked = subprocess.run([program("nginx"), "-t", "-c", str(main)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "conflicting" not in checked.stderr


def test_token_command_starts_without_http_and_parsers() -> None:
    """`token new` needs none of them."""
    call = "main(['token', 'new', 'a'], sys.stdout, sys.stderr)"
    code = f"import sys; from clan_discovery.cli.main import main; {call}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[1].split())
    assert not loaded & {"httpx", "yaml", "pydantic", "waitress"}
