"""What `genhmr recover` and `genhmr demo` do: read each photo, recover its people, write the files,
print one line."""

import argparse
import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import OVERLAY_SUFFIX, ImageFile, find_images, name_outputs
from genhmr_jax.io.images import read_image
from genhmr_jax.io.terminal import complain, say
from genhmr_jax.recover.people import People
from genhmr_jax.recover.report import (
    behind_camera,
    draw,
    make_writable,
    save_meshes,
    save_png,
    summary,
    would_overwrite,
)

if TYPE_CHECKING:  # heavy imports, made late
    from genhmr_jax.data.annotations.user import Annotations, UserAnnotations
    from genhmr_jax.recover.photo import Recoverer, RecoverOptions


def run(args: argparse.Namespace) -> int:
    """Recovers the people of every photo in `args.images` into `args.out`.

    A photo that fails costs one line on stderr and the exit code; the others are still done. Cheap
    checks come first: the model is loaded only when there is a photo to read and a place to write.

    Returns:
      0, or 1 if any photo failed.

    Raises:
      InputError: nothing can be done at all (output directory, model, a file of boxes or
        keypoints).
    """
    found = find_images(args.images)
    for line in (*found.errors, *found.notes()):
        complain(line)
    if not found.files:
        return 1
    out = make_writable(args.out)
    if args.cameras and args.principal_point:
        raise InputError(
            "--principal-point", "says what --cameras says too", "leave one of them out"
        )
    files = UserFiles.read(args.boxes, args.keypoints, args.cameras)
    others = [path for inside in found.passed_over.values() for path in inside]
    read = [path for path in (args.boxes, args.keypoints, args.cameras, args.body) if path]
    images = name_outputs(found.files, would_overwrite(out, [*found.files, *others, *read]))
    recoverer, options = _load(args)
    failures = len(found.errors)
    for index, image in enumerate(
        tqdm(images, unit="photo", disable=None if len(images) > 1 else True)
    ):
        try:
            line = _recover_one(image, images, out, recoverer, options, files, args)
            say((f"[{index + 1}/{len(images)}] " if len(images) > 1 else "") + line)
        except Exception as error:
            if os.environ.get("GENHMR_DEBUG"):
                raise
            failures += 1
            complain(_as_input_error(image.path, error))
    return 1 if failures else 0


def _load(args: argparse.Namespace) -> "tuple[Recoverer, RecoverOptions]":
    """The model and its options, from the flags."""
    from genhmr_jax.io import compilation_cache

    compilation_cache.enable()
    from genhmr_jax.recover import photo

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
        return photo.load(args.checkpoint, args.body, args.model), photo.RecoverOptions(**chosen)
    except InputError:
        raise
    except (ValueError, OSError) as error:  # of the body: smpl_jax knows no InputError
        raise InputError(
            f"--body {args.body}", str(error), "give neutral, male, female, lite or an SMPL file"
        ) from error


@dataclasses.dataclass(frozen=True)
class UserFiles:
    """What the user gives for the photos. None: the detector finds boxes or keypoints; the options
    have the camera."""

    boxes: "Annotations | None" = None
    keypoints: "Annotations | None" = None
    cameras: "Annotations | None" = None

    @staticmethod
    def read(boxes: str | None, keypoints: str | None, cameras: str | None) -> "UserFiles":
        """From the values of --boxes, --keypoints and --cameras. Raises InputError."""
        if not (boxes or keypoints or cameras):
            return UserFiles()
        from genhmr_jax.data.annotations import user

        return UserFiles(
            user.read_boxes(boxes) if boxes else None,
            user.read_keypoints(keypoints) if keypoints else None,
            user.read_cameras(cameras) if cameras else None,
        )

    def options_of(
        self, image: ImageFile, photos: Sequence[ImageFile], options: "RecoverOptions"
    ) -> "RecoverOptions":
        """The options for one photo, with its camera. Raises InputError when cameras are given, but
        none for it."""
        if self.cameras is None:
            return options
        from genhmr_jax.data.annotations import user

        camera = user.camera_of_image(self.cameras, image, photos)
        return dataclasses.replace(
            options, focal=camera.focal, fov=None, principal_point=camera.principal_point
        )

    def people_of(
        self,
        image: ImageFile,
        photos: Sequence[ImageFile],
        pixels: np.ndarray,
        min_score: float,
        max_people: int | None,
    ) -> "UserAnnotations | None":
        """The people given for one photo, at least one; None where the detector is to find them.

        Raises:
          InputError: nothing is given for the photo, or nobody of whom enough is known, or what is
            given does not fit it.
        """
        if self.boxes is None and self.keypoints is None:
            return None
        from genhmr_jax.data.annotations import user

        size = pixels.shape[1], pixels.shape[0]
        how = {"photos": photos, "min_score": min_score, "max_people": max_people}
        given = user.people_of_image(self.boxes, self.keypoints, image, size, **how)
        if not given.total:
            source = (self.boxes or self.keypoints).source
            raise InputError(
                image.path,
                f"{source} has nobody for this photo",
                "add the person, or leave the photo out",
            )
        if given.low_scores:
            few = f"{given.low_scores} of {given.total} given people with scores below {min_score:g} (--min-score)"
            given = dataclasses.replace(given, left_out=(few, *given.left_out))
        if not len(given.index):
            raise _nobody_left(image, given.left_out)
        user.refuse_percent(given, image, pixels)
        return given


