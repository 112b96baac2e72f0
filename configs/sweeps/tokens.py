"""How many tokens a pose has: 24 .. 192 of the convolutional tokenizer (the paper: 96).

    genhmr sweep --sweep=configs/sweeps/tokens.py --out=runs/tokens --set data.poses=cmu_poses.npz

Argument: `full` (the tokenizer of the paper's design, 64 wide), `parts` (the shipped tokenizer's
design, with 1 .. 10 tokens for each body part), `small` (the same with trainings of a minute or two
on 2 CPU cores), or `tiny` (seconds, on made-up poses).
"""

from genhmr_jax.evaluate.sweep.definition import Point, Sweep, tiny

SHORT = {
    "optim.warmup": 50,
    "optim.ema_decay": 0.99,
    "log_every": 50,
    "checkpoint_every": 100,
}
SMALL = {
    "tokenizer": {
        **SHORT,
        "steps": 400,
        "evaluate_every": 400,
        "evaluate_poses": 1024,
    },
    "genhmr": {
        **SHORT,
        "batch_size": 64,
        "steps": 500,
        "evaluate_every": 500,
        "evaluate_poses": 256,
        "model.transformer.width": 96,
        "model.transformer.layers": 2,
        "model.transformer.heads": 4,
        "model.context_width": 256,
    },
    "evaluate": {
        "views": 256,
        "refine_steps": 10,
    },
}


def get_sweep(arg: str = "full") -> Sweep:
    def points(lengths):
        return [Point(f"{n}", n, {"tokenizer": {"model.num_tokens": n}}) for n in lengths]

    if arg == "full":
        conv = {"tokenizer": {"model.arch": "conv", "model.width": 64}}
        return Sweep("tokens", points((24, 48, 96, 144, 192)), log_axis=True, overrides=conv)
    if arg in ("parts", "small"):
        parts = [
            Point(f"{6 * n}", 6 * n, {"tokenizer": {"model.part_tokens": (n,) * 6}})
            for n in (1, 2, 3, 5, 8, 10)
        ]
        return Sweep("tokens", parts, log_axis=True, overrides=SMALL if arg == "small" else {})
    if arg == "tiny":
        conv = {"tokenizer": {"model.arch": "conv", "model.width": 16}}
        return tiny("tokens", points((24, 48)), overrides=conv, log_axis=True)
    raise ValueError("choose full, parts, small or tiny")
