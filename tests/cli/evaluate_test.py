"""`genhmr eval` on tiny datasets in their official layouts: the baseline on each, a predictor that
knows the truth, and what goes wrong."""

import dataclasses
import itertools
import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
from smpl_jax.keypoints import EXTRA19

import genhmr_jax
from genhmr_jax.cli import evaluate as eval_command
from genhmr_jax.cli import main
from genhmr_jax.data.sources import find
from genhmr_jax.evaluate import predictions, runner, tables
from genhmr_jax.evaluate.bodies import load_bodies
from genhmr_jax.evaluate.datasets import DATASETS
from genhmr_jax.evaluate.protocols import H36M_TO_J17, J24_TO_J17, PROTOCOLS
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.mean_pose import MEAN_POSE_72
from genhmr_jax.io.errors import InputError
from genhmr_jax.systems import registry
from support import people_fixtures
from support.python2_pickles import python2_pickle

ASSETS = Path(genhmr_jax.__file__).parent / "assets"
PEOPLE = {"3dpw": 5, "emdb1": 3, "emdb2": 3, "h36m-p1": 4, "h36m-p2": 2, "mpi-inf-3dhp": 2}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """(manual directory, {source: truth}): all people have the neutral free body, whatever their
    gender."""
    folder = tmp_path_factory.mktemp("manual")
    names = sorted({dataset.source for dataset in DATASETS.values()})
    return folder, {
        name: people_fixtures.write(name, folder, load_body("neutral")) for name in names
    }


@pytest.fixture(scope="module")
def body_dir(tmp_path_factory):
    """A stand-in for the user's SMPL: the neutral free body for each gender, and regressors that
    make the joints of the same names."""
    folder = tmp_path_factory.mktemp("smpl")
    for gender in ("NEUTRAL", "MALE", "FEMALE"):
        shutil.copy(ASSETS / "body" / "neutral.npz", folder / f"SMPL_{gender}.npz")
    with np.load(ASSETS / "body" / "neutral.npz") as file:
        rows = dict(zip(file["joint_names"].tolist(), file["J_regressor"], strict=True))
    stand_ins = {
        "neck_lsp": "neck",
        "pelvis_mpii": "pelvis",
        "thorax_mpii": "neck",
        "spine_h36m": "spine1",
    }
    j19 = np.stack(
        [rows[stand_ins.get(name, name if name in rows else "head")] for name in EXTRA19]
    )
    (folder / "SMPL_to_J19.pkl").write_bytes(python2_pickle(j19))
    h36m = np.zeros((17, j19.shape[1]), np.float32)
    h36m[list(H36M_TO_J17)] = j19[list(J24_TO_J17)]
    np.save(folder / "J_regressor_h36m.npy", h36m)
    return folder


class Knows:
    """Predicts the truth by image and person, or something that depends on the record's number
    alone."""

    labels = ("it",)

    def __init__(self, people=None):
        self.people = {(p.image_name, p.person): p for p in people or ()}

    def prepare(self, record):
        truth = self.people.get((record["image_name"], int(record["person"])))
        rows = runner.MeanPose(None).prepare(record)
        inputs = {} if truth is None else {"pose": truth.pose[None], "betas": truth.betas[None]}
        return dataclasses.replace(rows, inputs=inputs, seconds=np.array([0.25]))

    def predict(self, prepared, numbers):
        answer = dict(prepared.inputs)
        if not self.people:
            draws = [np.random.default_rng(number).normal(0, 0.2, 72) for number in numbers]
            answer["pose"] = MEAN_POSE_72 + np.stack(draws)
        mean = predictions.mean_pose(load_body("lite"), len(numbers))
        yield "it", dataclasses.replace(mean, **answer, seconds=0.5)


def evaluate(folder, name, predictor, protocols, body_dir=None, report=None, **how):
    dataset, chosen = DATASETS[name], [PROTOCOLS[protocol] for protocol in protocols]
    bodies = load_bodies(
        body_dir, [r for p in chosen for r in p.regressors], ["neutral", "male", "female"]
    )
    report = report or find(dataset.source).report()
    records = find(dataset.source).records(folder, dataset.split, report)
    how = {"batch_size": 8, "frames_per_second": dataset.frames_per_second} | how
    return runner.evaluate(records, predictor, bodies, chosen, report, **how)


