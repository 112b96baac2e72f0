"""Measurements of this checkout, in one table: `python -m benchmarks`. Not part of the package that
is installed."""

import importlib.util
import pathlib
import sys

if importlib.util.find_spec("smpl_jax") is None:  # genhmr_jax is not installed
    sys.path.append(str(pathlib.Path(__file__).parents[1] / "third_party" / "smpl_jax"))
