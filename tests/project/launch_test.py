"""The launchers of launch/, as far as that goes without their clusters: syntax, what they name,
what they pass on."""

import os
import re
import subprocess
import sys
import time

import pytest

from genhmr_jax.io.config_files import load_config
from support.paths import ROOT

LAUNCH = ROOT / "launch"
SHELL = [*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch"), *LAUNCH.glob("env/*.sh")]
LAUNCHERS = [
    p
    for p in LAUNCH.iterdir()
    if p.is_file() and p.suffix in (".sh", ".sbatch", ".yaml", "") or p.name == "Dockerfile"
]
RUN = ("--config=configs/tokenizer/tiny.py", "--workdir=gs://bucket/a b")


def environment(**variables: str) -> dict[str, str]:
    """This environment without what clusters set; CPU, and one thread's worth of noise."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(
            ("GENHMR_", "SLURM_", "SKYPILOT_", "JAX_NUM_CPU", "XLA_FLAGS", "LIBTPU_")
        )
    }
    return kept | {"JAX_PLATFORMS": "cpu"} | variables


# The files.


@pytest.mark.parametrize("file", SHELL, ids=lambda p: p.name)
def test_shell_syntax(file):
    done = subprocess.run(["bash", "-n", file], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_every_launcher_ends_in_the_same_command():
    assert {p.name for p in LAUNCHERS} == {
        "tpu_vm.sh",
        "xpk.sh",
        "slurm.sbatch",
        "jobset.yaml",
        "skypilot.yaml",
        "Dockerfile",
    }
    for path in [*LAUNCHERS, LAUNCH / "local_multiprocess.py", LAUNCH / "README.md"]:
        text = path.read_text()
        assert "python -m genhmr_jax.main" in text, path.name
        assert "--config=" in text and "--workdir=" in text, path.name


@pytest.mark.parametrize("path", [*LAUNCHERS, LAUNCH / "README.md"], ids=lambda p: p.name)
def test_every_config_and_field_named_exists(path, get_config):
    text = path.read_text()
    names = set(re.findall(r"configs/([\w/]+)\.py(:\w+)?", text))
    assert names
    for name, arg in names:
        config = get_config(name + arg)
        for field in re.findall(r"--config\.([\w.]+)=", text):
            node = config
            for part in field.split("."):
                assert part in node, f"configs/{name}.py{arg} has no {field}"
                node = node[part]


def test_readme_knows_every_file_and_what_was_never_run():
    text = (LAUNCH / "README.md").read_text()
    for path in LAUNCH.rglob("*"):
        if (
            path.is_file()
            and path.name not in ("README.md", "Dockerfile.dockerignore")
            and "__pycache__" not in path.parts
        ):
            assert f"`{path.relative_to(LAUNCH)}`" in text, path.name
    sentence = re.search(
        r"\*\*Never run on the real thing\*\*:(.*?)\.\s+Tests", text, re.DOTALL
    ).group(1)
    assert set(re.findall(r"`([\w.]+)`", sentence)) == {p.name for p in LAUNCHERS}
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        assert subprocess.run(["bash", "-n"], input=block, text=True).returncode == 0
        for file in re.findall(r"launch/[\w.]+", block):
            assert (ROOT / file).is_file()


def test_exit_code_of_a_saved_run_is_the_same_everywhere():
    code = re.search(
        r"^RESUME = (\d+)", (ROOT / "genhmr_jax" / "main.py").read_text(), re.MULTILINE
    ).group(1)
    patterns = {
        "local_multiprocess.py": r"^RESUME = (\d+)",
        "slurm.sbatch": r'"\$code" -eq (\d+)',
        "xpk.sh": r"--restart-on-exit-codes=(\d+)",
        "skypilot.yaml": r"recover_on_exit_codes: \[(\d+)\]",
        "jobset.yaml": r"operator: In\s+values: \[(\d+)\]",
    }
    for name, pattern in patterns.items():
        assert re.search(pattern, (LAUNCH / name).read_text(), re.MULTILINE).group(1) == code, name


def test_jobset():
    yaml = pytest.importorskip("yaml")
    jobset = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    assert (
        jobset["kind"] == "JobSet"
        and "alpha.jobset.sigs.k8s.io/exclusive-topology" in jobset["metadata"]["annotations"]
    )
    (slice_job,) = jobset["spec"]["replicatedJobs"]
    job = slice_job["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert job["parallelism"] == job["completions"] and job["backoffLimit"] == 0
    assert pod["restartPolicy"] == "Never"  # what podFailurePolicy demands
    assert {
        rule["onExitCodes"]["containerName"]
        for rule in job["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    } == {container["name"]}
    assert pod["terminationGracePeriodSeconds"] >= 300
    x, y = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    assert x * y == job["parallelism"] * container["resources"]["limits"]["google.com/tpu"]
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    command = container["command"][-1]
    assert subprocess.run(["bash", "-n"], input=command, text=True).returncode == 0
    # The recipe is for photos by default: its rows are stored ones here, and nothing else is read.
    config = load_config(
        re.search(r"--config=(\S+)", command)[1],
        dict(re.findall(r"--config\.(\S+?)=(\S*)", command)),
    )
    assert config.data.images and not config.data.people and not config.data.people_val
    paths = config.data.poses, config.data.images, config.tokenizer, config.init
    mounts = tuple(mount["mountPath"] for mount in container["volumeMounts"])
    assert all(path.startswith(mounts) for path in paths)


def test_skypilot():
    yaml = pytest.importorskip("yaml")
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert task["resources"]["use_spot"] and task["num_nodes"] > 1
    for part in ("setup", "run"):
        assert subprocess.run(["bash", "-n"], input=task[part], text=True).returncode == 0
    assert (ROOT / task["envs"]["CONFIG"].partition(":")[0]).is_file()


# The scripts, with programs of the same name in place of gcloud, xpk, srun and scontrol.


@pytest.fixture
def stubs(tmp_path):
    """add(name, script): a program that comes first on the PATH; environment in `add.env`."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def add(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (folder / name).chmod(0o755)

    add.env = environment(PATH=f"{folder}:{os.environ['PATH']}", HOME=str(tmp_path))
    return add


def bash(file: str, *words: str, env: dict[str, str], **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", LAUNCH / file, *words],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


@pytest.mark.parametrize(("code", "requeued"), [(75, True), (1, False), (0, False)])
def test_slurm_requeues_a_saved_run(stubs, tmp_path, code, requeued):
    """The whole batch script, from a checkout with a virtual environment."""
    (tmp_path / "launch").symlink_to(LAUNCH)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    stubs("srun", f'printf "%s|" "$@"; exit {code}')
    stubs("scontrol", 'echo "scontrol $*"')
    done = bash("slurm.sbatch", *RUN, env=stubs.env | {"SLURM_JOB_ID": "17"}, cwd=tmp_path)
    assert done.returncode == code
    assert done.stdout.startswith(f"--wait=60|python|-m|genhmr_jax.main|{RUN[0]}|{RUN[1]}|")
    assert ("scontrol requeue 17" in done.stdout) == requeued
    directives = re.findall(r"^#SBATCH (\S+)$", (LAUNCH / "slurm.sbatch").read_text(), re.MULTILINE)
    assert {"--signal=TERM@120", "--requeue", "--open-mode=append", "--ntasks-per-node=1"} <= set(
        directives
    )


def test_xpk_passes_the_command(stubs):
    stubs("xpk", 'printf "%s\\n" "$@"')
    env = stubs.env | {
        "CLUSTER": "c",
        "ZONE": "z",
        "IMAGE": "i",
        "WORKLOAD": "w",
        "TPU_TYPE": "v5litepod-16",
        "PROJECT": "p",
    }
    words = bash("xpk.sh", *RUN, env=env).stdout.splitlines()
    assert (
        words[:2] == ["workload", "create"]
        and "--num-slices=1" in words
        and words[words.index("--project") + 1] == "p"
    )
    command = words[words.index("--command") + 1]
    assert command.endswith(
        r"exec python -m genhmr_jax.main --config=configs/tokenizer/tiny.py "
        r"--workdir=gs://bucket/a\ b"
    )
    for missing in (0, 1):
        done = bash("xpk.sh", RUN[1 - missing], env=env)
        assert done.returncode == 2 and RUN[missing].split("=")[0] in done.stderr
    assert "CLUSTER" in bash("xpk.sh", *RUN, env=stubs.env).stderr


def test_tpu_vm_starts_and_stops_a_run_on_a_host(stubs, tmp_path):
    """`run` and `kill` really execute here what they would on a host, whose home is `tmp_path`."""
    (tmp_path / "genhmr" / "launch" / "env").mkdir(parents=True)
    (tmp_path / "genhmr" / "launch" / "env" / "tpu.sh").write_text("export FLAGS=set")
    (tmp_path / "genhmr" / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "genhmr" / ".venv" / "bin" / "activate").touch()
    stubs(
        "python",
        'trap "echo saved; exit 75" TERM; printf "%s|" "$FLAGS" "$@"; echo; while true; do '
        "sleep 0.05; done",
    )
    stubs(
        "gcloud",
        f'for a in "$@"; do echo "$a" >>{tmp_path}/gcloud.log; done; cd; while [ "$1" != '
        f'--command ]; do shift; done; bash -c "$2"',
    )
    env = stubs.env | {"TPU": "t", "ZONE": "z"}
    log = tmp_path / "genhmr" / "run.log"

    def wait_for(text: str) -> None:
        deadline = time.monotonic() + 20
        while not (log.exists() and text in log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert text in log.read_text()

    for missing in (0, 1):
        done = bash("tpu_vm.sh", "run", RUN[1 - missing], env=env)
        assert done.returncode == 2 and RUN[missing].split("=")[0] in done.stderr
    assert bash("tpu_vm.sh", "run", *RUN, env=env).returncode == 0
    wait_for(f"set|-m|genhmr_jax.main|{RUN[0]}|{RUN[1]}|\n")
    second = bash("tpu_vm.sh", "run", *RUN, env=env)
    assert second.returncode == 1 and "already running" in second.stderr
    assert bash("tpu_vm.sh", "kill", env=env).returncode == 0
    wait_for("saved\n")
    arguments = (tmp_path / "gcloud.log").read_text()
    assert "tpu-vm\nssh\nt\n--worker=all\n" in arguments and "--zone\nz\n" in arguments


def test_tpu_vm_creates_what_is_asked_for(stubs):
    stubs("gcloud", 'echo "$@"')
    env = stubs.env | {"TPU": "t", "ZONE": "z", "TYPE": "v6e-16"}
    created = bash("tpu_vm.sh", "create", env=env).stdout.split()[3:]
    assert created == [
        "create",
        "t",
        "--accelerator-type=v6e-16",
        "--version=v2-alpha-tpuv6e",
        "--zone",
        "z",
    ]
    assert "--spot" in bash("tpu_vm.sh", "create", env=env | {"SPOT": "1"}).stdout
    assert bash("tpu_vm.sh", "delete", env=env).stdout.split()[3:] == [
        "delete",
        "t",
        "--quiet",
        "--zone",
        "z",
    ]
    assert bash("tpu_vm.sh", "nonsense", env=env).returncode == 2
    assert "set TPU" in bash("tpu_vm.sh", "create", env=stubs.env).stderr


# Compiler settings.


def flags_of(file: str) -> list[str]:
    return re.findall(r"^\s*(--\w+=\S+)", (LAUNCH / "env" / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("file", ["gpu.sh", "tpu.sh"])
def test_every_setting_has_its_reason(file):
    """A comment stands above each, or above the group that it belongs to."""
    lines = [line.strip() for line in (LAUNCH / "env" / file).read_text().splitlines()]
    for above, line in zip(lines, lines[1:], strict=False):
        if line.startswith(("--", "export")) and "flags[*]" not in line:
            assert above.startswith(("#", "--")), line


def test_xla_knows_the_gpu_flags():
    """It aborts on one that it does not know, whatever the device."""
    script = (
        '. "$0/env/gpu.sh"; exec "$1" -c "import jax, os; jax.jit(lambda x: x + 1)(1.0); '
        "print(os.environ['XLA_FLAGS'])\""
    )
    done = subprocess.run(
        ["bash", "-c", script, LAUNCH, sys.executable],
        env=environment(XLA_FLAGS="--xla_gpu_autotune_level=2"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [*flags_of("gpu.sh"), "--xla_gpu_autotune_level=2"]
    bad = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env=environment(XLA_FLAGS="--xla_gpu_nonsense=1"),
        capture_output=True,
    )
    assert bad.returncode != 0


def test_libtpu_knows_the_tpu_flags():
    """It gives up on one that it does not know."""
    pytest.importorskip("libtpu")
    code = """
import os
from jax.experimental import topologies
topologies.get_topology_desc('v5e:4x4', 'tpu')
print(os.environ['LIBTPU_INIT_ARGS'])
"""
    script = '. "$0/env/tpu.sh"; exec "$1" -c "$2"'
    run = lambda **env: subprocess.run(
        ["bash", "-c", script, LAUNCH, sys.executable, code],
        env=environment(TPU_SKIP_MDS_QUERY="1", **env),
        capture_output=True,
        text=True,
    )
    known = run(LIBTPU_INIT_ARGS="--xla_tpu_enable_latency_hiding_scheduler=true")
    assert known.stdout.split() == [
        *flags_of("tpu.sh"),
        "--xla_tpu_enable_latency_hiding_scheduler=true",
    ], known.stderr
    assert run(LIBTPU_INIT_ARGS="--xla_tpu_nonsense=true").returncode != 0
