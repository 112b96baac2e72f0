"""The shipped lifter: 3D keypoints of our body from BlazePose's outputs, on rendered people.

docs/training.md has the commands that make runs/lifter_rows. The model of the run is what
genhmr_jax/assets/lifter holds. Forty minutes on 2 CPU cores:

    python -m genhmr_jax.main --config=configs/lifter/rendered_people.py --workdir=runs/lifter
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    return start_from(__file__, "base.py")
