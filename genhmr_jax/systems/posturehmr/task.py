"""The training of the decoder (stage "posturehmr"), over a frozen 2D mesh stage."""

import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from flax import nnx
from jaxtyping import Array, Bool, Float

from genhmr_jax.geometry.metrics import distances
from genhmr_jax.io.errors import EXPORT_AGAIN, InputError, blamed_on
from genhmr_jax.io.model_folder import load_meta, load_params, save_params
from genhmr_jax.systems.posturehmr import coarse_body, mesh2d_task, objective, posture, reverse
from genhmr_jax.systems.posturehmr.mesh2d import Mesh2dEstimate
from genhmr_jax.systems.posturehmr.model import Decoder
from genhmr_jax.systems.posturehmr.samples import Sample, truth2d
from genhmr_jax.systems.posturehmr.spec import Mesh2dSpec, PostureSpec
from genhmr_jax.systems.posturehmr.stage_task import StageTask
from genhmr_jax.systems.posturehmr.system import KIND, PostureSystem
from genhmr_jax.systems.posturehmr.validation import groups_of
from genhmr_jax.train.task import Place
from genhmr_jax.train.validation import means, pose_errors


class Draw(NamedTuple):
    """The D steps of the reverse process that are trained for each of B rows, in their order.

    Attributes:
      number: (B, D) 0 .. T - 1: steps before it.
      rolled: (B,) whether the states of a row are the network's own, and not those of the forward
        process.
    """

    number: Float[Array, "B D"]
    rolled: Bool[Array, "B"]


