import jax
import numpy as np
import pytest
import smpl_jax

from genhmr_jax.data.hands import grasps, postures
from genhmr_jax.data.hands.contacts import penetration, segment_distance
from genhmr_jax.data.hands.prior import TOLERANCE, HandPrior
from genhmr_jax.data.hands.ranges import DIP_OF_PIP, limits
from genhmr_jax.geometry.hand import FINGERS, HAND_JOINTS, hand_keypoints, load_hand
from genhmr_jax.geometry.hand_axes import hand_axes
from support.hand_skin import skin_penetration

COUNT = 1500
FLEXION = np.array([FINGERS[name] for name in postures.LONG]) - 1


@pytest.fixture(scope="module")
def prior():
    return HandPrior(load_hand())


@pytest.fixture(scope="module")
def angles(prior):
    return prior.sample_angles(np.random.default_rng(0), COUNT)


def posed(poses):
    """Vertices and keypoints of the free hand, with the wrist at rest."""
    model = load_hand()
    poses = np.concatenate([np.zeros((len(poses), 1, 3), np.float32), poses], 1)
    output = jax.jit(smpl_jax.forward)(model, np.zeros(10, np.float32), poses)
    return np.asarray(output.vertices), np.asarray(hand_keypoints(model, output))


def test_signs_of_the_angles():
    """In the free hand's frame the palm faces -y, and the thumb is at +z."""
    axes = hand_axes(load_hand())
    tips = dict(thumb=4, index=8, middle=12, ring=16, pinky=20)
    angles, names = [axes.rest], []
    for name in FINGERS:
        for kind in (0, 1):
            turned = axes.rest.copy()
            turned[FINGERS[name][0] - 1, kind] += 0.3
            angles.append(turned)
            names.append((name, kind))
    _, points = posed(axes.rotations_from_angles(np.stack(angles)))
    moved = {key: points[i + 1] - points[0] for i, key in enumerate(names)}
    for name in postures.LONG:
        assert moved[name, 0][tips[name], 1] < -0.012  # flexion: towards the palm
        sideways = moved[name, 1][tips[name], 2]  # abduction: the fingers spread
        assert sideways * (1 if name in ("index", "middle") else -1) > 0.012
    assert moved["thumb", 0][4, 2] < -0.015  # across the palm
    assert moved["thumb", 1][4, 1] < -0.008  # away from the palm


def test_angles_there_and_back(prior, angles):
    axes = prior.hand.axes
    back = axes.angles_from_rotations(axes.rotations_from_angles(angles[:50]))
    np.testing.assert_allclose(back, angles[:50], atol=1e-5)


def test_bones_are_those_of_the_mesh(prior, angles):
    axes = prior.hand.axes
    _, points = posed(axes.rotations_from_angles(angles[:8]))
    rotmats = axes.rotmats_from_angles(angles[:8])
    ends = axes.moved(rotmats, axes.ends[:, None])[:, :, 0]
    for finger, first in (("thumb", 1), ("index", 5), ("middle", 9), ("ring", 13), ("pinky", 17)):
        # The skin of a tip also follows other bones a little.
        found = ends[:, np.array(FINGERS[finger]) - 1]
        np.testing.assert_allclose(found, points[:, first + 1 : first + 4], atol=2e-4)


def test_poses_are_within_the_ranges_of_motion(angles):
    low, high = np.moveaxis(limits(), -1, 0)
    assert angles.shape == (COUNT, 15, 3)
    assert np.all(angles >= low - 1e-9) and np.all(angles <= high + 1e-9)


@pytest.mark.parametrize("split", ["train", "val", "grasps"])
def test_no_parts_of_the_hand_overlap(prior, split):
    poses = prior.sample(np.random.default_rng(1), 200, split)
    assert poses.dtype == np.float32 and poses.shape == (200, 15, 3)
    assert penetration(prior.hand, poses).max() <= TOLERANCE
    assert penetration(load_hand(), poses[:3]).max() <= TOLERANCE


def test_capsules_see_what_the_skin_shows(prior):
    """Fingers crossed at their middle overlap by capsules and skin; an open hand by neither."""
    crossed = prior.hand.axes.rest.copy()
    crossed[FINGERS["index"][0] - 1, 1], crossed[FINGERS["middle"][0] - 1, 1] = -0.3, 0.3
    poses = prior.hand.axes.rotations_from_angles(np.stack([crossed, prior.hand.axes.rest]))
    sampled = prior.sample(np.random.default_rng(2), 6)
    vertices, _ = posed(np.concatenate([poses, sampled]))
    model = load_hand()
    owner, faces = model.weights.argmax(0), np.asarray(model.faces)
    skin = [skin_penetration(hand, faces, owner) for hand in vertices]
    assert skin[0] > 0.003 and penetration(prior.hand, poses)[0] > 0.003
    assert skin[1] == penetration(prior.hand, poses)[1] == 0
    assert max(skin[2:]) < 0.005


