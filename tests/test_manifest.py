"""A service manifest as a source: machines, addresses, exporters, services, fronts, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clan_discovery.assemble import make_plan, watched_files
from clan_discovery.config.load import load_config
from clan_discovery.errors import InputError
from clan_discovery.inventory.manifest.declare import ManifestExporter, ManifestOptions, parse_manifest
from clan_discovery.model import DeclaredAddress, Front, FrontSettings, Machine
from clan_discovery.resolve.fronts import served_fronts
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Declared, Json
    from tests.conftest import Done

    Run = Callable[..., Done]

EXAMPLE = ROOT / "examples/manifest/service-manifest.json"
MISTAKES = ROOT / "tests/data/manifest_mistakes.txt"
NODE = ManifestOptions(default=[ManifestExporter(type="node")])


def read(document: object, options: ManifestOptions = NODE) -> Declared:
    """Read a manifest, written on one line."""
    return parse_manifest(json.dumps(document).encode(), "m.json", options)


def service(**fields: Any) -> dict[str, Any]:
    """Return a manifest of one service on one machine."""
    return {"services": {"app": {"hostname": "nas", "ip": "10.0.0.5"} | fields}}


def proxied(**fields: Any) -> dict[str, Any]:
    """Return a manifest of a service with one proxy."""
    return service(interface={"proxy": {"domain": "app.example.org", "upstream": "10.0.0.5:8080"} | fields})


def front(**fields: Any) -> Front:
    """Return the front of a service with one proxy; there must be no problem."""
    declared = read(proxied(**fields))
    assert declared.problems == ()
    [found] = declared.fronts
    return found


def test_example_has_the_expected_numbers() -> None:
    """12 services (one disabled), 16 fronts in both shapes, 20 units, 4 URLs, 6 live dependents of the database."""
    document = json.loads(EXAMPLE.read_text())
    assert len(document["core_services"]) + len(document["services"]) == 12
    declared = parse_manifest(EXAMPLE.read_bytes(), str(EXAMPLE), NODE)
    assert declared.problems == ()
    assert len(declared.services) == len(declared.machines) == len(declared.addresses) == 11
    assert [exclusion.name for exclusion in declared.excluded] == ["mail"]
    assert len(declared.fronts) == 16
    assert sum(len(found.units) for found in declared.services) == 20
    assert sum(len(found.probes) for found in declared.services) == 4
    assert sum("postgresql" in found.depends_on for found in declared.services) == 6
    assert [expected.exporter.type for expected in declared.expected] == ["node"] * 11


def test_places_are_lines_of_the_file() -> None:
    """Every fact names the line that declares it."""
    lines = EXAMPLE.read_text().splitlines()
    declared = parse_manifest(EXAMPLE.read_bytes(), "m.json", NODE)
    for found in declared.services:
        _, line, column = found.where.split(":")
        assert lines[int(line) - 1][int(column) - 1 :].startswith(f'"{found.name}"')
    for address in declared.addresses.values():
        _, line, column = address.where.split(":")
        assert lines[int(line) - 1][int(column) - 1 :].startswith('"ip"')
    for found_front in declared.fronts:
        _, line, column = found_front.where.split(":")
        assert (
            '"proxy"' in lines[int(line) - 1] or f'"{found_front.service}"' in lines[int(line) - 1][int(column) - 1 :]
        )


def test_yaml_and_json_declare_the_same() -> None:
    """Also comments, anchors and dates at keys that are not read."""
    text = """\
network: {domain: example.org, since: 2024-01-01}  # a date
defaults: &container {enable: true, vmid: 7}
services:
  app:
    <<: *container
    ip: 10.0.0.5/24
    hostname: nas.example.org
    interface: {health: {startup: systemctl is-active app}}
