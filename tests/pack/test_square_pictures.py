import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from stackgan_dist.pack.pictures import ENDINGS, Frame, PictureError, encode_jpeg, load_picture


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


def test_a_smallest_side() -> None:
    for size in ((1, 1), (3000, 2), (2, 3000), (7, 500)):
        with pytest.raises(PictureError, match=f"it is {size[0]} x {size[1]}; its shorter side must be at least 8"):
            Frame.of(Image.new("RGB", size))
    with pytest.raises(PictureError, match="its box leads to a crop of 5 x 90; each side must be at least 8"):
        Frame.of(Image.new("RGB", (100, 100)), (10, 10, 15, 100))
    assert Frame.of(Image.new("RGB", (8, 3000))).height == 8


def test_endings_are_those_that_are_decoded() -> None:
    assert {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"} <= {*ENDINGS}
    assert not {".heic", ".svg", ".eps", ".ps", ".pdf", ".wmf", ".psd"} & {*ENDINGS}  # some start other programs


def _profile(
    red: tuple[float, float], green: tuple[float, float], blue: tuple[float, float], gamma: float | None
) -> bytes:
    """A matrix profile (ICC.1:2004) of these primaries, under the white of D50, to which ICC colours are adapted.

    Without a `gamma` it has the curve of sRGB.
    """

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    white = np.array([0.9642, 1.0, 0.8249])
    corners = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in (red, green, blue)]).T
    columns = corners * np.linalg.solve(corners, white)
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78),
        b"wtpt": b"XYZ " + bytes(4) + b"".join(map(number, white)),
    }
    if gamma is None:
        curve = b"".join(map(number, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)))
        tags[b"rTRC"] = b"para" + bytes(4) + struct.pack(">HH", 3, 0) + curve
    else:
        tags[b"rTRC"] = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns.T, strict=True):
        tags[name] = b"XYZ " + bytes(4) + b"".join(map(number, column))
    tags[b"gTRC"] = tags[b"bTRC"] = tags[b"rTRC"]
    head = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, head + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", head + len(body), b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    header = header.ljust(36, b"\0") + b"acsp" + bytes(28) + b"".join(map(number, white))
    return header.ljust(128, b"\0") + table + body


WIDE = _profile((0.6484, 0.3309), (0.2302, 0.7016), (0.1559, 0.0661), 2.19921875)
"""AdobeRGB, adapted to D50."""


def test_colours_are_converted_by_the_profile() -> None:
    green = (0, 200, 0)
    for mode, kind in (("RGB", "PNG"), ("RGB", "JPEG"), ("RGB", "WEBP"), ("RGBA", "PNG"), ("P", "PNG")):
        image = Image.new("RGB", (16, 16), green)
        image = image.quantize(4) if mode == "P" else image.convert(mode)
        pixel = _pixel(_file(image, kind, icc_profile=WIDE, **({"quality": 95} if kind != "PNG" else {})))
        plain = _pixel(_file(image, kind, **({"quality": 95} if kind != "PNG" else {})))
        assert np.allclose(plain, green, atol=6)
        assert pixel[1] >= plain[1], (mode, kind)
        grey = Image.new("RGB", (16, 16), (120, 120, 120))
        assert np.allclose(_pixel(_file(grey, kind, icc_profile=WIDE)), 120, atol=4)  # grey stays grey
    # a muted red of a wide space is a stronger one of sRGB: a reference worked out by hand
    linear = (np.array([180, 90, 90]) / 255) ** 2.19921875
    to_xyz = np.array([[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]])
    from_xyz = np.array([[3.24045, -1.53714, -0.49853], [-0.96927, 1.87601, 0.04156], [0.05564, -0.20403, 1.05723]])
    srgb = np.clip(from_xyz @ to_xyz @ linear, 0, 1)
    expected = 255 * np.where(srgb <= 0.0031308, 12.92 * srgb, 1.055 * srgb ** (1 / 2.4) - 0.055)
    found = _pixel(_file(Image.new("RGB", (8, 8), (180, 90, 90)), "PNG", icc_profile=WIDE))
    assert np.abs(np.array(found) - (180, 90, 90)).max() > 10
    np.testing.assert_allclose(found, expected, atol=2)
    # what is transparent stays so
    clear = Image.new("RGBA", (4, 4), (180, 90, 90, 0))
    assert _pixel(_file(clear, "PNG", icc_profile=WIDE)) == (255, 255, 255)


def test_profiles_that_change_nothing_or_are_damaged_leave_the_pixels() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    rounded = _profile((0.6488, 0.3309), (0.3212, 0.5979), (0.1559, 0.0660), None)  # sRGB, as others write it
    for profile in (srgb, rounded, b"no profile", WIDE[:140], WIDE[:-200], bytes(200)):
        np.testing.assert_array_equal(np.asarray(load_picture(_file(image, "PNG", icc_profile=profile))), pixels)
    grey = Image.new("L", (4, 4), 90)  # of another colour space than its picture
    assert _pixel(_file(grey, "PNG", icc_profile=WIDE)) == (90, 90, 90)


def test_metadata_never_reject_pixels() -> None:
    image = Image.new("RGB", (40, 20), (10, 200, 30))
    odd = Image.Exif()
    odd[0x0112] = 6
    odd[0x010F] = "maker"
    odd[0x9286] = b"\xff" * 9
    assert load_picture(_file(image, "JPEG", exif=odd)).size == (20, 40)
    for orientation in (0, 9, 65535):
        odd[0x0112] = orientation
        assert load_picture(_file(image, "JPEG", exif=odd)).size == (40, 20)
    for kind in ("PNG", "WEBP"):
        for data in (b"Exif\0\0garbage", b"Exif\0\0MM\0*"):
            assert load_picture(_file(image, kind, exif=data)).size == (40, 20)
    # fields of other types than the standard's, beside an orientation: every one reads as a turned picture
    tags = (0x0100, 0x0102, 0x010F, 0x011A, 0x0132, 0x02BC, 0x829A, 0x8769, 0x8825, 0x927C, 0x9286, 0xA005)
    for tag, kind, count in itertools.product(tags, range(1, 14), (0, 1, 2, 4)):
        fields = [struct.pack("<HHII", tag, kind, count, 6), struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)]
        exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + b"".join(sorted(fields)) + bytes(4)
        assert load_picture(_file(image, "JPEG", exif=exif)).size == (20, 40), (hex(tag), kind, count)


def _with_chunk(png: bytes, name: bytes, data: bytes, *, good: bool = True) -> bytes:
    checksum = zlib.crc32(name + data) ^ (0 if good else 1)
    chunk = struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)
    return png[:33] + chunk + png[33:]


def test_long_and_damaged_texts_of_a_png_are_passed_over() -> None:
    png = _file(Image.new("RGB", (9, 9), (10, 200, 30)), "PNG")
    long = b"workflow\0\0" + zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK + 1))
    for data in (_with_chunk(png, b"zTXt", long), _with_chunk(png, b"tEXt", b"a\0b", good=False)):
        with pytest.raises((ValueError, SyntaxError, OSError)):
            Image.open(io.BytesIO(data)).load()
        assert _pixel(data) == (10, 200, 30)
    with pytest.raises(PictureError):
        load_picture(_with_chunk(png, b"tEXt", b"a\0b")[:-30])
