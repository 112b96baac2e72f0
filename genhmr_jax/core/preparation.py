"""The inputs of systems that crop a person by the detected keypoints."""

import dataclasses

import numpy as np

from genhmr_jax.core import encoders, silhouette_term
from genhmr_jax.core.inputs import Inputs
from genhmr_jax.core.system import PhotoCamera
from genhmr_jax.detect.detections import Detections
from genhmr_jax.geometry import camera
from genhmr_jax.geometry.keypoints import MIN_CONFIDENCE


class AroundKeypoints:
    """The part of a system whose crops are around the detected keypoints.

    Attributes:
      encoder: a name in core/encoders.py (core.system.StoredSystem); None: a system without image.
    """

    needs_box = False
    encoder: str | None

    def prepare(
        self,
        image: np.ndarray,
        people: Detections,
        photo: PhotoCamera,
        rows: int,
        *,
        published_crop: bool = False,
    ) -> Inputs:
        """See core.system.System."""
        height, width = image.shape[:2]
        people = people.padded(rows)
        is_detected = people.keypoints[..., 2:] >= MIN_CONFIDENCE
        keypoints = np.where(is_detected, people.keypoints, np.float32(0))
        crop = camera.crop_around(keypoints[..., :2], keypoints[..., 2])
        view = photo.of_crops(crop)
        inputs = Inputs(
            view=view,
            keypoints=keypoints,
            keypoints3d=people.keypoints3d,
            silhouette=silhouette_term.targets(people, crop, width, height),
            certainty=people.certainty,
        )
        if self.encoder is None:
            return inputs
        found = encoders.find(self.encoder)
        if found.upright:
            upright_crop = np.pad(crop, ((0, 0), (0, 1)))
            region = np.where(people.has_features[:, None], people.regions, upright_crop)
            inputs = dataclasses.replace(inputs, view=dataclasses.replace(view, region=region))
        return dataclasses.replace(inputs, **found.of_photo(image, people, crop, rows))
