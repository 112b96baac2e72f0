"""The viewer page of a photo or a clip, from the results and the pictures."""

import dataclasses
import io
from collections.abc import Iterable, Mapping

import numpy as np
import smpl_jax
from jaxtyping import UInt8
from PIL import Image

from genhmr_jax.core.solve import Traced
from genhmr_jax.geometry.fingers import has_fingers
from genhmr_jax.geometry.motion import Motion
from genhmr_jax.recover.clip import Clip
from genhmr_jax.recover.motions import (
    frame_motions_of_clip,
    hypotheses_of_people,
    motions_of_clip,
    motions_of_people,
    origin_of,
)
from genhmr_jax.recover.people import People
from genhmr_jax.render.rest import Rest, rest_joints, rest_of, with_pose
from genhmr_jax.render.viewer.page import write_page as write_page
from genhmr_jax.render.viewer.scene import PersonScene, Scene, Trace

PHOTO_SIDE, PHOTO_QUALITY = 1600, 85
FRAME_SIDE, FRAME_QUALITY = 640, 70
"""Longer side of the embedded pictures, px, and their JPEG quality."""


def photo_scene(
    title: str,
    pixels: UInt8[np.ndarray, "H W 3"] | None,
    people: People,
    body: smpl_jax.SmplModel,
    traced: Traced | None = None,
    downloads: Mapping[str, bytes] = {},
) -> Scene:
    """The page of a photo.

    Args:
      title: of the page.
      pixels: the photo; None: the page has no picture.
      people: the result.
      body: with which it was made.
      traced: the steps of sampling; the last one is the answer before the refinement.
      downloads: files that the page offers, by name.
    """
    motions, everybody = motions_of_people(people), []
    for i, (motion, others) in enumerate(zip(motions, hypotheses_of_people(people), strict=True)):
        # The page has one shape for a person. What had another one keeps the place of its pelvis.
        steps = before = None
        if traced is not None:
            steps = Trace(traced.poses[i], origin_of(traced.joints[i, :, 0], motion.betas, body))
            last = {"poses": steps.poses[-1:], "translation": steps.translation[-1:]}
            before = dataclasses.replace(motion, **last)
        others = tuple(_with_shape_of(motion, other, body) for other in others)
        body_of_page = _shaped(body, motion)
        scene = PersonScene(motion, body_of_page, hypotheses=others, before=before, trace=steps)
        everybody.append(scene)
    pictures = () if pixels is None else (jpeg(pixels, PHOTO_SIDE, PHOTO_QUALITY),)
    return Scene(
        title=title,
        image_size=tuple(people.image_size.tolist()),
        focal=float(people.focal_length),
        principal_point=tuple(people.principal_point.tolist()),
        times=np.zeros(1),
        people=tuple(everybody),
        frames=pictures,
        downloads=dict(downloads),
    )


def clip_scene(
    title: str,
    frames: Iterable[bytes],
    clip: Clip,
    body: smpl_jax.SmplModel,
    downloads: Mapping[str, bytes] = {},
) -> Scene:
    """The page of a clip.

    Args:
      title: of the page.
      frames: pictures of all frames, of `jpeg`, or none.
      clip: the result.
      body: with which it was made.
      downloads: files that the page offers, by name.
    """
    how = {"fingers": has_fingers(body)}
    steady, before = motions_of_clip(clip, **how), [None] * len(clip)
    if clip.frame_body_pose is not None:
        before = frame_motions_of_clip(clip, body, **how)
    everybody = [
        PersonScene(motion, _shaped(body, motion), before=before[i])
        for i, motion in enumerate(steady)
    ]
    return Scene(
        title=title,
        image_size=tuple(clip.image_size.tolist()),
        focal=float(clip.focal_length),
        principal_point=tuple(clip.principal_point.tolist()),
        times=clip.times,
        people=tuple(everybody),
        frames=tuple(frames),
        world_rotation=clip.world_rotation,
        world_translation=clip.world_translation,
        before_name="Each frame by itself",
        downloads=dict(downloads),
    )


def jpeg(
    pixels: UInt8[np.ndarray, "H W 3"], side: int = FRAME_SIDE, quality: int = FRAME_QUALITY
) -> bytes:
    """A picture as JPEG, reduced to at most `side` px."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.BOX)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _with_shape_of(answer: Motion, other: Motion, body: smpl_jax.SmplModel) -> Motion:
    """The other motion with the shape of the answer."""
    pelvis = other.translation + rest_joints(body, other.betas)[0]
    translation = origin_of(pelvis, answer.betas, body)
    return dataclasses.replace(other, betas=answer.betas, translation=translation)


def _shaped(body: smpl_jax.SmplModel, motion: Motion) -> Rest:
    """The mesh of a person, with the mean of the blend shapes of the person's poses."""
    return with_pose(rest_of(body, motion.betas), body, motion.poses[motion.present])
