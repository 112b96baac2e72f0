"""Pictures for the tests of the hand networks, made of arithmetic alone."""

import numpy as np

# Joints as shares of the picture, x and y: an open hand, its thumb on the left.
WRIST = (0.50, 0.86)
FINGERS = (
    ((0.40, 0.78), (0.30, 0.68), (0.24, 0.59), (0.18, 0.51)),
    ((0.42, 0.55), (0.39, 0.41), (0.37, 0.32), (0.36, 0.24)),
    ((0.50, 0.53), (0.50, 0.37), (0.50, 0.27), (0.50, 0.18)),
    ((0.57, 0.55), (0.60, 0.41), (0.61, 0.32), (0.62, 0.24)),
    ((0.64, 0.60), (0.69, 0.49), (0.72, 0.42), (0.74, 0.36)),
)


def hand(size: int) -> np.ndarray:
    """A hand on a plain ground, uint8 (size, size, 3): the network sees the palm of a left one."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    image = np.stack([90 + 30 * y, 110 - 20 * x, 120 + 0 * x], -1)

    def capsule(start, end, radius):
        start, end = np.array(start), np.array(end)
        along = end - start
        t = ((x - start[0]) * along[0] + (y - start[1]) * along[1]) / max(along @ along, 1e-9)
        t = np.clip(t, 0, 1)
        distance = np.hypot(x - start[0] - t * along[0], y - start[1] - t * along[1])
        cover = np.clip((radius - distance) * size + 0.5, 0, 1)[..., None]
        light = 1 - 0.4 * (distance / radius).clip(0, 1)[..., None] ** 2
        image[...] = image * (1 - cover) + np.array((215, 160, 130)) * light * cover

    capsule((WRIST[0], 1.2), WRIST, 0.085)
    for first, *others in FINGERS:
        capsule(WRIST, first, 0.07)
        for start, end in zip([first, *others], others, strict=False):
            capsule(start, end, 0.036)
    return image.round().clip(0, 255).astype(np.uint8)


def waves(size: int, seed: int = 0) -> np.ndarray:
    """Smooth random colours: uint8 (size, size, 3)."""
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    image = np.zeros((size, size, 3))
    for amplitude in rng.uniform(10, 40, 12):
        along = rng.uniform(-25, 25, 2)
        colour, phase = rng.uniform(-1, 1, 3), rng.uniform(0, 2 * np.pi)
        image += amplitude * colour * np.cos(along[0] * x + along[1] * y + phase)[..., None]
    return (image + 128).round().clip(0, 255).astype(np.uint8)


def network_inputs(size: int) -> np.ndarray:
    """The inputs of the recorded reference: float32 (2, size, size, 3), values 0..1."""
    return np.stack([hand(size), waves(size)]).astype(np.float32) / np.float32(255)
