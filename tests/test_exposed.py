"""Exposed services: the JSON of machines that declare their own services becomes targets and fronts."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.assemble.source import closed_inputs, watched_files
from clan_discovery.config.load import load_config
from clan_discovery.errors import InputError
from clan_discovery.inventory.clan.declare import Options, declare
from clan_discovery.inventory.clan.wire import parse_inventory
from clan_discovery.inventory.exposed.document import declare_exposed
from clan_discovery.model import Front
from clan_discovery.syntax.json_places import JsonPlaces
from tests.support.fleet import inventory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Declared, Json
    from tests.conftest import Done


def exposed(document: Json, scraper: str | None = None) -> Declared:
    """Read a document."""
    return declare_exposed(json.dumps(document, indent=2).encode(), "exposed.json", scraper=scraper)


def on(machine: str, **services: Json) -> Json:
    """Return a document of one machine with these services."""
    return {"machines": {machine: {"expose": services}}}


def adopted(*configs: Json, machine: str = "nas", scraper: str | None = None) -> Declared:
    """Read a document of two machines, one of which has scrape configs."""
    return exposed({"machines": {"Web01": {}, machine: {"adopted": list(configs)}}}, scraper)


def job(name: str, *targets: str, **more: Json) -> Json:
    """Return a scrape config with one group of targets."""
    return {"job_name": name, "static_configs": [{"targets": list(targets)}], **more}


def refused(document: Json) -> list[str]:
    """Return the problems of a document that is refused."""
    with pytest.raises(InputError) as caught:
        exposed(document)
    return list(map(str, caught.value.problems))


def test_service_becomes_a_target_with_its_place() -> None:
    """Path, scheme, labels and parameters are kept; the type is the name unless it is set."""
    found = exposed(
        on(
            "nas",
            jellyfin={"port": 8096},
            films={
                "port": 8097,
                "type": "jellyfin",
                "path": "/m",
                "scheme": "https",
                "labels": {"team": "tv"},
                "params": {"all": "1"},
            },
        )
    )
    assert [machine.name for machine in found.machines] == ["nas"]
    assert [(one.machine.name, one.exporter.type, one.exporter.port, one.because) for one in found.expected] == [
        ("nas", "jellyfin", 8097, "exposed: films"),
        ("nas", "jellyfin", 8096, "exposed: jellyfin"),
    ]
    films, jellyfin = (one.exporter for one in found.expected)
    assert (films.path, films.scheme, films.labels, films.params) == ("/m", "https", (("team", "tv"),), (("all", "1"),))
    assert (jellyfin.path, jellyfin.scheme) == ("/metrics", "http")
    assert [one.where for one in found.expected] == ["exposed.json:8:9", "exposed.json:5:9"]
    assert found.problems == ()


def test_known_type_has_its_own_path() -> None:
    """As everywhere else, the path of a known exporter is its default."""
    [expected] = exposed(on("nas", probes={"port": 9115, "type": "blackbox", "params": {"target": "x"}})).expected
    assert expected.exporter.path == "/probe"


def test_null_is_an_option_that_is_not_set() -> None:
    """NixOS writes null for options without a value."""
    nulls = dict.fromkeys(("path", "scheme", "type", "labels", "params", "metrics", "loopback", "front"))
    [expected] = exposed(on("nas", jellyfin={"port": 8096, **nulls})).expected
    assert (expected.exporter.type, expected.exporter.path) == ("jellyfin", "/metrics")


def test_service_becomes_a_front() -> None:
    """With the port and the scheme of the metrics, or its own; `metrics = false` leaves only the front."""
    found = exposed(
        on(
            "nas",
            films={"port": 8096, "scheme": "https", "front": {"domain": "films", "unbuffered": True}},
            photos={
                "port": 2283,
                "metrics": False,
                "loopback": True,
                "front": {
                    "domain": "photos.example.org",
                    "path": "/a",
                    "auth": "forward",
                    "port": 2284,
                    "headers": {"X-A": "b"},
                },
            },
        )
    )
    assert [expected.exporter.type for expected in found.expected] == ["films"]
    assert found.fronts == (
        Front(
            service="films",
            domain="films",
            machine="nas",
            port=8096,
            because="exposed: films",
            scheme="https",
            unbuffered=True,
            where="exposed.json:5:9",
        ),
        Front(
            service="photos",
            domain="photos.example.org",
            machine="nas",
            port=2284,
            because="exposed: photos",
            path="/a",
            auth="forward",
            loopback=True,
            headers=(("X-A", "b"),),
            where="exposed.json:13:9",
        ),
    )


@pytest.mark.parametrize("scraper", ["monitor", None])
def test_loopback_of_another_machine_is_excluded(scraper: str | None) -> None:
    """Only the scraper reaches what listens on its own loopback."""
    found = exposed(on("nas", jellyfin={"port": 8096, "loopback": True}), scraper)
    assert found.expected == ()
    [exclusion] = found.excluded
    assert (exclusion.name, exclusion.reason, exclusion.job) == ("nas", "loopback", "jellyfin")


@pytest.mark.parametrize("named_by", ["file", "config"])
def test_loopback_of_the_scraper_is_scraped_there(named_by: str) -> None:
    """The file or the config names the scraper; its case does not matter."""
    document = on("Monitor", grafana={"port": 3000, "loopback": True})
    if named_by == "file":
        assert isinstance(document, dict)
        found = exposed({**document, "scraper": "monitor"})
    else:
        found = exposed(document, "monitor")
    assert [(one.host, one.exporter.port) for one in found.expected] == [("127.0.0.1", 3000)]


def test_probe_without_a_target_is_excluded() -> None:
    """It would serve nothing."""
    found = exposed(on("nas", blackbox={"port": 9115}))
    assert [exclusion.reason for exclusion in found.excluded] == ["probe_without_target"]


def test_machine_that_could_not_be_evaluated_is_reported() -> None:
    """The others are read; `check` fails."""
    found = exposed({"machines": {"bad": None, "nas": {"expose": {"jellyfin": {"port": 8096}}}}})
    assert [problem.severity for problem in found.problems] == ["problem"]
    assert "exposed.json:3:5: machines.bad: could not be evaluated" in str(found.problems[0])
    assert len(found.expected) == 1
    assert [machine.name for machine in found.machines] == ["bad", "nas"]


def test_service_with_neither_metrics_nor_front_is_a_warning() -> None:
    """It does nothing."""
    [problem] = exposed(on("nas", jellyfin={"port": 8096, "metrics": False})).problems
    assert (problem.severity, problem.what) == (
        "warning",
        "machines.nas.expose.jellyfin: has neither metrics nor a front",
    )


MISTAKES: dict[str, tuple[Json, str]] = {
    "a port that no machine has": (
        on("nas", jellyfin={"port": 99999}),
        "exposed.json:6:11: machines.nas.expose.jellyfin.port: invalid port 99999: must be 1 to 65535",
    ),
    "no port": (
        on("nas", jellyfin={}),
        "exposed.json:5:9: machines.nas.expose.jellyfin.port: is missing (write the port on which the service listens)",
    ),
    "a misspelt option": (
        on("nas", jellyfin={"port": 1, "pth": "/m"}),
        "exposed.json:7:11: machines.nas.expose.jellyfin.pth: unknown option (did you mean 'path'?)",
    ),
    "a misspelt option of the front": (
        on("nas", jellyfin={"port": 1, "front": {"domian": "films"}}),
        (
            "exposed.json:8:13: machines.nas.expose.jellyfin.front.domian: unknown option (did you mean 'domain'?)\n"
            "exposed.json:7:11: machines.nas.expose.jellyfin.front.domain: is missing (write a name such as photos, or "
            "photos.example.org)"
        ),
    ),
    "an unknown auth": (
        on("nas", jellyfin={"port": 1, "front": {"domain": "films", "auth": "bsic"}}),
        (
            'exposed.json:9:13: machines.nas.expose.jellyfin.front.auth: "bsic" is no kind of auth '
            "(did you mean 'basic'?)"
        ),
    ),
    "a type that is no job name": (
        on("nas", jellyfin={"port": 1, "type": "my films"}),
        (
            "exposed.json:7:11: machines.nas.expose.jellyfin.type: 'my films' cannot be the name of a job: letters, "
            "digits, '_', '-', '.'"
        ),
    ),
    "a name that is no job name": (
        on("nas", **{"my films": {"port": 1}}),
        (
            "exposed.json:5:9: machines.nas.expose.my films: 'my films' cannot be the name of a job "
            "(set `type`: letters, digits, '_', '-', '.')"
        ),
    ),
    "a label that is not free": (
        on("nas", jellyfin={"port": 1, "labels": {"machine": "x"}}),
        (
            "exposed.json:7:11: machines.nas.expose.jellyfin.labels: 'machine' is given by clan-discovery and "
            "cannot be set"
        ),
    ),
    "a service that is a number": (
        on("nas", jellyfin=8096),
        'exposed.json:5:9: machines.nas.expose.jellyfin: must be an object, not a number (for example: {"port": 8096})',
    ),
    "a misspelt key of a machine": (
        {"machines": {"nas": {"exposed": {}}}},
        "exposed.json:4:7: machines.nas.exposed: unknown key (did you mean 'expose'?)",
    ),
    "a misspelt key of the file": (
        {"machines": {}, "scrapper": "x"},
        "exposed.json:3:3: scrapper: unknown key (did you mean 'scraper'?)",
    ),
    "a machine's name that is a path": (
        on("../nas"),
        'exposed.json:3:5: machines.../nas: "../nas" cannot be the name of a machine (no slash, no control character)',
    ),
    "two machines that differ in case": (
        {"machines": {"nas": {}, "NAS": {}}},
        "exposed.json:4:5: machines.NAS: 'nas' and 'NAS' differ only in case (DNS cannot tell them apart)",
    ),
    "two services on one port": (
        on("nas", films={"port": 8096}, jellyfin={"port": 8096}),
        (
            "exposed.json:8:9: machines.nas.expose.jellyfin: 'films' has the same port 8096 and path /metrics "
            "(set another `port`, or `metrics = false` for one of them)"
        ),
    ),
    "no machines": (
        {"nas": {}},
        (
            "exposed.json: exposed services are an object with the key `machines` "
            "(write it with: clan-discovery dump --exposed --flake . --output DIR)"
        ),
    ),
    "a list": (
        [],
        (
            "exposed.json: exposed services are an object with the key `machines` "
            "(write it with: clan-discovery dump --exposed --flake . --output DIR)"
        ),
    ),
}


@pytest.mark.parametrize("title", MISTAKES)
def test_mistake_has_its_place_and_its_fix(title: str) -> None:
    """One message for each mistake."""
    document, expected = MISTAKES[title]
    assert "\n".join(refused(document)) == expected


def test_text_that_is_no_json_has_its_place() -> None:
    """As for every other JSON."""
    with pytest.raises(InputError, match=r"exposed\.json:1:14: .* is no JSON"):
        declare_exposed(b'{"machines": nas}', "exposed.json")


def test_one_port_with_two_paths_is_two_targets() -> None:
    """A blackbox exporter serves probes and its own metrics."""
    probe: Json = {"port": 9115, "type": "blackbox", "params": {"target": "x"}}
    found = exposed(on("nas", probes=probe, own={"port": 9115}))
    assert sorted(expected.exporter.path for expected in found.expected) == ["/metrics", "/probe"]


def test_one_port_with_two_fronts() -> None:
    """An entry without metrics may name a second domain of the same port."""
    found = exposed(
        on(
            "nas",
            films={"port": 8096, "front": {"domain": "films"}},
            alias={"port": 8096, "metrics": False, "front": {"domain": "jellyfin"}},
        )
    )
    assert [front.domain for front in found.fronts] == ["jellyfin", "films"]


@pytest.mark.parametrize("target", ["localhost:9091", "127.0.0.1:9091", "[::1]:9091", "0.0.0.0:9091", "NAS:9091"])
def test_adopted_target_on_localhost_is_on_its_machine(target: str) -> None:
    """The address and the machine's own name mean the machine that declares the scrape config."""
    config = job("authelia", target, metrics_path="/m", scheme="https", params={"a": ["b"]})
    found = adopted(config)
    [expected] = found.expected
    assert (expected.machine.name, expected.host, expected.because) == (
        "nas",
        "",
        "exposed: scrape config authelia of nas",
    )
    exporter = expected.exporter
    assert (exporter.type, exporter.port, exporter.path, exporter.scheme, exporter.params) == (
        "authelia",
        9091,
        "/m",
        "https",
        (("a", "b"),),
    )
    assert found.problems == ()


