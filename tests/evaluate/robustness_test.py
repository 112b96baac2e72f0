"""Robustness axes: each change of a picture does what it says and nothing else; the sweep measures
all of them."""

import json

import jax
import numpy as np
import pytest
import smpl_jax
from scipy.spatial.transform import Rotation

from genhmr_jax.data import poses
from genhmr_jax.evaluate import predictions, robustness, synthetic_split
from genhmr_jax.evaluate.synthetic_split import open_split
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.recover.photo import RecoverOptions
from support.puppet import Puppet, keypoints_at

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
BOX = np.array([10.0, 5, 30, 35])  # its square: 5..35 x 5..35


def test_the_occluder_covers_the_square_of_the_box_once():
    hidden = np.zeros(NOISE.shape[:2], int)
    for row in range(3):
        for column in range(3):
            changed = (robustness.occlude(NOISE, BOX, row, column, 3) != NOISE).any(-1)
            y, x = np.nonzero(changed)
            assert (
                changed.sum() >= 95 and np.ptp(y) == np.ptp(x) == 9
            )  # 10 x 10 px, but for pixels that were grey already
            assert (y.min(), x.min()) == (5 + 10 * row, 5 + 10 * column)
            hidden += changed
    assert hidden.max() == 1 and (hidden[:5] == 0).all() and (hidden[:, 35:] == 0).all()
    np.testing.assert_array_equal(
        robustness.occlude(NOISE, BOX, 0, 0, 3)[5:15, 5:15], robustness.GREY
    )


def test_an_occluder_outside_the_picture_changes_nothing():
    box = np.array([50.0, 5, 60, 35])  # its square: 40..70
    np.testing.assert_array_equal(robustness.occlude(NOISE, box, 0, 2, 3), NOISE)
    assert (robustness.occlude(NOISE, box, 0, 1, 3) != NOISE).any()


@pytest.mark.parametrize(
    ("side", "window"),
    [
        ("below", (0, 0, 60, 20)),
        ("above", (0, 20, 60, 40)),
        ("left", (20, 0, 60, 40)),
        ("right", (0, 0, 20, 40)),
    ],
)
def test_a_cut_hides_half_of_the_box(side, window):
    test_image = predictions.TestImage(NOISE, keypoints_at((20, 20))[0], box=BOX)
    cut = robustness.cut(test_image, side, 0.5)
    assert cut.window == window and cut.image.shape == NOISE.shape
    inside = np.s_[window[1] : window[3], window[0] : window[2]]
    np.testing.assert_array_equal(cut.image[inside], NOISE[inside])
    outside = np.ones(NOISE.shape[:2], bool)
    outside[inside] = False
    assert (cut.image[outside] == robustness.GREY).all()


def test_lower_resolution_averages_and_keeps_the_size():
    coarse = robustness.lower_resolution(NOISE, BOX, 3)  # 30 px become 3
    assert coarse.shape == NOISE.shape
    expected = NOISE.reshape(4, 10, 6, 10, 3).mean((1, 3))
    np.testing.assert_allclose(
        coarse[5::10, 5::10], expected, atol=12
    )  # near the middle of each big pixel
    assert coarse.std() < 0.3 * NOISE.std() and abs(coarse.mean() - NOISE.mean()) < 3
    np.testing.assert_array_equal(robustness.lower_resolution(NOISE, BOX, 300), NOISE)


def test_relight_multiplies_the_light():
    np.testing.assert_array_equal(robustness.relight(NOISE, 0), NOISE)
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    darker = robustness.relight(ramp, -2)
    light = lambda x: (x.astype(float) / 255) ** 2.2
    np.testing.assert_allclose(light(darker), light(ramp) / 4, atol=0.005)
    assert (
        robustness.relight(ramp, 2)[-1, -1, 0] == 255
        and (np.diff(robustness.relight(ramp, 2).ravel().astype(int)) >= 0).all()
    )


def test_unusualness_is_the_mean_angle_from_the_mean():
    rng = np.random.default_rng(1)
    body = rng.normal(0, 0.3, (40, 69))
    expected = np.zeros(40)
    for joint in range(23):
        turns = Rotation.from_rotvec(body[:, 3 * joint : 3 * joint + 3]).as_matrix()
        u, _, vt = np.linalg.svd(turns.mean(0))  # the chordal mean
        mean = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
        expected += np.arccos(np.clip((np.einsum("nij,ij->n", turns, mean) - 1) / 2, -1, 1)) / 23
    np.testing.assert_allclose(robustness.unusualness(body), expected, atol=1e-6)


def test_poses_of_a_band_are_in_it():
    rng = np.random.default_rng(2)
    corpus = poses.PoseCorpus(
        (rng.normal(size=(200, 72)) * rng.uniform(0, 0.5, (200, 1))).astype(np.float32),
        np.full(200, 1 / 200),
    )
    how = robustness.unusualness(corpus.poses[:, 3:])
    find = lambda chosen: [int(np.flatnonzero((corpus.poses == pose).all(1))[0]) for pose in chosen]
    usual, odd = (
        how[find(robustness.poses_between(corpus, *band, 10))] for band in ((0.0, 0.1), (0.9, 1.0))
    )
    assert usual.max() <= np.quantile(how, 0.1) < np.quantile(how, 0.9) <= odd.min()
    assert len(set(find(robustness.poses_between(corpus, 0.9, 1.0, 10)))) == 10


