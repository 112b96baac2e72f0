"""The body with fingers is the neutral body, and its fingers move as those of the free hand."""

import jax
import numpy as np
import pytest
import smpl_jax
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import SMPL24, SMPLH52

from genhmr_jax.geometry import fingers
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.fingers import SIDES, full_pose, hand_rows, load_fingers
from genhmr_jax.geometry.hand import HAND_JOINTS, TIPS, hand_keypoints, load_hand, mirror_pose
from genhmr_jax.geometry.hand_axes import hand_axes
from genhmr_jax.io.errors import InputError
from support.python2_pickles import python2_pickle

# SMPL-H's parents, written out: SMPL's 22 joints, then five fingers on each wrist (20 and 21).
SMPLH_PARENTS = (
    *(-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19),
    *(20, 22, 23, 20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35),
    *(21, 37, 38, 21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50),
)
FORWARD = jax.jit(smpl_jax.forward)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model():
    return load_fingers()


@pytest.fixture(scope="module")
def poses():
    """Two poses of the right hand, radians: every finger bent, and spread."""
    axes = hand_axes(load_hand())
    angles = np.repeat(axes.rest[None], 2, 0)
    angles[0] += np.radians([45, 0, 0])
    angles[1] += np.radians([20, 12, 8])
    return axes.rotations_from_angles(angles)


def body_pose(spread=0.4, seed=0):
    """A pose of 24 joints whose last two, the hands, are straight."""
    pose = np.random.default_rng(seed).normal(0, spread, (24, 3)).astype(np.float32)
    pose[22:] = 0
    return pose


def with_hands(pose, left=None, right=None):
    """The pose of 52 joints with the body of a pose of 24."""
    hands = (np.zeros(45) if hand is None else np.reshape(hand, 45) for hand in (left, right))
    return full_pose(pose[0], pose[1:].reshape(69), *hands).astype(np.float32)


def test_joints_are_those_of_smplh(model):
    assert model.parents == SMPLH_PARENTS and model.joint_names == SMPLH52
    assert SMPLH52[22:25] == ("left_index1", "left_index2", "left_index3")
    assert [SMPLH52[22 + 3 * k] for k in range(5)] == [
        f"left_{finger}1" for finger in ("index", "middle", "pinky", "ring", "thumb")
    ]
    assert SMPLH52[hand_rows("right")][-1] == "right_thumb3"


def test_with_straight_fingers_it_is_the_neutral_body(model):
    body, betas, pose = load_body("neutral"), RNG.normal(0, 1, 10), body_pose()
    wanted, found = FORWARD(body, betas, pose), FORWARD(model, betas, with_hands(pose))
    assert np.array_equal(model.faces, body.faces) and model.named_vertices == body.named_vertices
    np.testing.assert_allclose(found.vertices, wanted.vertices, atol=5e-6)
    np.testing.assert_allclose(found.joints[:22], wanted.joints[:22], atol=2e-6)


def test_a_finger_moves_only_its_own_skin(model):
    rest = FORWARD(model, np.zeros(10), np.zeros(156, np.float32)).vertices
    pose = np.zeros((52, 3), np.float32)
    pose[SMPLH52.index("left_index1")] = [0, 0, -0.5]
    moved = np.linalg.norm(FORWARD(model, np.zeros(10), pose).vertices - rest, axis=-1)
    tips = [model.vertex_ids[name] for name in ("lindex", "lmiddle", "lthumb", "rindex", "nose")]
    assert moved[tips[0]] > 0.03 and (moved[tips[1:]] == 0).all()
    assert 20 < (moved > 1e-4).sum() < 400
    weights = model.weights
    np.testing.assert_allclose(weights.sum(0), 1, atol=1e-6)
    assert (weights > 0).sum(0).max() <= 4


