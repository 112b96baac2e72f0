"""From a photo to its people. `load().recover(image)` runs these steps:

detect -> System.prepare -> core.solve (encode, sample, refine, pick) -> People
"""

import dataclasses
import functools
import importlib.resources
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import jax
import numpy as np
import smpl_jax
from jaxtyping import Array, Int, UInt

from genhmr_jax.core.inputs import Inputs, joined
from genhmr_jax.core.solve import Hypotheses, Solved, Traced, preload, solve, trace
from genhmr_jax.core.system import Params, PhotoCamera, System, TracedSystem
from genhmr_jax.detect.detections import Detections, enough_keypoints
from genhmr_jax.detect.detector import check_image, detect
from genhmr_jax.detect.given_masks import GivenMasks, check_masks
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED, surface_model
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.model_folder import load_meta, load_params
from genhmr_jax.io.program_store import stored
from genhmr_jax.recover.options import DEFAULTS, RecoverOptions
from genhmr_jax.recover.people import People
from genhmr_jax.systems import registry

ROWS = 8
"""People who are solved together."""
T = TypeVar("T")
DEFAULT_MODEL = "genhmr"
SHIPPED = {
    "genhmr": "default", "posturehmr": "posturehmr", "maskhand": "maskhand", "neurik": "neurik",
}  # fmt: skip
"""The kinds of models that come with the package, and their folders in assets/."""


def default_checkpoint(model: str = DEFAULT_MODEL) -> pathlib.Path:
    """The folder of a shipped model, of a kind of SHIPPED."""
    assets = importlib.resources.files("genhmr_jax") / "assets"
    return pathlib.Path(str(assets / SHIPPED[model]))


def load(
    checkpoint: str | pathlib.Path | None = None,
    body: str | pathlib.Path = "neutral",
    model: str | None = None,
) -> "Recoverer":
    """Load a model and a body.

    Args:
      checkpoint: model folder (config.json and params) of a training or of `genhmr convert`;
        default: the shipped model of that kind.
      body: "neutral", "male", "female", "lite" (the free body), or the path of an SMPL file.
      model: required kind of the checkpoint: "genhmr", "posturehmr", "hmr2" or "tokenhmr". None:
        any, and "genhmr" without a checkpoint.

    Raises:
      InputError, ValueError, FileNotFoundError: with one line that names the file at fault and a
        remedy.
    """
    if checkpoint is None and (model or DEFAULT_MODEL) not in SHIPPED:
        remedy = "make one with `genhmr convert FILE --out DIR`, or train one (configs/regressors)"
        remedy += ", and give it with --checkpoint DIR"
        problem = "no checkpoint of it comes with the package"
        raise InputError(f"--model {model}", problem, remedy)
    if checkpoint is None:
        checkpoint = default_checkpoint(model or DEFAULT_MODEL)
    directory = pathlib.Path(checkpoint)
    meta = load_meta(directory)
    system = registry.system_of(meta, directory)
    if model not in (None, system.kind):
        remedy = f"give the checkpoint of a {model}, or --model {system.kind}"
        raise InputError(directory, f"is a {system.kind} model, not {model}", remedy)
    return Recoverer(system, load_params(directory, system.shapes), load_body(body))


