"""The user's masks of the people of a clip: one instance map for each frame.

A label means the same person in all frames, as in the output of SAM 2 and in DAVIS. Frames without
a map, and maps without a label, show nobody who is meant.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from genhmr_jax.data.annotations.masks import MOST_LABELS, read_mask, unusable
from genhmr_jax.detect.given_masks import GivenMasks
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files

_NUMBER = re.compile(r"(\d+)$")
_FORMS = "docs/annotations.md#masks-of-a-clip shows the names of maps"


class ClipMasks:
    """The maps in a folder, for the frames of one clip.

    Attributes:
      source: the folder.
      identity: what the results of a clip depend on, for `--resume`.
    """

    def __init__(self, folder: str | os.PathLike, names: Sequence[str] | None, count: int) -> None:
        """List the folder.

        Args:
          folder: of PNG files. With `names` each has the name of its frame; otherwise its name
            ends with the number of its frame, from 0.
          names: of the pictures of the clip, without suffix; None for a video.
          count: number of frames of the clip.

        Raises:
          InputError: it is no folder, has no map of any frame, or two maps of one.
        """
        self.source = Path(folder)
        if not self.source.is_dir():
            problem = "is a file, not a folder" if self.source.exists() else "no such folder"
            raise InputError(self.source, problem, f"give a folder of instance maps; {_FORMS}")
        places = {name: i for i, name in enumerate(names)} if names is not None else None
        self._files: dict[int, Path] = {}
        for path in find_files(self.source, "*"):
            if path.suffix.lower() != ".png" or not path.is_file():
                continue
            frame = _numbered(path.stem) if places is None else places.get(path.stem)
            if frame is None or not frame < count:
                continue
            if frame in self._files:
                problem = f"and {self._files[frame].name} are maps of frame {frame}"
                raise InputError(path, problem, "leave one of them")
            self._files[frame] = path
        if not self._files:
            wanted = f"{names[0]}.png" if names else "00000.png for the first frame"
            problem = "has no instance map of any frame of the clip"
            raise InputError(self.source, problem, f"name maps after frames ({wanted}); {_FORMS}")
        self.identity = [
            [path.name, path.stat().st_size, path.stat().st_mtime_ns]
            for path in self._files.values()
        ]

    def people_of(
        self, frame: int, size: tuple[int, int], max_people: int | None = None
    ) -> tuple[GivenMasks, Int[np.ndarray, "P"]]:
        """The people of a frame, and the label of each.

        People whose mask is a thin line or only a few px are left out.

        Args:
          frame: its number in the source.
          size: width and height of the frames, px.
          max_people: the people with the largest boxes stay; None: everybody.

        Raises:
          InputError: the map cannot be read, has another size, or has more than MOST_LABELS labels.
        """
        path = self._files.get(frame)
        labels = np.zeros(size[::-1], int) if path is None else read_mask(path, size)
        known = np.unique(labels)
        known = known[known != 0]
        if len(known) > MOST_LABELS:
            problem = f"has {len(known)} labels, which is no instance map"
            raise InputError(path, problem, "save it without soft edges")
        masks = {int(label): labels == label for label in known}
        masks = {label: mask for label, mask in masks.items() if unusable(mask) is None}
        given, chosen = GivenMasks.of(list(masks.values())), np.array(list(masks), int)
        if max_people is not None and len(chosen) > max_people:
            largest = given.largest(max_people)
            given, chosen = given.only(largest), chosen[largest]
        return given, chosen


def _numbered(stem: str) -> int | None:
    """The number at the end of a name."""
    found = _NUMBER.search(stem)
    return int(found[1]) if found else None
