import types

import numpy as np
import pytest
import smpl_jax

from genhmr_jax.core.system import PhotoCamera
from genhmr_jax.evaluate import hands as benchmark
from genhmr_jax.geometry.hand import hand_keypoints, load_hand

COUNT = 4


@pytest.fixture(scope="module")
def pictures():
    return benchmark.hand_split(COUNT)


def project(points, camera):
    return points[:, :2] / points[:, 2:] * camera.focal + np.array(camera.principal_point)


def test_split(pictures):
    again = benchmark.hand_split(COUNT)
    for one, other in zip(pictures, again, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.vertices, other.vertices)
    assert [p.kind for p in pictures] == ["grasps", "val"] * 2
    assert [p.right for p in pictures] == [True, True, False, False]
    assert np.any(pictures[0].image.shape != benchmark.hand_split(1, seed=1)[0].image.shape) or (
        np.any(pictures[0].image != benchmark.hand_split(1, seed=1)[0].image)
    )


def test_mirror_image(pictures):
    """The camera of the mirror image projects the mirrored hand onto the mirrored keypoints."""
    picture = pictures[0]
    other = benchmark.mirrored(picture)
    assert not other.right
    # A translation fits the 2D keypoints, as focal length and principal point are the true ones.
    for p in (picture, other):
        x, y = (p.points2d - np.array(p.camera.principal_point)).T / p.camera.focal
        # u = (X + a) / (Z + c): linear in a, b, c.
        zero, one = np.zeros(21), np.ones(21)
        left = np.concatenate([np.stack([one, zero, -x], -1), np.stack([zero, one, -y], -1)])
        right = np.concatenate([x * p.keypoints[:, 2] - p.keypoints[:, 0],
                                y * p.keypoints[:, 2] - p.keypoints[:, 1]])  # fmt: skip
        shift = np.linalg.lstsq(left, right, rcond=None)[0]
        np.testing.assert_allclose(project(p.keypoints + shift, p.camera), p.points2d, atol=0.01)
    back = benchmark.mirrored(other)
    np.testing.assert_array_equal(back.image, picture.image)
    np.testing.assert_allclose(back.points2d, picture.points2d)


def test_keypoints_of_a_mesh():
    hand = load_hand()
    rng = np.random.default_rng(0)
    output = smpl_jax.forward(hand, np.float32(rng.normal(size=10)),
                              np.float32(rng.normal(0, 0.2, (16, 3))))  # fmt: skip
    found = benchmark.keypoints_of(hand, np.asarray(output.joints), np.asarray(output.vertices))
    np.testing.assert_allclose(found, np.asarray(hand_keypoints(hand, output)), atol=1e-6)


def test_measure(pictures, monkeypatch):
    """A model that knows the truth has no error; the mean pose has."""
    order = np.argsort(benchmark.HAND21_FROM_MANO)
    current = iter(pictures)
    state = {}

    def detect(image):
        state["picture"] = next(current)
        found = benchmark._true_hands(state["picture"])
        found.keypoints3d[0] = 2.0 * state["picture"].keypoints + 1.0  # a similarity
        if state["picture"] is pictures[1]:
            return found.only([])
        return found

    def prepare(image, hands, photo):
        assert isinstance(photo, PhotoCamera) and image is state["picture"].image
        return hands

    def recover_prepared(hands, options, exact=False):
        picture = state["picture"]
        joints = picture.keypoints[order][:16]
        return types.SimpleNamespace(joints=joints[None], vertices=picture.vertices[None])

    monkeypatch.setattr(benchmark, "detect_hands", detect)
    monkeypatch.setattr(benchmark, "_MEAN_OF", 50)
    how = {"prepare": prepare, "recover_prepared": recover_prepared}
    model = types.SimpleNamespace(hand=load_hand(), **how)
    result = benchmark.measure(model, pictures)
    assert result["count"] == COUNT and result["found"] == 0.75 and result["side"] == 1.0
    for name in ("detected", "grasps", "val", "true_2d", "detector"):
        assert result[name]["pa_mpjpe_mm"] < 0.01 and result[name]["auc"] > 0.99
    assert result["detected"]["f_5"] == result["true_2d"]["f_15"] == 1.0
    assert result["true_2d"]["pa_mpvpe_mm"] < 0.01 and "f_5" not in result["detector"]
    assert 3 < result["mean_pose"]["pa_mpjpe_mm"] < 40


def test_a_hand_that_is_far_away_is_not_found(pictures):
    picture = pictures[0]
    hands = benchmark._true_hands(picture)
    assert benchmark.closest(hands, picture) == 0
    side = np.ptp(picture.points2d, axis=0).max()
    hands.keypoints[..., 0] += 0.3 * side
    assert benchmark.closest(hands, picture) is None
    assert benchmark.closest(hands.only([]), picture) is None
