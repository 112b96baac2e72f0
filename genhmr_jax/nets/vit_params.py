"""ViT backbones from their checkpoints to models/vit.py: those of ViTPose, HMR2 and TokenHMR, and DINOv2's.

Each comes under two sets of names: its authors' (mmpose's, Meta's: query, key and value in one tensor) and Hugging Face's (apart).
"""

import dataclasses
import math
import re
from typing import Any

import numpy as np
from flax import nnx

from genhmr_jax.io import torch_layouts
from genhmr_jax.io.errors import InputError
from genhmr_jax.nets.vit import Vit, VitSpec


def _pair(theirs: str | tuple[str, ...], ours: str, weight: str) -> torch_layouts.Rules:
    """The rules of a weight and a bias."""
    parts = (theirs,) if isinstance(theirs, str) else theirs
    return [(tuple(f"{part}.weight" for part in parts), f"{ours}.{weight}"), (tuple(f"{part}.bias" for part in parts), f"{ours}.bias")]


def _blocks(at: str, qkv: str | tuple[str, ...], proj: str, norms: tuple[str, str], scales: tuple[str, str] | None = None) -> torch_layouts.Rules:
    """The rules of the stacked blocks; `at` has the layer's number."""
    qkv = f"{at}.{qkv}" if isinstance(qkv, str) else tuple(f"{at}.{part}" for part in qkv)
    rules = [*_pair(qkv, "blocks.qkv", "kernel"), *_pair(f"{at}.{proj}", "blocks.proj", "kernel")]
    for i, norm in enumerate(norms, 1):
        rules += [*_pair(f"{at}.{norm}", f"blocks.norm{i}", "scale"), *_pair(f"{at}.mlp.fc{i}", f"blocks.fc{i}", "kernel")]
    return [*rules, *((f"{at}.{scale}", f"blocks.scale{i}.scale") for i, scale in enumerate(scales or (), 1))]


@dataclasses.dataclass(frozen=True)
class Family:
    """A set of names.

    Attributes:
      encoder: "vit" or "dinov2", the first half of an encoder's name.
      first: a tensor of the first block that no other family has.
      positions: the learned positions.
      refused: tensors that only variants have which are no network of ours, and what to say of each.
    """

    encoder: str
    first: str
    positions: str
    rules: torch_layouts.Rules
    refused: tuple[tuple[str, str], ...] = ()


_REGISTERS = "has registers, which this DINOv2 has not"
_SWIGLU = "is a giant, whose MLP is another one (SwiGLU)"
_HF_QKV = tuple(f"attention.attention.{part}" for part in ("query", "key", "value"))
FAMILIES = (
    Family(  # facebookresearch/dinov2: dinov2_vitb14_pretrain.pth
        "dinov2",
        "blocks.0.ls1.gamma",
        "pos_embed",
        [
            ("pos_embed", "position"),
            ("cls_token", "class_token"),
            *_pair("patch_embed.proj", "patch", "kernel"),
            *_blocks("blocks.{n}", "attn.qkv", "attn.proj", ("norm1", "norm2"), ("ls1.gamma", "ls2.gamma")),
            *_pair("norm", "norm", "scale"),
        ],
        (("register_tokens", _REGISTERS), ("blocks.0.mlp.w12.weight", _SWIGLU)),
    ),
    Family(  # Hugging Face: facebook/dinov2-base
        "dinov2",
        "encoder.layer.0.layer_scale1.lambda1",
        "embeddings.position_embeddings",
        [
            ("embeddings.position_embeddings", "position"),
            ("embeddings.cls_token", "class_token"),
            *_pair("embeddings.patch_embeddings.projection", "patch", "kernel"),
            *_blocks(
                "encoder.layer.{n}",
                _HF_QKV,
                "attention.output.dense",
                ("norm1", "norm2"),
                ("layer_scale1.lambda1", "layer_scale2.lambda1"),
            ),
            *_pair("layernorm", "norm", "scale"),
        ],
        (("embeddings.register_tokens", _REGISTERS), ("encoder.layer.0.mlp.weights_in.weight", _SWIGLU)),
    ),
    Family(  # Hugging Face: usyd-community/vitpose-base
        "vit",
        "encoder.layer.0.layernorm_before.weight",
        "embeddings.position_embeddings",
        [
            ("embeddings.position_embeddings", "position"),
            *_pair("embeddings.patch_embeddings.projection", "patch", "kernel"),
            *_blocks("encoder.layer.{n}", _HF_QKV, "attention.output.dense", ("layernorm_before", "layernorm_after")),
            *_pair("layernorm", "norm", "scale"),
        ],
    ),
    Family(  # mmpose's ViTPose, HMR2, TokenHMR
        "vit",
        "blocks.0.attn.qkv.weight",
        "pos_embed",
        [
            ("pos_embed", "position"),
            *_pair("patch_embed.proj", "patch", "kernel"),
            *_blocks("blocks.{n}", "attn.qkv", "attn.proj", ("norm1", "norm2")),
            *_pair("last_norm", "norm", "scale"),
        ],
    ),
)
_EXPERT = re.compile(r"(.*\.mlp)\.experts\.(\d+)\.(weight|bias)")
_SIZES = {"vit": "sblh", "dinov2": "sbl"}


