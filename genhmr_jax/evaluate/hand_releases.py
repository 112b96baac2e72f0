"""A model of hands on the released datasets of hands, by their official protocols.

Each labelled hand is recovered in the box and with the side that the release gives, as published
methods do. A box in which no hand is detected counts with a hand of the mean pose and shape.
"""

import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float

from genhmr_jax.core.system import PhotoCamera
from genhmr_jax.data.annotations.hands import GivenHand
from genhmr_jax.data.hands.releases.record import HandRecord
from genhmr_jax.evaluate import hand_protocols
from genhmr_jax.evaluate.datasets import HandDataset
from genhmr_jax.evaluate.hand_predictions import write_predictions
from genhmr_jax.evaluate.hand_protocols import HandPoints, true_points
from genhmr_jax.evaluate.hands import keypoints_of, mean_hand
from genhmr_jax.geometry.hand import mirror_points
from genhmr_jax.io.errors import InputError
from genhmr_jax.recover.hands import HandRecoverer, hands_given
from genhmr_jax.recover.photo import RecoverOptions

_PROTOCOLS = {
    "freihand": hand_protocols.freihand,
    "ho3d": hand_protocols.ho3d,
    "dexycb": hand_protocols.dexycb,
}


def measure_release(
    recoverer: HandRecoverer,
    records: Iterable[HandRecord],
    dataset: HandDataset,
    *,
    options: RecoverOptions,
    true_focal: bool = False,
    predictions: str | pathlib.Path | None = None,
    samples: int | None = None,
) -> dict[str, Any]:
    """Measure a model on the records of a release.

    Args:
      recoverer: the model, and the hand: with MANO's own the meshes are compared too.
      records: of a reader of data.hands.releases.
      dataset: which protocol is used.
      options: of the recovery.
      true_focal: use the camera of the release in place of a guess from the size of the image.
      predictions: file for the predictions, in the form of the dataset's server.
      samples: number of hands that this file must have; None: that of the dataset.

    Returns:
      "hands", their number; "found", the share with a hand detected in the box; "figures" of the
      protocol, without them if the split has no public labels.

    Raises:
      InputError: no records, a damaged image, or the predictions do not fit the server.
    """
    every, points, meshes, pixels, found = [], [], [], [], 0
    for record in records:
        keypoints, vertices, projected, is_found = _recovered(
            recoverer, record, options, true_focal
        )
        every.append(record)
        points.append(keypoints)
        meshes.append(vertices)
        pixels.append(projected)
        found += is_found
    if not every:
        raise InputError("records", "there are none", "choose a split with samples")
    predicted = HandPoints(np.stack(points), np.stack(meshes))
    if predictions is not None:
        write_predictions(predictions, predicted, dataset.protocol, samples)
    result: dict[str, Any] = {"hands": len(every), "found": found / len(every)}
    if dataset.protocol == "hint":
        return result | {"figures": hand_protocols.hint_pck(np.stack(pixels), every)}
    if all(record.keypoints3d is None for record in every):
        return result
    has_meshes = all(record.vertices is not None for record in every)
    truth = true_points(every, vertices=has_meshes)
    return result | {"figures": _PROTOCOLS[dataset.protocol](predicted, truth)}


def _recovered(
    recoverer: HandRecoverer, record: HandRecord, options: RecoverOptions, true_focal: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Keypoints (21, 3) and vertices (V, 3) in camera axes, pixels (21, 2), and if it is found."""
    image = record.read()
    height, width = image.shape[:2]
    photo = options.camera(width, height)
    if true_focal and record.intrinsics is not None:
        focal, x, y = (float(record.intrinsics[i]) for i in ((0, 0), (0, 2), (1, 2)))
        photo = PhotoCamera(focal, (x, y))
    hands = hands_given(image, [GivenHand(record.right, box=np.float32(record.box))])
    if len(hands):
        meshes = recoverer.recover_prepared(recoverer.prepare(image, hands, photo), options)
        joints, vertices = meshes.joints[0], meshes.vertices[0]
        keypoints = keypoints_of(recoverer.hand, joints, vertices)
    else:
        keypoints, vertices = _mean_in_box(recoverer, record, photo)
    pixels = photo.focal * keypoints[:, :2] / keypoints[:, 2:] + np.array(photo.principal_point)
    return keypoints, vertices, pixels, bool(len(hands))


def _mean_in_box(
    recoverer: HandRecoverer, record: HandRecord, photo: PhotoCamera
) -> tuple[Float[np.ndarray, "21 3"], Float[np.ndarray, "V 3"]]:
    """The mean hand in the middle of a box, as large in the picture as the box."""
    keypoints, vertices = mean_hand(recoverer.hand)
    if not record.right:
        keypoints, vertices = mirror_points(keypoints), mirror_points(vertices)
    middle, sides = (record.box[:2] + record.box[2:]) / 2, record.box[2:] - record.box[:2]
    depth = photo.focal * np.ptp(keypoints, axis=0).max() / max(float(sides.max()), 1.0)
    at = np.append((middle - np.array(photo.principal_point)) / photo.focal, 1.0) * depth
    shift = at - (keypoints.min(0) + keypoints.max(0)) / 2
    return keypoints + shift, vertices + shift


def release_table(name: str, dataset: HandDataset, found: dict[str, Any]) -> str:
    """The result of `measure_release` as Markdown."""
    lines = [
        f"{name}: {found['hands']} hands of split {dataset.split}, each in the box and with the "
        f"side of the release; in {100 * found['found']:.1f} % of the boxes a hand is detected "
        "(the others count with the mean hand)",
    ]
    if "figures" not in found:
        return lines[0] + ". The split has no public labels: nothing is measured."
    lines += ["", "| measure | value |", "|---|---|"]
    for measure, value in found["figures"].items():
        text = f"{value:.2f}" if measure.endswith("_mm") else f"{value:.3f}"
        lines.append(f"| {measure} | {text} |")
    return "\n".join(lines)
