"""The free test set of clips: rendered motions of validation subjects, on disk.

It is rendered on the user's machine, is the same everywhere, and has a hash. A clip is a folder of
JPEG files and an npz of labels. The development set has motions of training subjects: settings are
chosen on it, never on the test set.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from tqdm import tqdm

from genhmr_jax.data.synthetic.appearance import Wardrobe
from genhmr_jax.data.synthetic.backgrounds import Backgrounds
from genhmr_jax.data.synthetic.clips import ClipSpec, RenderedClip, render_clip
from genhmr_jax.data.synthetic.families import APPEARANCES
from genhmr_jax.data.synthetic.motions import Sequence, load_sequences
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.npz_files import read_own_npz

COUNT = 20
SECONDS = 3.0
VERSION = 1
APPEARANCE = "v2"  # never shown in training
SPEC = ClipSpec()


@dataclasses.dataclass(frozen=True)
class ClipSet:
    """What determines the clips.

    Attributes:
      name: of the folder.
      split: of the pose corpus.
      seed: of motions, bodies, cameras and scenes; not used for training data.
    """

    name: str
    split: str
    seed: int


TEST = ClipSet(f"clips-test-v{VERSION}", "val", 40417)
DEVELOPMENT = ClipSet(f"clips-development-v{VERSION}", "train", 40418)
_LABELS = (
    "times", "global_orient", "body_pose", "betas", "translation", "joints", "keypoints", "focal",
    "occluded",
)  # fmt: skip
_ADDED = ("name", "start", "mean_pixel")
_SEEDED = ("betas", "focal", "occluded", "start")
_REMEDY = "delete this folder, so that it is rendered again"


@dataclasses.dataclass(frozen=True)
class KnownClip:
    """A clip of one person and its labels; F frames, units as in synthetic.clips.RenderedClip.

    Attributes:
      name: of the motion in the corpus.
      start: of the clip in the motion, seconds.
      folder: of the frames.
      mean_pixel: of the frames before they were compressed, 0..255.
      times, global_orient, body_pose, betas, translation, joints, keypoints, focal, occluded: as
        in RenderedClip.
    """

    name: str
    start: float
    folder: pathlib.Path
    mean_pixel: float
    times: Float[np.ndarray, "F"]
    global_orient: Float[np.ndarray, "F 3"]
    body_pose: Float[np.ndarray, "F 69"]
    betas: Float[np.ndarray, "10"]
    translation: Float[np.ndarray, "F 3"]
    joints: Float[np.ndarray, "F 24 3"]
    keypoints: Float[np.ndarray, "F 23 3"]
    focal: float
    occluded: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""
        return SPEC.width, SPEC.height

    @property
    def rate(self) -> float:
        """Frames a second."""
        return (len(self.times) - 1) / float(self.times[-1] - self.times[0])


@dataclasses.dataclass(frozen=True)
class ClipSplit:
    """The test set.

    Attributes:
      clips: with their labels.
      facts: version, seed, count, seconds, rate, size, hash and mean_pixel, which are stored with
        every result.
    """

    clips: list[KnownClip]
    facts: dict[str, Any]


def open_clips(
    folder: str | pathlib.Path,
    corpus: str | pathlib.Path | None = None,
    count: int = COUNT,
    which: ClipSet = TEST,
) -> ClipSplit:
    """Open a set in a folder. Missing clips are rendered; an interrupted rendering resumes.

    Args:
      folder: the data directory; the set has its own folder in it.
      corpus: pose corpus of motions.load_sequences; not needed for clips that are there.
      count: number of clips. The first N clips are the same for every count.
      which: TEST or DEVELOPMENT.

    Raises:
      InputError: clips are missing and no corpus is given, the corpus has too few motions or is not
        the one that the set was rendered from, or a file is damaged.
    """
    home = pathlib.Path(folder) / which.name
    missing = [i for i in range(count) if not _labels(home, i).exists()]
    if missing and corpus is None:
        remedy = "give the pose corpus from which it is rendered with --poses"
        raise InputError(home, f"lacks {len(missing)} of {count} clips", remedy)
    if corpus is not None:
        _render(which, home, pathlib.Path(corpus), count, missing)
    clips = [_read(home, i) for i in range(count)]
    facts = {
        "version": VERSION,
        "seed": which.seed,
        "count": count,
        "seconds": SECONDS,
        "rate": SPEC.rate,
        "size": [SPEC.width, SPEC.height],
        "hash": clips_hash(clips),
        "mean_pixel": round(float(np.mean([clip.mean_pixel for clip in clips])), 2),
    }
    return ClipSplit(clips, facts)


def windows(
    sequences: list[Sequence], seconds: float, seed: int
) -> Iterator[tuple[Sequence, float]]:
    """Sequences and starts of parts of so many seconds that do not overlap, in a random order.

    The subjects take turns, as long as they have parts left.
    """
    rng = np.random.default_rng(seed)
    parts: dict[str, list[tuple[Sequence, float]]] = {}
    for sequence in sequences:
        number = int(sequence.seconds // seconds)
        free = sequence.seconds - number * seconds
        starts = np.arange(number) * seconds + np.sort(rng.uniform(0, free, number))
        parts.setdefault(sequence.subject, []).extend((sequence, float(s)) for s in starts)
    for of_subject in parts.values():
        rng.shuffle(of_subject)
    while any(parts.values()):
        yield from [of_subject.pop() for of_subject in parts.values() if of_subject]


def _labels(home: pathlib.Path, number: int) -> pathlib.Path:
    return home / f"clip_{number:02d}.npz"


def _render(
    which: ClipSet, home: pathlib.Path, corpus: pathlib.Path, count: int, missing: list[int]
) -> None:
    """Render missing clips. The backgrounds are procedural: the same on every machine."""
    # 1. The corpus has to be that of the clips which are there.
    sequences = load_sequences(corpus, which.split, SECONDS)
    digest = hashlib.sha256()
    for sequence in sequences:
        digest.update(sequence.poses.tobytes() + sequence.times.tobytes())
    made_of, card = digest.hexdigest()[:16], home / "corpus.txt"
    if card.exists() and card.read_text() != made_of:
        remedy = "choose another --data-dir, or leave out --poses"
        raise InputError(home, "was rendered from other motions than those of --poses", remedy)
    chosen = [
        part for part, _ in zip(windows(sequences, SECONDS, which.seed), range(count), strict=False)
    ]
    if len(chosen) < count:
        problem = f"has only {len(chosen)} motions of {SECONDS:g} s of split {which.split}"
        raise InputError(corpus, problem, f"give a larger corpus, or --limit={len(chosen)}")
    home.mkdir(parents=True, exist_ok=True)
    with atomic_path(card) as temporary:
        temporary.write_text(made_of)

    # 2. Every second clip has an object in front of the person.
    body, frames = load_body(), round(SECONDS * SPEC.rate)
    wardrobe = Wardrobe.of(body) if missing else None
    for number in tqdm(missing, "rendering clips", unit="clip", disable=None):
        sequence, start = chosen[number]
        rng = np.random.default_rng([which.seed, number])
        spec = dataclasses.replace(SPEC, occluder=float(number % 2))
        poses = sequence.sampled(start, frames, SPEC.rate)
        scene = (rng, Backgrounds(), spec, APPEARANCE)
        clip = render_clip(body, wardrobe, poses, *scene)
        _write(home, number, clip, sequence.name, start, int(rng.integers(*_quality())))


def _quality() -> tuple[int, int]:
    return APPEARANCES[APPEARANCE].quality


def _write(
    home: pathlib.Path, number: int, clip: RenderedClip, name: str, start: float, quality: int
) -> None:
    """Write a clip; the labels come last, so that a clip with labels is complete."""
    folder = _labels(home, number).with_suffix("")
    folder.mkdir(exist_ok=True)
    for i, frame in enumerate(clip.frames):
        Image.fromarray(frame).save(folder / f"{i:04d}.jpg", quality=quality)
    arrays = {field: np.asarray(getattr(clip, field)) for field in _LABELS}
    arrays["mean_pixel"] = np.mean([frame.mean() for frame in clip.frames])
    with atomic_path(_labels(home, number)) as temporary, open(temporary, "wb") as file:
        np.savez(file, name=np.array(name), start=np.array(start), **arrays)


def _read(home: pathlib.Path, number: int) -> KnownClip:
    """Raises InputError: the labels are damaged, or frames are missing."""
    path = _labels(home, number)
    folder = path.with_suffix("")
    arrays = read_own_npz(path, "file of the labels of a clip", _REMEDY, (*_LABELS, *_ADDED))
    if len(list(folder.glob("*.jpg"))) != len(arrays["times"]):
        raise InputError(folder, "does not have as many frames as labels", _REMEDY)
    single = {name: arrays.pop(name).item() for name in (*_ADDED, "focal", "occluded")}
    return KnownClip(folder=folder, **single, **arrays)


def clips_hash(clips: list[KnownClip]) -> str:
    """16 hexadecimal digits, equal for two sets of the same people, motions and cameras.

    It is a SHA-256 over the version, the body, and the labels that follow from seeds alone (shape,
    focal length, occluder, name and start of the motion), rounded to thousandths. Joints and pixels
    are not included: their last digits differ between machines.
    """
    digest = hashlib.sha256(f"clips-test-v{VERSION}".encode())
    digest.update(np.asarray(load_body().template, "<f4").tobytes())
    for clip in clips:
        digest.update(clip.name.encode())
        for name in _SEEDED:
            values = np.asarray(getattr(clip, name), np.float64)
            digest.update(np.round(1000 * values).astype("<i8").tobytes())
    return digest.hexdigest()[:16]
