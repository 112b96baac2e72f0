"""Random tensors under the names and with the shapes of the published checkpoints."""

import numpy as np

Tensors = dict[str, np.ndarray]


def _fill(shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> Tensors:
    """Weights that keep the size of what passes through; norms near 1."""
    arrays = {}
    for name, shape in shapes.items():
        fan = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        is_norm = len(shape) == 1 and name.endswith("weight")
        arrays[name] = (
            rng.normal(0, 1 / np.sqrt(fan) if len(shape) > 1 else 0.1, shape) + is_norm
        ).astype(np.float32)
    return arrays


def linear(name: str, out: int, size_in: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, size_in)} | ({f"{name}.bias": (out,)} if bias else {})


def norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def backbone(width: int, depth: int, rng: np.random.Generator) -> Tensors:
    """mmpose's and HMR2's ViT."""
    shapes = {
        "pos_embed": (1, 193, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
    }
    for i in range(depth):
        at = f"blocks.{i}"
        shapes |= norm(f"{at}.norm1", width) | norm(f"{at}.norm2", width)
        shapes |= linear(f"{at}.attn.qkv", 3 * width, width) | linear(
            f"{at}.attn.proj", width, width
        )
        shapes |= linear(f"{at}.mlp.fc1", 4 * width, width) | linear(
            f"{at}.mlp.fc2", width, 4 * width
        )
    return _fill(shapes | norm("last_norm", width), rng)


def dinov2(width: int, depth: int, rng: np.random.Generator, side: int = 37) -> Tensors:
    """DINOv2's, under Meta's names; `side` patches down and across."""
    shapes = {
        "cls_token": (1, 1, width),
        "mask_token": (1, width),
        "pos_embed": (1, side * side + 1, width),
    }
    shapes |= {"patch_embed.proj.weight": (width, 3, 14, 14), "patch_embed.proj.bias": (width,)}
    for i in range(depth):
        at = f"blocks.{i}"
        shapes |= (
            norm(f"{at}.norm1", width)
            | norm(f"{at}.norm2", width)
            | {f"{at}.ls1.gamma": (width,), f"{at}.ls2.gamma": (width,)}
        )
        shapes |= linear(f"{at}.attn.qkv", 3 * width, width) | linear(
            f"{at}.attn.proj", width, width
        )
        shapes |= linear(f"{at}.mlp.fc1", 4 * width, width) | linear(
            f"{at}.mlp.fc2", width, 4 * width
        )
    return _fill(shapes | norm("norm", width), rng)


def _decoder(
    width: int, context: int, layers: int, inner: int, mlp: int
) -> dict[str, tuple[int, ...]]:
    shapes = {
        "init_body_pose": (1, 144),
        "init_betas": (1, 10),
        "init_cam": (1, 3),
        "transformer.pos_embedding": (1, 1, width),
    }
    shapes |= linear("transformer.to_token_embedding", width, 1)
    for i in range(layers):
        at = f"transformer.transformer.layers.{i}"
        for part in range(3):
            shapes |= norm(f"{at}.{part}.norm", width)
        shapes |= linear(f"{at}.0.fn.to_qkv", 3 * inner, width, False) | linear(
            f"{at}.0.fn.to_out.0", width, inner
        )
        shapes |= linear(f"{at}.1.fn.to_kv", 2 * inner, context, False) | linear(
            f"{at}.1.fn.to_q", inner, width, False
        )
        shapes |= linear(f"{at}.1.fn.to_out.0", width, inner)
        shapes |= linear(f"{at}.2.fn.net.0", mlp, width) | linear(f"{at}.2.fn.net.3", width, mlp)
    return shapes | linear("decshape", 10, width) | linear("deccam", 3, width)


def hmr2_head(
    rng: np.random.Generator,
    width: int = 1024,
    context: int = 1280,
    layers: int = 6,
    inner: int = 512,
    mlp: int = 1024,
) -> Tensors:
    """HMR2.0's."""
    return _fill(_decoder(width, context, layers, inner, mlp) | linear("decpose", 144, width), rng)


def hamer_head(rng: np.random.Generator, width: int = 32, context: int = 384) -> Tensors:
    """HaMeR's, in a small width (hamer/models/heads/mano_head.py): 16 rotations in 6D."""
    shapes = _decoder(width, context, layers=1, inner=16, mlp=32)
    del shapes["init_body_pose"]
    return _fill(shapes | {"init_hand_pose": (1, 96)} | linear("decpose", 96, width), rng)


def tokenhmr_head(
    rng: np.random.Generator,
    width: int = 1024,
    context: int = 1280,
    layers: int = 6,
    inner: int = 512,
    mlp: int = 1024,
) -> Tensors:
    """TokenHMR's."""
    shapes = (
        _decoder(width, context, layers, inner, mlp)
        | linear("decpose_grot", 6, width)
        | linear("decpose_hands", 12, width)
    )
    shapes |= linear("decpose.mixer_trans.ff.0", 160 * 64, width) | norm(
        "decpose.mixer_trans.ff.1", 160 * 64
    )
    for i in range(4):
        at = f"decpose.mixer_head.{i}"
        shapes |= norm(f"{at}.layernorm1", 64) | norm(f"{at}.layernorm2", 64)
        shapes |= linear(f"{at}.MLP_token.ff.0", 64, 160) | linear(f"{at}.MLP_token.ff.3", 160, 64)
        shapes |= linear(f"{at}.MLP_channel.ff.0", 256, 64) | linear(
            f"{at}.MLP_channel.ff.3", 64, 256
        )
    shapes |= linear("decpose.mixer_norm_layer.ff.0", 64, 64) | norm(
        "decpose.mixer_norm_layer.ff.1", 64
    )
    return _fill(shapes | linear("decpose.class_pred_layer", 2048, 64), rng)


def tokenizer(rng: np.random.Generator) -> Tensors:
    """The `net` of TokenHMR's tokenizer.pth."""
    conv = lambda name, out, size_in, taps: {
        f"{name}.weight": (out, size_in, taps),
        f"{name}.bias": (out,),
    }
    shapes = (
        {"quantizer.codebook": (2048, 256)}
        | conv("encoder.encoder.0", 512, 6, 3)
        | conv("decoder.decoder.0", 512, 256, 3)
    )
    for side in ("encoder.encoder", "decoder.decoder"):
        for index in (3, 6, 9, 12):
            shapes |= conv(f"{side}.{index}", 512, 512, 3)
    for blocks in ("encoder.encoder.14.1.model", "decoder.decoder.14.0.model"):
        for i in range(2):
            shapes |= conv(f"{blocks}.{i}.conv1", 512, 512, 3) | conv(
                f"{blocks}.{i}.conv2", 512, 512, 1
            )
    shapes |= conv("encoder.encoder.14.0", 512, 512, 4) | conv("encoder.encoder.15", 256, 512, 3)
    return _fill(
        shapes | conv("decoder.decoder.14.1", 512, 512, 3) | conv("decoder.decoder.15", 6, 512, 3),
        rng,
    )


def hugging_face(tensors: Tensors) -> Tensors:
    """mmpose's names -> those of transformers' VitPose backbone."""
    renamed = {
        "pos_embed": "embeddings.position_embeddings",
        "last_norm": "layernorm",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
    }
    inside = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    found = {}
    for name, array in tensors.items():
        stem, _, kind = name.rpartition(".")
        if name == "pos_embed":
            found[f"backbone.{renamed[name]}"] = array
        elif stem in renamed:
            found[f"backbone.{renamed[stem]}.{kind}"] = array
        elif stem.endswith("attn.qkv"):
            layer = stem.split(".")[1]
            for part, piece in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                found[f"backbone.encoder.layer.{layer}.attention.attention.{part}.{kind}"] = piece
        else:
            _, layer, part = stem.split(".", 2)
            found[f"backbone.encoder.layer.{layer}.{inside[part]}.{kind}"] = array
    return found
