"""The label filters of 4D-Humans, each rule by hand."""

import numpy as np
import pytest

from genhmr_jax.data.sources import filters, find
from genhmr_jax.data.sources.filters import LEAST_DENSITY, LabelFilters, PoseHistogram
from genhmr_jax.data.sources.records import person_record
from genhmr_jax.io.errors import InputError
from support import people_fixtures


def record(confidences=(0.9,) * 44, beta=1.0, **given):
    keypoints = np.concatenate(
        [np.arange(88.0).reshape(44, 2) + 10, np.reshape(confidences, (44, 1))], -1
    )
    labels = {
        "global_orient": np.ones(3),
        "body_pose": np.full(69, 0.1),
        "betas": np.full(10, beta),
    } | given
    return person_record(
        "here", image_size=(640, 480), box=(0, 0, 100, 200), keypoints2d=keypoints, **labels
    )


def test_good_labels_pass_unchanged():
    before = record()
    after = LabelFilters().apply(before, 100.0)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_uncertain_keypoints_are_dropped():
    before = record([0.29, 0.3] * 22)
    after = LabelFilters().apply(before, None)["keypoints2d"]
    assert not after[::2].any(), "unknown points are zeros, as in all records"
    np.testing.assert_array_equal(after[1::2], before["keypoints2d"][1::2])


@pytest.mark.parametrize(("known", "stays"), [(4, False), (5, True)])
def test_a_person_needs_more_than_four_keypoints(known, stays):
    after = LabelFilters().apply(record([0.5] * known + [0.2] * (44 - known)), None)
    assert (after is not None) == stays


@pytest.mark.parametrize(
    ("loss", "stays"), [(None, True), (30_999.0, True), (31_000.0, False), (np.nan, False)]
)
def test_fits_that_miss_are_left_out(loss, stays):
    assert (LabelFilters().apply(record(), loss) is not None) == stays


@pytest.mark.parametrize(("beta", "kept"), [(3.0, 1), (-3.0, 1), (3.01, 0), (-3.01, 0)])
def test_implausible_shapes_take_the_pose_along(beta, kept):
    after = LabelFilters().apply(record(beta=beta), None)
    assert after["has_betas"] == after["has_pose"] == kept
    assert (
        after["betas"].any()
        == after["body_pose"].any()
        == after["global_orient"].any()
        == bool(kept)
    )


def test_pose_and_shape_only_together():
    after = LabelFilters().apply(record(has_betas=0.0), None)
    assert after["has_pose"] == 0 and not after["body_pose"].any()
    after = LabelFilters().apply(record(has_pose=0.0), None)
    assert after["has_betas"] == 0 and not after["betas"].any()


@pytest.fixture(scope="module")
def histogram():
    """Poses around zero, in 40 bins."""
    counts = np.zeros((21, 40, 40, 40))
    counts[:, 19:22, 19:22, 19:22] = 1.0
    return PoseHistogram(counts)


def test_improbable_poses_take_the_shape_along(histogram):
    chosen = LabelFilters(histogram=histogram)
    after = chosen.apply(record(), None)
    assert after["has_pose"] == after["has_betas"] == 1
    odd = np.full((23, 3), 0.1)
    odd[3] = [2.9, 0, 0]  # a knee
    after = chosen.apply(record(body_pose=odd.reshape(69)), None)
    assert after["has_pose"] == after["has_betas"] == 0
    odd = np.full((23, 3), 0.1)
    odd[22] = [2.9, 0, 0]  # a hand, which is not looked at
    assert chosen.apply(record(body_pose=odd.reshape(69)), None)["has_pose"] == 1


def test_full_turns_do_not_count(histogram):
    pose = np.full((23, 3), 0.1)
    turned = pose.copy()
    turned[5] *= 1 + 2 * np.pi / np.linalg.norm(turned[5])
    assert histogram.probable(pose.reshape(69)) and histogram.probable(turned.reshape(69))


def test_the_histogram_is_a_density(histogram):
    """The blur keeps the mass within a joint; only the first and last joints lose some, for it runs
    over joints, too."""
    mass = histogram.density.sum((1, 2, 3)) * (2 * np.pi / 40) ** 3 * 21
    np.testing.assert_allclose(mass[8:13], 1.0, atol=1e-6)
    assert (mass[[0, -1]] < 0.7).all()
    assert set(LEAST_DENSITY) == set(filters.JOINTS) and len(filters.JOINTS) == 21


def test_the_reader_uses_the_histogram(tmp_path, histogram):
    people_fixtures.write("hmr2_coco", tmp_path)
    source = find("hmr2_coco")
    with pytest.warns(UserWarning, match="improbable poses are kept"):
        kept = list(source.records(tmp_path, "train", source.report()))
    counts = np.zeros((21, 20, 20, 20))
    counts[:, 0, 0, 0] = 1.0  # only poses that nobody takes
    np.save(tmp_path / "hmr2_training_data/amass_poses_hist100_SMPL+H_G.npy", counts)
    filtered = list(source.records(tmp_path, "train", source.report()))
    assert [r["has_pose"] for r in kept] == [1, 1, 0, 1] and [r["has_pose"] for r in filtered] == [
        0,
        0,
        0,
        0,
    ]


def test_a_histogram_of_another_shape(tmp_path):
    path = tmp_path / "hist.npy"
    np.save(path, np.ones((24, 10, 10, 10)))
    with pytest.raises(InputError, match=r"has shape \(24, 10, 10, 10\)"):
        PoseHistogram.load(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="cannot be read"):
        PoseHistogram.load(path)
