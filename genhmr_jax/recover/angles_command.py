"""`genhmr angles`: joint angles of the people of a clip, as files of OpenSim."""

import argparse
from pathlib import Path

import numpy as np

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.fingers import plain_body
from genhmr_jax.geometry.motion import frame_interval
from genhmr_jax.geometry.stature import check_height
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.terminal import complain, say
from genhmr_jax.recover.angles import PersonAngles, angles_of
from genhmr_jax.recover.angles_files import write_person
from genhmr_jax.recover.clip import Clip
from genhmr_jax.recover.motions import in_world, motions_of_clip
from genhmr_jax.recover.report import make_writable
from genhmr_jax.recover.view_command import is_clip_result

_SHORTEST = 2  # frames


def run(args: argparse.Namespace) -> int:
    """Write the angles of the people in `args.result`, an .npz file of a clip, to `args.out`.

    Returns:
      0.

    Raises:
      InputError: the file, a flag, or the output directory is at fault.
    """
    path = Path(args.result)
    if not is_clip_result(path):
        remedy = "give STEM.npz of `genhmr recover CLIP`, or the clip itself"
        raise InputError(path, "is the result of a photo: angles are of clips", remedy)
    if args.height is not None:
        check_height(args.height)
    clip, out = Clip.load(path), make_writable(args.out)
    load = load_body if clip.left_hand_pose is None else plain_body
    body = load(args.body or str(clip.body_model))
    motions = motions_of_clip(clip)
    if clip.world_rotation is not None:
        motions = in_world(motions, clip, body)
    else:
        complain(f"{path}: no ground is known: the y axis of the camera counts as vertical")
    for motion, number in zip(motions, clip.track_id, strict=True):
        if motion.present.sum() < _SHORTEST:
            complain(f"{path}: {motion.name} is seen in one frame only, and is left out")
            continue
        how = {"height": args.height, "mass": args.mass, "cutoff": args.filter}
        person = angles_of(motion, body, method=args.method, **how)
        if person.method != args.method:
            few = f"{1 / frame_interval(person.times):.0f} frames a second are too few for"
            complain(f"{path}: {few} {args.method}: angles are those of inverse kinematics")
        if args.filter and not person.cutoff:
            complain(f"{path}: too few frames a second for a filter of {args.filter:g} Hz")
        files = write_person(out / f"{path.stem}_{number}", person)
        say(f"{path.name}: {summary(person)} -> {files[0]}")
    return 0


def summary(person: PersonAngles) -> str:
    """Frames, quality of the fit, and the gait, in one line."""
    rmse = 1e3 * float(np.sqrt((person.rmse**2).mean()))
    text = f"{person.name} in {len(person.times)} frames, markers within {rmse:.1f} mm"
    if not person.cycles:
        return text
    cadence = np.mean([cycle.cadence for cycle in person.cycles])
    speed = np.mean([cycle.speed for cycle in person.cycles])
    count = len(person.cycles)
    return f"{text}, {count} cycles of walking: {cadence:.0f} steps a minute, {speed:.2f} m/s"
