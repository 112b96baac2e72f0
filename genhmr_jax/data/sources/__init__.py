"""The datasets by name: what to download, and how it is read (docs/data.md)."""

import difflib
import types

from genhmr_jax.data.sources import (
    aist,
    amass,
    bedlam,
    cmu_mocap,
    emdb,
    hmr2_npz,
    hmr2_tars,
    human36m,
    moyo,
    mpi_inf_3dhp,
    own_photos,
    synthetic,
    threedpw,
    tokenhmr_poses,
)
from genhmr_jax.data.sources.records import PersonRecord, PoseRecord
from genhmr_jax.data.sources.source import MissingError, Record, Report, Source
from genhmr_jax.io.errors import InputError

__all__ = [
    "SOURCES",
    "MissingError",
    "PersonRecord",
    "PoseRecord",
    "Record",
    "Report",
    "Source",
    "find",
]

_MODULES: tuple[types.ModuleType, ...] = (  # each has SOURCES, a tuple
    amass,
    moyo,
    tokenhmr_poses,
    cmu_mocap,
    aist,
    hmr2_tars,
    own_photos,
    hmr2_npz,
    bedlam,
    threedpw,
    emdb,
    human36m,
    mpi_inf_3dhp,
    synthetic,
)

SOURCES: dict[str, Source] = {
    source.name: source for module in _MODULES for source in module.SOURCES
}


def find(name: str) -> Source:
    """The source of this name.

    Raises:
      InputError: the name is unknown; the error lists the most similar names.
    """
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, n=3, cutoff=0.4) or sorted(SOURCES)
        raise InputError(
            name,
            "is not a known dataset",
            f"did you mean {', '.join(near)}? `genhmr data list` shows all",
        )
    return SOURCES[name]
