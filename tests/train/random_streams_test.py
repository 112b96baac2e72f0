"""Random streams: one name, one purpose, one key; and no key of a run made by adding to its
seed."""

import ast
import collections

import jax
import ml_collections
import numpy as np
import pytest

from genhmr_jax.core.unrolling import masked_tokens
from genhmr_jax.data.rows import Rows
from genhmr_jax.data.views import ViewSpec, assigned_names
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED_FLIP
from genhmr_jax.systems.biopose import samples as angle_samples
from genhmr_jax.systems.biopose.skeleton import marker_body
from genhmr_jax.systems.biopose.spec import NeurIkSpec
from genhmr_jax.systems.biopose.system import mean_skeleton
from genhmr_jax.systems.genhmr import samples as body_samples
from genhmr_jax.systems.maskhand import samples as hand_samples
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


# `split(key)[i]` is `fold_in(key, i)`. A key that is split in one place, and into which small
# numbers are folded in another, gives both places the same draws.
KEYS = jax.vmap(lambda number: jax.random.fold_in(jax.random.key(0), number))(np.arange(4000))


def related(one, other) -> float:
    return abs(np.corrcoef(np.asarray(one, float), np.asarray(other, float))[0, 1])


def rows(**fields) -> Rows:
    """Rows of KEYS of which only some fields are known."""
    needed = ("view", "rotmats", "betas", "joints", "keypoints", "points2d", "weak_camera")
    return Rows(**dict.fromkeys(needed) | fields)


def test_the_rate_of_markers_does_not_tell_their_errors():
    """Of NeurIK's training windows; the white noise was a function of the rate."""
    count = 400
    row = angle_samples.AngleRows(
        poses=np.zeros((count, 16, 72), np.float32), angles=np.zeros((count, 16, 44), np.float32),
        translation=np.zeros((count, 16, 3), np.float32), count=np.full(count, 16.0),
        good=np.ones((count, 16), bool), betas=np.zeros((count, 10), np.float32),
        scales=np.ones((count, 11), np.float32), number=np.arange(count, dtype=np.uint32),
    )  # fmt: skip
    white = angle_samples.NoiseSpec(clean=0.0, slow=0.0, constant=0.0, shift=0.0, turn=0.0)

    class Seen(angle_samples.SampleMaker):
        def sample(self, posed, markers, times, scales, weight):
            return markers - posed.markers, times

    maker = Seen(NeurIkSpec(window=4), white, marker_body(load_body("lite")), mean_skeleton())
    errors, times = jax.jit(maker.training)(row, jax.random.key(0))
    rate, size = 1 / np.asarray(times)[:, 1], np.asarray(errors).std((1, 2, 3))
    assert size.min() < 0.001 < 0.01 < size.max() and related(rate, size) < 0.2


def test_hidden_keypoints_of_a_hand_do_not_tell_whether_the_row_is_unrolled():
    """Of MaskHand's training; rows without 3D keypoints always were."""
    masking = {"drop_lifted": 0.1, "unroll": 0.7, "corrupt": 0.0, "min_ratio": 0.0}
    config = ml_collections.ConfigDict({"masking": masking | {"schedule": "cosine"}})
    maker = hand_samples.SampleMaker(config, 0, None, None, True, None)
    shown = maker._dropped(rows(keypoints3d=np.ones((len(KEYS), 21, 3), np.float32)), KEYS)
    threes = jax.vmap(lambda key: jax.random.split(key, 3))(KEYS)  # as in SampleMaker.sample
    tokens, weight = np.zeros((len(KEYS), 4), np.int32), np.ones(len(KEYS), np.float32)
    masked = masked_tokens(threes, tokens, config.masking, 16, weight, unroll=True)
    hidden = np.asarray(shown.keypoints3d)[:, 0, 0] == 0
    assert 0.08 < hidden.mean() < 0.12 and 0.66 < np.asarray(masked.unroll).mean() < 0.74
    assert related(hidden, masked.unroll) < 0.06


def test_a_swap_of_all_keypoints_does_not_hide_the_photo():
    """Of GenHMR's training on photos; no swapped person had an image."""
    config = ml_collections.ConfigDict({"masking": {"drop_keypoints": 0.0, "drop_image": 0.1}})
    view = ViewSpec(swap=0.2)
    maker = body_samples.SampleMaker(config, None, True, view, None)
    _, weight = maker._drop_contexts(rows(keypoints=np.ones((len(KEYS), 23, 3))), KEYS)
    names = jax.vmap(lambda key: assigned_names(jax.random.fold_in(key, 1), view))(KEYS)
    swapped = (np.asarray(names) == np.array(DETECTED_FLIP)).all(-1)  # as in _as_detected
    assert 0.15 < swapped.mean() < 0.3 and 0.08 < 1 - np.asarray(weight).mean() < 0.12
    assert related(swapped, weight) < 0.06
