"""Rendered pictures of hands for training, and the parts in which their rows are written.

Picture i is a function of (split, seed, i).
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import multiprocessing
import pathlib
from collections.abc import Callable

import numpy as np
from smpl_jax import SmplModel
from tqdm import tqdm

from genhmr_jax.data.hands.parts import PART, check_settings
from genhmr_jax.data.hands.render import HandSample, draw_sample
from genhmr_jax.data.poses import PoseCorpus, load_corpus
from genhmr_jax.data.synthetic.backgrounds import Backgrounds
from genhmr_jax.geometry.hand import load_hand

SPLITS = ("train", "val")


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The pictures of a split.

    Attributes:
      poses: corpus of data.hands.corpus, or "made-up".
      split: one of SPLITS, of the corpus.
      backgrounds: folder of photos; None: procedural ones.
      seed: of the pictures.
      hand: a right hand, see load_hand.
    """

    poses: str
    split: str
    backgrounds: str | pathlib.Path | None = None
    seed: int = 0
    hand: str = "free"

    def draw(self, number: int) -> tuple[HandSample, np.random.Generator]:
        """Picture `number`, and the generator for what is drawn after it.

        Raises:
          InputError: no such corpus, hand or backgrounds.
        """
        model, corpus, scenes = _opened(self)
        rng = np.random.default_rng([SPLITS.index(self.split), self.seed, number])
        pose = corpus.poses[corpus.draw(np.array(number), self.seed)]
        return draw_sample(model, pose, rng, scenes), rng

    def settings(self) -> dict[str, object]:
        """What determines the pictures. Raises InputError as `draw` does."""
        model, corpus, scenes = _opened(self)
        sha = lambda array: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
        return {
            "split": self.split,
            "seed": self.seed,
            "poses": sha(corpus.poses),
            "hand": sha(model.template),
            "backgrounds": scenes.fingerprint(),
        }


@functools.lru_cache(maxsize=2)
def _opened(pictures: Pictures) -> tuple[SmplModel, PoseCorpus, Backgrounds]:
    corpus = load_corpus(pictures.poses, pictures.split, joints=16)
    return load_hand(pictures.hand), corpus, Backgrounds(pictures.backgrounds)


def write_parts(
    out: pathlib.Path,
    count: int,
    settings: dict[str, object],
    write: Callable[[pathlib.Path, int, int], None],
    workers: int = 1,
) -> list[pathlib.Path]:
    """Write what is missing of the parts of `count` pictures; returns the files of all parts.

    Args:
      out: folder of the set.
      settings: what determines the rows.
      write: writes the rows of the pictures from one number to another into a file. With more than
        one worker it must be picklable.
      workers: processes.

    Raises:
      InputError: `out` holds rows of other settings.
    """
    (out / "parts").mkdir(parents=True, exist_ok=True)
    check_settings(out / "settings.json", settings)
    spans = [(start, min(start + PART, count)) for start in range(0, count, PART)]
    files = [out / "parts" / f"{start:07d}-{stop:07d}.npz" for start, stop in spans]
    left = [(f, *span) for f, span in zip(files, spans, strict=True) if not f.is_file()]
    if workers == 1 or len(left) < 2:
        for part in tqdm(left, unit="part", disable=None):
            write(*part)
        return files
    fresh = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, fresh) as pool:
        jobs = pool.map(write, *zip(*left, strict=True))
        for _ in tqdm(jobs, total=len(left), unit="part", disable=None):
            pass
    return files
