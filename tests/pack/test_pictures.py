import io

import numpy as np
import pytest
from PIL import Image

from stackgan_dist.pack.pictures import Frame, PictureError, encode_jpeg, load_picture


def _file(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _pixel(source: bytes) -> tuple[int, ...]:
    image = load_picture(source)
    assert image.mode == "RGB"
    return image.getpixel((0, 0))


def test_every_mode_becomes_rgb() -> None:
    assert _pixel(_file(Image.new("L", (4, 4), 90), "PNG")) == (90, 90, 90)
    assert _pixel(_file(Image.new("1", (4, 4), 1), "PNG")) == (255, 255, 255)
    assert _pixel(_file(Image.new("I;16", (4, 4), 90 * 257), "PNG")) == (90, 90, 90)
    palette = Image.new("RGB", (4, 4), (10, 200, 30)).quantize(4)
    assert palette.mode == "P"
    assert _pixel(_file(palette, "PNG")) == (10, 200, 30)
    cmyk = _pixel(_file(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert np.allclose(cmyk, (255, 0, 0), atol=6)


def test_what_is_transparent_becomes_white() -> None:
    assert _pixel(_file(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG")) == (255, 255, 255)
    assert _pixel(_file(Image.new("LA", (4, 4), (0, 51)), "PNG")) == (204, 204, 204)
    assert _pixel(_file(Image.new("RGB", (4, 4), (255, 0, 0)), "PNG", transparency=(255, 0, 0))) == (255, 255, 255)


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (40, 20), "black")
    image.paste((255, 255, 255), (0, 0, 10, 20))  # white at the left end
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: upright is a quarter turn clockwise
    upright = load_picture(_file(image, "JPEG", exif=exif))
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 3))[0] > 200  # left has become top
    assert upright.getpixel((10, 30))[0] < 50


def test_broken_pictures_are_errors_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    for kind in ("JPEG", "PNG"):
        data = _file(noise, kind)
        with pytest.raises(PictureError, match=r"\w+Error: .+"):
            load_picture(data[: len(data) // 2])
    with pytest.raises(PictureError, match="cannot identify"):
        load_picture(b"<html>404</html>")
    with pytest.raises(PictureError, match="floating-point"):
        load_picture(Image.new("F", (4, 4)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 63)
    with pytest.raises(PictureError, match="decompression bomb"):
        load_picture(_file(noise, "PNG"))


def test_square_scales_the_short_side_and_crops_the_long_one() -> None:
    image = Image.new("RGB", (300, 100), "red")
    image.paste((0, 0, 255), (100, 0, 200, 100))
    square = Frame.of(image)
    small = np.asarray(square.resample(image, 50))
    assert small.shape == (50, 50, 3)
    off = np.abs(small - np.array([0, 0, 255]))
    assert off[:, 2:-2].max() <= 1  # only the middle third is left,
    assert off.max() < 20  # and next to nothing of its neighbours comes in through the filter
    assert np.asarray(Frame.of(small_image := Image.new("RGB", (20, 30))).resample(small_image, 64)).shape[0] == 64


def test_coordinates_move_along_with_the_picture() -> None:
    image = Image.new("RGB", (300, 100))
    square = Frame.of(image)
    assert square.point(150, 50) == (0.5, 0.5)
    assert square.point(100, 0) == (0.0, 0.0)
    assert square.point(99, 50) is None
    assert square.box(110, 20, 30, 40) == pytest.approx((0.1, 0.2, 0.3, 0.4))
    assert square.box(50, -10, 100, 60) == pytest.approx((0.0, 0.0, 0.5, 0.5))
    assert square.box(0, 0, 100, 100) is None


def test_jpeg_is_not_subsampled() -> None:
    columns = np.zeros((32, 32, 3), dtype=np.uint8)
    columns[:, ::2, 0] = 255  # red and black columns of one pixel: subsampling would mix them
    columns[:, 1::2, 2] = 255
    decoded = np.asarray(Image.open(io.BytesIO(encode_jpeg(Image.fromarray(columns)))))
    assert np.abs(decoded.astype(int) - columns).mean() < 8
