"""Damage done to files at random: to their bytes and, where they have a known structure, inside it.

What is inside keeps valid checksums and lengths around it: a reader that only ever meets a wrong CRC is not tried.
"""

import ast
import gzip
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random

Case = dict[str, bytes]  #: the files of an input: name, relative to its folder -> content

LONGEST = 1 << 18  #: bytes of a file that is made
EDGES = (0, 1, 2, 127, 128, 255, 256, 32_767, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)  #: where integers turn
#: What stands in place of a value of JSON, as it is written there.
ODD_JSON = ("null", "true", "0", "-1", "1", "2", "0.5", "1e999", "-0.0", "NaN", "Infinity", "9" * 30, "9" * 5000)
ODD_JSON += ('""', '"x"', '"../.."', '"/etc"', '"a\\u0000b"', '"\\ud800"', "[]", "{}", "[[[]]]", '{"":{}}', "[" * 9999)
ODD_JSON += ("1000000000", "[1,2,3]", '"NaN"', "[null]", '{"a":1}', '"' + "x" * 999 + '"')
ODD_WORDS = (
    "",
    "0",
    "1",
    "-1",
    "2",
    "nan",
    "inf",
    "1e999",
    "true",
    "null",
    "..",
    "../x",
    "/x",
    "a,b",
    '"',
    "'",
    "[",
    "{",
)
ODD_WORDS += (
    "9" * 30,
    "9" * 5000,
    "\0",
    "\ufeff",
    "é",
    "\u202e",
    "x" * 999,
    "=",
    ";",
    "&a",
    "*a",
    "!!python/name:os.x",
)
SHAPES = ((), (0,), (1,), (-1,), (2**31,), (2**62, 4), (10**6, 10**6), (2,) * 40, (3, 0, 7), (1.5,), "x", None)
TYPES = ("|O", "<f4", ">f4", "|V0", "<U0", "<U99999999", "|S1", "<M8[s]", "|b1", "<u1", "x", [("a", "<f4")], None)
NAMES = ("../x", "/x", "a/../../x", "..", ".", "x" * 300, "C:/x", "a\\..\\x", "nul", "\u202ex", "a/b/c")
KINDS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, b"S", b"x", b"\xff")


