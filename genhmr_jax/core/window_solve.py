"""From a window of frames of one person to its steady motion, for any system; one program."""

import dataclasses

import jax
import smpl_jax
from jaxtyping import Array, Float
from smpl_jax import rotations

from genhmr_jax.core.motion_refinement import MotionSpec, Window, refine_motion
from genhmr_jax.core.system import Params, System
from genhmr_jax.geometry.keypoints import project_keypoints
from genhmr_jax.io.program_store import stored, stored_output


@stored_output
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SolvedWindow:
    """The bodies of T frames; recover.clip.Clip documents the fields under the same names."""

    embeddings: Float[Array, "T L D"]
    weak_camera: Float[Array, "T 3"]
    global_orient: Float[Array, "T 3"]
    body_pose: Float[Array, "T 69"]
    translation: Float[Array, "T 3"]
    joints: Float[Array, "T J 3"]
    joints2d: Float[Array, "T J 2"]
    projected_keypoints: Float[Array, "T K 2"]
    loss: Float[Array, "S"]


@stored("system", "spec")
def solve_window(
    system: System, params: Params, surface: smpl_jax.SmplModel, window: Window, spec: MotionSpec
) -> SolvedWindow:
    """Refine a window, and pose its bodies.

    Args:
      surface: a body reduced by geometry.keypoints.surface_model.
      window: its frames.
      spec: settings.
    """
    view = window.view
    pose = system.pose(params, view)
    refined = refine_motion(pose, surface, window, spec, system.pose_parts)
    rotmats = pose(refined.embeddings)
    output = smpl_jax.forward(surface, window.betas, rotmats)
    translation = view.translation(refined.weak_camera)
    joints = output.joints + translation[:, None]
    axis_angle = rotations.matrix_to_axis_angle(rotmats)
    return SolvedWindow(
        embeddings=refined.embeddings,
        weak_camera=refined.weak_camera,
        global_orient=axis_angle[:, 0],
        body_pose=axis_angle[:, 1:].reshape(len(axis_angle), -1),
        translation=translation,
        joints=joints,
        joints2d=view.project(joints),
        projected_keypoints=project_keypoints(surface, output, refined.weak_camera, view),
        loss=refined.loss,
    )
