"""What the stages of lifters share: losses, validation and export (detect/lifter_net.py)."""

import abc
import dataclasses
import functools
import pathlib
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import ml_collections
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.data.feature_set import StoredSet
from genhmr_jax.detect import trunks
from genhmr_jax.detect.lifter import LifterSpec
from genhmr_jax.detect.lifter_net import Form, LifterHead
from genhmr_jax.io.model_folder import save_params
from genhmr_jax.io.quantised import quantised
from genhmr_jax.train.random_streams import stream
from genhmr_jax.train.task import Place, Task
from genhmr_jax.train.validation import ROWS, means, pose_errors

MOST_2D = 0.2
"""Sides of the region at which the 2D error of a keypoint is clipped."""
R = TypeVar("R")
Points = tuple[Float[Array, "B K 2"], Float[Array, "B K 3"]]
"""Keypoints in sides of the region from its middle, and in metres from the root, in its axes."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sample(Generic[R]):
    """B prepared rows.

    Attributes:
      rows: the outputs of the pose network.
      points2d: true keypoints in sides of the region from its middle, in its axes.
      points3d: metres from the root, in the axes of the region.
      keys: (B,), for dropout.
      weight: of each row; they sum to 1.
    """

    rows: R
    points2d: Float[Array, "B K 2"]
    points3d: Float[Array, "B K 3"]
    keys: Array
    weight: Float[Array, "B"]


class LiftingTask(Task, abc.ABC, Generic[R]):
    """L1 of the keypoints in 2D (sides of the region) and in 3D (metres).

    A stage adds `rows_of`, `batch_of`, `truth`, `detected` and `lifted`.

    Attributes:
      kind: of the model folder.
      form: of the head and the trunk.
      detector: name of the pose network in the printed errors.
    """

    kind: str
    form: Form
    detector: str

    def __init__(self, config: ml_collections.ConfigDict):
        self.config = config
        self.spec = LifterSpec(**config.model.to_dict())
        self.frozen = {"network": self.form.trunk.own_weights()}

    @abc.abstractmethod
    def rows_of(self, folder: pathlib.Path) -> StoredSet[R]:
        """The rows of a split."""

    @abc.abstractmethod
    def batch_of(self, size: int) -> R:
        """A training batch as ShapeDtypeStructs."""

    @abc.abstractmethod
    def truth(self, frozen: Any, rows: R) -> Points:
        """The true keypoints."""

    @abc.abstractmethod
    def detected(self, rows: R) -> Points:
        """The keypoints of the pose network."""

    @abc.abstractmethod
    def lifted(self, head: Any, trunk: dict[str, Array], rows: R, keys: Array | None) -> tuple:
        """The lifter's outputs: keypoints in 2D and 3D, expected errors, and others."""

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        """New parameters, whose first answer is the pose network's own."""
        _, state = nnx.split(LifterHead(self.form, self.spec, rngs=nnx.Rngs(key)))
        head = nnx.to_pure_dict(state)
        head["mlp"]["out"]["kernel"] = 0.01 * head["mlp"]["out"]["kernel"]
        shapes = self.form.trunk.change_shapes()
        return {"head": head, "trunk": jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)}, {}

    def stored(self, split: str) -> StoredSet[R]:
        """The rows of "train" or "val". Raises InputError: there is no such finished set."""
        return self.rows_of(pathlib.Path(self.config.data.images) / split)

    def sources(self) -> dict[str, Any]:
        _ = self.stored("val")  # a run with missing data stops at its start
        return {"images": self.stored("train").source(self._size, self.config.seed)}

    def batch_shapes(self) -> dict[str, Any]:
        return {"images": self.batch_of(self._size)}

    @property
    def _size(self) -> int:
        """Rows of a batch."""
        return self.config.image_batch_size

    def prepare(self, frozen: Any, batch: dict[str, R]) -> Sample[R]:
        rows = batch["images"]
        base = stream(self.config.seed, "augmentation")
        keys = jax.vmap(lambda number: jax.random.fold_in(base, number))(rows.number)
        weight = jnp.full(rows.size, 1.0 / rows.size)
        return Sample(rows, *self.truth(frozen, rows), keys, weight)

    def loss(
        self, params: Any, extra: Any, frozen: Any, sample: Sample[R]
    ) -> tuple[jax.Array, dict[str, Any]]:
        found = self._lift(params, frozen, sample.rows, sample.keys)
        points2d, points3d, spread = found[:3]
        gap2d = jnp.minimum(jnp.abs(points2d - sample.points2d), MOST_2D)
        gap3d = jnp.abs(points3d - sample.points3d)
        # Minus the logarithm of Laplace's density, which the expected error minimises.
        error = jax.lax.stop_gradient(jnp.mean(gap2d, -1))
        density = error / spread + jnp.log(spread)
        terms = {
            "points2d": jnp.sum(sample.weight * jnp.mean(gap2d, (1, 2))),
            "points3d": jnp.sum(sample.weight * jnp.mean(gap3d, (1, 2))),
            "spread2d": jnp.sum(sample.weight * jnp.mean(density, 1)),
        }
        total = sum(self.config.loss[name] * value for name, value in terms.items())
        return total, {"terms": terms, "metrics": {}, "carry": {}}

    def _lift(self, params: Any, frozen: Any, rows: R, keys: Array | None = None) -> tuple:
        trunk = trunks.changed(frozen["network"], params["trunk"])
        return self.lifted(params["head"], trunk, rows, keys)

    @functools.cached_property
    def _measure(self):
        @jax.jit
        def measure(params: Any, frozen: Any, rows: R) -> dict[str, jax.Array]:
            true2d, true3d = self.truth(frozen, rows)
            answers = {
                "": self._lift(params, frozen, rows)[:2],
                f"{self.detector}_": self.detected(rows),
            }
            sums = {}
            for name, (points2d, points3d) in answers.items():
                gap2d = jnp.linalg.norm(points2d - true2d, axis=-1)
                errors = pose_errors(points3d, true3d, rows.weight)
                errors["keypoints2d"] = jnp.sum(rows.weight * 100 * jnp.median(gap2d, -1))
                sums[ROWS] = errors.pop(ROWS)
                sums |= {name + error: value for error, value in errors.items()}
            return sums

        return measure

    def evaluate(self, params: Any, extra: Any, frozen: Any, place: Place) -> dict[str, float]:
        """Errors of the lifter, and of the pose network itself, on validation rows.

        MPJPE and PA-MPJPE of the keypoints in mm, and the mean of each row's median error in 2D,
        in % of the region's side.
        """
        batches = self.stored("val").all_batches(self._size)
        sums = [place.host(self._measure(params, frozen, place(rows))) for rows in batches]
        return {f"val_{name}": value for name, value in means(sums).items()}

    def export(
        self, directory: pathlib.Path, params: Any, extra: Any, measured: dict[str, float]
    ) -> None:
        meta = {"kind": self.kind, "spec": dataclasses.asdict(self.spec), "measured": measured}
        save_params(directory, quantised(params), meta)
