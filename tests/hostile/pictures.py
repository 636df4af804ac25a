"""Pictures, and folders of them."""

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image

from hhlib import data
from hostile import hostile, refused


def read(folder, content, name="picture.jpg"):
    """A picture of 8 x 8."""
    (folder / name).write_bytes(content)
    return data.ImageFiles(folder, [name], 8)[0]


def chunk(kind, raw):
    """A part of a PNG file."""
    return struct.pack(">I", len(raw)) + kind + raw + struct.pack(">I", zlib.crc32(kind + raw))


def png(width, height, *parts, colour=0, bits=8):
    """A PNG file of these parts, which need not fit its size."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(parts) + chunk(b"IEND", b"")


def rows(width, height):
    """The pixels of a grey PNG."""
    return chunk(b"IDAT", zlib.compress(bytes(height * (1 + width))))


def saved(mode="RGB", form="PNG", size=(16, 16), **how):
    """A picture of noise, as a file."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(file, form, **how)
    return file.getvalue()


def tiff(*tags):
    """A TIFF file of 4 x 4 pixels with these tags; its list of directories leads to itself."""
    usual = {256: (3, 4), 257: (3, 4), 258: (3, 8), 259: (3, 1), 262: (3, 1), 273: (4, 200), 277: (3, 1), 278: (3, 4)}
    usual |= {279: (4, 16)} | dict(tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(usual))
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(usual.items()))
    return (head + body + struct.pack("<I", 8)).ljust(200, b"\0") + bytes(16)


FLOATS = io.BytesIO()
Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(FLOATS, "TIFF")
NONE = "picture.jpg is no JPEG, PNG"
CUT = "picture.jpg is damaged or cut short"
refused(
    "picture",
    read,
    [
        ("PostScript, which would start another program", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", NONE),
        ("SVG with a script", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", NONE),
        ("a web page", b"<html>log in first</html>", NONE),
        ("a program", b"\x7fELF\2\1\1" + bytes(200), NONE),
        ("XPM", b'/* XPM */\nstatic char *x[] = {"1 1 1 1", "a c #000000", "a"};\n', NONE),
        ("nothing", b"", NONE),
        ("a JPEG, cut short", saved(form="JPEG", size=(64, 64))[:400], CUT),
        ("a PNG, cut short", saved()[:-40], CUT),
        ("a WebP, cut short", saved(form="WEBP")[:-40], CUT),
        ("a PNG of 196 megapixels", png(14_000, 14_000, rows(1, 1)), "larger than the 179 megapixels"),
        ("a PNG of 4 gigapixels", png(65_535, 65_535, rows(1, 1)), "larger than the 179 megapixels"),
        (
            "a GIF of 4 gigapixels",
            b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\2D\1\0;",
            "larger than the",
        ),
        (
            "a BMP of 4 gigapixels",
            b"BM" + struct.pack("<IIIIiiHHIIiiII", 70, 0, 54, 40, 65535, 65535, 1, 24, 0, 0, 1, 1, 0, 0),
            "larger",
        ),
        ("a PNG without pixels", png(8, 8), CUT),
        ("a PNG of no width", png(0, 8, rows(0, 8)), "picture.jpg is"),
        ("a PNG with a wrong sum", saved()[:20] + b"\xff" + saved()[21:], "picture.jpg is"),
        ("a PNG whose text unpacks to 64 MB", png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26)))), CUT),
        ("a TIFF whose strip lies behind its end", tiff((273, (4, 2**31))), CUT),
        ("a TIFF of floating-point numbers", FLOATS.getvalue(), "made of floating-point numbers of 32 bits"),
        ("a TIFF of 32-bit numbers", tiff((258, (3, 32)), (339, (3, 2)), (279, (4, 64))) + bytes(48), "picture.jpg is"),
    ],
)


def used(what, content, gives, fits=lambda square: True):
    """Enter a picture that is used."""

    @hostile("picture", what, gives=gives)
    def _(folder):
        square = read(folder, content() if callable(content) else content)
        assert tuple(square.shape) == (3, 8, 8)
        assert fits(square)


def turned():
    """A white left half, to be turned to the right, with EXIF that cannot be written back."""
    entry = lambda tag, kind, count, value: struct.pack("<HHI", tag, kind, count) + value  # noqa: E731
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entry(0x112, 3, 1, struct.pack("<HH", 6, 0))
    exif += entry(0x11A, 10, 1, struct.pack("<I", 38)) + struct.pack("<I", 0) + struct.pack("<ii", -1, 0)
    file, half = io.BytesIO(), np.zeros((32, 32, 3), dtype=np.uint8)
    half[:, :16] = 255
    Image.fromarray(half).save(file, "JPEG", exif=exif)
    return file.getvalue()


