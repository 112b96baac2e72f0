"""The focal length of a photo: the flags', then EXIF's, then the guess."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from genhmr_jax import RecoverOptions
from genhmr_jax.cli import main
from genhmr_jax.geometry.camera import focal_from_35mm
from support.fakes import install_fake_recover


@pytest.fixture
def calls(monkeypatch):
    return install_fake_recover(monkeypatch)


def photo(path, focal35: int | None = 50):
    """A photo of 60 x 40 px, whose EXIF Pillow writes."""
    exif = Image.Exif()
    if focal35 is not None:
        exif.get_ifd(0x8769)[0xA405] = focal35
    Image.new("RGB", (60, 40), (90, 120, 150)).save(path, exif=exif)
    return path


def test_the_diagonal_angle_of_view():
    """A 50 mm lens on film of 36 x 24 mm at 100 px / mm; the angle of a phone's 26 mm."""
    assert focal_from_35mm(50, 3600, 2400) == pytest.approx(5000)
    focal = focal_from_35mm(26, 3024, 4032)
    assert math.degrees(2 * math.atan(5040 / 2 / focal)) == pytest.approx(79.5, abs=0.05)
    assert RecoverOptions(focal35=50).camera(3600, 2400).focal == pytest.approx(5000)


@pytest.mark.parametrize(
    ("focal35", "flags", "origin", "focal"),
    [
        (50, [], "EXIF", 50 * 60 / 36),
        (None, [], "guess", math.hypot(60, 40)),
        (0, [], "guess", math.hypot(60, 40)),
        (50, ["--focal", "99"], "given", 99),
        (50, ["--fov", "90"], "given", 30),
        (50, ["--cameras"], "given", 77),
        (50, ["--principal-point", "3,4"], "EXIF", 50 * 60 / 36),
    ],
)
def test_which_focal_length_counts(tmp_path, calls, capsys, focal35, flags, origin, focal):
    if flags == ["--cameras"]:
        (tmp_path / "c.json").write_text(json.dumps({"x": {"focal": 77}}))
        flags = ["--cameras", str(tmp_path / "c.json")]
    path = photo(tmp_path / "x.jpg", focal35)
    arguments = [str(path), "--out", str(tmp_path / "out"), "--no-overlay", *flags]
    assert main.main(["recover", *arguments]) == 0
    camera = calls.options[0].camera(60, 40)
    assert camera.focal == pytest.approx(focal)
    assert f"px, focal {60:.0f} px ({origin}), " in capsys.readouterr().out  # of the made-up result


def test_each_photo_has_its_own(tmp_path, calls):
    for name, focal35 in (("a.jpg", 24), ("b.jpg", None), ("c.jpg", 85)):
        photo(tmp_path / name, focal35)
    assert main.main(["recover", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert sorted((o.focal35 or 0) for o in calls.options) == [0, 24, 85]


@pytest.mark.parametrize("value", [0, -1, np.inf, np.nan])
def test_a_focal_length_that_is_none(value):
    with pytest.raises(ValueError, match="focal35 is .*: a positive number of mm is needed"):
        RecoverOptions(focal35=value)
