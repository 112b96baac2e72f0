"""What `genhmr recover` and `genhmr demo` do: read each photo, recover its people, write the files, say one line."""

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from genhmr_jax.atomic import atomic_path
from genhmr_jax.errors import InputError
from genhmr_jax.images import OVERLAY_SUFFIX, ImageFile, list_images, read_image
from genhmr_jax.people import People


def run(args: argparse.Namespace) -> int:
    """Recovers the people of every photo in `args.images` into `args.out`.

    A photo that fails costs one line on stderr and the exit code; the others are still done. Cheap checks come first: the
    model is loaded only when there is a photo to read and a place to write.

    Returns:
      0, or 1 if any photo failed.

    Raises:
      InputError: nothing can be done at all (output directory, model, a file of boxes or keypoints).
    """
    images, errors = list_images(args.images)
    for error in errors:
        print_error(error)
    if not images:
        return 1
    out = make_writable(args.out)
    if args.cameras and args.principal_point:
        raise InputError("--principal-point", "says what --cameras says too", "leave one of them out")
    given = Given.read(args.boxes, args.keypoints, args.cameras)
    recoverer, options = _load(args)
    failures = len(errors)
    for index, image in enumerate(tqdm(images, unit="photo", disable=None if len(images) > 1 else True)):
        try:
            line = _recover_one(image, out, recoverer, options, given, args)
            tqdm.write((f"[{index + 1}/{len(images)}] " if len(images) > 1 else "") + line)
        except Exception as error:
            if os.environ.get("GENHMR_DEBUG"):
                raise
            failures += 1
            print_error(_as_input_error(image.path, error))
    return 1 if failures else 0


def _load(args: argparse.Namespace):
    """The model and its options, from the flags."""
    from genhmr_jax import compilation_cache

    compilation_cache.enable()
    from genhmr_jax import recover

    temperature = args.temperature if args.temperature is not None else float(args.hypotheses > 1)
    chosen = dict(
        iterations=args.iterations,
        temperature=temperature,
        hypotheses=args.hypotheses,
        focal=args.focal,
        fov=args.fov,
        principal_point=args.principal_point,
        seed=args.seed,
        max_people=args.max_people,
        context=args.context,
    )
    if args.refine_steps is not None:
        chosen["refine_steps"] = args.refine_steps
    try:
        return recover.load(args.checkpoint, args.body, args.model), recover.RecoverOptions(**chosen)
    except InputError:
        raise
    except (ValueError, OSError) as error:  # of the body: smpl_jax knows no InputError
        raise InputError(f"--body {args.body}", str(error), "give neutral, male, female, lite or an SMPL file") from error