def frames():
    """A GIF of 500 frames."""
    file, pages = io.BytesIO(), [Image.new("P", (8, 8), i % 256) for i in range(500)]
    pages[0].save(file, "GIF", save_all=True, append_images=pages[1:])
    return file.getvalue()


used(
    "EXIF that is damaged behind the orientation",
    turned,
    "it is upright",
    lambda x: bool(x[0, 0].min() > x[0, 7].max()),
)
used("EXIF of noise", saved(form="JPEG", exif=b"Exif\0\0" + bytes(range(256))), "its pixels")
used("a colour profile of noise", saved(icc_profile=bytes(range(256)) * 40), "its pixels")
used("a GIF of 500 frames", frames, "its first frame")
used("a TIFF whose directories lead in a circle", tiff(), "its first page", lambda x: not x.any())
used("one pixel high and 100,000 wide", saved(size=(100_000, 1)), "its middle")
used("a PNG that is called .jpg", saved(), "its pixels")
used("bytes behind its end", saved(form="JPEG") + b"<?php ?>" * 1000, "its pixels")
used("transparent pixels that hide noise", saved("RGBA"), "its pixels, on white")


def scanned(folder):
    """What is found in a folder."""
    return data.scan(folder)


@hostile("folder", "links that lead nowhere, and in a circle", gives="they are named")
def _(folder):
    (folder / "cat").mkdir()
    (folder / "cat" / "gone.jpg").symlink_to("/nowhere/gone.jpg")
    (folder / "cat" / "self.jpg").symlink_to(folder / "cat" / "self.jpg")
    (folder / "cat" / "up").symlink_to(folder)
    found = scanned(folder)
    assert found.trouble["links that lead nowhere"] == ["cat/gone.jpg", "cat/self.jpg"]
    assert found.ignored["links to folders that are looked at already"] == ["cat/up"]


@hostile("folder", "a pipe, and a device, with a picture's name", gives="they are named, and never opened")
def _(folder):
    os.mkfifo(folder / "pipe.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    assert scanned(folder).trouble["pipes or devices"] == ["pipe.jpg", "zero.jpg"]


@hostile("folder", "a folder with a picture's name", gives="a class like any other")
def _(folder):
    (folder / "a.jpg").mkdir()
    (folder / "a.jpg" / "1.jpg").write_bytes(saved())
    assert scanned(folder).labels == [["a.jpg"]]


@hostile("folder", "a file name that is no text", gives="it is named, with its bytes")
def _(folder):
    (folder / "cat").mkdir()
    with open(os.fsencode(folder / "cat") + b"/caf\xe9.jpg", "wb") as file:
        file.write(saved())
    found = scanned(folder)
    assert list(found.trouble) == ["files whose names are not UTF-8"]
    assert "caf\\udce9" in data.told(found.trouble)


@hostile("folder", "a link to a folder of the system", gives="pictures below it, read only")
def _(folder):
    (folder / "out").mkdir()
    (folder / "own").mkdir()
    (folder / "out" / "1.jpg").write_bytes(saved())
    (folder / "own" / "cat").symlink_to(folder / "out")
    assert scanned(folder / "own").paths == ["cat/1.jpg"]


@hostile("folder", "300 folders inside each other", gives="the picture in the last")
def _(folder):
    deep = folder / "a" / "/".join("a" * 299)
    deep.mkdir(parents=True)
    (deep / "1.jpg").write_bytes(saved())
    assert len(scanned(folder).paths) == 1


refused(
    "folder",
    lambda folder, names: data.folder_pool(_touched(folder, names)),
    [
        ("one class", ["cat/1.jpg", "cat/2.jpg"], "shows 1 classes (cat), but needs two"),
        ("no picture", ["cat/readme.txt"], "holds no pictures"),
        (
            "pictures beside class folders",
            ["loose.jpg", "cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"],
            "loose.jpg",
        ),
        ("a class of one picture", ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"], "classes with one picture (1: dog/1.jpg)"),
        (
            "HEIC",
            ["cat/1.heic", "cat/2.jpg", "cat/3.jpg", "dog/1.jpg", "dog/2.jpg"],
            "HEIC files, which must be converted",
        ),
    ],
)


def _touched(folder, names):
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder
