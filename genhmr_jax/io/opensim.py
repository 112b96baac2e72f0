"""Files of OpenSim: motions (.mot), marker trajectories (.trc) and models (.osim).

The formats are those of OpenSim 4 (https://opensimconfluence.atlassian.net, "Motion (.mot) Files",
"Marker (.trc) Files"; the elements of a model are its serialised properties).
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from genhmr_jax.io.atomic import atomic_path

_VERSION = "40000"
_SIZE = 0.015  # metres: radius of the balls that show the joints


class ModelBody(NamedTuple):
    """A rigid body: kg, metres, kg m^2; inertia about its centre of mass, along its axes."""

    name: str
    mass: float
    centre: tuple[float, float, float]
    inertia: tuple[float, float, float]


class ModelCoordinate(NamedTuple):
    """A rotation about an axis, or a translation along it: radians, metres."""

    name: str
    axis: tuple[float, float, float]
    low: float
    high: float


class ModelJoint(NamedTuple):
    """A joint between a parent ("ground" or a body) and a child, whose origin it is.

    Attributes:
      name, parent, child: names.
      place: of the joint in the parent, metres.
      turn: of its frame in the parent: angles about x, y and z, each turned by those before it,
        radians.
      rotations: up to three, in order.
      translations: none, or three.
    """

    name: str
    parent: str
    child: str
    place: tuple[float, float, float]
    turn: tuple[float, float, float]
    rotations: tuple[ModelCoordinate, ...]
    translations: tuple[ModelCoordinate, ...] = ()


class ModelMarker(NamedTuple):
    """A marker at a place in the frame of a body, metres."""

    name: str
    body: str
    place: tuple[float, float, float]


def write_mot(
    path: str | Path,
    times: Float[np.ndarray, "F"],
    columns: Mapping[str, Float[np.ndarray, "F"]],
    notes: Sequence[str] = (),
) -> None:
    """Write a motion.

    Args:
      path: STEM.mot.
      times: seconds.
      columns: of each coordinate, degrees or metres.
      notes: lines of the header, without "=".

    Raises:
      InputError: the file cannot be written.
    """
    path = Path(path)
    head = [path.stem, "version=1", f"nRows={len(times)}", f"nColumns={len(columns) + 1}"]
    head += ["inDegrees=yes", "", *notes, "", "endheader"]
    table = np.column_stack([times, *columns.values()])
    rows = ["\t".join(["time", *columns])]
    rows += ["\t".join(f"{value:.8f}" for value in row) for row in table]
    _write(path, "\n".join([*head, *rows]) + "\n")


def write_trc(
    path: str | Path,
    names: Sequence[str],
    times: Float[np.ndarray, "F"],
    points: Float[np.ndarray, "F M 3"],
) -> None:
    """Write trajectories of markers, in metres.

    Raises:
      InputError: the file cannot be written.
    """
    path = Path(path)
    count = len(times)
    rate = f"{1 / np.median(np.diff(times)) if count > 1 else 30.0:.6f}"
    keys = "DataRate CameraRate NumFrames NumMarkers Units OrigDataRate OrigDataStartFrame"
    values = [rate, rate, str(count), str(len(names)), "m", rate, "1", str(count)]
    numbers = range(1, len(names) + 1)
    lines = [
        f"PathFileType\t4\t(X/Y/Z)\t{path.name}",
        "\t".join([*keys.split(), "OrigNumFrames"]),
        "\t".join(values),
        "Frame#\tTime\t" + "\t\t\t".join(names) + "\t\t",
        "\t\t" + "\t".join(f"{axis}{number}" for number in numbers for axis in "XYZ"),
        "",
    ]
    for number, (time, row) in enumerate(zip(times, points, strict=True), 1):
        lines.append(f"{number}\t{time:.8f}\t" + "\t".join(f"{x:.6f}" for x in row.ravel()))
    _write(path, "\n".join(lines) + "\n")


def write_osim(
    path: str | Path,
    name: str,
    bodies: Sequence[ModelBody],
    joints: Sequence[ModelJoint],
    markers: Sequence[ModelMarker],
    credits: str = "",
) -> None:
    """Write a model without muscles: gravity is against y, and joints are shown as balls.

    Characters of its name that OpenSim does not allow, such as spaces, become "_".

    Raises:
      InputError: the file cannot be written.
    """
    document = ElementTree.Element("OpenSimDocument", Version=_VERSION)
    model = _add(document, "Model", name=re.sub(r"[^\w.-]", "_", name))
    _add(model, "credits", credits)
    _add(model, "length_units", "meters")
    _add(model, "force_units", "N")
    _add(model, "gravity", _vector((0, -9.80665, 0)))
    _add(model, "Ground", name="ground")
    objects = _add(_add(model, "BodySet", name="bodyset"), "objects")
    for body in bodies:
        element = _add(objects, "Body", name=body.name)
        ball = _add(_add(element, "attached_geometry"), "Sphere", name=f"{body.name}_origin")
        _add(ball, "socket_frame", "..")
        _add(ball, "radius", str(_SIZE))
        _add(element, "mass", f"{body.mass:.6g}")
        _add(element, "mass_center", _vector(body.centre))
        _add(element, "inertia", _vector((*body.inertia, 0, 0, 0)))
    objects = _add(_add(model, "JointSet", name="jointset"), "objects")
    for joint in joints:
        _add_joint(objects, joint)
    objects = _add(_add(model, "MarkerSet", name="markerset"), "objects")
    for marker in markers:
        element = _add(objects, "Marker", name=marker.name)
        _add(element, "socket_parent_frame", f"/bodyset/{marker.body}")
        _add(element, "location", _vector(marker.place))
        _add(element, "fixed", "true")
    ElementTree.indent(document, "\t")
    text = ElementTree.tostring(document, "unicode")
    _write(Path(path), f'<?xml version="1.0" encoding="UTF-8" ?>\n{text}\n')


def _add_joint(objects: ElementTree.Element, joint: ModelJoint) -> None:
    element = _add(objects, "CustomJoint", name=joint.name)
    frames = f"{joint.parent}_offset", f"{joint.child}_offset"
    _add(element, "socket_parent_frame", frames[0])
    _add(element, "socket_child_frame", frames[1])
    table = _add(element, "coordinates")
    for coordinate in (*joint.rotations, *joint.translations):
        own = _add(table, "Coordinate", name=coordinate.name)
        _add(own, "default_value", "0")
        _add(own, "range", f"{coordinate.low:.9g} {coordinate.high:.9g}")
        _add(own, "clamped", "false")
    table = _add(element, "frames")
    zero = (0, 0, 0)
    places = (joint.parent, joint.place, joint.turn), (joint.child, zero, zero)
    for frame, (body, place, turn) in zip(frames, places, strict=True):
        own = _add(table, "PhysicalOffsetFrame", name=frame)
        _add(own, "socket_parent", "/ground" if body == "ground" else f"/bodyset/{body}")
        _add(own, "translation", _vector(place))
        _add(own, "orientation", _vector(turn))
    transform = _add(element, "SpatialTransform")
    axes = [rotation.axis for rotation in joint.rotations]
    # Three rotations are needed, about independent axes: the others are constant.
    for extra in np.eye(3):
        if len(axes) < 3 and np.linalg.matrix_rank([*axes, extra]) > len(axes):
            axes.append(tuple(extra))
    axes += [coordinate.axis for coordinate in joint.translations] or list(np.eye(3))
    kinds = [f"{kind}{number}" for kind in ("rotation", "translation") for number in (1, 2, 3)]
    free = {f"rotation{i}": c.name for i, c in enumerate(joint.rotations, 1)}
    free |= {f"translation{i}": c.name for i, c in enumerate(joint.translations, 1)}
    for kind, axis in zip(kinds, axes, strict=True):
        own = _add(transform, "TransformAxis", name=kind)
        _add(own, "coordinates", free.get(kind, ""))
        _add(own, "axis", _vector(axis))
        if kind in free:
            _add(_add(own, "LinearFunction", name="function"), "coefficients", "1 0")
        else:
            _add(_add(own, "Constant", name="function"), "value", "0")


def _add(
    parent: ElementTree.Element, tag: str, text: str | None = None, **attributes: str
) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _vector(values: Sequence[float]) -> str:
    return " ".join(f"{value:.9g}" for value in values)


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
