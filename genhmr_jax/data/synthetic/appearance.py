"""What people are dressed from, and the outfits of the first test set ("v1").

An outfit is a colour and an offset for each vertex. They follow from the body part, by the skinning
weights, and the rest position, so that any body in SMPL's format can be dressed. Clothes and hair
are the body's surface, offset along the rest normals; a few sine waves of the rest position change
thickness and brightness like folds.
"""

import dataclasses

import numpy as np
import smpl_jax

from genhmr_jax.data.synthetic.decals import Charts, Decals
from genhmr_jax.geometry.keypoints import keypoint_points
from genhmr_jax.render.rasterizer import vertex_normals

SKIN = np.array([
    [0.87, 0.68, 0.57], [0.78, 0.57, 0.44], [0.62, 0.43, 0.32],
    [0.42, 0.28, 0.2], [0.27, 0.18, 0.13], [0.92, 0.76, 0.68],
])  # fmt: skip
HAIR = np.array([
    [0.05, 0.04, 0.03], [0.16, 0.1, 0.06], [0.3, 0.2, 0.1],
    [0.62, 0.48, 0.28], [0.5, 0.5, 0.5], [0.4, 0.15, 0.07],
])  # fmt: skip
J = {name: i for i, name in enumerate(smpl_jax.keypoints.SMPL24)}


@dataclasses.dataclass(frozen=True)
class Outfit:
    """The surface of a dressed person.

    Attributes:
      albedo: (V, 3) in 0..1, linear light.
      offset: (V, 3) metres, to be added to the template.
      wrinkles: (V,) metres, a relief of the cloth that is too fine to change its outline.
      decals: finer pictures over the albedo, or None.
    """

    albedo: np.ndarray
    offset: np.ndarray
    wrinkles: np.ndarray
    decals: Decals | None = None


@dataclasses.dataclass(frozen=True)
class Wardrobe:
    """Properties of a body that `dress` needs, computed once.

    Attributes:
      rest: (V, 3) vertices at rest, metres.
      normals: (V, 3) at rest.
      arm: (V,) 0 at the shoulder, 1 at the wrist; negative on the trunk, above 1 on the hand.
      leg: (V,) 0 at the hip, 1 at the ankle; negative above the hip, above 1 on the foot.
      head: (V,) share of head and neck.
      joints: (24, 3) at rest, metres.
      charts: of the decals.
    """

    rest: np.ndarray
    normals: np.ndarray
    arm: np.ndarray
    leg: np.ndarray
    head: np.ndarray
    joints: np.ndarray
    charts: Charts

    @staticmethod
    def of(body: smpl_jax.SmplModel) -> "Wardrobe":
        """The properties of a full body model."""
        output = smpl_jax.forward(body, np.zeros(10, np.float32), np.zeros((24, 3), np.float32))
        rest = np.asarray(output.vertices, np.float64)
        joints = np.asarray(output.joints, np.float64)
        weights = _weights(body)
        share = lambda *names: sum(weights[:, J[n]] for n in names)
        both = lambda *names: [f"{side}_{n}" for side in ("left", "right") for n in names]

        arms = share(*both("shoulder", "elbow", "wrist", "hand"))
        shoulder, wrist = joints[J["left_shoulder"], 0], joints[J["left_wrist"], 0]
        along_arm = (np.abs(rest[:, 0]) - abs(shoulder)) / abs(wrist - shoulder)
        legs = share("pelvis", *both("hip", "knee", "ankle", "foot"))
        hip, ankle = joints[J["left_hip"], 1], joints[J["left_ankle"], 1]
        along_leg = (hip - rest[:, 1]) / (hip - ankle)
        arm = np.where(arms > 0.3, along_arm, -1.0)
        head = share("head") + 0.3 * share("neck")
        faces = np.asarray(body.faces, np.int64)
        names = ("left_eye", "left_ear", "nose")
        points = np.asarray(keypoint_points(body, output, names), np.float64)
        on_trunk = (arm < 0) & (head < 0.4) & (rest[:, 1] > hip - 0.17)
        return Wardrobe(
            rest=rest,
            normals=vertex_normals(rest, faces),
            arm=arm,
            leg=np.where(legs > 0.35, along_leg, -1.0),
            head=head,
            joints=joints,
            charts=Charts.of(rest, faces, head, on_trunk, dict(zip(names, points, strict=True))),
        )


def _weights(body: smpl_jax.SmplModel) -> np.ndarray:
    """Skinning weights (V, 24)."""
    weights = np.asarray(body.weights)
    return weights if weights.shape[1] == 24 else weights.T


def cloth_colour(rng: np.random.Generator) -> np.ndarray:
    """A plausible fabric colour: many are grey, black, white or blue."""
    if rng.random() < 0.45:
        return np.full(3, rng.choice([0.05, 0.12, 0.3, 0.55, 0.85])) + rng.normal(0, 0.02, 3)
    hue, saturation, value = rng.random(), rng.uniform(0.2, 0.9), rng.uniform(0.15, 0.9)
    k = (np.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    return value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1)


