"""Lights, backgrounds and cameras of the second test set, of kinds that training never draws."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageFilter
from scipy.ndimage import zoom
from scipy.spatial import cKDTree

KINDS = ("cells", "bricks", "foliage", "streaks", "crowd", "panels")
LIGHTS = ("two lamps", "hard", "from behind", "from below")


def light_unseen(
    normals: Float[np.ndarray, "V 3"],
    rng: np.random.Generator,
    ambient: Float[np.ndarray, "3"],
    known: Float[np.ndarray, "9 3"] | None,
) -> Float[np.ndarray, "V 3"]:
    """Irradiance on a body by one of LIGHTS; arguments as of light.light_body, `known` is unused.

    Two coloured lamps at the sides, a lamp with a hard terminator, a rim of light from behind, or a
    lamp near the ground.
    """
    kind = rng.choice(LIGHTS)
    tint = 0.8 + 0.2 * ambient / max(ambient.mean(), 1e-3)
    around = (0.38 + 0.35 * float(ambient.mean())) * (1 - 0.45 * normals[:, 1:2]) * tint

    def lamp(towards: np.ndarray, colour: np.ndarray, edge: float) -> np.ndarray:
        """A lamp in a direction; its terminator is `edge` wide, in cosines."""
        cosine = normals @ (towards / np.linalg.norm(towards))
        lit = np.clip(cosine / edge, 0, 1)
        return (lit * (0.35 + 0.65 * np.clip(cosine, 0, 1)))[:, None] * colour

    colours = rng.uniform(0.45, 1.0, (2, 3))
    strength, side, jitter = rng.uniform(0.5, 1.0, 2), rng.choice([-1.0, 1.0]), rng.normal(size=3)
    jitter *= 0.15
    if kind == "two lamps":
        one = lamp(np.array([side, -0.3, -0.4]) + jitter, colours[0] * strength[0], 0.3)
        other = lamp(np.array([-side, -0.2, -0.2]) - jitter, colours[1] * strength[1], 0.3)
        return 0.6 * around + one + other
    if kind == "hard":
        return 0.8 * around + lamp(
            np.array([side, -0.6, -0.4]) + jitter, np.full(3, 1.2 * strength[0]), 0.06
        )
    if kind == "from behind":
        behind = lamp(np.array([0.5 * side, -0.4, 1.0]) + jitter, np.full(3, 2.0), 0.2)
        return np.clip(0.75 * around + behind, 0.03, None)
    return 0.8 * around + lamp(
        np.array([0.4 * side, 1.0, -0.6]) + jitter, colours[0] * 1.2 * strength[0], 0.4
    )


def scenery(rng: np.random.Generator, size: int) -> Float[np.ndarray, "S S 3"]:
    """A procedural background of one of KINDS, float32 in 0..1."""
    makers = {
        "cells": _cells, "bricks": _bricks, "foliage": _foliage, "streaks": _streaks,
        "crowd": _crowd, "panels": _panels,
    }  # fmt: skip
    picture = makers[str(rng.choice(KINDS))](rng, size)
    y = np.linspace(-0.5, 0.5, size)[:, None, None]
    picture = picture * (1 + rng.uniform(-0.5, 0.5) * y) * rng.uniform(0.7, 1.2)
    blur = float(size / 320 * rng.choice([0.0, 1.0, 2.0, 3.5]))  # px; it is behind the focus
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(blur)), np.float32) / 255


def _palette(rng: np.random.Generator, count: int, spread: float = 0.1) -> np.ndarray:
    """`count` related colours (count, 3), most of them dull."""
    dull = rng.uniform(0.2, 0.8) + rng.normal(0, rng.choice([0.04, 0.06, 0.15]), 3)
    varied = spread * (rng.normal(0, 1, (count, 1)) + rng.normal(0, 0.35, (count, 3)))
    return np.clip(dull + varied, 0.03, 1)


def _smooth(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth noise (size, size), about 0..1, of `cells` cells a side."""
    coarse = rng.random((cells + 2, cells + 2))
    return zoom(coarse, size / cells, order=1)[:size, :size]


def _cells(rng: np.random.Generator, size: int) -> np.ndarray:
    """Voronoi cells with dark borders."""
    count = int(rng.integers(12, 120))
    seeds, colours = rng.uniform(0, size, (count, 2)), _palette(rng, count, 0.15)
    y, x = np.mgrid[:size, :size]
    distance, nearest = cKDTree(seeds).query(np.stack([y, x], -1).reshape(-1, 2), k=2)
    border = (distance[:, 1] - distance[:, 0] < 0.008 * size).reshape(size, size, 1)
    return np.where(border, 0.2, colours[nearest[:, 0]].reshape(size, size, 3))


def _bricks(rng: np.random.Generator, size: int) -> np.ndarray:
    """A wall of bricks or tiles over a floor."""
    high = size * rng.uniform(0.03, 0.1)
    wide, mortar = high * rng.uniform(1.0, 3.0), rng.uniform(0.08, 0.15)
    y, x = np.mgrid[:size, :size]
    row = (y / high).astype(int)
    column = x / wide + 0.5 * (row % 2)
    colours = _palette(rng, 64, 0.05)
    wall = colours[(row * 7 + column.astype(int) * 13) % 64]
    joint = (np.mod(y / high, 1) < mortar) | (np.mod(column, 1) < mortar * high / wide)
    picture = np.where(joint[..., None], rng.uniform(0.3, 0.8), wall)
    floor = (y > size * rng.uniform(0.7, 1.1))[..., None]
    return np.where(floor, rng.uniform(0.2, 0.6, 3), picture)


