"""The outfits of training images: people whose front differs from their back.

Faces, hair and hats are of heads.py. Clothes have necklines, plackets, zips, prints, ties and belts
before, and pockets, hoods, numbers, crossed straps and rucksacks behind.
"""

import numpy as np

from genhmr_jax.data.synthetic.appearance import (
    HAIR,
    SKIN,
    J,
    Outfit,
    Wardrobe,
    cloth_colour,
    dress,
    pattern,
    waves,
)
from genhmr_jax.data.synthetic.decals import Canvas, Decals
from genhmr_jax.data.synthetic.heads import (
    CUTS,
    HATS,
    Hair,
    Hat,
    paint_face,
    paint_glasses,
)

PLAIN = 0.12
"""Share of training people in outfits of the first test set, without these details."""
TOPS = ("shirt", "tee", "tee", "print", "open jacket", "zip jacket", "suit", "straps")


class Dressing:
    """Layers that are put on a person one after the other.

    Attributes:
      albedo: (V, 3); inflate: (V,) metres; cloth: (V,) bool; folds: (V,) about -1..1.
      front, back: details on the trunk; head: (E, A, 3) the picture of the head.
      on_head, of_vertices: the texels of the head, and all vertices, in units of the head.
    """

    def __init__(self, wardrobe: Wardrobe, skin: np.ndarray, rng: np.random.Generator):
        self.wardrobe, charts = wardrobe, wardrobe.charts
        count = len(wardrobe.rest)
        self.albedo, self.inflate = np.tile(skin, (count, 1)), np.zeros(count)
        self.cloth, self.folds = np.zeros(count, bool), waves(wardrobe.rest, rng, 8, 15, 70)
        self.front, self.back = Canvas(charts), Canvas(charts)
        self.head = np.tile(skin.astype(np.float32), (*charts.head.shape[:2], 1))
        self.on_head, self.of_vertices = charts.on_head, charts.of_vertices

    def put_on(self, where: np.ndarray, colour: np.ndarray, thickness: float) -> None:
        """Puts a layer on vertices (V,) bool; colour (3,) or (V, 3), thickness in metres."""
        folds = self.folds[where]
        colour = colour if np.ndim(colour) == 1 else colour[where]
        self.albedo[where] = np.clip(colour * (1 + 0.12 * folds[:, None]), 0.01, 1)
        self.cloth[where] = True
        thick = np.maximum(thickness * (1 + 0.4 * folds), 0.001)
        self.inflate[where] = np.maximum(thick, self.inflate[where])

    def outfit(self, rng: np.random.Generator) -> Outfit:
        """The person as dressed so far."""
        rest, normals = self.wardrobe.rest, self.wardrobe.normals
        wrinkles = waves(rest, rng, 10, 30, 90) * rng.uniform(0.001, 0.006) * self.cloth
        decals = Decals(np.clip(self.head, 0.01, 1), self.front.pixels, self.back.pixels)
        offset = normals * self.inflate[:, None]
        return Outfit(np.clip(self.albedo, 0.01, 1), offset, wrinkles, decals)


def dress_for_training(wardrobe: Wardrobe, rng: np.random.Generator) -> Outfit:
    """A random outfit of a training image."""
    if rng.random() < PLAIN:
        return dress(wardrobe, rng)
    skin = SKIN[rng.integers(len(SKIN))] * rng.uniform(0.85, 1.1)
    person = Dressing(wardrobe, skin, rng)
    trousers, top, second = (cloth_colour(rng) for _ in range(3))
    cloth = trousers
    if rng.random() < 0.15:
        cloth = trousers + (second - trousers) * pattern(wardrobe.rest, rng)[:, None]
    waist = put_on_trousers(person, cloth, rng)
    _details_of_trousers(person, trousers, waist, rng)
    mix = pattern(wardrobe.rest, rng)[:, None]
    neck, hem = put_on_shirt(person, top + (second - top) * mix, rng)
    _details_of_shirt(person, (top, second, skin), neck, hem, rng)
    if rng.random() < 0.92:
        put_on_shoes(person, rng)
    if rng.random() < 0.08:
        put_on_rucksack(person, cloth_colour(rng), neck, rng)
    _make_head(person, skin, rng)
    return person.outfit(rng)


