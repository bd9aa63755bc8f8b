"""`doctor` finds a store that could be made to store an agent's samples under another name."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from clan_discovery.doctor.receiver import examine_receiver
from clan_discovery.model import FrontSettings, ReceiveSettings
from tests.stack.test_receive import post, token_of
from tests.support.programs import eventually, free_port, running, scraper_program
from tests.support.receiver import METRICS_PATH, Receiver, metrics_store
from tests.support.remote_write import Series, write_request

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from clan_discovery.doctor.finding import Finding
    from tests.support.receiver import Which


def findings(url: str) -> list[Finding]:
    """Return what is found of a store."""
    receive = ReceiveSettings(kind="nginx", domain="push.example.org", metrics=url)
    return list(examine_receiver(FrontSettings(kind="nginx", receive=receive)))


@pytest.mark.parametrize(
    ("which", "flags", "said"),
    [
        ("newer", ["-maxLabelsPerTimeseries=40"], ""),
        ("newer", ["-sortLabels"], "-sortLabels lets an agent write under another name"),
        ("debian", ["-maxLabelsPerTimeseries=1000000"], ""),
        ("debian", ["-maxLabelsPerTimeseries=30"], "it cuts series after 30 labels"),
        ("debian", ["-sortLabels", "-maxLabelsPerTimeseries=1000000"], "-sortLabels lets an agent write"),
    ],
)
def test_store_that_can_be_deceived_is_found(tmp_path: Path, which: Which, flags: Sequence[str], said: str) -> None:
    """An agent tries it: what is found is so, and what is not found is not."""
    port = free_port()
    front = FrontSettings(kind="nginx", listen=("127.0.0.1",), http_port=port)
    bed = Receiver(tmp_path / "bed", "nginx", which, port, front=front)
    bed.prepare()
    bed.add("dino")
    now = time.time()
    long = [("__name__", "long"), ("machine", "evil"), *[(f"label{number:02}", "x") for number in range(32)]]
    same = [("__name__", "same"), *[("machine", f"evil{number}") for number in range(30)]]
    with metrics_store(tmp_path, which, flags) as store:
        bed.metrics = store
        with bed.run():
            body = write_request([Series(labels, [(now, 1)]) for labels in (long, same)])
            assert post(bed, METRICS_PATH, body, token_of(bed)) == 204
            eventually("both are stored", lambda: len(store.samples('{__name__=~"long|same"}')) == 2)
            names = {series.metric["machine"] for series in store.samples('{__name__=~"long|same"}')}
        found = findings(store.url)
    assert (names == {"dino"}) == (not said)
    assert found[0].level == ("error" if said else "ok")
    assert said in found[0].what
    # The old one also decompresses requests without a limit.
    old = [("warning", 0)] if which == "debian" else []
    assert [(finding.level, finding.code) for finding in found[1:]] == old


def test_store_that_does_not_answer_is_a_warning() -> None:
    """It is no reason to fail: it may be down at the moment."""
    found = findings(f"http://127.0.0.1:{free_port()}")
    assert [(finding.level, finding.code) for finding in found] == [("warning", 0)]
    assert "it cannot be asked how it was started: connection refused" in found[0].what


def test_vmagent_as_the_store_is_sound(tmp_path: Path) -> None:
    """It passes labels on as they are."""
    port = free_port()
    (tmp_path / "scrape.yml").write_text("scrape_configs: []\n")
    command = [scraper_program("vmagent", "newer"), f"-httpListenAddr=127.0.0.1:{port}"]
    command += ["-remoteWrite.url=http://127.0.0.1:9/", f"-remoteWrite.tmpDataPath={tmp_path}/queue"]
    with running(command, tmp_path / "log"):
        eventually("vmagent answers", lambda: findings(f"http://127.0.0.1:{port}")[0].level == "ok")
