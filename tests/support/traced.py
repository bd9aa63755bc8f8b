"""Run the program under strace without starting Python each time: for tests that do it dozens of times."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, NoReturn

from clan_discovery.cli.main import entry
from tests.conftest import Done
from tests.support.programs import program
from tests.support.users import import_everything

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_PR_SET_PTRACER = 0x59616D61
_ANY = ctypes.c_ulong(-1)


def traced(place: Path, options: Sequence[str], *words: object) -> Done:
    """Fork, attach strace with these options, and run a command line; its output goes through files in `place`.

    The code is negative for a signal. strace counts the calls from there on, so that the start of Python has none.
    """
    import_everything()
    strace = program("strace")
    out, err = place / "traced.out", place / "traced.err"
    parent, child = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _child(child, [str(word) for word in words], out, err)
    child.close()
    with parent:
        assert parent.recv(1)
        with subprocess.Popen([strace, "-f", *options, "-p", str(pid)], stderr=subprocess.PIPE) as tracer:
            assert tracer.stderr is not None
            attached = tracer.stderr.readline()
            assert b" attached" in attached, attached
            parent.send(b"x")
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Done(code, out.read_text(), err.read_text())


def _child(own: socket.socket, words: list[str], out: Path, err: Path) -> NoReturn:
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY, 0, 0, 0)  # else strace may need to be the parent
        for number, file in ((1, out), (2, err)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        sys.argv = ["clan-discovery", *words]
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        own.send(b"x")
        # The calls that are traced begin here: none of them is made until strace is attached.
        select.select([own], [], [])
        entry()
    finally:
        os._exit(70)
