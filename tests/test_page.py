"""The page in a real browser: Chromium through Playwright, where both are installed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import antiphon
from served import DATE, Running, running, slow

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PHONE = {"width": 375, "height": 720}
XSS = '<img src=x onerror="document.title=`broken`"><script>document.title="broken"</script>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running({"dates": slow(0.02)}, str(tmp_path_factory.mktemp("store") / "kept.db")) as server:
        yield server


@pytest.fixture
def page(browser: Any, server: Running) -> Iterator[Any]:
    """A page of its own; whatever it logs as an error, and whomever else it asks, fails the test."""
    context = browser.new_context()
    page = context.new_page()
    errors: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"http://127.0.0.1:{server.port}/")
    expect(page.locator("#model option")).to_have_count(1)
    yield page
    assert errors == []
    assert [url for url in asked if not url.startswith(f"http://127.0.0.1:{server.port}/")] == []
    context.close()


def say(page: Any, text: str) -> Any:
    """Say something; the answer's item, once the answer is whole."""
    before = page.locator("#log > li.answer").count()
    page.get_by_role("button", name="Talk", exact=True).click()
    page.get_by_label("What you say").fill(text)
    page.keyboard.press("Enter")
    answer = page.locator("#log > li.answer").nth(before)
    answer.locator(".acts").wait_for()
    return answer


def test_an_answer_streams(page):
    page.get_by_role("button", name="Talk", exact=True).click()
    page.get_by_label("What you say").fill(DATE)
    page.get_by_role("button", name="Send").click()
    seen = set()
    text = page.locator("#log > li.answer p").first
    while page.locator("#log .acts").count() == 0:
        seen.add(text.text_content())
    assert text.text_content() == "1979-05-03"
    assert len({piece for piece in seen if 0 < len(piece) < 10}) >= 2
    assert page.locator("#status").text_content() == "Answer: 1979-05-03"


def test_a_word_shows_what_it_looked_at(page):
    answer = say(page, DATE)
    answer.get_by_role("button", name="Attention").click()
    answer.locator(".looks").wait_for()
    words = answer.locator(".words .target")
    assert words.count() == 11
    assert answer.locator(".map tbody tr").count() == 11
    assert answer.locator(".map thead th").count() == 18
    words.nth(6).hover()  # the month's second digit
    weights = answer.locator(".words .source").evaluate_all("all => all.map(w => +w.style.getPropertyValue('--w'))")
    assert sum(weights) == pytest.approx(1, abs=0.01)
    month = range(DATE.index("mayo"), DATE.index("mayo") + 4)
    assert max(range(18), key=lambda place: weights[place]) in [*month, month[-1] + 1, month[0] - 1]
    words.nth(0).focus()  # and the same without a mouse
    assert words.nth(0).get_attribute("aria-pressed") == "true"
    answer.get_by_role("button", name="Attention").click()
    assert answer.locator(".looks").count() == 0


def test_an_answer_is_corrected_and_found_again_after_a_reload(page, server):
    answer = say(page, DATE)
    answer.get_by_role("button", name="Good answer").click()
    expect(page.locator("#status")).to_have_text("Noted.")
    answer.get_by_role("button", name="Better answer").click()
    answer.get_by_role("textbox", name="A better answer").fill(f"the third of May {XSS}")
    answer.get_by_role("button", name="Keep").click()
    answer.locator(".instead").wait_for()
    say(page, "second")
    page.reload()
    page.locator("#log > li.answer .acts").nth(1).wait_for()
    assert page.locator("#log > li.said").all_text_contents() == [DATE, "second"]
    assert page.locator(".instead").text_content() == f"better: the third of May {XSS}"
    assert page.get_by_role("button", name="Good answer").first.get_attribute("aria-pressed") == "true"
    [conversation] = [one.id for one in server.conversations.list() if page.url.endswith(one.id)]
    assert server.conversations.turns(conversation)[0].better == f"the third of May {XSS}"

    page.get_by_role("button", name="Conversations").click()
    page.get_by_role("button", name="New conversation").click()
    assert page.locator("#log > li").count() == 0
    page.locator("#past button").first.click()
    page.locator("#log > li.answer .acts").nth(1).wait_for()
    page.get_by_role("button", name=re.compile("Delete")).first.click()
    expect(page.locator("#status")).to_have_text("Deleted.")
    assert server.conversations.turns(conversation) == []


def test_nothing_said_is_markup(page):
    say(page, XSS)
    assert page.locator("#log > li.said").text_content() == XSS
    assert page.title() == "Antiphon"
    assert page.locator("#log img, #log script").count() == 0


def test_alternatives_and_settings(page):
    answer = say(page, DATE)
    answer.get_by_role("button", name="Alternatives").click()
    expect(answer.locator(".others li")).to_have_count(5)
    page.get_by_role("button", name="Search").click()
    page.get_by_label("most tokens").fill("4")
    page.get_by_label("most tokens").blur()
    assert say(page, DATE).locator("p").first.text_content() == "1979"


def test_two_panes(page):
    page.get_by_role("button", name="Two panes").click()
    page.get_by_label("Text", exact=True).fill(DATE)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#pane-answer")).to_have_text("1979-05-03")
    assert page.locator("#pane-others li").count() == 4
    assert page.locator("#pane-attention .map").count() == 1


def refuse(page: Any, path: str, status: int = 429) -> None:
    told = '{"error": {"message": "the queue is full", "type": "x", "param": null, "code": 429}}'
    page.route(path, lambda route: route.fulfill(status=status, body=told, content_type="application/json"))


