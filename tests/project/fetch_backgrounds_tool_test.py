"""tools/fetch_backgrounds.py without the network: looking into a panorama."""

import importlib.util
import tarfile

import numpy as np
import pytest

from support.paths import ROOT

TOOL = ROOT / "tools" / "fetch_backgrounds.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("fetch_backgrounds", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lamp(longitude: float, latitude: float) -> np.ndarray:
    """A dark panorama of 360 x 180 px with one bright spot, at these angles in degrees (latitude:
    down is positive; column 0 is 0)."""
    panorama = np.full((180, 360, 3), 0.1, np.float32)
    panorama[88:93, :5] = 5.0
    return np.roll(panorama, (int(latitude), int(longitude) - 2), (0, 1))


def brightest(view: np.ndarray) -> np.ndarray:
    """Mean x, y of the brightest pixels, -1..1 over the view."""
    rows, columns = np.nonzero(view.min(-1) == 255)
    assert 0 < len(rows) < 0.1 * view[..., 0].size
    return np.array([columns.mean(), rows.mean()]) / (len(view) - 1) * 2 - 1


def test_straight_ahead_is_in_the_middle(tool):
    assert np.abs(brightest(tool.look(lamp(0, 0), 0.0, 0.0, np.radians(80), 101))).max() < 0.08


@pytest.mark.parametrize("fov", [50, 90])
def test_right_is_right_and_down_is_down(tool, fov):
    """15 degrees off the axis lie at tan(15)/tan(fov/2) of half the picture."""
    expected = np.tan(np.radians(15)) / np.tan(np.radians(fov / 2))
    np.testing.assert_allclose(
        brightest(tool.look(lamp(15, 0), 0.0, 0.0, np.radians(fov), 201)), [expected, 0], atol=0.06
    )
    np.testing.assert_allclose(
        brightest(tool.look(lamp(0, 15), 0.0, 0.0, np.radians(fov), 201)), [0, expected], atol=0.06
    )


def test_turning_to_the_lamp_puts_it_in_the_middle(tool):
    view = tool.look(
        lamp(170, 0), np.radians(170), 0.0, np.radians(80), 101
    )  # looks across the seam of the panorama
    assert np.abs(brightest(view)).max() < 0.08
    steep = tool.look(
        lamp(0, 20), 0.0, np.radians(-20), np.radians(60), 101
    )  # a negative pitch looks down
    assert np.abs(brightest(steep)).max() < 0.08
    assert steep.dtype == np.uint8 and steep.shape == (101, 101, 3)


def test_a_wrong_archive_ends_with_one_line(tool, tmp_path):
    pytest.importorskip("OpenEXR")
    with tarfile.open(path := tmp_path / "other.tgz", "w:gz") as archive:
        archive.add(TOOL, "package/readme")
    with pytest.raises(SystemExit, match="no panoramas"):
        tool.read_panoramas(path)
