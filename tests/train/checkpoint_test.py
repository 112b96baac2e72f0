"""What a resumed run must share with the one before; the rest of train/checkpoint.py is tested with
whole trainings (loop_test.py, faults_test.py)."""

import numpy as np
import pytest

from genhmr_jax.io.config_files import load_config
from genhmr_jax.train import defaults
from genhmr_jax.train.checkpoint import fingerprint
from support.paths import ROOT

BASES = sorted((ROOT / "configs").glob("*/base.py"))
HOW = {
    "log_every", "evaluate_every", "checkpoint_every", "evaluate_poses", "evaluate_windows",
    "evaluate_hands", "init", "tokenizer", "mesh2d",
}  # fmt: skip


@pytest.mark.parametrize("file", BASES, ids=lambda file: file.parent.name)
def test_each_field_decides_the_loss_or_is_known_not_to(file):
    """Frozen models count by their arrays, and `init` matters only for the first step."""
    others = set(load_config(file)) - set(defaults.IDENTITY) - set(defaults.runtime())
    assert others <= HOW


def test_what_posturehmr_depends_on():
    config = load_config(ROOT / "configs/posturehmr/base.py")
    frozen = {"mesh2d": {"a": np.zeros(3, np.float32)}}
    same = fingerprint(config, frozen)
    other = config.copy_and_resolve_references()
    other.training.true_mesh2d = 0.9
    changed = fingerprint(other, frozen)
    assert [name for name in same if changed[name] != same[name]] == ["training"]
    changed = fingerprint(config, {"mesh2d": {"a": np.ones(3, np.float32)}})
    assert [name for name in same if changed[name] != same[name]] == ["mesh2d"]
