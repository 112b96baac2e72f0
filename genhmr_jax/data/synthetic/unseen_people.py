"""The people of the second test set: families of skin, hair and clothes that training never draws.

Training has other tones, patterns, cuts, hats and garments (appearance.py, clothes.py, heads.py).
Only the painting of eyes, brows, nose and mouth is shared, since a face is a face.
"""

import numpy as np
from jaxtyping import Float

from genhmr_jax.data.synthetic.appearance import J, Outfit, Wardrobe, waves
from genhmr_jax.data.synthetic.clothes import Dressing, height_of
from genhmr_jax.data.synthetic.decals import Points
from genhmr_jax.data.synthetic.heads import Hair, paint_face

SKINS = np.array([
    [0.96, 0.82, 0.75], [0.83, 0.63, 0.5], [0.7, 0.5, 0.37],
    [0.52, 0.35, 0.25], [0.34, 0.22, 0.16], [0.2, 0.13, 0.1],
])  # fmt: skip
HAIRS = np.array([
    [0.85, 0.82, 0.75], [0.02, 0.02, 0.03], [0.25, 0.1, 0.16],
    [0.7, 0.3, 0.5], [0.15, 0.35, 0.5], [0.35, 0.22, 0.1],
])  # fmt: skip
CLOTHS = np.array([
    [0.5, 0.34, 0.18], [0.12, 0.14, 0.05], [0.4, 0.12, 0.06], [0.6, 0.36, 0.4], [0.2, 0.42, 0.36],
    [0.7, 0.62, 0.42], [0.04, 0.05, 0.08], [0.2, 0.03, 0.07], [0.8, 0.3, 0.02], [0.4, 0.6, 0.05],
])  # fmt: skip
PATTERNS = ("plaid", "dots", "camouflage", "gradient", "diagonal", "halves", "none")
HEADS = ("afro", "mohawk", "top knot", "scarf", "helmet", "headband", "curtains")
GARMENTS = ("tunic", "vest", "apron", "sash", "front pack", "plain", "plain")


def dress_unseen(wardrobe: Wardrobe, rng: np.random.Generator) -> Outfit:
    """A random outfit of the second test set."""
    skin = SKINS[rng.integers(len(SKINS))] * rng.uniform(0.9, 1.05)
    person = Dressing(wardrobe, skin, rng)
    rest, arm, leg = wardrobe.rest, wardrobe.arm, wardrobe.leg
    kind = str(rng.choice(GARMENTS))

    # 1. Shoes or boots, trousers, and a top with another neckline.
    person.put_on(leg > rng.uniform(0.6, 0.97), _cloth(rng), rng.uniform(0.003, 0.01))
    end = rng.choice([0.55, 0.65, 0.75, 0.85])
    trousers = (leg > rng.uniform(-0.2, -0.05)) & (leg < end) & (arm < 0)
    person.put_on(trousers, patterned(rest, rng), rng.uniform(0.006, 0.03))
    hem = rng.uniform(0.3, 0.6) if kind == "tunic" else rng.uniform(-0.12, 0.28)
    neck = wardrobe.joints[J["neck"], 1] + rng.uniform(-0.08, 0.06)
    top = (arm < 0) & (leg < hem) & (wardrobe.head < 0.4) & (rest[:, 1] < neck)
    sleeve = rng.choice([-0.5, 0.2, 0.6, 0.75, 1.0])
    person.put_on(
        top | ((arm >= 0) & (arm < sleeve)), patterned(rest, rng), rng.uniform(0.004, 0.03)
    )

    # 2. What is worn over it.
    _over(person, kind, neck, height_of(wardrobe, min(hem, 0.2)), rng)

    # 3. The head.
    tone = HAIRS[rng.integers(len(HAIRS))] * rng.uniform(0.8, 1.2)
    paint_face(person.head, person.on_head, skin, tone, rng)
    _head(person, str(rng.choice(HEADS)), tone, rng)
    return person.outfit(rng)


