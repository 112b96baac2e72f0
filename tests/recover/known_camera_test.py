"""Known cameras: a principal point away from the middle, against float64 forms of the published
formulas; the file of cameras."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax.cli import main
from genhmr_jax.data.annotations import user
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.io.errors import InputError


@pytest.fixture(scope="module")
def scene():
    """50 crops of a photo of 1280 x 720 px taken by a camera whose optical axis meets it far from
    the middle."""
    rng = np.random.default_rng(0)
    low, high = [100, 100, 80], [1100, 600, 500]
    weak = np.stack(
        [rng.uniform(0.3, 1.5, 50), rng.uniform(-0.3, 0.3, 50), rng.uniform(-0.3, 0.3, 50)], -1
    )
    return {
        "weak": weak,
        "crop": rng.uniform(low, high, (50, 3)),
        "focal": rng.uniform(600, 2500, 50),
        "principal": np.array([811.5, 240.25]),
    }


@pytest.fixture(scope="module")
def view(scene):
    """The cameras of those crops, float32 on the device."""
    principal = np.tile(scene["principal"], (50, 1))
    return CropCamera(*map(jnp.float32, (scene["crop"], scene["focal"], principal)))


def crop_to_full(weak, crop, principal, focal):
    """cam_crop_to_full of HMR2 and CLIFF's equation 1 with a known camera, in float64: (50, 3)
    metres."""
    bs = crop[:, 2] * weak[:, 0] + 1e-9
    return np.stack(
        [
            weak[:, 1] + 2 * (crop[:, 0] - principal[0]) / bs,
            weak[:, 2] + 2 * (crop[:, 1] - principal[1]) / bs,
            2 * focal / bs,
        ],
        -1,
    )


def test_the_crop_camera_in_the_full_image(scene, view):
    found = view.translation(jnp.float32(scene["weak"]))
    np.testing.assert_allclose(found, crop_to_full(**scene), rtol=2e-6, atol=1e-5)
    on_the_host = CropCamera(scene["crop"], scene["focal"], np.tile(scene["principal"], (50, 1)))
    back = on_the_host.weak(np.asarray(found, np.float64))
    np.testing.assert_allclose(back, scene["weak"], rtol=1e-4, atol=1e-4)


def test_hmr2_is_a_camera_in_the_middle_with_a_long_focal_length(scene):
    """F = 5000 / 256 max(W, H), tz = 2 F / (side s)."""
    focal = 5000 / 256 * 1280
    centre = jnp.tile(jnp.array([640.0, 360.0]), (50, 1))
    view = CropCamera(jnp.float32(scene["crop"]), jnp.full(50, focal), centre)
    found = view.translation(jnp.float32(scene["weak"]))
    np.testing.assert_allclose(
        found, crop_to_full(scene["weak"], scene["crop"], (640, 360), focal), rtol=2e-6, atol=1e-5
    )


def test_projection_with_the_principal_point(scene, view):
    """u = f X / Z + cx, by homogeneous coordinates in float64."""
    points = np.random.default_rng(1).uniform([-1, -1, 3], [1, 1, 9], (50, 20, 3))
    matrix = np.zeros((50, 3, 3))
    matrix[:, 0, 0] = matrix[:, 1, 1] = scene["focal"]
    matrix[:, :2, 2], matrix[:, 2, 2] = scene["principal"], 1
    image = np.einsum("bij,bkj->bki", matrix, points)
    found = view.project(jnp.float32(points))
    np.testing.assert_allclose(found, image[..., :2] / image[..., 2:], rtol=1e-5, atol=1e-2)


def test_box_information_is_cliffs(scene, view):
    found = view.box_information()
    wanted = (
        np.concatenate([scene["crop"][:, :2] - scene["principal"], scene["crop"][:, 2:]], -1)
        / scene["focal"][:, None]
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def write(folder, content) -> str:
    path = folder / "cameras.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_cameras_of_photos(tmp_path):
    matrix = [[1000, 0, 300.5], [0, 1004, 200], [0, 0, 1]]
    content = {
        "a": {"focal": 900},
        "b": {"focal": 800.5, "principal_point": [10, 20]},
        "c": {"intrinsics": matrix},
    }
    cameras = user.read_cameras(write(tmp_path, content))
    assert user.camera_of_image(cameras, "a.jpg") == (900, None)
    assert user.camera_of_image(cameras, "photos/b.jpg") == (800.5, (10, 20))
    of_c = user.camera_of_image(cameras, "c.jpg")
    assert of_c.principal_point == (300.5, 200) and of_c.focal == pytest.approx(
        np.sqrt(1000 * 1004)
    )
    with pytest.raises(
        InputError,
        match=r"d.jpg: no camera given for 'd'; name records after photos \(the file has a, b, c\)",
    ):
        user.camera_of_image(cameras, "d.jpg")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "holds no cameras"),
        ({}, "holds no cameras"),
        ({"a": 3}, "record 'a' is not an object"),
        ({"a": {}}, "record 'a' has neither intrinsics nor focal"),
        ({"a": {"focal": -3}}, "record 'a' has the focal length -3; give it in px"),
        ({"a": {"focal": "wide"}}, "record 'a', focal is not 1 numbers"),
        (
            {"a": {"focal": 9, "principal_point": [1]}},
            "record 'a', principal_point is not 2 numbers",
        ),
        ({"a": {"focal": 9, "principal_point": [1, float("nan")]}}, "holds NaN"),
        ({"a": {"intrinsics": [[1, 0], [0, 1]]}}, "record 'a', intrinsics is not 3 x 3 numbers"),
        (
            {"a": {"intrinsics": [[900, 5, 1], [0, 900, 1], [0, 0, 1]]}},
            r"intrinsics is not \[\[fx, 0, cx\]",
        ),
        (
            {"a": {"intrinsics": [[900, 0, 1], [0, 1000, 1], [0, 0, 1]]}},
            "pixels that are not square .focal lengths 900 and 1000.; stretch",
        ),
    ],
)
def test_cameras_that_are_none(tmp_path, content, said):
    with pytest.raises(InputError, match=said):
        user.read_cameras(write(tmp_path, content))


def test_flags(capsys):
    parser = main.build_parser()
    args = parser.parse_args(
        ["recover", "a.jpg", "--out", "x", "--focal", "900", "--principal-point", "320.5,-4"]
    )
    assert args.principal_point == (320.5, -4.0)
    for wrong in (
        ["--principal-point", "320"],
        ["--principal-point", "1,x"],
        ["--cameras", "c.json", "--focal", "900"],
    ):
        with pytest.raises(SystemExit):
            parser.parse_args(["recover", "a.jpg", "--out", "x", *wrong])
    assert "not allowed with argument" in capsys.readouterr().err


def test_two_words_about_one_principal_point(tmp_path, capsys):
    photo = str(main.SAMPLE_PHOTO)
    flags = ["--cameras", write(tmp_path, {"person": {"focal": 900}}), "--principal-point", "1,2"]
    assert main.main(["recover", photo, "--out", str(tmp_path), *flags]) == 1
    assert "--principal-point: cannot be combined with --cameras" in capsys.readouterr().err
