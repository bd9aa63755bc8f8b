"""Settings merge as in the module system of NixOS."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from clan_discovery.inventory.clan.service import LISTS
from clan_discovery.inventory.clan.settings import MalformedSettingsError, Merged, merge_settings, same
from tests.support.programs import checkout, program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.inventory.clan.settings import Lists
    from clan_discovery.model import Json

SERVER: Mapping[str, Lists] = {**LISTS["server"], **LISTS["exporter"]}


def fragment(*configs: Json) -> Json:
    """Wrap settings as clan writes them."""
    return {"imports": [{"_file": "inventory.nix", "imports": list(configs)}]}


def override(content: Json, priority: int) -> Json:
    """Write mkOverride; mkForce is priority 50, mkDefault 1000."""
    return {"_type": "override", "content": content, "priority": priority}


def merged(*fragments: Json) -> Merged:
    """Merge a role's fragment and others, as clan nests them."""
    role, *rest = fragments
    return merge_settings([{"imports": [role]}, {"imports": rest}], SERVER)


def values(*fragments: Json) -> Json:
    """Merge settings that must not conflict."""
    found = merged(*fragments)
    assert found.conflicts == ()
    return found.values


def test_fragments_are_unwrapped() -> None:
    """`imports` and `_file` belong to the module system and are no settings."""
    assert values(fragment({"port": 9100, "a": {"b": 1}})) == {"port": 9100, "a": {"b": 1}}


def test_plain_settings_are_unchanged() -> None:
    """A hand-written inventory has no wrappers."""
    assert values({"port": 9100}, {"path": "/m"}) == {"port": 9100, "path": "/m"}


def test_two_scalars_conflict_and_both_are_named() -> None:
    """Role, tag and machine have equal priority, so two different values are a conflict."""
    found = merged(fragment({"port": 9100}), fragment({"port": 9200}))
    (conflict,) = found.conflicts
    assert conflict.option == ("port",)
    assert set(conflict.values) == {9100, 9200}
    assert "port" not in found.values


def test_equal_scalars_agree_but_true_is_not_one() -> None:
    """Equal definitions merge; a boolean never equals a number."""
    assert values(fragment({"port": 9100}), fragment({"port": 9100})) == {"port": 9100}
    assert merged(fragment({"a": True}), fragment({"a": 1})).conflicts
    assert same(1, 1.0)
    assert not same([True], [1])


@pytest.mark.parametrize(
    ("role", "machine", "port"),
    [
        (9100, override(9200, 50), 9200),
        (override(9100, 1000), 9200, 9200),
        (override(9100, 50), override(9200, 49), 9200),
        ({"_type": "if", "condition": False, "content": 9100}, 9200, 9200),
        ({"_type": "if", "condition": True, "content": override(9100, 50)}, 9200, 9100),
        ({"_type": "merge", "contents": [override(9100, 1000), 9300]}, override(9200, 1000), 9300),
    ],
)
def test_priorities_and_conditions(role: Json, machine: Json, port: int) -> None:
    """MkForce beats plain, plain beats mkDefault, mkIf false is absent, mkMerge is both."""
    assert values(fragment({"port": role}), fragment({"port": machine})) == {"port": port}


def test_attribute_sets_merge_option_by_option() -> None:
    """Recursively, with the priority of each option."""
    role = fragment({"globalConfig": {"scrape_interval": "15s", "external": {"a": 1}}})
    machine = fragment({"globalConfig": {"scrape_interval": override("30s", 50), "external": {"b": 2}}})
    assert values(role, machine) == {"globalConfig": {"scrape_interval": "30s", "external": {"a": 1, "b": 2}}}


def test_declared_lists_concatenate_the_machines_first() -> None:
    """The service declares `rules` as a list; the module system reads the machine's definitions first."""
    assert values(fragment({"rules": ["role"]}), fragment({"rules": ["machine"]})) == {"rules": ["machine", "role"]}


def test_lists_in_a_submodule_are_in_definition_order() -> None:
    """Each evalModules reverses its definitions, so a nested one restores their order."""

    def collectors(*names: Json) -> Json:
        return fragment({"exporters": {"node": {"enabledCollectors": list(names)}}})

    assert values(collectors("role"), collectors("machine"), collectors("tag")) == {
        "exporters": {"node": {"enabledCollectors": ["role", "machine", "tag"]}}
    }
    assert values(fragment({"exporters": {"node": {"imports": [{"port": 1}], "config": {}}}})) == {
        "exporters": {"node": {"port": 1}}
    }


def test_lists_are_ordered_by_mkorder() -> None:
    """A plain list has 1000, mkBefore 500, mkAfter 1500."""
    role = fragment({"rules": {"_type": "order", "content": ["role"], "priority": 500}})
    assert values(role, fragment({"rules": ["machine"]})) == {"rules": ["role", "machine"]}


