"""Compose files as a source: which targets, fronts and services they declare, and what is refused."""

from __future__ import annotations

import json
import random
import textwrap
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.errors import InputError
from clan_discovery.inventory.compose.declare import ComposeMachine, ComposeOptions, declare_compose
from clan_discovery.inventory.compose.project import ComposeProject
from clan_discovery.model import FrontSettings
from clan_discovery.resolve.fronts import served_fronts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clan_discovery.model import Declared, Json

SCRAPER: Final = "  prometheus: {image: 'prom/prometheus:v3', networks: [mon]}\n"
NETWORKS: Final = "networks: {mon: {}, web: {}}\n"
METRICS: Final = "prometheus.io/scrape: 'true', prometheus.io/port: '9121'"


def declared(
    files: Mapping[str, str] | str,
    *,
    scraper: str | None = None,
    proxy: str | None = None,
    profiles: Sequence[str] = (),
    first: Sequence[str] = ("compose.yaml",),
) -> Declared:
    """Return what files below /srv/app declare. A text alone is the content of compose.yaml."""
    if isinstance(files, str):
        files = {"compose.yaml": files}
    project = ComposeProject(files=tuple(f"/srv/app/{name}" for name in first), profiles=tuple(profiles))
    return of_projects(files, [project], scraper=scraper, proxy=proxy)


def of_projects(
    files: Mapping[str, str],
    projects: Sequence[ComposeProject],
    *,
    scraper: str | None = None,
    proxy: str | None = None,
) -> Declared:
    content = {f"/srv/app/{name}" if name[0] != "/" else name: text for name, text in files.items()}

    def read(path: str, _: str) -> bytes | None:
        if path not in content:
            return None
        return textwrap.dedent(content[path]).encode()

    machine = ComposeMachine(name="nas", projects=tuple(projects), scraper=scraper, proxy=proxy)
    return declare_compose([machine], ComposeOptions(read=read))


def targets(found: Declared) -> list[tuple[str, str]]:
    """Return the jobs and addresses; the address of the machine is `nas`."""
    return sorted((e.exporter.type, f"{e.host or 'nas'}:{e.exporter.port}") for e in found.expected)


def fronts(found: Declared) -> list[tuple[str, str, str]]:
    """Return the domains with their paths, where they lead to, and who may use them."""
    return sorted((f"{f.domain}{f.path}", f"{f.host or 'nas'}:{f.port}", f.auth) for f in found.fronts)


def refused(files: Mapping[str, str] | str, first: Sequence[str] = ("compose.yaml",)) -> str:
    with pytest.raises(InputError) as error:
        declared(files, first=first)
    return str(error.value).replace("/srv/app/", "")


def said(found: Declared) -> list[str]:
    return [str(problem).replace("/srv/app/", "") for problem in found.problems]


def services(text: str, *, networks: str = NETWORKS) -> str:
    return f"services:\n{SCRAPER}{textwrap.indent(textwrap.dedent(text), '  ')}\n{networks}"


@pytest.mark.parametrize(
    "labels",
    [
        "[prometheus.io/scrape=true, prometheus.io/port=9121, prometheus.io/path=/m, prometheus.io/scheme=https]",
        "[prometheus.io.scrape=true, prometheus.io.port=9121, prometheus.io.path=/m, prometheus.io.scheme=https]",
        "{prometheus.scrape: true, prometheus.port: 9121, prometheus.path: /m, prometheus.scheme: https}",
        "[prometheus.scrape=True, prometheus.port=$P, 'prometheus.path=${Q-/m}', 'prometheus.${S:-scheme}=https']",
    ],
)
def test_spellings_of_the_labels(labels: str) -> None:
    text = services(f"redis: {{image: r, networks: [mon], labels: {labels}}}")
    (expected,) = declared({"compose.yaml": text, ".env": "P=9121"}).expected
    exporter = expected.exporter
    assert (exporter.type, exporter.port, exporter.path, exporter.scheme) == ("redis", 9121, "/m", "https")
    assert (expected.machine.name, expected.host) == ("nas", "redis")
    assert expected.because == "compose: services.redis of nas"
    assert expected.where.startswith("/srv/app/compose.yaml:3:")


def test_own_settings_win_over_labels() -> None:
    text = """
    cache:
      networks: [mon]
      labels: {prometheus.io/scrape: "true", prometheus.io/port: "1", clan-discovery.type: x}
      x-clan-discovery: {type: redis, port: "${PORT:-9122}", path: /m, scheme: https, labels: {site: home}}
    other:
      networks: [mon]
      x-clan-discovery: {type: node}
    typed:
      networks: [mon]
      labels: {clan-discovery.type: systemd}
    """
    found = {e.exporter.type: e.exporter for e in declared(services(text)).expected}
    assert found["redis"].port == 9122
    assert (found["redis"].path, found["redis"].scheme) == ("/m", "https")
    assert found["redis"].labels == (("site", "home"),)
    assert (found["node"].port, found["systemd"].port) == (9100, 9558)


