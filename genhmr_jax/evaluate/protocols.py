"""Evaluation protocols: which points are compared with which labels, and how errors are averaged.

Published numbers differ by tens of millimetres between protocols. A protocol fixes the joints,
their regressor, the gender of the body, the pelvis and the averaging. Its text describes it in one
paragraph, which is printed and stored with every result.
"""

import dataclasses

from smpl_jax.keypoints import BODY44, EXTRA19, SMPL24

from genhmr_jax.evaluate.bodies import REGRESSORS

H36M_TO_J17 = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10, 0, 7, 9)
"""SPIN's order of the 17 joints of Human3.6M.

12 limb joints, neck, top of head, pelvis, spine, jaw.
"""
J24_TO_J17 = (*range(13), 18, 14, 16, 17)
"""The same joints among SPIN's 24 labels, whose first 19 are EXTRA19."""
MAJOR_JOINTS = (0, 1, 2, 4, 5, 16, 17, 18, 19)
"""The joints of SMPL whose orientations the 3DPW challenge and EMDB compare."""
STILL_JOINTS = (0, 7, 8, 10, 11, 20, 21, 22, 23)
"""Joints whose jitter EMDB sets to zero. Its mean over the 24 joints includes these zeros."""
LIMBS12 = EXTRA19[:12]
_EXTRA_OF_44 = tuple(BODY44.index(name) for name in EXTRA19)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The points and errors of an evaluation.

    Attributes:
      name: the value of --protocol.
      text: one paragraph about joints, pelvis, regressor, gender, alignment and averaging.
      points: the source of the predicted points: a regressor of REGRESSORS on posed vertices, or
        "skeleton", the 24 posed joints of SMPL.
      joints: indices of the points that are compared.
      pelvis: indices of the points whose mean is the pelvis.
      truth: "body" (the labelled pose and shape on the body of the labelled gender, from which
        points are made like the predicted ones), "keypoints3d" (labelled 3D points), or "joints24"
        (24 labelled joints; those of a labelled body if they are missing).
      truth_joints, truth_pelvis: indices into BODY44, if the truth is "keypoints3d".
      mesh: whether vertices are compared too (MVE), if the label is a body.
      measures: those beyond MPJPE and PA-MPJPE: "pck", "angles", "accel" (mean over the steps of
        all videos), "jitter" (that of EMDB, mean over videos).
    """

    name: str
    text: str
    points: str
    joints: tuple[int, ...]
    pelvis: tuple[int, ...]
    truth: str = "body"
    truth_joints: tuple[int, ...] = ()
    truth_pelvis: tuple[int, ...] = ()
    mesh: bool = False
    measures: tuple[str, ...] = ()

    @property
    def regressors(self) -> tuple[str, ...]:
        """The required keys of REGRESSORS."""
        return (self.points,) if self.points in REGRESSORS else ()

    @property
    def genders(self) -> tuple[str, ...]:
        """The genders of the required bodies."""
        return ("neutral",) if self.truth == "keypoints3d" else ("neutral", "male", "female")


_J14 = (*range(12), EXTRA19.index("neck_lsp"), EXTRA19.index("head_h36m"))
_PELVIS19 = (EXTRA19.index("pelvis_mpii"),)
_HIPS = (SMPL24.index("left_hip"), SMPL24.index("right_hip"))
_PA = "PA: one similarity transform (scale, rotation, shift; no reflection) for each frame."

_ALL = (
    Protocol(
        name="hmr2",
        text="HMR2.0 and TokenHMR on 3DPW. Points: SMPL_to_J19 on posed vertices; "
        "prediction on neutral SMPL, truth on SMPL of the labelled gender. 14 "
        "joints: 12 limb joints, LSP's neck, Human3.6M's head (25 to 36, 37, 43 of "
        f"the 44 keypoints); pelvis: keypoint 39, subtracted from both. {_PA} MVE: "
        "vertices relative to keypoint 39. Mean over joints, then over all frames.",
        points="J19",
        joints=_J14,
        pelvis=_PELVIS19,
        mesh=True,
        measures=("accel",),
    ),
    Protocol(
        name="hmr2-keypoints",
        text="HMR2.0 on its own evaluation files and on Human3.6M. Predicted points: "
        "SMPL_to_J19 on the posed vertices of neutral SMPL; truth: the 3D keypoints "
        "of the label file. 14 joints: 12 limb joints, LSP's neck, Human3.6M's head "
        "(25 to 36, 37, 43 of the 44 keypoints); pelvis: keypoint 39, subtracted "
        f"from both. {_PA} Mean over joints, then over all frames.",
        points="J19",
        joints=_J14,
        pelvis=_PELVIS19,
        truth="keypoints3d",
        truth_joints=tuple(_EXTRA_OF_44[joint] for joint in _J14),
        truth_pelvis=(BODY44.index("pelvis_mpii"),),
    ),
    Protocol(
        name="spin",
        text="SPIN and PARE on 3DPW. Points: J_regressor_h36m on posed vertices; "
        "prediction on neutral SMPL, truth on SMPL of the labelled gender. 14 "
        "joints: H36M_TO_J14 (LSP's); pelvis: joint 0 of the 17, subtracted from "
        f"both. {_PA} MVE: vertices relative to joint 0. Mean over joints, then over "
        "all frames.",
        points="H36M",
        joints=H36M_TO_J17[:14],
        pelvis=(0,),
        mesh=True,
        measures=("accel",),
    ),
    Protocol(
        name="spin-h36m",
        text="SPIN on Human3.6M (protocol 1: all cameras, protocol 2: the frontal one; "
        "every fifth frame of S9 and S11). Predicted points: J_regressor_h36m on the "
        "posed vertices of neutral SMPL; truth: the joints of the motion capture. 14 "
        "joints: H36M_TO_J14 (LSP's); pelvis: Human3.6M's, subtracted from both. "
        f"{_PA} Mean over joints, then over all frames.",
        points="H36M",
        joints=H36M_TO_J17[:14],
        pelvis=(0,),
        truth="keypoints3d",
        truth_joints=tuple(_EXTRA_OF_44[joint] for joint in J24_TO_J17[:14]),
        truth_pelvis=(BODY44.index("pelvis_mpii"),),
    ),
    Protocol(
        name="mpi-inf-3dhp",
        text="SPIN on the test set of MPI-INF-3DHP. Predicted points: J_regressor_h36m on "
        "the posed vertices of neutral SMPL; truth: the labelled joints. 17 joints: "
        f"H36M_TO_J17; pelvis: Human3.6M's, subtracted from both. {_PA} PCK: share of "
        "joints within 150 mm; AUC: its mean over 0, 5, ..., 150 mm; both without "
        "PA. Mean over joints, then over all frames.",
        points="H36M",
        joints=H36M_TO_J17,
        pelvis=(0,),
        truth="keypoints3d",
        truth_joints=tuple(_EXTRA_OF_44[joint] for joint in J24_TO_J17),
        truth_pelvis=(BODY44.index("pelvis_mpii"),),
        measures=("pck",),
    ),
    Protocol(
        name="emdb",
        text="TokenHMR on EMDB. Points: the 24 rows of neutral SMPL's J_regressor on "
        "posed vertices; prediction on neutral SMPL, truth on SMPL of the labelled "
        "gender. 24 joints; pelvis: the mean of the two hips, subtracted from both. "
        f"{_PA} MVE: vertices relative to that pelvis. Good frames only. Mean over "
        "joints, then over all frames.",
        points="J24",
        joints=tuple(range(24)),
        pelvis=_HIPS,
        mesh=True,
    ),
    Protocol(
        name="emdb-official",
        text="EMDB's own evaluation. Points: SMPL's 24 joints as posed; prediction on "
        "neutral SMPL, truth on SMPL of the labelled gender. Pelvis: the mean of the "
        "two hips, subtracted from both. PA: one similarity transform of the joints "
        "for each frame, also for vertices and angles. MPJAE: angle between the "
        "orientations of nine major joints in the camera. Good frames only. Mean "
        "over joints, then over all frames. Jitter: third difference of the "
        "predicted joints in the camera, SMPL's translation zero, from each good "
        "frame of a sequence to the next one, across bad frames; the jitter of nine "
        "joints is set to zero; 10 m/s^3; mean over joints and steps, then over "
        "sequences.",
        points="skeleton",
        joints=tuple(range(24)),
        pelvis=_HIPS,
        mesh=True,
        measures=("angles", "jitter"),
    ),
    Protocol(
        name="joints24",
        text="Without licensed files; not comparable with published numbers. Points: the "
        "24 joints of SMPL's skeleton as posed; truth: the 24 labelled joints, or if "
        "there are none the labelled pose and shape on the body of the labelled "
        f"gender. Pelvis: joint 0, subtracted from both. {_PA} Mean over joints, then "
        "over all frames.",
        points="skeleton",
        joints=tuple(range(24)),
        pelvis=(0,),
        truth="joints24",
    ),
    Protocol(
        name="limbs12",
        text="Without licensed files; not comparable with published numbers. Points: the "
        "12 limb joints (ankles, knees, hips, wrists, elbows, shoulders) of SMPL's "
        "skeleton as posed; truth: the labelled joints of these names, whose locations "
        "differ by a few centimetres. Pelvis: the mean of the two hips, "
        f"subtracted from both. {_PA} Mean over joints, then over all frames.",
        points="skeleton",
        joints=tuple(SMPL24.index(name) for name in LIMBS12),
        pelvis=_HIPS,
        truth="keypoints3d",
        truth_joints=tuple(BODY44.index(name) for name in LIMBS12),
        truth_pelvis=(BODY44.index("left_hip"), BODY44.index("right_hip")),
    ),
)

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _ALL}
