"""Ranges of motion of the finger joints as data: degrees, in the angles of HandAxes.

Sources: the table of active motion of e-hand.com (nor002) and gpnotebook.com (abduction): MCP
hyperextension 0-45 and flexion 90, abduction +-20; PIP 0-100; DIP 0-80; thumb MCP -10 to 55, IP
-15 to 80, CMC palmar abduction 0-45 and radial abduction 0-60. MCP hyperextension is limited to 30
here (45 is the end of passive motion). The small angles of the other axes (twist of the fingers,
sideways motion of hinge joints) are an allowance of ours. The thumb's CMC angles count from the
rest pose, in which it is abducted by about 42 degrees from the palm and 60 degrees from the
fingers: 0-45 of palmar abduction are -42 to 3 here, and 60-0 of radial abduction are 0 to 60 of
flexion, continued to 70 where the thumb crosses the palm.
"""

import numpy as np
from jaxtyping import Float

from genhmr_jax.geometry.hand import FINGERS

# Joint of a finger or of the thumb -> (low, high) of flexion, abduction, twist, degrees.
FINGER_LIMITS = (
    ((-30, 90), (-20, 20), (-8, 8)),  # MCP
    ((-5, 100), (-3, 3), (-3, 3)),  # PIP
    ((-10, 80), (-3, 3), (-3, 3)),  # DIP
)
THUMB_LIMITS = (
    ((-15, 70), (-42, 8), (-15, 45)),  # CMC; twist is opposition
    ((-10, 55), (-8, 8), (-8, 8)),  # MCP
    ((-15, 80), (-3, 3), (-3, 3)),  # IP
)

FUNCTIONAL = (61, 60, 39)
"""Mean flexion of the fingers in everyday tasks, degrees: MCP, PIP, DIP (Hume et al. 1990)."""

DIP_OF_PIP = 2 / 3
"""DIP flexion over PIP flexion when a finger is bent freely (Rijpkema and Girard 1991)."""


def limits() -> Float[np.ndarray, "15 3 2"]:
    """Lowest and highest angle of each joint HAND_JOINTS[1:] about each axis, radians."""
    table = np.zeros((15, 3, 2))
    for name, finger in FINGERS.items():
        rows = THUMB_LIMITS if name == "thumb" else FINGER_LIMITS
        table[np.array(finger) - 1] = np.radians(rows)
    return table
