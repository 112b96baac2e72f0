"""The silhouette term of the refinement and the masks of detections against plain forms; a wrong
shape is pulled to its mask."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax
from smpl_jax import rotations

from genhmr_jax.core.refinement import RefineSpec, refine
from genhmr_jax.core.silhouette_term import (
    CELLS,
    POINTS,
    SPACING,
    Silhouette,
    crossings,
    gaps,
    targets,
)
from genhmr_jax.detect.detections import MASK_SIZE, Detections
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import DETECTED, project_body, surface_model
from genhmr_jax.geometry.metrics import silhouette_iou
from genhmr_jax.render.silhouette import silhouette as rendered

WIDTH, HEIGHT = 400, 300
CROP = np.array([[210.0, 160, 240]])
CENTRE, RADIUS = np.array([200.0, 150.0]), 60.0
TURN = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])


def detections(masks, frames, keypoints):
    """People of whom a mask (P, M, M), its frame (P, 2, 3) and keypoints (P, 23, 3) are known."""
    return dataclasses.replace(
        Detections.empty(len(masks)), masks=masks, mask_frames=frames, keypoints=keypoints
    )


def disc(points, side=260.0):
    """A person with these keypoints, whose mask is a soft disc of the image in a turned mask of
    this side, px."""
    frame = np.concatenate([side * TURN, (CENTRE - side * TURN.sum(1) / 2)[:, None]], 1)
    cells = (np.stack(np.meshgrid(*[np.arange(MASK_SIZE)] * 2), -1) + 0.5) / MASK_SIZE
    distance = np.linalg.norm(cells @ frame[:, :2].T + frame[:, 2] - CENTRE, axis=-1)
    mask = np.clip(0.5 + (RADIUS - distance) / 4, 0, 1).astype(np.float32)
    return detections(mask[None], frame[None], points)


def keypoints(on, off, confidence=1.0):
    """The first `on` in the middle of the disc, `off` far from it, of some confidence, the rest
    unseen."""
    points = np.zeros((1, len(DETECTED), 3))
    points[0, :on] = [*CENTRE, 1]
    points[0, on : on + off] = [120, 60, confidence]
    return points


def test_the_outline_and_the_distances_of_a_disc_in_a_turned_mask():
    found = targets(disc(keypoints(8, 0)), CROP, WIDTH, HEIGHT)
    assert [found.outline.shape, found.outside.shape, found.trust.shape] == [
        (1, POINTS, 2),
        (1, CELLS, CELLS),
        (1,),
    ]
    away = found.outline[0] - CENTRE
    np.testing.assert_allclose(np.linalg.norm(away, axis=-1), RADIUS, atol=0.1)
    assert (
        np.histogram(np.arctan2(*away.T), 8, (-np.pi, np.pi))[0].min() >= POINTS // 16
    )  # all around
    places = CROP[0, :2] + CROP[0, 2] * (
        (np.stack(np.meshgrid(*[np.arange(CELLS)] * 2), -1) + 0.5) / CELLS - 0.5
    )
    inside_mask = (np.abs((places - CENTRE) @ TURN) < 130).all(-1)
    expected = np.maximum(np.linalg.norm(places - CENTRE, axis=-1) - RADIUS, 0) * inside_mask
    np.testing.assert_allclose(
        found.outside[0] * CROP[0, 2], expected, atol=2.5
    )  # at the edge of the disc, a cell is in or out
    assert expected.max() > 40 and (found.outside[0] == 0)[~inside_mask].all()


@pytest.mark.parametrize(
    ("on", "off", "confidence", "trust"),
    [(9, 0, 1, 1), (5, 5, 1, 0), (6, 2, 1, 0.5), (9, 9, 0.05, 1), (0, 0, 1, 0)],
)
def test_a_mask_is_trusted_if_the_keypoints_lie_on_it(on, off, confidence, trust):
    found = targets(disc(keypoints(on, off, confidence)), CROP, WIDTH, HEIGHT)
    assert found.trust == pytest.approx(trust, abs=1e-6)


def test_where_the_picture_cuts_a_person_is_no_outline_and_nothing_is_outside():
    right = int(CENTRE[0])
    found = targets(disc(keypoints(8, 0)), CROP, right, HEIGHT)
    assert found.outline[..., 0].max() < right - 2
    beyond = int(CELLS * ((right - CROP[0, 0]) / CROP[0, 2] + 0.5)) + 1
    assert (found.outside[0, :, beyond:] == 0).all() and (found.outside > 0).any()


def test_masks_of_nobody():
    unseen = dataclasses.replace(Detections.empty(2), keypoints=np.repeat(keypoints(8, 0), 2, 0))
    found = targets(unseen, np.repeat(CROP, 2, 0), WIDTH, HEIGHT)
    assert all(len(value) == 2 and not value.any() for value in jax.tree.leaves(found))
    nobody = targets(Detections.empty(0), CROP[:0], WIDTH, HEIGHT)
    assert [nobody.outline.shape, nobody.outside.shape, nobody.trust.shape] == [
        (0, POINTS, 2),
        (0, CELLS, CELLS),
        (0,),
    ]
    assert crossings(np.zeros((4, 4))).shape == (0, 2)


def test_a_moved_mask_and_a_chosen_one():
    one = disc(keypoints(8, 0))
    empty = Detections.empty(1)
    two = detections(
        *(
            np.concatenate([getattr(person, name) for person in (empty, one)])
            for name in ("masks", "mask_frames", "keypoints")
        )
    )
    for chosen in ([1], np.array([False, True]), slice(1, None)):
        moved = two.moved(7.0, -5).only(chosen)
        found = targets(moved, CROP + [7, -5, 0], WIDTH, HEIGHT)
        assert len(moved) == 1 and found.trust == 1
    points = found.outline - [7, -5]
    np.testing.assert_allclose(np.linalg.norm(points[0] - CENTRE, axis=-1), RADIUS, atol=0.1)


def gaps_numpy(surface, outline, outside, crop):
    """`gaps` of one person, point by point."""
    cover = [max(min(np.hypot(*(c - v)) for v in surface) / crop[2] - SPACING, 0) for c in outline]
    lengths = []
    for x, y in np.clip(((surface - crop[:2]) / crop[2] + 0.5) * CELLS - 0.5, 0, CELLS - 1):
        i, j = min(int(x), CELLS - 2), min(int(y), CELLS - 2)
        rows = [outside[j + k, i] * (i + 1 - x) + outside[j + k, i + 1] * (x - i) for k in (0, 1)]
        lengths.append(rows[0] * (j + 1 - y) + rows[1] * (y - j))
    return np.array(cover), np.array(lengths)


def test_gaps_are_those_of_plain_numpy():
    rng = np.random.default_rng(0)
    surface, outline = rng.uniform(20, 330, (2, 60, 2)), rng.uniform(90, 280, (2, 20, 2))
    outside, crop = (
        rng.uniform(0, 1, (2, CELLS, CELLS)),
        np.array([[210.0, 160, 240], [180, 150, 300]]),
    )
    view = CropCamera(jnp.asarray(crop), jnp.ones(2), jnp.zeros((2, 2)))
    silhouette = Silhouette(jnp.asarray(outline), jnp.asarray(outside), jnp.ones(2))

    def total(v):
        found = gaps(v, view, silhouette)
        return found.outside.sum(), found

    by, found = jax.jit(jax.grad(total, has_aux=True))(jnp.float32(surface))
    np.testing.assert_allclose(found.outside_by, by * crop[:, None, 2:], rtol=1e-4, atol=1e-3)
    length = np.linalg.norm(found.cover_by, axis=-1)
    np.testing.assert_allclose(length, found.cover > 0, atol=1e-3)
    for b in range(2):
        expected = gaps_numpy(surface[b], outline[b], outside[b], crop[b])
        np.testing.assert_allclose(found.cover[b], expected[0], atol=1e-5)
        np.testing.assert_allclose(found.outside[b], expected[1], atol=1e-3)


BODY = load_body("lite")
SURFACE = surface_model(BODY)
FOCAL = 500.0
TRUE_BETAS = jnp.array([[0.0, 3, 0, 0, 0, 0, 0, 0, 0, 0]])
WEAK = jnp.array([[0.85, 0.0, 0.3]])
VIEW = CropCamera(
    crop=jnp.asarray(CROP),
    focal=jnp.array([FOCAL]),
    centre=jnp.array([[WIDTH / 2, HEIGHT / 2]]),
)
POSE = jnp.zeros((1, 24, 3)).at[0, 0, 0].set(np.pi).at[0, 16, 2].set(-0.8).at[0, 17, 2].set(0.8)


def decode(embeddings):
    """(B, 24, 3) axis-angle."""
    return rotations.axis_angle_to_matrix(embeddings)


@pytest.fixture(scope="module")
def case():
    """A stout person whose keypoints are known exactly, and the mask: keypoints (1, 23, 3),
    silhouette, true mask (H, W)."""
    points = project_body(SURFACE, decode(POSE), TRUE_BETAS, WEAK, VIEW)[0]
    seen = jnp.concatenate([points, jnp.ones((1, len(DETECTED), 1))], -1)
    mask = mask_of(TRUE_BETAS, POSE, WEAK)
    cells = np.clip(((np.arange(MASK_SIZE) + 0.5) / MASK_SIZE * HEIGHT).astype(int), 0, HEIGHT - 1)
    columns = np.clip(cells + (WIDTH - HEIGHT) // 2, 0, WIDTH - 1)
    frame = np.array([[[HEIGHT, 0, (WIDTH - HEIGHT) / 2], [0, HEIGHT, 0]]], float)
    person = detections(mask[cells][:, columns][None].astype(np.float32), frame, np.asarray(seen))
    return seen, jax.tree.map(jnp.asarray, targets(person, CROP, WIDTH, HEIGHT)), mask


def mask_of(betas, pose, weak):
    """Pixels that a body covers."""
    output = smpl_jax.forward(BODY, betas, pose)
    vertices = output.vertices + VIEW.translation(weak)[:, None]
    return rendered(np.asarray(vertices), np.asarray(BODY.faces), FOCAL, WIDTH, HEIGHT)


SPEC = RefineSpec()
RUN = jax.jit(
    lambda seen, silhouette: refine(
        decode, SURFACE, POSE, jnp.zeros((1, 10)), WEAK, seen, VIEW, silhouette, SPEC
    )
)


def test_the_loss_has_the_term_by_its_trust(case):
    seen, silhouette, _ = case
    doubt = dataclasses.replace(silhouette, trust=jnp.array([0.25]))
    plain, masked, doubted = (RUN(seen, s).loss[0, 0] for s in (None, silhouette, doubt))
    surface = project_body(SURFACE, decode(POSE), jnp.zeros((1, 10)), WEAK, VIEW)[1]
    cover, outside = gaps_numpy(
        *(np.asarray(x[0]) for x in (surface, silhouette.outline, silhouette.outside)), CROP[0]
    )
    rho = lambda r: np.mean(r**2 / (1 + (r / SPEC.robust_scale) ** 2))
    term = SPEC.silhouette * (rho(cover) + SPEC.silhouette_outside * rho(outside))
    assert silhouette.trust == 1 and term > 5e-5
    np.testing.assert_allclose(
        [masked - plain, doubted - plain], [term, term / 4], rtol=0.02, atol=1e-7
    )


def test_a_wrong_shape_is_pulled_to_its_mask(case):
    seen, silhouette, mask = case
    iou = {}
    for name, given in (
        ("keypoints", None),
        ("mask", silhouette),
        ("doubted", dataclasses.replace(silhouette, trust=jnp.zeros(1))),
    ):
        found = RUN(seen, given)
        body = (found.betas, found.weak_camera)
        iou[name] = float(
            silhouette_iou(mask_of(found.betas, found.embeddings, found.weak_camera), mask)
        )
        gap = project_body(SURFACE, decode(found.embeddings), *body, VIEW)[0] - seen[..., :2]
        assert np.linalg.norm(gap, axis=-1).mean() < 3  # px, and the keypoints are still met
    assert iou["mask"] > 0.91 > 0.88 > iou["keypoints"], iou
    assert iou["doubted"] == pytest.approx(iou["keypoints"], abs=0.01)


def test_a_surface_model_has_its_keypoints_and_points_all_over():
    template = np.asarray(BODY.template).T
    chosen = np.asarray(SURFACE.template).T
    assert len(DETECTED) < len(chosen) <= 525 and set(SURFACE.vertex_ids) == set(BODY.vertex_ids)
    assert np.linalg.norm(template[:, None] - chosen, axis=-1).min(1).max() < 0.06
    assert surface_model(BODY, 10_000).num_vertices == BODY.num_vertices
