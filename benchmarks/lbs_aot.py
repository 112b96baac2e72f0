"""smpl_jax on a TPU that is not here: what its compiled programs move through HBM.

    python benchmarks/lbs_aot.py [--topology v5e:2x2] [--bodies 256] [--out FILE.json]

The forward pass (vertices and joints), and the value and gradient by pose of the sum of the squared
vertices, for `--bodies` a chip, split over the chips by `jit`. Bytes are those that the compiled
program moves through HBM (genhmr_jax/train/aot); the floor is that every input and output crosses
once. Nothing runs; needs the extra `aot`.
"""

import argparse
import json
import pathlib

import jax
import jax.numpy as jnp
import smpl_jax
from jax.sharding import NamedSharding, PartitionSpec

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.train import mesh as meshes
from genhmr_jax.train.aot import report, topology


def gradient(
    model: smpl_jax.SmplModel, betas: jax.Array, pose: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Value and gradient by pose of the sum of the squared vertices."""
    loss = lambda pose: jnp.sum(smpl_jax.forward(model, betas, pose).vertices ** 2)
    return jax.value_and_grad(loss)(pose)


PROGRAMS = {"forward": smpl_jax.forward, "gradient": gradient}


def measure(program: str, name: str, bodies: int, body: str = "neutral") -> report.Report:
    """The compiled program of a slice; its model is on every chip.

    Args:
      program: "forward" or "gradient".
      name: the slice, such as "v5e:2x2".
      bodies: on each chip.
      body: a shipped body or a path.
    """
    chip, chips = topology.parse(name)
    mesh = meshes.make_mesh({"data": -1, "fsdp": 1, "tensor": 1}, topology.devices(name))
    spread = lambda shape, dtype, *axes: jax.ShapeDtypeStruct(
        shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes))
    )
    model = jax.tree.map(lambda leaf: spread(leaf.shape, leaf.dtype), load_body(body))
    inputs = [
        spread((bodies * mesh.size, *tail), jnp.float32, "data")
        for tail in ((model.num_betas,), (model.num_joints, 3))
    ]
    lowered = jax.jit(PROGRAMS[program]).lower(model, *inputs)
    return report.compile_report(lowered, chip, chips, mesh, 1.0)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description="Read what smpl_jax moves through a TPU's HBM from its compiled programs."
    )
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--bodies", type=int, default=256, help="on each chip")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # the slice is no backend
    found = {}
    for program in PROGRAMS:
        measured = measure(program, args.topology, args.bodies)
        floor = measured.hbm["arguments"] + measured.hbm["outputs"]
        found[program] = {
            "hbm_mb": measured.traffic / 1e6,
            "floor_mb": floor / 1e6,
            "times_floor": measured.traffic / floor,
            "hbm_ms": 1000 * measured.bounds.hbm,
            "temporaries_mb": measured.hbm["temporaries"] / 1e6,
            "collectives": sum(kind["times"] for kind in measured.collectives.values()),
        }
        print(program, json.dumps(found[program]), flush=True)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
