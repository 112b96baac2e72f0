"""Files with the suffix of an image from which nobody can be recovered, each by a function."""

import gzip
import pathlib
import zlib
from collections.abc import Callable

import numpy as np
from hostile_bodies import png_of
from PIL import Image


def _noise(path: pathlib.Path) -> bytes:
    """The bytes of a picture of noise, in the format of the suffix."""
    pixels = np.random.default_rng(0).integers(0, 256, (90, 90, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


def _truncated(path: pathlib.Path) -> None:
    path.write_bytes(_noise(path)[:3000])


def _header_only(path: pathlib.Path) -> None:
    data = _noise(path)
    path.write_bytes(data[:64] + bytes(len(data) - 64))


def _bomb(path: pathlib.Path) -> None:
    """A small PNG that declares 30,000 x 30,000 px, of which it has none."""
    path.write_bytes(png_of(30_000, 30_000, zlib.compress(bytes(100_000))))


def _picture(mode: str, size: tuple[int, int]) -> Callable[[pathlib.Path], None]:
    return lambda path: Image.new(mode, size).save(path)


HOSTILE: dict[str, Callable[[pathlib.Path], None]] = {
    "empty.jpg": lambda path: path.write_bytes(b""),
    "text.jpg": lambda path: path.write_text("hello, this is no picture\n" * 50),
    "page.png": lambda path: path.write_text("<html><body><svg onload=alert(1)></body></html>"),
    "packed.png": lambda path: path.write_bytes(gzip.compress(bytes(1_000_000))),
    "zeros.jpg": lambda path: path.write_bytes(bytes(4096)),
    "marker.jpg": lambda path: path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(200)),
    "truncated.jpg": _truncated,
    "truncated.png": _truncated,
    "truncated.webp": _truncated,
    "header.png": _header_only,
    "bomb.png": _bomb,
    "dot.png": _picture("RGB", (1, 1)),
    "wide.png": _picture("1", (20_000, 30)),
    "float.tif": _picture("F", (40, 40)),
    "dangling.jpg": lambda path: path.symlink_to(path.with_suffix(".not_there")),
    "nobody.jpg": _picture("RGB", (320, 240)),
}
