"""Config files by path and argument, overrides, and what is said about those that do not exist."""

import contextlib
import subprocess
import sys

import ml_collections
import pytest

from genhmr_jax.data.augment import AugmentSpec
from genhmr_jax.data.views import ViewSpec
from genhmr_jax.io.config_files import (
    apply_overrides,
    field_names,
    load_config,
    nearest,
    override_flags,
)
from genhmr_jax.io.errors import InputError
from support.paths import ROOT

CONFIGS = ROOT / "configs"
GENHMR, VIT = f"{CONFIGS}/genhmr/keypoints.py", f"{CONFIGS}/genhmr/vit.py"
TOKENIZER = f"{CONFIGS}/tokenizer/body_parts.py"


def test_a_config_with_its_argument_and_overrides():
    config = load_config(
        f"{VIT}:b",
        {
            "model.transformer.width": 48,
            "optim.learning_rate": 1,
            "model.pyramid_scales": [4.0, 0.5],
        },
    )
    assert (config.model.transformer.width, config.optim.learning_rate) == (48, 1.0)
    assert config.model.pyramid_scales == (4.0, 0.5), (
        "a list is taken as the tuple that the field is"
    )
    assert config.steps == load_config(VIT).steps and config.model.encoder == "vit_b"
    assert "model.transformer.width" in field_names(
        config
    ) and "model.transformer" not in field_names(config)


def test_each_number_of_the_augmentation_is_a_field():
    overrides = {"data.augment.rotation": 45, "data.view.swap": 0.1, "data.turn.drop": 0.0}
    config = load_config(GENHMR, overrides)
    augment = AugmentSpec(**config.data.augment.to_dict())
    assert augment == AugmentSpec(rotation=45.0)
    assert ViewSpec(**config.data.view.to_dict()) == ViewSpec(swap=0.1)
    with pytest.raises(InputError, match="did you mean data.augment.rotate"):
        load_config(GENHMR, {"data.augment.rotat": 1.0})


def test_texts_are_read_as_the_type_of_the_field():
    texts = [
        "steps=7",
        "optim.learning_rate=1e-3",
        "log.tensorboard=True",
        "data.poses=a=b.npz",
        "model.pyramid_scales=(2.0, 1.0)",
    ]
    config = load_config(GENHMR, [*texts, "model.encoder_channels=768"])
    assert (
        config.steps,
        config.optim.learning_rate,
        config.log.tensorboard,
        config.data.poses,
    ) == (7, 1e-3, True, "a=b.npz")
    assert config.model.pyramid_scales == (2.0, 1.0) and config.model.encoder_channels == (768,)


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        (f"{GENHMR}x", (), "no such config file; did you mean .*genhmr/keypoints.py"),
        ("nowhere/x.py", (), "no such config file; there is no folder nowhere"),
        (
            f"{CONFIGS}/genhmr/image_and_keypoint.py",
            (),
            "did you mean .*/genhmr/image_and_keypoints.py",
        ),
        (f"{CONFIGS}/gnehmr/tiny.py", (), "no such config file; did you mean .*/genhmr/tiny.py"),
        (f"{CONFIGS}/genhmr/zzzzzz.py", (), "no such config file; choose among .*/tiny.py"),
        (f"{CONFIGS}/genhmr.py", (), "no such config file; choose among .*/genhmr/keypoints.py"),
        (f"{CONFIGS}/genhmr", (), "no such config file; choose among .*/genhmr/keypoints.py"),
        (f"{GENHMR}:tyni", (), "no argument, but 'tyni' was given; did you mean .*genhmr/tiny.py"),
        (f"{VIT}:x", (), "vit.py: has no argument 'x'; choose among h, l, b, s$"),
        (f"{CONFIGS}/genhmr/finetune_vit.py:x", (), "finetune_vit.py: has no argument 'x'; choose"),
        (GENHMR, {"step": 3}, "has no field 'step'; did you mean steps"),
        (GENHMR, ["widht=3"], "has no field 'widht'; did you mean .*width"),
        (
            GENHMR,
            {"model.transformer": 3},
            "it is a group: give one of model.transformer.activation",
        ),
        (GENHMR, {"steps": 1.5}, r"steps cannot be 1.5; give it as int, like 4800"),
        (GENHMR, ["steps=many"], "steps cannot be 'many'; give it as int"),
        (
            GENHMR,
            ["log.tensorboard=maybe"],
            "log.tensorboard cannot be 'maybe'; give it as bool, like False",
        ),
        (GENHMR, {"data.poses": 3}, "data.poses cannot be 3; give it as str"),
        (GENHMR, ["steps"], "'steps' is not an override"),
    ],
)
def test_what_does_not_fit_is_named_with_what_does(name, overrides, said):
    with pytest.raises(InputError, match=said):
        load_config(name, overrides)


