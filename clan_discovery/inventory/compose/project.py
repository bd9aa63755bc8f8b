"""Load a Compose project: its files, the files that they extend or include, and its variables. Pure.

What is merged stays in layers, the base first, because each field of a service is merged in a way of its own.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from clan_discovery.errors import refuse
from clan_discovery.inventory.compose import ENV_FILE
from clan_discovery.inventory.compose.variables import Expanded, ExpansionError, expand, parse_env
from clan_discovery.model import Problem, Severity, one_line
from clan_discovery.syntax.document import decoded
from clan_discovery.syntax.nodes import YamlPart, parse_parts
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

Read: TypeAlias = Callable[[str, str], bytes | None]
"""Returns the content of a file by its path and what it is (for messages); None if there is no such file."""

_MAX_VALUES: Final = 500_000
_MAX_FILES: Final = 1000
_MAX_NESTED: Final = 20
_NOT_IN_NAMES: Final = re.compile("[^a-z0-9_-]")
_FILE: Final = "Compose file"
_SET_IT: Final = "set it in the env file, or write ${NAME:-default}"


class ComposeProject(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a project, as in `docker compose -f a -f b --env-file c --profile d`. The paths are absolute.

    Without `env_files`, `.env` beside the first file is read, if it is there.
    """

    files: tuple[str, ...]
    env_files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()


class Layer(msgspec.Struct, frozen=True, gc=False):
    """What one file says of a service or a network, and the variables of that file."""

    fields: Mapping[str, YamlPart]
    variables: Mapping[str, str]


class ComposeFindings(msgspec.Struct, frozen=True):
    """Collects problems, each once."""

    problems: dict[Problem, None] = msgspec.field(default_factory=dict["Problem", "None"])

    def add(self, where: str, what: str, hint: str | None = None, severity: Severity = "error") -> None:
        """Add a problem."""
        self.problems[Problem(where=where, what=what, hint=hint, severity=severity)] = None

    def refuse_unset(self, where: str, name: str, variable: str) -> None:
        """Add an error: a setting cannot be empty, and its variable is not set."""
        self.add(where, f"{name}: the variable {variable} is not set", _SET_IT)

    def warn_of_unset(self, part: YamlPart, names: Sequence[str]) -> None:
        """Warn about variables without a value, which Compose replaces by nothing."""
        for name in names:
            what = f"the variable {name} is not set: it is empty here"
            self.add(part.where, what, "set it in the env file, or write ${" + name + ":-default}", "warning")


class Fields(msgspec.Struct, frozen=True, gc=False):
    """The layers of a service or a network, and readers for what several kinds of fields share."""

    layers: Sequence[Layer]
    findings: ComposeFindings

    def parts(self, name: str) -> list[tuple[YamlPart, Mapping[str, str]]]:
        """Return what each layer says of a field, with its variables; `!reset` and `!override` drop the earlier."""
        found: list[tuple[YamlPart, Mapping[str, str]]] = []
        for layer in self.layers:
            part = layer.fields.get(name)
            if part is None:
                continue
            if part.tag in ("!reset", "!override"):
                found.clear()
            if part.tag != "!reset" and not part.is_null:
                found.append((part, layer.variables))
        return found

    def expanded(self, part: YamlPart, variables: Mapping[str, str]) -> Expanded:
        """Return the text of a value with its variables expanded; if that fails, report it and return nothing."""
        text = part.text or ""
        try:
            return expand(text, variables)
        except ExpansionError as error:
            self.findings.add(part.where, error.what, error.hint)
        return Expanded("")

    def value(self, part: YamlPart, variables: Mapping[str, str]) -> str:
        """Return the expanded text of a value, and warn about variables that are not set."""
        expanded = self.expanded(part, variables)
        if expanded.unset:
            self.findings.warn_of_unset(part, expanded.unset)
        return expanded.text

    def scalar(self, name: str) -> str:
        """Return the text of a field: the last layer counts. Empty if there is none."""
        parts = self.parts(name)
        if not parts:
            return ""
        return self.value(*parts[-1])

    def keys(self, name: str) -> dict[str, YamlPart]:
        """Return a field that is a list of names or a mapping, as a mapping of all layers. Later layers win."""
        found: dict[str, YamlPart] = {}
        for part, variables in self.parts(name):
            if part.is_mapping:
                found |= part.pairs()
            elif part.is_list:
                found |= {self.value(item, variables): item for item in part.items()}
            else:
                found[self.value(part, variables)] = part
        return found


