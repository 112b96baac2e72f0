"""`genhmr convert`: checkpoints in the exact published layouts become models; what is missing,
misshapen or hostile is refused whole."""

import json
import os

import jax
import numpy as np
import pytest
from flax import nnx

from genhmr_jax.cli import main
from genhmr_jax.cli.convert import TERMS
from genhmr_jax.io.errors import InputError
from genhmr_jax.nets import vit_params
from genhmr_jax.nets.vit import SIZES, Vit, VitSpec
from genhmr_jax.systems import convert
from genhmr_jax.systems.regressors.model import RegressorSpec, graph
from support import public_inputs as inputs
from support import published_names as published
from support.paths import SUPPORT
from support.torch_fixtures import fake, save, save_safetensors

PUBLIC = np.load(SUPPORT / "public_outputs.npz")


@pytest.fixture(scope="module")
def backbone():
    width, depth, _ = SIZES["s"]
    return {
        name: array.astype(np.float16)
        for name, array in published.backbone(width, depth, np.random.default_rng(0)).items()
    }


def with_prefix(prefix, tensors):
    return {f"{prefix}.{name}": array for name, array in tensors.items()}


def lightning(backbone, head):
    """What Lightning's trainer saved: the networks between SMPL's arrays, the discriminator, the
    optimiser and the configuration."""
    config = fake("yacs.config", "CfgNode", dict)(MODEL="x")
    mode = fake("lightning.fabric.utilities.data", "AttributeDict", dict)(cfg=config)
    state = with_prefix("backbone", backbone) | with_prefix("smpl_head", head)
    state |= {
        "smpl.v_template": np.zeros((6890, 3), np.float32),
        "smpl.lbs_weights": np.zeros((6890, 24), np.float32),
    }
    state |= {
        "discriminator.D_conv1.weight": np.zeros((32, 9, 1, 1), np.float32),
        "initialized": np.array(True),
    }
    content = {
        "epoch": 35,
        "global_step": 1_000_000,
        "state_dict": state,
        "hyper_parameters": mode,
        "optimizer_states": [{"state": {}}],
    }
    return content, (type(config), type(mode))


def run(*words):
    return main.main(["convert", *map(str, words)])


SLOW_FORMS = [pytest.param(form, marks=pytest.mark.slow) for form in ("no prefix", "hugging face")]


@pytest.mark.parametrize("form", ["vitpose", *SLOW_FORMS])
def test_a_backbone(tmp_path, backbone, form, capsys):
    if form == "hugging face":
        file = save_safetensors(
            tmp_path / "model.safetensors",
            published.hugging_face(backbone) | {"head.conv.weight": np.zeros(3, np.float32)},
        )
    else:
        tensors = (
            backbone
            if form == "no prefix"
            else with_prefix("backbone", backbone)
            | {"keypoint_head.final_layer.bias": np.zeros(17, np.float32)}
        )
        file = save(
            tmp_path / "vitpose.pth",
            {"state_dict": tensors, "meta": {}},
            legacy=form == "no prefix",
        )
    assert run(file, "--out", tmp_path / "model") == 0
    meta = json.loads((tmp_path / "model" / "config.json").read_text())
    assert meta["kind"] == "vit" and meta["spec"] == {"encoder": "vit_s"}
    assert (
        meta["source"] == [{"file": file.name, "sha256": convert.sha256(file)}] and "terms" in meta
    )
    from genhmr_jax.io.model_folder import warm_start

    like = nnx.to_pure_dict(nnx.split(Vit(VitSpec.named("s"), rngs=nnx.Rngs(0)))[1])
    params, report = warm_start(tmp_path / "model", {"encoder": like}, "genhmr")
    assert not report["missing"] and not report["misfit"] and not report["unused"]
    kernel = np.asarray(params["encoder"]["blocks"]["qkv"]["kernel"][3])
    np.testing.assert_array_equal(kernel, backbone["blocks.3.attn.qkv.weight"].T.astype(np.float32))
    np.testing.assert_array_equal(
        params["encoder"]["patch"]["kernel"],
        backbone["patch_embed.proj.weight"].transpose(2, 3, 1, 0).astype(np.float32),
    )
    assert "| blocks | " in (out := capsys.readouterr().out) or "| backbone | " in out


def answers_as_published(kind, params, spec):
    """From two crops to bodies, to 1e-4 (0.006 degrees) of the public ViT and head over the same
    weights."""
    structure, _ = graph(RegressorSpec.from_dict(spec))
    run = jax.jit(lambda params, images: nnx.merge(structure, params)(images))
    found = run(params, inputs.crops())
    pairs = {"rotmats": found.rotmats, "betas": found.betas, "camera": found.weak_camera}
    for name, value in pairs.items():
        np.testing.assert_allclose(value, PUBLIC[f"{kind}_{name}"], rtol=0, atol=1e-4, err_msg=name)


def test_hmr2(tmp_path, capsys):
    content, libraries = lightning(inputs.backbone(), inputs.hmr2_head(small=False))
    file = save(tmp_path / "epoch=35-step=1000000.ckpt", content, *libraries)
    kind, params, spec, report = convert.convert(str(file))
    assert kind == "hmr2" and spec["encoder"] == "vit_s" and spec["crop"] == "hmr2"
    assert {name.split(".")[1] for name in report["unused"] if name.startswith("state_dict.")} == {
        "smpl",
        "discriminator",
        "initialized",
    }
    answers_as_published(kind, params, spec)
    print(convert.table(report))
    assert "SMPL's own arrays" in capsys.readouterr().out


