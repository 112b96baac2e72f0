"""How the processes of a run find each other: flags > GENHMR_* > SkyPilot > SLURM, TPU, Open MPI,
Kubernetes > one process.

`resolve` decides from the environment alone, `initialize` acts on it, once, before anything else
touches a device. See launch/README.md.
"""

import contextlib
import dataclasses
import errno
import glob
import importlib.util
import logging
import os
import pathlib
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn

import jax

from genhmr_jax.io.errors import InputError

log = logging.getLogger("genhmr_jax")

CONNECT_S = 300  # for all processes to come: hosts of a large job start minutes apart
# the others are aborted when process 0 is gone: if they fail for the same reason, they can say so
# first
LAST_WORDS_S = 1
SKYPILOT_PORT = 8476
ALONE = "--num_processes=1 (or GENHMR_NUM_PROCESSES=1) if this process is to train alone"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Who takes part. `coordinator` None: JAX itself finds the rest (`source` says where); or there
    is only one process.

    Attributes:
      source: what said so, for messages.
      coordinator: HOST:PORT of process 0.
      local_devices: the GPUs of this host that this process takes; None for all that it sees.
    """

    source: str
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    local_devices: tuple[int, ...] | None = None


_others: list[
    Plan
] = []  # the run of several processes that this one is about to join, or has joined


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    local_devices: Sequence[int] | None = None,
    connect_s: float = CONNECT_S,
) -> None:
    """Joins this process to its run. Call it before anything uses a device. A second call does
    nothing.

    A single process is initialised too: only so does JAX catch SIGTERM, and orbax save before the
    machine is taken away.

    Args:
      coordinator, num_processes, process_id: HOST:PORT of process 0, how many processes, which one
        this is. None: see `resolve`.
      local_devices: the GPUs of this host that this process takes.
      connect_s: seconds to wait for the other processes.

    Raises:
      InputError: incomplete or contradictory settings, or a coordinator (or other processes) that
        did not answer in time.
      RuntimeError: JAX has set up its devices already.
    """
    if jax.distributed.is_initialized():
        return
    plan = resolve(
        os.environ, coordinator, num_processes, process_id, local_devices, has_tpu_chips()
    )
    if plan.num_processes == 1:
        _alone(plan)
        return
    if plan.source == "Kubernetes" and importlib.util.find_spec("kubernetes") is None:
        problem = (
            "this is an indexed job, but finding its other pods needs the package `kubernetes`"
        )
        raise InputError(
            "JOB_COMPLETION_INDEX",
            problem,
            f"pip install kubernetes, set GENHMR_COORDINATOR and the others, or give {ALONE}",
        )
    where = f"coordinator {plan.coordinator or 'of ' + plan.source}"
    if plan.coordinator:
        _without_proxy(plan.coordinator.rpartition(":")[0].strip("[]"))
        if plan.process_id:
            _wait_for(plan, connect_s)
        else:
            _check_port_is_free(where, int(plan.coordinator.rpartition(":")[2]))
    _others.append(plan)
    who = (
        f"process {plan.process_id} of {plan.num_processes}" if plan.coordinator else "this process"
    )
    if not _in_time(lambda: _join(plan, connect_s, where), connect_s):
        remedy = f"start every process with the same coordinator and number, each with its own id; or give {ALONE}"
        raise InputError(
            where, f"{who} is there, but not all the others came within {connect_s:.0f} s", remedy
        )
    sys.excepthook = _leave_after(sys.excepthook)
    log.info("process %d of %d (%s)", jax.process_index(), jax.process_count(), plan.source)


def is_main() -> bool:
    """Whether this is process 0, the one that writes logs and models."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process is here. `name` must be the same on all of them."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        with jax.transfer_guard("allow"):
            multihost_utils.sync_global_devices(name)


def leave(message: str) -> NoReturn:
    """Ends this process with exit code 1 and `message` on stderr, as sys.exit does, but without
    JAX's wait for the others.

    They may be waiting for this one, in the middle of a step. What started the run sees the exit
    code at once and stops them.
    """
    if not _others:
        sys.exit(message)
    print(message, file=sys.stderr)
    _leave()


