"""Rows of images with labels, for every stage that is trained on them: where a config says they come from, and what form they have.

They are photos of a mixture of people (`data.people`, `data.mixture`: data/people.py, rendered people among them), or stored crops or what
a frozen encoder made of them (`data.images`: train/features.py).
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from genhmr_jax.core import encoders
from genhmr_jax.data import poses
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.io.errors import InputError


@dataclasses.dataclass(frozen=True)
class ImageRows:
    """The image rows of a training; nothing is opened before it is asked for.

    Attributes:
      config: of the stage: `image_batch_size` (0: no images), `seed`, `data`, `evaluate_poses`.
      encoder: whose maps, or whose crops, stored rows hold (models/image_encoder.py); "none" reads neither.
      lifted: whether the model reads the detector's keypoints in 3D, which sets of earlier versions lack.

    Raises:
      InputError: images are asked for, but the config names none, or two kinds.
    """

    config: ml_collections.ConfigDict
    encoder: str
    lifted: bool = False

    def __post_init__(self) -> None:
        if self.size and not (self.config.data.images or self.are_photos):
            remedy = "give --config.data.images=DIR, --config.data.people=DIR or --config.data.mixture=rendered"
            raise InputError("--config.image_batch_size", "asks for images but there are none", remedy)
        if self.size and self.config.data.images and self.config.data.people:
            problem = f"names stored rows beside the photos of --config.data.people={self.config.data.people}"
            raise InputError(f"--config.data.images={self.config.data.images}", problem, "leave one of them empty: --config.data.people=")

    @property
    def size(self) -> int:
        """Rows of a batch."""
        return self.config.image_batch_size

    @functools.cached_property
    def are_photos(self) -> bool:
        """Whether they are people of a mixture, whose 2D keypoints are labels, and not stored rows, whose keypoints are detected."""
        from genhmr_jax.data import people

        mixture = self.config.data.mixture  # "" where a stage learns from stored rows only
        return bool(self.config.data.people) or bool(mixture) and set(people.parse_mixture(mixture)) == {people.RENDERED}

    @functools.cached_property
    def stored(self) -> dict[str, Any]:
        """The stored rows by split: train.features.FeatureSet; {} for photos."""
        if not self.size or self.are_photos:
            return {}
        from genhmr_jax.data.features import FeatureSet

        folder = pathlib.Path(self.config.data.images)
        stored = {split: FeatureSet(folder / split, self.encoder) for split in ("train", "val")}
        needed = {"keypoints3d"} if self.lifted else set()
        needed |= set(encoders.stored_shapes(self.encoder, 1)) if self.encoder == encoders.LOOK else set()
        for split, rows in stored.items():
            if missing := sorted(needed - set(rows.arrays)):
                remedy = "make it again with python -m genhmr_jax.data.features"
                raise InputError(folder / split, f"lacks {', '.join(missing)}: an earlier version wrote it", remedy)
        return stored

    def source(self) -> Any:
        """The training rows: a data.pipeline.Source. Opens the data, for validation too: what is missing shall stop the run now."""
        _ = self._measured_on
        if not self.are_photos:
            return self.stored["train"].source(self.size, self.config.seed)
        from genhmr_jax.data import augment, people

        data = self.config.data
        mixture = people.open_mixture(data.people, data.mixture, rendered=self._rendered)
        spec = augment.AugmentSpec(**data.augment.to_dict())
        return people.PeopleSource(mixture, self.size, self.config.seed, load_body(data.body), spec)

    def shapes(self) -> dict[str, Any]:
        """A batch as ShapeDtypeStructs, without opening any data."""
        if self.are_photos:
            from genhmr_jax.data import people

            rows = people.row_shapes() | {"number": jax.ShapeDtypeStruct((), jnp.uint32)}
            return {name: jax.ShapeDtypeStruct((self.size, *row.shape), row.dtype) for name, row in rows.items()}
        k = len(DETECTED)
        floats = {"rotmats": (24, 3, 3), "betas": (10,), "joints": (24, 3), "keypoints": (k, 3), "keypoints3d": (k, 3)}
        floats |= {"points2d": (k, 2), "crop": (3,), "weak_camera": (3,), "focal": (), "image_size": (2,)}
        rows = {name: jax.ShapeDtypeStruct((self.size, *shape), jnp.float32) for name, shape in floats.items()}
        rows["number"] = jax.ShapeDtypeStruct((self.size,), jnp.uint32)
        return rows | (encoders.stored_shapes(self.encoder, self.size) if self.encoder != "none" else {})

    def validation(self, place: Callable[[Any], Any]) -> Iterator[dict[str, Any]]:
        """The validation rows in batches, placed, without augmentation, each row with its "weight" in a mean error of joints, and its
        "weight2d" in one of keypoints.

        `evaluate_poses` records of `data.people_val`, of which those whose joints are not all known have no "weight"; where it is "", all
        stored rows of split val; where there are none either, no batch at all.

        Raises:
          InputError: `data.people_val` is no dataset, or no record has all 24 joints or a keypoint.
        """
        config = self.config
        if not (self.size and config.data.people_val):
            for batch in self.stored["val"].all_batches(self.size) if self.stored else ():
                yield place(batch | {"weight2d": batch["weight"]})
            return
        from genhmr_jax.data import people

        total = 0.0
        for batch in people.all_batches(self._measured_on, self.size, config.evaluate_poses, load_body(config.data.body)):
            batch["weight2d"] = batch["weight"] * (batch["points2d_confidence"] > 0).any(1)
            batch["weight"] *= (batch["joints_confidence"] > 0).all(1)
            total += batch["weight"].sum() + batch["weight2d"].sum()
            yield place(batch)
        if not total:
            raise InputError(config.data.people_val, "has neither poses with shapes nor keypoints", "give a dataset that has")

    @functools.cached_property
    def _measured_on(self) -> Any:
        """The dataset that `data.people_val` names, or None."""
        if not self.config.data.people_val:
            return None
        from genhmr_jax.data import people

        name, _, split = self.config.data.people_val.partition(":")
        datasets = people.open_mixture(self.config.data.people, name, split or "val", self._rendered)
        if len(datasets) > 1:
            raise InputError("--config.data.people_val", f"{name!r} is several datasets", "give one, such as threedpw:validation")
        return datasets[0]

    def _rendered(self, split: str) -> Any:
        """People of the pose corpus, rendered when they are asked for."""
        from genhmr_jax.data.synthetic.backgrounds import Backgrounds
        from genhmr_jax.data.synthetic.rendered import Rendered

        data = self.config.data
        corpus, backgrounds = poses.load_corpus(data.poses, split), Backgrounds(data.backgrounds)
        return Rendered(corpus, split, self.config.seed, load_body(data.body), backgrounds, on_device=data.render_on_device)


def rooted(joints: Float[Array, "B 24 3"], known: Float[Array, "B 24"]) -> Float[Array, "B 24 3"]:
    """Joints relative to the pelvis; where a dataset does not know it, to the middle of the hips."""
    hips = jnp.mean(joints[:, 1:3], 1, keepdims=True)
    return joints - jnp.where(known[:, :1, None] > 0, joints[:, :1], hips)


def known_mean(values: Float[Array, "B K"], confidence: Float[Array, "B K"]) -> Float[Array, "B"]:
    """Mean over the last axis, weighted by confidence; 0 where nothing is known."""
    return jnp.sum(values * confidence, -1) / jnp.maximum(jnp.sum(confidence, -1), 1e-8)
