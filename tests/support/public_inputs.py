"""Weights, pictures and labels by seed, for the public code of HMR2.0 and TokenHMR and for ours.

`public_outputs.npz` holds what the public code made of them (record_public_outputs.py). Nothing
here depends on the version of NumPy: the bits of `RandomState` are frozen (NEP 19), the picture is
made of integers.
"""

import numpy as np

from support import published_names as published

Tensors = dict[str, np.ndarray]
SMALL = {"context": 40, "layers": 2, "inner": 32, "mlp": 24}
HMR2_WIDTH = 48  # TokenHMR's head has no other width than 1024
VIT_S = {"width": 384, "depth": 12}


class Uniform:
    """Draws uniform numbers where published_names asks a generator for normal ones."""

    def __init__(self, seed: int):
        self._bits = np.random.RandomState(seed)  # noqa: NPY002

    def normal(self, mean: float, deviation: float, shape: tuple[int, ...]) -> np.ndarray:
        """float64 of this shape, mean and standard deviation."""
        return mean + deviation * np.sqrt(12.0) * (self._bits.random_sample(shape) - 0.5)


def _with_mean_body(head: Tensors, draw: Uniform) -> Tensors:
    """Gives a mean body far from any rotation: adding it before or after Gram-Schmidt differs."""
    head["init_body_pose"] = draw.normal(0, 0.5, (1, 144)).astype(np.float32)
    head["init_betas"] = draw.normal(0, 0.5, (1, 10)).astype(np.float32)
    head["init_cam"] = draw.normal(0.9, 0.1, (1, 3)).astype(np.float32)
    return head


def hmr2_head(small: bool) -> Tensors:
    """Of HMR2.0, over 40 channels, or of the published size over a ViT-S."""
    draw, sizes = (
        Uniform(1),
        {"width": HMR2_WIDTH} | SMALL if small else {"context": VIT_S["width"]},
    )
    return _with_mean_body(published.hmr2_head(draw, **sizes), draw)


def tokenhmr_head(small: bool) -> Tensors:
    """Of TokenHMR. Its logits are large: with nearly even ones all images would get one pose."""
    draw, sizes = Uniform(2), SMALL if small else {"context": VIT_S["width"]}
    head = _with_mean_body(published.tokenhmr_head(draw, **sizes), draw)
    head["decpose.class_pred_layer.weight"] *= 20
    return head


def tokenizer() -> Tensors:
    """The `net` of TokenHMR's tokenizer.pth. Its codes and 6D numbers are about 1, not far less."""
    net = published.tokenizer(Uniform(3))
    net["quantizer.codebook"] *= 16
    net["decoder.decoder.15.weight"] *= 4
    return net


def backbone() -> Tensors:
    """A ViT-S under HMR2.0's names."""
    return published.backbone(**VIT_S, rng=Uniform(4))


def context(small: bool = True) -> np.ndarray:
    """(3, 7, 40): what the small heads read of three images."""
    return Uniform(5).normal(0, 1, (3, 7, SMALL["context"])).astype(np.float32)


def crops() -> np.ndarray:
    """(2, 256, 256, 3) in 0..1: two crops of `picture`."""
    whole = picture()
    return np.stack([whole[:256, :256], whole[300:556, 700:956]]).astype(np.float32) / np.float32(
        255
    )


def codes() -> np.ndarray:
    """(2, 160, 256): what the token decoder is given."""
    return Uniform(6).normal(0, 1, (2, 160, 256)).astype(np.float32)


def picture() -> np.ndarray:
    """uint8 (900, 1400, 3): slopes, edges and texture."""
    y, x, c = np.ogrid[:900, :1400, :3]
    slopes = 2 * abs((x + 11 * c) % 64 - 32) + abs((y - 7 * c) % 94 - 47)
    edges = 70 * ((x // 53 + y // 37 + c) % 2)
    texture = (7919 * x + 104729 * y + 1299709 * c + x * y) % 41
    return (slopes + edges + texture).astype(np.uint8)


BOXES = {
    "enlarged": (400.25, 300.5, 445.0, 420.75),
    "same size": (700.0, 100.0, 860.0, 356.0),
    "shrunk": (610.5, 220.25, 880.0, 720.75),
    "beyond the corner": (-60.5, -90.0, 120.0, 300.0),
    "wide and blurred": (350.0, 300.0, 1050.5, 610.0),
    "larger than the picture": (100.0, -120.0, 900.0, 1180.0),
}
"""xyxy px of `picture`; the squares around them are 120 to 1300 px wide."""
SEEN = (slice(7, None, 31), slice(5, None, 29))
"""The pixels of a crop that are recorded."""


def labels() -> dict[str, np.ndarray]:
    """Bodies that a network gave, and labels, of four rows: what the losses compare.

    Metres, radians, and crop sides from the crop's middle; rotations are axis-angle. `exact` rows
    are of datasets whose bodies were measured. Errors lie on both sides of the thresholds, and
    confidences between 0 and 1.
    """
    draw = Uniform(8)
    angles = np.concatenate([draw.normal(0, 0.4, (4, 24, 3)), draw.normal(0, 0.25, (4, 24, 3))])
    points = draw.normal(0, 0.4, (4, 23, 3))
    weak = [0.85, 0, 0] + draw.normal(0, 0.05, (4, 3))
    seen = (points[..., :2] + weak[:, None, 1:]) * weak[:, None, :1] / 2
    values = {
        "label_angles": angles[:4],
        "turns": angles[4:],  # a network's rotation is the label's times this one
        "joints": draw.normal(0, 0.4, (4, 24, 3)),
        "label_joints": draw.normal(0, 0.4, (4, 24, 3)),
        "points": points,
        "label_points2d": seen + draw.normal(0, 0.05, (4, 23, 2)),
        "confidence": np.clip(draw.normal(0.6, 0.4, (4, 23)), 0, 1),
        "betas": draw.normal(0, 1, (4, 10)),
        "label_betas": draw.normal(0, 1, (4, 10)),
        "weak": weak,
        "exact": np.array([1, 0, 0, 1]),
        "has_rotation": np.array([1, 1, 0, 1]),
        "has_betas": np.array([1, 1, 1, 0]),
        "points2d_thresholds": np.linspace(0.02, 0.09, 23),
        "angle_thresholds": np.linspace(0.6, 0.3, 24),
    }
    return {name: value.astype(np.float32) for name, value in values.items()}
