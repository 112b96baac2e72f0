"""The processes of a run, from flags and environment variables alone.

The first source that is set counts: flags, GENHMR_*, SkyPilot, SLURM, TPU, Open MPI, Kubernetes.
Without any of them there is one process. See launch/README.md.
"""

import dataclasses
import glob
import pathlib
import re
from collections.abc import Mapping, Sequence

from genhmr_jax.io.errors import InputError

SKYPILOT_PORT = 8476
ALONE = "--num_processes=1 (or GENHMR_NUM_PROCESSES=1) if this process is to train alone"
ONE_PROCESS = "one process"


@dataclasses.dataclass(frozen=True)
class Plan:
    """The processes of a run.

    Attributes:
      source: of this plan, for messages.
      coordinator: HOST:PORT of process 0. None: JAX finds it, and the other fields, by itself, or
        there is only one process.
      num_processes: their number.
      process_id: of this process.
      local_devices: the GPUs of this host that this process uses; None: all visible ones.
    """

    source: str
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    local_devices: tuple[int, ...] | None = None


_ALONE = Plan(ONE_PROCESS, None, 1, 0)


def resolve(
    environ: Mapping[str, str],
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    local_devices: Sequence[int] | None = None,
    tpu_chips: bool = False,
) -> Plan:
    """The plan of the flags, else of the environment. Pure.

    Args:
      environ: environment variables.
      coordinator, num_processes, process_id, local_devices: the flags, see Plan.
      tpu_chips: whether this host has TPU chips.

    Raises:
      InputError: incomplete or contradictory settings.
    """
    plan = (
        _explicit(environ, coordinator, num_processes, process_id)
        or _skypilot(environ)
        or _slurm(environ)
        or _tpu(environ, tpu_chips)
        or _open_mpi(environ)
        or _kubernetes(environ)
        or _ALONE
    )
    if local_devices is None:
        return plan
    return dataclasses.replace(plan, local_devices=tuple(local_devices))


def has_tpu_chips() -> bool:
    """Whether this host has a TPU: a PCI device of Google that is not a disk or network card."""
    for vendor in map(pathlib.Path, glob.glob("/sys/bus/pci/devices/*/vendor")):
        kind = vendor.with_name("class").read_text()
        if vendor.read_text().strip() == "0x1ae0" and not kind.startswith(("0x01", "0x02")):
            return True
    return False


def _explicit(
    environ: Mapping[str, str], coordinator: str | None, count: int | None, number: int | None
) -> Plan | None:
    """The plan of flags and GENHMR_* variables; each value may come from either."""
    if count == 1 and not number:
        return _ALONE
    from_environ = coordinator is None and count is None and number is None
    name = lambda flag: f"GENHMR_{flag.upper()}" if from_environ else f"--{flag}"
    coordinator = coordinator or environ.get("GENHMR_COORDINATOR") or None
    count = _integer(environ, "GENHMR_NUM_PROCESSES") if count is None else count
    number = _integer(environ, "GENHMR_PROCESS_ID") if number is None else number
    given = {"coordinator": coordinator, "num_processes": count, "process_id": number}
    if all(value is None for value in given.values()):
        return None
    if count is not None and count < 1:
        problem = f"{count} is not a number of processes"
        raise InputError(name("num_processes"), problem, "give 1 or more")
    if number is not None and count is not None and not 0 <= number < count:
        problem = f"there is no process {number} of {count}"
        raise InputError(name("process_id"), problem, f"count from 0 to {count - 1}")
    if count == 1:
        return _ALONE
    for flag, value in given.items():
        if value is None:
            rest = ", ".join(name(k) for k, v in given.items() if v is not None)
            remedy = "give all three of coordinator, num_processes and process_id"
            raise InputError(name(flag), f"is missing, but {rest} is given", remedy)
    _check_address(name("coordinator"), coordinator)
    return Plan("environment" if from_environ else "flags", coordinator, count, number)


def _skypilot(environ: Mapping[str, str]) -> Plan | None:
    """One process on each node of SkyPilot, which lists their addresses, the head first."""
    nodes = environ.get("SKYPILOT_NODE_IPS", "").split()
    count = _integer(environ, "SKYPILOT_NUM_NODES") or len(nodes)
    if not nodes or count == 1:
        return _ALONE if nodes else None
    rank = _integer(environ, "SKYPILOT_NODE_RANK")
    if rank is None or not 0 <= rank < count:
        remedy = f"start it in SkyPilot's run section, or give {ALONE}"
        raise InputError("SKYPILOT_NODE_RANK", f"is {rank} with {count} nodes", remedy)
    host = f"[{nodes[0]}]" if ":" in nodes[0] else nodes[0]
    return Plan("SkyPilot", f"{host}:{SKYPILOT_PORT}", count, rank)


