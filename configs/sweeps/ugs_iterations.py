"""Iterations of uncertainty-guided sampling: 1 .. 20 (the paper: 5).

One model is evaluated at each point; without --checkpoint it is trained first.

    genhmr sweep --sweep=configs/sweeps/ugs_iterations.py --out=runs/ugs \\
        --set data.poses=cmu_poses.npz --checkpoint=default

Argument: `full` (codes are decoded, as in the paper), `expected` (expected embeddings are, as in
`genhmr recover`), or `tiny` (a tiny model on made-up poses).
"""

from genhmr_jax.evaluate.sweep.definition import Point, Sweep, tiny


def get_sweep(arg: str = "full") -> Sweep:
    def points(counts):
        return [Point(f"{n}", n, {"evaluate": {"iterations": n}}) for n in counts]

    if arg in ("full", "expected"):
        rule = {"evaluate": {"rule": "hard" if arg == "full" else "auto"}}
        return Sweep("iterations", points((1, 2, 3, 5, 7, 10, 15, 20)), overrides=rule)
    if arg == "tiny":
        return tiny("iterations", points((1, 3)))
    raise ValueError("choose full, expected or tiny")
