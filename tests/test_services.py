"""Services and fronts of a resolution: in `explain`, `show`, the JSON documents, and on the page of a machine."""

from __future__ import annotations

import json

import jsonschema
import msgspec
import pytest

from clan_discovery.cli.commands.schema import schema
from clan_discovery.emit.explain import Explainer, documents, lines_of
from clan_discovery.emit.filter import Filter, filtered
from clan_discovery.emit.json import inventory_document, pretty, resolution_document
from clan_discovery.emit.status import FleetView, StatusInput
from clan_discovery.emit.table import notes, render_fronts_table
from clan_discovery.model import (
    Declared,
    DeclaredAddress,
    DeclaredService,
    Endpoint,
    Exclusion,
    Expected,
    Exporter,
    Front,
    Machine,
    Resolution,
)
from clan_discovery.resolve.resolver import Policy, resolve
from clan_discovery.web.pages import render_machine
from tests.support.status import report_of
from tests.test_resolve import NOW

NAS, WEB = Machine(name="nas"), Machine(name="web")
HIDDEN = "a-header-that-nobody-may-see"


def service(name: str, machine: str, *, depends_on: tuple[str, ...] = (), **checks: tuple[str, ...]) -> DeclaredService:
    """Return a service of a manifest, declared at a line of its own."""
    because, where = f"manifest: services.{name}", f"m.json:{len(name)}:3"
    return DeclaredService(name=name, machine=machine, because=because, where=where, depends_on=depends_on, **checks)


def front(name: str, machine: str, domain: str, port: int, address: str) -> Front:
    """Return a front of a service, as the proxy serves it."""
    return Front(
        service=name,
        machine=machine,
        domain=domain,
        port=port,
        auth="forward",
        headers=(("X-Key", HIDDEN),),
        address=address,
        because=f"manifest: services.{name}",
        where="m.json:9:5",
    )


FRONTS = (
    front("jellyfin", "nas", "jellyfin.example.org", 8096, "10.0.0.5:8096"),
    front("grafana", "web", "*.dash.example.org", 3000, "10.0.0.6:3000"),
)
DECLARED = Declared(
    machines=(NAS, WEB),
    expected=(
        Expected(
            machine=NAS,
            exporter=Exporter(type="jellyfin", port=8096),
            because="manifest: services.jellyfin",
            where="m.json:8:3",
        ),
        Expected(machine=NAS, exporter=Exporter(type="node", port=9100), because="config: inventory.manifest.default"),
        Expected(machine=WEB, exporter=Exporter(type="node", port=9100), because="config: inventory.manifest.default"),
    ),
    addresses={"nas": DeclaredAddress("10.0.0.5", "the manifest", "m.json:2:9")},
    services=(
        service("jellyfin", "nas", depends_on=("redis",), units=("jellyfin.service",), probes=("http://[::1]:8096/",)),
        service("redis", "nas"),
        service("grafana", "web", depends_on=("postgresql", "redis")),
        service("redis", "web"),
        service("postgresql", "nas"),
    ),
    fronts=FRONTS,
    endpoints=(
        Endpoint(
            host="10.9.9.9", exporter=Exporter(type="ups", port=9199), machine="10.9.9.9", because="x", backend="y"
        ),
    ),
)


def resolution() -> Resolution:
    """Return what these sources resolve to, with fronts that are located."""
    excluded = Exclusion(name="web", reason="disabled", detail="enable is false", by="inventory", job="grafana")
    found = resolve(msgspec.structs.replace(DECLARED, excluded=(excluded,)), [], [], Policy(), now=NOW)
    return msgspec.structs.replace(found, fronts=FRONTS)


def explained(word: str) -> list[str]:
    """Return the lines of `explain`, without those of targets."""
    found: list[str] = []
    for explanation in Explainer(DECLARED, resolution()).explain(word):
        found += lines_of(msgspec.structs.replace(explanation, targets=()))
    return found


def test_a_machine_has_its_address_services_and_fronts() -> None:
    """Each with its source and place; a dependency means the service of the same machine first."""
    assert explained("NAS") == [
        "nas",
        "  declared: a machine without tags",
        "  declared address: 10.0.0.5 in the manifest (m.json:2:9)",
        "  service: jellyfin",
        "    because: manifest: services.jellyfin (m.json:8:3)",
        "    depends on: redis",
        "    units that must be active: jellyfin.service",
        "    URLs that must answer: http://[::1]:8096/",
        "  service: redis",
        "    because: manifest: services.redis (m.json:5:3)",
        "    needed by: jellyfin",
        "  service: postgresql",
        "    because: manifest: services.postgresql (m.json:10:3)",
        "    needed by: grafana",
        "  front: jellyfin.example.org/ of service jellyfin",
        "    because: manifest: services.jellyfin (m.json:9:5)",
        "    auth: forward",
        "    the proxy connects to: http://10.0.0.5:8096",
    ]


