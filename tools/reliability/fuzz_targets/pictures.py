"""Targets: photos, masks, their metadata, and videos."""

import itertools
import struct
import zlib

import numpy as np

from fuzz_targets.target import Target, file, refusing
from genhmr_jax.data.sources.photos import photo_size
from genhmr_jax.io import metadata
from genhmr_jax.io.images import read_labels, read_photo, upright_file
from genhmr_jax.io.video import open_clip

_EXIF = (
    b"Exif\0\0", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"\x12\x01\x03\0\x01\0\0\0\x06\0",
    b"\x69\x87\x04\0\x01\0\0\0", b"\xff\xd8\xff\xe1", b"ftypavif", b"infe\x02", b"tiff:Orientation",
)  # fmt: skip
_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"eXIf", b"zTXt")
_FRAMES = 20


def _metadata(data: bytes) -> None:
    split = metadata.split(data)
    assert len(split.data) <= len(data) and split.orientation in (None, *range(1, 9))
    for block in (data, *split.exif):
        assert metadata.orientation_of_exif(block) in (None, *range(1, 9))
        focal = metadata.focal35_of_exif(block, (64, 48))
        assert focal is None or metadata.SHORTEST <= focal <= metadata.LONGEST
    assert metadata.orientation_of_xmp(data) in (None, *range(1, 9))


def _image(data: bytes) -> None:
    path = file("x.jpg", data)
    with refusing():
        photo = read_photo(path)
        assert photo.pixels.dtype == np.uint8 and photo.pixels.shape[2:] == (3,)
    with refusing():
        read_labels(path)
    with refusing():
        upright_file(path)
    with refusing():
        assert min(photo_size(data, "x")) > 0


def _png(data: bytes) -> None:
    """A PNG whose chunks get the right checksums, since Pillow stops at a wrong one."""
    fixed, position = [data[:8]], 8
    while position + 8 <= len(data):
        length = min(struct.unpack_from(">L", data, position)[0], len(data) - position - 8)
        chunk = data[position + 4 : position + 8 + length]
        fixed.append(struct.pack(">L", length) + chunk + struct.pack(">L", zlib.crc32(chunk)))
        position += 12 + length
    _image(b"".join(fixed))


def _video(data: bytes) -> None:
    with refusing():
        source = open_clip(file("x.mp4", data))
        for frame in itertools.islice(source, _FRAMES):
            assert frame.pixels.shape[1::-1] == source.size
    with refusing():
        next(open_clip(file("x.mp4", data), start=0.02, every=2).frames(1), None)


TARGETS = (
    Target("metadata", "io.metadata (JPEG, PNG, TIFF, AVIF, EXIF, XMP)", _metadata, tokens=_EXIF),
    Target("image", "io.images (all formats)", _image),
    Target("png", "io.images, PNG with right checksums", _png, tokens=_CHUNKS),
    Target("video", "io.video.open_clip", _video, seconds=10.0),
)
