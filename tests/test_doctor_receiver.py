"""`doctor` knows the versions of VictoriaMetrics that a small request can stop."""

from __future__ import annotations

import pytest

from clan_discovery.doctor.receiver import takes_any_size


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("v1.79.5", True),
        ("v1.110.22", True),
        ("v1.110.23", False),
        ("v1.110.30", False),
        ("v1.111.0", True),
        ("v1.122.7", True),
        ("v1.122.8", False),
        ("v1.123.0", True),
        ("v1.129.0", True),
        ("v1.129.1", False),
        ("v1.146.0", False),
        ("v2.0.0", False),
        ("", False),
        ("heads-master", False),
    ],
)
def test_versions_that_decompress_without_a_limit(version: str, expected: bool) -> None:  # noqa: FBT001 - a parameter
    """Builds of distributions may tell no version."""
    line = f'vm_app_version{{version="victoria-metrics-20251114-tags-{version}-0-g1", short_version="{version}"}} 1\n'
    assert takes_any_size(line) is expected


def test_old_store_without_a_version() -> None:
    """A metric tells that it is older than 1.108."""
    assert takes_any_size('vm_app_version{version="", short_version=""} 1\nvm_metrics_with_dropped_labels_total 0\n')
