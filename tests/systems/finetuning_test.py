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
import pytest
import smpl_jax
from PIL import Image

from genhmr_jax.cli import main
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.io import model_folder
from genhmr_jax.io.errors import InputError
from genhmr_jax.nets import vit
from genhmr_jax.nets.vit import VitSpec
from genhmr_jax.recover import photo
from genhmr_jax.systems import registry
from genhmr_jax.systems.genhmr import validation
from genhmr_jax.systems.genhmr.objective import keypoint_gap
from genhmr_jax.systems.genhmr.samples import SampleMaker
from genhmr_jax.systems.genhmr.spec import GenHmrSpec
from genhmr_jax.train import loop, program
from genhmr_jax.train.mesh import Placement, make_mesh, path_name
from support import people_fixtures
from support.paths import ROOT

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
    folders = ["--manual-dir", str(manual), "--data-dir", str(data)]
    assert main.main(["data", "build", "own_photos", *folders]) == 0
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
    shapes = lambda tree: jax.tree.map(lambda x: x.shape, tree)
    assert shapes(params) == shapes(task.system.shapes["genhmr"])
    shipped = model_folder.load_params(photo.default_checkpoint(), task.system.shapes)
    arrays = lambda tree: jax.tree.leaves((tree["tokenizer"], tree["codebook"]))
    for one, other in zip(arrays(task.frozen), arrays(shipped), strict=True):
        np.testing.assert_array_equal(one, other)


def test_own_photos_are_rows_of_its_step(task):
    batch = {"images": task.sources()["images"].load(np.arange(4))}
    forms = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert forms(batch) == forms(task.batch_shapes())
    made = program.build(task, task.config, make_mesh(task.config.mesh))
    jax.eval_shape(made.step, made.state, made.batch, made.frozen)


def test_the_loss_sees_the_camera_of_the_photo(task, built):
    """The labelled body, through the row's camera (the photo's principal point is 50 px off the
    middle), meets the labelled keypoints."""
    (rows,) = task.images.validation(Placement(make_mesh(task.config.mesh)))
    assert rows.weight.tolist() == rows.weight2d.tolist() == [1, 1, 0, 0]
    body = task.frozen["body"]
    output = smpl_jax.forward(body, jnp.asarray(rows.betas), jnp.asarray(rows.rotmats))
    gap, known = keypoint_gap(body, output, rows.weak_camera, rows), rows.confidence_of_points2d()
    assert known[0].sum() == len(DETECTED) - 2
    pixels = np.asarray(gap * rows.view.crop[:, None, 2:] / 2)[np.asarray(known) > 0]
    assert np.abs(pixels).max() < 1.0 and np.median(np.abs(pixels)) < 0.1
    translation = rows.view.translation(rows.weak_camera)
    for row, person in enumerate(p for p in built[1] if p.split == "val"):
        # Pixels were moved, not the person.
        np.testing.assert_allclose(translation[row], person.translation, atol=2e-3)


def test_keypoints_without_fits_are_measured_too(task, monkeypatch):
    none = {"rows": 0.0, "mpjpe": 0.0, "pa_mpjpe": 0.0, "rows2d": 2.0, "keypoints2d": 7.0}
    monkeypatch.setattr(validation, "_measure", lambda *_, **__: none)
    monkeypatch.setattr(SampleMaker, "encoded", lambda _, rows: rows)
    found = task.evaluate({}, {}, {}, Placement(make_mesh(task.config.mesh)))
    measured = [value for name, value in found.items() if name.endswith("1_keypoints2d")]
    assert measured and set(measured) == {3.5}
    assert not any("mpjpe" in name for name in found)


@pytest.mark.parametrize("size", "hlbs")
def test_paper_scale_and_finetuning_have_one_model(size, get_config):
    names = ("vit", "vit_bedlam", "finetune_vit")
    paper, bedlam, mine = (get_config(f"genhmr/{name}:{size}") for name in names)
    assert paper.model == bedlam.model == mine.model
    assert paper.model.encoder_channels == (VitSpec.named(f"vit_{size}").width,)
    mixtures = [config.data.mixture for config in (paper, bedlam, mine)]
    assert mixtures == ["hmr2", "tokenhmr", "own_photos"]
    assert mine.lora.rank == 8 and paper.lora.rank == 0
    assert paper.steps * paper.image_batch_size == pytest.approx(1e6 * 384, rel=0.1)
    assert get_config("genhmr/vit:h") == get_config("genhmr/vit")


