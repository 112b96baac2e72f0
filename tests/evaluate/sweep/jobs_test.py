"""Sweeps for clusters: SLURM scripts, JobSets, an XManager script; and flags that are refused."""

import ast
import shlex
import subprocess
import sys

import pytest

from genhmr_jax.evaluate.sweep import local
from genhmr_jax.evaluate.sweep.plan import make_plan
from support.paths import ROOT
from support.sweep_runs import TOKENS, finish, sweep

CLOUD = ("--image=us-docker.pkg.dev/p/g/x:tpu", "--remote-out=/gcs/bucket/a sweep")


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_slurm_scripts_are_shell_and_run_in_order(tmp_path, capsys):
    out = tmp_path / "a folder"
    assert (
        sweep(
            f"--out={out}",
            "--backend=slurm",
            "--option=--gpus=1",
            "--option=--partition=p",
            "--jobs=3",
        )
        == 0
    )
    assert "6 runs in" in capsys.readouterr().out
    scripts = sorted(path.name for path in (out / "slurm").iterdir())
    assert scripts == [
        "collect.sbatch",
        "evaluate.sbatch",
        "genhmr.sbatch",
        "submit.sh",
        "tokenizer.sbatch",
    ]
    for script in scripts:
        subprocess.run(["bash", "-n", out / "slurm" / script], check=True)
    text = (out / "slurm" / "genhmr.sbatch").read_text()
    assert "#SBATCH --array=0-1%3\n" in text and "#SBATCH --gpus=1\n" in text
    collecting = (out / "slurm" / "collect.sbatch").read_text()
    assert (
        "--gpus" not in collecting and "--partition=p" in collecting and "--collect" in collecting
    )

    # A made-up SLURM: sbatch says what it was given, srun notes its command.
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sbatch").write_text(
        '#!/bin/bash\necho "$@" >> "$LOG"\necho $((100 + $(wc -l < "$LOG")))\n'
    )
    (tools / "srun").write_text('#!/bin/bash\nprintf "%s\\n" "$@" > "$LOG"\nexit ${CODE:-0}\n')
    (tools / "scontrol").write_text('#!/bin/bash\necho "$@" >> "$LOG"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)

    def bash(script, log, **variables):
        environment = {"PATH": f"{tools}:/usr/bin:/bin", "LOG": str(log), **variables}
        return subprocess.run(
            ["bash", out / "slurm" / script], env=environment, capture_output=True, text=True
        ).returncode

    assert bash("submit.sh", tmp_path / "submitted") == 0
    assert (tmp_path / "submitted").read_text().splitlines() == [
        "--parsable tokenizer.sbatch",
        "--parsable --dependency=afterany:101 genhmr.sbatch",
        "--parsable --dependency=afterany:102 evaluate.sbatch",
        "--parsable --dependency=afterany:103 collect.sbatch",
    ]
    plan = make_plan(TOKENS, out)
    tokenizers, models = (
        [n for n in plan.nodes.values() if n.kind == kind] for kind in ("tokenizer", "genhmr")
    )
    assert (
        bash("genhmr.sbatch", tmp_path / "ran", SLURM_ARRAY_TASK_ID="1") == 1
        and not (tmp_path / "ran").exists()
    ), "no tokenizer yet"
    finish(tokenizers[1])
    assert bash("genhmr.sbatch", tmp_path / "ran", SLURM_ARRAY_TASK_ID="1") == 0
    assert (tmp_path / "ran").read_text().splitlines() == [sys.executable, *models[1].command]
    saved = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "CODE": str(local.STOPPED)}
    assert bash("genhmr.sbatch", tmp_path / "stopped", **saved) == local.STOPPED
    assert (tmp_path / "stopped").read_text().splitlines()[-1] == "requeue 7_1"
    finish(models[1])
    assert (
        bash("genhmr.sbatch", tmp_path / "again", SLURM_ARRAY_TASK_ID="1") == 0
        and not (tmp_path / "again").exists()
    ), "done already"


