"""Which system a config or a model folder names."""

import ml_collections

from genhmr_jax.io.errors import InputError
from genhmr_jax.train.lora import adapted
from genhmr_jax.train.task import Task


def make_task(config: ml_collections.ConfigDict) -> Task:
    """The training task of `config.stage`: "tokenizer", "genhmr", "regressor" or "lifter"."""
    if config.stage == "tokenizer":
        from genhmr_jax.systems.tokenizer.task import TokenizerTask

        return adapted(TokenizerTask(config), config)
    if config.stage == "genhmr":
        from genhmr_jax.systems.genhmr.task import GenHmrTask

        return adapted(GenHmrTask.from_model(config), config)
    if config.stage == "regressor":
        from genhmr_jax.systems.regressors.task import RegressorTask

        return adapted(RegressorTask.from_models(config), config)
    if config.stage == "lifter":
        from genhmr_jax.systems.lifter.task import LifterTask

        return adapted(LifterTask(config), config)
    raise InputError("config.stage", f"is {config.stage!r}", "it must be 'tokenizer', 'genhmr', 'regressor' or 'lifter'")


def abstract_task(config: ml_collections.ConfigDict, tokenizer: ml_collections.ConfigDict | None = None) -> Task:
    """The task with shapes in place of the frozen tokenizer's arrays: to compile it without data and without a trained tokenizer.

    Args:
      config: of any stage.
      tokenizer: the config of stage 1, read when `config` is of stage 2.
    """
    if config.stage in ("tokenizer", "lifter"):
        return make_task(config)
    if config.stage == "regressor":
        from genhmr_jax.systems.regressors.task import RegressorTask

        return adapted(RegressorTask(config), config)
    from genhmr_jax.core.tokenizer import TokenizerSpec
    from genhmr_jax.systems.genhmr.task import GenHmrTask

    return adapted(GenHmrTask(config, TokenizerSpec(**tokenizer.model.to_dict())), config)
