"""Lifting noisy keypoints to bodies, on views of validation subjects: the mean pose, a residual-MLP regressor, and GenHMR.

    python benchmarks/lifting.py --poses cmu_poses.npz [--images runs/features] [--checkpoint DIR] [--samples 600000] [--out FILE.json]

The MLP (keypoints in 2D and 3D and box information -> 24 rotations, shape; width 1024, 3 blocks, about as many parameters as GenHMR without
its tokenizer) is trained here on the same simulated views, and with --images on as many rows of rendered people (train/features.py), with
AdamW and a cosine schedule, for the given number of samples; its time is printed. GenHMR is evaluated with every decode rule and number of
iterations. All see the same views: `--views` simulated ones, and the split val of the images; PA-MPJPE and MPJPE over 24 joints in mm.

The second table is about uncertainty: spread (standard deviation of joint positions, mm) of K = 8 hypotheses for joints whose keypoints the
detector saw, and for joints whose keypoints were hidden.
"""

import argparse
import functools
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import smpl_jax
from flax import nnx
from smpl_jax import rotations

from genhmr_jax import camera, compilation_cache, recover
from genhmr_jax.body import load_body
from genhmr_jax.body.keypoints import DETECTED, MIN_CONFIDENCE, keypoint_model
from genhmr_jax.data import poses, views
from genhmr_jax.data.turn import TurnSpec, turn_row
from genhmr_jax.evaluate.metrics import centred, mpjpe, pa_mpjpe
from genhmr_jax.models.genhmr import METRES, normalize_keypoints
from genhmr_jax.models.tokenizer import ResidualMlp
from genhmr_jax.predict import repeat_encoded, sample_bodies
from genhmr_jax.train.features import FeatureSet

BATCH = 256
SPEC = views.ViewSpec()
BODY = keypoint_model(load_body())
# Joints with a keypoint of their own, for the question "was it seen?"
LIMBS = {n: n for n in DETECTED if n.split("_")[-1] in ("elbow", "wrist", "knee", "ankle", "shoulder", "hip")}


def features(view: dict) -> jax.Array:
    """What a regressor sees: keypoints in crop coordinates, box information, keypoints in 3D, (B, 141)."""
    keypoints = normalize_keypoints(view["keypoints"], view["crop"])
    box = camera.box_information(view["crop"], view["image_size"], view["focal"])
    return jnp.concatenate([keypoints.reshape(len(keypoints), -1), box, view["keypoints3d"].reshape(len(keypoints), -1) / METRES], -1)


def errors(joints: jax.Array, view: dict) -> np.ndarray:
    """(2, B): PA-MPJPE and MPJPE in mm."""
    return 1000 * np.stack([pa_mpjpe(joints, view["joints"]), mpjpe(joints, view["joints"])])


def train_mlp(corpus: poses.PoseCorpus, rendered: FeatureSet | None, samples: int):
    """Trains the residual MLP; returns a function view -> joints, and the seconds it took."""
    graph, state = nnx.split(ResidualMlp(6 * len(DETECTED) + 3, 1024, 3, 24 * 6 + 10, rngs=nnx.Rngs(0)))
    params, steps = nnx.to_pure_dict(state), samples // BATCH
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(optax.warmup_cosine_decay_schedule(0, 1e-3, 200, steps, 1e-5), weight_decay=1e-4)
    )

    def predict(params, view):
        out = nnx.merge(graph, params)(features(view))
        identity = jnp.tile(jnp.array([1.0, 0, 0, 0, 1, 0]), 24)
        rotmats = rotations.rot6d_to_matrix((out[:, :144] + identity).reshape(-1, 24, 6), "rows")
        return rotmats, out[:, 144:]

    def loss(params, view):
        rotmats, betas = predict(params, view)
        joints = smpl_jax.posed_joints(BODY, betas, rotmats)
        gap = jnp.mean(jnp.abs(centred(joints) - centred(view["joints"])))
        return 10 * gap + 2 * jnp.mean((rotmats - view["rotmats"]) ** 2) + 0.05 * jnp.mean((betas - view["betas"]) ** 2)

    @jax.jit
    def step(params, opt_state, pose, number, rows):
        view = views.make_views(BODY, pose, number, 3, SPEC)
        if rows:
            keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(5), n))(rows.pop("number"))
            turned = jax.vmap(lambda row, key: turn_row(row, key, TurnSpec()))(rows, keys)
            view = {name: jnp.concatenate([value, turned[name]]) for name, value in view.items()}
        grads = jax.grad(loss)(params, view)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    size = BATCH // 2 if rendered else BATCH
    source, images = poses.PoseSource(corpus, size, 0), rendered.source(size, 0) if rendered else None
    opt_state, start = optimizer.init(params), time.monotonic()
    for i in range(steps):
        numbers = np.arange(i * size, (i + 1) * size)
        batch = source.load(numbers)
        params, opt_state = step(params, opt_state, batch["pose"], batch["number"], images.load(numbers) if images else {})
        if i == 0:
            jax.block_until_ready(params)
            start = time.monotonic()  # compilation does not count
    jax.block_until_ready(params)
    posed = jax.jit(lambda view: smpl_jax.posed_joints(BODY, *reversed(predict(params, view))))
    return posed, time.monotonic() - start


