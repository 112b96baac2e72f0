"""GLB files, read with NumPy by the specification of glTF 2.0, against the bodies of smpl_jax."""

import json
import struct

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.motion import CAMERA, WORLD
from genhmr_jax.render.export.glb import save_glb
from genhmr_jax.render.rest import rest_of, strongest
from support.export_motions import first_frame, motion, posed, y_up

MM = 1e-3
TYPES = {5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Glb:
    """A reader of the files of `save_glb`."""

    def __init__(self, path):
        content = path.read_bytes()
        magic, version, length = struct.unpack_from("<4sII", content)
        assert (magic, version, length) == (b"glTF", 2, len(content))
        size, kind = struct.unpack_from("<I4s", content, 12)
        assert kind == b"JSON" and size % 4 == 0
        self.tree = json.loads(content[20 : 20 + size])
        assert content[24 + size : 28 + size] == b"BIN\0"
        self.data = content[28 + size :]

    def array(self, index):
        """The values of an accessor; normalised integers as fractions (3.6.2.2)."""
        accessor = self.tree["accessors"][index]
        view = self.tree["bufferViews"][accessor["bufferView"]]
        kind, width = np.dtype(TYPES[accessor["componentType"]]), WIDTHS[accessor["type"]]
        count = accessor["count"] * width
        assert count * kind.itemsize == view["byteLength"] and view["byteOffset"] % 4 == 0
        values = np.frombuffer(self.data, kind, count, view["byteOffset"]).astype(float)
        if accessor.get("normalized"):
            values = np.maximum(values / np.iinfo(kind).max, -1)
        return values.reshape(accessor["count"], width)

    def matrices(self, time=None):
        """World matrices of all nodes, at a time of the animation or as they stand."""
        nodes = [dict(node) for node in self.tree["nodes"]]
        if time is not None:
            animation = self.tree["animations"][0]
            for channel in animation["channels"]:
                sampler = animation["samplers"][channel["sampler"]]
                times, values = self.array(sampler["input"])[:, 0], self.array(sampler["output"])
                at = np.searchsorted(times, time + 1e-6) - 1  # the last key that is not later
                target = channel["target"]
                nodes[target["node"]][target["path"]] = values[np.clip(at, 0, len(times) - 1)]
        world = [None] * len(nodes)

        def visit(index, above):
            node, local = nodes[index], np.eye(4)
            local[:3, :3] = Rotation.from_quat(node.get("rotation", [0, 0, 0, 1])).as_matrix()
            local[:3, :3] *= node.get("scale", [1, 1, 1])
            local[:3, 3] = node.get("translation", [0, 0, 0])
            world[index] = above @ local
            for child in node.get("children", []):
                visit(child, world[index])

        for root in self.tree["scenes"][0]["nodes"]:
            visit(root, np.eye(4))
        return np.array(world)

    def person(self, number, time=None):
        """The joints (24, 3) and vertices (V, 3) of a person."""
        skin = self.tree["skins"][number]
        motions = self.matrices(time)[skin["joints"]]
        inverse = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2)
        attributes = self.tree["meshes"][number]["primitives"][0]["attributes"]
        rest = np.pad(self.array(attributes["POSITION"]), [(0, 0), (0, 1)], constant_values=1)
        joints, weights = (self.array(attributes[name]) for name in ("JOINTS_0", "WEIGHTS_0"))
        each = (motions @ inverse)[joints.astype(int)]
        vertices = np.einsum("vk,vkij,vj->vi", weights, each, rest)
        return motions[:, :3, 3], vertices[:, :3]


@pytest.fixture(scope="module")
def body():
    return load_body("lite")


@pytest.mark.parametrize("axes", [CAMERA, WORLD])
def test_animation_has_the_joints_and_nearly_the_surface(axes, body, tmp_path):
    people = [motion(1, axes=axes), motion(2, axes=axes, absent=(0, 1, 6))]
    save_glb(path := tmp_path / "two.glb", people, body)
    glb = Glb(path)
    for number, person in enumerate(people):
        assert glb.tree["nodes"][25 * number + number]["name"] == person.name
        joints, vertices = posed(person, body)
        for frame in np.flatnonzero(person.present):
            found, surface = glb.person(number, person.times[frame] - 2)
            np.testing.assert_allclose(found, y_up(joints[frame], axes), atol=0.5 * MM)
            gaps = np.linalg.norm(surface - y_up(vertices[frame], axes), axis=1)
            assert gaps.mean() < 3 * MM  # the blend shapes of the pose are not in the file


def test_the_surface_is_exact_without_blend_shapes_of_the_pose(body, tmp_path):
    """With all joints but the root at rest, these blend shapes are zero."""
    person = motion(3)
    person.poses[:, 1:] = 0
    save_glb(path := tmp_path / "stiff.glb", [person], body)
    _, vertices = posed(person, body)
    for frame in (0, 7):
        surface = Glb(path).person(0, person.times[frame] - 2)[1]
        np.testing.assert_allclose(surface, y_up(vertices[frame], CAMERA), atol=0.5 * MM)


