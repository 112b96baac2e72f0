"""Tiny copies of the datasets of people, in their official layouts: images of the real sizes,
labels that fit each other.

`write("threedpw", folder)` puts the release into `folder` (a manual directory) and returns the
truth: a `Person` for every record that the readers must give, in their order.
"""

import dataclasses
import functools
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
from smpl_jax import SmplModel

from support.own_photos_fixture import own_photos
from support.people_sequences import emdb, threedpw
from support.people_studio import Person, Studio, object_array
from support.python2_pickles import numpy1_pickle


def _hmr2_tars(studio: Studio, folder: str, prefix: str) -> list[Person]:
    """Two tars: an image with two people and masks, one with one person without SMPL labels, one as
    PNG without masks."""
    root, size = f"hmr2_training_data/dataset_tars/{folder}", (640, 480)

    def entry(person: Person, mask: int | None, has_smpl: bool = True) -> dict:
        box = person.box
        extra = {"fitting_loss": object_array({"reprojection_loss": 812.5} if has_smpl else {})}
        if mask is not None:
            extra["detection_npz_idx"] = mask
        return {
            "keypoints_2d": person.keypoints2d.astype(np.float32),
            "keypoints_3d": np.zeros((44, 4), np.float32),
            "center": person.centre,
            "scale": (box[2:] - box[:2]) / 200.0,
            "body_pose": (person.pose if has_smpl else np.zeros(72)).astype(np.float32),
            "betas": (person.betas if has_smpl else np.zeros(10)).astype(np.float32),
            "has_body_pose": np.array(float(has_smpl), np.float32),
            "has_betas": np.array(float(has_smpl), np.float32),
            "personid": np.array(person.person),
            "extra_info": extra,
        }

    names = lambda key, number: dict(image_name=f"{prefix}/{key}", sequence=folder, person=number)
    two = [
        studio.person(size, shift=shift, **names("000000000036", i))
        for i, shift in enumerate((-0.2, 0.2))
    ]
    masks = np.zeros((2, size[1], size[0]), bool)
    for mask, person in zip(masks, two, strict=True):
        x0, y0, x1, y1 = person.box.round().astype(int)
        mask[y0:y1, x0:x1] = True
    detection = io.BytesIO()
    np.savez_compressed(detection, masks=masks)
    alone, png = (
        studio.person(size, **names("000000000049", 0)),
        studio.person(size, **names("000000000061", 0)),
    )
    studio.put_tar(
        f"{root}/000000.tar",
        [
            (f"{prefix}/000000000036.jpg", studio.picture(two)),
            (
                f"{prefix}/000000000036.data.pyd",
                numpy1_pickle([entry(two[0], 0), entry(two[1], 1)]),
            ),
            (f"{prefix}/000000000036.detection.npz", detection.getvalue()),
            (f"{prefix}/000000000049.jpg", studio.picture([alone])),
            (
                f"{prefix}/000000000049.data.pyd",
                numpy1_pickle([entry(alone, None, has_smpl=False)]),
            ),
        ],
    )
    studio.put_tar(
        f"{root}/000001.tar",
        [
            (f"{prefix}/000000000061.png", studio.picture([png], ".png")),
            (f"{prefix}/000000000061.data.pyd", numpy1_pickle([entry(png, None)])),
        ],
    )
    return [*two, alone, png]


def _own_tars(studio: Studio) -> list[Person]:
    """As `tar --sort=name` makes them of a folder: labels before the image, plain lists and bools,
    no extra_info; a folder entry."""
    size, people = (800, 600), []
    for split, key in (("train", "mine/0001"), ("val", "mine/0002")):
        person = studio.person(size, split=split, image_name=key, sequence=split)
        entry = {
            "keypoints_2d": person.keypoints2d.tolist(),
            "keypoints_3d": person.keypoints3d.astype(np.float32),
            "center": person.centre.tolist(),
            "scale": [person.side() / 200.0] * 2,
            "body_pose": person.pose,
            "betas": person.betas,
            "has_body_pose": True,
            "has_betas": True,
            "personid": 0,
        }
        data = pickle.dumps([entry])
        studio.put_tar(
            f"own_tars/{split}/000000.tar",
            [("mine", None), (f"{key}.data.pyd", data), (f"{key}.jpeg", studio.picture([person]))],
        )
        people.append(person)
    return people


