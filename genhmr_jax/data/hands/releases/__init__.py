"""Public datasets of hands in their official release layouts, as records of one hand in one image.

Each module has `records(root, split, report)`. `RELEASES` has them by name, with what to download.
The releases are read directly; `genhmr data build` does not build them.
"""

import difflib

from genhmr_jax.data.hands.releases import dexycb, freihand, hint, hint_hamer, ho3d, interhand
from genhmr_jax.data.hands.releases.record import HandRecord, full_pose
from genhmr_jax.data.sources.source import Source
from genhmr_jax.io.errors import InputError

__all__ = ["RELEASES", "HandRecord", "find", "full_pose"]

RELEASES: dict[str, Source] = {
    module.SOURCE.name: module.SOURCE
    for module in (freihand, ho3d, hint, hint_hamer, dexycb, interhand)
}
"""By name. `RELEASES["freihand"].records(manual_dir, "training", report)` reads records."""


def find(name: str) -> Source:
    """The release of this name.

    Raises:
      InputError: the name is unknown; the error lists the most similar names.
    """
    if name not in RELEASES:
        near = difflib.get_close_matches(name, RELEASES, n=3, cutoff=0.4) or sorted(RELEASES)
        remedy = f"did you mean {', '.join(near)}? `genhmr data list` shows all"
        raise InputError(name, "is not a known dataset of hands", remedy)
    return RELEASES[name]
