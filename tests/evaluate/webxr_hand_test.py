import json
import struct
import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genhmr_jax.data.hands.render import posed
from genhmr_jax.evaluate import webxr_hand as webxr
from genhmr_jax.evaluate.hands import Errors
from genhmr_jax.geometry.hand import FINGERS, HAND21, HAND_JOINTS, TIPS, load_hand
from genhmr_jax.io.errors import InputError

KINDS = {"<f4": 5126, "|u1": 5121, "<u2": 5123}
SHAPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


def to_file(points):
    """From fingers -x, back +y, thumb +z to the file's fingers -y, back +x, thumb -z."""
    return np.stack([points[..., 1], points[..., 0], -points[..., 2]], -1)


def write_glb(path, joints, vertices, used, shares, faces, *, names=webxr.WEBXR_JOINTS, seed=0):
    """A glTF file of a hand in the file's axes, with joints in another order and turned axes."""
    rng = np.random.default_rng(seed)
    shift = np.array([0.01, -0.02, 0.03])  # of the node above all joints
    order = rng.permutation(len(names))
    turns = Rotation.random(len(names), rng)
    bind = np.zeros((len(names), 4, 4))
    bind[:, :3, :3], bind[:, :3, 3], bind[:, 3, 3] = turns.as_matrix(), joints, 1
    inverse = np.linalg.inv(bind)[order].transpose(0, 2, 1).reshape(-1, 16)
    tables = [
        np.float32(vertices),
        np.argsort(order)[used].astype("u1"),
        np.float32(shares),
        np.asarray(faces, "<u2").reshape(-1, 1),
        np.float32(inverse),
    ]
    nodes = [
        {
            "name": names[i],
            "rotation": turns[i].as_quat().tolist(),
            "translation": (joints[i] - shift).tolist(),
        }
        for i in order
    ]
    nodes.append({"name": "mesh", "mesh": 0, "skin": 0})
    nodes.append({"children": list(range(len(nodes))), "translation": shift.tolist()})
    ends = np.cumsum([0, *(-(-t.nbytes // 4) * 4 for t in tables)]).tolist()
    document = {
        "asset": {"version": "2.0"},
        "nodes": nodes,
        "skins": [{"joints": list(range(len(names))), "inverseBindMatrices": 4}],
        "meshes": [
            {
                "primitives": [
                    {"attributes": {"POSITION": 0, "JOINTS_0": 1, "WEIGHTS_0": 2}, "indices": 3}
                ]
            }
        ],
        "accessors": [
            {
                "bufferView": i,
                "componentType": KINDS[t.dtype.str],
                "count": len(t),
                "type": SHAPES[t.shape[1]],
            }
            for i, t in enumerate(tables)
        ],
        "bufferViews": [
            {"byteOffset": start, "byteLength": t.nbytes}
            for start, t in zip(ends, tables, strict=False)
        ],
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    binary = b"".join(t.tobytes().ljust(-(-t.nbytes // 4) * 4, b"\0") for t in tables)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text
    body += struct.pack("<II", len(binary), 0x004E4942) + binary
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body)
    return path


def small(path, **changes):
    """A file of 25 random joints and 12 vertices, and what is in it."""
    rng = np.random.default_rng(1)
    shares = rng.random((12, 4))
    content = {
        "joints": rng.normal(size=(25, 3)),
        "vertices": rng.normal(size=(12, 3)),
        "used": np.stack([rng.permutation(25)[:4] for _ in range(12)]),
        "shares": shares / shares.sum(1, keepdims=True),
        "faces": rng.integers(12, size=(8, 3)),
    }
    write_glb(path, **(content | changes))
    return content


@pytest.fixture(scope="module")
def hand(tmp_path_factory):
    """The free hand as a file of a WebXR hand."""
    model = load_hand()
    joints, places = np.asarray(model.joint_template), np.zeros((25, 3))
    template = np.asarray(model.template).T
    at = {name: i for i, name in enumerate(webxr.WEBXR_JOINTS)}
    places[0] = joints[0]
    moved = {0: 0}
    for (name, finger), tip in zip(FINGERS.items(), TIPS, strict=True):
        numbers = [at[joint] for joint in webxr.WEBXR_FINGERS[name]]
        places[numbers[-4:]] = [*joints[list(finger)], template[model.vertex_ids[tip]]]
        moved |= dict(zip(finger, numbers[-4:-1], strict=True))
        if name != "thumb":
            places[numbers[0]] = (places[0] + places[numbers[1]]) / 2
    weights = np.asarray(model.weights).T
    most = np.argsort(-weights, 1)[:, :4]
    shares = np.take_along_axis(weights, most, 1)
    used = np.vectorize(moved.get)(most)
    path = tmp_path_factory.mktemp("hand") / "right.glb"
    shares = shares / shares.sum(1, keepdims=True)
    write_glb(path, to_file(places), to_file(template), used, shares, np.asarray(model.faces))
    return webxr.load_webxr_hand(path, sha256=None)


def test_names():
    assert webxr.WEBXR_JOINTS[:6] == (
        "wrist",
        "thumb-metacarpal",
        "thumb-phalanx-proximal",
        "thumb-phalanx-distal",
        "thumb-tip",
        "index-finger-metacarpal",
    )
    parts = {"cmc": "metacarpal", "tip": "tip"}
    for keypoint, number in zip(HAND21, webxr.HAND21_FROM_WEBXR, strict=True):
        name = webxr.WEBXR_JOINTS[number]
        finger, _, part = keypoint.partition("_")
        assert name.startswith(finger)
        thumb = {"mcp": "phalanx-proximal", "ip": "phalanx-distal"}
        long = {"mcp": "phalanx-proximal", "pip": "phalanx-intermediate", "dip": "phalanx-distal"}
        if part:
            assert name.endswith((parts | (thumb if finger == "thumb" else long))[part])
    assert sorted(set(webxr.PARENTS)) == [-1, *range(4), *range(5, 9), *range(10, 14),
                                          *range(15, 19), *range(20, 24)]  # fmt: skip


def test_reader_and_skinning(tmp_path):
    """The mesh is that of plain linear blend skinning, joint by joint."""
    content = small(tmp_path / "small.glb")
    hand = webxr.load_webxr_hand(tmp_path / "small.glb", sha256=None)
    np.testing.assert_array_equal(hand.faces, content["faces"])
    np.testing.assert_allclose(hand.vertices, content["vertices"], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(hand.weights, content["used"], 1),
                               content["shares"], atol=1e-6)  # fmt: skip
    pose = np.random.default_rng(2).normal(0, 0.7, 48)
    vertices, joints = hand.posed(pose)
    # The reference has places and world rotations, no matrices of 4 x 4.
    rest, points = to_file(content["joints"]), to_file(content["vertices"])
    turns = {name: Rotation.from_rotvec(v) for name, v in zip(HAND_JOINTS, pose.reshape(16, 3),
                                                              strict=True)}  # fmt: skip
    own = {"wrist": turns["wrist"]}
    for name, names in webxr.WEBXR_FINGERS.items():
        own |= {joint: turns[f"{name}{i + 1}"] for i, joint in enumerate(names[-4:-1])}
    world, places = [], []
    for joint, (name, parent) in enumerate(zip(webxr.WEBXR_JOINTS, webxr.PARENTS, strict=True)):
        turn = own.get(name, Rotation.identity())
        if parent < 0:
            places.append(rest[joint])
            world.append(turn)
        else:
            places.append(places[parent] + world[parent].apply(rest[joint] - rest[parent]))
            world.append(world[parent] * turn)
    np.testing.assert_allclose(joints, places, atol=1e-5)
    for i, point in enumerate(points):
        moved = sum(
            share * (world[joint].apply(point - rest[joint]) + places[joint])
            for joint, share in zip(content["used"][i], content["shares"][i], strict=True)
        )
        np.testing.assert_allclose(vertices[i], moved, atol=1e-5)


def test_model_is_the_posed_hand(hand):
    """The form for the renderer has the same keypoints; its mesh is a part of the mesh."""
    pose = np.random.default_rng(0).normal(0, 0.3, 48).astype(np.float32)
    model = hand.model()
    vertices, joints = hand.posed(pose)
    mesh, _, keypoints = posed(model, pose, np.zeros(0))
    np.testing.assert_allclose(keypoints, joints[webxr.HAND21_FROM_WEBXR], atol=1e-6)
    gaps = np.linalg.norm(mesh[:-5:50, None] - vertices, axis=-1).min(1)
    assert gaps.max() < 1e-6


def test_split(hand):
    pictures = webxr.webxr_split(hand, 3)
    assert [p.kind for p in pictures] == ["grasps", "val", "grasps"]
    assert [p.right for p in pictures] == [True, True, False]
    for picture in pictures:
        assert picture.image.dtype == np.uint8
        # The translation is not known: differences of rays must agree with the keypoints.
        x, y = (picture.points2d - np.array(picture.camera.principal_point)).T
        x, y = x / picture.camera.focal, y / picture.camera.focal
        zero, one, k = np.zeros(21), np.ones(21), picture.keypoints
        left = np.concatenate([np.stack([one, zero, -x], -1), np.stack([zero, one, -y], -1)])
        right = np.concatenate([x * k[:, 2] - k[:, 0], y * k[:, 2] - k[:, 1]])
        shift = np.linalg.lstsq(left, right, rcond=None)[0]
        np.testing.assert_allclose(left @ shift, right, atol=1e-5)
    errors = Errors()
    errors.add(pictures[0], pictures[0].keypoints, np.zeros((778, 3)))
    assert errors.means()["pa_mpjpe_mm"] < 0.01 and "pa_mpvpe_mm" not in errors.means()


def test_wrong_files(tmp_path):
    with pytest.raises(InputError, match="no such file.*npm pack"):
        webxr.load_webxr_hand(tmp_path / "none.glb")
    path = tmp_path / "small.glb"
    content = small(path)
    with pytest.raises(InputError, match="another file"):
        webxr.load_webxr_hand(path)
    whole = path.read_bytes()
    for damaged in (b"", b"no mesh at all", whole[:200], whole[:-400], whole[:12] + whole[20:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            webxr.load_webxr_hand(path, sha256=None)
    names = ("carpus", *webxr.WEBXR_JOINTS[1:])
    for changes, problem in (
        ({"names": names}, "no joint wrist"),
        ({"faces": content["faces"] + 12}, "out of range"),
        ({"shares": 0 * content["shares"]}, "out of range"),
    ):
        small(path, **changes)
        with pytest.raises(InputError, match=problem):
            webxr.load_webxr_hand(path, sha256=None)


def test_the_command_names_the_source(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["webxr_hand", "--glb", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        webxr.main()
    assert stop.value.code == 1 and "@webxr-input-profiles/assets@1.0.20" in capsys.readouterr().err
