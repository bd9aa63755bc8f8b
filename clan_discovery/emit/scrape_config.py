"""Write the jobs as YAML for prometheus.yml: one for each target file, with the settings of the config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clan_discovery.syntax.yaml_block import yaml_block

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
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
    return yaml_block({"scrape_configs": configs})
