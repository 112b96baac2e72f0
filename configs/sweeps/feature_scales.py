"""At which scales the image features are read (the paper: x4, x2, x1).

They are the levels of the pyramid over the encoder's last map.

    genhmr sweep --sweep=configs/sweeps/feature_scales.py --out=runs/scales \\
        --set data.images=runs/features_vit --set data.poses=amass.npz

Argument: `full` (an image-only ViT-B, on rows of `python -m genhmr_jax.data.features --encoder
vit_b`), `blazepose` (a pyramid over the last map of the frozen BlazePose, on rows of `--encoder
blazepose_full`: no encoder is trained), or `tiny` (the same on a few images rendered on the spot).
"""

from genhmr_jax.evaluate.sweep.definition import GENHMR, ImageSet, Point, Sweep, tiny

SCALES = {
    "x1": (1.0,),
    "x2": (2.0,),
    "x4": (4.0,),
    "x2 x1": (2.0, 1.0),
    "x4 x2 x1": (4.0, 2.0, 1.0),
    "x4 x2 x1 x0.5": (4.0, 2.0, 1.0, 0.5),
}
BLAZEPOSE = {
    "model.encoder_channels": (80, 136, 288),
    "model.pyramid": "simple",
    "masking.drop_keypoints": 0.3,
}


def get_sweep(arg: str = "full") -> Sweep:
    def points(names):
        return [
            Point(name, name, {"genhmr": {"model.pyramid_scales": SCALES[name]}}) for name in names
        ]

    if arg == "full":
        stored = {"data.people": "", "data.people_val": ""}  # features, not photos
        configs = GENHMR | {"genhmr": "genhmr/vit.py:b"}
        return Sweep("scales", points(SCALES), configs=configs, overrides={"genhmr": stored})
    if arg == "blazepose":
        configs = GENHMR | {"genhmr": "genhmr/keypoints_and_blazepose_maps.py"}
        return Sweep("scales", points(SCALES), configs=configs, overrides={"genhmr": BLAZEPOSE})
    if arg == "tiny":
        few = {**BLAZEPOSE, "batch_size": 0, "image_batch_size": 4}
        images = ImageSet(6, 4, "blazepose_full")
        return tiny("scales", points(("x1", "x2 x1")), overrides={"genhmr": few}, images=images)
    raise ValueError("choose full, blazepose or tiny")
