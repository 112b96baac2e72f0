"""Overlay, side view, silhouettes and mesh files."""

import numpy as np
import pytest
import trimesh

from genhmr_jax.io.errors import InputError
from genhmr_jax.render import MESH_FORMATS, overlay, silhouette
from genhmr_jax.render.export.mesh import save_mesh

CUBE = trimesh.creation.box((0.6, 1.2, 0.6))
VERTICES, FACES = np.asarray(CUBE.vertices), np.asarray(CUBE.faces)
GREY = np.full((60, 80, 3), 100, np.uint8)


def at(x: float, y: float, z: float) -> np.ndarray:
    """The box with its middle there."""
    return VERTICES + [x, y, z]


def test_overlay_changes_the_covered_pixels_alone():
    picture = overlay.overlay(GREY, at(0.3, 0, 4)[None], FACES, 80.0)
    mask = silhouette.silhouette(at(0.3, 0, 4), FACES, 80.0, 80, 60)
    changed = (picture != GREY).any(-1)
    assert changed[mask].all()
    # Anti-aliased: outside the mask of pixel centres only pixels next to it may change.
    near = mask.copy()
    for axis in (0, 1):
        near |= np.roll(near, 1, axis) | np.roll(near, -1, axis)
    assert not changed[~near].any() and mask.sum() > 100
    assert picture.shape == GREY.shape and picture.dtype == np.uint8


def test_the_nearer_person_hides_the_other_whatever_the_order():
    colour_0, cover = overlay.shade(
        np.stack([at(0, 0, 3), at(0, 0, 6)]), FACES, 80.0, 80, 60, (40, 30)
    )
    alone, _ = overlay.shade(at(0, 0, 3)[None], FACES, 80.0, 80, 60, (40, 30))
    np.testing.assert_allclose(colour_0, alone, atol=1e-6)
    behind_first, _ = overlay.shade(
        np.stack([at(0, 0, 6), at(0, 0, 3)]), FACES, 80.0, 80, 60, (40, 30)
    )
    hue = behind_first[30, 40] / behind_first[30, 40].max()
    np.testing.assert_allclose(hue, overlay.COLOURS[1] / overlay.COLOURS[1].max(), atol=0.08)
    assert cover.min() == 0 and cover.max() == 1


def test_opacity():
    clear = overlay.overlay(GREY, at(0, 0, 4)[None], FACES, 80.0, opacity=0.0)
    np.testing.assert_array_equal(clear, GREY)


def test_person_around_the_camera_does_not_break_the_picture():
    picture = overlay.overlay(GREY, at(0, 0, 0.1)[None], FACES, 80.0)
    assert picture.shape == GREY.shape


def test_side_view_shows_depth_as_width():
    """A long box along z is wide from the side; what is nearer to the camera lies to the right
    (seen from the person's right)."""
    long = np.stack([VERTICES * [1, 0.5, 4] + [0, 0, 5]])
    ground = (overlay.BACKGROUND * 255 + 0.5).astype(np.uint8)
    rows, columns = np.nonzero((overlay.side_view(long, FACES, 120, 100) != ground).any(-1))
    assert np.ptp(columns) > 2.5 * np.ptp(rows)
    assert 0 < columns.min() and columns.max() < 119 and np.ptp(columns) > 90

    near_small = np.stack([VERTICES * [1, 1, 1] + [0, 0, 4], VERTICES * [1, 0.3, 1] + [0, 0, 7]])
    changed = (overlay.side_view(near_small, FACES, 120, 100) != ground).any(-1)
    heights = changed.sum(0)
    occupied = np.nonzero(heights)[0]
    assert (
        heights[occupied[-6]] > 2 * heights[occupied[5]]
    )  # the tall one is the near one: at the right


def test_three_pictures_side_by_side_and_no_one_to_show():
    strip = overlay.overlay_with_side(GREY, at(0, 0, 4)[None], FACES, 80.0)
    assert strip.shape == (60, 240, 3)
    np.testing.assert_array_equal(strip[:, :80], GREY)
    np.testing.assert_array_equal(
        strip[:, 80:160], overlay.overlay(GREY, at(0, 0, 4)[None], FACES, 80.0)
    )
    empty = overlay.overlay_with_side(GREY, np.zeros((0, 8, 3)), FACES, 80.0)
    np.testing.assert_array_equal(empty[:, 80:160], GREY)


@pytest.mark.parametrize("shape", [(900, 2000), (3000, 500)])
def test_large_photos_give_a_picture_of_sensible_size(shape):
    strip = overlay.overlay_with_side(
        np.zeros((*shape, 3), np.uint8), at(0, 0, 4)[None], FACES, 1000.0
    )
    assert max(strip.shape[:2]) <= overlay.MAX_SIDE + 2
    assert strip.shape[1] / strip.shape[0] == pytest.approx(3 * shape[1] / shape[0], rel=0.02)


def test_silhouette_of_a_box_has_the_projected_area():
    """The box's front face at 3.7 m: 0.6 m x 1.2 m are 97.3 x 194.6 px at a focal length of 600
    px."""
    mask = silhouette.silhouette(at(0, 0, 4), FACES, 600.0, 400, 300)
    assert mask.sum() == pytest.approx((600 / 3.7) ** 2 * 0.6 * 1.2, rel=0.02)
    both = silhouette.silhouette(np.stack([at(-1, 0, 4), at(0, 0, 4)]), FACES, 600.0, 400, 300)
    assert (both & mask).sum() == mask.sum() and both.sum() > 1.5 * mask.sum()
    assert not silhouette.silhouette(np.zeros((0, 8, 3)), FACES, 600.0, 40, 30).any()


@pytest.mark.parametrize("kind", MESH_FORMATS)
def test_mesh_files_hold_the_same_vertices_upright(kind, tmp_path):
    points = at(0.5, -0.2, 3.0)
    save_mesh(path := tmp_path / f"person.{kind}", points, FACES)
    loaded = trimesh.load(path, process=False, force="mesh")
    np.testing.assert_allclose(loaded.vertices, points * [1, -1, -1], atol=1e-6)
    np.testing.assert_array_equal(loaded.faces, FACES)
    assert loaded.volume == pytest.approx(
        CUBE.volume, rel=1e-5
    )  # half a turn keeps the faces outward
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_unknown_mesh_format_and_missing_folder(tmp_path):
    with pytest.raises(ValueError, match="obj, glb, ply"):
        save_mesh(tmp_path / "person.fbx", VERTICES, FACES)
    with pytest.raises(InputError, match="cannot be written"):
        save_mesh(tmp_path / "missing" / "person.obj", VERTICES, FACES)