@pytest.mark.parametrize("side", SIDES)
def test_hand_poses_mean_the_same_as_on_the_free_hand(model, poses, side):
    """Directions of all finger bones, with wrists aligned.

    Joints come from one source, and differ by the fit of two regressors. A last bone ends in a
    vertex of the tip, for which body and hand have chosen different ones.
    """
    hand = load_hand(side=side)
    for pose in poses:
        pose = pose if side == "right" else np.asarray(mirror_pose(pose))
        alone = FORWARD(hand, np.zeros(10), np.concatenate([np.zeros((1, 3)), pose]))
        whole = FORWARD(model, np.zeros(10), with_hands(np.zeros((24, 3)), **{side: pose}))
        rows = [SMPL24.index(f"{side}_wrist"), *range(52)[hand_rows(side)]]
        points, others = np.asarray(alone.joints), np.asarray(whole.joints)[rows]
        assert angle(points, others, [(k, k + 1) for k in _inner()]).max() < 0.3
        assert angle(points, others, [(0, k) for k in (1, 4, 7, 10, 13)]).max() < 0.3
        tips = np.asarray(hand_keypoints(hand, alone))[[4, 8, 12, 16, 20]]
        names = [f"{side[0]}{name.removesuffix('_tip')}" for name in TIPS]
        own = np.asarray(whole.vertices)[[model.vertex_ids[name] for name in names]]
        last = [HAND_JOINTS.index(name.replace("_tip", "3")) for name in TIPS]
        assert angle(np.array([points[last], tips]), np.array([others[last], own])).max() < 8


def _inner():
    """The joints from which a bone leads to the next joint of the same finger."""
    return [joint for joint in range(1, 16) if joint % 3]


def angle(points, others, bones=None):
    """Angles between bones of two hands, degrees; `bones` are pairs of indices."""
    ends = np.array([(0, 1)] if bones is None else bones)
    a, b = (np.asarray(p)[ends[:, 1]] - np.asarray(p)[ends[:, 0]] for p in (points, others))
    a, b = (v.reshape(-1, 3) / np.linalg.norm(v.reshape(-1, 3), axis=-1)[:, None] for v in (a, b))
    return np.degrees(np.arccos(np.clip((a * b).sum(-1), -1, 1)))


def test_the_joint_of_a_hand_turns_four_fingers():
    turn = np.float32([0.1, -0.2, 0.6])
    pose = fingers.fingers_of_hand_joint(turn[None])[0]
    turned = {HAND_JOINTS[1 + k] for k in range(15) if pose[k].any()}
    assert turned == {"index1", "middle1", "ring1", "pinky1"}
    assert (pose[[0, 3, 6, 9]] == turn).all()


def test_without_fingers_is_the_same_body_for_straight_fingers(model):
    body, betas, pose = fingers.without_fingers(model), RNG.normal(0, 1, 10), body_pose(seed=2)
    assert body.joint_names == SMPL24
    wanted, found = FORWARD(model, betas, with_hands(pose)), FORWARD(body, betas, pose)
    np.testing.assert_allclose(found.vertices, wanted.vertices, atol=5e-6)
    original = np.asarray(load_body("neutral").joint_template)
    np.testing.assert_allclose(np.asarray(body.joint_template), original, atol=3e-3)
    pose[22] = [0, 0, -0.5]
    moved = np.linalg.norm(FORWARD(body, betas, pose).vertices - found.vertices, axis=-1)
    assert moved[body.vertex_ids["lring"]] > 0.03 and moved[body.vertex_ids["lthumb"]] == 0


class Ch:
    """A stand-in for a chumpy array, pickled under chumpy's name."""

    def __init__(self, x):
        self.x = x


Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"


def smplh_arrays(vertices=6890):
    """Random tables of the shapes of SMPLH_MALE.pkl."""
    rng = np.random.default_rng(5)
    regressor, weights = np.zeros((52, vertices)), np.zeros((vertices, 52))
    for row in regressor:
        row[rng.choice(vertices, 8, replace=False)] = 1 / 8
    weights[np.arange(vertices), rng.integers(0, 52, vertices)] = 0.75
    weights[np.arange(vertices), rng.integers(0, 52, vertices)] += 0.25
    parents = np.array(SMPLH_PARENTS)
    return {
        "v_template": rng.normal(0, 0.3, (vertices, 3)),
        "shapedirs": rng.normal(0, 0.01, (vertices, 3, 16)),
        "posedirs": rng.normal(0, 0.001, (vertices, 3, 459)),
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": np.stack([np.where(parents < 0, 2**32 - 1, parents), np.arange(52)]),
        "f": rng.integers(0, vertices, (500, 3)).astype(np.uint32),
    }


