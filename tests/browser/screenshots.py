"""Make the README's pictures of the page anew: `python3 run.py screenshots`.

Starts the embedded WebUI, drives it as a user would, and writes `docs/page-*.png`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from run import ROOT
from tests.browser import chromium
from tests.browser.server import serving
from tests.browser.tab import Tab

FOLDER = ROOT / "docs"
PROMPT, SEED = "frog and red apple on blue", 2
STILL = "*, *::before, *::after { transition: none !important; animation: none !important; caret-color: transparent; }"


def main() -> int:
    """Write every picture; returns the exit code."""
    program = chromium.find()
    if not program:
        print(f"There is no Chromium: install one, or name it in {chromium.VARIABLE}.", file=sys.stderr)
        return 1
    from playwright.sync_api import sync_playwright

    with serving("forge") as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(chromium.FLAGS))
        desk = stitched(open_tab(browser, server.address, 1280, 900, dark=False))
        shoot(desk, FOLDER / "page-txt2img.png")
        scroll(desk, desk.panel("bar"))
        shoot(desk, FOLDER / "page-panel.png")
        phone = stitched(open_tab(browser, server.address, 390, 844, dark=True))
        scroll(phone, phone.panel("bar"))
        shoot(phone, FOLDER / "page-phone.png")
        desk.panel("run", ".hybridstitch-compare").click()
        desk.panel("run", ".hybridstitch-wipe").wait_for(state="visible")
        scroll(desk, desk.panel("run", ".hybridstitch-compare"))
        shoot(desk, FOLDER / "page-compare.png")
        browser.close()
    return 0


def open_tab(browser: Any, address: str, width: int, height: int, dark: bool) -> Tab:
    """A page in a window of its own, without anything that moves."""
    context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
    tab = Tab(context.new_page(), address, dark)
    tab.page.add_style_tag(content=STILL)
    return tab


def stitched(tab: Tab) -> Tab:
    """Draw one picture by the published method, with both models loaded before."""
    tab.ask(PROMPT, SEED, steps=28)
    tab.unfold()
    tab.small("demo_small")
    tab.settle()
    tab.preset("Paper")
    tab.settle()
    tab.generate()
    tab.generate()
    tab.steps()
    return tab


def scroll(tab: Tab, element: Any) -> None:
    """Bring an element to the top of the window."""
    element.evaluate("(shown) => window.scrollTo(0, shown.getBoundingClientRect().top + window.scrollY - 16)")


def shoot(tab: Tab, path: Path) -> None:
    """Write what the window shows."""
    tab.page.wait_for_timeout(500)
    tab.page.screenshot(path=str(path))
    print(path.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(main())
