"""`genhmr hands`: read photos, recover their hands, write the results."""

import argparse
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import OVERLAY_SUFFIX, ImageFile, find_images, name_outputs
from genhmr_jax.io.images import read_image
from genhmr_jax.io.terminal import complain, say
from genhmr_jax.recover.command import as_input_error
from genhmr_jax.recover.report import make_writable, save_png, would_overwrite

if TYPE_CHECKING:  # heavy, imported where they are used
    from genhmr_jax.data.annotations.user import Annotations
    from genhmr_jax.recover.hands import HandMeshes, HandRecoverer
    from genhmr_jax.recover.photo import RecoverOptions

SUFFIX = "_hands"
"""Of the names of the results, so that they can lie beside those of `genhmr recover`."""
SIDE = 320  # px of a hand in the picture


def run(args: argparse.Namespace) -> int:
    """Recover the hands of every photo in `args.images` and write them to `args.out`.

    A photo that fails is reported in one line on stderr; the other photos are still processed.

    Returns:
      0, or 1 if any photo failed.

    Raises:
      InputError: no photo can be processed: the output directory or the model is at fault.
    """
    # 1. Cheap checks. The model is loaded only if there is a photo and an output directory.
    found = find_images(args.images)
    for line in (*found.errors, *found.notes()):
        complain(line)
    if not found.files:
        return 1
    out = make_writable(args.out)
    others = [path for inside in found.passed_over.values() for path in inside]
    is_taken = would_overwrite(out, [*found.files, *others, *([args.given] if args.given else [])])
    images = name_outputs(found.files, lambda stem: is_taken(f"{stem}{SUFFIX}"))
    given = None
    if args.given:
        from genhmr_jax.data.annotations.user import read_hands

        given = read_hands(args.given)

    # 2. One photo after the other.
    recoverer, options = _load(args)
    failures = len(found.errors)
    for number, image in enumerate(images):
        try:
            line = _photo(recoverer, options, given, image, images, out, args)
        except Exception as error:
            if os.environ.get("GENHMR_DEBUG"):
                raise
            failures += 1
            complain(as_input_error(image.path, error))
            continue
        say((f"[{number + 1}/{len(images)}] " if len(images) > 1 else "") + line)
    return 1 if failures else 0


def _load(args: argparse.Namespace) -> "tuple[HandRecoverer, RecoverOptions]":
    """The model and the options of the flags."""
    from genhmr_jax.io import compilation_cache

    compilation_cache.enable()
    from genhmr_jax.detect import detector
    from genhmr_jax.detect import hands as hand_detector
    from genhmr_jax.recover import hands
    from genhmr_jax.recover.photo import RecoverOptions

    # Threads read the stored programs while this one loads the model.
    threading.Thread(target=hand_detector.preload).start()
    if not (args.no_people or args.given):
        threading.Thread(target=detector.preload).start()
    chosen = dict(
        iterations=args.iterations,
        hypotheses=args.hypotheses,
        refine_steps=args.refine_steps,
        focal=args.focal,
        fov=args.fov,
        seed=args.seed,
    )
    return hands.load_hands(args.checkpoint, args.hand), RecoverOptions(**chosen)


def _photo(
    recoverer: "HandRecoverer",
    options: "RecoverOptions",
    given: "Annotations | None",
    image: ImageFile,
    images: Sequence[ImageFile],
    out: Path,
    args: argparse.Namespace,
) -> str:
    """Recover the hands of a photo and write them. Returns a summary line.

    Raises:
      InputError: the photo cannot be read, it has no hand, or the user's file has none for it.
    """
    from genhmr_jax.detect.detector import detect

    start = time.perf_counter()
    pixels = read_image(image.path)
    chosen = given.of(image, images).values if given is not None else None
    people = None if args.no_people or given is not None else detect(pixels)
    how = {"people": people, "given": chosen, "max_hands": args.max_hands}
    hands = recoverer.recover(pixels, options=options, **how)
    if not len(hands):
        remedy = "give a photo in which the hands are larger"
        raise InputError(image.path, "no hand was found", remedy)
    picture = None if args.no_overlay else draw(pixels, hands)
    seconds = time.perf_counter() - start
    result = out / f"{image.stem}{SUFFIX}.npz"
    hands.save(result)
    if picture is not None:
        result = out / f"{image.stem}{SUFFIX}{OVERLAY_SUFFIX}"
        save_png(result, picture)
    _save_meshes(out, image.stem, hands, args.save)
    return f"{image.path.name}: {summary(hands)}, {seconds:.1f} s -> {result}"


def summary(hands: "HandMeshes") -> str:
    """The number of hands, their sides, their confidence and the reprojection errors."""
    right = int(hands.right.sum())
    text = f"{len(hands)} {'hand' if len(hands) == 1 else 'hands'}"
    text += f" ({right} right, {len(hands) - right} left)"
    text += f", confidence {hands.joint_confidence.mean():.2f}"
    before, after = hands.reprojection_error(refined=False), hands.reprojection_error()
    known = np.isfinite(before) & np.isfinite(after)
    if known.any():
        text += f", reprojection {before[known].mean():.1f} -> {after[known].mean():.1f} px"
    return text


def draw(photo: UInt8[np.ndarray, "H W 3"], hands: "HandMeshes") -> UInt8[np.ndarray, "h w 3"]:
    """One row for each hand: the photo around it, the mesh over it, and the mesh from the side."""
    from genhmr_jax.recover.cells import cell_around, row_of
    from genhmr_jax.render.overlay import side_view

    rows = []
    for number, vertices in enumerate(hands.vertices):
        faces, camera = hands.faces(number), (float(hands.focal_length), hands.principal_point)
        cell = cell_around(photo, vertices, *camera, SIDE, margin=1.5)
        side = side_view(vertices[None], faces, SIDE, SIDE)
        rows.append(row_of([cell.pixels, cell.with_mesh(vertices, faces), side]))
    return np.concatenate(rows)


def _save_meshes(out: Path, stem: str, hands: "HandMeshes", formats: tuple[str, ...]) -> None:
    """Write STEM_hands_NUMBER.FORMAT for each hand and format."""
    if not formats:
        return
    from genhmr_jax.render.export.mesh import save_mesh

    for number, vertices in enumerate(hands.vertices):
        for suffix in formats:
            save_mesh(out / f"{stem}{SUFFIX}_{number}.{suffix}", vertices, hands.faces(number))
