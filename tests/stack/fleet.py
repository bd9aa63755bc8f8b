"""A fleet with its own config and target files, the scrapers that read them, and what `verify` says."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from clan_discovery.cli.main import main
from clan_discovery.model import Verdict
from clan_discovery.syntax.tree import parse_yaml
from tests.stack.exporters import Answers, node_metrics, serving
from tests.support.fleet import inventory
from tests.support.programs import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.stack.exporters import Certificate
    from tests.stack.scrapers import Scraper

LONGEST_S: Final = 150.0
"""Prometheus applies a change within 5 seconds, a busy machine later."""


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A target in the JSON of `verify`."""

    job: str
    machine: str
    instance: str
    address: str
    verdict: Verdict
    reason: str
    fix: str
    scraper: str


class FoundGhost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ghost in the JSON of `verify`."""

    scraper: str
    job: str
    instance: str
    address: str
    reason: str
    fix: str


class Asked(msgspec.Struct, frozen=True):
    """A program in the JSON of `verify`."""

    name: str
    url: str
    kind: str = ""
    version: str = ""
    ok: bool = True
    reason: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Says:
    """What `verify` must say of a target: patterns that its reason matches, and one that its fix matches."""

    name: str
    reason: tuple[str, ...]
    fix: str

    def matches(self, found: Found) -> bool:
        """Tell whether the reason and the fix are these. Both are always one line, and a finding has a fix."""
        target = found.of(self.name)
        assert target.fix, target
        assert "\n" not in target.reason + target.fix, target
        return all(re.search(pattern, target.reason) for pattern in self.reason) and bool(
            re.search(self.fix, target.fix)
        )


def says(name: str, *reason: str, fix: str = "") -> Says:
    """Return what `verify` must say of the target `job/machine`; see `Says`."""
    return Says(name, reason, fix)


class Found(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON of `verify` (DESIGN 4.5), its exit code and its messages."""

    targets: tuple[Target, ...]
    ghosts: tuple[FoundGhost, ...]
    asked: tuple[Asked, ...]
    summary: dict[str, msgspec.Raw]
    code: int = 0
    err: str = ""

    def verdicts(self) -> dict[str, str]:
        """Return the verdicts by `job/machine`."""
        return {f"{target.job}/{target.machine}": target.verdict.value for target in self.targets}

    def of(self, name: str) -> Target:
        """Return one target, by `job/machine`."""
        (found,) = (target for target in self.targets if f"{target.job}/{target.machine}" == name)
        return found


