"""Reading photos safely: any common file in, `uint8 (H, W, 3)` RGB in upright orientation out, or one clear error."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from genhmr_jax.io import metadata
from genhmr_jax.io.errors import InputError

MIN_SIDE = 16  # px: a person in fewer pixels cannot be recovered
MAX_SIDE = 16_000  # px
MAX_PIXELS = 150_000_000  # stays below the 178 million at which Pillow itself refuses (decompression bombs)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by EXIF's orientation."""


def read_image(path: str | os.PathLike) -> UInt8[np.ndarray, "H W 3"]:
    """Reads a photo as `uint8 (H, W, 3)` RGB.

    EXIF's orientation is applied; nothing else of EXIF is read. Grey, palette, CMYK and 16-bit images become 8-bit RGB; transparency
    is laid over white; of an animation the first frame is taken.

    Args:
      path: an image file of any format that Pillow reads.

    Raises:
      InputError: no such file, not an image, damaged, or a side outside MIN_SIDE..MAX_SIDE px.
    """
    path = Path(path)
    with _opened(path, _read(path)) as (image, orientation):
        return _upright_rgb(path, image, orientation)


def upright_file(path: str | os.PathLike) -> tuple[bytes, tuple[int, int]]:
    """A photo as the bytes of an upright JPEG or PNG without metadata, and its width and height in px.

    Pixels are encoded anew (JPEG of quality 95) only where the photo is turned, or is not an RGB or grey JPEG or PNG.

    Raises:
      InputError: as `read_image` does.
    """
    path = Path(path)
    data = _read(path)
    with _opened(path, data) as (image, orientation):
        as_it_is = image.format in ("JPEG", "PNG") and image.mode in ("RGB", "L") and orientation == 1
        as_it_is &= not image.has_transparency_data
        pixels = _upright_rgb(path, image, orientation)
    size = pixels.shape[1], pixels.shape[0]
    if as_it_is:
        return metadata.split(data).data, size
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue(), size


def open_bytes(data: bytes) -> Image.Image:
    """A picture in memory as Pillow opens it, without its metadata: not turned, not decoded yet.

    Raises:
      Exception: of many types, where it is no picture (Pillow's format plug-ins differ).
    """
    return Image.open(io.BytesIO(metadata.split(data).data))


def _read(path: Path) -> bytes:
    """The bytes of an image file. Raises InputError."""
    if path.is_dir():
        raise InputError(path, "is a directory, not an image", "give an image file")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(path, "no such file", "check the path") from error
    except OSError as error:
        raise InputError(path, f"cannot be read ({(error.strerror or 'error').lower()})", "check the path and its permissions") from error


@contextlib.contextmanager
def _opened(path: Path, data: bytes) -> Iterator[tuple[Image.Image, int]]:
    """A decoded image of acceptable size and its orientation 1..8. Raises InputError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on metadata and palettes; our own limits are stricter than its size warning
        encoded, orientation = metadata.split(data)
        try:
            image = Image.open(io.BytesIO(encoded))
        except Image.DecompressionBombError as error:
            raise InputError(path, f"is larger than {MAX_PIXELS / 1e6:.0f} megapixels", _smaller()) from error
        except Exception as error:  # Pillow's format plug-ins raise many types on broken headers
            raise InputError(path, "is not an image that can be read", "convert it to JPEG or PNG") from error
        with image:
            _check_size(path, *image.size)
            try:
                image.load()
            except Exception as error:  # OSError, SyntaxError, struct.error, zlib.error, ...: decoders differ
                raise InputError(path, f"is damaged or truncated ({error})", "copy or export the image again") from error
            yield image, orientation or _orientation(image)


def _orientation(image: Image.Image) -> int:
    """The orientation of an open image whose format keeps it elsewhere (WebP, AVIF); TIFF is turned while it is loaded."""
    if image.format == "TIFF":
        return 1
    exif, xmp = image.info.get("exif"), image.info.get("xmp")
    found = metadata.orientation_of_exif(exif) if isinstance(exif, bytes) else None
    if found is None and isinstance(xmp, bytes):
        found = metadata.orientation_of_xmp(xmp)
    return found or 1


def _upright_rgb(path: Path, image: Image.Image, orientation: int) -> UInt8[np.ndarray, "H W 3"]:
    upright = image.transpose(_TURNS[orientation]) if orientation != 1 else image
    return np.ascontiguousarray(_to_rgb(path, upright))


def _check_size(path: Path, width: int, height: int) -> None:
    """Refuses from the header alone, before any pixel is decoded."""
    if min(width, height) < MIN_SIDE:
        raise InputError(path, f"is only {width} x {height} px", f"give an image of at least {MIN_SIDE} px a side")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise InputError(path, f"is {width} x {height} px", _smaller())


def _smaller() -> str:
    return f"scale it down to at most {MAX_SIDE} px a side and {MAX_PIXELS // 1_000_000} megapixels"


def _to_rgb(path: Path, image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """8-bit RGB of an image in any Pillow mode."""
    if image.mode == "F":
        raise InputError(path, "has floating-point pixels, whose range is unknown", "convert it to an 8-bit image")
    if image.mode.startswith("I"):  # 16-bit grey: I;16, I;16B, or I (32-bit storage)
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise InputError(path, "has pixels of more than 16 bits", "convert it to an 8-bit image")
        return np.repeat((grey / 257 + 0.5).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"))
    return np.asarray(image.convert("RGB"))
