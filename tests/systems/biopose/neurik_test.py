"""NeurIK: limits, equivariance, windows, samples; and the shipped model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import SMPL24, flip_permutation

from genhmr_jax.geometry.anatomy import ANGLES, BODIES, LIMITS, mirrored
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.markers import CARRIERS
from genhmr_jax.io.errors import InputError
from genhmr_jax.recover.angles import shipped_neurik
from genhmr_jax.recover.photo import default_checkpoint
from genhmr_jax.systems.biopose import model, samples
from genhmr_jax.systems.biopose.branches import canonical, gap, other_solution
from genhmr_jax.systems.biopose.calibration import COLUMNS, held_out
from genhmr_jax.systems.biopose.frames import OUTPUTS, adjacency, pose_of
from genhmr_jax.systems.biopose.from_rotations import Calibration, fitted, read
from genhmr_jax.systems.biopose.kinematics import INNER, Pose
from genhmr_jax.systems.biopose.labels import POSED, load_labels
from genhmr_jax.systems.biopose.methods import markers_of, solve_body
from genhmr_jax.systems.biopose.samples import NoiseSpec, SampleMaker
from genhmr_jax.systems.biopose.skeleton import marker_body, scales_between, skeleton_of
from genhmr_jax.systems.biopose.spec import NeurIkSpec
from genhmr_jax.systems.biopose.system import BATCH, NeurIkSystem, load_neurik, mean_skeleton
from genhmr_jax.systems.biopose.validation import NOT_FEET
from support import angle_labels
from support.paths import ROOT

BODY = load_body("neutral")
RNG = np.random.default_rng(1)
TINY = NeurIkSpec(marker_width=8, marker_blocks=1, width=16, layers=1, heads=2, window=16)
FRAMES = 40
POSES = angle_labels.motion(RNG, FRAMES)
BETAS = np.zeros(10, np.float32)


def posed(poses, betas=BETAS):
    rows = np.minimum(np.arange(64), len(poses) - 1)
    return np.asarray(POSED(marker_body(BODY), betas, poses[rows]))[: len(poses)]


MARKERS = posed(POSES)


@pytest.fixture(scope="module")
def tiny():
    """A network whose outputs are not zero, as they are in a new one."""
    params = nnx.to_pure_dict(nnx.split(model.NeurIk(TINY, rngs=nnx.Rngs(0)))[1])
    for name in ("out", "spread", "scales"):
        shape = params[name]["kernel"].shape
        params[name]["kernel"] = RNG.normal(0, 0.1, shape).astype(np.float32)
    return NeurIkSystem(TINY), {"neurik": params}


def angle_gap(one, other):
    return np.abs(np.degrees(gap(*(np.radians(v[:, COLUMNS], dtype=float) for v in (one, other)))))


def test_angles_are_within_their_limits_by_construction():
    """For any output; and the closed form where outputs are zero and it is trusted."""
    low, high = LIMITS[3:].T
    start = Pose(
        jnp.broadcast_to(jnp.eye(3), (50, 3, 3)), jnp.zeros((50, 3)),
        jnp.asarray(RNG.uniform(low, high, (50, INNER)), jnp.float32),
    )  # fmt: skip
    wild = jnp.asarray(RNG.normal(0, 100, (50, OUTPUTS)), jnp.float32)
    angles = np.asarray(pose_of(start, wild).angles)
    assert (angles >= low - 1e-5).all() and (angles <= high + 1e-5).all()
    trusted = jnp.zeros((50, OUTPUTS)).at[:, OUTPUTS - INNER :].set(20.0)
    found = np.asarray(pose_of(start, trusted).angles)
    assert np.abs(found - start.angles).max() < 0.011 * np.pi  # clipped to 99 % of half a range


def test_heading_and_place_do_not_matter(tiny):
    system, params = tiny
    turn = Rotation.from_rotvec([0.4, 2.0, -0.7])
    moved = turn.apply(MARKERS.reshape(-1, 3)).reshape(MARKERS.shape) + [3, 1, -2]
    one, other = (system.solve(params, markers, 25.0) for markers in (MARKERS, moved))
    assert np.abs(one.values - other.values)[:, 6:].max() < 0.1
    np.testing.assert_allclose(other.spread[:, 6:], one.spread[:, 6:], rtol=5e-3)
    np.testing.assert_allclose(other.scales, one.scales, atol=1e-3)
    before, after = (
        Rotation.from_euler("ZXY", found.values[:, :3], degrees=True) for found in (one, other)
    )
    assert np.degrees((turn * before * after.inv()).magnitude()).max() < 0.1
    place = turn.apply(one.values[:, 3:6]) + [3, 1, -2]
    np.testing.assert_allclose(other.values[:, 3:6], place, atol=1e-3)


def test_windows(tiny):
    """Any number of frames; those of other windows have no influence; every second frame of a
    high rate."""
    system, params = tiny
    whole = system.solve(params, MARKERS, 25.0)
    assert whole.values.shape == whole.spread.shape == (FRAMES, 47)
    changed = MARKERS.copy()
    changed[30:] += RNG.normal(0, 0.02, changed[30:].shape)
    other = system.solve(params, changed, 25.0)
    np.testing.assert_allclose(other.values[:14, 6:], whole.values[:14, 6:], atol=1e-3)
    assert system.solve(params, MARKERS[:3], 25.0).values.shape == (3, 47)
    assert [system.stride(rate) for rate in (10, 20, 30, 60, 100, 120)] == [0, 1, 1, 1, 2, 2]
    doubled = system.solve(params, np.repeat(MARKERS, 2, 0), 120.0)
    same = system.solve(params, MARKERS, 60.0)
    np.testing.assert_allclose(doubled.values[::2, 6:], same.values[:, 6:], atol=1e-3)
    assert BATCH * TINY.window > FRAMES


def test_a_causal_network_does_not_look_ahead(tiny):
    _, params = tiny
    system = NeurIkSystem(dataclasses.replace(TINY, causal=True))
    later = MARKERS[:16].copy()
    later[9:] += RNG.normal(0, 0.05, later[9:].shape)
    one, other = (system.solve(params, m, 25.0).values for m in (MARKERS[:16], later))
    np.testing.assert_allclose(other[:9, 6:], one[:9, 6:], atol=1e-3)
    assert np.abs(other - one)[9:].max() > 0.1


def test_bad_input(tiny, tmp_path):
    system, params = tiny
    with pytest.raises(ValueError, match="expected"):
        system.solve(params, np.zeros((2, 5, 3)), 30.0)
    with pytest.raises(ValueError, match="all markers"):
        system.solve(params, np.where(MARKERS > 0.5, np.nan, MARKERS), 30.0)
    with pytest.raises(ValueError, match="10 frames a second"):
        system.solve(params, MARKERS, 10.0)
    with pytest.raises(InputError, match="not NeurIK"):
        load_neurik(default_checkpoint("maskhand"))
    with pytest.raises(InputError, match="genhmr data angles"):
        load_labels(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", poses=np.zeros((3, 72)))
    with pytest.raises(InputError, match="keys missing"):
        load_labels(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="rates"):
        NeurIkSpec(least_rate=60, most_rate=20)


def test_second_solutions_of_a_shoulder():
    angles = RNG.uniform(*LIMITS.T, (200, 44))
    same = canonical(angles)
    ball = slice(ANGLES.index("arm_flex_r"), ANGLES.index("arm_flex_r") + 3)
    inside = ((same[:, ball] > LIMITS[ball, 0]) & (same[:, ball] < LIMITS[ball, 1])).all(1)
    turn = lambda q: Rotation.from_euler("ZXY", q[:, ball])
    assert inside.mean() > 0.9
    assert (turn(same[inside]) * turn(angles[inside]).inv()).magnitude().max() < 1e-6
    np.testing.assert_allclose(canonical(same), same, atol=1e-9)
    second = angles.copy()
    second[:, ball] = other_solution(angles[:, ball]) - 2 * np.pi
    assert np.abs(gap(second, angles)).max() < 1e-9
    np.testing.assert_allclose(np.abs(gap(angles + 0.1, angles)), 0.1, atol=1e-9)


def test_the_graph_of_the_markers():
    edges = adjacency()
    np.testing.assert_allclose(edges.sum(1), 1, atol=1e-6)
    joined = lambda a, b: edges[CARRIERS == BODIES.index(a)][:, CARRIERS == BODIES.index(b)].any()
    assert joined("tibia_r", "calcn_r") and joined("humerus_l", "radius_l")
    assert joined("pelvis", "femur_r") and not joined("femur_r", "femur_l")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    clips = load_labels(angle_labels.write(tmp_path_factory.mktemp("labels")))
    assert held_out(clips) == (["c"], ["d"])
    source = samples.AngleSource(clips, TINY, 6, 0)
    assert jax.tree.map(lambda x: (6, *x.shape), source.shapes()) == jax.tree.map(
        np.shape, source.load(np.arange(6))
    )
    return source.load(np.arange(6))


def test_samples(rows):
    """Labels at the stored frames are the stored ones; mirror images fit each other; other rates
    lie between."""
    maker = SampleMaker(TINY, NoiseSpec(clean=1.0), marker_body(BODY), mean_skeleton())
    at = np.broadcast_to(np.arange(16.0, dtype=np.float32), (6, 16))
    posed_rows = jax.jit(maker.posed)
    found = posed_rows(rows, at)
    np.testing.assert_allclose(found.angles, rows.angles[:, :16, 3:], atol=1e-5)
    wanted = Rotation.from_euler("ZXY", rows.angles[:, :16, :3].reshape(-1, 3)).as_matrix()
    np.testing.assert_allclose(found.rotation.reshape(-1, 3, 3), wanted, atol=1e-5)
    between = posed_rows(rows, at + 0.5)
    middle = (rows.angles[:, :16] + rows.angles[:, 1:17])[..., 3:] / 2
    np.testing.assert_allclose(between.angles, middle, atol=1e-5)
    path = (found.markers[:, 1:] + found.markers[:, :-1]) / 2
    assert np.abs(between.markers[:, :-1] - path).max() < 5e-3
    mirror = samples._mirror(found)
    wanted = mirrored(np.pad(found.angles, ((0, 0), (0, 0), (3, 0))))[..., 3:]
    np.testing.assert_allclose(mirror.angles, wanted, atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(mirror.rotation), 1, atol=1e-5)


@pytest.mark.slow
def test_training_windows(rows):
    """Labels count in frames that are not padding, and there only."""
    maker = SampleMaker(TINY, NoiseSpec(), marker_body(BODY), mean_skeleton())
    sample = jax.jit(maker.training)(rows, jax.random.key(0))
    assert sample.good.min() >= 0 and sample.good.sum() > 0.5 * sample.good.size
    assert (np.asarray(sample.good)[~np.asarray(sample.frames.valid)] == 0).all()


def test_errors_of_markers():
    spec = NoiseSpec(clean=0.0, white=0.02, slow=0, constant=0, shift=0, turn=0)
    times = np.arange(32, dtype=np.float32) / 30
    draw = lambda spec: np.stack([
        samples.errors(jax.random.key(seed), times, MARKERS[:32], spec) for seed in range(8)
    ])  # fmt: skip
    white = draw(spec)
    assert 0 < white.std() < 0.02
    steady = draw(dataclasses.replace(spec, white=0.0, constant=0.02))
    assert steady.std(1).max() < 1e-6 and steady.std() > 1e-4
    slow = draw(dataclasses.replace(spec, white=0.0, slow=0.02))
    assert np.diff(slow, axis=1).std() < 0.8 * np.sqrt(2) * slow.std()
    together = draw(dataclasses.replace(spec, white=0.0, shift=0.02))
    femur = together[:, :, np.flatnonzero(CARRIERS == BODIES.index("femur_r"))]
    np.testing.assert_allclose(femur, femur[:, :, :1].repeat(femur.shape[2], 2), atol=1e-7)
    assert not draw(dataclasses.replace(spec, clean=1.0)).any()


def test_readings():
    """A turned body has the same inner angles; a calibration finds a line again."""
    turned = POSES.copy()
    turned[:, 0] = (
        Rotation.from_rotvec([0.3, 1, 0]) * Rotation.from_rotvec(POSES[:, 0])
    ).as_rotvec()
    one, other = (read(BODY, BETAS, p, Calibration.none()) for p in (POSES, turned))
    np.testing.assert_allclose(other[:, 6:], one[:, 6:], atol=0.05)
    truth = RNG.uniform(-0.4, 0.4, (500, 44))
    lines = fitted((truth - 0.1) / 1.25, truth)
    np.testing.assert_allclose(lines.slope, 1.25, atol=0.02)
    np.testing.assert_allclose(lines.offset, 0.1, atol=0.01)


# The shipped model.


def test_its_size():
    folder = default_checkpoint("neurik")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 3 * 2**20


def test_the_shipped_model_on_unseen_subjects():
    """Recorded motions of two subjects, with the angles of inverse kinematics: MAE in degrees, and
    the share of the frames in the band, which is wider with noise."""
    with np.load(ROOT / "tests" / "support" / "angle_frames.npz") as data:
        clips = [(data["poses"][i], data["angles"][i], data["betas"][i]) for i in range(2)]
    errors, widths = {}, {}
    for poses, angles, betas in clips:
        poses = poses.astype(np.float32).reshape(-1, 24, 3)
        markers = posed(poses, betas)
        noisy = markers + RNG.normal(0, 0.01, markers.shape).astype(np.float32)
        for name, given in (("neurik", markers), ("reading", markers), ("noisy", noisy)):
            method = "neurik" if name == "noisy" else name
            arguments = shipped_neurik(), BODY, betas, poses, given, 20.0
            found = solve_body(method, *arguments)
            values = np.radians(found.values[:, COLUMNS].astype(np.float64))
            error = np.abs(np.degrees(gap(values, angles.astype(np.float64))))
            errors.setdefault(name, []).append(error[:, NOT_FEET])
            widths.setdefault(name, []).append(found.band[:, NOT_FEET])
            again = markers_of(found.skeleton, found.values)
            np.testing.assert_allclose(again, found.markers, atol=1e-4)
            assert method == "reading" or found.rmse.mean() < 0.04
    mean = {name: float(np.mean(error)) for name, error in errors.items()}
    assert mean["neurik"] < 2.5 and mean["noisy"] < 4.5 and mean["reading"] < 6
    for name in ("neurik", "noisy"):
        assert 0.65 < (np.array(errors[name]) <= np.array(widths[name])).mean() < 0.99
    assert np.mean(widths["noisy"]) > 1.2 * np.mean(widths["neurik"])
    assert np.isnan(widths["reading"]).all()
    with pytest.raises(ValueError, match="choose among"):
        solve_body("guess", *arguments)


def test_the_shipped_model_at_other_rates():
    """The same slow motion at 20 and at 40 frames a second."""
    fine = np.repeat(POSES, 2, 0)[:-1]
    fine[1::2] = (POSES[1:] + POSES[:-1]) / 2
    system, params = shipped_neurik()
    slow, fast = (system.solve(params, posed(p[:63]), r) for p, r in ((POSES, 20.0), (fine, 40.0)))
    error = angle_gap(fast.values[::2], slow.values[:32])
    assert error[:, NOT_FEET].mean() < 1.5


def test_a_mirrored_body():
    """The shipped model is nearly symmetric."""
    flipped = POSES[:, list(flip_permutation(SMPL24))] * np.array([1, -1, -1], np.float32)
    system, params = shipped_neurik()
    one, other = (system.solve(params, posed(p), 25.0).values for p in (POSES, flipped))
    wanted = mirrored(one[:, COLUMNS])
    error = np.abs((wanted - other[:, COLUMNS] + 180) % 360 - 180)[:, 3:]
    assert error.mean() < 1.5


def test_a_skeleton_of_another_person_scales_the_mean_one():
    mean = mean_skeleton()
    own = dataclasses.replace(mean, offsets=1.1 * mean.offsets, markers=1.1 * mean.markers)
    np.testing.assert_allclose(scales_between(mean, own), 1.1, rtol=1e-5)
    assert np.ptp(scales_between(mean, skeleton_of(BODY, np.full(10, 0.5)))) > 0.01
