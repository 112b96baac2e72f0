"""Metadata of picture files: two facts are read, and the rest is removed before decoding.

These are the orientation, and the focal length as its 35 mm equivalent.

EXIF blocks are damaged in many photos (by editors, messengers, recovery tools). A decoder that
parses a damaged block fails to decode the picture.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

ORIENTATION = 0x0112  # tag of TIFF and EXIF
# Tags of EXIF's own directory (CIPA DC-008, Exif 2.32): the size at which the camera stored the
# picture, and the focal length of a lens with the same diagonal angle of view on 35 mm film, mm.
WIDTH, HEIGHT, FOCAL35 = 0xA002, 0xA003, 0xA405
SHORTEST, LONGEST = 8, 400
"""mm: the 35 mm equivalents that are believed. 0 means unknown; other values are errors."""
CROPPED = 0.02
"""Relative difference of two ratios of sides, from which a picture counts as cropped."""
_INTEGERS = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l"}  # TIFF's types of whole numbers
_EXIF_IFD = 0x8769
_SUB_IFDS = (_EXIF_IFD, 0x8825, 0xA005)  # EXIF, GPS, interoperability
_UNUSED_TAG = 0xFDE9  # private range of TIFF
_MOST_TAGS = 1000
_LONGEST_TEXT = 1 << 24  # bytes of a compressed PNG text
_XMP = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])")
_PNG = b"\x89PNG\r\n\x1a\n"
# Ancillary PNG chunks that pixels depend on: transparency, animation.
_PIXEL_CHUNKS = {b"tRNS", b"acTL", b"fcTL", b"fdAT"}
# APP segments of JPEG that pixels depend on: JFIF, Adobe's colour transform.
_PIXEL_SEGMENTS = {0xE0, 0xEE}


class Split(NamedTuple):
    """The encoded picture without metadata, and what is read from them.

    Attributes:
      data: the encoded picture.
      orientation: of EXIF, 1..8; None where the format stores it elsewhere.
      exif: EXIF blocks, the first one first; none where the format stores them elsewhere.
    """

    data: bytes
    orientation: int | None
    exif: tuple[bytes, ...] = ()


def split(data: bytes) -> Split:
    """Remove the metadata of a picture file, and read the orientation from it.

    Removed are: from JPEG the comments and the APP segments that pixels do not depend on; from PNG
    the ancillary chunks; from AVIF the EXIF item (whose orientation has no effect); from TIFF the
    tags that point to EXIF. Other files stay unchanged: their decoders do not parse EXIF.
    """
    if data[:2] == b"\xff\xd8":
        return _split_jpeg(data)
    if data[:8] == _PNG:
        return _split_png(data)
    if data[4:8] == b"ftyp":
        hidden = re.sub(
            rb"(infe(?:\x02.{3}.{4}|\x03.{3}.{6}))Exif", rb"\1free", data, flags=re.DOTALL
        )
        return Split(hidden, None)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return Split(_without_sub_ifds(data), None, (data,))
    return Split(data, None)


def orientation_of_exif(block: bytes) -> int | None:
    """The orientation 1..8 in an EXIF block, or None where it cannot be read.

    The block may start with "Exif". Only the first directory is read, entry by entry, so that
    damage to other tags has no effect.
    """
    value = _numbers(_tiff(block)).get(ORIENTATION, 0)
    return value if 1 <= value <= 8 else None


def focal35_of_exif(block: bytes, size: tuple[int, int]) -> float | None:
    """The 35 mm equivalent of the focal length in an EXIF block, mm, or None.

    It is None where it cannot be read, where it is outside SHORTEST..LONGEST, and where the picture
    was cropped: its ratio of sides is not the one at which the camera stored it. A picture that was
    scaled, or turned by an editor that kept EXIF, is not cropped. A crop to the ratio of before,
    and a crop whose editor corrected EXIF, cannot be known.

    Args:
      block: may start with "Exif".
      size: width and height of the picture, px, in any order.
    """
    block = _tiff(block)
    start = _numbers(block).get(_EXIF_IFD)
    if start is None:
        return None
    values = _numbers(block, start)
    stored = [values.get(WIDTH, 0), values.get(HEIGHT, 0)]
    if min(stored) > 0:
        before, now = max(stored) / min(stored), max(size) / min(size)
        if abs(now / before - 1) > CROPPED:
            return None
    focal = values.get(FOCAL35, 0)
    return float(focal) if SHORTEST <= focal <= LONGEST else None


def orientation_of_xmp(text: bytes) -> int | None:
    """The orientation 1..8 in an XMP text, or None."""
    found = _XMP.search(text)
    return int(found[1]) if found else None


def _tiff(block: bytes) -> bytes:
    """An EXIF block without its heads (some programs write two)."""
    start = 0
    while block.startswith(b"Exif\0\0", start):
        start += 6
    return block[start:]


def _numbers(block: bytes, start: int | None = None) -> dict[int, int]:
    """The whole numbers of a directory of a TIFF block, by tag: the first value of the first entry.

    `start` is the position of the directory; None: the first one.
    """
    found: dict[int, int] = {}
    for position, order in _entries(block, start):
        tag, kind, count = struct.unpack_from(order + "HHL", block, position)
        if count >= 1 and kind in _INTEGERS:
            (value,) = struct.unpack_from(order + _INTEGERS[kind], block, position + 8)
            found.setdefault(tag, value)
    return found


def _entries(block: bytes, start: int | None = None) -> Iterator[tuple[int, str]]:
    """Positions of the 12-byte entries of a directory of a TIFF block, and its byte order.

    Entries beyond the end of the block are left out. `start` as in `_numbers`.
    """
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 10 or block[2:4] not in (b"*\0", b"\0*"):
        return
    if start is None:
        (start,) = struct.unpack_from(order + "L", block, 4)
    if not 0 <= start <= len(block) - 2:
        return
    (count,) = struct.unpack_from(order + "H", block, start)
    for i in range(min(count, _MOST_TAGS)):
        position = start + 2 + 12 * i
        if position + 12 > len(block):
            return
        yield position, order


def _split_jpeg(data: bytes) -> Split:
    """Copy or leave out each segment before the first scan, and copy everything after it."""
    kept, exif, xmp, position = [data[:2]], [], [], 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in (0xDA, 0xD9) or marker in range(0xD0, 0xD8) or length < 2:
            break
        segment = data[position + 4 : position + 2 + length]
        if marker == 0xE1 and segment.startswith(b"Exif\0"):
            exif.append(segment)
        elif marker == 0xE1 and b"tiff:Orientation" in segment:
            xmp.append(segment)
        if marker in _PIXEL_SEGMENTS or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(data[position : position + 2 + length])
        position += 2 + length
    kept.append(data[position:])
    return Split(b"".join(kept), _first(exif, xmp), tuple(exif))


def _split_png(data: bytes) -> Split:
    """Copy critical chunks and those that pixels depend on.

    A damaged chunk and everything after it are copied too: the decoder decides about them.
    """
    kept, exif, xmp, position = [data[:8]], [], [], 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind, end = data[position + 4 : position + 8], position + 12 + length
        if end > len(data) or not kind.isalpha():
            break
        content = data[position + 8 : end - 4]
        if kind == b"eXIf":
            exif.append(content)
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            name = content.partition(b"\0")[0]
            # Each can be a thousand times as long as its chunk: only the first ones count.
            if name in (b"Raw profile type exif", b"Raw profile type APP1") and not exif:
                exif.append(_unhex(_png_text(kind, content)))
            elif name == b"XML:com.adobe.xmp" and not xmp:
                xmp.append(_png_text(kind, content))
        if kind[:1].isupper() or kind in _PIXEL_CHUNKS:
            kept.append(data[position:end])
        position = end
    kept.append(data[position:])
    return Split(b"".join(kept), _first(exif, xmp), tuple(exif))


def _first(exif: list[bytes], xmp: list[bytes]) -> int | None:
    """The first orientation that can be read: EXIF comes before XMP."""
    found = [orientation_of_exif(block) for block in exif]
    found += [orientation_of_xmp(text) for text in xmp]
    return next((value for value in found if value is not None), None)


def _png_text(kind: bytes, content: bytes) -> bytes:
    """The text of a PNG text chunk; it is empty if it cannot be decompressed."""
    rest = content.partition(b"\0")[2]
    if kind == b"tEXt":
        return rest
    if kind == b"iTXt":
        compressed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]
        return _inflated(rest) if compressed else rest
    return _inflated(rest[1:])


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _LONGEST_TEXT)
    except zlib.error:
        return b""


def _unhex(text: bytes) -> bytes:
    """The bytes of ImageMagick's raw profile: a name, a length, and hexadecimal digits."""
    parts = text.split(None, 2)
    try:
        return bytes.fromhex(parts[2].decode("ascii")) if len(parts) == 3 else b""
    except ValueError:
        return b""


def _without_sub_ifds(data: bytes) -> bytes:
    """A TIFF file whose pointers to EXIF directories are ordinary unknown tags."""
    changed = bytearray(data)
    for position, order in _entries(data):
        if struct.unpack_from(order + "H", data, position)[0] in _SUB_IFDS:
            struct.pack_into(order + "HHLL", changed, position, _UNUSED_TAG, 4, 1, 0)
    return bytes(changed)
