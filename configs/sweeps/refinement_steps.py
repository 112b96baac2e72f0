"""Steps of the 2D refinement: 0 .. 50, and the default of `genhmr recover`.

One model is evaluated at each point; without --checkpoint it is trained first.

    genhmr sweep --sweep=configs/sweeps/refinement_steps.py --out=runs/refinement \\
        --set data.poses=cmu_poses.npz --checkpoint=default

Argument: `full`, or `tiny` (a tiny model on made-up poses).
"""

from genhmr_jax.evaluate.sweep.definition import Point, Sweep, tiny


def get_sweep(arg: str = "full") -> Sweep:
    def points(counts):
        return [Point(f"{n}", n, evaluate={"refine_steps": n}) for n in counts]

    if arg == "full":
        return Sweep("refinement steps", points((0, 5, 10, 20, 30, 40, 50, 100)))
    if arg == "tiny":
        return tiny("refinement steps", points((0, 3)))
    raise ValueError("choose full or tiny")
