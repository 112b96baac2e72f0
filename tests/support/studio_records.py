"""Made-up people, alone in a picture each, and their records as the readers give them."""

from pathlib import Path

import numpy as np
from smpl_jax import SmplModel

from genhmr_jax.data.sources.records import person_record
from support.people_studio import Person, Studio


def alone(folder: Path, body: SmplModel) -> list[tuple[Person, bytes]]:
    """Six people, alone in a picture each; the camera has neither square pixels nor a centred
    principal point."""
    studio = Studio(folder, body, 0)
    intrinsics = np.array([[720.0, 0, 330], [0, 705, 232], [0, 0, 1]])
    return [
        (person := studio.person((640, 480), intrinsics=intrinsics), studio.picture([person]))
        for _ in range(6)
    ]


def record(person: Person, picture: bytes, **changes) -> dict:
    """The record of a person whose picture and every label are known; `changes` replaces fields,
    and None leaves them out."""
    fields = dict(
        image=picture,
        image_name="a.jpg",
        image_size=person.size,
        box=person.box,
        keypoints2d=person.keypoints2d,
    )
    fields |= dict(global_orient=person.pose[:3], body_pose=person.pose[3:], betas=person.betas)
    fields |= dict(translation=person.translation, intrinsics=person.intrinsics) | changes
    return person_record(
        "test", **{name: value for name, value in fields.items() if value is not None}
    )
