"""What a source of data is: how its files are found, read and reported on.

A source turns the official release of a dataset, as it lies on a disk, into records (records.py): poses, or people in images.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from genhmr_jax.io.errors import InputError

Record = dict[str, Any]


@dataclasses.dataclass
class Report:
    """What a reader found to be bad.

    Without `skip_bad` the first bad record stops the reading with an InputError; with it, bad records are left out and listed.
    """

    skip_bad: bool = False
    dataset: str = ""
    layout: str = ""
    listed: list[str] = dataclasses.field(default_factory=list)

    def bad(self, where: object, problem: str, remedy: str) -> None:
        """Raises an InputError that names the dataset, or with skip_bad lists the record; the caller then goes on with the next one."""
        error = InputError(f"{self.dataset}: {where}" if self.dataset else where, problem, remedy)
        if not self.skip_bad:
            raise error
        self.listed.append(str(error))

    @contextlib.contextmanager
    def skipping(self) -> Iterator[None]:
        """A block that reads one file or one record: its InputError is treated as by `bad`, and the rest of the block is left out."""
        try:
            yield
        except MissingError:
            raise
        except InputError as error:
            self.bad(error.where, error.problem, error.remedy)

    def require(self, path: Path) -> Path:
        """The path, if it is there.

        Raises:
          MissingError: it is not; the text says what to download and where to put it. Never skipped: without it there is nothing to read.
        """
        if not path.exists():
            self.missing(path, "no such file or folder")
        return path

    def missing(self, where: object, problem: str) -> None:
        """Raises the MissingError of `require`."""
        raise MissingError(f"{self.dataset}: {where}" if self.dataset else where, problem, self.layout or "download it first")

    def summary(self) -> str:
        """What was skipped, a line each."""
        if not self.listed:
            return "nothing was skipped"
        return f"{len(self.listed)} skipped:\n" + "\n".join(f"  {line}" for line in self.listed)


class MissingError(InputError):
    """A part of a release that is not there at all."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset that people have.

    Attributes:
      name: as `genhmr data build` and the built dataset know it.
      kind: "poses" or "people": which of the two schemas of records.py its records follow.
      splits: names of its splits.
      layout: what to download, from where, and where to put it: the text that people see when it is missing.
      licence: what the release allows, in a line.
      citation: the paper.
      read: (root, split, report) -> its records. `root` is `folder` in the manual directory.
      folder: the folder of the manual directory that the release is put into.
      weights: of its subsets (the first part of a record's `sequence`) in a mixture, where a paper gives them.
    """

    name: str
    kind: str
    splits: tuple[str, ...]
    layout: str
    licence: str
    citation: str
    read: Callable[[Path, str, Report], Iterator[Record]]
    folder: str
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def report(self, skip_bad: bool = False) -> Report:
        """An empty report under this source's name and layout."""
        return Report(skip_bad, self.name, self.layout)

    def records(self, manual_dir: str | Path, split: str, report: Report) -> Iterator[Record]:
        """The records of a split, read from the releases in `manual_dir`, in the order of the files.

        Raises:
          InputError: no such split, the release is missing, or a record is bad and `report` does not skip.
        """
        if split not in self.splits:
            raise InputError(self.name, f"has no split {split!r}", f"it has {', '.join(self.splits)}")
        root = report.require(Path(manual_dir) / self.folder)
        count = 0
        for record in self.read(root, split, report):
            count += 1
            yield record
        if not count:
            skipped = f" ({len(report.listed)} skipped, first: {report.listed[0]})" if report.listed else ""
            report.missing(root, f"holds no readable record of split {split!r}{skipped}")
