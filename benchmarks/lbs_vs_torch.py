"""Time of SMPL: smpl_jax, the same written naively in JAX, and a plain PyTorch implementation.

    pip install -e . torch
    python -m benchmarks.lbs_vs_torch [--dense]

All three get the same betas and axis-angle poses. A row is the forward pass, which gives posed
vertices and joints, or the value and gradient by pose of the sum of the squared vertices. Results
are checked against each other before anything is timed. The PyTorch one is the usual form: dense
weights, one 4x4 matrix a vertex. The first calls (compilation) are not counted, and the
implementations take turns, so that a busy machine hits all alike.

Of the free bodies, few joints displace a vertex by their pose, and smpl_jax leaves out the others.
`--dense` makes all pose blend shapes of the body dense, as a file of SMPL's may have them.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
import torch
from smpl_jax.keypoints import SMPL24_PARENTS

from benchmarks.timing import take_turns
from genhmr_jax.geometry.bodies import load_body


def naive_jax(
    arrays: dict[str, jax.Array], betas: jax.Array, pose: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """SMPL as the paper writes it: vertices as (V, 3), the joint regressor applied to every shape,
    one 4x4 matrix a vertex."""
    rotmats = smpl_jax.rotations.axis_angle_to_matrix(pose)
    shaped = arrays["v_template"] + jnp.einsum("vcs,bs->bvc", arrays["shapedirs"], betas)
    joints = jnp.einsum("jv,bvc->bjc", arrays["J_regressor"], shaped)
    feature = (rotmats[:, 1:] - jnp.eye(3)).reshape(len(pose), -1)
    rest = shaped + jnp.einsum("vcp,bp->bvc", arrays["posedirs"], feature)
    world = []
    for joint, parent in enumerate(SMPL24_PARENTS):
        offset = joints[:, joint] - (joints[:, parent] if joint else 0.0)
        local = jnp.concatenate([rotmats[:, joint], offset[..., None]], -1)
        local = jnp.concatenate(
            [local, jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0]), (len(pose), 1, 4))], 1
        )
        world.append(world[parent] @ local if joint else local)
    world = jnp.stack(world, 1)
    moved = jnp.einsum("bjac,bjc->bja", world[..., :3, :3], joints)
    motion = world.at[..., :3, 3].add(-moved)
    blended = jnp.einsum("vj,bjac->bvac", arrays["weights"], motion)
    homogeneous = jnp.concatenate([rest, jnp.ones((*rest.shape[:2], 1))], -1)
    return jnp.einsum("bvac,bvc->bva", blended, homogeneous)[..., :3], world[..., :3, 3]


def plain_torch(
    arrays: dict[str, torch.Tensor], betas: torch.Tensor, pose: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The usual PyTorch form, with the reshapes into plain matrix products that make it fast
    there."""
    batch, vertices = len(pose), len(arrays["v_template"])
    angle = torch.linalg.norm(pose + 1e-8, dim=-1, keepdim=True)[..., None]
    x, y, z = (pose / angle[..., 0]).unbind(-1)
    zero = torch.zeros_like(x)
    k = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(batch, 24, 3, 3)
    rotmats = torch.eye(3) + torch.sin(angle) * k + (1 - torch.cos(angle)) * (k @ k)
    shaped = arrays["v_template"] + torch.einsum("bs,vcs->bvc", betas, arrays["shapedirs"])
    joints = torch.einsum("jv,bvc->bjc", arrays["J_regressor"], shaped)
    feature = (rotmats[:, 1:] - torch.eye(3)).reshape(batch, -1)
    rest = shaped + (feature @ arrays["posedirs_flat"]).reshape(batch, vertices, 3)
    offsets = joints.clone()
    offsets[:, 1:] -= joints[:, list(SMPL24_PARENTS[1:])]
    local = torch.zeros(batch, 24, 4, 4)
    local[..., :3, :3], local[..., :3, 3], local[..., 3, 3] = rotmats, offsets, 1.0
    world = [local[:, 0]]
    for joint in range(1, 24):
        world.append(world[SMPL24_PARENTS[joint]] @ local[:, joint])
    world = torch.stack(world, 1)
    motion = world.clone()
    motion[..., :3, 3] -= (world[..., :3, :3] @ joints[..., None])[..., 0]
    blended = (arrays["weights"] @ motion.reshape(batch, 24, 16)).reshape(batch, vertices, 4, 4)
    homogeneous = torch.cat([rest, torch.ones(batch, vertices, 1)], -1)
    return (blended @ homogeneous[..., None])[..., :3, 0], world[..., :3, 3]


