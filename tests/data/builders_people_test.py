"""Built datasets of people hold what the readers read, image bytes included."""

import warnings

import numpy as np
import pytest

from genhmr_jax.data.sources import SOURCES, find
from support import people_fixtures

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")

from genhmr_jax.data import builders  # noqa: E402


def test_every_release_of_people_has_a_fixture():
    """All but the rendered images, which are ours: the other tests go through every dataset by this
    table."""
    people = {name for name, source in SOURCES.items() if source.kind == "people"}
    assert people - {"synthetic"} == set(people_fixtures.WRITERS)


RELEASES = (
    "hmr2_coco",
    "own_tars",
    "own_photos",
    "bedlam",
    "threedpw",
    "emdb",
    "human36m",
    "mpi_inf_3dhp",
    "hmr2_eval",
)


@pytest.mark.parametrize("name", RELEASES)
def test_built_records_are_the_read_ones(tmp_path, name):
    truth, source = people_fixtures.write(name, tmp_path / "manual"), find(name)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the histogram of improbable poses is not part of the fixtures
        for split in dict.fromkeys(person.split for person in truth):
            count, report = builders.build(name, tmp_path / "manual", tmp_path / "data", split)
            built = builders.open_built(tmp_path / "data", name, split)
            read = list(source.records(tmp_path / "manual", split, source.report()))
            assert (
                count == len(built) == len(read) == sum(person.split == split for person in truth)
            )
            assert not report.listed
            for one, other in zip(built, read, strict=True):
                assert one.keys() == other.keys()
                assert all(np.array_equal(one[field], other[field]) for field in one), one[
                    "image_name"
                ]


def test_skipped_records_are_listed_beside_the_others(tmp_path):
    people_fixtures.write("emdb", tmp_path / "manual")
    (tmp_path / "manual/EMDB/P1/14_outdoor_climb/images/00002.jpg").unlink()
    count, report = builders.build(
        "emdb", tmp_path / "manual", tmp_path / "data", "emdb1", skip_bad=True
    )
    assert count == 2 and len(report.listed) == 1
    text = (builders.built_dir(tmp_path / "data", "emdb", "emdb1") / builders.SKIPPED).read_text()
    assert "1 skipped" in text and "frame 2" in text and "00002.jpg is absent" in text