"""
    declared = parse_manifest(text.encode(), "m.yaml", NODE, is_json=False)
    assert declared.problems == ()
    assert declared.domain == "example.org"
    assert declared.addresses == {"nas": DeclaredAddress("10.0.0.5", "the manifest", "m.yaml:6:5")}
    [found] = declared.services
    assert (found.name, found.machine, found.units, found.where) == ("app", "nas", ("app.service",), "m.yaml:4:3")


def test_several_services_share_a_machine() -> None:
    """It is one machine with one node exporter, and each service has its own exporters."""
    document = {
        "network": {"domain": "example.org"},
        "core_services": {"db": {"hostname": "NAS.example.org", "ip": "10.0.0.5"}},
        "services": {"app": {"hostname": "nas", "ip": "10.0.0.5/24"}, "solo": {}},
    }
    options = ManifestOptions(
        exporters={
            "db": [ManifestExporter(type="postgres")],
            "app": [ManifestExporter(type="app", port=8080, path="/m")],
        },
        default=NODE.default,
    )
    declared = read(document, options)
    assert declared.machines == (Machine(name="NAS"), Machine(name="solo"))
    found = [(e.machine.name, e.exporter.type, e.exporter.port, e.exporter.path, e.because) for e in declared.expected]
    assert found == [
        ("NAS", "postgres", 9187, "/metrics", "manifest: core_services.db"),
        ("NAS", "app", 8080, "/m", "manifest: services.app"),
        ("NAS", "node", 9100, "/metrics", "manifest: core_services.db"),
        ("solo", "node", 9100, "/metrics", "manifest: services.solo"),
    ]


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        ("10.0.0.5:8096", ("nas", 8096, "http", "", False)),
        ("nas:8096", ("nas", 8096, "http", "", False)),
        ("NAS.example.org:8096", ("nas", 8096, "http", "", False)),
        ("10.0.0.6:80", ("other", 80, "http", "", False)),
        ("http://127.0.0.1:8096", ("nas", 8096, "http", "", True)),
        ("localhost:8096/", ("nas", 8096, "http", "", True)),
        ("https://10.0.0.5", ("nas", 443, "https", "", False)),
        ("10.0.0.5", ("nas", 80, "http", "", False)),
        ("[2001:db8::7]:81", ("nas", 81, "http", "2001:db8::7", False)),
        ("elsewhere.example.net:81", ("nas", 81, "http", "elsewhere.example.net", False)),
        (8096, ("nas", 8096, "http", "", False)),
        (":8096", ("nas", 8096, "http", "", False)),
    ],
)
def test_upstream_leads_to_a_machine(upstream: object, expected: tuple[object, ...]) -> None:
    """By address, by name, by port, on loopback; a host of no machine stays a host."""
    document = proxied(upstream=upstream)
    document["network"] = {"domain": "example.org"}
    document["services"]["other"] = {"ip": "10.0.0.6"}
    [found] = read(document).fronts
    assert (found.machine, found.port, found.scheme, found.host, found.loopback) == expected


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        (None, "none"),
        (False, "none"),
        (True, "forward"),
        ("forward", "forward"),
        ({"type": "forward_auth", "forward_auth_upstream": "10.0.0.9:9000"}, "forward"),
        ("basic", "basic"),
        ("oidc", "oidc"),
        ({"type": "oidc", "oidc": {"redirect_uris": ["https://app.example.org/oauth2/callback"]}}, "oidc"),
        ({"type": "oidc", "oidc": {"redirect_uris": ["https://other.example.org/callback"]}}, "oidc"),
        ({"type": "oidc", "oidc": {"redirect_uris": ["https://app.example.org/login/callback"]}}, "none"),
    ],
)
def test_authentication_of_a_front(auth: object, expected: str) -> None:
    """A service that is the OIDC client itself logs in its users; else the proxy does."""
    assert front(auth=auth).auth == expected
    document = proxied()
    document["services"]["app"]["interface"]["auth"] = auth
    assert [found.auth for found in read(document).fronts] == [expected]


def test_authentication_of_an_unknown_type_is_never_none() -> None:
    assert front(auth={"provider": "authelia"}).auth == "forward"
    assert front(auth={}).auth == "none"


def test_authz_asks_the_auth_server() -> None:
    """The older form of `auth = "forward_auth"`."""
    assert front(authz=True, tls=True).auth == "forward"
    assert front(authz=False).auth == "none"


def test_named_proxies_inherit_what_only_a_proxy_can_do() -> None:
    """`oidc` of the service is its own login, `forward_auth` is not."""
    proxy = {"a": {"upstream": 1}, "b": {"domain": "b.example.org", "upstream": 2, "auth": False}}
    for type_, expected in (("forward_auth", ["forward", "none"]), ("oidc", ["none", "none"])):
        declared = read(service(interface={"auth": {"type": type_}, "proxy": proxy}))
        assert [found.auth for found in declared.fronts] == expected
        assert [found.domain for found in declared.fronts] == ["a", "b.example.org"]


def test_public_proxy_does_not_answer_for_one_that_cannot_be_read() -> None:
    proxy = {
        "public": {"domain": "a.example.org", "upstream": 1},
        "private": {"domain": "a.example.org", "path": "/admin", "upstream": 1, "extra_config": "import secure"},
    }
    declared = read(service(interface={"proxy": proxy}))
    served = served_fronts(declared.fronts, FrontSettings(kind="caddy"), (), frozenset(), declared.refused)
    assert [found.hidden for found in served.fronts] == [("/admin",)]


def test_extra_config_is_translated() -> None:
    """Headers to the service, and no buffering."""
    text = """
        # why
        header_up X-Forwarded-Ssl on
        header_up X-Name "a b"  # and why
        flush_interval -1
    """
    found = front(extra_config=text)
    assert found.headers == (("X-Forwarded-Ssl", "on"), ("X-Name", "a b"))
    assert found.unbuffered


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("}\nevil.example.org {\nrespond hi", "closes a brace that it does not open"),
        ("header_up A b }", "has a brace in the wrong place"),
        ("header {\n-Server", "opens a brace that it does not close"),
        ("header_up A b}", "has a brace inside a text"),
        ("header_up A {$SECRET}", "has a brace inside a text"),
        ("header_up A {env.SECRET}", "has a brace inside a text"),
        ("header_up A {http.auth.user.id}", "uses a placeholder of Caddy in a header"),
        ('header_up A "b', "has a quote that is never closed"),
        ('header_up A "b\n}\n"', "has a line break or a control character in quotes"),
        ("header_up A <<END\n}\nEND", "has a text of several lines"),
        ("header_up A b \\\n}", "has a text of several lines"),
        ("header_up -A", "holds a directive, which is not understood"),
        ("header_up +A b", "removes, adds or misspells a header"),
        ("header_up Authorization x", "sets a header that holds a secret"),
        ("reverse_proxy evil:80", "holds the directive `reverse_proxy`, which is not understood"),
        ("respond 200", "holds the directive `respond`, which is not understood"),
        ("@a path /x\nrespond @a 200", "holds a directive, which is not understood"),
        ("@a method OPTIONS\nrespond @a hello", "holds the directive `respond`, which is not understood"),
        ("import /etc/passwd", "holds the directive `import`, which is not understood"),
        ("forward_auth off {\nuri /\n}", "holds the directive `forward_auth`, which is not understood"),
        ("header " * 4000, "is too long"),
    ],
)
def test_extra_config_is_refused(text: str, why: str) -> None:
    """The front is left out, and the rest of the manifest is used."""
    declared = read(proxied(extra_config=text))
    assert declared.fronts == ()
    assert len(declared.expected) == 1
    [problem] = declared.problems
    assert problem.severity == "problem"
    assert problem.what == f"services.app.interface.proxy.extra_config: {why}: the front is left out"


@pytest.mark.parametrize(
    ("command", "units", "probes"),
    [
        ("systemctl is-active --quiet app", ["app.service"], []),
        ("systemctl -q is-active app.timer && systemctl is-active app@1", ["app.timer", "app@1.service"], []),
        ("/run/current-system/sw/bin/systemctl is-active app >/dev/null 2>&1 || exit 1", ["app.service"], []),
        ("curl -fsS http://127.0.0.1:9000/-/health/live/", [], ["http://127.0.0.1:9000/-/health/live/"]),
        ("curl -fsSm5 -o /dev/null localhost:8080/alive", [], ["http://localhost:8080/alive"]),
        ("curl --fail --max-time 5 'https://[::1]:8443/x?y=1&z=2'", [], ["https://[::1]:8443/x?y=1&z=2"]),
        ("systemctl is-active a && curl -X GET -f http://a/", ["a.service"], ["http://a/"]),
    ],
)
def test_health_check_is_understood(command: str, units: list[str], probes: list[str]) -> None:
    """Unit checks and plain requests, joined by &&."""
    declared = read(service(interface={"health": {"startup": command, "liveness": command}}))
    assert declared.problems == ()
    [found] = declared.services
    assert (list(found.units), list(found.probes)) == (units, probes)


@pytest.mark.parametrize(
    "command",
    [
        "touch RAN",
        "systemctl is-active a; touch RAN",
        "systemctl is-active a & touch RAN",
        "systemctl is-active a | touch RAN",
        "systemctl is-active a\ntouch RAN",
        "systemctl is-active $(touch RAN)",
        "systemctl is-active `touch RAN`",
        "systemctl restart a",
        "systemctl is-active",
        "systemctl is-active --user a",
        "systemctl is-active a && && systemctl is-active b",
        "systemctl is-active a &&",
        "systemctl is-active 'a",
        "curl",
        "curl -f $URL",
        "curl -f http://a/ http://b/",
        "curl -f http://a/ > RAN",
        "curl -f http://a/$RAN",
        "curl -f http://a/`RAN`",
        "curl -f http://a/ -m &",
        "curl -f http://a/ -m\nRAN",
        "curl -o RAN -X POST http://a/",
        "curl -d x http://a/",
        "curl -H 'X-Key: y' http://a/",
        "curl -u a:b http://a/",
        "curl -K file http://a/",
        "curl -f file:///etc/passwd",
        "curl -f http://a:99999/",
        "curl -f http://a:b@c/",
        "(curl -f http://a/)",
        "curl " * 1000,
    ],
)
def test_other_commands_are_reported_and_never_run(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text of the command is in no message."""
    monkeypatch.chdir(tmp_path)
    declared = read(service(interface={"health": {"liveness": command}}))
    assert [(found.units, found.probes) for found in declared.services] == [((), ())]
    [problem] = declared.problems
    assert problem.severity == "warning"
    assert "no command of a manifest is run" in problem.what
    assert "RAN" not in str(problem)
    assert list(tmp_path.iterdir()) == []


