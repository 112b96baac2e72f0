"""Named vertices, found by geometry on the T-posed template."""

from collections.abc import Callable

import numpy as np

from free_body.geometry import unit


def named_vertices(
    template: np.ndarray,
    mirror: np.ndarray,
    heads: Callable[[str], np.ndarray],
    bone_weight: Callable[[str], np.ndarray],
    eye: np.ndarray,
) -> dict[str, int]:
    """Nose, eyes, ears, finger tips, toes and heels, under the names that SMPL's users know.

    Args:
      template: (V, 3) metres, y up, z forward.
      mirror: (V,) partner of each vertex.
      heads: bone name -> position of its head on the template.
      bone_weight: bone name -> (V,) how much the vertex follows that bone.
      eye: centre of the left eye socket.
    """
    x, y, z = template.T
    top, ground = y.max(), y.min()
    on_left, on_head = x > -1e-6, y > top - 0.24
    furthest = lambda mask, score: int(np.flatnonzero(mask)[np.argmax(score[mask])])
    names = {
        "nose": furthest(on_head & (np.abs(x) < 0.02) & (y < top - 0.08) & (y > top - 0.17), z),
        "leye": int(np.argmin(np.sum((template - eye) ** 2, 1))),
        "lear": furthest(
            on_head & on_left & (np.abs(x) < 0.12) & (y > top - 0.18) & (y < top - 0.06), x
        ),
    }
    for k, name in enumerate(("lthumb", "lindex", "lmiddle", "lring", "lpinky"), start=1):
        along = unit(heads(f"finger{k}-3.L") - heads(f"finger{k}-2.L"))
        names[name] = furthest(
            bone_weight(f"finger{k}-3.L") > 0.6, (template - heads(f"finger{k}-3.L")) @ along
        )
    foot = on_left & (y < ground + 0.06)
    names["LHeel"] = furthest(foot, -z - 0.5 * y)
    for name, bone in (("LBigToe", "toe1-2.L"), ("LSmallToe", "toe5-3.L")):
        near = (np.abs(x - heads(bone)[0]) < 0.012) & (np.abs(y - heads(bone)[1]) < 0.03)
        names[name] = furthest(foot & near, z)
    right = {
        ("R" if name[0] == "L" else "r") + name[1:]: int(mirror[vertex])
        for name, vertex in names.items()
        if name != "nose"
    }
    return names | right
