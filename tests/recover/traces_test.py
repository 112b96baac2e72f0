"""Pictures of the steps of sampling: their meshes, their layout, and `genhmr recover --trace`."""

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from genhmr_jax.cli import main
from genhmr_jax.recover import cells, traces
from genhmr_jax.recover.photo import Recoverer, RecoverOptions
from genhmr_jax.systems.regressors.model import RegressorSpec
from genhmr_jax.systems.regressors.system import RegressorSystem


@pytest.mark.slow
def test_the_last_mesh_is_the_sampled_answer(recoverer, sample_image):
    options = RecoverOptions(iterations=3, refine_steps=0)
    prepared = recoverer.prepare(sample_image, options=options)
    meshes = recoverer.trace(prepared, options).vertices
    people = recoverer.recover_prepared([prepared], options)[0]
    assert meshes.shape == (1, 3, *people.vertices.shape[1:])
    np.testing.assert_allclose(meshes[:, -1], people.vertices, atol=1e-3)
    assert np.abs(meshes[:, 0] - meshes[:, -1]).max() > 1e-3  # the steps differ

    # The picture: the photo and three meshes, which cover the person.
    picture = traces.draw(sample_image, people, meshes)
    cell = traces.SIDE + cells.GAP
    assert picture.shape == (cell, 4 * cell, 3)
    photo, *steps = np.split(picture, 4, axis=1)
    for step in steps:
        changed = (step != photo).any(-1)
        assert 0.03 < changed.mean() < 0.6 and changed[cell // 2, cell // 4 : -cell // 4].any()
    # Of many steps the first and the last are shown.
    many = traces.draw(sample_image, people, np.repeat(meshes, 10, 1))
    assert many.shape[1] == (1 + traces.COLUMNS) * cell
    np.testing.assert_array_equal(many[:, -cell:], picture[:, -cell:])


def test_a_photo_is_white_outside_of_its_frame(sample_image):
    # A square of 200 px around the upper left corner of the photo, 2 m before the camera.
    square = np.array([[x, y, 2.0] for x in (-0.1, 0.1) for y in (-0.1, 0.1)])
    camera = 2000.0, np.zeros(2)
    cut = cells.cell_around(sample_image, square, *camera, traces.SIDE, margin=1.0).pixels
    assert (cut[: traces.SIDE // 2 - 1] == 255).all()
    inside = sample_image[50, 50].astype(float)
    assert np.abs(cut[3 * traces.SIDE // 4, 3 * traces.SIDE // 4] - inside).max() < 30


@pytest.mark.slow
def test_the_command_writes_it_and_does_not_read_it_again(tmp_path, capsys):
    photos, out = tmp_path / "photos", tmp_path / "photos"
    photos.mkdir()
    shutil.copy(main.SAMPLE_PHOTO, photos / "a.jpg")
    command = ["recover", str(photos), "--out", str(out), "--no-overlay", "--trace"]
    assert main.main([*command, "--body", "lite", "--iterations", "1"]) == 0
    assert {path.name for path in out.iterdir()} == {"a.jpg", "a.npz", "a_trace.png"}
    cell = traces.SIDE + cells.GAP
    assert Image.open(out / "a_trace.png").size == (2 * cell, cell)
    # The picture is no photo of a second run, and it is written again.
    assert main.main([*command, "--body", "lite", "--iterations", "1"]) == 0
    assert {path.name for path in out.iterdir()} == {"a.jpg", "a.npz", "a_trace.png"}
    capsys.readouterr()


def test_a_system_of_one_step_has_none(recoverer):
    system = RegressorSystem(RegressorSpec("hmr2", "vit_s"))
    other = dataclasses.replace(recoverer, system=system)
    with pytest.raises(ValueError, match="--trace: a hmr2 model answers in one step; leave it out"):
        Recoverer.check_steps(other)
    recoverer.check_steps()
