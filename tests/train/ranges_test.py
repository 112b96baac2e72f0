"""The values that numbers of a config may have."""

import pytest

from genhmr_jax.io.config_files import call
from genhmr_jax.io.errors import InputError
from genhmr_jax.systems import registry
from genhmr_jax.train import ranges
from support.paths import ROOT

RECIPES = sorted(p for p in (ROOT / "configs").glob("*/*.py") if p.parent.name != "sweeps")


@pytest.mark.parametrize("file", RECIPES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_recipes_are_in_range(file):
    ranges.check(call(str(file), "get_config"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", 0, "--config.steps: is 0; give 1 or more"),
        ("log_every", 0, "--config.log_every: is 0; give 1 or more"),
        ("evaluate_every", -1, "--config.evaluate_every: is -1; give 1 or more"),
        ("checkpoint_every", 0, "--config.checkpoint_every: is 0; give 1 or more"),
        ("keep", 0, "--config.keep: is 0; give 1 or more"),
        ("accumulate", 0, "--config.accumulate: is 0; give 1 or more"),
        ("evaluate_poses", -7, "--config.evaluate_poses: is -7; give 1 or more"),
        ("input.threads", -1, "--config.input.threads: is -1; give 0 or more"),
        ("input.prefetch", -1, "--config.input.prefetch: is -1; give 0 or more"),
        ("batch_size", -16, "--config.batch_size: is -16; give 0 or more"),
        ("batch_size", 0, "--config.batch_size: and image_batch_size are 0; one of them must be"),
        ("masking.corrupt", 2.0, "--config.masking.corrupt: is 2.0; give a number from 0 to 1"),
        ("data.view.swap", -0.1, "--config.data.view.swap: is -0.1; give a number from 0 to 1"),
        ("optim.learning_rate", float("nan"), "--config.optim.learning_rate: is nan; give a fin"),
        ("optim.learning_rate", -1e-3, "--config.optim.learning_rate: is -0.001; give 0 or more"),
        ("optim.ema_decay", 1.5, "--config.optim.ema_decay: is 1.5; give a number from 0 to 1"),
        ("optim.encoder_layers", -2, "--config.optim.encoder_layers: is -2; give -1 or more"),
        ("loss.token", -1.0, "--config.loss.token: is -1.0; give 0 or more"),
        ("data.view.focal_low", 5.0, "is 5.0, above data.view.focal_high, which is 3.0; give the"),
    ],
)
def test_numbers_out_of_range(get_config, field, value, message):
    config = get_config("genhmr/tiny")
    config.update_from_flattened_dict({field: value})
    with pytest.raises(InputError) as raised:
        registry.make_task(config)
    assert message in str(raised.value)
    with pytest.raises(InputError):
        registry.abstract_task(config, get_config("tokenizer/tiny"))


def test_other_systems_may_have_any_finite_number(get_config):
    config = get_config("genhmr/tiny")
    config.own = {"bias": -3.0}
    ranges.check(config)
    config.own.bias = float("inf")
    with pytest.raises(InputError, match="--config.own.bias: is inf; give a finite number"):
        ranges.check(config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("remat", "all", "--config.remat: is 'all'; choose among none, products, blocks"),
        ("masking.schedule", "cos", "--config.masking.schedule: is 'cos'; choose among cosine, l"),
        (
            "loss.differentiable_sampling",
            "gumbel",
            "--config.loss.differentiable_sampling: is 'gumbel'; choose among none, expected, str",
        ),
        ("optim.frozen", ("(",), "--config.optim.frozen: contains '('; give a tuple such as ('enc"),
        ("optim.groups", ("encoder/.*",), "--config.optim.groups: contains 'encoder/.*'; give a "),
        ("optim.groups", (("encoder/.*", "x"),), "contains ('encoder/.*', 'x'); give a tuple such"),
        ("sharding_rules", (("a", ("rows",)),), "contains ('a', ('rows',)); give a tuple such as "),
        ("model.transformer.heads", 5, "--config.model: width 24 is not a multiple of 5 heads; ch"),
        ("model.transformer.width", 0, "--config.model: width is 0: at least 1 is needed; choose"),
        ("model.transformer.activation", "tanh", "activation 'tanh': choose gelu or relu; choose"),
        ("model.num_keypoints", 17, "--config.model: num_keypoints is 17: choose 0 or 23; choose"),
        ("model.encoder", "vit_x", "--config.model: unknown ViT 'vit_x': choose among s, b, l, h"),
    ],
)
def test_choices_patterns_and_sizes(get_config, field, value, message):
    config = get_config("genhmr/tiny")
    config.model.encoder_channels = (8,)
    with config.ignore_type():
        config.update_from_flattened_dict({field: value})
    with pytest.raises(InputError) as raised:
        registry.abstract_task(config, get_config("tokenizer/tiny"))
    assert message in str(raised.value)
