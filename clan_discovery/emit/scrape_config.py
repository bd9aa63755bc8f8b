"""Write the jobs as YAML for prometheus.yml: one for each target file, with the settings of the config."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from clan_discovery.syntax.yaml_text import yaml_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from clan_discovery.model import Json
    from clan_discovery.syntax.target_file import Split


def render_scrape_config(
    jobs: Iterable[str],
    directory: Path,
    settings: Mapping[str, Mapping[str, Json]],
    additional: Iterable[Mapping[str, Json]],
    split: Split,
) -> str:
    """Return `scrape_configs` with a job for the target files of each job in `directory`, then the additional jobs.

    `settings` are merged into the job of this name. The same input gives the same text.
    """
    configs: list[Json] = []
    for job in sorted(jobs):
        file_sd: Json = [{"files": [f"{directory}/{split.pattern(job)}.json"]}]
        configs.append({"job_name": job, "file_sd_configs": file_sd, **settings.get(job, {})})
    configs += ({"job_name": config.get("job_name"), **dict(sorted(config.items()))} for config in additional)
    return "\n".join(_lines({"scrape_configs": configs})) + "\n"


def _lines(value: Json) -> Iterator[str]:
    """Yield the lines of a value in YAML's block style; a scalar or an empty collection is one line."""
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from _entry(yaml_text(key), part)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for part in value:
            first, *others = _lines(part)
            yield f"- {first}"
            yield from (f"  {line}" for line in others)
    else:
        yield _scalar(value)


def _entry(key: str, value: Json) -> Iterator[str]:
    if isinstance(value, Mapping | list | tuple) and value:
        yield f"{key}:"
        yield from (f"  {line}" for line in _lines(value))
    else:
        yield f"{key}: {_scalar(value)}"


def _scalar(value: Json) -> str:
    if isinstance(value, str):
        return yaml_text(value)
    return json.dumps(value)
