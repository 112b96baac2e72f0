"""Lifting noisy keypoints to bodies, on views of validation subjects: the mean pose, a residual-MLP
regressor, and GenHMR.

    python benchmarks/lifting.py --poses cmu_poses.npz [--images runs/features] [--checkpoint DIR]
    [--samples 600000] [--out FILE.json]

The MLP (keypoints in 2D and 3D and box information -> 24 rotations, shape; width 1024, 3 blocks,
about as many parameters as GenHMR without its tokenizer) is trained here on the same simulated
views, and with --images on as many rows of rendered people (train/features.py), with AdamW and a
cosine schedule, for the given number of samples; its time is printed. Where the rows hold the
detector's features (--encoder detector), both networks have these too, upright, and the MLP is as
wide as makes it as large as GenHMR then. GenHMR is evaluated with every decode rule and number of
iterations. All see the same views: `--views` simulated ones, and the split val of the images;
PA-MPJPE and MPJPE over 24 joints in mm.

The second table is about uncertainty: spread (standard deviation of joint positions, mm) of K = 8
hypotheses for joints whose keypoints the detector saw, and for joints whose keypoints were hidden.
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

from genhmr_jax.core import encoders
from genhmr_jax.data import poses, views
from genhmr_jax.data.features import FeatureSet
from genhmr_jax.data.turns import TurnSpec, turn_row
from genhmr_jax.detect.blazepose_features import CHANNELS, GRID
from genhmr_jax.geometry import camera
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED, MIN_CONFIDENCE, keypoint_model
from genhmr_jax.geometry.metrics import centred, mpjpe, pa_mpjpe
from genhmr_jax.io import compilation_cache
from genhmr_jax.nets.mlp import ResidualMlp
from genhmr_jax.recover import photo
from genhmr_jax.systems.genhmr.model import METRES, normalize_keypoints
from genhmr_jax.systems.genhmr.system import repeat_encoded, sample_bodies

BATCH = 256
DROP = 0.3  # of what the MLP makes of looks, in training
SPEC = views.ViewSpec()
BODY = keypoint_model(load_body())
# Joints with a keypoint of their own, for the question "was it seen?"
LIMBS = {
    n: n
    for n in DETECTED
    if n.split("_")[-1] in ("elbow", "wrist", "knee", "ankle", "shoulder", "hip")
}


class Regressor(nnx.Module):
    """A residual MLP: keypoints, box information (and looks) -> 24 rotations in 6D and shape."""

    def __init__(self, looks: bool, *, rngs: nnx.Rngs):
        self.looks = looks
        if looks:
            self.reduce = nnx.Linear(2 * CHANNELS, 64, rngs=rngs)
            self.gather = nnx.Linear(64 * GRID * GRID, 512, rngs=rngs)
        self.mlp = ResidualMlp(
            6 * len(DETECTED) + 3 + 512 * looks, 768 if looks else 1024, 3, 24 * 6 + 10, rngs=rngs
        )

    def __call__(self, view: dict, key: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Rotations (B, 24, 3, 3) and shape (B, 10). With a key some of what it makes of the looks
        is hidden."""
        turn, crop = camera.upright(view["region"], view["image_size"])
        middle = view["image_size"][:, None] / 2
        points = (view["keypoints"][..., :2] - middle) @ turn[:, :2, :2] + middle
        keypoints = normalize_keypoints(
            jnp.concatenate([points, view["keypoints"][..., 2:]], -1), crop
        )
        box = camera.box_information(crop, view["image_size"], view["focal"])
        parts = [
            keypoints.reshape(len(box), -1),
            box,
            (view["keypoints3d"] @ turn / METRES).reshape(len(box), -1),
        ]
        if self.looks:
            cells = jax.nn.relu(
                self.reduce(self._thinned(jnp.concatenate(view["maps"], -1), key, 0))
            )
            parts.append(
                jax.nn.relu(self.gather(self._thinned(cells.reshape(len(box), -1), key, 1)))
            )
        out = self.mlp(jnp.concatenate(parts, -1))
        identity = jnp.tile(jnp.array([1.0, 0, 0, 0, 1, 0]), 24)
        rotmats = rotations.rot6d_to_matrix((out[:, :144] + identity).reshape(-1, 24, 6), "rows")
        return rotmats.at[:, 0].set(turn @ rotmats[:, 0]), out[:, 144:]

    def _thinned(self, x: jax.Array, key: jax.Array | None, number: int) -> jax.Array:
        keep = 1 - DROP
        return (
            x
            if key is None
            else x * jax.random.bernoulli(jax.random.fold_in(key, number), keep, x.shape) / keep
        )


