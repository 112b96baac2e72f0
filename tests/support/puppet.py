"""A recoverer whose detections and answers are known, for the tests of evaluations."""

import dataclasses

import numpy as np
import smpl_jax

from genhmr_jax.core.inputs import Inputs
from genhmr_jax.core.solve import Hypotheses, Solved
from genhmr_jax.detect.detections import Detections
from genhmr_jax.evaluate import predictions
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.recover.photo import Recoverer


@dataclasses.dataclass
class Puppet:
    """Detects the same people in every picture and answers the mean pose; it notes its inputs.

    `detect` has to be put in the place of predictions.detect.
    """

    people: np.ndarray  # (P, 23, 3) what its detector finds in every picture
    body: smpl_jax.SmplModel = dataclasses.field(default_factory=lambda: load_body("lite"))
    images: list = dataclasses.field(default_factory=list)
    boxes: list = dataclasses.field(default_factory=list)
    batches: list = dataclasses.field(default_factory=list)
    prepared: list = dataclasses.field(default_factory=list)
    needs_box: bool = False

    recoverable = Recoverer.recoverable

    @property
    def system(self):
        return self

    def detect(self, image, boxes, keypoints, *, max_people):
        self.images.append(image)
        self.boxes.append(boxes)
        if boxes is None:
            boxes = np.concatenate([self.people[..., :2].min(1), self.people[..., :2].max(1)], -1)
        people = self.people[: len(boxes)]
        return dataclasses.replace(Detections.empty(len(people)), boxes=boxes, keypoints=people)

    def prepare(self, image, people, photo, rows, *, published_crop):
        """The crop is the first keypoint, the weight of the image its mean."""
        self.prepared.append(people.boxes)
        view = CropCamera(
            crop=people.padded(rows).keypoints[:, 0],
            focal=np.full(rows, photo.focal, np.float32),
            centre=np.tile(np.float32(photo.principal_point), (rows, 1)),
        )
        return Inputs(view, image_weight=np.full(rows, image.mean(), np.float32))

    def solve(self, inputs, numbers, options):
        """The mean pose, its joints 1 m apart in each person's number; confidence 0.5, or in
        hypotheses their number."""
        self.batches.append(numbers)
        mean = predictions.mean_pose(self.body, 1)
        joints = mean.joints + numbers[:, None, None] * np.ones(3)
        several = None
        if options.hypotheses > 1:
            rows, levels = len(numbers), np.arange(options.hypotheses) / options.hypotheses
            several = Hypotheses(
                vertex_std=np.zeros((rows, 1)),
                global_orient=np.zeros((rows, len(levels), 3)),
                body_pose=np.zeros((rows, len(levels), 69)),
                betas=np.zeros((rows, len(levels), 10)),
                translation=np.zeros((rows, len(levels), 3)),
                joints=np.tile(joints[:, None], (1, len(levels), 1, 1)),
                confidence=np.tile(levels[None, :, None], (rows, 1, 24)),
            )
        return solved(
            len(numbers),
            vertices=np.tile(mean.vertices, (len(numbers), 1, 1)),
            joints=joints,
            joint_confidence=np.full((len(numbers), 24), 0.5),
            projected_keypoints=np.tile(inputs.view.crop[:, None, :2], (1, 23, 1)),
            hypotheses=several,
        )


def solved(rows, **fields):
    """The answer for some rows; what is not given is zero."""
    shapes = {
        "global_orient": (3,),
        "body_pose": (69,),
        "betas": (10,),
        "weak_camera": (3,),
        "translation": (3,),
        "vertices": (1, 3),
        "joints": (24, 3),
        "joints2d": (24, 2),
        "joint_confidence": (24,),
        "projected_keypoints": (23, 2),
        "sampled_keypoints": (23, 2),
        "tokens": (1,),
        "refine_loss": (1,),
    }
    zeros = {name: np.zeros((rows, *shape)) for name, shape in shapes.items()}
    return Solved(**{**zeros, "hypotheses": None, **fields})


def keypoints_at(*centres):
    """(P, 23, 3): each person's keypoints on a circle of 10 px about a centre, all clearly seen."""
    turn = np.linspace(0, 2 * np.pi, 23, endpoint=False)
    circle = 10 * np.stack([np.cos(turn), np.sin(turn)], -1)
    return np.stack(
        [np.concatenate([circle + centre, np.ones((23, 1))], -1) for centre in centres]
    ).astype(np.float32)
