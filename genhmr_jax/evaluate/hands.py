"""The free benchmark of hands: rendered hands whose poses, shapes and views are not trained on.

    python -m genhmr_jax.evaluate.hands [--checkpoint DIR] [--count 300] [--iterations 5]

Half of the poses are grasps of objects with radii that training leaves out, half are of the
validation mixture of the prior. Half of the hands are left hands: mirror images of right ones.
"""

import argparse
import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
import smpl_jax
from jaxtyping import Float, UInt8
from scipy.spatial.transform import Rotation
from smpl_jax.rotations import axis_angle_to_matrix

from genhmr_jax.core.system import PhotoCamera
from genhmr_jax.data.annotations.hands import GivenHand
from genhmr_jax.data.hands.prior import HandPrior
from genhmr_jax.data.hands.render import draw_sample, posed
from genhmr_jax.data.synthetic.backgrounds import Backgrounds
from genhmr_jax.detect.hands import Hands, detect_hands
from genhmr_jax.evaluate.hand_metrics import auc, f_score
from genhmr_jax.geometry.hand import (
    HAND21,
    HAND21_FROM_MANO,
    TIPS,
    hand_keypoints,
    load_hand,
    mirror_points,
)
from genhmr_jax.geometry.metrics import distances, procrustes
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import path_argument
from genhmr_jax.recover.hands import HandMeshes, HandRecoverer, hands_given, load_hands
from genhmr_jax.recover.photo import RecoverOptions
from genhmr_jax.systems.maskhand import model as networks

HANDS = (
    "Rendered hands that are not trained on, one a picture. found: share of hands with a detection "
    "whose keypoints are within a quarter of the box, on average, of the true ones; the errors "
    "are means over the found hands. PA: after the best similarity transform. F: F-score of the "
    "aligned meshes. AUC: of PCK from 0 to 50 mm. true_2d: from the true 2D keypoints instead of "
    "detected ones, of all hands. detector: the 3D keypoints of the detector. mean_pose: "
    "a hand of the mean pose and shape, of all hands."
)
SEED = 4717  # of poses, shapes and views; not used for training data
KINDS = ("grasps", "val")
CLOSE = 0.25  # distance of the keypoints of a found hand, in longer sides of the box
_MEAN_OF = 2000  # poses


@dataclasses.dataclass(frozen=True)
class HandPicture:
    """A test picture; metres in the axes of the camera, relative to the hand's origin.

    Attributes:
      image: uint8 (S, S, 3).
      kind: one of KINDS.
      right: whether it is a right hand.
      keypoints: (21, 3), vertices: (V, 3) metres.
      points2d: (21, 2) px.
      camera: the true one.
    """

    image: UInt8[np.ndarray, "S S 3"]
    kind: str
    right: bool
    keypoints: Float[np.ndarray, "21 3"]
    vertices: Float[np.ndarray, "V 3"]
    points2d: Float[np.ndarray, "21 2"]
    camera: PhotoCamera


