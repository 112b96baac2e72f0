"""The families of appearance: images of the test sets that never change, people with a front, and
scenes of the second test set that training does not have."""

import numpy as np
import pytest

from genhmr_jax.data.synthetic import (
    appearance,
    backgrounds,
    clothes,
    decals,
    heads,
    unseen_people,
    unseen_scenes,
)
from genhmr_jax.data.synthetic.appearance import Wardrobe
from genhmr_jax.data.synthetic.backgrounds import Backgrounds
from genhmr_jax.data.synthetic.families import APPEARANCES
from genhmr_jax.data.synthetic.generate import SAMPLES, SceneSpec, render_sample
from genhmr_jax.geometry.bodies import load_body
from support.paths import ROOT

STANDING = np.zeros(72, np.float32)
STANDING[[3 * 16 + 2, 3 * 17 + 2]] = -1.2, 1.2  # arms down


@pytest.fixture(scope="module")
def body():
    return load_body("lite")


@pytest.fixture(scope="module")
def wardrobe(body):
    return Wardrobe.of(body)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_images_of_the_test_sets_never_change(version, body, wardrobe):
    """Three images as they were when the version was published, up to the last digits of a machine.

    A failure means that published numbers of this version no longer compare.
    """
    recorded = np.load(ROOT / "tests" / "support" / "synthetic_images.npz")[version]
    for seed, image in enumerate(recorded):
        scene = (np.random.default_rng(seed), Backgrounds(), SceneSpec(size=64))
        drawn = render_sample(body, wardrobe, STANDING, *scene, appearance=version).image
        difference = np.abs(drawn.astype(int) - image)
        assert (difference <= 2).mean() > 0.99


def test_a_face_is_in_front_only(wardrobe):
    """Whites of the eyes and lips are where the body has its eyes and its mouth, on both sides, and
    the same texels at the back of a bald head are of one colour."""
    skin = np.array([0.6, 0.4, 0.3])
    for seed in range(8):
        person = clothes.Dressing(wardrobe, skin, np.random.default_rng(seed))
        heads.paint_face(person.head, person.on_head, skin, 0.1 * skin, np.random.default_rng(seed))
        p, picture = person.on_head, person.head
        plain = (picture == skin.astype(np.float32)).all(-1)
        assert plain[np.abs(p.azimuth) > 2.0].all()
        for side in (p.u > 0, p.u < 0):
            eye = side & (np.abs(np.abs(p.u) - 0.37) < 0.12) & (np.abs(p.v) < 0.15) & (p.d > 0.3)
            assert np.ptp(picture[eye].mean(-1)) > 0.3  # white and iris
        lips = (np.abs(p.u) < 0.15) & (np.abs(p.v + 1.95) < 0.15) & (p.d > 0.3)
        red = picture[lips][:, 0] / picture[lips][:, 1]
        assert red.mean() > 1.2 * skin[0] / skin[1]


