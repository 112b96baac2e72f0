"""The shipped model's sampler and refinement on one device and on 8, split by the training's rules;
run by mesh_test.py. Prints a JSON."""

import json

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

import numpy as np  # noqa: E402

from genhmr_jax.core.inputs import Inputs  # noqa: E402
from genhmr_jax.core.solve import Solved  # noqa: E402
from genhmr_jax.geometry.camera import CropCamera  # noqa: E402
from genhmr_jax.geometry.keypoints import DETECTED, surface_model  # noqa: E402
from genhmr_jax.recover import photo  # noqa: E402
from genhmr_jax.train import mesh as meshes  # noqa: E402
from genhmr_jax.train.aot import infer  # noqa: E402

ROWS = 8


def people() -> Inputs:
    """Made-up keypoints of upright people."""
    rng = np.random.default_rng(0)
    points = rng.normal(0, [60, 150], (ROWS, len(DETECTED), 2)) + 400
    confidence = rng.uniform(0.4, 1, (ROWS, len(DETECTED), 1))
    view = CropCamera(
        crop=np.tile(np.float32([400, 400, 700]), (ROWS, 1)),
        focal=np.full(ROWS, 1000, np.float32),
        centre=np.full((ROWS, 2), 400, np.float32),
    )
    return Inputs(view, np.concatenate([points, confidence], -1).astype(np.float32))


def solve(recoverer: photo.Recoverer, sizes: tuple[int, int, int]) -> Solved:
    """The bodies, computed on a mesh of these sizes."""
    mesh = meshes.make_mesh(
        dict(zip(meshes.AXES, sizes, strict=True)), jax.devices()[: int(np.prod(sizes))]
    )
    whole = meshes.replicated(mesh)
    places = meshes.param_shardings(recoverer.params["genhmr"], mesh)
    params = {
        k: jax.device_put(v, places if k == "genhmr" else whole)
        for k, v in recoverer.params.items()
    }
    if sizes[1] > 1:
        assert any(not x.sharding.is_fully_replicated for x in jax.tree.leaves(params["genhmr"]))
    bodies = jax.device_put((recoverer.body, surface_model(recoverer.body)), whole)
    split = meshes.batch_sharding(mesh)
    step = jax.jit(infer.make_step(recoverer.system, mesh), out_shardings=split)
    inputs, numbers = jax.device_put((people(), np.arange(ROWS, dtype=np.uint32)), split)
    return jax.device_get(step(params, *bodies, inputs, numbers))


if __name__ == "__main__":
    recoverer = photo.load(body="lite")
    one, many = solve(recoverer, (1, 1, 1)), solve(recoverer, (2, 2, 2))
    root = lambda found: found.joints[..., :1, :]
    relative = {
        "joints": lambda found: found.joints - root(found),
        "vertices": lambda found: found.vertices - root(found),
        "body_pose": lambda found: found.body_pose,
    }
    gap = {name: float(np.abs(value(one) - value(many)).max()) for name, value in relative.items()}
    # Made-up keypoints put a body many metres away: its distance has as many digits as float32.
    gap["distance"] = float(np.abs(root(one) / root(many) - 1)[..., 2].max())
    print(json.dumps(gap | {"tokens": int((one.tokens != many.tokens).sum())}))