@pytest.mark.parametrize("name", DATASETS)
def test_the_mean_pose_on_every_dataset(name, release, body_dir, tmp_path, capsys):
    """Published protocols with (a stand-in for) SMPL: figures of a baseline, texts, and the
    published rows beside them."""
    command = [
        "eval",
        f"--dataset={name}",
        f"--data-dir={release[0]}",
        "--checkpoint=mean-pose",
        "--batch-size=8",
    ]
    assert main.main([*command, f"--body-dir={body_dir}", f"--out={tmp_path / 'smpl.json'}"]) == 0
    printed, found = capsys.readouterr().out, json.loads((tmp_path / "smpl.json").read_text())
    assert list(found["protocols"]) == list(DATASETS[name].published) and found[
        "people"
    ] == PEOPLE.get(name, 2)
    for protocol, figures in found["protocols"].items():
        row = figures["results"]["mean pose"]
        assert (
            30 < row["pa_mpjpe_mm"] < row["mpjpe_mm"] < 400 and figures["people"] == found["people"]
        )
        assert all(np.isfinite(value) for value in row.values())
        assert ("mve_mm" in row) == PROTOCOLS[protocol].mesh
        assert PROTOCOLS[protocol].text in printed and figures["text"] == PROTOCOLS[protocol].text
        assert all(
            f"| {published['method']} | {published['mpjpe_mm']:.1f} |" in printed
            for published in figures["published"]
        )


def test_the_mean_pose_without_smpl(release, tmp_path, capsys):
    for name in ("3dpw", "h36m-p1"):
        out = tmp_path / f"{name}.json"
        assert (
            main.main(
                [
                    "eval",
                    f"--dataset={name}",
                    f"--data-dir={release[0]}",
                    "--checkpoint=mean-pose",
                    f"--out={out}",
                ]
            )
            == 0
        )
        assert list(json.loads(out.read_text())["protocols"]) == list(DATASETS[name].free)
        assert "need your SMPL: give --body-dir" in capsys.readouterr().out


def test_the_truth_has_no_error(release, body_dir):
    """Labels, cameras, genders, regressors and pelvises agree: whoever knows the body in the camera
    has the joints of every label."""
    folder, people = release
    for name, protocols in (
        ("3dpw", ("hmr2", "spin", "joints24")),
        ("emdb1", ("emdb", "emdb-official", "joints24")),
    ):
        found = evaluate(folder, name, Knows(people[DATASETS[name].source]), protocols, body_dir)
        for protocol in protocols:
            row = found["protocols"][protocol]["results"]["it"]
            assert row["mpjpe_mm"] < 0.05 and row["pa_mpjpe_mm"] < 0.05, (name, protocol)
            assert row.get("mve_mm", 0) < 0.05 and row.get("mpjae_deg", 0) < 0.05
        assert found["seconds"]["it"] == pytest.approx(0.75), (
            "seeing one, and its share of the batch"
        )
    for name in ("h36m-p2", "mpi-inf-3dhp"):
        found = evaluate(
            folder,
            name,
            Knows(people[DATASETS[name].source]),
            DATASETS[name].published + ("limbs12",),
            body_dir,
        )
        assert found["protocols"]["limbs12"]["results"]["it"]["mpjpe_mm"] < 0.05
        for protocol in DATASETS[
            name
        ].published:  # regressed from posed vertices, the stand-ins lie a little off the skeleton
            assert found["protocols"][protocol]["results"]["it"]["mpjpe_mm"] < 25


def test_batches_and_padding_change_nothing(release):
    found = [
        evaluate(release[0], "3dpw", Knows(), ["joints24"], batch_size=size) for size in (2, 8)
    ]
    assert {f["people"] for f in found} == {5}
    for other in found[1:]:
        for measure, value in found[0]["protocols"]["joints24"]["results"]["it"].items():
            assert other["protocols"]["joints24"]["results"]["it"][measure] == pytest.approx(
                value, abs=1e-3
            )


class From(Knows):
    """Predicts by the record's number, which begins at `first`."""

    def __init__(self, first):
        super().__init__()
        self.first = first

    def predict(self, prepared, numbers):
        return super().predict(prepared, numbers + self.first)


