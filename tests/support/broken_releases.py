"""Ways to break releases of people, and what the readers must then do."""

import copy
import tarfile
import warnings

import numpy as np
import pytest

from genhmr_jax.data.sources import find
from genhmr_jax.data.sources.reading import read_pickle
from genhmr_jax.io.errors import InputError
from support.people_studio import Studio
from support.python2_pickles import numpy1_pickle

COCO = "hmr2_training_data/dataset_tars/coco-train-2014-pruned"


def check(manual, name, split, problem, left, listed=1):
    """Stops without skip_bad with an error that names the dataset and says `problem`; with it reads
    `left` records. Returns the error."""
    source = find(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match=problem) as caught:
            list(source.records(manual, split, source.report()))
        report = source.report(skip_bad=True)
        records = list(source.records(manual, split, report))
    assert str(caught.value).startswith(f"{name}: {manual}")
    assert "\n" not in str(caught.value)
    assert len(records) == left
    assert len(report.listed) == listed and str(caught.value) == report.listed[0]
    assert report.summary().startswith(f"{listed} skipped")
    return str(caught.value)


def change_npz(path, **changes):
    """Rewrites an npz with some arrays changed (by a function of the array) or left out (None)."""
    with np.load(path, allow_pickle=True) as data:
        arrays = {name: data[name] for name in data}
    for name, change in changes.items():
        arrays[name] = arrays.pop(name) if change is None else change(arrays[name])
        if change is None:
            del arrays[name]
    np.savez(path, **arrays)


def writable(source):
    """What a pickle of the fixtures holds, to be changed."""
    return copy.deepcopy(read_pickle(source))


def change_pickle(path, change, dump):
    content = writable(path)
    change(content)
    path.write_bytes(dump(content))


def change_person(manual, change):
    """Rewrites the one person of the second tar."""
    path = manual / COCO / "000001.tar"
    with tarfile.open(path) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    people = writable(members[1][1])
    change(people[0])
    Studio(manual, None, 0).put_tar(
        f"{COCO}/000001.tar", [members[0], (members[1][0], numpy1_pickle(people))]
    )
