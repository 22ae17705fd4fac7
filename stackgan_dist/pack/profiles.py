"""Colours as the picture means them: an embedded ICC profile (AdobeRGB, Display P3, a printer's) leads to sRGB."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageCms

_MODES = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK"}
"""Colour space of a profile -> the mode of the pictures that it can be applied to."""
_LEVELS = 9
_SAME = 3
"""Levels of 255. Two writings of sRGB differ by rounding; such a profile leaves the pixels as they are."""


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """`image` with its colours converted by its ICC `profile`.

    It is left as it is without one, with one of sRGB, and with one that is damaged or of another colour space: a
    profile is metadata, and metadata never reject pixels.
    """
    found = _transform(profile) if profile else None
    if found is None:
        return image
    mode, transform = found
    if image.mode in ("RGB", "RGBA", "P", "PA") and mode == "RGB":
        alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
        converted = ImageCms.applyTransform(image.convert("RGB"), transform)
    elif image.mode == mode:
        alpha, converted = None, ImageCms.applyTransform(image, transform)
    else:
        return image
    if converted is None:  # only where it is changed in place
        return image
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


@functools.lru_cache(maxsize=32)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform] | None:
    """The mode that `profile` applies to and what leads from it to sRGB; None where there is nothing to do."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES[source.profile.xcolor_space]
        transform = ImageCms.buildTransform(source, _srgb(), mode, "RGB")
        return None if mode == "RGB" and _is_identity(transform) else (mode, transform)
    except (ImageCms.PyCMSError, KeyError, OSError, ValueError, TypeError):
        return None


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    levels = np.linspace(0, 255, _LEVELS).round().astype(np.uint8)
    lattice = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    converted = ImageCms.applyTransform(Image.fromarray(lattice), transform)
    return converted is not None and np.abs(np.asarray(converted).astype(int) - lattice).max() <= _SAME
