"""USD files, read as text and by the USD library, against the bodies of smpl_jax."""

import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.motion import CAMERA, WORLD
from genhmr_jax.render.export.usd import save_usd
from support.export_motions import first_frame, motion, posed, y_up

MM = 1e-3


@pytest.fixture(scope="module")
def body():
    return load_body("lite")


def numbers(text):
    return np.array(re.findall(r"-?\d+\.?\d*", text), float)


def samples(text, attribute):
    """Time codes and texts of an attribute's values."""
    values = re.search(rf"{re.escape(attribute)}\.timeSamples = {{(.*?)}}\n", text).group(1)
    parts = re.split(r"(?:^|, )(\d+\.?\d*): ", values)[1:]
    return np.array(parts[::2], float), parts[1::2]


def joints_of(text, body):
    """The joints (F, 24, 3) of a person's text, by the forward kinematics of row vectors."""
    codes, turns = samples(text, "quatf[] rotations")
    _, places = samples(text, "double3 xformOp:translate")
    rest = numbers(re.search(r"restTransforms = (.*)", text).group(1)).reshape(-1, 4, 4)
    frames = []
    for turn, place in zip(turns, places, strict=True):
        rotations = Rotation.from_quat(numbers(turn).reshape(-1, 4)[:, [1, 2, 3, 0]]).as_matrix()
        world = []
        for joint, parent in enumerate(body.parents):
            local = rest[joint].copy()
            local[:3, :3] = rotations[joint].T
            world.append(local if parent < 0 else local @ world[parent])
        frames.append(np.array(world)[:, 3, :3] + numbers(place))
    return codes, np.array(frames)


@pytest.mark.parametrize("axes", [CAMERA, WORLD])
def test_the_text_has_the_joints(axes, body, tmp_path):
    people = [motion(1, axes=axes), motion(2, axes=axes, absent=(0, 1, 6))]
    save_usd(path := tmp_path / "two.usda", people, body)
    head, *texts = path.read_text().split("def SkelRoot")
    assert "timeCodesPerSecond = 25\n" in head and 'upAxis = "Y"' in head
    for person, text in zip(people, texts, strict=True):
        codes, joints = joints_of(text, body)
        first = int(np.argmax(person.present))
        np.testing.assert_allclose(codes, np.arange(first, 12), atol=1e-3)
        known = person.present[first:]
        expected = y_up(posed(person, body)[0], axes)[first:]
        np.testing.assert_allclose(joints[known], expected[known], atol=0.1 * MM)
        _, sight = samples(text, "token visibility")
        assert [word == '"inherited"' for word in sight] == person.present.tolist()


def test_the_library_skins_it(body, tmp_path):
    """OpenUSD (PyPI: usd-core) skins the mesh; without blend shapes of the pose it is exact."""
    pytest.importorskip("pxr")
    from pxr import Usd, UsdGeom, UsdSkel

    person = motion(3)
    person.poses[:, 1:] = 0
    save_usd(path := tmp_path / "stiff.usda", [person], body)
    stage, cache = Usd.Stage.Open(str(path)), UsdSkel.Cache()
    prim = lambda name: stage.GetPrimAtPath(f"/people/person_1{name}")
    cache.Populate(UsdSkel.Root(prim("")), Usd.PrimDefaultPredicate)
    query = cache.GetSkelQuery(UsdSkel.Skeleton(prim("/person_1_skeleton")))
    skin, mesh = (
        cache.GetSkinningQuery(prim("/person_1_mesh")),
        UsdGeom.Mesh(prim("/person_1_mesh")),
    )
    joints, vertices = posed(person, body)
    for frame in (0, 7):
        place = UsdGeom.XformCache(frame)
        found = np.array(query.ComputeJointWorldTransforms(place))[:, 3, :3]
        np.testing.assert_allclose(found, y_up(joints[frame], CAMERA), atol=0.1 * MM)
        points = mesh.GetPointsAttr().Get()
        assert skin.ComputeSkinnedPoints(query.ComputeSkinningTransforms(frame), points, frame)
        shift = np.array(place.GetLocalToWorldTransform(prim("/person_1_skeleton")))[3, :3]
        expected = y_up(vertices[frame], CAMERA)
        np.testing.assert_allclose(np.array(points) + shift, expected, atol=0.1 * MM)


def test_a_photo_has_one_time_code(body, tmp_path):
    person = first_frame(motion(1))
    save_usd(path := tmp_path / "photo.usda", [person], body)
    codes, joints = joints_of(path.read_text(), body)
    assert codes.tolist() == [0]
    np.testing.assert_allclose(joints, y_up(posed(person, body)[0], CAMERA), atol=0.1 * MM)


def test_nobody(body, tmp_path):
    with pytest.raises(ValueError, match="no motions"):
        save_usd(tmp_path / "none.usda", [], body)