def resolve(
    environ: Mapping[str, str],
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    local_devices: Sequence[int] | None = None,
    tpu_chips: bool = False,
) -> Plan:
    """The plan that the flags, or else the environment, ask for. Pure: `tpu_chips` says whether
    this host has TPU chips.

    Raises:
      InputError: incomplete or contradictory settings.
    """
    plan = (
        _explicit(environ, coordinator, num_processes, process_id)
        or _skypilot(environ)
        or _slurm(environ)
    )
    plan = (
        plan
        or _tpu(environ, tpu_chips)
        or _open_mpi(environ)
        or _kubernetes(environ)
        or Plan("one process", None, 1, 0)
    )
    return (
        plan
        if local_devices is None
        else dataclasses.replace(plan, local_devices=tuple(local_devices))
    )


def has_tpu_chips() -> bool:
    """Whether a TPU is attached to this host: a PCI device of Google's that is neither a disk nor a
    network card."""
    for vendor in glob.glob("/sys/bus/pci/devices/*/vendor"):
        kind = pathlib.Path(vendor).with_name("class").read_text()
        if pathlib.Path(vendor).read_text().strip() == "0x1ae0" and not kind.startswith(
            ("0x01", "0x02")
        ):
            return True
    return False


def _leave_after(hook: Callable[..., object]) -> Callable[..., None]:
    """An excepthook that shows the exception as `hook` does, and then does not wait for the other
    processes."""

    def show_and_leave(*exception: object) -> None:
        hook(*exception)
        _leave()

    return show_and_leave


def _leave() -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(LAST_WORDS_S)
    os._exit(1)


def _explicit(
    environ: Mapping[str, str], coordinator: str | None, count: int | None, number: int | None
) -> Plan | None:
    """What flags, or else GENHMR_* variables say; each may come from either."""
    if count == 1 and not number:
        return Plan("one process", None, 1, 0)
    from_environ = coordinator is None and count is None and number is None
    name = lambda flag: f"GENHMR_{flag.upper()}" if from_environ else f"--{flag}"
    coordinator = coordinator or environ.get("GENHMR_COORDINATOR") or None
    count = _integer(environ, "GENHMR_NUM_PROCESSES") if count is None else count
    number = _integer(environ, "GENHMR_PROCESS_ID") if number is None else number
    given = {"coordinator": coordinator, "num_processes": count, "process_id": number}
    if all(value is None for value in given.values()):
        return None
    if count is not None and count < 1:
        raise InputError(
            name("num_processes"), f"{count} is no number of processes", "give 1 or more"
        )
    if number is not None and count is not None and not 0 <= number < count:
        raise InputError(
            name("process_id"),
            f"there is no process {number} of {count}",
            f"count from 0 to {count - 1}",
        )
    if count == 1:
        return Plan("one process", None, 1, 0)
    for flag, value in given.items():
        if value is None:
            rest = ", ".join(name(k) for k, v in given.items() if v is not None)
            raise InputError(
                name(flag),
                f"is missing, but {rest} is given",
                "give all three of coordinator, num_processes and process_id",
            )
    _check_address(name("coordinator"), coordinator)
    return Plan("environment" if from_environ else "flags", coordinator, count, number)


def _skypilot(environ: Mapping[str, str]) -> Plan | None:
    """SkyPilot names its nodes, one address a line, the first is the head. One process a node."""
    nodes = environ.get("SKYPILOT_NODE_IPS", "").split()
    count = _integer(environ, "SKYPILOT_NUM_NODES") or len(nodes)
    if not nodes or count == 1:
        return Plan("one process", None, 1, 0) if nodes else None
    rank = _integer(environ, "SKYPILOT_NODE_RANK")
    if rank is None or not 0 <= rank < count:
        raise InputError(
            "SKYPILOT_NODE_RANK",
            f"is {rank} with {count} nodes",
            f"start it by SkyPilot's run section, or give {ALONE}",
        )
    host = f"[{nodes[0]}]" if ":" in nodes[0] else nodes[0]
    return Plan("SkyPilot", f"{host}:{SKYPILOT_PORT}", count, rank)


