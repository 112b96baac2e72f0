"""The first stage with the paper's schedule, from the three maps of a frozen image network.

The paper trains HRNet-W48 for 40 epochs, whose place is taken by any frozen encoder of
core/encoders.py; the rows are made with `python -m genhmr_jax.data.features --encoder NAME`. The
matrix from points to vertices depends on the confidences, as in VirtualMarker.

    python -m genhmr_jax.main --config=configs/mesh2d/paper.py --workdir=runs/mesh2d_paper \\
        --config.data.poses=amass.npz --config.data.images=runs/features
"""

import ml_collections

from genhmr_jax.io.config_files import start_from


def get_config() -> ml_collections.ConfigDict:
    c = start_from(__file__, "base.py")
    c.batch_size = 0
    c.image_batch_size = 32  # 8 on each of 4 GPUs, as in VirtualMarker's configs
    c.steps = 400000  # 40 epochs of about 320,000 images
    c.evaluate_every = 10000
    c.checkpoint_every = 5000
    c.model.encoder = "blazepose_full"
    c.model.encoder_channels = (80, 136, 288)
    c.model.cell_width = 32
    c.model.width = 1024
    c.model.point_width = 32
    c.model.adaptive = True
    c.loss.points = 100.0
    c.loss.mesh = 1.0
    c.loss.silhouette = 10.0
    c.optim.learning_rate = 5e-4
    c.optim.warmup = 0
    c.optim.weight_decay = 0.0
    return c
