"""How often training hides the keypoints, or the image: one model shall serve with both, with the image alone, with keypoints alone.

    genhmr sweep --sweep=configs/sweeps/context_dropout.py --out=runs/dropout --set data.images=runs/features --set data.poses=cmu_poses.npz

The table shows each point with all three. Args: `full` (BlazePose's maps), `tiny` (a few images rendered on the spot).
"""

from genhmr_jax.evaluate.sweep.definition import ImageSet, Point, Sweep, tiny

PAIRS = ((0.0, 0.0), (0.1, 0.1), (0.3, 0.1), (0.1, 0.3), (0.3, 0.3), (0.5, 0.5))  # keypoints, image


def get_sweep(arg: str = "full") -> Sweep:
    def points(pairs):
        names = [f"{keypoints:g} / {image:g}" for keypoints, image in pairs]
        drops = [{"masking.drop_keypoints": keypoints, "masking.drop_image": image} for keypoints, image in pairs]
        return [Point(name, name, genhmr=drop) for name, drop in zip(names, drops, strict=True)]

    axis = "keypoints / image hidden"
    if arg == "full":
        return Sweep(axis, points(PAIRS), genhmr_config="genhmr.py:images")
    if arg == "tiny":
        sweep = tiny(axis, points(PAIRS[1:3]), images=ImageSet(6, 4, "blazepose_full"))
        few = {"model.encoder_channels": (80, 136, 288), "batch_size": 0, "image_batch_size": 4}
        return Sweep(**vars(sweep) | {"genhmr": {**sweep.genhmr, **few}})
    raise ValueError("choose full or tiny")
