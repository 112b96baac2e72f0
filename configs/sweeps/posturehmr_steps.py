"""Steps T of PostureHMR from the template to the person: 1 .. 20 (the paper: 10).

One model is evaluated at each point; without --checkpoint it is trained first.

    genhmr sweep --sweep=configs/sweeps/posturehmr_steps.py --out=runs/steps \\
        --set data.poses=cmu_poses.npz --set data.images=runs/detections \\
        --checkpoint=runs/posturehmr/model

Argument: `full` (a model that was trained with 10 steps runs with T), `trained` (a decoder is
trained for each T), or `tiny` (a tiny model on made-up poses).
"""

from genhmr_jax.evaluate.sweep.definition import Point, Sweep, tiny

CONFIGS = {"mesh2d": "mesh2d/cpu.py", "posturehmr": "posturehmr/cpu.py"}
STEPS = (1, 2, 5, 10, 20)


def get_sweep(arg: str = "full") -> Sweep:
    def points(counts):
        return [Point(f"{n}", n, {"evaluate": {"iterations": n}}) for n in counts]

    def trained(n):
        # A row has at most T steps to train. It is evaluated with T, the default of its model.
        return {"model.steps": n, "training.steps_per_sample": min(4, n)}

    if arg == "full":
        return Sweep("steps", points(STEPS), configs=CONFIGS)
    if arg == "trained":
        decoders = [Point(f"{n}", n, {"posturehmr": trained(n)}) for n in STEPS]
        return Sweep("steps in training", decoders, configs=CONFIGS)
    if arg == "tiny":
        return tiny("steps", points((1, 3)), stages=tuple(CONFIGS))
    raise ValueError("choose full, trained or tiny")
