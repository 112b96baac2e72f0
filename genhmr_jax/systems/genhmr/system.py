"""GenHMR as a core.system.System: encode, sample tokens, decode them with the frozen tokenizer.

All functions but `prepare` are pure and can be jitted. `params` is {"genhmr", "tokenizer",
"codebook": {"vectors"}}.
"""

import dataclasses
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import smpl_jax
from jaxtyping import Array, Float, Int

from genhmr_jax.core import confidence, sampling
from genhmr_jax.core.choices import DECODE_RULES
from genhmr_jax.core.feedback import DetectedKeypoints, Estimate
from genhmr_jax.core.inputs import Inputs, repeated, turned, upright
from genhmr_jax.core.preparation import AroundKeypoints
from genhmr_jax.core.refinement import Parts, RefineSpec
from genhmr_jax.core.steps import Steps
from genhmr_jax.core.system import Latents, Params
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import normalize_keypoints
from genhmr_jax.io.program_store import remembered_shapes
from genhmr_jax.systems.genhmr.names import ASSIGNMENTS, BODY_FORM, reassigned
from genhmr_jax.systems.genhmr.spec import GenHmrSpec

if TYPE_CHECKING:
    from genhmr_jax.systems.genhmr.model import Encoded

KIND = "genhmr"


@dataclasses.dataclass(frozen=True)
class GenHmrSystem(AroundKeypoints):
    """The networks of a spec, without arrays.

    Attributes:
      spec: architecture and sizes.
      remat: "none" or "blocks" (nets/remat.py), in training.
      frozen_layers: number of first layers of the encoder without gradient, in training.
    """

    spec: GenHmrSpec
    remat: str = "none"
    frozen_layers: int = 0

    kind = KIND
    samples = True
    refinement = RefineSpec()

    def default_iterations(self, hypotheses: int) -> int:
        """See core.system.System.

        Without feedback more iterations only increase the error of one answer, and hypotheses have
        those of the paper. With it, fewer tokens of a hypothesis are drawn, and not expected, the
        fewer iterations there are (docs/experiments.md).
        """
        if self.spec.feedback:
            return 2 if hypotheses > 1 else 3
        return 5 if hypotheses > 1 else 1

    @property
    def shapes(self) -> Params:
        """The shapes of the parameters."""
        return remembered_shapes(KIND, self.spec, lambda: _networks().graphs(self.spec)[2])

    @property
    def pose_parts(self) -> Parts | None:
        """Those of the tokenizer."""
        return self.spec.tokenizer.independent_parts

    @property
    def contexts(self) -> tuple[str, ...]:
        """Those of core.choices.CONTEXTS that the model supports."""
        image = ["image"] if self.spec.encoder_channels else []
        return ("all", *image, *(["keypoints"] if self.spec.num_keypoints else []))

    @property
    def encoder(self) -> str | None:
        """See core.system.StoredSystem."""
        return self.spec.encoder if self.spec.encoder_channels else None

    def encode(self, params: Params, inputs: Inputs) -> "Encoded":
        """The inputs in the network's axes, and the image's values; see core.system.System."""
        rows = inputs.rows
        own, turn = inputs, None
        if self.spec.upright:
            turn, own = upright(inputs)
        keypoints = keypoints3d = jnp.zeros((rows, self.spec.num_keypoints, 3))
        if self.spec.num_keypoints:
            keypoints = normalize_keypoints(own.keypoints, own.view)
            if own.keypoints3d is not None:
                keypoints3d = own.keypoints3d
        detected = DetectedKeypoints(own.view, keypoints, keypoints3d)
        return (
            _networks()
            .network(self.spec, params)
            .encode(
                detected,
                inputs.view,
                turn,
                own.maps,
                own.image_weight,
                own.images,
                drop_path=own.drop_path,
                remat=self.remat,
                frozen_layers=self.frozen_layers,
            )
        )

    def logits(
        self, params: Params, tokens: Int[Array, "B L"], encoded: "Encoded"
    ) -> Float[Array, "B L N"]:
        """Logits of every token, given the visible ones (mask id where masked).

        Of a model without feedback; `steps` serves both.
        """
        network = _networks().network(self.spec, params)
        codes = network.transformer.codes(params["codebook"]["vectors"])
        return network.logits(tokens, codes, encoded, remat=self.remat)

    def steps(
        self,
        params: Params,
        body: smpl_jax.SmplModel,
        encoded: "Encoded",
        assignment: Int[Array, "B"] | None = None,
    ) -> Steps:
        """The steps of sampling for encoded people.

        Args:
          params, body, encoded: see `sample`.
          assignment: one of ASSIGNMENTS, for other names of the detected keypoints.
        """
        network, vectors = _networks().network(self.spec, params), params["codebook"]["vectors"]
        given, rows = encoded, encoded.detected.keypoints.shape[0]
        number = jnp.zeros(rows, jnp.int32) if assignment is None else assignment
        if assignment is not None:
            renamed = reassigned(encoded.detected, assignment)
            given = dataclasses.replace(encoded, detected=renamed)
        return Steps(
            form=BODY_FORM,
            sizes=self.spec.tokenizer,
            has_feedback=self.spec.feedback,
            network=network,
            decode=self.decoding(params),
            vectors=vectors,
            codes=network.transformer.codes(vectors),
            body=body,
            encoded=encoded,
            given=given,
            flags=jax.nn.one_hot(number, len(ASSIGNMENTS)),
            remat=self.remat,
        )

    def sample(
        self,
        params: Params,
        body: smpl_jax.SmplModel,
        encoded: "Encoded",
        keys: Array,
        *,
        iterations: Any = 5,
        temperature: Any = 0.0,
        hypotheses: int = 1,
        rule: str | None = None,
        schedule: str = "cosine",
    ) -> Latents:
        """Uncertainty-guided sampling (core/sampling.py).

        A model with feedback also tries other names for the keypoints: left and right swapped, of
        the whole person or of the legs. So an answer does not depend on whether the detector mixed
        them up, if the scorer can tell. One answer is the best of these three. Of several
        hypotheses the second and the third have the other names.

        Args:
          rule: "hard" decodes the sampled codes. "expected" decodes, for each token, the expected
            embedding of the step in which it was kept. "final" decodes the expected embeddings of
            the last step, so that early tokens are revised given all later ones. "committed"
            decodes the codes of the tokens that were kept before the last step, and the expected
            embeddings of the others. None means the rule of the smallest error: "final" with
            feedback and else "expected" for one answer, and "committed" or "hard" for hypotheses,
            which must differ.
          schedule: one of core.choices.SCHEDULES.

        Raises:
          ValueError: unknown rule or schedule.
        """
        distinct = hypotheses > 1
        if rule is None:
            rules = ("final", "committed") if self.spec.feedback else ("expected", "hard")
            rule = rules[distinct]
        if rule not in DECODE_RULES:
            known = ", ".join(DECODE_RULES)
            raise ValueError(f"unknown decode rule {rule!r}: choose among {known}")
        # 1. The rows: the candidates of one answer, or the hypotheses.
        rows, assignment, names = keys.shape[0], None, len(ASSIGNMENTS)
        candidates = 1
        if self.spec.feedback and self.spec.num_keypoints:
            candidates = 1 if distinct else names
            number = jnp.arange(hypotheses if distinct else names, dtype=jnp.int32)
            number = jnp.where(number < names, number, 0)
            assignment = jnp.tile(number, rows // hypotheses if distinct else rows)
            encoded, keys = repeated((encoded, keys), candidates)
        # 2. The tokens.
        steps = self.steps(params, body, encoded, assignment)
        if rule == "committed":
            iterations = jnp.maximum(iterations, 2)  # one iteration commits no token
        how = {"iterations": iterations, "temperature": temperature, "schedule": schedule}
        if self.spec.feedback:
            how["feedback"] = steps.feedback(commit=rule in ("committed", "hard"))
        vectors, length = params["codebook"]["vectors"], self.spec.tokenizer.length
        samples = sampling.sample(steps.logits, vectors, keys, length, **how)
        embeddings = vectors[samples.tokens] if rule == "hard" else getattr(samples, rule)
        # 3. The answer and its score.
        state = samples.state if self.spec.feedback else steps.start()
        # With feedback the last step has decoded its own estimate.
        if not self.spec.feedback or rule in ("hard", "expected"):
            state = steps.decoded(embeddings, state)
        estimate = state.estimate
        latents = Latents(
            embeddings,
            estimate.betas,
            self.photo_camera(encoded, estimate),
            samples.tokens,
            samples.first,
        )
        if not self.spec.feedback:
            return latents
        score = steps.score(estimate)
        near = jax.nn.sigmoid(score.near[..., -1])
        expected = jnp.sum(jnp.exp(score.log_error), -1)
        latents = dataclasses.replace(latents, near=near, expected_error=expected)
        return _best(latents, candidates) if candidates > 1 else latents

    def trace(
        self,
        params: Params,
        body: smpl_jax.SmplModel,
        encoded: "Encoded",
        keys: Array,
        *,
        iterations: int,
    ) -> Latents:
        """See core.system.TracedSystem; the keypoints keep their detected names."""
        from genhmr_jax.systems.genhmr import trace

        return trace.trace(self, params, body, encoded, keys, iterations)[0]

    def photo_camera(self, encoded: "Encoded", estimate: Estimate) -> Float[Array, "B 3"]:
        """The weak camera of an estimate, in the photo's crop."""
        if encoded.turn is None:
            return estimate.weak_camera
        return encoded.photo.weak_of_upright(estimate.weak_camera, estimate.joints[:, 0])

    def pose(
        self, params: Params, view: CropCamera
    ) -> Callable[[Float[Array, "B L D"]], Float[Array, "B 24 3 3"]]:
        """From embeddings to rotation matrices, by the tokenizer; see core.system.System."""
        decode = self.decoding(params)
        if not self.spec.upright:
            return decode
        return turned(decode, view.upright()[0])

    def decoding(
        self, params: Params
    ) -> Callable[[Float[Array, "B L D"]], Float[Array, "B 24 3 3"]]:
        """As `pose`, but with the root rotation in the axes of the network's inputs."""
        return _networks().tokenizer(self.spec, params).decoding()

    def confidence(
        self,
        params: Params,
        latents: Latents,
        body: smpl_jax.SmplModel,
        rotmats: Float[Array, "B 24 3 3"],
        keys: Array,
    ) -> Float[Array, "B 24"]:
        """Probability that each joint is within confidence.NEAR of the truth.

        A model with feedback has learned it. Otherwise it follows from the spread of the network's
        own samples (confidence.of_spread).

        Args:
          latents: of `sample`.
          body: a keypoint model, for its joints.
          rotmats: the answer.
          keys: (B,), one for each row.
        """
        if latents.near is not None:
            return latents.near
        how = (self.decoding(params), params["codebook"]["vectors"], latents.logits)
        return confidence.of_spread(*how, body, latents.betas, rotmats, keys)


def _best(latents: Latents, candidates: int) -> Latents:
    """Of `candidates` adjacent rows the one with the smallest expected error."""
    best = jnp.argmin(latents.expected_error.reshape(-1, candidates), 1)

    def pick(x: jax.Array) -> jax.Array:
        x = x.reshape(-1, candidates, *x.shape[1:])
        return jnp.take_along_axis(x, best.reshape(-1, *[1] * (x.ndim - 1)), 1)[:, 0]

    return jax.tree.map(pick, latents)


def _networks() -> types.ModuleType:
    """The module of the networks: with stored programs it is not imported, nor is flax."""
    from genhmr_jax.systems.genhmr import model

    return model


def make_system(spec: dict[str, Any]) -> GenHmrSystem:
    """The system of the spec in a model's config.json; for systems/registry.py."""
    return GenHmrSystem(GenHmrSpec.from_dict(spec))
