"""Synthetic people: labels that fit the pixels, determinism, shards."""

import dataclasses
import io
import json

import numpy as np
import pytest
import smpl_jax
from PIL import Image
from smpl_jax.keypoints import SMPL24

from genhmr_jax.data.synthetic import write
from genhmr_jax.data.synthetic.appearance import Wardrobe, dress
from genhmr_jax.data.synthetic.backgrounds import Backgrounds, room
from genhmr_jax.data.synthetic.generate import SAMPLES, Sample, SceneSpec, _composite, render_sample
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_points
from genhmr_jax.geometry.metrics import silhouette_iou
from genhmr_jax.io.errors import InputError
from genhmr_jax.render.silhouette import silhouette

SPEC = SceneSpec(size=128, truncate=0.0)
STANDING = np.zeros(72, np.float32)
STANDING[[3 * 16 + 2, 3 * 17 + 2]] = -1.2, 1.2  # arms down


@pytest.fixture(scope="module")
def body():
    return load_body("lite")


@pytest.fixture(scope="module")
def wardrobe(body):
    return Wardrobe.of(body)


@pytest.fixture(scope="module")
def samples(body, wardrobe):
    """Twelve scenes with nothing in front of the person."""
    spec = dataclasses.replace(SPEC, occluder=0.0)
    return [
        render_sample(body, wardrobe, STANDING, np.random.default_rng(seed), Backgrounds(), spec)
        for seed in range(12)
    ]


def posed(body, sample: Sample):
    """The body that the sample's labels describe."""
    pose = np.concatenate([sample.global_orient, sample.body_pose]).reshape(24, 3)
    return smpl_jax.forward(body, sample.betas, pose, sample.translation)


def test_labels_reproduce_joints_and_keypoints(body, samples):
    for sample in samples:
        output = posed(body, sample)
        np.testing.assert_allclose(output.joints, sample.joints, atol=1e-4)
        points = np.asarray(keypoint_points(body, output, DETECTED))
        expected = points[:, :2] / points[:, 2:] * sample.focal + SPEC.size / 2
        np.testing.assert_allclose(sample.keypoints[:, :2], expected, atol=0.05)


def test_mask_is_the_silhouette_of_the_labels(body, samples):
    """Up to clothes and hair, which stand out by a few centimetres."""
    scores = []
    for sample in samples:
        bare = silhouette(
            np.asarray(posed(body, sample).vertices),
            np.asarray(body.faces),
            sample.focal,
            SPEC.size,
            SPEC.size,
        )
        assert (bare & ~sample.mask).sum() <= 0.05 * bare.sum()
        scores.append(silhouette_iou(bare, sample.mask))
    assert min(scores) > 0.7


def test_people_are_in_the_picture_mostly_upright_and_seen_from_all_sides(samples):
    heads, yaws = [], []
    for sample in samples:
        inside = np.all((sample.keypoints[:, :2] >= 0) & (sample.keypoints[:, :2] < SPEC.size), -1)
        assert inside.mean() > 0.8 and 0.01 < sample.mask.mean() < 0.7
        heads.append(sample.joints[15, 1] < sample.joints[0, 1])  # y is down
        facing = smpl_jax.rotations.axis_angle_to_matrix(sample.global_orient)[:, 2]
        yaws.append(float(facing[2]))
    assert np.mean(heads) > 0.7
    assert min(yaws) < -0.3 and max(yaws) > 0.3


def test_left_is_left(body, wardrobe):
    """Facing the camera, the person's left wrist is at the right of the picture; wrists and face
    are visible, nothing is mirrored."""
    spec = dataclasses.replace(SPEC, occluder=0.0, free_rotation=0.0, tilt_pitch=0.0, tilt_roll=0.0)
    for seed in range(60):
        sample = render_sample(
            body, wardrobe, STANDING, np.random.default_rng(seed), Backgrounds(), spec
        )
        if smpl_jax.rotations.axis_angle_to_matrix(sample.global_orient)[2, 2] < -0.97:
            point = dict(zip(DETECTED, sample.keypoints, strict=True))
            assert (
                point["left_wrist"][0] > point["right_wrist"][0]
                and point["nose"][1] < point["left_ankle"][1]
            )
            assert all(
                point[name][2] for name in ("nose", "left_wrist", "right_wrist", "left_knee")
            )
            return
    pytest.fail("no frontal person in 60 scenes")


def test_from_behind_the_face_is_not_visible(body, wardrobe):
    spec = dataclasses.replace(SPEC, occluder=0.0, free_rotation=0.0)
    for seed in range(60):
        sample = render_sample(
            body, wardrobe, STANDING, np.random.default_rng(seed), Backgrounds(), spec
        )
        if smpl_jax.rotations.axis_angle_to_matrix(sample.global_orient)[2, 2] > 0.9:
            assert not sample.keypoints[DETECTED.index("nose"), 2]
            return
    pytest.fail("nobody seen from behind in 60 scenes")


