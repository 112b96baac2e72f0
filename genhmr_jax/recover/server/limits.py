"""Reads and decodes what the server accepts, and refuses everything else."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.images import ImageTooLarge, NotAnImage, Photo, decode_photo
from genhmr_jax.recover.server.settings import Limits

PHOTO = "the photo"
"""What errors call the body of a request. A client never learns, or gives, a path."""
FORMATS = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
    "image/avif": "AVIF",
}
"""Media types that are accepted, and Pillow's names of these formats.

Pillow reads more: some of them start other programs (EPS) or hold other formats (TIFF).
"""
UNKNOWN_TYPE = "application/octet-stream"
"""The media type of a photo whose format the client does not know.

A page of another site cannot send any of these types without the server's consent (CORS), which it
never gives.
"""
MOST_SCANS = 64
"""Scans of a progressive JPEG; encoders write about 10.

Each scan passes over the whole image. A file of 169 kB with 510 scans of 25 megapixels took 89 s to
decode, with 64 scans 9 s.
"""
_SCAN = b"\xff\xda"
_HELD = 4
"""Bodies of the largest size that all uploads together may hold."""


class Refusal(InputError):
    """A request that is not served.

    Attributes:
      status: of HTTP.
      retry_after: seconds after which the client may try again; None: the same request will always
        be refused.
    """

    def __init__(
        self, status: int, where: object, problem: str, remedy: str, retry_after: int | None = None
    ) -> None:
        super().__init__(where, problem, remedy)
        self.status, self.retry_after = status, retry_after


def busy(problem: str, status: int = 429, retry_after: int = 1) -> Refusal:
    """The refusal of a request that may succeed later."""
    return Refusal(status, "the server", problem, "try again later", retry_after)


def check_type(content_type: str | None) -> None:
    """Raise Refusal unless a Content-Type is that of a photo."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind not in FORMATS and kind != UNKNOWN_TYPE:
        problem = "must be that of the photo in the body"
        remedy = f"send one of {', '.join(FORMATS)} or {UNKNOWN_TYPE}"
        raise Refusal(415, "Content-Type", problem, remedy)


class Uploads:
    """Reads bodies within the limits, and counts the bytes that all of them hold."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.held, self._lock = limits, 0, threading.Lock()

    async def read(
        self, chunks: AsyncIterator[bytes], length: str | None, deadline: float
    ) -> bytes:
        """The body of a request. `release` must be called with its length later.

        Args:
          chunks: of the body, as they arrive.
          length: the Content-Length.
          deadline: of time.monotonic.

        Raises:
          Refusal: too many bytes (declared, or arrived), none, too slow, or too many uploads.
        """
        if length is not None and length.isdecimal() and int(length) > self.limits.max_bytes:
            raise self._too_many()
        body = bytearray()
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                async for chunk in chunks:
                    if len(body) + len(chunk) > self.limits.max_bytes:
                        raise self._too_many()
                    if self.held + len(chunk) > _HELD * self.limits.max_bytes:
                        raise busy("receives too many photos at the same time")
                    self.release(-len(chunk))
                    body += chunk
            if not body:
                raise Refusal(400, PHOTO, "is empty", "send the bytes of an image as the body")
        except BaseException as error:
            self.release(len(body))
            if isinstance(error, TimeoutError):
                raise Refusal(408, PHOTO, "was sent too slowly", "send a smaller photo") from error
            raise
        return bytes(body)

    def release(self, size: int) -> None:
        """Tell that `size` bytes are no longer held. Any thread may call it."""
        with self._lock:
            self.held -= size

    def _too_many(self) -> Refusal:
        most = self.limits.max_bytes
        problem = f"has more than {most:,} bytes".replace(",", " ")
        return Refusal(413, PHOTO, problem, "scale the photo down, or save it as JPEG")


def decode(body: bytes, limits: Limits) -> Photo:
    """The photo of a body, within the limits.

    Raises:
      Refusal: 415 no image of a known format, 413 too many pixels, 400 damaged or too small.
    """
    if body.startswith(b"\xff\xd8") and body.count(_SCAN) > MOST_SCANS:
        raise Refusal(400, PHOTO, f"has more than {MOST_SCANS} scans", "save it as plain JPEG")
    try:
        return decode_photo(body, PHOTO, tuple(FORMATS.values()), limits.max_pixels)
    except InputError as error:
        status = 400
        if isinstance(error, NotAnImage):
            status = 415
        elif isinstance(error, ImageTooLarge):
            status = 413
        raise Refusal(status, error.where, error.problem, error.remedy) from error
