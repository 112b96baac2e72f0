"""Error measures against plain float64 NumPy, at human scale: random and degenerate sets must agree
to a thousandth of a millimetre."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genhmr_jax.geometry import metrics
from support.paths import ROOT

RNG = np.random.default_rng(0)
TARGET = RNG.normal(0, 0.4, (24, 3)) + [0.3, -0.2, 4.0]
NEAR = TARGET + RNG.normal(0, 0.1, TARGET.shape)
LINE = np.linspace(-1, 1, 24)[:, None] * [1.0, 0.6, -0.5]
SETS = {
    "random": RNG.normal(0, 0.4, (24, 3)),
    "near": NEAR,
    "reflected": NEAR * [-1, 1, 1],
    "planar": NEAR * [1, 1, 0],
    "collinear": LINE,
    "nearly collinear": LINE + RNG.normal(0, 1e-5, LINE.shape),
    "constant": np.full((24, 3), 2.0),
    "same": TARGET,
    "tiny": 1e-3 * NEAR,
}
NAMES = list(SETS)
STACKED = np.float32(list(SETS.values()))
TARGETS = np.float32(np.broadcast_to(TARGET, STACKED.shape))
MASK = RNG.uniform(size=STACKED.shape[:2]) > 0.4
MM = 1e-6  # metres: a thousandth of a millimetre
mpjpe, pa_mpjpe, procrustes = (
    jax.jit(f) for f in (metrics.mpjpe, metrics.pa_mpjpe, metrics.procrustes)
)


def umeyama(source, target):
    """Scale, rotation and shift of Umeyama 1991, eq. 40 to 42: target ~ c R source + t."""
    mean_s, mean_t = source.mean(0), target.mean(0)
    u, d, vt = np.linalg.svd((target - mean_t).T @ (source - mean_s) / len(source))
    sign = np.array([1.0, 1.0, -1.0 if np.linalg.det(u) * np.linalg.det(vt) < 0 else 1.0])
    r = u @ np.diag(sign) @ vt
    variance = ((source - mean_s) ** 2).sum(-1).mean()
    c = (d * sign).sum() / variance if variance > 0 else 0.0
    return c, r, mean_t - c * r @ mean_s


def pa_numpy(source, target):
    source, target = source.astype(np.float64), target.astype(np.float64)
    c, r, t = umeyama(source, target)
    return np.linalg.norm(c * source @ r.T + t - target, axis=-1).mean()


def plain_numpy(source, target, root=0):
    source, target = source.astype(np.float64), target.astype(np.float64)
    return np.mean(
        [
            np.linalg.norm((s - source[root]) - (t - target[root]))
            for s, t in zip(source, target, strict=True)
        ]
    )


def test_mpjpe():
    found = mpjpe(STACKED, TARGETS)
    np.testing.assert_allclose(
        found, [plain_numpy(p, t) for p, t in zip(STACKED, TARGETS, strict=True)], atol=MM
    )


def test_mpjpe_about_the_mean_of_two_points():
    shifted = TARGETS + np.float32([0.0, 0.0, 0.25])
    np.testing.assert_allclose(metrics.mpjpe(shifted, TARGETS, root=(1, 2)), 0.0, atol=MM)
    np.testing.assert_allclose(metrics.mpjpe(shifted, TARGETS, root=None), 0.25, atol=MM)
    one_hip_off = TARGETS.copy()
    one_hip_off[:, 1, 0] += 0.2  # moves the mean of the hips by 0.1
    np.testing.assert_allclose(metrics.mpjpe(one_hip_off, TARGETS, root=(1, 2)), 0.1, atol=MM)


def test_pa_mpjpe():
    """Both ways round: then the degenerate sets are the targets."""
    found = pa_mpjpe(STACKED, TARGETS)
    wanted = np.array([pa_numpy(p, t) for p, t in zip(STACKED, TARGETS, strict=True)])
    np.testing.assert_allclose(found, wanted, atol=MM)
    np.testing.assert_allclose(
        pa_mpjpe(TARGETS, STACKED),
        [pa_numpy(t, p) for p, t in zip(STACKED, TARGETS, strict=True)],
        atol=MM,
    )
    assert wanted[NAMES.index("reflected")] > 2 * wanted[NAMES.index("near")], (
        "a mirror image is no match"
    )


def test_pa_mpjpe_of_two_degenerate_sets():
    sets = np.float32([LINE, SETS["constant"], LINE * 0, SETS["planar"], SETS["nearly collinear"]])
    predicted, target = np.repeat(sets, len(sets), 0), np.tile(sets, (len(sets), 1, 1))
    wanted = [pa_numpy(p, t) for p, t in zip(predicted, target, strict=True)]
    found = np.asarray(pa_mpjpe(predicted, target))
    np.testing.assert_allclose(found[:-1], wanted[:-1], atol=MM)
    assert found[-1] < 4e-5, (
        "the turn about a line cannot be seen in float32, but only the distance from it is lost"
    )
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            pa_mpjpe(predicted.astype(np.float64), target.astype(np.float64)), wanted, atol=1e-8
        )


def test_pa_mpjpe_forgives_similarity_transforms_alone():
    turns = [(0.5, 0.3), (2.0, 3.0), (1.0, -1.7)]
    moved = np.float32(
        [
            s * NEAR @ Rotation.from_rotvec([a, a * a, -a]).as_matrix().T + [a, 3, -1]
            for s, a in turns
        ]
    )
    targets = np.float32(np.broadcast_to(TARGET, moved.shape))
    found = np.asarray(pa_mpjpe(moved, targets))
    np.testing.assert_allclose(
        found, pa_numpy(NEAR, TARGET), atol=2 * MM
    )  # doubled people have doubled rounding
    sheared = moved * np.float32([1, 1, 1.5])
    assert np.abs(np.asarray(pa_mpjpe(sheared, targets)) - found).min() > 1e-3


def test_masked_points_have_no_influence():
    rows = [(p[m], t[m]) for p, t, m in zip(STACKED, TARGETS, MASK, strict=True)]
    wild = np.where(MASK[..., None], STACKED, np.nan)  # what is masked may be anything
    np.testing.assert_allclose(
        pa_mpjpe(wild, TARGETS, MASK), [pa_numpy(p, t) for p, t in rows], atol=MM
    )
    wanted = [np.linalg.norm(p.astype(np.float64) - t, axis=-1).mean() for p, t in rows]
    np.testing.assert_allclose(
        metrics.mpjpe(wild, TARGETS, MASK, root=None), wanted, rtol=3e-7, atol=MM
    )
    nothing = np.zeros_like(MASK)
    for measure in (mpjpe, pa_mpjpe):
        np.testing.assert_array_equal(measure(STACKED, TARGETS, nothing), 0.0)


def test_a_row_does_not_depend_on_its_batch():
    alone = np.concatenate(
        [pa_mpjpe(p[None], t[None]) for p, t in zip(STACKED, TARGETS, strict=True)]
    )
    np.testing.assert_allclose(pa_mpjpe(STACKED, TARGETS), alone, atol=1e-7)


def test_vertices():
    vertices, target = (np.float32(RNG.normal(0, 0.5, (3, 700, 3)) + [0, 0, 3]) for _ in range(2))
    roots = vertices[:, 0], target[:, 5]
    wanted = [
        np.linalg.norm((v - v[0]).astype(np.float64) - (t - t[5]), axis=-1).mean()
        for v, t in zip(vertices, target, strict=True)
    ]
    np.testing.assert_allclose(jax.jit(metrics.mve)(vertices, target, roots), wanted, atol=MM)
    np.testing.assert_allclose(
        metrics.pa_mve(vertices, target),
        [pa_numpy(v, t) for v, t in zip(vertices, target, strict=True)],
        atol=MM,
    )
    joints, true_joints = vertices[:, ::30], target[:, ::30]
    found = metrics.pa_mve(vertices, target, procrustes(joints, true_joints))
    for row, v, t, j, k in zip(
        found, *(x.astype(np.float64) for x in (vertices, target, joints, true_joints)), strict=True
    ):
        c, r, shift = umeyama(j, k)
        np.testing.assert_allclose(
            row, np.linalg.norm(c * v @ r.T + shift - t, axis=-1).mean(), atol=MM
        )


def test_angles():
    """Half of the joints off by 40 degrees, the others right; then the whole body turned, which
    PA-MPJAE forgives."""
    target = Rotation.random(48, random_state=1)
    off = Rotation.from_rotvec(np.deg2rad(np.tile([[40.0, 0, 0], [0, 0, 0]], (24, 1))))
    matrices = lambda r: np.float32(r.as_matrix().reshape(2, 24, 3, 3))
    np.testing.assert_allclose(
        jax.jit(metrics.mpjae)(matrices(off * target), matrices(target)), 20.0, atol=1e-4
    )
    turn = Rotation.from_rotvec([0.3, -1.0, 0.5])
    joints = np.float32(np.stack([TARGET, NEAR]))
    turned = np.float32(joints @ turn.as_matrix().T)
    similarity = procrustes(turned, joints)
    np.testing.assert_allclose(
        metrics.mpjae(matrices(turn * off * target), matrices(target), similarity), 20.0, atol=1e-3
    )
    assert float(metrics.mpjae(matrices(turn * target), matrices(target))[0]) == pytest.approx(
        np.rad2deg(turn.magnitude()), abs=1e-3
    )


def test_pck_and_auc_by_hand():
    distance = jnp.array([[0.01, 0.149, 0.151, 9.0], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(metrics.pck(distance), [0.5, 1.0])
    mask = jnp.array([[1, 1, 0, 0], [0, 1, 1, 1]])
    np.testing.assert_allclose(metrics.pck(distance, mask=mask), [1.0, 1.0])
    # thresholds 0, 5, ..., 150 mm: 10 mm is below 28 of the 31, 149 mm below one; 0 is below all
    # but the first
    np.testing.assert_allclose(
        jax.jit(metrics.auc)(distance), [(28 + 1) / 31 / 4, 30 / 31], atol=1e-6
    )
    np.testing.assert_allclose(
        metrics.auc(distance, mask=mask), [(28 + 1) / 31 / 2, 30 / 31], atol=1e-6
    )


def test_acceleration_and_jitter_by_hand():
    time = np.arange(8.0)[:, None, None]
    still = np.zeros((8, 2, 3), np.float32)
    falling = np.float32(0.5 * 0.03 * time**2 * [[[0, 1, 0], [0, 0, 0]]])
    errors, known = metrics.acceleration_error(falling, still)
    np.testing.assert_allclose(errors, 0.03 / 2, atol=MM)  # of one joint in two
    assert known.all()
    good = np.array([True, True, False, True, True, True, True, True])
    _, known = metrics.acceleration_error(falling, still, good)
    np.testing.assert_array_equal(known, [False, False, False, True, True, True])
    cubic = np.float32(0.002 * time**3 * [[[0, 1, 0], [0, 0, 0]]])
    np.testing.assert_allclose(
        metrics.jitter(cubic, 30.0), np.tile([6 * 0.002 * 27000, 0], (5, 1)), rtol=1e-4
    )


def test_silhouette_iou():
    a = np.zeros((3, 4, 6), bool)
    a[:, :2, :4] = True
    b = np.stack([a[0], ~a[0], np.roll(a[0], 2, 1)])
    np.testing.assert_allclose(jax.jit(metrics.silhouette_iou)(a, b), [1, 0, 4 / 12])
    assert metrics.silhouette_iou(np.zeros((4, 4), bool), np.zeros((4, 4), bool)) == 0
    with pytest.raises(ValueError, match="one size"):
        metrics.silhouette_iou(a, b[:, :2])


def test_means_do_not_depend_on_the_batches():
    values, weight = RNG.normal(size=37), RNG.integers(0, 2, 37)
    values[weight == 0] = np.nan
    whole, parts, others = metrics.Means(), metrics.Means(), metrics.Means()
    whole.add({"x": values}, weight)
    for start in range(0, 37, 5):
        rows = slice(start, start + 5)
        (parts if start < 20 else others).add({"x": values[rows]}, weight[rows])
    parts.merge(others)
    for found in (whole, parts, parts.across_processes()):
        assert found.means()["x"] == pytest.approx(values[weight > 0].mean(), abs=1e-12)
        assert found.count("x") == weight.sum()


def test_a_wrong_value_is_not_hidden():
    found = metrics.Means()
    found.add({"x": np.array([1.0, np.nan])})
    assert np.isnan(found.means()["x"]) and "y" not in found.means()


TOGETHER = """
import json, jax, numpy as np
from genhmr_jax.geometry.metrics import Means
from genhmr_jax.train import distributed
distributed.initialize()
mine = Means()
for i in range(jax.process_index(), 7, 2):
    mine.add({"x": np.array([0.1 * i])})
if jax.process_index():
    mine.add({"only here": np.array([5.0])})
both = mine.across_processes()
print(json.dumps([both.means(), both.count("x")]))
"""


def test_means_of_two_processes():
    paths = os.pathsep.join([str(ROOT), *sys.path])
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": paths,
    }
    launcher = [
        sys.executable,
        str(ROOT / "launch" / "local_multiprocess.py"),
        "--processes=2",
        "--devices=1",
        "--",
    ]
    done = subprocess.run(
        [*launcher, sys.executable, "-c", TOGETHER],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [
        json.loads(line.split("] ", 1)[1]) for line in done.stdout.splitlines() if "[{" in line
    ]
    assert len(found) == 2 and found[0] == found[1]
    means, count = found[0]
    assert means == pytest.approx({"x": 0.3, "only here": 5.0}, abs=1e-15) and count == 7
