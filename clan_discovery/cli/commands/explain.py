"""Say why a machine has its targets, or none.

For each target, print its state, the rule that asks for it, where its address comes from, the URL that is scraped, and
what would end it. Of a machine, print also its services with their dependencies and health checks, and its fronts.
WHAT is a machine, a node of the network, an address (with or without a port), JOB/INSTANCE, a service, or the domain
(or URL) of a front.

for example:
  clan-discovery explain laptop --config config.yaml
  clan-discovery explain jellyfin grafana.example.org
  clan-discovery explain db 100.64.0.3 node/web
  clan-discovery explain db --format json | jq .[].targets[].url
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.cli.command import Args, Command, Parser, Streams, add_config, config_of
from clan_discovery.cli.cycle import address_times, dry_run
from clan_discovery.emit.explain import Explainer, documents, lines_of
from clan_discovery.emit.filter import did_you_mean_one_of
from clan_discovery.errors import Exit, InputError
from clan_discovery.model import Problem
from clan_discovery.round import limits_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clan_discovery.model import Explanation, Front


def _add(parser: Parser) -> None:
    add_config(parser)
    help_ = "a machine of the sources or of the network, an address, JOB/INSTANCE, a service, or a domain"
    parser.add_argument("what", metavar="WHAT", nargs="+", help=help_)
    help_ = "output format (default: text)"
    parser.add_argument("-f", "--format", choices=("text", "json"), default="text", help=help_)


def _run(args: Args, streams: Streams) -> Exit:
    """Explain everything that is asked for, or raise InputError for what is unknown."""
    loaded = config_of(args)
    plan, round_ = dry_run(loaded, streams)
    limits = limits_of(plan, round_.resolution)
    explainer = Explainer(plan.declared, round_.resolution, limits, address_times(loaded, streams))
    explanations: list[Explanation] = []
    unknown: list[Problem] = []
    for word in args.what:
        found = explainer.explain(word)
        explanations += found
        if not found:
            unknown.append(_unknown(word, explainer, plan.declared.refused))
    if unknown:
        raise InputError(unknown)
    if args.format == "json":
        from clan_discovery.emit.json import pretty  # noqa: PLC0415 - only for this format

        streams.out.write(pretty(documents(explanations)))
        return round_.exit_code
    for explanation in explanations:
        for line in lines_of(explanation):
            streams.print(line)
    return round_.exit_code


def _unknown(word: str, explainer: Explainer, refused: Iterable[Front]) -> Problem:
    """Say that nothing is known of a word, or that it is a front that is left out."""
    for front in refused:
        domain = front.domain.casefold()
        if word.casefold() in (domain, front.service.casefold()) or word.casefold().startswith(f"{domain}."):
            what = f"the front {front.domain} of service {front.service} is left out"
            return Problem(where=front.where, what=what, hint="see: clan-discovery check")
    hint = did_you_mean_one_of(word, explainer.words)
    return Problem(where="", what=f"{word!r} is neither declared nor seen", hint=hint)


COMMAND: Final = Command(__doc__, _add, _run)
