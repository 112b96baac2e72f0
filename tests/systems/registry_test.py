"""The system of docs/adding_a_system.md, as printed: trained, recovered with, evaluated, compiled.

So the interfaces of a system and of a task suffice for all four commands.
"""

import importlib
import importlib.metadata
import json
import re
import shutil
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from smpl_jax.rotations import axis_angle_to_matrix

from genhmr_jax.cli import main
from genhmr_jax.data import poses
from genhmr_jax.io.config_files import load_config
from genhmr_jax.recover import photo
from genhmr_jax.recover.people import People
from genhmr_jax.systems import registry
from genhmr_jax.train import loop, program
from genhmr_jax.train import mesh as meshes
from genhmr_jax.train.aot import infer
from support.paths import ROOT

PAGE = (ROOT / "docs" / "adding_a_system.md").read_text()


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The page's file, imported; afterwards forgotten."""
    folder = tmp_path_factory.mktemp("example")
    (source,) = re.findall(r"^```python\n(\"\"\".*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (folder / "mean_pose.py").write_text(source)
    sys.path.insert(0, str(folder))
    importlib.import_module("mean_pose")
    yield folder
    sys.path.remove(str(folder))
    del sys.modules["mean_pose"], registry._ENTRIES["mean_pose"]


@pytest.fixture(scope="module")
def model(example):
    """The model folder of a training."""
    config = load_config(str(example / "mean_pose.py"))
    loop.train(registry.make_task(config), config, example / "run")
    return example / "run" / "model"


@pytest.fixture(scope="module")
def sample(example):
    """A photo of one person, with its outline."""
    folder = example / "photos"
    folder.mkdir()
    shutil.copy(main.SAMPLE_PHOTO, folder / "a.jpg")
    width, height = Image.open(folder / "a.jpg").size
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : -height // 4, width // 4 : -width // 4] = 255
    Image.fromarray(mask).save(folder / "a.mask.png")
    box = [width / 4, height / 8, 3 * width / 4, 7 * height / 8]
    (folder / "boxes.json").write_text(json.dumps({"a": box}))
    return folder


def test_training_finds_the_mean(model):
    recoverer = photo.load(model)
    corpus = poses.load_corpus("made-up", "train").poses
    rotmats = np.asarray(axis_angle_to_matrix(corpus.reshape(-1, 24, 3)))
    mean = rotmats.mean(0)[1:, :2].reshape(23, 6)  # 6D "rows"; the root is in camera axes
    found = np.asarray(recoverer.params["pose"]["rot6d"])[1:]
    np.testing.assert_allclose(found, mean, atol=0.05)


def test_recover(model, sample, tmp_path):
    out = str(tmp_path / "out")
    assert (
        main.main(["recover", str(sample / "a.jpg"), "--checkpoint", str(model), "--out", out]) == 0
    )
    people = People.load(tmp_path / "out" / "a.npz")
    assert len(people) == 1 and np.isnan(people.joint_confidence).all()
    assert people.vertices[..., 2].min() > 0, "in front of the camera"
    inside = (people.joints2d > 0) & (people.joints2d < people.image_size)
    assert inside.all()


def test_eval(model, sample, tmp_path):
    report = tmp_path / "report.json"
    command = ["eval", "--dataset=photos", f"--data-dir={sample}", f"--checkpoint={model}"]
    assert main.main([*command, f"--out={report}"]) == 0
    assert 0 < json.loads(report.read_text())["mean"]["refined"]["iou"] < 1


def test_aot_compiles_both_steps_from_shapes(example):
    config = load_config(str(example / "mean_pose.py"))
    mesh = meshes.make_mesh(config.mesh, jax.devices()[:1])
    task = registry.abstract_task(config)
    train = program.build(task, config, mesh)
    assert train.model_flops() >= 0 and train.lower().as_text()
    step = infer.build(task, config, mesh, 4)
    solved = jax.eval_shape(step.step, *step.shapes)
    assert solved.joints.shape == (4, 24, 3)


def test_an_installed_package_adds_a_system(monkeypatch, caplog):
    points = importlib.metadata.EntryPoints(
        importlib.metadata.EntryPoint(name, value, registry.GROUP)
        for name, value in (("other", "no_such_module:ENTRY"), ("toy", "toy_package:ENTRY"))
    )
    package = type(sys)("toy_package")
    package.ENTRY = registry.Entry(system="toy_package")
    monkeypatch.setitem(sys.modules, "toy_package", package)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    registry._installed.cache_clear()
    try:
        assert "toy" in registry.kinds() and "other" not in registry.kinds()
        assert "no_such_module" in caplog.text, "a broken package is named, and stops nothing"
    finally:
        registry._installed.cache_clear()
