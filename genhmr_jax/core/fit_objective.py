"""The objective of the 2D refinement, with its curvature: how far bodies are from their keypoints.

For a body with joint rotations theta, shape and camera it is

    sum_j c_j rho(|| Pi(J_j) - j2d_j || / b) / sum_j c_j
    + lambda mean_k || theta_k - theta_0k ||^2 + a prior on the shape

J_j are the keypoints of the body in 3D, Pi the projection, j2d_j the detected keypoints and c_j
their confidences, and theta_0 the rotations of the start. Residuals are in crop sides b, so that
the result does not depend on the size of the picture. rho limits the influence of outliers.

For a person with a mask, the body's surface must also fill the mask and stay inside it. With points
o_n of the mask's outline and v of the surface, this term is added (core/silhouette_term.py):

    trust * silhouette * (mean_n rho(|| o_n - nearest surface point || / b)
                          + silhouette_outside * mean_v rho(distance of v from the mask / b))

Here rho limits the influence of clothes, hair and bags. A mask determines the shape, and together
with the keypoints the pose. Therefore the priors are weaker the more the mask is trusted.

The priors are divided by the square of the person's certainty (detect/pose_estimate.py): where the
detector expects large errors, the network's answer is better than one that follows the keypoints
(docs/experiments.md).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import smpl_jax
from jaxtyping import Array, Float

from genhmr_jax.core import silhouette_term
from genhmr_jax.core.silhouette_term import Gaps, Silhouette
from genhmr_jax.geometry.body_jacobian import body_jacobian
from genhmr_jax.geometry.camera import NEAR, CropCamera
from genhmr_jax.geometry.keypoints import keypoint_points

# Surface points, beside the keypoints, in the curvature of the silhouette term.
CURVED_VERTICES = 128
CURVED_STRIDE = 2  # every second outline point is in it

FAR = 1e12  # squared residuals, crop sides squared: from here on rho is s^2 in float32
SMALLEST = 1e-3  # scale of a weak camera: a network may answer 0 or less, which has no logarithm


@dataclasses.dataclass(frozen=True)
class ObjectiveSpec:
    """Weights of the objective."""

    robust_scale: float = 0.1  # s of rho, crop sides
    prior_pose: float = 0.004  # lambda, on rotation matrices
    prior_betas: float = 0.002
    silhouette: float = 2.0  # weight of the silhouette term, for a person with a mask
    silhouette_outside: float = 2.0  # weight of its second part relative to the first
    masked_prior_pose: float = 0.001  # in place of prior_pose, if the mask is fully trusted
    masked_prior_betas: float = 0.0001


class Pose(NamedTuple):
    """Bodies before cameras.

    Attributes:
      rotmats: (B, J, 3, 3) joint rotations.
      betas: (B, 10) shape coefficients.
      camera: (B, 3) log s, tx, ty of the weak camera; the logarithm keeps the scale positive.
    """

    rotmats: Float[Array, "B J 3 3"]
    betas: Float[Array, "B 10"]
    camera: Float[Array, "B 3"]

    @property
    def weak_camera(self) -> Float[Array, "B 3"]:
        """s, tx, ty."""
        return weak_of(self.camera)


class Fit(NamedTuple):
    """What the curvature needs from the evaluation of the objective.

    Attributes:
      translation: (B, 3) of the bodies, metres.
      joints, keypoints, surface: (B, J, 3), (B, K, 3), (B, V, 3) camera coordinates, metres.
      squared: (B, K) squared residuals of the keypoints.
      gaps: of the silhouette term, if there is one.
    """

    translation: Float[Array, "B 3"]
    joints: Float[Array, "B J 3"]
    keypoints: Float[Array, "B K 3"]
    surface: Float[Array, "B V 3"]
    squared: Float[Array, "B K"]
    gaps: Gaps | None


def robust(squared: Float[Array, "*s"], scale: float) -> Float[Array, "*s"]:
    """rho of Geman and McClure: r^2 / (1 + r^2 / s^2) for a squared residual r^2 and the scale s.

    It is about r^2 for small residuals, and less than s^2 for all, also where r^2 overflows.
    """
    squared = jnp.minimum(squared, FAR)
    return squared / (1.0 + squared / scale**2)


def robust_slope(squared: Float[Array, "*s"], scale: float) -> Float[Array, "*s"]:
    """The derivative of `robust` by r^2: the weight of a residual in reweighted least squares."""
    return 1.0 / (1.0 + squared / scale**2) ** 2


def weak_of(camera: Float[Array, "B 3"]) -> Float[Array, "B 3"]:
    """The weak camera (s, tx, ty) from log s, tx, ty."""
    return jnp.concatenate([jnp.exp(camera[:, :1]), camera[:, 1:]], -1)


def camera_of(weak: Float[Array, "B 3"]) -> Float[Array, "B 3"]:
    """log s, tx, ty from the weak camera (s, tx, ty); s is at least SMALLEST."""
    return jnp.concatenate([jnp.log(jnp.maximum(weak[:, :1], SMALLEST)), weak[:, 1:]], -1)


class Objective:
    """The objective of B people, whose rows are independent."""

    def __init__(
        self,
        body: smpl_jax.SmplModel,
        start: Pose,
        keypoints: Float[Array, "B K 3"],
        view: CropCamera,
        silhouette: Silhouette | None,
        spec: ObjectiveSpec,
        certainty: Float[Array, "B"] | None = None,
    ):
        """Prepare the weights; the arguments are those of core.refinement.refine."""
        self.body, self.start, self.view, self.spec = body, start, view, spec
        # 1. The weights of the priors, which are weaker the more the mask is trusted.
        masked = silhouette is not None and spec.silhouette > 0
        self.silhouette = silhouette if masked else None
        trust = silhouette.trust if masked else jnp.zeros(len(keypoints))
        self.prior_pose = spec.prior_pose + trust * (spec.masked_prior_pose - spec.prior_pose)
        self.prior_betas = spec.prior_betas + trust * (spec.masked_prior_betas - spec.prior_betas)
        self.trust = trust * spec.silhouette
        if certainty is not None:
            self.prior_pose = self.prior_pose / certainty**2
            self.prior_betas = self.prior_betas / certainty**2
        # 2. The location of an undetected keypoint may be NaN, which must not reach the gradient. A
        # keypoint that is not finite counts as undetected, whatever its confidence.
        self.known = (keypoints[..., 2] > 0) & jnp.all(jnp.isfinite(keypoints), -1)
        weight = jnp.where(self.known, keypoints[..., 2], 0.0)
        self.weight = weight / jnp.maximum(jnp.sum(weight, -1, keepdims=True), 1e-6)
        self.target = jnp.where(self.known[..., None], keypoints[..., :2], 0.0)

    def losses(self, pose: Pose) -> tuple[Float[Array, "B"], Fit]:
        """The objective of each row."""
        spec, view, scale = self.spec, self.view, self.spec.robust_scale
        output = smpl_jax.forward(self.body, pose.betas, pose.rotmats)
        translation = view.translation(pose.weak_camera)
        points, surface, joints = (
            x + translation[:, None]
            for x in (keypoint_points(self.body, output), output.vertices, output.joints)
        )
        # 1. The keypoints.
        gap = (view.project(points) - self.target) / view.crop[:, 2, None, None]
        squared = jnp.sum(jnp.where(self.known[..., None], gap, 0.0) ** 2, -1)
        loss = jnp.sum(self.weight * robust(squared, scale), -1)
        # 2. The priors.
        turned = jnp.sum((pose.rotmats - self.start.rotmats) ** 2, (-1, -2))
        shape = jnp.mean((pose.betas - self.start.betas) ** 2, -1)
        shape = shape + 0.1 * jnp.mean(pose.betas**2, -1)
        loss = loss + self.prior_pose * jnp.mean(turned, -1) + self.prior_betas * shape
        if self.silhouette is None:
            return loss, Fit(translation, joints, points, surface, squared, None)
        # 3. The silhouette term.
        gaps = silhouette_term.gaps(view.project(surface), view, self.silhouette)
        cover, outside = (jnp.mean(robust(x**2, scale), -1) for x in (gaps.cover, gaps.outside))
        loss = loss + self.trust * (cover + spec.silhouette_outside * outside)
        return loss, Fit(translation, joints, points, surface, squared, gaps)

    def curvature(self, pose: Pose, fit: Fit) -> Float[Array, "B P P"]:
        """The matrix of Gauss and Newton.

        P = 3 x 24 rotations (geometry.body_jacobian), 10 betas and the camera. It is the second
        derivative of the objective, without that of the residuals and of rho, whose slopes are
        constant weights (iteratively reweighted least squares). Of the silhouette term it has a
        sample of the points, because it only determines the size of steps.
        """
        body, scale = self.body, self.spec.robust_scale
        jacobian = body_jacobian(body, pose.rotmats, fit.joints)
        # 1. Keypoints: both coordinates of each.
        count = max(body.vertex_ids.values()) + 1
        if fit.gaps is not None:
            count = min(count + CURVED_VERTICES, body.num_vertices)
        rows = len(pose.betas)
        first = jacobian.vertices(jnp.tile(jnp.arange(count), (rows, 1)))
        weight = jnp.sqrt(2 * self.weight * robust_slope(fit.squared, scale))
        seen = weight[..., None, None] * self._screen(fit.keypoints)
        keypoints = jacobian.keypoints(first)
        found = [(seen[:, :, i], fit.keypoints, keypoints) for i in (0, 1)]
        # 2. Points of the silhouette term. The first vertices of a surface model are spread over
        # the whole surface.
        if fit.gaps is not None:
            gaps, every = fit.gaps, slice(None, None, CURVED_STRIDE)
            nearest, share = gaps.nearest[:, every], self.spec.silhouette_outside / count
            of = (jnp.arange(count)[None], gaps.outside[:, :count], gaps.outside_by[:, :count])
            found.append((*self._silhouette(fit, *of, share), first))
            of = (nearest, gaps.cover[:, every], gaps.cover_by[:, every])
            share = 1 / nearest.shape[1]
            found.append((*self._silhouette(fit, *of, share), jacobian.vertices(nearest)))
        # 3. Their derivatives by all parameters.
        join = lambda *x: jnp.concatenate(x, 1)
        directions, points, moving = jax.tree.map(join, *found)
        by_scale = jnp.pad(pose.camera[:, 1:], ((0, 0), (0, 1))) - fit.translation
        by_camera = jnp.stack([by_scale, *jnp.tile(jnp.eye(2, 3)[:, None], (rows, 1))], 1)
        by_camera = jnp.einsum("bnx,bcx->bnc", directions, by_camera)
        m = jnp.concatenate([jacobian.rows(directions, points, moving), by_camera], -1)
        # 4. With the priors: a small rotation by a has || theta - theta_0 ||^2 = 2 |a|^2.
        joints, shapes = body.num_joints, pose.betas.shape[1]
        priors = [
            jnp.tile(4 / joints * self.prior_pose[:, None], (1, 3 * joints)),
            jnp.tile(2.2 / shapes * self.prior_betas[:, None], (1, shapes)),
            jnp.zeros((rows, 3)),
        ]
        diagonal = jnp.concatenate(priors, 1)[:, None] * jnp.eye(m.shape[-1])
        return jnp.einsum("bni,bnj->bij", m, m, precision=jax.lax.Precision.HIGHEST) + diagonal

    def _screen(self, points: Float[Array, "B N 3"]) -> Float[Array, "B N 2 3"]:
        """Derivative of the projection, in crop sides, by a point in camera coordinates."""
        depth = jnp.maximum(points[..., 2:, None], NEAR)
        rays = points[..., :2, None] / depth
        scale = (self.view.focal / self.view.crop[:, 2])[:, None, None, None] / depth
        plane = jnp.broadcast_to(jnp.eye(2), (*points.shape[:2], 2, 2))
        return scale * jnp.concatenate([plane, -rays], -1)

    def _silhouette(
        self,
        fit: Fit,
        index: Array,
        gap: Float[Array, "B N"],
        gap_by: Float[Array, "B N 2"],
        share: float,
    ) -> tuple[Float[Array, "B N 3"], Float[Array, "B N 3"]]:
        """Weighted directions of the surface points of an index, and the points.

        Args:
          fit: its surface.
          index: (B or 1, N) of the points.
          gap, gap_by: of the silhouette term at them.
          share: weight of a point.
        """
        points = jnp.take_along_axis(fit.surface, index[..., None], 1)
        weight = 2 * share * self.trust[:, None] * robust_slope(gap**2, self.spec.robust_scale)
        seen = jnp.einsum("bnc,bncx->bnx", gap_by, self._screen(points))
        return jnp.sqrt(weight)[..., None] * seen, points