def mistakes() -> dict[str, tuple[str, list[str]]]:
    """Return the manifest and the expected messages of each mistake, by title."""
    found: dict[str, tuple[str, list[str]]] = {}
    for part in MISTAKES.read_text(encoding="utf-8").split("\n== ")[1:]:
        title, _, rest = part.partition("\n")
        lines = rest.splitlines()
        text = "".join(f"{line}\n" for line in lines if line and not line.startswith("=> "))
        found[title] = text, [line.removeprefix("=> ") for line in lines if line.startswith("=> ")]
    return found


@pytest.mark.parametrize("title", mistakes())
def test_mistake_has_its_message(title: str) -> None:
    """Where, what is wrong, and what to write."""
    text, expected = mistakes()[title]
    try:
        problems = parse_manifest(text.encode(), "m.yaml", NODE, is_json=False).problems
    except InputError as error:
        problems = error.problems
    assert [f"{problem.severity}: {problem}" for problem in problems] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "m.json: the service manifest is empty (write it with: nix eval"),
        ("{ services = {}; }", "m.json:1:3: is not valid JSON: a key is not in double quotes"),
        ('{"services": {"a": {"ip": "1', "m.json:1:27: is not valid JSON: a quote is never closed"),
        ('{"services": {"a": {}, "a": {}}}', "m.json:1:24: services.a: is given twice, first on line 1"),
        ('{"services": ' + "[" * 100_000, "m.json: is nested too deeply for a service manifest"),
        ('{"services": {"a": {"ip": "\\ud800"}}}', "services.a.ip: holds half of a surrogate pair"),
        ('{"n": 1' + "0" * 500 + "}", "m.json: is not valid JSON: a number or a key is too long"),
    ],
)
def test_text_that_is_no_manifest(text: str, expected: str) -> None:
    """The first message has the place."""
    with pytest.raises(InputError) as caught:
        parse_manifest(text.encode(), "m.json", NODE)
    assert expected in str(caught.value)


