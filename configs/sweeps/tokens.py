"""How many tokens a pose is: 24 .. 192 of the convolutional tokenizer (the paper: 96).

    genhmr sweep --sweep=configs/sweeps/tokens.py --out=runs/tokens --set data.poses=cmu_poses.npz

Args: `full` (the tokenizer of the paper's design, 64 wide), `parts` (the default tokenizer, with 1 .. 8 tokens for each body part; much
faster on a CPU), `tiny` (seconds a point, on made-up poses).
"""

from genhmr_jax.sweep import Point, Sweep, tiny


def get_sweep(arg: str = "full") -> Sweep:
    def points(lengths):
        return [Point(f"{n}", n, tokenizer={"model.num_tokens": n}) for n in lengths]

    conv = {"model.arch": "conv", "model.width": 64}
    if arg == "full":
        return Sweep("tokens", points((24, 48, 96, 144, 192)), log_axis=True, tokenizer=conv)
    if arg == "parts":
        parts = [Point(f"{6 * n}", 6 * n, tokenizer={"model.part_tokens": (n,) * 6}) for n in (1, 2, 3, 5, 8)]
        return Sweep("tokens", parts, log_axis=True)
    if arg == "tiny":
        sweep = tiny("tokens", points((24, 48)), log_axis=True)
        return Sweep(**vars(sweep) | {"tokenizer": {**sweep.tokenizer, "model.arch": "conv", "model.width": 16}})
    raise ValueError("choose full, parts or tiny")
