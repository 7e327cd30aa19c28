"""Make the pictures of the documentation: a session as it is typed, and a report at three widths.

.venv/bin/python scripts/docs_pictures.py

needs tmux and Chromium. Writes docs/terminal.cast (`asciinema play` shows it),
docs/images/terminal.svg (its last screen) and docs/images/report_WIDTH.jpg.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
COLUMNS, ROWS = 110, 66
SESSION = "flow3r_docs"
PROMPT = "$ "
TYPED = (
    "flow3r run clip --max-frames 60 --output walk",
    "flow3r evaluate trajectory walk clip/groundtruth.tum",
    "flow3r evaluate trajectory walk/trajectory.tum clip/groundtruth.tum",
    "flow3r run video.mov --output other",
    "flow3r re\t",
)
"""what is typed, one line after the other; a tab asks for completion"""
COMPLETED = re.compile(r"replay\s+report")
"""what more tabs then show"""
WIDTHS = {360: 1400, 768: 1000, 1280: 1000}
"""widths of the report and how much of it is shown, pixels"""
POLL_S, PATIENCE_S = 0.1, 600.0


def tmux(*arguments: str) -> str:
    """What a command of tmux prints."""
    done = subprocess.run(["tmux", *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def screen() -> str:
    """The screen as text."""
    return tmux("capture-pane", "-p", "-t", SESSION).rstrip()


def record(folder: Path, cast: Path, picture: Path) -> None:
    """Type the session in `folder` and keep what the terminal was sent, and its last screen."""
    raw = folder / "raw"
    raw.touch()
    shell = f"env PS1='{PROMPT}' bash --norc --noprofile"
    size = ("-x", str(COLUMNS), "-y", str(ROWS))
    tmux("new-session", "-d", "-s", SESSION, *size, "-c", str(folder), shell)
    events: list[tuple[float, str, str]] = []
    try:
        tmux("send-keys", "-t", SESSION, 'eval "$(flow3r --show-completion bash)"; clear', "Enter")
        wait_for(lambda: screen() == PROMPT.rstrip())
        tmux("pipe-pane", "-t", SESSION, f"cat >> {raw}")
        begun, seen = time.monotonic(), 0

        def look() -> None:
            nonlocal seen
            data = raw.read_bytes()[seen:]
            if data:
                seen += len(data)
                events.append((time.monotonic() - begun, "o", data.decode(errors="replace")))

        for line in TYPED:
            for letter in line:
                tmux("send-keys", "-t", SESSION, "-l", letter)
                time.sleep(0.04)
                look()
            if line.endswith("\t"):
                wait_for(lambda: screen().endswith("rep"), look)
                tmux("send-keys", "-t", SESSION, "-l", "\t\t")  # bash lists when nothing changes
                wait_for(lambda: COMPLETED.search(screen()) is not None, look)
            else:
                tmux("send-keys", "-t", SESSION, "Enter")
                wait_for(lambda: screen().endswith(f"\n{PROMPT.rstrip()}"), look)
        time.sleep(1.0)
        look()
        shown = tmux("capture-pane", "-p", "-e", "-t", SESSION)
    finally:
        subprocess.run(["tmux", "kill-session", "-t", SESSION], check=False)
    head = {"version": 2, "width": COLUMNS, "height": ROWS, "title": "flow3r"}
    rows = [head, *([round(when, 2), kind, text] for when, kind, text in events)]
    cast.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(Text.from_ansi(shown.rstrip()))
    svg = console.export_svg(title="flow3r")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # no external address
    picture.write_text(svg, encoding="utf-8")


def wait_for(condition: object, meanwhile: object = lambda: None) -> None:
    """Poll until `condition()` holds, calling `meanwhile()`; RuntimeError when it never does."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        time.sleep(POLL_S)
        meanwhile()  # type: ignore[operator]
        if condition():  # type: ignore[operator]
            return
    raise RuntimeError(f"the terminal shows:\n{screen()}")


def photograph(report: Path, images: Path) -> None:
    """The top of a report at each of WIDTHS."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for width, height in WIDTHS.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(report.absolute().as_uri())
            page.wait_for_timeout(500)
            shot = images / f"report_{width}.png"
            page.screenshot(path=shot)
            picture = cv2.imread(str(shot))
            shot.unlink()
            cv2.imwrite(str(shot.with_suffix(".jpg")), picture, [cv2.IMWRITE_JPEG_QUALITY, 80])
        browser.close()


def main() -> None:
    """Make all pictures."""
    images = ROOT / "docs" / "images"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "demo" / "clip", folder / "clip")
        programs = str(Path(sys.executable).parent)
        os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
        record(folder, ROOT / "docs" / "terminal.cast", images / "terminal.svg")
        run = ["flow3r", "run", str(folder / "clip"), "--output", str(folder / "out"), "--quiet"]
        subprocess.run([*run, "--set", "slam.enabled=true"], check=True, stdout=subprocess.DEVNULL)
        photograph(folder / "out" / "report.html", images)


if __name__ == "__main__":
    main()
