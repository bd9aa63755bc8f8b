"""Targets of machines that join, leave, expire, or are renamed, registered or tagged again."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support import builds
from tests.tailnet.bed import until
from tests.tailnet.server import PROMETHEUS, VMAGENT, Server

if TYPE_CHECKING:
    from tests.tailnet.bed import Bed

pytestmark = pytest.mark.timeout(900)
SUFFIX = "tailnet.test"


def hold(server: Server, up: set[str], addresses: dict[str, str], leaving: str = "") -> None:
    """Wait until both scrapers have exactly the declared machines at these hosts, in both modes.

    A machine that is `leaving` is at its host, or already at its name.
    """
    wanted = {name: f"http://{host}:9100/metrics" for name, host in addresses.items()}
    for port in (PROMETHEUS, VMAGENT):
        for job in ("run", "timer"):
            try:
                until(f"{port} {job}", partial(_is_held, server, port, job, wanted, up, leaving=leaving))
            except AssertionError as error:
                raise AssertionError(f"{error}: {server.targets(port)[job]}, not {wanted} with {up} up") from None


def _is_held(server: Server, port: int, job: str, wanted: dict[str, str], up: set[str], *, leaving: str) -> bool:
    targets = server.targets(port)[job]
    urls = {name: target.url for name, target in targets.items()}
    by_name = f"http://{leaving}.{SUFFIX}:9100/metrics"
    if urls.get(leaving) == by_name:
        wanted = wanted | {leaving: by_name}
    return urls == wanted and {name for name, target in targets.items() if target.health == "up"} == up


def test_the_life_of_machines(bed: Bed) -> None:
    """Every step leaves exactly the declared machines as targets, under their names."""
    machines = {
        "monitor": builds.OLD,
        "db": builds.NEW,
        "web": builds.OLDEST,
        "lamp": builds.NEW,
        "shed": builds.OLD,
        "guest": builds.NEW,
        "attic": builds.NEW,
        "ci": builds.NEW,
    }
    for name, version in machines.items():
        bed.machine(name, version)
    bed.join("monitor", "db", "lamp", "shed", "guest", web="server", ci="ephemeral")
    nodes = bed.machines
    server = Server(nodes["monitor"], ("monitor", "db", "web", "lamp", "shed", "attic", "ci"))
    server.start()
    # attic never logs in; guest is undeclared and serves metrics, but is no target.
    there = {name: nodes[name].address for name in ("monitor", "db", "web", "lamp", "shed", "ci")}
    stands = {**there, "attic": f"attic.{SUFFIX}"}
    hold(server, set(there), stands)

    # The control plane removes an ephemeral node a minute after it stopped; until then it is offline.
    nodes["ci"].stop()
    del there["ci"]
    hold(server, set(there), stands)

    bed.machine("cellar")
    server.declare(*server.declared, "cellar")
    bed.join("cellar")
    there["cellar"] = stands["cellar"] = nodes["cellar"].address
    hold(server, set(there), stands, leaving="ci")

    # It stops: the control plane reports it offline later; its address stays.
    nodes["cellar"].stop()
    hold(server, set(there) - {"cellar"}, stands, leaving="ci")

    # Its key expires: headscale still reports it online; its address stays.
    ids = bed.control.nodes()
    bed.control.ask("nodes", "expire", "-i", str(ids["lamp"]))
    hold(server, set(there) - {"cellar", "lamp"}, stands, leaving="ci")

    # It is renamed: no node has the declared name any more, so the name is the address, and it is down.
    bed.control.ask("nodes", "rename", "-i", str(ids["shed"]), "depot")
    hold(server, {"monitor", "db", "web"}, stands | {"shed": f"shed.{SUFFIX}"}, leaving="ci")
    bed.control.ask("nodes", "rename", "-i", str(ids["shed"]), "shed")
    hold(server, {"monitor", "db", "web", "shed"}, stands, leaving="ci")

    # It is reinstalled and registered under a taken name: it gets the name only after a rename.
    nodes["db"].stop()
    nodes["db"].forget()
    nodes["db"].start()
    nodes["db"].up(bed.keys[""])
    until("monitor sees db-1", lambda: "db-1" in nodes["monitor"].peers())
    time.sleep(12)  # a cycle of the timer and Prometheus's 5 s: a wrong target would be visible by now
    hold(server, {"monitor", "web", "shed"}, stands, leaving="ci")
    assert "db-1 (calls itself db)" in server.clan_discovery("show")
    bed.control.ask("nodes", "delete", "-i", str(ids["db"]))
    # headscale sometimes gives the freed name back by itself.
    if (number := bed.control.nodes().get("db-1")) is not None:
        bed.control.ask("nodes", "rename", "-i", str(number), "db")
    stands["db"] = nodes["db"].address
    hold(server, {"monitor", "db", "web", "shed"}, stands, leaving="ci")

    until("the ephemeral node is forgotten", lambda: "ci" not in bed.control.nodes())
    hold(server, {"monitor", "db", "web", "shed"}, stands | {"ci": f"ci.{SUFFIX}"})
    assert "machine lamp: its key expired on" in server.clan_discovery("doctor")

    # It logs out: expired at once, offline a little later; its address stays.
    nodes["web"].cli("logout")
    hold(server, {"monitor", "db", "shed"}, stands | {"ci": f"ci.{SUFFIX}"})
    until("both are called expired", lambda: server.clan_discovery("show").count(" expired ") == 2)


def test_a_machine_that_loses_its_tag(bed: Bed) -> None:
    """A node without a required tag is not trusted: its machine uses its name in the declared domain."""
    for name in ("monitor", "web", "db"):
        bed.machine(name)
    bed.join(monitor="server", web="server", db="server")
    server = Server(bed.machines["monitor"], ("monitor", "web", "db"), backend={"tags": ["server"]})
    server.start()
    stands = {name: bed.machines[name].address for name in server.declared}
    hold(server, {"monitor", "web", "db"}, stands)
    web = str(bed.control.nodes()["web"])
    bed.control.ask("nodes", "tag", "-i", web, "-t", "tag:retired")
    # Not web.tailnet.test, which leads to that node.
    hold(server, {"monitor", "db"}, stands | {"web": "web.clan.test"})
    bed.control.ask("nodes", "tag", "-i", web, "-t", "tag:retired,tag:server")
    hold(server, {"monitor", "web", "db"}, stands)


def test_a_tailnet_without_ipv4(bed_v6: Bed) -> None:
    """IPv6 addresses are in brackets if the family allows them; else the reason is shown."""
    for name in ("monitor", "db"):
        bed_v6.machine(name)
    bed_v6.join("monitor", "db")
    server = Server(bed_v6.machines["monitor"], ("monitor", "db"), backend={"family": "any"})
    server.start()
    stands = {name: f"[{bed_v6.machines[name].address}]" for name in server.declared}
    hold(server, {"monitor", "db"}, stands)
    config = server.place / "run.yaml"
    config.write_text(config.read_text().replace('"any"', '"ipv4"'))
    said = server.clan_discovery("explain", "db")
    assert "it has no IPv4 address (it has fd7a:115c:a1e0::" in said
    assert f"target: db.{SUFFIX}:9100" in said
