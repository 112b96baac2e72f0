"""Motions with known joint angles: inverse kinematics of posed bodies, made once and stored.

A clip is a part of a motion of the pose corpus, on a body of random shape. Its angles are those of
the skeleton of this shape that fits its markers best, so they are defined for bodies that no
skeleton has made. Copies of training clips have other shapes, and their joints are turned a little
against the recording, so that poses differ.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import smpl_jax
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from genhmr_jax.data.synthetic.motions import Sequence, load_sequences
from genhmr_jax.geometry.anatomy import ANGLES, COORDINATES
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io.atomic import atomic_path, check_writable
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.npz_files import read_own_npz
from genhmr_jax.systems.biopose.branches import canonical
from genhmr_jax.systems.biopose.ik import CHUNK, IkSpec, solve
from genhmr_jax.systems.biopose.skeleton import Skeleton, marker_body, scales_between, skeleton_of

RATE = 20.0
"""Frames a second of the stored motions, about that of the corpus."""
SPLITS = ("train", "val")
SPEC = IkSpec(steps=6)  # the angles differ by less than 0.02 degrees from those of 12 steps
_SHORTEST, _LONGEST = 1.0, 2 * CHUNK / RATE  # seconds of a clip
_LARGEST_SHAPE = 2.5  # of a beta
# Radians by which joints of copies are turned: constant, and slowly varying over _SLOW seconds.
# Knees, elbows and feet, which have fewer axes, have a third of it.
_TURNED, _VARYING, _SLOW = 0.12, 0.06, 0.5
_HINGES = ("left_knee", "right_knee", "left_elbow", "right_elbow", "left_foot", "right_foot")
_ANGLE_COLUMNS = [COORDINATES.index(name) for name in ANGLES]


@dataclasses.dataclass(frozen=True)
class AngleClips:
    """C clips of N frames together, at RATE frames a second.

    Attributes:
      poses: (N, 72) float32 axis-angle of SMPL's form, radians, y up; the body is not translated.
      angles: (N, 44) float32 of ANGLES, radians; the inner ones are within LIMITS, and each
        shoulder has its canonical solution (branches.canonical).
      translation: (N, 3) float32 of the skeleton's pelvis, metres.
      rmse: (N,) float32 of the markers, metres.
      ends: (C,) the row after the last one of each clip.
      betas: (C, 10) float32. scales: (C, 11) of GROUPS, relative to the mean skeleton.
      split: (C,) index in SPLITS. names, subjects: (C,) of the motion.
    """

    poses: Float[np.ndarray, "N 72"]
    angles: Float[np.ndarray, "N 44"]
    translation: Float[np.ndarray, "N 3"]
    rmse: Float[np.ndarray, "N"]
    ends: Int[np.ndarray, "C"]
    betas: Float[np.ndarray, "C 10"]
    scales: Float[np.ndarray, "C 11"]
    split: Int[np.ndarray, "C"]
    names: np.ndarray
    subjects: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def starts(self) -> Int[np.ndarray, "C"]:
        """The first row of each clip."""
        return np.concatenate([[0], self.ends[:-1]])

    def of(self, split: str) -> Int[np.ndarray, "c"]:
        """The numbers of the clips of a split."""
        return np.flatnonzero(self.split == SPLITS.index(split))


def load_labels(path: str | Path) -> AngleClips:
    """The clips of a file of `write_labels`.

    Raises:
      InputError: no such file, or another one.
    """
    path, remedy = Path(path), "write it with `genhmr data angles`"
    names = [field.name for field in dataclasses.fields(AngleClips)]
    clips = AngleClips(**read_own_npz(path, "file of joint angles", remedy, names))
    count = len(clips.poses)
    shapes = {"poses": (count, 72), "angles": (count, len(ANGLES)), "translation": (count, 3)}
    for name, shape in shapes.items():
        array = getattr(clips, name)
        if array.shape != shape or not np.isfinite(array).all():
            raise InputError(path, f"{name} is {array.shape}, or is not finite", remedy)
    lengths = np.diff(np.concatenate([[0], clips.ends]))
    if not len(clips) or lengths.min() < 1 or clips.ends[-1] != count:
        raise InputError(path, "has clips without frames", remedy)
    return clips


def write_labels(
    poses: str | Path, out: str | Path, copies: int = 3, seed: int = 0, body: str = "neutral"
) -> str:
    """Write the joint angles of the motions of a pose corpus.

    Args:
      poses: the corpus, with frame numbers (motions.load_sequences).
      out: name of the npz.
      copies: of each training motion, besides the motion itself.
      seed: of shapes and copies.
      body: of geometry.bodies.

    Returns:
      a summary of one line.

    Raises:
      InputError: the corpus has no motions, or `out` cannot be written.
    """
    out, model = Path(out), load_body(body)
    if out.suffix != ".npz":
        raise InputError(out, "is not an .npz", "give a name that ends in .npz")
    check_writable(out)
    rows, clips, mean = [], [], skeleton_of(model, np.zeros(10))
    for split in SPLITS:
        sequences = load_sequences(poses, split, _SHORTEST)
        every = [(s, copy) for copy in range(1 + copies * (split == "train")) for s in sequences]
        for number, (sequence, copy) in enumerate(tqdm(every, f"angles of {split}", disable=None)):
            rng = np.random.default_rng([seed, SPLITS.index(split), number])
            for part in _parts(sequence):
                if copy:
                    part = _turned(part, model, rng)
                betas = rng.normal(size=10).clip(-_LARGEST_SHAPE, _LARGEST_SHAPE)
                skeleton = skeleton_of(model, betas)
                rows.append(_solved(model, skeleton, part.astype(np.float32), betas))
                scales, number_of = scales_between(mean, skeleton), SPLITS.index(split)
                clips.append((betas, scales, number_of, sequence.name, sequence.subject))
    columns = (np.array(column) for column in zip(*clips, strict=True))
    betas, scales, of_split, names, subjects = columns
    poses, angles, translation, rmse = (np.concatenate(x) for x in zip(*rows, strict=True))
    ends = np.cumsum([len(row[0]) for row in rows])
    found = AngleClips(
        poses, angles, translation, rmse, ends, betas.astype(np.float32),
        scales.astype(np.float32), of_split.astype(np.int8), names, subjects,
    )  # fmt: skip
    with atomic_path(out) as temporary:
        np.savez(temporary, **vars(found))
    counts = ", ".join(f"{len(found.of(split))} for {split}" for split in SPLITS)
    return (
        f"{len(rmse)} frames of {len(ends)} clips ({counts}), markers within "
        f"{1e3 * np.sqrt((rmse**2).mean()):.1f} mm, in {out}"
    )


def _parts(sequence: Sequence) -> list[Float[np.ndarray, "F 24 3"]]:
    """Parts of a motion of at most _LONGEST seconds, as equal as possible."""
    count = int(sequence.seconds * RATE - 1e-6) + 1  # the last one is within the motion
    whole = sequence.sampled(0.0, count, RATE)
    return np.array_split(whole, int(np.ceil(count / (_LONGEST * RATE))))


def _turned(
    poses: Float[np.ndarray, "F 24 3"], body: smpl_jax.SmplModel, rng: np.random.Generator
) -> Float[np.ndarray, "F 24 3"]:
    """A motion whose joints, but not the root, are turned a little, and slowly varying."""
    frames, wide = len(poses), int(4 * _SLOW * RATE)
    noise = rng.normal(size=(frames + 2 * wide, 24, 3))
    slow = gaussian_filter1d(noise, _SLOW * RATE, axis=0)[wide:-wide]
    slow *= _VARYING * np.sqrt(2 * np.sqrt(np.pi) * _SLOW * RATE)  # white noise has 1 before
    turn = slow + _TURNED * rng.normal(size=(1, 24, 3))
    turn[:, 0] = 0
    turn[:, [body.joint_names.index(name) for name in _HINGES]] /= 3
    both = Rotation.from_rotvec(poses.reshape(-1, 3)) * Rotation.from_rotvec(turn.reshape(-1, 3))
    return both.as_rotvec().reshape(poses.shape)


def _solved(
    body: smpl_jax.SmplModel,
    skeleton: Skeleton,
    poses: Float[np.ndarray, "F 24 3"],
    betas: Float[np.ndarray, "10"],
) -> tuple[np.ndarray, ...]:
    """Poses (F, 72), angles, translation and rmse of a clip."""
    frames = len(poses)
    rows = np.minimum(np.arange(-(-frames // CHUNK) * CHUNK), frames - 1)
    markers = np.asarray(POSED(marker_body(body), betas.astype(np.float32), poses[rows]))
    found = solve(skeleton, markers, SPEC)
    angles = canonical(np.radians(found.values[:frames, _ANGLE_COLUMNS].astype(np.float64)))
    whole = poses.reshape(frames, 72), angles, found.values[:frames, 3:6], found.rmse[:frames]
    return tuple(array.astype(np.float32) for array in whole)


POSED = jax.jit(lambda body, betas, poses: smpl_jax.forward(body, betas, poses).vertices)
"""Markers (F, 70, 3) of a marker_body, metres."""
