"""Run a command as another user, in a child process that changes its user for good."""

from __future__ import annotations

import io
import json
import os
import pkgutil
import pwd
import traceback
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

import httpx
import pytest

import clan_discovery
from clan_discovery.cli.main import main
from tests.conftest import Done

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = pwd.getpwnam("nobody").pw_uid
"""Looked up here, to import the library before the user changes, who may not be able to read it."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")


def as_nobody(*words: object) -> Done:
    """Run a command line as another user, who may not be able to read Python's own files."""
    import_everything()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        out, err = io.StringIO(), io.StringIO()
        code = -1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            code = main([str(word) for word in words], out, err)
        except BaseException:  # noqa: BLE001 - the test shows it
            err.write(traceback.format_exc())
        finally:
            os.write(writer, json.dumps([code, out.getvalue(), err.getvalue()]).encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        body = pipe.read()
    os.waitpid(pid, 0)
    code, out_text, err_text = json.loads(body)
    return Done(code, out_text, err_text)


@cache
def import_everything() -> None:
    """Import every module that a command may import."""
    for module in pkgutil.walk_packages(clan_discovery.__path__, "clan_discovery."):
        if module.name != "clan_discovery.__main__":
            import_module(module.name)
    httpx.Client().close()  # it imports modules when it is used


def give_to_nobody(place: Path) -> None:
    """Give a directory and its content to the other user, and let the user reach it."""
    for path in (place, *place.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    for path in place.parents:
        if path.stat().st_mode & 0o005 != 0o005:
            path.chmod(path.stat().st_mode | 0o055)
