"""A small file of motions with angles, which are read from rotations: no inverse kinematics."""

import pathlib

import numpy as np

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.systems.biopose.branches import canonical
from genhmr_jax.systems.biopose.calibration import COLUMNS
from genhmr_jax.systems.biopose.from_rotations import Calibration, read
from genhmr_jax.systems.biopose.labels import AngleClips
from genhmr_jax.systems.biopose.skeleton import scales_between, skeleton_of

CLIPS, FRAMES = 6, 40


def motion(rng: np.random.Generator, frames: int = FRAMES) -> np.ndarray:
    """Poses (frames, 24, 3): turns of about 20 degrees, slowly varying; arms hang."""
    phase, speed = rng.uniform(0, 6, (2, 24, 3))
    poses = 0.25 * np.sin(phase + 0.5 * speed * np.arange(frames)[:, None, None] / 20)
    poses[:, 16, 2] -= 1.2
    poses[:, 17, 2] += 1.2
    return poses.astype(np.float32)


def write(folder: pathlib.Path) -> pathlib.Path:
    """Write six clips, the last two for validation; returns the file."""
    body, rng = load_body("neutral"), np.random.default_rng(0)
    mean, rows, scales = skeleton_of(body, np.zeros(10)), [], []
    betas = rng.normal(size=(CLIPS, 10)).astype(np.float32)
    for shape in betas:
        poses = motion(rng)
        values = read(body, shape, poses, Calibration.none())
        angles = canonical(np.radians(values[:, COLUMNS].astype(np.float64)))
        rows.append((poses.reshape(FRAMES, 72), angles.astype(np.float32)))
        scales.append(scales_between(mean, skeleton_of(body, shape)))
    poses, angles = (np.concatenate(column) for column in zip(*rows, strict=True))
    clips = AngleClips(
        poses=poses, angles=angles, translation=np.zeros((len(poses), 3), np.float32),
        rmse=np.full(len(poses), 0.01, np.float32), ends=FRAMES * np.arange(1, CLIPS + 1),
        betas=betas, scales=np.array(scales, np.float32),
        split=np.array([0, 0, 0, 0, 1, 1], np.int8), names=np.array(list("uvwxyz")),
        subjects=np.array(list("aabbcd")),
    )  # fmt: skip
    path = folder / "angles.npz"
    np.savez(path, **vars(clips))
    return path
