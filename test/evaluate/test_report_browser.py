"""The report in a real browser, Chromium by Playwright. Skipped where they are not there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow: the `train` extra")
pytest.importorskip("jinja2", reason="needs Jinja2: the `train` extra")
from made_results import DETECTORS, made_results, write_folder

from ifailsense_ros.evaluate.report.write import write_report
from ifailsense_ros.evaluate.results import write_results

api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]
PATIENCE_MS = 120_000
COUNT = 24
SEED = 7  # with mistakes of both kinds by the first detector, an UNKNOWN, unknown labels
ROWS = made_results(COUNT, seed=SEED)
FIRST = [row for row in ROWS if row.detector == DETECTORS[0]]


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (84, 168, 3), np.uint8) for _ in range(3)]
    folder = write_folder(tmp_path_factory.mktemp("report"), ROWS, pictures)
    return write_report([folder], resamples=50).path


@pytest.fixture
def show(browser) -> Callable:
    """Opens a page; it must do without errors and load nothing from anywhere."""
    contexts, troubles = [], []

    def opened(path: Path, **settings):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **settings})
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        api.expect.set_options(timeout=PATIENCE_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: troubles.append(f"a dialog: {dialog.message}"))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("file:", "data:"))
                else troubles.append(f"asks for {request.url}")
            ),
        )
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []


def shown(page) -> list[str]:
    """Ids of the cards in the gallery, in their order."""
    return page.eval_on_selector_all(".card", "all => all.map(c => c.id)")


def count(page, number: int) -> None:
    api.expect(page.locator("output")).to_have_text(f"{number} of {COUNT} episodes")


def focus(page) -> str:
    """Id of the card that has the focus; else the name, class or tag of the element."""
    return page.evaluate(
        "(() => { const e = document.activeElement, c = e.closest('.card');"
        " return c ? c.id : e.name || e.className || e.tagName; })()"
    )


def test_filters_narrow_the_gallery(report, show) -> None:
    page = show(report)
    count(page, COUNT)
    page.select_option("[name=truth]", "failure")
    failures = [f"e{n}" for n, r in enumerate(FIRST, start=1) if r.label is False]
    count(page, len(failures))
    assert shown(page) == failures
    page.select_option("[name=worth]", "m")
    missed = [f"e{n}" for n, r in enumerate(FIRST, start=1) if r.label is False and r.outcome == 1]
    count(page, len(missed))
    assert shown(page) == missed
    page.click("text=show all")
    count(page, COUNT)
    page.select_option("[name=category]", "placing")
    count(page, sum(r.category == "placing" for r in FIRST))
    page.click("text=show all")
    page.fill("[name=words]", "WAY nowhere")
    count(page, 0)
    api.expect(page.locator(".empty")).to_be_visible()
    page.fill("[name=words]", "RED block  episode_0007 ")
    count(page, 1)
    assert shown(page) == ["e8"]


def test_verdict_filter_is_about_the_chosen_detector(report, show) -> None:
    page = show(report)
    page.select_option("[name=outcome]", "S")
    for number, name in enumerate(DETECTORS):
        page.select_option("[name=detector]", str(number))
        wanted = [r for r in ROWS if r.detector == name and r.outcome == 1]
        count(page, len(wanted))
    page.click("text=show all")
    page.select_option("[name=worth]", "differ")
    pairs = zip(FIRST, (r for r in ROWS if r.detector == DETECTORS[1]), strict=True)
    count(page, sum(a.outcome != b.outcome for a, b in pairs))


def test_order_by_confidence(report, show) -> None:
    page = show(report)
    wrong = [(n, r) for n, r in enumerate(FIRST, start=1) if r.outcome and r.right is False]
    wrong.sort(key=lambda pair: -abs(pair[1].p_success - 0.5))
    assert wrong and wrong[0][0] != 1
    page.select_option("[name=order]", "mistakes")
    api.expect(page.locator(".card").first).to_have_id(f"e{wrong[0][0]}")
    assert shown(page)[: len(wrong)] == [f"e{n}" for n, _ in wrong]


def test_keyboard_alone_reaches_filters_cards_and_dialog(report, show) -> None:
    page = show(report)
    seen = []
    while len(seen) < 60 and not (seen and seen[-1] == "e1"):
        page.keyboard.press("Tab")
        seen.append(focus(page))
    assert seen[0] == "skip" and seen[-1] == "e1"
    wanted = ["detector", "truth", "outcome", "worth", "category", "kind", "order", "words"]
    assert [name for name in seen if name in wanted] == wanted
    assert "wide" in seen, "tables that may be wider than the screen can be scrolled by keys"

    page.keyboard.press("ArrowRight")
    assert focus(page) == "e2"
    page.keyboard.press("ArrowDown")
    below = int(focus(page)[1:])
    assert below > 3, "one row down"
    page.keyboard.press("ArrowUp")
    assert focus(page) == "e2"
    page.keyboard.press("End")
    assert focus(page) == f"e{COUNT}"
    page.keyboard.press("ArrowRight")
    assert focus(page) == f"e{COUNT}"
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    dialog = page.locator("dialog")
    api.expect(dialog).to_be_visible()
    api.expect(dialog.locator("h2")).to_have_text(FIRST[0].instruction)
    assert focus(page) == "viewer"
    assert dialog.locator("img").first.bounding_box()["width"] > 700
    page.keyboard.press("ArrowLeft")
    api.expect(dialog.locator("h2")).to_have_text(FIRST[0].instruction)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    api.expect(dialog.locator("h2")).to_have_text(FIRST[2].instruction)
    api.expect(dialog.locator(".place")).to_have_text(f"3 of {COUNT}")
    api.expect(dialog.locator(".ballots").first).to_contain_text("fs:2")
    page.keyboard.press("Escape")
    api.expect(dialog).to_be_hidden()
    assert focus(page) == "e3"
    page.keyboard.press("Shift+Tab")
    assert focus(page) == "BUTTON", "a single stop for all cards: the reset button lies before it"


def test_dialog_stays_within_what_the_filter_left(report, show) -> None:
    page = show(report)
    page.select_option("[name=truth]", "success")
    left = [n for n, r in enumerate(FIRST, start=1) if r.label]
    count(page, len(left))
    page.click(f"#e{left[0]} .opener")
    title = page.locator("dialog h2")
    api.expect(title).to_have_text(FIRST[left[0] - 1].instruction)
    page.click("[aria-label='next episode']")
    api.expect(title).to_have_text(FIRST[left[1] - 1].instruction)
    page.click("[aria-label='previous episode']")
    api.expect(page.locator("[aria-label='previous episode']")).to_be_disabled()
    assert focus(page) == "viewer", "not on a button that is no longer there"
    page.click("[aria-label=close]")
    api.expect(page.locator("dialog")).to_be_hidden()


def test_a_link_opens_its_episode_also_where_a_filter_hides_it(report, show) -> None:
    page = show(report)
    page.fill("[name=words]", "no such episode")
    count(page, 0)
    details = page.locator("#comparison details")
    if details.get_attribute("open") is None:
        details.locator("summary").click()
    link = page.locator("#comparison a").first
    number = int(link.inner_text())
    link.click()
    api.expect(page.locator("dialog h2")).to_have_text(FIRST[number - 1].instruction)
    count(page, COUNT)
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.hash") == f"#e{number}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone_in_light_and_dark(report, show, scheme) -> None:
    page = show(
        report,
        viewport={"width": 360, "height": 740},
        is_mobile=True,
        has_touch=True,
        color_scheme=scheme,
    )
    count(page, COUNT)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(19, 22, 27)"}[scheme]
    for control in page.locator(".filters select, .filters input, .filters button").all():
        box = control.bounding_box()
        assert box["height"] >= 40 and box["x"] >= 0 and box["x"] + box["width"] <= 360
    page.tap("#e1 .opener")
    box = page.locator("dialog").bounding_box()
    assert box["x"] == 0 and box["width"] == 360
    assert page.locator("dialog .viewer").evaluate("v => v.scrollWidth") <= 360
    page.tap("[aria-label=close]")
    api.expect(page.locator("dialog")).to_be_hidden()


def test_without_scripts_all_is_readable(report, show) -> None:
    page = show(report, java_script_enabled=False)
    assert page.locator(".card").count() == COUNT
    api.expect(page.locator(".filters")).to_be_hidden()
    page.locator("#e2 summary").click()
    api.expect(page.locator("#e2 .ballots").first).to_be_visible()


def test_hostile_text_runs_nothing_and_scripts_from_elsewhere_neither(tmp_path, show) -> None:
    bad = (
        "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
        "\"'><svg onload=alert(1)>"
    )
    rows = [
        replace(r, detector=r.detector + bad, instruction=bad, path=bad, category=bad, kind=bad)
        for r in ROWS
    ]
    write_results(tmp_path, rows, {bad: bad})
    page = show(write_report([tmp_path], resamples=50).path)
    count(page, COUNT)
    page.click("#e1 .opener")
    api.expect(page.locator("dialog h2")).to_have_text(bad)
    page.evaluate(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 3';"
        "document.body.append(s); const d = document.createElement('div');"
        "d.innerHTML = '<img src=x onerror=\"window.hacked = 4\">'; document.body.append(d);"
    )
    page.wait_for_timeout(300)
    assert page.evaluate("window.hacked") is None


def test_pictures_beside_are_shown(report, show) -> None:
    made = write_report([report.parent], report.parent / "beside.html", pictures="beside")
    page = show(made.path)
    page.locator("#e1").scroll_into_view_if_needed()
    for _ in range(200):
        width = page.evaluate("document.querySelector('#e1 img').naturalWidth")
        if width:
            break
        page.wait_for_timeout(100)
    assert width == 168


def test_a_thousand_episodes_are_not_laid_out_before_they_are_seen(tmp_path, show) -> None:
    picture = np.full((84, 168, 3), 90, np.uint8)
    folder = write_folder(tmp_path / "many", made_results(1000), [picture])
    page = show(write_report([folder], resamples=50).path)
    api.expect(page.locator("output")).to_have_text("1000 of 1000 episodes")
    laid_out = page.eval_on_selector_all(
        ".card .truth",
        "all => all.filter(t => t.checkVisibility({contentVisibilityAuto: true})).length",
    )
    assert laid_out < 100
    page.fill("[name=words]", "episode_0999")
    api.expect(page.locator("output")).to_have_text("1 of 1000 episodes")
    page.click("#e1000 .opener")
    api.expect(page.locator("dialog h2")).to_contain_text("way 999")
