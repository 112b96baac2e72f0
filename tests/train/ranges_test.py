"""The values that numbers of a config may have."""

import jax
import pytest

from genhmr_jax.io.config_files import call
from genhmr_jax.io.errors import InputError
from genhmr_jax.systems import registry
from genhmr_jax.train import ranges
from genhmr_jax.train.optim import make_optimizer
from support.paths import ROOT

RECIPES = sorted(p for p in (ROOT / "configs").glob("*/*.py") if p.parent.name != "sweeps")
UNDER = {"genhmr": "tokenizer/base", "maskhand": "hand_tokenizer/base", "posturehmr": "mesh2d/base"}


@pytest.mark.parametrize("file", RECIPES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_recipes_are_in_range(file):
    ranges.check(call(str(file), "get_config"))


@pytest.mark.parametrize(
    "name", ["genhmr/vit:s", "genhmr/finetune_vit:s", "maskhand/paper:s", "posturehmr/cpu"]
)
def test_patterns_of_recipes_match(get_config, name):
    config = get_config(name)
    task = registry.abstract_task(config, get_config(UNDER[config.stage]))
    params, _ = jax.eval_shape(task.init, jax.random.key(0))
    make_optimizer(config.optim, config.steps, params)


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
        ("steps", 10**400, "--config.steps: is more than 2^64; give a number from 1 to 9007199254"),
        ("optim.clip_norm", 0.0, "--config.optim.clip_norm: is 0.0; give 1e-12 or more"),
        ("drop_path", 1.0, "--config.drop_path: is 1.0; give a number from 0 to 0.999999999"),
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
        ("precision", "half", "--config.precision: is 'half'; choose among float32, bfloat16"),
        ("remat", "all", "--config.remat: is 'all'; choose among none, products, blocks"),
        ("masking.schedule", "cos", "--config.masking.schedule: is 'cos'; choose among cosine, l"),
        (
            "loss.differentiable_sampling",
            "gumbel",
            "--config.loss.differentiable_sampling: is 'gumbel'; choose among none, expected, str",
        ),
        ("optim.frozen", ("(",), "--config.optim.frozen: contains '('; give a tuple such as ('enc"),
        ("optim.groups", ("encoder/.*",), "--config.optim.groups: contains 'encoder/.*'; give a "),
        ("optim.groups", (0.1,), "--config.optim.groups: contains 0.1; give a tuple such as (('en"),
        ("optim.groups", (0.1, "encoder/.*"), "--config.optim.groups: contains 0.1; give a tuple"),
        ("sharding_rules", None, "--config.sharding_rules: is None; give a tuple such as (('.*/o"),
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


@pytest.mark.parametrize(
    ("system", "field", "value", "message"),
    [
        ("maskhand", "model.transformer.heads", 3, "--config.model: width 16 is not a multiple of"),
        ("maskhand", "model.pose_tokens", 3, "--config.model: pose_tokens is 3: choose among 1, "),
        ("posturehmr", "model.heads", 5, "--config.model: width "),
        ("posturehmr", "training.steps_per_sample", 11, "steps_per_sample: is 11, and model.steps"),
        ("neurik", "model.heads", 3, "--config.model: width 16 is not a multiple of 6 heads"),
        ("tokenizer", "model.part_tokens", (1.5, 5, 5, 5, 5, 5), "each part needs a token; choose"),
        ("regressors", "model.encoder_depth", -1, "--config.model: encoder_depth is -1: "),
        ("regressors", "model.encoder_depth", 99, "--config.model: encoder_depth is 99: "),
        ("regressors", "model.layout", "foo", "--config.model: layout 'foo': choose columns or"),
    ],
)
def test_models_that_do_not_fit(get_config, system, field, value, message):
    config = get_config(f"{system}/tiny")
    with config.ignore_type():
        config.update_from_flattened_dict({field: value})
    under = [get_config(UNDER[system])] if system in UNDER else []
    with pytest.raises(InputError) as raised:
        registry.abstract_task(config, *under)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("system", "field", "message"),
    [
        ("genhmr", "model.width", "--first-stage: width is 0: at least 1 is needed"),
        ("maskhand", "model.width", "--first-stage: width is 0: at least 1 is needed"),
        ("posturehmr", "model.vertices", "--first-stage: vertices is 0: at least 1 is needed"),
    ],
)
def test_a_first_stage_that_does_not_fit(get_config, system, field, message):
    under = get_config(UNDER[system])
    under.update_from_flattened_dict({field: 0})
    with pytest.raises(InputError) as raised:
        registry.abstract_task(get_config(f"{system}/tiny"), under)
    assert message in str(raised.value)
