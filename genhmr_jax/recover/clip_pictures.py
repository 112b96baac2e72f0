"""The pictures of a clip: frames with the meshes over them, as a video or as PNG files."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator

import jax
import numpy as np
import smpl_jax
from jaxtyping import Float, UInt8
from PIL import Image

from genhmr_jax.geometry.fingers import full_pose, has_fingers
from genhmr_jax.geometry.motion import ABSENT
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.video import FrameSource
from genhmr_jax.io.video_writer import VideoWriter
from genhmr_jax.recover.clip import Clip
from genhmr_jax.recover.report import save_png
from genhmr_jax.render.overlay import overlay

_FORWARD = jax.jit(smpl_jax.forward)
SIDE = 960
"""Longer side of the pictures, px, at most."""


def draw_clip(
    source: FrameSource,
    clip: Clip,
    body: smpl_jax.SmplModel,
    path: pathlib.Path,
    each: Callable[[int, np.ndarray], None] = lambda frame, pixels: None,
) -> pathlib.Path:
    """Write the clip with the meshes of its people.

    Args:
      source: the frames; the first ones are those of the clip.
      clip: the result.
      body: with which it was made.
      path: of the video, without suffix.
      each: called with each frame and its number.

    Returns:
      the video, or the folder of PNG files where videos cannot be written.
    """
    scale = min(1.0, SIDE / max(source.size))
    size = tuple(max(round(side * scale), 1) for side in source.size)
    with _writer(path, size, source.fps) as (write, written):
        for number, frame in zip(range(len(clip.times)), source.frames(), strict=False):
            each(number, frame.pixels)
            small = np.asarray(Image.fromarray(frame.pixels).resize(size, Image.Resampling.BOX))
            write(frame.index, frame.time - clip.times[0], _drawn(small, clip, body, number))
    return written


def _drawn(
    picture: UInt8[np.ndarray, "h w 3"], clip: Clip, body: smpl_jax.SmplModel, frame: int
) -> UInt8[np.ndarray, "h w 3"]:
    """A frame with the people who are in it."""
    present = clip.state[:, frame] != ABSENT
    if not present.any():
        return picture
    scale = picture.shape[1] / float(clip.image_size[0])
    centre = tuple((clip.principal_point * scale).tolist())
    meshes, faces = vertices_of(clip, body, frame)[present], np.asarray(body.faces)
    focal, numbers = float(clip.focal_length) * scale, clip.track_id[present] - 1
    return overlay(picture, meshes, faces, focal, centre, numbers=numbers)


def vertices_of(clip: Clip, body: smpl_jax.SmplModel, frame: int) -> Float[np.ndarray, "P V 3"]:
    """The meshes of all people in a frame, camera coordinates, metres."""
    orient, pose = clip.global_orient[:, frame], clip.body_pose[:, frame]
    full = np.concatenate([orient, pose], -1)
    if has_fingers(body):
        hands = clip.left_hand_pose[:, frame], clip.right_hand_pose[:, frame]
        full = full_pose(orient, pose, *hands)
    vertices = _FORWARD(body, clip.betas, full.reshape(len(full), -1, 3)).vertices
    return np.asarray(vertices) + clip.translation[:, frame, None]


@contextlib.contextmanager
def _writer(
    path: pathlib.Path, size: tuple[int, int], fps: float
) -> Iterator[tuple[Callable[[int, float, np.ndarray], None], pathlib.Path]]:
    """Yield a function that writes (number, seconds, picture), and the file or folder."""
    video = path.with_name(f"{path.name}.mp4")
    try:
        writer = VideoWriter(video, size, fps)
    except InputError:  # without PyAV
        folder = path.with_name(f"{path.name}_frames")
        folder.mkdir(exist_ok=True)
        yield lambda number, time, picture: save_png(folder / f"{number:06d}.png", picture), folder
        return
    with writer:
        yield lambda number, time, picture: writer.write(picture, time=time), video
