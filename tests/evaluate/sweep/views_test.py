"""The evaluation on rows: which systems it takes, with which contexts, settings and defaults."""

import dataclasses

import jax
import numpy as np
import pytest

from genhmr_jax.core import encoders
from genhmr_jax.evaluate import views
from genhmr_jax.evaluate.settings import Settings
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io.errors import InputError
from genhmr_jax.recover.photo import Recoverer
from genhmr_jax.systems.genhmr.spec import GenHmrSpec
from genhmr_jax.systems.genhmr.system import GenHmrSystem
from genhmr_jax.systems.posturehmr import coarse_body
from genhmr_jax.systems.posturehmr.spec import Mesh2dSpec, PostureSpec
from genhmr_jax.systems.posturehmr.system import PostureSystem
from genhmr_jax.systems.regressors.model import RegressorSpec
from genhmr_jax.systems.regressors.system import RegressorSystem
from support import stored_rows

MAPS = (80, 136, 288)
GENHMR = GenHmrSystem(GenHmrSpec())
POSTURE = PostureSystem(PostureSpec(Mesh2dSpec(encoder_channels=()), steps=7))


@pytest.mark.parametrize(
    ("system", "labels"),
    [
        (GENHMR, {"keypoints": "all"}),
        (
            GenHmrSystem(GenHmrSpec(encoder_channels=MAPS)),
            {"image+keypoints": "all", "image": "image", "keypoints": "keypoints"},
        ),
        (GenHmrSystem(GenHmrSpec(num_keypoints=0, encoder_channels=MAPS)), {"image": "all"}),
        (POSTURE, {"keypoints": "all"}),
        (PostureSystem(PostureSpec()), {"image+keypoints": "all", "keypoints": "keypoints"}),
    ],
)
def test_contexts_are_those_of_the_system(system, labels):
    assert views.contexts_of(system, system.encoder) == labels
    assert set(labels.values()) <= set(system.contexts)


def test_an_encoder_is_named_where_its_output_is_an_input():
    assert (GENHMR.encoder, POSTURE.encoder) == (None, None)
    assert GenHmrSystem(GenHmrSpec(encoder_channels=MAPS)).encoder == "blazepose_full"
    assert PostureSystem(PostureSpec()).encoder == "detector"


@pytest.fixture
def load(monkeypatch):
    """`views.load` of a model folder that holds a given system."""

    def load(system, settings):
        model = Recoverer(system, None, None)
        monkeypatch.setattr(views.photo, "load", lambda *_: model)
        return views.load("runs/model", "neutral", None, settings)

    return load


def test_iterations_are_the_papers_for_genhmr_and_else_those_of_the_system(load):
    assert load(GENHMR, Settings())[1].iterations == 5
    assert load(POSTURE, Settings())[1].iterations == 7
    for system in (GENHMR, POSTURE):
        assert load(system, Settings(iterations=3))[1] == Settings(iterations=3)


def test_settings_of_genhmr_are_refused_for_another_system(load):
    changed = Settings(rule="hard", schedule="linear", temperature=1.0)
    assert load(GENHMR, changed)[1].rule == "hard"
    said = (
        "runs/model: is a posturehmr model, which has no rule and no schedule and no temperature; "
        "leave out --rule and --schedule and --temperature"
    )
    with pytest.raises(InputError) as error:
        load(POSTURE, changed)
    assert str(error.value) == said
    load(POSTURE, Settings(refine_steps=0, views=4, seed=1))


def test_a_system_that_crops_by_boxes_is_refused(load):
    with pytest.raises(InputError, match="is a hmr2 model, whose crops are not around keypoints"):
        load(RegressorSystem(RegressorSpec(encoder="vit_s")), Settings())


def test_a_model_that_is_not_packaged_is_refused(capsys):
    assert views.main(["--poses=made-up", "--model=hmr2"]) == 1
    error = capsys.readouterr().err
    assert "--model hmr2: no checkpoint of it comes with the package" in error


@pytest.mark.slow
def test_a_posturehmr_is_measured_with_and_without_the_image(monkeypatch):
    """An untrained model on two stored rows with the maps of the detector."""
    mesh2d = Mesh2dSpec(width=16, depth=1, point_width=4, cell_width=2)
    system = PostureSystem(PostureSpec(mesh2d, width=16, layers=1, heads=2, steps=2))
    rng, body = np.random.default_rng(0), load_body("neutral")
    draw = lambda x: rng.normal(0, 0.05, x.shape).astype(x.dtype)
    own = coarse_body.to_params(coarse_body.make(body, mesh2d))
    model = Recoverer(system, jax.tree.map(draw, system.shapes) | {"body": own}, body)
    evidence = jax.tree.map(draw, encoders.find("detector").stored_shapes(2))
    weight = np.ones(2, np.float32)
    rows = dataclasses.replace(stored_rows.rows(2, 0), images=None, weight=weight, **evidence)

    class Features:
        size = 2

        def __init__(self, folder, encoder):
            assert (str(folder), encoder) == ("features/val", "detector")

        def all_batches(self, size):
            return [rows]

    monkeypatch.setattr(views, "FeatureSet", Features)
    monkeypatch.setattr(views.photo, "load", lambda *_: model)
    found = views.evaluate("runs/model", Settings(refine_steps=0), images="features")
    assert found["settings"]["iterations"] == found["views"] == 2
    errors = {label: of["sampled"]["mpjpe_mm"] for label, of in found["contexts"].items()}
    assert list(errors) == ["image+keypoints", "keypoints"]
    assert 0 < errors["image+keypoints"] < 1000
    assert errors["image+keypoints"] != errors["keypoints"], "the maps are an input"
