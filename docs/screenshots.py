"""Take the pictures of the status page with headless Chromium: docs/status-page*.png.

    make screenshots

The fleet is that of the tests, so the pictures change only if the page does.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final, Literal, NamedTuple

from playwright.sync_api import sync_playwright

from tests.support.status import served, small_status

DOCS: Final = Path(__file__).resolve().parent
MOST_BYTES: Final = 150_000


class Picture(NamedTuple):
    """A picture: its file, what it shows, and how."""

    name: str
    path: str
    width: int
    scheme: Literal["light", "dark"]


PICTURES: Final = (
    Picture("status-page.png", "", 1100, "light"),
    Picture("status-page-dark.png", "", 1100, "dark"),
    Picture("status-page-narrow.png", "machines/web", 360, "light"),
)


def main() -> None:
    """Write the pictures, and refuse one that is too large for a repository."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not on PATH (Debian: apt install chromium)")
    with served(small_status()) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for picture in PICTURES:
            page = browser.new_page(viewport={"width": picture.width, "height": 600}, color_scheme=picture.scheme)
            page.goto(url + picture.path)
            body = page.screenshot(path=DOCS / picture.name, full_page=True)
            page.close()
            if len(body) > MOST_BYTES:
                sys.exit(f"docs/{picture.name} has {len(body)} bytes, more than {MOST_BYTES}")
            sys.stdout.write(f"wrote docs/{picture.name} ({len(body) // 1000} kB)\n")
        browser.close()


if __name__ == "__main__":
    main()