def test_occluders_hide_pixels_and_keypoints(body, wardrobe, samples):
    spec = dataclasses.replace(SPEC, occluder=1.0)
    hidden = [
        render_sample(body, wardrobe, STANDING, np.random.default_rng(seed), Backgrounds(), spec)
        for seed in range(12)
    ]
    assert sum(s.mask.sum() for s in hidden) < 0.97 * sum(s.mask.sum() for s in samples)
    assert sum(s.keypoints[:, 2].sum() for s in hidden) < sum(
        s.keypoints[:, 2].sum() for s in samples
    )
    for with_occluder, without in zip(hidden, samples, strict=True):
        np.testing.assert_array_equal(with_occluder.joints, without.joints)


def test_same_seed_same_sample(body, wardrobe):
    first, second = (
        render_sample(body, wardrobe, STANDING, np.random.default_rng(5), Backgrounds(), SPEC)
        for _ in range(2)
    )
    for field in dataclasses.fields(Sample):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))
    other = render_sample(body, wardrobe, STANDING, np.random.default_rng(6), Backgrounds(), SPEC)
    assert (other.image != first.image).mean() > 0.5


def test_compositing_against_numpy():
    rng, size, s = np.random.default_rng(0), 8, SAMPLES
    face_id = rng.integers(-1, 2, (size * s, size * s)).astype(np.int32)
    bary = rng.dirichlet(np.ones(3), face_id.shape).astype(np.float32)
    faces, colour = np.array([[0, 1, 2], [1, 2, 3]]), rng.random((4, 3))
    ground = rng.random((size, size, 3)).astype(np.float32)
    picture, cover = ground.copy(), np.zeros((size, size), np.float32)
    _composite(face_id, bary, faces, colour, picture, cover, s)
    fine = np.einsum("yxi,yxic->yxc", bary, colour[faces[face_id]])
    behind = np.repeat(np.repeat(ground, s, 0), s, 1)
    expected = (
        np.where((face_id >= 0)[..., None], fine, behind).reshape(size, s, size, s, 3).mean((1, 3))
    )
    np.testing.assert_allclose(picture, expected, atol=1e-5)
    np.testing.assert_allclose(cover, (face_id >= 0).reshape(size, s, size, s).mean((1, 3)))


def test_clothes_stand_out_by_centimetres_and_hands_stay_bare(wardrobe):
    for seed in range(20):
        outfit = dress(wardrobe, np.random.default_rng(seed))
        albedo, offset, wrinkles = outfit.albedo, outfit.offset, outfit.wrinkles
        thickness = np.linalg.norm(offset, axis=-1)
        assert 0.003 < thickness.max() < 0.12
        assert not thickness[wardrobe.arm > 1.0].any()
        assert albedo.min() >= 0 and albedo.max() <= 1
        assert np.mean(thickness > 0) > 0.2
        assert not wrinkles[thickness == 0].any() and 0.0005 < np.abs(wrinkles).max() < 0.03


def test_backgrounds_of_a_folder(tmp_path):
    Image.fromarray(np.full((90, 120, 3), [200, 20, 20], np.uint8)).save(tmp_path / "red.png")
    source, rng = Backgrounds(tmp_path), np.random.default_rng(0)
    drawn, lights = zip(*[source.draw(rng, 32, room) for _ in range(40)], strict=True)
    assert not any(light is not None for light in lights)
    assert all(p.shape == (32, 32, 3) and 0 <= p.min() and p.max() <= 1 for p in drawn)
    red = [np.ptp(p, axis=(0, 1)).max() < 0.02 and p[0, 0, 0] > 3 * p[0, 0, 1] for p in drawn]
    assert 0.7 < np.mean(red) < 1.0  # the rest are procedural rooms


def test_the_light_of_a_picture_comes_with_it_and_is_mirrored_with_it(tmp_path):
    pixels = np.zeros((60, 60, 3), np.uint8)
    pixels[:, :30] = 255  # bright at the left
    Image.fromarray(pixels).save(tmp_path / "left.png")
    light = np.zeros((9, 3))
    light[0], light[1] = 1.0, -0.8
    (tmp_path / "lights.json").write_text(json.dumps({"left.png": light.tolist()}))
    source, sides = Backgrounds(tmp_path), set()
    for seed in range(60):
        picture, known = source.draw(np.random.default_rng(seed), 32, room)
        ramp = picture[:, :4].mean() - picture[:, -4:].mean()
        if known is not None and abs(ramp) > 0.3:
            assert np.sign(known[1, 0]) == -np.sign(ramp) and known[0, 0] == 1.0
            sides.add(np.sign(ramp))
    assert sides == {-1.0, 1.0}
    (tmp_path / "lights.json").write_text('{"left.png": [1, 2]}')
    with pytest.raises(InputError, match="light of left.png is not 9 x 3"):
        Backgrounds(tmp_path)


