"""The page in a real browser: every part of it, narrow and wide, light and dark. It leaves screenshots in build/screenshots."""

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.messages import Event, LaneScore
from tests.conftest import ROOT
from tests.stream.dashboard.test_history import window
from tests.stream.dashboard.test_server import Shown, shown
from tests.stream.sinks.test_payload import LATENCY, UTTERANCE

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SCREENSHOTS = ROOT / "build" / "screenshots"
WIDE, NARROW = (1280, 1700), (375, 2600)
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="Chromium is not installed (Debian: chromium chromium-driver)"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--force-color-profile=srgb",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


def size(browser: Any, wide: int, high: int) -> None:
    """Of what is seen; a window cannot be as narrow as a phone."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": wide, "height": high, "deviceScaleFactor": 1, "mobile": wide < 500}
    )


def scheme(browser: Any, name: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": name}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def text(browser: Any, part: str) -> str:
    return browser.execute_script(f"return document.getElementById({part!r}).textContent")


def keep(browser: Any, name: str) -> Path:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    browser.save_screenshot(str(path))
    return path


def wait(browser: Any, true: str, within_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not browser.execute_script(f"return {true}"):
        assert time.monotonic() < deadline_s, f"never {true}: {[line['message'] for line in browser.get_log('browser')]}"
        time.sleep(0.05)


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[Shown]:
    """A session of a minute, with a camera, words, an event, and provisional scores at its end."""
    async with shown(pictures=True) as page:
        outline = np.array([[0.4, 0.3], [0.6, 0.3], [0.5, 0.7]], np.float32)
        picture = np.tile(np.linspace(30, 200, 640, dtype=np.uint8)[None, :, None], (480, 1, 3))
        page.sink._views["cam0"] = lambda: (picture, outline)
        for seq in range(240):
            words = {80: ("what", "a", "day"), 200: ("awful",)}.get(seq, ())
            final = window(seq, 1.5 if seq < 160 else -1.5, "final", *words)
            masks = {lane: tuple(0.3 + 0.4 * ((seq // 20 + k) % 3) / 2 for k in range(64)) for lane in final.masks}
            await page.outputs.put(replace(final, masks=masks, latency=LATENCY))
        await page.outputs.put(UTTERANCE)
        await page.outputs.put(Event(59_000_000_000, "lost", "vision", "the camera is gone <b>now</b>"))
        lanes = {**final.lanes, "audio": LaneScore("missing", "silence", None, 0.4)}
        last = window(241, -0.5, "provisional", "or", "not")
        await page.outputs.put(replace(last, lanes=lanes, latency=LATENCY, text_lag_ns=1_500_000_000, dropped={"vision": 3}))
        yield page


def visit(look: Callable[[int], None]) -> None:
    """Let the browser look at the page at a port."""

    async def scenario() -> None:
        async with watched() as page:
            await asyncio.to_thread(look, page.port)

    asyncio.run(scenario())


def test_the_page_shows_a_session_as_it_goes(browser: Any) -> None:
    async def scenario() -> None:
        async with watched() as page:
            await asyncio.to_thread(look, page.port)
            await page.outputs.put(window(242, 2.0))
            await asyncio.to_thread(wait, browser, "document.getElementById('kind').textContent === 'final'")
            assert text(browser, "number") == "+2.00"
            page.outputs.close()
            await asyncio.to_thread(
                wait, browser, "document.getElementById('summary').textContent.startsWith('The session has ended')"
            )

    def look(port: int) -> None:
        size(browser, *WIDE)
        scheme(browser, "light")
        browser.get(f"http://127.0.0.1:{port}/")
        wait(browser, "document.querySelectorAll('#chart .scatterlayer .trace').length >= 2")
        wait(browser, "document.querySelectorAll('#masks .heatmaplayer image').length > 0")
        wait(browser, "document.getElementById('picture').naturalWidth > 0")
        assert text(browser, "number") == "\N{MINUS SIGN}0.50"
        assert text(browser, "kind") == "provisional"
        assert text(browser, "connection") == "live"
        assert text(browser, "words").split() == ["what", "a", "day", "awful", "or", "not"]
        classes = "return [...document.querySelectorAll('#words .word')].map((each) => each.className)"
        assert browser.execute_script(classes) == [
            *["word positive"] * 3,
            "word negative",
            *["word negative provisional"] * 2,
        ]
        lanes = browser.execute_script("return [...document.querySelectorAll('#lanes tr')].map((row) => row.innerText)")
        assert lanes[1].split()[:3] == ["audio", "missing:", "silence"]
        assert "lost: the camera is gone <b>now</b>" in lanes[2]  # as it is, no markup
        assert "59.00 s lost vision" in text(browser, "events")
        health = text(browser, "health")
        for part in ("212 ms", "2.4 ms", "words behind1.5 s", "vision dropped3"):
            assert part in health
        assert "so what" in text(browser, "summary")
        assert browser.execute_script("return document.getElementById('csv').pathname") == "/sessions/cam0/summary.csv"
        keep(browser, "wide-light")

    asyncio.run(scenario())


def test_it_fits_a_phone_in_the_dark_and_needs_no_mouse(browser: Any) -> None:
    def look(port: int) -> None:
        size(browser, *NARROW)
        scheme(browser, "dark")
        browser.get(f"http://127.0.0.1:{port}/")
        wait(browser, "document.querySelectorAll('#masks .heatmaplayer image').length > 0")
        keep(browser, "narrow-dark")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= NARROW[0]
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert max(int(each) for each in ground[4:-1].split(",")) < 60
        # Every part has a name that a screen reader says, and links are reached by key.
        unnamed = """return [...document.querySelectorAll('section, [role=img], img, select')].filter((each) =>
            !(each.getAttribute('aria-label') || each.alt || each.labels?.length ||
              document.getElementById(each.getAttribute('aria-labelledby'))?.textContent)).length"""
        assert browser.execute_script(unnamed) == 0
        links = browser.execute_script("return [...document.querySelectorAll('a')].map((each) => each.tabIndex)")
        assert links == [0, 0]
        assert browser.execute_script("return document.documentElement.lang") == "en"
        for foreground, background in (("#number", "section"), ("#connection", "body"), ("th", "section"), ("a", "section")):
            assert contrast(browser, foreground, background) >= 4.5, foreground

    visit(look)


def test_nothing_comes_from_elsewhere_and_nothing_goes_wrong(browser: Any) -> None:
    def look(port: int) -> None:
        browser.get_log("browser")
        browser.get(f"http://127.0.0.1:{port}/")
        wait(browser, "document.querySelectorAll('#masks .heatmaplayer image').length > 0")
        names = browser.execute_script("return performance.getEntriesByType('resource').map((each) => each.name)")
        assert names
        assert all(name.startswith((f"http://127.0.0.1:{port}/", "data:", "blob:")) for name in names)
        wrong = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
        assert wrong == []

    visit(look)


def test_a_server_that_goes_away_is_said_and_found_again(browser: Any) -> None:
    async def scenario() -> None:
        async with watched() as page:
            port = page.port
            await asyncio.to_thread(browser.get, f"http://127.0.0.1:{port}/")
            await asyncio.to_thread(wait, browser, "document.getElementById('connection').textContent === 'live'")
        await asyncio.to_thread(wait, browser, "document.getElementById('connection').className === 'lost'")

    asyncio.run(scenario())


def contrast(browser: Any, foreground: str, background: str) -> float:
    """Of two colours, as WCAG reckons it."""

    def luminance(part: str, which: str) -> float:
        found = browser.execute_script(f"return getComputedStyle(document.querySelector({json.dumps(part)})).{which}")
        values = [int(each) / 255 for each in found[found.index("(") + 1 : -1].split(",")[:3]]
        red, green, blue = (value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in values)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    one, other = luminance(foreground, "color"), luminance(background, "backgroundColor")
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)
