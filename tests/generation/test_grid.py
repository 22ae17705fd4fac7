"""Grids: pairs set apart, captions beside them in whatever script, as far as this machine has its letters."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from stackgan_dist.generation import fonts
from stackgan_dist.generation.grid import labelled_grid

SIDE = 40


def _row(*greys: int) -> list[Image.Image]:
    return [Image.new("RGB", (SIDE, SIDE), (grey, 0, 0)) for grey in greys]


def _columns(sheet: Image.Image) -> list[tuple[int, int]]:
    """(left, right) of every picture in the first row."""
    line = np.asarray(sheet)[26 + SIDE // 2]
    red = np.flatnonzero((line[:, 0] > 0) & (line[:, 1] == 0))
    breaks = np.flatnonzero(np.diff(line[red, 0].astype(int)) | (np.diff(red) - 1))
    bounds = [0, *(breaks + 1), len(red)]
    return [(int(red[a]), int(red[b - 1])) for a, b in itertools.pairwise(bounds)]


def test_the_stages_of_a_picture_stand_together_and_apart_from_the_next() -> None:
    columns = _columns(
        labelled_grid([_row(50, 100, 150, 200)], ["a bird"], ["Stage-I", "Stage-II"] * 2, SIDE, together=2)
    )
    gaps = [right - left - 1 for (_, left), (right, _) in itertools.pairwise(columns)]
    assert len(columns) == 4
    assert gaps[0] == gaps[2]
    assert gaps[1] >= 4 * gaps[0]
    alone = _columns(labelled_grid([_row(50, 100)], ["a bird"], ["one", "two"], SIDE))
    assert alone[1][0] - alone[0][1] - 1 == gaps[1]


def test_rows_are_parted_by_a_line() -> None:
    sheet = np.asarray(labelled_grid([_row(50), _row(100)], ["a", "b"], [""], SIDE))
    between = sheet[26 + SIDE : 26 + SIDE + 15, 270]
    assert (between == 225).all(axis=1).sum() == 1
    assert not (sheet[: 26 + SIDE, 100] == 225).all(axis=1).any()


@pytest.mark.parametrize("text", ["one two three four five six seven eight", "小鸟" * 40, "ж" * 90, "a " + "b" * 90])
def test_every_line_fits_its_column(text: str) -> None:
    font = fonts.font_for(text, 14)
    lines = fonts.wrapped(text, font, 200, 4).split("\n")
    assert 1 < len(lines) <= 4
    assert max(font.getlength(line) for line in lines) <= 200
    shown = "".join("".join(lines).removesuffix("...").split())
    assert text.replace(" ", "").startswith(shown)


def test_another_script_takes_a_font_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latin, cyrillic = "a small bird (of 3)", "красная птица"
    own = fonts.font_for(latin, 14)
    assert own is fonts.font_for("another", 14)
    assert fonts.without_letters([latin]) == ""
    if not any("DejaVuSans." in path for path in fonts._of_this_machine()):
        pytest.skip("no font with Cyrillic letters is installed")
    found = fonts.font_for(cyrillic, 14)
    assert isinstance(found, ImageFont.FreeTypeFont)
    assert found is not own
    assert fonts.without_letters([cyrillic, "\U0001f426 bird"]) in ("", "\U0001f426")
    # On a machine without fonts Pillow's is taken, and what it has not is said.
    monkeypatch.setattr(fonts, "_of_this_machine", lambda: [])
    assert fonts.font_for(cyrillic, 14) is own
    assert fonts.without_letters([cyrillic, latin]) == "".join(sorted({*cyrillic} - {" "}))
    # A file that is no font is passed over.
    (tmp_path / "x.ttf").write_bytes(b"no font")
    monkeypatch.setattr(fonts, "_of_this_machine", lambda: [str(tmp_path / "x.ttf")])
    assert fonts.font_for(cyrillic, 14) is own