def prepared(view: dict) -> dict:
    """A view with "region" (the crop, where nobody looked) and, of stored rows with looks,
    "maps"."""
    view = encoders.from_stored(view)
    return {"region": jnp.pad(view["crop"], ((0, 0), (0, 1)))} | view


def errors(joints: jax.Array, view: dict) -> np.ndarray:
    """(2, B): PA-MPJPE and MPJPE in mm."""
    return 1000 * np.stack([pa_mpjpe(joints, view["joints"]), mpjpe(joints, view["joints"])])


def train_mlp(corpus: poses.PoseCorpus, rendered: FeatureSet | None, samples: int):
    """Trains the residual MLP; returns a function view -> joints, and the seconds it took."""
    looks = rendered is not None and rendered.encoder == encoders.LOOK
    graph, state = nnx.split(Regressor(looks, rngs=nnx.Rngs(0)))
    params, steps = nnx.to_pure_dict(state), samples // BATCH
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            optax.warmup_cosine_decay_schedule(0, 1e-3, 200, steps, 1e-5), weight_decay=1e-4
        ),
    )

    def loss(params, view, key):
        rotmats, betas = nnx.merge(graph, params)(view, key)
        joints = smpl_jax.posed_joints(BODY, betas, rotmats)
        gap = jnp.mean(jnp.abs(centred(joints) - centred(view["joints"])))
        return (
            10 * gap
            + 2 * jnp.mean((rotmats - view["rotmats"]) ** 2)
            + 0.05 * jnp.mean((betas - view["betas"]) ** 2)
        )

    @jax.jit
    def step(params, opt_state, pose, number, rows):
        view = views.make_views(BODY, pose, number, jax.random.key(3), SPEC)
        if looks:
            rows, view = prepared(rows), prepared(view)
            view["maps"] = [jnp.zeros_like(m) for m in rows["maps"]]
            view = jax.tree.map(
                lambda a, b: jnp.concatenate([a, b]), view, {name: rows[name] for name in view}
            )
        elif rows:
            keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(5), n))(rows.pop("number"))
            turned = jax.vmap(lambda row, key: turn_row(row, key, TurnSpec()))(rows, keys)
            view = {name: jnp.concatenate([value, turned[name]]) for name, value in view.items()}
        grads = jax.grad(loss)(
            params,
            prepared(view) if not looks else view,
            jax.random.fold_in(jax.random.key(6), number[0]),
        )
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    size = BATCH // 2 if rendered else BATCH
    source, images = (
        poses.PoseSource(corpus, size, 0),
        rendered.source(size, 0) if rendered else None,
    )
    opt_state, start = optimizer.init(params), time.monotonic()
    for i in range(steps):
        numbers = np.arange(i * size, (i + 1) * size)
        batch = source.load(numbers)
        params, opt_state = step(
            params,
            opt_state,
            batch["pose"],
            batch["number"],
            images.load(numbers) if images else {},
        )
        if i == 0:
            jax.block_until_ready(params)
            start = time.monotonic()  # compilation does not count
    jax.block_until_ready(params)

    @jax.jit
    def joints(view):
        view = prepared(view)
        if looks and "maps" not in view:
            view["maps"] = [jnp.zeros((len(view["crop"]), GRID, GRID, CHANNELS))] * 2
        rotmats, betas = nnx.merge(graph, params)(view)
        return smpl_jax.posed_joints(BODY, betas, rotmats)

    return joints, time.monotonic() - start


def genhmr_joints(recoverer: photo.Recoverer, view: dict, iterations: int, rule: str) -> jax.Array:
    """GenHMR's joints from the keypoints of views."""
    return _genhmr(recoverer.networks, recoverer.params, view, jnp.asarray(iterations), rule)


@functools.partial(jax.jit, static_argnames=("networks", "rule"))
def _genhmr(networks, params, view, iterations, rule):
    view = encoders.from_stored(view)
    encoded = networks.encode(params, view)
    keys = jax.random.split(jax.random.key(0), len(view["crop"]))
    _, embeddings = sample_bodies(networks, params, encoded, keys, iterations=iterations, rule=rule)
    return smpl_jax.posed_joints(BODY, encoded.betas, networks.decoder(params, view)(embeddings))


@functools.partial(jax.jit, static_argnames="networks")
def hypothesis_spread(networks, params, view):
    """Standard deviation (B, 24) in mm of pelvis-aligned joints over 8 hypotheses at temperature
    1."""
    batch = len(view["crop"])
    encoded = repeat_encoded(networks.encode(params, view), 8)
    keys = jax.random.split(jax.random.key(1), batch * 8)
    _, embeddings = sample_bodies(
        networks, params, encoded, keys, iterations=5, temperature=1.0, rule="hard"
    )
    joints = centred(
        smpl_jax.posed_joints(BODY, encoded.betas, networks.decode(params, embeddings))
    )
    return 1000 * jnp.sqrt(jnp.sum(jnp.var(joints.reshape(batch, 8, 24, 3), 1), -1))


