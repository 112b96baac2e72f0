"""Files of bodies and motions for other programs.

This file has no heavy imports, because command lines list CLIP_FORMATS.
"""

from typing import NamedTuple


class ClipFormat(NamedTuple):
    """A format of a clip.

    Attributes:
      suffix: end of the file name, after STEM or STEM_NUMBER.
      per_person: whether each person has a file of its own, STEM_NUMBER + suffix.
      about: one line for a command's help.
    """

    suffix: str
    per_person: bool
    about: str


CLIP_FORMATS = {
    "glb": ClipFormat(".glb", False, "animated skinned bodies, glTF 2.0: Blender, game engines"),
    "usd": ClipFormat(".usda", False, "the same as USD text: Omniverse, Maya, Houdini, Blender"),
    "bvh": ClipFormat(".bvh", True, "skeleton motion in metres: Blender"),
    "bvh_cm": ClipFormat("_cm.bvh", True, "skeleton motion in centimetres: MotionBuilder, Maya"),
    "amass": ClipFormat("_amass.npz", True, "SMPL-H poses as AMASS stores them, z up"),
    "csv": ClipFormat(".csv", False, "a row for each frame and person: 3D joints, metres"),
    "coco": ClipFormat("_coco.json", False, "2D keypoints, boxes and identities as COCO JSON"),
}
"""The formats of a clip by the name that a command line takes."""
