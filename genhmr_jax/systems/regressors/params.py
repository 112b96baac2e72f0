"""Names in the checkpoints of HMR2.0 and TokenHMR -> our names; rules of io/torch_layouts.py."""

from genhmr_jax.io.torch_layouts import Rules

_LINEAR = (("weight", "kernel"), ("bias", "bias"))


def _linear(theirs: str, ours: str, kinds: tuple = _LINEAR) -> Rules:
    return [(f"{theirs}.{kind}", f"{ours}.{name}") for kind, name in kinds]


def _norm(theirs: str, ours: str) -> Rules:
    return _linear(theirs, ours, (("weight", "scale"), ("bias", "bias")))


_LAYER = "transformer.transformer.layers.{n}"
DECODER: Rules = [
    ("transformer.pos_embedding", "decoder.position"),
    *_linear("transformer.to_token_embedding", "decoder.query"),
    *_norm(f"{_LAYER}.0.norm", "decoder.layers.layer_{n}.self_norm"),
    *_linear(f"{_LAYER}.0.fn.to_qkv", "decoder.layers.layer_{n}.self_qkv"),
    *_linear(f"{_LAYER}.0.fn.to_out.0", "decoder.layers.layer_{n}.self_out"),
    *_norm(f"{_LAYER}.1.norm", "decoder.layers.layer_{n}.cross_norm"),
    *_linear(f"{_LAYER}.1.fn.to_kv", "decoder.layers.layer_{n}.cross_kv"),
    *_linear(f"{_LAYER}.1.fn.to_q", "decoder.layers.layer_{n}.cross_q"),
    *_linear(f"{_LAYER}.1.fn.to_out.0", "decoder.layers.layer_{n}.cross_out"),
    *_norm(f"{_LAYER}.2.norm", "decoder.layers.layer_{n}.mlp_norm"),
    *_linear(f"{_LAYER}.2.fn.net.0", "decoder.layers.layer_{n}.up"),
    *_linear(f"{_LAYER}.2.fn.net.3", "decoder.layers.layer_{n}.down"),
]
MEAN: Rules = [
    ("init_body_pose", "mean.pose"),
    ("init_betas", "mean.betas"),
    ("init_cam", "mean.camera"),
]
HMR2_HEAD: Rules = [
    *DECODER,
    *MEAN,
    *_linear("decpose", "pose"),
    *_linear("decshape", "betas"),
    *_linear("deccam", "camera"),
]

_MIXER = "decpose.mixer_head.{n}"
TOKENHMR_HEAD: Rules = [
    *DECODER,
    *MEAN,
    *_linear("decpose_grot", "orient"),
    *_linear("decpose_hands", "hands"),
    *_linear("decshape", "betas"),
    *_linear("deccam", "camera"),
    *_linear("decpose.mixer_trans.ff.0", "classifier.spread"),
    *_norm("decpose.mixer_trans.ff.1", "classifier.spread_norm"),
    *_norm(f"{_MIXER}.layernorm1", "classifier.mixers.mixer_{n}.norm1"),
    *_norm(f"{_MIXER}.layernorm2", "classifier.mixers.mixer_{n}.norm2"),
    *_linear(f"{_MIXER}.MLP_token.ff.0", "classifier.mixers.mixer_{n}.token_up"),
    *_linear(f"{_MIXER}.MLP_token.ff.3", "classifier.mixers.mixer_{n}.token_down"),
    *_linear(f"{_MIXER}.MLP_channel.ff.0", "classifier.mixers.mixer_{n}.channel_up"),
    *_linear(f"{_MIXER}.MLP_channel.ff.3", "classifier.mixers.mixer_{n}.channel_down"),
    *_linear("decpose.mixer_norm_layer.ff.0", "classifier.last"),
    *_norm("decpose.mixer_norm_layer.ff.1", "classifier.last_norm"),
    *_linear("decpose.class_pred_layer", "classifier.classes"),
]


_BLOCK = "decoder.decoder.14.0.model.{n}"
TOKEN_DECODER: Rules = [
    *_linear("decoder.decoder.0", "inp"),
    *_linear("decoder.decoder.3", "resized.conv_0"),
    *_linear("decoder.decoder.6", "resized.conv_1"),
    *_linear("decoder.decoder.9", "resized.conv_2"),
    *_linear("decoder.decoder.12", "resized.conv_3"),
    *_linear(f"{_BLOCK}.conv1", "blocks.blocks.block_{n}.conv1"),
    *_linear(f"{_BLOCK}.conv2", "blocks.blocks.block_{n}.conv2"),
    *_linear("decoder.decoder.14.1", "mix"),
    *_linear("decoder.decoder.15", "out"),
]
CODEBOOK: Rules = [("quantizer.codebook", "codebook")]
