"""The fields of every config: how training runs, and the optimiser (docs/training.md).

Of `runtime` only `precision`, `drop_path` and `lora` change the loss curve: a run may be resumed
with other values of the other fields.
"""

import ml_collections


def runtime() -> ml_collections.ConfigDict:
    """mesh, precision, remat, accumulate, drop_path, lora, input, log, keep."""
    c = ml_collections.ConfigDict()
    # Devices along each axis; -1 takes the remaining ones. The batch is split over data x fsdp,
    # parameters over fsdp and tensor.
    c.mesh = ml_collections.ConfigDict()
    c.mesh.data = -1
    c.mesh.fsdp = 1
    c.mesh.tensor = 1
    # Arrays of fewer elements are replicated: gathering them costs more time than they take memory.
    c.mesh.fsdp_min_size = 65536
    # ((pattern, (axis or None for each of the last dimensions)), ...), before train/mesh.py:RULES.
    c.sharding_rules = ()
    # Of the computation: float32 or bfloat16. Parameters, optimiser, losses and softmax are always
    # float32.
    c.precision = "float32"
    c.remat = "none"  # or "blocks": recompute each transformer block in the backward pass
    c.accumulate = 1  # micro-batches of a batch
    c.drop_path = 0.0  # stochastic depth of the ViT: the rate of its last block
    # Low-rank arrays beside the kernels that match the pattern, which are frozen (train/lora.py).
    c.lora = ml_collections.ConfigDict()
    c.lora.rank = 0  # 0: no such arrays
    c.lora.alpha = 16.0
    c.lora.pattern = r"encoder/blocks/(qkv|proj|fc1|fc2)/kernel"
    c.input = ml_collections.ConfigDict()
    c.input.threads = 4  # that load rows
    c.input.prefetch = 2  # batches kept ahead on the device
    c.log = ml_collections.ConfigDict()
    c.log.tensorboard = False
    c.log.wandb = ""  # name of a project
    c.keep = 2  # checkpoints to keep
    return c


def optimizer() -> ml_collections.ConfigDict:
    """AdamW, and the differences between parameters (train/optim.py)."""
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
    # The learning rate of a block of the ViT encoder over that of the next block.
    c.layer_decay = 1.0
    c.frozen = ()  # patterns of the paths of frozen parameters
    # How many of the ViT encoder's last layers are trained, with its final norm; -1: all.
    c.encoder_layers = -1
    return c