def _foliage(rng: np.random.Generator, size: int) -> np.ndarray:
    """Noise of several sizes, of green, brown or yellow leaves."""
    noise = sum(_smooth(rng, size, n) / (i + 1) for i, n in enumerate((5, 13, 31, 67)))
    noise = np.clip(noise / 2.1 + rng.uniform(-0.1, 0.1), 0, 1)[..., None]
    light = rng.uniform(0.5, 0.95) * np.array([rng.uniform(0.6, 1.05), 1.0, rng.uniform(0.3, 0.7)])
    return 0.15 * light + 0.85 * light * noise


def _streaks(rng: np.random.Generator, size: int) -> np.ndarray:
    """Long blurred streaks in one direction, as behind a fast motion."""
    angle = rng.uniform(-0.5, 0.5)
    y, x = np.mgrid[:size, :size]
    across = (y * np.cos(angle) + x * np.sin(angle)).astype(int) % (2 * size)
    lines = _palette(rng, 2 * size, 0.3)
    width = int(rng.integers(3, 15))
    lines = np.stack([np.convolve(c, np.ones(width) / width, "same") for c in lines.T], -1)
    return lines[across]


def _crowd(rng: np.random.Generator, size: int) -> np.ndarray:
    """Rows of dim blobs of skin and cloth colours, as on a full stand."""
    ground = rng.uniform(0.15, 0.5)
    picture = np.full((size, size, 3), ground)
    y, x = np.mgrid[:size, :size]
    radius = size * rng.uniform(0.012, 0.03)
    for row in np.arange(radius, size * rng.uniform(0.5, 1.0), 3.2 * radius):
        for column in np.arange(rng.uniform(0, 3) * radius, size, 3 * radius):
            cx, cy = column + rng.normal(0, 0.4 * radius), row + rng.normal(0, 0.4 * radius)
            window = np.s_[
                max(int(cy - 2 * radius), 0) : int(cy + 5 * radius),
                max(int(cx - 3 * radius), 0) : int(cx + 3 * radius),
            ]
            u, v = (x[window] - cx) / radius, (y[window] - cy) / radius
            body = (u / 1.6) ** 2 + ((v - 2.5) / 1.8) ** 2 < 1
            picture[window][body] = rng.uniform(0.05, 0.8) * (1 - 0.5 * rng.random(3))
            picture[window][u**2 + v**2 < 1] = rng.uniform(0.2, 0.8) * np.array([1, 0.75, 0.6])
    return ground + rng.uniform(0.25, 0.6) * (picture - ground)


def _panels(rng: np.random.Generator, size: int) -> np.ndarray:
    """Upright panels or trunks of unequal width, each with a rounded shade."""
    edges = np.sort(rng.uniform(0, size, int(rng.integers(4, 16))))
    x = np.arange(size)
    panel = np.searchsorted(edges, x)
    bounds = np.concatenate([[0], edges, [size]])
    inside = (x - bounds[panel]) / np.maximum(bounds[panel + 1] - bounds[panel], 1)
    colours = _palette(rng, len(edges) + 1, 0.15)
    lit = 0.6 + 0.6 * np.sin(np.pi * inside)
    return np.tile(colours[panel] * lit[:, None], (size, 1, 1))


def noise_unseen(
    picture: Float[np.ndarray, "S S 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "S S 3"]:
    """Colour cast, vignette, motion blur, and coloured noise; uint8 of a picture in 0..1."""
    size = len(picture)
    # 1. The lens.
    picture = picture * rng.uniform(0.95, 1.25) * rng.uniform(0.85, 1.15, 3)
    y, x = np.mgrid[:size, :size] / size - 0.5
    picture = picture * (1 - rng.uniform(0.0, 1.0) * (x * x + y * y))[..., None]
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    # 2. The motion: a line of 1 to 5 px of the filter's 25 cells.
    length, angle = rng.uniform(0.0, 2.2), rng.uniform(0, np.pi)
    line = np.zeros((5, 5))
    for t in np.linspace(-length, length, 21):
        line[int(round(2 + t * np.sin(angle))), int(round(2 + t * np.cos(angle)))] += 1
    pixels = image.filter(ImageFilter.Kernel((5, 5), line.ravel().tolist(), line.sum()))
    # 3. The sensor: noise of single colours, in spots of 2 px.
    spots = rng.normal(0, rng.uniform(0, 9), (-(-size // 2), -(-size // 2), 3))
    spots = np.repeat(np.repeat(spots - spots.mean(-1, keepdims=True), 2, 0), 2, 1)[:size, :size]
    grey = rng.normal(0, rng.uniform(1, 5), (size, size, 1))
    return np.clip(np.asarray(pixels, np.float32) + spots + grey, 0, 255).astype(np.uint8)
