"""Lifting noisy keypoints to bodies: the mean pose, a residual-MLP regressor, and GenHMR.

    python -m benchmarks.lifting --poses cmu_poses.npz [--images runs/features] \\
        [--checkpoint DIR] [--samples 600000] [--out FILE.json]

The MLP maps keypoints in 2D and 3D and box information to 24 rotations and shape. It has width 1024
and 3 blocks, about as many parameters as GenHMR without its tokenizer. It is trained here on the
simulated views of GenHMR, and with --images on as many rows of rendered people (data/features.py),
with AdamW and a cosine schedule, for the given number of samples; its time is printed. If the rows
hold the detector's features (--encoder detector), both networks get them too, in upright axes, and
the width of the MLP is such that it is as large as GenHMR. GenHMR is evaluated with several decode
rules and numbers of iterations. All methods get the same views of validation subjects: `--views`
simulated ones, and the split val of the images. The errors are PA-MPJPE and MPJPE over 24 joints,
mm.

The second table is about uncertainty: the spread (standard deviation of joint positions, mm) of
K = 8 hypotheses, for joints with a detected keypoint and for joints without.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import smpl_jax
from flax import nnx
from smpl_jax import rotations

from benchmarks.settings import Settings
from benchmarks.table import Row, not_available
from genhmr_jax.core.inputs import Inputs, conditioned, repeated
from genhmr_jax.data import poses, views
from genhmr_jax.data.feature_set import FeatureSet
from genhmr_jax.data.features import DETECTOR
from genhmr_jax.data.rows import Rows
from genhmr_jax.data.turns import TurnSpec, turn_row
from genhmr_jax.detect.detections import CHANNELS, GRID
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import (
    DETECTED,
    MIN_CONFIDENCE,
    keypoint_model,
    normalize_keypoints,
)
from genhmr_jax.geometry.metrics import centred, mpjpe, pa_mpjpe
from genhmr_jax.io import compilation_cache
from genhmr_jax.nets.mlp import ResidualMlp
from genhmr_jax.recover import photo
from genhmr_jax.systems.genhmr.names import BODY_FORM
from genhmr_jax.systems.genhmr.system import GenHmrSystem

BATCH = 256
DROP = 0.3  # dropout of the MLP's features of the maps
SPEC = views.ViewSpec()
BODY = keypoint_model(load_body())
# Joints that have a keypoint of the same name.
LIMBS = [
    name
    for name in DETECTED
    if name.split("_")[-1] in ("elbow", "wrist", "knee", "ankle", "shoulder", "hip")
]


class Regressor(nnx.Module):
    """A residual MLP: keypoints, box information (and maps) -> 24 rotations in 6D, and shape."""

    def __init__(self, has_maps: bool, *, rngs: nnx.Rngs):
        self.has_maps = has_maps
        if has_maps:
            self.reduce = nnx.Linear(2 * CHANNELS, 64, rngs=rngs)
            self.gather = nnx.Linear(64 * GRID * GRID, 512, rngs=rngs)
        size_in, width = 6 * len(DETECTED) + 3 + 512 * has_maps, 768 if has_maps else 1024
        self.mlp = ResidualMlp(size_in, width, 3, 24 * 6 + 10, rngs=rngs)

    def __call__(self, inputs: Inputs, key: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Rotations (B, 24, 3, 3) and shape (B, 10). With a key, features of the maps drop out."""
        # 1. Keypoints and box in upright axes.
        turn, view = inputs.view.upright()
        middle = view.centre[:, None]
        points = (inputs.keypoints[..., :2] - middle) @ turn[:, :2, :2] + middle
        keypoints = jnp.concatenate([points, inputs.keypoints[..., 2:]], -1)
        flat = lambda x: x.reshape(len(x), -1)
        parts = [
            flat(normalize_keypoints(keypoints, view)),
            view.box_information(),
            flat(inputs.keypoints3d @ turn / BODY_FORM.spread),
        ]
        # 2. Maps.
        if self.has_maps:
            maps = self._dropped(jnp.concatenate(inputs.maps, -1), key, 0)
            cells = self._dropped(flat(jax.nn.relu(self.reduce(maps))), key, 1)
            parts.append(jax.nn.relu(self.gather(cells)))
        # 3. The body, back in the axes of the photo.
        out = self.mlp(jnp.concatenate(parts, -1))
        identity = jnp.tile(jnp.array([1.0, 0, 0, 0, 1, 0]), 24)
        rotmats = rotations.rot6d_to_matrix((out[:, :144] + identity).reshape(-1, 24, 6), "rows")
        return rotmats.at[:, 0].set(turn @ rotmats[:, 0]), out[:, 144:]

    def _dropped(self, x: jax.Array, key: jax.Array | None, number: int) -> jax.Array:
        if key is None:
            return x
        kept = jax.random.bernoulli(jax.random.fold_in(key, number), 1 - DROP, x.shape)
        return x * kept / (1 - DROP)


