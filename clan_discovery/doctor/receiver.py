"""Check that an agent cannot make the store of metrics store under another name, or stop it. Changes nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.deadline import Deadline
from clan_discovery.doctor.finding import Finding
from clan_discovery.errors import Exit
from clan_discovery.verify.http import AskError, get
from clan_discovery.verify.settings import AskedProgram

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clan_discovery.model import FrontSettings

_BUDGET_S: Final = 5.0
_MOST_BYTES: Final = 16 * 1024 * 1024
_ENOUGH: Final = 100_000
"""More labels than a request of 32 MB, the most that VictoriaMetrics reads, holds in one series."""
_FLAG: Final = re.compile(r'^flag\{name="(\w+)", value="([^"]*)"', re.MULTILINE)
_VERSION: Final = re.compile(r'^vm_app_version\{[^}]*short_version="v(\d{1,4})\.(\d{1,4})\.(\d{1,4})', re.MULTILINE)
_ANY_SIZE: Final = (((0, 0, 0), (1, 110, 23)), ((1, 111, 0), (1, 122, 8)), ((1, 123, 0), (1, 129, 1)))
"""The first version and the one after the last."""
_CUTS: Final = "vm_metrics_with_dropped_labels_total"
"""A metric of VictoriaMetrics before 1.108, which removes the last labels of a series that has too many."""


def examine_receiver(front: FrontSettings) -> Iterator[Finding]:
    """Ask the store of metrics how it was started. Labels that a receiver forces come last, and the last one wins."""
    if front.receive is None or not front.receive.metrics:
        return
    url = front.receive.metrics
    about = f"receiver {url}"
    store = AskedProgram(name="receive", kind="scraper", url=url)
    if front.ca:
        store = msgspec.structs.replace(store, ca_file=Path(front.ca))
    try:
        body = get(store, "/metrics", Deadline(_BUDGET_S), _MOST_BYTES)
    except AskError as error:
        fix = "is front.receive.metrics right? is the store up?"
        yield Finding("warning", about, f"it cannot be asked how it was started: {error.reason}", fix)
        return
    metrics = body.decode("utf-8", "replace")
    yield _judged(about, metrics)
    if takes_any_size(metrics):
        what = "a request of a few bytes makes it take 4 GiB of memory, so that one agent can stop it"
        yield Finding("warning", about, what, "update it to 1.110.23, 1.122.8, 1.129.1, or a newer one of these lines")


def takes_any_size(metrics: str) -> bool:
    """Tell from the metrics of a store whether it decompresses requests without a limit; false if it tells no version.

    See VictoriaMetrics issue 10090.
    """
    if _CUTS in metrics:
        return True
    found = _VERSION.search(metrics)
    if found is None:
        return False
    version = (int(found[1]), int(found[2]), int(found[3]))
    return any(since <= version < until for since, until in _ANY_SIZE)


def _judged(about: str, metrics: str) -> Finding:
    flags = dict(_FLAG.findall(metrics))
    if not flags:
        fix = "only VictoriaMetrics and vmagent can receive from agents"
        return Finding("warning", about, "it does not say how it was started", fix)
    if flags.get("sortLabels") == "true":
        what = "-sortLabels lets an agent write under another name, with a label `machine` of its own"
        return Finding("error", about, what, "start it without -sortLabels", Exit.FINDINGS)
    most = flags.get("maxLabelsPerTimeseries", "")
    if _CUTS in metrics and not (most.isdecimal() and int(most) >= _ENOUGH):
        what = f"it cuts series after {most or '30'} labels: an agent with more of them writes under another name"
        fix = "update it to 1.108 or newer, or start it with -maxLabelsPerTimeseries=1000000"
        return Finding("error", about, what, fix, Exit.FINDINGS)
    return Finding("ok", about, "it keeps the name that the receiver forces")
