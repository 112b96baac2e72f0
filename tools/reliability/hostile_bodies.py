"""The bodies that soak_server.py sends: good photos, and what a server must survive."""

import dataclasses
import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from genhmr_jax.cli.recover import SAMPLE_PHOTO
from genhmr_jax.io.images import read_image

MAX_BYTES = 4_000_000
"""The server's --max-bytes."""
_STOPPING = 503
"""Status of what arrives after the server got its signal."""


@dataclasses.dataclass(frozen=True)
class Body:
    """A body and how it is sent.

    Attributes:
      data: what is sent.
      media_type: the Content-Type.
      statuses: the answers that are right, besides 429; 0: the connection may be closed.
      photo: name of the good photo that it is.
      length: the Content-Length; None: that of `data`.
      parts, pause: it is sent in this number of parts, with a pause in seconds after each.
      leaves: whether the client closes the connection without reading an answer.
    """

    data: bytes
    media_type: str = "image/jpeg"
    statuses: tuple[int, ...] = (400,)
    photo: str | None = None
    length: int | None = None
    parts: int = 1
    pause: float = 0.0
    leaves: bool = False

    @property
    def declared(self) -> int:
        """The Content-Length."""
        return len(self.data) if self.length is None else self.length


def good_photos() -> dict[str, Body]:
    """Three photos, of which two show other poses, or another place, than the sample photo."""
    pixels = read_image(SAMPLE_PHOTO)
    mirrored = np.ascontiguousarray(pixels[:, ::-1])
    beside = np.concatenate([pixels, mirrored], axis=1)
    made = {
        "sample": Body(SAMPLE_PHOTO.read_bytes()),
        "mirrored": Body(_file(mirrored, "PNG"), "image/png"),
        "two_people": Body(_file(beside, "JPEG", quality=95)),
    }
    return {
        name: dataclasses.replace(body, photo=name, statuses=(200,)) for name, body in made.items()
    }


def _file(pixels: np.ndarray, kind: str, **how: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **how)
    return stream.getvalue()


def png_of(width: int, height: int, compressed: bytes) -> bytes:
    """A PNG file of RGB pixels, with any size in its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", compressed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


ZEROS = zlib.compress(bytes(300_000_000), 9)  # a thousandth of its size
SCANS = _file(np.zeros((16, 16, 3), np.uint8), "JPEG", progressive=True)
SCANS = SCANS[:-2] + 20_000 * SCANS[SCANS.rindex(b"\xff\xda") : -2] + SCANS[-2:]


def _sample(photos: dict[str, Body]) -> bytes:
    return photos["sample"].data


def _truncated(rng: random.Random, photos: dict[str, Body]) -> Body:
    data = _sample(photos)
    return Body(data[: rng.randrange(1000, len(data) - 1000)])


def _flipped(rng: random.Random, photos: dict[str, Body]) -> Body:
    """Random bytes changed: it may decode, to anything."""
    data = bytearray(_sample(photos))
    for _ in range(20):
        data[rng.randrange(20, len(data))] = rng.randrange(256)
    return Body(bytes(data), statuses=(200, 400, 413, 415, 422))


def _leaves(share: float) -> Callable[[random.Random, dict[str, Body]], Body]:
    """A client that sends a share of a photo, and goes away."""

    def make(rng: random.Random, photos: dict[str, Body]) -> Body:
        data = _sample(photos)
        sent, pause = data[: int(share * len(data))], rng.choice((0.0, 0.05, 0.5))
        return Body(sent, statuses=(0,), length=len(data), pause=pause, leaves=True)

    return make


def _slow(rng: random.Random, photos: dict[str, Body]) -> Body:
    """A good photo, sent in three seconds."""
    return dataclasses.replace(photos["sample"], parts=30, pause=0.1)


KINDS: dict[str, Callable[[random.Random, dict[str, Body]], Body]] = {
    "truncated JPEG": _truncated,
    "flipped bytes": _flipped,
    "empty": lambda rng, photos: Body(b""),
    "text": lambda rng, photos: Body(b"no photo\n" * 100, statuses=(415,)),
    "type of text": lambda rng, photos: Body(_sample(photos), "text/plain", (415,)),
    "huge declared size": lambda rng, photos: Body(
        png_of(65_000, 65_000, zlib.compress(b"")), "image/png", (413,)
    ),
    "bomb": lambda rng, photos: Body(png_of(10_000, 10_000, ZEROS), "image/png", (413,)),
    "bomb in a small picture": lambda rng, photos: Body(
        png_of(64, 64, ZEROS), "image/png", (400, 422)
    ),
    "20,000 scans": lambda rng, photos: Body(SCANS),
    "too many bytes": lambda rng, photos: Body(bytes(MAX_BYTES + 1), statuses=(413, 0)),
    "too many bytes declared": lambda rng, photos: Body(
        b"", statuses=(413,), length=10**12
    ),
    "slow upload": _slow,
    "leaves after the photo": _leaves(1.0),
    "leaves in the photo": _leaves(0.5),
}  # fmt: skip
"""A hostile body of each kind."""
