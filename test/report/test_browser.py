"""The report in a real browser: nothing on its console, nothing too wide, no label on another one,
and everything that should move moves; on a telephone, a tablet and a desk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.report.page import write_report
from flow3r_ros.report.record import RunRecord
from test.evaluation.factories import make_estimate, make_record, random_poses

WIDTHS = {"telephone": 360, "tablet": 768, "desk": 1280}
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
"""nothing that looks for a network, and no sandbox: tests run as root"""
MAX_BYTES = 5_000_000

OVERLAPS = """() => [...document.querySelectorAll('svg[data-chart]')].flatMap((svg) => {
  const texts = [...svg.querySelectorAll('text')].filter((text) => text.getClientRects().length);
  const boxes = texts.map((text) => [text.textContent, text.getBoundingClientRect()]);
  return boxes.flatMap(([one, a], i) => boxes.slice(i + 1)
    .filter(([, b]) => a.left < b.right - 1 && b.left < a.right - 1
      && a.top < b.bottom - 1 && b.top < a.bottom - 1)
    .map(([other]) => `${one} | ${other}`));
})"""


def two_segments() -> RunRecord:
    """A run with a cloud and a map with loops, lost in the middle, its second half a new
    segment."""
    record = make_record(frames=60, title="a_long_name_of_a_recording_without_any_space_in_it")
    rng = np.random.default_rng(1)
    for index, pose in enumerate(random_poses(rng, 30), 60):
        record.add(replace(make_estimate(rng, index, pose), segment=1))
    points = rng.normal(0, 1, (30_000, 3)).astype(np.float32)
    colors = rng.integers(0, 255, (30_000, 3)).astype(np.uint8)
    record.keep_cloud(points, colors, rng.random(30_000).astype(np.float32))
    record.mapped = Trajectory(record.stamps_ns, record.poses)
    record.loops = record.stamps_ns[[[3, 50], [4, 51]]]
    record.summary |= {
        "segments": [
            {"first": 0, "last": 59, "reason": "start"},
            {"first": 60, "last": 89, "reason": "lost for 40 frames"},
        ],
        "lost_spans": [{"first": 25, "last": 25, "reason": "too few corners were seen again"}],
        "camera": {"source": "assumed", "model": "none", "fx": 576.0, "fy": 576.0, "why": "none"},
    }
    return record


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium; install it: sudo apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("report") / "report.html", two_segments())


@pytest.fixture(params=WIDTHS.values(), ids=WIDTHS.keys())
def page(request: Any, browser: Browser, report: Path) -> Iterator[Page]:
    """The report at one width; whatever the browser complains of fails the test."""
    size = {"width": request.param, "height": 900}
    context = browser.new_context(viewport=size, has_touch=request.param < 500, offline=True)
    shown = context.new_page()
    said: list[str] = []
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    local = ("file:", "data:")
    shown.on("request", lambda asked: asked.url.startswith(local) or said.append(asked.url))
    shown.goto(report.as_uri())
    yield shown
    assert not said
    context.close()


DRAWN = """canvas => new Promise((done) =>
  requestAnimationFrame(() => requestAnimationFrame(() => done(canvas.toDataURL()))))"""


def picture(page: Page) -> str:
    """The scene, once everything asked for is drawn."""
    return str(page.eval_on_selector("canvas.scene", DRAWN))


def test_everything_is_there_and_fits(page: Page, report: Path) -> None:
    assert report.stat().st_size < MAX_BYTES
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for title in ("Problems", "Way and cloud", "What it saw", "Over time", "Trajectory", "The map"):
        assert page.get_by_role("heading", name=title, exact=True).is_visible()
    problems = page.locator(".problems li").all_inner_texts()
    assert problems[0].startswith("lost from frame 25 to 25: too few corners")
    assert "Try: move more slowly" in problems[0]
    assert any("a new segment begins at frame 60" in problem for problem in problems)
    assert any("focal length is assumed" in problem for problem in problems)
    assert page.locator(".legend", has_text="segment 1").count() == 2, "scene and maps"
    assert page.locator(".legend", has_text="loops (2)").count() == 2, "scene and map"
    assert page.evaluate(OVERLAPS) == []
    small = "element => element.getBoundingClientRect().height"
    assert min(page.locator("svg[data-chart] text").evaluate_all(f"all => all.map({small})")) > 8


def test_way_and_cloud_turn(page: Page) -> None:
    first = picture(page)
    page.locator("canvas.scene").scroll_into_view_if_needed()
    box = page.locator("canvas.scene").bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 90, middle[1] + 30, steps=3)
    page.mouse.up()
    turned = picture(page)
    assert turned != first
    page.keyboard.press("+")
    assert picture(page) != turned
    page.locator("canvas.scene").dblclick()
    assert picture(page) == first


def test_charts_zoom_and_the_cursor_goes_through_everything(page: Page) -> None:
    before = picture(page)
    chart = page.locator("svg[data-chart]", has_text="depth (units)").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.4 * box["height"])
    cursors = page.locator("svg .cursor").evaluate_all("all => all.map(one => one.style.display)")
    assert cursors.count("inline") >= 4
    assert page.locator("img.now").count() == 4, "image, depth, confidence, moving"
    assert picture(page) != before, "the place of that moment"
    first = chart.locator("text").first
    other = page.locator("svg[data-chart]", has_text="sigma (units)").locator("text").first
    said, same = first.text_content(), other.text_content()
    assert said is not None
    assert same is not None
    page.keyboard.down("Control")
    page.mouse.wheel(0, -400)
    page.keyboard.up("Control")
    expect(first).not_to_have_text(said)
    expect(other).not_to_have_text(same)
    assert page.evaluate(OVERLAPS) == []
    chart.dblclick()
    expect(first).to_have_text(said)