def _cloth(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    """A colour of CLOTHS, a little brighter or darker."""
    return np.clip(CLOTHS[rng.integers(len(CLOTHS))] * rng.uniform(0.5, 1.15), 0.02, 1)


def patterned(rest: Float[np.ndarray, "V 3"], rng: np.random.Generator) -> np.ndarray:
    """The colours (V, 3) of a cloth in one of PATTERNS, over the rest positions in metres."""
    kind, colours = rng.choice(PATTERNS), np.stack([_cloth(rng) for _ in range(3)])
    period = rng.uniform(0.06, 0.14)
    x, y = rest[:, :1] / period, rest[:, 1:2] / period
    mix = lambda share, a=0, b=1: colours[a] + (colours[b] - colours[a]) * share
    if kind == "plaid":
        bars = [(np.mod(t, 1.0) < 0.4).astype(float) for t in (x, y)]
        line = (np.mod(y + 0.2, 1.0) < 0.15) | (np.mod(x + 0.2, 1.0) < 0.15)
        return np.where(line, colours[2], mix(0.5 * (bars[0] + bars[1])))
    if kind == "dots":
        shifted = x + 0.5 * np.mod(np.floor(y), 2)
        inside = (np.mod(shifted, 1) - 0.5) ** 2 + (np.mod(y, 1) - 0.5) ** 2 < 0.08
        return mix(inside.astype(float))
    if kind == "camouflage":
        noise = waves(rest, rng, 10, 15, 60)[:, None]
        return np.where(noise > 0.5, colours[2], mix((noise > -0.3).astype(float)))
    if kind == "gradient":
        return mix(np.clip((rest[:, 1:2] - rest[:, 1].min()) * rng.uniform(0.5, 1.5) % 1.0, 0, 1))
    if kind == "diagonal":
        return mix((np.mod(x + rng.choice([-1, 1]) * y, 1.0) < 0.5).astype(float))
    if kind == "halves":
        return mix((rest[:, :1] > 0).astype(float))
    return np.tile(colours[0], (len(rest), 1))


def _over(person: Dressing, kind: str, neck: float, hem: float, rng: np.random.Generator) -> None:
    """One of GARMENTS over shirt and trousers."""
    front, back, wardrobe = person.front, person.back, person.wardrobe
    rest, colour = wardrobe.rest, _cloth(rng)
    trunk = (wardrobe.arm < 0) & (wardrobe.head < 0.35)
    before = wardrobe.normals[:, 2] > 0
    if kind == "vest":  # with reflecting bands
        person.put_on(trunk & (rest[:, 1] < neck) & (rest[:, 1] > hem), colour, 0.02)
        for canvas in (front, back):
            band = (np.abs(canvas.y - hem - 0.12) < 0.025) | (np.abs(np.abs(canvas.x) - 0.1) < 0.02)
            canvas.paint(band & (canvas.y < neck) & (canvas.y > hem), np.full(3, 0.9))
        front.paint((np.abs(front.x) < 0.008) & (front.y < neck) & (front.y > hem), np.full(3, 0.1))
    elif kind == "apron":
        low = neck - 0.12
        bib = trunk & before & (rest[:, 1] < low) & (np.abs(rest[:, 0]) < 0.13)
        person.put_on(bib & (wardrobe.leg < 0.5), colour, 0.02)
        front.paint((np.abs(front.x) < 0.14) & (front.y < low), colour)
        front.paint((np.abs(front.x) < 0.07) & (np.abs(front.y - low + 0.3) < 0.06), colour * 0.6)
        back.paint(np.abs(back.y - wardrobe.joints[J["spine1"], 1]) < 0.015, colour)
    elif kind == "sash":
        for canvas, sign in ((front, 1), (back, -1)):
            across = (canvas.y - wardrobe.joints[J["spine2"], 1]) - sign * 1.3 * canvas.x
            canvas.paint((np.abs(across) < 0.06) & (canvas.y < neck), colour)
    elif kind == "front pack":
        middle = wardrobe.joints[J["spine2"], 1]
        pack = trunk & before & (np.abs(rest[:, 1] - middle) < 0.13) & (np.abs(rest[:, 0]) < 0.11)
        person.put_on(pack, colour, rng.uniform(0.05, 0.1))
        front.paint((np.abs(front.x) < 0.12) & (np.abs(front.y - middle) < 0.14), colour)
        for canvas in (front, back):
            canvas.paint(np.abs(np.abs(canvas.x) - 0.1) < 0.015, colour * 0.5)


def _head(person: Dressing, kind: str, tone: np.ndarray, rng: np.random.Generator) -> None:
    """One of HEADS over the face."""
    texels, vertices, scarf = person.on_head, person.of_vertices, _cloth(rng)
    of_head = person.wardrobe.head > 0.4
    hair = Hair.draw("short", rng)

    def cover(where: np.ndarray, over: np.ndarray, colour: np.ndarray, thickness: float) -> None:
        """Colours texels (E, A) and lifts vertices (V,) by a thickness in metres."""
        person.head[where] = colour
        person.put_on(over, colour, thickness)

    def grown(p: Points) -> np.ndarray:
        return hair.covers(p)

    if kind == "afro":
        person.put_on(grown(vertices) & of_head, tone, rng.uniform(0.035, 0.07))
        curls = np.sin(37 * texels.azimuth + 9 * np.sin(11 * texels.v)) + np.sin(29 * texels.v)
        person.head[grown(texels)] = (tone * (1 + 0.3 * curls[..., None]))[grown(texels)]
    elif kind == "mohawk":
        ridge = lambda p: grown(p) & (np.abs(p.u) < 0.2) & ((p.v > 1.2) | (p.d < -0.3))
        person.head[grown(texels)] *= 0.75  # shaved
        cover(ridge(texels), ridge(vertices) & of_head, tone, rng.uniform(0.04, 0.07))
    elif kind == "top knot":
        cover(grown(texels), grown(vertices) & of_head, tone, 0.006)
        knot = (vertices.v > 2.3) & (np.abs(vertices.u) < 0.35) & (np.abs(vertices.d) < 0.3)
        person.put_on(knot & of_head, tone, rng.uniform(0.05, 0.08))
    elif kind == "scarf":
        bare = lambda p: (p.azimuth / 0.85) ** 2 + ((p.v + 0.5) / 2.0) ** 2 < 1
        neck = person.wardrobe.rest[:, 1] > person.wardrobe.joints[J["neck"], 1] - 0.04
        wrapped = ~bare(vertices) & neck & (person.wardrobe.arm < 0)
        cover(~bare(texels), wrapped, scarf, rng.uniform(0.012, 0.025))
        person.head[~bare(texels) & (np.mod(texels.v + texels.d, 1.1) < 0.12)] *= 0.7
    elif kind == "helmet":
        shell = lambda p: p.v > 0.9 + 0.2 * np.cos(p.azimuth)
        rim = lambda p: np.abs(p.v - 0.9 - 0.2 * np.cos(p.azimuth)) < 0.3
        cover(shell(texels), shell(vertices) & of_head, scarf, 0.022)
        cover(rim(texels), rim(vertices) & of_head, scarf * 0.8, rng.uniform(0.03, 0.045))
        person.head[shell(texels) & (np.abs(texels.u) < 0.12)] = 0.85
    else:
        cover(grown(texels), grown(vertices) & of_head, tone, rng.uniform(0.01, 0.03))
        if kind == "headband":
            band = lambda p: np.abs(p.v - 1.2 + 0.5 * (p.d < 0)) < 0.25
            cover(band(texels), band(vertices) & of_head, scarf, 0.012)
        else:  # curtains: hair to both sides of the face
            side = lambda p: (np.abs(p.u) > 0.75) & (p.d < 0.35) & (p.d > -0.3)
            cover(side(texels), side(vertices) & of_head, tone, rng.uniform(0.015, 0.03))
