"""The tools of tools/reliability as modules."""

import functools
import importlib.util
import sys
import types

from support.paths import ROOT


@functools.cache
def reliability_tool(name: str) -> types.ModuleType:
    """The module of tools/reliability/NAME.py; loaded once in a process."""
    file = ROOT / "tools" / "reliability" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"reliability_{name}", file)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
