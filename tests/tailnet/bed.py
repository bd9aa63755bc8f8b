"""The test bed: a control plane, and machines with exporters in its tailnet."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import httpx

from tests.support import builds
from tests.tailnet.control import Headscale
from tests.tailnet.node import Node
from tests.tailnet.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.tailnet.world import Host, Process


class Bed:
    """A tailnet; a context manager."""

    def __init__(self, *, v4: bool = True) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="cd-"))  # short: a unix socket's path has at most 107 characters
        self.world = World(self.place)
        self.machines: dict[str, Node] = {}
        self._v4 = v4

    def __enter__(self) -> Self:
        try:
            self.world.__enter__()
            self.control = Headscale(self.world.host("control"), v4=self._v4)
            self.control.start()
            self.control.user()
            self.keys = {
                "": self.control.key(),
                "server": self.control.key("--tags", "tag:server"),
                "ephemeral": self.control.key("--ephemeral"),
            }
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.world.__exit__()
        shutil.rmtree(self.place, ignore_errors=True)

    def machine(self, name: str, version: str = builds.NEW, *, exporter: bool = True) -> Node:
        """Add a machine: start its tailscaled, without a login."""
        node = Node(self.world.host(name), self.control, version, tun=self.world.tun)
        self.machines[name] = node
        node.start()
        if exporter:
            start_exporter(node.host)
        return node

    def join(self, *names: str, **by_key: str) -> None:
        """Log machines in, in parallel: each tailscaled takes 5 s to check its network.

        A keyword argument logs in with that key: `web="server"`.
        """
        keys = dict.fromkeys(names, "") | by_key
        together([partial(self.machines[name].up, self.keys[key]) for name, key in keys.items()])

    def settled(self, name: str, peers: Iterable[str], seconds: float = 120) -> None:
        """Wait until a machine's tailscaled sees these peers online."""
        wanted = set(peers)
        until(f"{name} sees {sorted(wanted)} online", lambda: wanted <= self.machines[name].peers(online=True), seconds)


def start_exporter(host: Host) -> Process:
    """Start a node exporter on port 9100 of every address."""
    program = shutil.which("prometheus-node-exporter")
    assert program is not None
    words = ["--collector.disable-defaults", "--collector.time", "--web.listen-address=:9100"]
    return host.start(program, *words, log="exporter")


def together(work: Iterable[Callable[[], object]]) -> None:
    """Run functions in parallel; fail if one failed."""
    failed: list[BaseException] = []

    def one(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised below, in the waiting thread
            failed.append(error)

    threads = [threading.Thread(target=one, args=(call,)) for call in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    if failed:
        raise failed[0]


def until(what: str, check: Callable[[], bool], seconds: float = 120.0, every: float = 0.1) -> float:
    """Wait until a condition holds; return the seconds that it took."""
    start = time.monotonic()
    while not _so(check):
        if time.monotonic() - start > seconds:
            raise AssertionError(f"not so after {seconds:g} s: {what}")
        time.sleep(every)
    return time.monotonic() - start


def _so(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except (OSError, httpx.HTTPError, KeyError, ValueError):
        return False
