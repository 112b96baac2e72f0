"""The main job on the sample photo with the shipped model: the numbers agree with each other, and
nothing depends on company."""

import dataclasses

import numpy as np
import pytest
import smpl_jax
from PIL import Image

import genhmr_jax
from genhmr_jax.core.solve import Solved
from genhmr_jax.detect.detections import Detections
from genhmr_jax.detect.detector import detect
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.io.errors import InputError
from genhmr_jax.recover import photo

OPTIONS = photo.RecoverOptions(refine_steps=5)


@pytest.fixture(scope="module")
def image(sample_image):
    return sample_image


@pytest.fixture(scope="module")
def people(recoverer, image):
    return recoverer.recover(image, options=OPTIONS)


def test_one_person_whose_numbers_agree(people, image, recoverer):
    height, width = image.shape[:2]
    assert len(people) == 1 and people.image_size.tolist() == [width, height]
    assert float(people.focal_length) == pytest.approx(np.hypot(width, height))
    projected = (
        people.focal_length * people.joints[..., :2] / people.joints[..., 2:]
        + people.image_size / 2
    )
    np.testing.assert_allclose(people.joints2d, projected, atol=0.05)
    assert (people.joints[..., 2] > 0.5).all()
    # The parameters alone give the same body: SMPL's forward, then the translation.
    import smpl_jax

    pose = np.concatenate([people.global_orient, people.body_pose], -1)
    output = smpl_jax.forward(recoverer.body, people.betas, pose, people.translation)
    np.testing.assert_allclose(output.vertices, people.vertices, atol=2e-3)
    np.testing.assert_allclose(output.joints, people.joints, atol=2e-3)


def test_the_body_lies_on_the_person(people):
    """The head is up, left is left, and the projected keypoints are near the detected ones."""
    assert people.joints2d[0, 15, 1] < people.joints2d[0, 0, 1] < people.joints2d[0, 7, 1]
    x = dict(zip(DETECTED, people.keypoints2d[0, :, 0], strict=True))
    assert (x["left_shoulder"] - x["right_shoulder"]) * (
        people.joints2d[0, 16, 0] - people.joints2d[0, 17, 0]
    ) > 0
    box = people.boxes[0]
    assert people.reprojection_error()[0] < 0.06 * max(box[2] - box[0], box[3] - box[1])


@pytest.mark.slow
def test_refinement_helps_and_is_optional(people, recoverer, image):
    assert people.refine_loss.shape == (1, 6)
    assert people.refine_loss.min() < people.refine_loss[0, 0]
    assert people.reprojection_error() < people.reprojection_error(refined=False)
    plain = recoverer.recover(image, options=photo.RecoverOptions(refine_steps=0))
    np.testing.assert_allclose(plain.projected_keypoints, plain.sampled_keypoints, atol=1e-3)
    np.testing.assert_allclose(plain.sampled_keypoints, people.sampled_keypoints, atol=0.2)


def test_a_person_does_not_depend_on_the_others(people, recoverer, image):
    keypoints = people.keypoints2d
    shifted = keypoints + np.array([15.0, 5, 0], np.float32)
    together = recoverer.recover(
        image, keypoints=np.concatenate([keypoints, shifted, *[keypoints] * 3]), options=OPTIONS
    )
    alone = recoverer.recover(image, keypoints=shifted, options=OPTIONS)
    assert len(together) == 5
    np.testing.assert_array_equal(together.tokens[1], alone.tokens[0])
    np.testing.assert_allclose(together.joints[1], alone.joints[0], atol=5e-3)
    np.testing.assert_allclose(together.joints[0], together.joints[2], atol=5e-3)


def test_two_programs_serve_any_number_of_people(recoverer, monkeypatch):
    """Rows are solved in chunks of two sizes; each photo gets the rows of its own people."""
    sizes = set()

    def solve(self, inputs, numbers, options):
        sizes.add(inputs.rows)
        rows = np.arange(inputs.rows)
        assert len(numbers) == inputs.rows
        found = {field.name: rows for field in dataclasses.fields(Solved)}
        return Solved(**found | {"betas": inputs.keypoints[:, 0, 0], "hypotheses": None})

    monkeypatch.setattr(photo.Recoverer, "solve", solve)
    monkeypatch.setattr(photo, "people_of", lambda people, solved, *rest: solved.betas)
    camera = OPTIONS.camera(64, 48)

    def prepared(first, count):
        people = Detections.empty(count)
        people.keypoints[:] = np.arange(first, first + count)[:, None, None] + 1.0
        inputs = recoverer.system.prepare(np.zeros((48, 64, 3), np.uint8), people, camera, count)
        return photo.PreparedPhoto(people, inputs, camera, (64, 48))

    for counts in ([1], [2], [3, 4, 1], [8], [9], [5, 6, 2, 1], [20], [1] * 8):
        starts = np.cumsum([0, *counts])
        photos = [prepared(int(start), n) for start, n in zip(starts[:-1], counts, strict=True)]
        found = recoverer.recover_prepared(photos)
        assert [len(people) for people in found] == counts
        np.testing.assert_array_equal(np.concatenate(found), np.arange(sum(counts)) + 1.0)
    assert sizes == {1, photo.ROWS}


