"""How the processes of a run find each other: what is decided from flags and variables, and what a
single process does."""

import os
import socket
import subprocess
import sys

import pytest

from genhmr_jax.io.errors import InputError
from genhmr_jax.train.cluster import Plan, first_host, resolve

ONE = Plan("one process", None, 1, 0)
GENHMR = {"GENHMR_COORDINATOR": "a:1", "GENHMR_NUM_PROCESSES": "4", "GENHMR_PROCESS_ID": "3"}
SKYPILOT = {
    "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NODE_RANK": "1",
}
SRUN = {
    "SLURM_JOB_ID": "5000",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_PROCID": "1",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "CUDA_VISIBLE_DEVICES": "0,1,2,3",
}
GKE_TPU = {"TPU_WORKER_HOSTNAMES": "t-0,t-1", "TPU_WORKER_ID": "1"}
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}


def test_nothing_set_is_one_process():
    assert resolve({}) == ONE


def test_first_source_wins():
    """Flags > GENHMR_* > SkyPilot > SLURM > TPU > Open MPI > Kubernetes."""
    ompi = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1"}
    sources = [
        ("environment", GENHMR),
        ("SkyPilot", SKYPILOT),
        ("SLURM", SRUN),
        ("TPU", GKE_TPU),
        ("Open MPI", ompi),
        ("Kubernetes", KUBERNETES),
    ]
    for k, (name, _) in enumerate(sources):
        environ = {key: value for _, variables in sources[k:] for key, value in variables.items()}
        assert resolve(environ).source == name
        assert resolve(environ, "b:2", 3, 0) == Plan("flags", "b:2", 3, 0)
        assert resolve(environ, num_processes=1) == ONE


def test_flags_and_variables_complete_each_other():
    assert resolve(GENHMR) == Plan("environment", "a:1", 4, 3)
    assert resolve(GENHMR, process_id=0) == Plan("flags", "a:1", 4, 0)
    assert resolve(GENHMR | {"GENHMR_NUM_PROCESSES": "1", "GENHMR_PROCESS_ID": "0"}) == ONE


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("a:1", None, None), "--num_processes: is missing, but --coordinator is given"),
        ((None, 2, 0), "--coordinator: is missing, but --num_processes, --process_id is given"),
        (("a:1", 2, None), "--process_id: is missing"),
        (("a:1", 2, 2), "--process_id: there is no process 2 of 2; count from 0 to 1"),
        ((None, 1, 1), "--process_id: there is no process 1 of 1"),
        (("a:1", 2, -1), "no process -1 of 2"),
        (("a:1", 0, 0), "--num_processes: 0 is not a number of processes"),
        (("a", 2, 0), "--coordinator: 'a' is not HOST:PORT"),
        (("a:x", 2, 0), "not HOST:PORT"),
        (("a:65536", 2, 0), "not HOST:PORT"),
        ((":1", 2, 0), "not HOST:PORT"),
        (("fe80::1:80", 2, 0), "not HOST:PORT"),
    ],
)
def test_bad_flags(flags, message):
    with pytest.raises(InputError) as error:
        resolve({}, *flags)
    assert message in str(error.value)


def test_bad_variables_are_named():
    with pytest.raises(InputError, match="GENHMR_NUM_PROCESSES: 'two' is not an integer"):
        resolve(GENHMR | {"GENHMR_NUM_PROCESSES": "two"})
    with pytest.raises(InputError, match="GENHMR_PROCESS_ID: is missing, but GENHMR_COORDINATOR"):
        resolve({"GENHMR_COORDINATOR": "a:1", "GENHMR_NUM_PROCESSES": "2"})
    with pytest.raises(InputError, match="SKYPILOT_NODE_RANK"):
        resolve(SKYPILOT | {"SKYPILOT_NODE_RANK": "2"})


def test_addresses():
    assert resolve({}, "[fe80::1]:80", 2, 0).coordinator == "[fe80::1]:80"
    assert resolve(SKYPILOT) == Plan("SkyPilot", "10.0.0.1:8476", 2, 1)
    assert (
        resolve(SKYPILOT | {"SKYPILOT_NODE_IPS": "fd00::1\nfd00::2"}).coordinator
        == "[fd00::1]:8476"
    )
    assert (
        resolve(
            SKYPILOT
            | {
                "SKYPILOT_NODE_IPS": "10.0.0.1",
                "SKYPILOT_NUM_NODES": "1",
                "SKYPILOT_NODE_RANK": "0",
            }
        )
        == ONE
    )


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("gpu01", "gpu01"),
        ("a,b", "a"),
        ("gpu[007-009,12],x", "gpu007"),
        ("n[3,5]", "n3"),
        ("r[1-2]n[3-4]", "r1n3"),
        ("x-1,n[2-3]", "x-1"),
    ],
)
def test_first_host_of_a_slurm_node_list(nodes, host):
    assert first_host(nodes) == host


def test_slurm_step():
    assert resolve(SRUN) == Plan("SLURM", "gpu03:62344", 2, 1)
    assert resolve(SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) == ONE


def test_slurm_outside_of_srun_is_left_alone():
    """sbatch's own shell has SLURM_PROCID but no step; a login shell has none of it."""
    sbatch = {
        "SLURM_JOB_ID": "5000",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODELIST": "gpu[03-04]",
    }
    assert resolve(sbatch) == ONE