def inputs_of(rows: Rows, has_maps: bool, context: str = "all") -> Inputs:
    """The inputs of the MLP: without a detector, the region is the crop, and the maps are zero."""
    inputs = rows.inputs()
    view, maps = inputs.view, inputs.maps if has_maps else None
    if view.region is None:
        view = dataclasses.replace(view, region=jnp.pad(view.crop, ((0, 0), (0, 1))))
    if has_maps and maps is None:
        maps = [jnp.zeros((rows.size, GRID, GRID, CHANNELS))] * 2
    both = {"keypoints": rows.keypoints, "keypoints3d": rows.keypoints3d}
    return conditioned(Inputs(view, maps=maps, **both), context)


def errors(joints: jax.Array, rows: Rows) -> np.ndarray:
    """(2, B): PA-MPJPE and MPJPE in mm."""
    return 1000 * np.stack([pa_mpjpe(joints, rows.joints), mpjpe(joints, rows.joints)])


def train_mlp(
    corpus: poses.PoseCorpus | None, rendered: FeatureSet | None, samples: int
) -> tuple[Callable[[Rows], jax.Array], float]:
    """Train the MLP. Returns a function rows -> joints, and the seconds of the training.

    Without a corpus there are no simulated views, and the MLP sees the maps alone.
    """
    context = "image" if corpus is None else "all"
    has_maps = rendered is not None and rendered.encoder == DETECTOR
    graph, state = nnx.split(Regressor(has_maps, rngs=nnx.Rngs(0)))
    params, steps = nnx.to_pure_dict(state), samples // BATCH
    rate = optax.warmup_cosine_decay_schedule(0, 1e-3, min(200, steps // 4), steps, 1e-5)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=1e-4))

    def example(rows: Rows) -> tuple:
        return inputs_of(rows, has_maps, context), (rows.rotmats, rows.betas, rows.joints)

    def loss(params, inputs, labels, key):
        rotmats, betas = nnx.merge(graph, params)(inputs, key)
        joints = smpl_jax.posed_joints(BODY, betas, rotmats)
        true_rotmats, true_betas, true_joints = labels
        gap = jnp.mean(jnp.abs(centred(joints) - centred(true_joints)))
        rotation = jnp.mean((rotmats - true_rotmats) ** 2)
        return 10 * gap + 2 * rotation + 0.05 * jnp.mean((betas - true_betas) ** 2)

    @jax.jit
    def step(params, opt_state, number, batch: poses.PoseRows | None, rows: Rows | None):
        # 1. Simulated views, and as many rendered rows.
        base, parts = jax.random.key(3), []
        if batch is not None:
            parts.append(example(views.make_views(BODY, batch.pose, batch.number, base, SPEC)))
        if rows is not None:
            numbers, rows = rows.number, dataclasses.replace(rows, number=None)
            if not has_maps:
                keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(5), n))(numbers)
                rows = jax.vmap(lambda row, key: turn_row(row, key, TurnSpec()))(rows, keys)
            parts.append(example(rows))
        inputs, labels = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
        # 2. One step of AdamW.
        key = jax.random.fold_in(jax.random.key(6), number)
        grads = jax.grad(loss)(params, inputs, labels, key)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    size = BATCH // 2 if corpus and rendered else BATCH
    source = poses.PoseSource(corpus, size, 0) if corpus else None
    images = rendered.source(size, 0) if rendered else None
    opt_state, start = optimizer.init(params), time.monotonic()
    for i in range(steps):
        numbers = np.arange(i * size, (i + 1) * size)
        rows = images.load(numbers) if images else None
        batch = source.load(numbers) if source else None
        params, opt_state = step(params, opt_state, numbers[0], batch, rows)
        if i == 0:
            jax.block_until_ready(params)
            start = time.monotonic()  # without compilation
    jax.block_until_ready(params)

    @jax.jit
    def joints(rows: Rows) -> jax.Array:
        rotmats, betas = nnx.merge(graph, params)(inputs_of(rows, has_maps, context))
        return smpl_jax.posed_joints(BODY, betas, rotmats)

    return joints, time.monotonic() - start