def test_training_people_differ_in_front_and_behind(wardrobe):
    """Their heads and most of their trunks are not the same picture from both sides."""
    trunks = []
    for seed in range(20):
        outfit = clothes.dress_for_training(wardrobe, np.random.default_rng(seed))
        assert 0 <= outfit.albedo.min() and outfit.albedo.max() <= 1
        assert not np.linalg.norm(outfit.offset, axis=-1)[wardrobe.arm > 1.0].any()
        if outfit.decals is None:  # an outfit of the first test set
            continue
        # Around the eyes' height, the picture and that seen from behind.
        head = outfit.decals.head[decals.ELEVATIONS // 3 : 2 * decals.ELEVATIONS // 3]
        turned = np.roll(head, decals.AZIMUTHS // 2, 1)
        assert (np.abs(head - turned) > 0.03).any(-1).mean() > 0.15
        trunks.append(np.abs(outfit.decals.front - outfit.decals.back).mean() > 0.02)
    assert len(trunks) > 12 and np.mean(trunks) > 0.6


def test_the_charts_lie_where_the_body_is(body, wardrobe):
    """The middle of the head's picture is the face, and each texel is near its direction."""
    charts, faces = wardrobe.charts, np.asarray(body.faces)
    eye, nose = charts.landmarks["left_eye"], charts.landmarks["nose"]
    assert eye[0] > 0.01 and nose[2] > eye[2]
    row, column = decals.ELEVATIONS // 2, decals.AZIMUTHS // 2
    assert charts.head[row, column, 2] > charts.centre[2] + 0.05  # forward
    assert charts.head[row, 0, 2] < charts.centre[2] - 0.05
    assert charts.head[row, 3 * decals.AZIMUTHS // 4, 0] > 0.05  # the person's left
    assert charts.head[2, column, 1] > charts.head[-3, column, 1] + 0.1
    centres = wardrobe.rest[faces].mean(1)
    assert centres[charts.chart == decals.HEAD][:, 1].min() > wardrobe.joints[12, 1] - 0.02
    front, back = (centres[charts.chart == c][:, 2] for c in (decals.FRONT, decals.BACK))
    assert np.median(front) > np.median(back) + 0.1


def test_composite_against_numpy(wardrobe, body):
    """Decals by nearest texel, blended with the vertex colours by their opacity, and lit."""
    rng, size, s, charts = np.random.default_rng(0), 8, SAMPLES, wardrobe.charts
    faces = np.asarray(body.faces, np.int64)
    face_id = rng.integers(-1, len(faces), (size * s, size * s)).astype(np.int32)
    bary = rng.dirichlet(np.ones(3), face_id.shape).astype(np.float32)
    head = rng.random((decals.ELEVATIONS, decals.AZIMUTHS, 3))
    front, back = rng.random((2, len(charts.y), len(charts.x), 4))
    albedo, shading = rng.random((2, len(wardrobe.rest), 3))
    ground = rng.random((size, size, 3)).astype(np.float32)
    picture, cover = ground.copy(), np.zeros((size, size), np.float32)
    of_person = (decals.Decals(head, front, back), (face_id, bary), faces, albedo, shading)
    decals.composite(charts, *of_person, picture, cover, s)

    mixed = lambda values: np.einsum("yxi,yxic->yxc", bary, values[faces[face_id]])
    gamma = lambda linear: linear ** (1 / 2.2)
    own, light = mixed(gamma(albedo * shading)), mixed(gamma(shading))
    at, kind = mixed(charts.rest), charts.chart[face_id]
    x, y, z = np.moveaxis(at - charts.centre, -1, 0)
    column = ((np.arctan2(x, z) / (2 * np.pi) + 0.5) * decals.AZIMUTHS).astype(int)
    row = ((0.5 - np.arctan2(y, np.hypot(x, z)) / np.pi) * decals.ELEVATIONS).astype(int)
    expected = np.where((kind == decals.HEAD)[..., None], gamma(head)[row, column] * light, own)
    column = np.abs(at[..., :1] - charts.x).argmin(-1)
    row = np.abs(at[..., 1:2] - charts.y).argmin(-1)
    for chart, side in ((decals.FRONT, front), (decals.BACK, back)):
        texel = side[row, column]
        over = own + texel[..., 3:] * (texel[..., :3] * light - own)
        expected = np.where((kind == chart)[..., None], over, expected)
    behind = np.repeat(np.repeat(ground, s, 0), s, 1)
    fine = np.where((face_id >= 0)[..., None], np.minimum(expected, 1), behind)
    error = np.abs(picture - fine.reshape(size, s, size, s, 3).mean((1, 3)))
    assert (error < 1e-3).mean() > 0.97  # the rest: points on the border of two texels
    np.testing.assert_allclose(cover, (face_id >= 0).reshape(size, s, size, s).mean((1, 3)))


def test_the_second_test_set_is_of_families_that_training_lacks():
    rows = lambda colours: {tuple(colour) for colour in colours}
    assert not rows(appearance.SKIN) & rows(unseen_people.SKINS)
    assert not rows(appearance.HAIR) & rows(unseen_people.HAIRS)
    assert not {"plain", "stripes", "checks", "blotches"} & set(unseen_people.PATTERNS)
    assert not {*heads.CUTS, *heads.HATS} & set(unseen_people.HEADS)
    assert not set(clothes.TOPS) & (set(unseen_people.GARMENTS) - {"plain"})
    train, test = APPEARANCES["training"], APPEARANCES["v2"]
    for part in ("dress", "light", "scenery", "noise"):
        assert getattr(train, part) is not getattr(test, part)
    assert test.quality[1] - 1 <= train.quality[0]


def test_scenery_light_and_noise_are_in_range(wardrobe):
    """Of every kind, at an odd size too."""
    for kind in unseen_scenes.KINDS:
        maker = getattr(unseen_scenes, f"_{kind}")
        assert maker(np.random.default_rng(1), 45).shape == (45, 45, 3)
    sets = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        picture = unseen_scenes.scenery(rng, 45)
        assert picture.dtype == np.float32 and 0 <= picture.min() and picture.max() <= 1
        light = unseen_scenes.light_unseen(wardrobe.normals, rng, picture.mean((0, 1)), None)
        assert light.shape == wardrobe.normals.shape and light.min() > 0 and light.max() < 5
        noisy = unseen_scenes.noise_unseen(picture, rng)
        assert noisy.dtype == np.uint8 and noisy.shape == (45, 45, 3)
        sets.append(picture.mean((0, 1)))
    assert np.std(sets, axis=0).min() > 0.02
    assert backgrounds.room(np.random.default_rng(0), 45).shape == (45, 45, 3)


def test_the_second_test_set_dresses_any_body(wardrobe):
    kinds = set()
    for seed in range(30):
        outfit = unseen_people.dress_unseen(wardrobe, np.random.default_rng(seed))
        thickness = np.linalg.norm(outfit.offset, axis=-1)
        assert np.isfinite(outfit.albedo).all() and thickness.max() < 0.15
        kinds.add(round(float(thickness[wardrobe.head > 0.5].max()), 2))
    assert len(kinds) > 4  # heads stand out by different amounts
