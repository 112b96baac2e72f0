"""Light on a body: irradiance in nine spherical harmonics, from a panorama or random.

After Ramamoorthi and Hanrahan 2001. Directions are in camera coordinates: x right, y down, z
forward. Light is linear.
"""

import numpy as np
from jaxtyping import Float

MIRROR = np.array([1.0, -1, 1, 1, -1, 1, 1, -1, 1])
"""Factors of the coefficients under x -> -x."""


def basis(normals: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 9"]:
    """Spherical harmonics up to degree 2, without their constants.

    1, x, y, z, xy, yz, 3 z^2 - 1, xz, x^2 - y^2.
    """
    x, y, z = np.moveaxis(normals, -1, 0)
    degree2 = (x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y)
    return np.stack([np.ones_like(x), x, y, z, *degree2], -1)


def irradiance(
    normals: Float[np.ndarray, "V 3"], coefficients: Float[np.ndarray, "9 3"]
) -> Float[np.ndarray, "V 3"]:
    """Irradiance on surfaces with these unit normals; never negative."""
    return np.maximum(basis(normals) @ coefficients, 0.0)


def fit_irradiance(
    directions: Float[np.ndarray, "N 3"], radiance: Float[np.ndarray, "N 3"]
) -> Float[np.ndarray, "9 3"]:
    """Coefficients of the irradiance of surroundings over pi: the radiance of a white matt surface.

    Args:
      directions: unit vectors towards the surroundings, evenly spread over the sphere.
      radiance: of each direction.
    """
    normals = fibonacci_sphere(256)
    solid_angle = 4.0 / len(directions)  # 4 pi / N, over pi
    light = np.maximum(normals @ directions.T, 0.0) @ radiance * solid_angle
    return np.linalg.lstsq(basis(normals), light, rcond=None)[0]


def fibonacci_sphere(count: int) -> Float[np.ndarray, "N 3"]:
    """Directions spread evenly over the sphere (Gonzalez 2010)."""
    i = np.arange(count) + 0.5
    turn, z = np.pi * (1 + 5**0.5) * i, 1 - 2 * i / count
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(turn), r * np.sin(turn), z], -1)


def light_body(
    normals: Float[np.ndarray, "V 3"],
    rng: np.random.Generator,
    ambient: Float[np.ndarray, "3"],
    known: Float[np.ndarray, "9 3"] | None,
) -> Float[np.ndarray, "V 3"]:
    """Irradiance on a body, of its surroundings and of a key light.

    The light of unknown surroundings is random, of low order and tinted by the background.

    Args:
      ambient: mean colour of the background.
      known: coefficients of `fit_irradiance`, for surroundings as bright as the picture, or None.
        The key light then mostly comes from the brightest direction, since nine coefficients cannot
        represent the sun and lamps.
    """
    if known is None:
        tint = ambient / max(ambient.mean(), 1e-3)
        gradient = 0.12 * normals @ rng.normal(size=3)
        around = 0.45 + gradient + 0.06 * (normals @ rng.normal(size=3)) ** 2
        around = around[:, None] * (0.6 + 0.4 * tint)
        # Mostly from above and from the camera's side.
        key = rng.normal(size=3) * [1.0, 0.5, 0.7] + [0.0, -0.7, -0.5]
        colour, strength = rng.uniform(0.9, 1.1, 3), rng.uniform(0.3, 1.0)
    else:
        around = irradiance(normals, known)
        level = np.maximum(around.mean(0), 1e-3)
        # The white balance of cameras removes two thirds of a colour cast.
        brightness = rng.uniform(0.45, 0.8) / max(level.mean() ** (1 / 3), 1e-3)
        around = around / level ** (2 / 3) * brightness
        brightest = known[1:4].mean(1)
        key = brightest / max(np.linalg.norm(brightest), 1e-6) + 0.3 * rng.normal(size=3)
        colour, strength = (level / level.mean()) ** (1 / 3), rng.uniform(0.0, 0.6)
    key /= max(np.linalg.norm(key), 1e-6)
    wrap = rng.uniform(0.0, 0.3)
    diffuse = np.clip((normals @ key + wrap) / (1 + wrap), 0, None)[:, None] * strength * colour
    return np.clip(around + diffuse, 0.03, None)