def _recover_one(
    image: ImageFile,
    images: Sequence[ImageFile],
    out: Path,
    recoverer: "Recoverer",
    options: "RecoverOptions",
    files: UserFiles,
    args: argparse.Namespace,
) -> str:
    """Does one photo and returns its summary line. All results are computed before the first file
    is written."""
    start = time.perf_counter()
    pixels = read_image(image.path)
    options = files.options_of(image, images, options)
    given = files.people_of(image, images, pixels, args.min_score, args.max_people)
    if given is None:
        people = recoverer.recover(pixels, options=options)
        if not len(people):
            remedy = "give the person's box with --boxes, or a photo in which the person is larger"
            raise InputError(image.path, "nobody was found", remedy)
    else:
        people = _recover_given(
            image, pixels, recoverer, dataclasses.replace(options, max_people=None), given
        )
    if (behind := behind_camera(people)) is not None:
        complain(f"{image.path}: {behind}; give the --fov or --focal of this photo")
    overlay = None if args.no_overlay else draw(pixels, people)
    seconds = time.perf_counter() - start
    people.save(arrays := out / f"{image.stem}.npz")
    if overlay is not None:
        save_png(picture := out / f"{image.stem}{OVERLAY_SUFFIX}", overlay)
    save_meshes(out, image.stem, people, args.save)
    return f"{image.path.name}: {summary(people)}, {seconds:.1f} s -> {arrays if overlay is None else picture}"


def _recover_given(
    image: ImageFile,
    pixels: np.ndarray,
    recoverer: "Recoverer",
    options: "RecoverOptions",
    given: "UserAnnotations",
) -> People:
    """The people of a photo whom the user gives; who is left out costs a line. Raises InputError
    when nobody is left."""
    people = recoverer.recover(
        pixels, boxes=given.boxes, keypoints=given.keypoints, options=options
    )
    rows = people.given_index
    unseen = [i for i in range(len(given.index)) if i not in rows]
    problem = (
        "too few keypoints are known"
        if given.keypoints is not None
        else "too little of a person is seen in the box"
    )
    left_out = [
        *given.left_out,
        *(f"person {given.index[i] + 1} of {given.total} given: {problem}" for i in unseen),
    ]
    if not len(people):
        raise _nobody_left(image, left_out)
    if left_out:
        complain(f"{image.path}: left out {'; '.join(left_out)}")
    return dataclasses.replace(people, given_index=given.index[rows])


def _nobody_left(image: ImageFile, left_out: Sequence[str]) -> InputError:
    """The error of a photo of whose given people nothing can be recovered."""
    more = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
    return InputError(
        image.path,
        f"nobody is left: {left_out[0]}{more}",
        "correct what is given, or leave the photo out",
    )


def _as_input_error(where: object, error: Exception) -> InputError:
    """Any failure as one line that names the file it happened at."""
    if isinstance(error, InputError):
        names_a_file = error.where == str(where) or os.sep in error.where
        return (
            error
            if names_a_file
            else InputError(f"{where}: {error.where}", error.problem, error.remedy)
        )
    if isinstance(error, OSError) and error.strerror:
        return InputError(
            error.filename or where,
            error.strerror,
            "check the path, its permissions and the free disk space",
        )
    if isinstance(error, ValueError | FileNotFoundError):
        return InputError(where, str(error), "correct the input")
    if isinstance(error, MemoryError):
        return InputError(
            where, "does not fit into memory", "scale the photo down or lower --hypotheses"
        )
    return InputError(
        where,
        f"internal error ({type(error).__name__}: {error})",
        "set GENHMR_DEBUG=1 to see where, and report it",
    )