def test_a_target_names_the_place_of_its_declaration() -> None:
    """With line and column, where they are known."""
    (explanation,) = Explainer(DECLARED, resolution()).explain("nas")
    assert [line.strip() for line in lines_of(explanation) if "because: " in line][:2] == [
        "because: manifest: services.jellyfin (m.json:8:3)",
        "because: config: inventory.manifest.default",
    ]


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("jellyfin", ["nas: jellyfin / jellyfin / jellyfin.example.org"]),
        ("Jellyfin.Example.org", ["nas: jellyfin / jellyfin / jellyfin.example.org"]),
        ("https://jellyfin.example.org/web/index.html", ["nas: jellyfin / jellyfin / jellyfin.example.org"]),
        ("cpu.dash.example.org", ["web: / grafana / *.dash.example.org"]),
        ("a.cpu.dash.example.org", []),
        ("redis", ["nas: / redis / ", "web: / redis / "]),
        ("10.0.0.5", ["nas: jellyfin node /  / "]),
        ("jellyfin.example.com", []),
    ],
)
def test_a_service_or_a_domain_finds_its_machine(word: str, found: list[str]) -> None:
    """And nothing but what belongs to the service."""
    rows: list[str] = []
    for explanation in Explainer(DECLARED, resolution()).explain(word):
        jobs = "".join(f" {target.job}" for target in explanation.targets)
        services, domains = [s.name for s in explanation.services], [f.domain for f in explanation.fronts]
        rows.append(f"{explanation.name}:{jobs} / {' '.join(services)} / {' '.join(domains)}")
    assert sorted(rows) == found


def test_a_service_without_a_target_says_why() -> None:
    """By its exclusions, or because nothing is declared."""
    assert "  no target: see below" in explained("grafana")
    assert "  excluded (grafana): disabled: enable is false [inventory]" in explained("grafana")
    assert "  no target: no source declares metrics of this service" in explained("postgresql")


def test_suggestions_know_services_and_domains() -> None:
    """Beside the names of machines."""
    assert Explainer(DECLARED, resolution()).words >= {"nas", "redis", "grafana", "jellyfin.example.org"}


def test_the_documents_have_services_and_fronts() -> None:
    """As the schemas describe them, and without the values of headers."""
    found = resolution()
    every = [
        ("resolution", resolution_document(found)),
        ("inventory", inventory_document(DECLARED)),
        ("explain", documents(Explainer(DECLARED, found).explain("nas"))),
    ]
    for name, document in every:
        text = pretty(document)
        jsonschema.validate(json.loads(text), schema(name), cls=jsonschema.Draft202012Validator)
        assert HIDDEN not in text
        assert '"X-Key"' in text
    assert json.loads(pretty(every[1][1]))["addresses"] == {
        "nas": {"host": "10.0.0.5", "source": "the manifest", "where": "m.json:2:9"}
    }


def test_a_filter_by_machine_filters_services_and_fronts() -> None:
    """They have neither a job nor a state."""
    only = filtered(resolution(), Filter(frozenset({"web"})))
    assert ({s.machine for s in only.services}, [f.service for f in only.fronts]) == ({"web"}, ["grafana"])
    other = filtered(resolution(), Filter(jobs=frozenset({"node"})))
    assert (other.services, other.fronts) == ((), ())


def test_show_counts_services_and_fronts_and_lists_fronts() -> None:
    """A line for each below the table, and a table of fronts by domain."""
    assert notes(resolution())[:2] == [
        "services: 5 declared on 2 machines",
        "fronts: 2 fronts of 2 domains (--by front lists them)",
    ]
    assert [line for line, _ in render_fronts_table(resolution())] == [
        "DOMAIN                PATH  SERVICE   MACHINE  ADDRESS        AUTH     SOURCE",
        "*.dash.example.org    /     grafana   web      10.0.0.6:3000  forward  m.json:9:5",
        "jellyfin.example.org  /     jellyfin  nas      10.0.0.5:8096  forward  m.json:9:5",
        "2 fronts of 2 domains",
    ]
    assert [line for line, _ in render_fronts_table(filtered(resolution(), Filter(frozenset({"x"}))))] == ["no fronts"]


def test_the_page_of_a_machine_shows_services_and_fronts() -> None:
    """With their places. Targets at declared addresses need no attention."""
    view = FleetView(StatusInput(declared=DECLARED, report=report_of(resolution())))
    detail = view.machine("nas")
    assert detail is not None
    page = render_machine(view.fleet, detail, failing="").decode()
    for text in (
        "3 services",
        "1 front",
        "jellyfin.example.org/",
        "m.json:9:5",
        "Needed by",
        "the manifest (m.json:2:9)",
    ):
        assert text in page
    assert HIDDEN not in page
    assert "a nixos machine" not in page
    assert (view.fleet.attention, dict(view.fleet.states)) == ((), {"seen": 1, "declared": 2})
