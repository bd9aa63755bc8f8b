"""Build realistic status answers and inventories of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from clan_discovery.emit.explain import Explainer, lines_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from clan_discovery.model import Declared, Json, Resolution

Object: TypeAlias = "dict[str, Json]"

SUFFIX = "tail1a2b3.ts.net"


def node(number: int, name: str, /, **changes: Json) -> Object:
    """Return a PeerStatus as tailscaled writes it; keys that are None are omitted."""
    v4 = f"100.{64 + (number >> 16) % 64}.{(number >> 8) & 255}.{number & 255}"
    v6 = f"fd7a:115c:a1e0::{number:x}" if number < 1 << 16 else f"fd7a:115c:a1e0::{number >> 16:x}:{number & 65535:x}"
    status: Object = {
        "ID": f"n{number:08d}CNTRL",
        "NodeID": 1000 + number,
        "PublicKey": f"nodekey:{number:064x}",
        "HostName": name,
        "DNSName": f"{name}.{SUFFIX}.",
        "OS": "linux",
        "UserID": 123456,
        "TailscaleIPs": [v4, v6],
        "AllowedIPs": [f"{v4}/32", f"{v6}/128"],
        "Tags": ["tag:server"],
        "Addrs": None,
        "CurAddr": "",
        "Relay": "fra",
        "PeerRelay": "",
        "RxBytes": 0,
        "TxBytes": 0,
        "Created": "2026-03-04T05:06:07.123456789Z",
        "LastWrite": "0001-01-01T00:00:00Z",
        "LastSeen": "0001-01-01T00:00:00Z",
        "LastHandshake": "0001-01-01T00:00:00Z",
        "Online": True,
        "ExitNode": False,
        "ExitNodeOption": False,
        "Active": False,
        "PeerAPIURL": [f"http://{v4}:35000"],
        "TaildropTarget": 0,
        "NoFileSharingReason": "",
        "InNetworkMap": True,
        "InMagicSock": True,
        "InEngine": False,
    }
    status.update(changes)
    return {key: value for key, value in status.items() if key not in changes or value is not None}


def status(nodes: Iterable[Mapping[str, Json]], /, **changes: Json) -> Object:
    """Return a Status whose first node is Self."""
    self_, *peers = nodes
    found: Object = {
        "Version": "1.102.3-t0000000-g0000000",
        "TUN": True,
        "BackendState": "Running",
        "HaveNodeKey": True,
        "AuthURL": "",
        "TailscaleIPs": self_.get("TailscaleIPs"),
        "Self": self_,
        "Health": [],
        "MagicDNSSuffix": SUFFIX,
        "CurrentTailnet": {"Name": "example.com", "MagicDNSSuffix": SUFFIX, "MagicDNSEnabled": True},
        "CertDomains": None,
        "ExtraRecords": None,
        "Peer": {str(peer.get("PublicKey")): peer for peer in peers},
        "User": {},
        "ClientVersion": None,
    }
    found.update(changes)
    return found


def fleet(names: Iterable[str], /, **changes: Json) -> Object:
    """Return a Status of plain linux nodes with these names."""
    return status([node(number, name) for number, name in enumerate(names, 1)], **changes)


def inventory(
    machines: list[str] | dict[str, Object],
    /,
    exporter: Object | None = None,
    server: Object | None = None,
    **changes: Json,
) -> Object:
    """Return a hand-written inventory: every machine has the role exporter, `monitor` the role server."""
    own: Mapping[str, Object] = machines if isinstance(machines, dict) else {}
    named: Object = {name: own.get(name, {}) for name in machines}
    found: Object = {
        "machines": named,
        "instances": {
            "monitoring": {
                "module": {"name": "prometheus", "input": "self"},
                "roles": {
                    "exporter": {"tags": ["all"], "settings": exporter or {}},
                    "server": {"machines": {"monitor": {"settings": server or {}}}},
                },
            }
        },
        "meta": {"name": "test", "domain": "home.arpa"},
    }
    found.update(changes)
    return found


def explained(name: str, declared: Declared, resolution: Resolution) -> list[str]:
    """Return what `explain` prints about one name; nothing where it is unknown."""
    found = Explainer(declared, resolution).explain(name)
    return [line for explanation in found for line in lines_of(explanation)]