def plain_arrays(model: smpl_jax.SmplModel) -> dict[str, np.ndarray]:
    """The model in SMPL's own layout. The regressor is fitted: it only has to give these joints."""
    directions = np.transpose(model.directions, (2, 1, 0))
    shapedirs, posedirs = directions[..., : model.num_betas], directions[..., model.num_betas :]
    basis = np.concatenate([np.asarray(model.template).T[..., None], shapedirs], -1).reshape(
        model.num_vertices, -1
    )
    joints = np.concatenate(
        [
            np.asarray(model.joint_template)[..., None],
            np.transpose(model.joint_shapedirs, (1, 2, 0)),
        ],
        -1,
    )
    solution = np.linalg.lstsq(basis.T.astype(np.float64), joints.reshape(24, -1).T, rcond=None)[0]
    arrays = {
        "v_template": model.template.T,
        "shapedirs": shapedirs,
        "posedirs": posedirs,
        "posedirs_flat": posedirs.reshape(-1, posedirs.shape[-1]).T,
        "J_regressor": solution.T,
        "weights": model.weights.T,
    }
    return {key: np.ascontiguousarray(value, dtype=np.float32) for key, value in arrays.items()}


def with_dense_pose(model: smpl_jax.SmplModel) -> smpl_jax.SmplModel:
    """The body with small random numbers in all of its pose blend shapes."""
    directions, rng = model.directions, np.random.default_rng(1)
    directions[model.num_betas :] += rng.normal(
        0, 1e-4, directions[model.num_betas :].shape
    ).astype(np.float32)
    return dataclasses.replace(model, blocks=smpl_jax.blocks.make_blocks(directions, model.weights))


def jax_gradient(forward: Callable) -> Callable:
    """Value and gradient by pose of the sum of squared vertices."""
    loss = lambda pose, model, betas: jnp.sum(forward(model, betas, pose)[0] ** 2)
    compiled = jax.jit(jax.value_and_grad(loss))
    return lambda model, betas, pose: compiled(pose, model, betas)


def torch_gradient(
    arrays: dict[str, torch.Tensor], betas: torch.Tensor, pose: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in PyTorch."""
    pose = pose.detach().requires_grad_()
    value = (plain_torch(arrays, betas, pose)[0] ** 2).sum()
    return value.detach(), torch.autograd.grad(value, pose)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--body", default="neutral", help="a shipped body or a path")
    parser.add_argument("--dense", action="store_true", help="make pose blend shapes dense")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--rounds", type=int, default=4, help="turns of five calls each")
    args = parser.parse_args()
    model = load_body(args.body)
    model = with_dense_pose(model) if args.dense else model
    arrays = plain_arrays(model)
    in_jax = jax.tree.map(jnp.asarray, arrays)
    in_torch = {key: torch.tensor(value) for key, value in arrays.items()}
    print(
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}, torch {torch.__version__} on CPU "
        f"with {torch.get_num_threads()} threads"
    )
    rows = {
        "forward": (
            jax.jit(smpl_jax.forward),
            jax.jit(naive_jax),
            torch.inference_mode()(plain_torch),
        ),
        "gradient": (jax_gradient(smpl_jax.forward), jax_gradient(naive_jax), torch_gradient),
    }
    for row, (shipped, naive, peer) in rows.items():
        for batch in args.batches:
            compare(row, batch, args.rounds, (shipped, model), (naive, in_jax), (peer, in_torch))


def compare(row: str, batch: int, rounds: int, *implementations: tuple[Callable, object]) -> None:
    """Print a row: smpl_jax, naive JAX and PyTorch, each a function and its model.

    Raises:
      SystemExit: results differ.
    """
    rng = np.random.default_rng(0)
    betas = rng.normal(size=(batch, 10)).astype(np.float32)
    pose = rng.normal(0, 0.4, (batch, 24, 3)).astype(np.float32)
    inputs = {
        "smpl_jax": (jnp.asarray(betas), jnp.asarray(pose)),
        "naive JAX": (jnp.asarray(betas), jnp.asarray(pose)),
        "PyTorch": (torch.from_numpy(betas), torch.from_numpy(pose)),
    }
    call = lambda function, model, given: jax.block_until_ready(function(model, *given))
    calls = {
        name: functools.partial(call, *implementation, inputs[name])
        for name, implementation in zip(inputs, implementations, strict=True)
    }
    # Vertices in metres, or slopes as a share of the largest. Other devices than the CPU round
    # products to fewer bits by default.
    which, tolerance = row == "gradient", 1e-4 if jax.default_backend() == "cpu" else 1e-2
    reference = np.asarray(calls["smpl_jax"]()[which])
    unit = np.abs(reference).max() if row == "gradient" else 1.0
    for name in ("naive JAX", "PyTorch"):
        gap = np.abs(np.asarray(calls[name]()[which]) - reference).max() / unit
        if gap > tolerance:
            raise SystemExit(f"{name} differs from smpl_jax by {gap:.2e}: not the same computation")
    seconds = take_turns(calls, rounds)
    times = "   ".join(f"{name} {1e3 * s:8.2f} ms" for name, s in seconds.items())
    ratio = seconds["PyTorch"] / seconds["smpl_jax"], seconds["PyTorch"] / seconds["naive JAX"]
    print(
        f"{row:8s} batch {batch:4d}   {times}   PyTorch / smpl_jax {ratio[0]:.2f}   "
        f"PyTorch / naive {ratio[1]:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