def _slurm(environ: Mapping[str, str]) -> Plan | None:
    """The tasks of an srun step. A shell on a login node, of salloc or of sbatch itself is no such
    step, and stays alone."""
    if any(
        name not in environ
        for name in ("SLURM_JOB_ID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST", "SLURM_PROCID")
    ):
        return None
    count, rank = _integer(environ, "SLURM_STEP_NUM_TASKS"), _integer(environ, "SLURM_PROCID")
    if count == 1:
        return Plan("one process", None, 1, 0)
    port = (
        61440 + _integer(environ, "SLURM_JOB_ID") % 4096
    )  # jobs that share a node get different ones
    return Plan(
        "SLURM",
        f"{first_host(environ['SLURM_STEP_NODELIST'])}:{port}",
        count,
        rank,
        _slurm_devices(environ),
    )


def first_host(nodes: str) -> str:
    """The first host of a SLURM node list: "gpu[007-009,12],x" -> "gpu007"."""
    first = re.match(r"(?:\[[^\]]*\]|[^,\[])+", nodes)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first.group()) if first else nodes


def _slurm_devices(environ: Mapping[str, str]) -> tuple[int, ...] | None:
    """This task's share of the node's GPUs. JAX's own rule is one GPU a task, which wastes seven of
    eight with one task a node."""
    counts = []
    for part in environ.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        tasks, _, repeat = part.rstrip(")").partition("(x")
        counts += [int(tasks)] * int(repeat or 1)
    node = _integer(environ, "SLURM_NODEID") or 0
    tasks, local = counts[min(node, len(counts) - 1)], _integer(environ, "SLURM_LOCALID") or 0
    if (
        tasks == 1 or "SLURM_GPUS_PER_TASK" in environ
    ):  # SLURM itself shows a task only its own GPUs then
        return None
    gpus = len([gpu for gpu in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu])
    if gpus == 1:
        return None
    if gpus % tasks:
        raise InputError(
            "SLURM",
            f"{tasks} tasks on a node cannot share its {gpus} GPUs",
            "set --ntasks-per-node=1: a process can use all",
        )
    each = max(gpus // tasks, 1)
    return tuple(range(local * each, (local + 1) * each))


def _tpu(environ: Mapping[str, str], chips: bool) -> Plan | None:
    """A host of a TPU slice: GKE names the hosts in variables, a TPU VM in its metadata server, and
    JAX knows how to ask."""
    if "tpu" not in environ.get("JAX_PLATFORMS", "tpu"):
        return None
    hosts = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES")
    if hosts and "," not in hosts and environ.get("MEGASCALE_NUM_SLICES", "1") == "1":
        return Plan("one process", None, 1, 0)
    if hosts or (chips and "TPU_SKIP_MDS_QUERY" not in environ):
        return Plan("TPU")
    return None


def _open_mpi(environ: Mapping[str, str]) -> Plan | None:
    """Ranks of mpirun."""
    several = environ.get("OMPI_COMM_WORLD_SIZE", "1") != "1" and "OMPI_MCA_orte_hnp_uri" in environ
    return Plan("Open MPI") if several else None


def _kubernetes(environ: Mapping[str, str]) -> Plan | None:
    """Pods of an indexed job, alone or in a JobSet."""
    return (
        Plan("Kubernetes")
        if "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ
        else None
    )


def _integer(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    if text and not re.fullmatch(r"-?\d+", text):
        raise InputError(name, f"{text!r} is no whole number", "set it to one, or unset it")
    return int(text) if text else None


def _check_address(where: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    bare_v6 = ":" in host and not host.startswith("[")
    if not host or bare_v6 or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(
            where,
            f"{address!r} is no HOST:PORT",
            "give the host of process 0 and a free port of it, like node0:8476",
        )


def _alone(plan: Plan) -> None:
    """Initialises a single process, on a port of its own that only this machine sees; goes on
    without if that is not possible."""
    if jax.config.jax_cpu_collectives_implementation == "gloo":
        jax.config.update(
            "jax_cpu_collectives_implementation", None
        )  # gloo fails where the host's own name cannot be resolved
    _without_proxy("127.0.0.1")
    try:
        with _free_local_address() as address:
            jax.distributed.initialize(
                address,
                1,
                0,
                plan.local_devices,
                cluster_detection_method="deactivate",
                coordinator_bind_address=address,
            )
    except (OSError, jax.errors.JaxRuntimeError) as error:
        jax.distributed.shutdown()
        reason = str(error).splitlines()[0]
        log.warning(
            "SIGTERM will stop the run without saving: a single process could not be initialised (%s)",
            reason,
        )


@contextlib.contextmanager
def _free_local_address() -> Iterator[str]:
    """A port of the loopback device, which nobody else takes meanwhile: JAX crashes on one that is
    taken.

    Raises:
      OSError: that device does not work (JAX would abort the process).
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        probe.listen()
        free = probe.getsockname()[1]
        with socket.create_connection(("127.0.0.1", free), timeout=5):
            pass
    with socket.socket() as holder:
        if hasattr(socket, "SO_REUSEPORT"):
            holder.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEPORT, 1
            )  # lets gRPC, which sets it too, in beside this one
            holder.bind(("127.0.0.1", 0))
            yield f"127.0.0.1:{holder.getsockname()[1]}"
        else:
            yield f"127.0.0.1:{free}"


def _check_port_is_free(where: str, port: int) -> None:
    """Raises InputError if another program listens on `port` of this host: JAX would crash, or
    share it with another run."""
    for family, wildcard in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(
                    socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
                )  # a run that ended just now does not count
                probe.bind((wildcard, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise InputError(
                    where,
                    "its port is taken on this host, which is process 0",
                    "give another port, to all processes",
                ) from error


def _without_proxy(host: str) -> None:
    """Keeps gRPC from asking an HTTP proxy for the coordinator: it would wait for an answer that
    never comes."""
    if any(
        name.lower() in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
        for name in os.environ
    ):
        known = (
            os.environ.get("no_grpc_proxy")
            or os.environ.get("no_proxy")
            or os.environ.get("NO_PROXY")
        )
        os.environ["no_grpc_proxy"] = f"{known},{host}" if known else host
        jax.config.update("jax_check_proxy_envs", False)  # the warning about what was just done


def _wait_for(plan: Plan, seconds: float) -> None:
    """Waits until the coordinator's port answers: JAX would abort the process, with a stack trace,
    if it never does."""
    host, _, port = plan.coordinator.rpartition(":")
    deadline, reason = time.monotonic() + seconds, "no answer"
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=min(seconds, 10)):
                return
        except OSError as error:  # also a name that is not known yet: pods start in any order
            reason = error.strerror or str(error)
            time.sleep(min(1.0, seconds / 10))
    _others.append(plan)
    who = f"process {plan.process_id} of {plan.num_processes}"
    remedy = "check that process 0 runs there, that the port is open between the hosts, and that all processes name the same one"
    raise InputError(
        f"coordinator {plan.coordinator}",
        f"did not answer {who} in {seconds:.0f} s ({reason})",
        remedy,
    )


def _join(plan: Plan, seconds: float, where: str) -> None:
    """jax.distributed.initialize, with its errors made readable."""
    try:
        jax.distributed.initialize(
            plan.coordinator,
            plan.num_processes,
            plan.process_id,
            plan.local_devices,
            cluster_detection_method="deactivate" if plan.coordinator else None,
            initialization_timeout=int(seconds)
            + 600,  # `_in_time` is first: at its own limit JAX aborts the process
        )
    except jax.errors.JaxRuntimeError as error:
        problem = f"process {plan.process_id} of {plan.num_processes} could not join it ({str(error).splitlines()[0]})"
        raise InputError(
            where, problem, "give another port, and each process its own id"
        ) from error
    except (ValueError, OSError) as error:
        problem = f"looks like a run of several processes, but JAX cannot find them ({str(error).splitlines()[0]})"
        raise InputError(
            plan.source,
            problem,
            f"give --coordinator, --num_processes and --process_id, or {ALONE}",
        ) from error


def _in_time(job: Callable[[], None], seconds: float) -> bool:
    """Runs `job` in a thread, since nothing else can interrupt it. False if it is not done in time;
    raises what it raises."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            job()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    return not thread.is_alive()
