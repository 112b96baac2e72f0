"""Backbones against Hugging Face's, with random weights: its file -> `genhmr convert` -> our
network -> the same map.

Needs the extra "parity" (torch, transformers).
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genhmr_jax.cli import main
from genhmr_jax.io.model_folder import load_params
from genhmr_jax.nets.vit import Vit, VitSpec

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def randomised(model):
    """Every parameter far from its initial value (scales of layers are 1, biases 0), with outputs
    that stay of moderate size."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim == 1 else 0.02))
    return model.eval()


def vitpose(spec: VitSpec):
    sizes = {
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
    }
    config = transformers.VitPoseBackboneConfig(
        image_size=list(spec.image), out_indices=[spec.depth], **sizes
    )
    return randomised(transformers.VitPoseBackbone(config))


def dinov2(spec: VitSpec):
    sizes = {
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
    }
    config = transformers.Dinov2Config(
        image_size=518, patch_size=14, **sizes
    )  # as it was published: positions for 37 x 37 patches
    return randomised(transformers.Dinov2Model(config))


@pytest.mark.parametrize(
    "encoder",
    [
        "vit_s",
        "dinov2_s",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("vit_b", "dinov2_b")),
    ],
)
def test_the_same_map(encoder, tmp_path):
    spec = VitSpec.named(encoder)
    model = (vitpose if encoder.startswith("vit_") else dinov2)(spec)
    model.save_pretrained(tmp_path / "theirs")
    assert (
        main.main(
            [
                "convert",
                str(tmp_path / "theirs" / "model.safetensors"),
                "--out",
                str(tmp_path / "ours"),
            ]
        )
        == 0
    )
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["spec"] == {
        "encoder": encoder
    }

    images = np.random.default_rng(0).normal(size=(2, *spec.image, 3)).astype(np.float32)
    with torch.no_grad():
        output = model(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    wanted = (
        output.feature_maps[-1] if encoder.startswith("vit_") else output.last_hidden_state[:, 1:]
    )

    graph, state = nnx.split(nnx.eval_shape(lambda: Vit(spec, rngs=nnx.Rngs(0))))
    params = load_params(tmp_path / "ours", {"genhmr": {"encoder": nnx.to_pure_dict(state)}})[
        "genhmr"
    ]["encoder"]
    (found,) = jax.jit(lambda params, x: nnx.merge(graph, params)(x))(params, jnp.asarray(images))
    assert found.shape == (2, *spec.grid, spec.width)
    wanted = wanted.numpy().reshape(found.shape)
    error = np.linalg.norm(np.asarray(found) - wanted) / np.linalg.norm(wanted)
    print(f"{encoder}: relative error {error:.1e}")
    assert error < 1e-4 and np.abs(wanted).max() > 0.5