def test_adopted_target_of_the_scraper_is_scraped_on_loopback() -> None:
    """There the scrape config means what it says."""
    found = adopted(job("authelia", "localhost:9091"), job("node", "nas:9100"), scraper="nas")
    assert [(expected.exporter.type, expected.host) for expected in found.expected] == [
        ("authelia", "127.0.0.1"),
        ("node", ""),
    ]


def test_adopted_target_on_another_machine_of_the_file() -> None:
    """A name that the file declares is that machine, whatever its case."""
    [expected] = adopted(job("node", "web01:9100")).expected
    assert (expected.machine.name, expected.host) == ("Web01", "")


def test_adopted_target_elsewhere_is_listed() -> None:
    """Without a port it is that of the scheme, as in Prometheus."""
    found = adopted(job("router", "192.0.2.1:9116", "host.example.org"))
    assert [(one.host, one.exporter.port, one.located) for one in found.endpoints] == [
        ("192.0.2.1", 9116, "listed in the scrape config router of nas"),
        ("host.example.org", 80, "listed in the scrape config router of nas"),
    ]
    assert found.expected == ()


def test_labels_of_an_adopted_group() -> None:
    """`instance` is the machine's name here; another label that cannot be set is a warning."""
    labels = {"instance": "nas", "team": "tv", "machine": "x"}
    config: Json = {"job_name": "node", "static_configs": [{"targets": ["localhost:9100"], "labels": labels}]}
    found = adopted(config)
    assert found.expected[0].exporter.labels == (("team", "tv"),)
    [problem] = found.problems
    assert problem.severity == "warning"
    assert problem.what == ("scrape config node of nas: 'machine' is given by clan-discovery and cannot be set")