class Project(msgspec.Struct, frozen=True):
    """A loaded project: the layers of its services and networks, and the places of its services, by name."""

    name: str
    services: Mapping[str, Fields]
    places: Mapping[str, YamlPart]
    networks: Mapping[str, Fields]
    profiles: frozenset[str]


class _File(msgspec.Struct, frozen=True):
    """A parsed file; `services` and `networks` are its sections."""

    path: str
    top: Mapping[str, YamlPart]
    services: Mapping[str, YamlPart]
    networks: Mapping[str, YamlPart]


def load_project(given: ComposeProject, read: Read, findings: ComposeFindings) -> Project:
    """Load the files of a project.

    Raises:
        InputError: a file is missing, does not parse or has the wrong shape, or files extend each other in a circle.
    """
    loader = _Loader(read, findings)
    directory = posixpath.dirname(given.files[0])
    variables = loader.variables(given.env_files, directory)
    loader.load(given.files, variables, 0)
    if not loader.services:
        refuse(given.files[0], "declares no services", "is this a Compose file? `services` is missing or empty")
    profiles = given.profiles or tuple(variables.get("COMPOSE_PROFILES", "").split(","))
    name = variables.get("COMPOSE_PROJECT_NAME") or loader.name or posixpath.basename(directory)
    return Project(
        name=_NOT_IN_NAMES.sub("", name.lower()).lstrip("_-"),
        services={name: Fields(layers, findings) for name, layers in loader.services.items()},
        places=loader.places,
        networks={name: Fields(layers, findings) for name, layers in loader.networks.items()},
        profiles=frozenset(profile.strip() for profile in profiles if profile.strip()),
    )