def hand_split(
    count: int = 300,
    seed: int = SEED,
    *,
    hand: smpl_jax.SmplModel | None = None,
    backgrounds: str | pathlib.Path | None = None,
) -> list[HandPicture]:
    """The test pictures, a function of the arguments.

    Args:
      count: of pictures.
      seed: of the pictures; results on different seeds are not comparable.
      hand: a right hand; default: the free hand.
      backgrounds: folder of photos; default: procedural backgrounds.

    Raises:
      InputError: no such backgrounds.
    """
    model = load_hand() if hand is None else hand
    prior, scenes = HandPrior(model), Backgrounds(backgrounds)
    half = (count + 1) // 2
    fingers = {kind: prior.sample(np.random.default_rng(seed), half, kind) for kind in KINDS}
    pictures = []
    for i in range(count):
        kind = KINDS[i % 2]
        pose = np.concatenate([np.zeros((1, 3)), fingers[kind][i // 2]]).ravel()
        sample = draw_sample(model, pose, np.random.default_rng([seed, i]), scenes)
        vertices, _, _ = posed(model, sample.pose, sample.betas)
        camera = sample.camera
        picture = HandPicture(
            image=sample.image,
            kind=kind,
            right=True,
            keypoints=sample.keypoints,
            vertices=vertices,
            points2d=sample.points2d,
            camera=PhotoCamera(camera.focal, (float(camera.centre[0]), float(camera.centre[1]))),
        )
        pictures.append(picture if i % 4 < 2 else mirrored(picture))
    return pictures


def mirrored(picture: HandPicture) -> HandPicture:
    """The mirror image, which shows the other hand."""
    size = picture.image.shape[1]
    x, y = picture.camera.principal_point
    return dataclasses.replace(
        picture,
        image=np.ascontiguousarray(picture.image[:, ::-1]),
        right=not picture.right,
        keypoints=mirror_points(picture.keypoints),
        vertices=mirror_points(picture.vertices),
        points2d=np.array([size, 0.0]) + picture.points2d * [-1.0, 1.0],
        camera=PhotoCamera(picture.camera.focal, (size - x, y)),
    )


class Errors:
    """Errors of hands against the truth after alignment, and their means."""

    def __init__(self) -> None:
        self._joints: list[np.ndarray] = []
        self._meshes: list[tuple[float, float, float]] = []

    def add(
        self,
        picture: HandPicture,
        keypoints: Float[np.ndarray, "21 3"],
        vertices: Float[np.ndarray, "N 3"] | None = None,
    ) -> None:
        """Add an estimate, metres in any frame. PA-MPVPE needs the vertices of the true mesh."""
        self._joints.append(np.linalg.norm(_aligned(keypoints, picture.keypoints), axis=-1))
        if vertices is not None and vertices.shape == picture.vertices.shape:
            off = _aligned(vertices, picture.vertices)
            scores = (f_score(picture.vertices + off, picture.vertices, t) for t in (0.005, 0.015))
            self._meshes.append((float(np.linalg.norm(off, axis=-1).mean()), *scores))

    def means(self) -> dict[str, float]:
        """Means over the hands; empty without one. Millimetres, F and AUC in 0..1."""
        if not self._joints:
            return {}
        errors = np.stack(self._joints)
        result = {"pa_mpjpe_mm": 1000 * float(errors.mean()), "auc": auc(errors)}
        if self._meshes:
            error, close, far = np.mean(self._meshes, 0).tolist()
            result |= {"pa_mpvpe_mm": 1000 * error, "f_5": close, "f_15": far}
        return result


def _aligned(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Differences (K, 3) from the targets after the best similarity transform."""
    predicted, target = np.float32(predicted), np.float32(target)
    return np.asarray(_difference(predicted, target), np.float64)


@jax.jit
def _difference(predicted, target):
    return procrustes(predicted, target)(predicted) - target


def keypoints_of(
    hand: smpl_jax.SmplModel, joints: Float[np.ndarray, "16 3"], vertices: Float[np.ndarray, "V 3"]
) -> Float[np.ndarray, "21 3"]:
    """The 21 keypoints, in the order of HAND21, of the joints and vertices of a hand."""
    tips = vertices[[hand.vertex_ids[name] for name in TIPS]]
    return np.concatenate([joints, tips])[np.array(HAND21_FROM_MANO)]


def measure(
    recoverer: HandRecoverer,
    pictures: list[HandPicture],
    *,
    options: RecoverOptions | None = None,
) -> dict[str, Any]:
    """Measure a model of hands on test pictures, from the picture alone.

    Args:
      recoverer: the model.
      pictures: of `hand_split`, of the same hand as the model's.
      options: of the recovery.

    Returns:
      "about", the text HANDS; "count"; "found", 0..1; "side", the share of found hands with the
      correct side; and `Errors.means` of "detected" (all found hands), of each of KINDS, "true_2d",
      "detector" and "mean_pose".
    """
    options = options or RecoverOptions()
    groups = ("detected", *KINDS, "true_2d", "detector", "mean_pose")
    errors = {name: Errors() for name in groups}
    mean_pose, found, sides = mean_hand(recoverer.hand), 0, 0
    for picture in pictures:
        height, width = picture.image.shape[:2]
        photo = options.camera(width, height)
        # 1. From the picture.
        hands = detect_hands(picture.image)
        best = closest(hands, picture)
        if best is not None:
            found += 1
            sides += bool((hands.right[best] >= 0.5) == picture.right)
            prepared = recoverer.prepare(picture.image, hands.only([best]), photo)
            meshes = recoverer.recover_prepared(prepared, options)
            for name in ("detected", picture.kind):
                _add(errors[name], picture, recoverer.hand, meshes)
            errors["detector"].add(picture, hands.keypoints3d[best])
        # 2. From the true keypoints.
        prepared = recoverer.prepare(picture.image, _true_hands(picture), photo)
        meshes = recoverer.recover_prepared(prepared, options, exact=True)
        _add(errors["true_2d"], picture, recoverer.hand, meshes)
        mirror = (lambda x: x) if picture.right else mirror_points
        errors["mean_pose"].add(picture, *(mirror(x) for x in mean_pose))
    return {
        "about": HANDS,
        "count": len(pictures),
        "found": found / max(len(pictures), 1),
        "side": sides / max(found, 1),
        **{name: group.means() for name, group in errors.items()},
    }


def reconstruction(recoverer: HandRecoverer, count: int = 1000, seed: int = SEED) -> float:
    """MPJPE of the tokenizer on grasps that are not trained on, millimetres.

    Poses have random root rotations and the mean shape. Joints and tips are relative to the wrist,
    without alignment.

    Args:
      recoverer: the model.
      count: of poses.
      seed: of the poses.
    """
    hand, params = recoverer.hand, recoverer.params
    rng = np.random.default_rng(seed)
    fingers = HandPrior(hand).sample(rng, count, "grasps")
    root = Rotation.random(count, rng).as_rotvec()[:, None]
    poses = np.concatenate([root, fingers], 1).astype(np.float32)

    @jax.jit
    def errors(params, poses):
        tokenizer, vectors = networks.tokenizer(recoverer.system.spec, params), params["codebook"]
        rotmats = axis_angle_to_matrix(poses)
        again = tokenizer.decode(
            vectors["vectors"][tokenizer.tokenize(vectors["vectors"], rotmats)]
        )
        betas = np.zeros(hand.num_betas, np.float32)
        both = (hand_keypoints(hand, smpl_jax.forward(hand, betas, r)) for r in (rotmats, again))
        true, found = (points - points[:, :1] for points in both)
        return distances(found, true)

    return 1000 * float(np.mean(errors(params, poses)))


def closest(hands: Hands, picture: HandPicture) -> int | None:
    """The index of the detection of a picture's hand; None: not found."""
    if not len(hands):
        return None
    error = np.asarray(distances(hands.keypoints[..., :2], picture.points2d)).mean(-1)
    best = int(np.argmin(error))
    return best if error[best] < CLOSE * np.ptp(picture.points2d, axis=0).max() else None


def _true_hands(picture: HandPicture) -> Hands:
    """The true 2D keypoints as a detection, without 3D keypoints."""
    points = np.concatenate([picture.points2d, np.ones((len(HAND21), 1))], -1)
    return hands_given(picture.image, [GivenHand(picture.right, points.astype(np.float32))])


def _add(
    errors: Errors, picture: HandPicture, hand: smpl_jax.SmplModel, meshes: HandMeshes
) -> None:
    joints, vertices = meshes.joints[0], meshes.vertices[0]
    errors.add(picture, keypoints_of(hand, joints, vertices), vertices)


def mean_hand(hand: smpl_jax.SmplModel) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints and vertices of a right hand of mean pose and shape."""
    prior = HandPrior(hand)
    angles = prior.sample_angles(np.random.default_rng(0), _MEAN_OF).mean(0, keepdims=True)
    fingers = prior.hand.axes.rotations_from_angles(angles)[0]
    pose = np.concatenate([np.zeros((1, 3), np.float32), fingers])
    output = smpl_jax.forward(hand, np.zeros(hand.num_betas, np.float32), pose)
    return np.asarray(hand_keypoints(hand, output)), np.asarray(output.vertices)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Measure a model of hands on rendered hands.")
    about = "model folder; default: the model of the package"
    parser.add_argument("--checkpoint", type=path_argument, help=about)
    parser.add_argument("--count", type=int, default=300, help="number of pictures")
    about = "folder of photos; procedural backgrounds without"
    parser.add_argument("--backgrounds", type=path_argument, help=about)
    about = "of sampling; default: those of the model"
    parser.add_argument("--iterations", type=int, help=about)
    about = "of the 2D refinement; default: those of the model"
    parser.add_argument("--refine-steps", type=int, help=about)
    parser.add_argument("--out", type=path_argument, help="JSON file of the results")
    args = parser.parse_args()
    try:
        recoverer = load_hands(args.checkpoint)
        pictures = hand_split(args.count, hand=recoverer.hand, backgrounds=args.backgrounds)
        options = RecoverOptions(iterations=args.iterations, refine_steps=args.refine_steps)
        report = measure(recoverer, pictures, options=options)
        report["tokenizer_mpjpe_mm"] = reconstruction(recoverer)
        text = json.dumps(report, indent=2)
        print(text)
        if args.out:
            pathlib.Path(args.out).write_text(text)
    except InputError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
