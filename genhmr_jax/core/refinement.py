"""2D pose-guided refinement (GenHMR §4): gradient steps on the token embeddings until the body meets the detected 2D pose.

    Y+ = argmin_Y  sum_j c_j rho(|| Pi(J(Y)) - j2d || / b)  +  lambda || theta(Y) - theta_0 ||^2

Networks stay frozen. The camera (and, if asked, the shape) moves too, alone for the first steps. Residuals are measured in crop sides b,
so that the result does not depend on the size of the picture. One `lax.scan`; the best iterate is returned, never a worse one than the
start. All examples of a batch are refined at once and independently of each other.

Where there is a mask of the person, the body's surface shall fill it, and shall not stick out of it:

    + trust * silhouette * (mean_n rho(|| c_n - nearest surface point ||) + silhouette_outside * mean_v rho(distance of v from the mask))

over points c_n of the mask's outline and v of the surface. Gaps of clothes, hair and bags are rounded off by rho. The mask says much
about the shape, and with the keypoints about the pose: the priors are as much weaker as it is trusted.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import smpl_jax
from jaxtyping import Array, Float

from genhmr_jax.geometry import camera
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_points

SPACING = 0.005  # crop sides: an outline on the edge of the body is about as far from the nearest of 500 points of its surface


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
    silhouette: float = 2.0  # weight of the term, where there is a mask
    silhouette_outside: float = 2.0  # of the surface outside the mask against the mask not filled
    masked_prior_pose: float = 0.001  # in place of prior_pose, where a mask is trusted
    masked_prior_betas: float = 0.0001
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


def projected(
    body: smpl_jax.SmplModel,
    rotmats: Float[Array, "B 24 3 3"],
    betas: Float[Array, "B 10"],
    weak: Float[Array, "B 3"],
    view: dict[str, jax.Array],
) -> tuple[Float[Array, "B K 2"], Float[Array, "B V 2"]]:
    """Pixels of the body's DETECTED keypoints and of its vertices. `view`: crop (B, 3), image_size (B, 2), focal (B,)."""
    output = smpl_jax.forward(body, betas, rotmats)
    translation = camera.weak_to_translation(weak, view["crop"], view["image_size"], view["focal"])
    points = (keypoint_points(body, output, DETECTED), output.vertices)
    keypoints, vertices = (camera.project(p + translation[:, None], view["focal"], view["image_size"] / 2.0) for p in points)
    return keypoints, vertices


def reprojection(
    body: smpl_jax.SmplModel,
    rotmats: Float[Array, "B 24 3 3"],
    betas: Float[Array, "B 10"],
    weak: Float[Array, "B 3"],
    view: dict[str, jax.Array],
) -> Float[Array, "B K 2"]:
    """Pixels of the body's DETECTED keypoints. `view`: crop (B, 3), image_size (B, 2), focal (B,)."""
    return projected(body, rotmats, betas, weak, view)[0]


def silhouette_gaps(surface: Float[Array, "B V 2"], view: dict[str, jax.Array]) -> tuple[Float[Array, "B N"], Float[Array, "B V"]]:
    """How the silhouette differs from the mask, in crop sides.

    Args:
      surface: px of points all over the body.
      view: crop (B, 3) px; outline (B, N, 2) px and outside (B, G, G) crop sides, of `Masks.targets`.

    Returns:
      distance of each outline point to the nearest surface point beyond SPACING, and of each surface point to the mask (0 inside;
      interpolated).
    """
    side, middle = view["crop"][:, 2:, None], view["crop"][:, None, :2]
    v, c = (surface - middle) / side, (view["outline"] - middle) / side
    # The nearest are looked for without gradients, |c - v|^2 but for |c|^2, which changes nothing.
    fixed = jax.lax.stop_gradient(v)
    squared = jnp.sum(fixed**2, -1)[:, None] - 2.0 * jnp.einsum("bnk,bvk->bnv", c, fixed, precision=jax.lax.Precision.HIGHEST)
    nearest = jnp.take_along_axis(v, jnp.argmin(squared, -1)[..., None], 1)
    cover = jax.nn.relu(jnp.sqrt(jnp.sum((nearest - c) ** 2, -1) + 1e-12) - SPACING)
    sample = jax.vmap(lambda grid, at: jax.scipy.ndimage.map_coordinates(grid, [at[:, 1], at[:, 0]], order=1, mode="nearest"))
    return cover, sample(view["outside"], (v + 0.5) * view["outside"].shape[-1] - 0.5)


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
      body: a keypoint model (body.keypoints.keypoint_model); for a silhouette a surface model (body.keypoints.surface_model).
      embeddings, betas, weak_camera: the start.
      keypoints: DETECTED keypoints in px with confidences; those of confidence 0 have no influence at all.
      view: crop (B, 3) px, image_size (B, 2) px, focal (B,) px; where there are masks also outline, outside, trust (`Masks.targets`).

    Raises:
      ValueError: an unknown robust function or optimizer.
    """
    weight = keypoints[..., 2]
    seen = weight[..., None] > 0
    side = view["crop"][:, 2]
    theta0 = decode(embeddings)
    masked = "outline" in view and spec.silhouette > 0
    trust = view["trust"] if masked else 0.0
    prior_pose = spec.prior_pose + trust * (spec.masked_prior_pose - spec.prior_pose)
    prior_betas = spec.prior_betas + trust * (spec.masked_prior_betas - spec.prior_betas)
    start = {"embeddings": embeddings, "betas": betas, "log_scale": jnp.log(weak_camera[:, :1]), "offset": weak_camera[:, 1:]}

    def weak_of(x: dict[str, jax.Array]) -> jax.Array:
        return jnp.concatenate([jnp.exp(x["log_scale"]), x["offset"]], -1)

    def losses(x: dict[str, jax.Array]) -> Float[Array, "B"]:
        rotmats = decode(x["embeddings"])
        points, surface = projected(body, rotmats, x["betas"], weak_of(x), view)
        # `where` before the norm: an undetected keypoint may hold anything, and must not leak a NaN into the gradient.
        gap = jnp.where(seen, (points - keypoints[..., :2]) / side[:, None, None], 1.0)
        rho = robust(jnp.sqrt(jnp.sum(gap**2, -1) + 1e-12), spec.robust, spec.robust_scale)
        data = jnp.sum(jnp.where(weight > 0, weight * rho, 0.0), -1) / jnp.maximum(jnp.sum(weight, -1), 1e-6)
        pose = jnp.mean(jnp.sum((rotmats - theta0) ** 2, (-1, -2)), -1)
        shape = jnp.mean((x["betas"] - betas) ** 2, -1) + 0.1 * jnp.mean(x["betas"] ** 2, -1)
        loss = data + prior_pose * pose + prior_betas * shape
        if not masked:
            return loss
        cover, outside = (jnp.mean(robust(gap, spec.robust, spec.robust_scale), -1) for gap in silhouette_gaps(surface, view))
        return loss + trust * spec.silhouette * (cover + spec.silhouette_outside * outside)

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
