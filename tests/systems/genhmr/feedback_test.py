"""Feedback between the steps of sampling: the projection of an estimate, what a step gets from it,
and that the scorer chooses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax
from flax import nnx

from genhmr_jax.core import feedback
from genhmr_jax.core.feedback import DetectedKeypoints
from genhmr_jax.core.inputs import Inputs
from genhmr_jax.core.sizes import TokenizerSpec, TransformerSpec
from genhmr_jax.core.tokenizer import PoseTokenizer
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import (
    DETECTED,
    keypoint_model,
    normalize_keypoints,
    project_body,
)
from genhmr_jax.systems.genhmr.model import Encoded, GenHmr
from genhmr_jax.systems.genhmr.names import ASSIGNMENTS, BODY_FORM, reassigned
from genhmr_jax.systems.genhmr.spec import GenHmrSpec
from genhmr_jax.systems.genhmr.system import GenHmrSystem

ROWS = 3
SPEC = GenHmrSpec(
    TokenizerSpec(part_tokens=(1, 2, 1, 1, 1, 1), codebook_size=12, code_dim=3, width=8, depth=1),
    TransformerSpec(width=12, layers=1, heads=2),
    feedback=True,
    context_width=16,
    context_depth=1,
    score_width=8,
)


@pytest.fixture(scope="module")
def body():
    return keypoint_model(load_body("lite"))


@pytest.fixture(scope="module")
def network():
    pure = lambda module: nnx.to_pure_dict(nnx.split(module)[1])
    model = pure(GenHmr(SPEC, rngs=nnx.Rngs(0)))
    leaves, tree = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [x + 0.2 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return GenHmrSystem(SPEC), {
        "genhmr": jax.tree.unflatten(tree, noisy),
        "tokenizer": pure(PoseTokenizer(SPEC.tokenizer, rngs=nnx.Rngs(2))),
        "codebook": {"vectors": jax.random.normal(jax.random.key(3), (12, 3))},
    }


@pytest.fixture(scope="module")
def view():
    rng = np.random.default_rng(0)
    crop = np.concatenate([rng.uniform(150, 250, (ROWS, 2)), rng.uniform(200, 300, (ROWS, 1))], 1)
    floats = crop, rng.uniform(300, 600, ROWS), np.full((ROWS, 2), 200.0)
    return CropCamera(*(jnp.asarray(x, jnp.float32) for x in floats))


@pytest.fixture(scope="module")
def inputs(view):
    rng = np.random.default_rng(1)
    points = view.crop[:, None, :2] + 60 * rng.standard_normal((ROWS, len(DETECTED), 2))
    confidence = rng.uniform(0, 1, (ROWS, len(DETECTED), 1)).round(1)
    keypoints = jnp.concatenate([points, confidence], -1)
    keypoints3d = jnp.asarray(0.3 * rng.standard_normal((ROWS, len(DETECTED), 3)), jnp.float32)
    return Inputs(view, keypoints, keypoints3d)


def estimate_of(body, view, seed=0):
    rng = np.random.default_rng(seed)
    angles = jnp.asarray(0.3 * rng.standard_normal((ROWS, 24, 3)), jnp.float32)
    rotmats = smpl_jax.rotations.axis_angle_to_matrix(angles)
    betas, camera = rng.standard_normal((ROWS, 10)), 0.1 * rng.standard_normal((ROWS, 3))
    given = (rotmats, jnp.asarray(betas, jnp.float32), jnp.asarray(camera, jnp.float32))
    return feedback.pose_and_project(body, BODY_FORM, view, *given, jnp.zeros(ROWS, jnp.int32))


def test_an_estimate_has_the_projected_keypoints_of_its_body(body, view):
    estimate = estimate_of(body, view)
    pixels, _ = project_body(body, estimate.rotmats, estimate.betas, estimate.weak_camera, view)
    np.testing.assert_allclose(estimate.points2d, view.to_crop(pixels), atol=1e-4)


def test_an_upright_estimate_is_in_the_same_place_in_the_photo(body, view):
    """In the axes of an upright region the body is turned about its pelvis; its camera follows."""
    rng = np.random.default_rng(2)
    region = jnp.concatenate([view.crop, jnp.asarray(rng.uniform(-2, 2, (ROWS, 1)))], -1)
    photo = dataclasses.replace(view, region=region)
    turn, own = photo.upright()
    estimate = estimate_of(body, own)
    zeros = jnp.zeros((ROWS, 23, 3))
    detected = DetectedKeypoints(own, zeros, zeros)
    nothing = [None] * 5
    encoded = Encoded(detected, turn, photo, *nothing[:3], jnp.zeros((ROWS, 0, 12)), *nothing[3:])
    weak = GenHmrSystem(SPEC).photo_camera(encoded, estimate)
    rotmats = estimate.rotmats.at[:, 0].set(turn @ estimate.rotmats[:, 0])
    pixels, _ = project_body(body, rotmats, estimate.betas, weak, photo)
    # Their own picture is the photo, rotated about the principal point.
    half, centre = own.crop[:, None, 2:] / 2, photo.centre[:, None]
    pictured = estimate.points2d * half + own.crop[:, None, :2]
    back = jnp.einsum("bij,bpj->bpi", turn[:, :2, :2], pictured - centre) + centre
    np.testing.assert_allclose(pixels, back, atol=2e-2)


def test_there_is_no_gap_where_a_body_is_seen_as_it_is(body, view):
    """Keypoints that are the estimate's own have no distance from it; moved ones have theirs."""
    estimate = estimate_of(body, view)
    pixels, _ = project_body(body, estimate.rotmats, estimate.betas, estimate.weak_camera, view)
    keypoints = jnp.concatenate([pixels, jnp.ones((ROWS, len(DETECTED), 1))], -1)
    detected = DetectedKeypoints(view, normalize_keypoints(keypoints, view), estimate.points3d)
    inside = np.abs(estimate.points2d).max(-1) < 2  # normalised keypoints are clipped there
    gaps = estimate.gaps(detected, BODY_FORM)[:, : 2 * len(DETECTED)].reshape(ROWS, -1, 2)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(gaps[inside], 0.0, atol=1e-4)
    np.testing.assert_allclose(
        estimate.gaps(detected, BODY_FORM)[:, 2 * len(DETECTED) :], 0.0, atol=1e-5
    )
    half = view.crop[:, None, 2:] / 2
    moved = keypoints.at[:, 5, :2].add(0.25 * half[:, 0]).at[:, 6, 2].set(0.0)
    other = dataclasses.replace(detected, keypoints=normalize_keypoints(moved, view))
    gaps = estimate.gaps(other, BODY_FORM)
    gaps = gaps[:, : 2 * len(DETECTED)].reshape(ROWS, -1, 2)
    np.testing.assert_allclose(gaps[:, 5][inside[:, 5]], -0.75, atol=1e-4)
    np.testing.assert_array_equal(gaps[:, 6], 0.0)  # not detected


