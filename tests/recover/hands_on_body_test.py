"""Hands on bodies: which are believed, what changes in the people, and what stays."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import COCO17, SMPL24

from genhmr_jax.cli import main
from genhmr_jax.geometry.fingers import full_pose, load_fingers
from genhmr_jax.geometry.hand import mirror_pose
from genhmr_jax.geometry.keypoints import keypoint_points
from genhmr_jax.geometry.wrist import twist_about
from genhmr_jax.recover import hands_on_body
from genhmr_jax.recover.people import People
from support.people_and_hands import (
    BENT,
    FORWARD,
    hands_of,
    people_of,
    project,
)

ARM = ("left_elbow", "right_elbow", "left_wrist", "right_wrist")


@pytest.fixture(scope="module")
def people():
    """Two people: arms a little bent, then arms straight."""
    pose = np.zeros((2, 24, 3))
    pose[:, 0] = [np.pi, 0, 0]  # y down, towards the camera
    pose[0, SMPL24.index("left_elbow")] = [0.2, -0.7, 0.1]
    pose[0, SMPL24.index("right_elbow")] = [0.1, 0.6, 0.2]
    pose[1, SMPL24.index("left_hand")] = [0, 0, -0.3]
    return people_of(pose)


def orientation(people, person, joint, local=(0, 0, 0)):
    """Orientation in camera axes of a joint below a straight shoulder, turned further."""
    turn = Rotation.from_rotvec(people.global_orient[person])
    at = 3 * (SMPL24.index(joint) - 1)
    elbow = Rotation.from_rotvec(people.body_pose[person, at : at + 3])
    return (turn * elbow * Rotation.from_rotvec(np.radians(local))).as_matrix()


def test_a_hand_turns_its_wrist_and_shares_the_twist_with_the_elbow(people):
    wanted = orientation(people, 0, "left_elbow", (-60, 10, -20))
    hands = hands_of(people, [(0, "left", wanted)])
    found = hands_on_body.put_hands(people, hands, load_fingers())
    pose = np.concatenate([found.global_orient, found.body_pose], -1).reshape(2, 24, 3)
    wrist, elbow = (SMPL24.index(f"left_{name}") for name in ("wrist", "elbow"))
    turns = Rotation.from_rotvec(pose[0]).as_matrix()
    np.testing.assert_allclose(turns[0] @ turns[elbow] @ turns[wrist], wanted, atol=1e-5)
    joints = np.asarray(load_fingers().joint_template)
    axis = (joints[wrist] - joints[elbow]) / np.linalg.norm(joints[wrist] - joints[elbow])
    twists = np.degrees([twist_about(turns[joint], axis)[1] for joint in (elbow, wrist)])
    assert twists[0] == pytest.approx(twists[1], abs=0.01) and -45 < twists[1] < -20
    # Everything else stays.
    assert found.wrist_from_hand.tolist() == [[True, False], [False, False]]
    before = np.concatenate([people.global_orient, people.body_pose], -1).reshape(2, 24, 3)
    others = [joint for joint in range(24) if joint not in (wrist, elbow)]
    np.testing.assert_array_equal(pose[0, others], before[0, others])
    np.testing.assert_array_equal(pose[1], before[1])
    np.testing.assert_allclose(found.joints[:, :22], people.joints[:, :22], atol=1e-5)
    np.testing.assert_allclose(found.left_hand_confidence, [0.45, 0], atol=1e-6)
    np.testing.assert_allclose(found.left_hand_pose[0], mirror_pose(BENT).reshape(45), atol=1e-6)
    assert not found.right_hand_pose.any() and not found.right_hand_confidence.any()
    # Without a hand the four fingers turn as the joint of the body, the thumb does not.
    assert found.left_hand_pose[1].reshape(15, 3).any(1).sum() == 4


def test_the_mesh_is_that_of_the_pose_and_points_as_the_hand(people, tmp_path):
    fingers, turn = load_fingers(), orientation(people, 1, "right_elbow", (0, 10, 30))
    hands = hands_of(people, [(1, "right", turn)])
    hands_on_body.put_hands(people, hands, fingers).save(tmp_path / "x.npz")
    found = People.load(tmp_path / "x.npz")
    pose = full_pose(
        found.global_orient, found.body_pose, found.left_hand_pose, found.right_hand_pose
    )
    output = FORWARD(fingers, found.betas, pose, found.translation)
    np.testing.assert_allclose(found.vertices, output.vertices, atol=2e-5)
    assert found.vertices.shape == people.vertices.shape
    knuckle, tip = (fingers.joint_names.index(f"right_middle{part}") for part in (1, 3))
    own = np.asarray(output.joints)[1, [knuckle, tip]]
    free = hands.joints[0, [4, 6]]
    a, b = (p[1] - p[0] for p in (own, free))
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert np.degrees(np.arccos(min(cosine, 1))) < 2
    points = np.asarray(keypoint_points(fingers, output, COCO17))
    np.testing.assert_allclose(found.projected_keypoints, project(points), atol=0.02)
    np.testing.assert_allclose(found.joints2d, project(found.joints), atol=0.02)


def test_the_forearm_turns_to_where_the_hand_is(people):
    hands = hands_of(people, [(1, "right", orientation(people, 1, "right_elbow"))])
    moved = hands.keypoints2d + [0, 12, 0]  # px: 45 mm down at a depth of 3 m
    wrist, elbow = (SMPL24.index(f"right_{name}") for name in ("wrist", "elbow"))
    found = hands_on_body.put_hands(
        people, dataclasses.replace(hands, keypoints2d=moved), load_fingers()
    )
    shift = found.joints2d[1, wrist] - people.joints2d[1, wrist]
    np.testing.assert_allclose(shift, [0, 12], atol=1.5)
    np.testing.assert_allclose(found.joints[1, elbow], people.joints[1, elbow], atol=1e-5)
    bones = [np.linalg.norm(p.joints[1, wrist] - p.joints[1, elbow]) for p in (people, found)]
    assert bones[0] == pytest.approx(bones[1], abs=1e-5)
    pose = np.concatenate([found.global_orient, found.body_pose], -1).reshape(2, 24, 3)[1]
    turns = Rotation.from_rotvec(pose).as_matrix()
    wanted = orientation(people, 1, "right_elbow")
    np.testing.assert_allclose(turns[0] @ turns[elbow] @ turns[wrist], wanted, atol=1e-5)


def test_what_cannot_be_is_not_believed(people):
    fingers, straight = load_fingers(), orientation(people, 0, "right_elbow")
    # A hand bent backwards by 150 degrees: its fingers are used, the wrist is not.
    back = orientation(people, 0, "right_elbow", (0, 0, -150))
    found = hands_on_body.put_hands(people, hands_of(people, [(0, "right", back)]), fingers)
    assert found.right_hand_confidence[0] > 0 and not found.wrist_from_hand.any()
    np.testing.assert_array_equal(found.body_pose, people.body_pose)
    # A hand elsewhere, and one of 2.5 times the size.
    hands = hands_of(people, [(0, "right", straight)])
    moved = hands.keypoints2d + [80, 0, 0]  # 0.3 m
    closer = {"joints": hands.joints / 2.5}
    for change in ({"keypoints2d": moved}, closer):
        wrong = dataclasses.replace(hands, **change)
        found = hands_on_body.put_hands(people, wrong, fingers)
        assert not found.right_hand_confidence.any() and not found.wrist_from_hand.any()
    # Of two hands at one wrist, the clearer one.
    hands = hands_of(people, [(0, "right", back), (0, "right", straight)])
    scores = {"scores": np.array([0.6, 0.95])}
    found = hands_on_body.put_hands(people, dataclasses.replace(hands, **scores), fingers)
    np.testing.assert_allclose(found.right_hand_confidence[0], 0.475, atol=1e-6)
    assert found.wrist_from_hand[0, 1]


def test_nobody(people):
    def none_of(results):
        rows = {name for name, shape in results.shapes.items() if shape[:1] == ("P",)}
        arrays = {name: a[:0] for name, a in results.arrays().items() if name in rows}
        return dataclasses.replace(results, **arrays)

    hands = none_of(hands_of(people, [(0, "left", np.eye(3))]))
    found = hands_on_body.put_hands(none_of(people), hands, load_fingers())
    assert len(found) == 0 and found.left_hand_pose.shape == (0, 45)


@pytest.mark.slow
def test_the_command_poses_the_fingers_of_the_sample(tmp_path):
    for name, flags in (("plain", []), ("hands", ["--hands"])):
        arguments = ["demo", "--out", str(tmp_path / name), "--no-overlay", *flags]
        assert main.main(arguments) == 0
    plain, found = (People.load(tmp_path / n / "person.npz") for n in ("plain", "hands"))
    assert plain.left_hand_pose is None and found.left_hand_pose.shape == (len(plain), 45)
    arms = [3 * (SMPL24.index(n) - 1) + k for n in ARM for k in range(3)]
    kept = np.setdiff1d(np.arange(69), arms)
    np.testing.assert_array_equal(found.body_pose[:, kept], plain.body_pose[:, kept])
    np.testing.assert_array_equal(found.betas, plain.betas)
    skin = load_fingers().weights[:20].sum(0) > 0.999  # neither forearm nor hand
    skin &= load_fingers().weights[[18, 19]].sum(0) == 0
    moved = np.linalg.norm(found.vertices - plain.vertices, axis=-1)
    assert moved[:, skin].max() < 1e-4 and moved.max() < 0.5