def test_keys_that_are_not_adopted_are_named_without_their_values() -> None:
    """They may be secrets. Empty ones are what NixOS writes for options that are not set."""
    config = job(
        "authelia",
        "localhost:9091",
        basic_auth={"password": "MARKED"},
        scrape_interval="5s",
        honor_labels=None,
        file_sd_configs=[],
    )
    found = adopted(config)
    [problem] = found.problems
    assert problem.severity == "warning"
    assert str(problem).endswith(
        "scrape config authelia of nas: not read: basic_auth, scrape_interval (set them in the config: jobs.authelia)"
    )
    assert len(found.expected) == 1


def test_scrape_config_of_probes_is_not_adopted() -> None:
    """Its relabel rules replace the address: the targets are what is probed."""
    rules = [{"target_label": "__address__", "replacement": "127.0.0.1:9115"}]
    found = adopted(job("probes", "https://example.org", relabel_configs=rules))
    assert (found.expected, found.endpoints) == ((), ())
    [problem] = found.problems
    assert (problem.severity, "write `__address__`" in problem.what) == ("problem", True)


WRONG: dict[str, tuple[Json, str]] = {
    "a job name with a space": (job("Home Assistant", "localhost:1"), "cannot be the name of a job here"),
    "no job name": ({"static_configs": []}, "null cannot be the name of a job here"),
    "a URL": (job("a", "http://localhost:1"), "is a URL: write host:port"),
    "a target that is a number": ({"job_name": "a", "static_configs": [{"targets": [1]}]}, "1 is no target"),
    "targets that are a string": ({"job_name": "a", "static_configs": [{"targets": "x"}]}, "must be a list"),
    "a group that is a string": ({"job_name": "a", "static_configs": ["x"]}, "must be an object, not a string"),
    "a parameter of two values": (job("a", "localhost:1", params={"x": ["1", "2"]}), "is not one string"),
    "a path with a query": (job("a", "localhost:1", metrics_path="/m?a=b"), "/metrics is used"),
    "an unknown scheme": (job("a", "localhost:1", scheme="ftp"), '"ftp" is no scheme: http is used'),
    "no target": ({"job_name": "a"}, "has no target in `static_configs`"),
}


