"""The ViT of ViTPose, HMR2 and TokenHMR, from their checkpoints to models/vit.py.

Names and shapes of the tensors: mmpose's (`backbone.blocks.0.attn.qkv.weight`, with or without the prefix; HMR2's and TokenHMR's are
the same) and Hugging Face's (`backbone.encoder.layer.0.attention.attention.query.weight`; query, key and value apart).
"""

import re
from collections.abc import Mapping

import numpy as np

from genhmr_jax.convert.torch_files import LazyTensor
from genhmr_jax.errors import InputError
from genhmr_jax.models.vit import SIZES

LINEAR, CONV, KEEP, POSITIONS = "linear", "conv", "keep", "positions"

# A name of the checkpoint -> a name of ours, and how it is turned. {n} is the layer.
MMPOSE = {
    "pos_embed": ("position", POSITIONS),
    "patch_embed.proj.weight": ("patch.kernel", CONV),
    "patch_embed.proj.bias": ("patch.bias", KEEP),
    "last_norm.weight": ("norm.scale", KEEP),
    "last_norm.bias": ("norm.bias", KEEP),
    "blocks.{n}.attn.qkv.weight": ("blocks.qkv.kernel", LINEAR),
    "blocks.{n}.attn.qkv.bias": ("blocks.qkv.bias", KEEP),
    "blocks.{n}.attn.proj.weight": ("blocks.proj.kernel", LINEAR),
    "blocks.{n}.attn.proj.bias": ("blocks.proj.bias", KEEP),
    **{f"blocks.{{n}}.{norm}.weight": (f"blocks.{norm}.scale", KEEP) for norm in ("norm1", "norm2")},
    **{f"blocks.{{n}}.{norm}.bias": (f"blocks.{norm}.bias", KEEP) for norm in ("norm1", "norm2")},
    **{f"blocks.{{n}}.mlp.{fc}.weight": (f"blocks.{fc}.kernel", LINEAR) for fc in ("fc1", "fc2")},
    **{f"blocks.{{n}}.mlp.{fc}.bias": (f"blocks.{fc}.bias", KEEP) for fc in ("fc1", "fc2")},
}
# Hugging Face's name of each of mmpose's; query, key and value are put together first (`_join_qkv`).
HUGGING_FACE = {
    r"embeddings\.position_embeddings": "pos_embed",
    r"embeddings\.patch_embeddings\.projection\.(weight|bias)": r"patch_embed.proj.\1",
    r"layernorm\.(weight|bias)": r"last_norm.\1",
    r"encoder\.layer\.(\d+)\.attention\.attention\.qkv\.(weight|bias)": r"blocks.\1.attn.qkv.\2",
    r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(weight|bias)": r"blocks.\1.attn.proj.\2",
    r"encoder\.layer\.(\d+)\.layernorm_before\.(weight|bias)": r"blocks.\1.norm1.\2",
    r"encoder\.layer\.(\d+)\.layernorm_after\.(weight|bias)": r"blocks.\1.norm2.\2",
    r"encoder\.layer\.(\d+)\.mlp\.(fc1|fc2)\.(weight|bias)": r"blocks.\1.mlp.\2.\3",
}


def convert(tensors: Mapping[str, LazyTensor | np.ndarray], where: object) -> tuple[str, dict, dict[str, list[str]]]:
    """A checkpoint's backbone as the parameters of models.vit.Vit.

    Args:
      tensors: of the whole checkpoint, by name; what belongs to other parts is left alone.
      where: the file, for messages.

    Returns:
      the size ("s", "b", "l", "h"); the parameters, float32, blocks stacked; names under "loaded" and "unused".

    Raises:
      InputError: no ViT in it, a tensor missing, or one of a wrong shape: nothing is loaded in part.
    """
    known, unused = _in_mmpose_names(tensors)
    if "pos_embed" not in known or "patch_embed.proj.weight" not in known:
        remedy = "give a ViTPose .pth, an HMR2 or TokenHMR .ckpt, or Hugging Face's usyd-community/vitpose*"
        if any(".experts." in name for name in tensors):
            remedy = "a ViTPose++ file: merge its experts first (its tools/model_split.py), and give the merged file"
        raise InputError(where, "holds no ViT backbone", remedy)
    width = _shape(known["pos_embed"])[-1]
    size = next((name for name, (w, depth, _) in SIZES.items() if w == width and f"blocks.{depth - 1}.norm1.weight" in known), None)
    if size is None or f"blocks.{SIZES[size][1]}.norm1.weight" in known:
        sizes = ", ".join(f"{n}: {w} wide, {d} layers" for n, (w, d, _) in SIZES.items())
        raise InputError(where, f"its backbone is {width} wide and of no known depth", f"known are {sizes}")
    expected = expected_shapes(size)
    if missing := sorted(set(expected) - set(known)):
        raise InputError(where, f"its backbone lacks {missing[0]} and {len(missing) - 1} more", "give the whole checkpoint")
    for name, shape in expected.items():
        if _shape(known[name]) != shape:
            raise InputError(
                where, f"{name} is {_shape(known[name])}, but a ViT-{size.upper()} of 256 x 192 px has {shape}", "give its original file"
            )
    unused += sorted(set(known) - set(expected))
    return size, _ours(known, size, where), {"loaded": sorted(expected), "unused": sorted(unused)}


