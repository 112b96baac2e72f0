"""Rendered people as person records (data/sources/records.py), by number."""

import dataclasses
import functools
import io

import numpy as np
import smpl_jax
from PIL import Image
from smpl_jax.keypoints import BODY44

from genhmr_jax.data.poses import PoseCorpus
from genhmr_jax.data.sources.records import PersonRecord, person_record
from genhmr_jax.data.synthetic.appearance import Wardrobe
from genhmr_jax.data.synthetic.backgrounds import Backgrounds
from genhmr_jax.data.synthetic.families import APPEARANCES, TRAINING
from genhmr_jax.data.synthetic.generate import Sample, SceneSpec, render_sample
from genhmr_jax.geometry.keypoints import DETECTED, match
from genhmr_jax.render import device_rasterizer, rasterizer

SPLITS = ("train", "val")
ENDLESS = 1 << 24  # length of a set: more scenes than any training uses
# The index of each keypoint of BODY44 among DETECTED, by its name in either half; -1: none.
_PLAIN_NAMES = [name.removeprefix("openpose_") for name in BODY44]
_OF_44 = np.maximum(match(DETECTED, BODY44), match(DETECTED, _PLAIN_NAMES))


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A sample, its image as JPEG and its mask as PNG."""

    sample: Sample
    image: bytes
    mask: bytes


@dataclasses.dataclass(frozen=True)
class Rendered:
    """Scenes by number, rendered when they are read.

    A scene is a function of (split, seed, number), the same in every process, thread and order.

    Attributes:
      corpus: of the split; poses are drawn with its weights.
      body: a full body model.
      on_device: rasterise on JAX's default device, not on the CPU.
      appearance: a key of families.APPEARANCES.
      pose_seed: draws the poses; None: `seed`.
    """

    corpus: PoseCorpus
    split: str
    seed: int
    body: smpl_jax.SmplModel
    backgrounds: Backgrounds
    spec: SceneSpec = SceneSpec()
    on_device: bool = False
    appearance: str = TRAINING
    pose_seed: int | None = None

    @functools.cached_property
    def _wardrobe(self) -> Wardrobe:
        return Wardrobe.of(self.body)

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, number: int) -> PersonRecord:
        """The person record of a scene."""
        return record_of(self.render(number), f"rendered/{self.split}", number)

    def render(self, number: int) -> Encoded:
        """Renders a scene."""
        rng = np.random.default_rng([SPLITS.index(self.split), self.seed, number])
        pose_seed = self.seed if self.pose_seed is None else self.pose_seed
        pose = self.corpus.poses[self.corpus.draw(np.array(number), pose_seed)]
        draw = device_rasterizer.rasterize if self.on_device else rasterizer.rasterize
        scene = (pose, rng, self.backgrounds, self.spec, draw, self.appearance)
        sample = render_sample(self.body, self._wardrobe, *scene)
        image, mask = io.BytesIO(), io.BytesIO()
        quality = APPEARANCES[self.appearance].quality
        Image.fromarray(sample.image).save(image, "JPEG", quality=int(rng.integers(*quality)))
        Image.fromarray(np.where(sample.mask, 255, 0).astype(np.uint8)).save(mask, "PNG")
        return Encoded(sample, image.getvalue(), mask.getvalue())


def record_of(encoded: Encoded, sequence: str, number: int) -> PersonRecord:
    """A sample as a person record with exact labels.

    Keypoints that are not visible have confidence 0; all joints are known.

    Raises:
      InputError: the sample is not finite.
    """
    sample = encoded.sample
    height, width = sample.image.shape[:2]
    points = np.concatenate([sample.keypoints, np.zeros((1, 3))])[_OF_44]
    known = points[:, 2:] > 0
    low, high = sample.keypoints[:, :2].min(0), sample.keypoints[:, :2].max(0)
    margin = 0.1 * np.maximum(high - low, 1.0)  # keypoints are inside the body
    f = sample.focal
    return person_record(
        f"{sequence} {number}",
        image=encoded.image,
        image_name=f"{number:08d}.jpg",
        image_size=(width, height),
        sequence=sequence,
        frame=number,
        person=0,
        box=np.concatenate([low - margin, high + margin]),
        keypoints2d=np.where(known, points, 0.0),
        joints24_3d=np.concatenate([sample.joints, np.ones((24, 1))], -1),
        global_orient=sample.global_orient,
        body_pose=sample.body_pose,
        betas=sample.betas,
        translation=sample.translation,
        intrinsics=np.array([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]]),
        mask=encoded.mask,
    )
