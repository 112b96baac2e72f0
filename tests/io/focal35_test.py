"""The focal length of EXIF: read from every common format, and from nothing that is hostile."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from genhmr_jax.io import metadata
from genhmr_jax.io.images import read_image, read_photo

KINDS = {1: "B", 3: "H", 4: "L", 8: "h", 9: "l"}  # TIFF's types of whole numbers
RATIONAL, ASCII = 5, 2
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")


def block(
    focal: object = 26,
    stored: tuple[int, int] | None = (60, 40),
    *,
    kind: int = 3,
    order: str = "<",
    orientation: int = 1,
    directory: int | None = None,
) -> bytes:
    """An EXIF block, written field by field as Exif 2.32 describes it.

    Its first directory has an orientation and the place of EXIF's own directory, which has the
    stored size of the picture and the focal length.
    """
    pack = lambda form, *values: struct.pack(order + form, *values)
    own = []
    if stored is not None:
        own += [pack("HHLL", 0xA002, 4, 1, stored[0]), pack("HHLL", 0xA003, 4, 1, stored[1])]
    value = pack(KINDS[kind], focal) if kind in KINDS else bytes([0, 0, 0, 8])
    own.append(pack("HHL", 0xA405, kind, 1) + value.ljust(4, b"\0"))
    start = 8 + 2 + 2 * 12 + 4
    first = [
        pack("HHL", 0x0112, 3, 1) + pack("H", orientation).ljust(4, b"\0"),
        pack("HHLL", 0x8769, 4, 1, start if directory is None else directory),
    ]
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + pack("L", 8)
    ifds = [pack("H", len(tags)) + b"".join(tags) + bytes(4) for tags in (first, own)]
    return b"Exif\0\0" + head + b"".join(ifds)


def photo(form: str, exif: bytes, size: tuple[int, int] = (60, 40)) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(stream, form, exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_format(tmp_path, form, order):
    path = tmp_path / "x"
    path.write_bytes(photo(form, block(order=order)))
    with Image.open(path) as image:  # Pillow's own reader agrees that the block is EXIF
        assert image.getexif().get_ifd(0x8769)[0xA405] == 26
    pixels, focal35 = read_photo(path)
    assert focal35 == 26.0
    assert np.array_equal(pixels, read_image(path))


@pytest.mark.parametrize("form", ("JPEG", "PNG", "WEBP"))
def test_a_turned_photo(tmp_path, form):
    path = tmp_path / "x"
    path.write_bytes(photo(form, block(orientation=6)))
    pixels, focal35 = read_photo(path)
    assert pixels.shape == (60, 40, 3) and focal35 == 26.0


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_of_whole_numbers(kind):
    assert metadata.focal35_of_exif(block(35, kind=kind), (60, 40)) == 35.0


@pytest.mark.parametrize(
    "exif",
    [
        *(block(value) for value in (0, 7, 401, 65535)),
        block(-26, kind=8),
        block(2**32 - 1, kind=4),
        block(kind=RATIONAL),
        block(kind=ASCII),
        block(kind=99),
        *(block(directory=place) for place in (0, 8, 7000, 2**31, 2**32 - 1)),
        *(block()[:length] for length in range(6, len(block()) - 7)),
        b"",
        b"Exif\0\0",
        b"Exif\0\0" * 3 + b"II*\0",
    ],
)
def test_hostile_blocks_give_nothing(exif):
    assert metadata.focal35_of_exif(exif, (60, 40)) is None


@pytest.mark.parametrize("form", FORMATS)
def test_hostile_blocks_cost_no_photo(tmp_path, form):
    """The damage is done to the file, because Pillow refuses to write some of the blocks."""
    path = tmp_path / "x"
    for bad in (block(directory=2**32 - 1), block(65535), block(kind=99)):
        data = photo(form, block())
        start, good = data.find(b"II*\0"), block()[6:]
        if form == "TIFF":  # the directories lie elsewhere: the pointer is damaged instead
            start = data.index(struct.pack("<HHL", 0x8769, 4, 1)) + 8
            good, bad = data[start : start + 4], b"    " + b"  \xff\xff\xff\xff"
        path.write_bytes(data[:start] + bad[6:] + data[start + len(good) :])
        assert read_photo(path).focal35 is None
        assert read_image(path).shape == (40, 60, 3)


@pytest.mark.parametrize(
    ("stored", "size", "known"),
    [
        ((4032, 3024), (4032, 3024), True),
        ((4032, 3024), (1008, 756), True),  # scaled
        ((4032, 3024), (3024, 4032), True),  # turned, and EXIF kept
        ((4032, 3024), (1000, 756), True),  # 0.8 %: rounding of sides
        ((4032, 3024), (4032, 2268), False),  # cropped to 16 : 9
        ((4032, 3024), (3024, 3024), False),  # cropped to a square
        ((4032, 3024), (980, 756), False),  # 2.8 %
        ((0, 3024), (980, 756), True),  # an unknown size tells nothing
        (None, (980, 756), True),
    ],
)
def test_a_cropped_photo(stored, size, known):
    assert metadata.focal35_of_exif(block(26, stored), size) == (26.0 if known else None)


def test_a_photo_without_exif(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "x.jpg")
    assert read_photo(tmp_path / "x.jpg").focal35 is None
