"""The fixture of the tests on a real NixOS."""

from __future__ import annotations

import pytest

from tests.support.nixos import Real


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    """Return a function that evaluates expressions with tests/nixos/real.nix; skip without the checkouts."""
    found = Real(tmp_path_factory.mktemp("nix"))
    found.ready()
    return found
