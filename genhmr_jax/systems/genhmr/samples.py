"""Stage 2, from a batch to training samples: detector errors, hidden contexts, tokens and masks.

A row of a batch is a simulated view of a corpus pose, or a person in an image. `prepare` makes both
look like what a detector gives, hides the keypoints or the image of some rows, tokenizes the pose,
and masks a random share of the tokens.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import smpl_jax
from jaxtyping import Array, Float, Int

from genhmr_jax.core import losses
from genhmr_jax.core.inputs import Inputs
from genhmr_jax.core.masking import ratio_bins
from genhmr_jax.core.unrolling import MaskedTokens, masked_tokens
from genhmr_jax.data import turns, views
from genhmr_jax.data.image_rows import with_maps
from genhmr_jax.data.poses import PoseRows
from genhmr_jax.data.rows import Known, Rows
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_points
from genhmr_jax.nets.vit import VitSpec, drop_path_factors
from genhmr_jax.systems.genhmr.model import tokenizer as tokenizer_of
from genhmr_jax.systems.genhmr.system import GenHmrSystem
from genhmr_jax.train.random_streams import stream


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Targets:
    """What the network must predict of B rows, and how much each row weighs.

    Attributes:
      masked: the tokens.
      weights: of each row in the other terms; each label's sum to 1 over the rows that carry it.
      bins: of the row's mask ratio (core.masking.ratio_bins), for the accuracy by ratio.
      noise_key: (B,), for the straight-through sample.
      assignment: of names.ASSIGNMENTS but the first, for the estimate that the scorer must tell
        from the right one.
    """

    masked: MaskedTokens
    weights: Known
    bins: Float[Array, "B R"]
    noise_key: Array
    assignment: Int[Array, "B"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sample:
    """Prepared rows. image_weight, drop_path: as in core.inputs.Inputs."""

    rows: Rows
    targets: Targets
    image_weight: Float[Array, "B"] | None = None
    drop_path: Float[Array, "B depth 2"] | None = None

    @property
    def inputs(self) -> Inputs:
        """What the system is given."""
        return self.rows.inputs(image_weight=self.image_weight, drop_path=self.drop_path)


@dataclasses.dataclass(frozen=True)
class SampleMaker:
    """Makes the samples of a config.

    Attributes:
      config: of the stage: `seed`, `masking`, `drop_path` are read.
      system: its networks; `frozen` has the arrays of its tokenizer and a keypoint model "body".
      are_photos: whether image rows are photos, whose keypoints are labels, and not stored rows,
        whose keypoints are detected.
      view, turn: the errors of a detector, and the augmentation of stored rows.
    """

    config: ml_collections.ConfigDict
    system: GenHmrSystem
    are_photos: bool
    view: views.ViewSpec
    turn: turns.TurnSpec

    def prepare(self, frozen: Any, batch: dict[str, Any]) -> dict[str, Sample]:
        """The samples of each part of a batch ("views": PoseRows, "images": Rows)."""
        makers = {"views": self._of_views, "images": self._of_images}
        return {name: makers[name](frozen, part) for name, part in batch.items()}

    def _of_views(self, frozen: Any, poses: PoseRows) -> Sample:
        keys = self._keys("view_rows", poses.number)
        of_views = stream(self.config.seed, "views")
        rows = views.make_views(frozen["body"], poses.pose, poses.number, of_views, self.view)
        return Sample(rows, self._targets(frozen, rows, keys))

    def _of_images(self, frozen: Any, rows: Rows) -> Sample:
        spec, config = self.system.spec, self.config
        keys = self._keys("image_rows", rows.number)
        rows = dataclasses.replace(rows, number=None)
        if self.are_photos:
            rows = self._as_detected(frozen, self.encoded(rows), keys[:, 3])
        elif not spec.encoder_channels:
            turn = lambda row, key: turns.turn_row(row, jax.random.fold_in(key, 2), self.turn)
            rows = jax.vmap(turn)(rows, keys[:, 3])
        rows, image_weight = self._drop_contexts(rows, keys[:, 3])
        drop_path = None
        if config.drop_path and spec.trains_encoder:
            depth = VitSpec.named(spec.encoder).depth
            drop_path = drop_path_factors(keys[:, 4], depth, config.drop_path)
        return Sample(rows, self._targets(frozen, rows, keys), image_weight, drop_path)

    def _keys(self, name: str, numbers: Array) -> Array:
        """(B, 6) random keys of rows, which follow from the seed and each row's number."""
        base = stream(self.config.seed, name)
        return jax.vmap(lambda n: jax.random.split(jax.random.fold_in(base, n), 6))(numbers)

    def encoded(self, rows: Rows) -> Rows:
        """Photos -> the maps of a frozen encoder; rows of another form stay as they are."""
        spec = self.system.spec
        if not spec.encoder_channels:
            return dataclasses.replace(rows, images=None)
        return with_maps(rows, spec.encoder)

    def _as_detected(self, frozen: Any, rows: Rows, keys: Array) -> Rows:
        """Photos whose labelled keypoints get a detector's errors, like those of simulated views.

        Keypoints in 3D are made where the pose is known.
        """
        known = rows.keypoints[..., 2:] > 0
        points = jnp.where(known, rows.keypoints[..., :2], rows.view.crop[:, None, :2])

        def noisy(points: Array, side: Array, key: Array) -> Array:
            return views.detector_noise(points, side, jax.random.fold_in(key, 1), self.view)

        keypoints = jax.vmap(noisy)(points, rows.view.crop[:, 2], keys)
        rows = dataclasses.replace(rows, keypoints=jnp.where(known, keypoints, 0.0))
        if not self.system.spec.num_keypoints:
            return rows
        output = smpl_jax.forward(frozen["body"], rows.betas, rows.rotmats)
        scale = rows.view.translation(rows.weak_camera)[:, 2] / rows.view.focal

        def lifted_one(points3d, points, keypoints, scale, key):
            names = views.assigned_names(jax.random.fold_in(key, 1), self.view)
            shift = views.detected_shift(keypoints, points[names], scale)
            lift_key = jax.random.fold_in(key, 3)
            return views.lifted_keypoints(points3d[names], shift, lift_key, self.view)

        points3d = keypoint_points(frozen["body"], output, DETECTED)
        lifted = jax.vmap(lifted_one)(points3d, points, rows.keypoints, scale, keys)
        known = rows.labels.rotation[:, None, None] > 0
        return dataclasses.replace(rows, keypoints3d=jnp.where(known, lifted, 0.0))

    def _drop_contexts(self, rows: Rows, keys: Array) -> tuple[Rows, Float[Array, "B"]]:
        """Hides the keypoints of some rows and the image of others, never both.

        So one model works with either and with both.

        Returns:
          the rows, and the weight of each image.
        """
        masking = self.config.masking

        def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            # The detector's errors have the keys of the numbers 0 to 3, as `split` has.
            k = jax.random.split(jax.random.fold_in(key, 4))
            drop = jax.random.bernoulli(k[0], masking.drop_keypoints)
            return drop, jax.random.bernoulli(k[1], masking.drop_image) & ~drop

        no_keypoints, no_image = jax.vmap(draw)(keys)
        hide = lambda x: None if x is None else jnp.where(no_keypoints[:, None, None], 0.0, x)
        hidden = {"keypoints": hide(rows.keypoints), "keypoints3d": hide(rows.keypoints3d)}
        return dataclasses.replace(rows, **hidden), 1.0 - no_image.astype(jnp.float32)

    def _targets(self, frozen: Any, rows: Rows, keys: Array) -> Targets:
        """Tokens, the visible ones of them, and the weights of every term."""
        # 1. Tokens of the true pose, in the axes of the network's inputs.
        tokenizer = tokenizer_of(self.system.spec, frozen)
        rotmats = rows.rotmats
        if self.system.spec.upright:
            turn = rows.inputs().view.upright()[0]
            rotmats = rotmats.at[:, 0].set(turn.mT @ rotmats[:, 0])
        tokens = tokenizer.tokenize(frozen["codebook"]["vectors"], rotmats)
        # 2. Mask a random share; with feedback some rows continue from the network's own guesses.
        how = self.system.spec.tokenizer.codebook_size, rows.labels.rotation
        pick = keys[:, jnp.array([0, 1, 5])]
        unroll = self.system.spec.feedback
        masked = masked_tokens(pick, tokens, self.config.masking, *how, unroll=unroll)
        other = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys[:, 5])
        return Targets(
            masked=masked,
            weights=jax.tree.map(losses.normalised, rows.labels),
            bins=ratio_bins(masked.mask),
            noise_key=keys[:, 2],
            assignment=jax.vmap(lambda key: 1 + jax.random.randint(key, (), 0, 2))(other),
        )
