"""Files of OpenSim, read back by small parsers of their own (and OpenSim's, if it is installed)."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genhmr_jax.io.opensim import (
    ModelBody,
    ModelCoordinate,
    ModelJoint,
    ModelMarker,
    write_mot,
    write_osim,
    write_trc,
)

TIMES = np.arange(4) / 25 + 2.0
RNG = np.random.default_rng(0)


def test_mot(tmp_path):
    columns = {"knee_angle_r": RNG.normal(size=4) * 50, "pelvis_tx": RNG.normal(size=4)}
    write_mot(tmp_path / "walk_1.mot", TIMES, columns, ["Filter: none", "Axes: y is up"])
    text = (tmp_path / "walk_1.mot").read_text()
    head, table = text.split("endheader\n")
    lines = head.splitlines()
    assert lines[0] == "walk_1"
    keys = dict(line.split("=") for line in lines[1:] if "=" in line)
    assert keys == {"version": "1", "nRows": "4", "nColumns": "3", "inDegrees": "yes"}
    assert "Filter: none" in lines
    rows = [line.split("\t") for line in table.splitlines()]
    assert rows[0] == ["time", "knee_angle_r", "pelvis_tx"]
    found = np.array(rows[1:], float)
    np.testing.assert_allclose(found, np.column_stack([TIMES, *columns.values()]), atol=1e-7)


def test_trc(tmp_path):
    points = RNG.normal(size=(4, 3, 3))
    write_trc(tmp_path / "walk_1.trc", ["RASI", "LASI", "C7"], TIMES, points)
    lines = (tmp_path / "walk_1.trc").read_text().split("\n")
    assert lines[0] == "PathFileType\t4\t(X/Y/Z)\twalk_1.trc"
    header = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=True))
    assert float(header["DataRate"]) == pytest.approx(25) and header["Units"] == "m"
    assert header["NumFrames"] == header["OrigNumFrames"] == "4" and header["NumMarkers"] == "3"
    names = lines[3].split("\t")
    assert names == ["Frame#", "Time", "RASI", "", "", "LASI", "", "", "C7", "", ""]
    assert lines[4].split("\t")[:5] == ["", "", "X1", "Y1", "Z1"] and lines[5] == ""
    assert len(lines[4].split("\t")) == len(names) == 11
    rows = np.array([line.split("\t") for line in lines[6:10]], float)
    assert lines[10:] == [""] and rows[:, 0].tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(rows[:, 1], TIMES)
    np.testing.assert_allclose(rows[:, 2:].reshape(4, 3, 3), points, atol=1e-6)


BODIES = [ModelBody("thigh", 8.0, (0, -0.2, 0), (0.1, 0.02, 0.1))]
BODIES += [ModelBody("shank", 3.0, (0, -0.2, 0), (0.05, 0.01, 0.05))]
AXES = np.eye(3)[[2, 0, 1]]
ROTATIONS = tuple(ModelCoordinate(f"hip{i}", tuple(axis), -1.0, 1.5) for i, axis in enumerate(AXES))
MOVES = tuple(ModelCoordinate(f"hip_t{i}", tuple(axis), -9, 9) for i, axis in enumerate(np.eye(3)))
JOINTS = [
    ModelJoint("hip", "ground", "thigh", (0, 0, 0), (0, 0, 0), ROTATIONS, MOVES),
    ModelJoint(
        "knee", "thigh", "shank", (0.01, -0.4, 0.02), (0.1, -0.2, 0.3),
        (ModelCoordinate("bend", (0.0, 0.0, -1.0), 0, 2.5),),
    ),
]  # fmt: skip
MARKERS = [ModelMarker("SHN", "shank", (0.05, -0.1, 0.01))]
VALUES = {
    "hip0": 0.5,
    "hip1": -0.3,
    "hip2": 0.2,
    "bend": 1.1,
    "hip_t0": 1,
    "hip_t1": 2,
    "hip_t2": 3,
}


def expected_marker():
    thigh = Rotation.from_euler("ZXY", [VALUES[f"hip{i}"] for i in range(3)])
    knee = thigh * Rotation.from_euler("XYZ", JOINTS[1].turn)
    shank = knee * Rotation.from_rotvec([0, 0, -VALUES["bend"]])
    return np.array([1, 2, 3]) + thigh.apply(JOINTS[1].place) + shank.apply(MARKERS[0].place)


def numbers(element, path):
    return np.array(element.find(path).text.split(), float)


def place_of(model, marker):
    """Forward kinematics by the elements of the file, as OpenSim defines them."""
    frames = {"/ground": (np.eye(3), np.zeros(3))}
    for joint in model.iter("CustomJoint"):
        parent, child = (joint.find(f"socket_{kind}_frame").text for kind in ("parent", "child"))
        own = {frame.get("name"): frame for frame in joint.find("frames")}
        assert not numbers(own[child], "translation").any()
        turn, shift = frames[own[parent].find("socket_parent").text]
        shift = shift + turn @ numbers(own[parent], "translation")
        turn = turn @ Rotation.from_euler("XYZ", numbers(own[parent], "orientation")).as_matrix()
        for axis in joint.find("SpatialTransform"):
            name = axis.find("coordinates").text
            value = VALUES[name] if name else 0.0
            along = value * numbers(axis, "axis")
            if axis.get("name").startswith("rotation"):
                turned = Rotation.from_rotvec(along).as_matrix()
                rotation = turned if axis.get("name") == "rotation1" else rotation @ turned
            else:
                shift = shift + turn @ along
        frames[own[child].find("socket_parent").text] = turn @ rotation, shift
    element = next(m for m in model.iter("Marker") if m.get("name") == marker)
    turn, shift = frames[element.find("socket_parent_frame").text]
    return shift + turn @ numbers(element, "location")


def test_osim(tmp_path):
    path = tmp_path / "model.osim"
    write_osim(path, "two bodies", BODIES, JOINTS, MARKERS, "credits: & <none>")
    document = ElementTree.parse(path).getroot()
    assert document.get("Version") == "40000" and document[0].get("name") == "two_bodies"
    np.testing.assert_allclose(place_of(document[0], "SHN"), expected_marker(), atol=1e-7)
    masses = [float(body.find("mass").text) for body in document.iter("Body")]
    assert masses == [8.0, 3.0]
    ranges = {c.get("name"): numbers(c, "range") for c in document.iter("Coordinate")}
    np.testing.assert_allclose(ranges["bend"], [0, 2.5])
    # OpenSim needs three independent axes of rotation.
    for joint in document.iter("CustomJoint"):
        axes = [numbers(axis, "axis") for axis in joint.find("SpatialTransform")]
        assert len(axes) == 6 and np.linalg.matrix_rank(axes[:3]) == 3


def test_opensim_itself(tmp_path):
    opensim = pytest.importorskip("opensim")
    path = tmp_path / "model.osim"
    write_osim(path, "two bodies", BODIES, JOINTS, MARKERS)
    model = opensim.Model(str(path))
    state = model.initSystem()
    for name, value in VALUES.items():
        model.getCoordinateSet().get(name).setValue(state, value, False)
    model.realizePosition(state)
    place = model.getMarkerSet().get("SHN").getLocationInGround(state)
    np.testing.assert_allclose([place[i] for i in range(3)], expected_marker(), atol=1e-6)