@dataclasses.dataclass(frozen=True)
class PreparedPhoto:
    """The detected people of a photo.

    Attributes:
      people: those who can be recovered.
      inputs: of the system; one row without meaning if there is nobody.
      camera: of the photo.
      size: (width, height) px.
    """

    people: Detections
    inputs: Inputs
    camera: PhotoCamera
    size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Recoverer:
    """A system with its parameters and a body."""

    system: System
    params: Params
    body: smpl_jax.SmplModel

    @functools.cached_property
    def surface(self) -> smpl_jax.SmplModel:
        """The body reduced to the points that the refinement compares with a photo."""
        return surface_model(self.body)

    def recover(
        self,
        image: np.ndarray,
        *,
        boxes: np.ndarray | None = None,
        keypoints: np.ndarray | None = None,
        masks: GivenMasks | np.ndarray | None = None,
        options: RecoverOptions = DEFAULTS,
    ) -> People:
        """Recover the people of one photo.

        Args:
          image: uint8 (H, W, 3), RGB.
          boxes: (P, 4) xyxy px, in place of person detection. No rows: there is nobody.
          keypoints: (P, 23, 3) px and confidence in the order of DETECTED, in place of 2D pose
            estimation. With boxes: of the same people, in the same order.
          masks: (P, H, W) true on each person, without boxes and keypoints. Their bounding boxes
            are the boxes, and the refinement fits the silhouettes to them (detect.given_masks).

        Returns:
          the people with enough detected keypoints (4), or with a box for regressors. `given_index`
          holds their indices among the given people.

        Raises:
          ValueError: `image` is not a uint8 (H, W, 3) array; boxes or keypoints have another shape,
            are not finite, or differ in the number of people; a box is outside the image; masks
            are of another size, empty, or given with boxes or keypoints.
        """
        given = {"boxes": boxes, "keypoints": keypoints, "masks": masks}
        prepared = self.prepare(image, **given, options=options)
        return self.recover_prepared([prepared], options)[0]

    def prepare(
        self,
        image: np.ndarray,
        *,
        boxes: np.ndarray | None = None,
        keypoints: np.ndarray | None = None,
        masks: GivenMasks | np.ndarray | None = None,
        options: RecoverOptions = DEFAULTS,
    ) -> PreparedPhoto:
        """Detect the people of one photo, and prepare their inputs; see `recover`.

        Threads may prepare several photos at the same time.
        """
        check_image(image)
        height, width = image.shape[:2]
        if masks is not None:
            if boxes is not None or keypoints is not None:
                raise ValueError("masks are given with boxes or keypoints: give one of them")
            if not isinstance(masks, GivenMasks):
                masks = check_masks(masks, height, width)
            boxes = masks.boxes
        people = detect(image, boxes, keypoints, max_people=options.max_people)
        if masks is not None:
            people = masks.replace(people)
        people = self.recoverable(people)
        photo = options.camera(width, height)
        inputs = self.system.prepare(image, people, photo, max(len(people), 1))
        return PreparedPhoto(people, inputs, photo, (width, height))

    def recover_prepared(
        self, photos: Sequence[PreparedPhoto], options: RecoverOptions = DEFAULTS
    ) -> list[People]:
        """Recover the people of several photos, which are solved together.

        The result for a photo does not depend on the other photos.

        Args:
          photos: of `prepare`.
          options: their camera is ignored; the photos have their own.
        """
        numbers = np.concatenate([np.arange(photo.inputs.rows) for photo in photos])
        inputs = joined([photo.inputs for photo in photos])
        run = lambda chunk, chosen: self.solve(chunk, chosen, options)
        solved = in_chunks(run, inputs, numbers)
        # Take the rows of each photo.
        starts = np.cumsum([0, *(photo.inputs.rows for photo in photos)])
        found = []
        for photo, start in zip(photos, starts[:-1].tolist(), strict=True):
            rows = slice(start, start + len(photo.people))
            own = jax.tree.map(lambda x, rows=rows: x[rows], solved)
            found.append(people_of(photo.people, own, photo.camera, photo.size, self.body))
        return found

    def preload(self, options: RecoverOptions = DEFAULTS, make: bool = False) -> None:
        """Read the stored programs for a photo of one person; with `make`, compile missing ones."""
        photo = options.camera(2, 2)
        image, nobody = np.zeros((2, 2, 3), np.uint8), Detections.empty(0)
        inputs = self.system.prepare(image, nobody, photo, 1)
        preload(*self._arguments(inputs, np.zeros(1, int), options), make=make)

    def recoverable(self, people: Detections) -> Detections:
        """The people whose body the system can recover."""
        return people.only(enough_keypoints(people.keypoints) | self.system.needs_box)

    def solve(self, inputs: Inputs, numbers: np.ndarray, options: RecoverOptions) -> Solved:
        """Recover the bodies of prepared rows, of one photo or of several.

        Args:
          inputs: of `System.prepare`.
          numbers: (B,) one for each row. The random draws of a row depend only on the seed and on
            this number, not on the other rows.
          options: its camera is ignored; the inputs have their own.

        Raises:
          InputError: the system does not support the context of the options.
        """
        return solve(*self._arguments(inputs, numbers, options))

    @property
    def has_steps(self) -> bool:
        """Whether the system answers in several steps, of which there is a trace."""
        return isinstance(self.system, TracedSystem)

    def check_steps(self) -> None:
        """Raise InputError if the system answers in one step, of which there is no trace."""
        if not self.has_steps:
            problem = f"a {self.system.kind} model answers in one step"
            raise InputError("--trace", problem, "leave it out, or give another --checkpoint")

    def trace(self, photo: PreparedPhoto, options: RecoverOptions = DEFAULTS) -> Traced:
        """The bodies of the people of a photo after each step of sampling, as NumPy arrays.

        They are in camera coordinates, and before the refinement.

        Raises:
          InputError: the system answers in one step.
        """
        self.check_steps()
        *arguments, how = self._arguments(photo.inputs, np.arange(photo.inputs.rows), options)
        traced = trace(*arguments, int(how.iterations), how.context)
        return jax.tree.map(lambda x: np.asarray(x)[: len(photo.people)], traced)

    def _arguments(self, inputs: Inputs, numbers: np.ndarray, options: RecoverOptions) -> tuple:
        """The arguments of core.solve.solve."""
        how = options.solving(self.system)
        keys = keys_of(np.uint32(options.seed % 2**32), numbers)
        return self.system, self.params, self.body, self.surface, inputs, keys, how


