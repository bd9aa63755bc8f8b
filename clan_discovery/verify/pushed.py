"""Give each pushed target its verdict, from the samples in the stores. Pure.

The agent on the machine scrapes the target and writes `up` to a store. A target that any store has is up: agents need
not write to all of them.
"""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.model import Target, Verdict, Verified, span
from clan_discovery.syntax.counting import first_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

_NAMES_MOST: Final = 3
_SERVED_BY: Final = {"vlagent": "clan-discovery-logs"}
"""The unit behind a target that is no exporter. The agent sends its metrics, too."""
_NO_STORE: Final = "no scraper that was asked keeps samples: ask the store that the agents write to"
_STORE_FIX: Final = "verify: {scrapers: {NAME: {url: URL of that VictoriaMetrics or Prometheus}}}"


class StoredSamples(msgspec.Struct, frozen=True, kw_only=True):
    """What a store has of pushed targets, each by job and instance.

    `up` is the value of `up` now. `ages` tells how many seconds ago the last sample was of those without one now.
    `failed` says why not all could be asked for, and `fix` what to do; empty if all were.
    """

    name: str
    up: Mapping[tuple[str, str], float] = {}
    ages: Mapping[tuple[str, str], float] = {}
    failed: str = ""
    fix: str = ""


def verify_pushed(
    targets: Sequence[Target], stores: Sequence[StoredSamples], unasked: Mapping[str, str], silent_after: float
) -> Iterator[Verified]:
    """Yield the verdict on each pushed target.

    `unasked` are the scrapers that could not be asked, and what to do about each of them.
    """
    unasked = {**unasked, **{store.name: store.fix for store in stores if store.failed}}
    sending = {target.machine for target in targets for store in stores if key_of_target(target) in store.up}
    for target in targets:
        found = _sent(target, stores)
        if found is None and (unasked or not stores):
            found = _unknown(target, unasked)
        yield found or _silent(target, stores, silent_after, sending)


def key_of_target(target: Target) -> tuple[str, str]:
    """Return the job and the instance of the target's series."""
    return target.job, target.labels["instance"]


def _sent(target: Target, stores: Sequence[StoredSamples]) -> Verified | None:
    """Judge a target that has a sample now; None if it has none."""
    key = key_of_target(target)
    having = [store for store in stores if key in store.up]
    for store in having:
        if store.up[key] == 1:
            return _verified(target, Verdict.UP, scraper=store.name)
    if not having:
        return None
    url = f"{target.scheme}://{target.address}{target.path_and_query}"
    unit = _SERVED_BY.get(target.job)
    look = "systemctl list-units '*exporter*'" if unit is None else f"systemctl status {unit}"
    return _verified(
        target,
        Verdict.DOWN,
        f"its agent cannot scrape {url}",
        f"on {quote(target.machine)}: curl -i {quote(url)}; {look}",
        having[0].name,
    )


def _unknown(target: Target, unasked: Mapping[str, str]) -> Verified:
    if not unasked:
        return _verified(target, Verdict.UNKNOWN, _NO_STORE, _STORE_FIX)
    reason = f"could not ask {first_names(list(unasked), _NAMES_MOST)}, and no other store has a sample of now"
    name, fix = next(iter(unasked.items()))
    return _verified(target, Verdict.UNKNOWN, reason, fix, name)


def _silent(
    target: Target, stores: Sequence[StoredSamples], silent_after: float, sending: AbstractSet[str]
) -> Verified:
    """Judge a target without a sample now: a roaming machine may be offline for some time."""
    key = key_of_target(target)
    ages = {store.name: age for store in stores if (age := store.ages.get(key, silent_after)) < silent_after}
    name = min(ages, key=lambda store: ages[store], default=stores[0].name)
    said = f"no sample within {span(silent_after)}"
    if name in ages:
        said = f"no sample for {span(max(ages[name], 0.0))}"
        if target.patience == "roaming":
            reason = f"{said}: its machine comes and goes; down after {span(silent_after)}"
            return _verified(target, Verdict.PENDING, reason, scraper=name)
    reason, fix = _cause(target, said, sending)
    return _verified(target, Verdict.DOWN, reason, fix, name)


def _cause(target: Target, said: str, sending: AbstractSet[str]) -> tuple[str, str]:
    """Return the reason and the fix of a target that is silent for too long."""
    machine = quote(target.machine)
    unit = "clan-discovery-agent"
    if target.machine in sending:
        return (
            f"{said}, though its agent sends those of other targets",
            f"on {machine}: curl -s http://127.0.0.1:8429/targets; if {target.job} is not listed, deploy {machine}",
        )
    return said, f"on {machine}: systemctl status {unit}; journalctl -u {unit} -n 20; timedatectl"


def _verified(target: Target, verdict: Verdict, reason: str = "", fix: str = "", scraper: str = "") -> Verified:
    return Verified(
        job=target.job,
        machine=target.machine,
        instance=target.labels["instance"],
        address=target.address,
        verdict=verdict,
        reason=reason,
        fix=fix,
        scraper=scraper,
    )
