"""Nothing of EXIF but the orientation matters: every block, however damaged, leaves the pixels
alone, and what can be read is obeyed."""

import io
import os
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genhmr_jax.io import metadata
from genhmr_jax.io.images import open_bytes, read_image, upright_file

EXAMPLES = int(os.environ.get("GENHMR_EXAMPLES", "200"))
PIXELS = np.stack(np.meshgrid(np.arange(60) * 4, np.arange(40) * 6), -1)
PIXELS = np.concatenate([PIXELS, PIXELS.sum(-1, keepdims=True) // 3], -1).astype(np.uint8)
FORMATS = {"JPEG": {"quality": 95}, "PNG": {}, "WEBP": {"lossless": True}, "AVIF": {"quality": 90}}


def encoded(form: str, **extra) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, form, **FORMATS[form], **extra)
    return stream.getvalue()


def entry(order: str, tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack(order + "HHL", tag, kind, count) + value.ljust(4, b"\0")


def block(
    *entries: bytes, order: str = "<", count: int | None = None, rest: bytes = b"\0" * 4
) -> bytes:
    """An EXIF block of one directory."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "L", 8)
    number = struct.pack(order + "H", len(entries) if count is None else count)
    return b"Exif\0\0" + head + number + b"".join(entries) + rest


def orientation(order: str = "<", value: int = 6, kind: int = 3) -> bytes:
    return entry(
        order,
        metadata.ORIENTATION,
        kind,
        1,
        struct.pack(order + {1: "B", 3: "H", 4: "L", 9: "l"}[kind], value),
    )


DAMAGED = {
    "text for a rational": entry("<", 0x011A, 2, 4, b"abc\0"),
    "a negative number over zero": entry("<", 0x829A, 10, 1, struct.pack("<L", 26)),
    "a number for a text": entry("<", 0x010F, 5, 1, struct.pack("<L", 26)),
    "an unknown type": entry("<", 0x0110, 99, 7, b"\xff" * 4),
    "a pointer into nowhere": entry("<", 0x8769, 4, 1, b"\xff" * 4),
    "a pointer to itself": entry("<", 0x8769, 4, 1, struct.pack("<L", 8)),
    "a count beyond all bounds": entry("<", 0x9286, 7, 0xFFFFFFFF, b"\1\2\3\4"),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_in_other_tags_costs_neither_photo_nor_orientation(tmp_path, form, damage):
    path = tmp_path / "x"
    # Pillow refuses to write some of the blocks: the damage is done to the file. In AVIF the
    # format's own orientation counts.
    data = bytearray(
        encoded(
            form,
            exif=block(
                entry("<", 0x0110, 2, 200, b"\x26"), orientation(), rest=b"\0" * 4 + b"x" * 200
            ),
        )
    )
    start, bad = data.index(b"II*\0"), block(DAMAGED[damage], orientation(), rest=b"\xff" * 16)[6:]
    data[start : start + len(bad)] = bad
    path.write_bytes(data)
    assert np.abs(read_image(path).astype(int) - np.rot90(PIXELS, -1)).mean() < 3


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("value", "kind"), [(1, 3), (3, 3), (8, 4), (6, 1), (6, 9), (0, 3), (9, 3), (65535, 3)]
)
def test_the_orientation_is_read_in_every_type_and_byte_order(order, value, kind):
    exif = block(orientation(order, value, kind), order=order)
    for raw in (exif, exif[6:], b"Exif\0\0" + exif):  # also doubled, as some programs write it
        assert metadata.orientation_of_exif(raw) == (value if 1 <= value <= 8 else None)


def test_a_directory_that_is_longer_than_the_block_is_read_as_far_as_it_goes():
    assert metadata.orientation_of_exif(block(orientation(), count=5000)) == 6
    assert metadata.orientation_of_exif(block(orientation(), count=0)) is None
    assert metadata.orientation_of_exif(block(orientation(), rest=b"")) == 6
    assert metadata.orientation_of_exif(block(orientation(), rest=b"")[:-1]) is None


@pytest.mark.parametrize("value", range(1, 9))
def test_orientations_agree_with_pillow(tmp_path, value):
    from PIL import ImageOps

    path = tmp_path / "x.jpg"
    path.write_bytes(encoded("JPEG", exif=block(orientation(value=value))))
    with Image.open(path) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read_image(path), wanted)


def test_xmp_and_raw_profiles_of_png():
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">L", len(content))
            + kind
            + content
            + struct.pack(">L", zlib.crc32(kind + content))
        )

    plain = encoded("PNG")
    hexed = block(orientation(value=3)).hex().encode()
    profile = b"\nexif\n" + f"{len(hexed) // 2:8}".encode() + b"\n" + hexed + b"\n"
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    for texts, wanted in (
        (chunk(b"tEXt", b"Raw profile type exif\0" + profile), 3),
        (chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)), 3),
        (chunk(b"zTXt", b"Raw profile type exif\0\0" + b"not compressed"), None),
        (chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp), 8),
        (chunk(b"tEXt", b"Comment\0" + b"x" * 10), None),
        (chunk(b"tIME", b"bad"), None),
    ):
        data, found, _ = metadata.split(plain[:33] + texts + plain[33:])
        assert found == wanted and np.array_equal(np.asarray(open_bytes(data)), PIXELS)


def test_a_text_chunk_that_pillow_refuses_costs_no_photo(tmp_path):
    """Programs that draw pictures keep their whole workflow in a text chunk, beyond Pillow's limit
    of 1 MiB."""
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * (2 << 20), zip=True)
    Image.fromarray(PIXELS).save(tmp_path / "x.png", pnginfo=info)
    with pytest.raises(ValueError):
        Image.open(tmp_path / "x.png").load()
    assert np.array_equal(read_image(tmp_path / "x.png"), PIXELS)


def test_tiff_with_a_broken_exif_directory(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "TIFF", tiffinfo={0x8769: 0x7FFFFFFF, 0x0112: 3})
    (tmp_path / "x.tif").write_bytes(stream.getvalue())
    assert np.array_equal(read_image(tmp_path / "x.tif"), PIXELS[::-1, ::-1])


def test_colours_of_cmyk_and_transparency_survive():
    stream = io.BytesIO()
    Image.fromarray(PIXELS).convert("CMYK").save(stream, "JPEG", quality=95)
    assert (
        np.abs(np.asarray(open_bytes(stream.getvalue()).convert("RGB")).astype(int) - PIXELS).mean()
        < 4
    )
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG", transparency=(0, 0, 0))
    assert open_bytes(stream.getvalue()).has_transparency_data


def test_upright_files_have_no_metadata(tmp_path):
    path = tmp_path / "x.jpg"
    for value in (1, 6):
        path.write_bytes(
            encoded("JPEG", exif=block(orientation(value=value), rest=b"secret place"))
        )
        data, size = upright_file(path)
        assert b"secret" not in data and size == ((60, 40) if value == 1 else (40, 60))
        assert (
            np.abs(np.asarray(Image.open(io.BytesIO(data))).astype(int) - read_image(path)).mean()
            < 1.5
        )


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.binary(max_size=120),
    st.sampled_from([b"", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0", b"Exif\0\0MM\0*\0\0\0\x08"]),
)
def test_no_exif_block_costs_a_photo(tmp_path_factory, noise, head):
    exif = (head + noise)[:65000]
    for form in ("JPEG", "PNG", "WEBP"):
        path = tmp_path_factory.getbasetemp() / f"fuzz.{form}"
        path.write_bytes(encoded(form, exif=exif))
        upright = read_image(path)
        value = (
            metadata.orientation_of_exif(exif if exif.startswith(b"Exif") else b"Exif\0\0" + exif)
            or 1
        )
        assert upright.shape[:2] == ((40, 60) if value < 5 else (60, 40))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_a_damaged_header_is_an_image_or_one_error(tmp_path_factory, data):
    """Any byte of the first part of a file may be another one: never anything but an InputError."""
    from genhmr_jax.io.errors import InputError

    form = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP"]))
    whole = bytearray(encoded(form, exif=block(orientation(), rest=b"\0" * 20)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, min(len(whole), 300) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"header.{form}"
    path.write_bytes(bytes(whole))
    try:
        assert read_image(path).dtype == np.uint8
    except InputError:
        pass


def test_metadata_that_would_take_gigabytes_or_minutes():
    """A megabyte of "Exif" heads, and a hundred texts that are a thousand times their chunk."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">L", zlib.crc32(kind + content))
        return struct.pack(">L", len(content)) + kind + content + check

    start, plain = time.process_time(), encoded("PNG")
    heads = chunk(b"eXIf", b"Exif\0\0" * 170_000)
    assert metadata.split(plain[:33] + heads + plain[33:]).orientation is None
    text = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(16 << 20))
    profile = b"Raw profile type exif\0\0" + zlib.compress(bytes(16 << 20))
    texts = chunk(b"iTXt", text) * 60 + chunk(b"zTXt", profile) * 60
    tracemalloc.start()
    assert metadata.split(plain[:33] + texts + plain[33:]).orientation is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 << 20 and time.process_time() - start < 5
