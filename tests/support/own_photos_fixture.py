"""A made-up folder of own photos: the part of people_fixtures that is no official release."""

import json

import numpy as np
from smpl_jax.keypoints import OPENPOSE25

from support.people_studio import Person, Studio


def own_photos(studio: Studio) -> list[Person]:
    """Photos with keypoints.json, cameras.json and fits: in train one of two people of whom one is
    fitted, and a PNG without a fit; in val one of two fitted people."""
    people = []
    for split in ("train", "val"):
        size, folder, keypoints, cameras = (800, 600), f"own_photos/{split}", {}, {}
        intrinsics = np.array([[900.0, 0, 350], [0, 900, 310], [0, 0, 1]])
        names = dict(split=split, sequence=split, intrinsics=intrinsics)
        two = [
            studio.person(size, shift=s, image_name="a.jpg", person=i, **names)
            for i, s in enumerate((-0.2, 0.2))
        ]
        alone = [studio.person(size, image_name="b.png", **names)] if split == "train" else []
        for photo in filter(None, (two, alone)):
            name = photo[0].image_name
            studio.put(f"{folder}/{name}", studio.picture(photo, name[-4:]))
            openpose = np.stack([person.keypoints2d[:25] for person in photo])
            keypoints[name[0]] = {"keypoints": openpose.tolist(), "names": list(OPENPOSE25)}
            cameras[name[0]] = {"intrinsics": intrinsics.tolist()}
        poses = np.stack([two[0].pose, two[1].pose if split == "val" else np.full(72, np.nan)])
        fit = {
            "global_orient": poses[:, :3],
            "body_pose": poses[:, 3:],
            "betas": np.stack([p.betas for p in two]),
        }
        camera = {
            "translation": np.stack([p.translation for p in two]),
            "focal_length": np.float32(900),
        }
        studio.put_npz(
            f"{folder}/fits/a.npz", **fit, **camera, principal_point=np.float32([350, 310])
        )
        studio.put(f"{folder}/keypoints.json", json.dumps(keypoints).encode())
        studio.put(f"{folder}/cameras.json", json.dumps(cameras).encode())
        people += [*two, *alone]
    return people
