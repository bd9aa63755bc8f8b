"""The status of machines: rows, what needs attention, filters, HTML and JSON."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import jsonschema
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY
from typing_extensions import override

from clan_discovery.cli.commands.schema import schema
from clan_discovery.emit.status import FleetView, StatusInput, is_web_url, targets_page
from clan_discovery.model import (
    Ambiguous,
    BeliefState,
    ChangeRecord,
    Declared,
    Exclusion,
    Frozen,
    Ghost,
    InputStatus,
    Machine,
    MachineStatus,
    Missing,
    Problem,
    Program,
    Shard,
    ShardMember,
    Since,
    Stray,
    TargetStatus,
    Verdict,
    Verified,
    one_line,
)
from clan_discovery.web.pages import machine_url, render_fleet, render_machine, render_message
from clan_discovery.web.query import PER_PAGE, Query, matching, paginated, read_query
from tests.support.status import AT, DAY, report_of, small_fleet, small_input, small_status, verification_of, verified

if TYPE_CHECKING:
    from clan_discovery.model import Attention, FleetStatus, Json

GOLDEN = Path(__file__).parent / "data/status.html"


def page(status: FleetView, *, failing: str = "", **query: str) -> str:
    """Return the first page with these filters."""
    asked = read_query(query)
    selected = paginated(matching(status.fleet.machines, asked), asked.page)
    return render_fleet(status.fleet, asked, selected, failing=failing).decode()


def machine_page(status: FleetView, name: str) -> str:
    """Return the page of a machine."""
    detail = status.machine(name)
    assert detail is not None
    return render_machine(status.fleet, detail, failing="").decode()


def row(fleet: FleetStatus, name: str) -> MachineStatus:
    """Return one machine."""
    return next(machine for machine in fleet.machines if machine.name == name)


def attention(given: StatusInput) -> dict[str, Attention]:
    """Return what needs attention, by kind."""
    return {found.kind: found for found in FleetView(given).fleet.attention}


def changed(**changes: object) -> StatusInput:
    """Return the input of a small fleet whose resolution differs."""
    given = small_input()
    resolution = msgspec.structs.replace(given.report.resolution, **changes)
    return msgspec.structs.replace(given, report=report_of(resolution), verification=None)


def test_each_machine_has_one_row_with_state_verdicts_and_since() -> None:
    fleet = small_status().fleet
    assert [machine.name for machine in fleet.machines] == [
        "attic", "db", "laptop", "monitor", "nas", "web", "printer", "pixel",
    ]  # fmt: skip
    assert {machine.name: machine.state for machine in fleet.machines} == {
        "attic": "missing",
        "db": "seen",
        "laptop": "offline",
        "monitor": "seen",
        "nas": "seen",
        "web": "seen",
        "printer": "stray",
        "pixel": "excluded",
    }
    nas = row(fleet, "nas")
    assert [(t.job, t.verdict, t.backend) for t in nas.targets] == [
        ("node", "up", "tailnet"),
        ("systemd", "down", "tailnet"),
    ]
    assert row(fleet, "pixel").reason.startswith("phone_or_tv: ")
    assert row(fleet, "printer").since is None
    assert fleet.targets == 12
    assert fleet.states == {"seen": 4, "offline": 1, "missing": 1, "excluded": 1, "stray": 1}
    assert fleet.verdicts == {"up": 6, "down": 2, "wrong_machine": 1}


def test_since_is_the_newest_change_of_state_or_address() -> None:
    given = small_input()
    at = int(AT)
    by_history = msgspec.structs.replace(given, changes=(ChangeRecord(at=at - 5, what="offline", machine="db"),))
    assert row(FleetView(by_history).fleet, "db").since == Since(at - 5, is_exact=True)
    by_address = msgspec.structs.replace(given, changes=(ChangeRecord(at=at - 90 * DAY, what="back", machine="db"),))
    since = row(FleetView(by_address).fleet, "db").since
    assert since is not None
    assert since.at > at - 90 * DAY
    # The first target of the fleet is there since the history began, or longer.
    assert "none for" in page(FleetView(msgspec.structs.replace(given, changes=())))


def test_machine_page_names_the_servers_of_each_target() -> None:
    """With a shard: the servers and why; every server for a job that is not shared. Nothing without a shard."""
    members = (ShardMember("mon<1>"), ShardMember("mon2"), ShardMember("mon3", state="leaving"))
    shard = Shard(member="mon2", members=members, replicas=1, unshared=("systemd",))
    given = small_input()
    servers = {"node": ("mon<1>", "mon3"), "systemd": ()}
    targets = [msgspec.structs.replace(t, servers=servers[t.job]) for t in given.report.resolution.targets]
    html = machine_page(FleetView(changed(shard=shard, targets=tuple(targets))), "nas")
    why = "the highest score of 2 active members; mon3 is leaving; not this server, mon2"
    assert [part.partition("</dd>")[0] for part in html.split("<dt>Published by</dt><dd>")[1:]] == [
        f"mon&lt;1&gt;, mon3 <small>{why}</small>",
        "every server <small>job systemd is not shared (shard.unshared)</small>",
    ]
    assert "Published by" not in machine_page(FleetView(given), "nas")


def test_without_verification_there_are_no_verdicts() -> None:
    status = FleetView(msgspec.structs.replace(small_input(), verification=None))
    assert status.fleet.verified_at is None
    assert "Scraped" not in page(status)
    assert "the scrapers are not asked" in page(status)


def test_declared_machine_without_a_target_says_why() -> None:
    given = small_input()
    resolution = given.report.resolution
    targets = tuple(t for t in resolution.targets if t.machine != "db")
    without = row(FleetView(changed(targets=targets)).fleet, "db")
    assert (without.state, without.declared) == ("excluded", True)
    assert "no rule picks it" in without.reason
    off = Exclusion(name="DB", reason="disabled", detail="enable is false", by="inventory")
    excluded = row(FleetView(changed(targets=targets, excluded=(off,))).fleet, "db")
    assert excluded.reason == "disabled: enable is false"
    dropped = changed(targets=targets, missing=(Missing(machine="db", jobs=("node",), similar=("db1",)),))
    assert row(FleetView(dropped).fleet, "db").state == "missing"
    assert "db1" in row(FleetView(dropped).fleet, "db").reason


def test_small_fleet_needs_attention_for_what_is_wrong_with_it() -> None:
    fleet = small_status().fleet
    found = [(a.kind, a.level, a.title, [item.about for item in a.items]) for a in fleet.attention]
    # The missing attic explains why its target is down: that is not listed a second time.
    assert found == [
        ("missing", "error", "1 machine is missing", ["attic"]),
        ("wrong_machine", "error", "1 target is answered by another machine", ["node/web"]),
        ("down", "error", "1 target is down", ["systemd/nas"]),
        ("stray", "warning", "1 node is not declared", ["printer"]),
    ]
    assert fleet.attention[2].items[0].fix == "on nas: systemctl list-units '*exporter*'"


def test_healthy_fleet_needs_no_attention() -> None:
    given = small_input()
    resolution = given.report.resolution
    healthy = msgspec.structs.replace(
        resolution, missing=(), stray=(), targets=tuple(t for t in resolution.targets if t.machine != "attic")
    )
    status = FleetView(
        msgspec.structs.replace(given, report=report_of(healthy), verification=verification_of(healthy, {}))
    )
    # attic is declared, and has no target: a machine without an exporter is not a mistake.
    assert status.fleet.attention == ()
    assert "Nothing needs attention." in page(status)


def test_held_loss_shows_the_command_that_accepts_it() -> None:
    belief = small_input().report.resolution.beliefs[0]
    held = msgspec.structs.replace(belief, state=BeliefState.HELD, why="lost 5 of 6 machines", age=600.0)
    found = attention(changed(beliefs=(held,)))["held"]
    assert found.items[0].what == "lost 5 of 6 machines; the answer before that, 10 m old, is used"
    accept = "clan-discovery refresh --accept-shrink --config /etc/clan-discovery/config.yaml"
    assert found.items[0].fix == accept


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (BeliefState.KEPT, "its last good answer, 10 m old, is used"),
        (BeliefState.PARTIAL, "their last good answers are used"),
        (BeliefState.EXPIRED, "too old to be used"),
        (BeliefState.UNKNOWN, "there is no last good answer"),
    ],
)
def test_failing_backend_is_listed_with_its_error_and_age(state: BeliefState, words: str) -> None:
    belief = small_input().report.resolution.beliefs[0]
    failing = msgspec.structs.replace(belief, state=state, why="no such socket", hint="is it up?", age=600.0)
    found = attention(changed(beliefs=(failing,)))["backend"]
    assert found.items[0].about == "tailnet"
    assert found.items[0].what.startswith("no such socket; ")
    assert words in found.items[0].what
    assert found.items[0].fix == "is it up?"


def test_other_things_that_need_attention() -> None:
    given = changed(
        frozen=(Frozen("node", "tailnet", AT, AT + 60, "tailnet does not answer"),),
        ambiguous=(Ambiguous(name="db", backend="tailnet", claims=("db", "db-1")),),
        problems=(Problem(where="config.yaml:3", what="unused", hint="remove it", severity="warning"),),
    )
    unread = InputStatus(ok=False, succeeded_at=AT - 7200)
    report = msgspec.structs.replace(given.report, config=unread, inventory=unread, flake=unread)
    resolution = report.resolution
    silent = Program(name="other", url="http://127.0.0.1:1", ok=False, reason="connection refused")
    ghost = Ghost(scraper="main", job="node", instance="old", address="old:9100", reason="in no list", fix="remove it")
    verification = msgspec.structs.replace(verification_of(resolution, {}), asked=(silent,), ghosts=(ghost,))
    found = attention(msgspec.structs.replace(given, report=report, verification=verification))
    assert [item.about for item in found["input"].items] == ["config", "inventory", "flake"]
    assert "2 h old" in found["input"].items[0].what
    assert found["input"].items[0].fix == "clan-discovery check --config /etc/clan-discovery/config.yaml"
    assert found["frozen"].items[0].what.startswith("tailnet does not answer; its present file is kept until ")
    assert found["program"].items[0].what == "http://127.0.0.1:1: connection refused"
    assert found["ghost"].items[0].about == "node/old"
    assert "db-1" in found["ambiguous"].items[0].what
    assert found["problem"].items[0].what == "unused (remove it)"


def test_one_cause_of_many_targets_is_listed_once() -> None:
    given = small_input()
    resolution = given.report.resolution
    nodes = [target for target in resolution.targets if target.job == "node"]
    silent = Program(name="scraper", url="", ok=False, reason="no scraper answers", fix="verify: {scrapers: {}}")
    for verdict, fix in ((Verdict.UNKNOWN, ""), (Verdict.NOT_READ, "on {}: read it")):
        verdicts = {
            (t.job, t.machine): verified(t.job, t.machine, verdict, "no job", fix.format(t.machine)) for t in nodes
        }
        verification = msgspec.structs.replace(verification_of(resolution, verdicts), asked=(silent,))
        status = FleetView(msgspec.structs.replace(given, verification=verification))
        found = {a.kind: a for a in status.fleet.attention}
        (item,) = found[verdict].items
        assert item.count == found[verdict].total == len(nodes)
        assert item.about.endswith(f"and {len(nodes) - 3} more")
        assert found["program"].items[0].what == "no scraper answers"
        html = page(status)
        assert html.count("no job") == 1
        assert '<li class="more">' not in html


def test_each_thing_that_is_wrong_has_a_fix() -> None:
    fleet = small_status().fleet
    assert [item.fix for item in fleet.attention[0].items] == [
        "clan-discovery explain attic --config /etc/clan-discovery/config.yaml"
    ]
    assert all(item.fix for kind in fleet.attention for item in kind.items)


def test_stray_that_may_be_a_missing_machine_has_an_alias_as_its_fix() -> None:
    found = attention(changed(stray=(Stray(name="attic-1", backend="tailnet", alias="attic"),)))
    assert found["missing"].items[0].fix == "aliases: {attic-1: attic}"
    assert found["stray"].items[0].fix == "aliases: {attic-1: attic}"


def test_long_lists_are_cut_and_counted() -> None:
    strays = tuple(Stray(name=f"n{number:04d}", backend="tailnet") for number in range(1234))
    status = FleetView(changed(stray=strays))
    found = {a.kind: a for a in status.fleet.attention}["stray"]
    assert (found.title, len(found.items), found.total) == ("1,234 nodes are not declared", 5, 1234)
    assert "and 1,229 more" in page(status)


def test_every_state_and_verdict_has_a_look() -> None:
    fleet = small_status().fleet
    targets = tuple(
        TargetStatus(job=f"j{n}", instance="a", address="a:1", state="seen", verdict=verdict)
        for n, verdict in enumerate(Verdict)
    )
    machine = MachineStatus(name="a", state="seen", declared=True, targets=targets)
    html = render_fleet(fleet, Query(), paginated((machine,), 1), failing="").decode()
    for verdict in Verdict:
        assert f">{verdict.replace('_', ' ')}</span>" in html
    # The worst verdict comes first.
    assert (
        html.index(">wrong machine</span>")
        < html.index(">down</span>", html.index("<tbody"))
        < html.index(">up</span>")
    )


def test_failing_cycles_are_at_the_top() -> None:
    html = page(small_status(), failing="the last refresh cycle failed: disk <full>")
    assert 'role="alert"' in html
    assert "disk &lt;full&gt;" in html
    assert html.index("alert") < html.index("Needs attention")


def test_filters_select_machines_and_keep_their_order() -> None:
    machines = small_status().fleet.machines

    def names(**query: str) -> list[str]:
        return [machine.name for machine in matching(machines, read_query(query))]

    assert names() == [machine.name for machine in machines]
    assert names(state="missing") == ["attic"]
    assert names(state="stray") == ["printer"]
    assert names(verdict="down") == ["attic", "nas"]
    assert names(job="systemd", verdict="down") == ["attic", "nas"]
    assert names(job="nothing") == []
    assert names(q="100.64.0.3") == ["web"]
    assert names(q="TAILNET Offline") == ["laptop"]
    assert names(q="nas down", state="seen") == ["nas"]


@given(page_=st.text(), q=st.text(max_size=300))
@example(page_="0", q="")
@example(page_="99999999999999999999", q="x")
@example(page_="-1", q="")
@example(page_="²", q="")
def test_any_query_is_a_page(page_: str, q: str) -> None:
    query = read_query({"page": page_, "q": q})
    assert query.page >= 1
    assert len(query.q) <= 200
    selected = paginated((), query.page)
    assert (selected.page, selected.pages, list(selected.machines)) == (1, 1, [])


def test_page_makes_only_the_rows_that_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The totals and what needs attention are known before any row is made."""
    made: list[str] = []

    def counting(name: str, **values: object) -> MachineStatus:
        made.append(name)
        return msgspec.convert({"name": name, **values}, MachineStatus)

    monkeypatch.setattr("clan_discovery.emit.status.MachineStatus", counting)
    names = [f"m{number:03}" for number in range(3 * PER_PAGE)]
    declared = Declared(machines=tuple(Machine(name=name) for name in names))
    view = FleetView(StatusInput(declared=declared, report=report_of(small_fleet()[1])))
    assert sum(view.fleet.states.values()) >= len(names)
    before = len(made)
    shown = paginated(view.fleet.machines, 2).machines
    assert len(made) - before == len(shown) == PER_PAGE
    assert before < 20
    assert list(view.fleet.machines[PER_PAGE:-1])[:PER_PAGE] == shown
    assert view.fleet.machines[-1] == list(view.fleet.machines)[-1]


