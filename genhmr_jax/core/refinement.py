"""2D pose-guided refinement (GenHMR §4): the second stage of inference.

A sampled body fits the detected 2D keypoints j2d only approximately. The refinement changes its
token embeddings Y by gradient steps, so that the projected joints fit them:

    Y+ = argmin_Y  sum_j c_j rho(|| Pi(J_j(Y)) - j2d_j || / b) / sum_j c_j
                   + lambda || theta(Y) - theta_0 ||^2

Here theta(Y) are the joint rotations that the frozen tokenizer decodes, theta_0 those of the start,
J_j the keypoints of the body in 3D, Pi the projection and c_j the confidence of a keypoint.
Residuals are in crop sides b, so that the result does not depend on the size of the picture. rho
limits the influence of outliers. Camera and shape are optimised too; the first steps change only
the camera. The loop is one `lax.scan`. It returns the best iterate, which is never worse than the
start. All rows of a batch are refined at the same time and independently.

For a person with a mask, the body's surface must also fill the mask and stay inside it. With points
o_n of the mask's outline and v of the surface, this term is added (core/silhouette_term.py):

    trust * silhouette * (mean_n rho(|| o_n - nearest surface point || / b)
                          + silhouette_outside * mean_v rho(distance of v from the mask / b))

Here rho limits the influence of clothes, hair and bags. A mask determines the shape, and together
with the keypoints the pose. Therefore the priors are weaker the more the mask is trusted.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import smpl_jax
from jaxtyping import Array, Float

from genhmr_jax.core import silhouette_term
from genhmr_jax.core.silhouette_term import Silhouette
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import project_body


@dataclasses.dataclass(frozen=True)
class RefineSpec:
    """Settings of the refinement; with `steps` 0 it returns the start."""

    steps: int = 100
    camera_steps: int = 15  # number of first steps that change only the camera
    step_embedding: float = 0.05  # learning rates of Adam
    step_camera: float = 0.02
    step_betas: float = 0.02
    robust_scale: float = 0.1  # s of rho, crop sides
    prior_pose: float = 0.004  # lambda, on rotation matrices
    prior_betas: float = 0.002
    silhouette: float = 2.0  # weight of the silhouette term, for a person with a mask
    silhouette_outside: float = 2.0  # weight of its second part relative to the first
    masked_prior_pose: float = 0.001  # in place of prior_pose, if the mask is fully trusted
    masked_prior_betas: float = 0.0001


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Refined:
    """The best iterate of each row, and the losses.

    Attributes:
      embeddings: (B, L, D) token embeddings Y.
      betas: (B, 10) shape coefficients.
      weak_camera: (B, 3) scale and translation (s, tx, ty) of the crop's camera.
      loss: (steps + 1, B) of every iterate, the start first.
    """

    embeddings: jax.Array
    betas: jax.Array
    weak_camera: jax.Array
    loss: jax.Array


def robust(residual: Float[Array, "*s"], scale: float) -> Float[Array, "*s"]:
    """rho of Geman and McClure: r^2 / (1 + r^2 / s^2) for a residual r >= 0 and the scale s.

    It is about r^2 for small residuals, and less than s^2 for all.
    """
    squared = residual**2
    return squared / (1.0 + squared / scale**2)


def refine(
    decode: Callable[[Float[Array, "B L D"]], Float[Array, "B 24 3 3"]],
    body: smpl_jax.SmplModel,
    embeddings: Float[Array, "B L D"],
    betas: Float[Array, "B 10"],
    weak_camera: Float[Array, "B 3"],
    keypoints: Float[Array, "B K 3"],
    view: CropCamera,
    silhouette: Silhouette | None = None,
    spec: RefineSpec = RefineSpec(),
) -> Refined:
    """Refine a batch.

    Args:
      decode: token embeddings -> rotation matrices (the frozen tokenizer).
      body: the body reduced to the vertices that are keypoints (geometry.keypoints.keypoint_model);
        with a silhouette also to vertices all over its surface (surface_model there).
      embeddings, betas, weak_camera: the start.
      keypoints: DETECTED keypoints, x and y in px and confidence; those of confidence 0 have no
        influence.
      view: the photo's camera and the crops of the B people.
      silhouette: of their masks, if there are any.
      spec: settings.
    """
    # 1. The weights of the priors, which are weaker the more the mask is trusted.
    masked = silhouette is not None and spec.silhouette > 0
    trust = silhouette.trust if masked else 0.0
    prior_pose = spec.prior_pose + trust * (spec.masked_prior_pose - spec.prior_pose)
    prior_betas = spec.prior_betas + trust * (spec.masked_prior_betas - spec.prior_betas)

    # 2. The loss of each row. x holds the optimised arrays.
    weight = keypoints[..., 2]
    detected = weight[..., None] > 0
    side = view.crop[:, 2]
    theta0 = decode(embeddings)

    def weak_of(x: dict[str, jax.Array]) -> Float[Array, "B 3"]:
        return jnp.concatenate([jnp.exp(x["log_scale"]), x["offset"]], -1)

    def losses(x: dict[str, jax.Array]) -> Float[Array, "B"]:
        rotmats = decode(x["embeddings"])
        points, surface = project_body(body, rotmats, x["betas"], weak_of(x), view)
        # sum_j c_j rho(|| Pi(J_j(Y)) - j2d_j || / b) / sum_j c_j. `where` comes before the norm:
        # the location of an undetected keypoint may be NaN, which must not reach the gradient.
        gap = jnp.where(detected, (points - keypoints[..., :2]) / side[:, None, None], 1.0)
        rho = robust(jnp.sqrt(jnp.sum(gap**2, -1) + 1e-12), spec.robust_scale)
        data = jnp.sum(jnp.where(weight > 0, weight * rho, 0.0), -1)
        data = data / jnp.maximum(jnp.sum(weight, -1), 1e-6)
        # lambda || theta(Y) - theta_0 ||^2, and a prior on the shape.
        pose = jnp.mean(jnp.sum((rotmats - theta0) ** 2, (-1, -2)), -1)
        shape = jnp.mean((x["betas"] - betas) ** 2, -1) + 0.1 * jnp.mean(x["betas"] ** 2, -1)
        loss = data + prior_pose * pose + prior_betas * shape
        if not masked:
            return loss
        # The silhouette term: gaps of the outline, and of the surface points outside the mask.
        both = silhouette_term.gaps(surface, view, silhouette)
        cover, outside = (jnp.mean(robust(gap, spec.robust_scale), -1) for gap in both)
        return loss + trust * spec.silhouette * (cover + spec.silhouette_outside * outside)

    # 3. Descend from the sampled body. The logarithm keeps the scale of the camera positive.
    start = {
        "embeddings": embeddings,
        "betas": betas,
        "log_scale": jnp.log(weak_camera[:, :1]),
        "offset": weak_camera[:, 1:],
    }
    best, trace = _descend(losses, start, spec)
    return Refined(best["embeddings"], best["betas"], weak_of(best), trace)


def _descend(
    losses: Callable[[dict[str, jax.Array]], Float[Array, "B"]],
    start: dict[str, jax.Array],
    spec: RefineSpec,
) -> tuple[dict[str, jax.Array], Float[Array, "S B"]]:
    """Minimise by Adam from a start.

    Returns:
      the best iterate of each row, and the loss (spec.steps + 1, B) of every iterate.
    """
    rates = {
        "embeddings": spec.step_embedding,
        "betas": spec.step_betas,
        "log_scale": spec.step_camera,
        "offset": spec.step_camera,
    }
    optimizer = optax.scale_by_adam(b1=0.9, b2=0.99)

    def keep(better: Array, new: Any, old: Any) -> Any:
        """Rows of `new` where `better` (B,), else of `old`."""
        choose = lambda n, o: jnp.where(better.reshape(-1, *[1] * (n.ndim - 1)), n, o)
        return jax.tree.map(choose, new, old)

    def step(carry: tuple, t: Array) -> tuple[tuple, jax.Array]:
        x, opt_state, best, best_loss = carry

        # 1. Loss and gradient. Rows are independent, so that the gradient of the sum of their
        # losses consists of the gradients of the rows.
        loss, pull = jax.vjp(losses, x)
        (gradient,) = pull(jnp.ones_like(loss))

        # 2. Keep the best iterate of each row.
        best = keep(loss < best_loss, x, best)

        # 3. One step of Adam. At first only the camera changes: otherwise a body at a wrong
        # location would bend to reach its keypoints.
        direction, opt_state = optimizer.update(gradient, opt_state)
        only_camera = t < spec.camera_steps
        fixed = {name: only_camera & (name in ("embeddings", "betas")) for name in rates}
        sizes = {name: rate * jnp.where(fixed[name], 0.0, 1.0) for name, rate in rates.items()}
        x = {name: x[name] - sizes[name] * direction[name] for name in x}
        return (x, opt_state, best, jnp.minimum(loss, best_loss)), loss

    carry = (start, optimizer.init(start), start, losses(start))
    (x, _, best, best_loss), trace = jax.lax.scan(step, carry, jnp.arange(spec.steps))
    last = losses(x)
    return keep(last < best_loss, x, best), jnp.concatenate([trace, last[None]])
