"""Weights, the joint regressor and the pose blend shapes."""

import numpy as np
from scipy.optimize import nnls
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import SMPL24, SMPL24_FLIP, SMPL24_PARENTS

from free_body.geometry import MIRROR, apply, exponential
from free_body.mesh import HalfMesh

FLIP, PARENTS = np.array(SMPL24_FLIP), np.array(SMPL24_PARENTS)
TRUNK = [SMPL24.index(name) for name in ("pelvis", "spine1", "spine2", "spine3")]

# Spread of poses for which the corrections are fitted: standard deviations about x, y, z, radians.
POSE_SPREAD = {
    "hip": (0.7, 0.3, 0.3),
    "spine1": (0.25, 0.2, 0.2),
    "spine2": (0.2, 0.2, 0.15),
    "spine3": (0.2, 0.2, 0.15),
    "knee": (0.8, 0.1, 0.1),
    "ankle": (0.3, 0.15, 0.2),
    "foot": (0.3, 0.05, 0.05),
    "neck": (0.3, 0.35, 0.2),
    "head": (0.25, 0.3, 0.2),
    "collar": (0.1, 0.2, 0.25),
    "shoulder": (0.5, 0.6, 0.7),
    "elbow": (0.5, 0.9, 0.3),
    "wrist": (0.4, 0.4, 0.5),
    "hand": (0.2, 0.2, 0.3),
}


def joint_weights(
    bone_weights: np.ndarray, joints: list[str], source_mirror: np.ndarray, mesh: HalfMesh
) -> np.ndarray:
    """Skinning weights (V, 24): each bone's go to its joint; symmetric, at most four a vertex, none
    under 0.01."""
    to_joint = np.zeros((bone_weights.shape[1], 24))
    to_joint[np.arange(len(joints)), [SMPL24.index(joint) for joint in joints]] = 1
    source = bone_weights @ to_joint
    half = mesh.operator @ (0.5 * (source + source[source_mirror][:, FLIP]))
    weights = np.concatenate([half, half[: mesh.left][:, FLIP]])
    middle = slice(mesh.left, mesh.left + mesh.middle)
    weights[middle] = 0.5 * (weights[middle] + weights[middle][:, FLIP])
    fifth = np.sort(weights, 1)[:, -5, None]
    weights[(weights <= fifth) | (weights < 0.01)] = 0
    return weights / weights.sum(1, keepdims=True)


def centre_trunk(
    joints: np.ndarray, samples: np.ndarray, weights: np.ndarray, share: float = 0.5
) -> np.ndarray:
    """Moves the trunk's joints (n, 24, 3) from the vertebral column towards the middle of the
    trunk, where SMPL has them."""
    joints = joints.copy()
    mean, mean_joints = samples.mean(0), joints.mean(0)
    trunk = weights[:, TRUNK].sum(1) > 0.5
    for joint in TRUNK:
        belt = np.flatnonzero(
            trunk
            & (np.abs(mean[:, 1] - mean_joints[joint, 1]) < 0.025)
            & (np.abs(mean[:, 0]) < 0.05)
        )
        ahead = mean[belt, 2] > mean_joints[joint, 2] + 0.06
        middle = 0.5 * (samples[:, belt[ahead], 2].mean(1) + samples[:, belt[~ahead], 2].mean(1))
        joints[:, joint, 2] += share * (middle - joints[:, joint, 2])
    return joints


def fit_regressor(
    samples: np.ndarray, joints: np.ndarray, weights: np.ndarray, mirror: np.ndarray
) -> np.ndarray:
    """Joint regressor (24, V): sparse, non-negative, rows sum to 1, symmetric; least squares over
    the samples (n, V, 3)."""
    mean, mean_joints = samples.mean(0), joints.mean(0)
    regressor = np.zeros((24, len(mean)))
    for joint in range(24):
        near = _skin_around(joint, mean, mean_joints[joint], weights)
        spread = (samples[:, near] - mean[near]).transpose(0, 2, 1).reshape(-1, len(near))
        strong = (
            np.sqrt(len(spread)) * 5
        )  # the mean position and the sum of 1 are nearly hard constraints
        weak = 0.001 * np.sqrt(len(spread)) * np.eye(len(near))
        matrix = np.vstack([spread, strong * mean[near].T, strong * np.ones((1, len(near))), weak])
        target = np.concatenate(
            [
                (joints[:, joint] - mean_joints[joint]).reshape(-1),
                strong * mean_joints[joint],
                [strong],
                np.zeros(len(near)),
            ]
        )
        row, _ = nnls(matrix, target, maxiter=20000)
        row[row < 2e-3 * row.max()] = 0
        regressor[joint, near] = row / row.sum()
    regressor = 0.5 * (regressor + regressor[FLIP][:, mirror])
    return regressor / regressor.sum(1, keepdims=True)


