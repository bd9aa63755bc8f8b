"""Run the program in forked processes, which need no start of Python: for tests that run it dozens of times."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, NoReturn

from clan_discovery.cli.main import entry
from tests.conftest import Done
from tests.support.programs import program
from tests.support.users import import_everything

if TYPE_CHECKING:
    from collections.abc import Sequence

_PR_SET_PTRACER = 0x59616D61
_ANY = ctypes.c_ulong(-1)


class Forked:
    """A process with all modules that runs a command line once `go` is called."""

    def __init__(self, *words: object) -> None:
        import_everything()
        # `wait` closes them.
        self._files = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._own, child = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(child, [str(word) for word in words])
        child.close()
        assert self._own.recv(1)

    def go(self) -> None:
        """Let it begin."""
        self._own.send(b"x")

    def wait(self) -> Done:
        """Wait for its end; the code is negative for a signal."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._own.close()
        texts: list[str] = []
        for file in self._files:
            with file:
                file.seek(0)
                texts.append(file.read())
        return Done(code, *texts)

    def _run(self, own: socket.socket, words: list[str]) -> NoReturn:
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY, 0, 0, 0)  # else strace may need to be the parent
            for number, file in enumerate(self._files, 1):
                os.dup2(file.fileno(), number)
            sys.argv = ["clan-discovery", *words]
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            own.send(b"x")
            # Only the calls after this one are traced: strace is attached meanwhile.
            select.select([own], [], [])
            entry()
        finally:
            os._exit(70)


def traced(options: Sequence[str], *words: object) -> Done:
    """Run a command line under strace with these options, which counts no calls of the start of Python."""
    strace = program("strace")
    process = Forked(*words)
    command = [strace, "-f", *options, "-p", str(process.pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        attached = tracer.stderr.readline()
        assert b" attached" in attached, attached
        process.go()
        return process.wait()


def together(*commands: Sequence[object]) -> list[Done]:
    """Run command lines that begin at the same time."""
    processes = [Forked(*words) for words in commands]
    for process in processes:
        process.go()
    return [process.wait() for process in processes]