def test_a_reshaped_body_is_the_body_with_other_betas():
    body = load_body("lite")
    betas = np.float32([0.3, -1, 0, 0, 0, 0, 0, 0, 0, 0])
    pose = np.random.default_rng(3).normal(0, 0.3, (24, 3)).astype(np.float32)
    forward = jax.jit(smpl_jax.forward)
    moved = forward(robustness.reshaped(body, 1, 2.5), betas, pose)
    # A new array: `forward` runs in the background and may still read the old one.
    longer = betas + 2.5 * np.eye(10, dtype=np.float32)[1]
    expected = forward(body, longer, pose)
    np.testing.assert_allclose(moved.vertices, expected.vertices, atol=1e-5)
    np.testing.assert_allclose(moved.joints, expected.joints, atol=1e-5)


@pytest.fixture(scope="module")
def swept(corpus_file, tmp_path_factory):
    """A sweep over two people of 48 px, with a puppet that answers the mean pose, and the same
    without a corpus."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (synthetic_split, robustness):
            patch.setattr(module, "SIZE", 48)
        patch.setattr(robustness, "GRID", 2)
        patch.setattr(robustness, "load_body", lambda: load_body("lite"))
        split = open_split(tmp_path_factory.mktemp("set"), corpus_file, 2)
        model = Puppet(keypoints_at((24, 24)))
        patch.setattr(predictions, "detect", model.detect)
        return robustness.sweep(model, split, corpus_file, RecoverOptions(), 2), robustness.sweep(
            model, split, None, RecoverOptions(), 2
        )


def test_the_sweep_covers_every_axis(swept):
    report, without = swept
    axes = {axis: list(levels) for axis, levels in report["axes"].items()}
    assert list(axes) == [
        "none",
        "occlusion",
        "truncation",
        "resolution",
        "light",
        "pose",
        "direction",
        "shape",
    ]
    assert list(without["axes"]) == ["none", "occlusion", "truncation", "resolution", "light"]
    assert axes["truncation"] == [
        "25% cut below",
        "50% cut below",
        "25% cut above",
        "25% cut left",
        "50% cut left",
    ]
    assert len(axes["resolution"]) == 4 and len(axes["shape"]) == 4 and report["people"] == 2
    json.dumps(report)
    text = robustness.table(report)
    assert all(f"| {axis} | {level} |" in text for axis, levels in axes.items() for level in levels)


def test_a_model_without_input_is_as_wrong_everywhere(swept):
    """The puppet answers the same to every picture: image operations leave its error, renderings of
    other bodies do not."""
    axes = swept[0]["axes"]
    reference = axes["none"]["as rendered"]
    for axis in ("occlusion", "truncation", "resolution", "light"):
        for row in axes[axis].values():
            assert row["found"] == 1 and row["confidence"] == 0.5
            assert row["pa_mpjpe_mm"] == pytest.approx(reference["pa_mpjpe_mm"], rel=1e-5)
    assert np.allclose(list(swept[0]["occlusion_map"].values()), 0)
    assert axes["pose"]["middle"]["pa_mpjpe_mm"] != reference["pa_mpjpe_mm"]
    assert (
        axes["shape"]["coefficient 0 -2.5"]["mpjpe_mm"]
        != axes["shape"]["coefficient 0 +2.5"]["mpjpe_mm"]
    )
    images = 1 + 4 + 5 + 4 + 4 + 4 + 2 + 4  # levels, the occluder in 2 x 2 places
    assert sum(d["count"] for d in swept[0]["deciles"]) == 2 * images


def test_the_worst_place_is_chosen_for_each_person():
    one, two = (
        robustness.Errors(
            np.full((2, 24), p),
            np.array(a)[:, None] * np.ones((2, 24)),
            np.full((2, 24), c),
            np.array([True, True]),
        )
        for p, a, c in ((1.0, [10, 40], 0.3), (2.0, [20, 30], 0.7))
    )
    worst = robustness._worst([one, two])
    assert worst.aligned[:, 0].tolist() == [20, 40] and worst.plain[:, 0].tolist() == [2, 1]
    assert worst.confidence[:, 0].tolist() == [0.7, 0.3]
    assert robustness._pooled([one, two]).row()["pa_mpjpe_mm"] == 25


def test_a_model_without_confidences_has_none_in_the_table(swept):
    unsure = robustness.Errors(
        np.ones((2, 24)), np.ones((2, 24)), np.full((2, 24), np.nan), np.array([True, False])
    ).row()
    assert unsure["confidence"] is None and unsure["found"] == 0.5
    report = swept[0] | {
        "axes": {axis: {n: unsure for n in levels} for axis, levels in swept[0]["axes"].items()},
        "deciles": [],
    }
    text = robustness.table(report)
    assert "| none | as rendered | 50 | 1.0 | 1.0 |  |" in text and "by confidence" not in text
