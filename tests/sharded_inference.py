"""The shipped model's sampler and refinement on one device and on 8, split by the training's rules;
run by mesh_test.py. Prints a JSON."""

import json

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

import numpy as np  # noqa: E402

from genhmr_jax.geometry.keypoints import DETECTED, keypoint_model  # noqa: E402
from genhmr_jax.recover import photo  # noqa: E402
from genhmr_jax.train import mesh as meshes  # noqa: E402
from genhmr_jax.train.aot import infer  # noqa: E402

ROWS = 8


def people() -> dict[str, np.ndarray]:
    """Made-up keypoints of upright people."""
    rng = np.random.default_rng(0)
    points = np.concatenate(
        [
            rng.normal(0, [60, 150], (ROWS, len(DETECTED), 2)) + 400,
            rng.uniform(0.4, 1, (ROWS, len(DETECTED), 1)),
        ],
        -1,
    )
    crop = np.tile([400.0, 400.0, 700.0], (ROWS, 1))
    inputs = {
        "keypoints": points,
        "crop": crop,
        "image_size": np.full((ROWS, 2), 800.0),
        "focal": np.full(ROWS, 1000.0),
    }
    return {name: x.astype(np.float32) for name, x in inputs.items()} | {
        "number": np.arange(ROWS, dtype=np.uint32)
    }


def solve(recoverer: photo.Recoverer, sizes: tuple[int, int, int]) -> dict[str, np.ndarray]:
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
    bodies = jax.device_put((recoverer.body, keypoint_model(recoverer.body)), whole)
    step = jax.jit(infer._step(recoverer.networks, mesh), out_shardings=meshes.batch_sharding(mesh))
    return jax.device_get(
        step(params, *bodies, jax.device_put(people(), meshes.batch_sharding(mesh)))
    )


if __name__ == "__main__":
    recoverer = photo.load()
    one, many = solve(recoverer, (1, 1, 1)), solve(recoverer, (2, 2, 2))
    gap = {
        name: float(np.abs(one[name] - many[name]).max())
        for name in ("joints", "vertices", "rotmats")
    }
    print(json.dumps(gap | {"tokens": int((one["tokens"] != many["tokens"]).sum())}))
