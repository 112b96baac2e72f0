"""People before a camera, and hands at their wrists, with known poses."""

import jax
import numpy as np
import smpl_jax
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import COCO17, SMPL24

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.hand import HAND21, hand_keypoints, load_hand, mirror_pose
from genhmr_jax.geometry.keypoints import keypoint_points
from genhmr_jax.recover.hands import HandMeshes
from genhmr_jax.recover.people import People

FORWARD = jax.jit(smpl_jax.forward)
FOCAL, SIZE = 800.0, (640, 480)
CENTRE = np.array([320.0, 240.0])
BENT = np.tile([0.0, 0.0, 0.6], (15, 1))  # of a right hand: towards the palm


def project(points):
    return points[..., :2] / points[..., 2:] * FOCAL + CENTRE


def people_of(poses) -> People:
    """Neutral bodies upright before a camera, 3 m away."""
    poses = np.asarray(poses, np.float32)
    count, shift = len(poses), np.float32([[i - 0.5, 0.3, 3] for i in range(len(poses))])
    body, betas = load_body("neutral"), np.zeros((count, 10), np.float32)
    output = FORWARD(body, betas, poses, shift)
    points = project(np.asarray(keypoint_points(body, output, COCO17)))
    return People(
        boxes=np.zeros((count, 4)),
        keypoints2d=np.concatenate([points, np.ones((count, 17, 1))], -1),
        keypoint_names=np.array(COCO17),
        global_orient=poses[:, 0],
        body_pose=poses[:, 1:].reshape(count, 69),
        betas=betas,
        weak_camera=np.zeros((count, 3)),
        translation=shift,
        focal_length=FOCAL,
        image_size=np.array(SIZE),
        vertices=output.vertices,
        joints=output.joints,
        joints2d=project(np.asarray(output.joints)),
        joint_confidence=np.ones((count, 24)),
        faces=body.faces,
        joint_names=np.array(SMPL24),
        projected_keypoints=points,
    )


def hands_of(people, wanted) -> HandMeshes:
    """Hands at wrists of people.

    Args:
      people: the people.
      wanted: for each hand the person, the side and its orientation (3, 3) in camera axes; the
        fingers are those of BENT.
    """
    rows = {
        name: [] for name in ("joints", "keypoints2d", "global_orient", "hand_pose", "vertices")
    }
    for person, side, orientation in wanted:
        pose = BENT if side == "right" else np.asarray(mirror_pose(BENT))
        hand = load_hand(side=side)
        turn = Rotation.from_matrix(orientation).as_rotvec()
        output = FORWARD(hand, np.zeros(10), np.concatenate([turn[None], pose]).astype(np.float32))
        shift = people.joints[person, SMPL24.index(f"{side}_wrist")] - output.joints[0]
        points = project(np.asarray(hand_keypoints(hand, output)) + shift)
        rows["keypoints2d"].append(np.concatenate([points, np.ones((21, 1))], -1))
        rows["joints"].append(output.joints + shift)
        rows["vertices"].append(output.vertices + shift)
        rows["global_orient"].append(turn)
        rows["hand_pose"].append(pose.reshape(45))
    count, rows = len(wanted), {name: np.array(row) for name, row in rows.items()}
    zeros = lambda *shape: np.zeros((count, *shape))
    faces = np.asarray(load_hand().faces)
    return HandMeshes(
        boxes=zeros(4),
        scores=np.linspace(0.9, 0.8, count),
        right=np.array([side == "right" for _, side, _ in wanted]),
        person=np.array([person for person, _, _ in wanted]),
        keypoint_names=np.array(HAND21),
        betas=zeros(10),
        weak_camera=zeros(3),
        translation=zeros(3),
        focal_length=FOCAL,
        image_size=np.array(SIZE),
        principal_point=CENTRE,
        joints2d=project(rows["joints"]),
        joint_confidence=np.full((count, 16), 0.5),
        faces_right=faces,
        faces_left=faces[:, ::-1],
        joint_names=np.array(load_hand().joint_names),
        projected_keypoints=zeros(21, 2),
        sampled_keypoints=zeros(21, 2),
        tokens=zeros(1),
        refine_loss=zeros(1),
        **rows,
    )
