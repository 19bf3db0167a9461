"""The explorer's page in a real browser."""

import shutil

import pytest
import torch

from disentangle.explorer.page import HeatMap, PageRun, build_page
from disentangle.explorer.strips import encode_images, encode_strips

HOSTILE = """</script><script>window.broken = 1</script><img src=x onerror="window.broken=1">"""
VALUES = ["-2 std", "-1 std", "0", "+1 std", "+2 std"]
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium is installed")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=list(QUIET))
        yield opened
        opened.close()


def make_run(name, seed):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.rand(3, 2, 5, 1, 8, 8, generator=generator) * 2 - 1
    axes = [{"group": group, "name": f"axis {a} {name}"} for a, group in enumerate("ppq")]
    matrix = HeatMap("mutual information", ["c"], [name, "x", "y"], [[0.5, 1.0, None]])
    starts = encode_images(frames[0, :, 2])
    scores = [("mig", 0.5), (f"of {name}", None)]
    return PageRun(name, 8, 8, axes, encode_strips(frames), starts, (), scores, [matrix])


@pytest.fixture
def page(browser, tmp_path):
    """A page of two runs, that was opened; `page.requests` are the addresses it asked for."""
    file = tmp_path / "page.html"
    file.write_text(build_page([make_run(HOSTILE, 0), make_run("plain", 1)], VALUES, 2))
    opened = browser.new_page(viewport={"width": 1280, "height": 800})
    opened.requests, opened.problems = [], []
    opened.on("request", lambda request: opened.requests.append(request.url))
    opened.on("pageerror", lambda error: opened.problems.append(str(error)))
    opened.on("console", lambda message: opened.problems.append(message.text))
    opened.goto(file.as_uri())
    wait_for_pictures(opened)
    yield opened
    opened.close()


def wait_until(page, condition):
    """As `wait_for_function`, which the page's policy forbids."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    pytest.fail(f"this did not come true: {condition}")


def wait_for_pictures(page):
    wait_until(page, "[...cards, ...starts].every((view) => view.strip.complete)")


def look(page):
    return page.evaluate(
        "[...document.querySelectorAll('canvas')].map((canvas) => canvas.toDataURL())"
    )


def test_it_loads_nothing_and_complains_of_nothing(page):
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
    assert sum(url.startswith("file:") for url in page.requests) == 1
    assert page.problems == []
    assert len(set(look(page))) >= 6  # every axis has its own picture


def test_names_are_text(page):
    assert page.evaluate("window.broken") is None
    assert page.locator("h2").all_inner_texts() == [HOSTILE, "plain"]
    assert page.locator("th", has_text="</script>").count() >= 2


def test_the_policy_stops_what_would_leave(page):
    failed = page.evaluate("fetch('https://example.org').then(() => false, () => true)")
    assert failed
    assert [url for url in page.requests if url.startswith("http")] == []


def test_a_slider_changes_its_picture_and_no_other(page):
    slider = page.locator("#slider-1-2")
    before = look(page)
    slider.focus()
    page.keyboard.press("ArrowRight")
    after = look(page)
    assert [a != b for a, b in zip(before, after, strict=True)].count(True) == 1
    assert slider.get_attribute("aria-valuetext") == "+1 std"
    assert page.locator("output[for=slider-1-2]").inner_text() == "+1 std"
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuetext") == "-2 std"
    page.get_by_role("button", name="Reset").click()
    assert look(page) == before


def test_another_sample_has_other_pictures(page):
    before = look(page)
    page.get_by_label("Sample").select_option(index=1)
    wait_for_pictures(page)
    page.wait_for_timeout(100)  # for the drawing
    assert all(a != b for a, b in zip(before, look(page), strict=True))


def test_play_moves_all_sliders_until_it_is_stopped(page):
    button = page.locator("#play")
    button.click()
    wait_until(page, "cards.every((card) => card.slider.value === '4')")
    assert button.inner_text() == "Stop"
    page.locator("#reset").click()
    assert button.inner_text() == "Play"
    values = "cards.map((card) => card.slider.value)"
    assert page.evaluate(values) == ["2"] * 6
    page.wait_for_timeout(400)
    assert page.evaluate(values) == ["2"] * 6


def test_it_can_be_used_with_the_keyboard_alone(page):
    reached = []
    for _ in range(9):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    sliders = [f"slider-{r}-{a}" for r in range(2) for a in range(3)]
    assert reached == ["sample", "play", "reset", *sliders]


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_it_fits_a_phone(page, width):
    page.set_viewport_size({"width": width, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for box in (slider.bounding_box() for slider in page.locator("input[type=range]").all()):
        assert box["width"] >= 100
        assert box["x"] + box["width"] <= width


def test_heat_maps_are_shaded_by_their_values(page):
    cells = page.locator("aside table").nth(1).locator("tbody td")
    assert cells.all_inner_texts() == ["0.50", "1.00", ""]
    colours = [cell.evaluate("(c) => getComputedStyle(c).backgroundColor") for cell in cells.all()]
    assert colours == ["rgb(132, 162, 202)", "rgb(8, 69, 148)", "rgb(255, 255, 255)"]
