"""HMR2.0's and TokenHMR's heads and TokenHMR's tokenizer: their names -> ours (models/baselines/)."""

from genhmr_jax.convert.layouts import Rules

_LINEAR = (("weight", "kernel"), ("bias", "bias"))


def _linear(pattern: str, ours: str, kinds: tuple = _LINEAR) -> Rules:
    return [(rf"{pattern}\.{theirs}", f"{ours}.{name}") for theirs, name in kinds]


def _norm(pattern: str, ours: str) -> Rules:
    return _linear(pattern, ours, (("weight", "scale"), ("bias", "bias")))


_LAYER = r"transformer\.transformer\.layers\.(\d+)"
DECODER: Rules = [
    (r"transformer\.pos_embedding", "decoder.position"),
    *_linear(r"transformer\.to_token_embedding", "decoder.query"),
    *_norm(rf"{_LAYER}\.0\.norm", r"decoder.layers.layer_\1.self_norm"),
    *_linear(rf"{_LAYER}\.0\.fn\.to_qkv", r"decoder.layers.layer_\1.self_qkv"),
    *_linear(rf"{_LAYER}\.0\.fn\.to_out\.0", r"decoder.layers.layer_\1.self_out"),
    *_norm(rf"{_LAYER}\.1\.norm", r"decoder.layers.layer_\1.cross_norm"),
    *_linear(rf"{_LAYER}\.1\.fn\.to_kv", r"decoder.layers.layer_\1.cross_kv"),
    *_linear(rf"{_LAYER}\.1\.fn\.to_q", r"decoder.layers.layer_\1.cross_q"),
    *_linear(rf"{_LAYER}\.1\.fn\.to_out\.0", r"decoder.layers.layer_\1.cross_out"),
    *_norm(rf"{_LAYER}\.2\.norm", r"decoder.layers.layer_\1.mlp_norm"),
    *_linear(rf"{_LAYER}\.2\.fn\.net\.0", r"decoder.layers.layer_\1.up"),
    *_linear(rf"{_LAYER}\.2\.fn\.net\.3", r"decoder.layers.layer_\1.down"),
]
MEAN: Rules = [("init_body_pose", "mean.pose"), ("init_betas", "mean.betas"), ("init_cam", "mean.camera")]
HMR2_HEAD: Rules = [*DECODER, *MEAN, *_linear("decpose", "pose"), *_linear("decshape", "betas"), *_linear("deccam", "camera")]

_MIXER = r"decpose\.mixer_head\.(\d+)"
TOKENHMR_HEAD: Rules = [
    *DECODER,
    *MEAN,
    *_linear("decpose_grot", "orient"),
    *_linear("decpose_hands", "hands"),
    *_linear("decshape", "betas"),
    *_linear("deccam", "camera"),
    *_linear(r"decpose\.mixer_trans\.ff\.0", "classifier.spread"),
    *_norm(r"decpose\.mixer_trans\.ff\.1", "classifier.spread_norm"),
    *_norm(rf"{_MIXER}\.layernorm1", r"classifier.mixers.mixer_\1.norm1"),
    *_norm(rf"{_MIXER}\.layernorm2", r"classifier.mixers.mixer_\1.norm2"),
    *_linear(rf"{_MIXER}\.MLP_token\.ff\.0", r"classifier.mixers.mixer_\1.token_up"),
    *_linear(rf"{_MIXER}\.MLP_token\.ff\.3", r"classifier.mixers.mixer_\1.token_down"),
    *_linear(rf"{_MIXER}\.MLP_channel\.ff\.0", r"classifier.mixers.mixer_\1.channel_up"),
    *_linear(rf"{_MIXER}\.MLP_channel\.ff\.3", r"classifier.mixers.mixer_\1.channel_down"),
    *_linear(r"decpose\.mixer_norm_layer\.ff\.0", "classifier.last"),
    *_norm(r"decpose\.mixer_norm_layer\.ff\.1", "classifier.last_norm"),
    *_linear(r"decpose\.class_pred_layer", "classifier.classes"),
]


def _stack(side: str) -> Rules:
    """What encoder and decoder of the tokenizer share: a convolution, four resized ones, and the last."""
    middle = [rule for i in range(4) for rule in _linear(rf"{side}\.{side}\.{3 * i + 3}", f"resized.conv_{i}")]
    return [*_linear(rf"{side}\.{side}\.0", "inp"), *middle, *_linear(rf"{side}\.{side}\.15", "out")]


TOKEN_ENCODER: Rules = [
    *_stack("encoder"),
    *_linear(r"encoder\.encoder\.14\.0", "halve"),
    *_linear(r"encoder\.encoder\.14\.1\.model\.(\d)\.(conv[12])", r"blocks.blocks.block_\1.\2"),
]
TOKEN_DECODER: Rules = [
    *_stack("decoder"),
    *_linear(r"decoder\.decoder\.14\.0\.model\.(\d)\.(conv[12])", r"blocks.blocks.block_\1.\2"),
    *_linear(r"decoder\.decoder\.14\.1", "mix"),
]
