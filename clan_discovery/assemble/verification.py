"""Make what `verify` needs of the config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.assemble.plan import directories
from clan_discovery.config.models import RulesAccess
from clan_discovery.memory import history_path
from clan_discovery.verify.settings import LOCAL_SCRAPERS, AskedProgram, VerifySettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.config.models import ProgramAccess
    from clan_discovery.model import Json
    from clan_discovery.verify.settings import ProgramKind

_MOST_VALUES: Final = 300_000


def verify_settings(loaded: LoadedConfig) -> VerifySettings:
    """Return the programs to ask; without scrapers in the config, those of this machine."""
    config = loaded.config.verify
    scrapers = tuple(_access("scraper", name, found) for name, found in config.scrapers.items())
    kinds: tuple[tuple[ProgramKind, Mapping[str, ProgramAccess]], ...] = (
        ("rules", config.rules),
        ("alertmanager", config.alertmanager),
        ("loki", config.loki),
        ("victorialogs", config.victorialogs),
        ("grafana", config.grafana),
    )
    programs = [_access(kind, name, found) for kind, programs in kinds for name, found in programs.items()]
    web, served = loaded.config.web, ""
    if web is not None:
        served = f"http://{web.listen}"
        if not web.allow:  # on the tailnet, `allow` may refuse this machine itself
            programs.append(AskedProgram(name="clan-discovery", kind="clan-discovery", url=served))
    places = directories(loaded)
    return VerifySettings(
        scrapers=scrapers or LOCAL_SCRAPERS,
        programs=tuple(programs),
        timeout=config.timeout,
        silent_after=loaded.config.policy.silent_after,
        pushed=config.pushed,
        directory=None if places.no_files else places.directory,
        served=served,
        history=history_path(places.state_directory, places.directory),
        split=loaded.config.output.split,
        parse_yaml=parse_yaml_text,
    )


def _access(kind: ProgramKind, name: str, found: ProgramAccess) -> AskedProgram:
    username, password_file = "", None
    if found.basic_auth is not None:
        username, password_file = found.basic_auth.username, found.basic_auth.password_file
    files: tuple[Path, ...] = ()
    if isinstance(found, RulesAccess):
        files = tuple(found.files)
    return AskedProgram(
        name=name,
        kind=kind,
        url=found.url,
        bearer_token_file=found.bearer_token_file,
        username=username,
        password_file=password_file,
        ca_file=found.ca_file,
        files=files,
    )


def parse_yaml_text(text: str) -> Json:
    """Parse the config of a scraper.

    Raises:
        ValueError: it is not YAML, or has too many values.
    """
    from clan_discovery.syntax.tree import TreeError, parse_yaml  # noqa: PLC0415 - yaml, only where it is used

    try:
        return parse_yaml(text, most=_MOST_VALUES).value
    except TreeError as error:
        raise ValueError(error.what) from None
