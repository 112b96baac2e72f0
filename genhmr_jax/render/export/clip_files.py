"""All chosen files of a clip."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from smpl_jax import SmplModel

from genhmr_jax.geometry.motion import Motion
from genhmr_jax.render.export import CLIP_FORMATS
from genhmr_jax.render.export.amass import save_amass
from genhmr_jax.render.export.bvh import save_bvh
from genhmr_jax.render.export.coco import save_coco
from genhmr_jax.render.export.glb import save_glb
from genhmr_jax.render.export.table import ClipArrays, save_csv
from genhmr_jax.render.export.usd import save_usd

_OF_PERSON: dict[str, Callable[[Path, Motion, SmplModel], None]] = {
    "bvh": save_bvh,
    "bvh_cm": lambda path, motion, body: save_bvh(path, motion, body, units="cm"),
    "amass": save_amass,
}


def clip_file_names(stem: str, formats: Iterable[str], track_ids: Iterable[int]) -> list[str]:
    """The names of the files that `save_clip_files` writes, in its order.

    Formats of people have a file for each, STEM_TRACK + suffix, such as walk_1.bvh and
    walk_1_amass.npz; others have one, STEM + suffix, such as walk.glb and walk_coco.json.

    Raises:
      KeyError: a format that CLIP_FORMATS lacks.
    """
    names, numbers = [], [f"_{number}" for number in track_ids]
    for name in formats:
        suffix, per_person, _ = CLIP_FORMATS[name]
        names += [f"{stem}{number}{suffix}" for number in (numbers if per_person else [""])]
    return names


def save_clip_files(
    out: Path,
    stem: str,
    formats: Sequence[str],
    motions: Sequence[Motion],
    body: SmplModel,
    clip: ClipArrays,
) -> list[Path]:
    """Write a clip in several formats, and return the paths.

    Args:
      out: an existing folder.
      stem: of the file names, see `clip_file_names`.
      formats: names of CLIP_FORMATS.
      motions: of the people, in the order of the clip's tracks, all in the same axes. Tables have
        these axes, too.
      body: the body of the motions.
      clip: the arrays of the clip. Its P tracks are the motions.

    Raises:
      KeyError: a format that CLIP_FORMATS lacks.
      ValueError: nobody, a person who is in no frame, or numbers that do not match.
      InputError: a file cannot be written.
    """
    if not motions or len(motions) != len(clip.track_id):
        raise ValueError(f"{len(motions)} motions of {len(clip.track_id)} tracks")
    whole: dict[str, Callable[[Path], None]] = {
        "glb": lambda path: save_glb(path, motions, body),
        "usd": lambda path: save_usd(path, motions, body),
        "csv": lambda path: save_csv(path, clip, motions[0].axes),
        "coco": lambda path: save_coco(path, clip),
    }
    written = []
    for name in formats:
        paths = [out / file for file in clip_file_names(stem, [name], clip.track_id)]
        if name in whole:
            whole[name](*paths)
        else:
            for path, motion in zip(paths, motions, strict=True):
                _OF_PERSON[name](path, motion, body)
        written += paths
    return written
