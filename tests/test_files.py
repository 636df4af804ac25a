"""Pictures as they come out of cameras, scanners and editors: the right pixels, or the true reason."""

import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from hhlib import data
from hhlib.data.files import Unusable, read_picture

RED, WHITE = [255, 0, 0], [255, 255, 255]


@pytest.fixture
def opened(tmp_path):
    """``opened("1.png", picture, size, **how)`` saves a picture (or bytes) and opens it again: (size, size, 3)."""

    def open_again(name, picture, size=4, **how):
        if isinstance(picture, bytes):
            (tmp_path / name).write_bytes(picture)
        else:
            picture.save(tmp_path / name, **how)
        return data.ImageFiles(tmp_path, [name], size)[0].permute(1, 2, 0).numpy()

    return open_again


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["png", "jpg", "tif", "webp"])
def test_a_picture_is_upright(opened, orientation, extension):
    """The eight ways to hold a camera: all give the same picture, here white in its upper left quarter only."""
    upright = np.zeros((32, 32), dtype=np.uint8)
    upright[:16, :16] = 255
    turned = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T}
    turned |= {6: np.rot90(upright, 1), 7: np.rot90(upright, 2).T, 8: np.rot90(upright, 3)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = opened(f"turned.{extension}", Image.fromarray(turned[orientation].copy()).convert("RGB"), 2, exif=exif)
    assert (got[..., 0] > 127).tolist() == [[True, False], [False, False]]


def test_broken_exif_stops_nothing(opened):
    """Orientation 6, and a signed fraction -1/0, which no library can write back."""
    entry = lambda tag, kind, count, value: struct.pack("<HHI", tag, kind, count) + value  # noqa: E731
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entry(0x112, 3, 1, struct.pack("<HH", 6, 0))
    exif += entry(0x11A, 10, 1, struct.pack("<I", 38)) + struct.pack("<I", 0) + struct.pack("<ii", -1, 0)
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:, :16] = 255  # the left half is white; to be turned to the right, so that it comes to the top
    got = opened("phone.jpg", Image.fromarray(pixels), 2, exif=exif, quality=100)
    assert (got[..., 0] > 127).tolist() == [[True, True], [False, False]]
    for cut in range(6, len(exif), 7):
        opened("cut.jpg", Image.fromarray(pixels), 2, exif=exif[:cut] + b"\xff" * (len(exif) - cut))


@pytest.mark.parametrize("hidden", [(0, 0, 0), (255, 255, 255), (3, 200, 90)])
@pytest.mark.parametrize("extension", ["png", "webp", "tif"])
def test_what_is_transparent_is_white_whatever_colour_is_below(opened, hidden, extension):
    pixels = np.full((4, 4, 4), (*hidden, 0), dtype=np.uint8)
    pixels[:2, :2] = (255, 0, 0, 255)
    got = opened(f"clear.{extension}", Image.fromarray(pixels), **({"lossless": True} if extension == "webp" else {}))
    assert (got[:2, :2] == RED).all()
    assert (got[2:] == WHITE).all()
    assert (got[:2, 2:] == WHITE).all()


def test_half_transparent_is_half_white(opened):
    assert opened("half.png", Image.new("RGBA", (4, 4), (255, 0, 0, 51)))[0, 0].tolist() == [255, 204, 204]  # a fifth
    assert opened("grey.png", Image.new("LA", (4, 4), (0, 51)))[0, 0].tolist() == [204, 204, 204]


@pytest.mark.parametrize("extension", ["png", "gif"])
@pytest.mark.parametrize("transparency", [None, 1])
def test_palettes(opened, extension, transparency):
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([9, 9, 9, 255, 0, 0])
    how = {} if transparency is None else {"transparency": transparency}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert opened(f"palette.{extension}", picture, **how)[0, 0].tolist() == (RED if transparency is None else WHITE)


