"""The crop of imported regressors against crops that the public code cut (public_outputs.npz).

It ran with OpenCV 4 and scikit-image.
"""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from genhmr_jax.core.system import PhotoCamera
from genhmr_jax.detect.detections import Detections
from genhmr_jax.evaluate import predictions
from genhmr_jax.evaluate.runner import ModelPredictor
from genhmr_jax.geometry import camera
from genhmr_jax.geometry import crop as own_crop
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.published_crop import crop_image
from genhmr_jax.recover import photo
from genhmr_jax.systems.regressors.model import RegressorSpec
from genhmr_jax.systems.regressors.system import RegressorSystem
from support import public_inputs as inputs
from support.paths import SUPPORT

PUBLIC = np.load(SUPPORT / "public_outputs.npz")
BOXES = list(enumerate(inputs.BOXES.items()))


def seen(crop):
    """The recorded pixels of a crop, 0..255."""
    return 255 * crop[inputs.SEEN]


@pytest.mark.parametrize(
    ("row", "box"), [(row, box) for row, (_, box) in BOXES], ids=[name for _, (name, _) in BOXES]
)
def test_crops(row, box):
    picture, square = inputs.picture(), camera.square_around(np.float32(box))
    np.testing.assert_allclose(square, PUBLIC["squares"][row], rtol=1e-6)
    for blur, wanted in ((True, PUBLIC["demo"][row]), (False, PUBLIC["evaluation"][row])):
        found = crop_image(picture, square, blur=blur)
        assert found.shape == (256, 256, 3) and found.dtype == np.float32
        np.testing.assert_allclose(seen(found), wanted, atol=1e-3)
    own = seen(own_crop.crop_image(picture, square))
    assert np.abs(own - PUBLIC["demo"][row]).mean() > 1.0 or row == 1, (
        "our own crop is another one, but at the size of the picture"
    )


def people_in(boxes):
    """People of whom only the boxes are known."""
    return dataclasses.replace(Detections.empty(len(boxes)), boxes=np.float32(boxes))


def system(crop):
    """A regressor; its inputs do not depend on parameters."""
    return RegressorSystem(RegressorSpec("hmr2", "vit_s", crop=crop))


CAMERA = PhotoCamera(1000.0, (320.0, 240.0))


def test_photos_are_cut_as_the_demo_does():
    people = people_in(list(inputs.BOXES.values()))
    found = system("hmr2").prepare(inputs.picture(), people, CAMERA, 8).images
    assert found.shape == (8, 256, 256, 3) and not found[6:].any()
    for row, wanted in enumerate(PUBLIC["demo"]):
        np.testing.assert_allclose(seen(found[row]), wanted, atol=1e-3)


def test_records_are_cut_as_the_evaluation_does(monkeypatch):
    monkeypatch.setattr(predictions, "detect", lambda image, boxes, *_, **__: people_in(boxes))
    predictor = ModelPredictor(photo.Recoverer(system("hmr2"), {}, load_body("lite")))
    stream = io.BytesIO()
    Image.fromarray(inputs.picture()).save(stream, "PNG")
    record = {
        "sequence": "s",
        "frame": 0,
        "person": 0,
        "image_name": "x.png",
        "image": stream.getvalue(),
        "has_intrinsics": 0.0,
    }
    for row, (_, box) in BOXES:
        found = predictor.prepare(record | {"box": np.float32(box)}).inputs.images
        np.testing.assert_allclose(seen(found[0]), PUBLIC["evaluation"][row], atol=1e-3)


def test_own_regressors_keep_the_own_crop():
    box = inputs.BOXES["shrunk"]
    found = system("own").prepare(inputs.picture(), people_in([box]), CAMERA, 1).images
    np.testing.assert_array_equal(
        found[0], own_crop.crop_image(inputs.picture(), camera.square_around(np.float32(box)))
    )


def test_nobody_has_inputs():
    """Where nobody is found, as happens in a test set, there is an empty row and no error."""
    for crop in ("own", "hmr2"):
        image = np.zeros((90, 70, 3), np.uint8)
        for people in (Detections.empty(0), Detections.empty(1)):
            found = system(crop).prepare(image, people, CAMERA, 1)
            assert found.images.shape == (1, 256, 256, 3) and np.isfinite(found.view.crop).all()


def test_a_crop_beside_the_picture_is_black():
    for crop in ((-500, 100, 200), (300, 5000, 1500)):
        assert not crop_image(inputs.picture(), np.array(crop)).any()


def test_a_crop_without_size():
    for crop in ((10, 10, 0), (10, np.nan, 5), (np.inf, 10, 5)):
        with pytest.raises(ValueError, match="positive side"):
            crop_image(inputs.picture(), np.array(crop))