def test_latin1_is_refused_with_its_place() -> None:
    """At the first byte that is not UTF-8."""
    with pytest.raises(InputError, match=r"^m\.json:2:4: is not UTF-8"):
        parse_manifest(b'{\n  "\xe9": 1}', "m.json", NODE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["ip", "hostname", "proxy", "health", "interface", "services", "auth", "type", "startup", "upstream"]
            )
            | st.text(max_size=5),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)
FIELDS = ("ip", "hostname", "enable", "ports", "depends_on")
SERVICES = st.dictionaries(
    st.text(max_size=5),
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(FIELDS, JSON),
            "interface": st.fixed_dictionaries({}, optional=dict.fromkeys(("proxy", "auth", "health"), JSON)),
        },
    ),
    max_size=3,
)


@given(
    st.fixed_dictionaries({"services": SERVICES | JSON}, optional={"core_services": SERVICES, "network": JSON}) | JSON
)
def test_any_json_is_read_or_refused(document: object) -> None:
    """No other exception, whatever the values are."""
    try:
        read(document)
    except InputError:
        return


@given(st.text(alphabet=st.sampled_from("{}[]:,-&*<>|#'\" \n!%abservices:ip"), max_size=60))
def test_any_yaml_is_read_or_refused(text: str) -> None:
    """Also with a manifest around it."""
    for body in (text, f"services: {{a: {text}}}", f"services:\n  a:\n    ip: {text}\n"):
        try:
            parse_manifest(body.encode(), "m.yaml", NODE, is_json=False)
        except InputError:
            continue


