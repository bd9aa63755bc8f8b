"""`verify.rules` and real programs: Prometheus and vmalert, each Debian's and a newer one."""

from __future__ import annotations

import contextlib
import json
import signal
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import pytest

from clan_discovery.model import UnloadedRules
from clan_discovery.verify import verify
from clan_discovery.verify.settings import AskedProgram
from tests.stack.scrapers import scraper
from tests.support.answering import resolution_of, settings_of
from tests.support.programs import eventually, free_port, get, running, scraper_program

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Generator
    from pathlib import Path

    from clan_discovery.model import Program
    from tests.stack.scrapers import Which

Evaluator: TypeAlias = Literal["prometheus", "vmalert"]
EVALUATORS: Final[tuple[tuple[Evaluator, Which], ...]] = (
    ("prometheus", "debian"),
    ("prometheus", "newer"),
    ("vmalert", "debian"),
    ("vmalert", "newer"),
)
RULES: Final = """\
groups:
- name: host
  rules:
  - {alert: Disk, expr: up == 0, for: 5m, labels: {severity: warning}}
  - {alert: Disk, expr: up == 0, labels: {severity: critical}, annotations: {summary: "{{ $labels.machine }}"}}
  - {record: "clan:up", expr: sum by (machine) (up)}
"""


@dataclass
class Ruler:
    """A program that evaluates the rules of `read.yml` every second; `place` holds its files."""

    kind: Evaluator
    place: Path
    port: int
    process: subprocess.Popen[bytes]

    def ask(self, *files: str, path: str = "") -> Program:
        """Compare rule files with what it has loaded."""
        found = tuple(self.place / file for file in files)
        access = AskedProgram(name="alerts", kind="rules", url=f"http://127.0.0.1:{self.port}{path}", files=found)
        asked = verify(resolution_of([]), settings_of(access), datetime.now(UTC)).asked
        (program,) = [program for program in asked if program.name == "alerts"]
        return program

    def reload(self, text: str) -> None:
        """Change its rule file and let it read the file again."""
        (self.place / "read.yml").write_text(text)
        self.process.send_signal(signal.SIGHUP)

    def until(self, reason: str, *files: str) -> Program:
        """Ask until the reason begins as given; empty: no reason."""
        last: list[Program] = []

        def is_so() -> bool:
            last[:] = [self.ask(*files)]
            found = last[0].reason
            return found.startswith(reason) and bool(found) == bool(reason)

        eventually(f"{self.kind} says {reason!r}", is_so)
        return last[0]


@contextlib.contextmanager
def ruler(kind: Evaluator, which: Which, place: Path, text: str, store: str) -> Generator[Ruler]:
    """Run a program with one rule file; vmalert reads and writes series in a store."""
    port = free_port()
    (place / "read.yml").write_text(text)
    path = scraper_program(kind, which)
    if kind == "prometheus":
        config = {"global": {"evaluation_interval": "1s"}, "rule_files": [f"{place}/read.yml"]}
        (place / "prometheus.yml").write_text(json.dumps(config))
        command = [path, f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/data"]
        command.append(f"--web.listen-address=127.0.0.1:{port}")
        ready = "/-/ready"
    else:
        command = [path, f"-rule={place}/read.yml", f"-datasource.url={store}", "-notifier.url=http://127.0.0.1:9"]
        command += [f"-remoteWrite.url={store}", f"-httpListenAddr=127.0.0.1:{port}", "-evaluationInterval=1s"]
        ready = "/health"
    with running(command, place / "log") as process:

        def is_ready() -> bool:
            if process.poll() is not None:
                pytest.fail(f"{kind} ended: {(place / 'log').read_text(errors='replace')[-2000:]}")
            return bool(get(f"http://127.0.0.1:{port}{ready}"))

        eventually(f"{kind} answers", is_ready)
        yield Ruler(kind, place, port, process)


@pytest.mark.parametrize(("kind", "which"), EVALUATORS)
def test_rules_that_are_not_loaded_are_found(tmp_path: Path, kind: Evaluator, which: Which) -> None:
    """A mistake after a reload, a file without a reload, a file that is not read, a wrong URL, no rule at all."""
    with contextlib.ExitStack() as running_here:
        store = ""
        if kind == "vmalert":
            store = running_here.enter_context(scraper("victoria-metrics", "debian", tmp_path / "store")).url
        made = running_here.enter_context(ruler(kind, which, tmp_path, RULES, store))
        found = made.until("", "read.yml")
        assert (found.ok, found.kind, type(found) is UnloadedRules) == (True, "rules", False)

        # A mistake that only the program sees: the names are all loaded, in their old version.
        made.reload(RULES.replace("sum by (machine) (up)", "sum by (machine) (up"))
        found = made.until("its last reload failed: it evaluates older rules", "read.yml")
        assert isinstance(found, UnloadedRules)
        assert f"{tmp_path}/read.yml" in found.fix

        # A rule more, and a mistake: both are told.
        (tmp_path / "read.yml").write_text(f"{RULES}  - {{alert: More, expr: up == 1}}\n")
        found = made.ask("read.yml")
        assert found.reason.endswith(f"1 of 3 rules of {tmp_path}/read.yml are not loaded: alert More")
        made.reload(f"{RULES}  - {{alert: More, expr: up == 1}}\n")
        assert made.until("", "read.yml").ok

        (tmp_path / "other.yml").write_text(RULES.replace("host", "other"))
        found = made.ask("*.yml") if kind == "vmalert" else made.ask("other.yml", "read.yml")
        assert (found.ok, found.reason) == (False, f"no rule of {tmp_path}/other.yml is loaded")
        assert ("rule_files:" if kind == "prometheus" else "-rule=") in found.fix

        wrong = made.ask("read.yml", path="/wrong")
        assert (wrong.ok, isinstance(wrong, UnloadedRules)) == (False, False)

        made.reload("groups: []\n")
        if kind == "prometheus":
            found = made.until("it has no rules; no rule of ", "other.yml")
            assert isinstance(found, UnloadedRules)


@pytest.mark.parametrize("which", ["debian", "newer"])
def test_store_that_evaluates_nothing_is_told(tmp_path: Path, which: Which) -> None:
    """VictoriaMetrics answers without rules; its URL is a common mistake for that of vmalert."""
    (tmp_path / "read.yml").write_text(RULES)
    with scraper("victoria-metrics", which, tmp_path) as store:
        access = AskedProgram(name="alerts", kind="rules", url=store.url, files=(tmp_path / "read.yml",))
        asked = verify(resolution_of([]), settings_of(access), datetime.now(UTC)).asked
    (found,) = [program for program in asked if program.name == "alerts"]
    assert isinstance(found, UnloadedRules)
    assert found.reason == f"it has no rules; no rule of {tmp_path}/read.yml is loaded"
    assert found.fix == "verify.rules.alerts.url: VictoriaMetrics evaluates no rules; write the URL of vmalert"