def test_assignments_are_names_of_the_same_points(view):
    names = np.array(DETECTED)
    plain, swapped, legs = names[ASSIGNMENTS]
    assert plain.tolist() == list(DETECTED)
    other = {"left": "right", "right": "left"}
    flipped = lambda n: "_".join([other.get(n.split("_")[0], n.split("_")[0]), *n.split("_")[1:]])
    assert [flipped(n) for n in swapped] == list(DETECTED)
    changed = {n for n, m in zip(plain, legs, strict=True) if n != m}
    assert changed == {
        f"{side}_{part}"
        for side in ("left", "right")
        for part in ("knee", "ankle", "big_toe", "heel")
    }
    points = jnp.arange(ROWS * len(DETECTED) * 3.0).reshape(ROWS, len(DETECTED), 3)
    detected = reassigned(DetectedKeypoints(view, points, -points), jnp.array([0, 1, 2]))
    for row, index in enumerate(ASSIGNMENTS):
        np.testing.assert_array_equal(detected.keypoints[row], points[row][index])
        np.testing.assert_array_equal(detected.keypoints3d[row], -points[row][index])


def test_tokens_look_at_joints_of_their_part():
    spec = TokenizerSpec()
    found = feedback.joints_of_tokens(spec)
    for joints, tokens in spec.independent_parts:
        assert set(found[list(tokens)]) == set(joints)  # five tokens, at most five joints
    confidence = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 24)), jnp.float32)
    means = feedback.confidence_of_tokens(spec, confidence)
    for joints, tokens in spec.independent_parts:
        wanted = np.asarray(confidence)[:, list(joints)].mean(1)
        np.testing.assert_allclose(means[:, list(tokens)], np.tile(wanted, (5, 1)).T, rtol=1e-5)


def sample(network, body, inputs, **how):
    system, params = network
    encoded = system.encode(params, inputs)
    keys = jax.random.split(jax.random.key(0), inputs.rows)
    if (count := how.get("hypotheses", 1)) > 1:
        encoded = jax.tree.map(lambda x: jnp.repeat(x, count, 0), encoded)
        keys = jax.random.split(jax.random.key(0), inputs.rows * count)
    return system.sample(params, body, encoded, keys, **how)