def test_synergies(angles):
    mcp, pip, dip = (np.degrees(angles[:, FLEXION[:, part], 0]) for part in range(3))
    slope = np.sum(pip * dip) / np.sum(pip * pip)
    assert abs(slope - DIP_OF_PIP) < 0.06
    assert np.corrcoef(pip.ravel(), dip.ravel())[0, 1] > 0.9
    among = np.corrcoef(mcp.T)
    neighbours = [among[i, i + 1] for i in range(3)]
    assert min(neighbours) > 0.5 and min(neighbours) > among[0, 3]
    spread = np.abs(np.degrees(angles[:, FLEXION[:, 0], 1]))
    assert spread[mcp < 20].mean() > 1.5 * spread[mcp > 60].mean()


def test_poses_are_varied(angles):
    mcp, pip = (np.degrees(angles[:, FLEXION[:, part], 0]) for part in range(2))
    extended = (mcp < 25) & (pip < 30)
    patterns = {tuple(row) for row in extended.tolist()}
    assert len(patterns) == 16  # each subset of the four fingers is extended in some pose
    assert 0.02 < np.mean(extended.all(1)) < 0.4 and np.mean(~extended.any(1)) > 0.2


def test_samples_follow_the_seed_and_the_split(prior):
    draw = lambda seed, split="train": prior.sample(np.random.default_rng(seed), 20, split)
    np.testing.assert_array_equal(draw(3), draw(3))
    for other in (draw(4), draw(3, "val"), draw(3, "grasps")):
        assert np.all(np.abs(draw(3) - other).max((1, 2)) > 1e-4)
    assert len(prior.sample(np.random.default_rng(0), 0)) == 0
    with pytest.raises(ValueError, match="unknown split 'test': choose among train, val, grasps"):
        draw(3, "test")


def test_objects_of_the_unseen_grasps_are_unseen(prior):
    bands = np.array(grasps.HELD_OUT)
    held = lambda radius: np.any(
        (radius[:, None] >= bands[:, 0]) & (radius[:, None] < bands[:, 1]), 1
    )
    rng = np.random.default_rng(5)
    assert not held(grasps.objects(prior.hand, rng, 2000)[2]).any()
    assert held(grasps.objects(prior.hand, rng, 2000, held_out=True)[2]).all()


def test_fingers_of_a_grasp_touch_the_object(prior):
    make = lambda: np.random.default_rng(6)
    start, end, radius = grasps.objects(prior.hand, make(), 100)
    starts, ends = prior.hand.segments(grasps.grasps(prior.hand, make(), 100))
    gap = segment_distance(starts, ends, start[:, None], end[:, None]) - radius[:, None]
    touching = gap[:, :15] < prior.hand.radii[:15] + 0.001
    fingers = np.stack([touching[:, np.array(f) - 1].any(1) for f in FINGERS.values()], 1)
    assert np.mean(fingers.sum(1) >= 2) > 0.85


def test_pads_of_a_pinch_touch(prior):
    angles, sound = prior.opened(prior._pinches.sample(np.random.default_rng(7), 60))
    pads = postures.pad_points(prior.hand, angles[sound])
    gap = np.linalg.norm(pads[:, 1:] - pads[:, :1], axis=-1).min(1)
    assert sound.mean() > 0.9 and np.median(gap) < 0.012


def test_a_left_hand_is_refused():
    with pytest.raises(ValueError, match="use the right hand and mirror_pose"):
        hand_axes(load_hand("free", "left"))


def test_segment_distance():
    point = np.array
    cases = [
        ((0, 0, 0), (1, 0, 0), (0.5, 1, -1), (0.5, 1, 1), 1.0),  # crossing
        ((0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0), 1.0),  # in line
        ((0, 0, 0), (1, 0, 0), (0.2, 2, 0), (0.8, 2, 0), 2.0),  # parallel
        ((0, 0, 0), (0, 0, 0), (1, 0, 0), (1, 0, 0), 1.0),  # points
    ]
    for *ends, expected in cases:
        assert segment_distance(*(point(end, float) for end in ends)) == pytest.approx(expected)


def test_joints_have_the_order_of_the_hand():
    assert HAND_JOINTS[1 + FLEXION[0, 0]] == "index1" and limits().shape == (15, 3, 2)