def convert(tensors: torch_layouts.Tensors, where: object) -> tuple[str, Any, dict[str, list[str]]]:
    """A checkpoint's backbone as the parameters of models.vit.Vit.

    Args:
      tensors: of the whole checkpoint, by name; what belongs to other parts is left alone.
      where: the file, for messages.

    Returns:
      the encoder's name ("vit_b", "dinov2_s"); the parameters, float32, blocks stacked; names under "loaded" and "unused".

    Raises:
      InputError: no such ViT in it, a tensor missing, or one of a wrong shape: nothing is loaded in part.
    """
    family, prefix = _family(tensors, where)
    inside = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    for name, problem in family.refused:
        if name in inside:
            raise InputError(where, problem, "give facebook/dinov2-small, -base or -large")
    if family.positions not in inside:
        raise InputError(where, f"its backbone lacks {family.positions}", "give the whole checkpoint")
    name, spec = _size(family, inside, where)
    if family.encoder == "dinov2":
        positions = torch_layouts.load(inside[family.positions]).astype(np.float32)
        inside[family.positions] = interpolated(positions.reshape(positions.shape[-2:]), spec.grid, where)
    like = nnx.to_pure_dict(nnx.split(nnx.eval_shape(lambda: Vit(spec, rngs=nnx.Rngs(0))))[1])
    part = f"its backbone ({name}, {spec.image[0]} x {spec.image[1]} px)"
    params, taken = torch_layouts.fit(inside, family.rules, like, where, part)
    loaded = {prefix + name for name in taken}
    return name, params, {"loaded": sorted(loaded), "unused": sorted(set(tensors) - loaded)}


def with_expert(tensors: torch_layouts.Tensors, expert: int, where: object) -> torch_layouts.Tensors:
    """A ViTPose++ as the plain ViT that it is for one of its datasets; other checkpoints as they are.

    There the last channels of each block's MLP come from an expert, one a dataset (Xu et al. 2023): so its rows stand below those of
    fc2, which gives the first ones.

    Args:
      tensors: by name, experts as `..mlp.experts.N.weight` and `.bias`.
      expert: N; 0 is COCO.

    Raises:
      InputError: it has no such expert.
    """
    found = {name: _EXPERT.fullmatch(name) for name in tensors}
    experts = {name: match for name, match in found.items() if match}
    numbers = sorted({int(match[2]) for match in experts.values()})
    if not numbers:
        return tensors
    if expert not in numbers:
        raise InputError(where, f"has no expert {expert}", f"give --expert one of {', '.join(map(str, numbers))}")
    merged = dict(tensors)
    for name, match in experts.items():
        shared = f"{match[1]}.fc2.{match[3]}"
        if int(match[2]) == expert and shared in tensors:
            merged[shared] = np.concatenate([torch_layouts.load(tensors[shared]), torch_layouts.load(merged.pop(name))])
    return merged


def _family(tensors: torch_layouts.Tensors, where: object) -> tuple[Family, str]:
    """Whose names they are, and what stands before them."""
    for family in FAMILIES:
        found = [name.removesuffix(family.first) for name in tensors if name == family.first or name.endswith(f".{family.first}")]
        if len(found) > 1:
            raise InputError(where, f"holds {len(found)} backbones ({', '.join(sorted(found))})", "give a file of one of them")
        if found:
            return family, found[0]
    remedy = "give a ViTPose .pth, an HMR2 or TokenHMR .ckpt, or safetensors of usyd-community/vitpose* or facebook/dinov2-*"
    raise InputError(where, "holds no ViT backbone", remedy)


def _size(family: Family, inside: torch_layouts.Tensors, where: object) -> tuple[str, VitSpec]:
    """The name and sizes of the encoder that is as wide and as deep as the checkpoint's."""
    head, _, tail = family.first.partition("0")
    width, depth = inside[family.positions].shape[-1], 0
    while f"{head}{depth}{tail}" in inside:
        depth += 1
    known = {name: VitSpec.named(name) for name in (f"{family.encoder}_{size}" for size in _SIZES[family.encoder])}
    for name, spec in known.items():
        if (spec.width, spec.depth) == (width, depth):
            return name, spec
    sizes = ", ".join(f"{name}: {spec.width} wide, {spec.depth} layers" for name, spec in known.items())
    raise InputError(where, f"its backbone is {width} wide and has {depth} layers", f"known are {sizes}")


def interpolated(positions: np.ndarray, grid: tuple[int, int], where: object) -> np.ndarray:
    """DINOv2's positions (1 + n^2, C) of a square grid -> (1 + h w, C), the first as it is.

    By bicubic interpolation without anti-aliasing (Keys 1981 with a = -0.75, borders repeated, corners not aligned), as DINOv2 itself does
    for images of other sizes: it was trained at 37 x 37 patches.
    """
    side = math.isqrt(len(positions) - 1)
    if side * side != len(positions) - 1:
        raise InputError(where, f"its {len(positions)} positions are no class token and a square", "give its original file")
    square = positions[1:].reshape(side, side, -1)
    down, across = (_cubic(side, size) for size in grid)
    found = np.einsum("hy,wx,yxc->hwc", down, across, square, optimize=True)
    return np.concatenate([positions[:1], found.reshape(-1, positions.shape[-1])]).astype(np.float32)


def _cubic(size: int, wanted: int) -> np.ndarray:
    """The matrix (wanted, size) that interpolates a row of `size` numbers at the middles of `wanted` equal parts."""
    a, at = -0.75, (np.arange(wanted) + 0.5) * size / wanted - 0.5
    matrix = np.zeros((wanted, size))
    for tap in range(-1, 3):
        place = np.floor(at) + tap
        x = np.abs(at - place)
        near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((x - 5) * x + 8) * x * a - 4 * a
        np.add.at(matrix, (np.arange(wanted), np.clip(place, 0, size - 1).astype(int)), np.where(x <= 1, near, far))
    return matrix
