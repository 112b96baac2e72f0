"""What a run of the benchmarks is asked to do, and the folders that its processes use."""

import dataclasses
import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "genhmr_jax" / "assets" / "sample" / "person.jpg"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of all groups.

    Attributes:
      work: a temporary folder for outputs.
      cache: the folder of compiled programs, as GENHMR_CACHE of this process and of its children.
      quick: whether to leave out what takes longest, and to repeat less.
      photos: a folder of photos for the folder benchmark; None: made of the sample photo.
      poses: a pose corpus for the lifting benchmark; None: it is left out.
    """

    work: pathlib.Path
    cache: pathlib.Path
    quick: bool = False
    photos: pathlib.Path | None = None
    poses: pathlib.Path | None = None

    @property
    def repeats(self) -> int:
        """Of a whole process."""
        return 1 if self.quick else 3

    @property
    def rounds(self) -> int:
        """Of calls that take turns."""
        return 2 if self.quick else 5

    @property
    def calls(self) -> int:
        """Of a turn."""
        return 3 if self.quick else 5

    def environment(self, cache: pathlib.Path | None = None) -> dict[str, str]:
        """The variables of a child process: its cache, and the packages of this checkout."""
        paths = [
            str(ROOT),
            str(ROOT / "third_party" / "smpl_jax"),
            os.environ.get("PYTHONPATH", ""),
        ]
        return {
            "GENHMR_CACHE": str(cache or self.cache),
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        }
