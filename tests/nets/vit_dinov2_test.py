"""DINOv2's checkpoints: both sets of names, positions for our crop, what is refused; and a model
over that encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genhmr_jax.core.inputs import Inputs
from genhmr_jax.core.sizes import TransformerSpec
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.io.errors import InputError
from genhmr_jax.nets import vit_params
from genhmr_jax.nets.vit import Vit, VitSpec, is_vit
from genhmr_jax.systems import convert
from genhmr_jax.systems.genhmr.spec import GenHmrSpec
from genhmr_jax.systems.genhmr.system import GenHmrSystem
from support import published_names as published
from support.torch_fixtures import save, save_safetensors

HUGGING_FACE = {
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}


@pytest.fixture(scope="module")
def meta():
    tensors = published.dinov2(384, 12, np.random.default_rng(0))
    return {name: array.astype(np.float16) for name, array in tensors.items()}


def hugging_face(tensors):
    """The names of facebook/dinov2-small on Hugging Face."""
    found = {}
    for name, array in tensors.items():
        new = (
            name.replace("blocks.", "encoder.layer.", 1)
            if name.startswith("blocks.")
            else name.replace("norm.", "layernorm.")
        )
        for theirs, other in HUGGING_FACE.items():
            new = new.replace(theirs, other)
        if ".attn.qkv." in new:
            for part, piece in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                found[new.replace("attn.qkv", f"attention.attention.{part}")] = piece
        else:
            found[new] = array
    return found


def test_both_sets_of_names(meta, tmp_path):
    theirs = hugging_face(meta)
    assert {
        "layernorm.weight",
        "encoder.layer.11.norm2.bias",
        "encoder.layer.3.attention.attention.key.weight",
    } <= set(theirs)
    files = (
        save(tmp_path / "dinov2_vits14_pretrain.pth", meta),
        save_safetensors(tmp_path / "model.safetensors", theirs),
    )
    (kind, params, spec, report), (_, other, other_spec, _) = (
        convert.convert(str(file)) for file in files
    )
    assert (
        kind == "vit"
        and spec == other_spec == {"encoder": "dinov2_s"}
        and report["unused"] == ["mask_token"]
    )
    jax.tree.map(np.testing.assert_array_equal, params, other)
    encoder = params["encoder"]
    like = nnx.to_pure_dict(
        nnx.split(nnx.eval_shape(lambda: Vit(VitSpec.named("dinov2_s"), rngs=nnx.Rngs(0))))[1]
    )
    assert jax.tree.map(jnp.shape, encoder) == jax.tree.map(jnp.shape, like)
    np.testing.assert_array_equal(
        encoder["blocks"]["scale2"]["scale"][7], meta["blocks.7.ls2.gamma"].astype(np.float32)
    )
    np.testing.assert_array_equal(
        encoder["blocks"]["qkv"]["kernel"][3], meta["blocks.3.attn.qkv.weight"].T.astype(np.float32)
    )
    np.testing.assert_array_equal(
        encoder["class_token"], meta["cls_token"][0, 0].astype(np.float32)
    )
    np.testing.assert_array_equal(
        encoder["position"][0], meta["pos_embed"][0, 0].astype(np.float32)
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"register_tokens": (1, 4, 384)}, "has registers"),
        ({"blocks.0.mlp.w12.weight": (2048, 384)}, "is a giant"),
        ({"pos_embed": (1, 1361, 384)}, "1361 positions are no class token and a square"),
        (
            {"blocks.12.ls1.gamma": (384,)},
            "384 wide and has 13 layers; known sizes are dinov2_s: 384 wide, 12 layers, dinov2_b",
        ),
        (
            {"patch_embed.proj.weight": (384, 3, 16, 16)},
            r"patch_embed.proj.weight is \(384, 3, 16, 16\), not \(384, 3, 14, 14\)",
        ),
        ({"teacher.blocks.0.ls1.gamma": (384,)}, "holds 2 backbones"),
    ],
)
def test_what_is_no_such_network_is_refused(meta, change, said):
    with pytest.raises(InputError, match=said):
        vit_params.convert(
            meta | {name: np.zeros(shape, np.float32) for name, shape in change.items()}, "file"
        )


def test_positions_between_patches():
    """Equal grids: as they are. Half-way between two patches: the weights for a = -0.75, by hand.
    The first one is left alone."""
    random = np.random.default_rng(0).normal(size=(17, 3)).astype(np.float32)
    np.testing.assert_allclose(vit_params.interpolated(random, (4, 4), "file"), random, atol=1e-6)
    found = vit_params.interpolated(random, (2, 4), "file")
    square, near, far = random[1:].reshape(4, 4, 3), 0.59375, -0.09375
    wanted = np.stack(
        [
            far * square[0] + near * (square[0] + square[1]) + far * square[2],
            far * square[1] + near * (square[2] + square[3]) + far * square[3],
        ]
    )
    np.testing.assert_allclose(found[1:].reshape(2, 4, 3), wanted, atol=1e-6)
    np.testing.assert_array_equal(found[0], random[0])


def test_a_model_over_it():
    """Shapes alone: the map of 18 x 14 passes the pyramid and the cross-attention."""
    assert is_vit("dinov2_l") and not is_vit("blazepose_full")
    spec = GenHmrSpec(
        transformer=TransformerSpec(width=48, layers=1, heads=2),
        encoder="dinov2_s",
        encoder_channels=(384,),
        pyramid="simple",
    )
    system = GenHmrSystem(spec)
    shape = lambda *sizes: jax.ShapeDtypeStruct((2, *sizes), jnp.float32)
    inputs = Inputs(
        CropCamera(crop=shape(3), focal=shape(), centre=shape(2)),
        keypoints=shape(23, 3),
        images=shape(256, 256, 3),
        drop_path=shape(12, 2),
    )
    encoded = jax.eval_shape(system.encode, system.shapes, inputs)
    assert [values.shape[2:4] for values in encoded.image_values[0]] == [
        (72, 56),
        (36, 28),
        (18, 14),
    ]
    with pytest.raises(ValueError, match=r"encoder 'dinov2_b' has maps of \(768,\) channels"):
        GenHmrSpec(encoder="dinov2_b", encoder_channels=(384,))