@pytest.fixture
def hindered(browser: Any, server: Running) -> Iterator[Any]:
    """A page whose requests may fail, which browsers log as errors."""
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/")
    expect(page.locator("#model option")).to_have_count(1)
    yield page
    page.close()


def test_what_was_not_answered_can_be_said_again(hindered):
    page = hindered
    page.get_by_role("button", name="Talk", exact=True).click()
    refuse(page, "**/v1/chat/completions")
    page.get_by_label("What you say").fill(DATE)
    page.keyboard.press("Enter")
    expect(page.locator("#fault")).to_have_text("the queue is full")
    expect(page.get_by_label("What you say")).to_have_value(DATE)
    assert page.locator("#log > li").count() == 0
    page.unroute("**/v1/chat/completions")
    page.keyboard.press("Enter")
    page.locator("#log .acts").wait_for()
    assert page.locator("#log > li").count() == 2


def test_what_a_server_refuses_is_not_said_to_be_done(hindered):
    page = hindered
    answer = say(page, DATE)
    refuse(page, "**/turns/*")
    good = answer.get_by_role("button", name="Good answer")
    good.click()
    expect(page.locator("#fault")).to_have_text("the queue is full")
    page.unroute("**/turns/*")
    good.click()
    expect(good).to_have_attribute("aria-pressed", "true")
    refuse(page, "**/conversations/*")
    page.get_by_role("button", name="Conversations").click()
    page.get_by_role("button", name=re.compile("Delete")).first.click()
    expect(page.locator("#fault")).to_have_text("the queue is full")
    expect(page.locator("#past > li")).to_have_count(1)
    page.unroute("**/conversations/*")
    page.get_by_role("button", name=re.compile("Delete")).first.click()
    expect(page.locator("#past > li")).to_have_count(0)


def test_two_panes_show_the_answer_to_the_last_text(page):
    page.get_by_role("button", name="Two panes").click()
    field = page.get_by_label("Text", exact=True)
    page.evaluate("""() => {
        const real = window.fetch;
        let first = true;
        const held = new Promise((release) => { window.release = release; });
        window.fetch = async (...asked) => {
            if (!first) return real(...asked);
            first = false;
            try {
                const answer = await real(...asked);
                await held;
                return answer;
            } finally {
                setTimeout(() => { window.over = true; }, 100);
            }
        };
    }""")
    for text in ("1 de enero de 2001", DATE):
        field.fill(text)
        page.keyboard.press("Control+Enter")
    expect(page.locator("#pane-answer")).to_have_text("1979-05-03")
    page.evaluate("window.release()")
    page.wait_for_function("window.over")  # given up, or come late
    expect(page.locator("#pane-answer")).to_have_text("1979-05-03")
    expect(page.locator("#pane-attention .map")).to_have_count(1)
    field.fill("3 de mayo de 1979 " * 8)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#pane-answer")).to_contain_text("only its end was read")


def test_what_is_written_from_the_right_is_laid_out_so(page):
    answer = say(page, "3 مايو 1979")
    assert answer.locator("p").first.evaluate("p => getComputedStyle(p).unicodeBidi") == "plaintext"


def test_stopping_keeps_what_was_said(page, server):
    page.get_by_role("button", name="Talk", exact=True).click()
    page.get_by_label("What you say").fill("x" * 100)
    page.keyboard.press("Enter")
    expect(page.locator("#log .going p")).not_to_be_empty()
    page.keyboard.press("Escape")
    page.locator("#log .acts").wait_for()
    assert page.get_by_role("button", name="Send").is_visible()


def test_a_phone_has_room_for_all_of_it(page):
    page.set_viewport_size(PHONE)
    answer = say(page, DATE)
    answer.get_by_role("button", name="Attention").click()
    answer.locator(".looks").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for name in ("Search", "Conversations"):
        page.get_by_role("button", name=name).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_a_token_is_asked_for(browser):
    with running({"dates": antiphon.load("dates")}, token="secret", hosts=None) as server:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.get_by_role("textbox", name="Token").fill("wrong")
        page.get_by_role("button", name="Enter").click()
        expect(page.get_by_role("heading", name="That is not this server's token")).to_be_visible()
        page.get_by_role("textbox", name="Token").fill("secret")
        page.get_by_role("button", name="Enter").click()
        expect(page.locator("#model option")).to_have_count(1)
        page.close()


def test_the_page_of_the_interface_lists_it(page, server):
    page.goto(f"http://127.0.0.1:{server.port}/docs")
    page.get_by_role("heading", name="POST /v1/chat/completions").wait_for()


@pytest.mark.parametrize(("theme", "width"), [("light", 375), ("dark", 1200), ("light", 1200)])
def test_axe_finds_nothing_serious(page, theme, width):
    axe = os.environ.get("AXE_CORE")
    if axe is None:
        pytest.skip("AXE_CORE names no axe.min.js: npm install axe-core")
    page.set_viewport_size({"width": width, "height": 800})
    if (page.locator("#theme").get_attribute("aria-pressed") == "true") != (theme == "dark"):
        page.locator("#theme").click()
    answer = say(page, DATE)
    answer.get_by_role("button", name="Attention").click()
    answer.get_by_role("button", name="Alternatives").click()
    answer.get_by_role("button", name="Better answer").click()
    answer.locator(".others").wait_for()
    page.evaluate(Path(axe).read_text(encoding="utf-8"))
    found = []
    for opened in ("Search", "Conversations"):
        page.get_by_role("button", name=opened).first.click()
        found += page.evaluate("async () => (await axe.run()).violations")
    told = {
        f"{one['id']}: {one['nodes'][0]['html'][:120]}" for one in found if one["impact"] in ("serious", "critical")
    }
    assert told == set()
