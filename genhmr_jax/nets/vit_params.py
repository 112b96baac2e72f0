"""Parameters of vit.py from the checkpoints of ViTPose, HMR2, TokenHMR, HaMeR and DINOv2.

Each backbone is published under two sets of names: its authors' (mmpose's, Meta's: query, key and
value in one tensor) and Hugging Face's (in three tensors).
"""

import dataclasses
import math
import re
from typing import Any

import numpy as np
from flax import nnx

from genhmr_jax.io import torch_layouts
from genhmr_jax.io.errors import InputError
from genhmr_jax.nets.vit import DINOV2_SIZES, SIZES, Vit, VitSpec


def _pair(theirs: str | tuple[str, ...], ours: str, weight: str) -> torch_layouts.Rules:
    """The rules of a weight and a bias (see torch_layouts)."""
    parts = (theirs,) if isinstance(theirs, str) else theirs
    return [
        (tuple(f"{part}.weight" for part in parts), f"{ours}.{weight}"),
        (tuple(f"{part}.bias" for part in parts), f"{ours}.bias"),
    ]


def _blocks(
    at: str,
    qkv: str | tuple[str, ...],
    proj: str,
    norms: tuple[str, str],
    scales: tuple[str, str] | None = None,
) -> torch_layouts.Rules:
    """The rules of the stacked blocks; `at` has the layer's number as {n}."""
    qkv = f"{at}.{qkv}" if isinstance(qkv, str) else tuple(f"{at}.{part}" for part in qkv)
    rules = [*_pair(qkv, "blocks.qkv", "kernel"), *_pair(f"{at}.{proj}", "blocks.proj", "kernel")]
    for i, norm in enumerate(norms, 1):
        rules += [
            *_pair(f"{at}.{norm}", f"blocks.norm{i}", "scale"),
            *_pair(f"{at}.mlp.fc{i}", f"blocks.fc{i}", "kernel"),
        ]
    return [
        *rules,
        *((f"{at}.{scale}", f"blocks.scale{i}.scale") for i, scale in enumerate(scales or (), 1)),
    ]


@dataclasses.dataclass(frozen=True)
class Family:
    """The names of one publisher.

    Attributes:
      encoder: "vit" or "dinov2", the start of an encoder's name.
      first: a tensor of the first block that identifies the family.
      positions: the learned positions.
      rules: their names -> ours.
      refused: tensors that occur only in variants which are not supported, each with the problem
        to report.
    """

    encoder: str
    first: str
    positions: str
    rules: torch_layouts.Rules
    refused: tuple[tuple[str, str], ...] = ()