def _hmr2_eval(studio: Studio) -> list[Person]:
    """The evaluation npz of 4D-Humans and TokenHMR: scale in pixels, but in the EMDB one already
    over 200."""
    root, people = "hmr2_evaluation_data", []

    def made(split: str, folder: str, names: list[str], size: tuple[int, int]) -> list[Person]:
        made = []
        for number, name in enumerate(names):
            gender = ("male", "female")[number % 2]
            made.append(
                studio.person(
                    size, gender=gender, split=split, image_name=name, sequence=split, frame=number
                )
            )
            studio.put(f"{root}/{folder}/{name}", studio.picture([made[-1]]))
        people.extend(made)
        return made

    def arrays(people: list[Person], divisor: float) -> dict:
        return {
            "imgname": np.array([person.image_name for person in people]),
            "center": np.array([person.centre for person in people]),
            "scale": np.array([[person.side(), person.side()] for person in people]) / divisor,
        }

    def smpl(people: list[Person], spelling: dict) -> dict:
        return {
            "body_pose": np.array([person.pose for person in people]),
            "has_body_pose": np.ones(len(people)),
            "betas": np.array([person.betas for person in people]),
            "has_betas": np.ones(len(people)),
            "gender": np.array([spelling[person.gender] for person in people]),
        }

    def keypoints(people: list[Person], three: bool) -> dict:
        two_d, three_d = (
            np.array([getattr(person, name) for person in people])
            for name in ("keypoints2d", "keypoints3d")
        )
        result = {"body_keypoints_2d": two_d[:, :25], "extra_keypoints_2d": two_d[:, 25:]}
        return result | (
            {"body_keypoints_3d": three_d[:, :25], "extra_keypoints_3d": three_d[:, 25:]}
            if three
            else {}
        )

    extra = np.array([{} for _ in range(2)], dtype=object)
    names = [f"imageFiles/downtown_arguing_00/image_{i:05d}.jpg" for i in range(2)]
    walk = made("threedpw_test", "3DPW", names, (1080, 1920))
    short = {"male": "m", "female": "f"}
    studio.put_npz(
        f"{root}/3dpw_test.npz",
        **arrays(walk, 1),
        **smpl(walk, short),
        **keypoints(walk, True),
        extra_info=extra,
    )
    names = [f"S9_Directions_1.60457274_{i:06d}.jpg" for i in (1, 6)]
    indoors = made("h36m_val_p2", "h36m/images", names, (1000, 1002))
    studio.put_npz(
        f"{root}/h36m_val_p2.npz",
        **arrays(indoors, 1),
        **keypoints(indoors, True),
        extra_info=extra,
    )
    outdoors = made(
        "coco_val", "coco", [f"val2014/COCO_val2014_{i:012d}.jpg" for i in (42, 73)], (640, 480)
    )
    studio.put_npz(
        f"{root}/coco_val.npz",
        **arrays(outdoors, 1),
        **keypoints(outdoors, False),
        extra_info=extra,
    )
    names = [f"P1/14_outdoor_climb/images/{i:05d}.jpg" for i in range(2)]
    climb = made("emdb", "EMDB", names, (1440, 1920))
    joints2d = np.array([np.concatenate([p.pixels(p.joints), np.ones((24, 1))], -1) for p in climb])
    spelling = {"male": "male", "female": "female"}
    studio.put_npz(
        f"{root}/emdb.npz",
        **arrays(climb, 200),
        **smpl(climb, spelling),
        keypoints_2d=joints2d,
        extra_info=extra,
    )
    return people


def _bedlam(studio: Studio) -> list[Person]:
    """Two scenes, one of them a closeup (stored on its side), and an AGORA folder that readers
    leave out."""
    root, people = "hmr2_training_data/dataset_tars/bedlam", []

    def entry(person: Person, number: int) -> dict:
        gtkps = np.concatenate([person.pixels(person.joints45), np.ones((45, 1))], -1)
        extrinsics = np.eye(4)
        extrinsics[:3, 3] = studio.rng.normal(0, 1, 3)
        extra = np.array(person.betas[:1])  # the neutral model of the release has eleven betas
        return {
            "gender": "female",  # of the subject; the labels are for the neutral body
            "gtkps": gtkps,
            "center": person.centre,
            "scale": person.side() / 200.0,
            "pose_cam": person.pose,
            "shape": np.concatenate([person.betas, extra]),
            "trans_cam": person.translation - extrinsics[:3, 3],
            "cam_ext": extrinsics,
            "cam_int": person.intrinsics,
            "extra_info": {"detection_npz_idx": number},
        }

    scenes = (
        ("20221010_3_1000_batch01hand", "seq_000000", (1280, 720)),
        ("20221019_3-8_250_highbmihand_orbit_closeup", "seq_000007", (720, 1280)),
    )
    for scene, sequence, size in reversed(scenes):
        closeup = "closeup" in scene
        key = f"{scene}_{sequence}_0005"
        focal = 1.05 * max(size)
        middle = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])
        made = [
            studio.person(
                size,
                intrinsics=middle,
                shift=shift,
                split="train",
                gender="neutral",
                image_name=key,
                sequence=scene,
                person=number,
            )
            for number, shift in enumerate((0.0,) if closeup else (-0.2, 0.2))
        ]
        people = made + people
        members = [
            (f"{key}.png", studio.picture(made, ".png", turned=closeup)),
            (
                f"{key}.data.pyd",
                numpy1_pickle([entry(person, number) for number, person in enumerate(made)]),
            ),
        ]
        studio.put_tar(f"{root}/{scene}/000000.tar", members)
    studio.put(f"{root}/agora-bfh/000000.tar", b"not read")
    return people


