"""The skeleton of a person as an OpenSim model, with masses of a published table."""

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from smpl_jax import SmplModel

from genhmr_jax.geometry.anatomy import BODIES, ROOT, SEGMENTS
from genhmr_jax.geometry.markers import CARRIERS, MARKERS
from genhmr_jax.io.opensim import ModelBody, ModelCoordinate, ModelJoint, ModelMarker, write_osim
from genhmr_jax.systems.biopose.skeleton import Skeleton

DENSITY = 1010.0
"""kg/m^3 of a living body with half-filled lungs."""

# Masses, as shares of the body's: de Leva, "Adjustments to Zatsiorsky-Seluyanov's segment inertia
# parameters", J. Biomech. 29:1223, 1996, means of women and men. Pelvis, lumbar and torso are its
# lower, middle and upper trunk. The table does not divide feet, forearms and shoulders: here a
# talus has a tenth of a foot, the toes a fifth, ulna and radius a half of a forearm, and a clavicle
# a fiftieth of the upper trunk, so that no body is without mass.
_FOOT, _FOREARM, _CLAVICLE = 0.0133, 0.0150, 0.02 * 0.1571
_MASS = {
    "pelvis": 0.1182, "lumbar": 0.1549, "torso": 0.1571 - 2 * _CLAVICLE, "head": 0.0681,
    "clavicle": _CLAVICLE, "femur": 0.1447, "tibia": 0.0457, "talus": 0.1 * _FOOT,
    "calcn": 0.7 * _FOOT, "toes": 0.2 * _FOOT, "humerus": 0.0263, "ulna": 0.5 * _FOREARM,
    "radius": 0.5 * _FOREARM, "hand": 0.0058,
}  # fmt: skip
# Of the limbs, from the same table: distance of the centre of mass from the proximal joint, and
# radii of gyration about x, y (the long axis) and z, as parts of the length; and the body at the
# end. The other bodies are ellipsoids between their markers: their lengths are not the table's.
_LIMBS = {
    "femur": (0.385, (0.349, 0.156, 0.347), "tibia"),
    "tibia": (0.443, (0.263, 0.098, 0.258), "talus"),
    "humerus": (0.576, (0.282, 0.153, 0.265), "ulna"),
    "ulna": (0.457, (0.269, 0.108, 0.261), "hand"),
    "radius": (0.457, (0.269, 0.108, 0.261), "hand"),
}
_SMALLEST = 0.02  # metres: half an axis of an ellipsoid


def write_model(
    path: str | Path, name: str, skeleton: Skeleton, mass: float, credits: str = ""
) -> None:
    """Write the model of a person.

    Args:
      path: STEM.osim.
      name: of the model.
      skeleton: of the person.
      mass: of the body, kg.
      credits: a text for the file.

    Raises:
      InputError: the file cannot be written.
    """
    joints, bodies = [], []
    for body, segment in enumerate(SEGMENTS):
        turn = Rotation.from_matrix(skeleton.turns[body]).as_euler("XYZ")
        rotations = tuple(
            ModelCoordinate(c.name, c.axis, math.radians(c.low), math.radians(c.high))
            for c in segment.coordinates
        )
        moves = ()
        if not segment.parent:
            moves = tuple(
                ModelCoordinate(name, tuple(axis), -100.0, 100.0)
                for name, axis in zip(ROOT, np.eye(3), strict=True)
            )
        place = tuple(skeleton.offsets[body].tolist())
        parent = segment.parent or "ground"
        joints.append(
            ModelJoint(segment.joint, parent, segment.name, place, tuple(turn), rotations, moves)
        )
        bodies.append(_inertia(skeleton, body, mass))
    places = skeleton.markers.tolist()
    markers = [
        ModelMarker(name, BODIES[carrier], tuple(place))
        for name, carrier, place in zip(MARKERS, CARRIERS, places, strict=True)
    ]
    write_osim(path, name, bodies, joints, markers, credits)


def body_mass(vertices: Float[np.ndarray, "V 3"], body: SmplModel) -> float:
    """Mass of a mesh, kg: its volume, the sum of signed tetrahedra, times DENSITY."""
    a, b, c = np.asarray(vertices, np.float64)[np.asarray(body.faces)].swapaxes(0, 1)
    return float(DENSITY * np.einsum("fi,fi->", a, np.cross(b, c)) / 6)


def _inertia(skeleton: Skeleton, body: int, mass: float) -> ModelBody:
    """Mass, centre and moments of a body."""
    name = BODIES[body]
    plain, side = (name[:-2], name[-2:]) if name[-2:] in ("_r", "_l") else (name, "")
    own = mass * _MASS[plain]
    if plain in _LIMBS:
        share, radii, last = _LIMBS[plain]
        end = np.asarray(skeleton.offsets[BODIES.index(last + side)], np.float64)
        moments = own * (np.linalg.norm(end) * np.array(radii)) ** 2
        return ModelBody(name, own, tuple((share * end).tolist()), tuple(moments.tolist()))
    points = np.asarray(skeleton.markers, np.float64)[body == CARRIERS]
    if not len(points):
        points = np.zeros((1, 3))
    half = np.maximum(np.ptp(points, axis=0) / 2, _SMALLEST) ** 2
    moments = own / 5 * (half.sum() - half)
    middle = (points.max(0) + points.min(0)) / 2
    return ModelBody(name, own, tuple(middle.tolist()), tuple(moments.tolist()))
