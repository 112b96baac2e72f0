"""A picture of the people of the synthetic test set with the largest errors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw

from genhmr_jax.data.synthetic.generate import Sample
from genhmr_jax.evaluate.predictions import Prediction, Prepared
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.render.overlay import overlay_with_side

COUNT, COLUMNS, HEIGHT = 24, 4, 240
BLANK, BORDER = 230, 235  # greys


def draw(
    samples: Sequence[Sample],
    prepared: Prepared,
    prediction: Prediction,
    faces: Int[np.ndarray, "F 3"],
    errors: dict[str, Float[np.ndarray, "N 24"]],
    file: Path,
) -> None:
    """Write a JPEG of the COUNT people with the largest MPJPE.

    A tile shows the photo, the body over it and from the side, and MPJPE / PA-MPJPE.

    Args:
      samples: all N images.
      prepared, prediction: of the N people.
      faces: of the body.
      errors: "mpjpe" and "pa_mpjpe" of each joint, mm, of the prediction.
      file: the picture to write.
    """
    # 1. One tile for each person.
    people = {name: values.mean(1) for name, values in errors.items()}
    tiles = []
    for i in np.argsort(-people["mpjpe"], kind="stable")[:COUNT]:
        plain, label = samples[i].image, "not found"
        picture = np.concatenate([plain, np.full_like(plain, BLANK)], 1)
        if prediction.found[i]:
            label = f"{people['mpjpe'][i]:.0f} / {people['pa_mpjpe'][i]:.0f} mm"
            camera, body = prepared.camera(i), prediction.vertices[i : i + 1]
            picture = overlay_with_side(plain, body, faces, camera.focal, camera.principal_point)
        tiles.append(_labelled(picture, label))
    # 2. Tiles of equal width in rows of COLUMNS.
    width = max(tile.shape[1] for tile in tiles)
    margins = [((0, 0), (0, width - tile.shape[1]), (0, 0)) for tile in tiles]
    tiles = [
        np.pad(tile, margin, constant_values=BORDER)
        for tile, margin in zip(tiles, margins, strict=True)
    ]
    tiles += [np.full_like(tiles[0], BORDER)] * (-len(tiles) % COLUMNS)
    rows = [np.concatenate(tiles[i : i + COLUMNS], 1) for i in range(0, len(tiles), COLUMNS)]
    with atomic_path(file) as temporary:
        Image.fromarray(np.concatenate(rows)).save(temporary, "JPEG", quality=85)


def _labelled(picture: np.ndarray, label: str) -> UInt8[np.ndarray, "h w 3"]:
    image = Image.fromarray(picture)
    image = image.resize((round(image.width * HEIGHT / image.height), HEIGHT))
    ImageDraw.Draw(image).text((5, 5), label, fill="white", stroke_width=2, stroke_fill="black")
    return np.asarray(image)
