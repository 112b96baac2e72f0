"""Tiny copies of 3DPW and EMDB: the part of people_fixtures that is sequences of people in world
coordinates, with a camera pose for each frame."""

import numpy as np
from smpl_jax.keypoints import BODY44, OPENPOSE25

from support.people_studio import Person, Studio
from support.python2_pickles import numpy1_pickle, python2_pickle

GENDERS = {"m": "male", "f": "female"}


def threedpw(studio: Studio) -> list[Person]:
    """One sequence a split; the test one has two actors and three frames, of which one camera pose
    is not valid."""
    people, size = [], (1080, 1920)
    openpose18 = [BODY44.index(f"openpose_{name}") for name in OPENPOSE25[:8] + OPENPOSE25[9:19]]
    plan = (
        ("train", "courtyard_arguing_00", "m", 1),
        ("validation", "courtyard_basketball_01", "f", 1),
        ("test", "downtown_arguing_00", "mf", 3),
    )
    for split, sequence, genders, frames in plan:
        intrinsics = studio.intrinsics(*size)
        cameras = [studio.world_camera() for _ in range(frames)]
        actors = []
        for number, letter in enumerate(genders):
            names = dict(
                split=split,
                sequence=sequence,
                person=number,
                gender=GENDERS[letter],
                intrinsics=intrinsics,
            )
            shift = 0.0 if len(genders) == 1 else (-0.2, 0.2)[number]
            actor = [
                studio.person(
                    size,
                    **names,
                    shift=shift,
                    frame=i,
                    image_name=f"imageFiles/{sequence}/image_{i:05d}.jpg",
                )
                for i in range(frames)
            ]
            for later in actor[1:]:  # one shape for all frames
                studio.reshape(later, actor[0].betas)
            actors.append(actor)
        for i in range(frames):
            studio.put(
                f"3DPW/imageFiles/{sequence}/image_{i:05d}.jpg",
                studio.picture([actor[i] for actor in actors]),
            )
        world = [
            [
                studio.to_world(person, *camera)
                for person, camera in zip(actor, cameras, strict=True)
            ]
            for actor in actors
        ]
        extrinsics = np.tile(np.eye(4), (frames, 1, 1))
        for matrix, (turn, shift) in zip(extrinsics, cameras, strict=True):
            matrix[:3, :3], matrix[:3, 3] = turn, shift
        valid = np.ones((len(actors), frames), int)
        if frames > 1:
            valid[0, 1] = 0
        content = {
            "sequence": sequence,
            "genders": list(genders),
            "poses": [np.array([pose for pose, _, _ in frames_]) for frames_ in world],
            "trans": [np.array([trans for _, trans, _ in frames_]) for frames_ in world],
            "jointPositions": [
                np.array([joints.reshape(72) for _, _, joints in frames_]) for frames_ in world
            ],
            "betas": [np.concatenate([actor[0].betas, np.zeros(290)]) for actor in actors],
            "betas_clothed": [np.zeros(300) for _ in actors],
            "poses2d": [
                np.array([person.keypoints2d[openpose18].T for person in actor]) for actor in actors
            ],
            "cam_poses": extrinsics,
            "cam_intrinsics": intrinsics,
            "campose_valid": list(valid),
            "img_frame_ids": 2 * np.arange(frames),
            "texture_maps": [],
            "v_template": np.array([None, None], dtype=object),
        }
        studio.put(f"3DPW/sequenceFiles/{split}/{sequence}.pkl", python2_pickle(content))
        for number, actor in enumerate(actors):
            people += [person for i, person in enumerate(actor) if valid[number, i]]
    return people


def emdb(studio: Studio) -> list[Person]:
    """A sequence of EMDB 1 (with a bad frame), one of EMDB 2, one of neither."""
    people, size = [], (1440, 1920)
    plan = (
        ("P1", "14_outdoor_climb", "emdb1", "male", 4),
        ("P2", "20_outdoor_walk", "emdb2", "female", 3),
        ("P3", "27_indoor_walk_off_mvs", "", "female", 1),
    )
    for subject, name, split, gender, frames in plan:
        intrinsics = studio.intrinsics(*size)
        names = dict(
            split=split, sequence=f"{subject}_{name}", gender=gender, intrinsics=intrinsics
        )
        made = [
            studio.person(size, **names, frame=i, image_name=f"{subject}/{name}/images/{i:05d}.jpg")
            for i in range(frames)
        ]
        for later in made[1:]:
            studio.reshape(later, made[0].betas)
        cameras = [studio.world_camera() for _ in made]
        world = [
            studio.to_world(person, *camera) for person, camera in zip(made, cameras, strict=True)
        ]
        for person in made:
            studio.put(f"EMDB/{person.image_name}", studio.picture([person]))
        good = np.ones(frames, bool)
        if split == "emdb1":
            good[1] = False
        extrinsics = np.tile(np.eye(4), (frames, 1, 1))
        for matrix, (turn, shift) in zip(extrinsics, cameras, strict=True):
            matrix[:3, :3], matrix[:3, 3] = turn, shift
        content = {
            "gender": gender,
            "name": f"{subject}_{name}",
            "emdb1": split == "emdb1",
            "emdb2": split == "emdb2",
            "n_frames": frames,
            "good_frames_mask": good,
            "camera": {
                "intrinsics": intrinsics,
                "extrinsics": extrinsics,
                "width": size[0],
                "height": size[1],
            },
            "smpl": {
                "poses_root": np.array([pose[:3] for pose, _, _ in world]),
                "poses_body": np.array([pose[3:] for pose, _, _ in world]),
                "trans": np.array([trans for _, trans, _ in world]),
                "betas": made[0].betas,
            },
            "kp2d": np.array([person.pixels(person.joints) for person in made]),
            "bboxes": {
                "bboxes": np.array(
                    [
                        person.box if ok else np.zeros(4)
                        for person, ok in zip(made, good, strict=True)
                    ]
                ),
                "invalid_idxs": np.flatnonzero(~good),
            },
        }
        studio.put(f"EMDB/{subject}/{name}/{subject}_{name}_data.pkl", numpy1_pickle(content))
        people += [person for person, ok in zip(made, good, strict=True) if ok and split]
    return people
