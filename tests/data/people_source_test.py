"""The source of training samples of people: mixtures of datasets, what is drawn from them, and
records that are refused."""

import jax
import numpy as np
import pytest

from genhmr_jax.data import mixtures, people
from genhmr_jax.data.augment import AugmentSpec
from genhmr_jax.data.pipeline import Batches
from genhmr_jax.io.errors import InputError
from support.studio_records import record


def test_mixtures():
    for mixture in mixtures.MIXTURES.values():
        assert sum(mixture.values()) == pytest.approx(1)
    assert (
        mixtures.parse_mixture("hmr2")["hmr2_ava"] == 0.19
        and mixtures.parse_mixture("tokenhmr")["bedlam"] == 0.18
    )
    assert mixtures.parse_mixture("bedlam, hmr2_aic=0.5") == {"bedlam": 1.0, "hmr2_aic": 0.5}
    with pytest.raises(
        InputError,
        match="'bedlm' is neither a mixture nor a dataset of people; did you mean bedlam",
    ):
        mixtures.parse_mixture("bedlm")
    for weight in ("0", "-1", "much", "nan", "inf"):
        with pytest.raises(InputError, match="bedlam has the weight"):
            mixtures.parse_mixture(f"bedlam={weight}")


def test_samples_are_drawn_by_weight_and_by_number_alone(dataset, body):
    parts = [
        mixtures.Dataset("one", dataset.records[:2], 0.5),
        mixtures.Dataset("two", dataset.records[2:], 1.5),
    ]
    source = people.PeopleSource(parts, 4, 7, body)
    which, index = source.draw(np.arange(20_000))
    assert np.mean(which) == pytest.approx(0.75, abs=0.01)
    for part, length in ((0, 2), (1, 4)):
        counts = np.bincount(index[which == part], minlength=length)
        assert len(counts) == length and np.abs(counts / counts.mean() - 1).max() < 0.08
    together = source.load(np.array([3, 11, 4, 5]))
    for row, number in enumerate((3, 11, 4, 5)):
        alone = source.load(np.array([number]))
        same = jax.tree.map(lambda x, row=row: x[row : row + 1], together)
        jax.tree.map(np.testing.assert_array_equal, alone, same)
    other = people.PeopleSource(parts, 4, 8, body).load(np.array([3]))
    assert (other.images != together.images[:1]).any()
    assert jax.tree.map(lambda x: (x.shape[1:], x.dtype), together) == jax.tree.map(
        lambda s: (s.shape, s.dtype), source.shapes()
    )


def test_threads_give_the_same_batches(dataset, body):
    source = people.PeopleSource([dataset], 4, 0, body, AugmentSpec(occlude=0.5))
    sharding = jax.sharding.NamedSharding(
        jax.make_mesh((1,), ("data",)), jax.sharding.PartitionSpec("data")
    )
    threaded = list(Batches({"images": source}, sharding, 0, 4, threads=3))
    for step, batch in enumerate(threaded):
        wanted = source.load(step * 4 + np.arange(4))
        jax.tree.map(np.testing.assert_array_equal, batch["images"], wanted)


def test_bad_records_are_named(truth, body):
    person, picture = truth[0]
    cut = mixtures.Dataset("cut", [record(person, picture[:2000], image_name="a/b.jpg")])
    with pytest.raises(
        InputError, match=r"cut: record 0 \(a/b.jpg\): the picture cannot be decoded .* --skip-bad"
    ):
        people.PeopleSource([cut], 1, 0, body).load(np.arange(1))
    with pytest.raises(InputError, match=r"none: record 0 \(a.jpg\): has no picture"):
        people.PeopleSource([mixtures.Dataset("none", [record(person, b"")])], 1, 0, body).load(
            np.arange(1)
        )
    with pytest.raises(
        InputError, match="size: record 0 .*640 x 480 px, its labels are for 480 x 640 px"
    ):
        people.PeopleSource(
            [mixtures.Dataset("size", [record(person, picture, image_size=(480, 640))])], 1, 0, body
        ).load(np.arange(1))
    with pytest.raises(InputError, match="empty: holds no records"):
        people.PeopleSource([mixtures.Dataset("empty", [])], 1, 0, body)


def test_everybody_once(dataset, body):
    batches = list(people.all_batches(dataset, 4, 100, body))
    assert [batch.weight.tolist() for batch in batches] == [[1, 1, 1, 1], [1, 1, 0, 0]]
    betas = np.concatenate([batch.betas for batch in batches])[:6]
    np.testing.assert_allclose(betas, [r["betas"] for r in dataset.records])
    assert sum(batch.weight.sum() for batch in people.all_batches(dataset, 2, 3, body)) == 3