def test_files_that_are_no_configs(tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(InputError, match="broken.py: cannot be run as Python .ModuleNotFoundError"):
        load_config(str(tmp_path / "broken.py"))
    with pytest.raises(InputError, match=r"empty.py: defines no get_config\(\)"):
        load_config(str(tmp_path / "empty.py"))


def test_a_recipe_starts_from_another_file(tmp_path, monkeypatch):
    """Its path is relative to the recipe, not to the working directory; errors name the file that
    was asked for."""
    start = "from genhmr_jax.io.config_files import start_from\n\ndef get_config(arg='a'):\n    "
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "base.py").write_text(
        "import ml_collections\n\ndef get_config(arg):\n"
        "    if arg not in 'ab': raise ValueError('choose a or b')\n"
        "    return ml_collections.ConfigDict({'x': arg})\n"
    )
    (tmp_path / "mine.py").write_text(start + "return start_from(__file__, f'base/base.py:{arg}')")
    (tmp_path / "lost.py").write_text(start + "return start_from(__file__, 'base/bsae.py')")
    monkeypatch.chdir(tmp_path)
    for name in (f"{tmp_path}/mine.py:b", "mine.py:b"):
        assert load_config(name).x == "b"
    with pytest.raises(InputError, match="^mine.py: has no argument 'c'; choose among a, b$"):
        load_config("mine.py:c")
    with pytest.raises(InputError, match="bsae.py: no such config file; did you mean .*base.py"):
        load_config("lost.py")


def test_flags_say_the_same_to_a_training():
    overrides = {
        "steps": 7,
        "optim.learning_rate": 2.5e-5,
        "log.tensorboard": True,
        "data.poses": "with space, and 'quote'.npz",
        "model.pyramid_scales": (4.0,),
        "model.encoder_channels": (),
        "optim.groups": (("encoder/.*", 0.1),),
    }
    code = (
        "from absl import app; from ml_collections import config_flags\n"
        "config = config_flags.DEFINE_config_file('config')\n"
        "app.run(lambda _: print(config.value.to_json_best_effort()))"
    )
    command = [sys.executable, "-c", code, f"--config={VIT}:b", *override_flags(overrides)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=True)
    assert done.stdout.strip() == load_config(f"{VIT}:b", overrides).to_json_best_effort()


def test_nearest_of_nothing_near_is_all():
    assert nearest("q", ["alpha", "beta", "alpha"]) == "choose among alpha, beta"


def test_overrides_leave_the_rest_alone():
    config = load_config(TOKENIZER)
    before = config.to_dict()
    apply_overrides(config, {"model.codebook_size": 512})
    before["model"]["codebook_size"] = 512
    assert config.to_dict() == before


@pytest.mark.parametrize(
    "text", ["{[]: 1}", "-" * 20_000 + "1", "(" * 500, "1e", "0x" + "f" * 5000, "9" * 500 + "\0"]
)
@pytest.mark.parametrize("field", ["rate", "steps", "sizes", "use", "nothing"])
def test_values_that_python_cannot_read_are_one_short_line(text, field):
    config = ml_collections.ConfigDict(
        {"rate": 0.1, "steps": 5, "sizes": (1, 2), "use": False, "nothing": None}
    )
    with contextlib.suppress(InputError):  # 0xff... is a whole number
        apply_overrides(config, [f"{field}={text}"])
    if "f" not in text:
        with pytest.raises(InputError) as error:
            apply_overrides(config, [f"{field}={text}"])
        assert len(str(error.value)) < 500


def test_a_name_that_is_too_long_is_no_config():
    with pytest.raises(InputError, match="no such config file"):
        load_config("configs/" + "x" * 5000 + ".py")
