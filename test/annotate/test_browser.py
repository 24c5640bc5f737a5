"""The page in a real browser: Chromium, driven by Playwright. Skipped where they are not there."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from annotate_doubles import HOSTILE, found, record, unreadable

from ifailsense_ros.annotate.episodes import Found
from ifailsense_ros.annotate.server import AnnotationServer
from ifailsense_ros.annotate.session import Session
from ifailsense_ros.evaluate.labels import read_labels

api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    api.expect.set_options(timeout=PATIENCE_MS)
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    yield page
    page.close()
    assert errors == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[AnnotationServer]:
    episodes = found(tmp_path)
    path = episodes[0].path
    episodes[1] = Found(path, "monday/1", record(1, instruction=HOSTILE, success=False))
    episodes[3] = Found(path, "monday/3", unreadable(3))
    session = Session(episodes, tmp_path / "labels.csv")
    with AnnotationServer(session) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()
    session.close()


def said(server: AnnotationServer) -> dict[str, bool | None]:
    file = server.session.file
    return {key: n.label for (_, key), n in read_labels(file).items()} if file.exists() else {}


def at(page, number: int) -> None:
    """Wait until an episode is shown and can be labelled."""
    api.expect(page.locator("#where")).to_contain_text(f"{number + 1} of 5")
    api.expect(page.locator("#unsure")).to_be_enabled()


def test_a_person_goes_through_all_episodes(page, server):
    page.goto(server.url)
    at(page, 0)
    api.expect(page.locator("h1")).to_have_text("lift block 0")
    api.expect(page.locator("#picture")).to_be_visible()
    api.expect(page.locator("#where")).to_have_text("1 of 5")  # a name may say how it ended
    assert "monday" not in page.locator("main").inner_html()
    page.keyboard.press("s")
    at(page, 1)
    assert said(server) == {"monday/0": True}

    # What others wrote is text.
    api.expect(page.locator("h1")).to_have_text(HOSTILE)
    assert page.title() == "Annotate: labels.csv"
    # The verdict, and what the data say, only when asked.
    assert page.locator("#verdict").is_hidden()
    page.keyboard.press("v")
    api.expect(page.locator("#verdict")).to_contain_text("the data say: failure")
    page.keyboard.press("F")
    at(page, 2)
    assert page.locator("#verdict").is_hidden()
    assert said(server) == {"monday/0": True, "monday/1": False}

    # A key held down labels once.
    page.keyboard.down("u")
    page.keyboard.down("u")
    page.keyboard.down("u")
    at(page, 3)
    page.keyboard.up("u")
    assert said(server) == {"monday/0": True, "monday/1": False, "monday/2": None}

    # What cannot be seen cannot be a success.
    api.expect(page.locator("#problem")).to_contain_text("ends too early")
    assert page.locator("#success").is_disabled()
    page.keyboard.press("s")
    page.keyboard.press("ArrowLeft")
    at(page, 2)
    api.expect(page.locator("#where")).to_contain_text("monday/2")
    api.expect(page.locator("#unsure")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("f")
    at(page, 3)
    page.keyboard.press("z")
    at(page, 2)
    assert said(server) == {"monday/0": True, "monday/1": False, "monday/2": None}

    # Another day.
    page.reload()
    at(page, 3)
    page.keyboard.press("u")
    at(page, 4)
    page.locator("#success").click()
    api.expect(page.locator("#status")).to_contain_text("All episodes have a label")
    assert len(said(server)) == 5


def test_nothing_is_labelled_before_it_can_be_seen(page, server):
    held = []
    page.route("**/picture/0", lambda route: held.append(route))
    with page.expect_request("**/picture/0"):
        page.goto(server.url)
    page.keyboard.press("s")
    page.keyboard.press("f")
    held[0].continue_()
    at(page, 0)
    assert said(server) == {}
    page.keyboard.press("f")
    at(page, 1)
    assert said(server) == {"monday/0": False}


def test_a_label_that_is_not_saved_is_not_shown(page, server):
    page.goto(server.url)
    at(page, 0)
    server.session.file.write_text("path,key,label\nelse,where,success\n")
    page.keyboard.press("s")
    api.expect(page.locator("#problem")).to_contain_text("changed by another program")
    api.expect(page.locator("#success")).to_have_attribute("aria-pressed", "false")


def test_the_page_of_another_site_can_neither_write_nor_look(page, server):
    """Even if it knew the address with its token."""
    attack = f"""<!doctype html><title>evil</title><img id=i src="{server.url}picture/0"><script>
      const tries = [["text/plain", "no-cors"], ["application/json", "cors"]].map(([type, mode]) =>
        fetch("{server.url}api/label", {{method: "POST", mode, headers: {{"Content-Type": type}},
          body: '{{"number": 0, "label": "success"}}'}}).catch(() => null));
      Promise.all(tries).then(() => document.title = "tried");
    </script>"""

    class Evil(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(attack.encode())

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Evil) as evil:
        threading.Thread(target=evil.serve_forever, args=(0.02,), daemon=True).start()
        page.goto(f"http://localhost:{evil.server_port}/")
        page.wait_for_function("document.title === 'tried'")
        page.wait_for_function("document.getElementById('i').complete")
        assert page.evaluate("document.getElementById('i').naturalWidth") == 0
        evil.shutdown()
    assert said(server) == {}


def test_a_phone_shows_all_of_it(page, server):
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(server.url)
    at(page, 0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("#failure").click()
    at(page, 1)
