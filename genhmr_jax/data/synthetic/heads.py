"""Heads with a front: face, ears, hair and hats of a synthetic person.

All features are functions of three coordinates of a point of the head at rest, in units of its own
proportions (decals.Points). They colour the texels of the head's picture, and give an offset to the
vertices under hair and hats.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from genhmr_jax.data.synthetic.decals import Points

IRIS = np.array([[0.05, 0.03, 0.02], [0.12, 0.07, 0.03], [0.1, 0.16, 0.25], [0.12, 0.17, 0.1]])
CUTS = ("bald", "balding", "crew", "short", "short", "fringe", "bob", "long", "long", "pony")
HATS = ("cap", "cap", "cap", "backward cap", "beanie")


@dataclasses.dataclass(frozen=True)
class Hair:
    """A hair cut.

    Attributes:
      cut: one of CUTS.
      line: v of the hair line at the forehead.
      nape: v of the lower end behind.
      sideburn: v of the lower end before the ears.
      covers_ears: whether it hangs over them.
      waves: (2,) phases of its outline and strands.
    """

    cut: str
    line: float
    nape: float
    sideburn: float
    covers_ears: bool
    waves: np.ndarray

    @staticmethod
    def draw(cut: str, rng: np.random.Generator) -> "Hair":
        """A hair cut of this kind."""
        line = rng.uniform(0.8, 1.1) if cut in ("fringe", "bob") else rng.uniform(1.3, 2.0)
        hanging = cut in ("long", "bob")
        nape = rng.uniform(-2.8, -2.0) if hanging else rng.uniform(-1.5, -0.6)
        sideburn = rng.uniform(-2.5, -1.5) if hanging else rng.uniform(-0.6, 0.5)
        waves = rng.uniform(0, 2 * np.pi, 2).astype(np.float32)
        return Hair(cut, line, nape, sideburn, hanging, waves)

    def covers(self, p: Points) -> np.ndarray:
        """Whether hair grows at, or hangs over, each point."""
        if self.cut == "bald":
            return np.zeros(p.v.shape, bool)
        rough = 0.08 * np.sin(17 * p.azimuth + self.waves[0])
        rough += 0.06 * np.sin(31 * p.azimuth + 3 * p.v + self.waves[1])
        rise = np.clip((p.v - 0.4) / (self.line - 0.4), 0, 1)
        before = (0.3 if self.covers_ears else 0.12) + 0.65 * rise * np.sqrt(rise)
        lower = np.where(p.d > -0.12, self.sideburn, self.nape)
        hair = (p.d < before + 0.3 * rough) & (p.v > lower + rough)
        hair |= p.v > self.line + 0.25 + rough
        if self.cut == "balding":
            hair &= (p.v < 1.6 + rough) & (p.d < 0.3)
        if not self.covers_ears:
            ear = (np.abs(p.d + 0.05) < 0.22) & (np.abs(p.v + 0.2) < 0.75) & (np.abs(p.u) > 0.8)
            hair &= ~ear
        return hair

    def strands(self, p: Points) -> np.ndarray:
        """Brightness of the hair, about 1."""
        along = np.sin(41 * p.azimuth + 2 * p.v + self.waves[0])
        along = along + 0.7 * np.sin(67 * p.azimuth - 3 * p.v + self.waves[1])
        gloss = np.exp(-(((p.v - 2.0) / 0.35) ** 2))  # a ring around the crown
        return 1.0 + 0.12 * along + 0.25 * gloss


def paint_face(
    picture: Float[np.ndarray, "E A 3"],
    p: Points,
    skin: Float[np.ndarray, "3"],
    hair: Float[np.ndarray, "3"],
    rng: np.random.Generator,
) -> None:
    """Paints eyes, brows, nose, mouth, and sometimes a beard or glasses, in place."""
    columns = np.flatnonzero(np.abs(p.azimuth[p.azimuth.shape[0] // 2]) < 1.4)
    rows = np.flatnonzero(np.abs(p.v[:, columns[len(columns) // 2]]) < 2.6)
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    face, p = picture[window], p.at(*window)
    side, front = np.abs(p.u), p.d > 0.2
    bump = lambda u, v, width, height: np.exp(
        -(((side - u) / width) ** 2) - ((p.v - v) / height) ** 2
    )

    # 1. Skin: sockets and the sides of the nose are darker, cheeks and nose redder.
    shade = 1 - rng.uniform(0.15, 0.4) * bump(0.37, 0.1, 0.2, 0.35) * front
    shade = shade - 0.18 * bump(0.17, -0.7, 0.08, 0.5) * front - 0.3 * bump(0, -1.2, 0.17, 0.1)
    red = rng.uniform(0.0, 0.25) * (bump(0.5, -0.9, 0.2, 0.5) + bump(0, -0.9, 0.12, 0.3)) * front
    face *= shade[..., None] * (1 - red[..., None] * [0.0, 0.6, 0.6])
    if rng.random() < 0.3:  # beard or stubble
        low = (p.v < -1.35 - 0.5 * np.clip(0.45 - p.d, -0.4, 0.4)) & (p.d > 0.05) & (p.v > -3.2)
        lips = (side / 0.3) ** 2 + ((p.v + 1.95) / 0.24) ** 2 < 1
        beard = low & ~lips
        face[beard] += (hair - face[beard]) * rng.choice([0.3, 0.6, 0.95])

    # 2. Mouth.
    width, red = rng.uniform(0.24, 0.34), rng.uniform([0.6, 0.25, 0.25], [1.0, 0.55, 0.55])
    mouth = ((side / width) ** 2 + ((p.v + 1.95) / 0.2) ** 2 < 1) & front
    face[mouth] = skin * red
    face[mouth & (np.abs(p.v + 1.93) < 0.06)] *= 0.35

    # 3. Eyes, which look a little to a side, and brows.
    eye_v, eye_u = rng.uniform(-0.05, 0.08), 0.37
    wide, high = rng.uniform(0.16, 0.2), rng.uniform(0.13, 0.22)
    look = rng.uniform(-0.05, 0.05)
    around = ((side - eye_u) / wide) ** 2 + ((p.v - eye_v) / high) ** 2
    face[(around < 1.9) & (p.v > eye_v) & front] *= 0.4  # lashes
    face[(around < 1) & front] = rng.uniform(0.6, 0.85) * np.array([1, 0.97, 0.95])
    centre = np.where(p.u > 0, eye_u + look, eye_u - look)
    iris = ((side - centre) / 0.09) ** 2 + ((p.v - eye_v) / 0.2) ** 2 < 1
    face[iris & (around < 1.1) & front] = IRIS[rng.integers(len(IRIS))]
    arc = p.v - rng.uniform(0.42, 0.55) - 0.4 * (0.12 - (side - eye_u) ** 2 * 4)
    thick = rng.uniform(0.07, 0.14)
    brow = (np.abs(arc) < thick) & (np.abs(side - eye_u) < 0.24) & front
    face[brow] = face[brow] * 0.25 + 0.75 * np.minimum(0.6 * hair, 0.5 * skin)


def paint_glasses(
    picture: Float[np.ndarray, "E A 3"], p: Points, dark: float, frame: np.ndarray
) -> None:
    """Paints glasses with lenses of an opacity `dark`, in place."""
    side = np.abs(p.u)
    lens = ((side - 0.38) / 0.27) ** 4 + ((p.v - 0.0) / 0.42) ** 4
    front = p.d > 0.25
    inside, rim = (lens < 1) & front, (lens >= 1) & (lens < 1.9) & front
    picture[inside] *= 1 - dark
    bridge = (side < 0.12) & (np.abs(p.v - 0.15) < 0.08) & front
    bow = (side > 0.66) & (np.abs(p.v - 0.15) < 0.07) & (p.d > 0.0)
    picture[rim | bridge | bow] = frame


def hat_edge(p: Points, forehead: float, behind: float) -> np.ndarray:
    """v of the lower edge of a hat: `forehead` before, `behind` at the back."""
    return behind + (forehead - behind) * np.clip((p.d + 0.5) / 1.2, 0, 1)


@dataclasses.dataclass(frozen=True)
class Hat:
    """A cap or a beanie.

    Attributes:
      kind: one of HATS.
      colours: (2, 3) of the crown, and of peak and seams.
      forehead, behind: v of its edge.
      peak: length of the peak, metres.
    """

    kind: str
    colours: np.ndarray
    forehead: float
    behind: float
    peak: float

    @staticmethod
    def draw(kind: str, colours: np.ndarray, rng: np.random.Generator) -> "Hat":
        """A hat of this kind."""
        forehead = rng.uniform(1.0, 1.5)
        return Hat(kind, colours, forehead, rng.uniform(-0.3, 0.6), rng.uniform(0.03, 0.06))

    def covers(self, p: Points) -> np.ndarray:
        """Whether the hat is over each point."""
        return p.v > hat_edge(p, self.forehead, self.behind)

    def _peaked(self, p: Points) -> np.ndarray:
        """Whether each point is under the peak: before, or behind."""
        towards = np.abs(p.azimuth)
        towards = np.pi - towards if self.kind == "backward cap" else towards
        above = p.v - hat_edge(p, self.forehead, self.behind)
        return (towards < 0.95) & (np.abs(above - 0.1) < 0.25 - 0.1 * towards)

    def paint(self, picture: Float[np.ndarray, "E A 3"], p: Points) -> None:
        """Paints the hat, in place."""
        above = p.v - hat_edge(p, self.forehead, self.behind)
        cap = above > 0
        picture[cap] = self.colours[0]
        picture[(above > -0.5) & ~cap & (np.abs(p.azimuth) < 1.2)] *= 0.65  # in its shadow
        if self.kind == "beanie":
            picture[cap & (above < 0.7)] *= 0.75
            picture[cap & (np.sin(45 * p.azimuth) > 0.6)] *= 0.85
            return
        picture[cap & (np.abs(np.sin(3 * p.azimuth)) < 0.06)] *= 0.7  # seams
        picture[self._peaked(p)] = self.colours[1]
        opening = ((p.azimuth / 0.45) ** 2 + ((above - 0.55) / 0.45) ** 2 < 1) & (above > 0.3)
        if self.kind == "cap":
            emblem = ((p.azimuth / 0.28) ** 2 + ((above - 0.8) / 0.3) ** 2 < 1) & (p.d > 0)
            picture[emblem] = self.colours[1]
        else:
            picture[opening & (p.d > 0)] *= 0.3

    def offset(self, p: Points) -> np.ndarray:
        """Metres by which the surface stands out."""
        cap = np.where(self.covers(p), 0.012 if self.kind != "beanie" else 0.016, 0.0)
        return cap if self.kind == "beanie" else np.where(self._peaked(p), self.peak, cap)
