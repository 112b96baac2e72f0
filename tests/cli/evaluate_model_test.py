"""The predictor of `genhmr eval` that recovers with a model."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import genhmr_jax
from genhmr_jax.evaluate import runner
from genhmr_jax.geometry.mean_pose import MEAN_POSE_72
from genhmr_jax.io.errors import InputError
from genhmr_jax.recover import photo

ASSETS = Path(genhmr_jax.__file__).parent / "assets"


def test_the_model_recovers_as_it_does_for_photos():
    """A record's person is the one whom `recover` returns for that box; who is not found has the
    mean pose."""
    recoverer = genhmr_jax.load(body="lite")
    data = (ASSETS / "sample" / "person.jpg").read_bytes()
    image = runner.decode(data, "sample")
    box = np.array([0.0, 0, image.shape[1], image.shape[0]], np.float32)
    record = {
        "image": data,
        "box": box,
        "sequence": "s",
        "frame": 0,
        "person": 0,
        "image_name": "person.jpg",
    }
    options = photo.RecoverOptions(iterations=2, refine_steps=0)
    wanted = recoverer.recover(image, boxes=box[None], options=options)
    predictor = runner.ModelPredictor(recoverer, (1, 2), 30)
    assert predictor.labels == (
        "T=1, sampling alone",
        "T=2, sampling alone",
        "T=1, with refinement",
        "T=2, with refinement",
    )
    assert [(o.iterations, o.refine_steps) for o in predictor.settings.values()] == [
        (1, 0),
        (2, 0),
        (1, 30),
        (2, 30),
    ]
    predictor = runner.ModelPredictor(recoverer, (2,), 0)
    prepared = predictor.prepare(record)
    empty = predictor.prepare(record | {"image": _grey(image.shape)})
    assert prepared.found.all() and not empty.found.any() and prepared.seconds.min() > 0
    ((label, found),) = predictor.predict(prepared, np.array([0]))
    assert label == "T=2, sampling alone" and found.seconds > 0
    np.testing.assert_allclose(
        found.pose, np.concatenate([wanted.global_orient, wanted.body_pose], -1), atol=2e-3
    )
    np.testing.assert_allclose(found.betas, wanted.betas, atol=2e-3)
    for _, prediction in predictor.predict(empty, np.array([7])):
        np.testing.assert_array_equal(prediction.pose, MEAN_POSE_72[None])
    with pytest.raises(InputError, match="has no image"):
        predictor.prepare(record | {"image": b""})
    with pytest.raises(InputError, match="no area inside the image"):
        predictor.prepare(record | {"box": box + 5000})


def _grey(shape):
    stream = io.BytesIO()
    Image.new("RGB", (shape[1], shape[0]), (128, 128, 128)).save(stream, "PNG")
    return stream.getvalue()
