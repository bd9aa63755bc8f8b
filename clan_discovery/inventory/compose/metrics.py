"""Read which metrics a service serves, from its labels and from `x-clan-discovery`. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from clan_discovery.inventory.compose.service import OWN_KEY, Label
from clan_discovery.syntax.endpoint import MAX_PORT
from clan_discovery.syntax.labels import is_job, labels_complaint, path_complaint
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clan_discovery.inventory.compose.project import ComposeFindings
    from clan_discovery.inventory.compose.service import ComposeService
    from clan_discovery.inventory.exporters import ExporterLookup
    from clan_discovery.model import Exporter

_PREFIXES: Final = ("prometheus.io/", "prometheus.io.", "prometheus.")
_TYPE: Final = "clan-discovery.type"
_SCRAPE: Final = "scrape"
_LABELS: Final = {_SCRAPE: _SCRAPE, "job": "type", "port": "port", "path": "path", "scheme": "scheme"}
"""The settings by the last part of a label's name."""
_SETTING_OF: Final = {f"{prefix}{name}": setting for prefix in _PREFIXES for name, setting in _LABELS.items()}
_SETTINGS: Final = ("type", "port", "path", "scheme")
_MAPPINGS: Final = ("labels", "front")


class Metrics(msgspec.Struct, frozen=True):
    """What a service serves: an exporter (None if that is not known, and `why`), and where that is declared."""

    type: str
    where: str
    exporter: Exporter | None = None
    why: str = ""
    reason: Literal["disabled", "no_port"] = "no_port"


class _Value(msgspec.Struct, frozen=True):
    """A setting: its name in messages, and its text with its place."""

    name: str
    label: Label


def read_metrics(service: ComposeService, lookup: ExporterLookup, findings: ComposeFindings) -> Metrics | None:
    """Return what a service serves; None if it does not ask to be scraped. Mistakes go to `findings`."""
    settings = _Settings(_of_labels(service) | _of_own_key(service, findings), findings)
    labels = _own_labels(service, findings)
    scrape = settings.scrape()
    if scrape is None and not labels and not settings.are_own:
        return None
    type_ = settings.type(service.name)
    where = settings.where(service)
    if scrape == "false":
        name = settings.values[_SCRAPE].name
        return Metrics(type_, where, why=f"{name} is false", reason="disabled")
    port, path, scheme = settings.port(), settings.path(), settings.scheme()
    if settings.has_failed:
        return None
    exporter = lookup(type_, port)
    if exporter is None and len(service.ports) == 1:
        exporter = lookup(type_, service.ports[0])
    if exporter is None:
        return Metrics(type_, where, why=_no_port(service))
    all_labels = tuple(sorted({**dict(exporter.labels), **labels}.items()))
    exporter = msgspec.structs.replace(
        exporter, path=path or exporter.path, scheme=scheme or exporter.scheme, labels=all_labels
    )
    return Metrics(type_, where, exporter)


def _no_port(service: ComposeService) -> str:
    if not service.ports:
        return "its metrics port is not known"
    ports = ", ".join(map(str, service.ports[:5]))
    return f"it has several ports ({ports}), and none is called its metrics port"


def _of_labels(service: ComposeService) -> dict[str, _Value]:
    """Return the settings that labels give, by name."""
    found: dict[str, _Value] = {}
    for key, label in service.labels.items():
        if setting := _SETTING_OF.get(key):
            found[setting] = _Value(key, label)
    if _TYPE in service.labels:
        found["type"] = _Value(_TYPE, service.labels[_TYPE])
    return found


def _of_own_key(service: ComposeService, findings: ComposeFindings) -> dict[str, _Value]:
    """Return the settings below `x-clan-discovery`, by name; an unknown one is an error."""
    found: dict[str, _Value] = {}
    for key, (part, variables) in service.own.items():
        name = f"{OWN_KEY}.{key}"
        if key not in (*_SETTINGS, *_MAPPINGS):
            known = (*_SETTINGS, *_MAPPINGS)
            findings.add(
                part.where_key, f"{name}: unknown key", did_you_mean(key, known) or f"write one of: {', '.join(known)}"
            )
        elif key in _SETTINGS and not part.is_null:
            expanded = service.fields.expanded(part, variables)
            found[key] = _Value(name, Label(expanded.text, part, expanded.unset))
    return found


