"""The inventory that the service writes: no target and no job of generated clans is lost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from clan_discovery.inventory.clan.exports import parse_exports
from tests.support.nix import ROOT, quoted, text, value

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
NAMES = ("attic", "db", "Monitor", "web-1", "größe")
TAGS = ("all", "nixos", "edge-1", "größe", "a.b")
TYPES = ("node", "systemd", "blackbox", "caddy", "postgres")
PORTS = st.one_of(st.none(), st.sampled_from([1, 9100, 9188, 65535]))


def _given(**fields: st.SearchStrategy[Json]) -> st.SearchStrategy[dict[str, Json]]:
    """Return any of these fields; an unset one is null or missing."""
    return st.fixed_dictionaries({}, optional=fields)


def _fixed(**fields: st.SearchStrategy[Json]) -> st.SearchStrategy[dict[str, Json]]:
    """Return all of these fields."""
    return st.fixed_dictionaries(fields)


EXPORTER = _given(
    port=PORTS,
    path=st.sampled_from([None, "/metrics", "/own"]),
    metricsPath=st.sampled_from([None, "/theirs"]),
    telemetryPath=st.sampled_from([None, "/told"]),
    metricsEndpoint=st.sampled_from([None, "/ended"]),
    scheme=st.sampled_from([None, "http", "https"]),
    params=st.dictionaries(
        st.sampled_from(["collect", "auth"]), st.sampled_from(["a b", ["x/y&z"], "1", "ü\n"]), max_size=2
    ),
    labels=st.dictionaries(st.sampled_from(["site", "rack"]), st.sampled_from(["home", "größe", ""]), max_size=2),
    enable=st.sampled_from([None, True, False]),
    listenAddress=st.sampled_from([None, "0.0.0.0", "127.0.0.1", "::1", "localhost", "10.0.0.9"]),  # noqa: S104 - a value
    security=st.sampled_from([None, "none"]),
    target=st.sampled_from([None, "https://example.org/?a=b"]),
    module=st.sampled_from([None, "http_2xx"]),
)


@st.composite
def exporters(draw: st.DrawFn) -> dict[str, Json]:
    """Return settings of the role exporter: one exporter, several or none; a custom type has a port."""
    found = draw(EXPORTER)
    type_ = draw(st.sampled_from([None, "own", *TYPES]))
    if type_ is not None:
        found["exporterType"] = type_
    if type_ == "own":
        found["port"] = 7000
    others = [name for name in (*TYPES, "mine") if name != type_]
    many = draw(st.dictionaries(st.sampled_from(others), EXPORTER, max_size=2))
    if "mine" in many:
        many["mine"]["port"] = 7001
    switched: dict[str, Json] = {}
    for name, said in many.items():
        enable = draw(st.sampled_from([None, True, False]))
        switched[name] = said if enable is None else {**said, "enable": enable}
    said_so: bool = draw(st.booleans())
    if switched or said_so:
        found["exporters"] = switched
    return found


SERVER = _given(
    enableAutoDiscovery=st.booleans(),
    discoveryMethod=st.sampled_from([None, "none", "static", [], ["static"]]),
    scrapeServers=st.booleans(),
    backend=st.sampled_from(["prometheus", "victoriametrics", "vmagent", "alloy"]),
    port=st.sampled_from([None, 9191]),
    webExternalUrl=st.sampled_from([None, "https://m.example.org", "https://m.example.org/prometheus//", "/p", "?"]),
    listenAddress=st.sampled_from([None, "0.0.0.0", "127.0.0.1", "[::1]", "localhost"]),  # noqa: S104 - a value
    staticTargets=st.dictionaries(
        st.sampled_from(["node", "caddy", "nas"]),
        st.lists(
            st.sampled_from(
                ["10.0.0.5:9100", "[fd00::7]:1", "monitor:0080", "DB:9", "h_x.example.org.:9100", "[fd00::9]:7"]
            )
        ),
        max_size=2,
    ),
)
SENT = st.sampled_from([None, True, False])
AGENT = st.one_of(_given(scrapeInterval=st.just("1m")), _fixed(logs=_given(enable=SENT)))
LISTENS = st.sampled_from([None, "0.0.0.0", "127.0.0.1", "[::1]", "10.0.0.9"])  # noqa: S104 - a value
STORES = st.sampled_from(["loki", "victorialogs"])
LOGS = st.one_of(
    _fixed(backend=STORES, retention=st.just("30d")), _fixed(backend=STORES, port=PORTS, listenAddress=LISTENS)
)
ALERTING = _given(port=PORTS, listenAddress=LISTENS)
DASHBOARDS = _given(port=PORTS)
STORAGES: list[dict[str, Json]] = [
    {},
    {"engine": "victoriametrics", "mode": "replicate"},
    {"engine": "victoriametrics", "mode": "shard"},
    {"engine": "victoriametrics-cluster"},
    {"engine": "thanos"},
    {"engine": "remote-write"},
]
ODD = ("", "a..b", "10.0.0.1:22", "db:22", "fe80::1", "::1", "127.0.0.1", "LocalHost", "::ffff:1.2.3.4", "1:2:3", "a b")
MEMBERS = st.sampled_from(NAMES)
HOSTS = st.lists(st.sampled_from(["10.1.1.1", "fd00::1\n", "[fd00::2]", "web.wg", " spaced ", *ODD]), max_size=2)
SCOPES = [
    f"{s}:{i}:{r}:{m}" for s in ("a", "b", "clan-core/internet") for i in "xy" for r in ("peer", "") for m in NAMES
]
MODULES = st.sampled_from([None, "clan_lib.network.direct", "clan_lib.network.tor"])


@dataclass(frozen=True)
class Clan:
    """A view for nix/lib: settings by instance, role and machine."""

    tags: dict[str, list[str]]
    classes: dict[str, str]
    instances: dict[str, dict[str, dict[str, dict[str, Json]]]]
    exports: dict[str, Json]
    server: str | None
    darwin: str

    def view(self) -> Json:
        """Return the view of nix/lib."""
        return {
            "machines": self.machines(),
            "instances": self.instances,
            "domain": "home.arpa",
            "server": self.server,
            "exports": self.exports,
            "darwin": self.darwin,
        }

    def machines(self) -> Json:
        """Return the machines, in the form that view and inventory share."""
        return {name: {"tags": tags, "machineClass": self.classes[name]} for name, tags in self.tags.items()}

    def inventory(self) -> Json:
        """Return the inventory that a person would have written."""
        computed = ("all", "nixos", "darwin")
        return {
            "machines": self.machines(),
            "tags": {tag: [name for name, tags in self.tags.items() if tag in tags] for tag in computed},
            "meta": {"domain": "home.arpa"},
            "instances": {
                name: {
                    "module": {"name": "prometheus"},
                    "roles": {
                        role: {"machines": {machine: {"settings": said} for machine, said in members.items()}}
                        for role, members in roles.items()
                    },
                }
                for name, roles in self.instances.items()
            },
        }


@st.composite
def exports(draw: st.DrawFn, scopes: list[str]) -> dict[str, Json]:
    """Return addresses by scope, and networks by instance."""
    found: dict[str, Json] = {}
    for scope, hosts in draw(st.dictionaries(st.sampled_from(scopes), st.one_of(st.none(), HOSTS), max_size=6)).items():
        found[scope] = {"peer": None if hosts is None else {"hosts": [{"plain": host} for host in hosts]}}
    networks = st.dictionaries(st.sampled_from(["a:x::", "a:y::", "b:x::"]), st.sampled_from([10, 1000, 2000]))
    for scope, priority in draw(networks).items():
        module = draw(MODULES)
        network: dict[str, Json] = {"priority": priority}
        found[scope] = {"networking": network if module is None else {**network, "module": module}}
    return found


@st.composite
def clans(draw: st.DrawFn) -> Clan:
    """Generate a clan: machines of either class, one or two instances, members with settings, perhaps components."""
    names = draw(st.lists(MEMBERS, unique=True, min_size=1))
    member = st.sampled_from(names)
    classes = {name: draw(st.sampled_from(["nixos", "nixos", "darwin"])) for name in names}
    nixos = [name for name in names if classes[name] == "nixos"]
    instances: dict[str, dict[str, dict[str, dict[str, Json]]]] = {}
    # One for all: a job `prometheus` that only one of them has is refused beside the others' own metrics.
    additional = draw(st.sampled_from([[], [{"job_name": "prometheus"}], [{"job_name": "other"}]]))
    # All nodes of a storage agree.
    shared = draw(st.sampled_from(STORAGES))
    storage = _given(port=PORTS, listenAddress=LISTENS).map(lambda own: {**shared, **own})
    for name in draw(st.lists(st.sampled_from(["monitoring", "other"]), unique=True, min_size=1)):
        instances[name] = {"exporter": draw(st.dictionaries(member, exporters()))}
        if draw(st.booleans()):
            instances[name]["server"] = draw(st.dictionaries(member, SERVER, min_size=1))
            for said in instances[name]["server"].values():
                said["additionalScrapeConfigs"] = additional
        has_agents, has_store = draw(st.booleans()), draw(st.booleans())
        if nixos and has_agents:
            instances[name]["agent"] = draw(st.dictionaries(st.sampled_from(nixos), AGENT, min_size=1))
        if has_store:
            instances[name]["logs"] = draw(st.dictionaries(member, LOGS, min_size=1))
        for role, settings_of in (("alerting", ALERTING), ("dashboards", DASHBOARDS), ("storage", storage)):
            if draw(st.booleans()):
                instances[name][role] = draw(st.dictionaries(member, settings_of, min_size=1, max_size=2))
    return Clan(
        tags={name: draw(st.lists(st.sampled_from(TAGS), unique=True)) for name in names},
        classes=classes,
        instances=instances,
        exports=draw(exports(SCOPES)),
        server=draw(
            st.sampled_from([None, *sorted({name for i in instances.values() for name in i.get("server", {})})])
        ),
        darwin=draw(st.sampled_from(["exclude", "node", "include"])),
    )


def collected(examples: int) -> list[Clan]:
    """Return this many clans, for one process of Nix."""
    found: list[Clan] = []

    @settings(max_examples=examples, database=None, phases=[Phase.generate], suppress_health_check=SLOW)
    @given(clan=clans())
    def collect(clan: Clan) -> None:
        found.append(clan)

    collect()
    return found


def written(found: list[Clan], place: Path) -> list[Json]:
    """Return inventory, exports and jobs that the service writes for each clan."""
    (place / "views.json").write_text(json.dumps([clan.view() for clan in found]))
    said = value(
        f"""let cd = import {ROOT}/nix/lib; in map (view: {{
          inventory = cd.declared.inventoryOf view;
          exports = cd.exports.reduced view.exports;
          jobs = cd.declared.jobsOf view;
        }}) (builtins.fromJSON (builtins.readFile {text(str(place / "views.json"))}))"""
    )
    assert isinstance(said, list)
    return said


def rendered(place: Path, clan: Clan, said: Json, run: Run) -> dict[str, bytes]:
    """Render an inventory and exports, with the jobs if given; return the files with targets."""
    assert isinstance(said, dict)
    place.mkdir(parents=True)
    sources = {"file": "inventory.json", "exports": "exports.json"}
    config: dict[str, Json] = {"inventory": sources, "policy": {"darwin": clan.darwin}}
    if clan.server is not None:
        config["server"] = clan.server
    for name, document in (("config", config), ("inventory", said["inventory"]), ("exports", said["exports"])):
        (place / f"{name}.json").write_text(json.dumps(document))
    jobs = said.get("jobs", [])
    assert isinstance(jobs, list)
    words = [word for job in jobs for word in ("--job", job)]
    done = run("render", "-c", place / "config.json", "--output", place / "targets", *words)
    if done.code == 2 and "declare no exporter" in done.err:
        return {}
    assert done.code == 0, done.err
    files = {file.stem: file.read_bytes() for file in (place / "targets").iterdir()}
    for agent in sorted({name for roles in clan.instances.values() for name in roles.get("agent", {})}):
        done = run("render", "-c", place / "config.json", "--output", place / agent, "--agent", agent)
        assert done.code == 0, done.err
        files |= {f"{agent}/{file.stem}": file.read_bytes() for file in (place / agent).iterdir()}
    return {job: content for job, content in files.items() if content != b"[]\n"}


def test_the_service_writes_a_complete_inventory(tmp_path: Path, run: Run) -> None:
    """It gives the files of a hand-written inventory, those of agents, too, and no unlisted job."""
    found = collected(100)
    for number, (clan, said) in enumerate(zip(found, written(found, tmp_path), strict=True)):
        plain: Json = {"inventory": clan.inventory(), "exports": clan.exports}
        expected = rendered(tmp_path / f"plain-{number}", clan, plain, run)
        assert rendered(tmp_path / f"handed-{number}", clan, said, run) == expected, clan


def test_each_storage_has_the_jobs_of_its_programs(tmp_path: Path, run: Run) -> None:
    """On a server whose machine is a node: those of the store, and of the vmalert that reads it."""
    roles: list[dict[str, dict[str, dict[str, Json]]]] = [
        {"server": {"db": {"backend": "vmagent"}}, "alerting": {"db": {}}, "storage": {"db": storage}}
        for storage in STORAGES
    ]
    found = [
        Clan(tags={"db": []}, classes={"db": "nixos"}, instances={"m": of}, exports={}, server="db", darwin="exclude")
        for of in roles
    ]
    always = {"alertmanager", "prometheus"}
    jobs = [
        set(rendered(tmp_path / str(number), clan, said, run)) - always
        for number, (clan, said) in enumerate(zip(found, written(found, tmp_path), strict=True))
    ]
    read = {"vmalert", "victoriametrics"}
    assert jobs == [read, read, {"victoriametrics"}, {"vmalert"}, {"vmalert", "thanos"}, set()]


def test_the_network_of_an_interface_gives_the_address() -> None:
    """nix/lib, which finds the interface, and Python, which finds the address, choose the same network."""
    found: list[Json] = []

    @settings(max_examples=200, database=None, phases=[Phase.generate], suppress_health_check=SLOW)
    @given(generated=exports([scope for scope in SCOPES if scope.endswith(":db")]))
    def collect(generated: dict[str, Json]) -> None:
        found.append({scope: _valid(scope, export) for scope, export in generated.items()})

    collect()
    words = '"the clan\'s exports: ${one.scope} (priority ${toString one.priority})"'
    chosen = value(
        f"""map (exports: builtins.mapAttrs (_: map (one: {words}))
          ((import {ROOT}/nix/lib).exports.networks exports)) {quoted(found)}"""
    )
    assert isinstance(chosen, list)
    for given_, machines in zip(found, chosen, strict=True):
        assert isinstance(machines, dict)
        first = {name: offers[0] for name, offers in machines.items() if isinstance(offers, list) and offers}
        addresses = parse_exports(json.dumps(given_).encode(), "exports.json").addresses
        assert first == {name: address.words for name, address in addresses.items()}, given_
    assert sum(map(bool, chosen)) > 100


def _valid(scope: str, export: Json) -> Json:
    """Replace the hosts of a scope by one that Python accepts and no other scope has."""
    peer = export.get("peer") if isinstance(export, dict) else None
    hosts = peer.get("hosts") if isinstance(peer, dict) else None
    if not isinstance(hosts, list):
        return export
    name = f" h{SCOPES.index(scope)}.wg\n"
    return {"peer": {"hosts": [host if host == {"plain": ""} else {"plain": name} for host in hosts]}}
