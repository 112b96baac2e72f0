"""Random streams: one name, one purpose, one key; and no key of a run made by adding to its
seed."""

import ast
import collections

import jax
import numpy as np
import pytest

from genhmr_jax.train.random_streams import STREAMS, stream
from support.paths import ROOT

PACKAGE = ROOT / "genhmr_jax"


def test_no_two_streams_and_no_neighbouring_seeds_share_a_key():
    keys = [jax.random.key_data(stream(seed, name)) for seed in range(20) for name in STREAMS]
    assert len({tuple(np.asarray(key)) for key in keys}) == 20 * len(STREAMS)
    with pytest.raises(ValueError):
        stream(0, "no such stream")


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        call
        for call in found
        if (
            call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        )
        == name
    ]


def names_of_streams(tree: ast.AST) -> list[str]:
    """The names in calls of `stream`, and of the method of SampleMaker that passes one on."""
    arguments = [call.args[1] for call in calls(tree, "stream")]
    arguments += [call.args[0] for call in calls(tree, "_keys")]
    return [argument.value for argument in arguments if isinstance(argument, ast.Constant)]


def test_training_and_evaluation_make_keys_by_stream_alone_and_each_once():
    """A key made of `seed + 4` was the base of two streams: of masks in training and of the views
    of the validation. Systems are trained one by one, so that two of them may use one stream."""
    used = collections.defaultdict(list)
    for room in ("core", "data", "train", "systems", "evaluate"):
        for path in (PACKAGE / room).rglob("*.py"):
            tree = ast.parse(path.read_text())
            for call in calls(tree, "key"):
                assert isinstance(call.args[0], ast.Constant) or path.stem == "random_streams", (
                    f"{path}:{call.lineno}: use random_streams.stream"
                )
            folder = path.relative_to(PACKAGE / room).parts[0]
            used[folder if room == "systems" else ""] += names_of_streams(tree)
    for names in ([*names, *used[""]] for folder, names in used.items() if folder):
        once = [name for name in names if name not in ("augmentation", "validation_views")]
        assert len(set(once)) == len(once), "two places draw from one stream"
    assert {name for names in used.values() for name in names} == set(STREAMS)
