"""Skinned, animated bodies as one USD text file (.usda) with the schemas of UsdSkel.

Schemas: https://openusd.org/release/api/_usd_skel__schemas.html. Text needs no USD library.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from smpl_jax import SmplModel

from genhmr_jax.geometry.motion import Motion
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.render.export.colours import ROUGHNESS, linear_colour
from genhmr_jax.render.export.timeline import evenly, quaternion_track
from genhmr_jax.render.rest import MOST_WEIGHTS, Rest, rest_of

_HEAD = """#usda 1.0
(
    defaultPrim = "people"
    metersPerUnit = 1
    upAxis = "Y"
    timeCodesPerSecond = {rate}
    startTimeCode = 0
    endTimeCode = {end}
)

def Xform "people"
{{"""
_PERSON = """
    def SkelRoot "{name}"
    {{
        token visibility{visibility}
        double3 xformOp:translate{translate}
        uniform token[] xformOpOrder = ["xformOp:translate"]

        def Skeleton "{name}_skeleton" (prepend apiSchemas = ["SkelBindingAPI"])
        {{
            uniform token[] joints = {joints}
            uniform matrix4d[] bindTransforms = {bind}
            uniform matrix4d[] restTransforms = {rest}
            rel skel:animationSource = </people/{name}/{name}_motion>
        }}

        def SkelAnimation "{name}_motion"
        {{
            uniform token[] joints = {joints}
            float3[] translations = {offsets}
            quatf[] rotations{rotations}
            half3[] scales = {scales}
        }}

        def Mesh "{name}_mesh" (prepend apiSchemas = ["SkelBindingAPI", "MaterialBindingAPI"])
        {{
            uniform token subdivisionScheme = "none"
            int[] faceVertexCounts = {counts}
            int[] faceVertexIndices = {indices}
            point3f[] points = {points}
            normal3f[] normals = {normals} (interpolation = "vertex")
            int[] primvars:skel:jointIndices = {skin_joints} (
                elementSize = {most}
                interpolation = "vertex"
            )
            float[] primvars:skel:jointWeights = {skin_weights} (
                elementSize = {most}
                interpolation = "vertex"
            )
            color3f[] primvars:displayColor = [{colour}]
            rel skel:skeleton = </people/{name}/{name}_skeleton>
            rel material:binding = </people/{name}/{name}_material>
        }}

        def Material "{name}_material"
        {{
            token outputs:surface.connect = </people/{name}/{name}_material/surface.outputs:surface>

            def Shader "surface"
            {{
                uniform token info:id = "UsdPreviewSurface"
                color3f inputs:diffuseColor = {colour}
                float inputs:roughness = {roughness}
                token outputs:surface
            }}
        }}
    }}
"""


def save_usd(path: str | os.PathLike, motions: Sequence[Motion], body: SmplModel) -> None:
    """Write people as skinned, animated meshes in one .usda; a photo has the one time code 0.

    Axes: y up, metres; camera axes are turned by half a turn about x. A time code is a frame at the
    rate of the first motion, from the first frame of all motions. A person is a SkelRoot, whose
    translation moves the skeleton; it is invisible in frames from which the person is absent. As in
    GLB files, blend shapes of the pose are left out.

    Args:
      path: of the file.
      motions: of the people; all in the same axes.
      body: the body of the motions.

    Raises:
      ValueError: no people, or a person who is in no frame.
      InputError: the file cannot be written.
    """
    if not motions:
        raise ValueError("no motions to write")
    start, (_, rate) = min(motion.times[0] for motion in motions), evenly(motions[0])
    end = max((motion.times[-1] - start) * rate for motion in motions)
    parts = [_HEAD.format(rate=f"{rate:.6g}", end=f"{end:.6g}")]
    parts += [_person(motion, body, n, start, rate) for n, motion in enumerate(motions)]
    with atomic_path(path) as temporary:
        Path(temporary).write_text("".join([*parts, "}\n"]), encoding="ascii")


def _person(motion: Motion, body: SmplModel, number: int, start: float, rate: float) -> str:
    """The SkelRoot of a person."""
    rest, known = rest_of(body, motion.betas), motion.continuous()
    codes = lambda times: [f"{code:.6g}" for code in (times - start) * rate]
    # 1. The motion. The pelvis stays at its rest position in the skeleton, which moves as a whole.
    quaternions, positions = quaternion_track(known, rest.joints[0])
    rotations = [_array(frame[:, [3, 0, 1, 2]]) for frame in quaternions]  # USD: w first
    places = [_tuple(place) for place in positions - rest.joints[0]]
    sight = [f'"{"inherited" if present else "invisible"}"' for present in motion.present]
    # 2. The text.
    return _PERSON.format(
        name=f"person_{number + 1}",
        visibility=_over_time(codes(motion.times), sight),
        translate=_over_time(codes(known.times), places),
        joints="[" + ", ".join(f'"{path}"' for path in _paths(rest)) + "]",
        bind=_matrices(rest.joints),
        rest=_matrices(rest.offsets),
        offsets=_array(rest.offsets),
        rotations=_over_time(codes(known.times), rotations),
        scales=_array(np.ones_like(rest.joints)),
        counts=[3] * len(rest.faces),
        indices=rest.faces.ravel().tolist(),
        points=_array(rest.vertices),
        normals=_array(rest.normals),
        skin_joints=rest.skin_joints.ravel().tolist(),
        skin_weights=f"[{_numbers(rest.skin_weights)}]",
        most=MOST_WEIGHTS,
        roughness=ROUGHNESS,
        colour=_tuple(linear_colour(number)),
    )


def _paths(rest: Rest) -> list[str]:
    """The joints as paths from the root, such as pelvis/left_hip."""
    paths: list[str] = []
    for name, parent in zip(rest.names, rest.parents, strict=True):
        paths.append(name if parent < 0 else f"{paths[parent]}/{name}")
    return paths


def _over_time(codes: Sequence[str], values: Sequence[str]) -> str:
    """The end of an attribute: a value for each time code."""
    return ".timeSamples = {" + ", ".join(map(": ".join, zip(codes, values, strict=True))) + "}"


def _matrices(translations: Float[np.ndarray, "J 3"]) -> str:
    """Translations as matrices for row vectors."""
    rows = "((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), ({}, 1))"
    return "[" + ", ".join(rows.format(_numbers(each)) for each in translations) + "]"


def _array(rows: Float[np.ndarray, "N C"]) -> str:
    return "[" + ", ".join(map(_tuple, rows)) + "]"


def _tuple(row: Iterable[float]) -> str:
    return f"({_numbers(np.asarray(row))})"


def _numbers(values: np.ndarray) -> str:
    """Numbers with five decimals: 10 micrometres, or 0.001 degrees of a quaternion."""
    return ", ".join(f"{value:.5f}".rstrip("0").rstrip(".") for value in values.ravel())
