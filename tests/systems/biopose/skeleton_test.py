"""The skeleton inside the free body, and its kinematics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genhmr_jax.geometry.anatomy import ANGLES, BODIES, COORDINATES, GROUPS, PARENTS
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.markers import MARKERS, MIRROR
from genhmr_jax.systems.biopose.kinematics import Pose, by_pose, by_scales, moved, place
from genhmr_jax.systems.biopose.reading import READ, read_angles
from genhmr_jax.systems.biopose.skeleton import closest_angle, rest_of, skeleton_of

BODY = load_body("neutral")
SKELETON = skeleton_of(BODY, np.zeros(10))
PLACE = jax.jit(place)
ONES = np.ones(len(GROUPS), np.float32)


def pose_of(**degrees):
    """One frame; the pelvis upright, facing x."""
    angles = np.zeros((1, len(ANGLES) - 3), np.float32)
    for name, value in degrees.items():
        angles[:, ANGLES.index(name) - 3] = np.radians(value)
    return Pose(jnp.eye(3)[None], jnp.zeros((1, 3)), jnp.asarray(angles))


def inside(points, vertices, faces):
    """Whether points are inside a mesh: its solid angle, 4 pi (van Oosterom and Strackee 1983)."""
    a, b, c = (vertices[faces[:, k]] - points[:, None] for k in range(3))
    la, lb, lc = (np.linalg.norm(x, axis=-1) for x in (a, b, c))
    dot = lambda x, y: np.einsum("nfi,nfi->nf", x, y)
    below = la * lb * lc + dot(a, b) * lc + dot(b, c) * la + dot(c, a) * lb
    solid = 2 * np.arctan2(dot(a, np.cross(b, c)), below).sum(1)
    return np.abs(solid) > 2 * np.pi


def test_joint_centres_are_inside_bodies_and_linear_in_the_shape():
    rng = np.random.default_rng(0)
    directions = BODY.directions[:10]
    shapes = [np.zeros(10), *rng.normal(size=(4, 10))]
    rests = [rest_of(BODY, betas).centres for betas in shapes]
    for betas, centres in zip(shapes, rests, strict=True):
        vertices = np.asarray(BODY.template).T + np.einsum("s,sxv->vx", betas, directions)
        assert inside(centres, vertices, np.asarray(BODY.faces)).all()
    step = sum(
        beta * (rest_of(BODY, unit).centres - rests[0])
        for beta, unit in zip(shapes[1], np.eye(10), strict=True)
    )
    np.testing.assert_allclose(rests[0] + step, rests[1], atol=1e-6)


def test_the_anatomical_position():
    """At zero angles a body stands, arms hang, palms look forward; and it is symmetric."""
    placed = PLACE(SKELETON, pose_of(), ONES)
    at = dict(zip(BODIES, np.asarray(placed.centres[0]), strict=True))
    skin = dict(zip(MARKERS, np.asarray(placed.markers[0]), strict=True))
    for upper, lower in (("femur", "tibia"), ("humerus", "ulna"), ("tibia", "talus")):
        for side in "rl":
            bone = at[f"{lower}_{side}"] - at[f"{upper}_{side}"]
            assert bone[1] / np.linalg.norm(bone) < -0.995
    palm = np.cross(skin["RMC5"] - skin["RMC2"], at["hand_r"] - skin["RFIN"])
    assert palm[0] / np.linalg.norm(palm) > 0.8
    assert skin["RMC2"][2] > skin["RMC5"][2] and skin["LMC2"][2] < skin["LMC5"][2]
    assert skin["RTOE"][0] > skin["RHEE"][0] + 0.15 and skin["CLAV"][0] > skin["C7"][0]
    markers = np.asarray(placed.markers[0])
    np.testing.assert_allclose(markers[MIRROR], markers * [1, 1, -1], atol=3e-3)


def test_the_rest_pose_is_in_reach():
    """The frames of the rest pose are those of the skeleton at the angles of a T pose."""
    rest = rest_of(BODY, np.zeros(10))
    arms = {"arm_add": -90, "arm_rot": -23, "pro_sup": 113}
    angles = {f"{name}_{side}": value for name, value in arms.items() for side in "rl"}
    for side in "rl":
        femur, shank = BODIES.index(f"femur_{side}"), BODIES.index(f"tibia_{side}")
        relative = rest.frames[BODIES.index("pelvis")].T @ rest.frames[femur]
        hip = Rotation.from_matrix(relative).as_euler("ZXY", degrees=True)
        hip = hip * ([1, 1, 1] if side == "r" else [1, -1, -1])
        for name, value in zip(("flexion", "adduction", "rotation"), hip, strict=True):
            angles[f"hip_{name}_{side}"] = value
        knee = rest.frames[femur].T @ rest.frames[shank]
        angles[f"knee_angle_{side}"] = np.degrees(closest_angle(np.array([0, 0, -1.0]), knee))
        foot = rest.frames[shank].T @ rest.frames[BODIES.index(f"talus_{side}")]
        angles[f"ankle_angle_{side}"] = np.degrees(closest_angle(np.array([0, 0, 1.0]), foot))
    pose = pose_of(**angles)
    upright = jnp.asarray(rest.frames[0], jnp.float32)[None]
    pose = Pose(upright, jnp.asarray(rest.centres[:1], jnp.float32), pose.angles)
    placed = PLACE(SKELETON, pose, ONES)
    np.testing.assert_allclose(placed.centres[0], rest.centres, atol=2e-3)
    np.testing.assert_allclose(placed.rotations[0], rest.frames, atol=5e-3)


def test_derivatives():
    """Those of forward-mode differentiation."""
    rng = np.random.default_rng(1)
    turn = Rotation.random(2, random_state=1).as_matrix()
    fields = turn, rng.normal(size=(2, 3)), rng.uniform(-0.5, 0.5, (2, 41))
    pose = Pose(*(jnp.asarray(x, jnp.float32) for x in fields))
    scales = jnp.asarray(rng.uniform(0.9, 1.1, len(GROUPS)), jnp.float32)
    step = jnp.asarray(rng.normal(size=(2, 47)), jnp.float32)
    change = jnp.asarray(rng.normal(size=len(GROUPS)), jnp.float32)

    @jax.jit
    def both(pose, scales):
        along = lambda t: place(SKELETON, moved(pose, t * step), scales + t * change).markers
        placed = place(SKELETON, pose, scales)
        ours = jnp.einsum("fmip,fp->fmi", by_pose(placed), step)
        ours = ours + by_scales(SKELETON, placed) @ change
        return jax.jvp(along, (0.0,), (1.0,))[1], ours

    expected, found = both(pose, scales)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(
    "pose, plane, elevation",
    [({"arm_flex": 70}, 90, 70), ({"arm_add": -60}, 0, 60), ({"arm_flex": -40}, -90, 40)],
)
def test_shoulder_and_trunk_of_the_isb(pose, plane, elevation):
    values = np.zeros((1, 47), np.float32)
    for name, value in pose.items():
        for side in "rl":
            values[:, COORDINATES.index(f"{name}_{side}")] = value
    for part in ("lumbar", "thorax"):
        values[:, COORDINATES.index(f"{part}_extension")] = -15
    found = dict(zip(READ, read_angles(values)[0], strict=True))
    for side in "rl":
        assert found[f"shoulder_plane_{side}"] == pytest.approx(plane, abs=1e-3)
        assert found[f"shoulder_elevation_{side}"] == pytest.approx(elevation, abs=1e-3)
        # The plane is turned back by the axial rotation: the arm itself is not turned.
        assert found[f"shoulder_axial_{side}"] == pytest.approx(-plane, abs=1e-3)
    assert found["trunk_extension"] == pytest.approx(-30, abs=1e-3)
    assert PARENTS[BODIES.index("torso")] == BODIES.index("lumbar")
