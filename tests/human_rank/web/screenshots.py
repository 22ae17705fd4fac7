"""The pictures in docs/human_rank.md: `python tests/human_rank/web/screenshots.py STUDY RUN docs`.

A copy of the study is rated; its votes are left alone.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from human_rank.web.pages import DESKTOP, PHONE, open_browser, serving

_COLOURS = 160
_MARGIN = 24


def _wait(browser: Any, script: str) -> None:
    while not browser.execute_script(f"return {script}"):
        time.sleep(0.05)


def _start(browser: Any, url: str) -> None:
    browser.get(url)
    _wait(browser, "!document.getElementById('study').hidden")


def _rank(browser: Any, url: str) -> None:
    _start(browser, url)
    browser.find_element("id", "join").click()
    _wait(browser, "document.querySelectorAll('.set').length > 0")
    _wait(browser, "[...document.images].every((image) => image.complete)")
    browser.find_elements("css selector", ".set")[1].click()


def _try(browser: Any, url: str) -> None:
    browser.get(url + "/try")
    _wait(browser, "document.getElementById('number').max")
    browser.find_element("id", "sentence").send_keys("a small red bird with white wings and a yellow belly")
    browser.find_element("id", "two").click()
    browser.find_element("id", "other").send_keys("a large blue bird with black wings")
    browser.find_element("id", "generate").click()
    _wait(browser, "!document.getElementById('sheet').hidden")
    slider = (
        "const slider = document.getElementById('slider'); slider.value = 3; slider.dispatchEvent(new Event('input'))"
    )
    browser.execute_script(slider)
    _wait(browser, "[...document.images].every((image) => image.complete)")
    browser.execute_script("window.scrollTo(0, 0)")


def main() -> None:
    """Take desktop and phone side by side, one file for each page."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("study", "run", "out"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "study"
        shutil.copytree(options.study, copy, ignore=shutil.ignore_patterns("votes.sqlite*"))
        with serving(Path(folder) / "log", copy, "--run", options.run) as server:
            for name, visit in (("start", _start), ("human_rank", _rank), ("try", _try)):
                shots = []
                for size in (DESKTOP, PHONE):
                    browser = open_browser(size, touch=size == PHONE)
                    try:
                        visit(browser, server.url)
                        time.sleep(0.5)  # transitions
                        browser.save_screenshot(f"{folder}/shot.png")
                    finally:
                        browser.quit()
                    shots.append(Image.open(f"{folder}/shot.png").convert("RGB"))
                height = max(shot.height for shot in shots)
                sheet = Image.new("RGB", (sum(shot.width for shot in shots) + _MARGIN, height), "white")
                sheet.paste(shots[0], (0, 0))
                sheet.paste(shots[1], (shots[0].width + _MARGIN, 0))
                sheet.quantize(_COLOURS).save(options.out / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
