"""Names of SMPL's joints and of common keypoint sets, their vertices, and left/right flips.

Everything is defined by name, and index lists are computed, so that a set can be checked by reading
it. This module has only names and numbers that every user of SMPL needs, and no model data.
"""

import numpy as np
from jaxtyping import Array, Float

SMPL24 = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2",
    "left_ankle", "right_ankle", "spine3", "left_foot", "right_foot", "neck",
    "left_collar", "right_collar", "head", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand",
)  # fmt: skip
SMPL24_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)

MANO16 = (
    "wrist", "index1", "index2", "index3", "middle1", "middle2", "middle3",
    "pinky1", "pinky2", "pinky3", "ring1", "ring2", "ring3", "thumb1", "thumb2", "thumb3",
)  # fmt: skip
"""MANO's joints: three for each finger, from the palm outwards (Romero et al. 2017)."""

SMPLH52 = SMPL24[:22] + tuple(f"{side}_{name}" for side in ("left", "right") for name in MANO16[1:])
"""SMPL-H's joints: SMPL's without its two hands, then MANO's without the wrist, left and right."""
SMPLH52_PARENTS = SMPL24_PARENTS[:22] + tuple(
    wrist if part == 0 else first + 3 * finger + part - 1
    for wrist, first in ((20, 22), (21, 37))
    for finger in range(5)
    for part in range(3)
)

HAND21 = (
    "wrist",
    "thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip",
    "index_mcp", "index_pip", "index_dip", "index_tip",
    "middle_mcp", "middle_pip", "middle_dip", "middle_tip",
    "ring_mcp", "ring_pip", "ring_dip", "ring_tip",
    "pinky_mcp", "pinky_pip", "pinky_dip", "pinky_tip",
)  # fmt: skip
"""The 21 keypoints of a hand in the order of OpenPose, MediaPipe and FreiHAND, which is one order.

Wrist, then thumb, index, middle, ring and pinky, each from the palm to the tip: OpenPose's "Hand
Output Format" (doc/02_output.md), MediaPipe's enumeration HandLandmark, and FreiHAND's README.
"""

OPENPOSE25 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist",
    "left_shoulder", "left_elbow", "left_wrist", "mid_hip", "right_hip", "right_knee",
    "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel",
    "right_big_toe", "right_small_toe", "right_heel",
)  # fmt: skip

COCO17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip

EXTRA19 = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle",
    "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist",
    "neck_lsp", "head_top_lsp", "pelvis_mpii", "thorax_mpii", "spine_h36m", "jaw_h36m", "head_h36m",
)  # fmt: skip
"""The rows of SMPL_to_J19.pkl, a 19 x 6890 regressor on posed vertices, which is not included.

The suffix of a name is the dataset whose definition is used.
"""

BODY44 = tuple(f"openpose_{name}" for name in OPENPOSE25) + EXTRA19
"""The 44 joints of SPIN, HMR2 and TokenHMR: OpenPose's 25, then the 19 above. Their pelvis is
`pelvis_mpii`, index 39."""

SMPL_VERTEX_IDS = {
    "nose": 332, "reye": 6260, "leye": 2800, "rear": 4071, "lear": 583,
    "LBigToe": 3216, "LSmallToe": 3226, "LHeel": 3387,
    "RBigToe": 6617, "RSmallToe": 6624, "RHeel": 6787,
    "lthumb": 2746, "lindex": 2319, "lmiddle": 2445, "lring": 2556, "lpinky": 2673,
    "rthumb": 6191, "rindex": 5782, "rmiddle": 5905, "rring": 6016, "rpinky": 6133,
}  # fmt: skip
"""Vertices of the 6890-vertex SMPL mesh that are surface keypoints.

They are in the order in which joints 24..44 are usually appended.
"""

MANO_VERTEX_IDS = {
    "thumb_tip": 744, "index_tip": 320, "middle_tip": 443, "ring_tip": 554, "pinky_tip": 671,
}  # fmt: skip
"""Finger tips of MANO's mesh of 778 vertices, as PyPI's smplx has them (its vertex_ids["mano"])."""

SMPL45 = SMPL24 + tuple(SMPL_VERTEX_IDS)

