"""Every field of the tokenizer of hands, with the values of `cpu.py`.

A recipe starts from this file and overrides what differs.
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "../tokenizer/base.py")
    c.steps = 16_000
    c.model.skeleton = "hand"
    c.model.part_tokens = (8, 4, 4, 4, 4, 5)  # wrist, index, middle, little, ring finger, thumb
    c.model.codebook_size = 512
    c.model.code_dim = 8
    c.model.width = 96
    c.data.poses = "hand_poses.npz"  # of `genhmr data hand-poses`
    c.data.body = "free"  # or the path of MANO_RIGHT.pkl
    # Overrides of data/hands/views.py:HandViewSpec.
    c.data.view = ml_collections.ConfigDict()
    c.data.view.pose_noise = 0.03  # radians, added to each finger joint
    # Hands are a tenth as large as bodies: the same errors in metres weigh a hundredth.
    c.loss.vertices = 10_000.0
    c.loss.joints = 10_000.0
    return c
