"""Errors of angles that the recovered body itself has, which no method for angles can see.

Measured on 5 rendered clips of 3 s (evaluate/clip_split.py, one of each validation subject) through
detector, shipped model and track, in the 79 % of the frames in which the body is not back to
front: the width with which band and body together hold the true angle in 80 % of these frames. With
the widths of four clips the band held 78 % of the angles of the fifth (63 to 92 %). The clips are
of an evaluation split: coverage there is no test of these widths.
"""

import numpy as np

from genhmr_jax.geometry.anatomy import ANGLES

_DEGREES = {
    "pelvis_tilt": 6.4, "pelvis_list": 9.0, "pelvis_rotation": 14.4, "hip_flexion": 18.1,
    "hip_adduction": 12.2, "hip_rotation": 13.7, "knee_angle": 18.2, "ankle_angle": 12.1,
    "subtalar_angle": 13.7, "mtp_angle": 0.0, "lumbar_extension": 7.9, "lumbar_bending": 3.6,
    "lumbar_rotation": 2.4, "thorax_extension": 6.6, "thorax_bending": 4.0, "thorax_rotation": 4.1,
    "neck_flexion": 14.7, "neck_bending": 20.2, "neck_rotation": 33.4, "clavicle_protraction": 5.4,
    "clavicle_elevation": 2.6, "arm_flex": 18.2, "arm_add": 7.3, "arm_rot": 29.1,
    "elbow_flex": 21.1, "pro_sup": 20.2, "wrist_flex": 12.2, "wrist_dev": 22.1,
}  # fmt: skip

BODY_HALF_WIDTH = np.array(
    [_DEGREES[name.removesuffix("_r").removesuffix("_l")] for name in ANGLES], np.float32
)
"""(44,) degrees, of ANGLES."""
