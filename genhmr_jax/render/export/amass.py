"""AMASS: one npz of SMPL-H pose parameters for each person (Mahmood et al., ICCV 2019)."""

import os

import numpy as np
from smpl_jax import SmplModel

from genhmr_jax.geometry.motion import Motion
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.render.export.timeline import evenly, root_path
from genhmr_jax.render.rest import rest_joints

BODY_JOINTS, HAND_JOINTS = 22, 30  # of SMPL-H: the root and 21 joints, then 15 for each hand
BETAS, DMPLS = 16, 8  # AMASS's numbers of coefficients
_SMPL_VERTICES = 6890


def save_amass(path: str | os.PathLike, motion: Motion, body: SmplModel) -> None:
    """Write the motion of a person as AMASS stores it: z up, metres, SMPL-H.

    The file goes from the first to the last known frame, at an even rate. Joints 0 to 21 are those
    of SMPL; SMPL's joints 22 and 23 turn the whole hand beyond the wrist, for which SMPL-H has no
    joint, and are left out: the 30 finger joints are zero, except for a body with fingers.

    `betas` are coefficients of SMPL, so the free bodies' are not written there: they would give
    another shape. With a free body `betas` are zero. The body's own are in `body_betas`.

    Arrays: poses (F, 156) axis-angle, radians; trans (F, 3) metres; betas (16,); dmpls (F, 8)
    zeros; gender "neutral"; mocap_framerate and mocap_frame_rate () frames a second; body_betas
    (10,); start_time () seconds of the first row in the clip.

    Args:
      path: of the file.
      motion: of the person.
      body: the body of the motion.

    Raises:
      ValueError: no frame is known.
      InputError: the file cannot be written.
    """
    motion, rate = evenly(motion)
    frames = len(motion)
    # 1. Shape. The position of the pelvis is exact for the betas that are written.
    betas = np.zeros(BETAS)
    if body.num_vertices == _SMPL_VERTICES:
        betas[: len(motion.betas)] = motion.betas
    written = betas[: body.num_betas]
    # 2. Pose and translation.
    pelvis = rest_joints(body, motion.betas)[0]
    root, positions = root_path(motion, pelvis, up="z")
    poses = np.zeros((frames, BODY_JOINTS + HAND_JOINTS, 3))
    known = poses.shape[1] if motion.poses.shape[1] == poses.shape[1] else BODY_JOINTS
    poses[:, :known] = motion.poses[:, :known]
    poses[:, 0] = root.as_rotvec()
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            poses=poses.reshape(frames, -1),
            trans=positions - rest_joints(body, written)[0],
            betas=betas,
            dmpls=np.zeros((frames, DMPLS)),
            gender=np.array("neutral"),
            mocap_framerate=np.float64(rate),
            mocap_frame_rate=np.float64(rate),
            body_betas=motion.betas,
            start_time=np.float64(motion.times[0]),
        )
