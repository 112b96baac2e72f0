"""Loss curves of a stage on several meshes of 8 host devices, as JSON on stdout; run by
mesh_test.py in a process of its own.

    python tests/support/curves.py CONFIG.json MESHES.json

MESHES: [[data, fsdp, tensor, accumulate], ...]
"""

import json
import sys

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

import ml_collections  # noqa: E402
from absl import flags  # noqa: E402

from genhmr_jax.data import pipeline  # noqa: E402
from genhmr_jax.systems import registry  # noqa: E402
from genhmr_jax.train import mesh as meshes  # noqa: E402
from genhmr_jax.train import program as programs  # noqa: E402


def curve(
    config: ml_collections.ConfigDict, data: int, fsdp: int, tensor: int, accumulate: int
) -> list[float]:
    """The losses of a run on the first data x fsdp x tensor devices."""
    config.mesh.update({"data": data, "fsdp": fsdp, "tensor": tensor, "fsdp_min_size": 0})
    config.accumulate = accumulate
    task = registry.make_task(config)
    mesh = meshes.make_mesh(config.mesh, jax.devices()[: data * fsdp * tensor])
    program = programs.build(task, config, mesh)
    state, frozen, losses = program.init(), program.place_frozen(), []
    for batch in pipeline.Batches(task.sources(), meshes.batch_sharding(mesh), 0, config.steps):
        with jax.transfer_guard("disallow"):
            state, metrics = program.step(state, batch, frozen)
        losses.append(metrics["loss"])
    if fsdp > 1:  # parameters and their moments really are split
        split = [
            x
            for x in jax.tree.leaves((state["params"], state["opt_state"]))
            if not x.sharding.is_fully_replicated
        ]
        assert len(split) > len(jax.tree.leaves(state["params"])) // 3
    return [float(x) for x in losses]


if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()
    config = ml_collections.ConfigDict(json.loads(open(sys.argv[1]).read()))
    print(
        json.dumps(
            [curve(config.copy_and_resolve_references(), *m) for m in json.loads(sys.argv[2])]
        )
    )
