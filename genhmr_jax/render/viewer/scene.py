"""`Scene`: what a viewer page shows, as plain arrays."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from genhmr_jax.geometry.motion import CAMERA, Motion
from genhmr_jax.render.rest import Rest


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """The bodies of one person of a photo after each step of sampling.

    Attributes:
      poses: (T, J, 3) axis-angle, radians, in camera axes.
      translation: (T, 3) metres.
    """

    poses: Float[np.ndarray, "T J 3"]
    translation: Float[np.ndarray, "T 3"]


@dataclasses.dataclass(frozen=True, eq=False)
class PersonScene:
    """One person.

    Attributes:
      motion: in camera axes, over all frames of the scene.
      body: the mesh, which the page skins linearly. For a photo it should have the blend shapes of
        its pose (render.rest.with_pose).
      hypotheses: other motions of the same person, in camera axes; empty without any.
      before: the motion before refinement, in camera axes.
      trace: of sampling, for a scene of one frame.
    """

    motion: Motion
    body: Rest
    hypotheses: tuple[Motion, ...] = ()
    before: Motion | None = None
    trace: Trace | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """A photo (one frame) or a clip, and the people in it.

    Attributes:
      title: such as the name of the file.
      image_size: width, height, px; the camera refers to this size, not to that of `frames`.
      focal: px.
      principal_point: (2,) px.
      times: (F,) seconds, increasing.
      people: those of the photo or clip.
      frames: one JPEG, WebP or PNG file for each time, of any size of the same shape; empty: the
        page shows no picture.
      world_rotation: (3, 3), world_translation: (3,) metres: world = rotation @ camera +
        translation, where the world has y up and the ground at y = 0. None if not known; the page
        then draws the ground under the feet, and says that it is an estimate.
      before_name: what `PersonScene.before` is called on the page.
      downloads: files that the page offers, by name.
    """

    title: str
    image_size: tuple[int, int]
    focal: float
    principal_point: tuple[float, float]
    times: Float[np.ndarray, "F"]
    people: tuple[PersonScene, ...]
    frames: tuple[bytes, ...] = ()
    world_rotation: Float[np.ndarray, "3 3"] | None = None
    world_translation: Float[np.ndarray, "3"] | None = None
    before_name: str = "Before refinement"
    downloads: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the parts belong together.

        Raises:
          ValueError: the number of frames differs between two parts, a motion is not in camera
            axes or holds numbers that are not finite, or there is a trace of
            more than one frame.
        """
        count = len(self.times)
        if count == 0 or len(self.frames) not in (0, count):
            raise ValueError(f"{len(self.frames)} pictures for {count} times")
        if (self.world_rotation is None) != (self.world_translation is None):
            raise ValueError("world_rotation and world_translation belong together")
        for person in self.people:
            _check(person, count)


def _check(person: PersonScene, count: int) -> None:
    """Raise ValueError unless a person fits a scene of `count` frames."""
    name = person.motion.name
    motions = [person.motion, *person.hypotheses, *([person.before] if person.before else [])]
    for motion in motions:
        if motion.axes != CAMERA:
            raise ValueError(f"{name}: the axes are {motion.axes!r}, not {CAMERA!r}")
        if len(motion) != count:
            raise ValueError(f"{name}: {len(motion)} frames of a scene of {count}")
        known = [array[motion.present] for array in (motion.poses, motion.translation)]
        if not all(np.isfinite(array).all() for array in known):
            raise ValueError(f"{name}: a pose or a translation is not finite")
    if person.trace is not None and count > 1:
        raise ValueError(f"{name}: a trace of sampling belongs to a photo, not to {count} frames")
