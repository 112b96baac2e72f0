"""HMR2.0's head and TokenHMR's tokenizer and head in plain float64 NumPy, over tensors under their published names.

Written from the facts alone (names, shapes, epsilons, order of operations), without the networks that they check. Tensors are in PyTorch's
layouts.
"""

import math

import numpy as np

Tensors = dict[str, np.ndarray]
_erf = np.vectorize(math.erf)


def gelu(x: np.ndarray) -> np.ndarray:
    """x Phi(x), exactly."""
    return x * 0.5 * (1.0 + _erf(x / math.sqrt(2.0)))


def linear(t: Tensors, name: str, x: np.ndarray) -> np.ndarray:
    """x W^T + b."""
    return x @ t[f"{name}.weight"].T.astype(np.float64) + t.get(f"{name}.bias", 0.0)


def norm(t: Tensors, name: str, x: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """LayerNorm over the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * t[f"{name}.weight"] + t[f"{name}.bias"]


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int) -> np.ndarray:
    """Heads are consecutive slices of the channels; scores are divided by the root of a head's width."""
    width = q.shape[-1] // heads
    out = [
        softmax(q[..., s] @ np.swapaxes(k[..., s], -1, -2) / math.sqrt(width)) @ v[..., s]
        for s in (slice(h * width, (h + 1) * width) for h in range(heads))
    ]
    return np.concatenate(out, -1)


def query(t: Tensors, context: np.ndarray, layers: int, heads: int) -> np.ndarray:
    """(B, S, E) -> (B, C): the decoder of both."""
    x = linear(t, "transformer.to_token_embedding", np.zeros((len(context), 1, 1))) + t["transformer.pos_embedding"]
    for i in range(layers):
        at = f"transformer.transformer.layers.{i}"
        q, k, v = np.split(linear(t, f"{at}.0.fn.to_qkv", norm(t, f"{at}.0.norm", x)), 3, -1)
        x = x + linear(t, f"{at}.0.fn.to_out.0", attention(q, k, v, heads))
        k, v = np.split(linear(t, f"{at}.1.fn.to_kv", context), 2, -1)
        q = linear(t, f"{at}.1.fn.to_q", norm(t, f"{at}.1.norm", x))
        x = x + linear(t, f"{at}.1.fn.to_out.0", attention(q, k, v, heads))
        x = x + linear(t, f"{at}.2.fn.net.3", gelu(linear(t, f"{at}.2.fn.net.0", norm(t, f"{at}.2.norm", x))))
    return x[:, 0]


def gram_schmidt(x: np.ndarray, columns: bool) -> np.ndarray:
    """(..., 6), two vectors of three -> rotation matrices with them as columns, or as rows."""
    a, b = x[..., :3], x[..., 3:]
    a = a / np.linalg.norm(a, axis=-1, keepdims=True)
    b = b - (a * b).sum(-1, keepdims=True) * a
    b = b / np.linalg.norm(b, axis=-1, keepdims=True)
    return np.stack([a, b, np.cross(a, b)], -1 if columns else -2)


def hmr2(t: Tensors, context: np.ndarray, layers: int, heads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotation matrices (B, 24, 3, 3), betas, camera."""
    x = query(t, context, layers, heads)
    pose = linear(t, "decpose", x) + t["init_body_pose"]
    return gram_schmidt(pose.reshape(-1, 24, 6), True), linear(t, "decshape", x) + t["init_betas"], linear(t, "deccam", x) + t["init_cam"]


def conv(t: Tensors, name: str, x: np.ndarray, stride: int = 1, dilation: int = 1, padding: int | None = None) -> np.ndarray:
    """Conv1d of (B, C, n), zero padding; padded to keep the length unless said."""
    weight = t[f"{name}.weight"].astype(np.float64)
    taps = weight.shape[-1]
    padding = (taps - 1) * dilation // 2 if padding is None else padding
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding)))
    count = (x.shape[-1] - (taps - 1) * dilation - 1) // stride + 1
    out = sum(
        np.einsum("oi,bin->bon", weight[..., k], x[..., k * dilation :][..., : (count - 1) * stride + 1 : stride]) for k in range(taps)
    )
    return out + t[f"{name}.bias"][:, None]


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0)."""
    return np.maximum(x, 0.0)


def resize(x: np.ndarray, length: int) -> np.ndarray:
    """Nearest neighbour along the last axis."""
    return x[..., [i * x.shape[-1] // length for i in range(length)]]


def residual(t: Tensors, name: str, x: np.ndarray) -> np.ndarray:
    """Two residual blocks, dilated by 3 and by 1."""
    for i, dilation in enumerate((3, 1)):
        x = x + conv(t, f"{name}.{i}.conv2", relu(conv(t, f"{name}.{i}.conv1", relu(x), dilation=dilation)))
    return x


def token_encoder(t: Tensors, rotmats: np.ndarray) -> np.ndarray:
    """(B, 21, 3, 3) -> (B, 160, 256)."""
    x = relu(conv(t, "encoder.encoder.0", rotmats[..., :2, :].reshape(-1, 21, 6).swapaxes(1, 2)))
    for index, length in zip((3, 6, 9, 12), (40, 80, 160, 320), strict=True):
        x = relu(conv(t, f"encoder.encoder.{index}", resize(x, length)))
    x = conv(t, "encoder.encoder.14.0", x, stride=2, padding=1)
    return conv(t, "encoder.encoder.15", residual(t, "encoder.encoder.14.1.model", x)).swapaxes(1, 2)


def token_decoder(t: Tensors, embeddings: np.ndarray) -> np.ndarray:
    """(B, 160, 256) -> (B, 21, 3, 3)."""
    x = relu(conv(t, "decoder.decoder.0", embeddings.swapaxes(1, 2)))
    for index, length in zip((3, 6, 9, 12), (125, 90, 55, 21), strict=True):
        x = relu(conv(t, f"decoder.decoder.{index}", resize(x, length)))
    x = conv(t, "decoder.decoder.14.1", residual(t, "decoder.decoder.14.0.model", x))
    return gram_schmidt(conv(t, "decoder.decoder.15", x).swapaxes(1, 2), False)


def tokenhmr(t: Tensors, net: Tensors, context: np.ndarray, layers: int, heads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotation matrices (B, 24, 3, 3), betas, camera."""
    x = query(t, context, layers, heads)
    y = relu(norm(t, "decpose.mixer_trans.ff.1", linear(t, "decpose.mixer_trans.ff.0", x))).reshape(-1, 160, 64)
    for i in range(4):
        at = f"decpose.mixer_head.{i}"
        turned = norm(t, f"{at}.layernorm1", y).swapaxes(1, 2)
        mixed = linear(t, f"{at}.MLP_token.ff.3", gelu(linear(t, f"{at}.MLP_token.ff.0", turned))).swapaxes(1, 2)
        both = y + mixed
        y = both + linear(t, f"{at}.MLP_channel.ff.3", gelu(linear(t, f"{at}.MLP_channel.ff.0", norm(t, f"{at}.layernorm2", both))))
    y = relu(norm(t, "decpose.mixer_norm_layer.ff.1", linear(t, "decpose.mixer_norm_layer.ff.0", y)))
    body = token_decoder(net, softmax(linear(t, "decpose.class_pred_layer", y)) @ net["quantizer.codebook"])
    pose = [linear(t, "decpose_grot", x)[:, None], body[..., :2, :].reshape(-1, 21, 6), linear(t, "decpose_hands", x).reshape(-1, 2, 6)]
    pose = np.concatenate(pose, 1) + t["init_body_pose"].reshape(24, 6)
    return gram_schmidt(pose, False), linear(t, "decshape", x) + t["init_betas"], linear(t, "deccam", x) + t["init_cam"]