@dataclasses.dataclass(frozen=True)
class Given:
    """What the user brings, by the photo's stem. None: the detector shall find boxes or keypoints; the options say the camera."""

    boxes: dict[str, np.ndarray] | None
    keypoints: dict[str, np.ndarray] | None
    cameras: dict[str, Any] | None = None

    @staticmethod
    def read(boxes: str | None, keypoints: str | None, cameras: str | None = None) -> "Given":
        """From the files of --boxes, --keypoints and --cameras. Raises InputError."""
        if boxes is None and keypoints is None and cameras is None:
            return Given(None, None)
        from genhmr_jax.detect import user

        return Given(
            user.read_boxes(boxes) if boxes else None,
            user.read_keypoints(keypoints) if keypoints else None,
            user.read_cameras(cameras) if cameras else None,
        )

    def options_of_image(self, path: Path, options: Any) -> Any:
        """The options for one photo, with its camera. Raises InputError when cameras are given, but none for it."""
        if self.cameras is None:
            return options
        from genhmr_jax.detect import user

        camera = user.camera_of_image(self.cameras, path)
        return dataclasses.replace(options, focal=camera.focal, fov=None, principal_point=camera.principal_point)

    def of_image(self, path: Path, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """The arguments for one photo. Raises InputError when nothing was given for it, or what was given does not fit it."""
        if self.boxes is None and self.keypoints is None:
            return {}
        from genhmr_jax.detect import user

        size = pixels.shape[1], pixels.shape[0]
        found = {}
        if self.boxes is not None:
            found["boxes"] = user.boxes_of_image(self.boxes, path, size)
        if self.keypoints is not None:
            found["keypoints"] = user.keypoints_of_image(self.keypoints, path, size)
        if len({len(people) for people in found.values()}) > 1:
            counts = f"{len(found['boxes'])} boxes but keypoints of {len(found['keypoints'])} people were given"
            raise InputError(path, counts, "give one box a person, in the same order, or leave out --boxes")
        return found


def _recover_one(image: ImageFile, out: Path, recoverer, options, given: Given, args: argparse.Namespace) -> str:
    """Does one photo and returns its summary line. All results are computed before the first file is written."""
    start = time.perf_counter()
    pixels = read_image(image.path)
    options = given.options_of_image(image.path, options)
    people = recoverer.recover(pixels, **given.of_image(image.path, pixels), options=options)
    if not len(people):
        raise InputError(image.path, "nobody was found", "give the person's box with --boxes, or a photo in which the person is larger")
    overlay = None if args.no_overlay else draw(pixels, people)
    seconds = time.perf_counter() - start
    people.save(arrays := out / f"{image.stem}.npz")
    if overlay is not None:
        save_png(picture := out / f"{image.stem}{OVERLAY_SUFFIX}", overlay)
    save_meshes(out, image.stem, people, args.save)
    return f"{image.path.name}: {summary(people)}, {seconds:.1f} s -> {arrays if overlay is None else picture}"


def summary(people: People) -> str:
    """How many people, how sure, and how far the body's keypoints lie from the detected ones before and after refinement."""
    text = f"{len(people)} {'person' if len(people) == 1 else 'people'}"
    if not np.isnan(people.joint_confidence).all():
        text += f", confidence {people.joint_confidence.mean():.2f}"
    before, after = people.reprojection_error(refined=False), people.reprojection_error()
    known = np.isfinite(before) & np.isfinite(after)
    if known.any():
        text += f", reprojection {before[known].mean():.1f} -> {after[known].mean():.1f} px"
    return text


def draw(pixels: np.ndarray, people: People) -> np.ndarray:
    """The photo with the meshes over it, and a side view: uint8 (H, W, 3)."""
    from genhmr_jax.render.overlay import overlay_with_side

    return overlay_with_side(pixels, people.vertices, people.faces, float(people.focal_length), tuple(people.principal_point.tolist()))


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Writes uint8 (H, W, 3), whole or not at all."""
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def save_meshes(out: Path, stem: str, people: People, formats: tuple[str, ...]) -> None:
    """One STEM_PERSON.FORMAT per person and format, whole or not at all."""
    if not formats:
        return
    from genhmr_jax.render.export import save_mesh

    for person, vertices in enumerate(people.vertices):
        for suffix in formats:
            save_mesh(out / f"{stem}_{person}.{suffix}", vertices, people.faces)


def make_writable(directory: str | os.PathLike) -> Path:
    """Makes the output directory and tries to write there, so that hours of work do not end in an error.

    Raises:
      InputError: it cannot be made or written to.
    """
    path = Path(directory)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except FileExistsError as error:
        raise InputError(path, "is a file, not a directory", "choose another --out") from error
    except OSError as error:
        raise InputError(path, f"cannot be written to ({error.strerror})", "choose another --out") from error


def print_error(error: InputError) -> None:
    """One line on stderr, also under a progress bar."""
    tqdm.write("genhmr: " + " ".join(str(error).split()), file=sys.stderr)


def _as_input_error(where: object, error: Exception) -> InputError:
    """Any failure as one line that names the file it happened at."""
    if isinstance(error, InputError):
        names_a_file = error.where == str(where) or os.sep in error.where
        return error if names_a_file else InputError(f"{where}: {error.where}", error.problem, error.remedy)
    if isinstance(error, OSError) and error.strerror:
        return InputError(error.filename or where, error.strerror, "check the path, its permissions and the free disk space")
    if isinstance(error, ValueError | FileNotFoundError):
        return InputError(where, str(error), "correct the input")
    if isinstance(error, MemoryError):
        return InputError(where, "does not fit into memory", "scale the photo down or lower --hypotheses")
    return InputError(where, f"internal error ({type(error).__name__}: {error})", "set GENHMR_DEBUG=1 to see where, and report it")