def test_frames_are_averaged_and_the_jitter_by_sequence(release, body_dir):
    """EMDB's own evaluation: errors over all frames, the jitter over sequences of any length."""
    report = find("emdb").report()
    records = [*find("emdb").records(release[0], "emdb1", report)][:3] * 2
    records = [record | {"frame": 10 + i} for i, record in enumerate(records)]
    records += [r | {"sequence": "another", "frame": i} for i, r in enumerate(records[:4])]
    bodies, chosen = load_bodies(body_dir, ["J24"]), [PROTOCOLS["emdb"], PROTOCOLS["emdb-official"]]

    def measured(begin, end):
        options = {"batch_size": 8, "frames_per_second": 30.0}
        found = runner.evaluate(records[begin:end], From(begin), bodies, chosen, report, **options)
        return [found["protocols"][p.name]["results"]["it"] for p in chosen]

    whole, parts = measured(0, 10), [measured(0, 6), measured(6, 10)]
    for i in range(2):
        mean = (6 * parts[0][i]["mpjpe_mm"] + 4 * parts[1][i]["mpjpe_mm"]) / 10
        assert whole[i]["mpjpe_mm"] == pytest.approx(mean, abs=1e-3)
    mean = (parts[0][1]["jitter"] + parts[1][1]["jitter"]) / 2
    assert whole[1]["jitter"] == pytest.approx(mean, rel=1e-6)
    assert "jitter" not in whole[0] and "accel_mm" not in whole[1], "EMDB has no accelerations"


class Numbered:
    """A predictor whose records all have given numbers."""

    labels = ("it",)

    def __init__(self, inner, numbers):
        self.inner, self.numbers, self.prepare = inner, numbers, inner.prepare

    def predict(self, prepared, numbers):
        return self.inner.predict(prepared, [next(self.numbers) for _ in numbers])


def test_limit(release):
    assert evaluate(release[0], "3dpw", Knows(), ["joints24"], limit=2)["people"] == 2


class Decodes(Knows):
    def prepare(self, record):
        runner.decode(record["image"], record["image_name"])
        return super().prepare(record)


def test_a_damaged_image_is_named_or_skipped(release):
    report = find("threedpw").report()
    records = list(find("threedpw").records(release[0], "test", report))
    records[1] = records[1] | {"image": records[1]["image"][:3000]}
    bodies, chosen = load_bodies(None), [PROTOCOLS["joints24"]]
    with pytest.raises(InputError, match="threedpw: imageFiles/.*cannot be decoded.*--skip-bad"):
        runner.evaluate(records, Decodes(), bodies, chosen, report)
    report = find("threedpw").report(skip_bad=True)
    found = runner.evaluate(records, Decodes(), bodies, chosen, report)
    assert found["people"] == 4 and len(report.listed) == 1
    kept = [record for i, record in enumerate(records) if i != 1]
    numbers = itertools.cycle([0, 2, 3, 4, *[4] * 28])
    again = runner.evaluate(kept, Numbered(Knows(), numbers), bodies, chosen, report)
    assert again["protocols"]["joints24"]["results"] == found["protocols"]["joints24"]["results"], (
        "the others keep their numbers"
    )


