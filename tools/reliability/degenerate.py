"""Degenerate poses, cameras and keypoints, and the gradients of the models at them.

Each case is a batch of inputs of one function; the gradient is that of a random linear form of its
outputs, row by row. `tests/geometry/degenerate_test.py` runs all cases with few rows.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Float
from smpl_jax import rotations

from genhmr_jax.core.fit_objective import Objective, ObjectiveSpec, Pose
from genhmr_jax.core.mesh_fit import nearest_rotation
from genhmr_jax.core.refinement import Refined, refine
from genhmr_jax.core.rotation_answer import RotationAnswer
from genhmr_jax.geometry import anatomy
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.hand import load_hand
from genhmr_jax.geometry.keypoints import keypoint_model, project_body
from genhmr_jax.systems.biopose import kinematics
from genhmr_jax.systems.biopose.skeleton import skeleton_of

MODELS = ("body", "hand", "rotation", "skeleton", "objective")


@dataclasses.dataclass(frozen=True)
class Case:
    """Rows of inputs.

    Attributes:
      model: of MODELS: what is differentiated.
      name: of the case.
      function: of the inputs of a batch; the rows of its output are those of the batch.
      inputs: arrays with a leading axis of rows; the gradient is by all of them.
      given: what the function gets after them, without a gradient.
    """

    model: str
    name: str
    function: Callable[..., Any]
    inputs: tuple[np.ndarray, ...]
    given: Any = ()


@dataclasses.dataclass(frozen=True)
class Measured:
    """How many of `rows` have finite outputs and gradients, and the largest gradient."""

    model: str
    case: str
    rows: int
    finite_values: int
    finite_gradients: int
    largest: float

    @property
    def sound(self) -> bool:
        """Whether everything is finite."""
        return self.finite_values == self.finite_gradients == self.rows


def measure(case: Case) -> Measured:
    """Outputs and gradients of a case."""
    values, gradients = _run(case.function, case.given, *map(jnp.asarray, case.inputs))
    rows = len(case.inputs[0])
    finite = lambda tree: np.all(
        [np.isfinite(x).reshape(rows, -1).all(1) for x in jax.tree.leaves(tree)], 0
    )
    sizes = [float(np.abs(x).max()) for x in jax.tree.leaves(gradients)]
    counts = int(finite(values).sum()), int(finite(gradients).sum())
    return Measured(case.model, case.name, rows, *counts, max(sizes))


@functools.partial(jax.jit, static_argnums=0)
def _run(function: Callable, given: Any, *inputs: jax.Array) -> tuple[Any, Any]:
    def probed(*inputs: jax.Array) -> tuple[jax.Array, Any]:
        values, total = function(*inputs, *given), 0.0
        for number, value in enumerate(jax.tree.leaves(values)):
            probe = jax.random.normal(jax.random.key(number), value.shape)
            total = total + jnp.sum(probe * value)
        return total, values

    every = tuple(range(len(inputs)))
    (_, values), gradients = jax.value_and_grad(probed, every, has_aux=True)(*inputs)
    return values, gradients


def cases(model: str, rows: int, seed: int = 0) -> Iterator[Case]:
    """The cases of one of MODELS, with `rows` rows each."""
    rng = np.random.default_rng(seed)
    if model in ("body", "hand"):
        loaded = load_body("lite") if model == "body" else load_hand()
        return _bodies(model, loaded, rng, rows)
    return {"rotation": _rotations, "skeleton": _skeleton, "objective": _objective}[model](
        rng, rows
    )


def turns(
    rng: np.random.Generator, rows: int, joints: int
) -> dict[str, Float[np.ndarray, "R J 3"]]:
    """Axis-angle vectors of `joints` joints by the name of the case, radians."""
    axes = rng.normal(size=(rows, joints, 3))
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    along = np.eye(3)[rng.integers(0, 3, (rows, joints))]
    made = {
        "random": rng.normal(0, 0.8, (rows, joints, 3)),
        "wild": rng.normal(0, 10, (rows, joints, 3)),
        "zero": 0 * axes,
        "tiny (1e-25)": 1e-25 * axes,
        "pi": math.pi * axes,
        "pi about an axis": math.pi * along,
        "2 pi": 2 * math.pi * axes,
    }
    return {name: np.float32(value) for name, value in made.items()}


def _bodies(
    model: str, loaded: smpl_jax.SmplModel, rng: np.random.Generator, rows: int
) -> Iterator[Case]:
    """Joints and surface of body or hand."""
    few = loaded.subset(np.arange(0, loaded.num_vertices, 20))
    function = _poser(few)
    usual = rng.normal(size=(rows, few.num_betas)).astype(np.float32)
    for name, pose in turns(rng, rows, few.num_joints).items():
        yield Case(model, name, function, (usual, pose))
    pose = turns(rng, rows, few.num_joints)["random"]
    corner = 10 * rng.choice([-1, 1], (rows, few.num_betas)).astype(np.float32)
    yield Case(model, "betas of +-10", function, (corner, pose))


def _poser(model: smpl_jax.SmplModel) -> Callable:
    """Vertices, joints, and the rotations as axis-angle again."""

    def posed(betas: jax.Array, pose: jax.Array) -> tuple:
        rotmats = rotations.axis_angle_to_matrix(pose)
        output = smpl_jax.forward(model, betas, rotmats)
        return output.vertices, output.joints, rotations.matrix_to_axis_angle(rotmats)

    return posed


def _rotations(rng: np.random.Generator, rows: int) -> Iterator[Case]:
    """Rotations from numbers that a network may answer."""
    one, other = (rng.normal(size=(rows, 3)) for _ in range(2))
    unit = one / np.linalg.norm(one, axis=-1, keepdims=True)
    pairs = {
        "6D random": (one, other),
        "6D zero": (0 * one, 0 * one),
        "6D first vector zero": (0 * one, other),
        "6D parallel": (one, 3 * one),
        "6D antiparallel": (one, -one),
        "6D nearly antiparallel": (unit, -unit + 1e-7 * other),
        "6D of 1e-12": (1e-12 * one, 1e-12 * other),
        "6D of 1e+25": (1e25 * one, 1e25 * other),
    }
    six = lambda x: rotations.rot6d_to_matrix(x, "rows")
    through = lambda x: (six(x), rotations.matrix_to_axis_angle(six(x)))
    for name, pair in pairs.items():
        yield Case("rotation", name, through, (np.float32(np.concatenate(pair, -1)),))
    quaternions = {"quaternion random": rng.normal(size=(rows, 4)), "quaternion zero": 0.0}
    both = lambda q: (rotations.quaternion_to_axis_angle(q), rotations.quaternion_to_matrix(q))
    for name, value in quaternions.items():
        yield Case("rotation", name, both, (np.float32(np.zeros((rows, 4)) + value),))
    reflected = rotations.axis_angle_to_matrix(jnp.asarray(one, jnp.float32))
    matrices = {
        "nearest to random": rng.normal(size=(rows, 3, 3)),
        "nearest to zero": np.zeros((rows, 3, 3)),
        "nearest to a reflection": -np.asarray(reflected),
        "nearest to rank 1": one[:, :, None] * other[:, None],
        "nearest to 1e+25": 1e25 * rng.normal(size=(rows, 3, 3)),
    }
    for name, value in matrices.items():
        yield Case("rotation", name, nearest_rotation, (np.float32(value),))


def _skeleton(rng: np.random.Generator, rows: int) -> Iterator[Case]:
    """BioPose's skeleton: markers, and their closed-form derivatives, by pose and scales."""
    skeleton = skeleton_of(load_body("neutral"), np.zeros(10, np.float32))
    count, groups = kinematics.INNER, len(anatomy.GROUPS)
    low, high = np.asarray(anatomy.LIMITS[3:]).T

    def placed(step: jax.Array, angles: jax.Array, scales: jax.Array) -> tuple:
        start = kinematics.Pose(jnp.eye(3)[None], jnp.zeros((1, 3)), angles[None])
        found = kinematics.place(skeleton, kinematics.moved(start, step[None]), scales)
        rows = kinematics.by_pose(found), kinematics.by_scales(skeleton, found)
        return found.markers[0], found.rotations[0], rows[0][0], rows[1][0]

    function, usual = jax.vmap(placed), np.ones((rows, groups))
    step, within = rng.normal(0, 0.5, (rows, 47)), rng.uniform(low, high, (rows, count))
    half = np.pad(np.full((rows, 1), math.pi), ((0, 0), (1, 45)))
    made = {
        "random": (step, within, usual),
        "zero": (0 * step, 0 * within, usual),
        "at the limits": (step, np.where(within > (low + high) / 2, high, low), usual),
        "all angles pi": (half, 0 * within + math.pi, usual),
        "all angles 2 pi": (2 * half, 0 * within + 2 * math.pi, usual),
        "wild angles": (20 * step, 100 * within, usual),
        "scales zero": (step, within, 0 * usual),
        "scales of +-10": (step, within, rng.choice([-10, 10], usual.shape)),
    }
    for name, inputs in made.items():
        yield Case("skeleton", name, function, tuple(map(np.float32, inputs)))