def test_totals_are_those_of_the_rows() -> None:
    fleet = small_status().fleet
    for state, count in fleet.states.items():
        assert count == len(matching(fleet.machines, read_query({"state": state})))
    for verdict, count in fleet.verdicts.items():
        assert count == len(matching(fleet.machines, read_query({"verdict": verdict})))
    assert {machine.state for machine in fleet.machines} <= fleet.states.keys()


def test_pages_cover_every_machine_once() -> None:
    machines = [MachineStatus(name=f"m{n}", state="seen", declared=True) for n in range(2 * PER_PAGE + 1)]
    found = [paginated(machines, number) for number in (1, 2, 3)]
    assert [machine for part in found for machine in part.machines] == machines
    assert [(part.first, part.last, part.pages) for part in found] == [(1, 100, 3), (101, 200, 3), (201, 201, 3)]
    assert paginated(machines, 4).page == 3


@given(st.builds(Query, q=st.text(max_size=50), state=st.text(max_size=9), page=st.integers(1, 99)))
def test_link_to_a_page_keeps_the_filters(query: Query) -> None:
    words = {name: values[0] for name, values in parse_qs(query.text.removeprefix("?")).items()}
    stripped = msgspec.structs.replace(query, q=query.q.strip(), state=query.state.strip())
    assert read_query(words) == stripped


