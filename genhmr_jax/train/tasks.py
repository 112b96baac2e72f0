"""Which task a config's `stage` names."""

import ml_collections


def make_task(config: ml_collections.ConfigDict):
    """The training task of `config.stage`: "tokenizer" or "genhmr"."""
    if config.stage == "tokenizer":
        from genhmr_jax.train.stage1 import TokenizerTask

        return TokenizerTask(config)
    if config.stage == "genhmr":
        from genhmr_jax.train.stage2 import GenHmrTask

        return GenHmrTask(config)
    raise ValueError(f"config.stage is {config.stage!r}: it must be 'tokenizer' or 'genhmr'")
