"""One person of a clip: windows over frames, gaps, and the shape. The solver is made up."""

import types

import numpy as np
import pytest

from genhmr_jax.core.assignments import assigned
from genhmr_jax.core.motion_refinement import MotionSpec
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.geometry.motion import ABSENT, FILLED, OBSERVED
from genhmr_jax.recover import clip_person
from genhmr_jax.recover.clip_person import steady_person, steady_shape

RATE = 10
RECOVERER = types.SimpleNamespace(system=None, params=None, surface=None)


def table(frames):
    """Rows of one person, between rows of another one; embeddings tell the frame."""
    rng = np.random.default_rng(0)
    frames = np.repeat(frames, 2)
    count = len(frames)
    track = np.sin(frames / 3)
    answer = lambda *shape: rng.normal(0, 1e-3, (count, 3, *shape)).astype(np.float32)
    rows = {
        "frame": frames.astype(np.int32),
        "keypoints": rng.uniform(0.2, 1, (count, len(DETECTED), 3)).astype(np.float32),
        "certainty": 1 - 0.2 * (frames % 4),
        "crop": np.stack([300 + 50 * track, 200 + 0 * track, 200 + 9 * track], -1),
        "focal": np.full(count, 700.0),
        "centre": np.tile([320.0, 240], (count, 1)),
        "region": np.stack([300 + track, 200 + track, 190 + track, 3.1 * (-1) ** frames], -1),
        "embeddings": answer(2, 3) + frames[:, None, None, None],
        "sampled": answer(2, 3) - frames[:, None, None, None],
        "translation": answer(3) + [0, 0, 4] + 0.1 * frames[:, None, None],
        "joints": answer(24, 3) + rng.normal(0, 0.4, (24, 3)),
        "confidence": rng.uniform(0.4, 0.9, (count, 3, 24)),
    }
    return rows, np.arange(0, count, 2)


class Solver:
    """In the place of solve_window: it adds 100 to the embeddings of frames that are free."""

    def __init__(self):
        self.windows = []

    def __call__(self, system, params, surface, window, spec):
        self.windows.append(window)
        assert window.embeddings.dtype == window.weak_camera.dtype == np.float32
        frames = len(window.times)
        embeddings = window.embeddings + 100 * window.free[:, None, None]
        camera = window.weak_camera + 10 * window.free[:, None]
        sizes = {"global_orient": (3,), "body_pose": (69,), "joints": (24, 3)}
        sizes |= {"joints2d": (24, 2), "projected_keypoints": (len(DETECTED), 2)}
        values = {name: np.zeros((frames, *size), np.float32) for name, size in sizes.items()}
        values["joints"] += embeddings[:, :1, :1]
        values |= {"embeddings": embeddings, "weak_camera": camera}
        return types.SimpleNamespace(**values, translation=window.view.translation(camera))


@pytest.fixture
def solver(monkeypatch):
    made = Solver()
    monkeypatch.setattr(clip_person, "solve_window", made)
    monkeypatch.setattr(clip_person, "WINDOW", 16)
    monkeypatch.setattr(clip_person, "CONTEXT", 4)
    return made