@pytest.mark.slow
def test_hypotheses_differ_and_come_ranked(recoverer, image, people):
    several = recoverer.recover(
        image,
        keypoints=people.keypoints2d,
        options=photo.RecoverOptions(hypotheses=4, refine_steps=5),
    )
    assert several.hypothesis_body_pose.shape == (1, 4, 69)
    assert (
        several.vertex_std.shape == (1, several.vertices.shape[1])
        and several.vertex_std.mean() > 1.0
    )
    np.testing.assert_allclose(several.hypothesis_body_pose[:, 0], several.body_pose, atol=1e-5)
    pose = np.concatenate([several.hypothesis_global_orient, several.hypothesis_body_pose], -1)
    posed = smpl_jax.forward(
        recoverer.body, several.hypothesis_betas[0], pose[0].reshape(4, 24, 3)
    ).joints
    joints = posed + several.hypothesis_translation[0][:, None]
    np.testing.assert_allclose(joints, several.hypothesis_joints[0], atol=1e-4)
    assert (
        np.abs(several.hypothesis_body_pose[0, 0] - several.hypothesis_body_pose[0, 1]).max() > 1e-3
    )


def test_a_longer_lens_stands_further_away(recoverer, image, people):
    far = recoverer.recover(
        image,
        keypoints=people.keypoints2d,
        options=photo.RecoverOptions(refine_steps=5, focal=4 * float(people.focal_length)),
    )
    assert far.translation[0, 2] > 2 * people.translation[0, 2]


def test_nobody(recoverer, image):
    empty = recoverer.recover(np.full((64, 64, 3), 127, np.uint8), options=OPTIONS)
    assert len(empty) == 0 and empty.vertices.shape[0] == 0
    unseen = recoverer.recover(image, keypoints=np.zeros((1, 23, 3), np.float32), options=OPTIONS)
    assert len(unseen) == 0


def test_bad_input(recoverer, image, tmp_path):
    with pytest.raises(ValueError, match="finite"):
        recoverer.recover(image, keypoints=np.full((1, 23, 3), np.nan, np.float32))
    with pytest.raises(InputError, match="no config.json"):
        genhmr_jax.load(tmp_path)
    for wrong in ({"iterations": 0}, {"fov": 180.0}, {"focal": -1.0}, {"hypotheses": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            photo.RecoverOptions(**wrong)


def test_given_people_are_numbered(recoverer, image, people):
    """Of four given people the second has too few keypoints, and the smallest ones are beyond the
    most people."""
    keypoints = np.repeat(people.keypoints2d, 4, 0)
    keypoints[1, 3:, 2] = 0
    found = recoverer.recover(image, keypoints=keypoints, options=OPTIONS)
    assert found.given_index.tolist() == [0, 2, 3] and found.left_out == 0
    keypoints[[0, 3], :, :2] = keypoints[[0, 3], :, :2] / 2 + 100
    limited = recoverer.recover(
        image, keypoints=keypoints, options=dataclasses.replace(OPTIONS, max_people=1)
    )
    assert limited.given_index.tolist() == [2] and limited.left_out == 3
    assert people.given_index.tolist() == [-1] and people.left_out == 0


def test_no_rows_are_nobody(recoverer, image):
    for empty in ([], np.zeros((0, 4))):
        assert len(recoverer.recover(image, boxes=empty, options=OPTIONS)) == 0
    assert len(recoverer.recover(image, keypoints=[], options=OPTIONS)) == 0


def test_what_is_no_image_or_does_not_fit_is_told_in_words(recoverer, image, people):
    two = np.tile(people.boxes, (2, 1))
    for given, said in (
        (
            {"image": Image.fromarray(image)},
            "the image is Image: uint8 .height, width, 3., RGB, is needed",
        ),
        ({"image": image.tolist()}, "the image is list"),
        ({"image": image / 255.0}, "the image is float64"),
        (
            {"image": image, "boxes": two, "keypoints": people.keypoints2d},
            "2 boxes but keypoints of 1 people are given",
        ),
        ({"image": image, "boxes": [[1, 2], [3]]}, "boxes are no array of numbers"),
        ({"image": image, "boxes": [[0, 0, np.nan, 9]]}, "boxes have shape .* or are not finite"),
        ({"image": image, "boxes": [[-50, -50, -10, -10]]}, "a box has no area inside the image"),
    ):
        with pytest.raises(ValueError, match=said):
            recoverer.recover(**given, options=OPTIONS)


def test_people_beyond_the_most_are_counted(recoverer, image):
    both = np.concatenate([image, image[:, ::-1]], 1)
    one = recoverer.recover(both, options=dataclasses.replace(OPTIONS, max_people=1))
    assert len(one) == 1 and one.left_out == 1


def test_a_known_principal_point(people, recoverer, image):
    """A photo cut off on two sides: told where its optical axis is, the model makes the same of
    what is seen as in the whole photo."""
    left, top = 40, 24
    options = dataclasses.replace(OPTIONS, focal=float(people.focal_length))
    middle = (image.shape[1] / 2 - left, image.shape[0] / 2 - top)
    known = dataclasses.replace(options, principal_point=middle)
    detected = detect(image, keypoints=people.keypoints2d)
    # The user gives keypoints alone: the rest comes from the detector.
    assert detected.keypoints3d.any() and detected.masks.any() and detected.has_features.all()

    def solved(picture, detected, options):
        camera = options.camera(*picture.shape[1::-1])
        inputs = recoverer.system.prepare(picture, detected, camera, 1)
        return recoverer.solve(inputs, np.arange(1), options)

    whole = solved(image, detected, options)
    cut, unaware = (
        solved(image[top:, left:], detected.moved(-left, -top), o) for o in (known, options)
    )
    np.testing.assert_allclose(cut.joints, whole.joints, atol=2e-3)
    assert np.abs(unaware.translation - whole.translation).max() > 0.02

    found = recoverer.recover(image[top:, left:], options=known)
    np.testing.assert_allclose(found.principal_point, middle)
    np.testing.assert_allclose(people.principal_point, people.image_size / 2)
    projected = (
        found.focal_length * found.joints[..., :2] / found.joints[..., 2:] + found.principal_point
    )
    np.testing.assert_allclose(found.joints2d, projected, atol=0.05)
