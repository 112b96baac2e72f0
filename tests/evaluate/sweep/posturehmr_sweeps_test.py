"""Sweeps of PostureHMR: the same planner, other stages, another column of the first stage."""

import pytest

from genhmr_jax.cli import main
from genhmr_jax.evaluate.sweep.collect import collect, markdown
from genhmr_jax.evaluate.sweep.plan import make_plan
from genhmr_jax.io.config_files import load_config
from genhmr_jax.io.errors import InputError
from support.paths import ROOT
from support.sweep_runs import COMPONENTS, STEPS, finish


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def of_kind(plan, kind):
    return [node for node in plan.nodes.values() if node.kind == kind]


def config_of(node):
    """The config as the training reads it."""
    file = next(text for text in node.command if text.startswith("--config="))
    overrides = [text for text in node.command if text.startswith("--config.")]
    return load_config(file.removeprefix("--config="), overrides)


def test_decoders_share_the_2d_meshes_but_for_the_trimap(tmp_path):
    plan = make_plan(COMPONENTS, tmp_path)
    first, second, evaluations = (of_kind(plan, k) for k in ("mesh2d", "posturehmr", "evaluate"))
    assert [config_of(node).loss.silhouette for node in first] == [0.0, 10.0]
    assert [node.needs for node in second] == [
        (first[number].key,) for number in (0, 0, 0, 0, 1, 0)
    ]
    assert [
        (config_of(node).model.process, config_of(node).model.condition) for node in second
    ] == [
        ("noise", "global"),
        ("linear", "global"),
        ("kinematic", "global"),
        ("kinematic", "mesh2d"),
        ("kinematic", "mesh2d"),
        ("linear", "mesh2d"),
    ]
    assert [node.needs for node in evaluations] == [(node.key,) for node in second]


def test_a_point_as_it_runs(tmp_path):
    plan = make_plan(COMPONENTS, tmp_path)
    first, second, evaluation = list(plan.nodes.values())[:3]
    assert [node.kind for node in (first, second, evaluation)] == [*plan.sweep.stages, "evaluate"]
    folder = str(tmp_path / "runs" / first.key / "model")
    assert config_of(second).mesh2d == folder
    assert plan.rows[0].first_stages == (tmp_path / "runs" / first.key / "model",)
    flags = dict(zip(evaluation.command, evaluation.command[1:], strict=False))
    assert flags["--model"] == "posturehmr" and flags["--poses"] == "made-up"
    assert flags["--checkpoint"] == str(tmp_path / "runs" / second.key / "model")


def test_steps_are_those_of_the_run_or_those_of_the_training(tmp_path):
    sweep = STEPS.removesuffix(":tiny")
    full = make_plan(sweep, tmp_path)
    assert [len(of_kind(full, kind)) for kind in full.kinds] == [0, 1, 1, 5]
    assert all(f"--iterations={row.point.x}" in of.command for row, of in zip(
        full.rows, of_kind(full, "evaluate"), strict=True))  # fmt: skip
    trained = make_plan(f"{sweep}:trained", tmp_path)
    assert [len(of_kind(trained, kind)) for kind in trained.kinds] == [0, 1, 5, 5]
    configs = [config_of(node) for node in of_kind(trained, "posturehmr")]
    assert [config.model.steps for config in configs] == [1, 2, 5, 10, 20]
    assert all(config.training.steps_per_sample <= config.model.steps for config in configs)
    assert not any(
        "--iterations" in text for node in trained.nodes.values() for text in node.command
    )
    shared = set(full.nodes) & set(trained.nodes)
    kinds = sorted(key.partition("-")[0] for key in shared)
    assert kinds == ["mesh2d", "posturehmr"], "the recipe has 10 steps"


def test_overrides_and_trained_models(tmp_path):
    sets = ["mesh2d.steps=7", "posturehmr.model.width=32", "data.poses=other.npz"]
    plan = make_plan(STEPS, tmp_path, sets=sets)
    first, second = (config_of(of_kind(plan, kind)[0]) for kind in plan.sweep.stages)
    assert (first.steps, first.data.poses) == (7, "other.npz")
    assert (second.steps, second.model.width, second.data.poses) == (4, 32, "other.npz")
    plan = make_plan(STEPS, tmp_path, first_stage="some/model")
    assert [node.kind for node in plan.nodes.values()] == ["posturehmr", "evaluate", "evaluate"]
    assert config_of(of_kind(plan, "posturehmr")[0]).mesh2d == "some/model"
    plan = make_plan(STEPS, tmp_path, checkpoint="some/model")
    assert [node.kind for node in plan.nodes.values()] == ["evaluate"] * 2
    assert plan.rows[0].first_stages == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tokenizer.steps=3", "no config has a field 'tokenizer.steps'"),
        ("posturehmr.model.step=3", "did you mean posturehmr.model.steps"),
        ("mesh2d=DIR", "is the folder of the first stage; give --first-stage=DIR"),
        ("mesh2d.loss.silhouette=1.0", "is a field that the sweep varies"),
    ],
)
def test_bad_overrides(text, said, tmp_path):
    with pytest.raises(InputError, match=said):
        make_plan(COMPONENTS, tmp_path, sets=[text])


def test_a_trained_first_stage_cannot_be_varied(tmp_path):
    said = "point noise baseline: changes loss.silhouette of the mesh2d, but some/model is trained"
    with pytest.raises(InputError, match=said):
        make_plan(COMPONENTS, tmp_path, first_stage="some/model")


def test_the_table_has_the_error_of_the_2d_meshes(tmp_path):
    plan = make_plan(STEPS, tmp_path)
    for node in plan.nodes.values():
        finish(node)
    table = markdown(plan, collect(plan)).splitlines()
    assert table[0].startswith("| steps | 2D mesh error, % of the crop | PA-MPJPE sampled |")
    assert table[2].startswith("| 1 | 3.25 | 50.0 ± 1.5 |")


def test_the_table_has_no_column_of_an_unknown_first_stage(tmp_path, monkeypatch):
    monkeypatch.setattr("genhmr_jax.evaluate.sweep.collect.MEASURES", {})
    plan = make_plan(STEPS, tmp_path)
    for node in plan.nodes.values():
        finish(node)
    assert markdown(plan, collect(plan)).startswith("| steps | PA-MPJPE sampled |")


@pytest.mark.slow
def test_a_real_sweep_from_nothing_to_its_table(tmp_path, capsys):
    """Trains both stages, and evaluates the model with two numbers of steps."""
    flags = ["--set=evaluate.views=4", "--set=evaluate.batch_size=4"]
    assert main.main(["sweep", f"--sweep={STEPS}", f"--out={tmp_path}", *flags]) == 0
    assert "4 runs done, 0 were done before, 0 failed" in capsys.readouterr().out
    plan = make_plan(STEPS, tmp_path, sets=[text.removeprefix("--set=") for text in flags])
    one, three = collect(plan)
    name = "keypoints/sampled/pa_mpjpe_mm"
    assert (
        one.values[name] > 0 and three.values[name] > 0 and one.values[name] != three.values[name]
    )
    assert one.values["mesh2d_percent"] == three.values["mesh2d_percent"] > 0