def solve(frames, count, **changes):
    rows, mine = table(np.array(frames))
    times = np.arange(count) / RATE
    rows |= changes
    return steady_person(RECOVERER, rows, mine, times, np.arange(10.0), MotionSpec()), rows, mine


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 24, 25, 28, 50])
def test_every_frame_is_solved_once(solver, count):
    """The first frames of a window are those of the window before, and stay."""
    found, _, _ = solve(range(count), count)
    np.testing.assert_allclose(found.joints[:, 0, 0], 100 + np.arange(count), atol=0.01)
    assert (found.state == OBSERVED).all() and not found.answer.any()
    for number, window in enumerate(solver.windows):
        length = window.known.sum()
        assert window.known[:length].all() and window.known.shape == (16,)
        assert (window.free == window.known)[4 * bool(number) :].all()
        assert (np.diff(window.times) > 0).all() and window.times[0] == 0
        if number:
            assert not window.free[:4].any()
            before = solver.windows[number - 1]
            np.testing.assert_array_equal(window.embeddings[:4], before.embeddings[8:12] + 100)
            np.testing.assert_array_equal(window.weak_camera[:4], before.weak_camera[8:12] + 10)
    assert len(solver.windows) == max(1, -(-(count - 8) // 8) if count > 16 else 1)


def test_short_gaps_are_filled_and_long_ones_are_not(solver):
    """0.5 s from one detection to the next are filled, 0.6 s are not."""
    frames = [2, 3, 4, 9, 10, 16, 17]
    found, rows, mine = solve(frames, 20)
    wanted = np.full(20, ABSENT)
    wanted[2:11] = FILLED
    wanted[16:18] = wanted[frames] = OBSERVED
    assert found.state.tolist() == wanted.tolist()
    absent = wanted == ABSENT
    assert not found.joints[absent].any() and not found.joint_confidence[absent].any()
    assert found.joints.dtype == np.float32 and len(solver.windows) == 2
    # What is between the detections, in the first window.
    window = solver.windows[0]
    np.testing.assert_allclose(window.embeddings[2:8, 0, 0], range(4, 10), atol=0.01)
    np.testing.assert_allclose(window.prior[2:8, 0, 0], [-4, -5, -6, -7, -8, -9], atol=0.01)
    assert window.keypoints[[0, 1, 2, 7, 8]].any((1, 2)).all()
    assert not window.keypoints[3:7].any()
    crops = rows["crop"][mine[[2, 3]]]
    np.testing.assert_allclose(window.view.crop[4], 0.6 * crops[0] + 0.4 * crops[1], rtol=1e-6)
    depth = window.view.translation(window.weak_camera)[2:8, 2]
    np.testing.assert_allclose(depth, 4 + 0.1 * np.arange(4, 10), atol=0.01)
    # Angles 3.1 and -3.1: over pi, not over 0.
    angles = window.view.region[2:8, 3]
    assert (np.abs(np.cos(angles) + 1) < 1e-3).all()
    # The confidence of the lower end, and less in the middle.
    low = rows["confidence"][mine[[2, 3]], 0].min(0)
    np.testing.assert_allclose(found.joint_confidence[6], 0.6 * low, rtol=1e-5)
    np.testing.assert_allclose(
        found.joint_confidence[frames], rows["confidence"][mine, 0], rtol=1e-6
    )


def test_the_values_are_those_of_the_likely_answers(solver):
    """In one frame the sides were confused: its keypoints get their right names."""
    frames = np.arange(6)
    rng = np.random.default_rng(1)
    joints = np.tile(rng.normal(0, 0.4, (24, 3)), (12, 3, 1, 1))
    joints[6:8, :2] += rng.normal(0, 0.4, (24, 3))  # frame 3
    embeddings = np.zeros((12, 3, 2, 3), np.float32) + np.arange(3)[:, None, None]
    found, rows, mine = solve(frames, 6, joints=joints, embeddings=embeddings)
    assert found.answer.tolist() == [0, 0, 0, 2, 0, 0]
    window = solver.windows[0]
    np.testing.assert_array_equal(window.embeddings[:6, 0, 0], [0, 0, 0, 2, 0, 0])
    keypoints = rows["keypoints"][mine]
    np.testing.assert_array_equal(window.keypoints[:6], assigned(keypoints, found.answer))
    assert (window.betas == np.arange(10.0)).all()


def test_where_no_answer_fits_the_start_is_between_those_of_other_frames(solver):
    """The keypoints and the weight of these frames stay, and their confidence is lower."""
    rng = np.random.default_rng(2)
    joints = np.tile(rng.normal(0, 0.4, (24, 3)), (22, 3, 1, 1))
    for frame in (4, 5, 8):
        joints[2 * frame : 2 * frame + 2] = rng.normal(0, 0.6, (2, 3, 24, 3))
    found, rows, mine = solve(range(11), 11, joints=joints)
    assert (found.state == OBSERVED).all()
    window = solver.windows[0]
    own, kept = np.asarray(rows["embeddings"])[mine, 0, 0, 0], [0, 1, 2, 3, 6, 7, 9, 10]
    wanted = np.interp(range(11), kept, own[kept])
    np.testing.assert_allclose(window.embeddings[:11, 0, 0], wanted, rtol=1e-5)
    assert np.abs(own[[4, 5, 8]] - wanted[[4, 5, 8]]).min() > 1e-5
    kept = assigned(rows["keypoints"][mine], found.answer)
    np.testing.assert_array_equal(window.keypoints[:11], kept)
    np.testing.assert_allclose(window.weight[:11], rows["certainty"][mine], rtol=1e-6)
    low = np.minimum(rows["confidence"][mine[3], 0], rows["confidence"][mine[6], 0])
    np.testing.assert_allclose(found.joint_confidence[5], low * 2 / 3, rtol=1e-5)


def test_uncertain_keypoints_are_hidden(solver):
    rows, mine = table(np.arange(3))
    rows["keypoints"][mine[1], 4, 2] = 0.05
    steady_person(RECOVERER, rows, mine, np.arange(3) / RATE, np.zeros(10), MotionSpec())
    window = solver.windows[0]
    assert not window.keypoints[1, 4].any() and window.keypoints[1, 5].all()
    assert rows["keypoints"][mine[1], 4, 2] == np.float32(0.05)


def test_uncertain_frames_have_less_weight(solver):
    """Those of gaps are interpolated."""
    rows, mine = table(np.array([0, 1, 2, 3, 6]))
    steady_person(RECOVERER, rows, mine, np.arange(7) / RATE, np.zeros(10), MotionSpec())
    wanted = [1, 0.8, 0.6, 0.4, 1.4 / 3, 1.6 / 3, 0.6]
    np.testing.assert_allclose(solver.windows[0].weight[:7], wanted, rtol=1e-5)


def test_the_shape_is_a_weighted_median():
    """As the median of rows that are repeated as often as they weigh."""
    rng = np.random.default_rng(0)
    betas, weights = rng.normal(size=(9, 10)), np.array([1, 2, 3, 1, 1, 5, 1, 2, 1])
    assert weights.sum() % 2
    np.testing.assert_allclose(
        steady_shape(betas, weights.astype(float)), np.median(np.repeat(betas, weights, 0), 0)
    )
    # Without any weight: the median.
    np.testing.assert_allclose(steady_shape(betas, np.zeros(9)), np.median(betas, 0))
    np.testing.assert_array_equal(steady_shape(betas[:1], np.zeros(1)), betas[0])
