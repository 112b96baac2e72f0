"""Stored rows of released hands: labels in the picture, left hands, records that are skipped."""

import dataclasses
import functools

import numpy as np
import pytest
from PIL import Image

from genhmr_jax.data.feature_set import FeatureSet
from genhmr_jax.data.hands import parts, write_release
from genhmr_jax.data.hands.prior import HandPrior
from genhmr_jax.data.hands.releases.record import HandRecord
from genhmr_jax.data.hands.render import draw_sample
from genhmr_jax.data.hands.stored import PIXELS
from genhmr_jax.data.hands.write_release import sample_of
from genhmr_jax.data.sources.source import Report
from genhmr_jax.data.synthetic.backgrounds import Backgrounds
from genhmr_jax.geometry.hand import HandPca, load_hand, mirror_points, mirror_pose
from genhmr_jax.io.errors import InputError

HANDS = 3


@pytest.fixture(scope="module")
def samples():
    """Rendered right hands."""
    model = load_hand()
    fingers = HandPrior(model).sample(np.random.default_rng(1), HANDS, "val")
    made = []
    for number in range(HANDS):
        pose = np.concatenate([np.zeros((1, 3)), fingers[number]]).ravel()
        rng = np.random.default_rng(50 + number)
        made.append(draw_sample(model, pose, rng, Backgrounds(None)))
    return made


def record_of(sample, folder, name, right=True) -> HandRecord:
    """A rendered hand as a record of a release, or its mirror image with the left hand."""
    image, points = sample.image, sample.keypoints + sample.camera.translation
    pixels, centre = sample.points2d.copy(), sample.camera.centre.copy()
    pose, width = sample.pose.reshape(16, 3), image.shape[1]
    if not right:
        image, points = image[:, ::-1], np.asarray(mirror_points(points))
        pixels[:, 0], centre[0] = width - pixels[:, 0], width - centre[0]
        pose = np.asarray(mirror_pose(pose))
    path = folder / f"{name}.png"
    Image.fromarray(np.ascontiguousarray(image)).save(path)
    camera = np.array([[sample.camera.focal, 0, centre[0]], [0, sample.camera.focal, centre[1]],
                       [0, 0, 1]])  # fmt: skip
    return HandRecord(
        name=name, image=path, right=right, box=np.zeros(4), keypoints3d=points, wrist=points[0],
        keypoints=np.concatenate([pixels, np.ones((21, 1))], -1), pose=pose.ravel(),
        pose_form="flat", betas=sample.betas, intrinsics=camera,
    )  # fmt: skip


@pytest.mark.parametrize("right", [True, False])
def test_a_record_is_a_right_hand_with_its_labels(samples, tmp_path, right):
    sample = samples[0]
    found = sample_of(record_of(sample, tmp_path, "a", right), load_hand())
    np.testing.assert_array_equal(found.image, sample.image)
    np.testing.assert_allclose(found.pose, sample.pose, atol=1e-6)
    np.testing.assert_allclose(found.joints, sample.joints, atol=1e-6)
    np.testing.assert_allclose(found.points2d, sample.points2d, atol=1e-3)
    np.testing.assert_allclose(found.camera.translation, sample.camera.translation, atol=1e-6)


def test_a_translation_in_place_of_the_wrist(samples, tmp_path):
    sample = samples[1]
    record = record_of(sample, tmp_path, "a", right=False)
    trans = np.asarray(mirror_points(sample.camera.translation))
    record = dataclasses.replace(record, wrist=None, trans=trans)
    found = sample_of(record, load_hand())
    np.testing.assert_allclose(found.points2d, sample.points2d, atol=1e-3)


def test_poses_about_the_mean_pose(samples, tmp_path):
    """Of the components of the side of the hand."""
    sample, rng = samples[2], np.random.default_rng(0)
    means = {right: rng.normal(0, 0.2, 45) for right in (True, False)}
    components = np.linalg.qr(rng.normal(size=(45, 45)))[0]
    pca = functools.lru_cache(lambda right: HandPca(means[right], components))
    for right in (True, False):
        record = record_of(sample, tmp_path, "a", right)
        inner = record.pose[3:] - means[right]
        for form, stored in (("mean", inner), ("pca", inner @ components.T)):
            pose = np.concatenate([record.pose[:3], stored])
            other = dataclasses.replace(record, pose=pose, pose_form=form)
            found = sample_of(other, load_hand(), pca)
            np.testing.assert_allclose(found.pose, sample.pose, atol=1e-6)
        with pytest.raises(InputError, match=r"give load_hand_pca of MANO_(RIGHT|LEFT)"):
            sample_of(other, load_hand())


def test_records_that_cannot_be_used(samples, tmp_path):
    record, model = record_of(samples[0], tmp_path, "a"), load_hand()
    change = functools.partial(dataclasses.replace, record)
    turned = record.pose.copy()
    turned[:3] += [0.8, 0, 0]
    stretched = record.intrinsics * np.array([[1.2, 1, 1], [1, 1, 1], [1, 1, 1]])
    for wrong, problem in (
        (change(pose=None), "has no MANO pose"),
        (change(betas=None), "no shape or no camera"),
        (change(intrinsics=stretched), "has focal lengths"),
        (change(wrist=None), "no translation and no wrist"),
        (change(pose=turned), r"puts the keypoints \d+ mm from the labelled ones"),
        (change(image=tmp_path / "none.png"), "none.png"),
    ):
        with pytest.raises(InputError, match=problem):
            sample_of(wrong, model)


def test_the_rows_of_a_release(samples, tmp_path, monkeypatch):
    """Bad records are skipped and counted; a stopped run continues, only with the same settings."""
    monkeypatch.setattr(parts, "PART", 2)
    monkeypatch.setattr(write_release, "PART", 2)
    records = [
        record_of(sample, tmp_path, f"r{i}", right=i != 1) for i, sample in enumerate(samples)
    ]
    bad = dataclasses.replace(records[0], name="bad", wrist=None)
    records.insert(2, bad)
    report, out, settings = Report(True, "freihand"), tmp_path / "rows", {"split": "training"}
    run = functools.partial(write_release.write_release, out, hand=load_hand(), pixels=True)
    rows, count = run(iter(records), report, settings=settings)
    assert count == 4 and 1 <= rows <= 3 and len(report.listed) == 1 and "bad" in report.listed[0]
    stored = FeatureSet(out, PIXELS)
    found = stored.rows(np.arange(rows))
    assert found.images.dtype == np.uint8 and found.rotmats.shape == (rows, 16, 3, 3)
    # The rows are those of the rendered hands themselves, whatever the side of the record.
    joints = np.stack([sample.joints for sample in samples])
    gaps = np.abs(found.joints[:, None] - joints[None]).max((-1, -2))
    assert (gaps.min(1) < 1e-5).all()

    # Again: a part that is there is not made again.
    kept = sorted((out / "parts").iterdir())
    (out / "done.json").unlink()
    kept[1].unlink()
    made = []
    monkeypatch.setattr(
        write_release, "detected_row", lambda sample, *_, **__: made.append(sample) or []
    )
    run(iter(records), Report(True, "freihand"), settings=settings)
    assert len(made) == 1
    with pytest.raises(InputError, match="was made with other settings"):
        run(iter(records), report, settings={"split": "evaluation"})
    with pytest.raises(InputError, match="no translation and no wrist"):
        run = functools.partial(write_release.write_release, tmp_path / "strict")
        run(iter(records), Report(False, "freihand"), load_hand(), settings, pixels=True)
