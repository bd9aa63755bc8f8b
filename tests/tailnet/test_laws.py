"""What the design promises of machines that join, leave, expire, are renamed, registered anew or tagged anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.tailnet import programs
from tests.tailnet.bed import until
from tests.tailnet.server import PROMETHEUS, VMAGENT, Server

if TYPE_CHECKING:
    from tests.tailnet.bed import Bed

SUFFIX = "tailnet.test"


def hold(server: Server, up: set[str], addresses: dict[str, str]) -> None:
    """Wait until both scrapers, in both modes, hold the declared machines and no other, at these hosts."""
    wanted = {name: f"http://{host}:9100/metrics" for name, host in addresses.items()}
    for port in (PROMETHEUS, VMAGENT):
        for job in ("run", "timer"):

            def so(port: int = port, job: str = job) -> bool:
                targets = server.targets(port)[job]
                urls = {name: target.url for name, target in targets.items()}
                return urls == wanted and {n for n, t in targets.items() if t.health == "up"} == up

            try:
                until(f"{port} {job}", so, 40)
            except AssertionError as error:
                raise AssertionError(f"{error}: {server.targets(port)[job]}, not {wanted} with {up} up") from None


def test_the_life_of_machines(bed: Bed) -> None:
    """Every step leaves exactly the declared machines as targets, under their names."""
    machines = {
        "monitor": programs.OLD,
        "db": programs.NEW,
        "web": programs.OLDEST,
        "lamp": programs.NEW,
        "shed": programs.OLD,
        "guest": programs.NEW,
        "attic": programs.NEW,
    }
    for name, version in machines.items():
        bed.machine(name, version)
    bed.join("monitor", "db", "lamp", "shed", "guest", web="server")
    nodes = bed.machines
    server = Server(nodes["monitor"], ("monitor", "db", "web", "lamp", "shed", "attic"))
    server.start()
    # Nobody logged attic in; guest, a stranger that serves metrics like everybody, is no target.
    there = {name: nodes[name].address for name in ("monitor", "db", "web", "lamp", "shed")}
    stands = {**there, "attic": f"attic.{SUFFIX}"}
    hold(server, set(there), stands)

    bed.machine("cellar")
    server.declare(*server.declared, "cellar")
    bed.join("cellar")
    there["cellar"] = stands["cellar"] = nodes["cellar"].address
    hold(server, set(there), stands)

    # It goes away: the control plane says offline, later; it stays where it was.
    nodes["cellar"].stop()
    hold(server, set(there) - {"cellar"}, stands)

    # Its key expires: headscale says so of a node that it still calls online; it stays where it was.
    ids = bed.control.nodes()
    bed.control.ask("nodes", "expire", "-i", str(ids["lamp"]))
    hold(server, set(there) - {"cellar", "lamp"}, stands)

    # It is renamed: nobody of the declared name is there any more, so it stands at its name, and is down.
    bed.control.ask("nodes", "rename", "-i", str(ids["shed"]), "depot")
    hold(server, {"monitor", "db", "web"}, stands | {"shed": f"shed.{SUFFIX}"})
    bed.control.ask("nodes", "rename", "-i", str(ids["shed"]), "shed")
    hold(server, {"monitor", "db", "web", "shed"}, stands)

    # It is installed anew and registered under a taken name: the name is not its own until somebody says so.
    nodes["db"].stop()
    nodes["db"].forget()
    nodes["db"].start()
    nodes["db"].up(bed.keys[""])
    assert "db-1" in bed.control.nodes()
    hold(server, {"monitor", "web", "shed"}, stands)
    bed.control.ask("nodes", "delete", "-i", str(ids["db"]))
    # headscale sometimes gives the freed name back by itself, with the node's next report.
    if (number := bed.control.nodes().get("db-1")) is not None:
        bed.control.ask("nodes", "rename", "-i", str(number), "db")
    stands["db"] = nodes["db"].address
    hold(server, {"monitor", "db", "web", "shed"}, stands)
    assert server.up(job="run") == {"monitor", "db", "web", "shed"}