@pytest.mark.parametrize("title", WRONG)
def test_part_of_a_scrape_config_that_is_not_adopted_is_reported(title: str) -> None:
    """It does not stop a command: the scrape config may be right for Prometheus."""
    config, part = WRONG[title]
    [problem] = adopted(config).problems
    assert part in problem.what
    assert problem.where.startswith("exposed.json:")
    assert problem.severity in ("problem", "warning")


def test_adopted_target_that_is_exposed_too() -> None:
    """The same job is one target; another job is a problem, and both are kept."""
    services: Json = {"caddy": {"port": 2020}}
    same = exposed({"machines": {"nas": {"expose": services, "adopted": [job("caddy", "localhost:2020")]}}})
    other = exposed({"machines": {"nas": {"expose": services, "adopted": [job("proxy", "localhost:2020")]}}})
    assert (len(same.expected), same.problems) == (1, ())
    assert len(other.expected) == 2
    [problem] = other.problems
    assert (problem.severity, "'caddy' has the same port 2020" in problem.what) == ("problem", True)


def test_order_of_machines_and_services_does_not_matter() -> None:
    """A machine may repeat a service of one that comes later."""
    machines: dict[str, Json] = {
        "a": {"adopted": [job("caddy", "nas:2020")]},
        "nas": {"expose": {"caddy": {"port": 2020}, "films": {"port": 8096}}},
    }
    turned: dict[str, Json] = {
        "nas": {"expose": {"films": {"port": 8096}, "caddy": {"port": 2020}}},
        "a": machines["a"],
    }
    found = [
        [(one.machine.name, one.exporter, one.because) for one in exposed({"machines": given}).expected]
        for given in (machines, turned)
    ]
    assert found[0] == found[1]
    assert [because for _, _, because in found[0]] == ["exposed: caddy", "exposed: films"]


