"""Pictures side by side, with the words they were generated from."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from stackgan_dist.generation.fonts import font_for, wrapped

_MARGIN = 6
_WITHIN, _BETWEEN = 3, 15
"""Pixels between columns that belong together, and between others; and between rows."""
_LABEL_WIDTH = 260
_FONT_SIZE = 14
_INK, _LINE = (40, 40, 40), (225, 225, 225)


def to_pixels(images: Tensor) -> Tensor:
    """Images (N, 3, S, S) in [-1, 1] as uint8 on the CPU."""
    return ((images.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()


def to_picture(pixels: Tensor) -> Image.Image:
    """One image (3, S, S), uint8, as a picture."""
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))


def to_pictures(images: Tensor) -> list[Image.Image]:
    """Images (N, 3, S, S) in [-1, 1] as pictures."""
    return [to_picture(pixels) for pixels in to_pixels(images)]


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size in one row, without margins."""
    side = pictures[0].width
    row = Image.new("RGB", (side * len(pictures), pictures[0].height))
    for number, picture in enumerate(pictures):
        row.paste(picture, (number * side, 0))
    return row


def stage_headings(title: str, *, both: bool) -> list[str]:
    """What the pictures of a model called `title` are called: Stage-II's alone, or beside Stage-I's where `both`."""
    title = title.replace("stage", "Stage")
    return ["Stage-I", title] if both else [title]


def labelled_grid(
    rows: Sequence[Sequence[Image.Image]],
    labels: Sequence[str],
    headings: Sequence[str],
    cell: int,
    *,
    together: int = 1,
) -> Image.Image:
    """Rows of pictures, each scaled to `cell` pixels, with a sentence to the left and a heading over each column.

    Small pictures are enlarged without smoothing, so that nobody is deceived about their sharpness. So many columns as
    `together` says belong together, such as the two stages of a picture, and are set apart from the next.
    """
    lefts = [
        _LABEL_WIDTH + column * (cell + _WITHIN) + column // together * (_BETWEEN - _WITHIN)
        for column in range(max(map(len, rows)))
    ]
    top = _FONT_SIZE + 2 * _MARGIN
    sheet = Image.new("RGB", (lefts[-1] + cell + _MARGIN, top + len(rows) * (cell + _BETWEEN)), "white")
    draw = ImageDraw.Draw(sheet)
    for left, heading in zip(lefts, headings, strict=False):
        draw.text((left, _MARGIN), heading, _INK, font_for(heading, _FONT_SIZE))
    most_lines = max(1, cell // (_FONT_SIZE + 4))
    for number, (row, label) in enumerate(zip(rows, labels, strict=True)):
        y = top + number * (cell + _BETWEEN)
        if number:
            draw.line((_MARGIN, y - _BETWEEN // 2, sheet.width - _MARGIN, y - _BETWEEN // 2), _LINE)
        font = font_for(label, _FONT_SIZE)
        text = wrapped(label, font, _LABEL_WIDTH - _MARGIN - _BETWEEN, most_lines)
        draw.multiline_text((_MARGIN, y), text, _INK, font)
        for left, picture in zip(lefts, row, strict=False):
            method = Image.Resampling.NEAREST if picture.width < cell else Image.Resampling.LANCZOS
            scaled = picture.resize((cell, cell), method) if picture.width != cell else picture
            sheet.paste(scaled, (left, y))
    return sheet


def to_png(picture: Image.Image, text: Mapping[str, str] | None = None) -> bytes:
    """The content of a PNG file, with `text` in its text chunks; equal pictures and texts are equal bytes."""
    info = PngInfo()
    for name, content in (text or {}).items():
        # tEXt, or iTXt where it is not Latin-1; a command line may hold bytes that are no text at all.
        info.add_text(name, content.encode(errors="backslashreplace").decode())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()
