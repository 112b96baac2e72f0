"""The tokenizer of hands: tokens for the wrist and for each finger, 29 tokens x 512 codes.

6 minutes on 2 CPU cores:

    genhmr data hand-poses --out hand_poses.npz
    python -m genhmr_jax.main --config=configs/tokenizer/hand.py --workdir=runs/hand_tokenizer \\
        --config.data.poses=hand_poses.npz
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.steps = 16_000
    c.model.skeleton = "hand"
    c.model.part_tokens = (8, 4, 4, 4, 4, 5)  # wrist, index, middle, little, ring finger, thumb
    c.model.codebook_size = 512
    c.model.code_dim = 8
    c.model.width = 96
    c.data.poses = "hand_poses.npz"
    c.data.body = "free"
    # Overrides of data/hands/views.py:HandViewSpec.
    c.data.view = ml_collections.ConfigDict()
    c.data.view.pose_noise = 0.03  # radians, added to each finger joint
    # Hands are a tenth as large as bodies: the same errors in metres weigh a hundredth.
    c.loss.vertices = 10_000.0
    c.loss.joints = 10_000.0
    return c
