"""The refinement over frames, with the light body and a made-up decoder of independent joints."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax
from smpl_jax import rotations

from genhmr_jax.core import motion_refinement as module
from genhmr_jax.core.fit_objective import Fit, Pose
from genhmr_jax.core.motion_refinement import FEET, MotionSpec, Window, refine_motion
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_model, project_body

BODY = keypoint_model(load_body("lite"))
FRAMES = 12
SPEC = MotionSpec(steps=5)
UPRIGHT = jnp.zeros((24, 3)).at[0, 0].set(np.pi)
PARTS = tuple(((joint,), (joint,)) for joint in range(24))


def decode(embeddings):
    """(B, 24, 3) -> rotations of the joints: half of their embeddings is axis-angle."""
    return rotations.axis_angle_to_matrix(embeddings / 2) @ rotations.axis_angle_to_matrix(UPRIGHT)


jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
RUN = jit(lambda window: refine_motion(decode, BODY, window, SPEC, PARTS))
ROTATIONS, STEPS = jit(decode), jit(module.differences)


@jit
def posed(embeddings, weak, view):
    """Joints, metres, and keypoints, px."""
    output = smpl_jax.forward(BODY, jnp.zeros(10), decode(embeddings))
    points = project_body(BODY, decode(embeddings), jnp.zeros(10), weak, view)[0]
    return output.joints + view.translation(weak)[:, None], points


VIEW = CropCamera(
    crop=np.tile(np.float32([320, 240, 360]), (FRAMES, 1)),
    focal=np.full(FRAMES, 700, np.float32),
    centre=np.tile(np.float32([320, 240]), (FRAMES, 1)),
)
TIMES = np.cumsum([0, *np.tile([0.03, 0.04], FRAMES)])[:FRAMES].astype(np.float32)


def truth(speed):
    """A smooth motion; `speed` 0 stands."""
    rng = np.random.default_rng(0)
    phase, size = rng.uniform(0, 6, (24, 3)), rng.uniform(0.1, 0.5, (24, 3))
    size[[7, 8, 10, 11]] *= 0.2
    embeddings = size * np.sin(phase + speed * 5 * TIMES[:, None, None])
    weak = np.tile([0.85, 0.02, 0.1], (FRAMES, 1))
    weak[:, 1] += 0.4 * speed * TIMES
    return np.float32(embeddings), np.float32(weak)


def window_of(speed, noise, **changes):
    """A window whose answers of single frames, and keypoints, have errors."""
    rng = np.random.default_rng(1)
    embeddings, weak = truth(speed)
    points = np.array(posed(embeddings, weak, VIEW)[1])
    points += noise * rng.normal(0, 4.0, points.shape)
    keypoints = np.concatenate([points, np.full((FRAMES, len(DETECTED), 1), 0.9)], -1)
    embeddings = embeddings + noise * rng.normal(0, 0.15, embeddings.shape)
    weak = weak + noise * rng.normal(0, 0.01, weak.shape)
    made = Window(
        times=TIMES,
        known=np.ones(FRAMES, bool),
        free=np.ones(FRAMES, bool),
        embeddings=np.float32(embeddings),
        prior=np.float32(embeddings),
        betas=np.zeros((FRAMES, 10), np.float32),
        weak_camera=np.float32(weak),
        keypoints=np.float32(keypoints),
        view=VIEW,
        contact=np.zeros((FRAMES, 2), np.float32),
        weight=np.where(np.arange(FRAMES) % 3, np.float32(1), np.float32(0.6)),
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="module")
def jittery():
    return window_of(1, 1)


@pytest.fixture(scope="module")
def refined(jittery):
    return RUN(jittery)


def joints_of(x):
    return np.asarray(posed(x.embeddings, x.weak_camera, VIEW)[0], float)


def acceleration(joints):
    """Mean length of the second divided difference, m / frame^2, at uneven times."""
    passed = np.diff(TIMES.astype(float))[:, None, None] * 30
    velocity = np.diff(joints, axis=0) / passed
    return np.linalg.norm(np.diff(velocity, axis=0), axis=-1).mean()


def test_differences_are_derivatives():
    """Of quadratics the acceleration is exact; the velocity is that of the middle of a step."""
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.01, 0.1, 9))
    with jax.enable_x64():
        steps = jax.tree.map(np.asarray, STEPS(times, np.ones(9, bool)))
    c0, c1, c2 = 0.7, -1.3, 2.1
    t = times * 30  # frames of 1/30 s
    x = c0 + c1 * t + c2 * t**2
    around = np.stack([x[:-2], x[1:-1], x[2:]], -1)
    np.testing.assert_allclose((steps.second[1:-1] * around).sum(-1), 2 * c2, rtol=1e-9)
    assert not steps.second[[0, -1]].any() and not steps.first[-1].any()
    middle = (t[1:] + t[:-1]) / 2
    along = (steps.first[:-1] * np.stack([x[:-1], x[1:]], -1)).sum(-1)
    np.testing.assert_allclose(along, c1 + 2 * c2 * middle, rtol=1e-9)


def test_padding_has_no_difference():
    known = np.arange(9) < 6
    steps = jax.tree.map(np.asarray, STEPS(np.arange(9) / np.float32(25), known))
    assert np.flatnonzero(np.any(steps.second, -1)).tolist() == [1, 2, 3, 4]
    assert np.flatnonzero(np.any(steps.first, -1)).tolist() == [0, 1, 2, 3, 4]


def linear_motion(rng, frames, size):
    """Joints that are linear in parameters (T, P), and what `motion_loss` needs, in float64."""
    moving = rng.normal(size=(frames, 24, 3, size))
    offset = rng.normal(size=(frames, 24, 3))
    times = np.cumsum(rng.uniform(0.01, 0.1, frames))
    return moving, offset, times, rng.uniform(0, 1, (frames, 2))


def dense_loss(moving, offset, times, contact, known):
    """The residuals of the motion prior as one matrix and one vector, by loops."""
    frames, size = moving.shape[0], moving.shape[-1]
    rows, right = [], []

    def add(weights, joint, scale):
        for axis in range(3):
            row, constant = np.zeros((frames, size)), 0.0
            for frame, weight in weights.items():
                row[frame] = scale * weight * moving[frame, joint, axis]
                constant += scale * weight * offset[frame, joint, axis]
            rows.append(row.ravel())
            right.append(constant)

    t = times * 30
    for s in range(known - 1):
        h = t[s + 1] - t[s]
        for side, joint in enumerate(FEET):
            add({s: -1 / h, s + 1: 1 / h}, joint, np.sqrt(SPEC.contact * contact[s, side]))
        if s + 2 < known:
            g = t[s + 2] - t[s + 1]
            weights = {s: 1 / h, s + 1: -1 / h - 1 / g, s + 2: 1 / g}
            weights = {frame: 2 * w / (h + g) for frame, w in weights.items()}
            for joint in range(24):
                add(weights, joint, np.sqrt(SPEC.acceleration / 24))
    return np.array(rows), np.array(right)


@jit
def prior(joints, moving, times, known, contact):
    steps = module.differences(times, known)
    blocks = module._coupling(moving, steps, contact, SPEC)
    return module.motion_loss(joints, steps, contact, SPEC), blocks


@pytest.mark.parametrize("known", [8, 5])
def test_loss_and_curvature_of_the_motion_prior(known):
    """Joints are linear here, so that the curvature is the second derivative."""
    rng = np.random.default_rng(known)
    moving, offset, times, contact = linear_motion(rng, 8, 4)
    x = rng.normal(size=(8, 4))
    joints = np.einsum("tjxp,tp->tjx", moving, x) + offset
    with jax.enable_x64():
        loss, blocks = prior(joints, moving, times, np.arange(8) < known, contact)
    matrix, constant = dense_loss(moving, offset, times, contact, known)
    wanted = np.sum((matrix @ x.ravel() + constant) ** 2)
    np.testing.assert_allclose(loss, wanted, rtol=1e-10)
    np.testing.assert_allclose(dense(*blocks), 2 * matrix.T @ matrix, atol=1e-9)


def dense(own, before, second):
    """The matrix of blocks of frames t, t - 1 and t - 2."""
    frames, size = own.shape[:2]
    found = np.zeros((frames, size, frames, size))
    for t in range(frames):
        found[t, :, t] = own[t]
        for by, block in ((1, before), (2, second)):
            if t >= by:
                found[t, :, t - by], found[t - by, :, t] = block[t], block[t].T
    return found.reshape(frames * size, -1)


def test_derivatives_of_the_joints_are_those_of_autodiff():
    """By a turn exp([a]x) R of each joint, and by the camera, in float64."""
    rng = np.random.default_rng(0)

    def both(body, view, rotmats, camera):
        def joints(p):
            turned = rotations.axis_angle_to_matrix(p[:, :72].reshape(-1, 24, 3)) @ rotmats
            moved = camera + p[:, 72:]
            weak = jnp.concatenate([jnp.exp(moved[:, :1]), moved[:, 1:]], -1)
            translation = view.translation(weak)
            output = smpl_jax.forward(body, jnp.zeros((2, 10)), turned)
            return output.joints + translation[:, None], translation

        zero = jnp.zeros((2, 75))
        at, translation = joints(zero)
        fit = Fit(translation, at, None, None, None, None)
        pose = Pose(rotmats, jnp.zeros((2, 10)), camera)
        by = jax.jacfwd(lambda p: joints(p)[0])(zero)
        return module._joint_motions(body, pose, fit), jnp.stack([by[i, :, :, i] for i in (0, 1)])

    with jax.enable_x64():
        double = lambda x: np.asarray(x, np.float64 if x.dtype == np.float32 else x.dtype)
        view = CropCamera(
            np.array([[300.0, 200, 250], [350, 260, 300]]), np.array([700.0, 600]),
            np.array([[320.0, 240]] * 2),
        )  # fmt: skip
        rotmats = rotations.axis_angle_to_matrix(jnp.asarray(rng.normal(0, 0.7, (2, 24, 3))))
        camera = jnp.asarray(rng.normal(0, 0.1, (2, 3)))
        found, wanted = jit(both)(jax.tree.map(double, BODY), view, rotmats, camera)
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_a_step_is_the_dense_solution():
    """(S^T (H + B) S + mu) z = -S^T g, with S zero in the frames that do not change."""
    rng = np.random.default_rng(0)
    frames, size = 6, 5
    moving, _, times, contact = linear_motion(rng, frames, size)
    given = (np.float32(x) for x in (np.zeros((frames, 24, 3)), moving, times))
    blocks = prior(*given, np.ones(frames, bool), np.float32(contact))[1]
    own, before, second = map(np.array, blocks)
    factor = rng.normal(size=(frames, size, size))
    own += factor @ factor.swapaxes(1, 2)
    root = np.tril(rng.normal(size=(frames, size, size))) + 2 * np.eye(size)
    root[[0, 3]] = 0
    gradient = rng.normal(size=(frames, size))
    model = module._Model(None, *(jnp.float32(x) for x in (gradient, own, before, second)))
    found = np.asarray(jit(module._solved)(model, jnp.float32(root), jnp.float32(0.1)))
    s = np.zeros((frames, size, frames, size))
    s[np.arange(frames), :, np.arange(frames)] = root
    s = s.reshape(frames * size, -1)
    matrix = s.T @ dense(own, before, second) @ s + 0.1 * np.eye(frames * size)
    wanted = np.linalg.solve(matrix, -s.T @ gradient.ravel()).reshape(frames, size)
    assert not found[[0, 3]].any()
    np.testing.assert_allclose(found, wanted, atol=3e-4 * np.abs(wanted).max())


def objective(window, x):
    """The objective, term by term, in float64."""
    count = int(window.known.sum())
    joints, points = map(np.asarray, posed(x.embeddings, x.weak_camera, VIEW))
    rotmats, before = (np.asarray(ROTATIONS(e), float) for e in (x.embeddings, window.prior))
    total = 0.0
    for t in range(count):
        c = np.asarray(window.keypoints[t, :, 2], float)
        r = np.linalg.norm(points[t] - window.keypoints[t, :, :2], axis=-1) / VIEW.crop[t, 2]
        own = SPEC.prior_pose * np.mean(np.sum((rotmats[t] - before[t]) ** 2, (-1, -2)))
        if c.any():
            own += np.sum(c * r**2 / (1 + (r / SPEC.robust_scale) ** 2)) / c.sum()
        total += float(window.weight[t]) * own
    fixed = np.zeros((*joints.shape, 1))  # the loss at these joints
    times = window.times.astype(float)
    _, residuals = dense_loss(fixed, joints, times, window.contact.astype(float), count)
    return total + np.sum(residuals**2)


def test_losses_are_the_objective_and_do_not_increase(jittery, refined):
    losses = np.asarray(refined.loss)
    assert losses.shape == (SPEC.steps + 1,) and (np.diff(losses) <= 0).all()
    np.testing.assert_allclose(losses[0], objective(jittery, jittery), rtol=1e-3)
    np.testing.assert_allclose(losses[-1], objective(jittery, refined), rtol=1e-3)
    assert losses[-1] < 0.1 * losses[0]


def test_a_jittery_motion_becomes_smooth_and_closer_to_the_truth(jittery, refined):
    smooth = np.asarray(posed(*truth(1), VIEW)[0], float)
    before, after = joints_of(jittery), joints_of(refined)
    assert acceleration(smooth) < acceleration(after) < 0.2 * acceleration(before)
    error = lambda x: np.linalg.norm(x - smooth, axis=-1).mean()
    assert error(after) < 0.6 * error(before)


def test_a_person_who_stands_stays():
    window = window_of(0, 0, contact=np.ones((FRAMES, 2), np.float32))
    found = RUN(window)
    assert np.abs(joints_of(found) - joints_of(window)).max() < 1e-3


def test_resting_feet_do_not_slide(jittery):
    resting = dataclasses.replace(jittery, contact=np.ones((FRAMES, 2), np.float32))
    slide = [
        np.linalg.norm(np.diff(joints_of(RUN(window))[:, FEET], axis=0), axis=-1).mean()
        for window in (jittery, resting)
    ]
    assert slide[1] < 0.4 * slide[0]


def test_frames_that_are_not_free_do_not_move(jittery, refined):
    free = ~np.isin(np.arange(FRAMES), [0, 1, 6])
    found = RUN(dataclasses.replace(jittery, free=free))
    for name in ("embeddings", "weak_camera"):
        own, start = np.asarray(getattr(found, name)), getattr(jittery, name)
        np.testing.assert_allclose(own[~free], start[~free], rtol=1e-6)
        moved = np.abs(own - start).reshape(FRAMES, -1).max(-1)
        assert (moved[free] > 1e-3).all()
    # They pull their neighbours.
    assert np.abs(found.embeddings[2] - refined.embeddings[2]).max() > 1e-3


def test_a_frame_of_little_weight_follows_its_neighbours(jittery):
    wrong, smooth = 4, joints_of(window_of(1, 0))
    embeddings, keypoints = jittery.embeddings.copy(), jittery.keypoints.copy()
    embeddings[wrong] += 0.4
    keypoints[wrong, :, :2] = posed(embeddings, jittery.weak_camera, VIEW)[1][wrong]
    changed = {"embeddings": embeddings, "prior": embeddings, "keypoints": keypoints}
    error = []
    for weight in (1.0, 0.05):
        weights = np.where(np.arange(FRAMES) == wrong, np.float32(weight), np.float32(1))
        found = RUN(dataclasses.replace(jittery, **changed, weight=weights))
        error.append(np.linalg.norm(joints_of(found)[wrong] - smooth[wrong], axis=-1).mean())
    assert error[1] < 0.75 * error[0]


@pytest.mark.parametrize("count", [7, 8, 1])
def test_padding_changes_nothing(jittery, count):
    """Whatever is in the rows of padding, and for an odd number of frames."""
    known = np.arange(FRAMES) < count
    times = np.where(known, TIMES, TIMES[count - 1] + 1 + np.arange(FRAMES)).astype(np.float32)
    padded = dataclasses.replace(jittery, known=known, free=known, times=times)
    rng, results = np.random.default_rng(count), []
    for scale in (0.0, 0.3):
        changed = {}
        for name in ("embeddings", "prior", "weak_camera", "keypoints", "contact"):
            changed[name] = getattr(jittery, name).copy()
            changed[name][count:] += scale * rng.normal(size=changed[name][count:].shape)
        results.append(RUN(dataclasses.replace(padded, **changed)))
    np.testing.assert_allclose(results[0].loss, results[1].loss, rtol=1e-5)
    np.testing.assert_allclose(*(x.embeddings[:count] for x in results), atol=1e-5)
    losses = np.asarray(results[0].loss)
    assert (np.diff(losses) <= 0).all() and losses[-1] < losses[0]
    np.testing.assert_allclose(losses[-1], objective(padded, results[0]), rtol=1e-3)


def test_frames_without_keypoints_follow_their_neighbours(jittery):
    """Two frames were not detected; their start is far from the motion."""
    hidden = [5, 6]
    keypoints, embeddings = jittery.keypoints.copy(), jittery.embeddings.copy()
    keypoints[hidden] = np.nan, np.nan, 0
    embeddings[hidden] = embeddings[[4, 7]]
    found = RUN(dataclasses.replace(jittery, keypoints=keypoints, embeddings=embeddings))
    assert np.isfinite(found.embeddings).all() and np.isfinite(found.loss).all()
    joints, smooth = joints_of(found), np.asarray(posed(*truth(1), VIEW)[0], float)
    assert acceleration(joints) < 0.2 * acceleration(joints_of(jittery))
    error = np.linalg.norm(joints - smooth, axis=-1).mean(-1)
    assert error[hidden].max() < 1.5 * error.mean()


def test_two_windows_with_context_are_as_one(jittery, refined):
    """Frames 0 to 7, of which 6 and 7 are solved again after them. The start is several cm off."""

    def cut(first, last):
        rows = np.arange(first, first + FRAMES)
        own = jax.tree.map(lambda x: x[np.minimum(rows, last)], jittery)
        return dataclasses.replace(own, known=rows <= last, free=rows <= last)

    first, second = RUN(cut(0, 7)), cut(2, 11)
    second.embeddings[:4], second.weak_camera[:4] = first.embeddings[2:6], first.weak_camera[2:6]
    second.free[:4] = False
    second = RUN(second)
    together = np.concatenate([joints_of(first)[:6], joints_of(second)[4:10]])
    gap = np.linalg.norm(together - joints_of(refined), axis=-1)
    assert gap.mean() < 0.01 < np.linalg.norm(joints_of(jittery) - together, axis=-1).mean() / 3


def test_a_decoder_of_few_embeddings(jittery):
    """72 rotations of 20 numbers: G is singular, and float32 rounds its zero eigenvalues."""
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(0, 2.0, (20, 72)), jnp.float32)

    def few(embeddings):
        axis_angle = (embeddings.reshape(-1, 20) @ table).reshape(-1, 24, 3)
        turn = rotations.axis_angle_to_matrix(UPRIGHT)
        return rotations.axis_angle_to_matrix(axis_angle) @ turn

    start = rng.normal(0, 0.04, (FRAMES, 5, 4)).astype(np.float32)
    window = dataclasses.replace(jittery, embeddings=start, prior=start)
    losses = jit(lambda window: refine_motion(few, BODY, window, SPEC))(window).loss
    assert losses[-1] < 0.1 * losses[0]