def test_absent_people_have_no_size(body, tmp_path):
    save_glb(path := tmp_path / "two.glb", [motion(1), motion(2, absent=(0, 1, 6))], body)
    glb = Glb(path)
    for frame in range(12):
        size = np.ptp(glb.person(1, frame / 25)[1], axis=0).max()
        assert (size == 0) == (frame in (0, 1, 6))
        assert np.ptp(glb.person(0, frame / 25)[1], axis=0).max() > 1
    scales = [c for c in glb.tree["animations"][0]["channels"] if c["target"]["path"] == "scale"]
    assert [glb.tree["nodes"][c["target"]["node"]]["name"] for c in scales] == ["person 2"]


def test_a_photo_is_posed_without_animation(body, tmp_path):
    person = first_frame(motion(1))
    save_glb(path := tmp_path / "photo.glb", [person], body)
    glb = Glb(path)
    assert "animations" not in glb.tree
    joints, _ = posed(person, body)
    np.testing.assert_allclose(glb.person(0)[0], y_up(joints[0], CAMERA), atol=1e-5)


def test_values_that_the_specification_demands(body, tmp_path):
    save_glb(path := tmp_path / "two.glb", [motion(1), motion(2)], body)
    glb = Glb(path)
    attributes = [mesh["primitives"][0]["attributes"] for mesh in glb.tree["meshes"]]
    weights, joints = (glb.array(attributes[0][name]) for name in ("WEIGHTS_0", "JOINTS_0"))
    assert (np.abs(weights.sum(1) - 1) < 1e-9).all()
    assert not joints[weights == 0].any()
    assert np.abs(np.linalg.norm(glb.array(attributes[0]["NORMAL"]), axis=1) - 1).max() < 1e-5
    # Both people share the weights, and have shapes of their own.
    assert attributes[0]["WEIGHTS_0"] == attributes[1]["WEIGHTS_0"]
    assert attributes[0]["POSITION"] != attributes[1]["POSITION"]
    # Quaternions keep their sign from frame to frame: linear interpolation takes the short way.
    animation = glb.tree["animations"][0]
    for channel in animation["channels"]:
        sampler = animation["samplers"][channel["sampler"]]
        times = glb.array(sampler["input"])[:, 0]
        assert times[0] == 0 and (np.diff(times) > 0).all()
        if channel["target"]["path"] == "rotation":
            turns = glb.array(sampler["output"])
            assert (np.einsum("fi,fi->f", turns[1:], turns[:-1]) > 0).all()


def test_size_of_half_a_minute(tmp_path):
    people = [motion(1, frames=900), motion(2, frames=900)]
    save_glb(path := tmp_path / "long.glb", people, load_body("neutral"))
    assert path.stat().st_size < 1_000_000


def test_trimesh_loads_it(body, tmp_path):
    save_glb(path := tmp_path / "two.glb", [motion(1), motion(2)], body)
    scene = trimesh.load(path)
    for mesh in scene.geometry.values():
        np.testing.assert_array_equal(mesh.faces, np.asarray(body.faces))
    colours = {tuple(mesh.visual.material.baseColorFactor) for mesh in scene.geometry.values()}
    assert len(colours) == 2


def test_nobody(body, tmp_path):
    with pytest.raises(ValueError, match="no motions"):
        save_glb(tmp_path / "none.glb", [], body)
    with pytest.raises(ValueError, match="person 1 is in no frame"):
        save_glb(tmp_path / "none.glb", [motion(1, absent=tuple(range(12)))], body)


def test_rest_is_the_body_at_rest(body):
    person = motion(1)
    rest = rest_of(body, person.betas)
    person.poses[:], person.translation[:] = 0, 0
    joints, vertices = posed(first_frame(person), body)
    np.testing.assert_allclose(rest.joints, joints[0], atol=1e-6)
    np.testing.assert_allclose(rest.vertices, vertices[0], atol=1e-6)
    mesh = trimesh.Trimesh(rest.vertices, rest.faces, process=False)
    assert (np.einsum("vc,vc->v", rest.normals, mesh.vertex_normals) > 0.5).mean() > 0.99


def test_the_strongest_weights_are_kept():
    weights = np.array([[0.4, 0.0], [0.1, 1.0], [0.2, 0.0], [0.05, 0.0], [0.25, 0.0]])
    joints, kept = strongest(weights)
    np.testing.assert_array_equal(joints, [[0, 4, 2, 1], [1, 0, 0, 0]])
    np.testing.assert_allclose(
        kept, [[0.4 / 0.95, 0.25 / 0.95, 0.2 / 0.95, 0.1 / 0.95], [1, 0, 0, 0]]
    )