def test_services_without_labels_are_no_targets() -> None:
    """Neither a known name or image nor labels that another tool reads makes a target."""
    text = """
    node-exporter: {image: prom/node-exporter, networks: [mon]}
    redis: {image: redis, labels: [com.example=1, prometheus.io/port=9121]}
    swarm: {image: x, deploy: {labels: [prometheus.io/scrape=true, prometheus.io/port=1]}}
    """
    found = declared(services(text))
    assert (found.expected, found.excluded, found.problems) == ((), (), ())
    assert [service.name for service in found.services] == ["node-exporter", "prometheus", "redis", "swarm"]


def test_scrape_false_is_excluded() -> None:
    (excluded,) = declared(services("redis: {labels: {prometheus.io/scrape: 'false'}, networks: [mon]}")).excluded
    assert (excluded.name, excluded.job, excluded.reason) == ("nas", "redis", "disabled")
    assert excluded.detail == "compose: services.redis of nas: prometheus.io/scrape is false"


def test_port_is_the_known_one_or_the_only_one() -> None:
    text = """
    node: {networks: [mon], labels: {prometheus.io/scrape: "true"}}
    one: {networks: [mon], expose: ["9001"], labels: {prometheus.io/scrape: "true"}}
    two: {networks: [mon], expose: ["9001"], ports: ["127.0.0.1:9002:9003"], labels: {prometheus.io/scrape: "true"}}
    none: {networks: [mon], expose: [53/udp], labels: {prometheus.io/scrape: "true"}}
    """
    found = declared(services(text))
    assert targets(found) == [("node", "node:9100"), ("one", "one:9001")]
    assert [(excluded.job, excluded.reason) for excluded in found.excluded] == [("none", "no_port"), ("two", "no_port")]
    assert "several ports (9001, 9003)" in found.excluded[1].detail
    assert [problem.severity for problem in found.problems] == ["problem", "problem"]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("prometheus.io/port: '99999'", "prometheus.io/port: '99999' is not a port (write one number from 1 to 65535)"),
        ("prometheus.io/port: '0'", "'0' is not a port"),
        ("prometheus.io/port: http", "'http' is not a port"),
        ("prometheus.io/port: '9121,9122'", "'9121,9122' is not a port"),
        ("prometheus.io/port: '${PORT}'", "prometheus.io/port: the variable PORT is not set (set it in the env file"),
        ("prometheus.io/port: '${PORT:?}'", "the variable PORT is required and not set"),
        ("prometheus.io/port: '$'", "a '$' begins no variable"),
        ("prometheus.io/path: metrics", "'metrics' is no path: a path starts with a slash"),
        ("prometheus.io/path: /m?a=b", "holds more than a path"),
        ("prometheus.io/scheme: ftp", "'ftp' is not a scheme (write http or https)"),
        ("clan-discovery.type: '../x'", "'../x' cannot be a job"),
    ],
)
def test_wrong_labels_are_errors_with_their_place(value: str, what: str) -> None:
    text = services(f"redis:\n  networks: [mon]\n  labels:\n    prometheus.io/scrape: 'true'\n    {value}")
    message = refused(text)
    assert message.startswith("compose.yaml:7:")
    assert what in message


def test_scrape_is_true_or_false() -> None:
    assert "'1' is neither true nor false" in refused(services("a: {labels: {prometheus.io/scrape: 1}}"))


def test_own_settings_are_strict() -> None:
    text = services("a: {x-clan-discovery: {prot: 1, labels: {__x: a}, front: {domian: x.y}}}")
    message = refused(text)
    assert "x-clan-discovery.prot: unknown key (did you mean 'port'?)" in message
    assert "'__x' is reserved" in message
    assert "x-clan-discovery.front.domian: unknown key (did you mean 'domain'?)" in message


def test_unset_variables_are_warned_of_where_they_matter() -> None:
    """Of a container's environment nothing is read, and a default is no reason to warn."""
    text = services(
        "redis: {image: 'redis:${TAG:-7}', container_name: '${CN}', networks: [mon], environment: {A: '${SECRET}'}, "
        f"labels: {{{METRICS}, other: '${{X}}'}}}}"
    )
    found = declared(text)
    assert targets(found) == [("redis", "redis:9121")]
    (warning,) = said(found)
    assert warning.startswith("compose.yaml:3:53: the variable CN is not set: it is empty here (set it in the env file")
    assert found.problems[0].severity == "warning"


def test_env_file_beside_the_first_file() -> None:
    text = services("redis: {networks: [mon], labels: {prometheus.io/scrape: 'true', prometheus.io/port: $PORT}}")
    assert targets(declared({"compose.yaml": text, ".env": "PORT=9122"})) == [("redis", "redis:9122")]
    files = {"compose.yaml": text, ".env": "PORT=1", "a.env": "PORT=2\nX=$PORT", "b.env": "PORT=3"}
    given = ComposeProject(files=("/srv/app/compose.yaml",), env_files=("/srv/app/a.env", "/srv/app/b.env"))
    assert targets(of_projects(files, [given])) == [("redis", "redis:3")]


