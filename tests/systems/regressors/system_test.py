"""A converted regressor on a photo, through `genhmr recover`: one answer, their crop, no
confidence, refinement on demand."""

import json
import shutil

import numpy as np
import pytest
import smpl_jax
from smpl_jax import rotations

from genhmr_jax.cli import main
from genhmr_jax.cli.main import SAMPLE_PHOTO
from genhmr_jax.io import images
from genhmr_jax.nets.vit import SIZES
from genhmr_jax.recover import photo
from genhmr_jax.recover.people import People
from support import published_names as published
from support.torch_fixtures import save


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A converted HMR2.0 over a ViT-S of random weights, whose answers stay near the mean body."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("hmr2")
    width, depth, _ = SIZES["s"]
    head = published.hmr2_head(rng, context=width)
    for name in ("decpose", "decshape", "deccam"):
        head[f"{name}.weight"] *= 0.02
        head[f"{name}.bias"] *= 0.0
    head["init_body_pose"][:] = np.tile([1, 0, 0, 0, 1, 0], 24)  # HMR2's columns
    head["init_body_pose"][0, :6] = [1, 0, 0, 0, -1, 0]
    head["init_cam"][:] = [0.9, 0, 0]
    state = {f"backbone.{n}": a for n, a in published.backbone(width, depth, rng).items()} | {
        f"smpl_head.{n}": a for n, a in head.items()
    }
    file = save(folder / "hmr2.ckpt", {"state_dict": state})
    assert main.main(["convert", str(file), "--out", str(folder / "model")]) == 0
    return folder / "model"


@pytest.fixture(scope="module")
def recoverer(model):
    return photo.load(model)


@pytest.mark.slow
def test_a_photo(recoverer):
    image = images.read_image(SAMPLE_PHOTO)
    box = np.array([[30.0, 20.0, 130.0, 420.0]], np.float32)
    people = recoverer.recover(image, boxes=box)
    assert (
        len(people) == 1
        and people.tokens.shape == (1, 0)
        and np.isnan(people.joint_confidence).all()
    )
    # The longer side of the box, as a square, and their camera: 0.9 of it.
    depth = 2 * float(people.focal_length) / (400 * people.weak_camera[0, 0])
    assert people.translation[0, 2] == pytest.approx(depth, rel=1e-4) and people.weak_camera[
        0, 0
    ] == pytest.approx(0.9, abs=0.3)
    pose = np.concatenate([people.global_orient, people.body_pose], 1).reshape(24, 3)
    output = smpl_jax.forward(recoverer.body, people.betas[0], pose)
    np.testing.assert_allclose(output.joints + people.translation[0], people.joints[0], atol=1e-3)
    upright = np.asarray(rotations.axis_angle_to_matrix(people.global_orient[0]))
    assert upright[1, 1] < -0.5, "upright: the body's y axis points up, the camera's down"


@pytest.mark.slow
def test_refinement_is_off_unless_asked_for(recoverer):
    image = images.read_image(SAMPLE_PHOTO)
    plain = recoverer.recover(image)
    assert plain.refine_loss.shape[1] == 1
    refined = recoverer.recover(image, options=photo.RecoverOptions(refine_steps=10))
    assert refined.reprojection_error()[0] < 0.8 * plain.reprojection_error()[0]


@pytest.mark.slow
def test_hypotheses_are_all_the_same(recoverer):
    image = images.read_image(SAMPLE_PHOTO)
    several = recoverer.recover(image, options=photo.RecoverOptions(hypotheses=3, seed=4))
    np.testing.assert_allclose(several.vertex_std, 0, atol=1e-3)


@pytest.mark.slow
def test_the_command(model, tmp_path, capsys):
    command = [
        "recover",
        str(SAMPLE_PHOTO),
        "--out",
        str(tmp_path),
        "--no-overlay",
        "--model",
        "hmr2",
        "--checkpoint",
        str(model),
    ]
    assert main.main(command) == 0
    assert "confidence" not in capsys.readouterr().out
    assert len(People.load(tmp_path / "person.npz")) == 1


@pytest.mark.slow
def test_a_folder_that_does_not_say_how_to_crop(model, tmp_path):
    """The wrong crop would cost millimetres, and nothing else would show it."""
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    meta = json.loads((folder / "config.json").read_text())
    assert meta["spec"].pop("crop") == "hmr2"
    (folder / "config.json").write_text(json.dumps(meta))
    with pytest.raises(photo.InputError, match="does not describe a model .'crop'."):
        photo.load(folder)


@pytest.mark.slow
def test_a_backbone_alone_cannot_recover(tmp_path, model):
    width, depth, _ = SIZES["s"]
    file = save(
        tmp_path / "vit.pth",
        {"state_dict": published.backbone(width, depth, np.random.default_rng(1))},
    )
    assert main.main(["convert", str(file), "--out", str(tmp_path / "vit")]) == 0
    with pytest.raises(photo.InputError, match="--config.init"):
        photo.load(tmp_path / "vit")
