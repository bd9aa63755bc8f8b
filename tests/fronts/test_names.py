"""Fronts with any text anywhere: each real proxy accepts the config, and serves each front at its own name."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clan_discovery.emit.fronts import render_fronts
from clan_discovery.model import FrontSettings
from clan_discovery.resolve.fronts import located_front, named_fronts, served_fronts
from tests.fronts.client import browser
from tests.fronts.proxies import VERSIONS, make_proxy
from tests.fronts.servers import serve
from tests.test_front_configs import hostile_fronts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.model import Front
    from tests.fronts.proxies import Kind, Proxy


def served(declared: Sequence[Front], proxy: Proxy, port: int) -> tuple[Front, ...]:
    """Return the fronts that can be served, all without a login and at one service; a header has the number of each."""
    given = FrontSettings(kind=proxy.kind, domain="example.org", listen=("127.0.0.1",), http_port=proxy.http)
    public = [msgspec.structs.replace(front, auth="none", scheme="http", host="", port=port) for front in declared]
    fronts = served_fronts(named_fronts(public).fronts, given, (), frozenset()).fronts
    located = tuple(
        msgspec.structs.replace(located_front(front, "127.0.0.1", ""), headers=(("X-Front", str(number)),))
        for number, front in enumerate(fronts)
    )
    proxy.fronts.write_text(render_fronts(located, given))
    return located


def url_of(front: Front, fronts: Sequence[Front]) -> str:
    """Return a URL of a front; that of a wildcard has a label that no other front has."""
    domain = front.domain
    if domain.startswith("*."):
        label = "any"
        while any(other.domain == f"{label}{domain[1:]}" for other in fronts):
            label += "x"
        domain = f"{label}{domain[1:]}"
    return f"http://{domain}{front.path}"


@pytest.mark.parametrize(("kind", "which"), VERSIONS, ids=["-".join(version) for version in VERSIONS])
@settings(max_examples=5, deadline=None)
@given(declared=st.lists(hostile_fronts(), min_size=30, max_size=60))
def test_each_front_is_served_whatever_the_names_are(kind: Kind, which: str, declared: list[Front]) -> None:
    with tempfile.TemporaryDirectory() as directory, serve("service") as service:
        proxy = make_proxy(kind, which, Path(directory))
        fronts = served(declared, proxy, service.port)
        assert proxy.complaint() == ""
        with proxy.run(), browser(proxy) as client:
            for number, front in enumerate(fronts):
                url = url_of(front, fronts)
                answer = client.get(url)
                assert answer.status_code == 200, (url, answer.status_code)
                assert answer.json()["headers"]["x-front"] == [str(number)], url
        assert "ERR" not in proxy.log.read_text()
