"""Safe reading of photos: any common format becomes upright `uint8 (H, W, 3)` RGB.

A file that cannot be read gives one clear InputError.
"""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from genhmr_jax.io import metadata
from genhmr_jax.io.errors import InputError

MIN_SIDE = 16  # px: a person in fewer pixels cannot be recovered
MAX_SIDE = 16_000  # px
MAX_PIXELS = 150_000_000  # below the 178 million at which Pillow refuses (decompression bombs)
FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP",
)  # fmt: skip
"""Pillow's names of the formats that are read (JPEG includes MPO). For EPS it runs Ghostscript."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the operation that makes a picture upright."""


class NotAnImage(InputError):
    """The data are no image of a format that is read."""


class ImageTooLarge(InputError):
    """The image has more pixels, or a longer side, than is read."""


class Photo(NamedTuple):
    """A photo in memory.

    Attributes:
      pixels: upright, RGB.
      focal35: the 35 mm equivalent of the focal length, mm (metadata.focal35_of_exif); None where
        EXIF does not tell it.
    """

    pixels: UInt8[np.ndarray, "H W 3"]
    focal35: float | None


def read_image(path: str | os.PathLike) -> UInt8[np.ndarray, "H W 3"]:
    """Read a photo as `uint8 (H, W, 3)` RGB.

    EXIF's orientation is applied. Grey, palette, CMYK and 16-bit
    images become 8-bit RGB; transparent images are composited over white; only the first frame of
    an animation is read.

    Args:
      path: an image file of one of FORMATS, whatever its suffix.

    Raises:
      InputError: no such file, not an image, damaged, or a side outside MIN_SIDE..MAX_SIDE px.
    """
    return read_photo(path).pixels


def read_photo(path: str | os.PathLike) -> Photo:
    """Read a photo and its focal length; see `read_image`."""
    path = Path(path)
    return decode_photo(_read(path), path)


