"""Tiny sweeps, their command, and what a run of theirs would leave: for the tests of sweeps."""

import json

from genhmr_jax.cli import main
from support.paths import ROOT

TOKENS, UGS = (
    f"{ROOT}/configs/sweeps/tokens.py:tiny",
    f"{ROOT}/configs/sweeps/ugs_iterations.py:tiny",
)
COMPONENTS, STEPS = (
    f"{ROOT}/configs/sweeps/posturehmr_components.py:tiny",
    f"{ROOT}/configs/sweeps/posturehmr_steps.py:tiny",
)
RESULT = {
    "pa_mpjpe_mm": 50.0,
    "mpjpe_mm": 80.0,
    "pa_mpjpe_standard_error_mm": 1.5,
    "seconds_per_view": 0.01,
}


def finish(node, value=50.0):
    """Writes what a node would leave."""
    node.marker.parent.mkdir(parents=True, exist_ok=True)
    stages = {stage: RESULT | {"pa_mpjpe_mm": value} for stage in ("sampled", "refined")}
    content = (
        {"contexts": {"keypoints": stages}}
        if node.kind == "evaluate"
        else {"measured": {"val_mpjpe_mm": 12.0, "val_mesh_percent": 3.25}}
    )
    node.marker.write_text(json.dumps(content))


def sweep(*flags):
    return main.main(["sweep", f"--sweep={TOKENS}", *map(str, flags)])
