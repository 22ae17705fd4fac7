"""The figures of a run: what is on them, and that only one thing changes in each."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stackgan_dist.errors import UserError
from stackgan_dist.figures import __main__ as figures
from stackgan_dist.figures.figures import variants_of, with_colour_to_choose
from stackgan_dist.figures.nearest import mean_features, nearest

MARGIN, LABELS, TOP = 15, 260, 26


def _figures(patch: pytest.MonkeyPatch, *arguments: object) -> None:
    patch.setattr("sys.argv", ["figures", *map(str, arguments)])
    figures.main.__wrapped__()  # type: ignore[attr-defined]


def _cell(sheet: Path, row: int, column: int, side: int) -> np.ndarray:
    left, top = LABELS + column * (side + MARGIN), TOP + row * (side + MARGIN)
    return np.asarray(Image.open(sheet).crop((left, top, left + side, top + side))).astype(int)


class Images(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str | None] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            self.sources.append(dict(attrs)["src"])


def test_all_figures_of_a_stage2_run(
    three_runs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, run = three_runs
    (tmp_path / "stages.png").write_bytes(b"of an earlier call")
    with pytest.raises(UserError, match=r"holds 1 files already \(stages.png is one\); give another folder"):
        _figures(monkeypatch, "--run", run, "--out", tmp_path, "--count", 3, "--texts", 2)
    _figures(monkeypatch, "--run", run, "--out", tmp_path, "--count", 3, "--texts", 2, "--overwrite")
    image: Any = Image.open(tmp_path / "stages.png")
    image.load()
    assert image.text["checkpoint"].endswith("checkpoints/step-000000005, ema weights")
    page = Images((tmp_path / "index.html").read_text())
    assert page.sources == ["stages.png", "noises.png", "interpolation.png", "word.png", "nearest.png"]
    assert {path.name for path in tmp_path.iterdir()} == {*page.sources, "index.html"}
    assert "script" not in page.tags
    for row in range(2):  # one word changed, but the same noise as in the row above: not the same picture
        assert (_cell(tmp_path / "word.png", row, 0, 128) != _cell(tmp_path / "word.png", row + 1, 0, 128)).any()
    first, middle, last = (_cell(tmp_path / "interpolation.png", 0, column, 128) for column in range(3))
    assert (first != last).any()
    assert (first != middle).any()


def test_a_page_of_something_else_is_not_replaced(
    three_runs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index.html").write_text("<title>My pages</title>")
    with pytest.raises(UserError, match=r"holds index.html, which would be replaced, and no earlier call"):
        _figures(monkeypatch, "--run", three_runs[1], "--out", tmp_path, "--overwrite")
    assert (tmp_path / "index.html").read_text() == "<title>My pages</title>"


def test_noises_with_and_without_conditioning_augmentation(
    three_runs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without, run, _ = three_runs
    _figures(monkeypatch, "--run", run, "--out", tmp_path, "--count", 2, "--texts", 2, "--without-ca", without)
    sheet = tmp_path / "noises.png"
    assert Image.open(sheet).height == TOP + 3 * (96 + MARGIN)
    assert (_cell(sheet, 0, 0, 96) != _cell(sheet, 1, 0, 96)).any(), "the condition is drawn or is not"
    assert (_cell(sheet, 1, 0, 96) != _cell(sheet, 1, 1, 96)).any(), "noise makes a difference"
    page = (tmp_path / "index.html").read_text()
    assert "this is a Stage-I run" in page
    assert not (tmp_path / "stages.png").exists()
    (tmp_path / "stages.png").write_bytes(b"of a call that had a Stage-II run")
    _figures(monkeypatch, "--run", run, "--out", tmp_path, "--count", 2, "--texts", 2, "--overwrite")
    assert not (tmp_path / "stages.png").exists()
    with pytest.raises(UserError, match="was trained with conditioning augmentation"):
        _figures(monkeypatch, "--run", run, "--out", tmp_path, "--without-ca", run, "--overwrite")
    assert (tmp_path / "noises.png").exists()  # nothing goes before there is something to put in its place


def test_sentences_of_one_s_own(
    three_runs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run, _ = three_runs
    own = ["--sentences", "a <b>small</b> bird", "a bird with wings"]
    _figures(monkeypatch, "--run", run, "--out", tmp_path / "a", "--count", 2, *own)
    page = (tmp_path / "a" / "index.html").read_text()
    assert "<b>small" not in page
    assert "no sentence names a colour" in page
    _figures(monkeypatch, "--run", run, "--out", tmp_path / "b", "--count", 2, *own, "--words", "a {red,blue} bird")
    assert Image.open(tmp_path / "b" / "word.png").height == TOP + 2 * (96 + MARGIN)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", 1], "--count is 1"),
        (["--sentences", "a red bird"], "needs 2 or more"),
        (["--words", "a red bird"], "no choice of words"),
    ],
)
def test_wrong_options_are_user_errors(
    three_runs: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[object],
    message: str,
) -> None:
    with pytest.raises(UserError, match=message):
        _figures(monkeypatch, "--run", three_runs[1], "--out", tmp_path, "--texts", 2, *arguments)


def test_words_to_choose_from() -> None:
    assert variants_of("a {red, blue} bird") == ["a red bird", "a blue bird"]
    assert variants_of("a red bird") == ["a red bird"]
    found = with_colour_to_choose("a small blue bird with red wings", 3)
    assert found == "a small {blue,red,orange} bird with red wings"
    assert with_colour_to_choose("a bored bird", 3) is None


def test_the_nearest_are_those_of_a_whole_search() -> None:
    torch.manual_seed(0)
    many, queries = torch.rand(50, 3, 4, 4), torch.rand(6, 3, 4, 4)
    queries[0] = many[33]

    def features(images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)

    mean = mean_features(many.split(8), features)
    torch.testing.assert_close(mean, many.flatten(1).mean(0))
    similarity, images = nearest(queries, many.split(8), features, mean, k=4, shown=3)
    x, y = (torch.nn.functional.normalize(images.flatten(1) - mean, dim=1) for images in (queries, many))
    expected, places = (x @ y.T).topk(4, dim=1)
    torch.testing.assert_close(similarity, expected)
    for row in range(3):
        assert torch.equal(torch.stack(images[row]), many[places[row]])
    assert similarity[0, 0] == pytest.approx(1)
    assert torch.equal(images[0][0], many[33])
