"""`genhmr recover CLIP`: read a clip, recover its people over time, write the results."""

import argparse
import dataclasses
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from smpl_jax import SmplModel
from tqdm import tqdm

import genhmr_jax
from genhmr_jax.data.annotations.clip_masks import ClipMasks
from genhmr_jax.geometry.fingers import has_fingers
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import PAGE_SUFFIX, ImageFile
from genhmr_jax.io.terminal import complain, say
from genhmr_jax.io.video import FrameSource, open_clip
from genhmr_jax.recover.clip import Clip
from genhmr_jax.recover.clip_frames import FrameTables
from genhmr_jax.recover.clip_hands import with_hands
from genhmr_jax.recover.clip_pictures import draw_clip
from genhmr_jax.recover.clip_recovery import ClipOptions, recover_clip
from genhmr_jax.recover.motions import in_world, motions_of_clip
from genhmr_jax.recover.pages import clip_scene, jpeg
from genhmr_jax.render.export.clip_files import save_clip_files
from genhmr_jax.render.viewer.page import write_page

if TYPE_CHECKING:  # heavy, imported where they are used
    from genhmr_jax.recover.hands_on_body import HandsOnBody
    from genhmr_jax.recover.photo import Recoverer, RecoverOptions

TABLES = "_partial"
"""Suffix of the folder with the answers of single frames, which `--resume` continues."""


def run_clip(
    clip: ImageFile,
    recoverer: "Recoverer",
    photo: "RecoverOptions",
    out: Path,
    args: argparse.Namespace,
    hands: "HandsOnBody | None" = None,
) -> None:
    """Recover one clip, and write its files.

    Args:
      clip: the video or the folder, and the stem of its outputs.
      recoverer, photo: the model, and the options that photos have too.
      out: folder of the results.
      args: the flags.
      hands: with --hands.

    Raises:
      InputError: the clip or a flag is at fault. Tables of the first pass stay for --resume.
      KeyboardInterrupt: the first pass was interrupted. What was found before that is written.
    """
    source = open_clip(clip.path, start=args.start, end=args.end, every=args.every, fps=args.fps)
    options = ClipOptions(photo=photo, height=args.height).of(source)
    masks = ClipMasks(args.masks, source.names, source.length) if args.masks else None
    identity = _identity(source, clip, options, args, masks)
    folder = out / f"{clip.stem}{TABLES}"
    make = FrameTables.resume if args.resume else FrameTables.make
    tables = make(folder, identity)
    # 1. The people. An interruption ends the first pass; what was found so far is written.
    with tqdm(total=source.count, initial=len(tables.frames), unit="frame") as bar:

        def progress(frames: int, people: int) -> None:
            bar.set_postfix_str(f"{people / frames:.1f} people")
            bar.update(frames)

        found = recover_clip(
            source,
            recoverer,
            options,
            body_model=args.body,
            tables=tables,
            progress=progress,
            masks=masks,
        )
    if source.warning:
        complain(source.warning)
    if not len(found):
        if tables.complete:
            tables.delete()
        if masks is not None:
            remedy = "check that the labels are on people"
            raise InputError(masks.source, "shows nobody who is found in the clip", remedy)
        remedy = "choose a part of the clip in which people are larger"
        raise InputError(clip.path, "nobody was found for long enough", remedy)
    # 2. The hands, and the files.
    body = recoverer.body
    if hands is not None:
        found, body = with_hands(found, source, hands, photo), hands.fingers
    no_world = args.world and found.world_rotation is None
    written = write_clip(found, source, clip, body, out, args)
    focal = f"focal {found.focal_length:.0f} px ({options.photo.focal_from})"
    say(f"{clip.path.name}: {summary(found)}, {focal} -> {written}")
    if not tables.complete:
        complain(f"{clip.path}: interrupted; go on with --resume")
        raise KeyboardInterrupt  # the user does not want the next clips either
    if no_world:
        problem = f"the files of --save are not written: {found.why_no_world}"
        remedy = "for files in the axes of the camera give --resume in place of --world"
        raise InputError("--world", problem, remedy)
    tables.delete()


def write_clip(
    found: Clip,
    source: FrameSource,
    clip: ImageFile,
    body: SmplModel,
    out: Path,
    args: argparse.Namespace,
) -> Path:
    """Write the results of a clip; the file that shows them best.

    With --world, but without a world, the files of --save are left out.
    """
    best = out / f"{clip.stem}.npz"
    found.save(best)
    files = [best]
    if args.save and not (args.world and found.world_rotation is None):
        motions = motions_of_clip(found, fingers=has_fingers(body))
        if args.world:
            motions = in_world(motions, found, body)
        files += save_clip_files(out, clip.stem, args.save, motions, body, found)
    pictures: list[bytes] = []
    each = (lambda number, pixels: pictures.append(jpeg(pixels))) if args.page else _nothing
    if not args.no_overlay:
        best = draw_clip(source, found, body, out / f"{clip.stem}_overlay", each)
    elif args.page:
        for _, frame in zip(found.times, source.frames(), strict=False):
            pictures.append(jpeg(frame.pixels))
    if args.page:
        best = out / f"{clip.stem}{PAGE_SUFFIX}"
        downloads = {file.name: file.read_bytes() for file in files if file.is_file()}
        if len(pictures) != len(found.times):  # frames at the end cannot be decoded again
            pictures = []
        write_page(best, clip_scene(clip.path.name, pictures, found, body, downloads))
    return best


def summary(clip: Clip) -> str:
    """People, frames, confidence (if there is one), shots and world coordinates, in one line."""
    people = "1 person" if len(clip) == 1 else f"{len(clip)} people"
    text = f"{people} in {len(clip.times)} frames"
    confidence = clip.joint_confidence[clip.state > 0].mean()
    text += f", confidence {confidence:.2f}" if np.isfinite(confidence) else ""
    if clip.shot.any():
        text += f", {clip.shot[-1] + 1} shots"
    why = clip.why_no_world
    return f"{text}; no world coordinates, because {why}" if why else text


def _nothing(number: int, pixels: np.ndarray) -> None:
    """Keep no picture."""


def _identity(
    source: FrameSource,
    clip: ImageFile,
    options: ClipOptions,
    args: argparse.Namespace,
    masks: ClipMasks | None,
) -> dict[str, Any]:
    """What the answers of single frames depend on."""
    ends = lambda values: values[[0, -1]].tolist()
    # Of a folder, only the files tell that a picture was replaced.
    status = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in source.paths]
    return {
        "version": genhmr_jax.__version__,
        "source": [os.path.abspath(clip.path), hashlib.sha256(repr(status).encode()).hexdigest()],
        "frames": [source.count, *ends(source.indices), *ends(source.times)],
        "options": repr(dataclasses.replace(options, height=None)),
        "model": [str(args.checkpoint), str(args.model), str(args.body)],
        "masks": masks.identity if masks else [],
    }