def genhmr_joints(recoverer: recover.Recoverer, view: dict, iterations: int, rule: str) -> jax.Array:
    """GenHMR's joints from the keypoints of views."""
    return _genhmr(recoverer.networks, recoverer.params, view, jnp.asarray(iterations), rule)


@functools.partial(jax.jit, static_argnames=("networks", "rule"))
def _genhmr(networks, params, view, iterations, rule):
    encoded = networks.encode(params, view)
    keys = jax.random.split(jax.random.key(0), len(view["crop"]))
    _, embeddings = sample_bodies(networks, params, encoded, keys, iterations=iterations, rule=rule)
    return smpl_jax.posed_joints(BODY, encoded.betas, networks.decode(params, embeddings))


@functools.partial(jax.jit, static_argnames="networks")
def hypothesis_spread(networks, params, view):
    """Standard deviation (B, 24) in mm of pelvis-aligned joints over 8 hypotheses at temperature 1."""
    batch = len(view["crop"])
    encoded = repeat_encoded(networks.encode(params, view), 8)
    keys = jax.random.split(jax.random.key(1), batch * 8)
    _, embeddings = sample_bodies(networks, params, encoded, keys, iterations=5, temperature=1.0, rule="hard")
    joints = centred(smpl_jax.posed_joints(BODY, encoded.betas, networks.decode(params, embeddings)))
    return 1000 * jnp.sqrt(jnp.sum(jnp.var(joints.reshape(batch, 8, 24, 3), 1), -1))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Compare ways to lift 2D keypoints.")
    parser.add_argument("--poses", required=True)
    parser.add_argument("--images", type=pathlib.Path, help="feature sets of rendered people, splits train and val")
    parser.add_argument("--checkpoint")
    parser.add_argument("--samples", type=int, default=600_000, help="training samples of the MLP")
    parser.add_argument("--views", type=int, default=2048)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    compilation_cache.enable()
    corpus, val = poses.load_corpus(args.poses, "train"), poses.load_corpus(args.poses, "val")
    count = max(args.views // BATCH, 1)
    chosen = np.linspace(0, len(val.poses) - 1, count * BATCH).astype(int)
    simulate = jax.jit(lambda pose, number: views.make_views(BODY, pose, number, 4, SPEC))
    batches = [simulate(val.poses[c], c.astype(np.uint32)) for c in np.split(chosen, count)]
    rendered = {split: FeatureSet(args.images / split, "none") for split in ("train", "val")} if args.images else {}
    groups = {"simulated": [view | {"weight": np.ones(BATCH)} for view in batches]}
    if rendered:
        groups["rendered"] = rendered["val"].all_batches(BATCH)
    table: dict[str, dict[str, float]] = {}

    def add(name: str, joints_of) -> None:
        table[name] = {}
        for group, members in groups.items():
            weights = np.concatenate([view["weight"] for view in members])
            pa, plain = np.concatenate([errors(joints_of(view), view) for view in members], 1) @ weights / weights.sum()
            table[name] |= {f"{group}_pa_mpjpe_mm": float(pa), f"{group}_mpjpe_mm": float(plain)}
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in table[name].values()) + " |", flush=True)

    print(
        f"| {count * BATCH} simulated views of unseen subjects{', then rendered ones' if rendered else ''} |"
        + " PA-MPJPE | MPJPE |" * len(groups)
    )
    print("|---|" + "---|---|" * len(groups))
    # The mean pose is shown facing the camera: without the root's true turn, no constant does better in MPJPE.
    train_views = simulate(corpus.poses[corpus.draw(np.arange(BATCH), 0)], np.arange(BATCH, dtype=np.uint32))
    mean_rot = rotations.rot6d_to_matrix(jnp.mean(rotations.matrix_to_rot6d(train_views["rotmats"], "rows"), 0), "rows")
    mean_rot = mean_rot.at[0].set(views.TO_CAMERA)
    mean_joints = smpl_jax.posed_joints(BODY, jnp.zeros(10), mean_rot)
    add("mean pose", lambda view: jnp.broadcast_to(mean_joints, view["joints"].shape))
    mlp, seconds = train_mlp(corpus, rendered.get("train"), args.samples)
    add(f"residual MLP, {args.samples:,} samples, {seconds:.0f} s", mlp)
    recoverer = recover.load(args.checkpoint)
    for rule, iterations in (("expected", 1), ("expected", 2), ("expected", 5), ("expected", 10), ("hard", 1), ("hard", 5), ("hard", 10)):
        add(f"GenHMR, {rule}, T={iterations}", lambda view, t=iterations, r=rule: genhmr_joints(recoverer, view, t, r))

    names = list(smpl_jax.keypoints.SMPL24)
    joints, points = [names.index(n) for n in LIMBS], [DETECTED.index(n) for n in LIMBS]
    spread = np.concatenate([np.asarray(hypothesis_spread(recoverer.networks, recoverer.params, v))[:, joints] for v in batches[:2]])
    hidden = np.concatenate([np.asarray(v["keypoints"])[:, points, 2] < MIN_CONFIDENCE for v in batches[:2]])
    table["spread of 8 hypotheses, mm"] = {"seen": float(spread[~hidden].mean()), "hidden": float(spread[hidden].mean())}
    print(
        f"\nspread of 8 hypotheses: {spread[~hidden].mean():.1f} mm where the keypoint was seen, {spread[hidden].mean():.1f} where hidden"
    )
    if args.out:
        args.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
