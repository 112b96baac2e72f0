"""How many codes the tokenizer has: 512 .. 4096 (the paper: 2048).

Both stages are trained for each point.

    genhmr sweep --sweep=configs/sweeps/codebook_size.py --out=runs/codebook_size \\
        --set data.poses=cmu_poses.npz

Argument: `full`, or `tiny` (seconds a point, on made-up poses).
"""

from genhmr_jax.evaluate.sweep.definition import Point, Sweep, tiny


def get_sweep(arg: str = "full") -> Sweep:
    def points(sizes):
        return [Point(f"{n}", n, {"tokenizer": {"model.codebook_size": n}}) for n in sizes]

    if arg == "full":
        return Sweep("codes", points((512, 1024, 2048, 3072, 4096)), log_axis=True)
    if arg == "tiny":
        return tiny("codes", points((16, 32)), log_axis=True)
    raise ValueError("choose full or tiny")
