"""Turn pydantic's errors into messages: what is wrong with a config value, and what to write instead.

Imported only where a config is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Final

from clan_discovery.config.models import config_schema
from clan_discovery.syntax.counting import first_names
from clan_discovery.syntax.endpoint import MAX_PORT
from clan_discovery.syntax.limits import UNKNOWN_LIMIT
from clan_discovery.syntax.secret import HIDDEN, hide_in_urls, holds_secret
from clan_discovery.syntax.suggest import did_you_mean
from clan_discovery.syntax.yaml_text import yaml_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic_core import ErrorDetails

    from clan_discovery.config.models import Config
    from clan_discovery.model import Json

_Path = tuple[str | int, ...]
_Words = tuple[str, str | None]
"""What is wrong, and what to do."""

_SHOWN: Final = 60
_KEYS_MOST: Final = 20
_HOMES_MOST: Final = 3
_REMOVE: Final = "remove it"
_NUMBER_ERRORS: Final = frozenset(
    {"int_type", "int_parsing", "int_from_float", "greater_than_equal", "less_than_equal"}
)
_FRACTION_ERRORS: Final = frozenset({"float_type", "greater_than_equal", "less_than_equal"})


def in_words(detail: ErrorDetails, path: _Path, model: type[Config]) -> _Words:
    """Return a message and a hint for one of pydantic's errors; secrets are not shown."""
    what, hint = _plain_words(detail, path, model)
    given: Json = detail["input"]
    if (holds_secret(path) or path[-1:] == ("basic_auth",)) and detail["type"] != "extra_forbidden":
        return what.replace(_given(given), HIDDEN).replace(repr(given), HIDDEN), None
    if isinstance(given, list | dict):  # there may be secrets in it
        what = what.replace(repr(given), _given(given))
    return what, hint


def _invalid_port(given: Json) -> _Words:
    hint = None
    if isinstance(given, str):
        hint = "write the number without quotes"
    return f"invalid port {_given(given)}: must be 1 to {MAX_PORT}", hint


def _is_port(path: _Path) -> bool:
    return path[-1:] == ("port",) or path[:-1] == ("front", "ports")


def _plain_words(detail: ErrorDetails, path: _Path, model: type[Config]) -> _Words:
    given: Json = detail["input"]
    type_ = detail["type"]
    if type_ in _NUMBER_ERRORS and _is_port(path):
        return _invalid_port(given)
    if type_ in _FRACTION_ERRORS and path[-1:] == ("max_shrink",):
        return f"{_given(given)} is not a fraction: must be a number from 0 to 1", _fraction_hint(given)
    match type_:
        case "extra_forbidden":
            return _unknown_key(path, model)
        case "missing":
            return "is missing", f"add `{path[-1]}`"
        case "value_error":
            return detail["msg"].removeprefix("Value error, "), _colon_hint(path)
        case "literal_error":
            return _not_one_of(given, str(detail.get("ctx", {}).get("expected", "")))
        case "dict_type" | "model_type" | "model_attributes_type":
            return _not_a_mapping(given, path, model)
        case "list_type" | "too_short":
            return _not_such_a_list(given, path)
        case _:
            return _not_a_scalar(detail)


def _not_such_a_list(given: Json, path: _Path) -> _Words:
    if isinstance(given, list):
        return "is an empty list", "write at least one"
    return f"must be a list, not {_given(given)}", _list_hint(given, path)


def _not_a_scalar(detail: ErrorDetails) -> _Words:
    given: Json = detail["input"]
    limits = detail.get("ctx", {})
    match detail["type"]:
        case "string_type":
            return f"must be a string, not {_given(given)}", _string_hint(given)
        case "path_type":
            return f"must be a path, not {_given(given)}", _string_hint(given)
        case "bool_type":
            return f"must be true or false, not {_given(given)}", "write true or false, without quotes"
        case "int_type" | "int_from_float":
            return f"must be a whole number, not {_given(given)}", "write digits alone, without quotes or a unit"
        case "float_type" | "finite_number":
            return f"must be a number, not {_given(given)}", "write digits alone, without quotes or a unit"
        case "greater_than_equal":
            return f"must be at least {limits.get('ge'):g}, not {_given(given)}", "write a larger number"
        case "less_than_equal":
            return f"must be at most {limits.get('le'):g}, not {_given(given)}", "write a smaller number"
        case "string_pattern_mismatch":
            return f"invalid size {_given(given)}", "write a size such as 512KB, 10MB or 1GiB"
        case _:
            return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, not {_given(given)}", None