WORDS = st.sampled_from(
    [
        *("machines", "scraper", "nas", "expose", "adopted", "port", "front", "domain", "job_name", "static_configs"),
        *("targets", "labels", "params", "relabel_configs", "localhost:1", 'é\\"', "metrics_path", "/", "type", ""),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 70000) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_any_json_is_read_or_refused(document: Json) -> None:
    """Nothing else is raised."""
    for whole in (document, {"machines": document}, {"machines": {"nas": document}}):
        with contextlib.suppress(InputError):
            exposed(whole)


@given(st.dictionaries(st.sampled_from(["expose", "adopted"]), VALUES), VALUES)
def test_any_service_and_scrape_config_is_read_or_refused(machine: dict[str, Json], one: Json) -> None:
    """Nothing else is raised, and every fact has its place."""
    both: Json = {"expose": {"a": one}, "adopted": [one]}
    for whole in (machine, both):
        with contextlib.suppress(InputError):
            found = exposed({"machines": {"nas": whole}})
            assert all(expected.where.startswith("exposed.json:") for expected in found.expected)


@given(VALUES, st.sampled_from([None, 1, "\t"]))
def test_places_point_at_keys_and_items(document: Json, indent: int | str | None) -> None:
    """Whatever the layout of the text."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    places = JsonPlaces(text)
    lines = text.split("\n")

    def check(value: Json, path: tuple[str | int, ...]) -> None:
        if len(path) > 8:
            return
        if path:
            line, column = map(int, places.of(path).split(":"))
            last = path[-1]
            here = lines[line - 1][column - 1 :]
            assert here.startswith(json.dumps(last, ensure_ascii=False) if isinstance(last, str) else start_of(value))
        if isinstance(value, dict):
            for key, inner in value.items():
                check(inner, (*path, key))
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                check(inner, (*path, index))

    check(document, ())


def start_of(value: Json) -> str:
    """Return the first character of a value as JSON."""
    return json.dumps(value, ensure_ascii=False)[0]


def test_config_reads_and_watches_the_file(tmp_path: Path, run: Callable[..., Done]) -> None:
    """The config's own settings of a type count; a file that others may not read is a closed input."""
    file = tmp_path / "exposed.json"
    file.write_text(json.dumps(on("nas", jellyfin={"port": 8096}, redis={"port": 1, "loopback": True})))
    config = tmp_path / "c.yaml"
    config.write_text(
        "inventory: {exposed: exposed.json}\nserver: nas\nexporters: {jellyfin: {path: /m, labels: {site: home}}}\n"
    )
    file.chmod(0o600)
    loaded = load_config(config)
    assert watched_files(loaded) == ((file, "inventory"),)
    assert closed_inputs(loaded) == (file,)
    shown = json.loads(run("show", "-c", config, "--format", "json").out)
    targets = {target["job"]: (target["address"], target["labels"]) for target in shown["targets"]}
    address, labels = targets["jellyfin"]
    config.write_text(config.read_text().replace("exposed.json", "exposed.json, domain: home.example"))
    in_domain = json.loads(run("show", "-c", config, "--format", "json").out)["targets"]
    assert "nas.home.example:8096" in [target["address"] for target in in_domain]
    assert (address, labels["__metrics_path__"], labels["site"]) == ("nas:8096", "/m", "home")
    assert targets["redis"][0] == "127.0.0.1:1"
    explained = run("explain", "nas", "-c", config)
    assert "because: exposed: jellyfin" in explained.out
    assert "on loopback of the machine that scrapes it" in explained.out


def test_two_sources_merge(tmp_path: Path, run: Callable[..., Done]) -> None:
    """A machine of a clan may expose a service; another path of an exporter that the clan declares is an error."""
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["nas"])))
    file = tmp_path / "exposed.json"
    (tmp_path / "c.yaml").write_text("inventory: {file: inventory.json, exposed: exposed.json}\n")
    file.write_text(json.dumps(on("NAS", jellyfin={"port": 8096}, node={"port": 9100})))
    shown = json.loads(run("show", "-c", tmp_path / "c.yaml", "--format", "json").out)
    assert [(target["job"], target["machine"]) for target in shown["targets"]] == [("jellyfin", "nas"), ("node", "nas")]
    file.write_text(json.dumps(on("nas", node={"port": 9100, "path": "/m"})))
    done = run("show", "-c", tmp_path / "c.yaml")
    assert done.code == 2
    assert "9100" in done.err
    assert f"{file}:1:" in done.err


