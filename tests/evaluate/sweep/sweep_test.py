"""Sweeps: plans that share what points have in common, what is reported, and one real run."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from genhmr_jax.cli import main
from genhmr_jax.evaluate.settings import Settings
from genhmr_jax.evaluate.sweep.collect import collect, markdown, write
from genhmr_jax.evaluate.sweep.plan import make_plan
from genhmr_jax.evaluate.sweep.settings import load_sweep
from genhmr_jax.io.config_files import load_config
from genhmr_jax.io.errors import InputError
from support.paths import ROOT
from support.sweep_runs import RESULT, TOKENS, UGS, finish, sweep

SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.py"))


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("file", SWEEPS, ids=lambda f: f.stem)
def test_every_point_of_every_sweep_fits_the_configs(file, tmp_path):
    with pytest.raises(InputError, match="choose among") as error:
        load_sweep(f"{file}:zzz")
    arguments = str(error.value).partition("choose among ")[2].split(", ")
    assert {"full", "tiny"} <= set(arguments)
    for arg in arguments:
        plan = make_plan(f"{file}:{arg}", tmp_path)
        assert len(plan.rows) == len({row.evaluations for row in plan.rows}) >= 2, (
            "every point is measured by itself"
        )
        for node in plan.nodes.values():
            assert all(need in plan.nodes for need in node.needs)
            if node.kind in plan.sweep.stages:
                config = next(text for text in node.command if text.startswith("--config="))
                overrides = [text for text in node.command if text.startswith("--config.")]
                config = load_config(
                    config.removeprefix("--config="), overrides
                )  # as the training will read it
                assert config.stage == node.kind


def test_the_sweeps_are_those_of_the_paper():
    assert [file.stem for file in SWEEPS] == [
        "codebook_size", "context_dropout", "differentiable_sampling", "feature_scales",
        "mask_schedule", "posturehmr_components", "posturehmr_steps", "refinement_lambda",
        "refinement_steps", "tokens", "ugs_iterations",
    ]  # fmt: skip
    ranges = {
        "codebook_size": (512, 4096),
        "tokens": (24, 192),
        "ugs_iterations": (1, 20),
        "posturehmr_steps": (1, 20),
        "refinement_steps": (0, 20),
    }
    for name, ends in ranges.items():
        x = [point.x for point in load_sweep(f"configs/sweeps/{name}.py").points]
        assert (min(x), max(x)) == ends and x == sorted(x)


def test_points_share_what_they_have_in_common(tmp_path):
    plan = make_plan(UGS, tmp_path)
    assert [node.kind for node in plan.nodes.values()] == [
        "tokenizer",
        "genhmr",
        "evaluate",
        "evaluate",
    ]
    assert [node.kind for node in make_plan(TOKENS, tmp_path).nodes.values()] == [
        "tokenizer",
        "genhmr",
        "evaluate",
    ] * 2
    seeds = make_plan(UGS, tmp_path, seeds=2)
    assert len(seeds.nodes) == 2 * len(plan.nodes) and set(plan.nodes) < set(seeds.nodes)


def test_a_node_is_named_by_what_decides_its_result(tmp_path):
    def keys(**options):
        return set(make_plan(UGS, tmp_path, **options).nodes)

    plain = keys()
    assert keys(sets=["mesh.fsdp=2", "genhmr.remat=blocks", "log.tensorboard=True"]) == plain, (
        "how it runs does not count"
    )
    assert keys(sets=["genhmr.lora.alpha=8.0"]) == plain, "there are no such arrays"
    ranks = [keys(sets=[f"genhmr.lora.rank={rank}"]) for rank in (4, 16)]
    assert len(ranks[0] & plain) == len(ranks[0] & ranks[1]) == 1, "only the tokenizer stays"
    assert not keys(sets=["tokenizer.steps=5"]) & plain, "all depends on the tokenizer"
    assert len(keys(sets=["genhmr.optim.b2=0.9"]) & plain) == 1, "the tokenizer stays"
    assert len(keys(sets=["evaluate.seed=1"]) & plain) == 2, "both trainings stay"
    assert len(keys(sets=["data.poses=other.npz"]) & plain) == 0
    assert set(make_plan(UGS, tmp_path / "elsewhere").nodes) == plain, "the folder does not count"


def test_a_trained_first_stage_or_model_is_used_as_it_is(tmp_path):
    plan = make_plan(UGS, tmp_path, first_stage="some/model")
    assert [node.kind for node in plan.nodes.values()] == ["genhmr", "evaluate", "evaluate"]
    assert "--config.tokenizer=some/model" in plan.nodes[next(iter(plan.nodes))].command
    plan = make_plan(UGS, tmp_path, checkpoint="default")
    assert [node.kind for node in plan.nodes.values()] == ["evaluate"] * 2
    assert not any("--checkpoint" in node.command for node in plan.nodes.values())
    with pytest.raises(
        InputError,
        match=(
            "point 24: changes model.num_tokens of the tokenizer, but some/model is trained already"
        ),
    ):
        make_plan(TOKENS, tmp_path, first_stage="some/model")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("genhmr.stepz=3", "no config has a field 'genhmr.stepz'; did you mean genhmr.steps"),
        ("evaluate.view=3", "did you mean evaluate.views"),
        ("data.pose=x", "did you mean data.poses"),
        ("genhmr.steps=few", "steps cannot be 'few'; give it as int"),
        ("evaluate.rule=soft", "rule is 'soft'; choose among auto, expected, final, committed"),
        ("evaluate.views=0", "views is 0; give at least 1"),
        ("evaluate.iterations=3", "is a field that the sweep varies"),
        ("steps", "has no value"),
        ("tokenizer=DIR", "is the folder of the first stage; give --first-stage=DIR"),
        ("mesh2d.steps=3", "no config has a field 'mesh2d.steps'"),
    ],
)
def test_bad_overrides(text, said, tmp_path):
    with pytest.raises(InputError, match=said):
        make_plan(UGS, tmp_path, sets=[text])


def test_bad_sweeps(tmp_path):
    with pytest.raises(InputError, match="no such config file; did you mean .*ugs_iterations.py"):
        make_plan(f"{ROOT}/configs/sweeps/ugs_iteration.py", tmp_path)
    with pytest.raises(InputError, match="has no argument 'tiyn'; did you mean tiny"):
        make_plan(UGS.replace("tiny", "tiyn"), tmp_path)
    for text, said in (
        ("return 3", "returns no"),
        ("return Sweep('x', [Point('a', 1), Point('a', 2)])", "points of the same name: a"),
        (
            "return Sweep('x', [Point('a', 1, {'genhmrr': {}}), Point('b', 2)])",
            "point a: has overrides of 'genhmrr'; did you mean genhmr",
        ),
        (
            "return Sweep('x', [Point('a', 1)], overrides={'mesh2d': {}})",
            "has overrides of 'mesh2d'; choose among tokenizer, genhmr, evaluate",
        ),
        (
            "return Sweep('x', [Point('a', 1)], configs={'genhmr': 'genhmr/tiny.py'})",
            "has configs of 1 stages; give two",
        ),
    ):
        (tmp_path / "s.py").write_text(
            f"from genhmr_jax.evaluate.sweep.definition import Point, Sweep\ndef get_sweep():\n "
            f"   {text}\n"
        )
        with pytest.raises(InputError, match=said):
            make_plan(str(tmp_path / "s.py"), tmp_path)
    (tmp_path / "s.py").write_text(
        "from genhmr_jax.evaluate.sweep.definition import Point, Sweep\n"
        "def get_sweep():\n    return Sweep('x', [Point('a', 1, {'genhmr': {'step': 1}}), "
        "Point('b', 2)])\n"
    )
    with pytest.raises(InputError, match="point a: .*has no field 'step'; did you mean steps"):
        make_plan(str(tmp_path / "s.py"), tmp_path)


def test_table_and_plot(tmp_path):
    pytest.importorskip("matplotlib")
    plan = make_plan(UGS, tmp_path, seeds=2)
    assert "Not complete: 1, 3." in markdown(plan, collect(plan))
    for i, node in enumerate(plan.nodes.values()):
        finish(node, 40.0 + i)
    lines = collect(plan)
    assert lines[0].values["keypoints/refined/pa_mpjpe_mm"] == pytest.approx((42 + 45) / 2), (
        "nodes 2 and 5: the mean over seeds"
    )
    assert lines[0].spread["keypoints/refined"] == pytest.approx(3 / 2**0.5)
    files = write(plan, lines)
    assert [file.name for file in files] == ["table.md", "table.csv", "plot.png"] and files[
        2
    ].read_bytes().startswith(b"\x89PNG")
    table = files[0].read_text().splitlines()
    assert table[0].startswith(
        "| iterations | tokenizer MPJPE | PA-MPJPE sampled | MPJPE sampled | PA-MPJPE refined"
    )
    assert table[2] == "| 1 | 12.0 | 43.5 ± 2.1 | 80.0 | 43.5 ± 2.1 | 80.0 | 10.0 |"
    assert (
        files[1]
        .read_text()
        .splitlines()[0]
        .startswith("point,iterations,seeds,keypoints/sampled/pa_mpjpe_mm")
    )


def test_a_plot_of_names_and_of_several_contexts(tmp_path):
    pytest.importorskip("matplotlib")
    plan = make_plan(f"{ROOT}/configs/sweeps/context_dropout.py:tiny", tmp_path)
    for node in plan.nodes.values():
        finish(node)
        if node.kind == "evaluate":
            node.marker.write_text(
                json.dumps(
                    {
                        "contexts": {
                            c: {"sampled": RESULT, "refined": RESULT}
                            for c in ("image", "keypoints")
                        }
                    }
                )
            )
    write(plan, collect(plan))
    assert (
        "image: PA-MPJPE sampled" in (tmp_path / "table.md").read_text()
        and (tmp_path / "plot.png").stat().st_size > 1000
    )


def test_dry_run_writes_nothing(tmp_path, capsys):
    assert sweep(f"--out={tmp_path / 'new'}", "--dry-run") == 0
    assert (
        "2 points, 6 runs, 6 to do" in capsys.readouterr().out and not (tmp_path / "new").exists()
    )


def test_settings_become_flags_and_come_back():
    import argparse

    parser = argparse.ArgumentParser()
    Settings.add_flags(parser)
    settings = Settings(iterations=3, rule="hard", prior_pose=0.25, refine_steps=0)
    assert settings.flags() == [
        "--iterations=3",
        "--rule=hard",
        "--refine-steps=0",
        "--prior-pose=0.25",
    ]
    assert Settings.from_args(parser.parse_args(settings.flags())) == settings
    assert Settings.from_args(parser.parse_args([])) == Settings()


def test_settings_know_what_the_model_knows():
    from genhmr_jax.core.refinement import RefineSpec
    from genhmr_jax.core.sampling import SCHEDULES
    from genhmr_jax.evaluate import settings
    from genhmr_jax.systems.genhmr.system import DECODE_RULES

    assert settings.DECODE_RULES == DECODE_RULES
    assert tuple(settings.SCHEDULES) == tuple(SCHEDULES)
    assert (Settings().refine_steps, Settings().prior_pose) == (
        RefineSpec().steps,
        RefineSpec().prior_pose,
    )


def test_settings_are_checked_without_jax():
    code = (
        "import sys\n"
        "from genhmr_jax.evaluate.sweep import plan\n"
        "plan.Settings.of({'rule': 'hard', 'schedule': 'sqrt'})\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_a_real_sweep_from_nothing_to_its_table(tmp_path, capsys):
    """Trains both stages, evaluates two points; then a lost evaluation alone is done again."""
    flags = [
        f"--sweep={UGS}",
        f"--out={tmp_path}",
        "--set=evaluate.views=4",
        "--set=evaluate.batch_size=4",
        "--set=genhmr.batch_size=8",
    ]
    assert main.main(["sweep", *flags]) == 0
    assert "4 runs done, 0 were done before, 0 failed" in capsys.readouterr().out
    plan = make_plan(UGS, tmp_path, sets=[text.removeprefix("--set=") for text in flags[2:]])
    lines = collect(plan)
    assert all(line.values["keypoints/sampled/pa_mpjpe_mm"] > 0 for line in lines)
    assert lines[0].values["tokenizer_mpjpe_mm"] == lines[1].values["tokenizer_mpjpe_mm"] > 0, (
        "one tokenizer"
    )
    lost = plan.nodes[plan.rows[1].evaluations[0]].marker
    before = json.loads(lost.read_text())
    lost.unlink()
    assert main.main(["sweep", *flags]) == 0
    assert "1 runs done, 3 were done before, 0 failed" in capsys.readouterr().out
    again = json.loads(lost.read_text())
    for stage in ("sampled", "refined"):
        assert again["contexts"]["keypoints"][stage]["pa_mpjpe_mm"] == pytest.approx(
            before["contexts"]["keypoints"][stage]["pa_mpjpe_mm"]
        )
    shutil.rmtree(pathlib.Path(tmp_path) / "runs")