def test_people_cut_by_the_border(body, wardrobe):
    """They reach out of the picture, their labels too; what is outside is not visible."""
    spec = dataclasses.replace(SPEC, occluder=0.0, truncate=1.0, free_rotation=0.0)
    outside = []
    for seed in range(8):
        sample = render_sample(
            body, wardrobe, STANDING, np.random.default_rng(seed), Backgrounds(), spec
        )
        inside = np.all((sample.keypoints[:, :2] >= 0) & (sample.keypoints[:, :2] < spec.size), -1)
        assert not (sample.keypoints[:, 2] > inside).any() and sample.mask.any()
        pixels = sample.joints[:, :2] / sample.joints[:, 2:] * sample.focal + spec.size / 2
        assert not sample.joint_visibility[~np.all((pixels >= 0) & (pixels < spec.size), -1)].any()
        outside.append(1 - inside.mean())
    assert np.mean(outside) > 0.2


def test_joints_are_visible_as_the_keypoints_beside_them(samples):
    """Knees, ankles, elbows and wrists are keypoints and joints at once."""
    names = [n for n in DETECTED if n.split("_")[-1] in ("knee", "ankle", "elbow", "wrist")]
    for sample in samples:
        joints = sample.joint_visibility[[SMPL24.index(n) for n in names]]
        np.testing.assert_array_equal(
            joints, sample.keypoints[[DETECTED.index(n) for n in names], 2]
        )


def test_folder_without_images(tmp_path):
    with pytest.raises(InputError, match="no background images"):
        Backgrounds(tmp_path)


@pytest.fixture(scope="module")
def shards(tmp_path_factory, corpus_file):
    out = tmp_path_factory.mktemp("shards")
    write.write_split(out, "val", 5, corpus_file, size=64, seed=3)
    return out


def test_shards_hold_what_was_rendered(shards, corpus_file, tmp_path):
    stored = list(write.read_shards(shards / "val"))
    assert len(stored) == 5
    for sample in stored:
        assert (
            sample.image.shape == (64, 64, 3)
            and sample.image.dtype == np.uint8
            and sample.mask.dtype == bool
        )
        points = sample.joints[:, :2] / sample.joints[:, 2:] * sample.focal + 32
        np.testing.assert_array_equal(
            sample.joint_visibility > 0,
            (sample.joint_visibility > 0) & (np.abs(points - 32) <= 32).all(1),
        )
    write.write_split(tmp_path, "val", 5, corpus_file, size=64, seed=3, workers=1)
    for a, b in zip(stored, write.read_shards(tmp_path / "val"), strict=True):
        np.testing.assert_array_equal(a.image, b.image)
    write.write_split(tmp_path / "other", "val", 5, corpus_file, size=64, seed=4)
    assert (next(write.read_shards(tmp_path / "other" / "val")).image != stored[0].image).any()


def test_a_stopped_run_goes_on(shards, corpus_file, monkeypatch, tmp_path):
    monkeypatch.setattr(write, "SHARD", 2)
    write.write_split(tmp_path, "val", 4, corpus_file, size=64, seed=3)
    first, last = sorted((tmp_path / "val").iterdir())
    before = first.stat().st_mtime_ns
    last.unlink()
    write.write_split(tmp_path, "val", 5, corpus_file, size=64, seed=3)
    assert first.stat().st_mtime_ns == before
    for a, b in zip(
        write.read_shards(tmp_path / "val"), write.read_shards(shards / "val"), strict=True
    ):
        np.testing.assert_array_equal(a.image, b.image)


def test_a_set_grows_and_keeps_to_its_settings(tmp_path, corpus_file):
    """A shard that was the last one and is not full is made again, with the same images first."""
    draw = dict(size=48, body="lite", workers=1)
    write.write_split(tmp_path, "val", 2, corpus_file, **draw)
    before = [sample.image for sample in write.read_shards(tmp_path / "val")]
    write.write_split(tmp_path, "val", 3, corpus_file, **draw)
    after = [sample.image for sample in write.read_shards(tmp_path / "val")]
    assert len(after) == 3
    np.testing.assert_array_equal(after[:2], before)
    changes = ({"size": 32}, {"seed": 1}, {"body": "neutral"}, {"appearance": "v1"})
    for other in (draw | change for change in changes):
        with pytest.raises(InputError, match="00000.npz: was made with other settings"):
            write.write_split(tmp_path, "val", 4, corpus_file, **other)


def test_damaged_and_missing_shards_are_named(shards, corpus_file, tmp_path):
    with pytest.raises(InputError, match="no shards"):
        list(write.read_shards(tmp_path))
    whole, file = (shards / "val" / "00000.npz").read_bytes(), tmp_path / "00000.npz"
    for damaged in (b"not an archive", whole[: len(whole) // 2], b""):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="00000.npz: cannot be read as a shard"):
            list(write.read_shards(tmp_path))
    arrays = dict(np.load(io.BytesIO(whole), allow_pickle=False))
    for changed, message in (
        ({"joint_visibility": None}, "lacks joint_visibility: another version wrote it"),
        ({"betas": arrays["betas"][:2]}, "does not hold as many images as labels"),
        ({"image_bytes": np.zeros_like(arrays["image_bytes"])}, "image 0 cannot be read"),
    ):
        np.savez(
            file, **{name: value for name, value in (arrays | changed).items() if value is not None}
        )
        with pytest.raises(InputError, match=message):
            list(write.read_shards(tmp_path))
