"""The Tailscale backend: what a status means, and hostile or failing LocalAPIs."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.backends.tailscale import TailscaleSocket
from clan_discovery.backends.tailscale_file import TailscaleFile
from clan_discovery.backends.tailscale_wire import TailscaleOptions, parse_status
from clan_discovery.errors import BackendError
from clan_discovery.localapi import LocalAPI
from clan_discovery.model import Snapshot
from tests.support.fleet import SUFFIX, fleet, node, status
from tests.support.localapi import HOST, Behaviour, localapi

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.backends.base import Backend
    from clan_discovery.model import Answer, Json
    from tests.support.fleet import Object

PLAIN = TailscaleOptions(backend="tailnet")
NOW = datetime(2026, 11, 20, tzinfo=UTC)


def parse(document: Json, options: TailscaleOptions = PLAIN) -> Snapshot:
    """Parse a status document."""
    return parse_status(json.dumps(document).encode(), options)


def names(snapshot: Answer) -> list[str]:
    """Return the names of the nodes."""
    assert isinstance(snapshot, Snapshot)
    return [n.name for n in snapshot.nodes]


def reasons(snapshot: Snapshot) -> list[str]:
    """Return the reason of each exclusion."""
    return sorted(e.reason for e in snapshot.excluded)


def test_self_is_a_node_and_nodes_are_sorted_by_name() -> None:
    """Peers of a status are sorted by key."""
    assert names(parse(fleet(["web", "db", "apps"]))) == ["apps", "db", "web"]


def test_a_tailnet_of_one_is_an_answer() -> None:
    """Running without peers is a valid answer, not an outage."""
    assert names(parse(fleet(["only"], Peer=None))) == ["only"]


@pytest.mark.parametrize(
    "state", ["NoState", "InUseOtherUser", "NeedsLogin", "NeedsMachineAuth", "Stopped", "Starting", "Whatever", ""]
)
def test_any_state_but_running_is_an_outage(state: str) -> None:
    """A status may list peers in every state, but only Running is an answer."""
    with pytest.raises(BackendError, match=f"state '{state}'"):
        parse(fleet(["a", "b"], BackendState=state))


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        None,
        "Running",
        7,
        {"BackendState": 3},
        {"Peer": {}},
        fleet(["a"], CurrentTailnet=None),
        fleet(["a"], Peer=[]),
        fleet(["a"], Peer={"k": 7}),
        fleet(["a"], Self=node(1, "a", TailscaleIPs="100.64.0.1")),
    ],
)
def test_an_invalid_status_is_an_outage(document: Json) -> None:
    """One value of a wrong type refuses the whole answer."""
    with pytest.raises(BackendError):
        parse(document)


def test_nodes_are_matched_by_dns_name_never_by_host_name() -> None:
    """A node chooses its HostName; the control plane assigns DNSName."""
    found = parse(status([node(1, "monitor"), node(2, "attacker", HostName="db"), node(3, "DB2", HostName="")]))
    assert names(found) == ["attacker", "db2", "monitor"]


NO_MACHINES: list[tuple[Object, str]] = [
    (
        node(9, "x", HostName="funnel-ingress-node", DNSName="", OS="", Tags=["tag:ingress"], ShareeNode=True),
        "funnel_ingress",
    ),
    (node(9, "x", DNSName="se-sto-wg-001.mullvad.ts.net.", OS="", Tags=["tag:mullvad-exit-node"]), "mullvad_exit"),
    (node(9, "x", DNSName="se-sto-wg-001.mullvad.ts.net.", Tags=None), "mullvad_exit"),
    (node(9, "x", HostName="device-of-shared-to-user", ShareeNode=True), "sharee"),
    (node(9, "x", DNSName="db.other-tailnet.ts.net."), "foreign_tailnet"),
    (node(9, "x", DNSName=f"db.sub.{SUFFIX}."), "foreign_tailnet"),
    (node(9, "x", DNSName=f"{SUFFIX}."), "foreign_tailnet"),
    (node(9, "x", DNSName=f"evil{SUFFIX}."), "foreign_tailnet"),
    (node(9, "x", DNSName=""), "no_dns_name"),
    (node(9, "x", DNSName=None), "no_dns_name"),
]


@pytest.mark.parametrize(("peer", "reason"), NO_MACHINES)
def test_nodes_that_are_no_machines_are_excluded_with_a_reason(peer: Object, reason: str) -> None:
    """Shared nodes, exit nodes of Mullvad, Funnel, other tailnets, and nodes without a DNS name."""
    found = parse(status([node(1, "monitor"), peer]))
    assert names(found) == ["monitor"]
    assert reasons(found) == [reason]


def test_a_host_name_of_an_excluded_node_is_in_brackets() -> None:
    """Without them it would count as a name of the tailnet, and a machine could lose its own."""
    found = parse(status([node(1, "monitor"), node(9, "x", DNSName="", HostName="db", ShareeNode=True)]))
    assert [excluded.name for excluded in found.excluded] == ["(db)"]


def test_required_tags() -> None:
    """Only nodes with one of the tags are machines."""
    nodes = [node(1, "a"), node(2, "b", Tags=None), node(3, "c", Tags=["tag:web", "tag:x"])]
    found = parse(status(nodes), TailscaleOptions(backend="t", tags=frozenset({"web", "db"})))
    assert names(found) == ["c"]
    assert reasons(found) == ["missing_tag", "missing_tag"]


@pytest.mark.parametrize(
    ("family", "changes", "addresses"),
    [
        ("ipv4", {}, ("100.64.0.2",)),
        ("ipv6", {}, ("fd7a:115c:a1e0::2",)),
        ("any", {}, ("100.64.0.2", "fd7a:115c:a1e0::2")),
        ("ipv4", {"TailscaleIPs": ["fd7a:115c:a1e0::2", "100.64.0.2"]}, ("100.64.0.2",)),
        ("ipv4", {"TailscaleIPs": ["fd7a:115c:a1e0::2"]}, ()),
        ("any", {"TailscaleIPs": ["fd7a:115c:a1e0::2"]}, ("fd7a:115c:a1e0::2",)),
        ("ipv4", {"TailscaleIPs": []}, ("100.64.0.2",)),
        ("ipv6", {"TailscaleIPs": None, "AllowedIPs": ["10.9.0.2/32", "fd00::2/128"]}, ("fd00::2",)),
        ("ipv4", {"TailscaleIPs": [], "AllowedIPs": ["10.0.0.0/8", "10.9.0.2/32"]}, ("10.9.0.2",)),
        (
            "ipv4",
            {"TailscaleIPs": [], "AllowedIPs": ["10.1.1.1/32", "10.9.0.2/32"], "PrimaryRoutes": ["10.1.1.1/32"]},
            ("10.9.0.2",),
        ),
        ("ipv4", {"TailscaleIPs": [], "AllowedIPs": None}, ()),
        ("ipv4", {"TailscaleIPs": ["100.64.0.2; rm -rf", "999.1.1.1", "x"]}, ()),
    ],
)
def test_addresses(family: str, changes: Object, addresses: tuple[str, ...]) -> None:
    """`family` selects; without TailscaleIPs, AllowedIPs of one host are used."""
    assert family in ("ipv4", "ipv6", "any")
    options = TailscaleOptions(
        backend="t", family="ipv4" if family == "ipv4" else "ipv6" if family == "ipv6" else "any"
    )
    (found,) = [n for n in parse(status([node(1, "a"), node(2, "b", **changes)]), options).nodes if n.name == "b"]
    assert found.addresses == addresses
    assert bool(found.note) == (not addresses)


REFUSED = [
    "127.0.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1", "255.255.255.255", "100.100.100.100",  # noqa: S104
    "fd7a:115c:a1e0::53", "::1", "fe80::1", "ff02::1", "::", "::ffff:127.0.0.1", "64:ff9b:1:7f00:0:100::",
    "fd7a:115c:a1e0:b1a:0:7:7f00:1", "fec0::1",
]  # fmt: skip


@pytest.mark.parametrize("address", REFUSED)
@pytest.mark.parametrize("listed", [True, False])
def test_refused_addresses_of_the_control_plane_are_not_used(address: str, listed: bool) -> None:  # noqa: FBT001
    """The node is seen without an address and excluded by name, unless it has another address."""
    changes: Object = {"TailscaleIPs": [address]}
    if not listed:
        length = 128 if ":" in address else 32
        changes = {"TailscaleIPs": None, "AllowedIPs": [f"{address}/{length}"]}
    options = TailscaleOptions(backend="t", family="any")
    found = parse(status([node(1, "a"), node(2, "b", **changes)]), options)
    (refused,) = [n for n in found.nodes if n.name == "b"]
    assert refused.addresses == ()
    assert refused.note.startswith(f"no target may have its address {address}: ")
    assert [(e.name, e.reason) for e in found.excluded] == [("b", "refused_address")]
    both = parse(status([node(1, "a"), node(2, "b", TailscaleIPs=[address, "100.64.0.2"])]), options)
    assert [n.addresses for n in both.nodes if n.name == "b"] == [("100.64.0.2",)]
    assert both.excluded == ()


@pytest.mark.parametrize(
    "suffix",
    [
        "tail net", "x" * 260, ".".join(["x" * 60] * 5), "a\x1b]0;x.net", "a..b", ".", "-x.net", "tail.net:9100", "::1",
        "10.0.0.1", "0.1", "localhost", "x.localhost", "invalid", "b\u00fccher.example", "tail\u212a.net", "a/b",
        "[::1]", "tail.net\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["tailnet", "status", "self"])
def test_an_invalid_suffix_is_an_outage(suffix: str, where: str) -> None:
    """It would exclude every node, and give unseen machines invalid names."""
    tailnet: Object = {"Name": "x", "MagicDNSSuffix": "", "MagicDNSEnabled": where != "self"}
    document = fleet(["a"], CurrentTailnet=tailnet, MagicDNSSuffix="")
    match where:
        case "tailnet":
            tailnet["MagicDNSSuffix"] = suffix
        case "status":
            document["MagicDNSSuffix"] = suffix
        case _:
            if not suffix.strip("."):
                return  # Self has no suffix then
            document["Self"] = node(1, "a", DNSName=f"a.{suffix}.")
    with pytest.raises(BackendError, match="is not a valid domain"):
        parse(document)


@pytest.mark.parametrize("suffix", ["clan", "tail1a2b3.ts.net", "TAIL.net.", "a_b.example", "xn--bcher-kva.example"])
def test_a_suffix_of_headscale(suffix: str) -> None:
    """A single label is valid, too."""
    tailnet: Object = {"Name": "x", "MagicDNSSuffix": suffix, "MagicDNSEnabled": True}
    nodes = [node(1, "a", DNSName=f"a.{suffix}")]
    found = parse(status(nodes, CurrentTailnet=tailnet))
    assert (names(found), found.suffix) == (["a"], suffix.rstrip(".").lower())


def test_names_that_only_fold_to_ascii_are_excluded() -> None:
    """KELVIN SIGN folds to k and SHARP S to ss, but `kube` and `strass` are other machines."""
    strange = [node(2, "x", DNSName=f"\u212aube.{SUFFIX}."), node(3, "y", DNSName=f"stra\u00df.{SUFFIX}.")]
    found = parse(status([node(1, "a"), *strange]))
    assert names(found) == ["a"]
    assert reasons(found) == ["foreign_tailnet", "foreign_tailnet"]


def test_labels_have_the_names_of_tailscalesd() -> None:
    """Its relabel rules keep working.

    The online label is off by default, because it is volatile.
    """
    peer = node(2, "db", Tags=["tag:k8s-Prod:x", "tag:a"], HostName="DB box")
    labels = dict(next(n for n in parse(status([node(1, "a"), peer])).nodes if n.name == "db").labels)
    assert labels == {
        "__meta_tailscale_api": "localhost",
        "__meta_tailscale_device_authorized": "true",
        "__meta_tailscale_device_hostname": "DB box",
        "__meta_tailscale_device_id": "n00000002CNTRL",
        "__meta_tailscale_device_name": f"db.{SUFFIX}",
        "__meta_tailscale_device_os": "linux",
        "__meta_tailscale_device_tag_a": "1",
        "__meta_tailscale_device_tag_k8s_prod_x": "1",
        "__meta_tailscale_device_tags": ",a,k8s-Prod:x,",
        "__meta_tailscale_tailnet": "example.com",
    }
    volatile = parse(status([node(1, "a", Online=False)]), TailscaleOptions(backend="t", volatile=True))
    assert "__meta_tailscale_device_online" not in dict(volatile.nodes[0].labels)  # Self.Online false: unknown
    volatile = parse(status([node(1, "a"), peer]), TailscaleOptions(backend="t", volatile=True))
    assert dict(volatile.nodes[0].labels)["__meta_tailscale_device_online"] == "true"


def test_an_offline_self_makes_online_flags_unknown() -> None:
    """With Self.Online false, the flags of peers are outdated."""
    found = parse(status([node(1, "a", Online=False), node(2, "b")]))
    assert [n.online for n in found.nodes] == [None, None]


def test_the_suffix_is_unset_without_magicdns() -> None:
    """Names below it would not resolve."""
    tailnet: Object = {"Name": "x", "MagicDNSSuffix": "", "MagicDNSEnabled": True}
    found = parse(fleet(["a", "b"], CurrentTailnet=tailnet, MagicDNSSuffix=""))
    assert found.suffix == SUFFIX  # from Self's own name, as tailscaled does
    assert names(found) == ["a", "b"]
    tailnet = {"Name": "x", "MagicDNSSuffix": SUFFIX.upper(), "MagicDNSEnabled": False}
    found = parse(fleet(["a", "b"], CurrentTailnet=tailnet))
    assert found.suffix is None
    assert names(found) == ["a", "b"]


weird = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["BackendState", "Self", "Peer", "CurrentTailnet", "DNSName", "TailscaleIPs", "Tags", "x"]),
            inner | st.just("Running"),
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(weird)
def test_any_json_is_a_snapshot_or_an_outage(document: Json) -> None:
    """Only BackendError is raised."""
    try:
        parse(document)
    except BackendError as error:
        assert str(error)  # noqa: PT017 - either way is right


@given(st.binary(max_size=80))
def test_any_bytes_are_an_outage(body: bytes) -> None:
    """Bytes that are no JSON."""
    with pytest.raises(BackendError):
        parse_status(body, PLAIN)


def test_deep_nesting_is_an_outage() -> None:
    """A hostile answer must not crash the process."""
    with pytest.raises(BackendError):
        parse_status(b'{"x":' * 200_000, PLAIN)


# --- the socket -----------------------------------------------------------------------------------------------------


def backend(path: Path, budget: float = 2.0, max_bytes: int = 1 << 20) -> TailscaleSocket:
    """Return a backend on a socket."""
    return TailscaleSocket(name="tailnet", socket=path, options=PLAIN, budget=budget, max_bytes=max_bytes)


def outage(asked: Backend) -> BackendError:
    """Ask a backend that must fail; return the reason."""
    with pytest.raises(BackendError) as caught:
        asked.ask(NOW, b"")
    return caught.value


@pytest.mark.parametrize("chunked", [False, True])
def test_the_answer_of_a_real_server(tmp_path: Path, chunked: bool) -> None:  # noqa: FBT001
    """The exact Host, one connection for each cycle, both transfer encodings."""
    body = json.dumps(fleet(["a", "b"])).encode()
    with localapi(tmp_path / "s", Behaviour(body=body, chunked=chunked)) as api:
        asked = backend(tmp_path / "s")
        assert names(asked.ask(NOW, b"").answer) == names(asked.ask(NOW, b"").answer) == ["a", "b"]
        assert api.hosts == [HOST, HOST]
        assert api.connections == 2


def test_the_server_refuses_another_host(tmp_path: Path) -> None:
    """The test server has tailscaled's rule; without it the test above proves nothing."""
    with localapi(tmp_path / "s", Behaviour(body=b"{}")), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(tmp_path / "s"))
        sock.sendall(b"GET /localapi/v0/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize("status_", [400, 403, 404, 500, 503])
def test_http_errors_are_outages(tmp_path: Path, status_: int) -> None:
    """The reason has the message of tailscaled."""
    with localapi(tmp_path / "s", Behaviour(body=b"no backend\n", status=status_)):
        assert f"answered {status_}: no backend" in str(outage(backend(tmp_path / "s")))


def test_a_missing_socket_is_an_outage(tmp_path: Path) -> None:
    """The unit removes it when it stops."""
    error = outage(backend(tmp_path / "gone"))
    assert "No such file" in str(error)
    assert "is tailscaled running?" in (error.hint or "")


def test_a_leftover_socket_is_an_outage(tmp_path: Path) -> None:
    """The daemon is gone. The failed connection is closed."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
    error = outage(backend(tmp_path / "s"))
    assert "refused" in str(error)
    assert "no process listens" in (error.hint or "")


def test_an_invalid_socket_path_is_an_outage(tmp_path: Path) -> None:
    """A regular file, or a path that is too long."""
    (tmp_path / "s").write_text("x")
    assert str(tmp_path / "s") in str(outage(backend(tmp_path / "s")))
    assert "too long" in str(outage(backend(tmp_path / ("x" * 200))))


@pytest.mark.parametrize(
    "how",
    [Behaviour(hang=True), Behaviour(body=b"{" * 500, drip=0.02), Behaviour(drip_headers=True, drip=0.02)],
    ids=["hangs", "drips the body", "drips the headers"],
)
def test_the_timeout_covers_the_whole_answer(tmp_path: Path, how: Behaviour) -> None:
    """A server that sends a byte now and then does not extend it."""
    with localapi(tmp_path / "s", how):
        assert "within 0.4 s" in str(outage(backend(tmp_path / "s", budget=0.4)))


def test_the_timeout_covers_a_server_that_never_accepts(tmp_path: Path) -> None:
    """The kernel completes the connection."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen(1)
        assert "within 0.3 s" in str(outage(backend(tmp_path / "s", budget=0.3)))


@pytest.mark.parametrize("body", [b"", b"garbage", b"\x00" * 100, b'{"BackendState": "Run'])
def test_an_unparsable_body_is_an_outage(tmp_path: Path, body: bytes) -> None:
    """Any bytes that are no status."""
    with localapi(tmp_path / "s", Behaviour(body=body)):
        assert "the status" in str(outage(backend(tmp_path / "s")))


def test_a_truncated_body_is_an_outage(tmp_path: Path) -> None:
    """The connection ends before Content-Length is reached."""
    body = json.dumps(fleet(["a", "b"])).encode()
    with localapi(tmp_path / "s", Behaviour(body=body, truncate=100)):
        assert str(tmp_path / "s") in str(outage(backend(tmp_path / "s")))


def test_a_body_over_the_limit_is_an_outage(tmp_path: Path) -> None:
    """It is not read to its end."""
    with localapi(tmp_path / "s", Behaviour(body=b" " * (3 << 20))):
        assert "larger than 1 MiB" in str(outage(backend(tmp_path / "s")))


def test_a_server_without_http_is_an_outage(tmp_path: Path) -> None:
    """Another daemon listens on the socket."""
    ready = threading.Event()

    def serve() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(tmp_path / "s"))
            sock.listen(1)
            ready.set()
            connection, _ = sock.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 smtp ready\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(60)
    assert str(tmp_path / "s") in str(outage(backend(tmp_path / "s")))
    thread.join(5)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_a_socket_without_permission_is_an_outage() -> None:
    """The reason differs from that of a stopped daemon."""
    with tempfile.TemporaryDirectory() as place, localapi(Path(place) / "s", Behaviour(body=b"{}")):
        (Path(place) / "s").chmod(0o600)
        Path(place).chmod(0o755)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setuid(65534)
                LocalAPI(Path(place) / "s", budget=1.0).status()
            except BackendError as error:
                code = 0 if "ermission" in str(error) and "may not open" in (error.hint or "") else 2
            finally:
                os._exit(code)
        _, waited = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(waited) == 0


# --- the file -------------------------------------------------------------------------------------------------------


def test_a_saved_status_is_an_answer(tmp_path: Path) -> None:
    """The output of `tailscale status --json` in a file."""
    file = tmp_path / "status.json"
    file.write_text(json.dumps(fleet(["a"])))
    assert names(TailscaleFile(name="t", file=file, options=PLAIN).ask(NOW, b"").answer) == ["a"]


@pytest.mark.parametrize("make", ["missing", "directory", "fifo", "large", "empty"])
def test_a_file_without_a_status_is_an_outage(tmp_path: Path, make: str) -> None:
    """None of them hangs."""
    file = tmp_path / "status.json"
    makers: dict[str, Callable[[], object]] = {
        "missing": lambda: None,
        "directory": file.mkdir,
        "fifo": lambda: os.mkfifo(file),
        "large": lambda: file.write_bytes(b" " * 2000),
        "empty": file.touch,
    }
    makers[make]()
    outage(TailscaleFile(name="t", file=file, options=PLAIN, max_bytes=1000))
