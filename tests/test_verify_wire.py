"""Decode hostile bytes of scrapers: a value, or a WireError, in bounded memory."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.assemble.verification import parse_yaml_text
from clan_discovery.verify import wire
from clan_discovery.verify.jobs import scrape_jobs
from tests.support.answering import PROGRAMS, RECORDED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from clan_discovery.model import Json

DECODERS: Final[tuple[Callable[[bytes], object], ...]] = (
    wire.targets,
    wire.config_text,
    wire.series,
    wire.rules,
    wire.alertmanager_version,
    wire.grafana_version,
    wire.about,
    wire.flags,
)
RECORDS: Final = sorted(path for program in PROGRAMS for path in (RECORDED / program).iterdir())
KEYS: Final = (
    "action",
    "file_sd_configs",
    "files",
    "http_sd_configs",
    "job_name",
    "modulus",
    "params",
    "regex",
    "relabel_configs",
    "scrape_configs",
    "source_labels",
    "url",
)


def decode_all(body: bytes) -> None:
    """Decode bytes as everything that they could be; only a WireError is allowed."""
    for decode in DECODERS:
        with contextlib.suppress(wire.WireError):
            decode(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_an_error(body: bytes) -> None:
    decode_all(body)
    decode_all(b'{"status":"success","data":' + body)


@given(st.sampled_from(RECORDS), st.integers(0, 100_000), st.binary(min_size=1, max_size=8))
def test_damaged_records_are_a_value_or_an_error(record: Path, at: int, noise: bytes) -> None:
    """Real answers, truncated, and with other bytes in the middle."""
    body = record.read_bytes()
    at %= max(len(body), 1)
    decode_all(body[:at])
    decode_all(body[:at] + noise + body[at + len(noise) :])


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b'{"status":' + b"9" * 100_000])
def test_deep_and_long_values_are_refused(body: bytes) -> None:
    for decode in DECODERS[:5]:
        with pytest.raises(wire.WireError):
            decode(body)


def test_targets_of_two_bytes_are_refused() -> None:
    """A million of them would take a hundred times the memory of the answer."""
    body = b'{"status":"success","data":{"activeTargets":[' + b"{}," * 1_000_000 + b"{}]}}"
    with pytest.raises(wire.WireError, match="nearly empty"):
        wire.targets(body)
    with pytest.raises(wire.WireError, match="nearly empty"):
        wire.series(
            b'{"status":"success","data":{"resultType":"vector","result":[' + b'{"metric":{}},' * 100_000 + b"]}}"
        )
    few = b'{"status":"success","data":{"activeTargets":[{},{}]}}'
    assert len(wire.targets(few).active_targets or ()) == 2


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ({"__meta_consul_service": "x", "__meta_consul_tags": ",a,", "__meta_dc": "y"}, "consul"),
        ({"__meta_filepath": "/etc/a.json", "__meta_consul_service": "x"}, ""),
        ({"__meta_x": "x", "env": "lab"}, ""),
    ],
)
def test_the_kind_of_another_discovery_is_kept(labels: dict[str, str], kind: str) -> None:
    """Without the many labels of the target that tell it."""
    one = {"discoveredLabels": {"__address__": "10.0.0.1:9100", **labels}, "labels": {}, "scrapePool": "node"}
    body = json.dumps({"status": "success", "data": {"activeTargets": [one]}}).encode()
    found = [target.discovered_labels for target in wire.targets(body).active_targets or ()]
    assert [wire.discovery_kind(read) for read in found] == [kind]
    assert len(found[0]) <= 2


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(
                st.sampled_from(KEYS),
                inner,
                max_size=5,
            ),
        ),
        max_leaves=20,
    )
)
def test_config_of_any_shape_is_read(config: dict[str, str]) -> None:
    """What has another shape is left out."""
    for document in (config, {"scrape_configs": config}, {"scrape_configs": [config]}):
        for job in scrape_jobs(document):
            job.reads("node", ("node",), ("/targets",))


def test_expressions_of_a_config_are_bounded() -> None:
    """Ten thousand jobs could have any number of expressions of a MiB; those of other jobs are not compiled."""
    large: Json = {"source_labels": ["a"], "regex": "(.{1000})" * 9, "action": "keep"}
    entry: Mapping[str, Json] = {"file_sd_configs": [{"files": ["node.json"]}], "relabel_configs": [large]}
    jobs = scrape_jobs({"scrape_configs": [entry] * 200})
    assert len(jobs) == 200
    assert 0 < sum(job.rules is not None for job in jobs) < 100
    other = scrape_jobs({"scrape_configs": [{**entry, "file_sd_configs": []}]})
    assert [job.rules for job in other] == [None]


@pytest.mark.parametrize("text", ["{", "a: &a [*a]", "x" * 10 + ": " + "[" * 5000, "\x00", "a: 2001-01-01"])
def test_config_that_is_no_yaml_is_an_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_yaml_text(text)
