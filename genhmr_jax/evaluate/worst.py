"""The people of the synthetic test set whom a model gets most wrong, as one picture: where a mean hides them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from genhmr_jax.data.synthetic.generate import Sample
from genhmr_jax.evaluate.looking import nearest_person
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.recover.photo import Recoverer, RecoverOptions
from genhmr_jax.render.overlay import overlay_with_side

COUNT, COLUMNS, HEIGHT = 12, 3, 240


def draw(
    model: Recoverer, samples: Sequence[Sample], errors: dict[str, Float[np.ndarray, "N 24"]], options: RecoverOptions, file: Path
) -> None:
    """Writes a JPEG of the COUNT people with the largest MPJPE: photo, body over it, body from the side, MPJPE / PA-MPJPE.

    Args:
      samples: all N images.
      errors: "mpjpe" and "pa_mpjpe" of each joint, mm, under these options.
      options: how the bodies were recovered.
    """
    people = {name: values.mean(1) for name, values in errors.items()}
    tiles = []
    for number in np.argsort(-people["mpjpe"], kind="stable")[:COUNT]:
        picture = _drawn(model, samples[number], options)
        label = "not found" if picture is None else f"{people['mpjpe'][number]:.0f} / {people['pa_mpjpe'][number]:.0f} mm"
        plain = samples[number].image
        tiles.append(_labelled(np.concatenate([plain, np.full_like(plain, 230)], 1) if picture is None else picture, label))
    width = max(tile.shape[1] for tile in tiles)
    tiles = [np.pad(tile, ((0, 0), (0, width - tile.shape[1]), (0, 0)), constant_values=235) for tile in tiles]
    tiles += [np.full_like(tiles[0], 235)] * (-len(tiles) % COLUMNS)
    rows = [np.concatenate(tiles[i : i + COLUMNS], 1) for i in range(0, len(tiles), COLUMNS)]
    with atomic_path(file) as temporary:
        Image.fromarray(np.concatenate(rows)).save(temporary, "JPEG", quality=85)


def _drawn(model: Recoverer, sample: Sample, options: RecoverOptions) -> UInt8[np.ndarray, "h w 3"] | None:
    """The person of a sample, chosen as the benchmark chooses, or None."""
    found = model.recover(sample.image, options=dataclasses.replace(options, max_people=3))
    chosen = nearest_person(found.keypoints2d, sample.keypoints)
    if chosen is None:
        return None
    vertices, centre = found.vertices[chosen : chosen + 1], tuple(found.principal_point.tolist())
    return overlay_with_side(sample.image, vertices, found.faces, float(found.focal_length), centre)


def _labelled(picture: np.ndarray, label: str) -> UInt8[np.ndarray, "h w 3"]:
    image = Image.fromarray(picture)
    image = image.resize((round(image.width * HEIGHT / image.height), HEIGHT))
    ImageDraw.Draw(image).text((5, 5), label, fill="white", stroke_width=2, stroke_fill="black")
    return np.asarray(image)