@given(
    st.text(max_size=80)
    | st.lists(st.sampled_from(["header", "{", "}", "\n", '"', "a", "`", "\\", "#", " "])).map("".join)
)
@settings(max_examples=200)
def test_any_extra_config_is_understood_or_refused(text: str) -> None:
    """A front that is kept has only headers that are one line of text."""
    for found in read(proxied(extra_config=text)).fronts:
        assert all(name.isascii() and value.isprintable() for name, value in found.headers)


def test_billion_laughs_is_refused() -> None:
    """Aliases count as what they expand to."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(InputError, match="holds more than 500,000 values, aliases expanded"):
        parse_manifest("\n".join([*lines, "services: {}"]).encode(), "m.yaml", NODE, is_json=False)


CONFIG = """\
inventory:
  manifest:
    file: manifest.json
    exporters: {EXPORTERS}
output: {directory: out}
state: state
"""


def configured(directory: Path, document: object, exporters: str = "{}", name: str = "manifest.json") -> Path:
    """Write a manifest and a config, and return the config's path."""
    (directory / name).write_text(json.dumps(document, indent=1))
    (directory / "c.yaml").write_text(CONFIG.replace("{EXPORTERS}", exporters).replace("manifest.json", name))
    return directory / "c.yaml"


def problems_of(config: Path) -> list[str]:
    """Return the problems of a config that is refused."""
    with pytest.raises(InputError) as caught:
        make_plan(load_config(config))
    return [str(problem).replace(f"{config.parent}/", "") for problem in caught.value.problems]


def test_exporters_of_the_config(tmp_path: Path) -> None:
    """A type, a list, a mapping; an unknown service, type and a probe have messages with their places."""
    config = configured(tmp_path, service(), "{ap: node, app: [nope, blackbox, {type: jellyfin, port: 8096}]}")
    assert problems_of(config) == [
        "c.yaml:4:21: inventory.manifest.exporters.ap: the manifest has no service of this name (did you mean 'app'?)",
        "c.yaml:4:33: inventory.manifest.exporters.app.0: unknown type 'nope' without a port (did you mean 'node'?)",
        (
            "c.yaml:4:39: inventory.manifest.exporters.app.1: blackbox probes others: it serves nothing without a "
            "`target` setting (add `params: {target: ...}`)"
        ),
    ]


