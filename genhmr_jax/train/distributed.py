"""Joining the processes of a run, before a device is used. cluster.py determines the processes."""

import contextlib
import errno
import importlib.util
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import jax
import numpy as np

from genhmr_jax.io.errors import InputError
from genhmr_jax.train.cluster import ALONE, Plan, has_tpu_chips, resolve

log = logging.getLogger("genhmr_jax")

CONNECT_S = 300  # wait for all processes: hosts of a large job start minutes apart
# When process 0 ends, the others are aborted. If they fail for the same reason, this delay lets
# them print it.
DELAY_BEFORE_EXIT_S = 1

# Seconds after which a process that does not answer counts as lost. A single process has nobody to
# lose: without this limit JAX aborts it after it was suspended (a laptop that sleeps, Ctrl-Z).
NEVER_S = 10**8

# Sizes of what processes tell each other.
MOST_NUMBERS, LONGEST_TEXT = 64, 400
# The run of several processes that this process joins or has joined; empty for a single process.
_joined: list[Plan] = []


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    local_devices: Sequence[int] | None = None,
    connect_s: float = CONNECT_S,
) -> None:
    """Join this process to its run, before anything uses a device.

    A single process is initialised too. Only then does JAX catch SIGTERM, so that a checkpoint is
    saved before a preemption. A second call has no effect.

    Args:
      coordinator: HOST:PORT of process 0. None, here and below: see `cluster.resolve`.
      num_processes: number of processes.
      process_id: of this process.
      local_devices: the GPUs of this host that this process uses.
      connect_s: seconds to wait for the other processes.

    Raises:
      InputError: incomplete or contradictory settings, or the coordinator or other processes did
        not answer in time.
      RuntimeError: JAX has already initialised its devices.
    """
    if jax.distributed.is_initialized():
        return
    flags = (coordinator, num_processes, process_id, local_devices)
    plan = resolve(os.environ, *flags, has_tpu_chips())
    if plan.num_processes == 1:
        _initialize_alone(plan)
        return
    # 1. Check the settings for which JAX would fail or wait forever.
    if plan.source == "Kubernetes" and importlib.util.find_spec("kubernetes") is None:
        finding = "finding its other pods needs the package `kubernetes`"
        problem = f"this is an indexed job, but {finding}"
        remedy = f"pip install kubernetes, set GENHMR_COORDINATOR and the others, or give {ALONE}"
        raise InputError("JOB_COMPLETION_INDEX", problem, remedy)
    where = f"coordinator {plan.coordinator or 'of ' + plan.source}"
    who = "this process"
    if plan.coordinator:
        who = f"process {plan.process_id} of {plan.num_processes}"
        _without_proxy(plan.coordinator.rpartition(":")[0].strip("[]"))
        if plan.process_id:
            _wait_for(plan, connect_s)
        else:
            _check_port_is_free(where, int(plan.coordinator.rpartition(":")[2]))
    # 2. Join.
    _joined.append(plan)
    if not _in_time(lambda: _join(plan, connect_s, where), connect_s):
        problem = f"{who} is there, but not all the others came within {connect_s:.0f} s"
        same = "start every process with the same coordinator and number, each with its own id"
        raise InputError(where, problem, f"{same}; or give {ALONE}")
    sys.excepthook = _exit_after(sys.excepthook)
    log.info("process %d of %d (%s)", jax.process_index(), jax.process_count(), plan.source)