def in_chunks(
    run: Callable[[Inputs, Int[np.ndarray, "R"]], T],
    inputs: Inputs,
    numbers: np.ndarray,
    fewest: int = ROWS // 2,
) -> T:
    """Solve inputs in parts of few sizes, as NumPy arrays. The last rows may be copies.

    Args:
      run: solves a part, given its numbers.
      inputs: all rows.
      numbers: (B,) one for each row, see `Recoverer.solve`.
      fewest: rows that are solved together; fewer ones are solved one by one.
    """
    parts = []
    for rows in _chunks(inputs.rows, fewest):
        chunk = jax.tree.map(lambda x, rows=rows: np.asarray(x)[rows], inputs)
        parts.append(jax.tree.map(np.asarray, run(chunk, numbers[rows])))
    return joined(parts)


def _chunks(count: int, fewest: int) -> Iterator[Int[np.ndarray, "1"] | Int[np.ndarray, "ROWS"]]:
    """The indices of rows that are solved together.

    There are two sizes, so that two programs serve any number of people: one row, and ROWS rows.
    The last rows of a chunk may be copies, which do not affect the others.
    """
    first = 0
    while first < count:
        size = ROWS if count - first >= fewest else 1
        yield np.minimum(np.arange(first, first + size), count - 1)
        first += size


@stored()
def keys_of(seed: UInt[Array, ""], numbers: Int[Array, "B"]) -> Array:
    """A random key for each number."""
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(numbers)


def people_of(
    detected: Detections,
    solved: Solved,
    photo: PhotoCamera,
    size: tuple[int, int],
    body: smpl_jax.SmplModel,
) -> People:
    """The result for a photo of `size` (width, height) px.

    The rows of `solved` are the detected people.
    """

    def arrays(of: Solved | Hypotheses) -> dict[str, np.ndarray]:
        values = {field.name: getattr(of, field.name) for field in dataclasses.fields(of)}
        values.pop("hypotheses", None)
        return {name: np.asarray(value) for name, value in values.items()}

    found = arrays(solved)
    if solved.hypotheses is not None:
        several = arrays(solved.hypotheses)
        found["vertex_std"] = several.pop("vertex_std")
        found |= {f"hypothesis_{name}": value for name, value in several.items()}
    return People(
        boxes=detected.boxes,
        given_index=detected.given,
        left_out=np.int32(detected.left_out),
        keypoints2d=detected.keypoints,
        keypoint_names=np.array(DETECTED),
        focal_length=np.float32(photo.focal),
        principal_point=np.array(photo.principal_point),
        image_size=np.array(size),
        faces=np.asarray(body.faces),
        joint_names=np.array(body.joint_names),
        **found,
    )
