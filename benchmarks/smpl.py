"""SMPL's forward pass, and value and gradient of its vertices by the pose, against plain PyTorch
(lbs_vs_torch.py) where torch is installed."""

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
            weights = rng.normal(size=(batch, model.num_vertices, 3)).astype(np.float32)
            calls = {"ours": ours(model, betas, pose, weights, gradient)}
            if has_torch:
                calls[PEER] = torch_call(model, betas, pose, weights, gradient)
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
    weights: np.ndarray,
    gradient: bool,
) -> Callable[[], np.ndarray]:
    """smpl_jax: the vertices, or the gradient by the pose of their weighted sum."""
    arrays = jax.device_put((betas, pose, weights))

    def value(
        model: smpl_jax.SmplModel, betas: jax.Array, pose: jax.Array, weights: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        vertices = smpl_jax.forward(model, betas, pose).vertices
        return jnp.sum(vertices * weights), vertices

    if gradient:
        both = jax.jit(jax.value_and_grad(value, argnums=2, has_aux=True))
        return lambda: np.asarray(jax.block_until_ready(both(model, *arrays))[1])
    forward = jax.jit(smpl_jax.forward)
    return lambda: np.asarray(jax.block_until_ready(forward(model, *arrays[:2])).vertices)


def torch_call(
    model: smpl_jax.SmplModel,
    betas: np.ndarray,
    pose: np.ndarray,
    weights: np.ndarray,
    gradient: bool,
) -> Callable[[], np.ndarray]:
    """The same in plain PyTorch."""
    import torch

    from benchmarks import lbs_vs_torch

    plain = lbs_vs_torch.plain_arrays(model)
    arrays = {name: torch.tensor(value) for name, value in plain.items()}
    shape, angles, w = (torch.from_numpy(x) for x in (betas, pose, weights))

    def forward() -> np.ndarray:
        with torch.inference_mode():
            return lbs_vs_torch.plain_torch(arrays, shape, angles)[0].numpy()

    def both() -> np.ndarray:
        leaf = angles.clone().requires_grad_()
        (lbs_vs_torch.plain_torch(arrays, shape, leaf)[0] * w).sum().backward()
        return leaf.grad.numpy()

    return both if gradient else forward


def floor(model: smpl_jax.SmplModel, batch: int, gradient: bool) -> float:
    """Seconds that the products and the arrays take at least.

    Products of a row, 2 x multiply-adds: blend shapes (features x 3V), skinning by 4 weights (the
    12 numbers of a motion, and their product with the vertex). The gradient needs the transposes
    of both products once more: for the rest vertices, for the motions, for the features.
    Arrays: blend shapes, template, 4 weights with their indices, and the vertices of each row; the
    gradient also reads the weights of the sum.
    """
    features, vertices = model.directions.shape[0], model.num_vertices
    blend, skin = 2 * features * 3 * vertices, 2 * (4 * 12 + 12) * vertices
    flops = batch * (blend + skin + (blend + 2 * skin if gradient else 0))
    numbers = (features + 1) * 3 * vertices + 8 * vertices
    numbers += batch * 3 * vertices * (2 if gradient else 1)
    return machine.floor(flops, 4 * numbers)
