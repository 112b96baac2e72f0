"""A drawn figure that the detector takes for a person: the input of its tests, made of arithmetic
alone."""

import numpy as np

# Joints as shares of the picture: x, y.
HEAD, NECK, HIP = (0.50, 0.16), (0.50, 0.26), (0.50, 0.52)
ARMS = (((0.43, 0.28), (0.35, 0.38), (0.27, 0.47)), ((0.57, 0.28), (0.66, 0.36), (0.74, 0.29)))
LEGS = (((0.46, 0.53), (0.43, 0.70), (0.41, 0.88)), ((0.54, 0.53), (0.58, 0.70), (0.60, 0.88)))


def figure(size: int) -> np.ndarray:
    """A person in a red shirt and blue trousers, arms out, on a plain ground: uint8 (size, size,
    3)."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    image = np.stack([190 - 40 * y, 200 - 20 * x, 180 + 30 * y], -1)
    skin, shirt, trousers = (205, 150, 120), (190, 40, 45), (40, 55, 120)

    def capsule(start, end, radius, colour):
        start, end = np.array(start), np.array(end)
        along = end - start
        t = np.clip(
            ((x - start[0]) * along[0] + (y - start[1]) * along[1]) / max(along @ along, 1e-9), 0, 1
        )
        distance = np.hypot(x - start[0] - t * along[0], y - start[1] - t * along[1])
        cover = np.clip((radius - distance) * size + 0.5, 0, 1)[..., None]
        light = 1 - 0.35 * (distance / radius).clip(0, 1)[..., None] ** 2
        image[...] = image * (1 - cover) + np.array(colour) * light * cover

    for hip, knee, ankle in LEGS:
        capsule(hip, knee, 0.042, trousers)
        capsule(knee, ankle, 0.032, trousers)
        capsule(
            ankle, (ankle[0] + 0.03 * np.sign(ankle[0] - 0.5), ankle[1] + 0.03), 0.022, (30, 30, 30)
        )
    for offset in (-0.04, 0.0, 0.04):
        capsule(
            (NECK[0] + offset, NECK[1] + 0.04), (HIP[0] + 0.8 * offset, HIP[1] - 0.02), 0.05, shirt
        )
    for shoulder, elbow, wrist in ARMS:
        capsule(shoulder, elbow, 0.03, shirt)
        capsule(elbow, wrist, 0.023, skin)
        capsule(wrist, wrist, 0.028, skin)
    capsule(HEAD, NECK, 0.028, skin)
    capsule((HEAD[0], HEAD[1] - 0.01), (HEAD[0], HEAD[1] + 0.015), 0.055, skin)
    capsule((HEAD[0], HEAD[1] - 0.04), (HEAD[0], HEAD[1] - 0.035), 0.052, (50, 35, 25))
    for side in (-1, 1):
        capsule(
            (HEAD[0] + 0.02 * side, HEAD[1]), (HEAD[0] + 0.02 * side, HEAD[1]), 0.007, (20, 20, 20)
        )
    capsule(
        (HEAD[0] - 0.015, HEAD[1] + 0.04), (HEAD[0] + 0.015, HEAD[1] + 0.04), 0.006, (150, 60, 60)
    )
    return image.round().astype(np.uint8)
