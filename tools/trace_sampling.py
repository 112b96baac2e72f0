"""Makes a picture of the steps of sampling: body, tokens and confidences after each.

    python tools/trace_sampling.py --out docs/images/sampling_trace.jpg PHOTO [PHOTO ...]

Each photo is a row: the photo, then the body of the first person after each step, before the
refinement, with the keypoints as they were detected. Under it are the 30 tokens, five for each body
part. A kept token has the colour of its confidence, from red (0) to green (1); a token that is
masked again is grey.
"""

import argparse
import functools
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
import smpl_jax
from PIL import Image

from genhmr_jax.core.inputs import Inputs
from genhmr_jax.core.system import Latents, Params
from genhmr_jax.geometry.keypoints import keypoint_model
from genhmr_jax.io import compilation_cache
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.images import read_image
from genhmr_jax.recover import photo
from genhmr_jax.render.overlay import overlay
from genhmr_jax.systems.genhmr.system import GenHmrSystem
from genhmr_jax.systems.genhmr.trace import trace

ITERATIONS = 5
SIDE = 176  # px of each picture
BAR = 24  # px of the row of tokens under it


class Seen(NamedTuple):
    """A step, for one person: mesh in camera coordinates, tokens kept, their confidences."""

    vertices: np.ndarray
    kept: np.ndarray
    confidence: np.ndarray


@functools.partial(jax.jit, static_argnames="system")
def traced(
    system: GenHmrSystem, params: Params, body: smpl_jax.SmplModel, inputs: Inputs
) -> tuple[Latents, jax.Array]:
    """The answers after each step, and the confidences; `body` is a keypoint model."""
    keys = jax.random.split(jax.random.key(0), inputs.rows)
    return trace(system, params, body, system.encode(params, inputs), keys, ITERATIONS)


def steps_of(model: photo.Recoverer, file: str, image: np.ndarray) -> Iterator[Seen]:
    """The steps for the first person of a photo.

    Raises:
      InputError: there is nobody.
    """
    prepared = model.prepare(image, options=photo.RecoverOptions(max_people=1))
    if not len(prepared.people):
        raise InputError(file, "nobody is detected", "give a photo of a person")
    inputs, view = prepared.inputs, prepared.inputs.view
    pose = model.system.pose(model.params, view)
    masked = model.system.spec.tokenizer.codebook_size
    small = keypoint_model(model.body)
    latents, confidences = traced(model.system, model.params, small, inputs)
    for number, confidence in enumerate(confidences):
        step = jax.tree.map(lambda x, number=number: x[number], latents)
        output = smpl_jax.forward(model.body, step.betas, pose(step.embeddings))
        vertices = output.vertices + view.translation(step.weak_camera)[:, None]
        kept = np.asarray(step.tokens[0] != masked)
        yield Seen(np.asarray(vertices), kept, np.asarray(confidence[0]))


def bar(seen: Seen) -> np.ndarray:
    """The row of tokens, (BAR, SIDE, 3)."""
    picture = np.full((BAR, SIDE, 3), 255, np.uint8)
    edges = np.linspace(0, SIDE, len(seen.kept) + 1).round().astype(int)
    for i, (kept, confidence) in enumerate(zip(seen.kept, seen.confidence, strict=True)):
        colour = (200, 200, 200)
        if kept:
            colour = (220 * (1 - confidence), 190 * confidence, 60)
        gap = 3 if i % 5 == 4 else 1  # between body parts
        picture[4:, edges[i] : edges[i + 1] - gap] = colour
    return picture


def row(model: photo.Recoverer, file: str) -> np.ndarray:
    """The pictures of one photo."""
    image = read_image(file)
    small = Image.fromarray(image)
    small.thumbnail((SIDE, SIDE))
    scale = small.width / image.shape[1]
    small, faces = np.asarray(small), np.asarray(model.body.faces)
    camera = photo.RecoverOptions().camera(image.shape[1], image.shape[0])
    cells = [_cell(small, np.full((BAR, SIDE, 3), 255, np.uint8))]
    for seen in steps_of(model, file, image):
        picture = overlay(small, seen.vertices, faces, camera.focal * scale)
        cells.append(_cell(picture, bar(seen)))
    return np.concatenate(cells, 1)


def _cell(picture: np.ndarray, under: np.ndarray) -> np.ndarray:
    """A picture on white, with its tokens below."""
    cell = np.full((SIDE, SIDE + 6, 3), 255, np.uint8)
    top, left = ((SIDE - np.array(picture.shape[:2])) // 2).tolist()
    cell[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return np.concatenate([cell, np.pad(under, ((0, 4), (0, 6), (0, 0)), constant_values=255)])


def main(argv: Sequence[str] | None = None) -> int:
    """Command line. Returns 0, or 1 after one line on stderr."""
    parser = argparse.ArgumentParser(description="Make a picture of the steps of sampling.")
    parser.add_argument("photos", nargs="+", metavar="PHOTO")
    add = parser.add_argument
    add("--out", required=True, type=pathlib.Path, metavar="FILE", help="a .jpg or .png")
    parser.add_argument("--checkpoint", metavar="DIR", help="a model with feedback")
    args = parser.parse_args(argv)
    compilation_cache.enable()
    try:
        model = photo.load(args.checkpoint)
        if not getattr(model.system.spec, "feedback", False):
            where = args.checkpoint or "the default"
            raise InputError(where, "has no feedback", "give another --checkpoint")
        page = np.concatenate([row(model, file) for file in args.photos])
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    with atomic_path(args.out) as temporary:
        kind = {"format": "PNG"} if args.out.suffix == ".png" else {"format": "JPEG", "quality": 85}
        Image.fromarray(page).save(temporary, **kind)
    return 0


if __name__ == "__main__":
    sys.exit(main())