VERTEX_OF_KEYPOINT = {
    "nose": "nose",
    "left_eye": "leye", "right_eye": "reye", "left_ear": "lear", "right_ear": "rear",
    "left_big_toe": "LBigToe", "left_small_toe": "LSmallToe", "left_heel": "LHeel",
    "right_big_toe": "RBigToe", "right_small_toe": "RSmallToe", "right_heel": "RHeel",
    "left_thumb": "lthumb", "left_index": "lindex", "left_middle": "lmiddle",
    "left_ring": "lring", "left_pinky": "lpinky",
    "right_thumb": "rthumb", "right_index": "rindex", "right_middle": "rmiddle",
    "right_ring": "rring", "right_pinky": "rpinky",
}  # fmt: skip
"""Name of a surface keypoint -> name of its vertex. left_index is the tip of the index finger."""

JOINT_OF_KEYPOINT = {name: name for name in SMPL24} | {"mid_hip": "pelvis"}
"""Name of a keypoint that is a joint of the skeleton -> name of the joint."""


_PARTS_OF_FINGER = {"mcp": 1, "pip": 2, "dip": 3}
_PARTS_OF_THUMB = {"cmc": 1, "mcp": 2, "ip": 3}


def _joint_of_hand(keypoint: str) -> str:
    """MANO's name of a keypoint of HAND21 that is a joint."""
    finger, _, part = keypoint.partition("_")
    parts = _PARTS_OF_THUMB if finger == "thumb" else _PARTS_OF_FINGER
    return f"{finger}{parts[part]}" if part else keypoint


JOINT_OF_HAND_KEYPOINT = {
    name: _joint_of_hand(name) for name in HAND21 if name not in MANO_VERTEX_IDS
}
"""Name of a keypoint of HAND21 that is a joint -> name of the joint; the others are vertices."""


def mirrored_name(name: str) -> str:
    """left_knee -> right_knee, LHeel -> RHeel, leye -> reye; a name without a side is unchanged."""
    if name in SMPL_VERTEX_IDS:
        swapped = {"l": "r", "r": "l", "L": "R", "R": "L"}.get(name[0], name[0]) + name[1:]
        return swapped if swapped in SMPL_VERTEX_IDS else name
    swap = {"left": "right", "right": "left"}
    return "_".join(swap.get(word, word) for word in name.split("_"))


def flip_permutation(names: tuple[str, ...]) -> tuple[int, ...]:
    """The index of each name's mirror image.

    `points[..., flip, :]` swaps left and right after an image was flipped.

    Raises:
      ValueError: a name whose mirror image is not in the set.
    """
    index = {name: i for i, name in enumerate(names)}
    missing = [name for name in names if mirrored_name(name) not in index]
    if missing:
        raise ValueError(f"no mirror image in this set for: {', '.join(missing)}")
    return tuple(index[mirrored_name(name)] for name in names)


SMPL24_FLIP = flip_permutation(SMPL24)
SMPL45_FLIP = flip_permutation(SMPL45)
OPENPOSE25_FLIP = flip_permutation(OPENPOSE25)
COCO17_FLIP = flip_permutation(COCO17)
EXTRA19_FLIP = flip_permutation(EXTRA19)
BODY44_FLIP = flip_permutation(BODY44)


def smpl45_index(name: str) -> int:
    """Index of a keypoint among SMPL's 24 joints and the 21 vertices appended to them.

    Raises:
      KeyError: the keypoint is neither a joint nor one of the 21 vertices.
    """
    return SMPL45.index(VERTEX_OF_KEYPOINT.get(name) or JOINT_OF_KEYPOINT[name])


OPENPOSE25_FROM_SMPL45 = tuple(smpl45_index(name) for name in OPENPOSE25)


def flip_pose(
    pose: Float[Array, "*batch 72"] | Float[Array, "*batch 24 3"],
) -> Float[Array, "*batch 72"] | Float[Array, "*batch 24 3"]:
    """The mirror image (x -> -x) of a pose, in the same shape.

    Left and right are swapped, and y and z of each axis-angle change sign.
    """
    joints = pose if pose.shape[-2:] == (24, 3) else pose.reshape(*pose.shape[:-1], 24, 3)
    mirrored = joints[..., np.array(SMPL24_FLIP), :] * np.array([1.0, -1.0, -1.0], np.float32)
    return mirrored.reshape(pose.shape)


def flip_rotmats(rotmats: Float[Array, "*batch 24 3 3"]) -> Float[Array, "*batch 24 3 3"]:
    """`flip_pose` of rotation matrices: M R M with M = diag(-1, 1, 1), left and right swapped."""
    sign = np.array([-1.0, 1.0, 1.0], np.float32)
    return rotmats[..., np.array(SMPL24_FLIP), :, :] * np.outer(sign, sign)
