"""A made-up set of stored crops (data/features.py): consistent labels, and crops of noise."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import smpl_jax
from jaxtyping import Array
from scipy.spatial.transform import Rotation

from genhmr_jax.core import encoders
from genhmr_jax.data.rows import Rows, row_checks, to_arrays, write_checks
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_model, keypoint_points


def rows(count: int, seed: int) -> Rows:
    """Rows as features.compute stores them, float32; images uint8."""
    rng, body = np.random.default_rng(seed), keypoint_model(load_body("neutral"))
    turns = rng.normal(0, 0.3, (count, 24, 3))
    turns[:, 0] = [np.pi, 0, 0] + rng.normal(0, 0.1, (count, 3))
    rotmats = Rotation.from_rotvec(turns.reshape(-1, 3)).as_matrix().reshape(count, 24, 3, 3)
    rotmats = rotmats.astype(np.float32)
    betas = rng.normal(0, 1, (count, 10)).astype(np.float32)
    crop = np.column_stack(
        [rng.uniform(180, 460, count), rng.uniform(180, 300, count), rng.uniform(150, 300, count)]
    )
    weak = np.column_stack([rng.uniform(0.7, 1.0, count), rng.normal(0, 0.05, (count, 2))])
    weak = weak.astype(np.float32)
    view = CropCamera(
        crop.astype(np.float32),
        np.full(count, 800, np.float32),
        np.tile(np.float32([320, 240]), (count, 1)),
    )
    joints, points2d = (np.asarray(x) for x in _projected(body, betas, rotmats, weak, view))
    known = np.ones((count, len(DETECTED), 1), np.float32)
    return Rows(
        view=view,
        rotmats=rotmats,
        betas=betas,
        joints=joints,
        keypoints=np.concatenate([points2d, known], -1),
        points2d=points2d,
        weak_camera=weak,
        keypoints3d=np.zeros((count, len(DETECTED), 3), np.float32),
        images=rng.integers(0, 255, (count, 256, 256, 3), np.uint8),
    )


def of_detector(count: int, seed: int) -> Rows:
    """Rows with the detector's outputs in place of crops; all regions are turned."""
    rng, plain = np.random.default_rng(seed + 1), rows(count, seed)
    shapes = encoders.find("detector").stored_shapes(count)["evidence"]
    evidence = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(s.dtype), shapes)
    turns = rng.uniform(0.2, 1.0, (count, 1)) * rng.choice([-1, 1], (count, 1))
    region = np.concatenate([plain.view.crop + rng.normal(0, 9, (count, 3)), turns], -1)
    evidence = dataclasses.replace(evidence, region=region.astype(np.float32))
    number = np.arange(count, dtype=np.uint32)
    return dataclasses.replace(plain, images=None, evidence=evidence, number=number)


@jax.jit
def _projected(
    body: smpl_jax.SmplModel, betas: Array, rotmats: Array, weak: Array, view: CropCamera
) -> tuple[Array, Array]:
    """Joints relative to the model origin, metres, and keypoints in px."""
    output = smpl_jax.forward(body, betas, rotmats)
    points = keypoint_points(body, output, DETECTED) + view.translation(weak)[:, None]
    return output.joints, view.project(points)


def write(folder: pathlib.Path, count: int = 6, encoder: str = "vit_s") -> pathlib.Path:
    """The splits train and val of such a set, of crops or of the encoder "detector"."""
    make = of_detector if encoder == "detector" else rows
    for seed, split in enumerate(("train", "val")):
        (folder / split).mkdir(parents=True)
        made = dataclasses.replace(make(count, seed), number=None)
        arrays = to_arrays(jax.tree.map(np.asarray, made))
        for name, array in arrays.items():
            np.save(folder / split / f"{name}.npy", array)
        write_checks(folder / split, {name: row_checks(array) for name, array in arrays.items()})
        meta = {"samples": count, "encoder": encoder, "arrays": sorted(arrays)}
        (folder / split / "done.json").write_text(json.dumps(meta))
    return folder