class _Settings:
    """Checks the settings of a service. `has_failed`: one of them is wrong, and was reported."""

    def __init__(self, values: Mapping[str, _Value], findings: ComposeFindings) -> None:
        self.values = values
        self.has_failed = False
        self._findings = findings

    @property
    def are_own(self) -> bool:
        """Tell whether settings of this program are given, not only such as other tools read."""
        return "type" in self.values or any(value.name.startswith(OWN_KEY) for value in self.values.values())

    def where(self, service: ComposeService) -> str:
        """Return the place of the port, or else of another setting."""
        for name in ("port", "type", _SCRAPE):
            if name in self.values:
                return self.values[name].label.part.where
        return service.where

    def scrape(self) -> str | None:
        """Return `true` or `false`; None if the labels do not say."""
        value = self.values.get(_SCRAPE)
        if value is None:
            return None
        text = value.label.text.lower()
        if text not in ("true", "false"):
            self._refuse(value, f"{text[:60]!r} is neither true nor false", "write true or false")
        return text

    def type(self, default: str) -> str:
        """Return the job."""
        type_ = self._text("type") or default
        if not is_job(type_) and "type" in self.values:
            self._refuse(self.values["type"], f"{type_[:60]!r} cannot be a job", "letters, digits, '_', '-', '.', ':'")
        return type_

    def port(self) -> int | None:
        """Return the port; None if it is not given."""
        if "port" not in self.values:
            return None
        port = read_port(self._findings, self.values["port"].name, self.values["port"].label)
        self.has_failed |= port is None
        return port

    def path(self) -> str:
        """Return the path; empty if it is not given."""
        path = self._text("path")
        if path and (complaint := path_complaint(path)):
            self._refuse(self.values["path"], complaint)
        return path

    def scheme(self) -> str:
        """Return the scheme; empty if it is not given."""
        scheme = self._text("scheme")
        if scheme not in ("", "http", "https"):
            self._refuse(self.values["scheme"], f"{scheme[:60]!r} is not a scheme", "write http or https")
        return scheme

    def _text(self, name: str) -> str:
        """Return the text of a setting, empty if it is not given; warn about variables that are not set."""
        if name not in self.values:
            return ""
        label = self.values[name].label
        if label.unset:
            self._findings.warn_of_unset(label.part, label.unset)
        return label.text

    def _refuse(self, value: _Value, what: str, hint: str | None = None) -> None:
        self.has_failed = True
        where = value.label.part.where
        if value.label.unset:
            self._findings.refuse_unset(where, value.name, value.label.unset[0])
        else:
            self._findings.add(where, f"{value.name}: {what}", hint)


def _own_labels(service: ComposeService, findings: ComposeFindings) -> dict[str, str]:
    """Return the labels below `x-clan-discovery`."""
    if "labels" not in service.own:
        return {}
    part, variables = service.own["labels"]
    found = {name: service.fields.value(value, variables) for name, value in part.pairs().items()}
    if complaint := labels_complaint(found):
        findings.add(part.where, f"{OWN_KEY}.labels: {complaint}")
        return {}
    return found


def read_port(findings: ComposeFindings, name: str, label: Label) -> int | None:
    """Return the port in a label; None if it is not one, which is reported as an error."""
    text = label.text
    if text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= MAX_PORT:
        return int(text)
    if label.unset:
        findings.refuse_unset(label.part.where, name, label.unset[0])
        return None
    hint = f"write one number from 1 to {MAX_PORT}"
    findings.add(label.part.where, f"{name}: {text[:60]!r} is not a port", hint)
    return None