def _objective(rng: np.random.Generator, rows: int) -> Iterator[Case]:
    """The objective of the 2D refinement: its loss, and the matrix of Gauss and Newton."""
    body = keypoint_model(load_body("lite"))

    def loss(pose: jax.Array, betas: jax.Array, camera: jax.Array, *given: Any) -> tuple:
        keypoints, view, start = given
        of = Pose(rotations.axis_angle_to_matrix(pose), betas, camera)
        objective = Objective(
            body, of._replace(rotmats=start), keypoints, view, None, ObjectiveSpec()
        )
        value, fit = objective.losses(of)
        return value, jax.lax.stop_gradient(objective.curvature(of, fit))

    for name, (keypoints, view, pose) in photos(rng, rows, body).items():
        start = np.asarray(rotations.axis_angle_to_matrix(jnp.asarray(pose["pose"])))
        yield Case("objective", name, loss, tuple(pose.values()), (keypoints, view, start))


def photos(
    rng: np.random.Generator, rows: int, body: smpl_jax.SmplModel
) -> dict[str, tuple[Float[np.ndarray, "R K 3"], CropCamera, dict[str, np.ndarray]]]:
    """Keypoints, cameras and bodies (pose, betas, log camera) of usual and of impossible photos."""
    pose = turns(rng, rows, body.num_joints)["random"] * np.float32(0.3)
    pose[:, 0] = [math.pi, 0, 0]
    betas = rng.normal(size=(rows, body.num_betas)).astype(np.float32)
    camera = np.tile(np.float32([math.log(0.85), 0.02, 0.1]), (rows, 1))
    weak = np.concatenate([np.exp(camera[:, :1]), camera[:, 1:]], -1)
    view = CropCamera(
        np.tile(np.float32([320, 240, 300]), (rows, 1)),
        np.full(rows, 800, np.float32),
        np.tile(np.float32([320, 240]), (rows, 1)),
    )
    rotmats = rotations.axis_angle_to_matrix(jnp.asarray(pose))
    points = np.asarray(project_body(body, rotmats, jnp.asarray(betas), jnp.asarray(weak), view)[0])
    points = points + rng.normal(0, 5, points.shape)
    points = np.float32(np.concatenate([points, np.full((*points.shape[:2], 1), 0.9)], -1))

    def changed(index: Any, value: float) -> np.ndarray:
        copy = points.copy()
        copy[index] = value
        return copy

    start = {"pose": pose, "betas": betas, "camera": camera}
    shifted = lambda by: start | {"camera": camera + np.float32([by, 0, 0])}
    sized = lambda side: dataclasses.replace(
        view, crop=np.tile(np.float32([320, 240, side]), (rows, 1))
    )
    seen, first = (..., slice(2)), (slice(None), slice(3))
    corner = 10 * rng.choice([-1, 1], betas.shape).astype(np.float32)
    return {
        "usual": (points, view, start),
        "exact rest pose": (points, view, start | {"pose": 0 * pose}),
        "coincident keypoints": (changed(seen, 320.0), view, start),
        "no confidence": (changed((..., 2), 0.0), view, start),
        "no confidence, NaN": (changed((*first, slice(None)), np.nan), view, start),
        "NaN with confidence": (changed((*first, slice(2)), np.nan), view, start),
        "infinite with confidence": (changed((*first, slice(2)), np.inf), view, start),
        "at 1e+30 px": (changed((*first, slice(2)), 1e30), view, start),
        "all at 1e+30 px": (changed(seen, 1e30), view, start),
        "camera inside the body": (points, view, shifted(3.0)),
        "people behind the camera": (points, view, shifted(6.0)),
        "people 1,000 times as far": (points, view, shifted(-7.0)),
        "crop of 1 px": (points, sized(1.0), start),
        "crop of 0.001 px": (points, sized(1e-3), start),
        "betas of +-10": (points, view, start | {"betas": corner}),
    }