def test_two_exporters_on_one_port_are_refused(tmp_path: Path) -> None:
    """Of two services, or of one."""
    config = configured(tmp_path, service(), "{app: [{type: a, port: 9100}, {type: b, port: 9100}]}")
    assert problems_of(config)[0] == (
        "c.yaml:4:46: inventory.manifest.exporters.app.1: port 9100 of nas serves a (manifest: services.app) and b "
        "(correct one of them)"
    )


def test_metrics_by_the_admin_api_are_a_problem(tmp_path: Path, run: Run) -> None:
    """It is the default port of the type caddy, so a target is easily there by mistake."""
    config = configured(tmp_path, service(), "{app: caddy}")
    done = run("check", "-c", config)
    assert done.code == 2
    assert "the target caddy on nas is Caddy's admin API, port 2019" in done.err
    assert run("refresh", "-c", config).code == 0
    assert run("check", "-c", configured(tmp_path, service(), "{app: [{type: caddy, port: 9180}]}")).code == 0


def test_settings_of_the_type_are_kept(tmp_path: Path) -> None:
    """`exporters` of the config are the defaults of the exporters of a service."""
    config = configured(tmp_path, service(), "{app: [{type: redis, labels: {site: home}}]}")
    config.write_text(f"{config.read_text()}exporters: {{redis: {{port: 9999, path: /m, labels: {{rack: a}}}}}}\n")
    found = [e.exporter for e in make_plan(load_config(config)).declared.expected if e.exporter.type == "redis"]
    assert [(e.port, e.path, e.labels) for e in found] == [(9999, "/m", (("rack", "a"), ("site", "home")))]


def test_disabled_service_is_excluded_with_its_exporters(tmp_path: Path, run: Run) -> None:
    """`explain` names the reason and the place in the manifest."""
    document = service()
    document["services"]["mail"] = {
        "enable": False,
        "interface": {"proxy": {"upstream": 80}, "health": {"startup": "x"}},
    }
    config = configured(tmp_path, document, "{mail: [postfix]}")
    declared = make_plan(load_config(config)).declared
    assert [(e.name, e.reason, e.job) for e in declared.excluded] == [("mail", "disabled", "postfix")]
    assert declared.fronts == ()
    assert declared.problems == ()
    assert [machine.name for machine in declared.machines] == ["nas"]
    assert "manifest: services.mail has enable = false" in run("explain", "mail", "-c", config).out


def test_nix_file_names_the_command(tmp_path: Path) -> None:
    """Nix is never evaluated here."""
    config = configured(tmp_path, {}, name="service-manifest.nix")
    assert problems_of(config) == [
        (
            "service-manifest.nix: is Nix, which is never evaluated here (run `nix eval --json -f service-manifest.nix "
            "> service-manifest.json`, and name the JSON here)"
        )
    ]


def test_missing_manifest_names_the_command(tmp_path: Path) -> None:
    """As does a directory."""
    config = configured(tmp_path, {})
    (tmp_path / "manifest.json").unlink()
    assert problems_of(config) == [
        (
            "manifest.json: cannot read the service manifest: No such file or directory (write it with: nix eval "
            "--json -f service-manifest.nix > service-manifest.json)"
        )
    ]


def test_manifest_is_watched(tmp_path: Path) -> None:
    """So that `run` reads it again when it changes."""
    config = configured(tmp_path, service())
    assert watched_files(load_config(config)) == ((tmp_path / "manifest.json", "manifest"),)


