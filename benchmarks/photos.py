"""Photos made of the sample photo: crops, mirror images and other sizes, always the same ones."""

import pathlib

import numpy as np
from PIL import Image

from benchmarks.settings import SAMPLE

MARGIN = 0.06  # the most that is cut off at each side: the person stays whole
SCALES = (0.6, 1.8)  # of the size


def make(folder: pathlib.Path, count: int) -> pathlib.Path:
    """Write `count` JPEGs of one person each to a folder, made for it."""
    folder.mkdir(parents=True, exist_ok=True)
    random, sample = np.random.default_rng(0), Image.open(SAMPLE).convert("RGB")
    width, height = sample.size
    for number in range(count):
        left, top, right, bottom = random.uniform(0, MARGIN, 4)
        box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
        scale = random.uniform(*SCALES)
        size = round(scale * (box[2] - box[0])), round(scale * (box[3] - box[1]))
        photo = sample.resize(size, Image.Resampling.BICUBIC, box)
        if number % 2:
            photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        photo.save(folder / f"photo_{number:04d}.jpg", quality=90)
    return folder