def test_a_palette_with_several_transparencies(opened):
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([9, 9, 9, 255, 0, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert opened("several.png", picture, transparency=bytes([255, 51]))[0, 0].tolist() == [255, 204, 204]


def test_a_colour_that_counts_as_transparent(opened):
    assert opened("key.png", Image.new("RGB", (4, 4), (7, 8, 9)), transparency=(7, 8, 9))[0, 0].tolist() == WHITE
    assert opened("other.png", Image.new("RGB", (4, 4), (7, 8, 9)), transparency=(1, 1, 1))[0, 0].tolist() == [7, 8, 9]


def test_other_kinds_of_pixels(opened):
    assert opened("print.tif", Image.new("CMYK", (4, 4), (0, 255, 255, 0)))[0, 0].tolist() == RED
    assert opened("grey.png", Image.new("L", (4, 4), 77))[0, 0].tolist() == [77, 77, 77]
    assert opened("fax.tif", Image.new("1", (4, 4), 1))[0, 0].tolist() == WHITE
    assert np.abs(opened("print.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0))).astype(int) - RED).max() <= 4


@pytest.mark.parametrize(("most", "scaled"), [(65535, 128), (4095, 128), (255, 128)])
def test_sixteen_bits_become_eight(opened, most, scaled):
    pixels = np.full((4, 4), (most + 1) // 2, dtype=">u2" if most > 255 else "u1").tobytes()
    assert opened("xray.pgm", b"P5\n4 4\n%d\n" % most + pixels)[0, 0].tolist() == [scaled] * 3
    for extension in ("png", "tif"):
        picture = Image.fromarray(np.full((4, 4), 128 << 8, dtype=np.uint16))
        assert opened(f"deep.{extension}", picture)[0, 0].tolist() == [128] * 3


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.ones((4, 4), dtype=np.float32), "floating-point numbers of 32 bits"),
        (np.ones((4, 4), dtype=np.int32), "signed numbers of 32 bits"),
    ],
)
def test_numbers_of_no_agreed_range_are_refused(opened, pixels, reason):
    with pytest.raises(ValueError, match=f"map.tif is made of {reason}"):
        opened("map.tif", Image.fromarray(pixels))


def test_signed_numbers_of_sixteen_bits_are_refused_for_what_they_are(opened):
    tags = [(256, 3, 4), (257, 3, 4), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 122), (277, 3, 1), (278, 3, 4)]
    tags += [(279, 4, 32), (339, 3, 2)]  # SampleFormat 2: signed
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags).ljust(112, b"\0")
    with pytest.raises(ValueError, match="ct.tif is made of signed numbers of 16 bits"):
        opened("ct.tif", (head + body)[:134].ljust(134, b"\0") + bytes(32))


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("drawing.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n"),
        ("text.png", b"no picture at all"),
        ("pixmap.png", b'/* XPM */\nstatic char *x[] = {"1 1 1 1", "a c #000000", "a"};\n'),
    ],
)
def test_other_formats_are_not_opened_under_a_pictures_name(opened, name, raw):
    with pytest.raises(ValueError, match=f"{name} is no JPEG, PNG"):
        opened(name, raw)


