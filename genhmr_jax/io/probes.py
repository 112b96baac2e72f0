"""Trial imports in other processes. No heavy import.

A package that is damaged, or was built for another processor, may end the whole process, or wait
without end for a device. `genhmr doctor` must report that and go on.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

TIMEOUT = 120.0  # seconds; an import from a slow network disk takes tens of them
_IMPORTS = """
import importlib, json, os, sys
report = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the packages print is no part of the report
names = json.loads(sys.argv[1])
sys.path[:] = json.loads(sys.argv[2])
for name in names:
    print(json.dumps([name]), file=report, flush=True)
    try:
        importlib.import_module(name)
        print(json.dumps([name, None]), file=report, flush=True)
    except BaseException as error:
        print(json.dumps([name, f"{type(error).__name__}: {error}"]), file=report, flush=True)
os._exit(0)
"""
_DEVICES = """
import json, os, sys
report = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
sys.path[:] = json.loads(sys.argv[2])
try:
    import jax
    found = {"backend": jax.default_backend()}
    found["devices"] = [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()]
    ones = jax.numpy.ones((8, 8))
    total = float(jax.jit(lambda x: (x @ x).sum())(ones))
    if total != 512:
        found["error"] = f"the sum of a product of matrices is {total}, not 512"
except BaseException as error:
    found = {"error": f"{type(error).__name__}: {error}"}
print(json.dumps(found), file=report, flush=True)
os._exit(0)
"""


def import_errors(modules: Sequence[str], timeout: float = TIMEOUT) -> dict[str, str | None]:
    """Import modules, and say what each import raised; None: nothing.

    They are imported one after the other in one process. If one of them ends it, the next process
    goes on with the others.
    """
    found: dict[str, str | None] = {}
    while remaining := [name for name in modules if name not in found]:
        output, ended = _python(_IMPORTS, remaining, timeout)
        lines = [json.loads(line) for line in output.splitlines()]
        found |= {line[0]: line[1] for line in lines if len(line) == 2}
        begun = lines[-1][0] if lines else remaining[0]
        if begun not in found:
            found[begun] = ended or "the import ends the process"
    return found


def devices(timeout: float = TIMEOUT) -> dict[str, Any]:
    """JAX's default backend and devices, after a small computation on it.

    Returns:
      {"backend", "devices": ["PLATFORM:NUMBER KIND", ...]}, with "error" if something failed.
    """
    output, ended = _python(_DEVICES, [], timeout)
    return json.loads(output) if output else {"error": ended or "the import ends the process"}


def _python(code: str, names: Sequence[str], timeout: float) -> tuple[str, str | None]:
    """Run code in a process, which gets names and our module path.

    Returns:
      its complete lines on stdout, and why it ended early, or None.
    """
    # -P: no module of the working directory takes the place of an installed one.
    path = [folder for folder in sys.path if folder]
    command = [sys.executable, "-P", "-c", code, json.dumps(list(names)), json.dumps(path)]
    # Programs are not stored: a damaged store is another thing than a damaged package.
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            output, ended = process.communicate(timeout=timeout)[0], None
        except subprocess.TimeoutExpired:
            process.kill()
            output, ended = process.communicate()[0], f"takes longer than {timeout:g} s"
    if process.returncode and not ended:
        ended = f"ends the process ({_reason(process.returncode)})"
    text = output.decode(errors="replace")
    return text[: text.rfind("\n") + 1], ended


def _reason(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"
