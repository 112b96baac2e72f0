"""The 2D refinement where numbers are not usual: impossible photos, NaN, float64, other batches.

The photos are those of tools/reliability/degenerate.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax
from smpl_jax import rotations

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.model_folder import load_params, save_params
from support.reliability import reliability_tool

ROWS = 16
"""One row of each photo of `refined_cases`, so that one compiled program serves all tests."""


@pytest.fixture(scope="module")
def tool():
    return reliability_tool("degenerate")


@pytest.fixture(scope="module")
def start(tool):
    """Arguments of the refinement, of usual photos."""
    rng, body = np.random.default_rng(1), tool.refiner()[0]
    keypoints, view, start = tool.photos(rng, ROWS, body)["usual"]
    pose = np.float32(start["pose"] + rng.normal(0, 0.2, start["pose"].shape))
    weak = np.concatenate([np.exp(start["camera"][:, :1]), start["camera"][:, 1:]], -1)
    return pose, start["betas"], weak, keypoints, view


@pytest.fixture(scope="module")
def usual(tool, start):
    """Their refinement."""
    return jax.tree.map(np.asarray, tool.refiner()[1](*start))


def test_the_refinement_of_impossible_photos(tool):
    """Finite answers, whose losses never increase; and it still refines what is possible."""
    found = {case.case: case for case in tool.refined_cases(1)}
    assert len(found) == ROWS
    assert not [case for case in found.values() if not case.sound]
    possible = ("usual", "NaN with confidence", "infinite with confidence", "at 1e+30 px")
    assert all(found[name].gain > 0.3 for name in possible)


def test_rows_of_nan_harm_no_other_and_are_not_hidden(tool, start, usual):
    broken = [x.copy() if isinstance(x, np.ndarray) else x for x in start]
    for row, number in enumerate((0, 1, 2), 5):  # pose, betas and camera
        broken[number][row] = np.nan
    found = tool.refiner()[1](*broken)
    others = ~np.isin(np.arange(ROWS), (5, 6, 7))
    for new, old in zip(*map(jax.tree.leaves, (found, usual)), strict=True):
        rows = others if len(new) == ROWS else (slice(None), others)
        np.testing.assert_array_equal(new[rows], old[rows])
    answers = [np.isnan(x).any(-1) for x in (found.betas, found.weak_camera)]
    broken = np.isnan(found.embeddings).any((1, 2)) | answers[0] | answers[1]
    np.testing.assert_array_equal(broken, ~others)
    assert np.isinf(found.loss[:, ~others]).all()  # no step could be evaluated


@pytest.mark.parametrize("kind", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_a_model_with_a_nan_is_refused(tmp_path, kind):
    """It would answer NaN for everybody."""
    params = {"a": jnp.ones((3, 4), kind), "count": jnp.arange(3)}
    for value, refused in ((2.0, False), (jnp.nan, True), (jnp.inf, True)):
        own = params | {"a": params["a"].at[1, 2].set(value)}
        folder = tmp_path / str(value)
        save_params(folder, own, {"kind": "made up"})
        if refused:
            with pytest.raises(InputError, match="a has values that are not finite"):
                load_params(folder, params)
        else:
            assert load_params(folder, params)["a"][1, 2] == value


@pytest.mark.slow
def test_float32_stays_close_to_float64(tool, start, usual, monkeypatch):
    """After ten steps from the same start, metres."""
    with jax.enable_x64():
        monkeypatch.setattr(jnp, "float32", jnp.float64)  # to which the refinement converts
        found = tool.refiner()[1](*jax.tree.map(lambda x: np.asarray(x, np.float64), start))
        assert found.betas.dtype == np.float64
        exact = joints(tool, found)
    gap = np.linalg.norm(joints(tool, usual) - exact, axis=-1).max(-1)
    assert np.median(gap) < 1e-4 and gap.max() < 5e-3


def joints(tool, refined):
    """Of the refined bodies, metres from the model's origin."""
    matrices = rotations.rot6d_to_matrix(jnp.asarray(refined.embeddings), "rows")
    return np.asarray(smpl_jax.posed_joints(tool.refiner()[0], refined.betas, matrices))
