"""2D meshes from detected keypoints and the detector's maps: the recipe of the shipped model.

docs/training.md has the commands that make runs/detections.

    python -m genhmr_jax.main --config=configs/mesh2d/cpu.py --workdir=runs/mesh2d \\
        --config.data.poses=cmu_poses.npz
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    return start_from(__file__, "base.py")
