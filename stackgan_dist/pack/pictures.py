"""From whatever a data set holds to square RGB pictures of one size, and coordinates that move along."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from stackgan_dist.pack.profiles import to_srgb

SMALLEST_SIDE = 8
"""Pixels that each side of what is stored of a picture must have: as many as the smallest square that can be packed."""
_JPEG_QUALITY = 95

_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM")
"""What is decoded. Pillow knows more, and one of them (EPS) starts another program."""


def _endings() -> tuple[str, ...]:
    known = Image.registered_extensions()
    return tuple(sorted(ending for ending, name in known.items() if name in _FORMATS and name in Image.OPEN))


ENDINGS = _endings()
"""Of the files that this machine's Pillow decodes, in lower case: .jpg, .jfif, .png, .avif ..."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> what makes the picture upright."""
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_WORDS = (b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs")
"""Chunks of a PNG that no pixel depends on."""


class PictureError(ValueError):
    """A picture that cannot be used; its text is the reason."""


def load_picture(source: bytes | Image.Image) -> Image.Image:
    """`source`, decoded, upright (EXIF orientation applied) and sRGB; the first frame of an animation.

    Grey, palette, CMYK and 16-bit pictures are converted, those with an ICC profile by it; what is transparent becomes
    white. Metadata that cannot be read are passed over.

    Raises:
        PictureError: truncated, not a picture, a decompression bomb (beyond PIL.Image.MAX_IMAGE_PIXELS), or
            floating-point pixels, which have no defined range.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning)  # remarks on metadata that is not used
        try:
            image = _decoded(source)
            return _rgb(_upright(to_srgb(image, _profile(image))))
        except PictureError:
            raise
        except UnidentifiedImageError as error:  # whose text holds an address in memory
            raise PictureError(f"cannot identify the format; {', '.join(_FORMATS)} are known") from error
        except Exception as error:  # every decoder has exceptions of its own: OSError, SyntaxError, struct.error...
            raise PictureError(f"{type(error).__name__}: {error}") from error


def _decoded(source: bytes | Image.Image) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    try:
        return _opened(source)
    except Exception:
        # Pillow gives up a PNG for a text that is long or damaged; without its texts it may be whole.
        bare = _without_words(source)
        if bare == source:
            raise
        return _opened(bare)


def _opened(data: bytes) -> Image.Image:
    # A format that is named is not looked up otherwise; Image.registered_extensions() above has made all known.
    image = Image.open(io.BytesIO(data), formats=[name for name in _FORMATS if name in Image.OPEN])
    image.load()
    return image


def _without_words(data: bytes) -> bytes:
    """`data`, a PNG, without the chunks that only say something; anything else as it is."""
    if not data.startswith(_PNG):
        return data
    kept, at = [_PNG], len(_PNG)
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if data[at + 4 : at + 8] not in _PNG_WORDS:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _profile(image: Image.Image) -> bytes | None:
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) else None


def _upright(image: Image.Image) -> Image.Image:
    try:
        method = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # whatever a camera or a program has written there
        method = None
    return image if method is None else image.transpose(method)


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
class Frame:
    """What of a picture is stored, in pixels of that picture; it becomes a square."""

    left: float
    top: float
    width: float
    height: float

    @classmethod
    def of(
        cls, image: Image.Image, crop: tuple[float, float, float, float] | None = None, *, pad: bool = False
    ) -> Frame:
        """`crop` (left, top, right, bottom) clipped to `image`; without one the largest centred square.

        With `pad` it is the smallest centred square around all of `image` instead.

        Raises PictureError for a crop that lies outside the picture, and for a frame below SMALLEST_SIDE.
        """
        if crop is None:
            if min(image.size) < SMALLEST_SIDE:
                raise PictureError(
                    f"it is {image.width} x {image.height}; its shorter side must be at least {SMALLEST_SIDE} pixels"
                )
            side = max(image.size) if pad else min(image.size)
            return cls((image.width - side) / 2, (image.height - side) / 2, side, side)
        left, top = max(crop[0], 0), max(crop[1], 0)
        right, bottom = min(crop[2], image.width), min(crop[3], image.height)
        if not (right - left >= 1 and bottom - top >= 1):
            raise PictureError(
                f"its box leads to the crop {crop}, outside the picture of {image.width} x {image.height}"
            )
        if min(right - left, bottom - top) < SMALLEST_SIDE:
            raise PictureError(
                f"its box leads to a crop of {right - left:g} x {bottom - top:g}; each side must be at least "
                f"{SMALLEST_SIDE} pixels"
            )
        return cls(left, top, right - left, bottom - top)

    def resample(self, image: Image.Image, size: int) -> Image.Image:
        """What `image` shows in the frame, (size, size) pixels; what lies beside it is white."""
        if self.left < 0 or self.top < 0:
            scale = size / self.width
            shape = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            square = Image.new("RGB", (size, size), "white")
            inner = image.resize(shape, Image.Resampling.LANCZOS, reducing_gap=3.0)
            square.paste(inner, ((size - shape[0]) // 2, (size - shape[1]) // 2))
            return square
        box = (self.left, self.top, self.left + self.width, self.top + self.height)
        return image.resize((size, size), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)

    def point(self, x: float, y: float) -> tuple[float, float] | None:
        """(x, y) as fractions of the frame, in [0, 1]; None where the crop lost it."""
        across, down = (x - self.left) / self.width, (y - self.top) / self.height
        if not (0.0 <= across <= 1.0 and 0.0 <= down <= 1.0):
            return None
        return across, down

    def box(self, left: float, top: float, width: float, height: float) -> tuple[float, float, float, float] | None:
        """(left, top, width, height) as fractions of the frame, clipped to it; None where nothing is left."""
        x0, x1 = (min(max((x - self.left) / self.width, 0.0), 1.0) for x in (left, left + width))
        y0, y1 = (min(max((y - self.top) / self.height, 0.0), 1.0) for y in (top, top + height))
        if not (x1 > x0 and y1 > y0):
            return None
        return x0, y0, x1 - x0, y1 - y0


def encode_jpeg(image: Image.Image) -> bytes:
    """`image` as JPEG of quality 95 without chroma subsampling, which blurs the colours of small pictures."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
