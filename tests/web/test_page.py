"""The status page in a real browser: widths, colours, keyboard, roles, filters, hostile names."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Final

import msgspec
import pytest
from playwright.sync_api import Page, sync_playwright

from clan_discovery.emit.status import FleetView, StatusInput
from clan_discovery.model import Stray, one_line
from tests.support.fleet import fleet, inventory
from tests.support.programs import eventually, free_port, program
from tests.support.status import report_of, served, small_input, small_status
from tests.test_http import status
from tests.test_run import resident
from tests.test_status import hostile_status

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path
    from typing import Literal

    from playwright.sync_api import Browser, ConsoleMessage, Request

    from tests.support.fleet import Object

    Scheme = Literal["light", "dark"]

HOSTILE: Final = (
    "<script>document.title='broken'</script>",
    '"><img src=x onerror="document.title=\'broken\'">',
    "' autofocus onfocus='document.title=1",
    "javascript:alert(1)",
    "a/b?c=d#e%2F..",
    "\u202egnp.exe",
    "x" * 10_000,
    "ä ö 漢字 🚀",
)
COLOURS: Final = """() => {
  const found = [];
  const solid = (e) => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)$|transparent/.test(c)) return c; }
    return 'rgb(255, 255, 255)'; };
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if ((own || e.tagName === 'INPUT') && e.checkVisibility())
      found.push([e.outerHTML.slice(0, 80), getComputedStyle(e).color, solid(e)]);
  }
  return found; }"""
"""The colour and the background of every element with text."""


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    """Run Debian's Chromium."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program("chromium"), args=["--no-sandbox"])
        yield found
        found.close()


@contextlib.contextmanager
def opened(
    browser: Browser, url: str, width: int = 1280, scheme: Scheme = "light", *, script: bool = True
) -> Generator[Page]:
    """Open a page; afterwards, fail on any error of the console, and on any request to another origin."""
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=script
    )
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []

    def note(message: ConsoleMessage) -> None:
        said.append(message.text)

    def ask(request: Request) -> None:
        asked.append(request.url)

    page.on("console", note)
    page.on("request", ask)
    try:
        page.goto(url)
        yield page
        assert said == []
        origin = re.match(r"http://[^/]+/", url)
        assert origin is not None
        assert [other for other in asked if not other.startswith(origin[0])] == []
    finally:
        context.close()


def has_no_horizontal_scroll(page: Page) -> bool:
    """Tell whether the page is as wide as the window. The browser also evaluates this without JavaScript."""
    page.wait_for_load_state("load")  # the style sheet, too
    wide: bool = page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    return wide


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1280])
def test_page_is_whole_at_each_width(browser: Browser, width: int, scheme: Scheme, *, script: bool) -> None:
    with served(small_status()) as url, opened(browser, url, width, scheme, script=script) as page:
        assert page.title() == "8 machines - clan-discovery"
        assert page.get_by_role("heading", level=1).inner_text() == "8 machines, 12 targets"
        assert page.get_by_text("1 machine is missing").is_visible()
        assert page.get_by_role("row").count() == 9
        assert has_no_horizontal_scroll(page)
        page.get_by_role("rowheader", name="web").get_by_role("link").click()
        assert page.get_by_role("heading", level=1).inner_text() == "web seen"
        assert page.get_by_text("the machine there calls itself printer").is_visible()
        assert has_no_horizontal_scroll(page)
        page.get_by_role("link", name="All machines").click()
        assert page.url == url


def test_page_has_its_roles_as_a_table_and_as_cards(browser: Browser) -> None:
    """As assistive technology sees it. At 360 px the rows are cards, and still rows of a table."""
    with served(small_status()) as url:
        for width in (1280, 360):
            with opened(browser, url, width) as page:
                table = page.get_by_role("table", name="8 machines")
                titles = ["Machine", "Jobs", "Address", "State", "Scraped", "Last change"]
                assert table.get_by_role("columnheader").all_text_contents() == titles
                assert table.get_by_role("rowheader").count() == 8
                assert page.get_by_role("search").get_by_label("Search").is_visible()
                for name in ("State", "Job", "Verdict"):
                    assert page.get_by_role("combobox", name=name).is_visible()
                tree = page.locator("body").aria_snapshot()
                assert '- heading "Needs attention" [level=2]' in tree
                assert '- heading "1 machine is missing" [level=3]' in tree
                assert '- rowheader "attic"' in tree
                for landmark in ("banner", "main", "contentinfo"):
                    assert f"- {landmark}" in tree
        with opened(browser, f"{url}machines/db") as page:
            assert page.get_by_role("navigation", name="Path").count() == 1
            assert page.get_by_role("table", name="The newest change is first").count() == 1