def test_own_environment_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9122")
    text = services("redis: {networks: [mon], labels: {prometheus.io/scrape: 'true', prometheus.io/port: $PORT}}")
    assert "the variable PORT is not set" in refused(text)


# Reachability


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ("networks: [mon]", "redis:9121"),
        ("networks: {mon: {aliases: [cache]}, web: }", "redis:9121"),
        ("networks: [web], ports: ['9121:9121']", "nas:9121"),
        ("networks: [web], ports: ['19121:9121/tcp']", "nas:19121"),
        ("networks: [web], ports: ['10.0.0.5:19121:9121']", "10.0.0.5:19121"),
        ("networks: [web], ports: ['[fd00::5]:19121:9121']", "fd00::5:19121"),
        ("networks: [web], ports: ['19120-19125:9120-9125']", "nas:19121"),
        ("networks: [web], ports: [{target: 9121, published: '19121', protocol: tcp}]", "nas:19121"),
        ("networks: [web], ports: [{target: 9121, published: 19121, host_ip: 10.0.0.5}]", "10.0.0.5:19121"),
        ("networks: [web], ports: ['127.0.0.1:1:9121', '19121:9121']", "nas:19121"),
        ("network_mode: host", "nas:9121"),
        ("network_mode: 'service:vpn'", "vpn:9121"),
        ("network_mode: 'container:the-vpn'", "vpn:9121"),
    ],
)
def test_where_a_target_is_reached(options: str, target: str) -> None:
    text = f"redis: {{{options}, labels: {{{METRICS}}}}}\nvpn: {{container_name: the-vpn, networks: [mon]}}"
    assert targets(declared(services(text))) == [("redis", target)]


@pytest.mark.parametrize(
    ("options", "detail"),
    [
        ("networks: [web]", "it shares no network with prometheus, and does not publish port 9121 (put both into"),
        ("networks: [web], ports: ['9121']", "does not publish port 9121"),
        ("networks: [web], ports: ['9121:9121/udp']", "does not publish port 9121"),
        ("networks: [web], ports: ['127.0.0.1:9121:9121']", "publishes port 9121 on loopback only"),
        ("network_mode: none", "its network_mode is none"),
        ("network_mode: bridge", "it shares no network with prometheus"),
        ("network_mode: 'service:other'", "names a service or container that is not in the files"),
        ("network_mode: 'service:redis'", "names a service or container that is not in the files"),
    ],
)
def test_unreachable_services_are_excluded(options: str, detail: str) -> None:
    found = declared(services(f"redis: {{{options}, labels: {{{METRICS}}}}}"))
    (excluded,) = found.excluded
    assert (excluded.reason, excluded.job, found.expected) == ("unreachable_network", "redis", ())
    assert detail in excluded.detail


def test_default_network_of_the_project() -> None:
    text = f"services:\n  prometheus: {{image: prom/prometheus}}\n  redis: {{labels: {{{METRICS}}}}}\n"
    assert targets(declared(text)) == [("redis", "redis:9121")]


def test_scraper_in_the_config() -> None:
    text = services(
        f"a: {{networks: [mon], ports: ['127.0.0.1:1:9121'], labels: {{{METRICS}}}}}\n"
        f"b: {{networks: [web], ports: ['2:9121'], labels: {{{METRICS}}}}}\nagent: {{networks: [web]}}"
    )
    assert targets(declared(text)) == [("a", "a:9121"), ("b", "nas:2")]
    assert targets(declared(text, scraper="agent")) == [("b", "b:9121")]
    assert targets(declared(text, scraper="host")) == [("a", "127.0.0.1:1"), ("b", "nas:2")]
    none = declared(text, scraper="none")
    assert targets(none) == [("b", "nas:2")]
    assert "on loopback only (publish it on another address, or set scraper to host" in none.excluded[0].detail
    with pytest.raises(
        InputError, match=r"inventory.compose.nas.scraper: .* no service 'agnet' \(did you mean 'agent'"
    ):
        declared(text, scraper="agnet")


def test_scraper_in_the_network_of_the_machine() -> None:
    text = f"""
    services:
      vmagent: {{image: "ghcr.io/victoriametrics/vmagent:v1@sha256:0", network_mode: host}}
      a: {{ports: ["127.0.0.1:1:9121"], labels: {{{METRICS}}}}}
      b: {{network_mode: host, labels: {{{METRICS}}}}}
    """
    assert targets(declared(text)) == [("a", "127.0.0.1:1"), ("b", "nas:9121")]


def test_two_scrapers_are_an_error_that_names_the_key() -> None:
    text = services(f"agent: {{image: victoriametrics/vmagent}}\na: {{networks: [mon], labels: {{{METRICS}}}}}")
    message = refused(text)
    assert "agent, prometheus could all be the scraper (set `scraper` to one of them, to host or to none)" in message
    assert targets(declared(text, scraper="prometheus")) == [("a", "a:9121")]