def _fraction_hint(given: Json) -> str:
    number = str(given).strip().removesuffix("%").strip()
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", number) is None:
        return "write 0.5 for half of the machines"
    fraction = float(number)
    if fraction > 1 or "%" in str(given):
        fraction /= 100
    if fraction > 1:
        return "write 1 to hold no loss"
    return f"write {fraction:g}, without quotes"


def _string_hint(given: Json) -> str:
    match given:
        case None:
            return "write it after the colon, or remove the key"
        case list() | dict():
            return "write one text"
        case _:
            return "put it in quotes"


def _not_one_of(given: Json, expected: str) -> _Words:
    hint = None
    if isinstance(given, bool):
        hint = "YAML reads yes, no, on and off as true and false"
    elif isinstance(given, str):
        hint = did_you_mean(given[:_SHOWN], re.findall("'([^']*)'", expected))
    return f"{_given(given)} is not one of {expected}", hint


def _colon_hint(path: _Path) -> str | None:
    """Say what is wrong with the key `a:b`, which YAML reads as one word."""
    if path and re.fullmatch(r"\w+:\S+", str(path[-1])):
        return f"write a space after the colon: `{str(path[-1])[:_SHOWN].replace(':', ': ', 1)}`"
    return None


_EXAMPLES: Final[Mapping[tuple[str, ...], str]] = {
    ("inventory",): "inventory: {file: inventory.json}",
    ("inventory", "manifest"): "manifest: {file: service-manifest.json}",
    ("inventory", "manifest", "exporters"): "exporters: {postgresql: [postgres]}",
    ("inventory", "manifest", "exporters", "*"): "[{type: postgres, port: 9187}]",
    ("inventory", "manifest", "exporters", "*", "*"): "{type: postgres, port: 9187}",
    ("output",): "output: {directory: /var/lib/clan-discovery/targets}",
    ("policy",): "policy: {max_age: 24h}",
    ("policy", "shrink_after"): "shrink_after: {rounds: 10}",
    ("policy", "offline_tags"): "offline_tags: {roaming: drop}",
    ("policy", "roaming_tags"): "roaming_tags: [roaming, laptop]",
    ("limits",): "limits: {default: {disk_percent: 85}}",
    ("limits", "default"): "default: {disk_percent: 85}",
    ("limits", "tags"): "tags: {storage: {disk_percent: 95}}",
    ("limits", "machines"): "machines: {nas: {cpu_percent: 99}}",
    ("limits", "*", "*"): "{disk_percent: 95}",
    ("units",): "units: {machines: {db: [postgresql.service]}}",
    ("units", "tags"): "tags: {web: [nginx.service]}",
    ("units", "machines"): "machines: {db: [postgresql.service]}",
    ("needs",): "needs: {web: [db]}",
    ("labels",): "labels: {site: home}",
    ("exporters",): "exporters: {node: {}}",
    ("exporters", "*"): "{port: 9100}",
    ("exporters", "*", "labels"): "labels: {site: home}",
    ("exporters", "*", "params"): "params: {module: http_2xx}",
    ("exporters", "*", "select"): "select: {}` for every machine of the tailnet, or `select: {tags: [server]}",
    ("exporters", "*", "select", "tags"): "tags: [server]",
    ("jobs",): "jobs: {node: {scrape_interval: 30s}}",
    ("jobs", "*"): "{scrape_interval: 30s}",
    ("jobs", "*", "basic_auth"): "basic_auth: {username: prometheus, password_file: /run/secrets/scrape}",
    ("jobs", "*", "authorization"): "authorization: {credentials_file: /run/secrets/token}",
    ("jobs", "*", "params"): "params: {module: [http_2xx]}",
    ("jobs", "*", "tls_config"): "tls_config: {ca_file: /etc/ssl/clan-ca.pem}",
    ("verify",): "verify: {scrapers: {prometheus: {url: http://127.0.0.1:9090}}}",
    ("verify", "scrapers"): "scrapers: {prometheus: {url: http://127.0.0.1:9090}}",
    ("verify", "rules"): "rules: {alerts: {url: http://127.0.0.1:9090, files: [alerts.rules.yml]}}",
    ("verify", "rules", "*"): "{url: http://127.0.0.1:9090, files: [alerts.rules.yml]}",
    ("verify", "*"): "{main: {url: http://127.0.0.1:9093}}",
    ("verify", "*", "*"): "{url: http://127.0.0.1:9090}",
    ("verify", "*", "*", "basic_auth"): "basic_auth: {username: verify, password_file: /run/secrets/verify}",
    ("front",): "front: {kind: caddy, domain: home.example.org}",
    ("front", "auth"): "auth: {basic: {file: /run/secrets/front-users}}",
    ("front", "auth", "basic"): "basic: {file: /run/secrets/front-users}",
    ("front", "auth", "forward"): "forward: {url: http://127.0.0.1:9091/api/authz/forward-auth}",
    ("front", "auth", "oidc"): "oidc: {url: http://127.0.0.1:4180}",
    ("front", "ports"): "ports: {http: 80, https: 443}",
    ("front", "tls"): "tls: {certificate: FILE, key: FILE}`, or one of `internal`, `acme` and `off",
    ("inventory", "compose"): "compose: {nas: {files: [compose.yaml]}}",
    ("inventory", "compose", "*"): "{files: [compose.yaml]}",
    ("backends",): "backends: {tailscale: {tailnet: {}}}",
    ("backends", "tailscale"): "tailscale: {tailnet: {}}",
    ("backends", "dns"): "dns: {lan: {domain: lan.example.org}}",
    ("backends", "static"): 'static: {lab: {targets: {node: ["10.0.0.5:9100"]}}}',
    ("backends", "static", "*"): '{targets: {node: ["10.0.0.5:9100"]}}',
    ("backends", "static", "*", "targets"): 'targets: {node: ["10.0.0.5:9100"]}',
    ("backends", "static", "*", "machines"): "machines: {nas: 10.0.0.7}",
}
"""What to write if a mapping is expected, by path. A star is a name that the user chose."""