@dataclass
class Fleet:
    """Machines with addresses, a port for each exporter type, and the running scrapers.

    `settings` are the config's `jobs`, `output` more keys of its `output`. Each machine has an exporter of each type.
    """

    place: Path
    members: Sequence[Scraper]
    hosts: dict[str, str]
    ports: dict[str, int]
    exporters: dict[str, dict[str, Json]] = field(default_factory=dict[str, "dict[str, Json]"])
    settings: dict[str, Json] = field(default_factory=dict[str, "Json"])
    output: dict[str, Json] = field(default_factory=dict[str, "Json"])
    running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def targets(self) -> Path:
        """The directory of the target files."""
        return self.place / "targets"

    def config(self, scrapers: Mapping[str, Json], name: str = "config") -> Path:
        """Write a config that asks these scrapers, and the inventory; return the config."""
        exporters: dict[str, Json] = {name: {} for name in self.ports}
        document = inventory([*self.hosts], exporter={"exporters": exporters})
        match document:
            case {"instances": {"monitoring": {"roles": {"server": dict(role)}}}}:
                role["machines"] = {next(iter(self.hosts)): {}}
            case other:
                raise AssertionError(other)
        config = {
            "inventory": {"file": "inventory.json"},
            "backends": {"static": {"lab": {"machines": self.hosts}}},
            "output": {"directory": "targets", **self.output},
            "exporters": {kind: {"port": port, **self.exporters.get(kind, {})} for kind, port in self.ports.items()},
            "jobs": self.settings,
            "verify": {"scrapers": scrapers, "timeout": "20s"},
        }
        (self.place / "inventory.json").write_text(json.dumps(document))
        path = self.place / f"{name}.yaml"
        path.write_text(json.dumps(config))
        return path

    def refresh(self) -> None:
        """Write the target files, as if it were ten minutes ago."""
        code, _, err = command("refresh", "-c", self.config({}))
        assert code == 0, err
        self.age()

    def age(self) -> None:
        """Make the target files ten minutes old: what a scraper may not have read yet is no finding."""
        at = time.time() - 600
        for file in self.targets.glob("*.json"):
            os.utime(file, (at, at))

    def jobs(self) -> list[dict[str, Json]]:
        """Return the scrape configs that `show` prints."""
        code, out, err = command("show", "-c", self.config({}), "--format", "scrape-config")
        assert code == 0, err
        match parse_yaml(out, most=10_000).value:
            case {"scrape_configs": [*configs]}:
                return [dict(config) for config in configs if isinstance(config, dict)]
            case other:
                raise AssertionError(other)

    def scrape(self, jobs: Sequence[Mapping[str, Json]] | None = None) -> None:
        """Refresh, and give these jobs, or our own, to all scrapers."""
        self.refresh()
        for member in self.members:
            member.scrape(self.jobs() if jobs is None else jobs)

    def serve(
        self,
        machine: str,
        job: str = "node",
        answers: Answers | None = None,
        certificate: Certificate | None = None,
        port: int = 0,
    ) -> Answers:
        """Start an exporter of a machine, by default a healthy one, until the test ends."""
        found = answers or Answers(body=node_metrics(machine))
        return self.running.enter_context(serving(self.hosts[machine], port or self.ports[job], found, certificate))

    def serve_all(self, *but: str) -> None:
        """Start a healthy exporter of each type on each machine; not those of `but`, written as `job/machine`."""
        for job in self.ports:
            for machine in self.hosts:
                if f"{job}/{machine}" not in but:
                    self.serve(machine, job)

    def verify(self, *names: str, scrapers: Mapping[str, Json] | None = None, words: Iterable[str] = ()) -> Found:
        """Run `verify` about the members of these names, or about other scrapers."""
        asked: dict[str, Json] = {member.name: {"url": member.url} for member in self.members if member.name in names}
        config = self.config(asked if scrapers is None else scrapers, "verify")
        code, out, err = command("verify", "-c", config, "--format", "json", *words)
        assert "Traceback" not in err
        assert out, err
        found = msgspec.json.decode(out, type=Found)
        return msgspec.structs.replace(found, code=code, err=err)

    def all_up(self) -> dict[str, str]:
        """Return the verdicts of a healthy fleet."""
        return {f"{job}/{machine}": "up" for job in self.ports for machine in self.hosts}

    def expect(
        self,
        changed: Mapping[str, str] | None = None,
        *,
        says: Says | None = None,
        only: Sequence[str] = (),
        ghosts: int = 0,
    ) -> dict[str, Found]:
        """Wait until each scraper alone gets these verdicts, and `up` for the rest, twice; return what was found.

        `says` is the reason of one target. `only` are words of which the names of the scrapers hold one (default: all
        are asked), `ghosts` the number of ghosts. The exit code is 1 if there is a finding.
        """
        wanted = {**self.all_up(), **(changed or {})}
        code = int(ghosts > 0 or any(Verdict(verdict).is_finding for verdict in wanted.values()))
        names = [member.name for member in self.members if not only or any(map(member.name.__contains__, only))]
        found = {
            name: self.settle(name, functools.partial(self.verify, name), wanted, code, ghosts=ghosts, says=says)
            for name in names
        }
        if says is not None:
            for name, answer in found.items():
                assert answer.of(says.name).scraper in (name, ""), (name, answer.of(says.name))
        return found

    def settle(
        self,
        name: str,
        ask: Callable[[], Found],
        wanted: Mapping[str, str],
        code: int,
        *,
        ghosts: int = 0,
        says: Says | None = None,
    ) -> Found:
        """Ask until the verdicts, the exit code, the number of ghosts and the reason are these, twice in a row.

        A scrape may time out on a busy machine; its reason is another one then.
        """
        deadline = time.monotonic() + LONGEST_S
        agreed = 0
        while True:
            found = ask()
            same = (found.verdicts(), found.code, len(found.ghosts)) == (wanted, code, ghosts)
            same = same and (says is None or says.matches(found))
            agreed = same * (agreed + 1)
            if agreed == 2:
                return found
            if time.monotonic() > deadline:
                pytest.fail(
                    f"{name}: wanted {wanted}, exit {code}, {ghosts} ghosts, {says}; "
                    f"found exit {found.code}: {_told(found)}"
                )
            time.sleep(0.7)


def _told(found: Found) -> str:
    return msgspec.json.format(msgspec.json.encode(found), indent=1).decode()


def command(*words: object) -> tuple[int, str, str]:
    """Run a command of clan-discovery in this process; return its exit code, its output and its messages."""
    out, err = io.StringIO(), io.StringIO()
    code = main([str(word) for word in words], out, err)
    return code, out.getvalue(), err.getvalue()


def new_ports(*types: str) -> dict[str, int]:
    """Return a free port for each exporter type."""
    return {name: free_port() for name in types}