def genhmr_inputs(system: GenHmrSystem, rows: Rows) -> Inputs:
    """The inputs of GenHMR: keypoints, and the detector's features if the model uses them."""
    return conditioned(rows.inputs(), "all" if system.spec.upright else "keypoints")


@functools.partial(jax.jit, static_argnames=("system", "rule"))
def genhmr_joints(
    system: GenHmrSystem, params: dict, rows: Rows, iterations: jax.Array, rule: str
) -> jax.Array:
    """GenHMR's joints (B, 24, 3), without refinement."""
    inputs = genhmr_inputs(system, rows)
    encoded = system.encode(params, inputs)
    keys = jax.random.split(jax.random.key(0), inputs.rows)
    how = {"iterations": iterations, "rule": rule}
    latents = system.sample(params, BODY, encoded, keys, **how)
    rotmats = system.pose(params, inputs.view)(latents.embeddings)
    return smpl_jax.posed_joints(BODY, latents.betas, rotmats)


@functools.partial(jax.jit, static_argnames="system")
def hypothesis_spread(system: GenHmrSystem, params: dict, rows: Rows) -> jax.Array:
    """Standard deviation (B, 24) of joints from the pelvis over 8 hypotheses, temperature 1, mm."""
    encoded = repeated(system.encode(params, genhmr_inputs(system, rows)), 8)
    keys = jax.random.split(jax.random.key(1), rows.size * 8)
    how = {"iterations": 5, "temperature": 1.0, "hypotheses": 8}
    latents = system.sample(params, BODY, encoded, keys, **how)
    rotmats = system.decoding(params)(latents.embeddings)
    joints = smpl_jax.posed_joints(BODY, latents.betas, rotmats)
    variance = jnp.var(centred(joints).reshape(rows.size, 8, 24, 3), 1)
    return 1000 * jnp.sqrt(jnp.sum(variance, -1))


def stored_rows(folder: pathlib.Path) -> FeatureSet:
    """Stored rows with the detector's features, or without the output of another encoder."""
    found = FeatureSet(folder)
    return found if found.encoder == DETECTOR else FeatureSet(folder, "none")


def rows(settings: Settings) -> list[Row]:
    """Errors on simulated views against the mean pose's, with the default settings."""
    if settings.poses is None:
        return [not_available("errors of lifting", "give --poses")]
    table = run(build_parser().parse_args([f"--poses={settings.poses}"]))
    mean = table["mean pose"]["simulated_pa_mpjpe_mm"]
    return [
        Row(f"PA-MPJPE: {name}", errors["simulated_pa_mpjpe_mm"], "mm", "mean pose", mean)
        for name, errors in table.items()
        if "simulated_pa_mpjpe_mm" in errors
    ]


def build_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(description="Compare ways to lift 2D keypoints.")
    add = parser.add_argument
    add("--poses", required=True)
    sets = "feature sets of rendered people, splits train and val"
    add("--images", type=pathlib.Path, help=sets)
    add("--checkpoint")
    add("--samples", type=int, default=600_000, help="training samples of the MLP")
    add("--views", type=int, default=2048)
    add("--out", type=pathlib.Path)
    return parser