def _not_a_mapping(given: Json, path: _Path, model: type[Config]) -> _Words:
    if given is None:
        return "is empty", "write {} for the defaults, or remove it"
    return f"must be a mapping, not {_given(given)}", _mapping_hint(given, path, model)


def _mapping_hint(given: Json, path: _Path, model: type[Config]) -> str:
    match path, given:
        case (), str():
            return _root_hint(given, model)
        case (), _:
            return "write `key: value` on each line, without a dash"
        case ("inventory",), str():
            key = "flake" if _is_flake(given) else "file"
            return f"write `inventory: {{{key}: {_yaml(given)}}}`"
        case ("output",), str():
            return f"write `output: {{directory: {_yaml(given)}}}`"
        case ("exporters", type_), int() if not isinstance(given, bool):
            return f"write `{type_}: {{port: {given}}}`"
        case ("policy", "shrink_after"), int() if not isinstance(given, bool):
            return f"write `shrink_after: {{rounds: {given}}}`, or a time such as 10m"
        case ("verify", _, "url"), _:
            return "programs have names: write `{NAME: {url: ...}}`"
        case ("verify", _, str(name)), str():
            return f"write `{name}: {{url: {_yaml(given)}}}`"
        case ("backends", kind, setting) | ("inventory", "compose" as kind, setting), _ if setting in _keys_at(
            (*path[:2], "*"), model
        ):
            return _nameless_hint(kind, setting)
        case _:
            return f"write `{_example(path, model)}`"


def _example(path: _Path, model: type[Config]) -> str:
    for pattern, example in _EXAMPLES.items():
        if len(pattern) == len(path) and all(one in ("*", part) for one, part in zip(pattern, path, strict=True)):
            return example
    keys = first_names([f"{key}: ..." for key in _keys_at(path, model)], 3)
    return f"{path[-1]}: {{{keys or 'name: ...'}}}"


