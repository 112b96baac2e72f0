"""Reading photos safely: any common file in, `uint8 (H, W, 3)` RGB in upright orientation out, or one clear error."""

import dataclasses
import os
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from genhmr_jax.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
OVERLAY_SUFFIX = "_overlay.png"  # what `genhmr recover` writes: never taken for a photo when a directory is listed
MIN_SIDE = 16  # px: a person in fewer pixels cannot be recovered
MAX_SIDE = 16_000  # px
MAX_PIXELS = 150_000_000  # stays below the 178 million at which Pillow itself refuses (decompression bombs)


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """A photo to read and the stem of its outputs, unique in its batch."""

    path: Path
    stem: str


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Reads a photo as `uint8 (H, W, 3)` RGB.

    EXIF rotation is applied. Grey, palette, CMYK and 16-bit images become 8-bit RGB; transparency is laid over white; of
    an animation the first frame is taken.

    Args:
      path: an image file of any format that Pillow reads.

    Raises:
      InputError: no such file, not an image, damaged, or a side outside MIN_SIDE..MAX_SIDE px.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(path, "no such file", "check the path")
    if path.is_dir():
        raise InputError(path, "is a directory, not an image", "give an image file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limits below are stricter
            image = Image.open(path)
    except Image.DecompressionBombError as error:
        raise InputError(path, f"is larger than {MAX_PIXELS / 1e6:.0f} megapixels", _smaller()) from error
    except PermissionError as error:
        raise InputError(path, "cannot be read (permission denied)", "check its permissions") from error
    except Exception as error:  # Pillow's format plug-ins raise many types on broken headers
        raise InputError(path, "is not an image that can be read", "convert it to JPEG or PNG") from error
    with image:
        _check_size(path, *image.size)
        try:
            image.load()
        except Exception as error:  # OSError, SyntaxError, struct.error, zlib.error, ...: decoders differ
            raise InputError(path, f"is damaged or truncated ({error})", "copy or export the image again") from error
        return np.ascontiguousarray(_to_rgb(path, ImageOps.exif_transpose(image)))


def list_images(paths: Iterable[str | os.PathLike]) -> tuple[list[ImageFile], list[InputError]]:
    """Finds the images that files and directories (not their subdirectories) stand for.

    Returns:
      images: in the order given, directories sorted by name, each file once, each with an output stem that no other
        one has (`x.jpg` and `x.png` become `x_jpg` and `x_png`; `a/x.jpg` and `b/x.jpg` become `a_x` and `b_x`).
      errors: one per path that does not exist or directory that holds no image.
    """
    found: dict[Path, Path] = {}
    errors = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES)
            inside = [p for p in inside if not p.name.endswith(OVERLAY_SUFFIX) and not p.name.startswith(".")]
            if not inside:
                errors.append(InputError(path, "no image in this directory", f"put images there ({' '.join(SUFFIXES)})"))
        elif path.exists():
            inside = [path]
        else:
            inside = []
            errors.append(InputError(path, "no such file or directory", "check the path"))
        for image in inside:
            found.setdefault(image.resolve(), image)
    files = list(found.values())
    return [ImageFile(path, stem) for path, stem in zip(files, _unique_stems(files), strict=True)], errors


def _unique_stems(paths: list[Path]) -> list[str]:
    """One output stem a path, no two alike (upper and lower case count as alike: macOS, Windows)."""
    schemes = (
        lambda path: f"{path.stem}_{path.suffix[1:].lower()}",
        lambda path: f"{path.resolve().parent.name}_{path.stem}",
        lambda path: f"{path.resolve().parent.name}_{path.stem}_{path.suffix[1:].lower()}",
    )
    stems = [path.stem for path in paths]
    for scheme in schemes:
        counts = Counter(stem.lower() for stem in stems)
        stems = [stem if counts[stem.lower()] == 1 else scheme(path) for path, stem in zip(paths, stems, strict=True)]
    taken: set[str] = set()
    for index, stem in enumerate(stems):
        while stem.lower() in taken:
            stem += f"_{index}"
        taken.add(stem.lower())
        stems[index] = stem
    return stems


def _check_size(path: Path, width: int, height: int) -> None:
    """Refuses from the header alone, before any pixel is decoded."""
    if min(width, height) < MIN_SIDE:
        raise InputError(path, f"is only {width} x {height} px", f"give an image of at least {MIN_SIDE} px a side")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise InputError(path, f"is {width} x {height} px", _smaller())


def _smaller() -> str:
    return f"scale it down to at most {MAX_SIDE} px a side and {MAX_PIXELS // 1_000_000} megapixels"


def _to_rgb(path: Path, image: Image.Image) -> np.ndarray:
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
