"""What a camera makes of a picture."""

import numpy as np
from PIL import Image, ImageFilter


def noise(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exposure, slight blur and sensor noise; uint8 (S, S, 3) of a picture in 0..1."""
    picture = np.clip(picture * rng.uniform(0.8, 1.15), 0, 1)
    blur = ImageFilter.GaussianBlur(rng.uniform(0.0, 1.0))
    image = Image.fromarray((picture * 255).astype(np.uint8)).filter(blur)
    noisy = np.asarray(image, np.float32) + rng.normal(0, rng.uniform(0, 6), picture.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)
