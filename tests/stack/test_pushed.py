"""Pushed targets in real stores: what `verify` says of them."""

from __future__ import annotations

import contextlib
import http.client
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from clan_discovery.assemble.verification import parse_yaml_text
from clan_discovery.model import Target, Verdict
from clan_discovery.verify import AskedProgram, VerifySettings, verify
from tests.stack.scrapers import VERSIONS
from tests.stack.stores import store
from tests.support.answering import resolution_of, target_of
from tests.support.programs import eventually
from tests.support.remote_write import HEADERS, Series, write_request

if TYPE_CHECKING:
    from pathlib import Path

    from clan_discovery.model import Patience, Verification
    from tests.stack.scrapers import Kind, Which

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
STORES: Final[list[tuple[Kind, Which]]] = [key for key in VERSIONS if key[0] != "vmagent"]


def send(url: str, *samples: tuple[str, float, float]) -> None:
    """Write samples of `up` of job node: the machine, the time and the value of each, the oldest first."""
    series = [
        Series([("__name__", "up"), ("instance", machine), ("job", "node"), ("machine", machine)], [(at, value)])
        for machine, at, value in samples
    ]
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/api/v1/write", write_request(series), HEADERS)
        assert connection.getresponse().status == 204


def pushed(machine: str, patience: Patience = "always") -> Target:
    """Return the node exporter of an agent."""
    target = target_of("node", machine, "127.0.0.1:9100")
    return msgspec.structs.replace(target, delivery="push", patience=patience)


def ask(url: str, *targets: Target, silent_after: float = 7 * DAY) -> Verification:
    """Verify these pushed targets with one store."""
    settings = VerifySettings(
        scrapers=(AskedProgram(name="store", kind="scraper", url=url),),
        timeout=60.0,
        silent_after=silent_after,
        directory=None,
        parse_yaml=parse_yaml_text,
    )
    return verify(msgspec.structs.replace(resolution_of(()), pushed=targets), settings, datetime.now(UTC))


@pytest.mark.parametrize(("kind", "which"), STORES)
def test_verdicts_from_the_samples_of_a_real_store(kind: Kind, which: Which, tmp_path: Path) -> None:
    """Up, failing, silent, offline, and silent for too long. A name is no regular expression."""
    laptops = [pushed(name, "roaming") for name in ("dino", "old", "new")]
    targets = [pushed("db"), pushed("web"), pushed("nas"), pushed("a.b"), *laptops]
    with store(kind, which, tmp_path) as url:
        now = time.time()
        samples = [("old", now - 8 * DAY, 1.0), ("dino", now - 3.4 * HOUR, 1.0), ("nas", now - 2.4 * HOUR, 1.0)]
        send(url, *samples, ("axb", now - HOUR, 1.0), ("web", now - 1, 0.0), ("db", now - 1, 1.0))

        def verdicts() -> dict[str, Verdict]:
            return {target.machine: target.verdict for target in ask(url, *targets).targets}

        silent = dict.fromkeys(("nas", "a.b", "old", "new"), Verdict.DOWN)
        expected = {"db": Verdict.UP, "web": Verdict.DOWN, "dino": Verdict.PENDING, **silent}
        eventually("the samples are found", lambda: verdicts() == expected)
        found = ask(url, *targets)
        (asked,) = found.asked
        assert (asked.ok, asked.reason) == (True, "")
        reasons = {target.machine: target.reason for target in found.targets}
        assert reasons["nas"] == "no sample for 2 h"
        assert reasons["dino"].startswith("no sample for 3 h: ")
        assert reasons["web"] == "its agent cannot scrape http://127.0.0.1:9100/metrics"
        assert {reasons[name] for name in ("a.b", "old", "new")} == {"no sample within 7 d"}
        late = {target.machine: target.verdict for target in ask(url, *targets, silent_after=2.5 * HOUR).targets}
        assert late == {**expected, "dino": Verdict.DOWN}


@pytest.mark.parametrize(("kind", "which"), STORES)
def test_a_thousand_silent_machines_in_a_real_store(kind: Kind, which: Which, tmp_path: Path) -> None:
    """A third is up, a third was up an hour ago, and the store knows nothing of the others."""
    names = [f"machine-{number:04}.home.example.org" for number in range(999)]
    with store(kind, which, tmp_path) as url:
        now = time.time()
        send(
            url, *((name, now - 2 * HOUR, 1.0) for name in names[::3]), *((name, now - 1, 1.0) for name in names[1::3])
        )

        def counts() -> dict[Verdict, int]:
            found = [target.verdict for target in ask(url, *(pushed(name, "roaming") for name in names)).targets]
            return {verdict: found.count(verdict) for verdict in set(found)}

        expected = {Verdict.UP: 333, Verdict.PENDING: 333, Verdict.DOWN: 333}
        eventually("all samples are found", lambda: counts() == expected)
