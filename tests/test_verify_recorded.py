"""Judge the recorded answers of six scrapers: each target of the recorded fleet gets the verdict of its fault."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Final

import pytest

from clan_discovery.model import Verdict
from clan_discovery.verify import verify
from tests.support.answering import (
    PROGRAMS,
    answering,
    recorded_replies,
    recorded_targets,
    resolution_of,
    scraper,
    settings_of,
)

NODE: Final = {
    "attic": (Verdict.DOWN, "connection refused"),
    "cache": (Verdict.DOWN, "401"),
    "db": (Verdict.DUPLICATE, "scraped in job node, and again in job mine"),
    "kiosk": (Verdict.EMPTY, "without a single sample"),
    "lamp": (Verdict.DOWN, ""),
    "shed": (Verdict.DOWN, "EOF"),
}
"""The faults of the recorded node exporters."""


@pytest.mark.parametrize("program", PROGRAMS)
def test_recorded_answers_get_their_verdicts(program: str) -> None:
    with answering(recorded_replies(program)) as server:
        found = verify(resolution_of(recorded_targets()), settings_of(scraper("one", server.url)), datetime.now(UTC))
    (asked,) = found.asked
    assert asked.ok
    assert asked.kind == program.rpartition("-")[0].replace("victoria-metrics", "victoriametrics")
    assert found.ghosts == ()
    verdicts = {(target.job, target.machine): target for target in found.targets}
    for machine, (verdict, words) in NODE.items():
        target = verdicts["node", machine]
        assert (target.verdict, target.scraper) == (verdict, "one"), machine
        assert words in target.reason
        assert target.fix
    expected = Verdict.UP if "vmagent" in program else Verdict.WRONG_MACHINE  # vmagent has no query API
    assert verdicts["node", "web"].verdict is expected
    jobs = {job: {verdicts[key].verdict for key in verdicts if key[0] == job} for job in ("nginx", "postgres", "redis")}
    assert jobs == {"nginx": {Verdict.NOT_READ}, "postgres": {Verdict.PENDING}, "redis": {Verdict.NOT_READ}}
    assert "/old/redis.json" in verdicts["redis", "db"].reason
    assert {target.verdict for target in found.targets if target.job == "blackbox"} == {Verdict.UP}
    assert "rule 1 of job systemd" in verdicts["systemd", "lamp"].reason
    # Of seven targets, two are dropped by rule 1. The hash decides which of the others belong to a shard that no asked
    # scraper serves; VictoriaMetrics has another one.
    systemd = Counter(target.verdict for target in found.targets if target.job == "systemd")
    expected_down = 2 if "prometheus" in program else 4
    assert systemd == {Verdict.DROPPED: 2, Verdict.DOWN: expected_down}
    assert found.other_shards == 5 - expected_down
