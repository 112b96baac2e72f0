"""The search of the nearest vectors under large-scale training: its form on each platform, in
gradients, on a mesh."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from genhmr_jax.core import quantizer


def test_nearest_takes_the_form_of_the_target_platform():
    """Compiled on a CPU machine for a TPU there is no loop over blocks."""
    traced = jax.jit(quantizer.nearest).trace(jnp.ones((8, 4)), jnp.ones((1024, 4)))
    loops = {
        platform: traced.lower(lowering_platforms=(platform,)).as_text().count("stablehlo.while")
        for platform in ("cpu", "tpu")
    }
    assert loops == {"cpu": 1, "tpu": 0}


def test_gradients_pass_by_nearest():
    """Through a quantizer with a straight-through gradient, in the blocked form."""
    rng = np.random.default_rng(0)
    vectors, z = (
        jnp.asarray(rng.normal(size=(8, 4)), jnp.float32),
        jnp.asarray(rng.normal(size=(2, 256, 4)), jnp.float32),
    )

    @jax.jit
    @jax.grad
    def gradient(z):
        return jnp.sum(quantizer.straight_through(z, vectors[quantizer.nearest(vectors, z)]) ** 2)

    nearest = np.linalg.norm(np.asarray(z)[..., None, :] - np.asarray(vectors), axis=-1).argmin(-1)
    np.testing.assert_allclose(gradient(z), 2 * np.asarray(vectors)[nearest], rtol=1e-5)


MESH_PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from genhmr_jax.core import quantizer
mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
rng = np.random.default_rng(0)
vectors = rng.normal(size=(64, 4)).astype(np.float32)
z = rng.normal(size=(64, 24, 4)).astype(np.float32)
spread = jax.device_put(z, NamedSharding(mesh, PartitionSpec("data")))
ids = jax.jit(quantizer.nearest)(vectors, spread)
assert len(ids.sharding.device_set) == 8, ids.sharding
np.testing.assert_array_equal(ids, np.linalg.norm(z[..., None, :] - vectors, axis=-1).argmin(-1))
"""


def test_nearest_on_a_mesh():
    """64 x 24 rows, sharded over eight devices, a block across the borders of shards: the ids of
    brute force."""
    done = subprocess.run(
        [sys.executable, "-c", MESH_PROGRAM], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
