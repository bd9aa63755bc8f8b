"""Fixtures, hypothesis profiles, and the last line, which names skipped programs."""

from __future__ import annotations

import io
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from clan_discovery.cli.main import main
from tests.support.programs import nix_program, nixfmt_path

if TYPE_CHECKING:
    from collections.abc import Callable

# A slow example on a busy machine is no defect; speed is tested by benchmarks.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nightly", settings.get_profile("project"), max_examples=2000)
settings.load_profile("project")

# Under nohup or in the background of a script SIGINT is ignored, and started programs would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Done:
    """The result of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def run() -> Callable[..., Done]:
    """Return a function that runs a command line in this process."""

    def call(*words: object) -> Done:
        out, err = io.StringIO(), io.StringIO()
        code = main([str(word) for word in words], out, err)
        return Done(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session", params=["debian", "newer"])
def nix(request: pytest.FixtureRequest) -> str:
    """Return nix-instantiate: Debian's, and a newer one if CLAN_DISCOVERY_NIX_NEWER is set."""
    which: str = request.param
    return nix_program("nix-instantiate", which)


@pytest.fixture(scope="session")
def nixfmt() -> str:
    """Return the path of nixfmt, or skip the test."""
    return nixfmt_path()


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the user's settings from the environment."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("CLAN_DISCOVERY_CONFIG", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print one line that says what was skipped, and why."""
    reasons: set[str] = set()
    for report in terminalreporter.getreports("skipped"):
        match report.longrepr:
            case (_, _, str(reason)):
                reasons.add(reason.removeprefix("Skipped: "))
            case _:
                pass
    if reasons:
        terminalreporter.write_line(f"skipped: {'; '.join(sorted(reasons))}")
    else:
        terminalreporter.write_line("nothing was skipped")
