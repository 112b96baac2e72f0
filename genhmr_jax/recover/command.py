"""`genhmr recover` and `genhmr demo`: read photos, recover their people, write the results."""

import argparse
import contextlib
import dataclasses
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import ImageFile, find_images, name_outputs
from genhmr_jax.io.memory import share_arena
from genhmr_jax.io.terminal import complain, say
from genhmr_jax.io.video import is_video
from genhmr_jax.recover.overlapped import overlapped
from genhmr_jax.recover.report import make_writable, would_overwrite
from genhmr_jax.recover.steps import PhotoSteps
from genhmr_jax.recover.user_files import UserFiles
from genhmr_jax.render import MESH_FORMATS
from genhmr_jax.render.export import CLIP_FORMATS

if TYPE_CHECKING:  # heavy, imported where they are used
    from genhmr_jax.recover.hands_on_body import HandsOnBody
    from genhmr_jax.recover.photo import Recoverer, RecoverOptions


def run(args: argparse.Namespace) -> int:
    """Recover the people of every photo in `args.images` and write them to `args.out`.

    A photo that fails is reported in one line on stderr; the other photos are still processed.

    Returns:
      0, or 1 if any photo failed.

    Raises:
      InputError: no photo can be processed: the output directory, the model, or a file of boxes,
        keypoints or cameras is at fault.
    """
    share_arena()
    # 1. Cheap checks. The model is loaded only if there is a photo and an output directory.
    clips = [path for path in args.images if is_clip(path, args.clip)]
    found = find_images(path for path in args.images if path not in clips)
    for line in (*found.errors, *found.notes()):
        complain(line)
    if not found.files and not clips:
        return 1
    if clips:
        check_clip_flags(args)
        if args.masks and (found.files or len(clips) > 1):
            problem = "is one folder, but there are several clips, or photos too"
            raise InputError("--masks", problem, "give one clip at a time")
    if found.files:
        check_photo_flags(args)
    out = make_writable(args.out)
    if args.cameras and args.principal_point:
        problem = "cannot be combined with --cameras"
        raise InputError("--principal-point", problem, "leave one of them out")
    masks = args.masks if found.files else None  # those of a clip have other names
    files = UserFiles.read(args.boxes, args.keypoints, args.cameras, masks)
    others = [path for inside in found.passed_over.values() for path in inside]
    read = [path for path in (args.boxes, args.keypoints, args.cameras, args.body) if path]
    inputs = [*found.files, *map(Path, clips)]
    named = name_outputs(inputs, would_overwrite(out, [*inputs, *others, *read]))
    images, clips = named[: len(found.files)], named[len(found.files) :]

    # 2. Several photos at the same time; the results come in the order of the photos.
    recoverer, options = load(args, one_photo=len(images) == 1 and not clips)
    hands = _load_hands(args) if args.hands else None
    if hands is not None:
        recoverer = dataclasses.replace(recoverer, body=hands.body)
    steps = PhotoSteps(recoverer, options, files, images, out, args, hands)
    failures = len(found.errors)
    done = overlapped(images, steps.prepare, steps.solve, steps.finish, weight=len)
    bar = tqdm(done, total=len(images), unit="photo", disable=None if len(images) > 1 else True)
    for index, (image, result) in enumerate(bar):
        if isinstance(result, Exception):
            if os.environ.get("GENHMR_DEBUG"):
                raise result
            failures += 1
            complain(as_input_error(image.path, result))
            continue
        for warning in result.warnings:
            complain(warning)
        say((f"[{index + 1}/{len(images)}] " if len(images) > 1 else "") + result.line)

    # 3. Clips, one after the other.
    for clip in clips:
        failures += _run_clip(clip, recoverer, options, out, args, hands)
    return 1 if failures else 0


def is_clip(path: str | os.PathLike, folders: bool) -> bool:
    """Whether a path is a video, or a folder where these hold the frames of clips."""
    return is_video(path) or (folders and os.path.isdir(path))


def check_photo_flags(args: argparse.Namespace) -> None:
    """Raise InputError if a flag does not go together with photos."""
    only_clips = {
        "--start": args.start, "--end": args.end, "--fps": args.fps, "--every": args.every > 1,
        "--height": args.height, "--world": args.world, "--resume": args.resume,
    }  # fmt: skip
    if given := [flag for flag, value in only_clips.items() if value]:
        raise InputError(given[0], "is for clips, not for photos", "leave it out")
    if unknown := [name for name in args.save if name not in MESH_FORMATS]:
        known = ",".join(MESH_FORMATS)
        raise InputError(f"--save {unknown[0]}", "is no format of photos", f"choose among {known}")