def ratio(first: str, second: str) -> float:
    """Return the contrast of two colours (WCAG 2)."""
    bright, dark = sorted(map(luminance, (first, second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """Return the relative luminance of `rgb(r, g, b)`."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_itself() -> None:
    assert round(ratio("rgb(0, 0, 0)", "rgb(255, 255, 255)"), 1) == 21.0
    assert round(ratio("rgb(119, 119, 119)", "rgb(255, 255, 255)"), 2) == 4.48


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_a_contrast_of_4_5(browser: Browser, scheme: Scheme) -> None:
    with served(small_status(), failing="the last refresh cycle failed") as url:
        for path in ("", "machines/web", "machines/nobody", "?q=nothing"):
            with opened_any(browser, url + path, scheme) as page:
                found: list[list[str]] = page.evaluate(COLOURS)
                assert len(found) > 3
                weak = [(text, colour, ground) for text, colour, ground in found if ratio(colour, ground) < 4.5]
                assert weak == []


@contextlib.contextmanager
def opened_any(browser: Browser, url: str, scheme: Scheme) -> Generator[Page]:
    """Open a page that may be a 404, which the console would report."""
    context = browser.new_context(color_scheme=scheme)
    try:
        page = context.new_page()
        page.goto(url)
        yield page
    finally:
        context.close()


def focused(page: Page) -> str:
    """Return the text or the name of the element that has the focus."""
    element = page.locator(":focus")
    return element.get_attribute("name") or element.inner_text()


def test_keyboard_reaches_everything_in_order(browser: Browser) -> None:
    with served(small_status()) as url, opened(browser, url) as page:
        page.keyboard.press("Tab")
        assert focused(page) == "Skip to the content"
        outline: str = page.locator(":focus").evaluate("e => getComputedStyle(e).outlineStyle")
        assert outline != "none"
        box = page.locator(":focus").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        order = [focused(page)]
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.locator(":focus").count() == 0 or focused(page) == "Skip to the content":
                break
            order.append(focused(page))
            width: str = page.locator(":focus").evaluate("e => getComputedStyle(e).outlineWidth")
            assert width == "3px"
        assert order[:2] == ["1 machine is missing", "attic"]
        fields = order.index("q")
        assert order[fields : fields + 5] == ["q", "state", "job", "verdict", "Filter"]
        machines = ["attic", "db", "laptop", "monitor", "nas", "web", "printer", "pixel"]
        assert order[fields + 5 : fields + 13] == machines
        # The form works with the keyboard.
        page.get_by_label("Search").fill("100.64.0.3")
        page.keyboard.press("Enter")
        page.wait_for_url("**/?q=100.64.0.3&*")
        assert page.get_by_role("rowheader").all_inner_texts() == ["web"]


def test_click_selects_a_whole_fix(browser: Browser) -> None:
    with served(small_status()) as url, opened(browser, url) as page:
        page.get_by_text("clan-discovery explain web").click()
        selected: str = page.evaluate("() => getSelection().toString()")
        assert selected == "clan-discovery explain web"


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_stay_text(browser: Browser, text: str) -> None:
    """No script runs, nothing is loaded, and each page can be reached by its link."""
    with served(hostile_status(text)) as url, opened(browser, url, 360) as page:
        assert page.title().endswith("machines - clan-discovery")
        assert page.locator("script, main img, iframe").count() == 0
        assert has_no_horizontal_scroll(page)
        if len(text) < 250:
            page.get_by_role("rowheader", name=one_line(f"s{text}")[:20]).get_by_role("link").click()
            assert page.get_by_role("heading", level=1).inner_text() == f"{one_line(f's{text}')} stray"
            assert has_no_horizontal_scroll(page)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "//evil.example.org", "a?b#c", "%2e%2e", "-", "a b"])
def test_odd_names_have_a_page(browser: Browser, name: str) -> None:
    given = small_input()
    resolution = msgspec.structs.replace(given.report.resolution, stray=(Stray(name=name, backend="tailnet"),))
    view = FleetView(StatusInput(declared=given.declared, report=report_of(resolution)))
    with served(view) as url, opened(browser, f"{url}?state=stray") as page:
        page.get_by_role("rowheader").get_by_role("link").click()
        assert page.get_by_role("heading", level=1).inner_text() == f"{name} stray"


def test_ten_thousand_machines_are_searched_filtered_and_paged(tmp_path: Path, browser: Browser) -> None:
    """A real `run`, and a browser without JavaScript."""
    names = [f"host-{number:05d}" for number in range(10_000)]
    exporters: Object = {"exporters": {"node": {}, "systemd": {}, "nginx": {}}}
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(names, exporters)))
    (tmp_path / "status.json").write_text(json.dumps(fleet(names[:-7])))
    port = free_port()
    config = tmp_path / "config.yaml"
    config.write_text(
        "inventory: {file: inventory.json}\n"
        "backends: {tailscale: {tailnet: {status_file: status.json}}}\n"
        "output: {directory: targets}\n"
        f'web: {{listen: "127.0.0.1:{port}"}}\n'
    )
    url = f"http://127.0.0.1:{port}/"
    with resident(config, "--interval", "1h"):
        eventually("served", lambda: status(url) == 200)
        with opened(browser, url, script=False) as page:
            assert page.get_by_role("heading", level=1).inner_text() == "10,000 machines, 30,000 targets"
            assert page.get_by_text("7 machines are missing").is_visible()
            assert page.get_by_text("and 2 more").is_visible()
            assert len(page.content().encode()) < 1_000_000
            page.get_by_role("link", name="Next").click()
            assert page.get_by_role("rowheader").first.inner_text() == "host-00100"
            page.get_by_label("Search").fill("host-0004")
            page.get_by_role("button", name="Filter").click()
            assert page.get_by_role("rowheader").count() == 10
            page.get_by_role("combobox", name="State").select_option("missing")
            page.get_by_role("button", name="Filter").click()
            assert page.get_by_text("No machine matches.").is_visible()
            page.get_by_role("link", name="Clear the filter").click()
            page.get_by_role("link", name="7 machines are missing").click()
            assert page.get_by_role("rowheader").count() == 7
