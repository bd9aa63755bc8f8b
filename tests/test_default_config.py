"""Which config a command reads if the command line names none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clan_discovery.cli.config_file import default_config
from clan_discovery.errors import InputError
from tests.conftest import ROOT, Done

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., Done]

LOCAL = Path("clan-discovery.yaml")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, ...]:
    """Change to an empty directory; return paths that stand for those in /etc."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return tmp_path / "config.yaml", tmp_path / "config.json"


def test_first_existing_default_config_is_used(system: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment, the working directory, the system's YAML, the system's JSON."""
    yaml, json = system
    json.touch()
    assert default_config(LOCAL, system) == json
    yaml.touch()
    assert default_config(LOCAL, system) == yaml
    LOCAL.touch()
    assert default_config(LOCAL, system) == LOCAL
    monkeypatch.setenv("CLAN_DISCOVERY_CONFIG", "elsewhere.yaml")
    assert default_config(LOCAL, system) == Path("elsewhere.yaml")
    monkeypatch.setenv("CLAN_DISCOVERY_CONFIG", "")  # set to nothing counts as not set
    assert default_config(LOCAL, system) == LOCAL


def test_missing_config_error_lists_the_default_paths(system: tuple[Path, ...]) -> None:
    """One problem with the paths in order, and what to do."""
    with pytest.raises(InputError) as caught:
        default_config(LOCAL, system)
    (problem,) = caught.value.problems
    names = ["$CLAN_DISCOVERY_CONFIG", "./clan-discovery.yaml", *map(str, system)]
    places = [problem.what.index(name) for name in names]
    assert places == sorted(places)
    assert problem.hint is not None
    assert "--config FILE" in problem.hint
    assert "clan-discovery init" in problem.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_config_of_another_user_is_refused(system: tuple[Path, ...]) -> None:
    """In the working directory: the file itself, their symlink to our file, and our symlink to their file."""
    ours, theirs = Path("ours"), Path("theirs")
    ours.touch()
    theirs.touch()
    os.chown(theirs, 1, 1)
    LOCAL.symlink_to(theirs)
    with pytest.raises(InputError, match="belongs to user"):
        default_config(LOCAL, system)
    LOCAL.unlink()
    LOCAL.symlink_to(ours)
    assert default_config(LOCAL, system) == LOCAL
    os.chown(LOCAL, 1, 1, follow_symlinks=False)
    with pytest.raises(InputError, match=r"^clan-discovery.yaml: belongs to user .*--config clan-discovery.yaml"):
        default_config(LOCAL, system)


def test_dangling_symlink_is_not_skipped(system: tuple[Path, ...]) -> None:
    """It is used, and loading it fails; another config would be unexpected."""
    LOCAL.symlink_to("gone.yaml")
    system[0].touch()
    assert default_config(LOCAL, system) == LOCAL


def test_commands_read_the_default_config(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$CLAN_DISCOVERY_CONFIG wins over the working directory, and --config over both."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / LOCAL).symlink_to(ROOT / "examples/static/config.yaml")
    done = run("check")
    assert (done.code, done.err) == (0, "")
    monkeypatch.setenv("CLAN_DISCOVERY_CONFIG", "/nowhere.yaml")
    assert run("check").code == 2
    assert run("check", "-c", LOCAL).code == 0