def is_main() -> bool:
    """Whether this is process 0, which writes logs and models."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until every process has called this function with the same name."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        with jax.transfer_guard("allow"):
            multihost_utils.sync_global_devices(name)


def of_main(numbers: Sequence[int]) -> list[int]:
    """The numbers of process 0, at most MOST_NUMBERS; every process must call this function."""
    if jax.process_count() == 1:
        return list(numbers)
    from jax.experimental import multihost_utils

    padded = np.full(MOST_NUMBERS, -1, np.int32)
    padded[: len(numbers)] = numbers[:MOST_NUMBERS]
    with jax.transfer_guard("allow"):
        found = np.asarray(multihost_utils.broadcast_one_to_all(padded))
    return [int(number) for number in found if number >= 0]


def failures(problem: str) -> list[str]:
    """The problems of all processes, with their numbers; every process must call this function.

    Args:
      problem: of this process; "" if there is none.
    """
    if jax.process_count() == 1:
        return [problem] if problem else []
    from jax.experimental import multihost_utils

    text = np.zeros(LONGEST_TEXT, np.uint8)
    encoded = np.frombuffer(problem.encode()[:LONGEST_TEXT], np.uint8)
    text[: len(encoded)] = encoded
    with jax.transfer_guard("allow"):
        texts = np.asarray(multihost_utils.process_allgather(text))
    decoded = [bytes(row).rstrip(b"\0").decode(errors="replace") for row in texts]
    return [f"process {i}: {found}" for i, found in enumerate(decoded) if found]


def leave(message: str) -> NoReturn:
    """Exit with code 1 and `message` on stderr, without waiting for the other processes.

    JAX would wait at exit for the other processes, which may wait for this one in the middle of a
    step. The launcher gets the exit code at once and stops them.
    """
    if not _joined:
        sys.exit(message)
    print(message, file=sys.stderr)
    _exit()


def _exit_after(hook: Callable[..., object]) -> Callable[..., None]:
    """An excepthook that calls `hook` and then exits without waiting for the other processes."""

    def show_and_exit(*exception: object) -> None:
        hook(*exception)
        _exit()

    return show_and_exit


def _exit() -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(DELAY_BEFORE_EXIT_S)
    os._exit(1)


def _initialize_alone(plan: Plan) -> None:
    """Initialise a single process on a loopback port; log a warning if that is not possible."""
    if jax.config.jax_cpu_collectives_implementation == "gloo":
        # gloo fails where the host's own name cannot be resolved.
        jax.config.update("jax_cpu_collectives_implementation", None)
    _without_proxy("127.0.0.1")
    try:
        with _free_local_address() as address:
            jax.distributed.initialize(
                address,
                1,
                0,
                plan.local_devices,
                cluster_detection_method="deactivate",
                heartbeat_timeout_seconds=NEVER_S,
                coordinator_bind_address=address,
            )
    except (OSError, jax.errors.JaxRuntimeError) as error:
        jax.distributed.shutdown()
        reason = f"a single process could not be initialised ({str(error).splitlines()[0]})"
        log.warning("SIGTERM will stop the run without saving: %s", reason)


@contextlib.contextmanager
def _free_local_address() -> Iterator[str]:
    """A loopback port, reserved during the block: JAX crashes on a port that is taken.

    Raises:
      OSError: the loopback device does not work (JAX would abort the process).
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        probe.listen()
        free = probe.getsockname()[1]
        with socket.create_connection(("127.0.0.1", free), timeout=5):
            pass
    if not hasattr(socket, "SO_REUSEPORT"):
        yield f"127.0.0.1:{free}"
        return
    with socket.socket() as holder:
        # gRPC sets SO_REUSEPORT too, so that both can bind the port.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"


def _check_port_is_free(where: str, port: int) -> None:
    """Raise InputError if another program listens on `port` of this host.

    JAX would crash, or share the port with another run.
    """
    for family, wildcard in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family) as probe:
                # The port of a run that just ended counts as free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((wildcard, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                problem = "its port is taken on this host, which is process 0"
                raise InputError(where, problem, "give another port, to all processes") from error


def _without_proxy(host: str) -> None:
    """Exclude the coordinator from HTTP proxies, through which gRPC would wait forever."""
    proxies = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
    if any(name.lower() in proxies for name in os.environ):
        names = ("no_grpc_proxy", "no_proxy", "NO_PROXY")
        known = next((os.environ[name] for name in names if os.environ.get(name)), None)
        os.environ["no_grpc_proxy"] = f"{known},{host}" if known else host
        jax.config.update("jax_check_proxy_envs", False)  # no warning about this setting


def _wait_for(plan: Plan, seconds: float) -> None:
    """Wait until the coordinator's port answers.

    If it never answers, JAX would abort the process with a stack trace.
    """
    host, _, port = plan.coordinator.rpartition(":")
    deadline, reason = time.monotonic() + seconds, "no answer"
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=min(seconds, 10)):
                return
        except OSError as error:  # or a name that is not known yet: pods start in any order
            reason = error.strerror or str(error)
            time.sleep(min(1.0, seconds / 10))
    _joined.append(plan)
    who = f"process {plan.process_id} of {plan.num_processes}"
    raise InputError(
        f"coordinator {plan.coordinator}",
        f"did not answer {who} in {seconds:.0f} s ({reason})",
        "check that process 0 runs there, that the port is open between the hosts, and that all "
        "processes have the same address",
    )


def _join(plan: Plan, seconds: float, where: str) -> None:
    """Call jax.distributed.initialize; its errors become InputErrors."""
    try:
        jax.distributed.initialize(
            plan.coordinator,
            plan.num_processes,
            plan.process_id,
            plan.local_devices,
            cluster_detection_method="deactivate" if plan.coordinator else None,
            # Longer than `_in_time`: JAX aborts the process at its own limit.
            initialization_timeout=int(seconds) + 600,
        )
    except jax.errors.JaxRuntimeError as error:
        who = f"process {plan.process_id} of {plan.num_processes}"
        problem = f"{who} could not join it ({str(error).splitlines()[0]})"
        remedy = "give another port, and each process its own id"
        raise InputError(where, problem, remedy) from error
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        problem = f"looks like a run of several processes, but JAX cannot find them ({reason})"
        remedy = f"give --coordinator, --num_processes and --process_id, or {ALONE}"
        raise InputError(plan.source, problem, remedy) from error


def _in_time(job: Callable[[], None], seconds: float) -> bool:
    """Run `job` in a thread, and return whether it ended in time. Its errors are raised.

    jax.distributed.initialize cannot be interrupted in another way.
    """
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