def test_undeclared_lists_must_be_equal() -> None:
    """A freeform list is not concatenated."""
    assert merged(fragment({"x": [1]}), fragment({"x": [2]})).conflicts
    assert values(fragment({"x": [1]}), fragment({"x": [1]})) == {"x": [1]}


def test_types_that_differ_conflict() -> None:
    """A string and an attribute set do not merge."""
    assert merged(fragment({"x": "a"}), fragment({"x": {"a": 1}})).conflicts


@pytest.mark.parametrize(
    "bad",
    [
        [1],
        {"imports": "x"},
        {"imports": [7]},
        {"port": {"_type": "override", "content": 1}},
        {"port": {"_type": "if", "content": 1}},
        {"port": {"_type": "merge"}},
        {"port": {"_type": "override", "priority": 50}},
    ],
)
def test_malformed_properties_are_refused(bad: Json) -> None:
    """A property without its parts is invalid."""
    with pytest.raises(MalformedSettingsError):
        merge_settings([bad], SERVER)


scalars = st.one_of(st.integers(0, 3), st.booleans(), st.sampled_from(["a", "b"]), st.none())
freeform = st.recursive(
    scalars | st.lists(st.integers(0, 2), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("pq"), inner, max_size=2),
    max_leaves=4,
)


def decide(condition: Json, content: Json) -> Json:
    """Write mkIf."""
    return {"_type": "if", "condition": condition, "content": content}


def both_of(contents: list[Json]) -> Json:
    """Write mkMerge."""
    return {"_type": "merge", "contents": contents}


def order(content: Json, priority: int) -> Json:
    """Write mkOrder."""
    return {"_type": "order", "content": content, "priority": priority}


def properties(of: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    """Wrap values in properties, in the nestings that Nix accepts."""
    forced = st.builds(override, of, st.sampled_from([50, 100, 1000]))
    decided = st.builds(decide, st.booleans(), st.one_of(of, forced))
    both = st.builds(both_of, st.lists(st.one_of(of, forced, decided), max_size=2))
    return st.one_of(of, of, forced, decided, both)


methods: st.SearchStrategy[Json] = st.one_of(
    st.none(),
    st.sampled_from(["tailscale", "dns"]),
    st.lists(st.sampled_from(["tailscale", "dns"]), max_size=2),
)
rules: st.SearchStrategy[Json] = st.lists(st.sampled_from(["r1", "r2", "r3"]), max_size=2)
exporter: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {}, optional={"enable": properties(st.booleans()), "x": freeform, "enabledCollectors": rules | properties(rules)}
)
exporters: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {"node": exporter | properties(exporter)}, optional={"mine": properties(exporter)}
)
ordered = st.builds(order, rules, st.sampled_from([500, 1500]))
configs: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {},
    optional={
        "x": properties(freeform),
        "y": properties(freeform),
        "discoveryMethod": methods | properties(methods),
        "rules": properties(st.one_of(rules, ordered)),
        "exporters": exporters | properties(exporters),
        "staticTargets": st.dictionaries(st.sampled_from(["node", "api"]), rules, max_size=2),
    },
)


def long_form(config: Json) -> Json:
    """Write a module with an explicit `config` beside keys of the module system."""
    return {"config": config, "key": "some-key", "_file": "x.nix"}


# In Nix a property within mkForce stays in the value (ours resolves it, ADR 2), so only plain settings are wrapped.
plain: st.SearchStrategy[Json] = st.fixed_dictionaries({}, optional={"x": freeform, "y": freeform, "rules": rules})
whole: st.SearchStrategy[Json] = st.one_of(
    st.builds(override, plain, st.sampled_from([50, 1000])),
    st.builds(decide, st.booleans(), configs),
    st.builds(both_of, st.lists(configs, max_size=2)),
    configs,
)
modules = st.one_of(configs, configs, whole.map(long_form))
fragments = st.lists(
    st.lists(modules, min_size=1, max_size=2).map(lambda parts: fragment(*parts)), min_size=1, max_size=3
)


# Mostly declared lists with several definitions, which random settings seldom have.
some: st.SearchStrategy[Json] = st.lists(st.sampled_from(["tailscale", "dns"]), min_size=1, max_size=2)
collecting: st.SearchStrategy[Json] = st.fixed_dictionaries({"enabledCollectors": some})
of_one: st.SearchStrategy[Json] = st.fixed_dictionaries({"node": collecting | exporter})
several: st.SearchStrategy[Json] = st.fixed_dictionaries({"discoveryMethod": some | methods, "exporters": of_one})
narrow = st.lists(several.map(fragment), min_size=2, max_size=3)


@given(st.lists(configs, min_size=1, max_size=4))
def test_merged_options_come_from_the_definitions(given_: list[Json]) -> None:
    """An option with a conflict has no value."""
    found = merge_settings(given_, SERVER)
    defined = {key for config in given_ if isinstance(config, dict) for key in config}
    assert set(found.values) <= defined


