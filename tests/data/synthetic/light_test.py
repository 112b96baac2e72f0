"""Irradiance in nine coefficients: even light, a lamp, mirrors; light of a panorama's view."""

import importlib.util

import numpy as np
import pytest

from genhmr_jax.data.synthetic import light
from support.paths import ROOT

SPHERE = light.fibonacci_sphere(2000)
DOWN, RIGHT, AHEAD = np.eye(3)[[1, 0, 2]]


def lamp(direction: np.ndarray, width: float = 0.2) -> np.ndarray:
    """Radiance (2000, 3) of a lamp in a dark room."""
    return np.where(np.arccos(np.clip(SPHERE @ direction, -1, 1)) < width, 50.0, 0.0)[
        :, None
    ] * np.ones(3)


def test_directions_are_even():
    np.testing.assert_allclose(np.linalg.norm(SPHERE, axis=1), 1)
    np.testing.assert_allclose(SPHERE.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(SPHERE.T @ SPHERE / len(SPHERE), np.eye(3) / 3, atol=1e-3)


def test_even_surroundings_light_evenly():
    """A white matt surface under radiance L reflects L."""
    coefficients = light.fit_irradiance(SPHERE, np.tile([0.2, 0.5, 0.9], (len(SPHERE), 1)))
    np.testing.assert_allclose(
        light.irradiance(SPHERE, coefficients),
        np.tile([0.2, 0.5, 0.9], (len(SPHERE), 1)),
        rtol=0.01,
    )


@pytest.mark.parametrize("direction", [RIGHT, -DOWN, np.array([0.6, -0.48, 0.64])])
def test_a_lamp(direction):
    """Within a tenth of the exact integral: what nine coefficients leave out (Ramamoorthi and
    Hanrahan 2001)."""
    coefficients = light.fit_irradiance(SPHERE, lamp(direction))
    exact = np.maximum(SPHERE @ SPHERE.T, 0) @ lamp(direction) * (4 / len(SPHERE))
    assert np.abs(light.irradiance(SPHERE, coefficients) - exact).max() < 0.1 * exact.max()
    np.testing.assert_allclose(
        coefficients[1:4, 0] / np.linalg.norm(coefficients[1:4, 0]), direction, atol=0.02
    )


def test_a_mirrored_room():
    random = np.random.default_rng(0).uniform(0, 1, (9, 3))
    np.testing.assert_allclose(
        light.basis(SPHERE * [-1, 1, 1]) @ random,
        light.basis(SPHERE) @ (random * light.MIRROR[:, None]),
    )


def test_a_body_is_brighter_towards_the_light_and_keeps_its_colour():
    coefficients = light.fit_irradiance(SPHERE, lamp(-DOWN) * [0.2, 0.4, 1.0] + 0.05)
    shaded = light.light_body(SPHERE, np.random.default_rng(0), np.ones(3), coefficients)
    assert shaded[SPHERE[:, 1] < -0.9].mean() > 2 * shaded[SPHERE[:, 1] > 0.9].mean()
    cast = shaded.mean(0) / shaded.mean()
    assert 1.0 < cast[2] / cast[0] < 2.5  # five times bluer before the camera balanced white
    made_up = light.light_body(SPHERE, np.random.default_rng(0), np.ones(3), None)
    assert made_up.shape == (len(SPHERE), 3) and made_up.min() >= 0.03


def test_light_of_a_view_of_a_panorama():
    tool = ROOT / "tools" / "fetch_backgrounds.py"
    spec = importlib.util.spec_from_file_location("fetch_backgrounds", tool)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    panorama = np.full((180, 360, 3), 0.1)
    panorama[85:95, 85:95] = 50.0  # on the horizon, a quarter to the right of the first column
    for yaw, direction in ((0.0, RIGHT), (np.pi / 2, AHEAD), (np.pi, -RIGHT)):
        towards = module.light_of(panorama, yaw, 0.0)[1:4].mean(1)
        np.testing.assert_allclose(towards / np.linalg.norm(towards), direction, atol=0.05)