def decode_photo(
    data: bytes,
    where: object,
    formats: Sequence[str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Photo:
    """Decode a photo in memory, and its focal length; see `read_image`.

    Args:
      data: the content of an image file.
      where: what the errors call it.
      formats: Pillow's names of the formats that are read; None: FORMATS.
      max_pixels: limit of width x height, at most MAX_PIXELS. The size in the header is compared
        with it before any pixel is decoded.

    Raises:
      NotAnImage: none of these formats.
      ImageTooLarge: too many pixels, or too long a side.
      InputError: damaged, or too small.
    """
    with _opened(where, data, formats, max_pixels) as (image, split):
        exif = split.exif or (image.info.get("exif"),)
        blocks = (block for block in exif if isinstance(block, bytes))
        found = (metadata.focal35_of_exif(block, image.size) for block in blocks)
        focal35 = next((focal for focal in found if focal is not None), None)
        return Photo(_upright_rgb(where, image, _orientation(image, split)), focal35)


def read_labels(path: str | os.PathLike) -> Int[np.ndarray, "H W"]:
    """Read a picture whose values are labels, such as a mask; 0 is the background.

    A label is the value of a grey px (of 1, 8 or 16 bits), its index in a palette, or a number for
    its colour. Black and transparent px are 0. EXIF's orientation is applied.

    Raises:
      InputError: as `read_image` does; or the background of a palette is not its first colour.
    """
    path = Path(path)
    with _opened(path, _read(path)) as (image, split):
        orientation = _orientation(image, split)
        upright = image.transpose(_TURNS[orientation]) if orientation != 1 else image
        return _labels(path, upright)


def upright_file(path: str | os.PathLike) -> tuple[bytes, tuple[int, int]]:
    """The bytes of an upright JPEG or PNG without metadata, and its width and height in px.

    Pixels are encoded again (JPEG of quality 95) only if the photo is rotated, or is not an RGB or
    grey JPEG or PNG.

    Raises:
      InputError: as `read_image` does.
    """
    path = Path(path)
    data = _read(path)
    with _opened(path, data) as (image, split):
        orientation = _orientation(image, split)
        plain = image.format in ("JPEG", "PNG") and image.mode in ("RGB", "L")
        plain &= orientation == 1 and not image.has_transparency_data
        pixels = _upright_rgb(path, image, orientation)
    size = pixels.shape[1], pixels.shape[0]
    if plain:
        return split.data, size
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue(), size


def open_bytes(data: bytes) -> Image.Image:
    """Open a picture in memory with Pillow, without its metadata: not rotated, not decoded yet.

    Raises:
      Exception: of many types, if it is no picture (Pillow's format plug-ins differ).
    """
    return Image.open(io.BytesIO(metadata.split(data).data), formats=FORMATS)


def _read(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
      InputError: it cannot be read.
    """
    if path.is_dir():
        raise InputError(path, "is a directory, not an image", "give an image file")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(path, "no such file", "check the path") from error
    except OSError as error:
        problem = f"cannot be read ({(error.strerror or 'error').lower()})"
        raise InputError(path, problem, "check the path and its permissions") from error


@contextlib.contextmanager
def _opened(
    path: object,
    data: bytes,
    formats: Sequence[str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[tuple[Image.Image, metadata.Split]]:
    """Yield a decoded image of acceptable size, and the parts of its file; see `decode_photo`."""
    with warnings.catch_warnings():
        # Pillow warns of odd metadata and palettes, and of a size above our own stricter limits.
        warnings.simplefilter("ignore")
        split = metadata.split(data)
        try:
            image = Image.open(io.BytesIO(split.data), formats=formats or FORMATS)
        except Image.DecompressionBombError as error:
            problem = f"is larger than {max_pixels / 1e6:g} megapixels"
            raise ImageTooLarge(path, problem, _smaller(max_pixels)) from error
        except Exception as error:  # Pillow's format plug-ins raise many types on broken headers
            problem, remedy = "is not an image that can be read", "convert it to JPEG or PNG"
            raise NotAnImage(path, problem, remedy) from error
        with image:
            _check_size(path, *image.size, max_pixels)
            try:
                image.load()
            except Exception as error:  # decoders raise OSError, SyntaxError, zlib.error, ...
                raise _damaged(path, error) from error
            if image.mode in ("P", "PA") and image.palette is None:  # Pillow asserts it later
                raise _damaged(path, "it has no palette")
            yield image, split


def _damaged(path: object, why: object) -> InputError:
    problem = f"is damaged or truncated ({why})"
    return InputError(path, problem, "copy or export the image again")


def _converted(path: object, image: Image.Image, mode: str) -> Image.Image:
    """An image in another Pillow mode.

    Raises:
      InputError: Pillow cannot convert it, because parts of the file contradict each other.
    """
    try:
        return image.convert(mode)
    except MemoryError:
        raise
    except Exception as error:  # such as ValueError, if the transparency is of another mode
        raise _damaged(path, error) from error


def _orientation(image: Image.Image, split: metadata.Split) -> int:
    """The orientation 1..8 of an open image. WebP and AVIF store it elsewhere: Pillow finds it."""
    if split.orientation is not None:
        return split.orientation
    # Pillow rotates a TIFF while it loads it.
    if image.format == "TIFF":
        return 1
    exif, xmp = image.info.get("exif"), image.info.get("xmp")
    found = metadata.orientation_of_exif(exif) if isinstance(exif, bytes) else None
    if found is None and isinstance(xmp, bytes):
        found = metadata.orientation_of_xmp(xmp)
    return found or 1


def _upright_rgb(path: object, image: Image.Image, orientation: int) -> UInt8[np.ndarray, "H W 3"]:
    upright = image.transpose(_TURNS[orientation]) if orientation != 1 else image
    return np.ascontiguousarray(_to_rgb(path, upright))


def _labels(path: Path, image: Image.Image) -> Int[np.ndarray, "H W"]:
    """The labels of an image in any Pillow mode."""
    if image.mode == "F":
        raise InputError(path, "has floating-point pixels", "save whole numbers")
    if image.mode == "P":
        labels, palette = np.asarray(image), np.array(image.getpalette() or [0, 0, 0])
        black = np.flatnonzero((palette.reshape(-1, 3) == 0).all(-1))
        if 0 not in black and np.isin(labels, black).any():
            problem = "has a palette in which black is not the first colour"
            raise InputError(path, problem, "save it as an RGB or grey picture")
        return labels.astype(np.int32)
    if image.mode in ("1", "L") or image.mode.startswith("I"):
        return np.asarray(image).astype(np.int32)
    rgba = np.asarray(_converted(path, image, "RGBA"))
    labels = rgba[..., 0].astype(np.int32)
    for channel in (1, 2):
        labels <<= 8
        labels |= rgba[..., channel]
    labels[rgba[..., 3] == 0] = 0
    return labels


def _check_size(path: object, width: int, height: int, max_pixels: int) -> None:
    """Refuse an image by the size in its header, before any pixel is decoded."""
    if min(width, height) < MIN_SIDE:
        remedy = f"give an image of at least {MIN_SIDE} px a side"
        raise InputError(path, f"is only {width} x {height} px", remedy)
    if max(width, height) > MAX_SIDE or width * height > max_pixels:
        raise ImageTooLarge(path, f"is {width} x {height} px", _smaller(max_pixels))


def _smaller(max_pixels: int) -> str:
    return f"scale it down to at most {MAX_SIDE} px a side and {max_pixels / 1e6:g} megapixels"


def _to_rgb(path: object, image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """8-bit RGB of an image in any Pillow mode."""
    remedy = "convert it to an 8-bit image"
    if image.mode == "F":
        raise InputError(path, "has floating-point pixels, whose range is unknown", remedy)
    if image.mode.startswith("I"):  # 16-bit grey: I;16, I;16B, or I (32-bit storage)
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise InputError(path, "has pixels of more than 16 bits", remedy)
        rounded = (np.arange(1 << 16) / 257 + 0.5).astype(np.uint8)
        return np.repeat(rounded[grey][..., None], 3, axis=2)
    if image.has_transparency_data:
        rgba = _converted(path, image, "RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
    return np.asarray(image if image.mode == "RGB" else _converted(path, image, "RGB"))