def put_on_trousers(person: Dressing, colour: np.ndarray, rng: np.random.Generator) -> float:
    """Trousers of a colour (3,) or (V, 3). Returns y of the waist, metres at rest."""
    wardrobe = person.wardrobe
    waist = rng.uniform(-0.12, 0.0)
    end = rng.choice([0.25, 0.45, 0.92, 0.95, 0.98])
    where = (wardrobe.leg > waist) & (wardrobe.leg < end) & (wardrobe.arm < 0)
    person.put_on(where, colour, rng.uniform(0.004, 0.022))
    return height_of(wardrobe, waist)


def height_of(wardrobe: Wardrobe, leg: float) -> float:
    """y at rest, metres, of a value of `Wardrobe.leg`."""
    hip, ankle = (wardrobe.joints[J[name], 1] for name in ("left_hip", "left_ankle"))
    return float(hip - leg * (hip - ankle))


def put_on_shirt(
    person: Dressing, colour: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """A shirt of a colour (3,) or (V, 3). Returns y of its neckline and hem, metres at rest."""
    wardrobe = person.wardrobe
    sleeve, hem = rng.choice([0.05, 0.35, 0.45, 0.9, 0.95]), rng.uniform(-0.05, 0.2)
    neck = wardrobe.joints[J["neck"], 1] + rng.uniform(-0.05, 0.03)
    trunk = (wardrobe.arm < 0) & (wardrobe.leg < hem) & (wardrobe.head < 0.35)
    where = trunk & (wardrobe.rest[:, 1] < neck)
    where |= (wardrobe.arm >= 0) & (wardrobe.arm < sleeve)
    person.put_on(where, colour, rng.uniform(0.004, 0.028))
    return neck, height_of(wardrobe, hem)


def put_on_shoes(person: Dressing, rng: np.random.Generator) -> None:
    """Shoes with soles, and often with another colour at the toes or heels."""
    wardrobe, colour = person.wardrobe, cloth_colour(rng)
    shoe = wardrobe.leg > rng.uniform(0.9, 1.0)
    person.put_on(shoe, colour, rng.uniform(0.004, 0.012))
    if not shoe.any():
        return
    rest, ankle = wardrobe.rest, wardrobe.joints[J["left_ankle"]]
    toe, ground = rest[shoe, 2].max(), rest[shoe, 1].min()
    along = (rest[:, 2] - ankle[2]) / (toe - ankle[2])
    tip = shoe & (along > rng.uniform(0.6, 0.8))
    if rng.random() < 0.6:
        other = rng.choice([0.1, 0.5, 1.6, 2.5]) * colour
        person.put_on(tip if rng.random() < 0.7 else shoe & (along < -0.05), other, 0.006)
    sole = shoe & (rest[:, 1] < ground + rng.uniform(0.015, 0.03))
    person.put_on(sole, np.full(3, rng.choice([0.05, 0.5, 0.85])), 0.008)


def _details_of_trousers(
    person: Dressing, colour: np.ndarray, waist: float, rng: np.random.Generator
) -> None:
    """A fly and slanted pockets before, two pockets behind, and perhaps a belt with a buckle."""
    front, back = person.front, person.back
    contrast = colour * rng.choice([0.45, 0.6, 1.5])
    drop = waist - front.y
    front.paint((np.abs(front.x) < 0.005) & (drop > 0) & (drop < 0.12), contrast)
    slanted = np.abs(np.abs(front.x) - 0.07 - 0.5 * drop) < 0.006
    front.paint(slanted & (drop > 0.02) & (drop < 0.1), contrast)
    for size, tone in ((0.045, contrast), (0.037, colour * 0.9)):
        across = np.abs(np.abs(back.x) - 0.075) < size
        back.paint(across & (np.abs(drop - 0.12) < size + 0.01), tone)
    if rng.random() < 0.5:
        leather = np.array([0.12, 0.07, 0.04]) * rng.uniform(0.3, 2.5)
        for canvas in (front, back):
            canvas.paint((drop > 0) & (drop < 0.035), leather)
        front.paint((np.abs(front.x) < 0.025) & (drop > 0) & (drop < 0.035), np.full(3, 0.7))


def _details_of_shirt(
    person: Dressing,
    colours: tuple[np.ndarray, np.ndarray, np.ndarray],
    neck: float,
    hem: float,
    rng: np.random.Generator,
) -> None:
    """Necklines, collars, and what one of TOPS has before and behind.

    Args:
      colours: of the shirt, of its pattern and prints, and of the skin, (3,) each.
      neck, hem: y of its ends, metres at rest.
    """
    front, back, kind = person.front, person.back, str(rng.choice(TOPS))
    colour, second, skin = colours
    for canvas in (front, back):  # a shirt hangs over belt and pockets
        canvas.pixels[canvas.y[:, 0] > hem] = 0.0
    _closure(front, kind, (colour, second), neck, hem, rng)
    drop, side = neck - front.y, np.abs(front.x)
    if kind in ("tee", "print", "straps", "shirt") and rng.random() < 0.75:  # an open neckline
        deep = rng.uniform(0.03, 0.14)
        half = (0.035 + 0.25 * deep) * (1 - np.clip(drop, 0, 1) / deep)
        opening = (drop < deep) & (side < half)
        front.paint((drop < deep + 0.012) & (side < half + 0.01), colour * 0.6)
        front.paint(opening, skin)
    if kind == "print" or rng.random() < 0.1:
        paint_print(front, neck - rng.uniform(0.13, 0.2), second, rng)
    elif rng.random() < 0.3:
        front.paint((np.abs(front.x - 0.075) < 0.022) & (np.abs(drop - 0.14) < 0.022), second)
    if rng.random() < 0.25:
        paint_print(back, neck - rng.uniform(0.15, 0.25), second, rng)
    if kind == "straps":  # of dungarees
        below = (drop > 0) & (front.y > hem)
        front.paint((np.abs(side - 0.08) < 0.018) & below, second)
        front.paint((side < 0.11) & (drop > 0.2) & below, second)
        cross = np.abs(np.abs(back.x) - 0.3 * np.abs(drop - 0.2)) < 0.02
        back.paint(cross & below, second)

    wardrobe, height = person.wardrobe, rng.uniform(0.015, 0.03)
    up = wardrobe.rest[:, 1] - neck
    if kind in ("shirt", "suit", "zip jacket", "open jacket") or rng.random() < 0.2:
        collar = (np.abs(up) < height) & (wardrobe.arm < 0) & (wardrobe.head < 0.6)
        person.put_on(collar, colour * 0.9, 0.008)
    if kind in ("zip jacket", "open jacket", "print") and rng.random() < 0.4:  # a hood
        hood = (np.abs(up + 0.05) < 0.07) & (np.abs(wardrobe.rest[:, 0]) < 0.11)
        hood &= wardrobe.normals[:, 2] < -0.1
        person.put_on(hood, colour * 0.8, rng.uniform(0.025, 0.05))


def _closure(
    front: Canvas,
    kind: str,
    colours: tuple[np.ndarray, np.ndarray],
    neck: float,
    hem: float,
    rng: np.random.Generator,
) -> None:
    """Plackets with buttons, zips, lapels with a tie, or an open jacket over another shirt."""
    (colour, second), drop, side = colours, neck - front.y, np.abs(front.x)
    below = (drop > 0) & (front.y > hem)
    if kind == "open jacket":
        half = rng.uniform(0.02, 0.06) + rng.uniform(0.0, 0.08) * drop
        front.paint(below & (side < half + 0.012), colour * 0.6)
        front.paint(below & (side < half), second)
    elif kind in ("shirt", "zip jacket", "suit"):
        line = 0.004 if kind == "shirt" else 0.007
        front.paint(below & (side < line), colour * rng.choice([0.4, 0.6, 1.6]))
    if kind in ("shirt", "suit"):
        dots = (np.mod(drop, 0.075) - 0.037) ** 2 + (front.x - 0.006) ** 2 < 0.007**2
        front.paint(below & dots, np.full(3, rng.choice([0.05, 0.9])))
    if kind == "suit":
        shirt = (drop < 0.22) & (side < 0.07 * (1 - np.clip(drop, -0.1, 1) / 0.22))
        front.paint(shirt, np.full(3, rng.uniform(0.6, 0.9)))
        front.paint(shirt & (side < 0.018), cloth_colour(rng))


def paint_print(
    canvas: Canvas, middle: float, colour: np.ndarray, rng: np.random.Generator
) -> None:
    """A print: lines of letters, a disc, a band or a number."""
    x, y, size = canvas.x, canvas.y - middle, rng.uniform(0.05, 0.1)
    kind = rng.choice(["letters", "disc", "band", "number"])
    if kind == "band":
        canvas.paint(np.abs(y) < 0.4 * size, colour)
    elif kind == "disc":
        canvas.paint(x**2 + y**2 < size**2, colour)
        canvas.paint(x**2 + (y - 0.2 * size) ** 2 < (0.5 * size) ** 2, 1 - colour)
    elif kind == "letters":
        cells = rng.random((64, 64)) < 0.6
        column, row = (x / 0.008).astype(int), (y / 0.008).astype(int)
        lines = np.mod(row, 5) < 3
        letters = cells[column % 64, row % 64] & lines
        canvas.paint(letters & (np.abs(x) < size) & (np.abs(y) < 0.045), colour)
    else:
        for digit in (-0.55, 0.55):
            u, v = (x - digit * size) / (0.42 * size), y / (0.8 * size)
            strokes = [np.abs(v) > 0.75, np.abs(v) < 0.12, u > 0.55, u < -0.55]
            chosen = [stroke for stroke in strokes if rng.random() < 0.75] or strokes[:1]
            figure = np.logical_or.reduce(np.broadcast_arrays(*chosen, np.zeros(y.shape, bool)))
            canvas.paint(figure & (np.abs(u) < 1) & (np.abs(v) < 1), colour)


def put_on_rucksack(
    person: Dressing, colour: np.ndarray, neck: float, rng: np.random.Generator
) -> None:
    """A rucksack on the back, and its two straps before."""
    front, back, rest = person.front, person.back, person.wardrobe.rest
    top, bottom = neck - rng.uniform(0.05, 0.1), person.wardrobe.joints[J["spine1"], 1]
    bag = (rest[:, 1] < top) & (rest[:, 1] > bottom) & (np.abs(rest[:, 0]) < 0.14)
    person.put_on(bag & (person.wardrobe.normals[:, 2] < -0.3), colour, rng.uniform(0.04, 0.09))
    within = (back.y < top) & (back.y > bottom) & (np.abs(back.x) < 0.15)
    back.paint(within, colour)
    pocket = (np.abs(back.x) < 0.09) & (np.abs(back.y - (0.3 * top + 0.7 * bottom)) < 0.06)
    back.paint(pocket & within, colour * 0.6)
    straps = (np.abs(np.abs(front.x) - 0.095) < 0.02) & (front.y > bottom)
    front.paint(straps & (front.y < neck + 0.01), colour * 0.8)


def _make_head(person: Dressing, skin: np.ndarray, rng: np.random.Generator) -> None:
    """The face, hair and perhaps a hat."""
    tone = HAIR[rng.integers(len(HAIR))] * rng.uniform(0.7, 1.3)
    paint_face(person.head, person.on_head, skin, tone, rng)
    if rng.random() < 0.15:
        dark = rng.choice([0.1, 0.2, 0.85])
        paint_glasses(person.head, person.on_head, dark, cloth_colour(rng) * 0.5)
    hair = Hair.draw(str(rng.choice(CUTS)), rng)
    put_on_hair(person, hair, tone, rng)
    if rng.random() < 0.22:
        colours = np.stack([cloth_colour(rng), cloth_colour(rng)])
        put_on_hat(person, Hat.draw(str(rng.choice(HATS)), colours, rng))


def put_on_hair(person: Dressing, hair: Hair, tone: np.ndarray, rng: np.random.Generator) -> None:
    """Hair on the head, and of long cuts on neck and back."""
    texels, vertices = person.on_head, person.of_vertices
    grown = hair.covers(texels)
    shade = tone.astype(np.float32) * hair.strands(texels)[grown][:, None]
    person.head[grown] = shade if hair.cut != "crew" else 0.75 * shade + 0.25 * person.head[grown]
    thick = {"crew": 0.002, "balding": 0.006}.get(hair.cut, rng.uniform(0.006, 0.028))
    wardrobe, rest = person.wardrobe, person.wardrobe.rest
    on_vertices = hair.covers(vertices) & (wardrobe.head > 0.4)
    centre = wardrobe.charts.centre
    if hair.cut == "long":
        end = wardrobe.joints[J["neck"], 1] - rng.uniform(0.02, 0.2)
        behind = (rest[:, 2] < centre[2] - 0.03) & (np.abs(rest[:, 0]) < rng.uniform(0.07, 0.1))
        fall = behind & (rest[:, 1] > end) & (wardrobe.arm < 0)
        on_vertices |= fall
        back = person.back
        back.paint((back.y > end) & (np.abs(back.x) < 0.075), tone)
    person.put_on(on_vertices, tone, thick)
    if hair.cut == "pony":
        _put_on_tail(person, tone, rng)


def _put_on_tail(person: Dressing, tone: np.ndarray, rng: np.random.Generator) -> None:
    """A tail of hair that is bound at the back of the head."""
    wardrobe, rest, p = person.wardrobe, person.wardrobe.rest, person.of_vertices
    bound, end = rng.uniform(0.3, 1.8), wardrobe.joints[J["neck"], 1] - rng.uniform(-0.03, 0.15)
    knot = (p.d < -0.25) & (np.abs(p.u) < 0.35) & (np.abs(p.v - bound) < 0.6)
    person.put_on(knot & (wardrobe.head > 0.4), tone, rng.uniform(0.03, 0.06))
    tail = (rest[:, 2] < wardrobe.charts.centre[2] - 0.04) & (np.abs(p.u) < 0.3)
    tail &= (p.v < bound) & (rest[:, 1] > end) & (wardrobe.arm < 0)
    person.put_on(tail, tone, rng.uniform(0.012, 0.03))
    texels = person.on_head
    behind = (np.abs(texels.u) < 0.3) & (texels.d < -0.2) & (texels.v < bound)
    person.head[behind] = tone * 0.85
    band = behind & (texels.v > bound - 0.25)
    person.head[band] = cloth_colour(rng)
    back = person.back
    back.paint((back.y > end) & (np.abs(back.x) < 0.022), tone)


def put_on_hat(person: Dressing, hat: Hat) -> None:
    """A hat over the hair."""
    hat.paint(person.head, person.on_head)
    stands_out = hat.offset(person.of_vertices) * (person.wardrobe.head > 0.5)
    worn = stands_out > 0
    person.inflate[worn] = stands_out[worn]
    person.albedo[worn] = hat.colours[0]