def run(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure all methods, print their errors, and return them by method."""
    compilation_cache.enable()

    # 1. The views.
    corpus, val = poses.load_corpus(args.poses, "train"), poses.load_corpus(args.poses, "val")
    count = max(args.views // BATCH, 1)
    chosen = np.linspace(0, len(val.poses) - 1, count * BATCH).astype(int)
    simulate = jax.jit(
        lambda pose, number: views.make_views(BODY, pose, number, jax.random.key(4), SPEC)
    )
    batches = [simulate(val.poses[c], c.astype(np.uint32)) for c in np.split(chosen, count)]
    groups = {"simulated": [dataclasses.replace(b, weight=np.ones(BATCH)) for b in batches]}
    rendered = {}
    if args.images:
        rendered = {split: stored_rows(args.images / split) for split in ("train", "val")}
        groups["rendered"] = rendered["val"].all_batches(BATCH)
    table: dict[str, dict[str, float]] = {}

    def add_row(name: str, joints_of: Callable[[Rows], jax.Array]) -> None:
        table[name] = {}
        for group, members in groups.items():
            weights = np.concatenate([rows.weight for rows in members])
            both = np.concatenate([errors(joints_of(rows), rows) for rows in members], 1)
            pa, plain = both @ weights / weights.sum()
            table[name] |= {f"{group}_pa_mpjpe_mm": float(pa), f"{group}_mpjpe_mm": float(plain)}
        cells = " | ".join(f"{value:.1f}" for value in table[name].values())
        print(f"| {name} | {cells} |", flush=True)

    then = ", then rendered ones" if rendered else ""
    head = f"| {count * BATCH} simulated views of unseen subjects{then} |"
    print(head + " PA-MPJPE | MPJPE |" * len(groups))
    print("|---|" + "---|---|" * len(groups))

    # 2. The mean pose faces the camera: without the true root rotation, no constant has a lower
    # MPJPE.
    drawn = corpus.poses[corpus.draw(np.arange(BATCH), 0)]
    rotmats = simulate(drawn, np.arange(BATCH, dtype=np.uint32)).rotmats
    mean_6d = jnp.mean(rotations.matrix_to_rot6d(rotmats, "rows"), 0)
    mean_pose = rotations.rot6d_to_matrix(mean_6d, "rows").at[0].set(views.TO_CAMERA)
    mean_joints = smpl_jax.posed_joints(BODY, jnp.zeros(10), mean_pose)
    add_row("mean pose", lambda rows: jnp.broadcast_to(mean_joints, rows.joints.shape))

    # 3. The MLP and GenHMR.
    mlp, seconds = train_mlp(corpus, rendered.get("train"), args.samples)
    add_row(f"residual MLP, {args.samples:,} samples, {seconds:.0f} s", mlp)
    model = photo.load(args.checkpoint, model="genhmr")
    mean = "final" if model.system.spec.feedback else "expected"
    for rule, numbers in {mean: (1, 2, 3, 5), "hard": (1, 5)}.items():
        for t in numbers:
            how = {"iterations": jnp.asarray(t), "rule": rule}
            joints_of = functools.partial(genhmr_joints, model.system, model.params, **how)
            add_row(f"GenHMR, {rule}, T={t}", joints_of)

    # 4. The spread of hypotheses.
    names = list(smpl_jax.keypoints.SMPL24)
    joints, points = [names.index(n) for n in LIMBS], [DETECTED.index(n) for n in LIMBS]
    spreads = [hypothesis_spread(model.system, model.params, rows) for rows in batches[:2]]
    spread = np.concatenate([np.asarray(of_batch)[:, joints] for of_batch in spreads])
    confidence = np.concatenate([np.asarray(rows.keypoints)[:, points, 2] for rows in batches[:2]])
    is_hidden = confidence < MIN_CONFIDENCE
    seen, hidden = float(spread[~is_hidden].mean()), float(spread[is_hidden].mean())
    table["spread of 8 hypotheses, mm"] = {"seen": seen, "hidden": hidden}
    print(f"\nspread of 8 hypotheses: {seen:.1f} mm for detected keypoints, {hidden:.1f} mm else")
    return table


def main() -> None:
    """Run the command."""
    args = build_parser().parse_args()
    table = run(args)
    if args.out:
        args.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
