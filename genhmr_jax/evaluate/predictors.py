"""What is evaluated: a trained model under several settings, or the mean pose, which sees nothing."""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from genhmr_jax.core.refinement import RefineSpec
from genhmr_jax.detect.observed import Observed, can_recover
from genhmr_jax.geometry.mean_pose import MEAN_POSE_72
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.images import open_bytes
from genhmr_jax.recover import photo

MEAN_POSE = "mean-pose"


class Sight(NamedTuple):
    """What a predictor took from one record: inputs of one row, whether the person was found, and the seconds it took."""

    view: Mapping[str, np.ndarray]
    found: bool
    seconds: float


class Prediction(NamedTuple):
    """pose (B, 72) axis-angle, root in camera coordinates; betas (B, 10); the seconds that the batch took."""

    pose: np.ndarray
    betas: np.ndarray
    seconds: float


class Predictor(Protocol):
    """Sees the records one by one, then predicts batches of them under each of its settings."""

    labels: tuple[str, ...]

    def see(self, record: Mapping[str, Any]) -> Sight: ...

    def predict(self, sights: Sequence[Sight], numbers: np.ndarray) -> Iterator[tuple[str, Prediction]]: ...


def settings(
    iterations: Sequence[int], refine_steps: int, options: photo.RecoverOptions | None = None
) -> dict[str, photo.RecoverOptions]:
    """Label -> options: every number of sampling iterations, with sampling alone and, unless it has 0 steps, with refinement."""
    options = options or photo.RecoverOptions()
    stages = {"sampling alone": 0} | ({"with refinement": refine_steps} if refine_steps else {})
    return {
        f"T={t}, {stage}": dataclasses.replace(options, iterations=t, refine_steps=steps)
        for stage, steps in stages.items()
        for t in iterations
    }


class MeanPose:
    """The baseline that every model must beat: the mean pose and shape for everyone."""

    labels = ("mean pose",)

    def see(self, record: Mapping[str, Any]) -> Sight:
        """Nothing."""
        return Sight({}, True, 0.0)

    def predict(self, sights: Sequence[Sight], numbers: np.ndarray) -> Iterator[tuple[str, Prediction]]:
        """The same for all."""
        yield self.labels[0], Prediction(np.tile(MEAN_POSE_72, (len(sights), 1)), np.zeros((len(sights), 10), np.float32), 0.0)


@dataclasses.dataclass(frozen=True)
class ModelPredictor:
    """A trained model: the person's box from the labels, the 2D keypoints in it from our own detector; everything else is its own work.

    Attributes:
      recoverer: the model with the body of the protocols.
      iterations: each T of uncertainty-guided sampling to evaluate.
      refine_steps: of the refinement; each T is evaluated with 0 steps and with these.
      true_focal: take focal length and principal point of the labels where they have them, in place of a guess from the image size.
      options: everything else.
    """

    recoverer: photo.Recoverer
    iterations: tuple[int, ...] = (1, 3, 5, 10)
    refine_steps: int = RefineSpec.steps
    true_focal: bool = False
    options: photo.RecoverOptions = photo.RecoverOptions()

    @property
    def settings(self) -> dict[str, photo.RecoverOptions]:
        """Label -> options."""
        return settings(self.iterations, self.refine_steps, self.options)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the settings."""
        return tuple(self.settings)

    def see(self, record: Mapping[str, Any]) -> Sight:
        """Decodes the image and detects the 2D keypoints of the person in the labelled box.

        Published regressors get the crop of their own evaluation (models/baselines/crop.py).

        Raises:
          InputError: the record has no image, or it cannot be decoded, or the box lies outside.
        """
        where = f"{record['sequence']}, frame {record['frame']}, person {record['person']} ({record['image_name']})"
        began = time.perf_counter()
        image = decode(record["image"], where)
        try:
            seen = self.recoverer.see(image, record["box"][None], None, self.options)
        except ValueError as error:
            raise InputError(where, str(error), "leave it out with --skip-bad") from error
        found = bool(can_recover(seen.keypoints)[0]) or self.recoverer.networks.crops_by_box
        focal, principal = self.options.focal_length(image.shape[1], image.shape[0]), None
        if self.true_focal and record["has_intrinsics"]:
            focal, principal = float(record["intrinsics"][0, 0]), tuple(record["intrinsics"][:2, 2].tolist())
        person = seen if found else Observed.nobody()
        view = self.recoverer.view(image, person, focal, 1, principal, blur=False)
        return Sight(view, found, time.perf_counter() - began)

    def predict(self, sights: Sequence[Sight], numbers: np.ndarray) -> Iterator[tuple[str, Prediction]]:
        """Each setting's bodies; whoever was not found gets the mean pose. The seconds count the solving alone."""
        view = {name: np.concatenate([sight.view[name] for sight in sights]) for name in sights[0].view}
        found = np.array([sight.found for sight in sights])[:, None]
        inputs = self.recoverer.encode(view)
        for label, options in self.settings.items():
            began = time.perf_counter()
            solved = jax.block_until_ready(self.recoverer.solve(inputs, numbers, options))
            seconds = time.perf_counter() - began
            pose = np.concatenate([solved["global_orient"], solved["body_pose"]], -1)
            yield label, Prediction(np.where(found, pose, MEAN_POSE_72), np.where(found, solved["betas"], 0.0), seconds)


def decode(data: bytes, where: object) -> np.ndarray:
    """An encoded image as uint8 (H, W, 3) RGB; EXIF turns are not applied, as by all makers of these datasets.

    Raises:
      InputError: empty, no image, or damaged.
    """
    if not data:
        raise InputError(where, "has no image", "evaluate a source that has images")
    try:
        with open_bytes(data) as image:
            return np.ascontiguousarray(image.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise many types on broken files
        raise InputError(where, f"its image cannot be decoded ({error})", "download it again, or leave it out with --skip-bad") from error
