import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax
from smpl_jax.keypoints import (
    COCO17,
    OPENPOSE25,
    OPENPOSE25_FROM_SMPL45,
    SMPL24,
    SMPL24_PARENTS,
    SMPL_VERTEX_IDS,
)

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import (
    DETECTED,
    DETECTED_FLIP,
    keypoint_model,
    keypoint_points,
    known_keypoints,
    match,
)

NEUTRAL = load_body("neutral")
FORWARD = jax.jit(smpl_jax.forward)


def random_input(seed=0, batch=(2, 3)):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(*batch, 10)), rng.normal(0, 0.4, (*batch, 72))


def test_detected_names_and_flip():
    assert DETECTED[:17] == COCO17
    assert DETECTED[17:] == (
        "left_big_toe",
        "right_big_toe",
        "left_heel",
        "right_heel",
        "left_index",
        "right_index",
    )
    assert [DETECTED_FLIP[i] for i in DETECTED_FLIP] == list(range(23))
    for i, name in enumerate(DETECTED):
        expected = name.replace("left", "#").replace("right", "left").replace("#", "right")
        assert DETECTED[DETECTED_FLIP[i]] == expected


def test_points_are_the_named_joints_and_vertices():
    output = FORWARD(NEUTRAL, *random_input())
    points = dict(
        zip(DETECTED, np.moveaxis(np.asarray(keypoint_points(NEUTRAL, output)), -2, 0), strict=True)
    )
    for name in (
        "left_shoulder",
        "right_elbow",
        "left_wrist",
        "right_hip",
        "left_knee",
        "right_ankle",
    ):
        np.testing.assert_array_equal(points[name], output.joints[..., SMPL24.index(name), :])
    by_hand = {
        "nose": "nose",
        "left_eye": "leye",
        "right_ear": "rear",
        "left_big_toe": "LBigToe",
        "right_heel": "RHeel",
        "left_index": "lindex",
    }
    for name, vertex in by_hand.items():
        np.testing.assert_array_equal(
            points[name], output.vertices[..., NEUTRAL.vertex_ids[vertex], :]
        )


@pytest.mark.parametrize("body", ["neutral", "male", "female", "lite"])
def test_points_lie_where_their_names_say(body):
    """In the T-pose: left is +x, the face looks along +z, and each point sits next to the joint
    that it belongs to."""
    model = load_body(body)
    output = FORWARD(model, jnp.zeros(10), jnp.zeros(72))
    names = known_keypoints(model)
    points = dict(zip(names, np.asarray(keypoint_points(model, output, names)), strict=True))
    for name, point in points.items():
        if name.startswith(("left", "right")):
            assert (point[0] > 0.02) == name.startswith("left"), name
        else:
            assert abs(point[0]) < 0.02, name
    for side in ("left", "right"):
        assert points[f"{side}_ear"][2] < points[f"{side}_eye"][2] < points["nose"][2]
        assert abs(points[f"{side}_eye"][0]) < abs(points[f"{side}_ear"][0]) < 0.12
        assert 0.0 < points[f"{side}_eye"][1] - points["nose"][1] < 0.1
        assert points[f"{side}_heel"][2] < points[f"{side}_ankle"][2] < points[f"{side}_big_toe"][2]
        assert points[f"{side}_heel"][1] < points[f"{side}_ankle"][1]
        assert abs(points[f"{side}_small_toe"][0]) > abs(points[f"{side}_big_toe"][0])
        reach = np.abs(
            [points[f"{side}_{part}"][0] for part in ("shoulder", "elbow", "wrist", "index")]
        )
        assert np.all(np.diff(reach) > 0.1)
        assert points[f"{side}_index"][2] > points[f"{side}_pinky"][2]
        assert points[f"{side}_thumb"][2] > points[f"{side}_index"][2]


@pytest.mark.parametrize("names", [DETECTED, COCO17, OPENPOSE25], ids=len)
def test_keypoint_model_gives_the_same_points_cheaply(names):
    small = keypoint_model(NEUTRAL)
    assert small.num_vertices == 21 and small.parents == NEUTRAL.parents
    given = random_input(1)
    whole = keypoint_points(NEUTRAL, FORWARD(NEUTRAL, *given), names)
    np.testing.assert_allclose(
        keypoint_points(small, FORWARD(small, *given), names), whole, atol=2e-6
    )
    assert whole.shape == (2, 3, len(names), 3)


def test_smpl_vertices_and_openpose_order():
    """A body with SMPL's 6890 vertices: its ids, against the published OpenPose index list over
    joints and appended vertices."""
    rng = np.random.default_rng(0)
    output = smpl_jax.SmplOutput(
        jnp.asarray(rng.normal(size=(6890, 3))),
        jnp.asarray(rng.normal(size=(24, 3))),
        jnp.zeros((24, 3)),
    )
    model = smpl_jax.SmplModel(
        template=jnp.zeros((3, 6890)),
        blocks=smpl_jax.blocks.make_blocks(np.zeros((217, 3, 6890)), np.zeros((24, 6890))),
        joint_template=jnp.zeros((24, 3)),
        joint_shapedirs=jnp.zeros((10, 24, 3)),
        faces=jnp.zeros((1, 3), int),
        parents=SMPL24_PARENTS,
        joint_names=SMPL24,
        named_vertices=tuple(SMPL_VERTEX_IDS.items()),
    )
    appended = np.concatenate(
        [output.joints, output.vertices[np.array(list(SMPL_VERTEX_IDS.values()))]]
    )
    np.testing.assert_array_equal(
        keypoint_points(model, output, OPENPOSE25), appended[list(OPENPOSE25_FROM_SMPL45)]
    )


def test_unknown_keypoint_is_refused():
    output = FORWARD(NEUTRAL, np.zeros(10), np.zeros(72))
    with pytest.raises(ValueError, match="no keypoint 'tail': choose among pelvis, left_hip"):
        keypoint_points(NEUTRAL, output, ("nose", "tail"))
    with pytest.raises(ValueError, match="no keypoint 'nose'"):
        keypoint_points(NEUTRAL.subset([0, 1]), output, ("nose",))


def test_match():
    assert match(DETECTED, ("right_ankle", "neck", "nose")) == (16, -1, 0)
    to_openpose = match(DETECTED, OPENPOSE25)
    assert all(
        i == -1 or DETECTED[i] == name for i, name in zip(to_openpose, OPENPOSE25, strict=True)
    )
    assert sum(i >= 0 for i in to_openpose) == 21


def test_gradients_of_keypoints_are_finite_at_rest():
    small = keypoint_model(NEUTRAL)
    loss = lambda betas, pose: jnp.sum(
        keypoint_points(small, smpl_jax.forward(small, betas, pose)) ** 2
    )
    gradients = jax.jit(jax.grad(loss, (0, 1)))(jnp.zeros(10), jnp.zeros(72))
    for gradient in gradients:
        assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)
