"""One open page of the embedded WebUI, in the words of what a user does there."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

from PIL import Image

from lib_hybridstitch.settings import AUTO, method_specs, preset_values

PANEL = "script_{kind}_hybridstitch_{name}"
PATIENCE = 30_000  # milliseconds; a picture takes about two seconds on an idle machine


class Tab:
    """A page.

    Args:
        page: playwright's.
        address: of the server.
        dark: whether the dark theme is wanted.
    """

    def __init__(self, page: Any, address: str, dark: bool = False) -> None:
        self.page, self.address, self.kind = page, address, "txt2img"
        self.errors: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.errors.append(f"script: {error}"))
        page.on("console", self._hear)
        page.goto(f"{address}/?__theme={'dark' if dark else 'light'}")
        page.wait_for_selector(f"#{self.id('enabled')}-visible-checkbox")

    def _hear(self, said: Any) -> None:
        """Note an error; refused predictions, which the panel shows, are written there by the browser itself."""
        refused = "422" in said.text and str(said.location.get("url", "")).endswith("/hybridstitch/v1/plan")
        if said.type == "error" and not refused:
            self.errors.append(f"console: {said.text} ({said.location})")

    def id(self, name: str) -> str:
        """Name of an element of the panel."""
        return PANEL.format(kind=self.kind, name=name)

    def panel(self, name: str, inside: str = "") -> Any:
        """An element of the panel."""
        return self.page.locator(f"#{self.id(name)} {inside}".strip())

    # What a user sets

    @property
    def tick(self) -> Any:
        """The panel's tick."""
        return self.page.locator(f"#{self.id('enabled')}-visible-checkbox")

    def switch(self, name: str) -> None:
        """Open a tab of the page."""
        self.page.locator("#tabs button").get_by_text(name, exact=True).click()
        self.kind = name if name in ("txt2img", "img2img") else self.kind

    def unfold(self) -> None:
        """Open the panel by its arrow, which ticks it too."""
        self.page.click(f"#{self.id('enabled')} .label-wrap")
        self.panel("bar").wait_for(state="visible")

    def set(self, name: str, value: float | str) -> None:
        """Type a number of the panel."""
        box = self.panel(name, "input[type=number]")
        box.fill(str(value))
        box.press("Tab")

    def number(self, name: str) -> float:
        """A number of the panel."""
        return float(self.panel(name, "input[type=number]").input_value())

    def preset(self, value: str) -> None:
        """Choose a preset; its numbers come from the server, so wait until they are there."""
        self.panel("preset", f"input[type=radio][value='{value}']").check()
        row = preset_values(value, AUTO)
        shown = {self.id(name): row[name] for name in ("switch_step", "computed_share")}
        self.page.wait_for_function(
            "(shown) => Object.entries(shown).every(([id, number]) =>"
            " Number(document.querySelector(`#${id} input[type=number]`).value) === number)",
            arg=shown,
        )

    def pick(self, name: str, value: str) -> None:
        """Choose from one of the panel's lists, by mouse."""
        self.panel(name, "input").click()
        options = self.panel(name, "ul li, [role=option]")
        options.filter(has_text=re.compile(rf"^\W*{re.escape(value)}\W*$")).first.click()

    def unfold_advanced(self) -> None:
        """Open the Advanced fold."""
        self.panel("advanced", ".label-wrap").first.click()
        self.panel("plan").wait_for(state="visible")

    @property
    def plan(self) -> Any:
        """The box in which a plan is written."""
        return self.panel("plan", ":is(input, textarea)")

    def controls(self) -> list[str]:
        """The methods' controls that are there."""
        return [name for name in method_specs() if self.panel(name).is_visible()]

    def chosen_preset(self) -> str:
        """Which preset is chosen."""
        return str(self.panel("preset", "input[type=radio]:checked").input_value())

    def small(self, name: str) -> None:
        """Type the small checkpoint; none is left by going on, as Enter would choose from the list."""
        box = self.panel("small_checkpoint", "input")
        box.fill(name)
        box.press("Enter" if name else "Tab")

    def field(self, name: str, value: float | str) -> None:
        """Type into a field of the page itself."""
        root = f"#{self.kind}_{name}"
        box = self.page.locator(f"{root} textarea, {root} input[type=number]").first
        box.fill(str(value))
        box.press("Tab")

    def field_value(self, name: str) -> str:
        """What a field of the page shows."""
        root = f"#{self.kind}_{name}"
        return str(self.page.locator(f"{root} textarea, {root} input[type=number]").first.input_value())

    def ask(self, prompt: str, seed: int, steps: int = 12) -> None:
        """Prompt, seed and steps."""
        self.field("prompt", prompt)
        self.field("seed", seed)
        self.field("steps", steps)

    def settle(self) -> str:
        """Wait until the bar belongs to what is set; returns its words."""
        self.page.wait_for_timeout(900)  # the page looks three times a second, and asks at the second equal look
        return str(self.panel("bar").inner_text())

    # What a user sees

    def generate(self, press: Any = None) -> str:
        """Press Generate and wait for the picture; returns the infotext."""
        shown = self.info()
        sources = self.sources()
        (press or (lambda: self.page.click(f"#{self.kind}_generate")))()
        self.page.wait_for_function(
            "([kind, before]) => document.querySelector(`#${kind}_interrupt`).style.display === 'none'"
            " && Array.from(document.querySelectorAll(`#${kind}_gallery img`)).some((i) => !before.includes(i.src))",
            arg=[self.kind, sources],
        )
        self.page.wait_for_timeout(300)
        assert self.info() or shown == ""
        return self.info()

    def info(self) -> str:
        """The infotext under the picture."""
        return str(self.page.locator(f"#html_info_{self.kind}").first.inner_text()).strip()

    def said(self) -> str:
        """The sentences below the picture."""
        return str(self.page.locator(f"#html_log_{self.kind}").first.inner_text()).strip()

    def steps(self) -> int:
        """Wait for the last run's timeline; returns how many steps it shows."""
        self.panel("run", ".hybridstitch-time").first.wait_for(state="visible")
        return int(self.panel("run", ".hybridstitch-time").count())

    def sources(self) -> list[str]:
        """Addresses of the pictures in the gallery."""
        return list(
            self.page.evaluate(
                "(kind) => Array.from(document.querySelectorAll(`#${kind}_gallery img`)).map((i) => i.src)", self.kind
            )
        )

    def picture(self) -> Image.Image:
        """The picture in the gallery, as the browser loaded it."""
        return self.fetch(self.sources()[0])

    def fetch(self, address: str) -> Image.Image:
        """A picture by its address."""
        data = self.page.evaluate(
            """async (address) => {
                const bytes = new Uint8Array(await (await fetch(address)).arrayBuffer());
                return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
            }""",
            address,
        )
        return Image.open(io.BytesIO(base64.b64decode(data)))

    def dimmed(self) -> float:
        """Share of the picture that the mask's canvas darkens."""
        return float(
            self.panel("run", "canvas").evaluate(
                """(canvas) => {
                    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
                    const dark = data.filter((value, at) => at % 4 === 3 && value > 0).length;
                    return dark / (canvas.width * canvas.height);
                }"""
            )
        )


def happened(infotext: str) -> str:
    """What the infotext says about the run's steps."""
    found = re.search(r'HybridStitch: "?([^"\n]*?)"?(?:, HybridStitch \w|$)', infotext)
    return found[1] if found else ""


def same(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures are equal pixel by pixel."""
    return one.convert("RGB").tobytes() == other.convert("RGB").tobytes()