json_values: st.SearchStrategy[Json] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["_type", "content", "contents", "condition", "priority", "imports", "config", "x"]),
            inner | st.sampled_from(["override", "if", "merge", "order"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(json_values, min_size=1, max_size=3))
def test_any_json_is_merged_or_refused(given_: list[Json]) -> None:
    """Any document gives a result or our own error."""
    with contextlib.suppress(MalformedSettingsError):
        merge_settings(given_, SERVER)


NIX = """
{ lib, cases }:
let
  inherit (lib) mkOption types;
  interface = {
    freeformType = types.attrsOf types.anything;
    options.discoveryMethod =
      let method = types.enum [ "tailscale" "dns" ]; in
      mkOption { type = types.nullOr (types.either method (types.listOf method)); default = null; };
    options.exporters = mkOption {
      default = { };
      type = types.attrsOf (types.submodule {
        freeformType = types.attrsOf types.anything;
        options.enabledCollectors = mkOption { type = types.listOf types.str; default = [ ]; };
      });
    };
    options.rules = mkOption { type = types.listOf types.str; default = [ ]; };
    options.staticTargets = mkOption { type = types.attrsOf (types.listOf types.str); default = { }; };
  };
  # As clan-core nests them: the role's module one deeper, the machine's and the tags' imported by one module.
  eval = case: (lib.evalModules {
    modules = [
      { imports = [ interface ]; }
      { imports = [ (builtins.head case) ]; }
      { imports = builtins.tail case; }
    ];
  }).config;
  try = case:
    let value = builtins.removeAttrs (eval case) [ "_module" ];
        done = builtins.tryEval (builtins.deepSeq value value);
    in if done.success then { ok = done.value; } else { conflict = true; };
in map try cases
"""


def in_nix(cases: Sequence[Sequence[Json]], place: Path) -> list[dict[str, Json]]:
    """Merge the cases with the real module system."""
    library = checkout("NIXPKGS_LIB")
    root = next(p for p in (Path(library) / "lib", Path(library)) if (p / "modules.nix").is_file())
    (place / "cases.json").write_text(json.dumps(cases))
    (place / "merge.nix").write_text(NIX)
    expression = (
        f"import {place}/merge.nix {{ lib = import {root}; "
        f"cases = builtins.fromJSON (builtins.readFile {place}/cases.json); }}"
    )
    command = [program("nix-instantiate"), "--eval", "--strict", "--json", "--store", "dummy://", "-E", expression]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "NIX_PATH": ""}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[dict[str, Json]] = json.loads(done.stdout)
    return found


NO_COLLECTORS: Mapping[str, Json] = {"enabledCollectors": []}


def completed(values: Mapping[str, Json]) -> Mapping[str, Json]:
    """Add the defaults of the interface above, because a recorded answer may be older than an option."""
    exporters = values.get("exporters", {})
    assert isinstance(exporters, Mapping)
    each: dict[str, Json] = {}
    for name, settings_ in exporters.items():
        assert isinstance(settings_, Mapping)
        each[name] = {**NO_COLLECTORS, **settings_}
    return {"discoveryMethod": None, "rules": [], "staticTargets": {}, **values, "exporters": each}


def compare(case: list[Json], answer: dict[str, Json]) -> bool:
    """Merge one case and compare it with Nix's answer; return whether it is a conflict."""
    role, *rest = case
    found = merge_settings([{"imports": [role]}, {"imports": rest}], SERVER)
    if answer.get("conflict"):
        assert found.conflicts, case
        return True
    said = answer["ok"]
    assert isinstance(said, dict), case
    assert found.conflicts == (), case
    assert completed(found.values) == completed(said), case
    return False


def collected(strategy: st.SearchStrategy[list[Json]], examples: int) -> list[list[Json]]:
    """Return this many examples."""
    cases: list[list[Json]] = []

    @settings(
        max_examples=examples,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(strategy)
    def collect(case: list[Json]) -> None:
        cases.append(case)

    collect()
    return cases


def test_merging_agrees_with_nix(tmp_path: Path) -> None:
    """Hundreds of generated fragments, merged by nixpkgs' own module system."""
    cases = [*collected(fragments, 600), *collected(narrow, 200)]
    answers = in_nix(cases, tmp_path)
    assert len(answers) == len(cases)
    assert sum(map(compare, cases, answers)) > 10


RECORDED = Path(__file__).parent / "data/nix-settings.json"


def test_merging_agrees_with_recorded_answers_of_nix() -> None:
    """Recorded with nixpkgs' lib of 2026-06-14 and Nix 2.8.0, for machines without them."""
    recorded = json.loads(RECORDED.read_bytes())
    assert len(recorded) >= 200
    assert sum(compare(entry["case"], entry["answer"]) for entry in recorded) > 10