@pytest.mark.parametrize(
    ("changes", "devices"),
    [
        ({}, None),  # one task a node: all its GPUs
        ({"SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_LOCALID": "1"}, (2, 3)),
        ({"SLURM_STEP_TASKS_PER_NODE": "1,4", "SLURM_LOCALID": "3"}, (3,)),
        ({"SLURM_STEP_TASKS_PER_NODE": "4,1", "SLURM_LOCALID": "0"}, None),
        (
            {"SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_LOCALID": "1", "SLURM_GPUS_PER_TASK": "4"},
            None,
        ),  # bound by SLURM
        (
            {"SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_LOCALID": "1", "CUDA_VISIBLE_DEVICES": "1"},
            None,
        ),  # bound by SLURM
        (
            {"SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_LOCALID": "1", "CUDA_VISIBLE_DEVICES": ""},
            (1,),
        ),
    ],
)
def test_slurm_shares_the_gpus_of_a_node(changes, devices):
    assert resolve(SRUN | changes).local_devices == devices


def test_slurm_tasks_that_cannot_share():
    with pytest.raises(InputError, match="3 tasks on a node cannot share its 4 GPUs"):
        resolve(SRUN | {"SLURM_STEP_TASKS_PER_NODE": "3"})


def test_tpu_slice():
    assert resolve(GKE_TPU) == Plan("TPU")
    assert resolve({"TPU_WORKER_HOSTNAMES": "localhost"}, tpu_chips=True) == ONE
    assert resolve({"TPU_WORKER_HOSTNAMES": "t-0", "MEGASCALE_NUM_SLICES": "2"}) == Plan("TPU")
    assert resolve({}, tpu_chips=True) == Plan("TPU")
    assert resolve({"TPU_SKIP_MDS_QUERY": "1"}, tpu_chips=True) == ONE
    assert resolve(GKE_TPU | {"JAX_PLATFORMS": "cpu"}, tpu_chips=True) == ONE


def test_local_devices_are_kept():
    assert resolve({}, local_devices=[1]).local_devices == (1,)
    assert resolve(SRUN, local_devices=[0, 1]).local_devices == (0, 1)


def python(code: str, **variables: str) -> subprocess.CompletedProcess:
    """Runs `code` in an interpreter of its own, with the variables that matter here cleared."""
    environ = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("GENHMR_", "SLURM_", "SKYPILOT_", "OMPI_"))
        and "proxy" not in k.lower()
    }
    head = (
        "import jax\nfrom genhmr_jax.train import distributed\nfrom genhmr_jax.io.errors "
        "import InputError\n"
    )
    environ |= {"JAX_PLATFORMS": "cpu"} | variables
    return subprocess.run(
        [sys.executable, "-c", head + code],
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_single_process_is_initialised_even_behind_a_proxy():
    """The proxy does not exist: JAX would wait for it until it aborts. The second call does
    nothing."""
    code = """
distributed.initialize(); distributed.initialize()
distributed.barrier("x")
joined = jax.distributed.is_initialized(), jax.process_count(), distributed.is_main()
print(*joined, jax.numpy.ones(3).sum())
"""
    done = python(
        code,
        http_proxy="http://127.0.0.1:9",
        https_proxy="http://127.0.0.1:9",
        JAX_NUM_CPU_DEVICES="2",
    )
    assert done.stdout.split() == ["True", "1", "True", "3.0"], done.stderr
    assert "proxy" not in done.stderr


def test_sigterm_is_seen_by_a_single_process():
    code = """
import os, signal, time
from jax.experimental import multihost_utils
distributed.initialize()
assert not multihost_utils.reached_preemption_sync_point(0)
os.kill(os.getpid(), signal.SIGTERM)
for step in range(1, 100):
    if multihost_utils.reached_preemption_sync_point(step):
        print("saved"); break
    time.sleep(0.1)
"""
    assert python(code).stdout == "saved\n"


def test_a_single_process_may_be_suspended():
    """A laptop sleeps for hours. With JAX's limit of 100 s two of two trainings that were stopped
    for three minutes were aborted, but not every process is: the test looks at the limit."""
    code = """
given, initialize = {}, jax.distributed.initialize
def recorded(*args, **more):
    given.update(more)
    initialize(*args, **more)
jax.distributed.initialize = recorded
distributed.initialize()
print(given["heartbeat_timeout_seconds"] > 30 * 86400, jax.process_count())
"""
    assert python(code).stdout == "True 1\n"


def test_goes_on_where_one_process_cannot_be_initialised():
    code = """
import contextlib
@contextlib.contextmanager
def no_port():
    raise OSError("no loopback")
    yield
distributed._free_local_address = no_port
distributed.initialize()
print(jax.numpy.ones(2).sum())
"""
    done = python(code)
    assert (
        done.stdout == "2.0\n"
        and "SIGTERM will stop the run without saving" in done.stderr
        and "no loopback" in done.stderr
    )


def test_too_late():
    done = python("jax.devices(); distributed.initialize()")
    assert done.returncode == 1 and "must be called before" in done.stderr


def test_a_coordinator_that_does_not_answer_is_named():
    with socket.socket() as server:  # bound, but not listening
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        code = f"""
try: distributed.initialize("{address}", 2, 1, connect_s=1)
except InputError as error: print(error)
"""
        assert f"coordinator {address}: did not answer process 1 of 2 in 1 s" in python(code).stdout
        server.listen()
        busy = python(code.replace("2, 1,", "2, 0,")).stdout
        assert f"coordinator {address}: its port is taken on this host" in busy


def test_process_0_does_not_wait_for_ever():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    code = f"""
try: distributed.initialize("127.0.0.1:{port}", 2, 0, connect_s=1)
except InputError as error: distributed.leave(str(error))
"""
    done = python(code)
    assert done.returncode == 1
    assert "process 0 of 2 is there, but not all the others came within 1 s" in done.stderr


def test_indexed_job_without_the_package_says_so():
    code = """
import sys
sys.modules["kubernetes"] = None
import importlib.util; find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "kubernetes" else find(name)
try: distributed.initialize()
except InputError as error: print(error)
"""
    assert "needs the package `kubernetes`" in python(code, **KUBERNETES).stdout
