"""The shipped lifter of hands: corrected keypoints and a better map, on rendered hands.

docs/systems/maskhand.md has the commands that make runs/hand_lifter_rows. The model of the run is
what genhmr_jax/assets/hand_lifter holds:

    python -m genhmr_jax.main --config=configs/hand_lifter/rendered_hands.py \\
        --workdir=runs/hand_lifter
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    return start_from(__file__, "base.py")