def test_manifest_and_clan_are_merged(tmp_path: Path, run: Run) -> None:
    """The same machine in both has the tags of one and the address of the other; different addresses are an error."""
    machines = {"nas": {"tags": ["storage"]}}
    (tmp_path / "inventory.json").write_text(json.dumps({"machines": machines, "instances": {}, "meta": {"name": "x"}}))
    config = configured(tmp_path, service(hostname="NAS"))
    config.write_text(config.read_text().replace("inventory:\n", "inventory:\n  file: inventory.json\n"))
    declared = make_plan(load_config(config)).declared
    assert "storage" in declared.machines[0].tags
    assert (declared.machines[0].name, declared.addresses["nas"].host) == ("nas", "10.0.0.5")
    assert run("show", "-c", config).code in (0, 3)


def test_domain_twice_names_both_places(tmp_path: Path) -> None:
    """Two services cannot have one front."""
    document = proxied()
    document["services"]["two"] = {"interface": {"proxy": {"domain": "APP.example.org", "upstream": 81}}}
    [problem] = problems_of(configured(tmp_path, document))
    assert "the front APP.example.org leads to http://nas:8080 and to http://two:81" in problem
    assert problem.startswith("manifest.json:15:5: ")
    assert "manifest.json:7:5" in problem


MARK = "M4RKED"


def secretive() -> dict[str, Any]:
    """Return a manifest with a marked secret in every place where people keep some."""
    health = {"startup": f"curl -H 'Authorization: {MARK}' http://a/", "liveness": f"curl -u a:{MARK} http://a/"}
    proxy = {
        "a": {"upstream": 1, "auth": {"type": "forward_auth", "client_secret": MARK}, "password": MARK},
        "b": {"upstream": f"http://user:{MARK}@10.0.0.5:8080"},
        "c": {"upstream": 2, "extra_config": f"basic_auth {{\nbob {MARK}\n}}"},
        "d": {"upstream": 3, "extra_config": f'header_up X-Api-Key "{MARK}"'},
        "e": {"upstream": 4, "auth": MARK},
    }
    interface = {"proxy": proxy, "health": health, "db": {"password": MARK}, "auth": {"oidc": {"secret": MARK}}}
    return {
        "network": {"ssh_keys": [MARK], "shared_secret": MARK},
        "services": {"app": {"ip": "10.0.0.5", "interface": interface, "env": {"TOKEN": MARK}}},
        "root_password": MARK,
    }


@pytest.mark.parametrize(
    "words",
    [
        ["check"],
        ["show", "--format", "json"],
        ["show", "--format", "nix"],
        ["show", "--format", "caddy"],
        ["show", "--by", "front"],
        ["inventory"],
        ["explain", "app"],
        ["explain", "app", "--format", "json"],
        ["refresh"],
        ["doctor"],
    ],
    ids=" ".join,
)
def test_no_output_holds_a_secret(tmp_path: Path, run: Run, words: list[str]) -> None:
    """Nor does any file that is written."""
    config = configured(tmp_path, secretive())
    done = run(*words, "-c", config)
    assert done.code in (0, 2)
    assert MARK not in done.out + done.err
    written = [file for file in tmp_path.rglob("*") if file.is_file() and file.name != "manifest.json"]
    assert all(MARK not in file.read_text() for file in written)


def mutated(value: Json, index: list[int]) -> Json:
    """Return a value with its nth part replaced by a list of it, so that types are wrong everywhere in turn."""
    index[0] -= 1
    if index[0] == 0:
        return [value]
    if isinstance(value, Mapping):
        return {key: mutated(part, index) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [mutated(part, index) for part in value]
    return value


def test_no_message_about_a_broken_manifest_holds_a_secret() -> None:
    """Cut anywhere, a quote lost, or a value of the wrong type, as JSON and as YAML."""
    text = json.dumps(secretive())
    broken = [text[:cut] for cut in range(0, len(text), 7)]
    broken += [text[:cut] + text[cut + 1 :] for cut, character in enumerate(text) if character in '"{}[],:']
    broken += [json.dumps(mutated(secretive(), [n])) for n in range(1, 60)]
    for body in broken:
        for is_json in (True, False):
            try:
                problems = parse_manifest(body.encode(), "m", NODE, is_json=is_json).problems
            except InputError as error:
                problems = error.problems
            assert MARK not in "\n".join(map(str, problems)), body