_REGISTERS = "has registers, which are not supported"
_SWIGLU = "is a giant, whose MLP (SwiGLU) is not supported"
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
            *_blocks(
                "blocks.{n}",
                "attn.qkv",
                "attn.proj",
                ("norm1", "norm2"),
                ("ls1.gamma", "ls2.gamma"),
            ),
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
        (
            ("embeddings.register_tokens", _REGISTERS),
            ("encoder.layer.0.mlp.weights_in.weight", _SWIGLU),
        ),
    ),
    Family(  # Hugging Face: usyd-community/vitpose-base
        "vit",
        "encoder.layer.0.layernorm_before.weight",
        "embeddings.position_embeddings",
        [
            ("embeddings.position_embeddings", "position"),
            *_pair("embeddings.patch_embeddings.projection", "patch", "kernel"),
            *_blocks(
                "encoder.layer.{n}",
                _HF_QKV,
                "attention.output.dense",
                ("layernorm_before", "layernorm_after"),
            ),
            *_pair("layernorm", "norm", "scale"),
        ],
    ),
    Family(  # mmpose's ViTPose, HMR2, TokenHMR, HaMeR
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
_SIZES = {"vit": SIZES, "dinov2": DINOV2_SIZES}


def convert(tensors: torch_layouts.Tensors, where: object) -> tuple[str, Any, dict[str, list[str]]]:
    """Convert the backbone of a checkpoint to the parameters of nets.vit.Vit.

    Args:
      tensors: of the whole checkpoint, by name; those of other parts are ignored.
      where: the file, for messages.

    Returns:
      the encoder's name ("vit_b", "dinov2_s"); the parameters, float32, blocks stacked; names under
      "loaded" and "unused".

    Raises:
      InputError: there is no such ViT, or a tensor is missing or of a wrong shape. Then nothing is
        loaded.
    """
    family, prefix = _family(tensors, where)
    inside = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    for name, problem in family.refused:
        if name in inside:
            raise InputError(where, problem, "give facebook/dinov2-small, -base or -large")
    if family.positions not in inside:
        problem = f"its backbone lacks {family.positions}"
        raise InputError(where, problem, "give the whole checkpoint")
    name, spec = _size(family, inside, where)
    if family.encoder == "dinov2":
        positions = torch_layouts.load(inside[family.positions]).astype(np.float32)
        positions = positions.reshape(positions.shape[-2:])
        inside[family.positions] = interpolated(positions, spec.grid, where)
    like = nnx.to_pure_dict(nnx.split(nnx.eval_shape(lambda: Vit(spec, rngs=nnx.Rngs(0))))[1])
    part = f"its backbone ({name}, {spec.image[0]} x {spec.image[1]} px)"
    params, taken = torch_layouts.fit(inside, family.rules, like, where, part)
    loaded = {prefix + name for name in taken}
    return name, params, {"loaded": sorted(loaded), "unused": sorted(set(tensors) - loaded)}


def with_expert(
    tensors: torch_layouts.Tensors, expert: int, where: object
) -> torch_layouts.Tensors:
    """Merge one expert of a ViTPose++ into a plain ViT; other checkpoints are unchanged.

    In a ViTPose++ the last channels of each block's MLP come from an expert, one for each dataset
    (Xu et al. 2023). The rows of the expert are appended to those of fc2, which gives the first
    channels.

    Args:
      tensors: by name, experts as `..mlp.experts.N.weight` and `.bias`.
      expert: N; 0 is COCO.
      where: the file, for messages.

    Raises:
      InputError: it has no such expert.
    """
    found = {name: _EXPERT.fullmatch(name) for name in tensors}
    experts = {name: match for name, match in found.items() if match}
    numbers = sorted({int(match[2]) for match in experts.values()})
    if not numbers:
        return tensors
    if expert not in numbers:
        remedy = f"give --expert one of {', '.join(map(str, numbers))}"
        raise InputError(where, f"has no expert {expert}", remedy)
    merged = dict(tensors)
    for name, match in experts.items():
        shared = f"{match[1]}.fc2.{match[3]}"
        if int(match[2]) == expert and shared in tensors:
            parts = [torch_layouts.load(part) for part in (tensors[shared], merged.pop(name))]
            merged[shared] = np.concatenate(parts)
    return merged


def _family(tensors: torch_layouts.Tensors, where: object) -> tuple[Family, str]:
    """The family of the names, and the prefix of the backbone's names."""
    for family in FAMILIES:
        found = [
            name.removesuffix(family.first)
            for name in tensors
            if name == family.first or name.endswith(f".{family.first}")
        ]
        if len(found) > 1:
            problem = f"holds {len(found)} backbones ({', '.join(sorted(found))})"
            raise InputError(where, problem, "give a file of one of them")
        if found:
            return family, found[0]
    safetensors = "safetensors of usyd-community/vitpose* or facebook/dinov2-*"
    remedy = f"give a ViTPose .pth, an HMR2, TokenHMR or HaMeR .ckpt, or {safetensors}"
    raise InputError(where, "holds no ViT backbone", remedy)


def _size(family: Family, inside: torch_layouts.Tensors, where: object) -> tuple[str, VitSpec]:
    """The name and sizes of the encoder that has the width and depth of the checkpoint."""
    head, _, tail = family.first.partition("0")
    width, depth = inside[family.positions].shape[-1], 0
    while f"{head}{depth}{tail}" in inside:
        depth += 1
    names = [f"{family.encoder}_{size}" for size in _SIZES[family.encoder]]
    known = {name: VitSpec.named(name) for name in names}
    for name, spec in known.items():
        if (spec.width, spec.depth) == (width, depth):
            return name, spec
    sizes = ", ".join(f"{name}: {s.width} wide, {s.depth} layers" for name, s in known.items())
    problem = f"its backbone is {width} wide and has {depth} layers"
    raise InputError(where, problem, f"known sizes are {sizes}")


def interpolated(positions: np.ndarray, grid: tuple[int, int], where: object) -> np.ndarray:
    """Interpolate DINOv2's positions (1 + n^2, C) of a square grid to (1 + h w, C).

    The first position, of the class token, is unchanged. The others are interpolated by cubic
    convolution without anti-aliasing (Keys 1981 with a = -0.75, borders repeated, corners not
    aligned), as DINOv2 does for other image sizes: it was trained at 37 x 37 patches.
    """
    side = math.isqrt(len(positions) - 1)
    if side * side != len(positions) - 1:
        problem = f"its {len(positions)} positions are no class token and a square"
        raise InputError(where, problem, "give its original file")
    square = positions[1:].reshape(side, side, -1)
    down, across = (_cubic(side, size) for size in grid)
    found = np.einsum("hy,wx,yxc->hwc", down, across, square, optimize=True)
    found = found.reshape(-1, positions.shape[-1])
    return np.concatenate([positions[:1], found]).astype(np.float32)


def _cubic(size: int, wanted: int) -> np.ndarray:
    """The matrix (wanted, size) that interpolates a row of `size` numbers at `wanted` points.

    The points are the centres of `wanted` equal parts.
    """
    a, at = -0.75, (np.arange(wanted) + 0.5) * size / wanted - 0.5
    matrix = np.zeros((wanted, size))
    for tap in range(-1, 3):
        index = np.floor(at) + tap
        x = np.abs(at - index)
        inner = ((a + 2) * x - (a + 3)) * x * x + 1  # Keys' kernel for |x| <= 1
        outer = ((x - 5) * x + 8) * x * a - 4 * a  # and for 1 < |x| < 2
        column = np.clip(index, 0, size - 1).astype(int)
        np.add.at(matrix, (np.arange(wanted), column), np.where(x <= 1, inner, outer))
    return matrix