def test_projects_share_an_external_network() -> None:
    """A name that two projects have is not used; one with a container name of its own is."""
    labels = f"labels: {{{METRICS}}}"
    external = "networks: {mon: {name: shared, external: true}, old: {external: {name: legacy}}}\n"
    files = {
        "/srv/a/compose.yaml": f"services:\n{SCRAPER}  web: {{networks: [mon], {labels}}}\n{external}",
        "/srv/b/compose.yaml": f"services:\n  lost: {{networks: [old], {labels}}}\n"
        f"  app: {{networks: [mon], {labels}}}\n"
        f"  web: {{networks: [mon], container_name: b-web, {labels}}}\n{external}",
    }
    projects = [ComposeProject(files=(path,)) for path in files]
    found = of_projects(files, projects)
    assert targets(found) == [("app", "app:9121"), ("web", "b-web:9121")]
    assert [e.detail.partition(": ")[2] for e in found.excluded if "names" in e.detail] == [
        "services.web of nas: other services have its names in the network shared, too (give it a container_name)"
    ]
    assert [service.name for service in found.services] == ["app", "lost", "prometheus", "a-web", "b-web"]


def test_published_metrics_port_is_a_problem() -> None:
    """Only on all addresses, and not where the port is that of a front, too."""
    text = services(
        f"a: {{networks: [mon], ports: ['9121:9121'], labels: {{{METRICS}}}}}\n"
        f"b: {{networks: [mon], ports: ['10.0.0.1:2:9121'], labels: {{{METRICS}}}}}\n"
        f"c: {{networks: [mon], ports: ['3:9121'], labels: {{{METRICS}}}, x-clan-discovery: "
        "{front: {domain: c.example.org, port: 9121}}}\n"
        f"d: {{networks: [web], ports: ['0.0.0.0:4:9121'], labels: {{{METRICS}}}}}"
    )
    found = declared(text)
    assert [problem.severity for problem in found.problems] == ["problem", "problem"]
    assert said(found)[0] == (
        "compose.yaml:3:32: services.a: the metrics port 9121 is published on all addresses "
        "(remove it from `ports`: the scraper reaches it as a:9121)"
    )
    assert "put the service into a network of prometheus" in said(found)[1]
    assert said(declared(text, scraper="none"))[0].endswith("ADDRESS:9121:9121)")
    assert said(declared(text, scraper="host"))[0].endswith("127.0.0.1:9121:9121)")


def test_two_services_on_one_address_and_port() -> None:
    text = services(
        f"a: {{network_mode: host, labels: {{{METRICS}}}}}\nb: {{network_mode: host, labels: {{{METRICS}}}}}"
    )
    message = refused(text)
    assert message.startswith("compose.yaml:4:")
    assert "services.b is at nas:9121, as is services.a (compose.yaml:3:" in message


def of_two_machines(one: str, other: str) -> Declared:
    """Return what nas and web declare, which have one service each, of these names."""
    names = {"/nas.yaml": one, "/web.yaml": other}
    machines = [
        ComposeMachine(name=file[1:4], projects=(ComposeProject(files=(file,)),)) for file in ("/nas.yaml", "/web.yaml")
    ]

    def read(path: str, _: str) -> bytes | None:
        name = names.get(path)
        return None if name is None else services(f"{name}: {{networks: [mon], labels: {{{METRICS}}}}}").encode()

    return declare_compose(machines, ComposeOptions(read=read))


def test_targets_of_two_machines_in_networks_are_a_problem() -> None:
    (problem,) = of_two_machines("a", "b").problems
    assert problem.severity == "problem"
    assert "the targets of nas, web are in networks of different scrapers" in problem.what
    assert "inventory.compose.web.scraper to none" in str(problem.hint)


def test_one_name_in_networks_of_two_machines_is_an_error() -> None:
    """A scraper would take the metrics of one for those of the other."""
    with pytest.raises(InputError, match="networks of different scrapers, and 2 of them are at a:9121"):
        of_two_machines("a", "a")


# Files


def test_override_files_merge_as_compose_merges() -> None:
    base = services(
        "a: {container_name: old, networks: [web], expose: ['1'], depends_on: [b], "
        "labels: [prometheus.io/scrape=true, prometheus.io/port=1]}\nb: {}"
    )
    over = """
    services:
      a:
        container_name: new
        networks: {mon: {aliases: [x]}}
        depends_on: {c: {condition: service_healthy}}
        labels: {prometheus.io/port: 9121}
      c: {}
    """
    found = declared({"compose.yaml": base, "over.yaml": over}, first=("compose.yaml", "over.yaml"))
    assert targets(found) == [("a", "a:9121")]
    assert found.expected[0].where == "/srv/app/over.yaml:7:34"
    assert {service.name: service.depends_on for service in found.services}["a"] == ("b", "c")


