"""The files of predictions that FreiHAND and HO-3D evaluate: pred.json.

`pred.py`, `dump`, of both repositories (github.com/lmb-freiburg/freihand, 5ea4ab9, and
github.com/shreyashampali/ho3d, 2fd6ee1): a list of two lists, the 21 keypoints of all samples and
the vertices of all samples, in metres and in the order of the evaluation split. The file is packed
with `zip -j pred.zip pred.json`.

FreiHAND's keypoints are in the order of HAND21, in OpenCV's axes of the camera. HO-3D's are in
MANO's order (16 joints, then the tips of thumb, index, middle, ring and pinky), in OpenGL's axes
(README, "Evaluate on the dataset", 5).
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from genhmr_jax.data.hands.releases.reading import read_json
from genhmr_jax.data.hands.releases.record import OPENGL
from genhmr_jax.data.sources.reading import numbers
from genhmr_jax.evaluate.hand_protocols import HandPoints
from genhmr_jax.geometry.hand import HAND21_FROM_MANO, MANO_FROM_HAND21
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError

SAMPLES = {"freihand": 3960, "ho3d": 20137}
"""Evaluation samples: `db_size` of FreiHAND's utils/fh_utils.py, and of HO-3D's utils/vis_utils.py
for version 3 (version 2 has 11524)."""

_DIGITS = 7  # after the point: 0.1 micrometres


def write_predictions(
    path: str | Path, predicted: HandPoints, dataset: str, samples: int | None = None
) -> None:
    """Write pred.json.

    Args:
      path: of the file; it must end in .json.
      predicted: metres in our axes, HAND21, with MANO's 778 vertices.
      dataset: "freihand" or "ho3d", which decides the order and the axes in the file.
      samples: the required number of hands; default: SAMPLES.

    Raises:
      InputError: another dataset or number of hands, no 778 vertices, numbers that are not finite,
        hands behind the camera (HO-3D's pred.py refuses them), or the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise InputError(path, "is not a .json", "give a name such as pred.json")
    _check_dataset(dataset)
    needed = SAMPLES[dataset] if samples is None else samples
    keypoints, vertices = predicted.keypoints, predicted.vertices
    if vertices is None or vertices.shape[1:] != (778, 3):
        shape = "no vertices" if vertices is None else f"vertices of shape {vertices.shape[1:]}"
        remedy = "the server needs MANO's 778: recover with MANO_RIGHT.pkl"
        raise InputError(path, f"the predictions have {shape}", remedy)
    if len(keypoints) != needed or len(vertices) != needed:
        problem = f"has {len(keypoints)} hands, but {dataset} needs {needed}"
        raise InputError(path, problem, "predict every sample of the split, in its order")
    if not (np.isfinite(keypoints).all() and np.isfinite(vertices).all()):
        raise InputError(path, "has points that are not finite", "replace those predictions")
    if dataset == "ho3d":
        behind = (keypoints[..., 2] < 0).all(-1) | (vertices[..., 2] < 0).all(-1)
        if behind.any():
            problem = f"hand {int(np.argmax(behind))} is behind the camera"
            raise InputError(path, problem, "give points in axes with z forward")
        keypoints, vertices = keypoints[:, list(MANO_FROM_HAND21)] @ OPENGL, vertices @ OPENGL
    with atomic_path(path) as temporary, temporary.open("w", encoding="ascii") as file:
        file.write("[")
        _write_list(file, keypoints)
        file.write(", ")
        _write_list(file, vertices)
        file.write("]")


def _write_list(file, points: Iterable[Float[np.ndarray, "K 3"]]) -> None:
    """One sample at a time: the text of all vertices is larger than the array."""
    for number, sample in enumerate(points):
        file.write("[" if number == 0 else ", ")
        # Adding 0.0 turns -0.0 into 0.0.
        file.write(json.dumps((np.round(np.float64(sample), _DIGITS) + 0.0).tolist()))
    file.write("]")


def read_predictions(path: str | Path, dataset: str) -> HandPoints:
    """Read a pred.json as metres in our axes and in the order of HAND21.

    It needs ten times the memory of the arrays for a while.

    Args:
      path: of the file.
      dataset: "freihand" or "ho3d".

    Raises:
      InputError: another dataset, the file cannot be read, or it has another form.
    """
    _check_dataset(dataset)
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, list) or len(content) != 2:
        raise InputError(path, "is not a list of keypoints and vertices", "is it a pred.json?")
    keypoints = numbers(content[0], (None, 21, 3), "keypoints", path)
    vertices = numbers(content[1], (len(keypoints), None, 3), "vertices", path)
    if dataset == "ho3d":
        keypoints, vertices = keypoints[:, list(HAND21_FROM_MANO)] @ OPENGL, vertices @ OPENGL
    return HandPoints(keypoints, vertices)


def _check_dataset(dataset: str) -> None:
    if dataset not in SAMPLES:
        problem = "has no known file of predictions"
        raise InputError(dataset, problem, f"choose {' or '.join(SAMPLES)}")
