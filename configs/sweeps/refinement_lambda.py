"""lambda of the 2D refinement: the weight that keeps the pose near the sampled one.

One model is evaluated at each point; without --checkpoint it is trained first.

    genhmr sweep --sweep=configs/sweeps/refinement_lambda.py --out=runs/lambda \\
        --set data.poses=cmu_poses.npz --checkpoint=default

Argument: `full`, or `tiny` (a tiny model on made-up poses).
"""

from genhmr_jax.evaluate.sweep.definition import Point, Sweep, tiny


def get_sweep(arg: str = "full") -> Sweep:
    def points(values):
        return [Point(f"{value:g}", value, {"evaluate": {"prior_pose": value}}) for value in values]

    if arg == "full":
        return Sweep(
            "lambda", points((0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)), log_axis=True
        )
    if arg == "tiny":
        return tiny("lambda", points((0.001, 0.01)), log_axis=True)
    raise ValueError("choose full or tiny")