def test_gke_jobsets(tmp_path, capsys):
    yaml = pytest.importorskip("yaml")
    flags = (
        "--backend=gke",
        "--option=topology=4x4",
        "--option=hosts=4",
        *CLOUD,
        "--set=tokenizer.model.part_tokens=(1,1,1,1,1,2)",
    )
    assert sweep(f"--out={tmp_path}", *flags) == 0
    assert "6 JobSets in" in capsys.readouterr().out
    subprocess.run(["bash", "-n", tmp_path / "gke" / "apply.sh"], check=True)
    reference = yaml.safe_load((ROOT / "launch" / "jobset.yaml").read_text())
    files = sorted((tmp_path / "gke").glob("*.yaml"))
    assert len(files) == 6
    for file in files:
        job = yaml.safe_load(file.read_text())
        assert (job["kind"], job["apiVersion"], job["metadata"]["name"]) == (
            "JobSet",
            reference["apiVersion"],
            file.stem,
        )
        spec = job["spec"]["replicatedJobs"][0]["template"]["spec"]
        assert spec["parallelism"] == spec["completions"] == 4
        assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [local.STOPPED]
        pod = spec["template"]["spec"]
        assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4"
        command = shlex.split(pod["containers"][0]["command"][2].partition("exec ")[2])
        assert command[:2] == ["python", "-m"]
        if command[2] == "genhmr_jax.main":
            assert f"--workdir=gs://bucket/a sweep/runs/{file.stem}" in command
        if file.stem.startswith("tokenizer"):
            assert "--config.model.part_tokens=(1, 1, 1, 1, 1, 2)" in command
    order = [
        line
        for line in (tmp_path / "gke" / "apply.sh").read_text().splitlines()
        if line.startswith("wait_for ")
    ]
    assert [line.split()[1].partition("-")[0] for line in order] == [
        "tokenizer",
        "genhmr",
        "evaluate",
    ]


def test_xmanager_launch_script(tmp_path):
    assert sweep(f"--out={tmp_path}", "--backend=xmanager", "--option=a100=2", *CLOUD) == 0
    tree = ast.parse((tmp_path / "xmanager_launch.py").read_text())
    constants = {
        node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)
    }
    stages = ast.literal_eval(constants["STAGES"])
    assert [next(iter(stage)).partition("-")[0] for stage in stages] == [
        "tokenizer",
        "genhmr",
        "evaluate",
    ]
    assert ast.literal_eval(constants["REQUIREMENTS"]) == {"a100": 2}
    name, arguments = next(iter(stages[0].items()))
    assert f"--workdir=gs://bucket/a sweep/runs/{name}" in arguments


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--backend=slurm", "--option=gpus=1"], "--option gpus=1: is not an option of sbatch"),
        (["--backend=gke", CLOUD[0]], "--remote-out '': names no folder of a mounted bucket"),
        (["--backend=gke", CLOUD[1]], "--image: is missing"),
        (["--backend=gke", *CLOUD, "--option=topologie=2x2"], "did you mean topology"),
        (["--backend=xmanager", *CLOUD, "--option=a100"], "is not a resource"),
        (
            ["--set=data.poses=not_there.npz"],
            "not_there.npz: no such file or folder; give it with --set data.poses=PATH",
        ),
        (["--jobs=0"], "--jobs 0: nothing would run"),
        (["--jobs=3", "--devices=0,1"], "--jobs 3: is more than the 2 of --devices; give --jobs 2"),
        (["--seeds=0"], "--seeds 0: cannot be; give --seeds 1"),
        (["--checkpoint=default"], "point 24: changes model.num_tokens"),
    ],
)
def test_bad_flags(flags, said, tmp_path, capsys):
    assert sweep(f"--out={tmp_path}", *flags) == 1
    error = capsys.readouterr().err
    assert error.startswith("genhmr: ") and said in error and error.count("\n") == 1
