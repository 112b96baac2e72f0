"""A made-up dataset of photographed people, shared by the tests of its rows."""

import pytest

from genhmr_jax.data import mixtures
from genhmr_jax.geometry.bodies import load_body
from support.studio_records import alone, record


@pytest.fixture(scope="session")
def body():
    """The free body."""
    return load_body("neutral")


@pytest.fixture(scope="session")
def truth(tmp_path_factory, body):
    """Each person alone in a picture: (person, file content)."""
    return alone(tmp_path_factory.mktemp("studio"), body)


@pytest.fixture(scope="session")
def dataset(truth):
    """The records of these people."""
    return mixtures.Dataset("studio", [record(*one) for one in truth])