def test_machine_page_explains_and_links() -> None:
    status = small_status()
    html = machine_page(status, "WEB")
    assert "the machine there calls itself printer" in html
    assert "clan-discovery explain web</code>" in html
    assert 'href="https://grafana.example.org/d/abc?var-instance=web"' in html
    assert 'href="http://127.0.0.1:9090/targets?pool=node&amp;search=web"' in html
    assert "inventory: instance monitoring, role exporter, tag all" in html
    assert "No change is recorded." in html
    assert "100.64.0.9:9100</code> to <code>100.64.0.2:9100" in machine_page(status, "db")
    assert "missing: every backend was asked" in machine_page(status, "attic")
    assert "phone" in machine_page(status, "pixel")
    assert status.machine("nobody") is None


def test_changes_of_a_machine_are_newest_first_and_limited() -> None:
    changes = tuple(ChangeRecord(at=number, what="missing", machine="db") for number in range(200))
    detail = FleetView(msgspec.structs.replace(small_input(), changes=changes)).machine("db")
    assert detail is not None
    assert [change.at for change in detail.changes] == list(range(199, 149, -1))


def test_scraper_links_are_for_its_kind() -> None:
    assert targets_page("prometheus", "http://p:1/", "node", "a b") == "http://p:1/targets?pool=node&search=a+b"
    query = parse_qs(urlsplit(targets_page("vmagent", "http://v:1", "node", 'a"b')).query)
    assert query == {"label_search": ['{job="node",instance="a\\"b"}']}


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "file:///etc/passwd", "http://", "//host", "http://a:b@host/", "http://[", ""]
)
def test_urls_that_are_not_links_are_left_out(url: str) -> None:
    assert not is_web_url(url)
    given = msgspec.structs.replace(small_input(), verification=None, scrapers={"main": url})
    detail = FleetView(given).machine("web")
    assert detail is not None
    assert detail.scrapes == {"node": (), "systemd": ()}