def test_a_picture_may_have_the_name_of_another_format(opened):
    assert opened("a.jpg", Image.new("RGB", (4, 4), "red"), format="PNG")[0, 0].tolist() == RED


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "bmp", "gif", "tif", "ppm"])
def test_damage_is_named_and_nothing_else_escapes(opened, tmp_path, extension):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / f"whole.{extension}")
    raw = (tmp_path / f"whole.{extension}").read_bytes()
    with pytest.raises(ValueError, match="is damaged or cut short|is no JPEG"):
        opened(f"cut.{extension}", raw[: len(raw) // 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow notices and can live with
        for _ in range(40):
            broken = bytearray(raw)
            for place in rng.integers(0, min(300, len(raw)), 3):
                broken[place] = rng.integers(256)
            try:
                opened(f"broken.{extension}", bytes(broken))
            except ValueError as error:
                assert f"broken.{extension} is " in str(error)  # noqa: PT017, not every damage is seen


def black(width, height):
    """A grey PNG of one colour, of a few KB however large it is."""
    chunk = lambda kind, raw: (  # noqa: E731
        struct.pack(">I", len(raw)) + kind + raw + struct.pack(">I", zlib.crc32(kind + raw))
    )
    squeeze, rows = zlib.compressobj(9), []
    rows = [squeeze.compress(bytes(1 + width)) for _ in range(height)] + [squeeze.flush()]
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"".join(rows)) + chunk(b"IEND", b"")


def test_a_hundred_megapixels_are_read_without_a_word(opened):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert opened("large.png", black(10_000, 10_000))[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("side", "words"), [(14_000, "it has 196: scale it down"), (20_000, "it has more than 358: scale it down")]
)
def test_too_many_pixels_are_counted(opened, side, words):
    head = black(side, 1)
    head = head[:20] + struct.pack(">I", side) + head[24:]
    head = head[:29] + struct.pack(">I", zlib.crc32(head[12:29])) + head[33:]  # the height is `side` too
    with pytest.raises(ValueError, match=f"bomb.png is larger than the 179 megapixels .* .{words}"):
        opened("bomb.png", head)


@pytest.mark.parametrize("size", [(1, 100_000), (100_000, 1), (1, 1)])
def test_the_narrowest_pictures_are_read(opened, size):
    assert opened("line.png", Image.new("RGB", size, "red"))[3, 3].tolist() == RED


@pytest.mark.parametrize("extension", ["gif", "png", "webp", "tif"])
def test_of_many_pictures_in_one_the_first_is_read(opened, extension):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", *["blue"] * 200)]
    how = {"lossless": True} if extension == "webp" else {}
    assert opened(f"film.{extension}", frames[0], save_all=True, append_images=frames[1:], **how)[0, 0].tolist() == RED


def test_a_gif_whose_first_picture_is_a_bomb_is_counted(opened):
    """4 x 4 pixels at its head, 65,535 x 65,535 in its first picture."""
    frame = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x08\x01\x00\x00;"
    with pytest.raises(ValueError, match="bomb.gif is larger than the 179 megapixels"):
        opened("bomb.gif", b"GIF89a" + struct.pack("<HH", 4, 4) + b"\x80\0\0" + bytes(6) + frame)


def test_a_jpeg_of_a_thousand_passes_is_refused(opened, tmp_path):
    """A pass of 400 bytes takes as long as a whole picture, so a small file could take hours."""
    Image.new("L", (64, 64), 100).save(tmp_path / "whole.jpg", progressive=True)
    raw = (tmp_path / "whole.jpg").read_bytes()
    assert opened("whole.jpg", raw)[0, 0].tolist() == [100] * 3
    last = raw[raw.rindex(b"\xff\xda") : -2]
    assert opened("some.jpg", raw[:-2] + 90 * last + raw[-2:])[0, 0].tolist() == [100] * 3
    with pytest.raises(ValueError, match="many.jpg is made of more than 100 passes .it has 1006: save it anew"):
        opened("many.jpg", raw[:-2] + 1000 * last + raw[-2:])


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", tmp_path, "/dev/zero"):
        with pytest.raises(Unusable, match="a folder, a pipe or a device .it must be a file"):
            read_picture(path, 4)
    with pytest.raises(Unusable, match="not readable .*none.jpg"):
        read_picture(tmp_path / "none.jpg", 4)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        data.ImageFiles(tmp_path, ["x" * 300 + ".jpg"], 4)[0]


def test_a_file_of_gigabytes_is_not_read(tmp_path):
    with (tmp_path / "large.tif").open("wb") as file:
        file.truncate(2_000_000_000)  # takes no space on the disk
    with pytest.raises(Unusable, match="larger than the 1.5 GB that are allowed .it has 2.0"):
        read_picture(tmp_path / "large.tif", 4)
