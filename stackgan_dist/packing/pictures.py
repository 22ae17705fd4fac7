"""From whatever a data set holds to square RGB pictures of one size, and coordinates that move along."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

_JPEG_QUALITY = 95


class PictureError(ValueError):
    """A picture that cannot be used; its text is the reason."""


def load_picture(source: bytes | Path | str | Image.Image) -> Image.Image:
    """`source`, decoded, upright (EXIF orientation applied) and RGB.

    Grey, palette, CMYK and 16-bit pictures are converted; what is transparent becomes white.

    Raises:
        PictureError: truncated, not a picture, a decompression bomb (beyond PIL.Image.MAX_IMAGE_PIXELS), or
            floating-point pixels, which have no defined range.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning)  # remarks on metadata that is not used
        try:
            image = _open(source)
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
        except PictureError:
            raise
        except Exception as error:  # every decoder has exceptions of its own: OSError, SyntaxError, struct.error...
            raise PictureError(f"{type(error).__name__}: {error}") from error


def _open(source: bytes | Path | str | Image.Image) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode == "F":
        raise PictureError("floating-point pixels have no defined range; convert the file to 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise PictureError("pixels of more than 16 bits; convert the file to 8 or 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


@dataclass(frozen=True)
class Square:
    """The central square of a picture, in pixels of that picture."""

    left: float
    top: float
    side: int

    @classmethod
    def of(cls, image: Image.Image) -> Square:
        """The largest centred square of `image`."""
        side = min(image.size)
        return cls((image.width - side) / 2, (image.height - side) / 2, side)

    def resample(self, image: Image.Image, size: int) -> Image.Image:
        """What `image` shows in the square, (size, size) pixels: short side scaled, long side cropped."""
        box = (self.left, self.top, self.left + self.side, self.top + self.side)
        return image.resize((size, size), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)

    def point(self, x: float, y: float) -> tuple[float, float] | None:
        """(x, y) as fractions of the square, in [0, 1]; None where the crop lost it."""
        across, down = (x - self.left) / self.side, (y - self.top) / self.side
        if not (0.0 <= across <= 1.0 and 0.0 <= down <= 1.0):
            return None
        return across, down

    def box(self, left: float, top: float, width: float, height: float) -> tuple[float, float, float, float] | None:
        """(left, top, width, height) as fractions of the square, clipped to it; None where nothing is left."""
        x0, x1 = (min(max((x - self.left) / self.side, 0.0), 1.0) for x in (left, left + width))
        y0, y1 = (min(max((y - self.top) / self.side, 0.0), 1.0) for y in (top, top + height))
        if x1 <= x0 or y1 <= y0:
            return None
        return x0, y0, x1 - x0, y1 - y0


def encode_jpeg(image: Image.Image) -> bytes:
    """`image` as JPEG of quality 95 without chroma subsampling, which blurs the colours of small pictures."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