def test_reset_and_override_drop_what_was_before() -> None:
    base = services(
        f"a: {{networks: [mon], ports: ['1:9121'], expose: [2], labels: {{{METRICS}, prometheus.path: /m}}}}"
    )
    over = f"services: {{a: {{ports: !reset [], expose: !override [3], labels: !override {{{METRICS}}}}}}}"
    found = declared({"compose.yaml": base, "over.yaml": over}, first=("compose.yaml", "over.yaml"))
    assert (targets(found), found.problems) == ([("a", "a:9121")], ())
    assert found.expected[0].exporter.path == "/metrics"


def test_extends_in_the_same_and_in_another_file() -> None:
    common = "services: {base: {networks: [mon], labels: {prometheus.io/scrape: 'true'}}}"
    text = services(
        "a: {extends: {file: common/c.yaml, service: base}, labels: {prometheus.io/port: '1'}}\n"
        "b: {extends: a, labels: [prometheus.io/port=2]}"
    )
    assert targets(declared({"compose.yaml": text, "common/c.yaml": common})) == [("a", "a:1"), ("b", "b:2")]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("services: {a: {extends: b}, b: {extends: a}}", "compose.yaml:1:42: services.b extends itself"),
        ("services: {a: {extends: {service: ab}}, abc: {}}", "extends 'ab', which compose.yaml does not have"),
        ("services: {a: {extends: {file: no.yaml, service: a}}}", "1:25: cannot read the Compose file no.yaml: there"),
        ("include: [compose.yaml]\nservices: {a: {}}", "includes are nested too deeply"),
        ("include: [{path: []}]\nservices: {a: {}}", "compose.yaml:1:11: include names no file"),
        ("a: {image: x}", "compose.yaml: declares no services"),
        ("[a]", "compose.yaml: is not a Compose file"),
        ("", "compose.yaml: is not a Compose file"),
        ("services: [a]", "compose.yaml:1:11: services is not a mapping"),
        ("services: {a: b}", "compose.yaml:1:15: services.a is not a mapping"),
        ("services: {a: {image: x, image: y}}", "the key 'image' is given twice, first on line 1"),
        ("services: &a {a: *a}", "an alias is inside the value that it names"),
        ("services: {a: {labels: {<<: x}}}", "only a mapping or a list of mappings can be merged"),
    ],
)
def test_unusable_files(text: str, what: str) -> None:
    assert what in refused(text)


def test_missing_file_and_wrong_encoding() -> None:
    assert "cannot read the Compose file compose.yaml: there is no such file" in refused({})
    project = ComposeProject(files=("/c.yaml",))
    options = ComposeOptions(read=lambda path, _: b"services:\n  a\xff: {}" if path == "/c.yaml" else None)
    with pytest.raises(InputError, match=r"/c.yaml:2:4: is not UTF-8"):
        declare_compose([ComposeMachine(name="nas", projects=(project,))], options)


def test_included_files_have_variables_of_their_own() -> None:
    files = {
        "compose.yaml": f"include: [sub/a.yaml]\n{services('a: {}')}",
        "sub/a.yaml": "services: {b: {networks: [mon], labels: [prometheus.io/scrape=true, prometheus.io/port=$P]}}",
        "sub/.env": "P=7",
    }
    assert targets(declared(files)) == [("b", "b:7")]
    assert targets(declared({**files, ".env": "P=8"})) == [("b", "b:8")]


def test_files_that_include_each_other_in_many_ways_are_refused() -> None:
    """Ten files, each of which includes the next one ten times."""
    files = {f"{n}.yaml": f"include: [{', '.join([f'{n + 1}.yaml'] * 10)}]\n" for n in range(10)}
    files |= {"compose.yaml": "include: [0.yaml]", "10.yaml": services("a: {}")}
    assert "more than 1,000 files are included" in refused(files)


def test_profiles() -> None:
    text = services(f"a: {{networks: [mon], profiles: [debug], labels: {{{METRICS}}}}}\nb: {{profiles: [debug]}}")
    (excluded,) = declared(text).excluded
    assert (excluded.job, excluded.reason) == ("a", "disabled")
    assert excluded.detail.endswith("it starts with the profile debug only (config: profiles)")
    assert targets(declared(text, profiles=["debug"])) == [("a", "a:9121")]
    assert targets(declared({"compose.yaml": text, ".env": "COMPOSE_PROFILES=x, debug"})) == [("a", "a:9121")]


# Fronts

TRAEFIK: Final = "traefik: {image: 'traefik:v3', ports: ['80:80'], networks: [web]}\n"


def routed(labels: str, options: str = "networks: [web]", rest: str = "") -> Declared:
    return declared(services(f"{TRAEFIK}app: {{{options}, labels: {{{labels}}}}}\n{rest}"))


RULE: Final = "traefik.http.routers.r.rule: Host(`app.example.org`)"
PORT: Final = "traefik.http.services.s.loadbalancer.server.port: 8080"