def expected_shapes(size: str) -> dict[str, tuple[int, ...]]:
    """Names (mmpose's) and shapes of the tensors of a ViT-S/B/L/H of 256 x 192 px."""
    width, depth, _ = SIZES[size]
    shapes = {"pos_embed": (1, 193, width), "patch_embed.proj.weight": (width, 3, 16, 16), "patch_embed.proj.bias": (width,)}
    shapes |= {"last_norm.weight": (width,), "last_norm.bias": (width,)}
    for n in range(depth):
        linear = {"attn.qkv": (3 * width, width), "attn.proj": (width, width), "mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        for part, shape in linear.items():
            shapes |= {f"blocks.{n}.{part}.weight": shape, f"blocks.{n}.{part}.bias": shape[:1]}
        for part in ("norm1", "norm2"):
            shapes |= {f"blocks.{n}.{part}.weight": (width,), f"blocks.{n}.{part}.bias": (width,)}
    return shapes


def _in_mmpose_names(tensors: Mapping[str, LazyTensor | np.ndarray]) -> tuple[dict[str, LazyTensor | np.ndarray], list[str]]:
    """The backbone's tensors under mmpose's names, without a prefix; and the names of all others."""
    prefix = next(
        (p for p in ("state_dict.backbone.", "state_dict.", "backbone.", "") if any(n.startswith(p + "blocks.0.") for n in tensors)), None
    )
    if prefix is not None:
        inside = {name: name.removeprefix(prefix) for name in tensors if name.startswith(prefix)}
        inside = {
            name: short for name, short in inside.items() if short.split(".")[0] in ("pos_embed", "patch_embed", "last_norm", "blocks")
        }
        return {short: tensors[name] for name, short in inside.items()}, sorted(set(tensors) - set(inside))
    known, unused = {}, []
    for name, tensor in _join_qkv(tensors).items():
        short = name.removeprefix("state_dict.").removeprefix("backbone.")
        found = next((re.sub(p, r, short) for p, r in HUGGING_FACE.items() if re.fullmatch(p, short)), None)
        if found:
            known[found] = tensor
        else:
            unused.append(name)
    return known, unused


def _join_qkv(tensors: Mapping[str, LazyTensor | np.ndarray]) -> dict[str, LazyTensor | np.ndarray]:
    """Hugging Face keeps query, key and value apart; our kernel, like mmpose's, is one with the three in this order."""
    joined = dict(tensors)
    for name in tensors:
        if re.search(r"\.attention\.attention\.query\.(weight|bias)$", name):
            parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
            if all(part in tensors for part in parts):
                joined[name.replace(".query.", ".qkv.")] = np.concatenate([_load(joined.pop(part)) for part in parts])
    return joined


def _ours(known: Mapping[str, LazyTensor | np.ndarray], size: str, where: object) -> dict:
    """Tensors under mmpose's names -> the nested parameters of models.vit.Vit."""
    params: dict = {}
    for source, (target, how) in MMPOSE.items():
        names = [source.format(n=n) for n in range(SIZES[size][1])] if "{n}" in source else [source]
        arrays = [_turned(_finite(known[name], name, where), how) for name in names]
        node = params
        *path, last = target.split(".")
        for part in path:
            node = node.setdefault(part, {})
        node[last] = np.stack(arrays) if "{n}" in source else arrays[0]
    return params


def _turned(array: np.ndarray, how: str) -> np.ndarray:
    """PyTorch's layout -> ours: (out, in) -> (in, out), OIHW -> HWIO, positions without their batch axis."""
    if how == LINEAR:
        return np.ascontiguousarray(array.T)
    if how == CONV:
        return np.ascontiguousarray(array.transpose(2, 3, 1, 0))
    return array[0] if how == POSITIONS else array


def _finite(tensor: LazyTensor | np.ndarray, name: str, where: object) -> np.ndarray:
    array = _load(tensor).astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(where, f"{name} holds numbers that are not finite", "download it again from its authors")
    return array


def _load(tensor: LazyTensor | np.ndarray) -> np.ndarray:
    return tensor.load() if isinstance(tensor, LazyTensor) else tensor


def _shape(tensor: LazyTensor | np.ndarray) -> tuple[int, ...]:
    return tuple(tensor.shape)
