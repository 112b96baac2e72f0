"""Small releases of hands in their official layouts, and what a reader finds in them."""

import json
import pickle

import numpy as np
from PIL import Image

from genhmr_jax.data.hands.releases import RELEASES

K = [[100.0, 0.0, 16.0], [0.0, 200.0, 12.0], [0.0, 0.0, 1.0]]


def put(path, content):
    """Write JSON, a pickle, text or a small image, by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(content))
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content, protocol=2))
    elif path.suffix in (".jpg", ".png"):
        Image.fromarray(np.full((24, 32, 3), content, np.uint8)).save(path)
    else:
        path.write_text(content)


def hand(seed=0):
    """Keypoints (21, 3) in front of the camera, HAND21, metres."""
    return np.random.default_rng(seed).uniform(-0.05, 0.05, (21, 3)) + [0.0, 0.0, 0.5]


def read(name, root, split, skip_bad=False):
    """Records of a release in the manual directory `root`, and the listed bad ones."""
    report = RELEASES[name].report(skip_bad)
    return list(RELEASES[name].records(root, split, report)), report.listed