def test_front_of_a_router() -> None:
    (front,) = routed(f"{RULE}, traefik.HTTP.Services.s.loadBalancer.server.port: 8080").fronts
    assert (front.service, front.machine, front.domain, front.path) == ("app", "nas", "app.example.org", "/")
    assert (front.host, front.port, front.scheme, front.auth, front.loopback) == ("app", 8080, "http", "none", True)
    assert front.because == "compose: services.app of nas"
    assert front.where == "/srv/app/compose.yaml:4:64"


def test_scheme_path_and_service_of_a_router() -> None:
    labels = (
        f"{RULE.replace('org`)', 'org`) && PathPrefix(`/x`)')}, traefik.http.routers.r.service: t@docker, {PORT}, "
        "traefik.http.services.t.loadbalancer.server.port: 8443, "
        "traefik.http.services.t.loadbalancer.server.scheme: https"
    )
    (front,) = routed(labels).fronts
    assert (front.path, front.port, front.scheme) == ("/x", 8443, "https")


@pytest.mark.parametrize(
    ("options", "leads_to"),
    [
        ("networks: [web]", "app:8080"),
        ("networks: [mon], ports: ['80:8080']", "nas:80"),
        ("network_mode: host", "nas:8080"),
    ],
)
def test_where_a_front_leads_to(options: str, leads_to: str) -> None:
    assert fronts(routed(f"{RULE}, {PORT}", options)) == [("app.example.org/", leads_to, "none")]


@pytest.mark.parametrize(("port", "hidden"), [("8080", ("/metrics",)), ("9121", ())])
def test_metrics_of_a_service_are_hidden_wherever_the_proxy_connects(port: str, hidden: tuple[str, ...]) -> None:
    """The scraper is at the service's name, the proxy at a published port."""
    labels = f"{RULE}, {PORT}, prometheus.io/scrape: 'true', prometheus.io/port: '{port}'"
    service = f"  app: {{image: app, networks: [mon], ports: ['80:8080'], labels: {{{labels}}}}}\n"
    found = declared(f"services:\n{service}{SCRAPER}{NETWORKS}")
    assert targets(found) == [("app", f"app:{port}")]
    assert fronts(found) == [("app.example.org/", "nas:80", "none")]
    assert found.fronts[0].hidden == hidden


def test_front_that_the_proxy_does_not_reach_is_excluded() -> None:
    (excluded,) = routed(f"{RULE}, {PORT}", "networks: [mon]").excluded
    assert (excluded.reason, excluded.job) == ("unreachable_network", None)
    assert "the front app.example.org/: it shares no network with traefik" in excluded.detail


def test_front_on_loopback_needs_a_proxy_on_the_machine() -> None:
    text = services(f"app: {{ports: ['127.0.0.1:18080:8080'], labels: {{{RULE}, {PORT}}}}}")
    (front,) = declared(text).fronts
    assert (front.host, front.port, front.loopback) == ("", 18080, True)


def test_port_of_a_front_is_the_lowest_of_the_container() -> None:
    assert fronts(routed(RULE, "networks: [web], expose: ['9000', '8000']"))[0][1] == "app:8000"
    (excluded,) = routed(RULE).excluded
    assert excluded.reason == "no_port"
    fix = "add the label traefik.http.services.app.loadbalancer.server.port, or `expose`"
    assert excluded.detail.endswith(f"the front app.example.org/ has no port ({fix})")


@pytest.mark.parametrize(
    ("middlewares", "auth"),
    [
        ("strip", "none"),
        ("users", "basic"),
        ("login", "forward"),
        ("strip,login@docker", "forward"),
        ("all", "forward"),
        ("authelia@file", "forward"),
        ("basic-auth@file", "basic"),
        ("google-login@file", "forward"),
        ("compress@file", "none"),
        ("security-headers@file", "none"),
        ("openid", "forward"),
        ("geo", "none"),
        ("long0", "basic"),
    ],
)
def test_authentication_by_middlewares(middlewares: str, auth: str) -> None:
    rest = """
    other:
      labels:
        traefik.http.middlewares.strip.stripprefix.prefixes: /x
        traefik.http.middlewares.users.basicauth.users: hunter2
        traefik.http.middlewares.login.forwardauth.address: http://a
        traefik.http.middlewares.all.chain.middlewares: strip, users, login
        traefik.http.middlewares.circle.chain.middlewares: circle
        traefik.http.middlewares.openid.plugin.traefik-oidc-auth.secret: hunter2
        traefik.http.middlewares.geo.plugin.geoip.database: /x
    """
    rest += "".join(f"    traefik.http.middlewares.long{n}.chain.middlewares: long{n + 1}\n    " for n in range(99))
    rest += "    traefik.http.middlewares.long99.chain.middlewares: users\n"
    labels = f"{RULE}, {PORT}, traefik.http.routers.r.middlewares: '{middlewares},circle'"
    found = routed(labels, rest=textwrap.dedent(rest))
    assert found.fronts[0].auth == auth
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize(
    ("command", "entry_points", "auth"),
    [
        ("['--entryPoints.https.http.middlewares=gzip@file,authelia@file']", "http, https", "forward"),
        ("['--entryPoints.https.http.middlewares=authelia@file']", "http", "none"),
        ("--entrypoints.https.http.middlewares=authelia@file --x", "", "forward"),
    ],
)
def test_authentication_of_a_whole_entry_point(command: str, entry_points: str, auth: str) -> None:
    chosen = f", traefik.http.routers.r.entrypoints: '{entry_points}'" if entry_points else ""
    traefik = TRAEFIK.replace("networks", f"command: {command}, networks")
    text = services(f"{traefik}app: {{networks: [web], labels: {{{RULE}, {PORT}{chosen}}}}}\n")
    assert [front.auth for front in declared(text).fronts] == [auth]