def in_clan(exporter: Json) -> Declared:
    """Read a clan of two machines with this role exporter, as the server does."""
    roles: Json = {"exporter": exporter, "server": {"machines": {"monitor": {}}}}
    instances: Json = {"monitoring": {"module": {"name": "prometheus"}, "roles": roles}}
    document = inventory(["monitor", "nas"], instances=instances)
    return declare(parse_inventory(json.dumps(document).encode(), "inv.json"), Options(server="monitor"))


def test_settings_of_the_role_exporter() -> None:
    """A clan declares the same in `expose`; settings of role and machine merge, and a mistake has its option."""
    films: Json = {"port": 8096, "type": "jellyfin", "front": {"domain": "films", "auth": None}}
    own: Json = {
        "nas": {"settings": {"expose": {"films": films, "redis": {"port": 9121, "loopback": True}}}},
        "monitor": {"settings": {"expose": {"grafana": {"port": 3000, "loopback": True}}}},
    }
    found = in_clan({"settings": {"expose": {"photos": {"port": 2283}}}, "tags": ["all"], "machines": own})
    targets = {
        (one.machine.name, one.exporter.type): (one.exporter.port, one.host, one.role)
        for one in found.expected
        if one.exporter.type != "node"
    }
    assert targets == {
        ("monitor", "grafana"): (3000, "127.0.0.1", "exporter"),
        ("monitor", "photos"): (2283, "", "exporter"),
        ("nas", "jellyfin"): (8096, "", "exporter"),
        ("nas", "photos"): (2283, "", "exporter"),
    }
    assert [(one.name, one.job, one.reason) for one in found.excluded] == [("nas", "redis", "loopback")]
    [front] = found.fronts
    assert (front.service, front.machine, front.port, front.because, front.where) == (
        "films",
        "nas",
        8096,
        "inventory: instance monitoring, role exporter, expose.films",
        "inv.json: instances.monitoring.roles.exporter.machines.nas.settings.expose.films",
    )
    assert found.problems == ()


@pytest.mark.parametrize(
    ("expose", "said"),
    [
        ({"films": {"prt": 1, "port": 2}}, "settings.expose.films.prt: unknown option (did you mean 'port'?)"),
        ({"films": 8096}, "settings.expose.films: must be an attribute set, not a number"),
        ([], "settings.expose: must be an attribute set of services, not a list"),
        ({"a": {"port": 1}, "b": {"port": 1}}, "settings.expose.b: 'a' has the same port 1 and path /metrics"),
    ],
)
def test_mistake_in_the_settings_of_the_role_exporter(expose: Json, said: str) -> None:
    """It names the option."""
    with pytest.raises(InputError) as caught:
        in_clan({"settings": {"expose": expose}, "tags": ["all"]})
    assert said in str(caught.value)
