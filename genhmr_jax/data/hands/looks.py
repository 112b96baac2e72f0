"""What rendered hands look like: the surface of hand and forearm, skin, nails and creases.

All colours are linear light in 0..1.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from smpl_jax import SmplModel

from genhmr_jax.data.synthetic.appearance import SKIN, cloth_colour, pattern, waves
from genhmr_jax.geometry.hand import FINGERS
from genhmr_jax.geometry.hand_axes import hand_axes
from genhmr_jax.render.rasterizer import vertex_normals

REFINEMENTS = 1  # each halves the edges, so that creases and nails have vertices
# Distances along the forearm at which it has rings of vertices, metres from the open border of the
# hand. A bent wrist bends over the first BEND metres.
RINGS = (0.006, 0.012, 0.02, 0.03, 0.045, 0.07, 0.1, 0.14, 0.19, 0.25, 0.33, 0.45)
BEND = 0.03
WIDER = 0.5  # growth of the forearm from wrist to elbow
PALM = np.array([0.72, 0.5, 0.41])  # of dark skin the palm is closer to this colour
BLOOD = np.array([1.04, 0.86, 0.83])  # factor of the colour of finger tips and knuckles


@dataclasses.dataclass(frozen=True, eq=False)
class HandSurface:
    """Hand and forearm as one mesh: N vertices of model and forearm, refined to V vertices.

    Attributes:
      refine: (V, N) weights of the refined vertices.
      coarse: (C, 3) faces of the N vertices.
      faces: (F, 3) faces of the V vertices; the first `own` of them are the hand's.
      own: number of faces of the hand.
      rest: (V, 3) at rest, metres.
      border: indices of the model's vertices at the open wrist, in order around it.
      bends: (2, 3) axes of flexion and abduction of the wrist, at rest.
      palmar: (V,) -1 on the back, 1 on the palm.
      blood, nails, creases: (V,) 0..1 where the skin is redder, a nail, or in a crease.
    """

    refine: sparse.csr_matrix
    coarse: Int[np.ndarray, "C 3"]
    faces: Int[np.ndarray, "F 3"]
    own: int
    rest: Float[np.ndarray, "V 3"]
    border: Int[np.ndarray, "B"]
    bends: Float[np.ndarray, "2 3"]
    palmar: Float[np.ndarray, "V"]
    blood: Float[np.ndarray, "V"]
    nails: Float[np.ndarray, "V"]
    creases: Float[np.ndarray, "V"]

    def with_forearm(
        self,
        vertices: Float[np.ndarray, "n 3"],
        turn: Float[np.ndarray, "3 3"],
        bend: Float[np.ndarray, "2"],
    ) -> Float[np.ndarray, "N 3"]:
        """The posed vertices of a hand, and behind them those of its forearm.

        Args:
          vertices: of the hand, metres.
          turn: rotation of the wrist (the root).
          bend: angles of the wrist against the forearm about the two axes `bends`, radians.
        """
        return np.concatenate([vertices, self.tube(vertices, turn, bend, RINGS)])

    def tube(
        self,
        vertices: Float[np.ndarray, "n 3"],
        turn: Float[np.ndarray, "3 3"],
        bend: Float[np.ndarray, "2"],
        distances: tuple[float, ...],
        scale: float = 1.0,
    ) -> Float[np.ndarray, "R 3"]:
        """Rings of vertices around the forearm at distances from the wrist's border, metres.

        Args:
          vertices, turn, bend: see `with_forearm`.
          distances: of the rings.
          scale: of their radius against that of the forearm.
        """
        loop = vertices[self.border] @ turn
        middle = loop.mean(0)
        # The middle line: the sum of short steps, each in the direction that it has there.
        before = np.concatenate([[0.0], distances[:-1]])[:, None]
        steps = before + (np.array(distances)[:, None] - before) * np.linspace(0, 1, 5)[1:]
        bent = _rotations(-(bend @ self.bends), np.minimum(steps / BEND, 1.0))
        lengths = (np.array(distances)[:, None] - before) / 4
        centres = middle + np.cumsum(np.sum(bent[..., 0] * lengths[..., None], 1), 0)
        wide = scale * (1 + WIDER * _step(np.array(distances) / 0.22))
        around = np.einsum("rij,bj->rbi", bent[:, -1], loop - middle)
        rings = centres[:, None] + wide[:, None, None] * around
        return rings.reshape(-1, 3) @ turn.T


_KNOWN: list[tuple[SmplModel, HandSurface]] = []  # models cannot be hashed


def surface_of(model: SmplModel) -> HandSurface:
    """The surface of a right hand of MANO's form; the last four are cached.

    Raises:
      ValueError: a left hand.
    """
    for known, surface in _KNOWN:
        if known is model:
            return surface
    _KNOWN.insert(0, (model, _surface(model)))
    del _KNOWN[4:]
    return _KNOWN[0][1]


def _surface(model: SmplModel) -> HandSurface:
    """See `surface_of`."""
    axes, faces = hand_axes(model), np.asarray(model.faces, np.int64)
    template = np.asarray(model.template, np.float64).T
    weights = np.asarray(model.weights, np.float64)
    weights = weights if weights.shape[0] == 16 else weights.T
    border = _border(faces)
    rings = grid_faces(len(RINGS) + 1, len(border))
    numbers = np.concatenate([border, len(template) + np.arange(len(RINGS) * len(border))])
    coarse = np.concatenate([faces, numbers[rings]])
    # Wrist flexion turns about the axis of the middle finger's knuckle.
    bends = axes.axes[FINGERS["middle"][0] - 1, :2]
    bare = HandSurface(*(None,) * 4, template, border, bends, *(None,) * 4)
    points = bare.with_forearm(template, np.eye(3), np.zeros(2))
    refine, fine = _refined(coarse, len(points))
    weights = np.pad(weights, [(0, 0), (0, len(points) - len(template))])
    weights[0, len(template) :] = 1.0
    rest, weights = refine @ points, (refine @ weights.T).T
    normals = _unit(refine @ vertex_normals(points, coarse))
    # Directions out of the palm side of each bone, blended by the skinning weights.
    flexion, along = axes.axes[:, 0], axes.axes[:, 2]
    sides = np.concatenate([axes.palm[None], np.cross(flexion, along)])
    palmar = np.sum(_unit(weights.T @ sides) * normals, -1)
    blood, nails, creases = (np.zeros(len(rest)) for _ in range(3))
    for joints in FINGERS.values():
        for part, joint in enumerate(joints):
            bone = joint - 1
            length = np.linalg.norm(axes.ends[bone] - axes.joints[joint])
            offset = rest - axes.joints[joint]
            forward, aside = offset @ along[bone], offset @ flexion[bone]
            near = weights[joint] + weights[joints[part - 1] if part else 0] > 0.5
            back = _step((-palmar - 0.1) / 0.4)
            knuckle = np.exp(-((np.linalg.norm(offset, axis=-1) / 0.013) ** 2)) * back
            blood = np.maximum(blood, 0.7 * near * knuckle)
            lines = (-0.0028, 0.0, 0.0028) if part else ()
            for line in lines:
                creases = np.maximum(creases, near * back * _line(forward - line))
            line = 0.0 if part else (0.022 if joints != FINGERS["thumb"] else 1.0)
            creases = np.maximum(creases, near * _step(palmar / 0.3) * _line(forward - line))
            if part == 2:
                own = weights[joint] > 0.5
                blood = np.maximum(blood, own * _step((forward / length - 0.4) / 0.5))
                inside = _step((forward / length - 0.5) / 0.06) * _step((-palmar - 0.45) / 0.1)
                inside *= _step((0.0068 - np.abs(aside)) / 0.001)
                nails = np.maximum(nails, own * inside)
    # The lines of the palm: around the base of the thumb, and two across.
    palm = (weights[0] > 0.5) * _step((palmar - 0.3) / 0.3)
    thumb, index, pinky = (axes.joints[FINGERS[n][0]] for n in ("thumb", "index", "pinky"))
    radius = np.linalg.norm(rest - thumb, axis=-1)
    across = (pinky - index) / np.linalg.norm(pinky - index)
    reach = (rest - (index + pinky) / 2) @ _unit(axes.joints[0] - (index + pinky) / 2)
    slope = (rest - index) @ across
    for distance in (radius - 0.042, reach - 0.012 - 0.12 * slope, reach - 0.02 + 0.25 * slope):
        creases = np.maximum(creases, palm * _line(distance))
    return HandSurface(
        refine=refine,
        coarse=coarse,
        faces=fine,
        own=len(faces) * 4**REFINEMENTS,
        rest=rest,
        border=border,
        bends=bends,
        palmar=palmar,
        blood=blood,
        nails=nails,
        creases=creases,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Sleeve:
    """A sleeve, or a band around the wrist: from `start` to `end` metres along the forearm."""

    start: float
    end: float
    scale: float
    colours: Float[np.ndarray, "2 3"]


@dataclasses.dataclass(frozen=True, eq=False)
class Appearance:
    """How one hand looks.

    Attributes:
      albedo: (V, 3) of HandSurface's vertices.
      gloss: (V,) strength of highlights.
      bend: (2,) angles of the wrist, radians.
      sleeves: around the forearm.
      held: kind and random numbers of a held object, see objects.held_object; None: nothing.
      seed: of light, patches and noise of the picture.
    """

    albedo: Float[np.ndarray, "V 3"]
    gloss: Float[np.ndarray, "V"]
    bend: Float[np.ndarray, "2"]
    sleeves: tuple[Sleeve, ...]
    held: tuple[str, int] | None
    seed: int


def draw_appearance(surface: HandSurface, rng: np.random.Generator) -> Appearance:
    """A random appearance, a function of the state of `rng`."""
    # 1. Skin. Tones between two random ones cover the whole range.
    first, second = SKIN[rng.integers(len(SKIN), size=2)]
    skin = (first + rng.random() * (second - first)) * rng.uniform(0.82, 1.1)
    pale = np.clip(0.75 - skin.mean(), 0, 0.6) * rng.uniform(0.5, 1.3)
    to_palm = _step((surface.palmar + 0.15) / 0.5)[:, None] * (surface.rest[:, :1] < 0.015)
    albedo = skin + pale * to_palm * (PALM - skin)
    blotches = waves(surface.rest, rng, 10, 60, 400)[:, None]
    albedo = albedo * (1 + rng.uniform(0.02, 0.07) * blotches)
    redder = waves(surface.rest, rng, 5, 40, 150)[:, None] * rng.uniform(0.0, 0.03)
    albedo = albedo * (1 + redder * np.array([0.3, -1.0, -1.0]))
    red = rng.uniform(0.2, 1.0) * surface.blood[:, None]
    albedo = albedo * (1 + red * (BLOOD - 1))
    depth = rng.uniform(0.1, 0.45)
    albedo = albedo * (1 - depth * surface.creases[:, None] * np.array([0.8, 1.0, 1.0]))
    # 2. Nails, sometimes painted.
    nails = surface.nails[:, None]
    painted = rng.random() < 0.12
    nail = cloth_colour(rng) if painted else skin * [1.15, 1.12, 1.15] + [0.05, 0.03, 0.04]
    albedo = albedo + nails * (nail - albedo)
    gloss = np.full(len(albedo), rng.uniform(0.0, 0.15))
    gloss = gloss + surface.nails * rng.uniform(0.1, 0.4)
    # 3. The wrist, sleeves and bands.
    bend = np.clip(rng.normal(0, [0.45, 0.2]), -1.0, 1.0)
    sleeves = []
    colours = np.stack([cloth_colour(rng), cloth_colour(rng)])
    if rng.random() < 0.5:
        start = rng.uniform(0.0, 0.13)
        sleeves.append(Sleeve(start, RINGS[-1], rng.uniform(1.08, 1.5), colours))
    if rng.random() < 0.12:
        start = rng.uniform(0.005, 0.03)
        sleeves.append(Sleeve(start, start + rng.uniform(0.006, 0.03), 1.08, colours[::-1]))
    kinds = ("sphere", "cylinder", "box")
    held = (kinds[rng.integers(3)], int(rng.integers(2**31))) if rng.random() < 0.3 else None
    albedo = np.clip(albedo, 0.01, 1.0)
    return Appearance(albedo, gloss, bend, tuple(sleeves), held, int(rng.integers(2**31)))


def cloth(
    points: Float[np.ndarray, "V 3"], colours: np.ndarray, rng: np.random.Generator
) -> Float[np.ndarray, "V 3"]:
    """Colours of cloth or of an object's surface: plain, or a pattern of two colours (2, 3)."""
    mixed = pattern(2.0 * points, rng)[:, None]
    albedo = colours[0] + mixed * (colours[1] - colours[0])
    return np.clip(albedo * (1 + 0.1 * waves(points, rng, 6, 30, 150)[:, None]), 0.01, 1.0)


