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

# De Leva, "Adjustments to Zatsiorsky-Seluyanov's segment inertia parameters", J. Biomech. 29:1223,
# 1996, means of women and men: share of the body's mass; distance of the centre of mass from the
# proximal joint, and radii of gyration about the sagittal, longitudinal and transverse axes, as
# parts of the length. The parts of the trunk are its lower, middle and upper trunk.
_TABLE = {
    "pelvis": (0.1182, 0.50, (0.52, 0.50, 0.47)),
    "lumbar": (0.1549, 0.45, (0.46, 0.44, 0.36)),
    "torso": (0.1571, 0.50, (0.41, 0.42, 0.28)),
    "head": (0.0681, 0.50, (0.32, 0.29, 0.33)),
    "femur": (0.1447, 0.385, (0.349, 0.156, 0.347)),
    "tibia": (0.0457, 0.443, (0.263, 0.098, 0.259)),
    "foot": (0.0133, 0.42, (0.132, 0.278, 0.262)),
    "humerus": (0.0263, 0.576, (0.282, 0.153, 0.265)),
    "forearm": (0.0150, 0.457, (0.269, 0.108, 0.265)),
    "hand": (0.0058, 0.77, (0.58, 0.36, 0.49)),
}  # fmt: skip
# Parts of the table's feet and forearms, and of the upper trunk in each clavicle: the table does
# not divide them. The clavicles are a small part, so that no body is without mass.
_PARTS = {"talus": 0.1, "calcn": 0.7, "toes": 0.2, "ulna": 0.5, "radius": 0.5}
_CLAVICLE = 0.02


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
    plain = name.removesuffix("_r").removesuffix("_l")
    end = _end(skeleton, body)
    length = float(np.linalg.norm(end))
    if plain == "clavicle":
        own, centre, radii = _CLAVICLE * _TABLE["torso"][0], 0.5, (0.3, 0.3, 0.3)
    else:
        foot, arm = plain in ("talus", "calcn", "toes"), plain in ("ulna", "radius")
        share, centre, radii = _TABLE["foot" if foot else "forearm" if arm else plain]
        own = share * _PARTS.get(plain, 1.0)
        if plain == "torso":
            own -= 2 * _CLAVICLE * share
    moments = tuple(own * mass * (radius * length) ** 2 for radius in radii)
    return ModelBody(name, own * mass, tuple((centre * end).tolist()), moments)


def _end(skeleton: Skeleton, body: int) -> Float[np.ndarray, "3"]:
    """The distal end of a body in its frame: the joint of its child, or its outermost marker."""
    name = BODIES[body]
    plain, side = name.removesuffix("_r").removesuffix("_l"), name[-2:]
    child = {"pelvis": "lumbar", "lumbar": "torso", "torso": "head"}.get(plain)
    for upper, lower in (
        ("femur", "tibia"), ("tibia", "talus"), ("talus", "calcn"), ("calcn", "toes"),
        ("clavicle", "humerus"), ("humerus", "ulna"), ("radius", "hand"),
    ):  # fmt: skip
        if plain == upper:
            child = lower + side
    if plain == "ulna":
        child = "hand" + side
    if child:
        return np.asarray(skeleton.offsets[BODIES.index(child)], np.float64)
    mine = np.asarray(skeleton.markers, np.float64)[body == CARRIERS]
    if plain == "head":
        return 2 * mine.mean(0)  # its markers are around the middle of its height
    return mine[np.linalg.norm(mine, axis=-1).argmax()]
