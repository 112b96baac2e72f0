"""From a folder of photos to a fine-tuned model: docs/finetuning.md as printed (slow), and its
parts one by one."""

import json
import re
import shlex
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import people_fixtures
import pytest
import smpl_jax
from conftest import ROOT
from PIL import Image

from genhmr_jax.cli import main
from genhmr_jax.geometry import camera
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.io import model_folder
from genhmr_jax.io.errors import InputError
from genhmr_jax.nets import vit
from genhmr_jax.nets.vit import VitSpec
from genhmr_jax.recover import photo
from genhmr_jax.systems import registry
from genhmr_jax.systems.genhmr.model import GenHmrSpec
from genhmr_jax.systems.genhmr.task import _gap2d
from genhmr_jax.train import loop, program
from genhmr_jax.train.mesh import Placement, make_mesh, path_name

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")

SECTION = (ROOT / "docs" / "finetuning.md").read_text().split("\n## ")[1]
FEW = {
    "steps": 2,
    "image_batch_size": 4,
    "log_every": 1,
    "evaluate_every": 2,
    "checkpoint_every": 2,
    "evaluate_poses": 4,
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """own_photos, built, and the truth about its people."""
    manual, data = tmp_path_factory.mktemp("manual"), tmp_path_factory.mktemp("data")
    people = people_fixtures.write("own_photos", manual)
    assert (
        main.main(
            ["data", "build", "own_photos", "--manual-dir", str(manual), "--data-dir", str(data)]
        )
        == 0
    )
    return data, people


@pytest.fixture(scope="module")
def task(built, get_config):
    config = get_config("genhmr/finetune_shipped")
    config.update(FEW)
    config.data.people = str(built[0])
    return registry.make_task(config)


def test_it_goes_on_with_the_shipped_model(task):
    meta = model_folder.load_meta(photo.default_checkpoint())
    assert task.spec == GenHmrSpec.from_dict(meta["spec"])
    assert task.config.init == str(photo.default_checkpoint())
    params, _ = jax.eval_shape(task.init, jax.random.key(0))
    assert jax.tree.map(lambda x: x.shape, params) == jax.tree.map(
        lambda x: x.shape, task.networks.shapes["genhmr"]
    )
    shipped = model_folder.load_params(photo.default_checkpoint(), task.networks.shapes)
    for one, other in zip(
        *(
            jax.tree.leaves((tree["tokenizer"], tree["codebook"]))
            for tree in (task.frozen, shipped)
        ),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_own_photos_are_rows_of_its_step(task):
    batch = {"images": task.sources()["images"].load(np.arange(4))}
    assert jax.tree.map(lambda x: (x.shape, x.dtype), batch) == jax.tree.map(
        lambda x: (x.shape, x.dtype), task.batch_shapes()
    )
    made = program.build(task, task.config, make_mesh(task.config.mesh))
    jax.eval_shape(made.step, made.state, made.batch, made.frozen)


def test_the_loss_sees_the_camera_of_the_photo(task, built):
    """The labelled body, through the row's camera (the photo's principal point is 50 px off the
    middle), meets the labelled keypoints."""
    (rows,) = task.images.validation(Placement(make_mesh(task.config.mesh)))
    assert rows["weight"].tolist() == rows["weight2d"].tolist() == [1, 1, 0, 0]
    output = smpl_jax.forward(
        task.frozen["body"], jnp.asarray(rows["betas"]), jnp.asarray(rows["rotmats"])
    )
    translation = camera.weak_to_translation(
        rows["weak_camera"], rows["crop"], rows["image_size"], rows["focal"]
    )
    gap, known = _gap2d(task.frozen["body"], output, translation, rows)
    assert known[0].sum() == len(DETECTED) - 2
    pixels = np.asarray(gap * rows["crop"][:, None, 2:] / 2)[np.asarray(known) > 0]
    assert np.abs(pixels).max() < 1.0 and np.median(np.abs(pixels)) < 0.1
    for row, person in enumerate(p for p in built[1] if p.split == "val"):
        np.testing.assert_allclose(
            translation[row], person.translation, atol=2e-3
        )  # pixels were moved, not the person


def test_keypoints_without_fits_are_measured_too(task, monkeypatch):
    rows = next(task.images.validation(Placement(make_mesh(task.config.mesh))))
    none = {"rows": 0.0, "mpjpe": 0.0, "pa_mpjpe": 0.0, "rows2d": 2.0, "keypoints2d": 7.0}
    monkeypatch.setattr(type(task), "_measure", lambda *_: none)
    monkeypatch.setattr(type(task), "_validation_images", lambda *_: [rows])
    found = task.evaluate({}, {}, {}, Placement(make_mesh(task.config.mesh)))
    assert found["val_image_expected1_keypoints2d"] == 3.5 and not any(
        "mpjpe" in name for name in found
    )


@pytest.mark.parametrize("size", "hlbs")
def test_paper_scale_and_finetuning_have_one_model(size, get_config):
    paper, bedlam, mine = (
        get_config(f"genhmr/{name}")
        for name in (f"vit:{size}", f"vit_bedlam:{size}", f"finetune_vit:{size}")
    )
    assert paper.model == bedlam.model == mine.model
    assert paper.model.encoder_channels == (VitSpec.named(f"vit_{size}").width,)
    assert (paper.data.mixture, bedlam.data.mixture, mine.data.mixture) == (
        "hmr2",
        "tokenhmr",
        "own_photos",
    )
    assert (
        mine.lora.rank == 8
        and paper.lora.rank == 0
        and paper.steps * paper.image_batch_size == pytest.approx(1e6 * 384, rel=0.1)
    )
    assert get_config("genhmr/vit:h") == get_config("genhmr/vit")


def test_photos_and_stored_rows_at_once_are_refused(task):
    config = task.config.copy_and_resolve_references()
    config.data.images = "runs/features"
    with pytest.raises(
        InputError, match="data.images=runs/features: names stored rows beside the photos"
    ):
        registry.make_task(config)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_vit_with_adapters_is_trained_exported_and_run(
    built, get_config, trained_tokenizer, tmp_path, monkeypatch
):
    """`finetune_vit.py:s` of a toy size through the whole loop, from a model that a training of
    `vit.py:s` exported."""
    monkeypatch.setitem(vit.SIZES, "t", (24, 2, 2))
    small = {"encoder": "vit_t", "encoder_channels": (24,), "pyramid_scales": (1.0,)}
    few = FEW | {"checkpoint_every": 1, "mesh": {"data": -1, "fsdp": 1}, "accumulate": 2}

    def run(name: str, workdir: str, **changes) -> dict[str, float]:
        config = get_config(f"genhmr/{name}")
        config.update(few | changes)
        config.model.update(small)
        config.model.transformer.update({"width": 24, "layers": 1, "heads": 2})
        config.data.update(
            {"people": str(built[0]), "mixture": "own_photos", "people_val": "own_photos:val"}
        )
        return loop.train(registry.make_task(config), config, tmp_path / workdir)

    run("vit:s", "paper", init="", tokenizer=str(trained_tokenizer / "model"))
    model = str(tmp_path / "paper" / "model")
    mine = run("finetune_vit:s", "mine", init=model, tokenizer=model)
    assert np.isfinite(mine["val_image_expected1_mpjpe"]) and np.isfinite(
        mine["val_image_expected1_keypoints2d"]
    )
    stored = [
        flat(model_folder._read(model_folder.absolute(tmp_path / name / "model")))
        for name in ("paper", "mine")
    ]
    assert set(stored[0]) == set(stored[1]) and not any("lora" in name for name in stored[1])
    moved = {
        name
        for name in stored[0]
        if not np.array_equal(*(np.asarray(one[name], np.float32) for one in stored))
    }
    assert "genhmr/encoder/position" not in moved and any(
        name.startswith("genhmr/transformer/") for name in moved
    )
    image = np.full((300, 200, 3), 90, np.uint8)
    keypoints = np.concatenate(
        [np.random.default_rng(0).uniform(50, 150, (1, 23, 2)), np.ones((1, 23, 1))], -1
    )
    people = photo.load(tmp_path / "mine" / "model", body="lite").recover(
        image, keypoints=keypoints, options=photo.RecoverOptions(refine_steps=0)
    )
    assert len(people) == 1 and np.isfinite(people.vertices).all()


def flat(tree) -> dict:
    return {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def commands() -> list[str]:
    """Of the first section, in their order; training and measuring are made short."""
    blocks = re.findall(r"^```sh\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    short = " ".join(f"--config.{name}={value}" for name, value in FEW.items())
    more = {"genhmr_jax.main": short, "genhmr eval": "--iterations=1 --refine-steps=0"}
    return [
        " ".join([line, *(flags for words, flags in more.items() if words in line)])
        for line in lines
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_walk_as_printed(tmp_path):
    """On the sample photo, moved about; its keypoints are those that the detector finds."""
    image = np.asarray(Image.open(photo.default_checkpoint().parent / "sample" / "person.jpg"))
    (points,) = (
        photo.load(body="lite")
        .recover(image, options=photo.RecoverOptions(refine_steps=0))
        .keypoints2d
    )
    for split, shifts in (("train", (0, 30, 60)), ("val", (0,))):
        folder, keypoints = tmp_path / "downloads" / "own_photos" / split, {}
        folder.mkdir(parents=True)
        for shift in shifts:
            Image.fromarray(np.pad(image, ((0, 0), (shift, 0), (0, 0)))).save(
                folder / f"photo{shift}.jpg"
            )
            keypoints[f"photo{shift}"] = {
                "keypoints": [(points + [shift, 0, 0]).tolist()],
                "names": list(DETECTED),
            }
        (folder / "keypoints.json").write_text(json.dumps(keypoints))
    lines = commands()
    assert len(lines) == 7
    for line in lines:
        words = shlex.split(line.replace("configs/", f"{ROOT}/configs/"))
        program = (
            [sys.executable, "-m", "genhmr_jax.cli.main", *words[1:]]
            if words[0] == "genhmr"
            else [sys.executable, *words[1:]]
        )
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stderr[-2000:])
    before, after = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("before", "after")
    )
    assert before["people"] == after["people"] == 1 and before["protocols"].keys() == after[
        "protocols"
    ].keys() == {"joints24"}
    logged = [
        json.loads(line) for line in (tmp_path / "runs/mine/metrics.jsonl").read_text().splitlines()
    ]
    assert any(np.isfinite(line.get("val_image_expected1_keypoints2d", np.nan)) for line in logged)
    assert (tmp_path / "results" / "photo0.npz").is_file()
