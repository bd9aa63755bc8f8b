"""Who may read over HTTP on an address of the tailnet: real tailscaleds, and the users and tags of headscale."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import inventory
from tests.tailnet.bed import until

if TYPE_CHECKING:
    from tests.tailnet.bed import Bed
    from tests.tailnet.node import Node

pytestmark = pytest.mark.timeout(600)
PORT = 9942


def ask(node: Node, url: str, *words: str) -> tuple[int, str]:
    """Get a page from a machine; return the status (0: no connection) and the body."""
    said = node.host.run("curl", "-sS", "-m", "5", "-w", "\n%{http_code}", *words, url, check=False)
    body, _, status = said.strip().rpartition("\n")
    return int(status or 0), body.strip()


def test_only_allowed_nodes_read_on_the_address_of_the_tailnet(bed: Bed) -> None:
    """A tagged node, a node of a user, and a local user; while tailscaled is down, nobody."""
    names = ("monitor", "web", "laptop")
    for name in names:
        bed.machine(name)
    if not bed.world.tun:
        pytest.skip("without a TUN device, connections of the tailnet arrive on loopback")
    monitor, web, laptop = (bed.machines[name] for name in names)
    place = monitor.host.place
    (place / "inventory.json").write_text(json.dumps(inventory(list(names))))
    config = place / "http.json"
    bed.join("laptop", monitor="server", web="server")
    bed.settled("monitor", names)
    address = monitor.address
    url = f"http://{address}:{PORT}/sd/node"

    def write(*allow: str) -> None:
        document = {
            "inventory": {"file": "inventory.json"},
            "backends": {"tailscale": {"tailnet": {"socket": str(monitor.socket)}}},
            "output": {"directory": "targets"},
            "web": {"listen": f"{address}:{PORT}", "allow": allow},
        }
        (place / "http.new").write_text(json.dumps(document))
        (place / "http.new").rename(config)

    write("tag:server")
    monitor.stop()
    run = monitor.host.start(
        sys.executable, "-m", "clan_discovery", "run", "--config", config, "--interval", "1s", log="http"
    )
    until("it goes on without the listener", lambda: "cannot serve HTTP" in run.said())
    assert run.alive
    monitor.start()
    until("it is served", lambda: ask(web, url)[0] == 200)
    assert ask(web, url)[1] == (place / "targets/node.json").read_text().strip()
    until("laptop connects", lambda: ask(laptop, url)[0] == 403)
    assert ask(laptop, url) == (403, "the user ops is not in `web.allow`")
    # Of the node itself, every local user counts as the node.
    assert ask(monitor, url)[0] == 200
    assert ask(monitor, url, "-H", "Host: monitor")[0] == 200
    assert ask(monitor, url, "-H", "Host: monitor.tailnet.test:80")[0] == 200
    assert ask(web, url, "-H", "Host: evil.example")[0] == 421
    assert ask(monitor, f"http://127.0.0.1:{PORT}/sd/node")[0] == 0

    write("ops")
    until("the config is read", lambda: ask(laptop, url)[0] == 200)
    assert ask(web, url) == (403, "web.tailnet.test has none of the tags in `web.allow`")

    # Without tailscaled there is no tailnet; a local connection shows that nobody is let in.
    monitor.stop()
    monitor.host.run("ip", "address", "replace", f"{address}/32", "dev", "lo", check=False)
    until("503", lambda: ask(monitor, url)[0] == 503)
    run.end()
