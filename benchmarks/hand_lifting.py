"""Hands from the detector's outputs: MaskHand against a residual MLP with the same inputs.

    python -m benchmarks.hand_lifting --poses hand_poses.npz --images runs/hand_images \\
        [--checkpoint DIR] [--samples 691200]

The MLP maps the 21 keypoints in 2D and 3D, the box and the landmark network's map to 16 rotations
and the shape. It has 0.71 M parameters, the shipped MaskHand 1.52 M. It is trained here on the same
batches (configs/maskhand/cpu.py): 64 simulated views and 128 stored rows of rendered hands, with
AdamW and a cosine schedule. The shipped model was trained on 691,200 samples without feedback, and
then on 364,800 with it (its model card).
Without --images there are only simulated views. Errors are of validation poses, as the training of
MaskHand prints them: PA-MPJPE and MPJPE (from the wrist) of 21 keypoints, mm, without refinement.
"""

import argparse
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import smpl_jax
from flax import nnx
from smpl_jax import rotations
from tqdm import tqdm

from genhmr_jax.core.inputs import Inputs
from genhmr_jax.detect.hands import CHANNELS, GRID
from genhmr_jax.geometry.hand import hand_keypoints
from genhmr_jax.geometry.keypoints import normalize_keypoints
from genhmr_jax.io import compilation_cache
from genhmr_jax.io.config_files import load_config
from genhmr_jax.nets.mlp import ResidualMlp
from genhmr_jax.recover.hands import load_hands
from genhmr_jax.systems.maskhand.samples import Sample
from genhmr_jax.systems.maskhand.spec import HAND_FORM
from genhmr_jax.systems.maskhand.task import MaskHandTask
from genhmr_jax.train import mesh as meshes
from genhmr_jax.train.validation import means, pose_errors

CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "maskhand" / "cpu.py"
WIDTH, DEPTH = 256, 3
DROP = 0.3  # dropout of the map's features
JOINTS, SHAPES = 16, 10


class Regressor(nnx.Module):
    """A residual MLP: keypoints, box and map -> 16 rotations in 6D, and shape."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.reduce = nnx.Linear(CHANNELS, 32, rngs=rngs)
        self.gather = nnx.Linear(32 * GRID * GRID, 128, rngs=rngs)
        size_in = 6 * 21 + 3 + 128
        self.mlp = ResidualMlp(size_in, WIDTH, DEPTH, 6 * JOINTS + SHAPES, rngs=rngs)

    def __call__(self, own: Inputs, key: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Rotations (B, 16, 3, 3) and shape (B, 10) in the axes of the hand's region.

        Args:
          own: the inputs in these axes. Simulated views have no map.
          key: with one, features of the map drop out.
        """
        flat = lambda x: x.reshape(len(x), -1)
        if own.maps is None:
            image = jnp.zeros((own.rows, 128))
        else:
            cells = flat(jax.nn.relu(self.reduce(own.maps[0])))
            image = jax.nn.relu(self.gather(cells))
        if key is not None:
            image *= jax.random.bernoulli(key, 1 - DROP, image.shape) / (1 - DROP)
        parts = [
            flat(normalize_keypoints(own.keypoints, own.view)),
            flat(own.keypoints3d / HAND_FORM.spread),
            own.view.box_information(),
            image,
        ]
        out = self.mlp(jnp.concatenate(parts, -1))
        identity = jnp.tile(jnp.array([1.0, 0, 0, 0, 1, 0]), JOINTS)
        rot6d = (out[:, : 6 * JOINTS] + identity).reshape(-1, JOINTS, 6)
        return rotations.rot6d_to_matrix(rot6d, "rows"), out[:, 6 * JOINTS :]


def keypoints_of(hand: smpl_jax.SmplModel, rotmats: jax.Array, betas: jax.Array) -> jax.Array:
    """(B, 21, 3) metres from the wrist."""
    points = hand_keypoints(hand, smpl_jax.forward(hand, betas, rotmats))
    return points - points[:, :1]