def test_photos_and_stored_rows_at_once_are_refused(task):
    config = task.config.copy_and_resolve_references()
    config.data.images = "runs/features"
    problem = "data.images=runs/features: names stored rows beside the photos"
    with pytest.raises(InputError, match=problem):
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
        people = {"people": str(built[0]), "mixture": "own_photos"}
        config.data.update(people | {"people_val": "own_photos:val"})
        return loop.train(registry.make_task(config), config, tmp_path / workdir)

    run("vit:s", "paper", init="", tokenizer=str(trained_tokenizer / "model"))
    model = str(tmp_path / "paper" / "model")
    mine = run("finetune_vit:s", "mine", init=model, tokenizer=model)
    assert np.isfinite(mine["val_image_expected1_mpjpe"])
    assert np.isfinite(mine["val_image_expected1_keypoints2d"])
    stored = [model_folder.read_arrays(tmp_path / name / "model") for name in ("paper", "mine")]
    assert set(stored[0]) == set(stored[1]) and not any("lora" in name for name in stored[1])
    equal = lambda name: np.array_equal(*(np.asarray(one[name], np.float32) for one in stored))
    moved = {name for name in stored[0] if not equal(name)}
    assert "genhmr/encoder/position" not in moved
    assert any(name.startswith("genhmr/transformer/") for name in moved)
    image = np.full((300, 200, 3), 90, np.uint8)
    points = np.random.default_rng(0).uniform(50, 150, (1, 23, 2))
    keypoints = np.concatenate([points, np.ones((1, 23, 1))], -1)
    options = photo.RecoverOptions(refine_steps=0)
    recoverer = photo.load(tmp_path / "mine" / "model", body="lite")
    people = recoverer.recover(image, keypoints=keypoints, options=options)
    assert len(people) == 1 and np.isfinite(people.vertices).all()


def flat(tree) -> dict:
    return {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def commands() -> list[str]:
    """Of the first section, in their order; training and measuring are made short."""
    blocks = re.findall(r"^```sh\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    short = " ".join(f"--config.{name}={value}" for name, value in FEW.items())
    more = {"genhmr_jax.main": short, "genhmr eval": "--iterations=1 --refine-steps=0"}
    flags = lambda line: (value for words, value in more.items() if words in line)
    return [" ".join([line, *flags(line)]) for line in lines]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_walk_as_printed(tmp_path):
    """On the sample photo, moved about; its keypoints are those that the detector finds."""
    image = np.asarray(Image.open(photo.default_checkpoint().parent / "sample" / "person.jpg"))
    options = photo.RecoverOptions(refine_steps=0)
    (points,) = photo.load(body="lite").recover(image, options=options).keypoints2d
    for split, shifts in (("train", (0, 30, 60)), ("val", (0,))):
        folder, keypoints = tmp_path / "downloads" / "own_photos" / split, {}
        folder.mkdir(parents=True)
        for shift in shifts:
            moved = Image.fromarray(np.pad(image, ((0, 0), (shift, 0), (0, 0))))
            moved.save(folder / f"photo{shift}.jpg")
            people = [(points + [shift, 0, 0]).tolist()]
            keypoints[f"photo{shift}"] = {"keypoints": people, "names": list(DETECTED)}
        (folder / "keypoints.json").write_text(json.dumps(keypoints))
    lines = commands()
    assert len(lines) == 7
    for line in lines:
        words = shlex.split(line.replace("configs/", f"{ROOT}/configs/"))
        module = ["-m", "genhmr_jax.cli.main"] if words[0] == "genhmr" else []
        command = [sys.executable, *module, *words[1:]]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stderr[-2000:])
    read = lambda name: json.loads((tmp_path / f"{name}.json").read_text())
    before, after = read("before"), read("after")
    assert before["people"] == after["people"] == 1
    assert before["protocols"].keys() == after["protocols"].keys() == {"joints24"}
    lines = (tmp_path / "runs/mine/metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    found = [line[n] for line in logged for n in line if n.startswith("val_image_")]
    assert found and np.isfinite(found).any()
    assert (tmp_path / "results" / "photo0.npz").is_file()
