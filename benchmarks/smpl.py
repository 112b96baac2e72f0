"""SMPL's forward pass, and value and gradient by the pose of the sum of its squared vertices.

The peer is plain PyTorch (lbs_vs_torch.py), where torch is installed.
"""

import importlib.util
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax

from benchmarks import machine
from benchmarks.settings import Settings
from benchmarks.table import Row
from benchmarks.timing import take_turns
from genhmr_jax.geometry.bodies import load_body

BATCHES = (1, 64, 256)
TOLERANCE = 1e-4  # metres between both results, and relative of gradients
PEER = "plain PyTorch"
Calls = dict[str, Callable[[], np.ndarray]]


def rows(settings: Settings) -> list[Row]:
    """Both computations at each batch.

    Raises:
      RuntimeError: the two sides do not give the same numbers.
    """
    model, found = load_body("neutral"), []
    has_torch = importlib.util.find_spec("torch") is not None
    for gradient in (False, True):
        for batch in BATCHES:
            rng = np.random.default_rng(0)
            betas = rng.normal(size=(batch, 10)).astype(np.float32)
            pose = rng.normal(0, 0.4, (batch, 24, 3)).astype(np.float32)
            calls = {"ours": ours(model, betas, pose, gradient)}
            if has_torch:
                calls[PEER] = torch_call(model, betas, pose, gradient)
                gap = np.abs(calls[PEER]() - calls["ours"]()).max()
                if gap > TOLERANCE * max(1.0, np.abs(calls["ours"]()).max()):
                    raise RuntimeError(f"the results differ by {gap:.2e}")
            seconds = take_turns(calls, settings.rounds, settings.calls)
            found.append(
                Row(
                    f"SMPL {'value and gradient' if gradient else 'forward'}, batch {batch}",
                    seconds["ours"],
                    "s",
                    PEER if has_torch else "",
                    seconds.get(PEER),
                    floor(model, batch, gradient),
                    "by hand",
                )
            )
    return found


def ours(
    model: smpl_jax.SmplModel,
    betas: np.ndarray,
    pose: np.ndarray,
    gradient: bool,
) -> Callable[[], np.ndarray]:
    """smpl_jax: the vertices, or the gradient by the pose of the sum of their squares."""
    arrays = jax.device_put((betas, pose))

    def value(model: smpl_jax.SmplModel, betas: jax.Array, pose: jax.Array) -> jax.Array:
        return jnp.sum(smpl_jax.forward(model, betas, pose).vertices ** 2)

    if gradient:
        both = jax.jit(jax.value_and_grad(value, argnums=2))
        return lambda: np.asarray(jax.block_until_ready(both(model, *arrays))[1])
    forward = jax.jit(smpl_jax.forward)
    return lambda: np.asarray(jax.block_until_ready(forward(model, *arrays)).vertices)


def torch_call(
    model: smpl_jax.SmplModel,
    betas: np.ndarray,
    pose: np.ndarray,
    gradient: bool,
) -> Callable[[], np.ndarray]:
    """The same in plain PyTorch."""
    import torch

    from benchmarks import lbs_vs_torch

    plain = lbs_vs_torch.plain_arrays(model)
    arrays = {name: torch.tensor(value) for name, value in plain.items()}
    shape, angles = torch.from_numpy(betas), torch.from_numpy(pose)

    def forward() -> np.ndarray:
        with torch.inference_mode():
            return lbs_vs_torch.plain_torch(arrays, shape, angles)[0].numpy()

    def both() -> np.ndarray:
        leaf = angles.clone().requires_grad_()
        (lbs_vs_torch.plain_torch(arrays, shape, leaf)[0] ** 2).sum().backward()
        return leaf.grad.numpy()

    return both if gradient else forward


def floor(model: smpl_jax.SmplModel, batch: int, gradient: bool) -> float:
    """Seconds that the products and the arrays take at least.

    Products of a row, 2 x multiply-adds: blend shapes, skinning (the 12 numbers of the motion of
    each vertex, and their product with it). Zeros of blend shapes and weights do not count. The
    gradient needs the transposes of both products once more: for the rest vertices, for the
    motions, for the features.
    Arrays: blend shapes, template, weights with their indices, and the vertices of each row, which
    the gradient does not return.
    """
    vertices = model.num_vertices
    blend, weights = (np.count_nonzero(np.asarray(x)) for x in (model.directions, model.weights))
    skin = 12 * weights + 12 * vertices
    flops = 2 * batch * (2 * blend + 3 * skin if gradient else blend + skin)
    numbers = blend + 3 * vertices + 2 * weights
    numbers += 0 if gradient else 3 * vertices * batch
    return machine.floor(flops, 4 * numbers)
