"""Labelled image rows of a training run: their source and form, from a config.

They are photos of a mixture of people, which may include rendered people (`data.people`,
`data.mixture`: data/mixtures.py), or stored crops or encoder outputs (`data.images`:
data/features.py).
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Collection, Iterator

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from genhmr_jax.core import encoders
from genhmr_jax.data import augment, mixtures, people, poses
from genhmr_jax.data.feature_set import FeatureSet
from genhmr_jax.data.pipeline import Source
from genhmr_jax.data.rows import Rows, to_arrays
from genhmr_jax.data.synthetic.backgrounds import Backgrounds
from genhmr_jax.data.synthetic.rendered import Rendered
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.io.errors import InputError


@dataclasses.dataclass(frozen=True)
class ImageRows:
    """The image rows of a training run; no data is opened before it is needed.

    Attributes:
      config: of the stage: `image_batch_size` (0: no images), `seed`, `data`, `evaluate_poses`.
      encoder: whose output the stored rows hold (core/encoders.py); "none" reads no output.

    Raises:
      InputError: the config needs images but names no source of them, or two.
    """

    config: ml_collections.ConfigDict
    encoder: str

    def __post_init__(self) -> None:
        data = self.config.data
        if self.size and not (data.images or self.are_photos):
            choices = "--config.data.people=DIR or --config.data.mixture=rendered"
            raise InputError(
                "--config.image_batch_size",
                "needs images but there are none",
                f"give --config.data.images=DIR, {choices}",
            )
        if self.size and data.images and data.people:
            raise InputError(
                f"--config.data.images={data.images}",
                f"names stored rows beside the photos of --config.data.people={data.people}",
                "leave one of them empty: --config.data.people=",
            )

    @property
    def size(self) -> int:
        """Rows of a batch."""
        return self.config.image_batch_size

    @functools.cached_property
    def are_photos(self) -> bool:
        """Whether the rows are people of a mixture, and not stored rows.

        The 2D keypoints of a mixture are labels; those of stored rows are detected.
        """
        mixture = self.config.data.mixture  # "" where a stage learns from stored rows only
        names = mixtures.parse_mixture(mixture) if mixture else ()
        return bool(self.config.data.people) or set(names) == {mixtures.RENDERED}

    @functools.cached_property
    def _stored(self) -> dict[str, FeatureSet]:
        """The sets that `stored` has opened, by split."""
        return {}

    def stored(self, split: str) -> FeatureSet:
        """The stored rows of "train" or "val".

        Raises:
          InputError: there is no finished set of this encoder, or it lacks an array of `shapes`.
        """
        if split not in self._stored:
            folder = pathlib.Path(self.config.data.images) / split
            found = FeatureSet(folder, self.encoder)
            needed = set(to_arrays(self.shapes())) - {"number"}
            if missing := sorted(needed - set(found.arrays)):
                raise InputError(
                    folder,
                    f"lacks {', '.join(missing)}: another version wrote it",
                    "make it again with python -m genhmr_jax.data.features",
                )
            self._stored[split] = found
        return self._stored[split]

    def source(self, exact: Collection[str] | None = None) -> Source:
        """The training rows.

        Opens the validation data too, so that a run with missing data stops at its start.

        Args:
          exact: of photos: names of the datasets whose bodies were measured (`Rows.exact`).
        """
        _ = self._validation_dataset
        if not self.are_photos:
            train, _ = self.stored("train"), self.stored("val")
            return train.source(self.size, self.config.seed)
        data = self.config.data
        mixture = mixtures.open_mixture(data.people, data.mixture, rendered=self._rendered)
        spec = augment.AugmentSpec(**data.augment.to_dict())
        return people.PeopleSource(
            mixture, self.size, self.config.seed, load_body(data.body), spec, exact
        )

    def shapes(self, exact: bool = False) -> Rows:
        """A batch as ShapeDtypeStructs; opens no data.

        Args:
          exact: whether photos have `Rows.exact`.
        """
        if self.are_photos:
            return people.batch_shapes(self.size, exact=exact)
        k = len(DETECTED)
        shape = lambda *sizes, kind=jnp.float32: jax.ShapeDtypeStruct((self.size, *sizes), kind)
        stored = (
            encoders.find(self.encoder).stored_shapes(self.size) if self.encoder != "none" else {}
        )
        return Rows(
            view=CropCamera(shape(3), shape(), shape(2)),
            rotmats=shape(24, 3, 3),
            betas=shape(10),
            joints=shape(24, 3),
            keypoints=shape(k, 3),
            keypoints3d=shape(k, 3),
            points2d=shape(k, 2),
            weak_camera=shape(3),
            number=shape(kind=jnp.uint32),
            **stored,
        )

    def validation(self, place: Callable[[Rows], Rows]) -> Iterator[Rows]:
        """Placed validation batches without augmentation.

        They are `evaluate_poses` records of `data.people_val`, or, where that is "", all stored
        rows of split val. Without either there is no batch. `weight` and `weight2d` hold each row's
        weight in mean errors of joints and of keypoints: `weight` is 0 for a record whose 24 joints
        are not all known, `weight2d` for one without a labelled keypoint.

        Args:
          place: puts a batch on the devices.

        Raises:
          InputError: `data.people_val` is no dataset, or no record has all 24 joints or a keypoint.
        """
        config = self.config
        if not (self.size and config.data.people_val):
            if self.size and not self.are_photos:
                for batch in self.stored("val").all_batches(self.size):
                    yield place(dataclasses.replace(batch, weight2d=batch.weight))
            return
        total = 0.0
        for batch in people.all_batches(
            self._validation_dataset, self.size, config.evaluate_poses, load_body(config.data.body)
        ):
            weight2d = batch.weight * (batch.points2d_confidence > 0).any(1)
            weight = batch.weight * (batch.joints_confidence > 0).all(1)
            total += weight.sum() + weight2d.sum()
            yield place(dataclasses.replace(batch, weight=weight, weight2d=weight2d))
        if not total:
            raise InputError(
                config.data.people_val,
                "has neither poses with shapes nor keypoints",
                "give a dataset that has",
            )

    @functools.cached_property
    def _validation_dataset(self) -> mixtures.Dataset | None:
        """The dataset that `data.people_val` names, or None."""
        if not self.config.data.people_val:
            return None
        name, _, split = self.config.data.people_val.partition(":")
        datasets = mixtures.open_mixture(
            self.config.data.people, name, split or "val", self._rendered
        )
        if len(datasets) > 1:
            raise InputError(
                "--config.data.people_val",
                f"{name!r} is several datasets",
                "give one, such as threedpw:validation",
            )
        return datasets[0]

    def _rendered(self, split: str) -> mixtures.Records:
        """People of the pose corpus, each rendered when it is read."""
        data = self.config.data
        return Rendered(
            poses.load_corpus(data.poses, split, rare=data.rare_poses),
            split,
            self.config.seed,
            load_body(data.body),
            Backgrounds(data.backgrounds),
            on_device=data.render_on_device,
        )


def view_and_image_sources(
    config: ml_collections.ConfigDict, images: ImageRows
) -> dict[str, Source]:
    """The sources of a batch of simulated views ("views") and image rows ("images").

    A part of size 0 is left out.

    Args:
      config: of the stage: `batch_size`, `seed`, `data` are read.
      images: its image rows.
    """
    sources: dict[str, Source] = {}
    if config.batch_size:
        corpus = poses.load_corpus(config.data.poses, "train", rare=config.data.rare_poses)
        sources["views"] = poses.PoseSource(corpus, config.batch_size, config.seed)
    if images.size:
        sources["images"] = images.source()
    return sources


def view_and_image_shapes(
    config: ml_collections.ConfigDict, images: ImageRows
) -> dict[str, poses.PoseRows | Rows]:
    """The shapes of a batch of `view_and_image_sources`, without opening any data."""
    shapes: dict[str, poses.PoseRows | Rows] = {}
    if config.batch_size:
        shapes["views"] = poses.batch_shapes(config.batch_size)
    if images.size:
        shapes["images"] = images.shapes()
    return shapes


def with_maps(rows: Rows, encoder: str) -> Rows:
    """Photos with the maps of a frozen encoder in place of their pixels; other rows as they are."""
    found = encoders.find(encoder)
    if rows.images is None or found.trained:
        return rows
    pixels = rows.images.astype(jnp.float32) / 255.0
    maps = [m.astype(jnp.float16) for m in found.encode(pixels)]
    return dataclasses.replace(rows, images=None, maps=maps)


def rooted(joints: Float[Array, "B 24 3"], known: Float[Array, "B 24"]) -> Float[Array, "B 24 3"]:
    """Joints relative to the pelvis, or to the middle of the hips where the pelvis is unknown."""
    hips = jnp.mean(joints[:, 1:3], 1, keepdims=True)
    return joints - jnp.where(known[:, :1, None] > 0, joints[:, :1], hips)