@pytest.mark.slow
def test_steps_add_up_and_correct_shape_and_camera(network, body, inputs):
    """The sampler's estimate is that of the steps one by one: nothing is lost between them."""
    system, params = network
    encoded, vectors = system.encode(params, inputs), params["codebook"]["vectors"]
    names = len(ASSIGNMENTS)  # of which the first leaves the keypoints as they are
    how = {"hypotheses": names, "rule": "final"}
    plain = lambda t: jax.tree.map(
        lambda x: x[::names], sample(network, body, inputs, iterations=t, **how)
    )
    steps = system.steps(params, body, encoded)
    state, masked = steps.start(), jnp.full((ROWS, SPEC.tokenizer.length), 12)
    logits, state = steps.predict(masked, state)
    expected = jax.nn.softmax(logits) @ vectors
    state, confidence = steps.assess(expected, state)
    first = plain(1)
    np.testing.assert_allclose(first.embeddings, expected, atol=1e-4)
    np.testing.assert_allclose(first.betas, state.estimate.betas, atol=1e-4)
    np.testing.assert_allclose(first.weak_camera, state.estimate.weak_camera, atol=1e-4)
    assert np.abs(state.estimate.betas).max() > 0.01
    assert ((confidence > 0) & (confidence < 1)).all()
    # The second step starts from the first one's logits, and corrects again.
    again, after = steps.predict(masked, state)
    assert np.abs(again - logits).max() > 1e-3
    assert np.abs(after.estimate.camera - state.estimate.camera).max() > 1e-3
    assert np.abs(first.embeddings - plain(3).embeddings).max() > 1e-3


def test_the_answer_is_the_candidate_of_the_smallest_expected_error(network, body, inputs):
    """Each row is what the scorer prefers among the three assignments."""
    names = len(ASSIGNMENTS)
    each = sample(network, body, inputs, hypotheses=names, rule="final", iterations=2)
    best = sample(network, body, inputs, iterations=2)
    error = each.expected_error.reshape(ROWS, names)
    np.testing.assert_allclose(best.expected_error, error.min(1), rtol=1e-4)
    chosen = each.embeddings.reshape(ROWS, names, *each.embeddings.shape[1:])
    wanted = chosen[np.arange(ROWS), np.argmin(error, 1)]
    np.testing.assert_allclose(best.embeddings, wanted, atol=1e-4)


@pytest.mark.slow
def test_hypotheses_differ_also_after_one_iteration(network, body, inputs):
    found = sample(network, body, inputs, hypotheses=6, temperature=1.0, iterations=1)
    own = np.asarray(found.embeddings).reshape(ROWS, 6, -1)[:, 3:]  # the names as detected
    assert (own.std(1).max(1) > 1e-3).all()


SEVERAL = {"hypotheses": 4, "temperature": 1.0, "iterations": 3}


@pytest.mark.parametrize("how", [{}, pytest.param(SEVERAL, marks=pytest.mark.slow)])
def test_a_row_does_not_depend_on_the_others(network, body, inputs, how):
    system, params = network
    count = how.get("hypotheses", 1)
    keys = jax.random.split(jax.random.key(7), ROWS * count)
    encoded = system.encode(params, inputs)
    encoded = jax.tree.map(lambda x: jnp.repeat(x, count, 0), encoded)
    whole = system.sample(params, body, encoded, keys, **how)
    last = jax.tree.map(lambda x: x[-count:], (encoded, keys))
    part = system.sample(params, body, *last, **how)
    compare = lambda a, b: np.testing.assert_allclose(a[-count:], b, atol=2e-4)
    jax.tree.map(compare, whole, part)
    if count > 1:
        spread = np.asarray(whole.embeddings).reshape(ROWS, count, -1).std(1)
        assert (spread.max(1) > 1e-3).all()


def test_an_undetected_keypoint_has_no_influence_on_where_it_would_be(network, body, inputs):
    """Whatever stands at a keypoint of confidence 0, also NaN."""
    hidden = inputs.keypoints.at[:, 3, 2].set(0.0)
    other = hidden.at[:, 3, :2].set(jnp.nan)
    given = [dataclasses.replace(inputs, keypoints=k) for k in (hidden, other)]
    both = [sample(network, body, i) for i in given]
    np.testing.assert_array_equal(both[0].embeddings, both[1].embeddings)
    assert np.isfinite(both[1].embeddings).all()
