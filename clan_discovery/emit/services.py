"""Find the services and fronts of a machine, or those that a word names. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.model import DeclaredService, ExplainedService, Front, dependencies

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clan_discovery.model import Resolution


class Belongings(msgspec.Struct, frozen=True):
    """Services and fronts of one machine."""

    services: tuple[ExplainedService, ...] = ()
    fronts: tuple[Front, ...] = ()

    @property
    def reasons(self) -> frozenset[str]:
        """The words of the sources that declare them; targets of the same services have the same."""
        return frozenset([*(service.because for service in self.services), *(front.because for front in self.fronts)])

    def named(self, names: Iterable[str]) -> Belongings:
        """Return the services of these names, and the fronts of these services."""
        wanted = frozenset(names)
        return Belongings(
            tuple(service for service in self.services if service.name in wanted),
            tuple(front for front in self.fronts if front.service in wanted),
        )


NO_BELONGINGS: Final = Belongings()


class ServiceIndex:
    """The services and fronts of one resolution. Names are compared case-folded."""

    def __init__(self, resolution: Resolution) -> None:
        self._needed_by = _needed_by(resolution.services)
        services: defaultdict[str, list[ExplainedService]] = defaultdict(list)
        fronts: defaultdict[str, list[Front]] = defaultdict(list)
        for service in resolution.services:
            services[service.machine.casefold()].append(self._explained(service))
        for front in resolution.fronts:
            fronts[front.machine.casefold()].append(front)
        self._of = {
            machine: Belongings(tuple(services[machine]), tuple(fronts[machine])) for machine in {**services, **fronts}
        }
        names = [service.machine for service in resolution.services] + [front.machine for front in resolution.fronts]
        self._machines = {name.casefold(): name for name in names}

    @property
    def words(self) -> set[str]:
        """The names of all services, and the domains of all fronts."""
        return {word for own in self._of.values() for word in _words(own)}

    def of(self, machine: str) -> Belongings:
        """Return the services and fronts of a machine."""
        return self._of.get(machine.casefold(), NO_BELONGINGS)

    def named(self, word: str) -> Iterator[tuple[str, Belongings]]:
        """Yield each machine with a service of this name, or behind this domain or URL, and what belongs to it."""
        name, domain = word.casefold(), _domain_of(word)
        for machine, own in self._of.items():
            names = {service.name for service in own.services if service.name.casefold() == name}
            names |= {
                front.service
                for front in own.fronts
                if front.service.casefold() == name or _is_domain(front.domain, domain)
            }
            if names:
                yield self._machines[machine], own.named(names)

    def _explained(self, service: DeclaredService) -> ExplainedService:
        return ExplainedService(
            name=service.name,
            because=service.because,
            where=service.where,
            depends_on=service.depends_on,
            needed_by=tuple(sorted(self._needed_by[service.machine, service.name])),
            units=service.units,
            probes=service.probes,
        )


def _needed_by(services: Iterable[DeclaredService]) -> defaultdict[tuple[str, str], set[str]]:
    """Return who depends on each service, by machine and name."""
    found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for service, on in dependencies(services):
        found[on.machine, on.name].add(service.name)
    return found


def _words(own: Belongings) -> Iterator[str]:
    yield from (service.name for service in own.services)
    for front in own.fronts:
        yield front.service
        yield front.domain


def _domain_of(word: str) -> str:
    """Return the domain of a URL, or the word itself."""
    return word.casefold().removeprefix("https://").removeprefix("http://").partition("/")[0]


def _is_domain(domain: str, asked: str) -> bool:
    """Tell whether a front serves a domain; `*.example.org` serves each name below it."""
    if domain.startswith("*."):
        return asked in (domain, f"{asked.partition('.')[0]}{domain[1:]}")
    return domain.casefold() == asked