def _skin_around(
    joint: int, mean: np.ndarray, position: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Vertices that a joint may be regressed from: the nearest of its own or its parent's skin; for
    the trunk, a belt."""
    if joint in TRUNK:
        height = np.where(weights[:, TRUNK].sum(1) > 0.6, np.abs(mean[:, 1] - position[1]), 9.0)
        return np.argsort(height)[:220]
    related = weights[:, joint] + weights[:, PARENTS[joint]]
    return np.argsort(np.linalg.norm(mean - position, axis=1) + np.where(related > 0.3, 0, 1.0))[
        :160
    ]


def fit_pose_directions(
    template: np.ndarray,
    joints: np.ndarray,
    weights: np.ndarray,
    mirror: np.ndarray,
    poses: int = 700,
    blend: float = 0.8,
    seed: int = 0,
) -> np.ndarray:
    """Pose blend shapes (V, 3, 207) that take linear blend skinning towards dual quaternion
    skinning: bent joints do not collapse.

    Geometric, not learned: bulging muscles are not in them.
    """
    rotations = exponential(_random_poses(np.random.default_rng(seed), poses))
    motions = _motions(rotations, joints)
    features = (rotations[:, 1:] - np.eye(3)).reshape(poses, 207)
    wanted = np.zeros((poses, *template.shape))
    for i, motion in enumerate(motions):
        blended = np.einsum("vj,jab->vab", weights, motion)
        linear = blended[:, :, :3]
        gap = blend * (
            dual_quaternion_skinning(template, weights, motion)
            - apply(linear, template)
            - blended[:, :, 3]
        )
        # Back to the rest pose, damped where blending has nearly flattened the matrix.
        back = np.swapaxes(linear, 1, 2)
        wanted[i] = np.linalg.solve(back @ linear + 0.05 * np.eye(3), apply(back, gap)[..., None])[
            ..., 0
        ]
    directions = _regress(features, wanted, weights)
    return 0.5 * (directions + _mirrored(directions, mirror))


def _regress(features: np.ndarray, wanted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ridge regression of each vertex on the rotations of the joints that move it, and no
    others."""
    directions = np.zeros((*wanted.shape[1:], 207))
    groups: dict[tuple[int, ...], list[int]] = {}
    for vertex, row in enumerate(weights > 1e-3):
        groups.setdefault(tuple(np.flatnonzero(row)), []).append(vertex)
    for moved_by, vertices in groups.items():
        siblings = lambda j, among=moved_by: any(
            PARENTS[j] == PARENTS[other] for other in among if other != j
        )
        causes = [
            j
            for j in moved_by
            if j > 0 and len(moved_by) > 1 and (PARENTS[j] in moved_by or siblings(j))
        ]
        if not causes:
            continue
        columns = np.concatenate([np.arange(9 * (j - 1), 9 * j) for j in causes])
        used = features[:, columns]
        solution = np.linalg.solve(
            used.T @ used + 0.5 * np.eye(len(columns)),
            used.T @ wanted[:, vertices].reshape(len(used), -1),
        )
        solution = solution.reshape(len(columns), len(vertices), 3).transpose(1, 2, 0)
        directions[np.array(vertices)[:, None, None], np.arange(3)[None, :, None], columns] = (
            solution
        )
    return directions


def _mirrored(directions: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """The same blend shapes seen in a mirror: vertices, joints and the entries of each rotation."""
    sign = np.outer(MIRROR, MIRROR).reshape(9)
    result = np.zeros_like(directions)
    for joint in range(1, 24):
        source, target = (
            slice(9 * (joint - 1), 9 * joint),
            slice(9 * (FLIP[joint] - 1), 9 * FLIP[joint]),
        )
        result[:, :, target] = directions[mirror][:, :, source] * MIRROR[None, :, None] * sign
    return result


def _random_poses(rng: np.random.Generator, count: int) -> np.ndarray:
    poses = np.zeros((count, 24, 3))
    for joint, name in enumerate(SMPL24[1:], start=1):
        part = name.split("_")[-1]
        poses[:, joint] = rng.normal(size=(count, 3)) * np.array(POSE_SPREAD[part])
        if part == "knee":
            poses[:, joint, 0] = 1.3 * np.abs(poses[:, joint, 0])
        if part == "elbow":
            poses[:, joint, 1] = (
                1.2 * np.abs(poses[:, joint, 1]) * (-1 if name.startswith("left") else 1)
            )
    return poses


def _motions(rotations: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """[R | t] (n, 24, 3, 4) from the rest pose to the world."""
    world, positions = np.zeros_like(rotations), np.zeros((*rotations.shape[:2], 3))
    for joint, parent in enumerate(PARENTS):
        world[:, joint] = (
            rotations[:, joint] if parent < 0 else world[:, parent] @ rotations[:, joint]
        )
        positions[:, joint] = (
            joints[0]
            if parent < 0
            else positions[:, parent] + apply(world[:, parent], joints[joint] - joints[parent])
        )
    return np.concatenate([world, (positions - apply(world, joints))[..., None]], -1)


def dual_quaternion_skinning(
    vertices: np.ndarray, weights: np.ndarray, motions: np.ndarray
) -> np.ndarray:
    """Kavan et al., "Geometric skinning with approximate dual quaternion blending", 2008. motions:
    (24, 3, 4)."""
    real = Rotation.from_matrix(motions[:, :, :3]).as_quat()[:, [3, 0, 1, 2]]
    for joint, parent in enumerate(PARENTS):  # each in the hemisphere of its parent
        if parent >= 0 and np.dot(real[joint], real[parent]) < 0:
            real[joint] *= -1
    w, v = real[:, :1], real[:, 1:]
    t = motions[:, :, 3]
    dual = 0.5 * np.concatenate([-np.sum(t * v, 1, keepdims=True), w * t + np.cross(t, v)], 1)
    real, dual = weights @ real, weights @ dual
    length = np.linalg.norm(real, axis=1, keepdims=True)
    real, dual = real / length, dual / length
    w, v = real[:, :1], real[:, 1:]
    turned = vertices + 2 * np.cross(v, np.cross(v, vertices) + w * vertices)
    return turned + 2 * (w * dual[:, 1:] - dual[:, :1] * v + np.cross(v, dual[:, 1:]))