@pytest.mark.parametrize(
    "name", ["..", ".", "", "a/b", "a?b", "a#b", "a%2Fb", "a b", "ä", "\u202e", "\\", "-", "a\x00", "//x", "a:b"]
)
def test_odd_names_are_in_the_query_of_their_link(name: str) -> None:
    url = urlsplit(machine_url(name))
    assert (url.scheme, url.netloc, url.path, url.fragment) == ("", "", "machines/", "")
    assert parse_qs(url.query, keep_blank_values=True) == {"name": [name]}


def test_ordinary_names_are_in_the_path() -> None:
    assert machine_url("web-1.home.arpa") == "machines/web-1.home.arpa"


class Tree(HTMLParser):
    """The structure of a page: its tags with the names of their attributes; and its links and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.structure: list[object] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.structure.append((tag, [name for name, _ in attrs]))
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]

    @override
    def handle_endtag(self, tag: str) -> None:
        self.structure.append(tag)

    @override
    def handle_data(self, data: str) -> None:
        self.text += data

    @override
    def handle_comment(self, data: str) -> None:
        self.structure.append("comment")

    @override
    def handle_pi(self, data: str) -> None:
        self.structure.append("instruction")


def hostile_status(text: str) -> FleetView:
    """Return a fleet with one text in every field that others choose."""
    given = small_input()
    resolution = given.report.resolution
    name = f"h{text}"
    targets = tuple(
        msgspec.structs.replace(
            t, machine=name, labels={**t.labels, "instance": text}, because=text, located=text, backend=text, job=text
        )
        if t.machine == "db"
        else t
        for t in resolution.targets
    )
    hostile = msgspec.structs.replace(
        resolution,
        targets=targets,
        jobs=(text, *resolution.jobs),
        stray=(Stray(name=f"s{text}", backend=text, tags=(text,)),),
        missing=(Missing(machine="attic", jobs=("node",), similar=(text,)),),
        excluded=(Exclusion(name=f"e{text}", reason="ignored", detail=text, by=text, job=text),),
        ambiguous=(Ambiguous(name=text, backend=text, claims=(text,)),),
        problems=(Problem(where=text, what=text, hint=text, severity="warning"),),
        frozen=(Frozen("node", text, AT, None, text),),
    )
    verdicts = (
        Verified(
            job=text,
            machine=name,
            instance=text,
            address="a:1",
            verdict=Verdict.DOWN,
            reason=text,
            fix=text,
            scraper=text,
        ),
    )
    asked = (
        Program(name=text, url="http://127.0.0.1:9090", kind="prometheus"),
        Program(name=text, url=text, ok=False, reason=text, fix=text),
    )
    ghosts = (Ghost(scraper=text, job=text, instance=text, address=text, reason=text, fix=text),)
    verification = msgspec.structs.replace(
        verification_of(resolution, {}), targets=verdicts, asked=asked, ghosts=ghosts
    )
    change = ChangeRecord(at=1, what="renamed", machine=name, job=text, instance=text, old=text, new=text, backend=text)
    return FleetView(
        msgspec.structs.replace(
            given,
            report=report_of(hostile),
            verification=verification,
            changes=(change,),
            dashboards={text: "https://grafana.example.org/{machine}"},
            config=text,
        )
    )


MARKUP = st.sampled_from(
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='x", "</title>", "<!--", "-->", "{{ 7*7 }}", "{% x %}", "&lt;", "&", "]]>", "javascript:alert(1)", "\x00", "\u2028", "\u202e", "%3Cscript%3E", "\ud800"]  # noqa: E501
)  # fmt: skip
HOSTILE = (
    st.lists(MARKUP | st.text(max_size=5), min_size=1, max_size=4).map("".join).filter(lambda text: text.strip() != "")
)


@given(HOSTILE)
@example("x" * 300)
@example("x" * 10_000)
@example("<b>" * 3000)
def test_hostile_text_does_not_change_the_structure_of_a_page(text: str) -> None:
    """Names, operating systems and hints come from other people."""
    shown = one_line(text)
    hostile, plain = hostile_status(text), hostile_status("x" * len(shown))
    for query in ({}, {"q": text}):
        found, expected = Tree(page(hostile, **query)), Tree(page(plain, **dict.fromkeys(query, "x")))
        if not query:
            assert found.structure == expected.structure
        assert all(
            link.startswith((".", "?", "machines/", "api/", "page.css", "icon.svg", "#main")) for link in found.links
        )
    for prefix in "hse":
        html = machine_page(hostile, f"{prefix}{shown}")
        assert all(character.isprintable() or character == "\n" for character in html)
        found, expected = (
            Tree(html),
            Tree(machine_page(plain, prefix + "x" * len(shown))),
        )
        assert found.structure == expected.structure
        outside = ("https://grafana.example.org/", "http://127.0.0.1:9090/targets?")
        assert all(link.startswith(("../", "#main", *outside)) for link in found.links)
    if len(shown) < 50:
        assert shown in Tree(page(hostile)).text


@given(HOSTILE)
def test_hostile_text_is_the_same_text_in_json(text: str) -> None:
    status = hostile_status(text)
    document: dict[str, Json] = json.loads(status.fleet_json(status.fleet.machines, 8))
    check(document, "machines")
    machines = document["machines"]
    assert isinstance(machines, list)
    shown = one_line(f"h{text}")
    assert shown in [machine["name"] for machine in machines if isinstance(machine, dict)]
    detail = status.machine(shown)
    assert detail is not None
    check(json.loads(status.machine_json(detail)), "machine")


def check(document: Json, name: str) -> None:
    """Check a document with its schema."""
    names = ("explain", name)
    resources = [(f"urn:clan-discovery:schema:{one}", DRAFT202012.create_resource(schema(one))) for one in names]
    registry = EMPTY_REGISTRY.with_resources(resources)
    jsonschema.validate(document, schema(name), cls=jsonschema.Draft202012Validator, registry=registry)


def test_json_has_what_the_page_shows() -> None:
    status = small_status()
    machines = matching(status.fleet.machines, read_query({"verdict": "down"}))
    document = json.loads(status.fleet_json(machines, len(machines)))
    check(document, "machines")
    assert document["total"] == 2
    assert [machine["name"] for machine in document["machines"]] == ["attic", "nas"]
    assert document["as_of"] == "2026-11-20T12:00:00Z"
    assert document["attention"][0]["title"] == "1 machine is missing"
    detail = status.machine("db")
    assert detail is not None
    found = json.loads(status.machine_json(detail))
    check(found, "machine")
    assert found["changes"][0]["old"] == "100.64.0.9:9100"
    assert found["explanation"]["targets"][0]["url"] == "http://100.64.0.2:9100/metrics"
    assert found["scrapes"]["node"] == [{"title": "main", "url": "http://127.0.0.1:9090/targets?pool=node&search=db"}]


def test_page_is_as_the_golden_file() -> None:
    """To write it: python -m tests.test_status."""
    assert page(small_status()) == GOLDEN.read_text()


def test_message_page_escapes_its_text() -> None:
    html = render_message("Not found", "<b>").decode()
    assert "&lt;b&gt;" in html


def test_unknown_time_is_not_in_the_future() -> None:
    """A change of a clock that went back is 0 s ago."""
    given = small_input()
    future = int((given.report.resolution.taken_at + timedelta(hours=1)).timestamp())
    status = FleetView(msgspec.structs.replace(given, changes=(ChangeRecord(at=future, what="back", machine="db"),)))
    assert ">0 s ago<" in machine_page(status, "db")


def test_verdict_of_an_unknown_target_is_ignored() -> None:
    declared, resolution = small_fleet()
    old = (verified("node", "gone", Verdict.DOWN),)
    verification = msgspec.structs.replace(verification_of(resolution, {}), targets=old)
    fleet = FleetView(StatusInput(declared=declared, report=report_of(resolution), verification=verification)).fleet
    assert fleet.verdicts == {}


if __name__ == "__main__":
    sys.stdout.write(f"{GOLDEN.write_text(page(small_status()))} characters\n")