def _slurm(environ: Mapping[str, str]) -> Plan | None:
    """The tasks of an srun step.

    A shell on a login node, or of salloc or sbatch, is not such a step: it is one process.
    """
    step = ("SLURM_JOB_ID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST", "SLURM_PROCID")
    if any(name not in environ for name in step):
        return None
    count, rank = _integer(environ, "SLURM_STEP_NUM_TASKS"), _integer(environ, "SLURM_PROCID")
    if count == 1:
        return _ALONE
    port = 61440 + _integer(environ, "SLURM_JOB_ID") % 4096  # differs between jobs of a node
    coordinator = f"{first_host(environ['SLURM_STEP_NODELIST'])}:{port}"
    return Plan("SLURM", coordinator, count, rank, _slurm_devices(environ))


def first_host(nodes: str) -> str:
    """The first host of a SLURM node list: "gpu[007-009,12],x" -> "gpu007"."""
    first = re.match(r"(?:\[[^\]]*\]|[^,\[])+", nodes)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first.group()) if first else nodes


def _slurm_devices(environ: Mapping[str, str]) -> tuple[int, ...] | None:
    """This task's share of the node's GPUs; None: all visible ones.

    JAX itself would use one GPU for each task, which is one of eight with one task on a node.
    """
    counts = []
    for part in environ.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        tasks, _, repeat = part.rstrip(")").partition("(x")
        counts += [int(tasks)] * int(repeat or 1)
    node = _integer(environ, "SLURM_NODEID") or 0
    tasks = counts[min(node, len(counts) - 1)]
    local = _integer(environ, "SLURM_LOCALID") or 0
    gpus = len([gpu for gpu in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu])
    # With GPUs per task SLURM makes only its own GPUs visible to a task.
    if tasks == 1 or gpus == 1 or "SLURM_GPUS_PER_TASK" in environ:
        return None
    if gpus % tasks:
        problem = f"{tasks} tasks on a node cannot share its {gpus} GPUs"
        raise InputError("SLURM", problem, "set --ntasks-per-node=1: a process can use all")
    each = max(gpus // tasks, 1)
    return tuple(range(local * each, (local + 1) * each))


def _tpu(environ: Mapping[str, str], chips: bool) -> Plan | None:
    """The hosts of a TPU slice.

    GKE lists them in environment variables, a TPU VM in its metadata server. JAX reads both.
    """
    if "tpu" not in environ.get("JAX_PLATFORMS", "tpu"):
        return None
    hosts = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES")
    if hosts and "," not in hosts and environ.get("MEGASCALE_NUM_SLICES", "1") == "1":
        return _ALONE
    if hosts or (chips and "TPU_SKIP_MDS_QUERY" not in environ):
        return Plan("TPU")
    return None


def _open_mpi(environ: Mapping[str, str]) -> Plan | None:
    """The ranks of mpirun."""
    several = environ.get("OMPI_COMM_WORLD_SIZE", "1") != "1" and "OMPI_MCA_orte_hnp_uri" in environ
    return Plan("Open MPI") if several else None


def _kubernetes(environ: Mapping[str, str]) -> Plan | None:
    """The pods of an indexed job, alone or in a JobSet."""
    indexed = "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ
    return Plan("Kubernetes") if indexed else None


def _integer(environ: Mapping[str, str], name: str) -> int | None:
    """The integer in a variable; None if it is not set. Raises InputError for other text."""
    text = environ.get(name, "")
    if text and not re.fullmatch(r"-?\d+", text):
        raise InputError(name, f"{text!r} is not an integer", "set it to one, or unset it")
    return int(text) if text else None


def _check_address(where: str, address: str) -> None:
    """Raise InputError unless an address is HOST:PORT."""
    host, _, port = address.rpartition(":")
    bare_v6 = ":" in host and not host.startswith("[")
    if not host or bare_v6 or not port.isdecimal() or not 0 < int(port) < 65536:
        remedy = "give the host of process 0 and a free port of it, like node0:8476"
        raise InputError(where, f"{address!r} is not HOST:PORT", remedy)
