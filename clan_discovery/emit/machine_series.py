"""Write what alert rules read of machines as series: tags, description, limits, units and needs. Pure.

Only machines with an expected target have series: a rule joins them with those of the machine. Written by hand, as
`clan_discovery_expected` is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.model import COMPUTED_TAGS, EVERY_MACHINE, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from clan_discovery.model import Resolution

_HELP: Final = {
    "machine_info": "1 for each machine with an expected target: its tags, and its description.",
    "limit": "A limit that an alert rule has for a machine instead of its default.",
    "unit": "1 for each systemd unit that must be active on a machine.",
    "needs": "1 for each machine, and a machine that it does not work without.",
}
_VALUE_MOST: Final = 500
"""The longest value of a label, in characters: VictoriaMetrics cuts values of more than 1 KiB."""


def render_machines(resolution: Resolution, machines: AbstractSet[str]) -> bytes:
    """Return the series of these machines."""
    lines: list[str] = []
    for name, samples in (
        ("machine_info", _info(resolution, machines)),
        ("limit", _limits(resolution, machines)),
        ("unit", _units(resolution, machines)),
        ("needs", _needs(resolution, machines)),
    ):
        lines.append(f"# HELP clan_discovery_{name} {_HELP[name]}\n# TYPE clan_discovery_{name} gauge\n")
        # The order of a set of names is another one in each process.
        lines += (f"clan_discovery_{name}{sample}\n" for sample in sorted(samples))
    return "".join(lines).encode()


def _info(resolution: Resolution, machines: AbstractSet[str]) -> Iterator[str]:
    declared = {machine.name: machine for machine in resolution.machines}
    tags_of: dict[tuple[str, ...], str] = {}
    for name in machines:
        description, tags = "", ""
        if name in declared:
            machine = declared[name]
            if machine.tags not in tags_of:
                tags_of[machine.tags] = plain(",".join(tag for tag in machine.tags if tag not in COMPUTED_TAGS))
            description, tags = plain(machine.description), tags_of[machine.tags]
        yield f'{{description="{escaped(description)}",machine="{escaped(name)}",tags="{escaped(tags)}"}} 1.0'


def _limits(resolution: Resolution, machines: AbstractSet[str]) -> Iterator[str]:
    defaults = {limit.name: limit.value for limit in resolution.limits if limit.machine == EVERY_MACHINE}
    own = {(limit.machine, limit.name): limit.value for limit in resolution.limits if limit.machine in machines}
    given = {(machine, name): value for machine in machines for name, value in defaults.items()}
    for (machine, name), value in (given | own).items():
        yield f'{{machine="{escaped(machine)}",name="{escaped(name)}"}} {value!r}'


def _units(resolution: Resolution, machines: AbstractSet[str]) -> Iterable[str]:
    for unit in resolution.units:
        if unit.machine in machines:
            yield f'{{machine="{escaped(unit.machine)}",unit="{escaped(unit.unit)}"}} 1.0'


def _needs(resolution: Resolution, machines: AbstractSet[str]) -> Iterable[str]:
    """Yield the needs between machines with targets here. This server cannot tell whether another machine is up."""
    for need in resolution.needs:
        if need.machine in machines and need.on in machines:
            yield f'{{machine="{escaped(need.machine)}",on="{escaped(need.on)}"}} 1.0'


def plain(text: str) -> str:
    """Make text one line of a bounded length, without control characters: it is shown in mails and on pages."""
    text = text[: 4 * _VALUE_MOST]
    text = one_line(" ".join(text.split()))
    return text if len(text) <= _VALUE_MOST else f"{text[: _VALUE_MOST - 3]}..."


def escaped(value: str) -> str:
    """Write the value of a label as the text format wants it."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
