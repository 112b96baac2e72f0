"""How the losses of the body reach the logits in training.

Not at all, by expected embeddings, or by straight-through Gumbel-softmax.

    genhmr sweep --sweep=configs/sweeps/differentiable_sampling.py --out=runs/differentiable \\
        --set data.poses=cmu_poses.npz

Argument: `full` (codes are decoded, as in the paper), or `tiny` (a tiny model on made-up poses).
"""

from genhmr_jax.evaluate.sweep.definition import Point, Sweep, tiny


def get_sweep(arg: str = "full") -> Sweep:
    points = [
        Point(name, name, {"genhmr": {"loss.differentiable_sampling": name}})
        for name in ("none", "expected", "straight_through")
    ]
    if arg == "full":
        return Sweep("differentiable sampling", points, overrides={"evaluate": {"rule": "hard"}})
    if arg == "tiny":
        return tiny("differentiable sampling", points)
    raise ValueError("choose full or tiny")
