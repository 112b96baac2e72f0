"""How many tokens are masked.

The law of the ratio in training, and of the share that stays masked after each iteration of
sampling.

    genhmr sweep --sweep=configs/sweeps/mask_schedule.py --out=runs/mask_schedule \\
        --set data.poses=cmu_poses.npz

Argument: `full` (each law in training and sampling, and MaskGIT's least ratio of a half),
`training` (the law of training alone, sampled with the cosine), `sampling` (one model, sampled with
each law), or `tiny`.
"""

from genhmr_jax.evaluate.sweep.definition import Point, Sweep, tiny

LAWS = ("cosine", "linear", "square", "cubic", "sqrt")


def get_sweep(arg: str = "full") -> Sweep:
    def train(law):
        return {"genhmr": {"masking.schedule": law}}

    def sample(law):
        return {"evaluate": {"schedule": law}}

    both = [Point(law, law, train(law) | sample(law)) for law in LAWS]
    if arg == "full":
        name = "cosine, half masked"
        half = Point(name, name, {"genhmr": {"masking.min_ratio": 0.5}})
        return Sweep("law", [*both, half])
    if arg == "training":
        return Sweep("law in training", [Point(law, law, train(law)) for law in LAWS])
    if arg == "sampling":
        return Sweep("law in sampling", [Point(law, law, sample(law)) for law in LAWS])
    if arg == "tiny":
        return tiny("law", both[:2])
    raise ValueError("choose full, training, sampling or tiny")