class Mutator:
    """Makes inputs of others.

    random: where chance comes from; tokens: what means something in the format, put in here and there.
    """

    def __init__(self, random: Random, tokens: Sequence[bytes] = ()):
        self.random, self.tokens = random, tokens
        self.others: Sequence[Case] = ()

    def case(self, corpus: Sequence[Case]) -> Case:
        """One of the corpus, with one to several damages; they are in one file mostly, and seldom a file is lost."""
        self.others = corpus
        made = dict(self.random.choice(corpus))
        for _ in range(self.random.choice((1, 1, 1, 2, 4))):
            name = self.random.choice(sorted(made))
            if len(made) > 1 and self.random.random() < 0.01:
                del made[name]
            else:
                made[name] = self.content(made[name], name)[:LONGEST]
        return made

    def content(self, raw: bytes, name: str = "") -> bytes:
        """A file, damaged: inside its structure, if it has one, three times of four."""
        inside = next((damage for fits, damage in STRUCTURES if fits(raw, name)), None)
        if inside is not None and self.random.random() < 0.75:
            try:
                return inside(self, raw)
            except Exception:  # what was damaged before may have lost its structure
                pass
        return self.bytes(raw, name)

    def bytes(self, raw: bytes, name: str = "") -> bytes:
        """A file with some bytes changed, lost, repeated or put in."""
        start, end = sorted(self.random.randint(0, len(raw)) for _ in range(2))
        end = min(end, start + self.random.choice((1, 4, 16, 256, LONGEST)))
        piece = raw[start:end]
        return raw[:start] + self.random.choice(PIECES)(self, piece, name) + raw[end:]

    def flipped(self, piece: bytes, _: str) -> bytes:
        """One bit is another."""
        if not piece:
            return piece
        at, changed = self.random.randrange(len(piece)), bytearray(piece)
        changed[at] ^= 1 << self.random.randrange(8)
        return bytes(changed)

    def integer(self, piece: bytes, _: str) -> bytes:
        """A number at the edge of a type, in place of as many bytes."""
        value, size = self.random.choice(EDGES), self.random.choice((1, 2, 4, 8))
        made = (value % 256**size).to_bytes(size, self.random.choice(("little", "big")))
        return made + piece[size:]

    def token(self, piece: bytes, _: str) -> bytes:
        """A word of the format, before the piece or in its place."""
        word = self.random.choice([*self.tokens, self.random.choice(ODD_WORDS).encode()])
        return word + self.random.choice((piece, b""))

    def elsewhere(self, _: bytes, name: str) -> bytes:
        """A piece of the same file of another input."""
        other = self.random.choice(self.others).get(name, b"") if self.others else b""
        start = self.random.randint(0, len(other))
        return other[start : start + self.random.choice((4, 64, LONGEST))]

    def in_json(self, raw: bytes) -> bytes:
        """A value is another, or a key is gone, or has another name."""
        content, places = json.loads(raw), []
        todo = [content]
        while todo:
            node = todo.pop()
            for key in range(len(node)) if isinstance(node, list) else node:
                places.append((node, key))
                todo += [node[key]] if isinstance(node[key], list | dict) else []
        node, key = self.random.choice(places)
        if self.random.random() < 0.2:
            value = node.pop(key)
            if isinstance(node, dict) and self.random.random() < 0.5:
                node[self.random.choice(ODD_WORDS)] = value
            return json.dumps(content).encode()
        node[key] = "\x01"
        return json.dumps(content).replace('"\\u0001"', self.random.choice(ODD_JSON)).encode()

    def in_lines(self, raw: bytes) -> bytes:
        """Lines are lost, repeated or exchanged, or a word is another."""
        lines = raw.split(b"\n")
        at, other = self.random.randrange(len(lines)), self.random.randrange(len(lines))
        what = self.random.randrange(5)
        if what == 0:
            del lines[at]
        elif what == 1:
            lines[at:at] = [lines[other]] * self.random.choice((1, 2, 1000))
        elif what == 2:
            lines[at], lines[other] = lines[other], lines[at]
        else:
            mark = self.random.choice((b" ", b",", b":", b"="))
            words = lines[at].split(mark)
            words[self.random.randrange(len(words))] = self.random.choice(ODD_WORDS).encode("utf-8", "surrogatepass")
            lines[at] = mark.join(words)
        return b"\n".join(lines)

    def in_gzip(self, raw: bytes) -> bytes:
        """What is compressed is damaged."""
        return gzip.compress(self.content(zlib.decompressobj(31).decompress(raw, LONGEST)), 1, mtime=0)

    def in_zip(self, raw: bytes) -> bytes:
        """A member is damaged, lost, there twice, or has another name."""
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
        at = self.random.randrange(len(members))
        name, content = members[at]
        changed = [(name, self.content(content, name))], [(self.random.choice(NAMES), content)], [members[at]] * 2, []
        members[at : at + 1] = self.random.choice((changed[0], changed[0], changed[0], *changed))
        made = io.BytesIO()
        how = self.random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        with zipfile.ZipFile(made, "w") as archive:
            for name, content in members:
                archive.writestr(zipfile.ZipInfo(name), content, how)  # of 1980: no clock in the bytes
        return made.getvalue()

    def in_tar(self, raw: bytes) -> bytes:
        """A member is damaged, or is another kind of thing, has another name, or leads elsewhere."""
        with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
            members = [(info, b"" if not info.isreg() else archive.extractfile(info).read()) for info in archive]
        at, what = self.random.randrange(len(members)), self.random.randrange(5)
        info, content = members[at]
        if what == 0:
            content = self.content(content)
        elif what == 1:
            info.name = self.random.choice(NAMES)
        elif what == 2:
            info.type, info.linkname = self.random.choice(KINDS), self.random.choice((*NAMES, "/etc/passwd"))
        elif what == 3:
            info.mode = self.random.choice((0, 0o4777, 0o111))
        info.size = len(content)
        members[at], made = (info, content), io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            for info, content in members:
                archive.addfile(info, io.BytesIO(content))
        if what != 4:
            return made.getvalue()
        head = bytearray(made.getvalue())  # any field of a header, with the right sum
        start = 512 * self.random.randrange(len(head) // 512)
        head[start + self.random.randrange(500)] = self.random.randrange(256)
        head[start + 148 : start + 156] = b" " * 8
        head[start + 148 : start + 156] = b"%06o\0 " % sum(head[start : start + 512])
        return bytes(head)

    def in_array(self, raw: bytes) -> bytes:
        """NumPy's header says something else, or the numbers are damaged."""
        length = struct.unpack("<H", raw[8:10])[0]
        head, numbers = ast.literal_eval(raw[10 : 10 + length].decode("latin1")), raw[10 + length :]
        what = self.random.randrange(4)
        if what == 0:
            head["shape"] = self.random.choice(SHAPES)
        elif what == 1:
            head["descr"] = self.random.choice(TYPES)
        elif what == 2:
            head["fortran_order"] = True
        else:
            numbers = self.bytes(numbers)
        text = repr(head).encode()
        text = text.ljust(-(-(len(text) + 11) // 64) * 64 - 11) + b"\n"
        return raw[:8] + struct.pack("<H", len(text)) + text + numbers

    def in_png(self, raw: bytes) -> bytes:
        """A chunk is damaged, and has the right sum; pixels are damaged before they are compressed."""
        chunks, at = [], 8
        while at < len(raw):
            size = struct.unpack(">I", raw[at : at + 4])[0]
            chunks.append((raw[at + 4 : at + 8], raw[at + 8 : at + 8 + size]))
            at += 12 + size
        which = self.random.randrange(len(chunks))
        kind, content = chunks[which]
        if kind == b"IDAT" and self.random.random() < 0.5:
            content = zlib.compress(self.bytes(zlib.decompressobj().decompress(content, LONGEST)))
        else:
            content = self.bytes(content)
        chunks[which : which + 1] = [(kind, content)] * self.random.choice((1, 1, 1, 2, 0))
        made = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
        return raw[:8] + b"".join(made)

    def in_tensors(self, raw: bytes) -> bytes:
        """The header of a .safetensors file says something else, or the numbers are damaged."""
        size = struct.unpack("<Q", raw[:8])[0]
        head, numbers = raw[8 : 8 + size], raw[8 + size :]
        if self.random.random() < 0.7:
            head = self.in_json(head)
        else:
            numbers = self.bytes(numbers)
        return struct.pack("<Q", len(head)) + head + numbers


def _is_text(raw: bytes, _: str) -> bool:
    try:
        return b"\n" in raw and bool(raw.decode())
    except UnicodeDecodeError:
        return False


Damage = Callable[[Mutator, bytes], bytes]
#: What a file must be, and how it is damaged inside; the first that fits is taken.
STRUCTURES: tuple[tuple[Callable[[bytes, str], bool], Damage], ...] = (
    (lambda raw, _: raw[:2] == b"\x1f\x8b", Mutator.in_gzip),
    (lambda raw, _: raw[:2] == b"PK", Mutator.in_zip),
    (lambda raw, _: raw[:6] == b"\x93NUMPY", Mutator.in_array),
    (lambda raw, _: raw[:4] == b"\x89PNG", Mutator.in_png),
    (lambda raw, _: raw[257:262] == b"ustar", Mutator.in_tar),
    (lambda raw, name: name.endswith(".safetensors"), Mutator.in_tensors),
    (lambda raw, _: raw[:1] in (b"{", b"["), Mutator.in_json),
    (_is_text, Mutator.in_lines),
)
#: What becomes of a piece of a file.
PIECES: tuple[Callable[[Mutator, bytes, str], bytes], ...] = (
    Mutator.flipped,
    Mutator.integer,
    Mutator.token,
    Mutator.elsewhere,
    lambda self, piece, _: b"",
    lambda self, piece, _: piece * self.random.choice((2, 2, 3, 1000)),
    lambda self, piece, _: self.random.randbytes(max(1, len(piece) % 64)),
)
