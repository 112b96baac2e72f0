"""What the tests of broken releases share."""

import pytest

from support import people_fixtures


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A manual directory with whole releases. Copy it before breaking something."""
    folder = tmp_path_factory.mktemp("whole")
    for name in ("hmr2_coco", "hmr2_eval", "bedlam", "threedpw", "emdb", "human36m"):
        people_fixtures.write(name, folder)
    return folder
