"""The output of a photo: a summary line, pictures and mesh files.

A file is written completely or not at all.
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import OVERLAY_MARK, OVERLAY_SUFFIX, TRACE_SUFFIX, is_overlay
from genhmr_jax.recover.people import People


def summary(people: People) -> str:
    """The number of people, their confidence, and the reprojection errors.

    The errors are those before and after refinement. Unknown values are left out.
    """
    text = f"{len(people)} {'person' if len(people) == 1 else 'people'}"
    if people.left_out:
        text += f" ({people.left_out} more left out, see --max-people)"
    if people.left_hand_confidence is not None and people.right_hand_confidence is not None:
        found = (people.left_hand_confidence > 0).sum() + (people.right_hand_confidence > 0).sum()
        text += f", {found} {'hand' if found == 1 else 'hands'}"
    if not np.isnan(people.joint_confidence).all():
        text += f", confidence {people.joint_confidence.mean():.2f}"
    before, after = people.reprojection_error(refined=False), people.reprojection_error()
    known = np.isfinite(before) & np.isfinite(after)
    if known.any():
        text += f", reprojection {before[known].mean():.1f} -> {after[known].mean():.1f} px"
    return text


def behind_camera(people: People) -> str | None:
    """The share of a person that lies behind the camera, as a sentence; None if nobody does.

    A wrong focal length is the usual cause.
    """
    share = (people.vertices[..., 2] <= 0).mean(-1)
    if not share.any():
        return None
    worst = int(share.argmax())
    return f"{100 * share[worst]:.0f} % of person {worst + 1} lies behind the camera"


def panel(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """A photo at the size at which `draw` shows it."""
    from genhmr_jax.render import overlay

    return overlay.panel(pixels)


def draw(panel: UInt8[np.ndarray, "h w 3"], people: People) -> UInt8[np.ndarray, "h W 3"]:
    """A photo of the size of `panel`, the meshes over it, and a side view, side by side."""
    from genhmr_jax.render.overlay import side_by_side

    scale = np.array(panel.shape[1::-1]) / people.image_size
    focal, centre = people.focal_length * scale[0], people.principal_point * scale
    return side_by_side(panel, people.vertices, people.faces, float(focal), tuple(centre.tolist()))


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 (H, W, 3) pixels with the mark of our overlays."""
    from PIL import Image, PngImagePlugin

    mark = PngImagePlugin.PngInfo()
    mark.add_text("Software", OVERLAY_MARK)
    with atomic_path(path) as temporary:
        # Level 1 is three times faster than the default, and a fifth larger.
        Image.fromarray(pixels).save(temporary, pnginfo=mark, compress_level=1)


def save_meshes(out: Path, stem: str, people: People, formats: tuple[str, ...]) -> None:
    """Write STEM_PERSON.FORMAT for each person and format."""
    if not formats:
        return
    from genhmr_jax.render.export.mesh import save_mesh

    for person, vertices in enumerate(people.vertices):
        for suffix in formats:
            save_mesh(out / f"{stem}_{person}.{suffix}", vertices, people.faces)


def make_writable(directory: str | os.PathLike) -> Path:
    """Make the output directory and write a test file, so that a long run does not fail at its end.

    Raises:
      InputError: the directory cannot be made or written to.
    """
    path = Path(directory)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(4096))  # empty files can be made on a full disk too
        return path
    except FileExistsError as error:
        raise InputError(path, "is a file, not a directory", "choose another --out") from error
    except OSError as error:
        problem = f"cannot be written to ({error.strerror})"
        raise InputError(path, problem, "choose another --out") from error


def would_overwrite(out: Path, inputs: Iterable[str | os.PathLike]) -> Callable[[str], bool]:
    """A function that tells whether results under an output stem would overwrite the user's files.

    The user's files are the inputs, and pictures in the output directory that are not overlays.

    Args:
      out: the output directory.
      inputs: photos, all other files that are read, and all files in a folder of photos.
    """
    here = os.path.realpath(out)
    in_out = lambda path: os.path.realpath(os.path.dirname(path)) == here
    paths = {form(path) for path in inputs for form in (os.path.abspath, os.path.realpath)}
    names = {os.path.basename(path).lower() for path in paths if in_out(path)}

    def is_taken(stem: str) -> bool:
        pictures = [out / f"{stem}{suffix}" for suffix in (OVERLAY_SUFFIX, TRACE_SUFFIX)]
        results = r"(\.npz|_overlay\.(png|mp4)|_trace\.png|_\d+\.(obj|glb|ply))"
        result = re.compile(re.escape(stem.lower()) + results)
        own_picture = any(os.path.exists(path) and not is_overlay(path) for path in pictures)
        return own_picture or any(result.fullmatch(name) for name in names)

    return is_taken