def pattern(rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """0 or 1 for each vertex: plain (half of the time), stripes, checks or blotches."""
    kind = rng.choice(["plain", "plain", "plain", "stripes", "checks", "blotches"])
    period = rng.uniform(0.05, 0.16)
    if kind == "stripes":
        axis = rng.choice([0, 1], p=[0.3, 0.7])
        return (np.sin(2 * np.pi * rest[:, axis] / period) > 0).astype(float)
    if kind == "checks":
        across, along = (np.sin(2 * np.pi * rest[:, axis] / period) for axis in (0, 1))
        return (across * along > 0).astype(float)
    if kind == "blotches":
        return (waves(rest, rng, 6, 12, 30) > 0.3).astype(float)
    return np.zeros(len(rest))


def waves(
    rest: np.ndarray, rng: np.random.Generator, count: int, low: float, high: float
) -> np.ndarray:
    """A sum of random plane sine waves over the rest position, about -1..1.

    low, high: range of the wave numbers, radians per metre.
    """
    direction = rng.normal(size=(count, 3))
    length = np.linalg.norm(direction, axis=1, keepdims=True)
    direction *= rng.uniform(low, high, (count, 1)) / length
    phase = rng.uniform(0, 2 * np.pi, count)
    return np.sin(rest @ direction.T + phase).sum(1) / np.sqrt(count)


def dress(wardrobe: Wardrobe, rng: np.random.Generator) -> Outfit:
    """A random outfit of the first test set. Its images depend on every draw here."""
    rest, joints = wardrobe.rest, wardrobe.joints
    albedo = np.tile(SKIN[rng.integers(len(SKIN))] * rng.uniform(0.85, 1.1), (len(rest), 1))
    inflate = np.zeros(len(rest))
    folds = waves(rest, rng, 8, 15, 70)
    cloth = np.zeros(len(rest), bool)
    neck = joints[J["neck"], 1]

    def put_on(
        where: np.ndarray, colour: np.ndarray, thickness: float, second: np.ndarray | None = None
    ) -> None:
        """Clothes on vertices (V,) bool; `second`: a second colour, for a pattern."""
        nonlocal albedo
        if second is not None:
            colour = colour + (second - colour) * pattern(rest, rng)[:, None]
        shaded = np.clip(colour * (1 + 0.12 * folds[:, None]), 0.01, 1)
        albedo = np.where(where[:, None], shaded, albedo)
        cloth[where] = True
        inflate[where] = np.maximum(thickness * (1 + 0.4 * folds[where]), 0.001)

    # 1. Trousers.
    waist = rng.uniform(-0.12, 0.0)
    end = rng.choice([0.25, 0.45, 0.92, 0.95, 0.98])
    trousers = (wardrobe.leg > waist) & (wardrobe.leg < end) & (wardrobe.arm < 0)
    colour, thickness = cloth_colour(rng), rng.uniform(0.004, 0.022)
    put_on(trousers, colour, thickness, cloth_colour(rng) if rng.random() < 0.15 else None)

    # 2. A shirt.
    sleeve = rng.choice([0.05, 0.35, 0.45, 0.9, 0.95])
    hem = rng.uniform(-0.05, 0.2)
    below_neck = rest[:, 1] < neck + rng.uniform(-0.06, 0.03)
    trunk = (wardrobe.arm < 0) & (wardrobe.leg < hem) & (wardrobe.head < 0.35) & below_neck
    shirt = trunk | ((wardrobe.arm >= 0) & (wardrobe.arm < sleeve))
    put_on(shirt, cloth_colour(rng), rng.uniform(0.004, 0.028), cloth_colour(rng))

    # 3. Shoes.
    if rng.random() < 0.9:
        put_on(wardrobe.leg > rng.uniform(0.9, 1.0), cloth_colour(rng), rng.uniform(0.004, 0.012))

    # 4. Hair.
    head_y, nose_z = joints[J["head"], 1], rest[wardrobe.head > 0.8][:, 2].max()
    line = head_y + rng.uniform(0.03, 0.1)
    back = rest[:, 2] < joints[J["head"], 2] + rng.uniform(-0.01, 0.03)
    behind = back & (rest[:, 1] > head_y - rng.uniform(0.0, 0.1))
    scalp = (wardrobe.head > 0.5) & ((rest[:, 1] > line + 0.03) | behind)
    if rng.random() < 0.93:
        colour = HAIR[rng.integers(len(HAIR))] * rng.uniform(0.7, 1.3)
        put_on(scalp, colour, rng.uniform(0.004, 0.03))

    # 5. A face for detectors: dark eyes and brows, a redder mouth.
    front = (wardrobe.head > 0.8) & (rest[:, 2] > nose_z - 0.06)
    eyes = front & (np.abs(rest[:, 1] - (head_y + 0.055)) < 0.012)
    eyes &= np.abs(np.abs(rest[:, 0]) - 0.032) < 0.016
    mouth = front & (np.abs(rest[:, 1] - (head_y - 0.015)) < 0.008) & (np.abs(rest[:, 0]) < 0.026)
    albedo[eyes] *= 0.25
    albedo[mouth] *= np.array([0.85, 0.5, 0.5])
    wrinkles = waves(rest, rng, 10, 30, 90) * rng.uniform(0.001, 0.006) * cloth
    return Outfit(np.clip(albedo, 0.01, 1.0), wardrobe.normals * inflate[:, None], wrinkles)
