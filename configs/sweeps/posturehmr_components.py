"""The parts of PostureHMR, added one after another, from a baseline that starts from noise.

A part that changes only the decoder shares the first stage with the points before it.

    genhmr sweep --sweep=configs/sweeps/posturehmr_components.py --out=runs/components \\
        --set data.poses=cmu_poses.npz --set data.images=runs/detections

Argument: `full` (the recipes for 2 CPU cores), or `tiny` (tiny models on made-up poses).
"""

from genhmr_jax.evaluate.sweep.definition import Point, Sweep, tiny

CONFIGS = {"mesh2d": "mesh2d/cpu.py", "posturehmr": "posturehmr/cpu.py"}
DECODERS = {
    "noise baseline": ("noise", "global"),
    "+ vertex-linear": ("linear", "global"),
    "+ FK": ("kinematic", "global"),
    "+ 2D mesh": ("kinematic", "mesh2d"),
    "+ trimap": ("kinematic", "mesh2d"),
    "2D mesh, without FK": ("linear", "mesh2d"),
}


def get_sweep(arg: str = "full") -> Sweep:
    def point(name):
        process, condition = DECODERS[name]
        return Point(
            name,
            name,
            {
                "mesh2d": {"loss.silhouette": 10.0 if name == "+ trimap" else 0.0},
                "posturehmr": {"model.process": process, "model.condition": condition},
            },
        )

    points = [point(name) for name in DECODERS]
    if arg == "full":
        return Sweep("components", points, configs=CONFIGS)
    if arg == "tiny":
        return tiny("components", points, stages=tuple(CONFIGS))
    raise ValueError("choose full or tiny")
