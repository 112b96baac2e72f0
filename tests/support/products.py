"""The largest relative errors of matrix products on meshes of 16 host devices, as JSON on stdout;
run by mesh_test.py in a process of its own.

    python tests/support/products.py

All products of a layer, whose activations are split by rows, or by rows and features, and whose
parameters are split by the rules: forward, the gradient of the activations, and that of the
parameters.
"""

import itertools
import json

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 16)

import numpy as np  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402

from genhmr_jax.nets.rows import AXES as ROWS  # noqa: E402
from genhmr_jax.train import mesh as meshes  # noqa: E402

ACTIVATIONS = [(ROWS, "tensor"), (ROWS, None)]
KERNELS = [("fsdp", "tensor"), ("tensor", "fsdp"), ("fsdp", None), (None, "fsdp")]
MESHES = [(2, 2, 2), (4, 2, 2)]  # data, fsdp, tensor


def products() -> list[tuple]:
    """(function, how its two arguments are split, how its result is split)."""
    forward, backward, of_kernel = (
        lambda x, kernel: x @ kernel,
        lambda dy, kernel: dy @ kernel.T,
        lambda x, dy: x.T @ dy,
    )
    results = [*ACTIVATIONS, (None, "tensor")]
    layers = list(itertools.product(ACTIVATIONS, KERNELS, results))
    return [
        *((forward, *specs) for specs in layers),
        *((backward, *specs) for specs in layers),
        *((of_kernel, *specs) for specs in itertools.product(ACTIVATIONS, ACTIVATIONS, KERNELS)),
    ]


def worst(data: int, fsdp: int, tensor: int) -> float:
    """The largest relative error on a mesh."""
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    mesh = meshes.make_mesh(sizes, jax.devices()[: data * fsdp * tensor])
    on = lambda spec: NamedSharding(mesh, PartitionSpec(*spec))
    rng, errors = np.random.default_rng(0), []
    a, b = rng.normal(size=(2, 16, 16)).astype(np.float32)
    for function, left, right, result in products():
        got = jax.jit(function, in_shardings=(on(left), on(right)), out_shardings=on(result))(a, b)
        wanted = function(a, b)
        errors.append(np.abs(np.asarray(got) - wanted).max() / np.abs(wanted).max())
    return float(np.max(errors))  # NaN if there is one


if __name__ == "__main__":
    print(json.dumps([worst(*sizes) for sizes in MESHES]))