@pytest.mark.parametrize("middleware", ["lan", "all", "lan-only@file", "wide"])
def test_no_front_without_the_limit_of_its_clients(middleware: str) -> None:
    """Also if another router of the domain has none, as that for http, which only redirects."""
    secure = RULE.replace("routers.r.", "routers.r-secure.")
    labels = (
        f"{RULE}, {secure}, {PORT}, traefik.http.routers.r-secure.middlewares: {middleware}, "
        "traefik.http.middlewares.lan.ipAllowList.sourceRange: 10.0.0.0/8, "
        "traefik.http.middlewares.all.chain.middlewares: 'strip@file, lan', "
        f"traefik.http.middlewares.wide.chain.middlewares: '{', '.join(f'm{n}' for n in range(300))}'"
    )
    found = routed(labels)
    (problem,) = found.problems
    assert "limits which clients may connect, and a front cannot: no front is made of it" in problem.what
    settings = FrontSettings(kind="caddy")
    assert served_fronts(found.fronts, settings, (), frozenset(), found.refused).fronts == ()
    own = "x-clan-discovery: {front: {domain: app.example.org, port: 8080}}, networks: [web]"
    found = routed(labels, own)
    assert len(served_fronts(found.fronts, settings, (), frozenset(), found.refused).fronts) == 1


@pytest.mark.parametrize("name", ["secure@file", "corporate-vpn@file"])
def test_middleware_that_is_in_no_label_is_warned_of(name: str) -> None:
    (problem,) = routed(f"{RULE}, {PORT}, traefik.http.routers.r.middlewares: {name}").problems
    assert f"the middleware {name} is in no label: the front demands no login" in problem.what


@pytest.mark.parametrize(
    ("condition", "network", "hidden"),
    [("PathPrefix(`/admin`)", "other", [("/admin",)]), ("PathRegexp(`^/admin`)", "web", [])],
)
def test_public_front_does_not_answer_for_a_private_one_that_is_not_made(
    condition: str, network: str, hidden: list[tuple[str, ...]]
) -> None:
    rest = f"""
    private:
      networks: [{network}]
      labels:
        traefik.http.routers.p.rule: Host(`app.example.org`) && {condition}
        traefik.http.routers.p.middlewares: authelia@file
        traefik.http.services.p.loadbalancer.server.port: 1
    """
    found = routed(f"{RULE}, {PORT}", rest=textwrap.dedent(rest))
    served = served_fronts(found.fronts, FrontSettings(kind="caddy"), (), frozenset(), found.refused)
    assert [front.hidden for front in served.fronts] == hidden


def test_stricter_router_of_a_domain_counts() -> None:
    """The router for http only redirects; that for https has the authentication."""
    secure = RULE.replace("routers.r.", "routers.r-secure.")
    labels = f"{RULE}, traefik.http.routers.r.middlewares: https-redirect@file, {secure}, {PORT}, "
    (front,) = routed(f"{labels}traefik.http.routers.r-secure.middlewares: authelia@docker").fronts
    assert front.auth == "forward"


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ("traefik.http.routers.r.rule: HostRegexp(`.+`)", "router r: HostRegexp is neither a domain nor one path"),
        ("traefik.http.routers.r.rule: 'Host(`a b`)'", "router r: 'a b/' is not a domain with a path"),
        (f"{RULE}, traefik.http.routers.r.service: x@file", "leads to x@file, which is not a service of this"),
        (f"{RULE}, {PORT}, {PORT.replace('.s.', '.t.')}", "leads to one of several services"),
    ],
)
def test_routers_that_are_not_understood_are_reported(labels: str, what: str) -> None:
    found = routed(labels)
    assert found.fronts == ()
    (problem,) = found.problems
    assert problem.severity == "warning"
    assert what in problem.what
    assert problem.where.startswith("/srv/app/compose.yaml:4:")


def test_own_dashboard_of_traefik_is_no_front() -> None:
    found = routed(f"{RULE}, traefik.http.routers.r.service: api@internal")
    assert (found.fronts, found.problems, found.excluded) == ((), (), ())


def test_disabled_routers_are_no_fronts() -> None:
    assert routed(f"traefik.enable: 'false', {RULE}, {PORT}").fronts == ()


