"""The main job: a photo in, its people out. `load().recover(image)` goes down the page:

detect -> System.prepare -> core.solve (encode, sample, refine, pick) -> People
"""

import dataclasses
import functools
import importlib.resources
import pathlib

import jax
import numpy as np
import smpl_jax

from genhmr_jax.core.inputs import CONTEXTS, Inputs
from genhmr_jax.core.refinement import RefineSpec
from genhmr_jax.core.solve import Solved, SolveOptions, solve
from genhmr_jax.core.system import Params, PhotoCamera, System
from genhmr_jax.detect.detections import Detections, enough_keypoints
from genhmr_jax.detect.detector import detect
from genhmr_jax.geometry import camera
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED, surface_model
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.model_folder import load_meta, load_params
from genhmr_jax.recover.people import People
from genhmr_jax.systems import registry

HYPOTHESES_ITERATIONS = 5
"""Of sampling, for several hypotheses: as in the paper."""


@dataclasses.dataclass(frozen=True)
class RecoverOptions:
    """How to recover. The defaults are those under which the model card was measured.

    Attributes:
      iterations: T of uncertainty-guided sampling. None: HYPOTHESES_ITERATIONS for hypotheses,
        which must each be a coherent pose; 1 for one answer, because the mean that it decodes is
        nearest to the truth when nothing is conditioned on a guess (docs/evaluation.md).
      temperature: 0 takes the most probable tokens; several hypotheses need more than 0 (then 1 is
        taken).
      hypotheses: K samples a person; the one of the lowest refined loss comes first.
      refine_steps: gradient steps on the token embeddings; 0 for none; None for the system's number
        (regressors: 0).
      focal: focal length in px, or None.
      fov: field of view in degrees over the longer side, if `focal` is None; if both are None, the
        image diagonal is the focal length.
      principal_point: x, y in px; None is the middle of the image.
      seed: of the random draws.
      max_people: the most people, those of the largest score times box side; None is 10 whom the
        detector finds, or all who are given.
      context: what the system may see, one of core.inputs.CONTEXTS. The refinement meets the
        keypoints whatever it is.
    """

    iterations: int | None = None
    temperature: float = 0.0
    hypotheses: int = 1
    refine_steps: int | None = None
    focal: float | None = None
    fov: float | None = None
    principal_point: tuple[float, float] | None = None
    seed: int = 0
    max_people: int | None = None
    context: str = "all"

    def __post_init__(self) -> None:
        least = {
            "iterations": 1,
            "temperature": 0,
            "hypotheses": 1,
            "refine_steps": 0,
            "max_people": 1,
        }
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise ValueError(f"{name} is {value}: at least {low} is needed")
        if self.context not in CONTEXTS:
            raise ValueError(f"context is {self.context!r}: choose among {', '.join(CONTEXTS)}")
        if self.focal is not None and not 0 < self.focal < np.inf:
            raise ValueError(f"focal is {self.focal}: a positive number of pixels is needed")
        if self.fov is not None and not 0 < self.fov < 180:
            raise ValueError(f"fov is {self.fov}: degrees between 0 and 180 are needed")
        if self.principal_point is not None and not np.isfinite(self.principal_point).all():
            problem = f"principal_point is {self.principal_point}"
            raise ValueError(f"{problem}: two finite numbers of pixels are needed")

    def camera(self, width: int, height: int) -> PhotoCamera:
        """The camera of an image of this size, px."""
        if self.focal is not None:
            focal = float(self.focal)
        elif self.fov is not None:
            focal = camera.focal_from_fov(self.fov, width, height)
        else:
            focal = camera.default_focal(width, height)
        middle = (width / 2.0, height / 2.0)
        return PhotoCamera(
            focal, self.principal_point if self.principal_point is not None else middle
        )

    def solving(self, system: System) -> SolveOptions:
        """The options of core.solve for a system.

        Raises:
          InputError: the system cannot do with the context.
        """
        if self.context not in system.contexts:
            known = " or ".join(system.contexts)
            raise InputError(
                f"--context {self.context}", "is not what this model sees", f"choose {known}"
            )
        several = self.hypotheses > 1
        steps = system.refine_steps if self.refine_steps is None else self.refine_steps
        return SolveOptions(
            iterations=self.iterations or (HYPOTHESES_ITERATIONS if several else 1),
            temperature=1.0 if several and not self.temperature else self.temperature,
            hypotheses=self.hypotheses,
            refine=RefineSpec(steps=steps),
            context=self.context,
        )


def default_checkpoint() -> pathlib.Path:
    """The folder of the shipped model."""
    return pathlib.Path(str(importlib.resources.files("genhmr_jax") / "assets" / "default"))


