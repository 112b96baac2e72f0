"""MaskHand as a core.system.System of hands: encode, sample tokens, decode them.

All hands are right hands: `prepare` mirrors the inputs of left ones, and recover/hands.py mirrors
the answers back. `params` is {"maskhand", "tokenizer", "codebook": {"vectors"}}.
"""

import dataclasses
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Float

from genhmr_jax.core import confidence, sampling
from genhmr_jax.core.feedback import DetectedKeypoints
from genhmr_jax.core.inputs import Inputs, turned, upright
from genhmr_jax.core.refinement import Parts, RefineSpec
from genhmr_jax.core.steps import Steps
from genhmr_jax.core.system import Latents, Params, PhotoCamera
from genhmr_jax.detect.hands import Hands
from genhmr_jax.geometry import camera
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.hand import mirror_pixels, mirror_points
from genhmr_jax.geometry.hand_crop import upright_region
from genhmr_jax.geometry.keypoints import normalize_keypoints
from genhmr_jax.io.program_store import remembered_shapes
from genhmr_jax.systems.maskhand.spec import HAND_FORM, MaskHandSpec

if TYPE_CHECKING:
    from genhmr_jax.systems.maskhand.model import Encoded

KIND = "maskhand"
EXACT = RefineSpec()
"""Settings of the refinement for keypoints that are known well."""