def test_unset_variable_in_a_domain_is_an_error() -> None:
    text = services("app: {labels: ['traefik.http.routers.r.rule=Host(`app.${DOMAIN}`)']}")
    assert "compose.yaml:3:18: services.app: router r: the variable DOMAIN is not set" in refused(text)


def test_own_front() -> None:
    text = services(
        "app: {networks: [web], x-clan-discovery: {front: {domain: '${D:-App}', path: /x, port: 1, auth: oidc}}}\n"
        "caddy: {image: 'caddy:2', ports: ['443:443'], networks: [web]}"
    )
    found = declared(text)
    assert (fronts(found), found.expected) == ([("app/x", "app:1", "oidc")], ())
    for wrong, what in (
        ("{domain: 'a b'}", "'a b' is not a domain"),
        ("{path: /}", "'' is not a domain"),
        ("{domain: a, path: x}", "the path 'x' does not begin with a slash"),
        ("{domain: a, auth: x}", "unknown auth 'x' (write one of: none, basic, forward, oidc)"),
        ("{domain: a, port: 99999}", "'99999' is not a port"),
        ("{domain: '$D'}", "x-clan-discovery.front.domain: the variable D is not set"),
    ):
        assert what in refused(services(f"app: {{x-clan-discovery: {{front: {wrong}}}}}"))


def test_nginx_is_a_proxy_only_with_a_port_for_browsers() -> None:
    front = "x-clan-discovery: {front: {domain: a.b, port: 1}}"
    for ports, host in (("['80:80']", "app"), ("['8080:8080']", "nas")):
        text = services(
            f"app: {{networks: [web], ports: ['1:1'], {front}}}\n"
            f"nginx: {{image: nginx, networks: [web], ports: {ports}}}"
        )
        assert fronts(declared(text)) == [("a.b/", f"{host}:1", "none")]


# Everything


def test_secrets_are_in_no_fact_and_in_no_message() -> None:
    text = """
    services:
      app:
        image: "registry.example.org/app:hunter2"
        environment: {PASSWORD: hunter2, URL: "postgres://u:hunter2@db"}
        command: --password hunter2
        secrets: [hunter2]
        healthcheck: {test: curl -u hunter2}
        labels:
          prometheus.io/scrape: "true"
          prometheus.io/port: "99999"
          traefik.http.middlewares.m.basicauth.users: hunter2
          traefik.http.routers.r.rule: Host(`a.b`)
          traefik.http.services.s.loadbalancer.server.port: "1"
    """
    files = {"compose.yaml": text, ".env": "TOKEN=hunter2"}
    assert "hunter2" not in refused(files)
    found = declared({**files, "compose.yaml": text.replace("99999", "9121")})
    assert found.services
    assert "hunter2" not in repr(found)


def test_order_of_services_does_not_matter() -> None:
    options = [
        f"networks: [mon], labels: {{{METRICS}}}",
        f"ports: ['{{}}:9121'], labels: {{{METRICS}}}",
        f"networks: [web], labels: {{{RULE.replace('app', 'app{}')}, {PORT}}}",
        "depends_on: [s1, s2]",
    ]
    lines = [f"  s{n}: {{{options[n % 4].replace('{}', str(1000 + n))}}}\n" for n in range(40)]
    results: list[Declared] = []
    for seed in range(5):
        random.Random(seed).shuffle(lines)  # noqa: S311 - no secret
        found = declared(
            f"services:\n{SCRAPER}  traefik: {{image: traefik, networks: [web]}}\n{''.join(lines)}{NETWORKS}"
        )
        assert (len(found.expected), len(found.fronts), len(found.services)) == (20, 10, 42)
        results.append(found)
    assert {tuple(targets(found)) for found in results} == {tuple(targets(results[0]))}
    assert [[e.exporter.type for e in found.expected] for found in results] == [
        [e.exporter.type for e in results[0].expected]
    ] * 5


KEYS = st.sampled_from(
    [
        *("services", "networks", "labels", "ports", "expose", "extends", "include", "image", "network_mode", "name"),
        *("depends_on", "profiles", "external", "aliases", "x-clan-discovery", "front", "domain", "type", "a", "b"),
        *("prometheus.io/scrape", "prometheus.io/port", "container_name"),
    ]
)
TEXTS = st.sampled_from(
    [
        *("true", "9121", "1:2", "${A}", "${A:-b}", "$", "a", "prometheus.io/scrape=true", "host", "service:a", "a.b"),
        *("traefik.http.routers.r.rule=Host(`a.b`)", "compose.yaml", "prom/prometheus", "", "*", "x" * 300),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 99999) | TEXTS,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(KEYS, below, max_size=5),
    max_leaves=25,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.dictionaries(KEYS, VALUES, max_size=6), max_size=3), VALUES)
def test_any_document_is_read_or_refused(of_services: dict[str, dict[str, Json]], networks: Json) -> None:
    try:
        declared(json.dumps({"services": of_services, "networks": networks}))
    except InputError as error:
        said_so = str(error)
    else:
        said_so = "nothing"
    assert said_so
