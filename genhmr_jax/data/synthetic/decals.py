"""Details that are finer than the mesh: pictures over its vertex colours, looked up for each pixel.

There are three charts. "head" is a picture of the whole head over azimuth and elevation, which
replaces the vertex colours there. "front" and "back" are pictures of the trunk, seen along z at
rest, with an opacity: texels of opacity 0 show the vertex colours. Positions are those at rest, so
that any body in SMPL's format has these charts.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from genhmr_jax.io.compiled import compiled

NONE, HEAD, FRONT, BACK = range(4)
AZIMUTHS, ELEVATIONS = 192, 96  # texels of the head; about 3 mm
TEXEL = 0.005  # metres, of the trunk


@dataclasses.dataclass(frozen=True)
class Points:
    """Points of the head in units of its proportions, float32.

    Attributes:
      u: left (+) and right, 1 at the ears.
      v: up, 0 at the eyes, -1 at the height of the tip of the nose, about 3 at the top.
      d: forward, 0 at the ears, 1 at the tip of the nose, about -0.6 at the back.
      azimuth: radians about the vertical, 0 forward.
    """

    u: np.ndarray
    v: np.ndarray
    d: np.ndarray
    azimuth: np.ndarray

    @staticmethod
    def of(
        positions: Float[np.ndarray, "*b 3"],
        centre: Float[np.ndarray, "3"],
        landmarks: dict[str, np.ndarray],
    ) -> "Points":
        """Points at these rest positions, metres; centre and landmarks as in Charts."""
        eye, ear, nose = (landmarks[name] for name in ("left_eye", "left_ear", "nose"))
        x, y, z = np.moveaxis(positions, -1, 0)
        units = (
            x / ear[0],
            (y - eye[1]) / (eye[1] - nose[1]),
            (z - ear[2]) / (nose[2] - ear[2]),
            np.arctan2(x, z - centre[2]),
        )
        return Points(*(values.astype(np.float32) for values in units))

    def at(self, rows: slice, columns: slice) -> "Points":
        """A window of texels."""
        values = (getattr(self, f.name)[rows, columns] for f in dataclasses.fields(self))
        return Points(*values)


@dataclasses.dataclass(frozen=True)
class Charts:
    """Where the pictures of a body lie, computed once.

    Attributes:
      rest: (V, 3) vertices at rest, metres.
      chart: (F,) the chart of each face.
      centre: (3,) the middle of the head, metres.
      head: (ELEVATIONS, AZIMUTHS, 3) rest position of each texel of the head, metres. The first
        column looks backwards, the middle one forwards; the first row looks up.
      x: (w,) metres, columns of the trunk's pictures; y: (h,) metres, their rows, from above.
      landmarks: left_eye, left_ear and nose, (3,) metres at rest.
      on_head, of_vertices: the texels of the head, and all vertices, in units of the head.
    """

    rest: Float[np.ndarray, "V 3"]
    chart: Int[np.ndarray, "F"]
    centre: Float[np.ndarray, "3"]
    head: Float[np.ndarray, "E A 3"]
    x: Float[np.ndarray, "w"]
    y: Float[np.ndarray, "h"]
    landmarks: dict[str, np.ndarray]
    on_head: Points
    of_vertices: Points

    @staticmethod
    def of(
        rest: Float[np.ndarray, "V 3"],
        faces: Int[np.ndarray, "F 3"],
        head_share: Float[np.ndarray, "V"],
        on_trunk: np.ndarray,
        landmarks: dict[str, np.ndarray],
    ) -> "Charts":
        """The charts of a body.

        Args:
          rest: vertices at rest, metres.
          faces: vertex indices.
          head_share: share of the head in each vertex.
          on_trunk: (V,) bool, vertices of the trunk's pictures.
          landmarks: as in Charts.
        """
        chart = np.full(len(faces), NONE, np.int8)
        corners = rest[faces]
        normal_z = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2]
        trunk = on_trunk[faces].all(1)
        chart[trunk & (normal_z > 0)] = FRONT
        chart[trunk & (normal_z <= 0)] = BACK
        chart[head_share[faces].mean(1) > 0.5] = HEAD

        of_head = rest[head_share > 0.5]
        centre = (of_head.max(0) + of_head.min(0)) / 2 * [0, 1, 1]
        azimuth = (np.arange(AZIMUTHS) + 0.5) / AZIMUTHS * 2 * np.pi - np.pi
        elevation = np.pi / 2 - (np.arange(ELEVATIONS)[:, None] + 0.5) / ELEVATIONS * np.pi
        level = np.cos(elevation)
        up = np.sin(elevation) * np.ones(AZIMUTHS)
        towards = np.stack([level * np.sin(azimuth), up, level * np.cos(azimuth)], -1)
        arms = of_head - centre
        tree = cKDTree(arms / np.linalg.norm(arms, axis=1, keepdims=True))
        distance, near = tree.query(towards, k=4)
        weight = 1.0 / (distance + 0.01)
        head = (of_head[near] * weight[..., None]).sum(-2) / weight.sum(-1, keepdims=True)

        spread, top = rest[on_trunk, 0].max(), rest[on_trunk, 1].max()
        x = np.arange(-spread, spread, TEXEL) + TEXEL / 2
        y = np.arange(top, rest[on_trunk, 1].min(), -TEXEL) - TEXEL / 2
        on_head, of_vertices = (Points.of(p, centre, landmarks) for p in (head, rest))
        return Charts(rest, chart, centre, head, x, y, landmarks, on_head, of_vertices)


@dataclasses.dataclass(frozen=True)
class Decals:
    """The pictures of one person.

    Attributes:
      head: (ELEVATIONS, AZIMUTHS, 3) albedo in linear light, 0..1.
      front, back: (h, w, 4) albedo as display values (`display`), and opacity.
    """

    head: Float[np.ndarray, "E A 3"]
    front: Float[np.ndarray, "h w 4"]
    back: Float[np.ndarray, "h w 4"]


def display(linear: np.ndarray) -> np.ndarray:
    """Display values, float32 in 0..1, of linear light."""
    return np.clip(linear, 0, 1).astype(np.float32) ** np.float32(1 / 2.2)


class Canvas:
    """A picture of the trunk that is painted in steps.

    Attributes:
      x: (1, w) metres; y: (h, 1) metres.
      pixels: (h, w, 4) albedo as display values, and opacity.
    """

    def __init__(self, charts: Charts):
        self.x, self.y = charts.x[None], charts.y[:, None]
        self.pixels = np.zeros((len(charts.y), len(charts.x), 4), np.float32)

    def paint(self, where: np.ndarray, colour: np.ndarray, opacity: float = 1.0) -> None:
        """Paints texels (h, w) bool, or a mask that broadcasts to it, in a linear colour (3,)."""
        where = np.broadcast_to(where, self.pixels.shape[:2])
        self.pixels[where] = np.append(display(np.maximum(colour, 0.01)), opacity)


def composite(
    charts: Charts,
    decals: Decals,
    drawn: tuple[np.ndarray, np.ndarray],
    faces: Int[np.ndarray, "F 3"],
    albedo: Float[np.ndarray, "V 3"],
    shading: Float[np.ndarray, "V 3"],
    picture: Float[np.ndarray, "S S 3"],
    cover: Float[np.ndarray, "S S"],
    samples: int,
) -> None:
    """Draws a person with decals over `picture` (display values, 0..1), in place.

    Args:
      drawn: face_id (S*samples, S*samples) and bary of the rasteriser.
      albedo, shading: of the vertices, in linear light.
      cover: gets the covered share of every pixel.
      samples: per pixel and axis.
    """
    corner = np.array([charts.x[0], charts.y[0]]) + [-TEXEL / 2, TEXEL / 2]
    _composite(
        *drawn,
        faces,
        charts.chart,
        (charts.rest - charts.centre).astype(np.float32),
        (corner - charts.centre[:2]).astype(np.float32),
        display(albedo * shading),
        np.maximum(shading, 0).astype(np.float32) ** np.float32(1 / 2.2),
        display(decals.head),
        np.stack([decals.front, decals.back]),
        picture,
        cover,
        samples,
    )


@compiled
def _composite(
    face_id, bary, faces, chart, place, corner, colour, light, head, sides, picture, cover, samples
):
    """`composite` with display values.

    colour, light (V, 3): lit vertices, and their light; place (V, 3): rest positions from the
    middle of the head; corner (2,): x and y there of the corner of sides (2, h, w, 4).
    """
    share = 1.0 / (samples * samples)
    value, lit, at = np.empty(3), np.empty(3), np.empty(3)
    for row in range(cover.shape[0]):
        for col in range(cover.shape[1]):
            count = 0
            value[:] = 0.0
            for y in range(row * samples, (row + 1) * samples):
                for x in range(col * samples, (col + 1) * samples):
                    face = face_id[y, x]
                    if face < 0:
                        continue
                    count += 1
                    kind = chart[face]
                    if kind == 0:
                        for i in range(3):
                            for k in range(3):
                                value[k] += bary[y, x, i] * colour[faces[face, i], k]
                        continue
                    at[:] = 0.0
                    lit[:] = 0.0
                    for i in range(3):
                        vertex, part = faces[face, i], bary[y, x, i]
                        for k in range(3):
                            at[k] += part * place[vertex, k]
                            lit[k] += part * light[vertex, k]
                    if kind == 1:
                        around = np.arctan2(at[0], at[2]) / (2 * np.pi) + 0.5
                        level = np.sqrt(at[0] * at[0] + at[2] * at[2])
                        down = 0.5 - np.arctan2(at[1], level) / np.pi
                        u = min(int(around * head.shape[1]), head.shape[1] - 1)
                        v = min(int(down * head.shape[0]), head.shape[0] - 1)
                        for k in range(3):
                            value[k] += min(head[v, u, k] * lit[k], 1.0)
                        continue
                    side = kind - 2
                    u = min(max(int((at[0] - corner[0]) / TEXEL), 0), sides.shape[2] - 1)
                    v = min(max(int((corner[1] - at[1]) / TEXEL), 0), sides.shape[1] - 1)
                    opacity = sides[side, v, u, 3]
                    for k in range(3):
                        own = 0.0
                        for i in range(3):
                            own += bary[y, x, i] * colour[faces[face, i], k]
                        decal = min(sides[side, v, u, k] * lit[k], 1.0)
                        value[k] += own + opacity * (decal - own)
            cover[row, col] = count * share
            for k in range(3):
                behind = picture[row, col, k] * (1.0 - count * share)
                picture[row, col, k] = behind + value[k] * share