def grid_faces(rings: int, around: int, flip: bool = False) -> Int[np.ndarray, "F 3"]:
    """Triangles of a tube of `rings` rings with `around` vertices each."""
    ring, i = np.meshgrid(np.arange(rings - 1), np.arange(around), indexing="ij")
    a, b = ring * around + i, ring * around + (i + 1) % around
    c, d = a + around, b + around
    faces = np.stack([np.stack([a, b, c], -1), np.stack([b, d, c], -1)], -2).reshape(-1, 3)
    return faces[:, ::-1] if flip else faces


def _border(faces: np.ndarray) -> np.ndarray:
    """The vertices of the open border in order, so that a tube of `grid_faces` continues it."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    known = {(int(a), int(b)) for a, b in edges}
    # The tube has the border's edges in the other direction than the hand has them.
    after = {b: a for a, b in known if (b, a) not in known}
    loop = [min(after)]
    while (following := after[loop[-1]]) != loop[0]:
        loop.append(following)
    return np.array(loop)


def _refined(faces: np.ndarray, count: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """The operator from `count` vertices to the refined ones, and the refined faces, in order."""
    total = sparse.identity(count, format="csr")
    for _ in range(REFINEMENTS):
        edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1)
        pairs, index = np.unique(edges, axis=0, return_inverse=True)
        rows = np.repeat(np.arange(len(pairs)), 2)
        shape = (len(pairs), count)
        middles = sparse.csr_matrix((np.full(len(rows), 0.5), (rows, pairs.ravel())), shape)
        total = sparse.vstack([sparse.identity(count, format="csr"), middles]).tocsr() @ total
        a, b, c = faces.T
        ab, bc, ca = count + index.reshape(-1, 3).T
        parts = [[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]]
        faces = np.array(parts).transpose(2, 0, 1).reshape(-1, 3)
        count += len(pairs)
    return total, np.ascontiguousarray(faces)


def _rotations(vector: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Rotation matrices (*shares, 3, 3) of shares of an axis-angle vector."""
    angle = max(float(np.linalg.norm(vector)), 1e-9)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turns = (angle * shares)[..., None, None]
    return np.eye(3) + np.sin(turns) * cross + (1 - np.cos(turns)) * (cross @ cross)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _step(x: np.ndarray | float) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    t = np.clip(x, 0.0, 1.0)
    return t * t * (3 - 2 * t)


def _line(distance: np.ndarray) -> np.ndarray:
    """1 on a line, 0 from about 2 mm beside it."""
    return np.exp(-((distance / 0.0012) ** 2))
