"""2D pose-guided refinement (GenHMR §4): gradient steps on the token embeddings until the body meets the detected 2D pose.

    Y+ = argmin_Y  sum_j c_j rho(|| Pi(J(Y)) - j2d || / b)  +  lambda || theta(Y) - theta_0 ||^2

Networks stay frozen. The camera (and, if asked, the shape) moves too, alone for the first steps. Residuals are measured in crop sides b,
so that the result does not depend on the size of the picture. One `lax.scan`; the best iterate is returned, never a worse one than the
start. All examples of a batch are refined at once and independently of each other.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import smpl_jax
from jaxtyping import Array, Float

from genhmr_jax import camera
from genhmr_jax.body.keypoints import DETECTED, keypoint_points


@dataclasses.dataclass(frozen=True)
class RefineSpec:
    """Settings of the refinement; `steps` 0 returns the input."""

    steps: int = 100
    camera_steps: int = 15  # first steps, that move the camera only
    optimizer: str = "adam"  # or "gd", as in the paper's figure
    step_embedding: float = 0.05
    step_camera: float = 0.02
    step_betas: float = 0.02
    robust: str = "geman_mcclure"  # or "huber"
    robust_scale: float = 0.1  # crop sides
    prior_pose: float = 0.004  # lambda, on rotation matrices
    prior_betas: float = 0.002
    optimize_camera: bool = True
    optimize_betas: bool = True


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Refined:
    """embeddings (B, L, D), betas (B, 10), weak_camera (B, 3) of the best iterate; loss (steps + 1, B) at every iterate."""

    embeddings: jax.Array
    betas: jax.Array
    weak_camera: jax.Array
    loss: jax.Array


def robust(residual: Float[Array, "*s"], kind: str, scale: float) -> Float[Array, "*s"]:
    """rho of a residual >= 0: Geman-McClure r^2 / (1 + r^2/s^2), or Huber with threshold s; both are r^2 near zero."""
    squared = residual**2
    if kind == "geman_mcclure":
        return squared / (1.0 + squared / scale**2)
    if kind == "huber":
        return jnp.where(residual <= scale, squared, 2.0 * scale * residual - scale**2)
    raise ValueError(f"unknown robust function {kind!r}: choose geman_mcclure or huber")


def reprojection(
    body: smpl_jax.SmplModel,
    rotmats: Float[Array, "B 24 3 3"],
    betas: Float[Array, "B 10"],
    weak: Float[Array, "B 3"],
    view: dict[str, jax.Array],
) -> Float[Array, "B K 2"]:
    """Pixels of the body's DETECTED keypoints. `view`: crop (B, 3), image_size (B, 2), focal (B,)."""
    output = smpl_jax.forward(body, betas, rotmats)
    translation = camera.weak_to_translation(weak, view["crop"], view["image_size"], view["focal"])
    points = keypoint_points(body, output, DETECTED) + translation[:, None]
    return camera.project(points, view["focal"], view["image_size"] / 2.0)


def refine(
    decode: Callable[[Float[Array, "B L D"]], Float[Array, "B 24 3 3"]],
    body: smpl_jax.SmplModel,
    embeddings: Float[Array, "B L D"],
    betas: Float[Array, "B 10"],
    weak_camera: Float[Array, "B 3"],
    keypoints: Float[Array, "B K 3"],
    view: dict[str, jax.Array],
    spec: RefineSpec = RefineSpec(),
) -> Refined:
    """Refines a batch.

    Args:
      decode: token embeddings -> rotation matrices (the frozen tokenizer).
      body: a keypoint model (body.keypoints.keypoint_model).
      embeddings, betas, weak_camera: the start.
      keypoints: DETECTED keypoints in px with confidences; those of confidence 0 have no influence at all.
      view: crop (B, 3) px, image_size (B, 2) px, focal (B,) px.

    Raises:
      ValueError: an unknown robust function or optimizer.
    """
    weight = keypoints[..., 2]
    seen = weight[..., None] > 0
    side = view["crop"][:, 2]
    theta0 = decode(embeddings)
    start = {"embeddings": embeddings, "betas": betas, "log_scale": jnp.log(weak_camera[:, :1]), "offset": weak_camera[:, 1:]}

    def weak_of(x: dict[str, jax.Array]) -> jax.Array:
        return jnp.concatenate([jnp.exp(x["log_scale"]), x["offset"]], -1)

    def losses(x: dict[str, jax.Array]) -> Float[Array, "B"]:
        rotmats = decode(x["embeddings"])
        points = reprojection(body, rotmats, x["betas"], weak_of(x), view)
        # `where` before the norm: an undetected keypoint may hold anything, and must not leak a NaN into the gradient.
        gap = jnp.where(seen, (points - keypoints[..., :2]) / side[:, None, None], 1.0)
        rho = robust(jnp.sqrt(jnp.sum(gap**2, -1) + 1e-12), spec.robust, spec.robust_scale)
        data = jnp.sum(jnp.where(weight > 0, weight * rho, 0.0), -1) / jnp.maximum(jnp.sum(weight, -1), 1e-6)
        pose = jnp.mean(jnp.sum((rotmats - theta0) ** 2, (-1, -2)), -1)
        shape = jnp.mean((x["betas"] - betas) ** 2, -1) + 0.1 * jnp.mean(x["betas"] ** 2, -1)
        return data + spec.prior_pose * pose + spec.prior_betas * shape

    rates = {"embeddings": spec.step_embedding, "betas": spec.step_betas, "log_scale": spec.step_camera, "offset": spec.step_camera}
    if not spec.optimize_camera:
        rates |= {"log_scale": 0.0, "offset": 0.0}
    if not spec.optimize_betas:
        rates["betas"] = 0.0
    if spec.optimizer not in ("adam", "gd"):
        raise ValueError(f"unknown optimizer {spec.optimizer!r}: choose adam or gd")
    optimizer = optax.scale_by_adam(b1=0.9, b2=0.99) if spec.optimizer == "adam" else optax.identity()

    def step(carry: tuple, t: Array) -> tuple[tuple, jax.Array]:
        x, opt_state, best, best_loss = carry
        loss, pull = jax.vjp(losses, x)
        (gradient,) = pull(jnp.ones_like(loss))
        better = loss < best_loss
        best = jax.tree.map(lambda b, v: jnp.where(better.reshape(-1, *[1] * (v.ndim - 1)), v, b), best, x)
        direction, opt_state = optimizer.update(gradient, opt_state)
        moves = {k: rate * jnp.where((t < spec.camera_steps) & (k in ("embeddings", "betas")), 0.0, 1.0) for k, rate in rates.items()}
        x = {k: x[k] - moves[k] * direction[k] for k in x}
        return (x, opt_state, best, jnp.minimum(loss, best_loss)), loss

    first = losses(start)
    carry: tuple[Any, ...] = (start, optimizer.init(start), start, first)
    (x, _, best, best_loss), trace = jax.lax.scan(step, carry, jnp.arange(spec.steps))
    last = losses(x)
    better = last < best_loss
    best = jax.tree.map(lambda b, v: jnp.where(better.reshape(-1, *[1] * (v.ndim - 1)), v, b), best, x)
    return Refined(best["embeddings"], best["betas"], weak_of(best), jnp.concatenate([trace, last[None]]))
