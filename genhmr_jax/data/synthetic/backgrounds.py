"""Backgrounds and their light: random crops of a folder of photos, or procedural rooms.

tools/fetch_backgrounds.py makes such a folder. Its optional lights.json holds the irradiance of
each picture's surroundings in nine spherical harmonics (light.py).
"""

import hashlib
import json
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from genhmr_jax.data.synthetic import light
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files
from genhmr_jax.io.images import read_image


class Backgrounds:
    """A source of background pictures; a folder's images are read once and scaled down."""

    def __init__(self, folder: str | pathlib.Path | None = None, *, side: int = 640):
        self.images: list[np.ndarray] = []
        self.lights: list[np.ndarray | None] = []
        if folder:
            known = _read_lights(pathlib.Path(folder) / "lights.json")
            is_image = lambda path: path.suffix.lower() in (".jpg", ".jpeg", ".png")
            files = [path for path in find_files(pathlib.Path(folder), "*") if is_image(path)]
            if not files:
                remedy = "give a folder of JPEG or PNG files, or no folder for procedural rooms"
                raise InputError(folder, "holds no background images", remedy)
            for file in files:
                image = Image.fromarray(read_image(file))
                image.thumbnail((2 * side, 2 * side))
                self.images.append(np.asarray(image))
                self.lights.append(known.get(file.name))

    def fingerprint(self) -> str:
        """16 hexadecimal digits, a hash of pictures and lights."""
        digest = hashlib.sha256()
        for image, known in zip(self.images, self.lights, strict=True):
            digest.update(str(image.shape).encode() + image[::16, ::16].tobytes())
            digest.update(b"" if known is None else known.tobytes())
        return digest.hexdigest()[:16]

    def draw(
        self,
        rng: np.random.Generator,
        size: int,
        scenery: Callable[[np.random.Generator, int], np.ndarray],
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """A random background, and its light.

        Args:
          size: px.
          scenery: makes a procedural background, such as `room`. Without pictures it makes all.

        Returns:
          the picture, float32 (size, size, 3) in 0..1; the irradiance (9, 3), or None.
        """
        if not self.images or rng.random() < 0.1:
            return scenery(rng, size), None
        chosen = rng.integers(len(self.images))
        image, known = self.images[chosen], self.lights[chosen]
        height, width = image.shape[:2]
        side = int(min(height, width) * rng.uniform(0.4, 1.0))
        x, y = rng.integers(0, width - side + 1), rng.integers(0, height - side + 1)
        crop = Image.fromarray(image[y : y + side, x : x + side])
        crop = crop.resize((size, size), Image.Resampling.BILINEAR)
        pixels = np.asarray(crop, np.float32) / 255.0
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1]
            known = None if known is None else known * light.MIRROR[:, None]
        exposure = (rng.uniform(0.75, 1.2) * rng.uniform(0.92, 1.08, 3)).astype(np.float32)
        return np.clip(pixels * exposure, 0, 1), known


def _read_lights(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Picture name -> irradiance (9, 3); empty without the file."""
    if not path.is_file():
        return {}
    remedy = "make the backgrounds again with tools/fetch_backgrounds.py"
    try:
        content = json.loads(path.read_text())
        lights = {name: np.asarray(values, np.float64) for name, values in content.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(path, f"cannot be read ({error})", remedy) from error
    for name, values in lights.items():
        if values.shape != (9, 3) or not np.isfinite(values).all():
            raise InputError(path, f"the light of {name} is not 9 x 3 numbers", remedy)
    return lights


def room(rng: np.random.Generator, size: int) -> np.ndarray:
    """A wall and a floor of two colours with a soft gradient, a few boxes, and noise."""
    y = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    wall = rng.uniform(0.3, 0.9) * rng.uniform(0.85, 1.1, 3)
    floor = rng.uniform(0.15, 0.6) * rng.uniform(0.8, 1.15, 3)
    horizon = rng.uniform(0.5, 0.9)
    picture = np.where(y < horizon, wall * (0.8 + 0.4 * y), floor * (1.3 - 0.5 * y))
    picture = picture * np.ones((size, size, 3), np.float32)
    for _ in range(rng.integers(0, 7)):
        x0, y0 = rng.integers(0, size, 2)
        w, h = rng.integers(size // 20, size // 2, 2)
        picture[y0 : y0 + h, x0 : x0 + w] = rng.uniform(0.05, 0.9) * rng.uniform(0.6, 1.1, 3)
    return np.clip(picture + rng.normal(0, 0.02, picture.shape), 0, 1).astype(np.float32)
