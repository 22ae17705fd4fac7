"""The pages in a real browser: a whole study by two raters, dragging, a phone, two tabs, and the try page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from human_rank.web.pages import PHONE, Server, missing_browser, open_browser, serving

pytestmark = pytest.mark.skipif(missing_browser() is not None, reason=str(missing_browser()))

WAIT_S = 60


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver = open_browser()
    yield driver
    driver.quit()


@pytest.fixture
def server(study: Path, three_runs: tuple[Path, Path, Path], tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "log", study, "--run", three_runs[2]) as running:
        yield running


class Page:
    """A tab, and the few things that are done in it."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def open(self, url: str) -> None:
        self.browser.get(url)

    def find(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return list(self.browser.find_elements("css selector", selector))

    def text(self, selector: str) -> str:
        return str(self.find(selector).text)

    def until(self, true: Callable[[], Any], what: str) -> None:
        """Wait until `true()`; elements may come and go meanwhile."""
        from selenium.common.exceptions import WebDriverException

        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            with suppress(WebDriverException):
                if true():
                    return
            time.sleep(0.02)
        raise AssertionError(f"{what}: waited {WAIT_S} s; the page says {self.text('body')!r}")

    def keys(self, *keys: str) -> None:
        """Press keys, whatever has the focus."""
        from selenium.webdriver import ActionChains

        chain = ActionChains(self.browser)
        for key in keys:
            chain = chain.send_keys(key)
        chain.perform()

    def join(self, server: Server) -> str:
        """Begin a study; the rater's link."""
        self.open(server.url)
        self.until(lambda: self.find("#join").is_displayed(), "the study is offered")
        self.find("#join").click()
        self.at(1)
        return str(self.browser.current_url)

    def at(self, number: int) -> None:
        """Wait for the rater's question `number`, from 1."""
        self.until(lambda: self.text("#count").startswith(f"{number} of"), f"question {number}")
        self.until(lambda: len(self.all(".set")) == 3, "the sets")

    def pictures_are_there(self) -> bool:
        """Whether every picture was loaded and can be seen."""
        script = "return [...document.querySelectorAll('.set img')].map(i => i.complete && i.naturalWidth > 0)"
        loaded = self.browser.execute_script(script)
        return len(loaded) == 15 and all(loaded)

    def quiet(self) -> None:
        """Nothing was blocked by the policy, no script failed."""
        assert [entry for entry in self.browser.get_log("browser") if "409" not in entry["message"]] == []


@pytest.fixture
def page(browser: Any) -> Page:
    return Page(browser)


def _votes(study: Path, report: Callable[..., str], tmp_path: Path) -> list[dict[str, Any]]:
    report(study, "--json", tmp_path / "votes.json")
    return list(json.loads((tmp_path / "votes.json").read_text())["votes"])


def test_a_whole_study_by_two_raters(
    page: Page, server: Server, study: Path, report: Callable[..., str], tmp_path: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    page.join(server)  # the first rater has a mouse
    for number in range(1, 7):
        page.at(number)
        page.until(page.pictures_are_there, "the pictures")
        assert not page.find("#confirm").is_enabled()
        for slot in (1, 2, 0):
            page.all(".set")[slot].click()
        assert [chip.text for chip in page.all(".place .chip")] == ["B", "C", "A"]
        page.find("#confirm").click()
    page.until(lambda: page.find("#done").is_displayed(), "the end")
    assert "Thank you" in page.text("#done")

    page.join(server)  # the second one has none
    for number in range(1, 7):
        page.at(number)
        page.keys("c", "a", "b", Keys.ENTER)
    page.until(lambda: page.find("#done").is_displayed(), "the end")
    assert "What comes next" in page.text("#done")
    page.until(lambda: page.find("#next").is_displayed(), "the way on")
    page.quiet()
    page.find("#next a").click()
    page.until(lambda: page.text("h1") == "Try a sentence", "the try page")

    votes = _votes(study, report, tmp_path)
    assert len(votes) == 12
    for vote in votes:
        shown = vote["shown"]
        picked = (1, 2, 0) if vote["rater"] == 0 else (2, 0, 1)
        assert vote["ranking"] == [shown[slot] for slot in picked]
    assert sum(vote["check"] for vote in votes) == 2

    text = report(study, "--csv", tmp_path / "votes.csv")
    assert "10 votes by 2 raters (2 finished) on 5 of 5 sentences" in text
    assert text.count(" px, ") == 3
    assert "Stage-I without CA before Stage-II" in text
    assert "Kendall's W" in text
    assert "of 2 raters passed all they met" in text
    assert "GAWWN 1.99 ± 0.04" in text
    assert len((tmp_path / "votes.csv").read_text().splitlines()) == 13


def test_pairs_with_ties_and_aspects_end_with_a_code(
    page: Page, study: Path, report: Callable[..., str], tmp_path: Path
) -> None:
    """The better of two is one click; "=" makes them equal; what is asked changes with the page."""
    from selenium.webdriver.common.keys import Keys

    content = json.loads((study / "study.json").read_text())
    protocol = {"at_once": 2, "ties": True, "aspects": ["alignment", "realism"], "completion": "unique"}
    (study / "study.json").write_text(json.dumps({**content, "schema": 2, "protocol": protocol}))
    with serving(tmp_path / "log", study) as server:
        page.open(server.url)
        page.until(lambda: page.find("#join").is_displayed(), "the study is offered")
        page.find("#join").click()
        prompts = set()
        for number in range(1, 13):
            page.until(lambda at=number: page.text("#count").startswith(f"{at} of 12"), f"question {number}")
            page.until(lambda: len(page.all(".set")) == 2, "two sets")
            prompts.add(page.text("#prompt"))
            if number == 1:
                page.all(".set")[1].click()
                assert [chip.text for chip in page.all(".place .chip")] == ["B", "A"]
                page.find(".tie").click()
                assert page.find(".tie").get_attribute("aria-pressed") == "true"
                page.find("#confirm").click()
            elif number == 2:
                page.keys("a", "=", "=", Keys.ENTER)
            else:
                page.keys("b", Keys.ENTER)
        page.until(lambda: page.find("#done").is_displayed(), "the end")
        code = page.text("#code")
        assert len(code) == 10
        page.quiet()
    assert prompts == {
        "Which pictures fit this sentence best, however real they look?",
        "Which pictures look most real, whatever the sentence says?",
    }
    votes = _votes(study, report, tmp_path)
    assert votes[0]["ranking"] in ([votes[0]["shown"]], [votes[0]["shown"][::-1]])
    assert votes[1]["ranking"] == votes[1]["shown"]
    assert all(vote["ranking"] == vote["shown"][::-1] for vote in votes[2:])
    assert f"rater 0: {code}" in report(study, "--codes")


def test_drag_and_swap(page: Page, server: Server) -> None:
    from selenium.webdriver import ActionChains

    def drag(source: Any, target: Any) -> None:
        ActionChains(page.browser).click_and_hold(source).move_by_offset(9, 9).move_to_element(
            target
        ).release().perform()

    def chips() -> list[str]:
        return [chip.text for chip in page.all(".place .chip")]

    page.join(server)
    drag(page.all(".set")[0], page.all(".place")[2])
    assert chips() == ["", "", "A"]
    drag(page.all(".set")[1], page.all(".place")[2])  # sends A away
    assert chips() == ["", "", "B"]
    drag(page.all(".set")[0], page.all(".place")[0])
    drag(page.all(".place")[0], page.all(".place")[2])  # swaps
    assert chips() == ["B", "", "A"]
    page.all(".place")[2].click()
    assert chips() == ["B", "", ""]
    drag(page.all(".set")[2], page.find("#sentence"))  # nowhere
    assert chips() == ["B", "", ""]
    assert not page.find("#confirm").is_enabled()
    page.quiet()


def test_keyboard_places_changes_and_undoes(page: Page, server: Server) -> None:
    from selenium.webdriver.common.keys import Keys

    def chips() -> list[str]:
        return [chip.text for chip in page.all(".place .chip")]

    page.join(server)
    sentence = page.text("#sentence")
    page.keys("a", "a", "b")
    assert chips() == ["A", "B", ""]
    page.keys(Keys.BACKSPACE, "c", "b")
    assert chips() == ["A", "C", "B"]
    page.keys(Keys.ENTER)
    page.at(2)
    page.keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, "3")  # the second set, in the third place
    assert chips() == ["", "", "B"]
    page.keys(Keys.BACKSPACE, "z")
    page.at(1)
    assert page.text("#sentence") == sentence
    page.keys("b", "c", "a", Keys.ENTER)
    page.at(2)
    page.find("#undo").click()
    page.at(1)
    page.quiet()


def test_a_rater_goes_on_after_a_kill_and_in_another_tab(
    page: Page, study: Path, tmp_path: Path, report: Callable[..., str]
) -> None:
    from selenium.webdriver.common.keys import Keys

    first = Server(tmp_path / "first", study)
    try:
        link = page.join(first)
        page.keys("a", "b", "c", Keys.ENTER)
        page.at(2)
        page.keys("c", "b", "a")
    finally:
        first.kill()
    page.keys(Keys.ENTER)
    page.until(lambda: "does not answer" in page.text("#message"), "the loss is told")
    second = Server(tmp_path / "second", study, port=first.port)
    try:
        page.keys(Keys.ENTER)  # what was chosen is still there
        page.at(3)
        page.browser.switch_to.new_window("tab")
        page.open(link)
        page.at(3)
        page.keys("a", "b", "c", Keys.ENTER)
        page.at(4)
        page.browser.close()
        page.browser.switch_to.window(page.browser.window_handles[0])
        page.at(3)
        page.keys("b", "a", "c", Keys.ENTER)  # was ranked in the other tab
        page.at(4)
        assert "another tab" in page.text("#message")
        votes = _votes(study, report, tmp_path)
        assert [(vote["rater"], vote["position"]) for vote in votes] == [(0, 0), (0, 1), (0, 2)]
    finally:
        second.kill()
    page.browser.get_log("browser")


def test_a_phone(server: Server) -> None:
    driver = open_browser(PHONE, touch=True)
    try:
        page = Page(driver)
        page.join(server)
        page.until(page.pictures_are_there, "the pictures")
        assert page.text("#hint") == "Tap the best set first, or drag sets to places by their dots."
        width = driver.execute_script("return document.documentElement.scrollWidth")
        assert width <= PHONE[0]
        assert min(cell.size["width"] for cell in page.all(".cell")) >= 80
        tray = page.find("#tray").rect
        assert tray["y"] + tray["height"] <= driver.execute_script("return window.scrollY + window.innerHeight") + 1
        for letter in ("A", "B", "C"):
            _tap(driver, page.all(".set")[ord(letter) - 65])
        assert [chip.text for chip in page.all(".place .chip")] == ["A", "B", "C"]
        assert page.text("#hint") == "Tap Confirm, or a place to take its set back."
        _tap(driver, page.find("#confirm"))
        page.at(2)
        page.open(server.url + "/try")
        assert driver.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
        page.quiet()
    finally:
        driver.quit()


def _tap(driver: Any, element: Any) -> None:
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    box = driver.execute_script(
        "const b = arguments[0].getBoundingClientRect(); return [b.x, b.y, b.width, b.height]", element
    )
    point = {"x": box[0] + box[2] / 3, "y": box[1] + box[3] / 2}
    driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
    driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    time.sleep(0.2)


def test_try_a_sentence(page: Page, server: Server) -> None:
    def generate() -> None:
        page.find("#generate").click()
        page.until(lambda: page.find("#generate").is_enabled(), "the generating")

    def shown() -> list[str]:
        return [str(image.get_attribute("src")) for image in page.all("#pictures img")]

    page.open(server.url + "/try")
    page.until(lambda: page.find("#number").get_attribute("max") == "8", "the limits")
    generate()
    assert page.text("#message") == "The sentence is empty; say what to generate."
    page.find("#sentence").send_keys("<img src=x onerror=alert(1)> bird")
    generate()
    page.until(lambda: page.text("#message") == "4 pictures generated.", "the pictures")
    assert len(shown()) == 8
    captions = [caption.text.split() for caption in page.all("figcaption")]
    assert captions[:2] == [["Stage-I", "download"], ["Stage-II", "download"]]
    assert page.find("#sheet").is_displayed()
    assert page.text("#prompt") == "<img src=x onerror=alert(1)> bird"
    assert page.find("#prompt").rect["y"] < page.find("#pictures").rect["y"]

    page.find("#two").click()
    page.find("#other").send_keys("a blue bird <b>")
    page.find("#number").clear()
    page.find("#number").send_keys("2")
    generate()
    page.until(lambda: page.text("#message") == "18 pictures generated.", "the pictures between")
    before = shown()
    assert len(before) == 4
    assert page.text("#from") == "<img src=x onerror=alert(1)> bird"
    assert page.text("#to") == "a blue bird <b>"
    assert page.text("#prompt") == "<img src=x onerror=alert(1)> bird → a blue bird <b>"
    page.browser.execute_script(
        "arguments[0].value = 8; arguments[0].dispatchEvent(new Event('input'))", page.find("#slider")
    )
    after = shown()
    assert all("/0/" in source for source in before)
    assert all("/8/" in source for source in after)
    script = "return [...document.querySelectorAll('#pictures img')].every(i => i.complete && i.naturalWidth > 0)"
    page.until(lambda: page.browser.execute_script(script), "the last step's pictures")
    page.find("#number").clear()
    page.find("#number").send_keys("9")
    generate()
    assert "must be a whole number from 1 to 8" in page.text("#message")
    dimmed = "return getComputedStyle(document.getElementById('result')).opacity"
    page.until(lambda: float(page.browser.execute_script(dimmed)) < 0.5, "the old pictures are dimmed")
    page.find("#number").clear()
    page.find("#number").send_keys("1")
    generate()
    page.until(lambda: float(page.browser.execute_script(dimmed)) == 1, "the new ones are not")
    # What the server refused is told; nothing else may be in the console.
    assert [entry for entry in page.browser.get_log("browser") if "422" not in entry["message"]] == []


def test_pages_are_dark_where_that_is_preferred(page: Page, server: Server) -> None:
    def lightness(what: str) -> int:
        script = f"return getComputedStyle(document.body).{what}.match(/\\d+/g).map(Number)"
        return sum(page.browser.execute_script(script)[:3])

    for scheme, is_dark in (("dark", True), ("light", False)):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        page.open(server.url + "/try")
        assert (lightness("backgroundColor") < 120) is is_dark
        assert (lightness("color") > 600) is is_dark


def test_pages_run_no_script_but_their_own(page: Page, server: Server) -> None:
    page.open(server.url)
    inserted = "const s = document.createElement('script'); s.textContent = 'window.owned = 1'; document.head.append(s)"
    with suppress(Exception):  # trusted types refuse the text itself
        page.browser.execute_script(inserted)
    assert page.browser.execute_script("return window.owned") is None
    page.browser.get_log("browser")
