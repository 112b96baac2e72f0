"""`genhmr recover` and `genhmr demo`: read photos, recover their people, write the results."""

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

if TYPE_CHECKING:  # heavy, imported where they are used
    from genhmr_jax.data.annotations.selection import UserAnnotations
    from genhmr_jax.data.annotations.user import Annotations
    from genhmr_jax.recover.photo import Recoverer, RecoverOptions


def run(args: argparse.Namespace) -> int:
    """Recover the people of every photo in `args.images` and write them to `args.out`.

    A photo that fails is reported in one line on stderr; the other photos are still processed.

    Returns:
      0, or 1 if any photo failed.

    Raises:
      InputError: no photo can be processed: the output directory, the model, or a file of boxes,
        keypoints or cameras is at fault.
    """
    # 1. Cheap checks. The model is loaded only if there is a photo and an output directory.
    found = find_images(args.images)
    for line in (*found.errors, *found.notes()):
        complain(line)
    if not found.files:
        return 1
    out = make_writable(args.out)
    if args.cameras and args.principal_point:
        problem = "cannot be combined with --cameras"
        raise InputError("--principal-point", problem, "leave one of them out")
    files = UserFiles.read(args.boxes, args.keypoints, args.cameras)
    others = [path for inside in found.passed_over.values() for path in inside]
    read = [path for path in (args.boxes, args.keypoints, args.cameras, args.body) if path]
    images = name_outputs(found.files, would_overwrite(out, [*found.files, *others, *read]))

    # 2. One photo after another.
    recoverer, options = _load(args)
    failures = len(found.errors)
    bar = tqdm(images, unit="photo", disable=None if len(images) > 1 else True)
    for index, image in enumerate(bar):
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
    """The model and the options of the flags."""
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
    except (ValueError, OSError) as error:  # from smpl_jax, which loads the body
        remedy = "give neutral, male, female, lite or an SMPL file"
        raise InputError(f"--body {args.body}", str(error), remedy) from error


@dataclasses.dataclass(frozen=True)
class UserFiles:
    """The user's annotations of the photos.

    Without boxes and keypoints the detector finds the people; without cameras the options define
    the camera.
    """

    boxes: "Annotations | None" = None
    keypoints: "Annotations | None" = None
    cameras: "Annotations | None" = None

    @staticmethod
    def read(boxes: str | None, keypoints: str | None, cameras: str | None) -> "UserFiles":
        """Read the files of --boxes, --keypoints and --cameras. Raises InputError."""
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
        """The options for one photo, with its camera.

        Raises:
          InputError: --cameras has no camera for this photo.
        """
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
        """The annotated people of one photo, at least one; None without boxes and keypoints.

        Raises:
          InputError: the photo has no annotation, nobody with enough known keypoints, or an
            annotation that does not fit it.
        """
        if self.boxes is None and self.keypoints is None:
            return None
        from genhmr_jax.data.annotations import selection

        size = pixels.shape[1], pixels.shape[0]
        how = {"photos": photos, "min_score": min_score, "max_people": max_people}
        given = selection.people_of_image(self.boxes, self.keypoints, image, size, **how)
        if not given.total:
            problem = f"{(self.boxes or self.keypoints).source} has nobody for this photo"
            raise InputError(image.path, problem, "add the person, or leave the photo out")
        if given.low_scores:
            few = (
                f"{given.low_scores} of {given.total} given people with scores below "
                f"{min_score:g} (--min-score)"
            )
            given = dataclasses.replace(given, left_out=(few, *given.left_out))
        if not len(given.index):
            raise _nobody_left(image, given.left_out)
        selection.refuse_percent(given, image, pixels)
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
    """Process one photo and return its summary line.

    All results are computed before the first file is written.
    """
    # 1. Recover the people.
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
        everybody = dataclasses.replace(options, max_people=None)
        people = _recover_given(image, pixels, recoverer, everybody, given)
    if (behind := behind_camera(people)) is not None:
        complain(f"{image.path}: {behind}; give the --fov or --focal of this photo")
    overlay = None if args.no_overlay else draw(pixels, people)
    seconds = time.perf_counter() - start

    # 2. Write the files.
    result = out / f"{image.stem}.npz"
    people.save(result)
    if overlay is not None:
        result = out / f"{image.stem}{OVERLAY_SUFFIX}"
        save_png(result, overlay)
    save_meshes(out, image.stem, people, args.save)
    return f"{image.path.name}: {summary(people)}, {seconds:.1f} s -> {result}"


def _recover_given(
    image: ImageFile,
    pixels: np.ndarray,
    recoverer: "Recoverer",
    options: "RecoverOptions",
    given: "UserAnnotations",
) -> People:
    """Recover the annotated people of a photo, and report those that are left out.

    Raises:
      InputError: nobody is left.
    """
    annotated = {"boxes": given.boxes, "keypoints": given.keypoints}
    people = recoverer.recover(pixels, **annotated, options=options)
    rows = people.given_index
    problem = "too few keypoints are known"
    if given.keypoints is None:
        problem = "too little of a person is seen in the box"
    left_out = list(given.left_out)
    for i, index in enumerate(given.index):
        if i not in rows:
            left_out.append(f"person {index + 1} of {given.total} given: {problem}")
    if not len(people):
        raise _nobody_left(image, left_out)
    if left_out:
        complain(f"{image.path}: left out {'; '.join(left_out)}")
    return dataclasses.replace(people, given_index=given.index[rows])


def _nobody_left(image: ImageFile, left_out: Sequence[str]) -> InputError:
    """The error of a photo if none of its annotated people can be recovered."""
    more = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
    problem = f"nobody is left: {left_out[0]}{more}"
    return InputError(image.path, problem, "correct the annotations, or leave the photo out")


def _as_input_error(where: object, error: Exception) -> InputError:
    """Any error as an InputError that names the file at fault."""
    if isinstance(error, InputError):
        if error.where == str(where) or os.sep in error.where:
            return error
        return InputError(f"{where}: {error.where}", error.problem, error.remedy)
    if isinstance(error, OSError) and error.strerror:
        remedy = "check the path, its permissions and the free disk space"
        return InputError(error.filename or where, error.strerror, remedy)
    if isinstance(error, ValueError | FileNotFoundError):
        return InputError(where, str(error), "correct the input")
    if isinstance(error, MemoryError):
        remedy = "scale the photo down or lower --hypotheses"
        return InputError(where, "does not fit into memory", remedy)
    problem = f"internal error ({type(error).__name__}: {error})"
    return InputError(where, problem, "set GENHMR_DEBUG=1 to see where, and report it")