def test_tokenhmr(tmp_path):
    content, libraries = lightning(inputs.backbone(), inputs.tokenhmr_head(small=False))
    net = inputs.tokenizer()
    file = save(tmp_path / "tokenhmr.ckpt", content, *libraries)
    node = fake("yacs.config", "CfgNode", dict)(ARCH="conv")
    other = save(tmp_path / "tokenizer.pth", {"net": net, "hparams": node}, type(node))
    with pytest.raises(InputError, match="token decoder is in another file"):
        convert.convert(str(file))
    kind, params, spec, _ = convert.convert(str(file), str(other))
    assert kind == "tokenhmr" and spec["crop"] == "hmr2"
    answers_as_published(kind, params, spec)
    np.testing.assert_array_equal(params["head"]["codebook"], net["quantizer.codebook"])
    np.testing.assert_array_equal(
        params["head"]["tokens"]["inp"]["kernel"],
        net["decoder.decoder.0.weight"].transpose(2, 1, 0),
    )
    with pytest.raises(InputError, match="no `net`"):
        convert.convert(str(file), str(file))


def test_hamer(tmp_path, backbone):
    """Its backbone alone: the head, MANO's arrays and the discriminator are left out."""
    content, libraries = lightning(backbone, {})
    state = content["state_dict"]
    for name in [name for name in state if name.startswith("smpl.")]:
        state["mano" + name.removeprefix("smpl")] = state.pop(name)
    state |= with_prefix("mano_head", published.hamer_head(np.random.default_rng(1)))
    file = save(tmp_path / "hamer.ckpt", content, *libraries)
    kind, params, spec, report = convert.convert(str(file))
    assert kind == "vit" and spec == {"encoder": "vit_s"} and list(params) == ["encoder"]
    np.testing.assert_array_equal(
        params["encoder"]["blocks"]["fc1"]["kernel"][5], backbone["blocks.5.mlp.fc1.weight"].T
    )
    terms = TERMS[report["publisher"]]
    assert "HaMeR" in terms and "MANO's licence" in terms
    rows = {line.split(" | ")[0].strip("| "): line for line in convert.table(report).splitlines()}
    assert f"| backbone | {len(backbone)} | 0 |" in rows["backbone"]
    assert "| mano | 0 | 2 | MANO's own arrays, under MANO's licence |" == rows["mano"]
    assert rows["mano_head"].startswith("| mano_head | 0 |")


def damaged(tensors, how):
    name = "blocks.7.mlp.fc1.weight"
    if how == "missing":
        return {n: a for n, a in tensors.items() if n != name}
    if how == "misshapen":
        return tensors | {name: tensors[name][:-1]}
    if how == "nan":
        return tensors | {name: np.full_like(tensors[name], np.nan)}
    return {"conv1.weight": np.zeros(3, np.float32)}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "lacks blocks.7.mlp.fc1.weight"),
        ("misshapen", "blocks.7.mlp.fc1.weight is .1535, 384."),
        ("nan", "blocks.7.mlp.fc1.weight holds numbers that are not finite"),
        ("another network", "holds no ViT backbone"),
    ],
)
def test_nothing_is_loaded_in_part(tmp_path, backbone, how, said, capsys):
    file = save(tmp_path / "x.pth", {"state_dict": damaged(backbone, how)})
    with pytest.raises(InputError, match=said):
        vit_params.convert(dict(convert.tensors(convert.read(file))), file)
    assert run(file, "--out", tmp_path / "model") == 1
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "model").exists()


def test_an_expert_becomes_part_of_its_blocks(tmp_path, backbone):
    """A ViTPose++: of each fc2 the last 96 rows are cut off and are expert 1 of 3; the others hold
    something else."""
    split = {}
    for name, array in backbone.items():
        if ".mlp.fc2." in name:
            split[name] = array[:-96]
            for n in range(3):
                split[name.replace("mlp.fc2", f"mlp.experts.{n}")] = array[-96:] + (n - 1)
        else:
            split[name] = array
    file = save(tmp_path / "plus.pth", {"state_dict": split})
    kind, params, spec, report = convert.convert(str(file), expert=1)
    plain = convert.convert(str(save(tmp_path / "plain.pth", {"state_dict": backbone})))
    assert kind == "vit" and spec == plain[2]
    jax.tree.map(np.testing.assert_array_equal, params, plain[1])
    assert all(".experts.1." not in name for name in report["unused"]) and any(
        ".experts.0." in name for name in report["unused"]
    )
    other = convert.convert(str(file))[1]["encoder"]["blocks"]["fc2"]["bias"]
    np.testing.assert_allclose(
        other[:, -96:], plain[1]["encoder"]["blocks"]["fc2"]["bias"][:, -96:] - 1, atol=2e-3
    )  # stored in float16
    with pytest.raises(InputError, match="has no expert 3; give --expert one of 0, 1, 2"):
        convert.convert(str(file), expert=3)


class Command:
    def __reduce__(self):
        return os.system, ("exit 1",)


def test_a_hostile_file(tmp_path, backbone, capsys):
    file = save(tmp_path / "x.ckpt", {"state_dict": backbone, "callbacks": Command()})
    assert run(file, "--out", tmp_path / "model") == 1
    assert (
        "system, which no checkpoint of weights needs" in capsys.readouterr().err
        and not (tmp_path / "model").exists()
    )


def test_an_existing_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "model").mkdir()
    assert run(tmp_path / "x.ckpt", "--out", tmp_path / "model") == 1
    assert "exists already" in capsys.readouterr().err
