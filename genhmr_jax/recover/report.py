"""What is left of a photo when its people are recovered: a summary line, pictures and mesh files,
written whole or not at all."""

import os
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import OVERLAY_MARK, OVERLAY_SUFFIX, is_overlay
from genhmr_jax.recover.people import People


def summary(people: People) -> str:
    """How many people, how sure, and how far the body's keypoints lie from the detected ones before
    and after refinement."""
    text = f"{len(people)} {'person' if len(people) == 1 else 'people'}"
    if people.left_out:
        text += f" ({people.left_out} more left out, see --max-people)"
    if not np.isnan(people.joint_confidence).all():
        text += f", confidence {people.joint_confidence.mean():.2f}"
    before, after = people.reprojection_error(refined=False), people.reprojection_error()
    known = np.isfinite(before) & np.isfinite(after)
    if known.any():
        text += f", reprojection {before[known].mean():.1f} -> {after[known].mean():.1f} px"
    return text


def behind_camera(people: People) -> str | None:
    """How much of a person lies behind the camera, where nothing can be seen; None if nothing does.

    It happens under a focal length that does not fit the photo.
    """
    share = (people.vertices[..., 2] <= 0).mean(-1)
    if not share.any():
        return None
    worst = int(share.argmax())
    return f"{100 * share[worst]:.0f} % of person {worst + 1} lies behind the camera"


def draw(pixels: np.ndarray, people: People) -> np.ndarray:
    """The photo with the meshes over it, and a side view: uint8 (H, W, 3)."""
    from genhmr_jax.render.overlay import overlay_with_side

    return overlay_with_side(
        pixels,
        people.vertices,
        people.faces,
        float(people.focal_length),
        tuple(people.principal_point.tolist()),
    )


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Writes uint8 (H, W, 3), whole or not at all."""
    from PIL import Image, PngImagePlugin

    mark = PngImagePlugin.PngInfo()
    mark.add_text("Software", OVERLAY_MARK)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, pnginfo=mark)


def save_meshes(out: Path, stem: str, people: People, formats: tuple[str, ...]) -> None:
    """One STEM_PERSON.FORMAT per person and format, whole or not at all."""
    if not formats:
        return
    from genhmr_jax.render.export import save_mesh

    for person, vertices in enumerate(people.vertices):
        for suffix in formats:
            save_mesh(out / f"{stem}_{person}.{suffix}", vertices, people.faces)


def make_writable(directory: str | os.PathLike) -> Path:
    """Makes the output directory and tries to write there, so that hours of work do not end in an
    error.

    Raises:
      InputError: it cannot be made or written to.
    """
    path = Path(directory)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(4096))  # a full disk still makes files
        return path
    except FileExistsError as error:
        raise InputError(path, "is a file, not a directory", "choose another --out") from error
    except OSError as error:
        raise InputError(
            path, f"cannot be written to ({error.strerror})", "choose another --out"
        ) from error


def would_overwrite(out: Path, inputs: Iterable[str | os.PathLike]) -> Callable[[str], bool]:
    """A function of an output stem: whether results of that name would overwrite an input, or a
    picture of the user.

    Args:
      out: the output directory.
      inputs: photos and all other files that are read, or that lie in a folder of photos.
    """
    here = os.path.realpath(out)
    paths = {
        spelled for path in inputs for spelled in (os.path.abspath(path), os.path.realpath(path))
    }
    names = {
        os.path.basename(path).lower()
        for path in paths
        if os.path.realpath(os.path.dirname(path)) == here
    }

    def is_taken(stem: str) -> bool:
        stem, overlay = stem.lower(), out / f"{stem}{OVERLAY_SUFFIX}"
        result = re.compile(re.escape(stem) + r"(\.npz|_overlay\.png|_\d+\.(obj|glb|ply))")
        return any(result.fullmatch(name) for name in names) or (
            os.path.exists(overlay) and not is_overlay(overlay)
        )

    return is_taken
