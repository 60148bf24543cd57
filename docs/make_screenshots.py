"""Draws the pictures of the page in docs/images: ``python docs/make_screenshots.py CHATBOT``, with Chromium.

Needs ``pip install playwright`` and Chromium; CHATBOT is the folder of a model that talks.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

IMAGES = Path(__file__).with_name("images")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def say(page: Page, text: str) -> None:
    """Say something and wait for the whole answer."""
    before = page.locator("#log .acts").count()
    page.get_by_label("What you say").fill(text)
    page.keyboard.press("Enter")
    expect(page.locator("#log .acts")).to_have_count(before + 1)


def talk(page: Page) -> None:
    """A conversation with an answer that shows what it looked at."""
    page.get_by_label("Model", exact=True).select_option(index=1)
    page.get_by_role("button", name="Search").click()
    page.get_by_label("seed").fill("3")
    page.get_by_role("button", name="Search").click()
    say(page, "hello, how are you?")
    say(page, "what is your favorite movie?")
    page.get_by_role("button", name="Attention").last.click()
    page.locator(".words .target").nth(2).hover()


def panes(page: Page) -> None:
    """A date, read."""
    page.get_by_label("Text", exact=True).fill("3 de mayo de 1979")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#pane-answer")).to_have_text("1979-05-03")
    page.locator("#pane-attention .words .target").nth(6).hover()


SCENES = (
    ("page-talk", talk, 1180, 820, "light"),
    ("page-talk-phone", talk, 390, 800, "dark"),
    ("page-panes", panes, 1180, 900, "dark"),
)


def main() -> None:
    """Serves, draws."""
    store = Path(tempfile.mkdtemp()) / "conversations.db"
    command = [sys.executable, "-m", "antiphon", "serve", "dates", sys.argv[1], "--store", str(store), "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        address = re.search(r"http://\S+", server.stderr.readline())
        assert address is not None
        with sync_playwright() as player:
            browser = player.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            for name, scene, width, height, scheme in SCENES:
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                page.goto(address[0])
                expect(page.locator("#model option")).to_have_count(2)
                scene(page)
                page.screenshot(path=IMAGES / f"{name}.png")
                page.close()
            browser.close()
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(store.parent)


if __name__ == "__main__":
    main()
