"""The fields that say how a training runs, not what it computes: the same in every config (docs/training.md describes each).

None of them changes the loss curve but `precision`, `drop_path` and `lora`; a run may be resumed under other values of all the rest.
"""

import ml_collections


def runtime() -> ml_collections.ConfigDict:
    """mesh, precision, remat, accumulate, drop_path, lora, input, log, keep."""
    c = ml_collections.ConfigDict()
    # Devices along each axis; -1 takes what is left. The batch is split over data x fsdp, parameters over fsdp and tensor. Arrays of fewer
    # elements than fsdp_min_size stay whole on every device: gathering them costs more than they weigh.
    c.mesh = ml_collections.ConfigDict({"data": -1, "fsdp": 1, "tensor": 1, "fsdp_min_size": 65536})
    c.sharding_rules = ()  # ((pattern, (axis or None for each of the last dimensions)), ...), tried before train/mesh.py:RULES
    c.precision = "float32"  # or "bfloat16": of the computation; parameters, optimiser, losses and softmax stay float32
    c.remat = "none"  # or "blocks": recompute each transformer block in the backward pass
    c.accumulate = 1  # micro-batches that a batch is computed in
    c.drop_path = 0.0  # stochastic depth of the ViT, the last block's rate
    # Low-rank arrays beside the kernels that the pattern matches, which stay as they are (train/lora.py); rank 0 is none.
    c.lora = ml_collections.ConfigDict({"rank": 0, "alpha": 16.0, "pattern": r"encoder/blocks/(qkv|proj|fc1|fc2)/kernel"})
    c.input = ml_collections.ConfigDict({"threads": 4, "prefetch": 2})
    c.log = ml_collections.ConfigDict({"tensorboard": False, "wandb": ""})
    c.keep = 2  # checkpoints to keep
    return c


def optimizer() -> ml_collections.ConfigDict:
    """AdamW and what differs between parameters; train/optim.py."""
    c = ml_collections.ConfigDict({"learning_rate": 1e-3, "warmup": 500, "final": 0.01, "b1": 0.9, "b2": 0.99})
    c.weight_decay, c.clip_norm, c.ema_decay = 1e-5, 1.0, 0.999
    c.groups = ()  # ((pattern of parameter paths, multiplier of the learning rate), ...): the first that matches
    c.layer_decay = 1.0  # of the ViT encoder: each block learns this much slower than the one after it
    c.frozen = ()  # patterns of parameters that stay as they are
    c.encoder_layers = -1  # so many of the ViT encoder's last layers learn, and its final norm; -1: all of it
    return c