def _root_hint(given: str, model: type[Config]) -> str:
    key, colon, value = given.partition(":")
    if colon and key in _keys_at((), model):
        return f"write a space after the colon: `{key}: {_yaml(value)}`"
    return "write `key: value` on each line; `clan-discovery schema config` has the keys"


def _nameless_hint(kind: str | int, setting: str | int) -> str:
    """Say that the settings of a backend or of a machine's Compose files are below its name."""
    if kind == "compose":
        return f"name the machine: `compose: {{nas: {{{setting}: ...}}}}`"
    return f"backends have names: write `backends: {{{kind}: {{NAME: {{{setting}: ...}}}}}}`"


def _is_flake(reference: str) -> bool:
    if reference.endswith((".json", ".yaml", ".yml")):
        return False
    return reference.startswith((".", "/")) or ":" in reference


def _list_hint(given: Json, path: _Path) -> str:
    match given:
        case str():
            return f"write `{path[-1]}: [{_yaml(given)}]`"
        case None:
            return "write [] for an empty list, or remove it"
        case dict():
            return "write each entry on a line that begins with `- `, or all of them in [ ]"
        case _:
            return f"write `{path[-1]}: [{_given(given)}]`"


_SECRETS: Final[Mapping[str, str]] = {
    "password": "password_file",
    "credentials": "credentials_file",
    "client_secret": "client_secret_file",
    "secrets": "files",
    "key": "key_file",
    "bearer_token": "authorization: {credentials_file: ...}",
}
"""Keys of a scrape config that hold a secret, and the keys that name a file instead."""
_PROGRAM_SECRETS: Final[Mapping[str, str]] = {
    "password": "basic_auth: {username: ..., password_file: ...}",
    "bearer_token": "bearer_token_file",
    "token": "bearer_token_file",
}
"""Keys of secrets below `verify`, and what names a file instead."""
_INSTEAD: Final[Mapping[str, tuple[str, ...]]] = {
    "metrics_path": ("path",),
    "path": ("file", "directory", "metrics_path"),
    "ca": ("ca_file",),
    "cert": ("cert_file",),
    "dir": ("directory",),
    "interval": ("scrape_interval",),
    "bearer_token_file": ("authorization",),
}
"""Keys of other programs, and our keys of the same meaning."""
_OPTIONS: Final[Mapping[str, str]] = {
    "interval": "run --interval",
    "listen": "run --metrics-listen",
    "metrics": "run --metrics-listen",
    "metrics_listen": "run --metrics-listen",
    "metrics_file": "run --metrics-file",
    "log_format": "run --log-format",
    "log_level": "run --log-level",
}
"""Settings that are options of a command."""
_OF_PROMETHEUS: Final = frozenset({"scrape_configs", "scrape_config_files", "global", "rule_files", "alerting"})
_OF_PROMETHEUS_HINT: Final = "this is a key of prometheus.yml; scrape settings of an exporter type go below `jobs.TYPE`"


def _unknown_key(path: _Path, model: type[Config]) -> _Words:
    """Say what is wrong with a key: refused with a reason, misspelt, or in the wrong place."""
    key, known = str(path[-1]), _keys_at(path[:-1], model)
    if path[0] == "jobs" and (refused := _refused_in_job(key)):
        return refused
    if path[0] == "verify" and key in _PROGRAM_SECRETS:
        what = "is a secret, and everybody who reads the config would know it"
        return what, f"put it in a file that only clan-discovery can read, and write `{_PROGRAM_SECRETS[key]}`"
    if path[0] == "limits" and "disk_percent" in known:
        return UNKNOWN_LIMIT, did_you_mean(key, known) or f"known here: {first_names(known, _KEYS_MOST)}"
    return "unknown key", _key_hint(path, key, known, model)