@dataclasses.dataclass(frozen=True)
class RefinedCase:
    """What the 2D refinement makes of such photos.

    Attributes:
      case: name. rows: of it.
      finite: rows whose answer and losses are finite.
      rising: rows whose loss increases in a step.
      gain: median share of the loss that the refinement takes away.
    """

    case: str
    rows: int
    finite: int
    rising: int
    gain: float

    @property
    def sound(self) -> bool:
        """Whether everything is finite, and no loss increases."""
        return self.finite == self.rows and not self.rising


@functools.cache
def refiner() -> tuple[smpl_jax.SmplModel, Callable]:
    """A body, and the jitted 2D refinement of its joint rotations in 6D.

    Its arguments are axis-angle vectors, betas, weak cameras, keypoints and the view.
    """
    body, answer = keypoint_model(load_body("lite")), RotationAnswer()

    @jax.jit
    def run(pose: jax.Array, betas: jax.Array, weak: jax.Array, *photo: Any) -> Refined:
        six = rotations.matrix_to_rot6d(rotations.axis_angle_to_matrix(pose), "rows")
        decode = answer.pose(None, photo[1])
        return refine(decode, body, six, betas, weak, *photo, parts=answer.pose_parts)

    return body, run


def refined_cases(rows: int, seed: int = 0) -> list[RefinedCase]:
    """The 2D refinement from poses that are wrong by 0.2 rad; all cases are one batch."""
    rng, (body, run) = np.random.default_rng(seed), refiner()
    every, given = photos(rng, rows, body), []
    keypoints, view, start = every["usual"]
    every["weak camera of scale -1"] = keypoints, view, start
    for name, (keypoints, view, start) in every.items():
        pose = start["pose"] + rng.normal(0, 0.2, start["pose"].shape)
        weak = np.concatenate([np.exp(start["camera"][:, :1]), start["camera"][:, 1:]], -1)
        if name == "weak camera of scale -1":
            weak[:, 0] = -1
        given.append((np.float32(pose), start["betas"], np.float32(weak), keypoints, view))
    found = jax.tree.map(np.asarray, run(*jax.tree.map(lambda *x: np.concatenate(x), *given)))
    loss = found.loss.T
    fields = [x.reshape(len(loss), -1) for x in (loss, *jax.tree.leaves(found)[:3])]
    finite = np.isfinite(np.concatenate(fields, 1)).all(1)
    rising = (np.diff(loss, axis=1) > 0).any(1)
    gain = 1 - loss[:, -1] / loss[:, 0]
    cases = []
    for number, name in enumerate(every):
        own = slice(rows * number, rows * (number + 1))
        counts = int(finite[own].sum()), int(rising[own].sum())
        cases.append(RefinedCase(name, rows, *counts, float(np.median(gain[own]))))
    return cases