def _rows(folder: pathlib.Path) -> FeatureSet:
    """Stored rows, with looks if they hold any, and without any other encoder's maps."""
    found = FeatureSet(folder)
    return found if found.encoder == encoders.LOOK else FeatureSet(folder, "none")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Compare ways to lift 2D keypoints.")
    parser.add_argument("--poses", required=True)
    parser.add_argument(
        "--images", type=pathlib.Path, help="feature sets of rendered people, splits train and val"
    )
    parser.add_argument("--checkpoint")
    parser.add_argument("--samples", type=int, default=600_000, help="training samples of the MLP")
    parser.add_argument("--views", type=int, default=2048)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    compilation_cache.enable()
    corpus, val = poses.load_corpus(args.poses, "train"), poses.load_corpus(args.poses, "val")
    count = max(args.views // BATCH, 1)
    chosen = np.linspace(0, len(val.poses) - 1, count * BATCH).astype(int)
    simulate = jax.jit(
        lambda pose, number: views.make_views(BODY, pose, number, jax.random.key(4), SPEC)
    )
    batches = [simulate(val.poses[c], c.astype(np.uint32)) for c in np.split(chosen, count)]
    rendered = (
        {split: _rows(args.images / split) for split in ("train", "val")} if args.images else {}
    )
    groups = {"simulated": [view | {"weight": np.ones(BATCH)} for view in batches]}
    if rendered:
        groups["rendered"] = rendered["val"].all_batches(BATCH)
    table: dict[str, dict[str, float]] = {}

    def add(name: str, joints_of) -> None:
        table[name] = {}
        for group, members in groups.items():
            weights = np.concatenate([view["weight"] for view in members])
            pa, plain = (
                np.concatenate([errors(joints_of(view), view) for view in members], 1)
                @ weights
                / weights.sum()
            )
            table[name] |= {f"{group}_pa_mpjpe_mm": float(pa), f"{group}_mpjpe_mm": float(plain)}
        print(
            f"| {name} | " + " | ".join(f"{value:.1f}" for value in table[name].values()) + " |",
            flush=True,
        )

    print(
        f"| {count * BATCH} simulated views of unseen subjects{', then rendered ones' if rendered else ''} |"
        + " PA-MPJPE | MPJPE |" * len(groups)
    )
    print("|---|" + "---|---|" * len(groups))
    # The mean pose is shown facing the camera: without the root's true turn, no constant does
    # better in MPJPE.
    train_views = simulate(
        corpus.poses[corpus.draw(np.arange(BATCH), 0)], np.arange(BATCH, dtype=np.uint32)
    )
    mean_rot = rotations.rot6d_to_matrix(
        jnp.mean(rotations.matrix_to_rot6d(train_views["rotmats"], "rows"), 0), "rows"
    )
    mean_rot = mean_rot.at[0].set(views.TO_CAMERA)
    mean_joints = smpl_jax.posed_joints(BODY, jnp.zeros(10), mean_rot)
    add("mean pose", lambda view: jnp.broadcast_to(mean_joints, view["joints"].shape))
    mlp, seconds = train_mlp(corpus, rendered.get("train"), args.samples)
    add(f"residual MLP, {args.samples:,} samples, {seconds:.0f} s", mlp)
    recoverer = photo.load(args.checkpoint)
    for rule, iterations in (
        ("expected", 1),
        ("expected", 2),
        ("expected", 5),
        ("expected", 10),
        ("hard", 1),
        ("hard", 5),
        ("hard", 10),
    ):
        add(
            f"GenHMR, {rule}, T={iterations}",
            lambda view, t=iterations, r=rule: genhmr_joints(recoverer, view, t, r),
        )

    names = list(smpl_jax.keypoints.SMPL24)
    joints, points = [names.index(n) for n in LIMBS], [DETECTED.index(n) for n in LIMBS]
    spread = np.concatenate(
        [
            np.asarray(hypothesis_spread(recoverer.networks, recoverer.params, v))[:, joints]
            for v in batches[:2]
        ]
    )
    hidden = np.concatenate(
        [np.asarray(v["keypoints"])[:, points, 2] < MIN_CONFIDENCE for v in batches[:2]]
    )
    table["spread of 8 hypotheses, mm"] = {
        "seen": float(spread[~hidden].mean()),
        "hidden": float(spread[hidden].mean()),
    }
    print(
        f"\nspread of 8 hypotheses: {spread[~hidden].mean():.1f} mm where the keypoint was seen, {spread[hidden].mean():.1f} where hidden"
    )
    if args.out:
        args.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
