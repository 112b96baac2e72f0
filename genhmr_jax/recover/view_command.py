"""`genhmr view`: a page of a result that was written before."""

import argparse
from pathlib import Path

import numpy as np

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.fingers import load_fingers
from genhmr_jax.io.atomic import check_writable
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import PAGE_SUFFIX
from genhmr_jax.io.images import read_image
from genhmr_jax.io.npz_files import read_own_npz
from genhmr_jax.io.terminal import say
from genhmr_jax.io.video import is_video, open_clip
from genhmr_jax.recover.clip import Clip
from genhmr_jax.recover.pages import clip_scene, jpeg, photo_scene
from genhmr_jax.recover.people import People
from genhmr_jax.render.viewer.page import write_page
from genhmr_jax.render.viewer.scene import Scene


def run(args: argparse.Namespace) -> int:
    """Write the page of `args.result`.

    Raises:
      InputError: the result, its photo or its body is at fault.
    """
    result = Path(args.result)
    out = check_writable(args.out or result.with_name(f"{result.stem}{PAGE_SUFFIX}"))
    make = _clip_page if is_clip_result(result) else _photo_page
    write_page(out, make(result, args))
    say(f"{result.name} -> {out}")
    return 0


def is_clip_result(path: Path) -> bool:
    """Whether a file of results is of a clip.

    Raises:
      InputError: no such file, or no results.
    """
    remedy = "give a file that `genhmr recover` wrote"
    return "track_id" in read_own_npz(path, "file of results", remedy, (), ("track_id",))


def _photo_page(path: Path, args: argparse.Namespace) -> Scene:
    people, body = People.load(path), load_body(args.body or "neutral")
    if people.vertices.shape[1] != body.num_vertices:
        problem = f"has meshes of {people.vertices.shape[1]} vertices, not of {body.num_vertices}"
        raise InputError(path, problem, "give its body with --body")
    pixels = None
    if args.photo:
        pixels = read_image(args.photo)
        _same_size(args.photo, pixels.shape[1::-1], people.image_size)
    title = Path(args.photo or path).name
    downloads = {path.name: path.read_bytes()}
    return photo_scene(title, pixels, people, body, downloads=downloads)


def _clip_page(path: Path, args: argparse.Namespace) -> Scene:
    clip = Clip.load(path)
    load = load_body if clip.left_hand_pose is None else load_fingers
    body = load(args.body or str(clip.body_model))
    pictures = []
    if args.photo:
        source = open_clip(args.photo)
        _same_size(args.photo, source.size, clip.image_size)
        wanted = set(clip.frame_index.tolist())
        pictures = [
            jpeg(frame.pixels)
            for frame in source.frames(int(clip.frame_index[0]))
            if frame.index in wanted
        ]
        if len(pictures) != len(clip.times):
            problem = f"has {len(pictures)} of the {len(clip.times)} frames of the result"
            raise InputError(args.photo, problem, "give the clip that was recovered")
    title = Path(args.photo or path).name
    return clip_scene(title, pictures, clip, body, {path.name: path.read_bytes()})


def _same_size(path: str, found: tuple[int, int], expected: np.ndarray) -> None:
    if tuple(found) != tuple(expected.tolist()):
        sizes = "{} x {} px, the result is of {} x {} px".format(*found, *expected)
        kind = "video" if is_video(path) else "picture"
        raise InputError(path, f"is a {kind} of {sizes}", "give the one that was recovered")