def load(
    checkpoint: str | pathlib.Path | None = None,
    body: str | pathlib.Path = "neutral",
    model: str | None = None,
) -> "Recoverer":
    """The recoverer of a checkpoint (default: the shipped one) with a body.

    Args:
      checkpoint: model folder (config.json and params), as training or `genhmr convert` makes it.
      body: "neutral", "male", "female", "lite" (the free body), or the path of an SMPL file.
      model: "genhmr", "hmr2" or "tokenhmr": what the checkpoint must be. None: whatever it is.

    Raises:
      InputError, ValueError, FileNotFoundError: with one line that says which file is wrong and
        what to do.
    """
    if checkpoint is None and model not in (None, "genhmr"):
        remedy = "make one with `genhmr convert FILE --out DIR`, or train one (configs/regressors)"
        problem = "no checkpoint of it comes with the package"
        raise InputError(
            f"--model {model}", problem, f"{remedy}, and give it with --checkpoint DIR"
        )
    directory = pathlib.Path(checkpoint) if checkpoint is not None else default_checkpoint()
    meta = load_meta(directory)
    system = registry.system_of(meta, directory)
    if model not in (None, system.kind):
        remedy = f"give the checkpoint of a {model}, or --model {system.kind}"
        raise InputError(directory, f"is a {system.kind} model, not {model}", remedy)
    return Recoverer(system, load_params(directory, system.shapes), load_body(body))


@dataclasses.dataclass(frozen=True)
class Recoverer:
    """A system with its parameters and a body, ready for photos."""

    system: System
    params: Params
    body: smpl_jax.SmplModel

    @functools.cached_property
    def _surface(self) -> smpl_jax.SmplModel:
        return surface_model(self.body)

    def recover(
        self,
        image: np.ndarray,
        *,
        boxes: np.ndarray | None = None,
        keypoints: np.ndarray | None = None,
        options: RecoverOptions = RecoverOptions(),
    ) -> People:
        """The people of one photo.

        Args:
          image: uint8 (H, W, 3), RGB.
          boxes: (P, 4) xyxy px, in place of person detection. No rows mean that nobody is there.
          keypoints: (P, 23, 3) px and confidence in the order of DETECTED, in place of 2D pose
            estimation. With boxes: of the same people, in the same order.

        Returns:
          the people of whom enough is seen (4 keypoints, or a box for regressors). `given_index`
          holds which of the given they are.

        Raises:
          ValueError: `image` is no uint8 (H, W, 3) array; boxes or keypoints of another shape, not
            finite, or of different numbers of people; a box outside the image.
        """
        people = self.recoverable(detect(image, boxes, keypoints, max_people=options.max_people))
        # A power of two of rows: few shapes, few compilations. Results do not depend on the
        # padding.
        rows = 1 << max(len(people) - 1, 0).bit_length()
        height, width = image.shape[:2]
        photo = options.camera(width, height)
        inputs = self.system.prepare(image, people, photo, rows)
        solved = self.solve(inputs, np.arange(rows), options)
        return people_of(people, solved, photo, (width, height), self.body)

    def recoverable(self, people: Detections) -> Detections:
        """Those of whom the system can recover a body."""
        return people.only(enough_keypoints(people.keypoints) | self.system.needs_box)

    def solve(self, inputs: Inputs, numbers: np.ndarray, options: RecoverOptions) -> Solved:
        """The bodies of prepared rows, of one photo or of several.

        Args:
          inputs: of `System.prepare`.
          numbers: (B,) one for each row: its random draws follow from the seed and this number,
            whatever the other rows are.
          options: its camera is not used; the inputs have theirs.

        Raises:
          InputError: the system cannot do with the options' context.
        """
        how = options.solving(self.system)
        fold = functools.partial(jax.random.fold_in, jax.random.key(options.seed))
        keys = jax.vmap(fold)(numbers)
        return solve(self.system, self.params, self.body, self._surface, inputs, keys, how)


def people_of(
    detected: Detections,
    solved: Solved,
    photo: PhotoCamera,
    size: tuple[int, int],
    body: smpl_jax.SmplModel,
) -> People:
    """The result for a photo of `size` (width, height) px: the first rows of `solved` are the
    detected people."""
    count = len(detected)
    found = {
        field.name: np.asarray(getattr(solved, field.name))[:count]
        for field in dataclasses.fields(solved)
        if field.name != "hypotheses"
    }
    if solved.hypotheses is not None:
        several = {
            field.name: np.asarray(getattr(solved.hypotheses, field.name))[:count]
            for field in dataclasses.fields(solved.hypotheses)
        }
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
