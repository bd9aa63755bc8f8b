"""Read the JSON of exposed services, as the NixOS module and `clan-discovery dump --exposed` write it. Pure.

    {"machines": {"nas": {"expose": {"jellyfin": {"port": 8096, "front": {"domain": "films"}}},
                          "adopted": [{"job_name": "caddy", "static_configs": [{"targets": ["localhost:2020"]}]}]},
                  "dino": {"tags": ["laptop"], "agent": true, "agent_logs": true}},
     "scraper": "monitor"}

`scraper` is the machine that scrapes, if only one does: it can reach what listens on its own loopback. A machine with
`agent` scrapes itself and sends the samples; with `agent_logs`, it sends logs with vlagent. A machine that could not be
evaluated is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.errors import InputError, refuse
from clan_discovery.inventory.clan.agents import own_exporters
from clan_discovery.inventory.clan.decode import is_list, kind, parse_json, shown
from clan_discovery.inventory.clan.options import SettingsReader
from clan_discovery.inventory.exporters import default_exporter
from clan_discovery.inventory.exposed.adopt import read_scrape_config
from clan_discovery.inventory.exposed.service import read_service, same_port
from clan_discovery.inventory.queries import WRITE_EXPOSED
from clan_discovery.model import Declared, Endpoint, Exclusion, Expected, Front, Machine, Problem
from clan_discovery.syntax.endpoint import LOOPBACK
from clan_discovery.syntax.json_places import JsonPlaces
from clan_discovery.syntax.suggest import Suggester

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.inventory.clan.options import Complaint
    from clan_discovery.inventory.exporters import ExporterLookup
    from clan_discovery.inventory.exposed.adopt import Adopted, AdoptedJob
    from clan_discovery.model import Exporter, Json, Pairs, Severity

_KEYS: Final = ("machines", "scraper")
_MACHINE_KEYS: Final = ("expose", "adopted", "agent", "agent_logs", "tags")
_Path = tuple[str | int, ...]


def declare_exposed(
    body: bytes, where: str, *, lookup: ExporterLookup = default_exporter, scraper: str | None = None
) -> Declared:
    """Read the exposed services of all machines; `where` names the file in messages.

    `scraper` is the machine that scrapes, if the file does not name it.

    Raises:
        InputError: it is not such a JSON, or something in it is wrong. It has all problems.
    """
    top = parse_json(body, where, what="file of exposed services", hint=WRITE_EXPOSED)
    if not isinstance(top, Mapping) or not isinstance(top.get("machines"), Mapping):
        refuse(where, "exposed services are an object with the key `machines`", WRITE_EXPOSED)
    work = _Work(where, JsonPlaces(body.decode("utf-8-sig")), lookup, scraper)
    work.read(top)
    if any(problem.severity == "error" for problem in work.problems):
        raise InputError(work.problems)
    return Declared(
        machines=tuple(work.machines[name] for name in sorted(work.machines)),
        expected=tuple(work.expected),
        excluded=tuple(work.excluded),
        problems=tuple(work.problems),
        fronts=tuple(work.fronts),
        endpoints=tuple(work.endpoints),
        agents=tuple(sorted(work.agents)),
    )


class _Work(msgspec.Struct):
    """Collects what is declared, machine by machine."""

    where: str
    places: JsonPlaces
    lookup: ExporterLookup
    scraper: str | None
    suggester: Suggester = msgspec.field(default_factory=Suggester)
    machines: dict[str, Machine] = {}
    folded: dict[str, str] = {}
    expected: list[Expected] = []
    excluded: list[Exclusion] = []
    fronts: list[Front] = []
    endpoints: list[Endpoint] = []
    problems: list[Problem] = []
    agents: set[str] = set()
    served: dict[tuple[str, int, str, Pairs], tuple[str, str]] = {}

    def at(self, path: _Path) -> str:
        """Return the place of a value as `file:line:column`."""
        return f"{self.where}:{self.places.of(path)}"

    def complain(self, path: _Path, what: str, hint: str | None = None, severity: Severity = "error") -> None:
        named = ".".join(map(str, path))
        text = f"{named}: {what}" if named else what
        self.problems.append(Problem(where=self.at(path), what=text, hint=hint, severity=severity))

    def read(self, top: Mapping[str, Json]) -> None:
        """Read the whole file."""
        self.refuse_unknown(top, (), _KEYS)
        machines = top.get("machines")
        if not isinstance(machines, Mapping):
            return
        for name, value in machines.items():
            self.machine(name, value)
        self.scraper = self.scraper_of(top.get("scraper"))
        declared = {name: self.declared_by(name, machines[name]) for name in sorted(self.machines)}
        for name, value in declared.items():
            self.agent(name, value)
        for name, value in declared.items():
            self.services(name, value.get("expose"))
        # After all services: a scrape config may name another machine, and repeat a service of it.
        for name, value in declared.items():
            self.scrape_configs(name, value.get("adopted"))

    def refuse_unknown(self, given: Mapping[str, Json], path: _Path, known: tuple[str, ...]) -> None:
        for key in sorted(given.keys() - set(known)):
            hint = self.suggester.did_you_mean(key, known) or f"known: {', '.join(known)}"
            self.complain((*path, key), "unknown key", hint)

    def machine(self, name: str, value: Json) -> None:
        """Add a machine, unless its name could be a path, could break a line, or differs from another only in case."""
        path = ("machines", name)
        if "/" in name or ".." in name or name in ("", ".") or not name.isprintable():
            self.complain(path, f"{shown(name)} cannot be the name of a machine", "no slash, no control character")
        elif (first := self.folded.setdefault(name.casefold(), name)) != name:
            self.complain(path, f"{first!r} and {name!r} differ only in case", "DNS cannot tell them apart")
        else:
            tags = value.get("tags") if isinstance(value, Mapping) else None
            self.machines[name] = Machine(name=name, tags=self.tags((*path, "tags"), tags))

    def tags(self, path: _Path, given: Json) -> tuple[str, ...]:
        """Return the tags of a machine, sorted."""
        tags: Sequence[Json] = given if is_list(given) else ()
        words = [
            tag for tag in tags if isinstance(tag, str) and tag.isprintable() and tag and not {",", " "} & set(tag)
        ]
        if len(words) != len(tags) or (given is not None and not is_list(given)):
            self.complain(path, f"must be a list of tags, not {shown(given)}", 'for example: ["laptop"]')
        return tuple(sorted(set(words)))

    def scraper_of(self, given: Json) -> str | None:
        if given is None:
            return self.scraper
        if isinstance(given, str):
            return given
        self.complain(("scraper",), f"must be the name of a machine, not {kind(given)}")
        return None

    def declared_by(self, name: str, value: Json) -> Mapping[str, Json]:
        """Return what one machine declares; empty if it is unknown or wrong."""
        path = ("machines", name)
        if isinstance(value, Mapping):
            self.refuse_unknown(value, path, _MACHINE_KEYS)
            return value
        if value is None:
            what = "could not be evaluated when the file was written: its services are unknown"
            hint = "evaluate `services.clan-discovery.expose` of this machine, fix it, and write the file again"
            self.complain(path, what, hint, "problem")
        else:
            self.complain(path, f"must be an object, not {kind(value)}")
        return {}

    def agent(self, machine: str, value: Mapping[str, Json]) -> None:
        """Read whether a machine is an agent; its own programs are exporters."""
        path = ("machines", machine)
        if not self.flag((*path, "agent"), value):
            return
        self.agents.add(machine)
        on, where = self.machines[machine], self.at((*path, "agent"))
        for exporter in own_exporters(vlagent=self.flag((*path, "agent_logs"), value)):
            self.is_first(machine, exporter, exporter.type, (*path, "agent"))
            self.expected.append(Expected(machine=on, exporter=exporter, because="exposed: agent", where=where))

    def flag(self, path: _Path, value: Mapping[str, Json]) -> bool:
        """Return true or false; false if it is missing."""
        given = value.get(str(path[-1]))
        if given is not None and not isinstance(given, bool):
            self.complain(path, f"must be true or false, not {shown(given)}")
        return given is True

    def is_local(self, machine: str) -> bool:
        """Tell whether what scrapes a machine runs on it: it is the scraper, or an agent."""
        is_scraper = self.scraper is not None and machine.casefold() == self.scraper.casefold()
        return is_scraper or machine in self.agents

    def services(self, machine: str, expose: Json) -> None:
        """Read the exposed services of one machine."""
        if isinstance(expose, Mapping):
            for name in sorted(expose):
                self.service(machine, name, expose[name])
        elif expose is not None:
            self.complain(("machines", machine, "expose"), f"must be an object of services, not {kind(expose)}")

    def scrape_configs(self, machine: str, adopted: Json) -> None:
        """Read the adopted scrape configs of one machine."""
        if is_list(adopted):
            for index, config in enumerate(adopted):
                self.scrape_config(machine, index, config)
        elif adopted is not None:
            self.complain(("machines", machine, "adopted"), f"must be a list of scrape configs, not {kind(adopted)}")

    def service(self, machine: str, name: str, value: Json) -> None:
        path = ("machines", machine, "expose", name)
        if not isinstance(value, Mapping):
            self.complain(path, f"must be an object, not {kind(value)}", 'for example: {"port": 8096}')
            return
        reader = SettingsReader(value, [], suggester=self.suggester)
        found = read_service(name, reader, self.lookup)
        for complaint in reader.complaints:
            self.repeat(path, complaint)
        if found is None:
            return
        because, where = f"exposed: {name}", self.at(path)
        self.fronts += found.front_of(machine, because, where)
        target = found.target_of(self.machines[machine], because, where, is_local=self.is_local(machine))
        if isinstance(target, Exclusion):
            self.excluded.append(target)
        elif target is not None and self.is_first(machine, target.exporter, name, path):
            self.expected.append(target)

    def repeat(self, path: _Path, complaint: Complaint) -> None:
        """Add a complaint about an option of a service."""
        option = tuple(complaint.option.split(".")) if complaint.option else ()
        self.complain((*path, *option), complaint.what, complaint.hint, complaint.severity)

    def is_first(self, machine: str, exporter: Exporter, name: str, path: _Path) -> bool:
        """Tell whether nothing else of the machine serves these metrics; refuse a second service there."""
        key = machine, exporter.port, exporter.path, exporter.params
        if key not in self.served:
            self.served[key] = name, exporter.type
            return True
        first, type_ = self.served[key]
        what, hint = same_port(first, exporter)
        if path[2] == "expose":
            self.complain(path, what, hint)
        elif type_ != exporter.type:
            self.complain(path, what, "remove one of them", "problem")
            return True
        return False

    def scrape_config(self, machine: str, index: int, config: Json) -> None:
        path = ("machines", machine, "adopted", index)
        if not isinstance(config, Mapping):
            self.complain(path, f"must be an object, not {kind(config)}", "write a scrape config of Prometheus")
            return
        found = read_scrape_config(config, self.lookup)
        for complaint in found.complaints:
            what = f"scrape config {found.name or index} of {machine}: {complaint.what}"
            where = self.at((*path, *complaint.path))
            self.problems.append(Problem(where=where, what=what, hint=complaint.hint, severity=complaint.severity))
        for target in found.targets:
            self.adopt(machine, found, target, (*path, *target.path))

    def adopt(self, machine: str, job: AdoptedJob, target: Adopted, path: _Path) -> None:
        """Add a target of a scrape config, on the machine that the host names."""
        because, exporter = f"exposed: scrape config {job.name} of {machine}", target.exporter
        on = self.folded.get(target.host.casefold()) if target.host else machine
        if on is None:
            self.endpoints.append(
                Endpoint(
                    host=target.host,
                    exporter=exporter,
                    machine=target.host,
                    because=because,
                    backend="inventory",
                    located=f"listed in the scrape config {job.name} of {machine}",
                )
            )
        elif self.is_first(on, exporter, job.name, path):
            host = LOOPBACK if not target.host and self.is_local(machine) else ""
            self.expected.append(
                Expected(machine=self.machines[on], exporter=exporter, because=because, host=host, where=self.at(path))
            )
