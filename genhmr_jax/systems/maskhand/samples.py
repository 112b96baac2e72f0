"""From a batch to training samples: hands in the axes of the network, tokens and masks.

A row is a simulated view of a corpus pose, or a stored row of a rendered hand, whose keypoints are
those of the detector.
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
from genhmr_jax.core.tokenizer import PoseTokenizer
from genhmr_jax.core.unrolling import MaskedTokens, masked_tokens
from genhmr_jax.data.hands import views
from genhmr_jax.data.rows import Rows
from genhmr_jax.geometry.hand import hand_keypoints
from genhmr_jax.geometry.hand_crop import upright_region
from genhmr_jax.nets.vit import drop_path_factors
from genhmr_jax.train.random_streams import stream


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sample:
    """B prepared rows. The labels are in the axes of the network.

    Attributes:
      inputs: what the system is given.
      rotmats, betas, weak_camera: of the true hands.
      keypoints: (B, 21, 3) metres from the wrist, true.
      points2d: (B, 21, 2) crop coordinates, true.
      joints: (B, 16, 3) the same, of the joints.
      masked: the tokens.
      weight: of each row in the loss; they sum to 1 in training.
    """

    inputs: Inputs
    rotmats: Float[Array, "B 16 3 3"]
    betas: Float[Array, "B S"]
    weak_camera: Float[Array, "B 3"]
    keypoints: Float[Array, "B 21 3"]
    joints: Float[Array, "B 16 3"]
    points2d: Float[Array, "B 21 2"]
    masked: MaskedTokens
    weight: Float[Array, "B"]


@dataclasses.dataclass(frozen=True)
class SampleMaker:
    """Makes the samples of a config.

    Attributes:
      config: of the stage: `seed`, `masking`, `data.view`, `drop_path` are read.
      vit_layers: number of layers of the image encoder, for stochastic depth; 0 if it is not a ViT.
      tokenizer: the frozen one, with its parameters.
      vectors: its code vectors.
      feedback: whether the model has feedback.
      hand: a keypoint model of a right hand.
    """

    config: ml_collections.ConfigDict
    vit_layers: int
    tokenizer: PoseTokenizer
    vectors: Float[Array, "N D"]
    feedback: bool
    hand: smpl_jax.SmplModel

    def prepare(self, batch: dict[str, Any]) -> dict[str, Sample]:
        """The samples of each part of a batch ("views": PoseRows, "images": Rows)."""
        seed, made = self.config.seed, {}
        if (part := batch.get("views")) is not None:
            rows = self.views(part.pose, part.number, stream(seed, "views"))
            made["views"] = self.sample(rows, _keys(stream(seed, "view_rows"), part.number))
        if (rows := batch.get("images")) is not None:
            keys = _keys(stream(seed, "image_rows"), rows.number)
            sample = self.sample(self._dropped(rows, keys), keys)
            made["images"] = self._with_drop_path(sample, keys)
        return made

    def _with_drop_path(self, sample: Sample, keys: Array) -> Sample:
        """A sample with the factors of stochastic depth."""
        if not (self.config.drop_path and self.vit_layers):
            return sample
        keys = jax.vmap(lambda key: jax.random.fold_in(key, 3))(keys)
        factors = drop_path_factors(keys, self.vit_layers, self.config.drop_path)
        inputs = dataclasses.replace(sample.inputs, drop_path=factors)
        return dataclasses.replace(sample, inputs=inputs)

    def views(self, poses: Float[Array, "B 48"], numbers: Array, base: Array) -> Rows:
        """Simulated views of poses."""
        spec = views.HandViewSpec(**self.config.data.view.to_dict())
        return views.make_hand_views(self.hand, poses, numbers, base, spec)

    def _dropped(self, rows: Rows, keys: Array) -> Rows:
        """Rows, a share of which lose their 3D keypoints, so that they are not required."""
        share = self.config.masking.drop_lifted
        # `sample` splits the key into three: the numbers 0 to 2 give the same keys.
        drop = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 4), share))(keys)
        lifted = jnp.where(drop[:, None, None], 0.0, rows.keypoints3d)
        return dataclasses.replace(rows, keypoints3d=lifted)

    def sample(self, rows: Rows, keys: Array, weight: Float[Array, "B"] | None = None) -> Sample:
        """A sample of rows.

        Args:
          keys: (B,), of its masks.
          weight: of each row; None: they are equal, and sum to 1.
        """
        rows = dataclasses.replace(rows, number=None)
        weight = losses.normalised(jnp.ones(rows.size)) if weight is None else weight
        # 1. The axes of the hand's region.
        view = dataclasses.replace(rows.view, region=upright_region(rows.keypoints))
        turn, own = upright(dataclasses.replace(rows, view=view).inputs())
        labels = rows.turned(turn, own.view)
        output = smpl_jax.forward(self.hand, labels.betas, labels.rotmats)
        points = hand_keypoints(self.hand, output)
        # 2. Tokens, and the visible ones of them.
        tokens = self.tokenizer.tokenize(self.vectors, labels.rotmats)
        threes = jax.vmap(lambda key: jax.random.split(key, 3))(keys)
        how = self.config.masking, self.vectors.shape[0], weight
        return Sample(
            inputs=own,
            rotmats=labels.rotmats,
            betas=labels.betas,
            weak_camera=labels.weak_camera,
            keypoints=points - points[:, :1],
            joints=output.joints - output.joints[:, :1],
            points2d=own.view.to_crop(labels.points2d),
            masked=masked_tokens(threes, tokens, *how, unroll=self.feedback),
            weight=weight,
        )


def _keys(base: Array, numbers: Array) -> Array:
    """(B,) random keys of rows, which follow from the seed and each row's number."""
    return jax.vmap(lambda number: jax.random.fold_in(base, number))(numbers)
