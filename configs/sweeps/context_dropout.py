"""How often training hides the keypoints, or the image.

One model is evaluated with both, with the image alone and with keypoints alone; the table has all
three for each point.

    genhmr sweep --sweep=configs/sweeps/context_dropout.py --out=runs/dropout \\
        --set data.images=runs/maps --set data.poses=cmu_poses.npz

Argument: `full` (BlazePose's maps), or `tiny` (a few images rendered on the spot).
"""

from genhmr_jax.evaluate.sweep.definition import GENHMR, ImageSet, Point, Sweep, tiny

PAIRS = ((0.0, 0.0), (0.1, 0.1), (0.3, 0.1), (0.1, 0.3), (0.3, 0.3), (0.5, 0.5))  # keypoints, image


def get_sweep(arg: str = "full") -> Sweep:
    def points(pairs):
        names = [f"{keypoints:g} / {image:g}" for keypoints, image in pairs]
        drops = [
            {"masking.drop_keypoints": keypoints, "masking.drop_image": image}
            for keypoints, image in pairs
        ]
        return [
            Point(name, name, {"genhmr": drop}) for name, drop in zip(names, drops, strict=True)
        ]

    axis = "keypoints / image hidden"
    if arg == "full":
        configs = GENHMR | {"genhmr": "genhmr/keypoints_and_blazepose_maps.py"}
        return Sweep(axis, points(PAIRS), configs=configs)
    if arg == "tiny":
        few = {
            "model.encoder_channels": (80, 136, 288),
            "batch_size": 0,
            "image_batch_size": 4,
        }
        images = ImageSet(6, 4, "blazepose_full")
        return tiny(axis, points(PAIRS[1:3]), overrides={"genhmr": few}, images=images)
    raise ValueError("choose full or tiny")