def reference(arrays, betas, pose):
    """Vertices and joints as in the paper of SMPL: 4x4 matrices, loops, float64."""
    turns = Rotation.from_rotvec(pose).as_matrix()
    shaped = arrays["v_template"] + arrays["shapedirs"][..., :10] @ betas
    joints = arrays["J_regressor"] @ shaped
    rest = shaped + arrays["posedirs"] @ (turns[1:] - np.eye(3)).reshape(-1)
    world, vertices = [], np.zeros_like(rest)
    for joint, parent in enumerate(SMPLH_PARENTS):
        local = np.eye(4)
        local[:3, :3], local[:3, 3] = turns[joint], joints[joint]
        local[:3, 3] -= joints[parent] if joint else 0
        world.append(world[parent] @ local if joint else local)
        turned = (rest - joints[joint]) @ world[joint][:3, :3].T + world[joint][:3, 3]
        vertices += arrays["weights"][:, joint, None] * turned
    return vertices, np.array([matrix[:3, 3] for matrix in world])


@pytest.mark.parametrize("suffix", [".pkl", ".npz"])
def test_smplh_files_of_the_user(tmp_path, suffix):
    """Files in the official layout, made up; the whole body and its form without fingers."""
    arrays, path = smplh_arrays(), tmp_path / f"SMPLH_MALE{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        content = arrays | {key: Ch(arrays[key]) for key in ("shapedirs", "weights")}
        path.write_bytes(python2_pickle(content | {"bs_type": "lrotmin"}))
    model = load_fingers(path)
    betas, pose = RNG.normal(0, 1, 10), RNG.normal(0, 0.4, (52, 3))
    vertices, joints = reference(arrays, betas, pose)
    found = FORWARD(model, betas, pose.astype(np.float32))
    np.testing.assert_allclose(found.vertices, vertices, atol=2e-5)
    np.testing.assert_allclose(found.joints, joints, atol=1e-5)
    assert model.vertex_ids["lindex"] == 2319
    pose[22:] = 0
    body = fingers.without_fingers(model)
    found = FORWARD(body, betas, np.concatenate([pose[:22], np.zeros((2, 3))]).astype(np.float32))
    np.testing.assert_allclose(found.vertices, reference(arrays, betas, pose)[0], atol=2e-5)


def test_a_mesh_of_its_own_gets_all_keypoints(model, tmp_path):
    """The free body with fingers in the layout of SMPL-H, without names of joints and vertices."""
    tables, shapes = model.directions.transpose(2, 1, 0), model.num_betas
    parents, near = np.array(SMPLH_PARENTS), np.zeros((52, model.num_vertices))
    template = np.asarray(model.template).T
    for row, joint in zip(near, np.asarray(model.joint_template), strict=True):
        chosen = np.argsort(np.linalg.norm(template - joint, axis=-1))[:200]
        system = np.vstack([template[chosen].T, np.ones(200)])
        row[chosen] = np.linalg.lstsq(system, np.append(joint, 1), rcond=None)[0]
    np.savez(
        tmp_path / "own.npz",
        v_template=template,
        shapedirs=tables[..., :shapes],
        posedirs=tables[..., shapes:],
        J_regressor=near,
        weights=model.weights.T,
        kintree_table=np.stack([parents, np.arange(52)]),
        f=np.asarray(model.faces),
    )
    own = load_fingers(tmp_path / "own.npz")
    assert own.vertex_ids.keys() == model.vertex_ids.keys()
    places = [
        np.asarray(m.template)[:, [m.vertex_ids[n] for n in model.vertex_ids]] for m in (model, own)
    ]
    assert np.linalg.norm(places[0] - places[1], axis=0).max() < 0.02


def test_bodies_without_fingers_are_refused(tmp_path):
    with pytest.raises(InputError, match="no body with fingers; use neutral, or an SMPL-H file"):
        load_fingers("male")
    arrays = smplh_arrays(90)
    arrays |= {"weights": np.zeros((90, 55)), "J_regressor": np.zeros((55, 90))}
    arrays |= {"posedirs": np.zeros((90, 3, 486)), "kintree_table": np.zeros((2, 55), np.int64)}
    np.savez(tmp_path / "SMPLX_MALE.npz", **arrays)
    with pytest.raises(InputError, match=r"is a body of SMPL-X \(55 joints\), but SMPL-H"):
        load_fingers(tmp_path / "SMPLX_MALE.npz")