def check_clip_flags(args: argparse.Namespace) -> None:
    """Raise InputError if a flag does not go together with clips."""
    only_photos = {
        "--trace": args.trace, "--boxes": args.boxes, "--keypoints": args.keypoints,
        "--cameras": args.cameras, "--hypotheses": args.hypotheses > 1,
    }  # fmt: skip
    if given := [flag for flag, value in only_photos.items() if value]:
        raise InputError(given[0], "is for photos, not for clips", "leave it out")
    if args.world and not args.save:
        raise InputError("--world", "changes only the files of --save", "give --save too")
    if unknown := [name for name in args.save if name not in CLIP_FORMATS]:
        known = ",".join(CLIP_FORMATS)
        raise InputError(f"--save {unknown[0]}", "is no format of clips", f"choose among {known}")


def _run_clip(
    clip: ImageFile,
    recoverer: "Recoverer",
    options: "RecoverOptions",
    out: Path,
    args: argparse.Namespace,
    hands: "HandsOnBody | None",
) -> bool:
    """Recover one clip; whether it failed, which is reported in one line."""
    from genhmr_jax.recover import clip_command

    try:
        clip_command.run_clip(clip, recoverer, options, out, args, hands)
        return False
    except Exception as error:
        if os.environ.get("GENHMR_DEBUG"):
            raise
        complain(as_input_error(clip.path, error))
        return True


def load(args: argparse.Namespace, one_photo: bool = False) -> "tuple[Recoverer, RecoverOptions]":
    """The model and the options of the flags.

    Args:
      args: the flags.
      one_photo: compile what one person needs, if it is not stored, while the photo is prepared.
    """
    from genhmr_jax.io import compilation_cache

    compilation_cache.enable()
    from genhmr_jax.detect import detector
    from genhmr_jax.recover import photo

    # Threads read the stored programs while this one loads the model and prepares the photo.
    threading.Thread(target=detector.preload, kwargs={"make": one_photo}).start()

    temperature = args.temperature if args.temperature is not None else float(args.hypotheses > 1)
    chosen = dict(
        iterations=args.iterations,
        temperature=temperature,
        hypotheses=args.hypotheses,
        focal=args.focal,
        fov=args.fov,
        principal_point=args.principal_point,
        seed=args.seed,
        max_people=args.max_people,
        context=args.context,
    )
    if args.refine_steps is not None:
        chosen["refine_steps"] = args.refine_steps
    try:
        body = "neutral" if args.hands else args.body  # its own one comes with the hands
        recoverer = photo.load(args.checkpoint, body, args.model)
        if args.trace:
            recoverer.check_steps()
        options = photo.RecoverOptions(**chosen)
        threading.Thread(target=_preload, args=(recoverer, options, one_photo)).start()
        return recoverer, options
    except InputError:
        raise
    except (ValueError, OSError) as error:  # from smpl_jax, which loads the body
        remedy = "give neutral, male, female, lite or an SMPL file"
        raise InputError(f"--body {args.body}", str(error), remedy) from error


def _load_hands(args: argparse.Namespace) -> "HandsOnBody":
    """The model of hands, and the body with fingers."""
    from genhmr_jax.detect import hands as hand_detector
    from genhmr_jax.recover import hands_on_body

    threading.Thread(target=hand_detector.preload).start()
    return hands_on_body.load_hands_on_body(args.body)


def _preload(recoverer: "Recoverer", options: "RecoverOptions", make: bool) -> None:
    """Read what the first photo needs after its people are detected."""
    with contextlib.suppress(Exception):  # the photo raises it again
        recoverer.preload(options, make=make)
        from genhmr_jax.render import overlay  # noqa: F401 (reads compiled kernels)


def as_input_error(where: object, error: Exception) -> InputError:
    """Any error as an InputError that names the file at fault."""
    if isinstance(error, InputError):
        if error.where == str(where) or os.sep in error.where:
            return error
        return InputError(f"{where}: {error.where}", error.problem, error.remedy)
    if isinstance(error, OSError) and error.strerror:
        remedy = "check the path, its permissions and the free disk space"
        return InputError(error.filename or where, error.strerror, remedy)
    if isinstance(error, ValueError | FileNotFoundError):
        return InputError(where, str(error), "correct the input")
    if isinstance(error, MemoryError):
        remedy = "scale the photo down or lower --hypotheses"
        return InputError(where, "does not fit into memory", remedy)
    problem = f"internal error ({type(error).__name__}: {error})"
    return InputError(where, problem, "set GENHMR_DEBUG=1 to see where, and report it")
