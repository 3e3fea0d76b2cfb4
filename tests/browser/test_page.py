"""What people do on the page: generate, look, compare, paste, interrupt."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from tests.browser.acts import CLIENT_SIZE, FROG, a1111, drawn, once, paper
from tests.browser.conftest import STRANGER
from tests.browser.server import Server
from tests.browser.tab import Tab, happened, same
from tests.settings_tables import OWN

# --- a generation, and what is told of it


def test_ticked_the_picture_is_stitched_and_unticked_it_is_the_large_models(tab: Tab) -> None:
    tab.ask(FROG, 4)
    plain = tab.generate()
    large = tab.picture()
    assert "HybridStitch" not in plain
    paper(tab)
    assert "masked at 30 %" in happened(tab.generate())
    assert not same(tab.picture(), large)
    tab.tick.click()
    assert tab.generate() == plain
    assert same(tab.picture(), large)


def test_the_timeline_has_a_bar_per_step_and_the_mask_follows_the_slider(tab: Tab) -> None:
    tab.ask(FROG, 4)
    paper(tab)
    tab.set("mask_ratio", 0.25)
    tab.settle()
    tab.generate()
    assert tab.steps() == 12
    assert "x (predicted " in tab.panel("run").inner_text()
    assert "12 steps in " in tab.settle() and "instead of" in tab.settle()
    slider = tab.panel("run", ".hybridstitch-slider")
    found = {}
    slider.focus()
    slider.press("Home")
    for _ in range(12):
        words = str(slider.get_attribute("aria-valuetext"))
        assert words == tab.panel("run", ".hybridstitch-told").inner_text()
        kind, share = words.split(" · ")[1], words.split(" · ")[3]
        found.setdefault((kind, share.split(" ")[0]), tab.dimmed())
        slider.press("ArrowRight")
    assert found["large", "100"] == 0 and found["small", "0"] == 1
    assert found["masked", "25"] == pytest.approx(0.75, abs=0.02)
    assert drawn(tab, "run", ".hybridstitch-time") == drawn(tab)
    pictured = tab.fetch(str(tab.panel("run", ".hybridstitch-figure img").first.get_attribute("src")))
    assert same(pictured, tab.picture())


@once
def test_the_timeline_says_which_steps_were_cached_and_which_nobody_computed(tab: Tab) -> None:
    tab.ask(FROG, 4, steps=28)
    tab.unfold()
    tab.settle()
    assert "HybridStitch method: Step cache" in tab.generate()
    assert "No small checkpoint is chosen" in tab.said()
    assert tab.steps() == 28
    words = tab.panel("run", ".hybridstitch-time").evaluate_all("(all) => all.map((one) => one.title)")
    shares = {word.split(" · ")[1]: word.split(" · ")[3] for word in words}
    assert shares["large"].startswith("100 %") and shares["CFG cached"].startswith("50 %")
    assert shares["extrapolated"].startswith("0 %")


def test_a_wrong_checkpoint_gives_a_sentence_and_the_large_models_picture(tab: Tab) -> None:
    tab.ask(FROG, 4)
    tab.generate()
    large = tab.picture()
    paper(tab)
    tab.small(STRANGER)
    refusal = tab.settle()
    assert STRANGER in refusal and "Traceback" not in refusal
    infotext = tab.generate()
    assert "HybridStitch stopped" in infotext and STRANGER in infotext
    assert STRANGER in tab.said() and "Traceback" not in tab.said() and "Error" not in tab.said()
    assert same(tab.picture(), large)


def test_infotext_restores_the_panel(open_tab: Callable[..., Tab]) -> None:
    tab = open_tab()
    tab.ask(FROG, 77, steps=10)
    paper(tab)
    tab.set("switch_step", 3)
    tab.set("mask_ratio", 0.45)
    tab.settle()
    infotext = tab.generate()
    picture = tab.picture()
    fresh = open_tab()
    fresh.field("prompt", infotext)
    fresh.page.click("#txt2img_paste")
    fresh.page.wait_for_function(
        "() => document.querySelector('#txt2img_prompt textarea').value.split('\\n').length === 1"
    )
    fresh.settle()
    assert fresh.tick.is_checked()
    assert (fresh.number("switch_step"), fresh.number("mask_ratio")) == (3, 0.45)
    assert (fresh.field_value("prompt"), fresh.field_value("seed"), fresh.field_value("steps")) == (FROG, "77", "10")
    assert fresh.chosen_preset() == "Custom" and fresh.controls() == OWN["HybridStitch"]
    assert f"HybridStitch plan: {fresh.plan.input_value()}," in infotext
    assert happened(fresh.generate()) == happened(infotext)
    assert same(fresh.picture(), picture)


def test_png_info_reads_a_picture_and_sends_it_to_a_tab(open_tab: Callable[..., Tab]) -> None:
    tab = open_tab()
    tab.ask(FROG, 78, steps=9)
    tab.unfold()
    infotext = tab.generate()
    file = io.BytesIO()
    picture = tab.picture()
    from PIL.PngImagePlugin import PngInfo

    chunk = PngInfo()
    chunk.add_text("parameters", picture.info["parameters"])
    picture.save(file, "PNG", pnginfo=chunk)
    fresh = open_tab()
    fresh.switch("PNG Info")
    fresh.page.set_input_files(
        "#pnginfo_image input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": file.getvalue()}
    )
    fresh.page.wait_for_function("() => document.querySelector('#pnginfo_html').innerText.includes('Steps: 9')")
    assert fresh.page.inner_text("#pnginfo_html").strip() == infotext
    fresh.page.click("#pnginfo_send_to_img2img")
    fresh.kind = "img2img"
    fresh.page.wait_for_function("() => document.querySelector('#img2img_seed input').value === '78'")
    fresh.settle()
    assert fresh.tick.is_checked()


def test_img2img_begins_from_a_picture(tab: Tab) -> None:
    tab.ask(FROG, 4)
    tab.generate()
    file = io.BytesIO()
    tab.picture().save(file, "PNG")
    tab.switch("img2img")
    tab.page.set_input_files(
        "#img2img_image input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": file.getvalue()}
    )
    tab.page.wait_for_selector("#img2img_image img")
    tab.ask(FROG, 5)
    tab.unfold()
    infotext = tab.generate()
    assert happened(infotext) and "Denoising strength: 0.75" in infotext
    assert tab.steps() == 10  # 12 steps at 0.75


@once
def test_hires_shows_a_timeline_for_each_pass(tab: Tab) -> None:
    tab.ask(FROG, 4)
    tab.page.locator("#txt2img_hr .label-wrap").click()
    tab.page.get_by_label("Generate at twice the size in a second pass").check()
    tab.field("hires_steps", 5)
    tab.unfold()
    infotext = tab.generate()
    assert "; hires " in happened(infotext) and "Hires upscale: 2" in infotext
    assert tab.picture().size == (256, 256)
    assert tab.steps() == 12
    tab.panel("run", "select").first.select_option(index=1)
    assert tab.steps() == 5
    assert tab.panel("run", "canvas").evaluate("(canvas) => [canvas.width, canvas.height]") == [16, 16]


@once
def test_a_batch_lets_each_picture_be_looked_at(tab: Tab) -> None:
    tab.ask(FROG, 4)
    tab.field("batch_size", 2)
    paper(tab)
    tab.generate()
    tab.steps()
    shown = tab.panel("run", ".hybridstitch-figure img")
    first = tab.fetch(str(shown.get_attribute("src")))
    tab.panel("run", ".hybridstitch-figure select").select_option(index=1)
    second = tab.fetch(str(shown.get_attribute("src")))
    pictures = [tab.fetch(address) for address in dict.fromkeys(tab.sources())]
    assert not same(first, second)
    assert [same(first, pictures[0]), same(second, pictures[1])] == [True, True]


def test_two_tabs_do_not_mix(open_tab: Callable[..., Tab]) -> None:
    first = open_tab()
    second = open_tab(first.page.context)
    for tab, prompt, seed, steps in ((first, FROG, 11, 9), (second, "panda on night", 12, 14)):
        tab.ask(prompt, seed, steps)
        tab.unfold()
        tab.settle()
    second.preset("Fast")
    second.settle()
    alone = [(tab.generate(), tab.picture()) for tab in (first, second)]
    sources = [tab.sources() for tab in (first, second)]
    for tab in (first, second):
        tab.page.bring_to_front()
        tab.page.click("#txt2img_generate")
    for tab, before, (infotext, picture), bars in zip((first, second), sources, alone, (9, 14)):
        tab.page.bring_to_front()
        tab.page.wait_for_function(
            "(before) => Array.from(document.querySelectorAll('#txt2img_gallery img'))"
            ".some((image) => !before.includes(image.src))",
            arg=before,
        )
        tab.page.wait_for_timeout(2500)
        assert tab.info() == infotext and same(tab.picture(), picture)
        assert tab.steps() == bars


def test_compare_renders_the_same_seed_by_the_large_model_under_a_wiper(tab: Tab) -> None:
    tab.ask("cat and umbrella on checks", 21)
    tab.generate()
    large = tab.picture()
    tab.field("seed", -1)
    tab.unfold()
    tab.settle()
    tab.field("seed", 21)
    tab.generate()
    stitched = tab.picture()
    tab.steps()
    button = tab.panel("run", ".hybridstitch-compare")
    button.wait_for(state="visible")
    button.click()
    wiper = tab.panel("run", ".hybridstitch-wipe")
    wiper.wait_for(state="visible")
    for name, picture in (("Large model", large), ("HybridStitch", stitched)):
        shown = tab.panel("run", f".hybridstitch-stack img[alt='{name}']").get_attribute("src")
        assert same(tab.fetch(str(shown)), picture)
    assert tab.tick.is_checked()
    wiper.focus()
    wiper.press("End")
    assert "100" in str(wiper.get_attribute("aria-valuetext"))
    tab.field("prompt", "something else")
    tab.settle()
    button.click()
    assert "have changed" in tab.panel("run", ".hybridstitch-said").inner_text()


@a1111
def test_compare_with_a_large_model_that_only_the_extension_runs(tab: Tab) -> None:
    """It is drawn inside the extension, by a plan of large steps; the panel is as before afterwards."""
    tab.ask(FROG, 21)
    paper(tab)
    tab.unfold_advanced()
    box = tab.panel("large_checkpoint", "input")
    box.fill("demo_large")
    box.press("Enter")
    tab.plan.fill("6L 2M40 X 3S")
    tab.settle()
    tab.generate()
    tab.steps()
    tab.panel("run", ".hybridstitch-compare").click()
    tab.panel("run", ".hybridstitch-wipe").wait_for(state="visible")
    tab.settle()
    assert happened(tab.info()) == "12 large"
    assert tab.plan.input_value() == "6L 2M40 X 3S" and tab.tick.is_checked()


@once
def test_interrupt_keeps_what_there_is(tab: Tab) -> None:
    tab.ask(FROG, 4, steps=150)
    tab.field("batch_size", 4)
    tab.unfold()
    tab.settle()
    tab.page.click("#txt2img_generate")
    tab.page.wait_for_selector("#txt2img_interrupt", state="visible")
    tab.page.wait_for_timeout(800)
    tab.page.click("#txt2img_interrupt")
    tab.page.wait_for_selector("#txt2img_gallery img")
    tab.page.wait_for_selector("#txt2img_interrupt", state="hidden")
    tab.ask(FROG, 4)
    tab.field("batch_size", 1)
    assert happened(tab.generate())


@once
def test_progress_shows_a_bar_and_a_preview(tab: Tab) -> None:
    tab.ask(FROG, 4, steps=60)
    tab.field("batch_size", 4)
    tab.page.click("#txt2img_generate")
    tab.page.wait_for_selector(".progressDiv")
    tab.page.wait_for_selector(".livePreview:not([hidden])")
    tab.page.wait_for_selector(".progressDiv", state="detached")
    assert len(set(tab.sources())) == 4


@once
def test_an_example_is_one_click_away_and_control_enter_generates(tab: Tab) -> None:
    tab.field("steps", 6)
    tab.page.click("#txt2img_example_1")
    tab.page.wait_for_function("() => document.querySelector('#txt2img_prompt textarea').value.includes('panda')")
    tab.page.focus("#txt2img_prompt textarea")
    infotext = tab.generate(lambda: tab.page.keyboard.press("Control+Enter"))
    assert infotext.startswith("panda and tulip on sunset")


@once
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone_shows_the_page_without_sideways_scrolling(open_tab: Callable[..., Tab], dark: bool) -> None:
    tab = open_tab(width=390, dark=dark)
    tab.ask(FROG, 4, steps=6)
    tab.unfold()
    tab.settle()
    tab.generate()
    assert tab.steps() == 6
    wide = tab.page.evaluate("() => document.scrollingElement.scrollWidth - window.innerWidth")
    assert wide <= 0


def test_a_client_of_other_peoples_making_gets_the_pages_picture(tab: Tab, server: Server) -> None:
    import webuiapi

    port = int(server.address.rsplit(":", 1)[1])
    client = webuiapi.WebUIApi(host="127.0.0.1", port=port, sampler="Euler", steps=12)
    scheduler = "Automatic" if server.like == "a1111" else "Simple"
    request = {"prompt": FROG, "seed": 31, "cfg_scale": 3, "scheduler": scheduler, **CLIENT_SIZE}
    settings = {"enabled": True, "preset": "Fast"}
    stitched = client.txt2img(alwayson_scripts={"HybridStitch": {"args": [settings]}}, **request)
    plain = client.txt2img(**request)
    tab.ask(FROG, 31)
    tab.generate()
    assert same(plain.image, tab.picture())
    tab.unfold()
    tab.preset("Fast")
    tab.settle()
    tab.generate()
    assert same(stitched.image, tab.picture())
    assert not same(stitched.image, plain.image)