def _refused_in_job(key: str) -> _Words | None:
    if key == "job_name":
        return "cannot be set: the name of the job is its exporter type", _REMOVE
    if key == "static_configs" or key.endswith("_sd_configs"):
        what = "cannot be set: the targets of this job are those of its target file"
        return what, "remove it; for more targets, use `backends.static`, or a job of your own in prometheus.yml"
    if key in _SECRETS:
        what = "is a secret, and everybody who reads the config would know it"
        return what, f"put it in a file that only Prometheus can read, and write `{_SECRETS[key]}`"
    return None


def _key_hint(path: _Path, key: str, known: Sequence[str], model: type[Config]) -> str:
    first = re.split(r"[\s{:]", key, maxsplit=1)[0]
    if first != key and first in known:
        return f"write a colon and a space after `{first}`"
    for instead in _INSTEAD.get(key, ()):
        if instead in known:
            return f"write `{instead}`"
    if len(path) == 1 and key in _keys_at(("backends",), model):
        return f"write `backends: {{{key}: ...}}`"
    if path[0] == "backends" and len(path) == 4 and path[2] in known:
        return _nameless_hint(path[1], path[2])
    return did_you_mean(key, known) or _home_hint(path, key, known, model)


def _home_hint(path: _Path, key: str, known: Sequence[str], model: type[Config]) -> str:
    """Say where in the config this key is valid, or which keys are valid here."""
    if len(path) == 1 and key in _OF_PROMETHEUS:
        return _OF_PROMETHEUS_HINT
    if len(path) == 1 and key in _OPTIONS:
        return f"it is an option of the command: clan-discovery {_OPTIONS[key]}"
    if homes := list(_homes(key, _schema(model), model)):
        return f"it belongs below {first_names(homes, _HOMES_MOST)}"
    return f"known here: {first_names(known, _KEYS_MOST)}"


def _given(value: Json) -> str:
    """Write a wrong value as the file has it, not as Python does."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case str():
            return repr(_cut(value))
        case _:
            return str(value)[:_SHOWN]


def _cut(text: str) -> str:
    text = hide_in_urls(text[:1000])
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _yaml(text: str) -> str:
    return yaml_text(_cut(text.strip()))


def _keys_at(path: Sequence[str | int], model: type[Config]) -> list[str]:
    """Return the keys that are valid at this path, from the JSON Schema of the config."""
    schema = _schema(model)
    definitions = _mapping(schema.get("$defs"))
    nodes = [schema]
    for part in path:
        nodes = [shape for node in nodes for shape in _shapes(_child(node, str(part)), definitions)]
    keys = {key for node in nodes for key in _mapping(node.get("properties"))}
    if path == ("backends",):
        from clan_discovery.config.kinds import added_kinds  # noqa: PLC0415 - it reads every installed distribution

        keys.update(added_kinds(keys))
    return sorted(keys)


def _homes(key: str, schema: Mapping[str, Json], model: type[Config], above: str = "") -> Iterator[str]:
    """Yield the paths below which a key is valid, such as `backends.dns.NAME`."""
    definitions = _mapping(_schema(model).get("$defs"))
    for shape in _shapes(schema, definitions):
        properties = _mapping(shape.get("properties"))
        if key in properties and above:
            yield f"`{above}`"
        for name, child in properties.items():
            yield from _homes(key, _mapping(child), model, f"{above}.{name}".removeprefix("."))
        if isinstance(shape.get("additionalProperties"), Mapping):
            yield from _homes(key, _mapping(shape["additionalProperties"]), model, f"{above}.NAME")


@cache
def _schema(model: type[Config]) -> Mapping[str, Json]:
    return config_schema(model)


def _child(node: Mapping[str, Json], part: str) -> Json:
    """Return the schema of a property, of any other key, or of an item."""
    return _mapping(node.get("properties")).get(part) or node.get("additionalProperties") or node.get("items")


def _shapes(schema: Json, definitions: Mapping[str, Json]) -> Iterator[Mapping[str, Json]]:
    """Yield a schema with each of its alternatives, references resolved."""
    node = _mapping(schema)
    yield node
    reference, alternatives = node.get("$ref"), node.get("anyOf")
    if isinstance(reference, str):
        yield from _shapes(definitions[reference.rpartition("/")[2]], definitions)
    if isinstance(alternatives, list):
        for alternative in alternatives:
            yield from _shapes(alternative, definitions)


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}