def train(task: MaskHandTask, steps: int) -> tuple[nnx.GraphDef, Any, float]:
    """Train the MLP on the task's batches. Returns it, and the seconds without compilation."""
    graph, state = nnx.split(Regressor(rngs=nnx.Rngs(0)))
    params, hand = nnx.to_pure_dict(state), task.frozen["hand"]
    rate = optax.warmup_cosine_decay_schedule(0, 1e-3, min(200, steps // 4), steps, 1e-5)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=1e-4))

    def loss(params: Any, sample: dict[str, Sample], key: jax.Array) -> jax.Array:
        total = 0.0
        for part in sample.values():
            rotmats, betas = nnx.merge(graph, params)(part.inputs, key)
            gap = jnp.mean(jnp.abs(keypoints_of(hand, rotmats, betas) - part.keypoints))
            turned = jnp.mean((rotmats - part.rotmats) ** 2)
            total += 100 * gap + 2 * turned + 0.05 * jnp.mean((betas - part.betas) ** 2)
        return total

    @jax.jit
    def step(params, opt_state, frozen, batch, key):
        grads = jax.grad(loss)(params, task.prepare(frozen, batch), key)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    sources, opt_state = task.sources(), optimizer.init(params)
    start = time.monotonic()
    for i in tqdm(range(steps), unit="step", mininterval=5, disable=None):
        batch = {
            name: source.load(np.arange(i * source.size, (i + 1) * source.size))
            for name, source in sources.items()
        }
        key = jax.random.fold_in(jax.random.key(6), i)
        params, opt_state = step(params, opt_state, task.frozen, batch, key)
        if i == 0:
            jax.block_until_ready(params)
            start = time.monotonic()
    jax.block_until_ready(params)
    return graph, params, time.monotonic() - start


def errors(
    task: MaskHandTask, graph: nnx.GraphDef, params: Any, place: meshes.Placement
) -> dict[str, dict[str, float]]:
    """The MLP's errors by group of validation samples ("val": simulated views, "val_image")."""

    @jax.jit
    def measure(params: Any, sample: Sample) -> dict[str, jax.Array]:
        points = keypoints_of(task.frozen["hand"], *nnx.merge(graph, params)(sample.inputs))
        return pose_errors(points, sample.keypoints, sample.weight)

    sums: dict[str, list[Any]] = {}
    for group, sample in task.validation(task.frozen, place):
        sums.setdefault(group, []).append(jax.device_get(measure(params, sample)))
    return {group: means(found) for group, found in sums.items()}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Compare MaskHand with an MLP.")
    parser.add_argument("--poses", required=True, help="a corpus of `genhmr data hand-poses`")
    parser.add_argument("--images", help="stored rows of data.hands.write, splits train and val")
    parser.add_argument("--checkpoint", help="a MaskHand; default: the shipped one")
    parser.add_argument("--samples", type=int, default=691_200, help="of the MLP's training")
    args = parser.parse_args()
    compilation_cache.enable()
    # 1. The batches are those of the recipe.
    config = load_config(str(CONFIG))
    config.data.poses, config.data.images = args.poses, args.images or ""
    config.image_batch_size = config.image_batch_size if args.images else 0
    model = load_hands(args.checkpoint)
    arrays = {name: model.params[name] for name in ("tokenizer", "codebook")}
    task = MaskHandTask(config, model.system.spec.tokenizer, arrays)
    place = meshes.Placement(meshes.make_mesh(config.mesh))
    # 2. MaskHand, which is trained already.
    print("| method | group | PA-MPJPE | MPJPE |\n|---|---|---|---|", flush=True)
    found = task.evaluate(model.params["maskhand"], {}, task.frozen, place)
    for name, value in found.items():
        if name.endswith("_pa_mpjpe_mm"):
            group, iterations = name.removesuffix("_pa_mpjpe_mm").rsplit("_t", 1)
            plain = found[name.replace("_pa_mpjpe", "_mpjpe")]
            print(f"| MaskHand, T={iterations} | {group} | {value:.1f} | {plain:.1f} |", flush=True)
    # 3. The MLP.
    steps = args.samples // (config.batch_size + config.image_batch_size)
    graph, params, seconds = train(task, steps)
    size = sum(x.size for x in jax.tree.leaves(params)) / 1e6
    for group, of in errors(task, graph, params, place).items():
        name = f"residual MLP, {size:.2f} M parameters, {args.samples:,} samples, {seconds:.0f} s"
        print(f"| {name} | {group} | {of['pa_mpjpe']:.1f} | {of['mpjpe']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
