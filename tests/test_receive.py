"""Token files, and the receiver's config that is made of them."""

from __future__ import annotations

import http.client
import os
import re
import socket
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.assemble.receive import read_tokens
from clan_discovery.emit.receive import render_receiver
from clan_discovery.errors import InputError, PublishError
from clan_discovery.model import AgentToken, FrontSettings, ReceiveSettings
from clan_discovery.publish.secret import write_secret
from clan_discovery.syntax.token import token_in
from tests.support.programs import free_port
from tests.support.receiver import Receiver

if TYPE_CHECKING:
    from pathlib import Path

    from clan_discovery.model import ReceiverKind

TOKEN: Final = "q0J3mXbTn7cKfVw2yRz8LhPdSg5uAe1iOo4xNtB6CZk"  # noqa: S105 - of the test alone
OTHER: Final = "Zk6CBtNx4oOi1eAu5gSdPhL8zRy2wVfKc7nTbXm3J0q"


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_token_may_end_with_one_newline(end: bytes) -> None:
    """As editors, `echo` and Windows write it."""
    assert token_in(TOKEN.encode() + end) == TOKEN


REFUSED: Final = {
    "empty": (b"", "is empty"),
    "a newline alone": (b"\n", "is empty"),
    "two newlines": (TOKEN.encode() + b"\n\n", "more than one line"),
    "two lines": (f"{TOKEN}\n{TOKEN}\n".encode(), "more than one line"),
    "a newline before it": (f"\n{TOKEN}\n".encode(), "more than one line"),
    "CR alone": (f"{TOKEN}\r".encode(), "more than one line"),
    "CR inside": (f"{TOKEN}\r{TOKEN}\n".encode(), "more than one line"),
    "NUL": (TOKEN.encode() + b"\0", "a NUL"),
    "a space": (b" " + TOKEN.encode(), "a space"),
    "Bearer": (b"Bearer " + TOKEN.encode(), "a space"),
    "a quote": (TOKEN.encode() + b'"', "a character that no token has"),
    "a semicolon": (TOKEN.encode() + b";", "a character that no token has"),
    "a variable": (b"$http_x" + TOKEN.encode(), "a character that no token has"),
    "not ASCII": ("ü".encode() * 20, "a character that no token has"),
    "not UTF-8": (b"\xff" * 40, "a character that no token has"),
    "short": (TOKEN[:19].encode(), "holds 19 characters"),
    "padding alone": (b"=" * 40, "a character that no token has"),
    "1 MB": (b"a" * 1_000_000, "is larger than 4096 bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_anything_but_one_token_gives_no_entry(tmp_path: Path, name: str) -> None:
    """The warning names the machine and the file, and no byte of the content."""
    body, why = REFUSED[name]
    (tmp_path / "dino").write_bytes(body)
    found = read_tokens(tmp_path, ["dino"])
    assert found.tokens == ()
    said = str(found.problems[0])
    assert str(tmp_path / "dino") in said
    assert "token file of dino" in said
    assert why in said
    assert TOKEN[:8] not in "".join(map(str, found.problems))


@given(st.binary(max_size=60) | st.text("abc=~.-_+/\n\r\0 ", max_size=60).map(str.encode))
def test_token_is_what_the_file_holds_or_none(body: bytes) -> None:
    """Whatever is in the file, nothing is guessed."""
    try:
        token = token_in(body)
    except ValueError:
        return
    assert body in (f"{token}{end}".encode() for end in ("", "\n", "\r\n"))
    assert re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", token)
    assert len(token) >= 20


def test_pipe_socket_and_directory_give_no_entry(tmp_path: Path) -> None:
    """Reading does not block."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    agents = ["directory", "gone", "loop", "pipe", "socket"]
    found = read_tokens(tmp_path, agents)
    assert found.tokens == ()
    assert [p.where for p in found.problems[:5]] == [str(tmp_path / agent) for agent in agents]


def test_symlink_to_a_file_is_followed(tmp_path: Path) -> None:
    """Programs that decrypt secrets link to them."""
    (tmp_path / "tokens").mkdir()
    (tmp_path / "secret").write_text(TOKEN)
    (tmp_path / "tokens/dino").symlink_to(tmp_path / "secret")
    assert read_tokens(tmp_path / "tokens", ["dino"]).tokens == (AgentToken("dino", TOKEN),)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_file_that_cannot_be_read_gives_no_entry(tmp_path: Path) -> None:
    """The others are read."""
    (tmp_path / "dino").write_text(TOKEN)
    (tmp_path / "dino").chmod(0)
    (tmp_path / "rex").write_text(OTHER)
    found = read_tokens(tmp_path, ["dino", "rex"])
    assert found.tokens == (AgentToken("rex", OTHER),)
    assert "Permission denied" in str(found.problems[0])


def test_two_tokens_of_a_machine_are_valid(tmp_path: Path) -> None:
    """For a rotation; the machine's name may have dots."""
    (tmp_path / "desk.example").write_text(TOKEN)
    (tmp_path / "desk.example.previous").write_text(OTHER)
    (tmp_path / ".desk.example.swp").write_text("nothing")
    found = read_tokens(tmp_path, ["desk", "desk.example"])
    assert found.tokens == (AgentToken("desk.example", OTHER), AgentToken("desk.example", TOKEN))
    assert [p.what for p in found.problems] == ["agent desk has no token: what it sends is refused"]


def test_file_for_no_agent_gives_no_entry(tmp_path: Path) -> None:
    """Also one that is named almost like an agent."""
    (tmp_path / "dinos").write_text(TOKEN)
    found = read_tokens(tmp_path, ["dino"])
    assert found.tokens == ()
    assert "did you mean 'dino'?" in str(found.problems[0])


@pytest.mark.parametrize("second", [TOKEN, TOKEN.upper()])
def test_two_machines_with_one_token_are_refused(tmp_path: Path, second: str) -> None:
    """Both are named. Nginx ignores the case in a hash, so the case does not make a difference."""
    (tmp_path / "dino").write_text(TOKEN)
    (tmp_path / "rex").write_text(second)
    with pytest.raises(InputError, match="dino and rex have the same token") as caught:
        read_tokens(tmp_path, ["dino", "rex"])
    assert TOKEN.casefold() not in str(caught.value).casefold()


def test_name_that_cannot_be_forced_gives_no_entry(tmp_path: Path) -> None:
    """It would mean something to a proxy or in a URL."""
    names = ["a b", "a$b", "a&b", 'a"b', "a;b", "a,b", "a=b", "ä", "-a"]
    for name in names:
        (tmp_path / name).write_text(TOKEN)
    found = read_tokens(tmp_path, names)
    assert found.tokens == ()
    assert len([p for p in found.problems if "cannot send" in p.what]) == len(names)


def test_directory_with_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clan_discovery.assemble.receive._FILES_MOST", 2)
    for name in ("dino", "dino.2"):
        (tmp_path / name).write_text(f"{name}{'x' * 30}")
    assert len(read_tokens(tmp_path, ["dino"]).tokens) == 2
    (tmp_path / "other").touch()
    with pytest.raises(InputError, match="has 3 files: 2 at most are read"):
        read_tokens(tmp_path, ["dino"])


def test_directory_that_is_missing_is_an_error(tmp_path: Path) -> None:
    """Else a wrong path would revoke every token."""
    with pytest.raises(InputError, match="cannot read the directory of tokens: No such file"):
        read_tokens(tmp_path / "nowhere", ["dino"])


def rendered(kind: ReceiverKind, *tokens: AgentToken) -> str:
    """Return the config of a receiver with both stores."""
    receive = ReceiveSettings(
        kind=kind, domain="push.example.org", metrics="http://127.0.0.1:8428", logs="http://127.0.0.1:9428"
    )
    return render_receiver(tokens, receive, FrontSettings(kind="nginx", listen=("127.0.0.1",)))


@pytest.mark.parametrize("kind", ["nginx", "vmauth"])
def test_without_a_token_nothing_is_let_in(kind: ReceiverKind) -> None:
    """No entry is for an empty token."""
    text = rendered(kind)
    assert "bearer_token" not in text
    assert re.search(r"Bearer ?\"", text) is None
    assert "dino" not in text


def test_entry_is_not_repeated_in_the_representation() -> None:
    """A traceback or a log may have it."""
    assert TOKEN not in repr(AgentToken("dino", TOKEN))


def test_file_of_secrets_is_closed(tmp_path: Path) -> None:
    """Whatever the umask and its mode before; an unchanged one is not written again."""
    file = tmp_path / "nginx.conf"
    assert write_secret(file, b"a", None)
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    before = file.stat().st_ino
    assert not write_secret(file, b"a", None)
    assert (file.stat().st_mode & 0o777, file.stat().st_ino) == (0o600, before)
    file.chmod(0o666)
    assert write_secret(file, b"b", None)
    assert file.stat().st_mode & 0o777 == 0o600


def test_group_may_read_the_file_of_secrets(tmp_path: Path) -> None:
    """The group of the proxy; an unknown one is an error."""
    import grp  # noqa: PLC0415 - only here

    file = tmp_path / "nginx.conf"
    group = grp.getgrgid(os.getegid()).gr_name
    assert write_secret(file, b"a", group)
    assert (file.stat().st_mode & 0o777, file.stat().st_gid) == (0o640, os.getegid())
    with pytest.raises(InputError, match="there is no group 'nobody-has-it'"):
        write_secret(file, b"b", "nobody-has-it")
    assert file.read_bytes() == b"a"


def test_planted_file_is_not_followed(tmp_path: Path) -> None:
    """A symlink of another user at the place of the file, or of its temporary file."""
    victim = tmp_path / "victim"
    victim.write_text("kept")
    place = tmp_path / "run"
    place.mkdir()
    (place / "nginx.conf").symlink_to(victim)
    with pytest.raises(PublishError, match="is a symlink"):
        write_secret(place / "nginx.conf", b"a", None)
    (place / "nginx.conf").unlink()
    (place / "nginx.conf.new").symlink_to(victim)
    assert write_secret(place / "nginx.conf", b"a", None)
    assert victim.read_text() == "kept"
    assert not (place / "nginx.conf").is_symlink()


def test_directory_of_others_is_refused(tmp_path: Path) -> None:
    """Another user could put another file into the place of this one."""
    tmp_path.chmod(0o777)
    with pytest.raises(PublishError, match="other users can write to"):
        write_secret(tmp_path / "nginx.conf", b"a", None)
    assert list(tmp_path.iterdir()) == []


def test_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    """It is often one below /run, which is gone after a reboot."""
    place = tmp_path / "receive"
    with pytest.raises(PublishError, match=f"there is no directory {re.escape(str(place))}"):
        write_secret(place / "nginx.conf", b"a", None)


@pytest.mark.parametrize("length", [43, 60])
def test_token_may_begin_with_any_character(length: int, tmp_path: Path) -> None:
    """A backslash before `n`, `r` or `t` is another character in nginx, and `~` begins a regular expression."""
    port = free_port()
    front = FrontSettings(kind="nginx", listen=("127.0.0.1",), http_port=port)
    bed = Receiver(tmp_path, "nginx", "debian", port, front=front)
    bed.prepare()
    first = "~nrtv._-+/09AZ"
    tokens = [bed.add(f"m{number}", character * length) for number, character in enumerate(first)]
    with bed.run():
        statuses = [_status(port, token) for token in [*tokens, "x" * length, tokens[0][1:]]]
    # No store is behind this path. vlagent drops what is refused with 404.
    assert statuses == [*([403] * len(first)), 401, 401]


def _status(port: int, token: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/", b"", {"Authorization": f"Bearer {token}"})
        return connection.getresponse().status
    finally:
        connection.close()
