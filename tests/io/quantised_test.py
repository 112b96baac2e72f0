"""Weights in eight bits."""

import jax
import numpy as np

from genhmr_jax.io.model_folder import load_params, save_params
from genhmr_jax.io.quantised import STEPS_PER_RMS, quantised, quantised_shapes, restored


def test_a_stored_model_is_close_to_its_weights(tmp_path):
    rng = np.random.default_rng(0)
    params = {
        "a": {"kernel": rng.normal(size=(64, 32)), "bias": rng.normal(size=3) + 4.0},
        "zero": np.zeros((2, 3)),
        "out": {"kernel": rng.normal(size=(64, 32))},
        "outlier": np.concatenate([rng.normal(size=999), [100.0]]).reshape(10, 100),
    }
    save_params(tmp_path, quantised(params), {})
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, np.float32), params)
    found = restored(load_params(tmp_path, quantised_shapes(shapes)))
    assert jax.tree.structure(found) == jax.tree.structure(params)
    kernel, rms = params["a"]["kernel"], np.sqrt(np.mean(params["a"]["kernel"] ** 2))
    assert np.abs(found["a"]["kernel"] - kernel).max() <= 0.501 * rms / STEPS_PER_RMS
    np.testing.assert_array_equal(found["zero"], 0)
    for part, name in (("a", "bias"), ("out", "kernel")):
        np.testing.assert_allclose(found[part][name], params[part][name], rtol=1e-3)
    # A large number enlarges the step, and is kept.
    assert np.abs(found["outlier"] - params["outlier"]).max() <= 0.501 * 100 / 127
    assert found["outlier"].dtype == np.float32
    # Restored weights are stored as they are.
    again = restored(quantised(found))
    np.testing.assert_allclose(again["outlier"], found["outlier"], atol=1e-5)
