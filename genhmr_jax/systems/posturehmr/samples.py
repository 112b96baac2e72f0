"""From a batch to training samples of both stages: inputs and labels in the upright axes.

A row is a simulated view of a corpus pose, which has keypoints and no image, or a stored row of a
rendered person (data/features.py), which has both.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import smpl_jax
from jaxtyping import Array, Float

from genhmr_jax.core import losses
from genhmr_jax.core.inputs import Inputs, upright
from genhmr_jax.data import views
from genhmr_jax.data.image_rows import (
    ImageRows,
    view_and_image_shapes,
    view_and_image_sources,
)
from genhmr_jax.data.rows import Rows
from genhmr_jax.io.errors import InputError
from genhmr_jax.systems.posturehmr.coarse_body import CoarseBody
from genhmr_jax.systems.posturehmr.posture import Person
from genhmr_jax.train.random_streams import stream


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sample:
    """B rows in the upright axes.

    Attributes:
      inputs: what the system is given.
      person: the true bodies.
      translation: (B, 3) metres, of the model origin.
      joints: (B, 24, 3) metres, true, relative to the pelvis.
      weight: (B,) of each row; in training the sum is 1.
      key: (B,) for the draws of the objective.
    """

    inputs: Inputs
    person: Person
    translation: Float[Array, "B 3"]
    joints: Float[Array, "B 24 3"]
    weight: Float[Array, "B"]
    key: Array

    def projected(self, points: Float[Array, "B N 3"]) -> Float[Array, "B N 2"]:
        """Crop coordinates of points of the true bodies, relative to the model origin."""
        view = self.inputs.view
        return view.to_crop(view.project(points + self.translation[:, None]))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Truth2d:
    """The true points (B, P, 2) and 2D mesh (B, C, 2) of a sample, crop coordinates."""

    points: Float[Array, "B P 2"]
    vertices: Float[Array, "B C 2"]


def truth2d(coarse: CoarseBody, sample: Sample) -> Truth2d:
    """The labels of the first stage."""
    output = smpl_jax.forward(coarse.body, sample.person.betas, sample.person.rotmats)
    vertices = output.vertices[:, : coarse.mesh.num_vertices]
    return Truth2d(sample.projected(coarse.points(output)), sample.projected(vertices))


@dataclasses.dataclass(frozen=True)
class Samples:
    """The rows of a config, and the samples that are made of them.

    Attributes:
      config: of a stage: `seed`, `batch_size`, `image_batch_size`, `evaluate_poses`, `data`.
      encoder: of core/encoders.py, or "none".

    Raises:
      InputError: the config names photos in place of stored rows.
    """

    config: ml_collections.ConfigDict
    encoder: str

    def __post_init__(self) -> None:
        data = self.config.data
        if self.config.image_batch_size and not data.images:
            remedy = "give --config.data.images=DIR of python -m genhmr_jax.data.features"
            raise InputError("--config.data.images", "is empty", remedy)

    @property
    def images(self) -> ImageRows:
        """The stored rows."""
        return ImageRows(self.config, self.encoder)

    @property
    def view(self) -> views.ViewSpec:
        """How views are simulated."""
        return views.ViewSpec(**self.config.data.view.to_dict())

    def sources(self) -> dict[str, Any]:
        """See train.task.Task."""
        return view_and_image_sources(self.config, self.images)

    def batch_shapes(self) -> dict[str, Any]:
        """See train.task.Task."""
        return view_and_image_shapes(self.config, self.images)

    def prepare(self, coarse: CoarseBody, batch: dict[str, Any]) -> dict[str, Sample]:
        """The samples of each part of a batch ("views": PoseRows, "images": Rows)."""
        seed, made = self.config.seed, {}
        if (part := batch.get("views")) is not None:
            base = stream(seed, "views")
            rows = views.make_views(coarse.body, part.pose, part.number, base, self.view)
            keys = _keys(stream(seed, "view_rows"), part.number)
            made["views"] = sample_of(rows, keys, losses.normalised(jnp.ones(rows.size)))
        if (rows := batch.get("images")) is not None:
            keys = _keys(stream(seed, "image_rows"), rows.number)
            rows = dataclasses.replace(rows, number=None)
            made["images"] = sample_of(rows, keys, losses.normalised(jnp.ones(rows.size)))
        return made


def _keys(base: Array, numbers: Array) -> Array:
    """(B,) random keys of rows, which follow from the seed and each row's number."""
    return jax.vmap(lambda number: jax.random.fold_in(base, number))(numbers)


def sample_of(rows: Rows, keys: Array, weight: Float[Array, "B"]) -> Sample:
    """A sample of rows that carry every label; `keys` and `weight` are its fields."""
    inputs = rows.inputs()
    turn, own = upright(inputs)
    labels = rows.turned(turn, own.view)
    return Sample(
        inputs=own,
        person=Person(labels.rotmats, labels.betas),
        translation=own.view.translation(labels.weak_camera),
        joints=labels.joints - labels.joints[:, :1],
        weight=weight,
        key=keys,
    )