def _spin_joints(person: Person) -> np.ndarray:
    """SPIN's S (24, 4): 19 joints, nose, eyes and ears; the 17 of Human3.6M known, relative to the
    pelvis."""
    points = np.zeros((24, 4))
    known = [14, 3, 4, 5, 2, 1, 0, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6]
    points[known, :3], points[known, 3] = person.keypoints3d[25:][known, :3], 1
    return points


def _spin_npz(
    studio: Studio, name: str, people: list[Person], factor: float, with_part: bool
) -> None:
    arrays = {
        "imgname": np.array(
            [person.image_name.encode() for person in people]
        ),  # SPIN ran under Python 2: bytes
        "center": np.array([person.centre for person in people]),
        "scale": np.array([person.side(factor) / 200.0 for person in people]),
        "S": np.array([_spin_joints(person) for person in people]),
    }
    if with_part:
        part = np.zeros((len(people), 24, 3))
        for row, person in zip(part, people, strict=True):
            known = _spin_joints(person)[:, 3] > 0
            row[known] = np.concatenate([person.keypoints2d[25:], np.zeros((5, 3))])[known]
        arrays["part"] = part
    studio.put_npz(name, **arrays)


def _human36m(studio: Studio) -> list[Person]:
    """SPIN's npz of both protocols: protocol 2 is camera 60457274 alone."""
    names = [
        f"images/S9_Directions_1.{camera}_{frame:06d}.jpg"
        for camera in (54138969, 60457274)
        for frame in (1, 6)
    ]
    people = [
        studio.person(
            (1000, 1002),
            split="p1",
            image_name=name,
            sequence=name[7:].rsplit("_", 1)[0],
            frame=int(name[-10:-4]),
        )
        for name in names
    ]
    for person in people:
        studio.put(f"h36m/{person.image_name}", studio.picture([person]))
    frontal = [
        dataclasses.replace(person, split="p2")
        for person in people
        if "60457274" in person.image_name
    ]
    _spin_npz(studio, "h36m/h36m_valid_protocol1.npz", people, 0.9 * 1.3, with_part=False)
    _spin_npz(studio, "h36m/h36m_valid_protocol2.npz", frontal, 0.9 * 1.3, with_part=False)
    return people + frontal


def _mpi_inf_3dhp(studio: Studio) -> list[Person]:
    """SPIN's npz of the test set: studio frames of 2048 px and outdoor ones of 1920 x 1080."""
    people = []
    for subject, size in (("TS1", (2048, 2048)), ("TS5", (1920, 1080))):
        name = f"mpi_inf_3dhp_test_set/{subject}/imageSequence/img_000007.jpg"
        people.append(studio.person(size, split="test", image_name=name, sequence=subject, frame=7))
        studio.put(f"mpi_inf_3dhp/{name}", studio.picture(people[-1:]))
    _spin_npz(studio, "mpi_inf_3dhp/mpi_inf_3dhp_valid.npz", people, 1.2, with_part=True)
    return people


HMR2_TARS = {
    "hmr2_h36m": ("h36m-train", "h36m-train"),
    "hmr2_mpii": ("mpii-train", "mpii-train"),
    "hmr2_coco": ("coco-train-2014-pruned", "coco-train-2014"),
    "hmr2_coco_vitpose": ("coco-train-2014-vitpose-pruned", "coco-train-2014-vitpose"),
    "hmr2_mpi_inf": ("mpi-inf-train-pruned", "mpi-inf-train"),
    "hmr2_ava": ("ava-train-midframes-1fps-vitpose", "ava-train"),
    "hmr2_aic": ("aic-train-vitpose", "aic-train-vitpose"),
    "hmr2_insta": ("insta-train-vitpose-replicate", "insta-train-vitpose"),
}
"""Source -> its folder of tars and the folder in the keys of its samples."""

WRITERS: dict[str, Callable[[Studio], list[Person]]] = {
    **{
        name: functools.partial(_hmr2_tars, folder=folder, prefix=prefix)
        for name, (folder, prefix) in HMR2_TARS.items()
    },
    "own_tars": _own_tars,
    "own_photos": own_photos,
    "hmr2_eval": _hmr2_eval,
    "bedlam": _bedlam,
    "threedpw": threedpw,
    "emdb": emdb,
    "human36m": _human36m,
    "mpi_inf_3dhp": _mpi_inf_3dhp,
}


def write(
    name: str, folder: str | Path, body: SmplModel | None = None, seed: int = 0
) -> list[Person]:
    """Writes the release of one source into a manual directory.

    Args:
      name: of the source, as in data.sources.SOURCES.
      folder: the manual directory.
      body: makes all people, whatever their gender; if left out, the free body of each one's
        gender.
      seed: of everything random.

    Returns:
      The truth about every record that the readers must give, in their order; several splits one
      after the other.
    """
    return WRITERS[name](Studio(Path(folder), body, seed))