def test_built_datasets_give_the_same_figures(release, tmp_path, capsys):
    pytest.importorskip("tensorflow_datasets")
    built = tmp_path / "built"
    assert (
        main.main(
            [
                "data",
                "build",
                "emdb",
                f"--manual-dir={release[0]}",
                f"--data-dir={built}",
                "--split=emdb1",
            ]
        )
        == 0
    )
    for name, folder in (("a", release[0]), ("b", built)):
        assert (
            main.main(
                [
                    "eval",
                    "--dataset=emdb1",
                    f"--data-dir={folder}",
                    "--checkpoint=mean-pose",
                    f"--out={tmp_path / name}",
                ]
            )
            == 0
        )
    assert (
        json.loads((tmp_path / "a").read_text())["protocols"]
        == json.loads((tmp_path / "b").read_text())["protocols"]
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dataset=3dpw", "--data-dir=nowhere"], ["threedpw", "virtualhumans.mpi-inf.mpg.de"]),
        (
            ["--dataset=3dpw", "--protocol=emdb"],
            ["'emdb' does not fit 3dpw", "hmr2, spin, joints24"],
        ),
        (
            ["--dataset=3dpw", "--protocol=spin"],
            ["--body-dir: is not given", "J_regressor_h36m.npy"],
        ),
        (["--dataset=emdb1", "--body-dir=nowhere"], ["SMPL_NEUTRAL.pkl", "SMPL_FEMALE.pkl"]),
        (
            ["--dataset=3dpw", "--context=image"],
            ["--context image: does not go with --checkpoint=mean-pose"],
        ),
        (["--dataset=3dpw", "--limit=0"], ["--limit: is 0"]),
        (["--dataset=3dpw", "--robustness"], ["--robustness: does not apply to 3dpw"]),
        (["--dataset=photos", "--true-focal"], ["--true-focal: does not apply to photos"]),
        (["--dataset=photos", "--skip-bad"], ["--skip-bad: does not apply to photos"]),
        (["--dataset=angles", "--model=genhmr"], ["--model: does not apply to angles"]),
        (["--dataset=angles", "--context=image"], ["--context: does not apply to angles"]),
        (["--dataset=angles", "--iterations=3"], ["--iterations: does not apply to angles"]),
        (["--dataset=angles", "--refine-steps=0"], ["--refine-steps: does not apply to angles"]),
        (["--dataset=photos"], ["--checkpoint: mean-pose does not go with photos"]),
        (["--dataset=3dpw", "--out=no/such/folder.json"], ["no such folder"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(flags, words, release, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = (
        [] if any(flag.startswith("--data-dir") for flag in flags) else [f"--data-dir={release[0]}"]
    )
    assert main.main(["eval", "--checkpoint=mean-pose", *data, *flags]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(word in error for word in words), error
    assert list(tmp_path.iterdir()) == [], "nothing half-written stays"


def test_iterations_are_checked(capsys):
    for text in ("0", "1,,3", "fast"):
        with pytest.raises(SystemExit):
            main.main(["eval", "--dataset=3dpw", "--data-dir=x", f"--iterations={text}"])
        assert "whole numbers of 1 or more" in capsys.readouterr().err


def test_the_kinds_of_models_are_those_of_the_registry(capsys):
    for command in (["eval", "--dataset=3dpw", "--data-dir=x"], ["demo"]):
        with pytest.raises(SystemExit):
            main.main([*command, "--model=spin"])
        assert (
            f"must be one of {', '.join(registry.kinds())}, not 'spin'" in capsys.readouterr().err
        )


def test_the_table_shows_what_was_measured_and_who_says_the_rest():
    figures = {"results": {"T=5, with refinement": {"mpjpe_mm": 70.04, "pa_mpjpe_mm": 45.55}}}
    lines = tables.table("emdb1", "emdb", figures, {"T=5, with refinement": 0.1234}).splitlines()
    assert lines[0] == "|  | MPJPE, mm | PA-MPJPE, mm | ms a person | source |"
    assert lines[2] == "| T=5, with refinement | 70.0 | 45.5 | 123 | measured here |"
    assert (
        "| GenHMR | 68.5 | 38.2 |  | third-party reading notes of the paper, unverified |" in lines
    )
    assert "| HMR2.0a | 97.8 | 61.5 |  | secondary source |" in lines
    assert not tables.published("emdb1", "joints24"), "no published number was measured like that"


def test_the_json_file_has_no_nan():
    found = eval_command._without_nan({"a": [float("nan"), 1.5, "x"], "b": (float("inf"), None, 3)})
    assert found == {"a": [None, 1.5, "x"], "b": [None, None, 3]}


def test_a_system_that_does_not_sample_has_its_own_number_of_steps():
    """PostureHMR has 10 and takes others; a regressor has none."""
    system = lambda own, samples: types.SimpleNamespace(
        system=types.SimpleNamespace(samples=samples, default_iterations=lambda _: own)
    )
    numbers = lambda given, model: eval_command._iterations(
        types.SimpleNamespace(iterations=given), model
    )
    assert numbers(None, system(10, False)) == (10,)
    assert numbers((1, 5), system(10, False)) == (1, 5)
    assert numbers((1, 5), system(1, False)) == numbers(None, system(1, False)) == (1,)
    assert numbers((1, 5), system(3, True)) == numbers((1, 5), None) == (1, 5)
    assert numbers(None, system(3, True)) == numbers(None, None) == eval_command.ITERATIONS
