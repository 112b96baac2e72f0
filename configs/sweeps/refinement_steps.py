"""Steps of the 2D refinement: 0 .. 20. The default of `genhmr recover` is 10.

One model is evaluated at each point; without --checkpoint it is trained first.

    genhmr sweep --sweep=configs/sweeps/refinement_steps.py --out=runs/refinement \\
        --set data.poses=cmu_poses.npz --checkpoint=default

Argument: `full`, or `tiny` (a tiny model on made-up poses).
"""

from genhmr_jax.evaluate.sweep.definition import Point, Sweep, tiny


def get_sweep(arg: str = "full") -> Sweep:
    def points(counts):
        return [Point(f"{n}", n, {"evaluate": {"refine_steps": n}}) for n in counts]

    if arg == "full":
        return Sweep("refinement steps", points((0, 1, 2, 3, 5, 7, 10, 15, 20)))
    if arg == "tiny":
        return tiny("refinement steps", points((0, 3)))
    raise ValueError("choose full or tiny")