class PostureTask(StageTask):
    """The loss of single steps of the reverse process (PostureHMR, eq. 7 and §3.4).

    Args:
      config: of stage "posturehmr".
      mesh2d: the sizes of the first stage.
      arrays: its parameters; without them the task can be compiled but not run.
    """

    part = "decoder"

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        mesh2d: Mesh2dSpec,
        arrays: Any = None,
    ):
        super().__init__(config, mesh2d)
        values = config.model.to_dict() | {"mesh2d": dataclasses.asdict(mesh2d)}
        self.spec = PostureSpec.from_dict(values)
        self.system = PostureSystem(self.spec)
        self.frozen |= {"mesh2d": arrays or self.system.shapes["mesh2d"]}

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        return nnx.to_pure_dict(nnx.split(Decoder(self.spec, rngs=nnx.Rngs(key)))[1]), {}

    def condition(self, frozen: Any, sample: Sample, is_true: Bool[Array, "B"]) -> Mesh2dEstimate:
        """What the first stage estimates, with the true 2D mesh in some rows."""
        estimate = reverse.mesh2d(self.spec.mesh2d, frozen["mesh2d"])(sample.inputs)
        truth = truth2d(frozen["coarse"], sample).vertices
        vertices = jnp.where(is_true[:, None, None], truth, estimate.vertices)
        return dataclasses.replace(estimate, vertices=vertices)

    def row_terms(self, params: Any, frozen: Any, sample: Sample) -> dict[str, Float[Array, "B"]]:
        """The means over the steps of each row that are trained."""
        coarse, spec = frozen["coarse"], self.spec
        decoder = reverse.decoder(spec, params)
        keys = jax.vmap(lambda key: jax.random.split(key, 3))(sample.key)
        # 1. What the picture gives, and the states T.
        share = self.config.training.true_mesh2d
        is_true = jax.vmap(lambda key: jax.random.bernoulli(key, share))(keys[:, 0])
        condition = self.condition(frozen, sample, is_true)
        first = posture.start(spec, coarse.mesh, keys[:, 1])
        # 2. Some steps of each row, one after the other. A row that is rolled out goes on from
        # the network's own mesh, with the velocity that was predicted there.
        draw = self._draw(keys[:, 2])
        box = sample.inputs.view.box_information()
        states = functools.partial(posture.state, spec, coarse.mesh, sample.person, first)
        shares = draw.number / spec.steps
        later = jnp.concatenate([shares[:, 1:], shares[:, -1:]], 1)

        def one(own: Float[Array, "B V 3"], at: tuple[Array, Array]) -> tuple[Array, Any]:
            now, next_now = at
            current = jnp.where(draw.rolled[:, None, None], own, states(now))
            velocity = decoder(current, now, condition, box, coarse.surface)
            target = states(now + 1 / spec.steps)
            found = objective.mesh_terms(
                velocity / spec.steps, current, target, coarse.faces, coarse.regressor
            )
            own = current + (next_now - now)[:, None, None] * velocity
            return jax.lax.stop_gradient(own), found

        _, terms = jax.lax.scan(one, first, (shares.T, later.T))
        return {name: jnp.mean(of_steps, 0) for name, of_steps in terms.items()}

    def _draw(self, keys: Array) -> Draw:
        """Steps of each row, spread evenly from a random one; all T if there are T draws.

        A row that is rolled out begins with the first step.
        """
        steps, config = self.spec.steps, self.config.training
        draws = config.steps_per_sample

        def one(key: Array) -> Draw:
            at = (jnp.arange(draws) + jax.random.uniform(key)) * steps / draws
            number = jnp.minimum(jnp.floor(at), steps - 1)
            rolled = jax.random.bernoulli(jax.random.fold_in(key, 1), config.rollout_prob)
            return Draw(number.at[0].set(jnp.where(rolled, 0, number[0])), rolled)

        return jax.vmap(one)(keys)

    @functools.cached_property
    def _measure(self):
        @functools.partial(jax.jit, static_argnames="true_mesh2d")
        def measure(
            params: Any, frozen: Any, sample: Sample, true_mesh2d: bool
        ) -> dict[str, jax.Array]:
            coarse, decoder = frozen["coarse"], reverse.decoder(self.spec, params)
            condition = self.condition(frozen, sample, jnp.full(len(sample.weight), true_mesh2d))
            first = posture.start(self.spec, coarse.mesh, sample.key)
            box = sample.inputs.view.box_information()
            steps = self.spec.steps
            mesh = reverse.run(decoder, first, condition, box, coarse.surface, steps)
            true = posture.posture(coarse.mesh, sample.person, jnp.ones(len(sample.weight)))
            found = pose_errors(coarse.regressor @ mesh, sample.joints, sample.weight)
            error = jnp.mean(distances(mesh, true), -1)
            return found | {"mpvpe": jnp.sum(sample.weight * 1000 * error)}

        return measure

    def evaluate(self, params: Any, extra: Any, frozen: Any, place: Place) -> dict[str, float]:
        """MPJPE, PA-MPJPE and MPVPE of the coarse mesh in mm, also from the true 2D mesh."""
        measured = {}
        for group, parts in groups_of(self.samples, frozen["coarse"], place).items():
            for true in (False, True)[: 1 + (self.spec.condition == "mesh2d")]:
                name = f"{group}_true_mesh2d" if true else group
                sums = [place.host(self._measure(params, frozen, part, true)) for part in parts]
                measured |= {f"{name}_{what}_mm": value for what, value in means(sums).items()}
        return measured

    def export(
        self, directory: pathlib.Path, params: Any, extra: Any, measured: dict[str, float]
    ) -> None:
        meta = {
            "kind": KIND,
            "spec": dataclasses.asdict(self.spec),
            "measured": measured,
            "body": self.config.data.body,
        }
        halves = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float16), tree)
        arrays = {
            "mesh2d": halves(self.frozen["mesh2d"]),
            self.part: halves(params),
            "body": coarse_body.to_params(self.frozen["coarse"]),
        }
        save_params(directory, arrays, meta)


def make_task(config: ml_collections.ConfigDict) -> PostureTask:
    """The task over the first stage in the folder `config.mesh2d`.

    Raises:
      InputError: another kind of model.
    """
    meta = load_meta(config.mesh2d)
    if meta.get("kind") not in (KIND, mesh2d_task.KIND):
        remedy = "give the model folder of a training of configs/mesh2d/cpu.py"
        raise InputError(config.mesh2d, "holds no 2D mesh stage", remedy)
    values = meta["spec"] if meta["kind"] == mesh2d_task.KIND else meta["spec"]["mesh2d"]
    with blamed_on(config.mesh2d, EXPORT_AGAIN):
        spec = Mesh2dSpec.from_dict(values)
    shapes = PostureTask(config, spec).system.shapes
    whole = {"mesh2d": shapes["mesh2d"]} if meta["kind"] == mesh2d_task.KIND else shapes
    return PostureTask(config, spec, load_params(config.mesh2d, whole)["mesh2d"])


def abstract_task(
    config: ml_collections.ConfigDict,
    mesh2d: ml_collections.ConfigDict,
    *_: ml_collections.ConfigDict,
) -> PostureTask:
    """The task with shapes in place of a trained first stage, of its config."""
    with blamed_on("--first-stage", "choose values that fit"):
        spec = mesh2d_task.spec_of(mesh2d)
    return PostureTask(config, spec)