@dataclasses.dataclass(frozen=True)
class MaskHandSystem:
    """The networks of a spec, without arrays.

    Attributes:
      spec: architecture and sizes.
      remat: "none", "products" or "blocks" (nets/remat.py), in training.
      frozen_layers: number of first layers of a ViT without gradient, in training.
    """

    spec: MaskHandSpec
    remat: str = "none"
    frozen_layers: int = 0

    kind = KIND
    needs_box = False
    samples = True
    # The detected keypoints of a hand are 4 % of the crop off: a weaker prior follows their errors
    # (docs/experiments.md). EXACT is for keypoints that the user gives.
    refinement = RefineSpec(prior_pose=0.064)

    def default_iterations(self, hypotheses: int) -> int:
        """See core.system.System.

        Without feedback hypotheses have the paper's five. One answer decodes expected embeddings,
        whose error only grows with more iterations. With feedback three have the smallest error on
        validation hands (the model card), and hypotheses have as many as those of GenHMR.
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
        return ("all", "keypoints") if self.spec.encoder else ("all",)

    def prepare(self, image: np.ndarray, hands: Hands, photo: PhotoCamera, rows: int) -> Inputs:
        """Prepare the inputs of the hands of one photo, on the host.

        Those of left hands are of the mirror image, about the vertical line through the principal
        point.

        Args:
          image: uint8 (H, W, 3), RGB; only a model with a ViT reads it.
          hands: keypoints of confidence 0 count as not detected; keypoints3d or features that are
            all zero are not known.
          photo: its camera.
          rows: number of rows to return, at least the number of hands; those after the hands are
            empty.
        """
        # 1. Keypoints of right hands, and their region.
        count, middle = len(hands), photo.principal_point[0]
        hands = hands.padded(rows)
        right = hands.right >= 0.5
        pick = lambda own, mirrored: np.where(right[:, None, None], own, mirrored)
        keypoints = pick(hands.keypoints, mirror_pixels(hands.keypoints, middle))
        keypoints3d = pick(hands.keypoints3d, mirror_points(hands.keypoints3d))
        keypoints, keypoints3d = keypoints.astype(np.float32), keypoints3d.astype(np.float32)
        view = photo.of_crops(camera.crop_around(keypoints[..., :2], keypoints[..., 2]))
        view = dataclasses.replace(view, region=upright_region(keypoints))
        inputs = Inputs(view, keypoints, keypoints3d - keypoints3d[:, :1])
        # 2. The image, or the landmark network's map of it.
        if self.spec.trains_encoder:
            from genhmr_jax.geometry.hand_pixels import hand_pixels

            pixels = hand_pixels(image, view.region[:count], right[:count], middle)
            padded = np.pad(pixels, [(0, rows - count), *[(0, 0)] * 3])
            return dataclasses.replace(inputs, images=padded.astype(np.float32) / np.float32(255))
        if self.spec.encoder:
            known = hands.features.any((1, 2, 3)).astype(np.float32)
            maps = [np.asarray(hands.features, np.float32)]
            return dataclasses.replace(inputs, maps=maps, image_weight=known)
        return inputs

    def encode(self, params: Params, inputs: Inputs) -> "Encoded":
        """The inputs in the axes of the hand's region, and the image's values."""
        turn, own = upright(inputs)
        return self.encode_upright(params, own, inputs.view, turn)

    def encode_upright(
        self, params: Params, own: Inputs, photo: CropCamera, turn: Float[Array, "B 3 3"]
    ) -> "Encoded":
        """`encode` of inputs that are in these axes already.

        Args:
          own: the inputs, whose crop is the hand's region.
          photo: the camera and the crops in the photo.
          turn: from the axes of `own` to those of the photo.
        """
        networks = _networks()
        keypoints = normalize_keypoints(own.keypoints, own.view)
        detected = DetectedKeypoints(own.view, keypoints, own.keypoints3d)
        network = networks.network(self.spec, params)
        return network.encode(
            detected,
            photo,
            turn,
            own.maps,
            own.image_weight,
            own.images,
            drop_path=own.drop_path,
            remat=self.remat,
            frozen_layers=self.frozen_layers,
        )

    def steps(self, params: Params, body: smpl_jax.SmplModel, encoded: "Encoded") -> Steps:
        """The steps of sampling for encoded hands (core/steps.py)."""
        network, vectors = _networks().network(self.spec, params), params["codebook"]["vectors"]
        return Steps(
            form=HAND_FORM,
            sizes=self.spec.tokenizer,
            has_feedback=self.spec.feedback,
            network=network,
            decode=self.decoding(params),
            vectors=vectors,
            codes=network.transformer.codes(vectors),
            body=body,
            encoded=encoded,
            given=encoded,
            flags=jnp.zeros((encoded.context.shape[0], 0)),
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
    ) -> Latents:
        """Confidence-guided sampling (core/sampling.py), see core.system.System.

        One answer decodes the expected embedding of each token, in the step that kept it, or with
        feedback in the last step. Several hypotheses decode the sampled codes, so that they differ;
        with feedback those of the tokens that were kept before the last step.
        """
        steps, distinct = self.steps(params, body, encoded), hypotheses > 1
        has_feedback = self.spec.feedback
        how = {"iterations": iterations, "temperature": temperature}
        if has_feedback:
            how["feedback"] = steps.feedback(commit=distinct)
            if distinct:
                how["iterations"] = jnp.maximum(iterations, 2)  # one iteration commits no token
        length = self.spec.tokenizer.length
        samples = sampling.sample(steps.logits, steps.vectors, keys, length, **how)
        if has_feedback:
            embeddings = samples.committed if distinct else samples.final
        else:
            embeddings = steps.vectors[samples.tokens] if distinct else samples.expected
        # With feedback the last step has decoded its own estimate.
        state = samples.state if has_feedback else steps.decoded(embeddings, steps.start())
        estimate = state.estimate
        weak = encoded.photo.weak_of_upright(estimate.weak_camera, estimate.joints[:, 0])
        latents = Latents(embeddings, estimate.betas, weak, samples.tokens, samples.first)
        if not has_feedback:
            return latents
        score = steps.score(estimate)
        near, expected = jax.nn.sigmoid(score.near[..., -1]), jnp.sum(jnp.exp(score.log_error), -1)
        return dataclasses.replace(latents, near=near, expected_error=expected)

    def pose(
        self, params: Params, view: CropCamera
    ) -> Callable[[Float[Array, "B L D"]], Float[Array, "B 16 3 3"]]:
        """From embeddings to rotation matrices, by the tokenizer; see core.system.System."""
        return turned(self.decoding(params), view.upright()[0])

    def decoding(
        self, params: Params
    ) -> Callable[[Float[Array, "B L D"]], Float[Array, "B 16 3 3"]]:
        """As `pose`, but with the root rotation in the axes of the network's inputs."""
        return _networks().tokenizer(self.spec, params).decoding()

    def confidence(
        self,
        params: Params,
        latents: Latents,
        body: smpl_jax.SmplModel,
        rotmats: Float[Array, "B 16 3 3"],
        keys: Array,
    ) -> Float[Array, "B 16"]:
        """Probability that each joint is within 1 cm of the truth (HAND_FORM.near).

        A model with feedback has learned it. Otherwise it follows from the spread of samples.
        """
        if latents.near is not None:
            return latents.near
        how = (self.decoding(params), params["codebook"]["vectors"], latents.logits)
        return confidence.of_spread(*how, body, latents.betas, rotmats, keys, HAND_FORM.near[-1])


def _networks() -> types.ModuleType:
    """The module of the networks: with stored programs it is not imported, nor is flax."""
    from genhmr_jax.systems.maskhand import model

    return model


def make_system(spec: dict[str, Any]) -> MaskHandSystem:
    """The system of the spec in a model's config.json; for systems/registry.py."""
    return MaskHandSystem(MaskHandSpec.from_dict(spec))
