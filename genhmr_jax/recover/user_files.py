"""The user's annotations of photos: boxes, keypoints, masks and cameras."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import ImageFile

if TYPE_CHECKING:  # heavy, imported where they are used
    from genhmr_jax.data.annotations.masks import MaskFolder
    from genhmr_jax.data.annotations.selection import UserAnnotations
    from genhmr_jax.data.annotations.user import Annotations
    from genhmr_jax.recover.photo import RecoverOptions


@dataclasses.dataclass(frozen=True)
class UserFiles:
    """The user's annotations of the photos.

    Without boxes, keypoints and masks the detector finds the people; without cameras the options
    define the camera.
    """

    boxes: "Annotations | None" = None
    keypoints: "Annotations | None" = None
    cameras: "Annotations | None" = None
    masks: "MaskFolder | None" = None

    @staticmethod
    def read(
        boxes: str | None, keypoints: str | None, cameras: str | None, masks: str | None = None
    ) -> "UserFiles":
        """Read the files of --boxes, --keypoints and --cameras, and list the folder of --masks.

        Raises:
          InputError: a file is at fault, or masks are given with boxes or keypoints.
        """
        if masks and (boxes or keypoints):
            other = "--boxes" if boxes else "--keypoints"
            raise InputError("--masks", f"cannot be combined with {other}", "leave one of them out")
        if not (boxes or keypoints or cameras or masks):
            return UserFiles()
        from genhmr_jax.data.annotations import user
        from genhmr_jax.data.annotations.masks import MaskFolder

        return UserFiles(
            user.read_boxes(boxes) if boxes else None,
            user.read_keypoints(keypoints) if keypoints else None,
            user.read_cameras(cameras) if cameras else None,
            MaskFolder(masks) if masks else None,
        )

    def options_of(
        self, image: ImageFile, photos: Sequence[ImageFile], options: "RecoverOptions"
    ) -> "RecoverOptions":
        """The options for one photo, with its camera.

        Raises:
          InputError: --cameras has no camera for this photo.
        """
        if self.cameras is None:
            return options
        from genhmr_jax.data.annotations import user

        camera = user.camera_of_image(self.cameras, image, photos)
        return dataclasses.replace(
            options, focal=camera.focal, fov=None, principal_point=camera.principal_point
        )

    def people_of(
        self,
        image: ImageFile,
        photos: Sequence[ImageFile],
        pixels: np.ndarray,
        min_score: float,
        max_people: int | None,
    ) -> "UserAnnotations | None":
        """The annotated people of one photo, at least one; None if no people are given.

        Raises:
          InputError: the photo has no annotation, nobody with enough known keypoints, or an
            annotation that does not fit it.
        """
        source = self.boxes or self.keypoints or self.masks
        if source is None:
            return None
        from genhmr_jax.data.annotations import masks, selection

        size = pixels.shape[1], pixels.shape[0]
        how = {"photos": photos, "max_people": max_people}
        if self.masks is not None:
            given = masks.people_of_masks(self.masks, image, size, **how)
        else:
            how["min_score"] = min_score
            given = selection.people_of_image(self.boxes, self.keypoints, image, size, **how)
        if not given.total:
            problem = f"{source.source} has nobody for this photo"
            raise InputError(image.path, problem, "add the person, or leave the photo out")
        if given.low_scores:
            few = (
                f"{given.low_scores} of {given.total} given people with scores below "
                f"{min_score:g} (--min-score)"
            )
            given = dataclasses.replace(given, left_out=(few, *given.left_out))
        if not len(given.index):
            raise nobody_left(image, given.left_out)
        if given.masks is None:
            selection.refuse_percent(given, image, pixels)
        return given


def nobody_left(image: ImageFile, left_out: Sequence[str]) -> InputError:
    """The error of a photo if none of its annotated people can be recovered."""
    more = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
    problem = f"nobody is left: {left_out[0]}{more}"
    return InputError(image.path, problem, "correct the annotations, or leave the photo out")