class _Loader:
    """Reads files, each once, and collects the layers of services and networks."""

    def __init__(self, read: Read, findings: ComposeFindings) -> None:
        self._read = read
        self._findings = findings
        self._files: dict[str, _File] = {}
        self._loaded = 0
        self.name = ""
        self.services: dict[str, list[Layer]] = {}
        self.places: dict[str, YamlPart] = {}
        self.networks: dict[str, list[Layer]] = {}

    def variables(self, env_files: Sequence[str], directory: str) -> dict[str, str]:
        """Return the variables of the given env files, or of `.env` in the directory."""
        found: dict[str, str] = {}
        for path in env_files:
            found |= parse_env(self._text(path, ENV_FILE, path), one_line(path))
        if not env_files:
            path = posixpath.join(directory, ".env")
            body = self._read(path, ENV_FILE)
            if body is not None:
                found = parse_env(decoded(body, one_line(path)), one_line(path))
        return found

    def load(self, paths: Sequence[str], variables: Mapping[str, str], depth: int, where: str = "") -> None:
        """Load files in this order, each after those that it includes. `where` is the place that names them."""
        for path in paths:
            # A file counts each time it is included: files that include each other in many ways would take for ever.
            self._loaded += 1
            if self._loaded > _MAX_FILES:
                refuse(where or one_line(path), f"more than {_MAX_FILES:,} files are included", "include each once")
            file = self._file(path, where or one_line(path))
            self._include(file, variables, depth)
            fields = Fields((Layer(file.top, variables),), self._findings)
            if not depth:
                self.name = fields.scalar("name") or self.name
            for name, part in file.services.items():
                self.places.setdefault(name, part)
                self.services.setdefault(name, []).extend(self._layers(file, name, variables, ()))
            for name, part in file.networks.items():
                self.networks.setdefault(name, []).append(Layer(part.pairs(), variables))

    def _include(self, file: _File, variables: Mapping[str, str], depth: int) -> None:
        included = file.top.get("include")
        if included is None:
            return
        if depth >= _MAX_NESTED:
            refuse(included.where, "includes are nested too deeply", "do they include each other?")
        directory = posixpath.dirname(file.path)
        for entry in included.items():
            layer = Layer({"path": entry}, variables)
            if entry.is_mapping:
                layer = Layer(entry.pairs(), variables)
            fields = Fields((layer,), self._findings)
            paths = [posixpath.join(directory, path) for path in fields.keys("path")]
            if not paths:
                refuse(entry.where, "include names no file", "write the path of a Compose file")
            env_files = [posixpath.join(directory, path) for path in fields.keys("env_file")]
            home = posixpath.join(directory, fields.scalar("project_directory") or posixpath.dirname(paths[0]))
            own = self.variables(env_files, home)
            self.load(paths, {**own, **variables}, depth + 1, entry.where)

    def _layers(
        self, file: _File, name: str, variables: Mapping[str, str], seen: tuple[tuple[str, str], ...]
    ) -> list[Layer]:
        """Return the layers of a service in one file: those of what it extends, then its own."""
        fields = file.services[name].pairs()
        layer = Layer(fields, variables)
        part = fields.get("extends")
        if part is None:
            return [layer]
        seen = (*seen, (file.path, name))
        extended = Fields((Layer({"service": part}, variables),), self._findings)
        if part.is_mapping:
            extended = Fields((Layer(part.pairs(), variables),), self._findings)
        other, service = file, extended.scalar("service")
        if path := extended.scalar("file"):
            other = self._file(posixpath.join(posixpath.dirname(file.path), path), part.where)
        if (other.path, service) in seen or len(seen) > _MAX_NESTED:
            refuse(part.where, f"services.{name} extends itself, or too many others", "remove an `extends`")
        if service not in other.services:
            hint = did_you_mean(service, other.services) or "name a service of that file"
            refuse(part.where, f"services.{name} extends {service!r}, which {one_line(other.path)} does not have", hint)
        return [*self._layers(other, service, variables, seen), layer]

    def _file(self, path: str, where: str) -> _File:
        """Return a file, which is read and parsed once. `where` is the place that names it."""
        path = posixpath.normpath(path)
        if path in self._files:
            return self._files[path]
        if len(self._files) >= _MAX_FILES:
            refuse(where, f"the project has more than {_MAX_FILES:,} files")
        shown = one_line(path)
        root = parse_parts(self._text(path, _FILE, where), shown, most=_MAX_VALUES)
        if root is None or not root.is_mapping:
            refuse(shown, "is not a Compose file", "it is a mapping with the key `services`")
        top = root.pairs()
        file = _File(path, top, _section(top, "services"), _section(top, "networks"))
        self._files[path] = file
        return file

    def _text(self, path: str, what: str, where: str) -> str:
        body = self._read(path, what)
        if body is None:
            refuse(where, f"cannot read the {what} {one_line(path)}: there is no such file", "correct its path")
        return decoded(body, one_line(path))


def _section(top: Mapping[str, YamlPart], name: str) -> Mapping[str, YamlPart]:
    """Return the mapping of services or networks; each of these is a mapping, or nothing."""
    part = top.get(name)
    if part is None or part.is_null:
        return {}
    if not part.is_mapping:
        refuse(part.where, f"{name} is not a mapping", f"write the name of each of the {name} and a colon")
    found = part.pairs()
    for key, value in found.items():
        if not value.is_mapping and not value.is_null:
            refuse(value.where, f"{name}.{key} is not a mapping", "write its options below it")
    return found
