"""Errors of angles that the recovered body itself has, which no method for angles can see.

Measured on 10 rendered development clips of 3 s, motions of training subjects, through detector,
shipped model and track, in the 96 % of the frames in which the body is not back to front: the width
with which band and body together hold the true angle in 80 % of these frames. With the widths of
nine clips the band held 79 % of the angles of the tenth (59 to 96 %). The command is in
evaluate/body_widths.py.
"""

import numpy as np

from genhmr_jax.geometry.anatomy import ANGLES

_DEGREES = {
    "pelvis_tilt": 9.3, "pelvis_list": 6.9, "pelvis_rotation": 19.4, "hip_flexion": 16.0,
    "hip_adduction": 9.6, "hip_rotation": 10.9, "knee_angle": 19.6, "ankle_angle": 12.6,
    "subtalar_angle": 13.2, "mtp_angle": 0.0, "lumbar_extension": 6.9, "lumbar_bending": 4.7,
    "lumbar_rotation": 3.6, "thorax_extension": 4.2, "thorax_bending": 3.7, "thorax_rotation": 4.7,
    "neck_flexion": 15.0, "neck_bending": 7.2, "neck_rotation": 22.6, "clavicle_protraction": 5.1,
    "clavicle_elevation": 4.8, "arm_flex": 28.1, "arm_add": 10.2, "arm_rot": 22.3,
    "elbow_flex": 24.1, "pro_sup": 32.6, "wrist_flex": 9.6, "wrist_dev": 20.6,
}  # fmt: skip

BODY_HALF_WIDTH = np.array(
    [_DEGREES[name.removesuffix("_r").removesuffix("_l")] for name in ANGLES], np.float32
)
"""(44,) degrees, of ANGLES."""
