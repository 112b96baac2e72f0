"""The fields of every config: how training runs, and the optimiser (docs/training.md).

Only `precision`, `drop_path` and `lora` of `runtime` change the loss curve. A run may be resumed
with other values of the other fields.
"""

import dataclasses
from typing import Any

import ml_collections

# The fields that determine the loss curve. All others (mesh, processes, micro-batches, logging) may
# differ between a run and its resumption, and between the points of a sweep.
IDENTITY = (
    "stage", "seed", "batch_size", "image_batch_size", "model", "data", "masking", "loss", "optim",
    "steps", "precision", "drop_path", "lora", "training", "silhouette",
)  # fmt: skip


def fields_of(spec: Any) -> ml_collections.ConfigDict:
    """The fields of a dataclass as a group of a config, so that each of them can be set."""
    return ml_collections.ConfigDict(dataclasses.asdict(spec))


def runtime() -> ml_collections.ConfigDict:
    """The fields of the run itself: devices, precision, memory, input, logs, checkpoints."""
    c = ml_collections.ConfigDict()
    # Devices along each axis; -1 takes the remaining ones. The batch is split over fsdp x data,
    # parameters over fsdp and tensor.
    c.mesh = ml_collections.ConfigDict()
    c.mesh.data = -1
    c.mesh.fsdp = 1
    c.mesh.tensor = 1
    # Arrays of fewer elements are replicated: the time to gather them matters more than memory.
    c.mesh.fsdp_min_size = 65536
    # ((pattern, (axis or None for each of the last dimensions)), ...), which take precedence over
    # train/mesh.py:RULES.
    c.sharding_rules = ()
    # Of the computation: float32 or bfloat16. Parameters, optimiser, losses and softmax are always
    # float32.
    c.precision = "float32"
    c.remat = "none"  # or "products", "blocks": compute again in the backward pass (nets/remat.py)
    c.accumulate = 1  # micro-batches of a batch
    c.drop_path = 0.0  # stochastic depth of the ViT: the rate of its last block
    # Low-rank arrays for the kernels that match the pattern; these are frozen (train/lora.py).
    c.lora = ml_collections.ConfigDict()
    c.lora.rank = 0  # 0: no such arrays
    c.lora.alpha = 16.0
    c.lora.pattern = r"encoder/blocks/(qkv|proj|fc1|fc2)/kernel"
    c.input = ml_collections.ConfigDict()
    c.input.threads = 4  # number of threads that load rows
    c.input.prefetch = 2  # batches kept ahead on the device
    c.log = ml_collections.ConfigDict()
    c.log.tensorboard = False
    c.log.wandb = ""  # name of a project
    c.keep = 2  # checkpoints to keep
    # Seconds that a step, an evaluation or a save may take before the run ends, see
    # train/watchdog.py; 0: no limit. The first step and the first evaluation compile.
    c.hang_after = 3600.0
    return c


def optimizer() -> ml_collections.ConfigDict:
    """The fields of the optimiser, AdamW (train/optim.py)."""
    c = ml_collections.ConfigDict()
    c.learning_rate = 1e-3
    c.warmup = 500  # steps
    c.final = 0.01  # the cosine ends at this share of the learning rate
    c.b1 = 0.9
    c.b2 = 0.99
    c.weight_decay = 1e-5
    c.clip_norm = 1.0
    c.ema_decay = 0.999  # of the moving average of the parameters, which is exported
    # ((pattern of parameter paths, multiplier of the learning rate), ...): the first that matches.
    c.groups = ()
    # Ratio of the learning rates of a block of the ViT encoder and of the next block.
    c.layer_decay = 1.0
    c.frozen = ()  # patterns of paths: these parameters are not trained
    # The number of the ViT encoder's last layers that are trained, with its final norm; -1: all.
    c.encoder_layers = -1
    return c
